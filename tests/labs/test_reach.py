"""Two houses behind NATs: through the community's relay where there is no other way, directly where physics allows.

Each test prints how long it took to recover, so that whoever runs it alone (``-s``) sees that.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.integration.qpc import PROGRAM, environment
from tests.labs.bridge import sh
from tests.labs.houses import HUB, SPARE, Houses, drop, houses, nft, pass_again
from tests.labs.machine import Machine, until
from tests.labs.veth import needs_root

pytestmark = [pytest.mark.lab, needs_root]
pytest.importorskip("iroh", reason="needs the extra [mesh]")

BAD_RELAY = """
import random
from quicprochat.adapters.relay.server import Relay
good, held, luck = Relay.forward, [], random.Random(1)
def forward(self, sender, to, frame):
    turn = luck.random()
    if turn < 0.1:
        return
    if turn < 0.2:
        held.append((sender, to, frame))
        return
    good(self, sender, to, frame)
    if turn < 0.3:
        good(self, sender, to, frame)
    while held and turn > 0.6:
        good(self, *held.pop())
Relay.forward = forward
"""
"""A relay that drops, repeats and reorders each tenth frame."""
LIAR = """
from quicprochat.core.address import Address
from quicprochat.p2p.link import PeerLink
PeerLink._tell_observed = lambda self: self._told or lie(self)
def lie(self):
    from quicprochat.core.link import FrameType, frame
    self._told = ("203.0.113.2", 9)
    self.send(frame(FrameType.OBSERVED, Address("203.0.113.2", 9).encode()))
"""
"""A node that says it sees everybody at an address of somebody who has nothing to do with it."""
FEW_PACKETS = 200
"""What a third party may get of a lie, in all (docs/labs.md)."""
RESUMED_S = 10.0
"""Any single failure is over after so long (docs/labs.md)."""


class Relay:
    """``qpc relay`` on a machine of the public segment."""

    def __init__(self, namespace: str, ip: str, prelude: str = "") -> None:
        """``prelude`` is what the program runs first."""
        self.url = f"http://{ip}:7002"
        python = ["ip", "netns", "exec", namespace, sys.executable, "-W", "error", "-c"]
        self._command = [*python, prelude + PROGRAM, "relay", "--listen", f"{ip}:7002"]
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True, env=environment())
        assert self._process.stdout is not None
        assert self._process.stdout.readline().startswith("ready")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


class Lab:
    """The houses with a node each, and what stands on the street."""

    def __init__(self, names: Houses, tmp: Path, relay: str) -> None:
        self.names = names
        self.a, self.b, self.hub = (
            Machine(name, tmp / home) for name, home in ((names.a, "a"), (names.b, "b"), (names.hub, "hub"))
        )
        self.relay, self.spare = Relay(names.hub, HUB, relay), Relay(names.spare, SPARE)

    def acquaint(self) -> None:
        """Make contacts of the two houses, with the relay in their tickets."""
        self.a.qpc("add", self.b.qpc("identity")["ticket"], "--name", "bob")
        self.b.qpc("add", self.a.qpc("identity")["ticket"], "--name", "ada")
        until(lambda: self.a.linked(self.b.key))

    def reflect(self) -> None:
        """Put a node on the street and make both houses trust it: it sees them from outside."""
        self.hub.start("--no-discovery", "--bind", "0.0.0.0:4433")
        for machine in (self.a, self.b):
            machine.qpc("add", self.hub.qpc("identity")["ticket"], "--name", "hub")

    def relayed(self) -> bool | None:
        """Say whether a's link to b goes through a relay; None while there is no link."""
        ways = {route["name"]: route["relayed"] for route in self.a.qpc("mesh", "route")}
        return ways.get("bob")

    def exchange(self, text: str, patience_s: float = RESUMED_S) -> float:
        """Send both ways until both are delivered; return how long that took."""
        began = time.monotonic()
        for machine, name in ((self.a, "bob"), (self.b, "ada")):
            left = str(max(1.0, patience_s - (time.monotonic() - began)))
            sent = machine.qpc("send", name, text, "--wait", "delivered", "--timeout", left)
            assert sent["state"] == "delivered"
        return time.monotonic() - began

    def nothing_twice(self, *texts: str) -> None:
        for machine in (self.a, self.b):
            assert sorted(line["text"] for line in machine.inbox()) == sorted(texts)


@contextmanager
def lab(
    tmp: Path, *options: str, symmetric_a: bool = False, symmetric_b: bool = False, two_relays: bool = False,
    relay: str = "",
) -> Iterator[Lab]:  # fmt: skip
    """``relay`` is the prelude of the relay's program."""
    with houses(symmetric_a=symmetric_a, symmetric_b=symmetric_b) as names:
        made = Lab(names, tmp, relay)
        try:
            made.relay.start()
            if two_relays:
                made.spare.start()
            for machine, home in ((made.a, made.relay), (made.b, made.spare if two_relays else made.relay)):
                machine.start("--relay", home.url, "--no-discovery", *options)
            made.acquaint()
            yield made
        finally:
            made.relay.kill()
            made.spare.kill()
            for machine in (made.a, made.b, made.hub):
                machine.stop()


def told(what: str, seconds: float) -> None:
    print(f"{what}: {seconds:.1f} s")


def test_two_nats_talk_through_the_relay_and_directly_once_they_are_seen(tmp_path: Path) -> None:
    with lab(tmp_path) as houses:
        told("through the relay", houses.exchange("one"))
        assert houses.relayed() is True
        houses.reflect()
        told("direct after", until(lambda: houses.relayed() is False))
        houses.relay.kill()
        told("without the relay", houses.exchange("two"))
        houses.nothing_twice("one", "two")


@pytest.mark.parametrize("both", [False, True], ids=["one symmetric", "both symmetric"])
def test_a_symmetric_nat_stays_at_the_relay(tmp_path: Path, both: bool) -> None:
    with lab(tmp_path, symmetric_a=True, symmetric_b=both) as houses:
        houses.reflect()
        until(lambda: houses.a.linked(houses.hub.key) and houses.b.linked(houses.hub.key))
        told("through the relay", houses.exchange("one"))
        assert houses.relayed() is True
        houses.nothing_twice("one")


def test_a_relay_that_is_killed_and_started_again_is_used_again(tmp_path: Path) -> None:
    with lab(tmp_path) as houses:
        houses.exchange("one")
        houses.relay.kill()
        houses.relay.start()
        told("after the restart", houses.exchange("two"))
        houses.nothing_twice("one", "two")


def test_of_two_relays_one_may_die(tmp_path: Path) -> None:
    """Each house is at a relay of its own, and knows the other's from its contact."""
    with lab(tmp_path, "--network", "internet", two_relays=True) as houses:
        houses.exchange("one")
        houses.relay.kill()
        told("over the other relay", houses.exchange("two"))
        houses.spare.kill()
        houses.relay.start()
        told("and back", houses.exchange("three"))
        houses.nothing_twice("one", "two", "three")


def test_a_relay_that_falls_silent_is_left(tmp_path: Path) -> None:
    """Packets to it vanish, as when a radio link dies: nobody is told."""
    with lab(tmp_path, "--network", "internet", two_relays=True) as houses:
        houses.exchange("one")
        drop(houses.names.hub, "tcp dport 7002")
        told("over the other relay", houses.exchange("two"))
        pass_again(houses.names.hub)
        houses.nothing_twice("one", "two")


def test_a_direct_path_that_falls_silent_is_left_for_the_relay(tmp_path: Path) -> None:
    with lab(tmp_path) as houses:
        houses.reflect()
        until(lambda: houses.relayed() is False)
        houses.exchange("one")
        drop(houses.names.router_a, "ip saddr 203.0.113.20 meta l4proto udp")
        drop(houses.names.router_b, "ip saddr 203.0.113.10 meta l4proto udp")
        told("over the relay", houses.exchange("two"))
        pass_again(houses.names.router_a)
        pass_again(houses.names.router_b)
        told("direct again", until(lambda: houses.relayed() is False, 60.0))
        houses.exchange("three")
        houses.nothing_twice("one", "two", "three")


def test_a_house_gets_another_address_in_mid_conversation(tmp_path: Path) -> None:
    with lab(tmp_path) as houses:
        houses.reflect()
        until(lambda: houses.relayed() is False)
        houses.exchange("one")
        houses.a.ip("addr", "del", "192.168.1.2/24", "dev", "eth0")
        houses.a.ip("addr", "add", "192.168.1.77/24", "dev", "eth0")
        houses.a.ip("route", "add", "default", "via", "192.168.1.1")
        told("after the change", houses.exchange("two"))
        houses.nothing_twice("one", "two")


def test_thirty_of_a_hundred_packets_are_lost_both_ways(tmp_path: Path) -> None:
    with lab(tmp_path) as houses:
        houses.reflect()
        until(lambda: houses.relayed() is False)
        drop(houses.names.router_a, "numgen random mod 100 < 30")
        texts = [str(n) for n in range(5)]
        told("five each way", sum(houses.exchange(text, 30.0) for text in texts))
        houses.nothing_twice(*texts)


def test_a_relay_that_drops_repeats_and_reorders_harms_nobody(tmp_path: Path) -> None:
    with lab(tmp_path, symmetric_a=True, symmetric_b=True, relay=BAD_RELAY) as houses:
        texts = [f"{n} " + "long " * 4_000 for n in range(5)]
        told("five each way", sum(houses.exchange(text, 30.0) for text in texts))
        assert houses.relayed() is True
        houses.nothing_twice(*texts)


def test_a_lying_witness_makes_few_packets_go_to_a_third_party(tmp_path: Path) -> None:
    with lab(tmp_path) as houses:
        nft(
            houses.names.spare,
            "table inet lab { counter lied { }; chain inwards { type filter hook input priority 0;"
            " udp dport 9 counter name lied; }; }",
        )
        houses.hub.prelude = LIAR
        houses.reflect()
        until(lambda: any("203.0.113.2:9" in peer["addresses"] for peer in houses.b.qpc("mesh", "peers")))
        for n in range(3):
            houses.exchange(str(n))
        counted = json.loads(sh("ip", "netns", "exec", houses.names.spare, "nft", "-j", "list", "counters"))["nftables"]
        (packets,) = [entry["counter"]["packets"] for entry in counted if "counter" in entry]
        print(f"packets to the third party: {packets}")
        assert 0 < packets < FEW_PACKETS
