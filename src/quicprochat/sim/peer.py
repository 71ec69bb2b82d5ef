"""One peer of a simulated world: the real node and store, and around them what the real driver and edge do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from quicprochat.core.channel import BroadcastChannel, Secrets, secrets_of
from quicprochat.core.envelope import TTL_DEFAULT_S, TTL_MAX_S, Header, Kind, MeshEnvelope, make
from quicprochat.core.events import (
    Accepted,
    Alarm,
    BundleTaken,
    ChannelsChanged,
    CloseLink,
    Effect,
    EnvelopeArrived,
    EnvelopeRejected,
    Event,
    FrameArrived,
    InterestArrived,
    Journaled,
    LinkDown,
    LinkId,
    LinkUp,
    PolicyChanged,
    PostAccepted,
    PostersChanged,
    PostTaken,
    PostWritten,
    PrekeysChanged,
    RecordArrived,
    RecordMade,
    Reseal,
    Resealed,
    ResealFailed,
    ResultsArrived,
    Rotated,
    SelfChanged,
    SendEnvelope,
    SendFrame,
    SendInterest,
    SendRecord,
    SendResults,
    StateChanged,
    Subscribed,
    Unsubscribed,
    Withdrawn,
    Written,
    leaves_early,
)
from quicprochat.core.forward import NextHops
from quicprochat.core.gate import Limits, Policy, Reject, check
from quicprochat.core.ids import UID_BYTES, ChannelId, PeerKey, Uid
from quicprochat.core.link import (
    FOR_NODE,
    FrameType,
    Hello,
    decode_interest,
    decode_record,
    decode_results,
    encode_interest,
    encode_record,
    encode_results,
)
from quicprochat.core.memory import MemoryStore
from quicprochat.core.node import Node
from quicprochat.core.record import RECORD_LIFETIME_S, PeerRecord, open_record
from quicprochat.core.rotation import ChannelKey
from quicprochat.core.seal import BOOTSTRAP_ID, TYPE_KEY, TYPE_TEXT, Letter, Prekey, Protection, seal
from quicprochat.core.store import Line
from quicprochat.core.time import Instant, Now
from quicprochat.sim.clock import Clock
from quicprochat.sim.crypto import SimEntropy, SimPrivate

if TYPE_CHECKING:
    from quicprochat.sim.world import Cable, Link, World

COMMIT_MS = 3
SEAL_MS = 20


class Doom(Enum):
    """Where in its next step a peer dies."""

    BEFORE_COMMIT = "before commit"
    PASSED_ON = "passed on, before commit"
    AFTER_COMMIT = "after commit"
    DURING_RELEASE = "during release"


class Peer:
    """A node, its store, and around it what the real driver and edge do."""

    def __init__(self, world: World, name: str, clock: Clock, limits: Limits) -> None:
        self.world, self.name, self.clock = world, name, clock
        seed = world.seed + name.encode()
        self.signer = world.crypto.signer(seed)
        self.key = self.signer.key
        self.entropy = SimEntropy(seed)
        self.store = MemoryStore(durable=True)
        self.policy = Policy(self.key, limits=limits)
        self.cables: list[Cable] = []
        self.hops: NextHops | None = None
        """In place of routing, for tests that know the world."""
        self.node: Node | None = None
        self.record: PeerRecord | None = None
        self._record_at = Instant(0)
        self.doom: Doom | None = None
        self.told: list[Accepted | Journaled | StateChanged | Alarm | PostAccepted | PostTaken] = []
        """What the owner was told, over all runs."""
        self.bundles: list[BundleTaken] = []
        """What became of bundles brought by hand."""
        self.written: list[Uid] = []
        self.busy = False
        """True while a step is not committed yet."""
        self._links: dict[LinkId, Link] = {}
        self._link_ids = 0
        self._keys: dict[bytes, SimPrivate] = {}
        self._secrets: Secrets = {}
        self._bans: dict[PeerKey, int] = {}
        self._events: list[Event] = []
        self._run = 0
        self._timer = 0

    # --- life

    def later(self, ms: int, what: Callable[..., None], *args: Any) -> None:
        """Do something later in this run; it does not happen if the run ends before."""
        run = self._run
        self.world.after(ms, lambda: what(*args) if run == self._run else None)

    def moment(self) -> Now:
        """Return this moment on the peer's clocks."""
        return self.clock.now(self.world.now)

    def start(self, *, rebooted: bool = False) -> None:
        """Switch on, with the store as the last run left it."""
        assert self.node is None
        self.world.note(self.name, "starts")
        self.clock.start(self.world.now, rebooted=rebooted)
        now = self.moment()
        node = self.node = Node(self.signer, self.world.crypto, self.entropy, self.policy, self.hops)
        self.store.begin()
        effects = node.start(self.store, now) + node.step([SelfChanged(self.name, "", "", ())], self.store, now)
        self.busy = True
        self._committed(effects, now)
        for cable in self.cables:
            cable.dial()

    def crash(self) -> None:
        """Die this moment: what is not committed never was, what is not sent never will be."""
        self.world.note(self.name, "crashes")
        self._run += 1
        self.store.rollback()
        self.node, self.doom, self.busy = None, None, False
        self._events.clear()
        self._links.clear()
        for cable in self.cables:
            cable.drop(self)

    def post(self, *events: Event) -> None:
        """Give events to the node; what gathers during a commit is the next batch."""
        self._events.extend(events)
        if not self.busy and len(self._events) == len(events):
            self.later(0, self._turn)

    def _turn(self) -> None:
        if self.busy or self.node is None:
            return
        now, events = self.moment(), self._events.copy()
        self._events.clear()
        self.store.begin()
        effects = self.node.step(events, self.store, now)
        self.busy = True
        if self.doom is Doom.BEFORE_COMMIT and self.store.dirty:
            self.crash()
            return
        for effect in filter(leaves_early, effects):
            self._release(effect)
        if self.doom is Doom.PASSED_ON and self.store.dirty:
            self.crash()
            return
        rest = tuple(effect for effect in effects if not leaves_early(effect))
        self.later(COMMIT_MS if self.store.dirty else 0, self._committed, rest, now)

    def _committed(self, effects: tuple[Effect, ...], now: Now) -> None:
        self.store.commit()
        self.clock.keep(self.world.now, now)
        self.busy = False
        names = " ".join(type(effect).__name__ for effect in effects)
        self.world.note(self.name, f"commits at {now.at}: {names}")
        if effects and self.doom in (Doom.AFTER_COMMIT, Doom.DURING_RELEASE):
            count = self.world.rng.randrange(len(effects) + 1) if self.doom is Doom.DURING_RELEASE else 0
            for effect in effects[:count]:
                self._release(effect)
            self.crash()
            return
        for effect in effects:
            self._release(effect)
        if self._events:
            self._turn()
        elif self.node is not None:
            self._timer += 1
            self.later(max(1, self.node.next_deadline() - now.at), self._tick, self._timer)

    def _tick(self, timer: int) -> None:
        if timer == self._timer:
            self._turn()

    # --- effects

    def _release(self, effect: Effect) -> None:
        match effect:
            case SendEnvelope():
                self._send(effect.link, FrameType.ENVELOPE, effect.wire)
            case SendResults():
                self._send(effect.link, FrameType.RESULTS, encode_results(effect.results))
            case SendRecord():
                self._send(effect.link, FrameType.RECORD, encode_record(effect.record, effect.age_ms))
            case SendFrame():
                self._send(effect.link, effect.kind, effect.body)
            case CloseLink():
                self._close(effect)
            case Reseal():
                self.later(SEAL_MS, self._reseal, effect)
            case PrekeysChanged():
                self._keys = {p.id: self.world.crypto.load_prekey(p.secret) for p in self.store.prekeys()}
                self._keys[BOOTSTRAP_ID] = self.signer.exchange_private()
            case RecordMade():
                self.record, self._record_at = effect.record, self.moment().at
            case SendInterest():
                self._send(effect.link, FrameType.INTEREST, encode_interest(effect.channels))
            case ChannelsChanged():
                self._secrets = secrets_of(effect.subscriptions)
            case Accepted() | Journaled() | StateChanged() | Alarm() | PostAccepted() | PostTaken():
                self.told.append(effect)
            case BundleTaken():
                self.bundles.append(effect)

    def _send(self, link: LinkId, kind: FrameType, body: bytes) -> None:
        if link in self._links:
            self._links[link].send(kind, body)

    def _close(self, effect: CloseLink) -> None:
        link = self._links.get(effect.link)
        if link is not None:
            self._bans[link.far.peer.key] = self.world.now + effect.ban_ms
            if link.alive:
                link.cable.drop()
            self.world.after(effect.ban_ms, link.cable.dial)

    # --- links

    def next_link(self) -> LinkId:
        """Return a number that no link of this peer has had."""
        self._link_ids += 1
        return LinkId(self._link_ids)

    @property
    def links(self) -> tuple[Link, ...]:
        """The links this peer believes in, oldest first."""
        return tuple(self._links.values())

    def welcomes(self, other: Peer) -> bool:
        """Say whether a connection from or to a peer would be taken now."""
        banned = self._bans.get(other.key, 0) > self.world.now
        return self.node is not None and not banned and other.key not in self.policy.blocked

    def greet(self, link: Link) -> None:
        """A connection is there: say hello."""
        assert self.record is not None
        self._links[link.id] = link
        assert self.node is not None
        routes = self.node.routes_held(link.far.peer.key) if self.hops is None else b""
        hello = Hello(bytes(16), bytes(16), self.record.signed, self.moment().at - self._record_at, routes=routes)
        link.send(FrameType.HELLO, hello.encode())

    def lost(self, link: Link) -> None:
        """A connection is noticed to be gone."""
        link.alive = False
        if self._links.pop(link.id, None) is not None and link.ready:
            self.post(LinkDown(link.id))

    def receive(self, link: Link, kind: int, body: bytes) -> None:
        """A frame is here: judge it without any state, and give what it says to the node."""
        crypto = self.world.crypto
        if kind == FrameType.HELLO:
            hello = Hello.decode(body)
            for old in self.links:
                if old.far.peer is link.far.peer and old is not link:
                    self.later(1, self.lost, old)
            link.ready = True
            self.post(
                RecordArrived(link.id, open_record(hello.record, crypto), hello.record_age_ms),
                LinkUp(link.id, link.far.peer.key, hello.window, rtt_ms=2 * link.cable.latency_ms, routes=hello.routes),
            )
        elif kind == FrameType.ENVELOPE:
            checked = check(body, self.key, self._keys, crypto, self._secrets)
            self.post(EnvelopeRejected(link.id) if isinstance(checked, Reject) else EnvelopeArrived(link.id, checked))
        elif kind == FrameType.RESULTS:
            self.post(ResultsArrived(link.id, decode_results(body)))
        elif kind == FrameType.RECORD:
            age, data = decode_record(body)
            self.post(RecordArrived(link.id, open_record(data, crypto), age))
        elif kind == FrameType.INTEREST:
            self.post(InterestArrived(link.id, decode_interest(body)))
        elif kind in FOR_NODE:
            self.post(FrameArrived(link.id, FrameType(kind), body))

    # --- the owner

    def write(self, to: PeerKey, text: str, *, ttl_s: int = TTL_DEFAULT_S, require_fs: bool = False) -> Uid:
        """Write a message; what became of it, ``store.sent`` and ``told`` say."""
        assert self.node is not None
        uid, prekey = Uid(self.entropy(UID_BYTES)), self._prekey_of(to)
        envelope = self._seal(Letter(self.key, uid, text), to, prekey, ttl_s, 0, claim_time=self.node.claim_time)
        self.written.append(uid)
        self.later(SEAL_MS, self.post, Written(envelope, uid, text, _protection(prekey), require_fs))
        return uid

    def _prekey_of(self, peer: PeerKey) -> Prekey | None:
        now, stored = self.moment(), self.store.record(peer)
        if stored is None or stored.age_ms + now.at - stored.stored_at >= RECORD_LIFETIME_S * 1_000:
            return None
        return next(iter(open_record(stored.data, self.world.crypto).prekeys), None)

    def rotate(self, key: ChannelKey, without: Iterable[PeerKey] = ()) -> None:
        """Give a channel of ours a new secret, and send it to its members, but for those."""
        assert self.node is not None
        left_out, letters = tuple(without), []
        for member in self.store.members(key.channel):
            if member.present and not member.removed and member.peer not in (self.key, *left_out):
                prekey, uid = self._prekey_of(member.peer), Uid(self.entropy(UID_BYTES))
                letter = Letter(self.key, uid, "", type=TYPE_KEY, body=key.encode())
                envelope = self._seal(letter, member.peer, prekey, TTL_MAX_S, 0, claim_time=self.node.claim_time)
                letters.append(Written(envelope, uid, key.reference, _protection(prekey), type=TYPE_KEY))
        told = tuple((PeerKey(letter.envelope.dst), letter.uid) for letter in letters)
        self.post(Rotated(key.channel, key.epoch, key.secret, told, left_out), *letters)

    def list_posters(self, id: ChannelId, *posters: PeerKey) -> None:
        """Say who, beside us, writes into an announcement channel of ours."""
        self.post(PostersChanged(id, posters))

    def cancel(self, uid: Uid) -> None:
        """Want a message no more."""
        self.post(Withdrawn(uid))

    def subscribe(self, channel: BroadcastChannel) -> None:
        """Join a channel."""
        self.post(Subscribed(channel))

    def unsubscribe(self, id: ChannelId) -> None:
        """Leave a channel."""
        self.post(Unsubscribed(id))

    def broadcast(self, id: ChannelId, text: str) -> Uid:
        """Write a post; what became of it, ``told`` says."""
        uid = Uid(self.entropy(UID_BYTES))
        self.later(SEAL_MS, self.post, PostWritten(id, uid, text))
        return uid

    def decide(
        self, *, contacts: Iterable[PeerKey] = (), blocked: Iterable[PeerKey] = (), disk_low: bool = False
    ) -> None:
        """Change whose mail is welcome, and whether there is room for it."""
        self.policy = replace(self.policy, contacts=frozenset(contacts), blocked=frozenset(blocked), disk_low=disk_low)
        if self.node is not None:
            self.post(PolicyChanged(self.policy.contacts, self.policy.blocked, disk_low))
        for cable in self.cables:
            cable.dial()

    def inbox(self) -> list[Line]:
        """Return the messages and posts that arrived, oldest first."""
        return list(self.store.journal(after=0, limit=1 << 30, messages=True))

    def _reseal(self, asked: Reseal) -> None:
        if asked.age_ms >= asked.ttl_s * 1_000:
            self.post(ResealFailed(asked.uid))
            return
        text = asked.text if asked.type == TYPE_TEXT else ""
        envelope = self._seal(
            Letter(self.key, asked.uid, text, type=asked.type, body=asked.body), asked.to, asked.prekey, asked.ttl_s,
            asked.age_ms, claim_time=asked.claim_time,
        )  # fmt: skip
        self.post(Resealed(asked.uid, envelope, _protection(asked.prekey)))

    def _seal(
        self, letter: Letter, to: PeerKey, prekey: Prekey | None, ttl_s: int, age_ms: int, *, claim_time: bool
    ) -> MeshEnvelope:
        now = self.moment()
        # What an envelope says of its making must agree with its age.
        created = now.wall - age_ms if now.trusted and claim_time else 0
        header = Header(Kind.MESSAGE, self.key, to, self.entropy(16), created, ttl_s)
        sealed = seal(header, prekey, letter, self.world.crypto, self.signer)
        return replace(make(header, sealed, self.signer), age_ms=age_ms)


def _protection(prekey: Prekey | None) -> Protection:
    return Protection.IDENTITY if prekey is None else Protection.PREKEY
