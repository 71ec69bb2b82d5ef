"""The steps of ``qpc doctor``: from what was found, what a person is told. No step looks at anything itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quicprochat.adapters.mdns.probe import Heard
from quicprochat.client.perform import INSTALL
from quicprochat.console.text import plural
from quicprochat.core.address import Address
from quicprochat.core.nat import Nat, kind
from quicprochat.core.network import Interface, Network

OK, WARN, FAIL = "ok", "warn", "fail"
SLOW_DISK_MS = 500.0
ROOMY = 10
"""A disk with less than so many reserves free is worth a word."""
RECEIVE_DEFAULT_BYTES = 212_992
"""What Linux allows unless told otherwise: enough for a person's node."""
SHOWN = 8
"""Interfaces, relays and routers named in one line; others are counted."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was looked at: "ok", "warn" or "fail", what was found, and what to do, "" for nothing."""

    name: str
    state: str
    text: str
    advice: str = ""


def worst(states: Collection[str]) -> str:
    """Return "fail" where all failed, "warn" where some did, or warned; else "ok"."""
    if states and all(state == FAIL for state in states):
        return FAIL
    return OK if all(state == OK for state in states) else WARN


def some(parts: Sequence[str]) -> str:
    """Return a list for a line."""
    return ", ".join(parts[:SHOWN]) + (f" and {len(parts) - SHOWN} more" if len(parts) > SHOWN else "")


def installation(*, mesh: bool) -> Step:
    """Say whether links over iroh are possible."""
    if mesh:
        return Step("installation", OK, "iroh is installed, so links to peers are possible")
    return Step("installation", WARN, "without iroh there are no links; messages go through a home server", INSTALL)


def disk(free: int, reserve: int, sync_ms: float | None, trouble: str, *, wal: bool | None) -> Step:
    """Say whether messages can be kept. ``sync_ms`` is None where nothing could be written; ``trouble`` says why."""
    room = f"{free >> 20} MiB free"
    if sync_ms is None:
        return Step("disk", FAIL, f"the home cannot be written: {trouble}", "look at its owner, its mode and the disk")
    if free < reserve:
        return Step("disk", FAIL, f"almost full, {room}: no new messages are taken", "make room")
    if wal is False:
        return Step("disk", FAIL, f"{room}, but the database has no write-ahead log", "move the home to a local disk")
    if free < ROOMY * reserve:
        return Step("disk", WARN, f"{room}; below {reserve >> 20} MiB no new messages are taken", "make room")
    if sync_ms > SLOW_DISK_MS:
        return Step("disk", WARN, f"{room}, but writing takes {sync_ms:.0f} ms", "each message waits for that")
    return Step("disk", OK, f"{room}, written through in {sync_ms:.0f} ms")


def interfaces(found: Sequence[Interface], names: Mapping[int, str]) -> Step:
    """Say at which addresses peers can reach us; ``names`` has the interfaces' by number."""
    by_link: dict[int, list[str]] = {}
    for interface in found:
        if not interface.loopback and not interface.link_local:
            by_link.setdefault(interface.index, []).append(interface.ip)
    if by_link:
        return Step("interfaces", OK, some([f"{names[index]} {' '.join(ips)}" for index, ips in by_link.items()]))
    if any(not interface.loopback for interface in found):
        text = "only link-local addresses, at which peers cannot be dialled"
        return Step("interfaces", FAIL, text, "get an address: by DHCP, by router advertisements, or by hand")
    return Step("interfaces", FAIL, "no network but this machine itself", "connect to one")


def ipv6(found: Sequence[Interface]) -> Step:
    """Say which kind of IPv6 address there is: community networks use local ones (RFC 4193)."""
    six = [i.network.network_address for i in found if ":" in i.ip and not i.loopback and not i.link_local]
    if any(address.is_global for address in six):
        return Step("ipv6", OK, "a global address")
    if six:
        return Step("ipv6", OK, "a local address (ULA), as community networks have them")
    if any(":" not in i.ip and not i.loopback for i in found):
        return Step("ipv6", OK, "none beyond the link; IPv4 serves")
    return Step("ipv6", WARN, "none beyond the link, and no IPv4 either", "get an address")


def node(view: Mapping[str, Any] | None, *, daemon: bool, mesh: bool, trouble: str) -> Step:
    """Say whether a node runs. ``daemon``: one that stays owns the home; else a node of this call did, or could not."""
    if view is None:
        return Step("node", FAIL, trouble)
    ports = sorted({Address.parse(address).port for address in view["addresses"]})
    port = f"UDP port {' and '.join(map(str, ports))}" if ports else "no port"
    if not daemon:
        could = f"; {port} can be opened" if ports else ""
        return Step("node", WARN, f"none runs on this home: nothing arrives{could}", "start one: qpc daemon")
    if not view["networked"]:
        return Step("node", WARN, "one runs, and has no links", "" if mesh else INSTALL)
    return Step("node", OK, f"one runs, at {port}, with {plural(view['links'], 'link')}")


def multicast(found: Sequence[Heard] | None, names: Mapping[int, str]) -> Step:
    """Say on which interfaces multicast works; None: it was not tried, because it is turned off."""
    if found is None:
        return Step("multicast", OK, "not tried: discovery is turned off")
    if not found:
        return Step("multicast", FAIL, "there is no interface to send on", "connect to a network")
    parts, states = [], []
    for heard in found:
        where = f"{names[heard.interface.index]} IPv{heard.interface.network.version}"
        if heard.trouble:
            what = f"not sent ({heard.trouble})"
        else:
            what = "sent and heard" if heard.itself else "sent and not heard"
        parts.append(f"{where} {what}")
        states.append(OK if heard.itself else FAIL)
    state = worst(states)
    advice = "" if state == OK else "let UDP port 5353 in; on an interface without it, add peers by ticket"
    return Step("multicast", state, some(parts), advice)


def mdns(found: Sequence[Heard] | None, own: Collection[str], announced: int | None) -> Step:
    """Say who answers; ``own`` are this machine's addresses, ``announced`` counts the peers that its node heard of."""
    if found is None:
        return Step("mdns", OK, "not tried: discovery is turned off")
    answered = {ip for heard in found for ip in heard.answered}
    others, ours = answered - set(own), {ip for heard in found for ip in heard.ours} - set(own)
    beside = "; a program on this machine does" if answered & set(own) else ""
    peers = f"; {plural(announced, 'peer')} announced here" if announced else ""
    if others:
        many = f"{len(others)} other addresses answer" if len(others) > 1 else "1 other address answers"
        who = some(sorted(others))
        return Step("mdns", OK, f"{many}, {len(ours)} of them with quicprochat{peers}{beside}: {who}")
    if peers:
        return Step("mdns", OK, f"nobody else answers now{peers}{beside}")
    advice = "where others are on this network, it keeps its guests apart, or mDNS ends before them: use tickets"
    return Step("mdns", WARN, f"nobody else answers{beside}", advice)


def relays(found: Sequence[tuple[Mapping[str, Any], float | None, bool]], mode: Network) -> Step:
    """Say which relays answer: each with how long that took in milliseconds, None for no answer, and whether asked."""
    if not found:
        return Step("relay", OK, "none is known; only peers behind NATs need one")
    parts, states = [], []
    for relay, ms, asked in found:
        if not asked:
            parts.append(f"{relay['url']} is not asked (network {mode.value})")
            continue
        here = ", we are reachable there" if relay["home"] else ""
        parts.append(f"{relay['url']} answers in {ms:.0f} ms{here}" if ms is not None else f"{relay['url']} is silent")
        states.append(OK if ms is not None else FAIL)
    state = worst(states)
    advice = "" if state == OK else "look whether it runs, and whether TCP to it passes"
    return Step("relay", state, some(parts), advice)


def server(found: Mapping[str, Any] | None) -> Step:
    """Say how we stand with the home server."""
    if found is None or not found["server"]:
        return Step("server", OK, "no home server is chosen")
    name = f"{found['server']}{' (' + found['domain'] + ')' if found['domain'] else ''}"
    match found["standing"]:
        case "connected":
            return Step("server", OK, f"{name} is connected")
        case "stranger":
            return Step("server", WARN, f"{name} does not know us", found["trouble"])
        case "connecting":
            return Step("server", WARN, f"{name} has not answered yet", "look again: qpc server")
        case "none":
            return Step("server", WARN, f"{name} was not tried: no node with a network runs")
        case standing:
            return Step("server", FAIL, f"{name} is {standing}", found["trouble"])


def nat(view: Mapping[str, Any] | None, own: Collection[str], *, relayed: bool) -> Step:
    """Say what kind of NAT is between us and our contacts. ``relayed``: a relay answers."""
    seen = [Address.parse(one["address"]) for one in view["seen"]] if view is not None else []
    at = some(sorted({str(address) for address in seen}))
    match kind(own, seen):
        case Nat.UNKNOWN:
            advice = "a contact that is linked tells; one outside, on a public address, tells most"
            return Step("nat", OK, "not known: no contact says where it sees us", advice)
        case Nat.NONE:
            return Step("nat", OK, f"none towards {plural(len(seen), 'contact')}: seen at {at}")
        case Nat.SOME:
            return Step("nat", OK, f"there is one: seen at {at}; a second contact outside would tell its kind")
        case Nat.MASQUERADING:
            return Step("nat", OK, f"masquerading, which paths can be made through: seen at {at}")
        case Nat.SYMMETRIC:
            text = f"symmetric: each contact sees another port ({at}), so others reach us through a relay alone"
            return Step("nat", OK if relayed else WARN, text, "" if relayed else "name one: --relay http://HOST:7002")


def clock(*, synchronised: bool, plausible: bool) -> Step:
    """Say whether the wall clock may be believed."""
    advice = "set it, or let NTP do so; messages arrive all the same, with wrong times shown"
    if not plausible:
        return Step("clock", WARN, "it cannot be right", advice)
    if not synchronised:
        return Step("clock", WARN, "the kernel does not know whether it is right", advice)
    return Step("clock", OK, "synchronised")


def buffers(receive_max: int | None) -> Step:
    """Say how much UDP may arrive before we read it, in bytes; None where the system does not tell."""
    if receive_max is None:
        return Step("buffers", OK, "this system does not tell its limits")
    text = f"UDP may receive {receive_max >> 10} KiB ahead"
    if receive_max < RECEIVE_DEFAULT_BYTES:
        return Step("buffers", WARN, f"{text}; bursts get lost", "sysctl -w net.core.rmem_max=4194304")
    return Step("buffers", OK, text)


def underlay(view: Mapping[str, Any] | None) -> Step:
    """Say what can be read of the mesh underneath."""
    if view is None or not view["underlay"]:
        return Step("underlay", OK, "neither Babel nor batman-adv can be read here; nothing depends on it")
    return Step("underlay", OK, f"{' and '.join(view['underlay'])}: {plural(view['ways'], 'route')} with a metric")
