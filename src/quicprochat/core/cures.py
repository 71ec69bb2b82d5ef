"""Receipts as a cure: a copy whose recipient has confirmed it is of no more use to anybody.

A cure counts only for an envelope whose recipient signed it, so it is known by (id, signer): anybody may sign a receipt
for an id seen passing, and that must neither delete the real one nor keep it from coming.
"""

from __future__ import annotations

from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.time import Instant

WAITING_PER_LINK = 4_096
"""Cures remembered for envelopes that have not been here, by the neighbour that brought the receipt."""
LINKS_MAX = 256


class Cures:
    """Cures for envelopes that may still come."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[PeerKey, dict[tuple[EnvelopeId, PeerKey], Instant]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def add(self, id: EnvelopeId, signer: PeerKey, via: PeerKey, until: Instant) -> None:
        """Remember a cure until a moment; beyond the share of its link the one that came first is forgotten."""
        mine = self._waiting.pop(via, {})
        self._waiting[via] = mine
        mine[id, signer] = until
        if len(mine) > WAITING_PER_LINK:
            del mine[next(iter(mine))]
        if len(self._waiting) > LINKS_MAX:
            del self._waiting[next(iter(self._waiting))]

    def known(self, id: EnvelopeId, recipient: bytes) -> bool:
        """Say whether this envelope's own recipient has confirmed it."""
        return any((id, recipient) in mine for mine in self._waiting.values())

    def expire(self, now: Instant) -> None:
        """Forget what has no envelope left to wait for."""
        kept = {
            via: {cure: until for cure, until in mine.items() if until > now} for via, mine in self._waiting.items()
        }
        self._waiting = {via: mine for via, mine in kept.items() if mine}
