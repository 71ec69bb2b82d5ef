"""What a node keeps and may hand on, and what of it goes first when there is no more room.

Only strangers' mail makes room, and fairly: of the link that fills most of the shelf, the author who fills most of that
link's part. So whoever floods a node over one link, under however many names, pushes out what came over that link.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from quicprochat.core.entries import Entry, id_of
from quicprochat.core.envelope import Kind
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.time import Instant


@dataclass(slots=True)
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

    __slots__ = ("authors", "bytes", "count")

    def __init__(self) -> None:
        self.authors: dict[PeerKey, dict[EnvelopeId, Parcel]] = {}
        self.bytes = 0
        self.count = 0


class Shelf:
    """Parcels by id; bounded in bytes and number of those that may have to go."""

    def __init__(self, limit_bytes: int, limit_count: int) -> None:
        self._limit_bytes, self._limit_count = limit_bytes, limit_count
        self._parcels: dict[EnvelopeId, Parcel] = {}
        self._piles: dict[PeerKey, _Pile] = {}
        self._for: dict[bytes, dict[EnvelopeId, Parcel]] = {}
        self.bytes = 0
        self.count = 0

    def __len__(self) -> int:
        return len(self._parcels)

    def __iter__(self) -> Iterator[Parcel]:
        return iter(self._parcels.values())

    def __contains__(self, id: object) -> bool:
        return id in self._parcels

    def get(self, id: EnvelopeId) -> Parcel | None:
        """Return what is held under an id."""
        return self._parcels.get(id)

    def addressed_to(self, peer: PeerKey) -> Iterable[Parcel]:
        """Return what is held for one recipient."""
        return self._for.get(peer, {}).values()

    def put(self, parcel: Parcel) -> None:
        """Hold a parcel; :meth:`excess` then says what must go."""
        id = parcel.id
        self.pop(id)
        self._parcels[id] = parcel
        self._for.setdefault(parcel.dst, {})[id] = parcel
        if _evictable(parcel):
            pile = self._piles.setdefault(parcel.via, _Pile())
            pile.authors.setdefault(parcel.src, {})[id] = parcel
            self._count(pile, parcel.size, 1)

    def pop(self, id: EnvelopeId) -> Parcel | None:
        """Let go of a parcel."""
        parcel = self._parcels.pop(id, None)
        if parcel is not None:
            theirs = self._for[parcel.dst]
            del theirs[id]
            if not theirs:
                del self._for[parcel.dst]
        if parcel is not None and _evictable(parcel):
            pile = self._piles[parcel.via]
            author = pile.authors[parcel.src]
            del author[id]
            if not author:
                del pile.authors[parcel.src]
            if not pile.authors:
                del self._piles[parcel.via]
            self._count(pile, -parcel.size, -1)
        return parcel

    def _count(self, pile: _Pile, size: int, number: int) -> None:
        pile.bytes += size
        pile.count += number
        self.bytes += size
        self.count += number

    @property
    def over(self) -> bool:
        """Say whether something must go."""
        return self.bytes > self._limit_bytes or self.count > self._limit_count

    def victim(self, worth: Callable[[Parcel], tuple[float, ...]]) -> Parcel | None:
        """Return what goes first: of the heaviest link's heaviest author what is worth least, the oldest of equals."""
        if not self._piles:
            return None
        pile = max(self._piles.values(), key=lambda pile: pile.bytes)
        author = max(pile.authors.values(), key=lambda held: sum(parcel.size for parcel in held.values()))
        return min(author.values(), key=worth)


def _evictable(parcel: Parcel) -> bool:
    return not parcel.kept and parcel.kind != Kind.RECEIPT
