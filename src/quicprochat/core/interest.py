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
OFFERS_MAX = 32_768
"""Offers over one link, about all channels together, of which nothing came: what they make a node remember (guess)."""
COMPARE_BURST, COMPARE_BYTES_PER_S = 4 << 20, 64 << 10
"""Bytes of comparing taken over one link, about all channels together: 1 s of a processor for 3 MB (measured)."""
PUSH_MAX = 1_024
"""Posts that wait for room on one link; what is more is offered instead."""
PAUSES_MAX = 1_024
"""Authors whose posts one neighbour has put off; of more, all posts of a channel wait together."""

NOBODY = PeerKey(b"")

Source = tuple[ChannelId, PeerKey]
"""A channel and an author in it."""


class Pause:
    """A neighbour had no room for an author's posts: ``ids`` are offered again at ``until``, each time later."""

    __slots__ = ("ids", "ms", "until")

    def __init__(self) -> None:
        self.ids: dict[EnvelopeId, Source] = {}
        self.ms = DEFERRED_MS
        self.until: Instant | None = None

    def begin(self, now: Instant) -> None:
        """Put the channel off, unless it is."""
        if self.until is None:
            self.until = Instant(now + self.ms)
            self.ms = min(2 * self.ms, RETRY_LAST_MS)


class Reader:
    """A linked neighbour."""

    __slots__ = (
        "_since", "_since_every", "compare", "deaf", "flying", "fresh", "heard", "hearings", "offers",
        "pauses", "peer", "push", "rush", "tell", "tell_at", "tellings", "told", "wanting",
    )  # fmt: skip

    def __init__(self, peer: PeerKey, now: Instant, *, fresh: bool) -> None:
        self.peer = peer
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
        self.compare = TokenBucket(COMPARE_BURST, COMPARE_BYTES_PER_S, now)
        self.offers = 0
        """Offers heard since it was last counted how many of them are open."""
        self.deaf: set[ChannelId] = set()
        self.rush: dict[EnvelopeId, Source] = {}
        """Emergencies: handed over before everything else."""
        self.push: dict[EnvelopeId, Source] = {}
        """What is handed over next."""
        self.flying: dict[EnvelopeId, Source] = {}
        """What was handed over and not answered."""
        self.pauses: dict[Source, Pause] = {}
        self.wanting: dict[ChannelId, None] = {}
        """Channels of which it wants something that it was offered."""

    def wants(self, channel: ChannelId) -> bool:
        """Say whether the neighbour takes posts of a channel."""
        return channel in self.heard or EVERY_CHANNEL in self.heard

    def shares(self, channel: ChannelId) -> bool:
        """Say whether both sides have told each other that they take part in a channel."""
        return channel not in self.deaf and self.takes(channel)

    def takes(self, channel: ChannelId) -> bool:
        """Say whether posts of a channel may be handed over: also of one that is not talked about any more."""
        if not self.wants(channel):
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

    def pause(self, source: Source) -> Pause:
        """Return how long an author's posts wait for this neighbour; whoever floods holds up nobody else."""
        if source not in self.pauses and len(self.pauses) >= PAUSES_MAX:
            self.pauses = {of: pause for of, pause in self.pauses.items() if pause.until is not None}
            if len(self.pauses) >= PAUSES_MAX:
                source = (source[0], NOBODY)
        return self.pauses.setdefault(source, Pause())

    def gets(self, id: EnvelopeId) -> bool:
        """Say whether a post is being handed over, or is about to be."""
        return id in self.push or id in self.flying or id in self.rush

    def resumed(self, source: Source) -> None:
        """The neighbour has taken an author's post: the next time it has no room, waiting begins anew."""
        if (pause := self.pauses.get(source)) is not None:
            pause.ms = DEFERRED_MS
            if pause.until is None and not pause.ids:
                del self.pauses[source]

    def paused(self, source: Source) -> bool:
        """Say whether an author's posts wait."""
        if not self.pauses:
            return False
        found = (self.pauses.get(source), self.pauses.get((source[0], NOBODY)))
        return any(pause is not None and pause.until is not None for pause in found)

    def forget(self, channel: ChannelId) -> None:
        """Nothing of a channel is handed over any more."""
        self.pauses = {of: pause for of, pause in self.pauses.items() if of[0] != channel}
        self.wanting.pop(channel, None)
        self.rush, self.push, self.flying = (
            {id: of for id, of in table.items() if of[0] != channel} for table in (self.rush, self.push, self.flying)
        )

    def resume(self, now: Instant) -> None:
        """Hand over once more what was put off until now."""
        for pause in self.pauses.values():
            if pause.until is not None and pause.until <= now:
                pause.until = None
                ids, pause.ids = pause.ids, {}
                self.push = {**ids, **self.push}
