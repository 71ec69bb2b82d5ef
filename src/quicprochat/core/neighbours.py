"""The peers one link away, and the lane of each."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from quicprochat.core.bucket import TokenBucket
from quicprochat.core.courier import Lane
from quicprochat.core.events import LinkId
from quicprochat.core.ids import PeerKey
from quicprochat.core.time import Instant

REPEAT_BURST, REPEAT_PER_S = 256, 64
"""Receipts (of up to 64 ids) sent again for duplicates that come over one link: repeating must not make us work."""


class Neighbour:
    """What a link is remembered by. ``address`` is the one that worked, "" unknown, None where a server carries."""

    __slots__ = ("address", "lane", "peer", "repeats")

    def __init__(self, peer: PeerKey, lane: Lane, address: str | None, now: Instant) -> None:
        self.peer = peer
        self.lane = lane
        self.address = address
        self.repeats = TokenBucket(REPEAT_BURST, REPEAT_PER_S, now)


class Neighbours:
    """All of them, by link and by peer; of two links to one peer only the newer counts."""

    def __init__(self) -> None:
        self._links: dict[LinkId, Neighbour] = {}
        self._by_peer: dict[PeerKey, Neighbour] = {}

    def add(self, neighbour: Neighbour) -> Neighbour | None:
        """Take a neighbour in; return the older entry of the same peer, whose link means nothing any more."""
        old = self._by_peer.get(neighbour.peer)
        if old is not None:
            del self._links[old.lane.link]
        self._links[neighbour.lane.link] = self._by_peer[neighbour.peer] = neighbour
        return old

    def drop(self, link: LinkId) -> Neighbour | None:
        """A link is gone; return the neighbour it led to, None when it meant nothing."""
        neighbour = self._links.pop(link, None)
        if neighbour is not None:
            del self._by_peer[neighbour.peer]
        return neighbour

    def at(self, link: LinkId) -> Neighbour | None:
        """Return who is at the other end of a link."""
        return self._links.get(link)

    def find(self, peer: bytes) -> Neighbour | None:
        """Return the neighbour with this key."""
        return self._by_peer.get(PeerKey(peer))

    def __contains__(self, peer: object) -> bool:
        return peer in self._by_peer

    def __iter__(self) -> Iterator[Neighbour]:
        return iter(self._links.values())

    @property
    def links(self) -> AbstractSet[LinkId]:
        """The links there are."""
        return self._links.keys()

    @property
    def peers(self) -> AbstractSet[PeerKey]:
        """Who is linked, in the order of linking."""
        return self._by_peer.keys()
