"""PRoPHET's delivery predictability (RFC 6693): how likely a node is to meet a peer, from whom it met before.

It only chooses what makes room for something else; whether something is handed over does not depend on it, because in
real crowds PRoPHET alone loses up to half of what is reachable. Nor are neighbours told: under every limit that was
measured their tables brought less than the bytes they took.
"""

from __future__ import annotations

import math

from quicprochat.core.ids import PeerKey
from quicprochat.core.time import Instant

P_INIT = 0.75
GAMMA = 0.98
AGING_MS = 30_000
"""Values of the ONE simulator's PRoPHET; a value fades by GAMMA each AGING_MS."""
PEERS_MAX = 1_024
"""Peers remembered; beyond, the least likely goes."""


class Likely:
    """One node's predictabilities, by peer."""

    __slots__ = ("_at", "_values")

    def __init__(self) -> None:
        self._values: dict[bytes, float] = {}
        self._at = Instant(0)

    def met(self, peer: PeerKey, now: Instant) -> None:
        """A link to this peer came up."""
        self._age(now)
        self._raise(peer, P_INIT)

    def of(self, peer: bytes, now: Instant) -> float:
        """Return the value for a peer, 0 for one nobody met."""
        return self._values.get(peer, 0.0) * _fade(now - self._at)

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
