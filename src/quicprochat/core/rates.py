"""How many posts are taken at a time: a bucket for each author, each channel and each neighbour that brings them.

What is beyond is deferred: whoever brought it still has it, and it comes later. So a flood costs the time of those that
make it. Two kinds of posts have room of their own that no flood can take: those of an author that is known and has been
quiet, and emergencies of authors whom the owner trusts with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from quicprochat.core.bucket import TokenBucket
from quicprochat.core.ids import PeerKey
from quicprochat.core.time import Instant

BUCKETS_MAX = 4_096
"""Buckets of one kind; of more, the one not used for longest is forgotten, and it is a full one then."""


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Posts taken at once, and each second after that; all are guesses."""

    author_burst: float = 1_000
    """From one author, whatever way they come: a member that floods. A whole window may come at once."""
    author_per_s: float = 1
    channel_burst: float = 4_000
    """In one channel: many that flood it together."""
    channel_per_s: float = 10
    link_burst: float = 4_000
    """From one neighbour: floods by authors that it makes up."""
    link_per_s: float = 20
    newcomer_burst: float = 1_000
    """From one neighbour in one channel, of all authors together that are not known yet: the same, in one channel."""
    newcomer_per_s: float = 2
    quiet: float = 16
    """An author that is known and has so much less than its bucket at most gone passes although a channel is full."""
    quiet_burst: float = 256
    """Such posts from one neighbour: floods by authors that it made up long before."""
    quiet_per_s: float = 1
    emergency_burst: float = 16
    """Emergencies from one author that is trusted with them; more are ordinary posts: a key that was stolen."""
    emergency_per_s: float = 1 / 60
    piece_bytes: int = 4_096
    """A longer post counts as one more for each so many bytes."""


class Standing(Enum):
    """What a post that came is taken for."""

    EMERGENCY = auto()
    """It has the room that is reserved for emergencies."""
    QUIET = auto()
    """There is no room, but for one of an author that is known and quiet."""
    ORDINARY = auto()
    OVER = auto()
    """It is deferred."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A post that comes: of whom, in which channel, by which neighbour, and its payload's size in bytes.

    ``known`` says whether the author has been for some time, ``emergency`` that it calls this one and is trusted.
    """

    author: PeerKey
    channel: bytes
    via: PeerKey
    size: int
    known: bool = True
    emergency: bool = False


class Toll:
    """What a post that came is taken for, and who pays how much for it.

    Of one that is refused only the neighbour pays, for it might have been altered there.
    """

    __slots__ = ("_cost", "_refused", "_taken", "standing")

    def __init__(
        self, standing: Standing, cost: int, taken: Sequence[TokenBucket] = (), refused: Sequence[TokenBucket] = ()
    ) -> None:
        self.standing = standing
        self._cost, self._taken, self._refused = cost, taken, refused

    def pay(self, now: Instant, *, new: bool) -> None:
        """Spend for it; ``new``: it was taken."""
        for bucket in self._taken if new else self._refused:
            bucket.take(now, self._cost)


class Rates:
    """The buckets of a node."""

    def __init__(self) -> None:
        self._authors: dict[bytes, TokenBucket] = {}
        self._channels: dict[bytes, TokenBucket] = {}
        self._links: dict[bytes, TokenBucket] = {}
        self._newcomers: dict[bytes, TokenBucket] = {}
        self._quiet: dict[bytes, TokenBucket] = {}
        self._emergencies: dict[bytes, TokenBucket] = {}

    def judge(self, post: Arrival, limits: RateLimits, now: Instant) -> Toll:
        """Say what a post may be taken for now; nothing is spent yet."""
        cost = 1 + post.size // limits.piece_bytes
        link = self._link(post, limits, now)
        if post.emergency and (emergency := self._emergency(post, limits, now)).has(now, cost):
            return Toll(Standing.EMERGENCY, cost, (emergency,), (link,))
        author = self._author(post, limits, now)
        if not author.has(now, cost):
            return Toll(Standing.OVER, cost)
        channel = _bucket(self._channels, post.channel, limits.channel_burst, limits.channel_per_s, now)
        shared = [channel, link]
        if not post.known:
            key = post.via + post.channel
            shared.append(_bucket(self._newcomers, key, limits.newcomer_burst, limits.newcomer_per_s, now))
        for bucket in shared:
            if not bucket.has(now, cost):
                break
        else:
            return Toll(Standing.ORDINARY, cost, (author, *shared), (link,))
        if post.known and author.spent(now) + cost <= limits.quiet:
            quiet = self._of_quiet(post, limits, now)
            if quiet.has(now, cost):
                return Toll(Standing.QUIET, cost, (author, quiet), (quiet,))
        return Toll(Standing.OVER, cost)

    def _link(self, post: Arrival, limits: RateLimits, now: Instant) -> TokenBucket:
        return _bucket(self._links, post.via, limits.link_burst, limits.link_per_s, now)

    def _author(self, post: Arrival, limits: RateLimits, now: Instant) -> TokenBucket:
        return _bucket(self._authors, post.author, limits.author_burst, limits.author_per_s, now)

    def _of_quiet(self, post: Arrival, limits: RateLimits, now: Instant) -> TokenBucket:
        return _bucket(self._quiet, post.via, limits.quiet_burst, limits.quiet_per_s, now)

    def _emergency(self, post: Arrival, limits: RateLimits, now: Instant) -> TokenBucket:
        return _bucket(self._emergencies, post.author, limits.emergency_burst, limits.emergency_per_s, now)


def _bucket(buckets: dict[bytes, TokenBucket], key: bytes, burst: float, per_s: float, now: Instant) -> TokenBucket:
    """Return the bucket of a key; of too many, the one not used for longest is forgotten."""
    found = buckets.pop(key, None) or TokenBucket(burst, per_s, now)
    buckets[key] = found
    if len(buckets) > BUCKETS_MAX:
        del buckets[next(iter(buckets))]
    return found
