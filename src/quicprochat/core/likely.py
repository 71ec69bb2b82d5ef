"""PRoPHET's delivery predictability (RFC 6693): how likely a node is to meet, or to know who meets, a peer.

Here it only orders what cannot all be handed over; whether something is handed over at all does not depend on it,
because in real crowds PRoPHET alone loses up to half of what is reachable.

    LIKELY = count 2 (0..256) | count * (first 8 bytes of SHA-256(D("likely") | peer) | value 1)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

from quicprochat.core.errors import WireError
from quicprochat.core.ids import Label, PeerKey, labelled_hash
from quicprochat.core.time import Instant
from quicprochat.core.wire import Reader

P_INIT = 0.75
BETA = 0.25
GAMMA = 0.98
AGING_MS = 30_000
"""Values of the ONE simulator's PRoPHET; a value fades by GAMMA each AGING_MS."""
PEERS_MAX = 1_024
"""Peers remembered; beyond, the least likely goes."""
TOLD_MAX = 256
"""Peers told to a neighbour, the likeliest first: 2.3 kB."""
NAME_BYTES = 8
SCALE = 255


class Likely:
    """One node's predictabilities, by peer."""

    __slots__ = ("_at", "_values")

    def __init__(self) -> None:
        self._values: dict[bytes, float] = {}
        self._at = Instant(0)

    def met(self, peer: PeerKey, now: Instant) -> None:
        """A link to this peer came up."""
        self._age(now)
        self._raise(name_of(peer), P_INIT)

    def told(self, peer: PeerKey, table: Mapping[bytes, int], me: PeerKey, now: Instant) -> None:
        """A linked peer told its own values: whom it meets, we reach through it."""
        self._age(now)
        through = self._values.get(name_of(peer), 0.0) * BETA
        mine = name_of(me)
        for name, value in table.items():
            if name != mine:
                self._raise(name, through * value / SCALE)

    def of(self, peer: bytes, now: Instant) -> float:
        """Return the value for a peer, 0 for one nobody met."""
        return self._values.get(name_of(peer), 0.0) * _fade(now - self._at)

    def table(self, now: Instant) -> dict[bytes, int]:
        """Return what to tell a neighbour."""
        self._age(now)
        best = sorted(self._values.items(), key=lambda pair: (-pair[1], pair[0]))[:TOLD_MAX]
        return {name: round(value * SCALE) for name, value in best if round(value * SCALE)}

    def _raise(self, name: bytes, by: float) -> None:
        value = self._values.get(name, 0.0)
        self._values[name] = value + (1 - value) * by
        if len(self._values) > PEERS_MAX:
            del self._values[min(self._values, key=lambda one: (self._values[one], one))]

    def _age(self, now: Instant) -> None:
        if now > self._at:
            fade = _fade(now - self._at)
            self._values = {name: value * fade for name, value in self._values.items() if value * fade > 1e-6}
            self._at = now


def _fade(ms: int) -> float:
    return math.pow(GAMMA, max(0, ms) / AGING_MS)


@lru_cache(PEERS_MAX)
def name_of(peer: bytes) -> bytes:
    """Return the short name of a peer in these tables."""
    return labelled_hash(Label.LIKELY, peer)[:NAME_BYTES]


def encode_likely(table: Mapping[bytes, int]) -> bytes:
    """Return the body of a LIKELY frame."""
    assert len(table) <= TOLD_MAX
    return len(table).to_bytes(2, "big") + b"".join(name + bytes([value]) for name, value in table.items())


def decode_likely(body: bytes) -> dict[bytes, int]:
    """Read a LIKELY frame. Raises: WireError."""
    reader = Reader(body, "a table of likely encounters")
    if (count := reader.uint(2)) > TOLD_MAX:
        raise WireError(f"a table of {count} likely encounters; {TOLD_MAX} are allowed")
    table = {reader.take(NAME_BYTES): reader.uint(1) for _ in range(count)}
    reader.end()
    if len(table) != count:
        raise WireError("a table of likely encounters that names one peer twice")
    return table
