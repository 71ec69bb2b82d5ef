"""One neighbour as somebody posts go to: what each side told of its channels over this link, and what is under way."""

from __future__ import annotations

from quicprochat.core.bucket import TokenBucket
from quicprochat.core.courier import DEFERRED_MS, RETRY_LAST_MS
from quicprochat.core.ids import ChannelId, EnvelopeId, PeerKey
from quicprochat.core.link import EVERY_CHANNEL, ChannelFrame
from quicprochat.core.time import Instant

TELL_BURST, TELL_PER_S = 8, 1
"""How often a neighbour is told of our channels; only the last of several changes is told (docs/protocol.md §9)."""
DEAF_MAX = 4_096
"""Channels that are not talked about any more over one link, because there were too many."""
PUSH_MAX = 1_024
"""Posts that wait for room on one link; what is more is offered instead."""


class Pause:
    """A neighbour had no room for posts of a channel: ``ids`` are offered again at ``until``, each time later."""

    __slots__ = ("ids", "ms", "until")

    def __init__(self) -> None:
        self.ids: dict[EnvelopeId, None] = {}
        self.ms = DEFERRED_MS
        self.until: Instant | None = None

    def begin(self, now: Instant) -> None:
        """Put the channel off, unless it is."""
        if self.until is None:
            self.until = Instant(now + self.ms)
            self.ms = min(2 * self.ms, RETRY_LAST_MS)


class Reader:
    """A linked neighbour. ``carrier``: a home server, which is told our own channels and talks of none."""

    __slots__ = (
        "_since", "_since_every", "carrier", "deaf", "flying", "fresh", "heard", "hearings", "pauses", "peer", "push",
        "tell", "tell_at", "tellings", "told", "wanting",
    )  # fmt: skip

    def __init__(self, peer: PeerKey, now: Instant, *, carrier: bool, fresh: bool) -> None:
        self.peer = peer
        self.carrier = carrier
        self.fresh = fresh
        """True when it has lost its memory since it was linked last."""
        self.told: frozenset[ChannelId] = frozenset()
        self.heard: frozenset[ChannelId] = frozenset()
        self.tellings = self.hearings = 0
        """How many INTEREST frames went each way over this link."""
        self._since: dict[ChannelId, int] = {}
        self._since_every: int | None = None
        self.tell = TokenBucket(TELL_BURST, TELL_PER_S, now)
        self.tell_at: Instant | None = None
        self.deaf: set[ChannelId] = set()
        self.push: dict[EnvelopeId, ChannelId] = {}
        """What is handed over next."""
        self.flying: dict[EnvelopeId, tuple[ChannelId, PeerKey]] = {}
        """Channels and authors of what was handed over and not answered."""
        self.pauses: dict[ChannelId, Pause] = {}
        self.wanting: dict[ChannelId, None] = {}
        """Channels of which it wants something that it was offered."""

    def wants(self, channel: ChannelId) -> bool:
        """Say whether the neighbour takes posts of a channel."""
        return channel in self.heard or EVERY_CHANNEL in self.heard

    def shares(self, channel: ChannelId) -> bool:
        """Say whether both sides have told each other that they take part in a channel."""
        if self.carrier or channel in self.deaf or not self.wants(channel):
            return False
        return channel in self.told or EVERY_CHANNEL in self.told

    def tells(self, channels: frozenset[ChannelId]) -> None:
        """We tell our channels."""
        self.told, self.tell_at = channels, None
        self.tellings += 1
        self._note()

    def hears(self, channels: frozenset[ChannelId]) -> None:
        """The neighbour has told its channels."""
        self.heard = channels
        self.hearings += 1
        self._note()

    def _note(self) -> None:
        """Note since which word of ours each channel is shared without a break."""
        named = (self.told | self.heard) - {EVERY_CHANNEL}
        self._since = {id: self._since.get(id, self.tellings) for id in named if self.shares(id)}
        if EVERY_CHANNEL not in self.told or EVERY_CHANNEL not in self.heard:
            self._since_every = None
        elif self._since_every is None:
            self._since_every = self.tellings

    def is_late(self, frame: ChannelFrame) -> bool:
        """Say whether a frame was sent before the neighbour had our last word on its channel, and means nothing now."""
        since = self._since.get(frame.channel, self._since_every)
        return since is None or (frame.interests - since) & 0xFF >= 0x80

    def ignore(self, channel: ChannelId) -> bool:
        """Talk of a channel no more over this link; False when there are too many of these, and it must begin anew."""
        self.deaf.add(channel)
        self.forget(channel)
        return len(self.deaf) <= DEAF_MAX

    def pause(self, channel: ChannelId) -> Pause:
        """Return how long posts of a channel wait for this neighbour."""
        return self.pauses.setdefault(channel, Pause())

    def paused(self, channel: ChannelId) -> bool:
        """Say whether posts of a channel wait."""
        pause = self.pauses.get(channel)
        return pause is not None and pause.until is not None

    def forget(self, channel: ChannelId) -> None:
        """Nothing of a channel is handed over any more."""
        self.pauses.pop(channel, None)
        self.wanting.pop(channel, None)
        self.push = {id: of for id, of in self.push.items() if of != channel}
        self.flying = {id: of for id, of in self.flying.items() if of[0] != channel}

    def resume(self, now: Instant) -> None:
        """Hand over once more what was put off until now."""
        for channel, pause in self.pauses.items():
            if pause.until is not None and pause.until <= now:
                pause.until = None
                ids, pause.ids = pause.ids, {}
                self.push = {**dict.fromkeys(ids, channel), **self.push}
