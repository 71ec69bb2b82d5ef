"""The broadcast tree: which neighbours are handed an author's posts at once, and which are offered them a little later.

Routes make it. Who reaches the author through us, by split horizon, waits for the post from us and from nobody else;
so the payload follows the shortest paths from its author, over each link once, without a word about trees. Where that
is wrong, because routes are still settling or a neighbour leads nobody on, neighbours correct it (Plumtree; Leitão,
Pereira, Rodrigues, 2007): whoever wants what it was offered lately is handed the author's next posts at once (a graft),
whoever answers "duplicate" is offered them (a prune).
"""

from __future__ import annotations

from typing import Protocol

from quicprochat.core.ids import PeerKey
from quicprochat.core.time import Instant

AUTHORS_MAX = 1_024
"""Corrections kept for one neighbour; beyond that, the oldest is forgotten."""
SETTLED_MS = 3_000
"""A way that is younger may not have been told to all neighbours, or come from them (guess)."""


class Ways(Protocol):
    """What the tree asks of routing; ``core.route.Routes`` is it."""

    def next_hop(self, destination: PeerKey) -> PeerKey | None:
        """Return the neighbour through which a destination is reached."""
        ...

    def awaits(self, neighbour: PeerKey, destination: PeerKey) -> bool:
        """Say whether a neighbour reaches a destination through us."""
        ...

    def since(self, destination: PeerKey) -> Instant | None:
        """Return since when a destination has its next hop; None when it has none."""
        ...


class Tree:
    """One node's part of all authors' trees."""

    __slots__ = ("_corrected", "_me", "_ways")

    def __init__(self, me: PeerKey, ways: Ways | None) -> None:
        """Without ``ways`` only our own posts are handed over at once."""
        self._me = me
        self._ways = ways
        self._corrected: dict[PeerKey, dict[PeerKey, bool]] = {}

    def rooted(self, author: PeerKey) -> bool:
        """Say whether there is a way to an author, and so a tree of its posts."""
        return author == self._me or (self._ways is not None and self._ways.next_hop(author) is not None)

    def settled(self, author: PeerKey, now: Instant) -> bool:
        """Say whether the way to an author has been the same for a while, so that neighbours know it too."""
        since = self._ways.since(author) if self._ways is not None else None
        return author == self._me or (since is not None and now - since >= SETTLED_MS)

    def feeds(self, author: PeerKey, neighbour: PeerKey) -> bool:
        """Say whether a neighbour is handed an author's posts at once."""
        corrected = self._corrected.get(neighbour)
        if corrected is not None and author in corrected:
            return corrected[author]
        if self._ways is None:
            return author == self._me
        return self._ways.awaits(neighbour, author)

    def fed_by(self, author: PeerKey, neighbour: PeerKey) -> bool:
        """Say whether a neighbour may bring an author's posts without having been asked."""
        return neighbour == author or self._ways is None or self._ways.next_hop(author) in (None, neighbour)

    def graft(self, author: PeerKey, neighbour: PeerKey) -> None:
        """A neighbour lacked a new post of an author."""
        self._correct(author, neighbour, feeds=True)

    def prune(self, author: PeerKey, neighbour: PeerKey) -> None:
        """A neighbour had a post of an author when we handed it over."""
        self._correct(author, neighbour, feeds=False)

    def forget(self, neighbour: PeerKey) -> None:
        """A link is gone, and what was learned over it is old."""
        self._corrected.pop(neighbour, None)

    def _correct(self, author: PeerKey, neighbour: PeerKey, *, feeds: bool) -> None:
        corrected = self._corrected.setdefault(neighbour, {})
        corrected.pop(author, None)
        corrected[author] = feeds
        if len(corrected) > AUTHORS_MAX:
            del corrected[next(iter(corrected))]
