"""Posts: what this node writes into channels, what it takes of others', and to whom it hands both.

Each neighbour tells which channels it takes part in. A new post goes at once to whom the tree of its author leads
(``tree.py``), and is offered to the others a little later; what neighbours lack of older ones they find out by
comparing (``sharing.py``). Whoever is *willing* takes part in all channels, and keeps posts that it cannot read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from math import inf

from quicprochat.core.channel import (
    SALT_BYTES,
    TYPE_TEXT,
    BroadcastChannel,
    Post,
    Secrets,
    Subscription,
    heads_after,
    lacks_key,
    open_with,
    seal_post,
    secrets_of,
)
from quicprochat.core.charter import fits, may_write
from quicprochat.core.courier import IN_FLIGHT_BYTES, Lane
from quicprochat.core.crypto import Crypto, Entropy, Signer
from quicprochat.core.envelope import (
    FLAG_EMERGENCY,
    TRANSIT,
    TRANSIT_OFFSET,
    TTL_DEFAULT_S,
    Header,
    Kind,
    MeshEnvelope,
    make,
)
from quicprochat.core.events import (
    ChannelsChanged,
    CloseLink,
    Effect,
    Journaled,
    LinkId,
    PostAccepted,
    PostTaken,
    PostWritten,
    SendFrame,
    SendInterest,
)
from quicprochat.core.gate import (
    Admission,
    Carry,
    Checked,
    Policy,
    Reason,
    Verdict,
    admit,
    publish,
    read_post,
    understood,
)
from quicprochat.core.ids import UID_BYTES, ChannelId, EnvelopeId, PeerKey, Uid
from quicprochat.core.interest import DEAF_MAX, PUSH_MAX, Reader
from quicprochat.core.link import EVERY_CHANNEL, ChannelFrame, FrameType, Goodbye, Result
from quicprochat.core.neighbours import Neighbours
from quicprochat.core.order import Order
from quicprochat.core.rates import Standing
from quicprochat.core.sharing import Sharing, travels
from quicprochat.core.store import Fate, Held, Line, LineKind, MeshStore
from quicprochat.core.time import SECOND_MS, Instant, Now
from quicprochat.core.tree import Tree, Ways
from quicprochat.core.window import BATCH, clear, release

POST_TTL_S = TTL_DEFAULT_S
"""At least as long as the window, so that no post dies while subscribers may still ask for it."""
IN_FLIGHT = 256
"""Posts handed to one neighbour and not yet answered; the rest of its window is left to messages."""
GATHER_MS = 300
"""Whom the tree does not lead to is offered a post so much later, unless it shows before that it has it."""
FRESH_MS = 10 * SECOND_MS
"""An older post does not come along the tree, but is offered; who wants it is not handed the next ones for that."""
LINKS_MAX = 1_024
"""Neighbours whose patience and store are remembered: twice as many as there can be links."""
SEQ_BYTES = 8
NONCE_BYTES = 16

_NUMBER_KEY = "post seq "

Hear = Callable[[MeshEnvelope, Post, MeshStore, Now, list[Effect]], None]


def last_number(store: MeshStore, channel: ChannelId) -> int:
    """Return the number of the last post that this identity wrote into a channel; 0 before the first."""
    return int.from_bytes(store.value(_NUMBER_KEY + channel.hex()) or b"", "big")


def set_last_number(tx: MeshStore, channel: ChannelId, number: int) -> None:
    """Note the number of our newest post in a channel; the next gets the one after it."""
    tx.set_value(_NUMBER_KEY + channel.hex(), number.to_bytes(SEQ_BYTES, "big"))


class Posts:
    """Our channels, the posts we write, and those we hand on."""

    def __init__(self, signer: Signer, crypto: Crypto, entropy: Entropy, ways: Ways | None, policy: Policy) -> None:
        self._signer = signer
        self._crypto = crypto
        self._entropy = entropy
        self._me = policy.me
        self._willing = policy.willing
        self.joined: frozenset[ChannelId] = frozenset()
        self.subscriptions: tuple[Subscription, ...] = ()
        self._secrets: Secrets = {}
        self.hear: Hear = _nobody
        """Told of every post that opened and is kept."""
        self.wrote: Callable[[ChannelId], None] = _not_told
        """Told of every channel that we wrote into."""
        self._readers: dict[PeerKey, Reader] = {}
        self._epochs: dict[PeerKey, bytes] = {}
        self._tree = Tree(policy.me, ways)
        self._sharing = Sharing(policy.me, entropy, self._readers, self._known, policy.limits.posts)
        self._tx: MeshStore | None = None
        self._later: deque[tuple[Instant, ChannelId, EnvelopeId]] = deque()
        """What is to be offered when, the soonest first."""
        self._order = Order(policy)

    def _known(self, channel: ChannelId, id: EnvelopeId) -> bool:
        assert self._tx is not None
        fate = self._tx.fate(id)
        if fate is Fate.PASSED:
            return channel not in self.joined
        return fate is not None or self._tx.held(id) is not None

    # --- channels

    def start(self, tx: MeshStore, policy: Policy, now: Instant, out: list[Effect]) -> None:
        """Take up the channels and posts that the store remembers."""
        self._tx = tx
        self.reload(tx, out)
        for id in self.joined:
            self._sharing.of(id, now)
        for dst in tx.destinations():
            channel = ChannelId(dst)
            for held in kept(tx, channel):
                if held.kind != Kind.CHANNEL:
                    break
                foreign = channel not in self.joined
                if foreign and policy.carry is not Carry.ALL:
                    clear(tx, channel, now, Fate.PASSED)
                    break
                self._hold(tx, held, now, foreign=foreign, unread=self._unread(held))
        self._silence(tx, policy.blocked, now)

    def decide(self, tx: MeshStore, policy: Policy, now: Instant) -> None:
        """The owner's contacts, block list or trust changed."""
        newly = policy.blocked - self._order.policy.blocked
        self._order.decide(policy)
        self._silence(tx, newly, now)
        self._go_on(tx, self._order.all_held_back(), now)

    def met(self, tx: MeshStore, peer: PeerKey, via: PeerKey, now: Instant) -> None:
        """A peer's record was heard: whoever is there for an hour is no newcomer when it posts for the first time."""
        self._order.took(tx, peer, via, now)

    def _silence(self, tx: MeshStore, blocked: AbstractSet[PeerKey], now: Instant) -> None:
        """Let go of what blocked authors wrote: it is not kept, and not handed on."""
        for author in sorted(blocked):
            for channel in self._sharing.channels():
                while ids := tx.oldest(channel, author, BATCH):
                    for id in ids:
                        release(tx, id, now)
                    self._gone(channel, ids)

    def joined_now(self, tx: MeshStore, id: ChannelId, policy: Policy, now: Now, out: list[Effect]) -> None:
        """The owner joined a channel, which is in the store: what is held of it already opens at once."""
        self.reload(tx, out)
        self._sharing.adopt(id, kept(tx, id), now.at)
        self.open_held(tx, id, policy, now, out)

    def key_came(self, tx: MeshStore, id: ChannelId, policy: Policy, now: Now, out: list[Effect]) -> None:
        """A channel of ours has one more secret, which is in the store: what waited for it opens."""
        self.reload(tx, out)
        self.open_held(tx, id, policy, now, out)

    def list_changed(self, tx: MeshStore, id: ChannelId, now: Now, out: list[Effect]) -> None:
        """Others may write into a channel now: what was refused is wanted if it comes again."""
        self.reload(tx, out)
        self._sharing.begin_anew(id, now.at)

    def open_held(self, tx: MeshStore, id: ChannelId, policy: Policy, now: Now, out: list[Effect]) -> int:
        """Read what is held of a channel of ours and could not be read until now; return how many posts that were.

        To be called when there is a new key. They come into the inbox as if they had just come, in the order in which
        they came; what was delivered before is not delivered again.
        """
        count = 0
        # What says who may write comes first.
        for held, envelope, post in sorted(self._opened(tx, id, policy, now), key=lambda one: one[2].type == TYPE_TEXT):
            subscription = tx.channel(id)
            if subscription is None or not fits(subscription, envelope.src, post):
                self._gone(id, (held.id,))
                release(tx, held.id, now.at)
                continue
            self.hear(envelope, post, tx, now, out)
            if post.type != TYPE_TEXT:
                continue
            age, emergency = envelope.age_ms + max(0, now.at - held.stored_at), self._order.is_urgent(held)
            line = read_post(tx, subscription, envelope, post, age, now, emergency=emergency)
            if line is not None:
                out.append(Journaled(line))
                count += 1
        return count

    def _opened(self, tx: MeshStore, id: ChannelId, policy: Policy, now: Now) -> list[tuple[Held, MeshEnvelope, Post]]:
        """Open all that is held of a channel and can be; the rest waits for a key."""
        secrets = self._secrets.get(id, ())
        found, unread = [], []
        for held in kept(tx, id):
            if held.own or held.src in policy.blocked:
                continue
            envelope = MeshEnvelope.decode(held.wire)
            if lacks_key(envelope, secrets):
                unread.append(held)
            elif understood(envelope) and (post := open_with(envelope, secrets, self._crypto)) is not None:
                self._sharing.read(id, held.id)
                found.append((held, envelope, post))
        for held in unread:
            self._put_aside(tx, held, now.at)
        return found

    def unreadable(self, id: ChannelId) -> tuple[EnvelopeId, ...]:
        """Return the posts of a channel of ours that wait for a key."""
        return self._sharing.unread(id)

    def leave(self, tx: MeshStore, id: ChannelId, now: Now, out: list[Effect]) -> None:
        """The owner left a channel: its secret, its posts and its authors go; its topic and our number stay."""
        known = tx.channel(id)
        if known is None or known.left:
            return
        tx.put_channel(replace(known, channel=replace(known.channel, secret=b"", salt=b""), earlier=(), left=True))
        # What we have read we do not read again; but others may need it of us, should we come back.
        self._gone(id, clear(tx, id, now.at, Fate.PASSED))
        tx.forget_heard(id)
        self.reload(tx, out)
        self._sharing.leave(id)
        for reader in self._readers.values():
            reader.forget(id)

    def reload(self, tx: MeshStore, out: list[Effect]) -> None:
        """Something of a channel has changed."""
        found = self.subscriptions = tuple(tx.channels())
        self.joined = frozenset(s.channel.id for s in found if not s.left)
        self._secrets = secrets_of(found)
        if found:
            out.append(ChannelsChanged(found))

    # --- writing

    def write(self, event: PostWritten, tx: MeshStore, policy: Policy, now: Now, out: list[Effect]) -> None:
        """Seal, number and keep a post in one transaction, so that no number is given twice and none is missing."""
        subscription = tx.channel(event.channel)
        if subscription is None or subscription.left or not may_write(subscription, self._me):
            out.append(PostAccepted(event.uid, Reason.POLICY))
            return
        channel, parents = subscription.channel, subscription.heads
        seq = 1 + last_number(tx, channel.id)
        flags = FLAG_EMERGENCY if event.emergency else 0
        accepted = self._publish(tx, channel, Post(event.uid, seq, event.text, parents), policy, now, flags)
        if accepted.id is not None:
            set_last_number(tx, channel.id, seq)
            tx.note(
                Line(
                    LineKind.OWN_POST, self._me, event.uid, now.wall, event.text, protection=channel.kind.value,
                    read=True, channel=channel.id, id=accepted.id, seq=seq, parents=parents,
                )
            )  # fmt: skip
            tx.put_channel(subscription.after(heads_after(parents, accepted.id, parents)))
        out.append(accepted)

    def notice(
        self, tx: MeshStore, id: ChannelId, type: int, body: bytes, policy: Policy, now: Now, uid: Uid | None = None
    ) -> PostAccepted:
        """Post something that is for programs: it has no number and stands in no order."""
        subscription = tx.channel(id)
        assert subscription is not None
        post = Post(uid or Uid(self._entropy(UID_BYTES)), 0, "", type=type, body=body)
        return self._publish(tx, subscription.channel, post, policy, now)

    def _publish(
        self, tx: MeshStore, channel: BroadcastChannel, post: Post, policy: Policy, now: Now, flags: int = 0
    ) -> PostAccepted:
        # No word of the time: each reader is a first hop, and any whose clock disagrees would refuse it.
        header = Header(Kind.CHANNEL, self._me, channel.id, self._entropy(NONCE_BYTES), ttl_s=POST_TTL_S, flags=flags)
        salt = self._entropy(SALT_BYTES)
        payload = seal_post(header, channel.secret, channel.epoch, salt, post, self._crypto)
        published = publish(tx, make(header, payload, self._signer), policy, now)
        if isinstance(published, Reason):
            return PostAccepted(post.uid, published)
        held, gone = published
        self._gone(channel.id, gone)
        self._hold(tx, held, now.at, foreign=False, unread=False)
        self._spread(held, now.at)
        self.wrote(channel.id)
        neighbours = sum(reader.wants(channel.id) for reader in self._readers.values())
        return PostAccepted(post.uid, Reason.NONE, held.id, neighbours)

    # --- neighbours

    def link_up(self, peer: PeerKey, store_epoch: bytes, now: Instant) -> None:
        """A neighbour is there; what it is interested in, it will tell."""
        self.link_down(peer, now)
        fresh = self._epochs.pop(peer, store_epoch) != store_epoch
        self._epochs[peer] = store_epoch
        if len(self._epochs) > LINKS_MAX:
            del self._epochs[next(iter(self._epochs))]
        self._readers[peer] = Reader(peer, now, fresh=fresh)

    def link_down(self, peer: PeerKey, now: Instant) -> None:
        """A neighbour is gone; what was under way is offered again on the next link."""
        if self._readers.pop(peer, None) is not None:
            self._sharing.link_down(peer, now)
            self._tree.forget(peer)

    def interest(self, peer: PeerKey, channels: tuple[ChannelId, ...], now: Instant) -> None:
        """A neighbour told its channels: of those that are ours too, each offers what the other has not got."""
        reader = self._readers[peer]
        reader.hears(frozenset(channels))
        self._sharing.match(reader, now)

    def heard(self, peer: PeerKey, body: bytes, tx: MeshStore, now: Instant) -> None:
        """A frame about a channel came. Raises: WireError."""
        reader = self._readers.get(peer)
        if reader is None:
            return
        self._tx = tx
        frame = ChannelFrame.decode(body)
        foreign = frame.channel not in self.joined
        for id in self._sharing.heard(reader, frame, now, foreign=foreign):
            held = tx.held(id)
            if held is not None and _is_fresh(held, now):
                self._tree.graft(held.src, peer)
        self._make_room(tx, now)

    # --- what comes in

    def admit(
        self, tx: MeshStore, checked: Checked, via: PeerKey, policy: Policy, now: Now, out: list[Effect]
    ) -> Admission:
        """Let a post in by the gate, keep it, and hand it on, unless too many came of late.

        Its author pays for new posts only: whoever repeats another's old ones must not use up what that one has left.
        The neighbour pays for all it brings, but for duplicates that it may well have brought.
        """
        envelope, channel = checked.envelope, ChannelId(checked.envelope.dst)
        foreign = channel not in self.joined
        if envelope.src == policy.me:
            self._sharing.seen(envelope, now.at)
            self._sharing.has(via, channel, envelope.id)
        if (foreign and not self._willing) or envelope.src == policy.me:
            return admit(tx, checked, via, policy, now)
        if not foreign and checked.post is None and checked.keyless:
            # Perhaps the key came while the post was on its way through the check.
            secrets = secrets_of(tx.channels()).get(channel, ())
            post = open_with(envelope, secrets, self._crypto)
            checked = replace(checked, post=post, keyless=lacks_key(envelope, secrets))
        asked = self._sharing.expects(channel, envelope.id)
        toll = self._order.judge(self._order.arrival(tx, envelope, via, now.at), now.at)
        if toll.standing is Standing.OVER and tx.fate(envelope.id) is None:
            self._sharing.put_off(envelope, now.at)
            return Admission(Verdict.DEFERRED, Reason.FULL)
        emergency = toll.standing is Standing.EMERGENCY
        foreign_bytes = inf if foreign else self._sharing.foreign_bytes
        admission = admit(tx, checked, via, policy, now, foreign_bytes=foreign_bytes, emergency=emergency)
        new = admission.verdict is Verdict.STORED
        if new:
            self._order.took(tx, envelope.src, via, now.at)
        if admission.verdict is not Verdict.DUPLICATE or not (asked or self._tree.fed_by(envelope.src, via)):
            toll.pay(now.at, new=new)
        unread = not foreign and checked.post is None and checked.keyless
        self._admitted(tx, envelope, admission, via, now, foreign=foreign, unread=unread, asked=asked)
        if admission.verdict is Verdict.STORED and not foreign and checked.post is not None:
            self.hear(envelope, checked.post, tx, now, out)
        return admission

    def _admitted(
        self, tx: MeshStore, envelope: MeshEnvelope, admission: Admission, via: PeerKey, now: Now, *, foreign: bool,
        unread: bool, asked: bool,
    ) -> None:  # fmt: skip
        channel = ChannelId(envelope.dst)
        if admission.held is not None:
            self._gone(channel, admission.gone)
            self._hold(tx, admission.held, now.at, foreign=foreign, unread=unread)
            self._sharing.carried(via, channel, envelope.id)
            self._spread(admission.held, now.at, asked=asked)
        elif admission.verdict is Verdict.DEFERRED:
            self._sharing.put_off(envelope, now.at)
        else:
            self._sharing.seen(envelope, now.at)
            self._sharing.has(via, channel, envelope.id)

    def _unread(self, held: Held) -> bool:
        """Say whether there is no key for a post of a channel of ours."""
        secrets = self._secrets.get(held.dst)
        return secrets is not None and not held.own and lacks_key(MeshEnvelope.decode(held.wire), secrets)

    def _hold(self, tx: MeshStore, held: Held, now: Instant, *, foreign: bool, unread: bool) -> None:
        """Let a post that is in the store be offered, and make room for it."""
        onward, urgent = self._order.goes_on(tx, held, now), self._order.is_urgent(held)
        gone = self._sharing.hold(held, now, foreign=foreign, onward=onward, urgent=urgent)
        for id in gone:
            release(tx, id, now, Fate.PASSED)
        self._order.gone(gone)
        if unread:
            self._put_aside(tx, held, now)
        self._make_room(tx, now)

    def _put_aside(self, tx: MeshStore, held: Held, now: Instant) -> None:
        """Keep a post of a channel of ours that cannot be read yet, within the bound of such."""
        if self._order.is_urgent(held):
            return
        gone = self._sharing.put_aside(held)
        for id in gone:
            release(tx, id, now, Fate.PASSED)
        self._order.gone(gone)

    def _gone(self, channel: ChannelId, ids: Sequence[EnvelopeId]) -> None:
        """These posts have left the store."""
        self._sharing.release(channel, ids)
        self._order.gone(ids)

    def _make_room(self, tx: MeshStore, now: Instant) -> None:
        """Forget channels that we are not in while there are too many."""
        while (crowded := self._sharing.crowded()) is not None:
            self._gone(crowded, clear(tx, crowded, now, Fate.PASSED))
            for reader in self._sharing.drop(crowded):
                reader.ignore(crowded)

    def expire(self, tx: MeshStore, held: Held, now: Instant) -> None:
        """Let go of a post whose time is over."""
        release(tx, held.id, now)
        self._gone(ChannelId(held.dst), (held.id,))

    # --- handing on

    def _spread(self, held: Held, now: Instant, *, asked: bool = False) -> None:
        """A post is new here: hand it at once to whom the tree leads, and offer it to the others a little later.

        What had to be asked for while the way to its author is new is offered to all at once: when a partition heals
        it comes from several sides, along with the news of that way, and whoever handed it on unasked would meet a
        neighbour that does the same.
        """
        channel, author = ChannelId(held.dst), held.src
        if not travels(held) or self._order.holds_back(held.id):
            return
        fresh = _is_fresh(held, now) and (not asked or self._tree.settled(author, now))
        urgent = self._order.is_urgent(held)
        for peer, reader in self._readers.items():
            if not fresh or peer in (held.via, author) or not reader.takes(channel):
                continue
            if not self._tree.feeds(author, peer):
                continue
            if urgent:
                reader.rush[held.id] = (channel, author)
            elif len(reader.push) < PUSH_MAX:
                reader.push[held.id] = (channel, author)
        if author in self._readers and author != held.via:
            self._sharing.has(author, channel, held.id)
        if fresh and not urgent and self._tree.rooted(author):
            self._later.append((Instant(now + GATHER_MS), channel, held.id))
        else:
            self._later.appendleft((now, channel, held.id))

    def _offer(self, now: Instant) -> None:
        """Offer what was gathered to all who have not shown that they have it."""
        while self._later and self._later[0][0] <= now:
            _, channel, id = self._later.popleft()
            for peer, reader in self._readers.items():
                if reader.shares(channel) and not reader.gets(id):
                    self._sharing.offer(peer, channel, id)

    def _go_on(self, tx: MeshStore, ids: Iterable[EnvelopeId], now: Instant) -> None:
        """Hand on what was held back, as far as its authors are known now."""
        for id in ids:
            held = tx.held(id)
            if held is not None and held.expires_at > now:
                foreign = ChannelId(held.dst) not in self.joined
                self._hold(tx, held, now, foreign=foreign, unread=self._unread(held))
                self._spread(held, now)

    def rush(self, tx: MeshStore, lane: Lane, now: Instant, out: list[Effect]) -> None:
        """Hand a neighbour what goes before everything else, whatever else waits for its answers."""
        reader = self._readers[lane.peer]
        while reader.rush and len(lane.flying) < lane.window:
            id, source = next(iter(reader.rush.items()))
            del reader.rush[id]
            if not self._sharing.known_to(lane.peer, source[0], id):
                self._launch(tx, lane, reader, id, now, out)

    def fill(self, tx: MeshStore, lane: Lane, now: Instant, out: list[Effect]) -> None:
        """Tell a neighbour our channels if they changed, and hand it posts as far as its window goes."""
        self._tx = tx
        reader = self._readers[lane.peer]
        channels = frozenset((EVERY_CHANNEL,)) if self._willing else self.joined
        if reader.told is not channels and reader.told != channels:
            self._tell(reader, lane.link, channels, now, out)
        reader.resume(now)
        handed: list[EnvelopeId] = []
        for id, source in reader.push.items():
            if not _room(lane, reader):
                break
            handed.append(id)
            if reader.paused(source):
                reader.pause(source).ids[id] = source
            elif not self._sharing.known_to(lane.peer, source[0], id):
                self._launch(tx, lane, reader, id, now, out)
        for id in handed:
            del reader.push[id]

    def flush(self, neighbours: Neighbours, tx: MeshStore, now: Instant, out: list[Effect]) -> None:
        """Say what is to be said about channels, and hand over what is wanted, as far as the windows go."""
        self._tx = tx
        self._go_on(tx, self._order.due(now), now)
        self._offer(now)
        for neighbour in neighbours:
            reader = self._readers.get(neighbour.peer)
            if reader is None:
                continue  # a home server (uplink.py)
            while reader.wanting and _room(neighbour.lane, reader):
                room_bytes = IN_FLIGHT_BYTES // 2 - neighbour.lane.flying_bytes
                ids = self._sharing.take(reader, room_bytes, IN_FLIGHT - len(reader.flying), now)
                for id in ids:
                    if id not in reader.flying:
                        self._launch(tx, neighbour.lane, reader, id, now, out)
                if not ids:
                    break
            if len(reader.deaf) > DEAF_MAX:
                out.append(CloseLink(neighbour.lane.link, Goodbye.BUSY, "too many channels came and went"))
        for peer, frame in self._sharing.poll(now):
            found = neighbours.find(peer)
            if found is not None:
                body = replace(frame, interests=self._readers[peer].hearings).encode()
                out.append(SendFrame(found.lane.link, FrameType.CHANNEL, body))
        spent = [neighbours.find(peer) for peer in sorted(self._sharing.spent)]
        out += [CloseLink(one.lane.link, Goodbye.BUSY, "all offers are used up") for one in spent if one is not None]
        self._sharing.spent.clear()

    def _tell(
        self, reader: Reader, link: LinkId, channels: frozenset[ChannelId], now: Instant, out: list[Effect]
    ) -> None:
        if reader.tell.take(now):
            out.append(SendInterest(link, tuple(sorted(channels))))
            reader.tells(channels)
            self._sharing.match(reader, now)
        else:
            reader.tell_at = Instant(now + reader.tell.wait_ms(now))

    def _launch(
        self, tx: MeshStore, lane: Lane, reader: Reader, id: EnvelopeId, now: Instant, out: list[Effect]
    ) -> None:
        held = tx.held(id)
        if held is not None and held.expires_at > now:
            reader.flying[id] = (ChannelId(held.dst), held.src)
            lane.launch(held, now, out)

    def answered(self, peer: PeerKey, result: Result, now: Instant, out: list[Effect]) -> bool:
        """Take a neighbour's answer to a post; False when it is about something else."""
        reader = self._readers[peer]
        flown = reader.flying.pop(result.id, None)
        if flown is None:
            return False
        channel, author = flown
        match result.verdict:
            case Verdict.STORED | Verdict.DUPLICATE:
                reader.resumed(flown)
                self._sharing.carried(peer, channel, result.id)
                if result.verdict is Verdict.DUPLICATE:
                    self._tree.prune(author, peer)
                if author == self._me:
                    out.append(PostTaken(result.id, peer))
            case Verdict.DEFERRED:
                reader.pause(flown).ids[result.id] = flown
                reader.pause(flown).begin(now)
            case Verdict.REFUSED if result.reason is Reason.POLICY:
                # It has left the channel; should it come back, it will say so.
                pass
            case Verdict.REFUSED:
                self._sharing.has(peer, channel, result.id)
        return True

    def deadline(self) -> Instant | None:
        """Return when there is something to do again, if nothing happens before."""
        times = [self._later[0][0]] if self._later else []
        for reader in self._readers.values():
            times += [pause.until for pause in reader.pauses.values() if pause.until is not None]
            if reader.tell_at is not None:
                times.append(reader.tell_at)
        times += [at for at in (self._sharing.deadline(), self._order.deadline()) if at is not None]
        return min(times, default=None)


def _nobody(envelope: MeshEnvelope, post: Post, tx: MeshStore, now: Now, out: list[Effect]) -> None:
    """Hear nothing."""


def _not_told(channel: ChannelId) -> None:
    """Hear nothing."""


def kept(tx: MeshStore, channel: ChannelId) -> Iterator[Held]:
    """Yield what is held for a channel, in the order in which it came."""
    after = 0
    while found := tx.waiting(channel, after, BATCH):
        yield from found
        after = found[-1].serial


def _is_fresh(held: Held, now: Instant) -> bool:
    age = TRANSIT.unpack_from(held.wire, TRANSIT_OFFSET)[1]
    return int(age) + now - held.stored_at < FRESH_MS


def _room(lane: Lane, reader: Reader) -> bool:
    if len(reader.flying) >= IN_FLIGHT:
        # Some may have left the window, and then nobody waits for their answer any more.
        reader.flying = {id: of for id, of in reader.flying.items() if id in lane.flying}
    return len(reader.flying) < IN_FLIGHT and lane.room() and lane.flying_bytes < IN_FLIGHT_BYTES // 2
