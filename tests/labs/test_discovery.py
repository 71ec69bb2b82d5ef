"""Machines on one switch find each other with nobody telling them, and nothing a stranger announces does any harm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.labs import dns
from tests.labs.avahi import AVAHI, avahi_browse
from tests.labs.bridge import machines, sh
from tests.labs.machine import PATIENCE_S, Machine, until
from tests.labs.veth import needs_root

pytestmark = [pytest.mark.lab, needs_root, pytest.mark.timeout(120)]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[list[Machine]]:
    with machines(3) as names:
        found = [Machine(name, tmp_path / str(n)) for n, name in enumerate(names)]
        try:
            yield found
        finally:
            for machine in found:
                machine.stop()


def result(process: subprocess.Popen[str]) -> Any:
    out, _ = process.communicate(timeout=PATIENCE_S + 20)
    assert process.returncode == 0
    return json.loads(out.splitlines()[-1])


def test_two_find_each_other_link_and_write_and_others_see_what_they_announce(lab: list[Machine]) -> None:
    a, b, third = lab
    a.start()
    b.start()
    keys = a.key, b.key
    until(lambda: a.linked(keys[1]) and b.linked(keys[0]))
    peer = a.peer(keys[1])
    assert peer is not None
    assert (peer["role"], peer["contact"], peer["announced"], peer["server"]) == ("node", False, True, "")
    assert any(address.startswith("10.97.0.2:") for address in peer["addresses"])
    sent = a.qpc("send", keys[1][:16], "hello", "--wait", "delivered", "--timeout", "10")
    assert (sent["state"], sent["to"]) == ("delivered", keys[1])

    seen = result(third.dns("browse", "3"))
    wanted = {f"{key[:16]}.{dns.SERVICE}": sorted(("ver=1", "role=node", f"id={key}")) for key in keys}
    assert {name: sorted(seen[name]["txt"]) for name in wanted} == wanted
    for machine, key, ip in ((a, keys[0], "10.97.0.1"), (b, keys[1], "10.97.0.2")):
        instance = seen[f"{key[:16]}.{dns.SERVICE}"]
        assert ip in instance["addresses"]
        assert not any(text.startswith(("fe80", "127.", "::1")) for text in instance["addresses"])
        assert f"{ip}:{instance['port']}" in machine.qpc("identity")["addresses"]

    b.stop()  # and says goodbye
    until(lambda: (found := a.peer(keys[1])) is None or not (found["announced"] or found["linked"]))
    b.start()
    until(lambda: a.linked(keys[1]))


@pytest.mark.skipif(not AVAHI, reason="avahi-daemon, avahi-browse and dbus-daemon are not installed")
def test_avahi_sees_both(lab: list[Machine]) -> None:
    a, b, third = lab
    a.start()
    b.start()
    keys = {key[:16]: key for key in (a.key, b.key)}
    found = avahi_browse(third.name, "_quicprochat._udp", lambda found: found.keys() >= keys.keys())
    for name, key in keys.items():
        assert f'"id={key}"' in found[name]
        assert '"role=node"' in found[name]
        assert '"ver=1"' in found[name]


@pytest.mark.parametrize("first", ["the quiet one first", "the quiet one second"])
def test_a_quiet_node_is_linked_and_never_named(lab: list[Machine], first: str) -> None:
    a, b, third = lab
    a_key, b_key = a.key, b.key
    hearing = third.dns("hear", "6")
    assert hearing.stdout is not None
    assert hearing.stdout.readline() == "listening\n"
    if first == "the quiet one first":
        b.start("--quiet")
        a.start()
    else:
        a.start()
        b.start("--quiet")
    until(lambda: a.linked(b_key) and b.linked(a_key))
    heard = result(hearing)
    names = bytes.fromhex(a_key)[:4].hex().encode(), bytes.fromhex(b_key)[:4].hex().encode()
    assert any(names[0] in bytes.fromhex(packet) for _, packet in heard)
    assert any(sender == "10.97.0.2" for sender, _ in heard), "it asks"
    assert not any(names[1] in bytes.fromhex(packet) for _, packet in heard), "and says nothing of itself"


def test_without_discovery_there_is_not_one_packet(lab: list[Machine]) -> None:
    a, b, third = lab
    a.start()
    b.start("--no-discovery")
    hearing = third.dns("hear", "3")
    heard = result(hearing)
    assert not [packet for sender, packet in heard if sender == "10.97.0.2"]
    assert a.peer(b.key) is None
    # A ticket works all the same.
    b.qpc("add", a.qpc("identity")["ticket"], "--name", "alice")
    until(lambda: b.linked(a.key))


def packets(machine: Machine) -> dict[str, int]:
    """Return the counters of the table that :func:`count` made."""
    listed = json.loads(sh("ip", "netns", "exec", machine.name, "nft", "-j", "list", "counters"))
    return {c["counter"]["name"]: c["counter"]["packets"] for c in listed["nftables"] if "counter" in c}


def count(machine: Machine, *ports: int) -> None:
    """Count what leaves for other networks, for our own programs' ports, and for the third machine's port 7777."""
    local = "10.97.0.0/24, 224.0.0.0/4, 255.255.255.255, 127.0.0.0/8"
    rules = f"""table inet lab {{
        counter far {{}}
        counter inside {{}}
        counter third {{}}
        chain out {{
            type filter hook output priority 0;
            ip daddr != {{ {local} }} counter name far
            ip6 daddr != {{ fd97::/64, ff00::/8, fe80::/10, ::1 }} counter name far
            oifname lo udp dport {{ {", ".join(map(str, ports))} }} counter name inside
            ip daddr 10.97.0.3 udp dport 7777 counter name third
        }}
    }}"""
    subprocess.run(machine.command("nft", "-f", "-"), input=rules, text=True, check=True)


def test_rubbish_and_lies_do_no_harm_and_no_packet_leaves_the_network(lab: list[Machine]) -> None:
    a, b, third = lab
    a.ip("route", "add", "default", "via", "10.97.0.3")
    a.ip("-6", "route", "add", "default", "via", "fd97::3")
    count(a, 7_001, 7_002)
    a_key, b_key = a.key, b.key
    a.start()

    def txt(key: str, *more: bytes) -> bytes:
        return dns.strings(b"ver=1", b"role=node", b"id=" + key.encode(), *more)

    stranger = [os.urandom(32).hex() for _ in range(10)]
    public = ["8.8.8.8", "2001:4860:4860::8888", "198.51.100.7"]
    lies = [
        dns.announcement("rubbish", os.urandom(300), ["10.97.0.3"], 9),
        dns.announcement("endless", b"\xff" * 1_400, ["10.97.0.3"], 9),
        dns.announcement("missing", None, ["10.97.0.3"], 9),
        dns.announcement("empty", b"", ["10.97.0.3"], 9),
        dns.announcement("nokey", dns.strings(b"ver=1", b"role=node"), ["10.97.0.3"], 9),
        dns.announcement("version", dns.strings(b"ver=9", b"id=" + stranger[0].encode()), ["10.97.0.3"], 9),
        dns.announcement("own", txt(a_key), ["10.97.0.3"], 9),
        dns.announcement(a_key[:16], txt(stranger[1]), ["10.97.0.3"], 9),
        dns.announcement("another", txt(b_key), ["10.97.0.3"], 7_777),
        dns.announcement("public", txt(stranger[2]), public, 7_000),
        dns.announcement("loopback", txt(stranger[3]), ["127.0.0.1", "::1", "127.0.0.2"], 7_001),
        dns.announcement("mapped", txt(stranger[4]), ["::ffff:127.0.0.1", "::ffff:8.8.8.8"], 7_002),
        dns.announcement("group", txt(stranger[5]), ["224.0.0.251", "255.255.255.255", "0.0.0.0", "fe80::1"], 5_353),
        dns.announcement("é\x1b[2J\x07", txt(stranger[6], b"domain=\x1b]0;x\x07"), ["10.97.0.3"], 9),
        dns.announcement("server", dns.strings(b"server=8.8.8.8:7000", b"domain=\x1b[2Jx"), public, 7_000),
        dns.announcement("unknown", txt(stranger[7], b"colour=blue", b"=x", b"\xff\xfe"), ["10.97.0.3"], 7_777),
        os.urandom(400), b"\0" * 12, b"",
    ]  # fmt: skip
    with third.dns("send", *(lie.hex() for lie in lies)) as sending:
        assert sending.wait(PATIENCE_S) == 0
    # The one that says nothing wrong is heard, and dialled; and it was sent after the others.
    until(lambda: packets(a)["third"] > 0)
    b.start()
    until(lambda: a.linked(b_key))
    assert a.qpc("send", b_key, "hello", "--wait", "delivered", "--timeout", "10")["state"] == "delivered"
    until(lambda: a.peer(stranger[7]) is not None)
    listed = {peer["public_key"]: peer for peer in a.qpc("mesh", "peers") if peer["role"] == "node"}
    assert set(listed) <= {b_key, *stranger}
    assert not {stranger[0], *stranger[2:6]} & set(listed), "who can be dialled nowhere is not listed"
    assert [peer["server"] for peer in a.qpc("mesh", "peers") if peer["role"] == "server"] == ["8.8.8.8:7000"]
    assert packets(a) | {"third": 0} == {"far": 0, "inside": 0, "third": 0}
    # The counters do count.
    for port, ip in ((7_001, "127.0.0.1"), (53, "8.8.8.8"), (53, "2001:4860:4860::8888")):
        family = "socket.AF_INET6" if ":" in ip else "socket.AF_INET"
        send = f"import socket; socket.socket({family}, socket.SOCK_DGRAM).sendto(b'', ({ip!r}, {port}))"
        sh(*a.command(sys.executable, "-c", send))
    assert packets(a) | {"third": 0} == {"far": 2, "inside": 1, "third": 0}
    a.stop()


def test_a_network_that_comes_late_and_one_that_changes_are_noticed(lab: list[Machine]) -> None:
    a, b, _ = lab
    b.ip("link", "set", "eth0", "down")
    b.ip("addr", "flush", "dev", "eth0")
    a.start()
    b.start("-v")
    a_key, b_key = a.key, b.key
    b.ip("link", "set", "eth0", "up")
    b.ip("addr", "add", "10.97.0.77/24", "dev", "eth0")
    until(lambda: a.linked(b_key))
    b.ip("addr", "flush", "dev", "eth0")
    b.ip("addr", "add", "10.97.0.88/24", "dev", "eth0")

    def moved() -> bool:
        found = a.peer(b_key)
        return found is not None and any(address.startswith("10.97.0.88:") for address in found["addresses"])

    until(moved, 30)
    until(lambda: b.linked(a_key), 30)
    talk = b.stop()
    assert talk.count("no interface for multicast") <= 1, "said once"
