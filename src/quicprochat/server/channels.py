"""Channels at a home server: who follows them, and the window of posts that is kept for these.

A server knows a channel by its id and cannot read what it keeps. The window slides: what is new is taken, and the
oldest goes. Who floods pushes out its own: an author beyond its share only its own posts, and where a window is full,
or all of them are, the oldest goes that was brought by whoever fills most of it, a user or another domain. Everything
here runs inside a transaction of the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Sequence
from dataclasses import dataclass
from math import ceil

from quicprochat.core.bucket import TokenBucket
from quicprochat.core.errors import LocalError
from quicprochat.core.following import FollowStore
from quicprochat.core.gate import Admission, Checked, Policy, Reason, Verdict, admit
from quicprochat.core.ids import ChannelId, EnvelopeId, PeerKey
from quicprochat.core.link import INTEREST_MAX
from quicprochat.core.store import Fate, Scope
from quicprochat.core.time import DAY_MS, SECOND_MS, Instant, Now
from quicprochat.core.window import after_release

FOLLOWED_MAX = INTEREST_MAX
"""Channels that one user follows; a node can be in no more."""
FOLLOWS_MAX = 500_000
"""Pairs of user and channel: 200 bytes of disk each."""
FOLLOW_MS = 30 * DAY_MS
"""Who was not here for so long follows nothing any more until it comes back: others must not keep posts for nobody."""
BRINGERS_MAX = 4_096
BRING_BURST, BRING_PER_S = 4_000, 20
"""Posts taken from one user at once, and per second after that: whoever makes up authors."""
PIECE_BYTES = 4_096
"""A longer post counts as one more for each so many bytes."""
EXPECTED_MS = 5 * SECOND_MS
"""How long somebody may take to bring what he offered, before it is taken from another."""
EXPECTED_MAX = 65_536
SLACK = 64
"""When all windows together are full, this part of them goes at once: not every post has to look for the widest."""


Lacking = tuple[list[EnvelopeId], list[EnvelopeId]]
"""What is lacking, and what somebody else is about to bring."""


@dataclass(frozen=True, slots=True)
class ChannelRules:
    """Bounds an operator may change while the server runs (sizes are guesses for a small computer)."""

    posts: int = 1_000
    """Posts kept of one channel."""
    window_bytes: int = 16 << 20
    """The same in bytes."""
    storage: int = 512 << 20
    """Bytes of posts kept altogether, beside messages."""
    share: float = 0.25
    """Part of a channel's window that one author may fill."""


class Channels:
    """``hear`` is told of channels into which posts have come."""

    def __init__(self, store: FollowStore, rules: ChannelRules) -> None:
        self._store = store
        self.rules = rules
        self.hear: Callable[[Collection[ChannelId]], None] = lambda _: None
        self._fresh: dict[ChannelId, set[PeerKey]] = {}
        """Channels and authors of what came since the windows slid."""
        self._brought: dict[PeerKey, TokenBucket] = {}
        self._expected: dict[EnvelopeId, tuple[PeerKey, Instant]] = {}

    # --- who follows what

    def follow(self, user: PeerKey, channels: Collection[ChannelId]) -> bool:
        """A user follows these channels and no other; say whether the server follows others than before by that.

        Raises: LocalError.
        """
        tx = self._store
        known, wanted = tx.followed_by(user), frozenset(channels)
        if len(wanted) > FOLLOWED_MAX:
            raise LocalError(f"a user follows at most {FOLLOWED_MAX} channels here", code="usage")
        if tx.follow_count() - len(known) + len(wanted) > max(FOLLOWS_MAX, tx.follow_count()):
            raise LocalError("this server follows all the channels it can; ask its operator", code="full")
        before = tx.followed().keys() & (known | wanted)
        tx.follow(user, wanted)
        return before != tx.followed().keys() & (known | wanted)

    # --- posts

    def admit(self, checked: Checked, via: PeerKey, policy: Policy, now: Now) -> Admission:
        """Let in a post that a user brings."""
        envelope, tx = checked.envelope, self._store
        cost = 1 + len(envelope.payload) // PIECE_BYTES
        bucket = self._brought.pop(via, None) or TokenBucket(BRING_BURST, BRING_PER_S, now.at)
        self._brought[via] = bucket
        if len(self._brought) > BRINGERS_MAX:
            del self._brought[next(iter(self._brought))]
        if bucket.wait_ms(now.at, cost) and tx.fate(envelope.id) is None:
            return Admission(Verdict.DEFERRED, Reason.FULL)
        admission = self.keep(checked, via, policy, now)
        if admission.verdict is not Verdict.DUPLICATE:
            bucket.take(now.at, cost)
        return admission

    def keep(self, checked: Checked, via: PeerKey, policy: Policy, now: Now) -> Admission:
        """Let in a post by the gate, if anybody here follows its channel; :meth:`slide` must follow."""
        tx = self._store
        if checked.envelope.dst not in tx.followed():
            # As for a recipient nobody knows: somebody may come, and its author keeps it.
            return Admission(Verdict.DEFERRED, Reason.UNKNOWN)
        admission = admit(tx, checked, via, policy, now)
        if (held := admission.held) is not None:
            self._fresh.setdefault(ChannelId(held.dst), set()).add(held.src)
        return admission

    def lacking(self, asks: PeerKey, ids: Sequence[EnvelopeId], now: Instant) -> Lacking:
        """Say which posts were never seen here, to somebody who could bring them: to one at a time."""
        lacking, later = [], []
        for id in ids:
            if self._store.fate(id) is not None:
                continue
            who, until = self._expected.get(id, (asks, now))
            if who != asks and until > now:
                later.append(id)
                continue
            lacking.append(id)
            self._expected.pop(id, None)
            self._expected[id] = asks, Instant(now + EXPECTED_MS)
            if len(self._expected) > EXPECTED_MAX:
                del self._expected[next(iter(self._expected))]
        return lacking, later

    def posted(self, channels: Collection[ChannelId]) -> None:
        """Posts have come into these channels, and are durable."""
        self.hear(channels)

    def slide(self, now: Instant) -> None:
        """Let go of what has no more room beside what came; once for a batch, in its transaction."""
        tx, rules = self._store, self.rules
        count, size = max(1.0, rules.posts * rules.share), rules.window_bytes * rules.share
        for channel, authors in self._fresh.items():
            for author in sorted(authors):
                while n := _excess(tx, author + channel, count, size):
                    if not _drop(tx, tx.oldest(channel, author, n), now):
                        break
            while _excess(tx, channel, rules.posts, rules.window_bytes) and _drop_of_most(tx, channel, now):
                pass
        self._fresh.clear()
        if tx.usage(Scope.POSTS).bytes > rules.storage:
            while tx.usage(Scope.POSTS).bytes > rules.storage * (1 - 1 / SLACK):
                widest = tx.widest()
                if widest is None or not _drop_of_most(tx, widest, now):
                    break

    # --- upkeep

    def forget_idle(self, now: Now, present: Container[PeerKey], limit: int) -> int:
        """Who did not come for long follows nothing any more; return how many were looked at."""
        tx = self._store
        idle = tx.idle_followers(Instant(now.at - FOLLOW_MS), limit)
        for user in idle:
            if user in present:
                tx.see_user(user, now.at, now.wall)
            else:
                tx.follow(user, ())
        return len(idle)

    def sweep(self, limit: int) -> int:
        """Let go of posts that nobody follows any more; return how many.

        Their ids go too: who follows the channel again is to get them from whoever still has them.
        """
        tx, gone = self._store, 0
        for channel in tx.windows() - tx.followed().keys():
            ids = [id for _, id in tx.post_ids(channel, 0, limit - gone)]
            tx.release_many(ids)
            tx.forget_ids(ids)
            gone += len(ids)
            if gone >= limit:
                break
        return gone


def _excess(tx: FollowStore, key: bytes, count: float, size: float) -> int:
    """Return how many posts are too many; where it is their bytes, one at a time."""
    used = tx.usage(Scope.POSTS, key)
    return max(ceil(used.count - count), int(used.bytes > size))


def _drop_of_most(tx: FollowStore, channel: ChannelId, now: Instant) -> bool:
    via = tx.crowds(channel)
    return via is not None and _drop(tx, tx.brought(channel, via, 1), now)


def _drop(tx: FollowStore, ids: Iterable[EnvelopeId], now: Instant) -> bool:
    """Let go of posts; False when none is there: after damage the totals may count what cannot be found."""
    found = [id for id in ids if tx.held(id) is not None]
    for id in found:
        tx.release(id)
        tx.remember(id, Fate.GONE, after_release(now))
    return bool(found)
