"""The window: posts of a channel that are kept for subscribers who come later, within bounds.

Our own posts and those of others are bounded apart, so that nobody's posts push ours out. The window slides: for the
newest goes the oldest of the neighbour that brought most, and an author beyond its share pushes out only its own. What
leaves the window stays in the journal of who had it delivered.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from math import inf

from quicprochat.core.envelope import FLAG_EMERGENCY, TTL_MAX_S, Kind
from quicprochat.core.ids import ChannelId, EnvelopeId, PeerKey
from quicprochat.core.rates import RateLimits
from quicprochat.core.store import Fate, Held, MeshStore, Scope
from quicprochat.core.time import DAY_MS, HOUR_MS, Instant

BATCH = 256
WINDOW_MS = 7 * DAY_MS
"""How long a home server keeps a post, from when it was written."""
NEWCOMER_HOPS = 8
"""How many hops a newcomer's post makes at once (guess): a village, not a city."""


@dataclass(frozen=True, slots=True)
class PostLimits(RateLimits):
    """Bounds of channels, each with the flood it stops (guesses for a small computer)."""

    own: int = 1_000
    """Our own posts kept, per channel; an old one goes for a new one."""
    others: int = 1_000
    """Others' posts kept, per channel."""
    others_bytes: int = 16 << 20
    """The same in bytes."""
    share: float = 0.25
    """Part of a channel's window, in posts and in bytes, that one author may fill."""
    unread: int = 250
    """Others' posts of one channel for which there is no key here yet: anybody who knows its id can make such."""
    unread_bytes: int = 4 << 20
    """The same in bytes."""
    all_bytes: int = 64 << 20
    """Others' posts kept, in all channels together that we are in."""
    foreign_bytes: int = 32 << 20
    """Posts kept of channels that we are not in: whoever fills most over one link makes room."""
    foreign: int = 16_384
    """The same in posts."""
    foreign_channels: int = 1_024
    """Channels that we are not in and know something of: made-up ids."""
    newcomer_hops: int = NEWCOMER_HOPS
    """Hops that a post of an author makes who is not known yet (``newcomers.py``)."""
    urgent: int = 64
    """Emergencies of trusted authors in a channel that make room for nothing else, the newest of them."""
    urgent_bytes: int = 4 << 20
    """The same of all channels together that we are not in."""


def after_release(now: Instant) -> Instant:
    """Return until when the id of a released envelope is remembered: as long as any copy of it can live."""
    return Instant(now + 2 * TTL_MAX_S * 1_000 + HOUR_MS)


_FLAGS = 3
"""Where an envelope has its flags."""


def is_urgent(held: Held, trusted: AbstractSet[PeerKey]) -> bool:
    """Say whether a post is an emergency of an author that is trusted with them."""
    return held.src in trusted and held.kind == Kind.CHANNEL and held.wire[_FLAGS] == FLAG_EMERGENCY


def slide(
    tx: MeshStore,
    held: Held,
    limits: PostLimits,
    now: Instant,
    *,
    foreign_bytes: float = 0,
    trusted: AbstractSet[PeerKey] = frozenset(),
) -> list[EnvelopeId]:
    """A post is new in its channel's window: let go of what has no more room there, and return what that was.

    An author beyond its share goes first, then the neighbour that brought most of the channel, the oldest of it first:
    who makes up authors pushes out what it brought itself. Emergencies of ``trusted`` authors stay while they are few.
    ``foreign_bytes`` are those of channels that we are not in, which have a bound of their own; infinite when this
    post belongs to one of them.
    """
    channel, author = held.dst, held.src
    gone: list[EnvelopeId] = []
    if held.own:
        while tx.usage(Scope.OWN_POSTS, channel).count > limits.own and (
            one := _oldest(tx, channel, author, limits, trusted)
        ):
            _drop(tx, one, now, Fate.GONE, gone)
        return gone
    fate = Fate.PASSED if foreign_bytes == inf else Fate.GONE
    count, size = max(1, limits.others * limits.share), limits.others_bytes * limits.share
    while _over(tx, author + channel, count, size) and (one := _oldest(tx, channel, author, limits, trusted)):
        _drop(tx, one, now, fate, gone)
    while _others_over(tx, channel, limits, foreign_bytes) and (one := _of_heaviest(tx, channel, limits, trusted)):
        _drop(tx, one, now, fate, gone)
    return gone


def _drop(tx: MeshStore, held: Held, now: Instant, fate: Fate, gone: list[EnvelopeId]) -> None:
    _release(tx, held, now, fate)
    gone.append(held.id)


def _oldest(
    tx: MeshStore,
    channel: bytes,
    of: PeerKey | None,
    limits: PostLimits,
    trusted: AbstractSet[PeerKey] = frozenset(),
    via: bytes | None = None,
) -> Held | None:
    """Return the post that goes first; None when there is none: after damage the totals may count what cannot be found.

    Emergencies of the trusted stay, unless they are too many.
    """
    if not trusted:
        return next((one for id in tx.oldest(channel, of, 1, via) if (one := tx.held(id)) is not None), None)
    found: list[Held] = []
    for many in (1, 1 + limits.urgent):
        found = [one for id in tx.oldest(channel, of, many, via) if (one := tx.held(id)) is not None]
        oldest = next((one for one in found if not is_urgent(one, trusted)), None)
        if oldest is not None or len(found) < many:
            return oldest
    return found[0]


def _of_heaviest(tx: MeshStore, channel: bytes, limits: PostLimits, trusted: AbstractSet[PeerKey]) -> Held | None:
    """Return the post that goes first of the neighbour that brought most."""
    heaviest = tx.heaviest(Scope.LINK_POSTS, channel)
    via = None if heaviest is None else heaviest[0][len(channel) :]
    found = None if via is None else _oldest(tx, channel, None, limits, trusted, via)
    return found or _oldest(tx, channel, None, limits, trusted)


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
    if held is not None:
        _release(tx, held, now, fate)
    else:
        tx.release(id)  # it may be damaged, and must go all the same
        tx.remember(id, fate, after_release(now))


def _release(tx: MeshStore, held: Held, now: Instant, fate: Fate) -> None:
    tx.release(held.id)
    if not held.own:  # our own are known by their author
        tx.remember(held.id, fate, after_release(now), held.via)


def clear(tx: MeshStore, channel: ChannelId, now: Instant, fate: Fate = Fate.GONE) -> list[EnvelopeId]:
    """Let go of everything kept for a channel, and return what that was."""
    gone: list[EnvelopeId] = []
    while found := tx.waiting(channel, 0, BATCH):
        for held in found:
            release(tx, held.id, now, fate)
            gone.append(held.id)
    return gone
