"""What a node keeps and may hand on, and what of it goes first when there is no more room.

Only strangers' mail makes room, and fairly: of the link that fills most of the shelf, the author who fills most of that
link's part. So whoever floods a node over one link, under however many names, pushes out what came over that link.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, KeysView
from dataclasses import dataclass
from itertools import islice

from quicprochat.core.entries import Entry, id_of
from quicprochat.core.envelope import Kind
from quicprochat.core.heaviest import Heaviest
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
    order: int = 0
    """Of posts: the lowest is handed over first."""

    @property
    def id(self) -> EnvelopeId:
        """The envelope's id."""
        return id_of(self.entry)


class _Pile:
    """What came over one link, by author, the oldest first."""

    __slots__ = ("_authors", "_weights")

    def __init__(self) -> None:
        # Ordered by links and not by places in a table: much is taken from the front.
        self._authors: dict[PeerKey, OrderedDict[EnvelopeId, Parcel]] = {}
        self._weights = Heaviest[PeerKey]()

    def __bool__(self) -> bool:
        return bool(self._authors)

    def put(self, parcel: Parcel) -> None:
        self._authors.setdefault(parcel.src, OrderedDict())[parcel.id] = parcel
        self._weights.add(parcel.src, parcel.size)

    def take_off(self, parcel: Parcel) -> None:
        held = self._authors[parcel.src]
        del held[parcel.id]
        if not held:
            del self._authors[parcel.src]
        self._weights.add(parcel.src, -parcel.size)

    def heaviest(self) -> Iterable[Parcel]:
        author = self._weights.top()
        return self._authors[author].values() if author is not None else ()


class _Piles:
    """What may have to go, by the link it came over."""

    __slots__ = ("_by_link", "_weights")

    def __init__(self, parcels: Iterable[Parcel]) -> None:
        self._by_link: dict[PeerKey, _Pile] = {}
        self._weights = Heaviest[PeerKey]()
        for parcel in parcels:
            self.put(parcel)

    def put(self, parcel: Parcel) -> None:
        self._by_link.setdefault(parcel.via, _Pile()).put(parcel)
        self._weights.add(parcel.via, parcel.size)

    def take_off(self, parcel: Parcel) -> None:
        pile = self._by_link[parcel.via]
        pile.take_off(parcel)
        if not pile:
            del self._by_link[parcel.via]
        self._weights.add(parcel.via, -parcel.size)

    def heaviest(self) -> Iterable[Parcel]:
        """Return what the heaviest author of the heaviest link has, the oldest first."""
        link = self._weights.top()
        return self._by_link[link].heaviest() if link is not None else ()


class Shelf:
    """Parcels by id; bounded in bytes and number of those that may have to go."""

    __slots__ = ("_limit_bytes", "_limit_count", "_parcels", "_piles", "bytes", "count")

    def __init__(self, limit_bytes: int, limit_count: int) -> None:
        self._limit_bytes, self._limit_count = limit_bytes, limit_count
        self._parcels: dict[EnvelopeId, Parcel] = {}
        self._piles: _Piles | None = None
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

    def newest(self, count: int) -> Iterator[tuple[EnvelopeId, Parcel]]:
        """Return what came last, the newest first."""
        return islice(reversed(self._parcels.items()), count)

    def destinations(self) -> set[bytes]:
        """Return to whom, or to which channels, something is held."""
        return {parcel.dst for parcel in self._parcels.values()}

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
                self._piles.put(parcel)

    def pop(self, id: EnvelopeId) -> Parcel | None:
        """Let go of a parcel."""
        parcel = self._parcels.pop(id, None)
        if parcel is not None and _evictable(parcel):
            self.bytes -= parcel.size
            self.count -= 1
            if self._piles is not None:
                self._piles.take_off(parcel)
        return parcel

    @property
    def over(self) -> bool:
        """Say whether something must go."""
        return self.bytes > self._limit_bytes or self.count > self._limit_count

    def victim(self, worth: Callable[[Parcel], tuple[float, ...]]) -> Parcel | None:
        """Return what goes first: of the heaviest link's heaviest author what is worth least, the oldest of equals."""
        if self._piles is None:
            self._piles = _Piles(filter(_evictable, self._parcels.values()))
        return min(islice(self._piles.heaviest(), CANDIDATES), key=worth, default=None)


def _evictable(parcel: Parcel) -> bool:
    return not parcel.kept and parcel.kind != Kind.RECEIPT
