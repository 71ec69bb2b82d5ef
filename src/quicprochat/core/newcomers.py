"""Authors that are new travel less far: their posts are handed on over a few hops, and further once they are known.

A key costs nothing, so a thousand can be made up for one flood each. Whom a relay has known for an hour, by a post or a
record, was there an hour ago; that costs time. It is the relay's own life clock that counts: ages and hops in an
envelope are hints of whoever handed it over. Nobody loses a post by this, it comes later.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Protocol

from quicprochat.core.envelope import TRANSIT, TRANSIT_OFFSET
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.policy import Policy
from quicprochat.core.store import Author, Held
from quicprochat.core.time import HOUR_MS, Instant

KNOWN_AFTER_MS = HOUR_MS
"""How long an author is new (guess)."""
RECENT_MAX = 4_096


class AuthorTable(Protocol):
    """Since when there are authors; ``MeshStore`` is one."""

    def put_author(self, author: Author) -> None:
        """Keep since when an author posts."""
        ...

    def author(self, key: PeerKey) -> Author | None:
        """Return since when an author posts."""
        ...


class Recent:
    """A table of authors with those of late in memory: each post asks for its author more than once."""

    def __init__(self) -> None:
        self._recent: dict[PeerKey, Author] = {}
        self._table: AuthorTable | None = None

    def of(self, table: AuthorTable) -> Recent:
        """Return this, above a table."""
        self._table = table
        return self

    def put_author(self, author: Author) -> None:
        assert self._table is not None
        self._table.put_author(author)
        self._keep(author)

    def author(self, key: PeerKey) -> Author | None:
        assert self._table is not None
        found = self._recent.get(key)
        if found is None and (found := self._table.author(key)) is not None:
            self._keep(found)
        return found

    def _keep(self, author: Author) -> None:
        self._recent[author.key] = author
        if len(self._recent) > RECENT_MAX:
            del self._recent[next(iter(self._recent))]


def heard(tx: AuthorTable, author: PeerKey, via: PeerKey, now: Instant) -> None:
    """A post or record of an author was taken: note since when there is one. Written at most once an hour for each."""
    known = tx.author(author)
    if known is None:
        tx.put_author(Author(author, now, now, via))
    elif now >= known.heard_at + KNOWN_AFTER_MS:
        tx.put_author(Author(author, known.since, now, known.via))


def known_from(tx: AuthorTable, author: PeerKey, policy: Policy, now: Instant) -> Instant:
    """Return from when an author counts as known: now or earlier for one that is."""
    if author == policy.me or author in policy.contacts:
        return now
    found = tx.author(author)
    return Instant((now if found is None else min(now, found.since)) + KNOWN_AFTER_MS)


def goes_on_at(tx: AuthorTable, held: Held, policy: Policy, now: Instant) -> Instant:
    """Return from when a post may be handed on."""
    hop = TRANSIT.unpack_from(held.wire, TRANSIT_OFFSET)[0]
    if held.own or hop + 1 <= policy.limits.posts.newcomer_hops:
        return now
    return known_from(tx, held.src, policy, now)


class Later:
    """Posts that are handed on later, and when. They are in the store, so there are no more than it holds."""

    def __init__(self) -> None:
        self._at: dict[EnvelopeId, Instant] = {}
        self._order: list[tuple[Instant, EnvelopeId]] = []

    def __len__(self) -> int:
        return len(self._at)

    def __contains__(self, id: EnvelopeId) -> bool:
        return id in self._at

    def add(self, id: EnvelopeId, at: Instant) -> None:
        """Hold a post back until a moment."""
        self._at[id] = at
        heappush(self._order, (at, id))
        if len(self._order) > 2 * len(self._at) + 64:
            self._order = [(at, id) for id, at in self._at.items()]
            heapify(self._order)

    def drop(self, id: EnvelopeId) -> None:
        """A post is not there any more."""
        self._at.pop(id, None)

    def everything(self) -> list[EnvelopeId]:
        """Take all, in the order of their moments: who is known may have changed."""
        found = [id for _, id in sorted((at, id) for id, at in self._at.items())]
        self._at.clear()
        self._order.clear()
        return found

    def due(self, now: Instant) -> list[EnvelopeId]:
        """Take those whose moment has come, in its order."""
        found = []
        while self._order and self._order[0][0] <= now:
            at, id = heappop(self._order)
            if self._at.get(id) == at:
                del self._at[id]
                found.append(id)
        return found

    def deadline(self) -> Instant | None:
        """Return when :meth:`due` has something."""
        while self._order and self._at.get(self._order[0][1]) != self._order[0][0]:
            heappop(self._order)
        return self._order[0][0] if self._order else None
