"""``--network lan`` shown by a capture: nothing leaves for anywhere but local networks, and DNS is asked nothing.

The machine has a default route, a resolver, a home server that was chosen earlier, and a contact whose ticket holds
public addresses and a relay's name. The same capture sees the packets of the other modes, so that what is not seen
would have been.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.labs.bridge import machines
from tests.labs.machine import PATIENCE_S, Machine, until
from tests.labs.veth import needs_root

from quicprochat.adapters.crypto import Ed25519Signer
from quicprochat.adapters.home import Home
from quicprochat.adapters.sqlite.store import SqliteStore
from quicprochat.core.address import Address
from quicprochat.core.identity import Ticket
from quicprochat.p2p.account import SERVER_KEY

pytestmark = [
    pytest.mark.lab, needs_root, pytest.mark.timeout(120),
    pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not installed"),
]  # fmt: skip
pytest.importorskip("iroh", reason="needs the extra [mesh]")

SINK, SINK_6 = "10.97.0.3", "fd97::3"
FAR, FAR_6, NEIGHBOURS_FAR = "198.51.100.7", "2001:db8:77::7", "198.51.100.9"
RESOLVER = "198.51.100.53"
LOCAL = ("10.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32", "0.0.0.0/32")
LOCAL_6 = ("fd97::/64", "fe80::/10", "ff00::/8", "::1/128", "::/128")
MANUAL = Path(__file__).resolve().parents[2] / "docs" / "manual" / "reaching.md"
ENOUGH_S = 3.0
"""How long a node is watched: its first dials, a few repeated ones, and a look at the relays."""


class Capture:
    """tcpdump on every interface of a machine, of what goes elsewhere than the local networks, or to a name server."""

    def __init__(self, machine: Machine) -> None:
        four = " or ".join(f"dst net {net}" for net in LOCAL)
        six = " or ".join(f"ip6 dst net {net}" for net in LOCAL_6)
        what = f"(ip and not ({four})) or (ip6 and not ({six})) or port 53"
        self._process = subprocess.Popen(
            machine.command("tcpdump", "-i", "any", "-n", "-l", "--immediate-mode", what),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stderr is not None
        while not self._process.stderr.readline().startswith("listening"):
            assert self._process.poll() is None

    def end(self) -> str:
        self._process.terminate()
        seen, _ = self._process.communicate(timeout=PATIENCE_S)
        return seen.strip()


@contextmanager
def resolver(machine: Machine) -> Iterator[None]:
    """Give a machine a name server of its own (ip-netns(8))."""
    directory = Path("/etc/netns") / machine.name
    directory.mkdir(parents=True)
    try:
        (directory / "resolv.conf").write_text(f"nameserver {RESOLVER}\n")
        yield
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    with machines(3) as names:
        a, b, sink = (Machine(name, tmp_path / str(n)) for n, name in enumerate(names))
        with resolver(a):
            sink.ip("route", "add", "blackhole", "default")
            a.ip("route", "add", "default", "via", SINK)
            a.ip("-6", "route", "add", "default", "via", SINK_6)
            far = (Address(FAR, 7_777), Address(FAR_6, 7_777))
            key = Ed25519Signer(b"f" * 32).key
            a.qpc("add", str(Ticket(key, far, "https://relay.example.net")), "--name", "far")
            store = SqliteStore.open(Home(a.home).database)
            store.begin()
            store.set_value(SERVER_KEY, b"village.example:7000")
            store.commit()
            store.close()
            try:
                yield a, b
            finally:
                for machine in (a, b):
                    machine.stop()


def watched(a: Machine, b: Machine, mode: str, *options: str) -> str:
    """Run both nodes, let them write, ask the doctor; return what left for elsewhere."""
    capture = Capture(a)
    a.start("--network", mode, *options)
    b.start()
    until(lambda: a.linked(b.key))
    for machine, other in ((a, b.key), (b, a.key)):
        sent = machine.qpc("send", other[:16], "hello", "--wait", "delivered", "--timeout", "10")
        assert sent["state"] == "delivered"
    a.run("send", "far", "are you there?", "--wait", "delivered", "--timeout", str(ENOUGH_S))
    a.doctor()
    a.stop()
    return capture.end()


def test_with_lan_nothing_leaves_and_dns_is_asked_nothing(lab: tuple[Machine, Machine]) -> None:
    assert watched(*lab, "lan") == ""


@pytest.mark.xfail(reason="iroh's binding has no filter for the addresses that a linked peer offers (docs/adr/0023)")
def test_with_lan_a_linked_neighbour_cannot_make_us_try_its_public_address(lab: tuple[Machine, Machine]) -> None:
    lab[1].ip("addr", "add", f"{NEIGHBOURS_FAR}/32", "dev", "eth0")
    assert watched(*lab, "lan") == ""


def test_the_firewall_of_the_manual_holds_even_those(lab: tuple[Machine, Machine]) -> None:
    a, b = lab
    b.ip("addr", "add", f"{NEIGHBOURS_FAR}/32", "dev", "eth0")
    rules = [line for line in MANUAL.read_text("utf-8").splitlines() if line.startswith("nft ")]
    assert len(rules) == 4
    for rule in rules:
        subprocess.run(a.command("sh", "-c", rule), check=True)
    assert watched(a, b, "lan", "--bind", "0.0.0.0:4433") == ""


def test_with_community_the_same_capture_sees_the_address_that_a_person_named(lab: tuple[Machine, Machine]) -> None:
    seen = watched(*lab, "community")
    assert f" > {FAR}.7777: " in seen
    assert f" > {FAR_6}.7777: " in seen
    assert f" > {RESOLVER}.53: " in seen, "the name of the home server"
    assert "relay.example.net" not in seen, "a contact's relay outside is not the owner's choice"


def test_with_internet_it_sees_the_relay_that_a_contact_named(lab: tuple[Machine, Machine]) -> None:
    assert "relay.example.net" in watched(*lab, "internet")
