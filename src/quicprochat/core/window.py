"""The window: posts of a channel that are kept for subscribers who come later, within bounds.

Our own posts and those of others are bounded apart, so that nobody's posts push ours out. The window slides: the
oldest goes for the newest, and an author beyond its share pushes out only its own. What leaves the window stays in the
journal of who had it delivered.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from quicprochat.core.envelope import TTL_MAX_S
from quicprochat.core.ids import ChannelId, EnvelopeId, PeerKey
from quicprochat.core.store import Fate, Held, MeshStore, Scope
from quicprochat.core.time import HOUR_MS, Instant

BATCH = 256


@dataclass(frozen=True, slots=True)
class PostLimits:
    """Bounds of channels, each with the flood it stops (guesses for a small computer)."""

    own: int = 1_000
    """Our own posts kept, per channel; an old one goes for a new one."""
    others: int = 1_000
    """Others' posts kept, per channel."""
    others_bytes: int = 16 << 20
    """The same in bytes."""
    share: float = 0.25
    """Part of a channel's window, in posts and in bytes, that one author may fill."""
    all_bytes: int = 64 << 20
    """Others' posts kept, in all channels together that we are in."""
    foreign_bytes: int = 32 << 20
    """Posts kept of channels that we are not in: whoever fills most over one link makes room."""
    foreign: int = 16_384
    """The same in posts."""
    foreign_channels: int = 1_024
    """Channels that we are not in and know something of: made-up ids."""
    author_burst: int = 1_000
    """Posts taken from one author at once, whatever way they come: a member that floods."""
    author_per_s: float = 1
    link_burst: int = 4_000
    """Posts taken from one neighbour at once: floods by authors that it makes up."""
    link_per_s: float = 20
    piece_bytes: int = 4_096
    """A longer post counts as one more for each so many bytes."""


def after_release(now: Instant) -> Instant:
    """Return until when the id of a released envelope is remembered: as long as any copy of it can live."""
    return Instant(now + 2 * TTL_MAX_S * 1_000 + HOUR_MS)


def slide(tx: MeshStore, held: Held, limits: PostLimits, now: Instant, *, foreign_bytes: float = 0) -> list[EnvelopeId]:
    """A post is new in its channel's window: let go of what has no more room there, and return what that was.

    ``foreign_bytes`` are those of channels that we are not in, which have a bound of their own; infinite when this
    post belongs to one of them.
    """
    channel, author = held.dst, held.src
    fate = Fate.PASSED if foreign_bytes == inf else Fate.GONE
    gone: list[EnvelopeId] = []

    def drop_oldest(of: PeerKey | None) -> bool:
        """Let go of one post; False when there is none: after damage the totals may count what cannot be found."""
        found = [id for id in tx.oldest(channel, of, 1) if tx.held(id) is not None]
        for id in found:
            release(tx, id, now, fate)
        gone.extend(found)
        return bool(found)

    if held.own:
        while tx.usage(Scope.OWN_POSTS, channel).count > limits.own and drop_oldest(author):
            pass
        return gone
    count, size = max(1, limits.others * limits.share), limits.others_bytes * limits.share
    while _over(tx, author + channel, count, size) and drop_oldest(author):
        pass
    while _others_over(tx, channel, limits, foreign_bytes) and drop_oldest(None):
        pass
    return gone


def _others_over(tx: MeshStore, channel: bytes, limits: PostLimits, foreign_bytes: float) -> bool:
    if _over(tx, channel, limits.others, limits.others_bytes):
        return True
    return tx.usage(Scope.POSTS).bytes - foreign_bytes > limits.all_bytes


def _over(tx: MeshStore, key: bytes, count: float, size: float) -> bool:
    used = tx.usage(Scope.POSTS, key)
    return used.count > count or used.bytes > size


def release(tx: MeshStore, id: EnvelopeId, now: Instant, fate: Fate = Fate.GONE) -> None:
    """Let go of a post; that it was seen stays. PASSED: we have not read it, and may want it one day."""
    held = tx.held(id)
    tx.release(id)
    if held is None or not held.own:  # our own are known by their author
        tx.remember(id, fate, after_release(now))


def clear(tx: MeshStore, channel: ChannelId, now: Instant, fate: Fate = Fate.GONE) -> list[EnvelopeId]:
    """Let go of everything kept for a channel, and return what that was."""
    gone: list[EnvelopeId] = []
    while found := tx.waiting(channel, 0, BATCH):
        for held in found:
            release(tx, held.id, now, fate)
            gone.append(held.id)
    return gone
