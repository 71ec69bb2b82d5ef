"""Posts: what this node writes into channels, and to which neighbours it hands that.

Each neighbour tells which channels it subscribes to. Posts of ours go to every neighbour that does, in the order they
were written, until it has answered for each; what it has answered is remembered when its link goes, so that a link
that flaps repeats nothing. Posts of others are kept in the same window and not handed on yet: ``_ours_to_give`` is the
one place that says so.
"""

from __future__ import annotations

from dataclasses import replace

from quicprochat.core.bucket import TokenBucket
from quicprochat.core.channel import SALT_BYTES, BroadcastChannel, Post, Subscription, heads_after, seal_post
from quicprochat.core.courier import DEFERRED_MS, IN_FLIGHT_BYTES, RETRY_LAST_MS, Lane
from quicprochat.core.crypto import Crypto, Entropy, Signer
from quicprochat.core.envelope import FLAG_EMERGENCY, TTL_DEFAULT_S, Header, Kind, make
from quicprochat.core.events import (
    ChannelsChanged,
    Effect,
    LinkId,
    PostAccepted,
    PostTaken,
    PostWritten,
    SendInterest,
)
from quicprochat.core.gate import Admission, Checked, Policy, Reason, Verdict, admit, publish
from quicprochat.core.ids import ChannelId, EnvelopeId, PeerKey
from quicprochat.core.link import Result
from quicprochat.core.store import Held, MeshStore
from quicprochat.core.time import Instant, Now
from quicprochat.core.window import clear

POST_TTL_S = TTL_DEFAULT_S
"""At least as long as the window, so that no post dies while subscribers may still ask for it."""
IN_FLIGHT = 256
"""Posts handed to one neighbour and not yet answered; the rest of its window is left to messages."""
BATCH = 256
TELL_BURST, TELL_PER_S = 8, 1
"""How often a neighbour is told of our channels; only the last of several changes is told (docs/protocol.md §9)."""
READERS_MAX = 1_024
"""Peers of which it is known what they have: twice as many as there can be links."""
AUTHORS_MAX = 4_096
SEQ_BYTES = 8
NONCE_BYTES = 16

_NUMBER_KEY = "post seq "


def last_number(store: MeshStore, channel: ChannelId) -> int:
    """Return the number of the last post that this identity wrote into a channel; 0 before the first."""
    return int.from_bytes(store.value(_NUMBER_KEY + channel.hex()) or b"", "big")


def set_last_number(tx: MeshStore, channel: ChannelId, number: int) -> None:
    """Note the number of our newest post in a channel; the next gets the one after it."""
    tx.set_value(_NUMBER_KEY + channel.hex(), number.to_bytes(SEQ_BYTES, "big"))


class _Reach:
    """How far one peer has come in one channel.

    Up to ``cursor``, a serial of the store, every post of ours was handed over; of these ``again`` must be offered
    once more, and ``declined`` were not wanted before the peer tells its interest anew.
    """

    __slots__ = ("again", "cursor", "declined", "deferred_ms")

    def __init__(self) -> None:
        self.cursor = 0
        self.again: dict[EnvelopeId, None] = {}
        self.declined: dict[EnvelopeId, None] = {}
        self.deferred_ms = DEFERRED_MS


class _Reader:
    """A peer as one that posts go to, linked now or before. ``busy`` are channels with something left to hand over."""

    __slots__ = ("busy", "epoch", "flying", "interests", "reach", "tell", "tell_at", "told", "waiting")

    def __init__(self, epoch: bytes) -> None:
        self.epoch = epoch
        self.reach: dict[ChannelId, _Reach] = {}
        self.flying: dict[EnvelopeId, ChannelId] = {}
        self.interests: frozenset[ChannelId] = frozenset()
        self.busy: set[ChannelId] = set()
        self.waiting: dict[ChannelId, Instant] = {}
        self.told: frozenset[ChannelId] = frozenset()
        self.tell: TokenBucket | None = None
        """None while the peer is not linked."""
        self.tell_at: Instant | None = None

    def unlink(self) -> None:
        """Its link is gone: what was under way is offered again on the next."""
        for id, channel in self.flying.items():
            self.reach[channel].again[id] = None
        self.flying.clear()
        self.waiting.clear()
        self.interests = self.told = frozenset()
        self.tell = self.tell_at = None

    def forget(self, channel: ChannelId) -> None:
        """We left a channel."""
        self.reach.pop(channel, None)
        self.waiting.pop(channel, None)
        self.busy.discard(channel)
        self.flying = {id: of for id, of in self.flying.items() if of != channel}


class Posts:
    """Our channels, the posts we write, and how far each neighbour has them."""

    def __init__(self, signer: Signer, crypto: Crypto, entropy: Entropy) -> None:
        self._signer = signer
        self._crypto = crypto
        self._entropy = entropy
        self.joined: frozenset[ChannelId] = frozenset()
        self._readers: dict[PeerKey, _Reader] = {}
        self._by_author: dict[PeerKey, TokenBucket] = {}
        self._by_link: dict[PeerKey, TokenBucket] = {}

    # --- channels

    def start(self, tx: MeshStore, out: list[Effect]) -> None:
        """Take up the channels that the store remembers."""
        self._reload(tx, out)

    def join(self, tx: MeshStore, channel: BroadcastChannel, out: list[Effect]) -> None:
        """The owner joined a channel."""
        known = tx.channel(channel.id)
        tx.put_channel(Subscription(channel, known.heads if known is not None else ()))
        self._reload(tx, out)
        for reader in self._readers.values():
            if channel.id in reader.interests:
                reader.busy.add(channel.id)

    def leave(self, tx: MeshStore, id: ChannelId, now: Now, out: list[Effect]) -> None:
        """The owner left a channel: its secret and its posts go, its topic and our sequence number stay."""
        known = tx.channel(id)
        if known is None or known.left:
            return
        tx.put_channel(Subscription(replace(known.channel, secret=b""), known.heads, left=True))
        clear(tx, id, now.at)
        self._reload(tx, out)
        for reader in self._readers.values():
            reader.forget(id)

    def _reload(self, tx: MeshStore, out: list[Effect]) -> None:
        found = tuple(tx.channels())
        self.joined = frozenset(s.channel.id for s in found if not s.left)
        if found:
            out.append(ChannelsChanged(found))

    # --- writing

    def write(self, event: PostWritten, tx: MeshStore, policy: Policy, now: Now, out: list[Effect]) -> None:
        """Seal, number and keep a post in one transaction, so that no number is given twice and none is missing."""
        subscription = tx.channel(event.channel)
        if subscription is None or subscription.left:
            out.append(PostAccepted(event.uid, Reason.POLICY))
            return
        channel, parents = subscription.channel, subscription.heads
        seq = 1 + last_number(tx, channel.id)
        # No word of the time: each reader is a first hop, and any whose clock disagrees would refuse it.
        header = Header(
            Kind.CHANNEL, self._signer.key, channel.id, self._entropy(NONCE_BYTES), ttl_s=POST_TTL_S,
            flags=FLAG_EMERGENCY if event.emergency else 0,
        )  # fmt: skip
        post = Post(event.uid, seq, event.text, parents)
        salt = self._entropy(SALT_BYTES)
        payload = seal_post(header, channel.secret, channel.epoch, salt, post, self._crypto)
        held = publish(tx, make(header, payload, self._signer), policy, now)
        if isinstance(held, Reason):
            out.append(PostAccepted(event.uid, held))
            return
        set_last_number(tx, channel.id, seq)
        tx.put_channel(replace(subscription, heads=heads_after(parents, held.id, parents)))
        neighbours = 0
        for reader in self._readers.values():
            if channel.id in reader.interests:
                reader.busy.add(channel.id)
                neighbours += 1
        out.append(PostAccepted(event.uid, Reason.NONE, held.id, neighbours))

    # --- neighbours

    def link_up(self, peer: PeerKey, store_epoch: bytes, now: Instant) -> None:
        """A neighbour is there; what it is interested in, it will tell."""
        reader = self._readers.pop(peer, None)
        if reader is not None:
            reader.unlink()
        if reader is None or reader.epoch != store_epoch:
            reader = _Reader(store_epoch)
        self._readers[peer] = reader
        reader.tell = TokenBucket(TELL_BURST, TELL_PER_S, now)
        if len(self._readers) > READERS_MAX:
            oldest = next((key for key, one in self._readers.items() if one.tell is None), None)
            if oldest is not None:
                del self._readers[oldest]

    def link_down(self, peer: PeerKey) -> None:
        """A neighbour is gone."""
        reader = self._readers.get(peer)
        if reader is not None:
            reader.unlink()

    def interest(self, peer: PeerKey, channels: tuple[ChannelId, ...]) -> None:
        """A neighbour told its channels: hand it what it has not got of those that are ours too."""
        reader = self._readers[peer]
        reader.interests = frozenset(channels)
        for id in reader.interests & self.joined:
            reach = reader.reach.setdefault(id, _Reach())
            reach.again |= reach.declined
            reach.declined.clear()
            reader.busy.add(id)

    def admit(self, tx: MeshStore, checked: Checked, via: PeerKey, policy: Policy, now: Now) -> Admission:
        """Let a post in by the gate, unless its author, or the neighbour that brings it, has sent too many of late.

        An author pays for new posts only: whoever repeats another's old ones must not use up what that one has left.
        """
        envelope, limits = checked.envelope, policy.limits.posts
        if envelope.dst not in self.joined or envelope.src == policy.me:
            return admit(tx, checked, via, policy, now)
        cost = 1 + len(envelope.payload) // limits.piece_bytes
        author = _bucket(self._by_author, envelope.src, AUTHORS_MAX, limits.author_burst, limits.author_per_s, now.at)
        link = _bucket(self._by_link, via, READERS_MAX, limits.link_burst, limits.link_per_s, now.at)
        if (author.wait_ms(now.at, cost) or link.wait_ms(now.at, cost)) and tx.fate(envelope.id) is None:
            return Admission(Verdict.DEFERRED, Reason.FULL)
        admission = admit(tx, checked, via, policy, now)
        if admission.verdict is Verdict.STORED:
            author.take(now.at, cost)
        if admission.verdict is not Verdict.DUPLICATE:
            link.take(now.at, cost)
        return admission

    # --- handing over

    def fill(self, tx: MeshStore, lane: Lane, now: Instant, out: list[Effect]) -> None:
        """Tell a neighbour our channels if they changed, and hand it posts as far as its window goes."""
        reader = self._readers[lane.peer]
        if reader.told is not self.joined and reader.told != self.joined:
            self._tell(reader, lane.link, now, out)
        if reader.waiting:
            for id in [id for id, at in reader.waiting.items() if at <= now]:
                del reader.waiting[id]
                reader.busy.add(id)
        if not reader.busy:
            return
        for id in sorted(reader.busy & reader.interests & self.joined - reader.waiting.keys()):
            if not self._hand_channel(tx, lane, reader, id, now, out):
                return
            reader.busy.discard(id)
        reader.busy.clear()

    def _tell(self, reader: _Reader, link: LinkId, now: Instant, out: list[Effect]) -> None:
        assert reader.tell is not None
        if reader.tell.take(now):
            out.append(SendInterest(link, tuple(sorted(self.joined))))
            reader.told, reader.tell_at = self.joined, None
        else:
            reader.tell_at = Instant(now + reader.tell.wait_ms(now))

    def _hand_channel(
        self, tx: MeshStore, lane: Lane, reader: _Reader, id: ChannelId, now: Instant, out: list[Effect]
    ) -> bool:
        """Hand over what is left of one channel; False when there is no more room."""
        reach = reader.reach.setdefault(id, _Reach())
        while reach.again:
            if not _room(lane, reader):
                return False
            envelope_id = next(iter(reach.again))
            del reach.again[envelope_id]
            held = tx.held(envelope_id)
            if held is not None:
                _launch(lane, reader, held, now, out)
        while True:
            found = tx.waiting(id, reach.cursor, BATCH)
            for held in found:
                if not _room(lane, reader):
                    return False
                reach.cursor = held.serial
                if _ours_to_give(held):
                    _launch(lane, reader, held, now, out)
            if len(found) < BATCH:
                return True

    def answered(self, peer: PeerKey, result: Result, now: Instant, out: list[Effect]) -> bool:
        """Take a neighbour's answer to a post; False when it is about something else."""
        reader = self._readers[peer]
        id = reader.flying.pop(result.id, None)
        if id is None:
            return False
        reach = reader.reach[id]
        match result.verdict:
            case Verdict.STORED | Verdict.DUPLICATE:
                reach.deferred_ms = DEFERRED_MS
                out.append(PostTaken(result.id, peer))
            case Verdict.DEFERRED:
                reach.again[result.id] = None
                if id not in reader.waiting:
                    reader.waiting[id] = Instant(now + reach.deferred_ms)
                    reach.deferred_ms = min(2 * reach.deferred_ms, RETRY_LAST_MS)
            case Verdict.REFUSED if result.reason is Reason.POLICY:
                # It has left the channel; should it come back, it will say so.
                reach.declined[result.id] = None
            case Verdict.REFUSED:
                pass
        return True

    def deadline(self) -> Instant | None:
        """Return when :meth:`fill` has something to do again, if nothing happens before."""
        times = [at for reader in self._readers.values() for at in reader.waiting.values()]
        times += [reader.tell_at for reader in self._readers.values() if reader.tell_at is not None]
        return min(times, default=None)


def _ours_to_give(held: Held) -> bool:
    return held.own


def _room(lane: Lane, reader: _Reader) -> bool:
    if len(reader.flying) >= IN_FLIGHT:
        # Some may have left the window, and then nobody waits for their answer any more.
        reader.flying = {id: of for id, of in reader.flying.items() if id in lane.flying}
    return len(reader.flying) < IN_FLIGHT and lane.room() and lane.flying_bytes < IN_FLIGHT_BYTES // 2


def _launch(lane: Lane, reader: _Reader, held: Held, now: Instant, out: list[Effect]) -> None:
    if held.expires_at > now:
        reader.flying[held.id] = ChannelId(held.dst)
        lane.launch(held, now, out)


def _bucket(
    buckets: dict[PeerKey, TokenBucket], key: PeerKey, most: int, burst: float, per_s: float, now: Instant
) -> TokenBucket:
    """Return the bucket of a peer; of too many, the one not used for longest is forgotten."""
    found = buckets.pop(key, None) or TokenBucket(burst, per_s, now)
    buckets[key] = found
    if len(buckets) > most:
        del buckets[next(iter(buckets))]
    return found
