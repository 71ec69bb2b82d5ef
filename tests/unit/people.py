"""People for the unit tests: a node over a store, and what its edge would make, with the simulator's cryptography."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from quicprochat.core.channel import TYPE_TEXT, BroadcastChannel, Post, Secrets, seal_post, secrets_of
from quicprochat.core.encounter import Want, decode_offer
from quicprochat.core.entries import EntrySet
from quicprochat.core.envelope import HOPS_DEFAULT, TTL_DEFAULT_S, Header, Kind, MeshEnvelope, make
from quicprochat.core.events import (
    ChannelsChanged,
    Effect,
    EnvelopeArrived,
    Event,
    FrameArrived,
    InterestArrived,
    LinkId,
    LinkUp,
    PolicyChanged,
    PostAccepted,
    PostWritten,
    PrekeysChanged,
    RecordArrived,
    SelfChanged,
    SendEnvelope,
    SendFrame,
    SendInterest,
    Subscribed,
    Unsubscribed,
    Written,
)
from quicprochat.core.gate import Admission, Checked, Limits, Policy, Reason, Verdict, admit, check
from quicprochat.core.ids import ChannelId, EnvelopeId, PeerKey, Uid
from quicprochat.core.link import ChannelFrame, FrameType
from quicprochat.core.memory import MemoryStore
from quicprochat.core.node import Node
from quicprochat.core.receipt import Receipt, State, Status
from quicprochat.core.reconcile import Ranges, Reconciler
from quicprochat.core.record import PeerRecord, sign_record
from quicprochat.core.rotation import ChannelKey
from quicprochat.core.seal import BOOTSTRAP_ID, TYPE_KEY, Letter, Prekey, Protection, seal
from quicprochat.core.store import Line
from quicprochat.core.time import WALL_FLOOR, Instant, Now, WallTime
from quicprochat.sim.crypto import SimCrypto, SimEntropy, SimPrivate

T0 = 1_000
"""The life clock when a person is made."""
WALL = WallTime(WALL_FLOOR + 10_000_000)
WINDOW = 1_024
INTERESTS = 64
"""More words of ours than were ever sent: a frame that is never late."""


def at(instant: int, wall: int = 0, *, trusted: bool = False) -> Now:
    """A moment; without a wall clock unless one is given."""
    return Now(Instant(instant), WallTime(wall), trusted)


def by_clock(instant: int) -> Now:
    """A moment on a machine whose wall clock is right: wall time WALL at life time 0."""
    return Now(Instant(instant), WallTime(WALL + instant), True)


class Hops:
    """Next hops as a test sets them, in place of routing; what is judged is noted."""

    def __init__(self) -> None:
        self.ways: dict[PeerKey, tuple[PeerKey, ...]] = {}
        self.judged: list[tuple[PeerKey, PeerKey, bool]] = []
        self.moved: list[PeerKey] = []

    def next_hops(self, destination: PeerKey) -> tuple[PeerKey, ...]:
        return self.ways.get(destination, ())

    def changed(self) -> list[PeerKey]:
        moved, self.moved = self.moved, []
        return moved

    def judge(
        self, neighbour: PeerKey, destination: PeerKey, arrived: bool, now: Instant, since: Instant | None = None
    ) -> None:
        self.judged.append((neighbour, destination, arrived))

    def lead(self, to: Person, *over: Person) -> None:
        """From now on, this is the way to somebody."""
        self.ways[to.key] = tuple(person.key for person in over)
        self.moved.append(to.key)


class Person:
    """One identity with its node and store; made, started and announced at T0 unless ``start`` is False."""

    def __init__(
        self,
        crypto: SimCrypto,
        name: str,
        *,
        limits: Limits | None = None,
        start: bool = True,
        durable: bool = True,
        now: Now | None = None,
    ) -> None:
        self.crypto, self.name = crypto, name
        self.signer = crypto.signer(name.encode())
        self.key = self.signer.key
        self.entropy = SimEntropy(b"entropy of " + name.encode())
        self.store = MemoryStore(durable=durable)
        self.policy = Policy(self.key, limits=limits or Limits())
        self.now = now or at(T0)
        self.hops = Hops()
        self.keys: dict[bytes, SimPrivate] = {}
        self.secrets: Secrets = {}
        if start:
            self.start(self.now)

    @property
    def record(self) -> PeerRecord:
        return self.node.record

    @property
    def prekey(self) -> Prekey:
        return self.node.record.prekeys[0]

    def start(self, now: Now) -> tuple[Effect, ...]:
        """Begin a run on the store as it is, and say who we are."""
        self.now = now
        self.node = Node(self.signer, self.crypto, self.entropy, self.policy, self.hops)
        self.store.begin()
        out = self.node.start(self.store, now)
        self.store.commit()
        self._reload(out)
        return out + self.step(SelfChanged(self.name, "", "", ()))

    def step(self, *events: Event, now: Now | None = None) -> tuple[Effect, ...]:
        """One step and its commit; the moment stays where the last step was unless a new one is given."""
        self.now = now or self.now
        self.store.begin()
        out = self.node.step(events, self.store, self.now)
        self.store.commit()
        self._reload(out)
        return out

    def _reload(self, out: tuple[Effect, ...]) -> None:
        if any(isinstance(effect, PrekeysChanged) for effect in out):
            self.keys = {p.id: self.crypto.load_prekey(p.secret) for p in self.store.prekeys()}
            self.keys[BOOTSTRAP_ID] = self.signer.exchange_private()
        for effect in out:
            if isinstance(effect, ChannelsChanged):
                self.secrets = secrets_of(effect.subscriptions)

    # --- channels

    def join(self, channel: BroadcastChannel) -> tuple[Effect, ...]:
        """The owner joins a channel."""
        return self.step(Subscribed(channel))

    def leave(self, channel: BroadcastChannel) -> tuple[Effect, ...]:
        """The owner leaves a channel."""
        return self.step(Unsubscribed(channel.id))

    def write_post(self, channel: BroadcastChannel, text: str = "hi", now: Now | None = None) -> tuple[Effect, ...]:
        """The owner posts."""
        return self.step(PostWritten(channel.id, self.uid(), text), now=now)

    def hears(self, link: int, *channels: BroadcastChannel, now: Now | None = None) -> tuple[Effect, ...]:
        """A neighbour tells its channels."""
        ids = tuple(sorted(channel.id for channel in channels))
        return self.step(InterestArrived(LinkId(link), ids), now=now)

    def posted(
        self,
        channel: BroadcastChannel,
        text: str = "hi",
        *,
        secret: bytes | None = None,
        epoch: int = 0,
        uid: Uid | None = None,
        seq: int = 1,
        parents: tuple[EnvelopeId, ...] = (),
        ttl_s: int = TTL_DEFAULT_S,
        age_ms: int = 0,
        hop: int = 0,
        type: int = TYPE_TEXT,
        body: bytes = b"",
    ) -> MeshEnvelope:
        """A post signed by this person that its node did not make."""
        header = Header(Kind.CHANNEL, self.key, channel.id, self.entropy(16), ttl_s=ttl_s)
        post = Post(uid or self.uid(), seq, text if type == TYPE_TEXT else "", parents, type=type, body=body)
        payload = seal_post(header, secret or channel.secret, epoch, self.entropy(32), post, self.crypto)
        return replace(make(header, payload, self.signer), hop=hop, age_ms=age_ms)

    # --- what an edge makes

    def envelope(
        self,
        to: PeerKey,
        text: str = "hi",
        prekey: Prekey | None = None,
        *,
        uid: Uid | None = None,
        kind: int = Kind.MESSAGE,
        flags: int = 0,
        ttl_s: int = TTL_DEFAULT_S,
        created_ms: int = 0,
        max_hops: int = HOPS_DEFAULT,
        hop: int = 0,
        age_ms: int = 0,
        key: ChannelKey | None = None,
    ) -> MeshEnvelope:
        """A signed message of this person, after ``hop`` hops and ``age_ms``; with ``key``, one that has it."""
        header = Header(kind, self.key, to, self.entropy(16), created_ms, ttl_s, max_hops, flags)
        letter = Letter(self.key, uid or self.uid(), text)
        if key is not None:
            letter = replace(letter, text="", type=TYPE_KEY, body=key.encode())
        sealed = seal(header, prekey, letter, self.crypto, self.signer)
        return replace(make(header, sealed, self.signer), hop=hop, age_ms=age_ms)

    def uid(self) -> Uid:
        return Uid(self.entropy(16))

    def written(
        self,
        to: PeerKey,
        text: str = "hi",
        prekey: Prekey | None = None,
        *,
        require_fs: bool = False,
        ttl_s: int = TTL_DEFAULT_S,
        created_ms: int = 0,
        key: ChannelKey | None = None,
    ) -> Written:
        """What the node is told of a new message."""
        uid = self.uid()
        envelope = self.envelope(to, text, prekey, uid=uid, ttl_s=ttl_s, created_ms=created_ms, key=key)
        if key is not None:
            return Written(envelope, uid, key.reference, protection(prekey), require_fs, TYPE_KEY)
        return Written(envelope, uid, text, protection(prekey), require_fs)

    def receipt(
        self,
        to: PeerKey,
        *ids: EnvelopeId,
        status: Status = Status.DELIVERED,
        record: bytes = b"",
        ttl_s: int = TTL_DEFAULT_S,
        age_ms: int = 0,
        hop: int = 0,
    ) -> MeshEnvelope:
        """A receipt signed by this person."""
        header = Header(Kind.RECEIPT, self.key, to, self.entropy(16), ttl_s=ttl_s)
        envelope = make(header, Receipt(status, tuple(ids), record).encode(), self.signer)
        return replace(envelope, age_ms=age_ms, hop=hop)

    def record_of(self, epoch: int, seq: int, prekeys: tuple[Prekey, ...] = (), name: str = "") -> PeerRecord:
        """A record signed by this person that its node did not make."""
        record = PeerRecord(self.key, epoch, seq, name=name, prekeys=prekeys)
        return replace(record, signed=sign_record(record, self.signer))

    # --- what the outside brings

    def check(self, data: MeshEnvelope | bytes) -> Checked:
        """What our edge makes of received bytes that are good."""
        checked = check(
            data if isinstance(data, bytes) else data.wire(), self.key, self.keys, self.crypto, self.secrets
        )
        assert isinstance(checked, Checked), checked
        return checked

    def arrived(self, link: int, data: MeshEnvelope | bytes) -> EnvelopeArrived:
        """An envelope came over a link."""
        return EnvelopeArrived(LinkId(link), self.check(data))

    def meet(self, link: int, other: Person, *, window: int = WINDOW, record: bool = True) -> tuple[Effect, ...]:
        """A link to another person comes up, with the hello's record or (as if it were old news) without."""
        up = LinkUp(LinkId(link), other.key, window)
        return self.step(*([RecordArrived(LinkId(link), other.record, 0)] if record else []), up)

    def decide(
        self,
        *,
        contacts: tuple[Person, ...] = (),
        blocked: tuple[Person, ...] = (),
        disk_low: bool = False,
    ) -> tuple[Effect, ...]:
        """The owner's decisions change."""
        welcome, refused = frozenset(p.key for p in contacts), frozenset(p.key for p in blocked)
        return self.step(PolicyChanged(welcome, refused, disk_low))

    # --- what there is to see

    def inbox(self) -> list[Line]:
        return list(self.store.journal(after=0, limit=1_000_000, messages=True))

    def state(self, uid: Uid) -> State:
        sent = self.store.sent(uid)
        assert sent is not None
        return sent.state

    def trace(self, uid: Uid) -> list[tuple[str, str]]:
        return [(event.state, event.carrier) for event in self.store.trace(uid)]


class Taker:
    """A neighbour that wants all the posts it is offered over one link; it answers each frame about a channel."""

    def __init__(self, giver: Person, link: int) -> None:
        self.giver, self.link = giver, link
        self._offers: Counter[ChannelId] = Counter()
        self._reconcilers: dict[ChannelId, Reconciler] = {}

    def take(self, out: tuple[Effect, ...]) -> tuple[Effect, ...]:
        """Answer what a step said, and what comes of that, until nothing is said any more; return all of it."""
        answers = [self._answer(ChannelFrame.decode(body)) for body in channel_frames(out, self.link)]
        events = [FrameArrived(LinkId(self.link), FrameType.CHANNEL, frame.encode()) for frame in answers if frame]
        return out + self.take(self.giver.step(*events)) if events else out

    def _answer(self, frame: ChannelFrame) -> ChannelFrame | None:
        channel = frame.channel
        if frame.kind == FrameType.OFFER:
            first = self._offers[channel]
            self._offers[channel] += len(decode_offer(frame.body))
            want = Want(self._offers[channel], tuple(range(first, self._offers[channel])))
            return replace(frame, kind=FrameType.WANT, body=want.encode(), interests=INTERESTS)
        if frame.kind == FrameType.RANGES:
            ranges = Ranges.decode(frame.body)
            if ranges.step == 0:
                self._reconcilers[channel] = Reconciler(EntrySet(), ranges.salt)
            reply = self._reconcilers[channel].heard(ranges).reply
            if reply is not None:
                return replace(frame, body=reply.encode(), interests=INTERESTS)
        return None


def protection(prekey: Prekey | None) -> Protection:
    return Protection.IDENTITY if prekey is None else Protection.PREKEY


def people(*names: str, limits: Limits | None = None) -> list[Person]:
    """Make some people of one world."""
    crypto = SimCrypto(b"unit tests")
    return [Person(crypto, name, limits=limits) for name in names]


def envelopes(out: tuple[Effect, ...]) -> list[MeshEnvelope]:
    """The envelopes that a step sends, in order."""
    return [MeshEnvelope.decode(effect.wire) for effect in out if isinstance(effect, SendEnvelope)]


def channel_frames(out: tuple[Effect, ...], link: int) -> list[bytes]:
    """What a step says about channels over a link."""
    return [e.body for e in out if isinstance(e, SendFrame) and e.kind is FrameType.CHANNEL and e.link == link]


def receipts(out: tuple[Effect, ...]) -> list[Receipt]:
    """The receipts that a step sends, in order."""
    return [Receipt.decode(envelope.payload) for envelope in envelopes(out) if envelope.kind == Kind.RECEIPT]


def interests(out: tuple[Effect, ...]) -> list[tuple[int, tuple[ChannelId, ...]]]:
    """Whom a step tells which channels."""
    return [(effect.link, effect.channels) for effect in out if isinstance(effect, SendInterest)]


def accepted_posts(out: tuple[Effect, ...]) -> list[PostAccepted]:
    """What a step says of posts that were written."""
    return [effect for effect in out if isinstance(effect, PostAccepted)]


def kinds(out: tuple[Effect, ...]) -> list[str]:
    """The names of a step's effects, in order."""
    return [type(effect).__name__ for effect in out]


# --- the gate alone


def let_in(
    reader: Person, envelope: MeshEnvelope, via: Person, *, now: Now | None = None, policy: Policy | None = None
) -> Admission:
    """Both halves of the gate, in a transaction of their own."""
    reader.store.begin()
    admission = admit(reader.store, reader.check(envelope), via.key, policy or reader.policy, now or reader.now)
    reader.store.commit()
    return admission


def refused(reason: Reason) -> Admission:
    return Admission(Verdict.REFUSED, reason)


def deferred(reason: Reason) -> Admission:
    return Admission(Verdict.DEFERRED, reason)
