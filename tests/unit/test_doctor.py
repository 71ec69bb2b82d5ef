"""``qpc doctor``: what each finding is called, and what a person is told to do about it."""

from __future__ import annotations

from typing import Any

import pytest

from quicprochat.adapters.mdns.probe import Heard, _take, question
from quicprochat.client import checks
from quicprochat.client.checks import FAIL, OK, WARN, Step
from quicprochat.client.doctor import line
from quicprochat.core.address import Address
from quicprochat.core.nat import Nat, kind
from quicprochat.core.network import Interface, Network, relay_is_allowed

ETH, ETH_6, LINK, LO = (
    Interface(2, "10.0.0.5", 24), Interface(2, "fd00::5", 64), Interface(2, "fe80::5", 64),
    Interface(1, "127.0.0.1", 8),
)  # fmt: skip
NAMES = {1: "lo", 2: "eth0", 3: "wlan0"}
SERVER = {"server": "10.0.0.1:7000", "domain": "village.example", "standing": "connected", "trouble": ""}


def view(**more: Any) -> dict[str, Any]:
    return {
        "networked": True, "addresses": ["10.0.0.5:4433", "[fd00::5]:4434"], "links": 2, "announced": 1, "seen": [],
        "underlay": [], "ways": 0, **more,
    }  # fmt: skip


def seen(*addresses: str) -> dict[str, Any]:
    return view(seen=[{"peer": "aa" * 32, "address": address} for address in addresses])


# --- the kind of NAT


@pytest.mark.parametrize(
    ("addresses", "found"),
    [
        ((), Nat.UNKNOWN),
        (("10.0.0.5:4433",), Nat.NONE),
        (("10.0.0.5:4433", "10.0.0.5:4433"), Nat.NONE),
        (("203.0.113.1:9",), Nat.SOME),
        (("203.0.113.1:9", "10.0.0.5:4433"), Nat.SOME),
        (("203.0.113.1:9", "203.0.113.1:9", "10.0.0.5:4433"), Nat.MASQUERADING),
        (("203.0.113.1:9", "203.0.113.1:10"), Nat.SYMMETRIC),
        (("203.0.113.1:9", "203.0.113.2:9"), Nat.SYMMETRIC),
        (("[fd00::5]:4434",), Nat.NONE),
        (("[fd00::5]:4434", "203.0.113.1:9"), Nat.SOME),
    ],
)
def test_the_kind_of_nat_follows_from_where_peers_see_us(addresses: tuple[str, ...], found: Nat) -> None:
    assert kind({"10.0.0.5", "fd00::5"}, map(Address.parse, addresses)) is found


def test_a_symmetric_nat_is_a_worry_only_without_a_relay() -> None:
    both = seen("203.0.113.1:9", "203.0.113.1:10")
    assert checks.nat(both, {"10.0.0.5"}, relayed=True).state == OK
    alone = checks.nat(both, {"10.0.0.5"}, relayed=False)
    assert (alone.state, alone.advice) == (WARN, "name one: --relay http://HOST:7002")
    assert "203.0.113.1:10, 203.0.113.1:9" in alone.text
    assert "masquerading" in checks.nat(seen("203.0.113.1:9", "203.0.113.1:9"), {"10.0.0.5"}, relayed=False).text
    assert "not known" in checks.nat(None, set(), relayed=False).text


# --- the machine


@pytest.mark.parametrize(
    ("free", "sync_ms", "wal", "state"),
    [
        (1 << 30, 3.0, True, OK), (1 << 30, 3.0, None, OK), (1 << 30, 3.0, False, FAIL), (15 << 20, 3.0, True, FAIL),
        (100 << 20, 3.0, True, WARN), (1 << 30, 900.0, True, WARN), (1 << 30, None, True, FAIL),
    ],
)  # fmt: skip
def test_the_disk(free: int, sync_ms: float | None, wal: bool | None, state: str) -> None:
    found = checks.disk(free, 16 << 20, sync_ms, "Read-only file system", wal=wal)
    assert found.state == state
    assert (found.advice == "") is (state == OK)
    assert ("Read-only" in found.text) is (sync_ms is None)


def test_interfaces_and_ipv6() -> None:
    assert checks.interfaces([LO, ETH, ETH_6, LINK], NAMES) == Step("interfaces", OK, "eth0 10.0.0.5 fd00::5")
    assert checks.interfaces([LO, LINK], NAMES).state == checks.interfaces([LO], NAMES).state == FAIL
    many = [Interface(n, f"10.0.{n}.1", 24) for n in range(20)]
    assert checks.interfaces(many, {n: f"e{n}" for n in range(20)}).text.endswith("and 12 more")
    assert "ULA" in checks.ipv6([LO, ETH_6, LINK]).text
    assert "global" in checks.ipv6([ETH_6, Interface(2, "2a01:4f8::5", 64)]).text
    assert checks.ipv6([ETH, LINK]).state == OK
    assert checks.ipv6([LO, LINK]).state == WARN


def test_clock_and_buffers() -> None:
    assert checks.clock(synchronised=True, plausible=True).state == OK
    assert checks.clock(synchronised=False, plausible=True).state == WARN
    assert checks.clock(synchronised=True, plausible=False).state == WARN
    assert checks.buffers(None).state == checks.buffers(212_992).state == OK
    assert checks.buffers(65_536).state == WARN


# --- the node and its surroundings


def test_the_node() -> None:
    assert (
        checks.node(view(), daemon=True, mesh=True, trouble="").text
        == "one runs, at UDP port 4433 and 4434, with 2 links"
    )
    alone = checks.node(view(), daemon=False, mesh=True, trouble="")
    assert (alone.state, alone.advice) == (WARN, "start one: qpc daemon")
    assert checks.node(view(networked=False, addresses=[]), daemon=True, mesh=False, trouble="").state == WARN
    assert checks.node(None, daemon=False, mesh=True, trouble="port in use") == Step("node", FAIL, "port in use")


def heard(
    interface: Interface, *answered: str, itself: bool = True, trouble: str = "", ours: tuple[str, ...] = ()
) -> Heard:
    return Heard(interface, trouble, itself, set(answered), set(ours))


def test_multicast_fails_only_where_no_interface_has_it() -> None:
    deaf, broken = heard(ETH, itself=False), heard(ETH_6, itself=False, trouble="Network is unreachable")
    assert checks.multicast([heard(ETH), heard(ETH_6)], NAMES) == Step(
        "multicast", OK, "eth0 IPv4 sent and heard, eth0 IPv6 sent and heard"
    )
    assert checks.multicast([heard(ETH), deaf], NAMES).state == WARN
    found = checks.multicast([deaf, broken], NAMES)
    assert found.state == FAIL
    assert found.text == "eth0 IPv4 sent and not heard, eth0 IPv6 not sent (Network is unreachable)"
    assert checks.multicast([], NAMES).state == FAIL
    assert checks.multicast(None, NAMES).state == checks.mdns(None, set(), None).state == OK


def test_of_those_who_answer_mdns_this_machine_is_none() -> None:
    own = {"10.0.0.5"}
    found = checks.mdns([heard(ETH, "10.0.0.5", "10.0.0.7", "10.0.0.8", ours=("10.0.0.5", "10.0.0.8"))], own, 1)
    assert found == Step(
        "mdns", OK, "2 other addresses answer, 1 of them with quicprochat; 1 peer announced here; a program on this"
        " machine does: 10.0.0.7, 10.0.0.8",
    )  # fmt: skip
    assert checks.mdns([heard(ETH, "10.0.0.5")], own, None).state == WARN
    assert checks.mdns([heard(ETH)], own, 2).state == OK


def test_what_comes_to_the_group_is_told_apart() -> None:
    asked, own = question("_services._dns-sd._udp.local.", "_quicprochat._udp.local."), frozenset({"10.0.0.5"})
    found, others = Heard(ETH), Heard(ETH)
    _take(others, asked, "10.0.0.7", asked, own)
    assert not others.itself, "another machine asks the same"
    _take(found, asked, "10.0.0.5", asked, own)
    assert found.itself
    answer = bytes(2) + b"\x84\x00" + bytes(8)
    for data, sender in (
        (answer, "10.0.0.7"),
        (answer + asked[12:], "10.0.0.8"),
        (b"\x84", "10.0.0.9"),
        (b"", "10.0.0.9"),
    ):
        _take(found, data, sender, asked, own)
    assert found.answered == {"10.0.0.7", "10.0.0.8"}
    assert found.ours == {"10.0.0.8"}


OURS: dict[str, Any] = {"url": "http://10.0.0.1:7002", "owner": True, "home": True}
FAR: dict[str, Any] = {"url": "https://relay.example.net", "owner": False, "home": False}


def test_relays() -> None:
    assert checks.relays([], Network.COMMUNITY).state == OK
    assert checks.relays([(OURS, 12.0, True)], Network.COMMUNITY) == Step(
        "relay", OK, "http://10.0.0.1:7002 answers in 12 ms, we are reachable there"
    )
    assert checks.relays([(OURS, None, True)], Network.COMMUNITY).state == FAIL
    assert checks.relays([(OURS, None, True), (FAR, 30.0, True)], Network.INTERNET).state == WARN
    left = checks.relays([(FAR, None, False)], Network.LAN)
    assert (left.state, left.text) == (OK, "https://relay.example.net is not asked (network lan)")


@pytest.mark.parametrize(
    ("url", "network", "owner", "allowed"),
    [
        ("http://10.0.0.1:7002", Network.LAN, False, True),
        ("http://198.51.100.1:7002", Network.LAN, True, False),
        ("http://relay.lan:7002", Network.LAN, True, False),
        ("http://relay.lan:7002", Network.COMMUNITY, True, True),
        ("http://relay.lan:7002", Network.COMMUNITY, False, False),
        ("http://relay.lan:7002", Network.INTERNET, False, True),
    ],
)
def test_which_relays_may_be_asked(url: str, network: Network, owner: bool, allowed: bool) -> None:
    assert relay_is_allowed(url, network, (), owner=owner) is allowed


@pytest.mark.parametrize(
    ("standing", "state"),
    [
        ("connected", OK), ("connecting", WARN), ("stranger", WARN), ("none", WARN), ("unreachable", FAIL),
        ("untrusted", FAIL),
    ],
)  # fmt: skip
def test_the_home_server(standing: str, state: str) -> None:
    found = checks.server({**SERVER, "standing": standing, "trouble": "why"})
    assert found.state == state
    assert found.text.startswith("10.0.0.1:7000 (village.example) ")
    assert checks.server(None).state == checks.server({**SERVER, "server": ""}).state == OK


def test_the_underlay() -> None:
    assert checks.underlay(view()).state == checks.underlay(None).state == OK
    assert checks.underlay(view(underlay=["babel"], ways=9)).text == "babel: 9 routes with a metric"


def test_a_step_is_one_line_and_what_a_server_says_cannot_steer_the_terminal() -> None:
    shown = line(checks.server({**SERVER, "domain": "evil\x1b[2J\nok    clock: fine", "standing": "untrusted"}))
    assert shown.startswith("fail  server: ")
    assert "\n" not in shown
    assert "\x1b" not in shown
