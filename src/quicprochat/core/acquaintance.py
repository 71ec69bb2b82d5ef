"""What neighbours are known to have, kept beyond the link: people meet the same people again and again.

Only what a neighbour has said itself is believed: it offered an envelope, answered an offer of it with nothing, or
compared. So who lies gets less, and nobody else does. Forgetting costs an offer more.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from quicprochat.core.ids import EnvelopeId, PeerKey

NEIGHBOURS_MAX = 256
"""Neighbours remembered; beyond, the one that was met longest ago is forgotten."""
IDS_MAX = 2_048
"""Envelopes remembered of one neighbour."""


class Acquaintance:
    """One neighbour: the ids it is known to have."""

    __slots__ = ("_ids",)

    def __init__(self) -> None:
        self._ids: set[EnvelopeId] = set()

    def __contains__(self, id: EnvelopeId) -> bool:
        return id in self._ids

    def has(self, ids: Iterable[EnvelopeId], held: AbstractSet[EnvelopeId]) -> None:
        """The neighbour has said that it has these; remembered is what matters for what we hold."""
        self._ids.update(ids)
        if len(self._ids) > IDS_MAX:
            self._ids &= held
        if len(self._ids) > IDS_MAX:
            self._ids.clear()

    def lacks(self, id: EnvelopeId) -> None:
        """Comparing showed that the neighbour has not got this, or not any more."""
        self._ids.discard(id)

    def perhaps_lacking(self, held: AbstractSet[EnvelopeId], most: int) -> set[EnvelopeId] | None:
        """Return what we hold and the neighbour is not known to have; None when that is more than ``most``."""
        if len(held) > IDS_MAX + most:
            return None
        ids = held - self._ids
        return set(ids) if len(ids) <= most else None


class Acquaintances:
    """All neighbours met."""

    __slots__ = ("_by_peer",)

    def __init__(self) -> None:
        self._by_peer: dict[PeerKey, Acquaintance] = {}

    def meet(self, peer: PeerKey) -> Acquaintance:
        """Return what is known of a neighbour that is met now."""
        known = self._by_peer.pop(peer, None) or Acquaintance()
        self._by_peer[peer] = known
        if len(self._by_peer) > NEIGHBOURS_MAX:
            del self._by_peer[next(iter(self._by_peer))]
        return known

    def forget(self, peer: PeerKey) -> None:
        """A neighbour has lost what it had."""
        self._by_peer.pop(peer, None)
