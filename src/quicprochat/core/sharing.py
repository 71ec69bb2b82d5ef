"""The posts of all channels a node takes part in, carried as mail is: for each channel one ``Carry`` with its links.

What both ends of a link share they compare and offer each other (``carry.py``), in frames that name the channel.
A channel that nothing is known of costs nothing: its set comes into being with its first post or frame, and of those
that this node is not in, no more are kept than a bound, at the cost of the neighbour that brought most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from heapq import heappop, heappush

from quicprochat.core.carry import Carry, CarryLimits
from quicprochat.core.crypto import Entropy
from quicprochat.core.entries import Entry, entry_of
from quicprochat.core.envelope import CREATED, MAX_HOPS, TRANSIT_OFFSET, MeshEnvelope
from quicprochat.core.errors import WireError
from quicprochat.core.ids import ID_BYTES, ChannelId, EnvelopeId, PeerKey
from quicprochat.core.interest import OFFERS_MAX, Reader
from quicprochat.core.link import FOR_CHANNEL, ChannelFrame, FrameType
from quicprochat.core.shelf import Parcel, Shelf
from quicprochat.core.store import Held
from quicprochat.core.time import Instant
from quicprochat.core.window import PostLimits

_UNBOUNDED = CarryLimits(1 << 62, 1 << 62)
"""What is kept of each channel, the window says."""


def travels(held: Held) -> bool:
    """Say whether a post may go one hop further."""
    return held.own or held.wire[TRANSIT_OFFSET] < held.wire[MAX_HOPS]


def _parcel(held: Held, *, urgent: bool) -> Parcel:
    return Parcel(
        Entry(held.wire[CREATED] + held.id), held.kind, held.src, held.dst, len(held.wire), PeerKey(held.via),
        held.expires_at, kept=True, order=0 if urgent else held.serial,
    )  # fmt: skip


class Sharing:
    """One node's sets of posts, one for each channel."""

    def __init__(
        self,
        me: PeerKey,
        entropy: Entropy,
        readers: dict[PeerKey, Reader],
        known: Callable[[ChannelId, EnvelopeId], bool],
        limits: PostLimits,
    ) -> None:
        """``readers`` are the linked neighbours; ``known`` says whether a post was seen, and may read the store."""
        self._me, self._entropy, self._known = me, entropy, known
        self._readers = readers
        self._sets: dict[ChannelId, Carry] = {}
        self._left: set[ChannelId] = set()
        """Channels we are in no more, until no link talks of them."""
        self._unread: dict[ChannelId, Shelf] = {}
        """Posts of our channels that no key of ours is for. Anybody can make such: they have a bound of their own."""
        self._foreign: dict[ChannelId, PeerKey] = {}
        """Channels we are not in, and who brought them; the one that was looked at longest ago first."""
        self._shelf = Shelf(limits.foreign_bytes, limits.foreign)
        self._reserved = Shelf(limits.urgent_bytes, limits.foreign)
        """Emergencies in channels we are not in, apart: nothing else pushes them out."""
        self._touched: dict[ChannelId, None] = {}
        self._alarms: list[tuple[Instant, ChannelId]] = []
        self._due: dict[ChannelId, Instant] = {}
        self._limits = limits
        self.spent: set[PeerKey] = set()
        """Neighbours whose link must begin anew before more can be offered."""

    # --- sets

    def __contains__(self, channel: ChannelId) -> bool:
        return channel in self._sets

    def channels(self) -> list[ChannelId]:
        """Return the channels of which anything is known."""
        return list(self._sets)

    @property
    def foreign_bytes(self) -> int:
        """Bytes of posts of channels we are not in."""
        return self._shelf.bytes + self._reserved.bytes

    def of(self, channel: ChannelId, now: Instant, via: PeerKey | None = None) -> Carry:
        """Return a channel's set, made and linked if it is new; ``via`` brought it, None if we are in it."""
        found = self._sets.get(channel)
        if found is None:
            found = self._sets[channel] = Carry(
                self._me, self._entropy, _UNBOUNDED, partial(self._known, channel), lasting=True
            )  # fmt: skip
            for reader in self._readers.values():
                if reader.shares(channel):
                    found.link_up(reader.peer, now, fresh=reader.fresh, speaks=True)
        if via is not None:
            found.idle = True
            self._foreign[channel] = self._foreign.pop(channel, via)
        self._touched[channel] = None
        return found

    def crowded(self) -> ChannelId | None:
        """Return the foreign channel that must go because there are too many; None if there are not.

        Of the neighbour that brought most, the one with the fewest posts, and of equals the one that was looked at
        longest ago: ids are free to make up, posts are paid for. The one looked at now stays, so that what just came
        is handed on, and one with an emergency of a trusted author as long as there are others.
        """
        if len(self._foreign) <= self._limits.foreign_channels:
            return None
        brought = Counter(self._foreign.values())
        most = max(brought, key=lambda peer: (brought[peer], peer))
        found = [channel for channel, via in self._foreign.items() if via == most]
        if len(found) > 1 and found[-1] == next(reversed(self._foreign)):
            found.pop()
        reserved = self._reserved.destinations()
        return min(found, key=lambda id: (id in reserved, len(self._sets[id])))

    def adopt(self, channel: ChannelId, posts: Iterable[Held], now: Instant) -> None:
        """We are in a channel now: what is held of it gives way to no other's, and what gave way is wanted again."""
        new = channel not in self._sets
        carry = self.of(channel, now)
        carry.idle = False
        self._left.discard(channel)
        if self._foreign.pop(channel, None) is not None or new:
            carry.begin_anew()
        for held in posts:
            self._shelf.pop(held.id)
            self._reserved.pop(held.id)
            if new:
                self.hold(held, now, foreign=False)

    def begin_anew(self, channel: ChannelId, now: Instant) -> None:
        """Posts of a channel that were refused may be right now: they are wanted once a neighbour offers them again."""
        if channel in self._sets:
            self.of(channel, now).begin_anew()

    def leave(self, channel: ChannelId) -> None:
        """We are in a channel no more, and hold nothing of it; should we come back, all of it is wanted again.

        Its set stays while a link talks of it: we may be back before the neighbour was told that we had gone.
        """
        self._unread.pop(channel, None)
        if (carry := self._sets.get(channel)) is not None:
            carry.begin_anew()
            self._left.add(channel)
            self._let_go(channel)

    def _let_go(self, channel: ChannelId) -> None:
        """Forget a channel that was left, when nobody talks of it any more."""
        carry = self._sets[channel]
        if channel in self._left and not any(carry.linked(peer) for peer in self._readers):
            self.drop(channel)

    def drop(self, channel: ChannelId) -> list[Reader]:
        """Forget a channel; return the neighbours with whom it must not be talked about any more over this link."""
        carry = self._sets.pop(channel, None)
        self._left.discard(channel)
        for table in (self._foreign, self._unread, self._touched, self._due):
            table.pop(channel, None)
        return [] if carry is None else [one for one in self._readers.values() if carry.linked(one.peer)]

    # --- posts

    def hold(
        self, held: Held, now: Instant, *, foreign: bool, onward: bool = True, urgent: bool = False
    ) -> list[EnvelopeId]:
        """A post is in the store; return what must leave it to make room. Nobody is offered it yet.

        ``onward`` False: it is not handed on, for now. ``urgent``: it goes first, and has room of its own.
        """
        channel = ChannelId(held.dst)
        carry = self.of(channel, now, PeerKey(held.via) if foreign else None)
        parcel = _parcel(held, urgent=urgent)
        if not (onward and travels(held)):
            carry.seen(parcel.entry, held.id, held.expires_at, now)
        else:
            carry.hold(parcel, now, offer=False)
        gone = []
        if foreign:
            self._left.discard(channel)
            parcel = _parcel(held, urgent=urgent)
            parcel.kept = False
            shelf = self._reserved if urgent else self._shelf
            shelf.put(parcel)
            while shelf.over and (victim := shelf.victim(lambda one: ())) is not None:
                shelf.pop(victim.id)
                self._sets[ChannelId(victim.dst)].release(victim.id)
                gone.append(victim.id)
        return gone

    def put_aside(self, held: Held) -> list[EnvelopeId]:
        """A post that is held cannot be read yet; return what leaves the store, so that such do not fill a window.

        Of the neighbour that brought most of them, the author that wrote most makes room.
        """
        channel = ChannelId(held.dst)
        shelf = self._unread.setdefault(channel, Shelf(self._limits.unread_bytes, self._limits.unread))
        parcel = _parcel(held, urgent=False)
        parcel.kept = False
        shelf.put(parcel)
        gone = []
        while shelf.over and (victim := shelf.victim(lambda one: ())) is not None:
            gone.append(victim.id)
            self.release(channel, (victim.id,))
        return gone

    def unread(self, channel: ChannelId) -> tuple[EnvelopeId, ...]:
        """Return what was put aside of a channel and is still held."""
        shelf = self._unread.get(channel)
        return tuple(shelf.ids()) if shelf is not None else ()

    def read(self, channel: ChannelId, id: EnvelopeId) -> None:
        """The key came: this post can be read now, and counts as any other."""
        if (shelf := self._unread.get(channel)) is not None:
            shelf.pop(id)

    def seen(self, envelope: MeshEnvelope, now: Instant) -> None:
        """A post came and is not held: it was refused, or known."""
        channel = ChannelId(envelope.dst)
        if channel in self._sets:
            expires_at = Instant(now + max(0, envelope.ttl_ms - envelope.age_ms))
            self.of(channel, now).seen(entry_of(envelope.created_ms, envelope.id), envelope.id, expires_at, now)

    def put_off(self, envelope: MeshEnvelope, now: Instant) -> None:
        """A post came and there was no room for it."""
        channel = ChannelId(envelope.dst)
        if channel in self._sets:
            self.of(channel, now).unwelcome(envelope.id, now)

    def release(self, channel: ChannelId, ids: Iterable[EnvelopeId]) -> None:
        """These are not held any more."""
        carry, unread = self._sets.get(channel), self._unread.get(channel)
        for id in ids:
            self._shelf.pop(id)
            self._reserved.pop(id)
            if unread is not None:
                unread.pop(id)
            if carry is not None:
                carry.release(id)

    def expects(self, channel: ChannelId, id: EnvelopeId) -> bool:
        """Say whether a neighbour was asked for a post."""
        carry = self._sets.get(channel)
        return carry is not None and carry.expects(id)

    def has(self, peer: PeerKey, channel: ChannelId, id: EnvelopeId) -> None:
        """A neighbour has a post, or wants it not."""
        if (carry := self._sets.get(channel)) is not None:
            carry.has(peer, id)

    def carried(self, peer: PeerKey, channel: ChannelId, id: EnvelopeId) -> None:
        """A post has crossed the link to a neighbour, either way."""
        if (carry := self._sets.get(channel)) is not None:
            carry.carried(peer, id)

    def known_to(self, peer: PeerKey, channel: ChannelId, id: EnvelopeId) -> bool:
        """Say whether a neighbour is known to have a post."""
        carry = self._sets.get(channel)
        return carry is not None and carry.known_to(peer, id)

    def offer(self, peer: PeerKey, channel: ChannelId, id: EnvelopeId) -> None:
        """Let a neighbour be offered a post, unless it is known to have it."""
        if (carry := self._sets.get(channel)) is not None:
            carry.offer(peer, id)
            self._touched[channel] = None

    # --- links

    def match(self, reader: Reader, now: Instant) -> None:
        """What a neighbour and we take part in has changed: begin with some channels, and end with others."""
        for channel, carry in list(self._sets.items()):
            shared = reader.shares(channel)
            if shared != carry.linked(reader.peer):
                if shared:
                    carry.link_up(reader.peer, now, fresh=reader.fresh, speaks=True)
                else:
                    carry.link_down(reader.peer, now)
                    reader.wanting.pop(channel, None)
                self._touched[channel] = None
                self._let_go(channel)

    def link_down(self, peer: PeerKey, now: Instant) -> None:
        """A neighbour is gone."""
        for channel, carry in list(self._sets.items()):
            if carry.linked(peer):
                carry.link_down(peer, now)
                self._touched[channel] = None
                self._let_go(channel)

    def heard(self, reader: Reader, frame: ChannelFrame, now: Instant, *, foreign: bool) -> list[EnvelopeId]:
        """A frame about a channel came; return which posts the neighbour wants. Raises: WireError."""
        if not reader.shares(frame.channel) or frame.kind not in FOR_CHANNEL or reader.is_late(frame):
            return []
        if frame.kind == FrameType.RANGES and not reader.compare.take(now, len(frame.body)):
            return []  # the next comparing finds what this one would have
        carry = self.of(frame.channel, now, reader.peer if foreign else None)
        if frame.kind == FrameType.OFFER:
            reader.offers += len(frame.body) // ID_BYTES
            if reader.offers > 2 * OFFERS_MAX:
                reader.offers = sum(one.open(reader.peer) for one in self._sets.values())
                if reader.offers > OFFERS_MAX:
                    raise WireError("a neighbour that offers more than it brings")
        wanted = carry.received(reader.peer, frame.kind, frame.body, now)
        if wanted:
            reader.wanting[frame.channel] = None
        return wanted

    def take(self, reader: Reader, room_bytes: int, most: int, now: Instant) -> list[EnvelopeId]:
        """Return posts that a neighbour wants, to hand over now."""
        for channel in list(reader.wanting):
            carry = self._sets.get(channel)
            ids = carry.take(reader.peer, room_bytes, now, most) if carry is not None else []
            if ids:
                self._touched[channel] = None
            if carry is None or not carry.wanted(reader.peer):
                del reader.wanting[channel]
            if ids:
                return ids
        return []

    # --- time

    def _next_alarm(self) -> Instant | None:
        while self._alarms and self._due.get(self._alarms[0][1]) != self._alarms[0][0]:
            heappop(self._alarms)
        return self._alarms[0][0] if self._alarms else None

    def deadline(self) -> Instant | None:
        """Return when :meth:`poll` has something to do, if nothing happens before; 0 for at once."""
        return Instant(0) if self._touched else self._next_alarm()

    def poll(self, now: Instant) -> list[tuple[PeerKey, ChannelFrame]]:
        """Return the frames to send now; their count of interests is still to be set."""
        while (at := self._next_alarm()) is not None and at <= now:
            channel = heappop(self._alarms)[1]
            del self._due[channel]
            self._touched[channel] = None
            self._sets[channel].tick(now)
        out = []
        touched, self._touched = self._touched, {}
        for channel in touched:
            carry = self._sets[channel]
            out += [(say.peer, ChannelFrame(channel, 0, say.kind, say.body)) for say in carry.poll(now)]
            self.spent.update(carry.spent())
            at = carry.deadline()
            if at is None:
                self._due.pop(channel, None)
            elif self._due.get(channel) != at:
                self._due[channel] = at
                heappush(self._alarms, (at, channel))
        return out
