"""What the mesh underneath (Babel, batman-adv) says of the ways to our neighbours, in the units of our own link costs.

A community's routers measure their radio links all the time. A round trip of our own does not show what they see:
radios send again what was lost, so a bad path answers as fast as a good one until it is loaded.

A cost here stands in place of a shorter round trip, in milliseconds: a link costs a hop and whichever is more. So the
direct link over three routers stays cheaper than three links of ours over the same routers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from quicprochat.core.network import IPNetwork

COST_MAX = 0xFFFF
TRANSMISSION = 32
"""What one transmission over a good radio link costs: as much as a hop of ours (guess)."""
BABEL_TRANSMISSION = 256
"""Babel's cost of a radio link that loses nothing (RFC 8966 §A.2.2); a wired one has 96 in babeld."""
BABEL_INFINITY = 0xFFFF
TQ_MAX = 255
THROUGHPUT_KBIT_S = 10_000
"""Throughput that counts as one transmission (guess)."""


@dataclass(frozen=True, slots=True)
class Hint:
    """What a way costs, 1 to COST_MAX, and who says so: "babel" or "batman-adv"."""

    cost: int
    via: str


@dataclass(frozen=True, slots=True)
class Way:
    """The way to the addresses of a network."""

    network: IPNetwork
    hint: Hint


def babel_cost(metric: int) -> int:
    """Return the cost of a route with a Babel metric; Babel counts it up hop by hop, as we do."""
    if metric >= BABEL_INFINITY:
        return COST_MAX
    return _bounded(metric * TRANSMISSION / BABEL_TRANSMISSION)


def tq_cost(tq: int) -> int:
    """Return the cost of a path with a transmit quality of BATMAN IV, 0 to 255: its chance to get through."""
    return COST_MAX if tq <= 0 else _bounded(TRANSMISSION * TQ_MAX / min(tq, TQ_MAX))


def throughput_cost(kbit_s: int) -> int:
    """Return the cost of a path with a throughput of BATMAN V, in kbit/s."""
    return COST_MAX if kbit_s <= 0 else _bounded(TRANSMISSION * THROUGHPUT_KBIT_S / kbit_s)


def counted_rtt_ms(rtt_ms: float, hint: Hint | None) -> float:
    """Return the round trip to count a link with: the measured one, or the underlay's word where that is worse."""
    return rtt_ms if hint is None else max(rtt_ms, float(hint.cost))


def _bounded(cost: float) -> int:
    return int(min(max(cost, 1), COST_MAX))


class Ways:
    """Ways by network; the longest prefix that an address is in counts, and of two the cheaper."""

    def __init__(self, ways: Iterable[Way] = ()) -> None:
        self._by_length: dict[tuple[int, int], dict[int, Hint]] = {}
        for way in ways:
            network = way.network
            same_length = self._by_length.setdefault((network.version, network.prefixlen), {})
            first = int(network.network_address)
            if first not in same_length or way.hint.cost < same_length[first].cost:
                same_length[first] = way.hint
        self._lengths = sorted(self._by_length, reverse=True)

    def __len__(self) -> int:
        return sum(map(len, self._by_length.values()))

    def find(self, ip: str) -> Hint | None:
        """Return what is known of the way to an address, None for nothing."""
        address = ipaddress.ip_address(ip)
        number, bits = int(address), address.max_prefixlen
        for version, length in self._lengths:
            if version == address.version:
                hint = self._by_length[version, length].get(number >> (bits - length) << (bits - length))
                if hint is not None:
                    return hint
        return None
