"""What a node keeps and may hand on, and what of it goes first when there is no more room.

Only strangers' mail makes room, and fairly: of the link that fills most of the shelf, the author who fills most of that
link's part. So whoever floods a node over one link, under however many names, pushes out what came over that link.
"""

from __future__ import annotations

from collections.abc import Callable, KeysView
from dataclasses import dataclass

from quicprochat.core.entries import Entry, id_of
from quicprochat.core.envelope import Kind
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.time import Instant

CANDIDATES = 64
"""Parcels of one author that are weighed against each other: the oldest."""


@dataclass(slots=True, eq=False)
class Parcel:
    """What carrying must know of an envelope that is held; the bytes are in the store.

    ``via`` is the neighbour that brought it, ``kept`` says that it never makes room for another: it is our own, or its
    safe keeping was promised.
    """

    entry: Entry
    kind: int
    src: PeerKey
    dst: bytes
    size: int
    via: PeerKey
    expires_at: Instant
    kept: bool = False
    handed: int = 0
    """How many neighbours have it from us."""

    @property
    def id(self) -> EnvelopeId:
        """The envelope's id."""
        return id_of(self.entry)


class _Pile:
    """What came over one link, by author."""

    __slots__ = ("authors", "bytes")

    def __init__(self) -> None:
        self.authors: dict[PeerKey, list[Parcel]] = {}
        self.bytes = 0


class Shelf:
    """Parcels by id; bounded in bytes and number of those that may have to go."""

    __slots__ = ("_limit_bytes", "_limit_count", "_parcels", "_piles", "bytes", "count")

    def __init__(self, limit_bytes: int, limit_count: int) -> None:
        self._limit_bytes, self._limit_count = limit_bytes, limit_count
        self._parcels: dict[EnvelopeId, Parcel] = {}
        self._piles: dict[PeerKey, _Pile] | None = None
        """What may have to go, by link; None until the shelf was full once, since most never are."""
        self.bytes = 0
        self.count = 0

    def __len__(self) -> int:
        return len(self._parcels)

    def __contains__(self, id: object) -> bool:
        return id in self._parcels

    def ids(self) -> KeysView[EnvelopeId]:
        """Return the ids of all that is held."""
        return self._parcels.keys()

    def get(self, id: EnvelopeId) -> Parcel | None:
        """Return what is held under an id."""
        return self._parcels.get(id)

    def addressed_to(self, peer: PeerKey) -> list[Parcel]:
        """Return what is held for one recipient."""
        return [parcel for parcel in self._parcels.values() if parcel.dst == peer]

    def put(self, parcel: Parcel) -> None:
        """Hold a parcel; while the shelf is :attr:`over`, a :meth:`victim` must go."""
        id = parcel.id
        self.pop(id)
        self._parcels[id] = parcel
        if _evictable(parcel):
            self.bytes += parcel.size
            self.count += 1
            if self._piles is not None:
                _pile_up(self._piles, parcel)

    def pop(self, id: EnvelopeId) -> Parcel | None:
        """Let go of a parcel."""
        parcel = self._parcels.pop(id, None)
        if parcel is not None and _evictable(parcel):
            self.bytes -= parcel.size
            self.count -= 1
            if self._piles is not None:
                _take_off(self._piles, parcel)
        return parcel

    @property
    def over(self) -> bool:
        """Say whether something must go."""
        return self.bytes > self._limit_bytes or self.count > self._limit_count

    def victim(self, worth: Callable[[Parcel], tuple[float, ...]]) -> Parcel | None:
        """Return what goes first: of the heaviest link's heaviest author what is worth least, the oldest of equals."""
        if self._piles is None:
            self._piles = {}
            for parcel in filter(_evictable, self._parcels.values()):
                _pile_up(self._piles, parcel)
        if not self._piles:
            return None
        pile = max(self._piles.values(), key=lambda pile: pile.bytes)
        author = max(pile.authors.values(), key=lambda held: sum(parcel.size for parcel in held))
        return min(author[:CANDIDATES], key=worth)


def _evictable(parcel: Parcel) -> bool:
    return not parcel.kept and parcel.kind != Kind.RECEIPT


def _pile_up(piles: dict[PeerKey, _Pile], parcel: Parcel) -> None:
    pile = piles.setdefault(parcel.via, _Pile())
    pile.authors.setdefault(parcel.src, []).append(parcel)
    pile.bytes += parcel.size


def _take_off(piles: dict[PeerKey, _Pile], parcel: Parcel) -> None:
    pile = piles[parcel.via]
    pile.bytes -= parcel.size
    pile.authors[parcel.src].remove(parcel)
    if not pile.authors[parcel.src]:
        del pile.authors[parcel.src]
    if not pile.authors:
        del piles[parcel.via]
