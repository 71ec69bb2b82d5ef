"""The gate: the one way in, in two halves.

``check`` is stateless and may run in threads: cheap tests first, then the outer signature, then, for what is
addressed to this node, opening. ``admit`` runs inside the store's transaction: age, dedup, quotas, insert. P2P, a
server's call, a bundle file: every way in goes through both, and nothing else inserts (a test holds that).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum

from quicprochat.core.channel import TYPE_TEXT, Post, Secrets, Subscription, heads_after, lacks_key, open_with
from quicprochat.core.charter import fits
from quicprochat.core.crypto import Crypto, PrivateKey
from quicprochat.core.envelope import HEADER_BYTES, SUITE_X25519, TRANSIT, TRANSIT_OFFSET, Kind, MeshEnvelope
from quicprochat.core.errors import WireError
from quicprochat.core.gaps import hear
from quicprochat.core.ids import ChannelId, EnvelopeId, Label, PeerKey, Uid
from quicprochat.core.policy import Carry as Carry
from quicprochat.core.policy import Limits as Limits
from quicprochat.core.policy import Policy as Policy
from quicprochat.core.receipt import RECEIPT_VERSION, Receipt, Status
from quicprochat.core.record import PeerRecord, open_record
from quicprochat.core.room import make_room
from quicprochat.core.rotation import wanted
from quicprochat.core.seal import TYPE_KEY, Letter, Opened, open_sealed
from quicprochat.core.store import Fate, Held, Line, LineKind, MeshStore, Scope
from quicprochat.core.time import HOUR_MS, MINUTE_MS, Instant, Now, WallTime
from quicprochat.core.window import WINDOW_MS, slide

CLOCK_SLACK_MS = 10 * MINUTE_MS
"""How far two clocks may disagree before one of them is wrong."""


class Reason(IntEnum):
    """Why an envelope was refused or put off; goes on the wire in a result frame."""

    NONE = 0
    EXPIRED = 1
    HOPS = 2
    CLOCK = 3
    POLICY = 4
    UNSUPPORTED = 5
    FULL = 6
    DISK = 7
    UNOPENABLE = 8
    UNKNOWN = 9
    """A home server doesn't know the recipient; one who comes later gets it from the author, who keeps it."""
    UNLISTED = 10
    """A post by somebody whom the owner of the channel does not list, as far as we know."""


class Verdict(IntEnum):
    """The answer to the peer an envelope came from. Only STORED and DUPLICATE acknowledge."""

    STORED = 0
    DUPLICATE = 1
    REFUSED = 2
    """For good: offering it again is useless."""
    DEFERRED = 3
    """For now: later it may be welcome."""


class Fault(Enum):
    """Why bytes did not even become an envelope that can be judged."""

    MALFORMED = "malformed"
    SIGNATURE = "signature"


@dataclass(frozen=True, slots=True)
class Reject:
    """What ``check`` says of bytes that no honest peer sends; counted against the link they came over."""

    fault: Fault
    detail: str


@dataclass(frozen=True, slots=True)
class Checked:
    """An envelope whose author's signature holds; opened if it was for us or a channel of ours, and could be.

    ``keyless`` is True for a post of whose epoch no secret was at hand: that it did not open says nothing.
    """

    envelope: MeshEnvelope
    opened: Opened | None = None
    receipt: Receipt | None = None
    record: PeerRecord | None = None
    """The author's own record, where a receipt brings one."""
    post: Post | None = None
    keyless: bool = True

    @property
    def uid(self) -> tuple[PeerKey, Uid] | None:
        """Author and uid of what was opened, by which the inbox knows it under any sealing; None if nothing was."""
        if self.post is not None:
            return (self.envelope.src, self.post.uid)
        return (self.opened.letter.author, self.opened.letter.uid) if self.opened is not None else None


def check(
    data: bytes, me: PeerKey, keys: Mapping[bytes, PrivateKey], crypto: Crypto, channels: Secrets | None = None
) -> Checked | Reject:
    """Judge received bytes without any state; ``keys`` and ``channels`` are ours for opening. Raises: nothing."""
    try:
        envelope = MeshEnvelope.decode(data)
        # One of a later version is carried unread; its carrier is not to blame.
        readable = (
            envelope.kind == Kind.RECEIPT and understood(envelope) and envelope.payload[:1] == bytes([RECEIPT_VERSION])
        )
        receipt = Receipt.decode(envelope.payload) if readable else None
    except WireError as error:
        return Reject(Fault.MALFORMED, str(error))
    if not crypto.verify(envelope.src, Label.ENVELOPE, envelope.core, envelope.signature):
        return Reject(Fault.SIGNATURE, "an envelope that its author did not sign")
    if not crypto.valid_key(envelope.src):
        return Reject(Fault.SIGNATURE, "an envelope from a key that is not a proper one")
    opened = None
    if envelope.kind == Kind.MESSAGE and envelope.dst == me and understood(envelope):
        opened = open_sealed(envelope, keys, crypto)
    post, secrets = None, channels.get(envelope.dst) if channels and envelope.kind == Kind.CHANNEL else None
    if secrets is not None:
        post = open_with(envelope, secrets, crypto)
    record = _record_in(envelope, receipt, me, crypto)
    return Checked(envelope, opened, receipt, record, post, post is None and lacks_key(envelope, secrets or ()))


def _record_in(envelope: MeshEnvelope, receipt: Receipt | None, me: PeerKey, crypto: Crypto) -> PeerRecord | None:
    """Return the author's record that a receipt to us brings; one that is not right is left out, because whoever
    carried the receipt could not know and must not be blamed."""
    if receipt is None or not receipt.record or envelope.dst != me:
        return None
    try:
        record = open_record(receipt.record, crypto)
    except WireError:
        return None
    return record if record.key == envelope.src else None


def understood(envelope: MeshEnvelope) -> bool:
    """Say whether this version knows what the suite and the flags mean; a relay may pass on what it does not."""
    return envelope.suite == SUITE_X25519 and (envelope.flags == 0 or envelope.emergency)


@dataclass(frozen=True, slots=True)
class Admission:
    """What ``admit`` did: the answer for the link, and what the recipient should tell the author (None: nothing).

    ``held`` is what was STORED of somebody else's envelope, ``gone`` what left its channel's window for it.
    """

    verdict: Verdict
    reason: Reason = Reason.NONE
    status: Status | None = None
    line: Line | None = None
    held: Held | None = field(default=None, compare=False)
    """What is kept for somebody else, as it is in the store."""
    gone: Sequence[EnvelopeId] = field(default=(), compare=False)


def lifetime(envelope: MeshEnvelope, via: bytes, now: Now) -> int | Reason:
    """Return the envelope's age in milliseconds, or why its times make it unacceptable.

    ``created`` is believed only while our own clock is; a first hop that sees it contradict the age refuses with
    CLOCK, so that the author learns of it instead of losing the message at the next honest relay.
    """
    age = envelope.age_ms
    if envelope.created_ms and now.trusted:
        implied = now.wall - envelope.created_ms
        if envelope.hop == 0 and via == envelope.src and abs(implied - age) > CLOCK_SLACK_MS:
            return Reason.CLOCK
        if implied >= -CLOCK_SLACK_MS:
            age = max(age, implied)
    return Reason.EXPIRED if age >= envelope.ttl_ms else age


def admit(
    tx: MeshStore,
    checked: Checked,
    via: PeerKey,
    policy: Policy,
    now: Now,
    *,
    passing: bool = False,
    foreign_bytes: float = 0,
    emergency: bool = False,
) -> Admission:
    """Decide on a checked envelope and write what follows from it, in the caller's transaction.

    ``via`` is the peer it came from, ``passing`` True when a next hop waits for what is not for us; ``foreign_bytes``
    is for ``window.slide``. The caller acknowledges after its commit, never before.
    """
    envelope = checked.envelope
    if envelope.src == policy.me:
        return Admission(Verdict.DUPLICATE)
    if envelope.src in policy.blocked:
        return Admission(Verdict.REFUSED, Reason.POLICY)
    fate = tx.fate(envelope.id)
    if fate is Fate.DELIVERED or _delivered_before(tx, checked):
        # Before anything is refused or put off: its author must learn that it arrived.
        tx.count("duplicates")
        return Admission(Verdict.DUPLICATE, status=_delivered(tx))
    age = lifetime(envelope, via, now)
    if isinstance(age, Reason):
        return Admission(Verdict.REFUSED, age)
    if envelope.hop > envelope.max_hops:
        return Admission(Verdict.REFUSED, Reason.HOPS)
    if checked.receipt is not None and envelope.dst == policy.me:
        # Before the disk is looked at: a receipt lets a message go and makes room.
        return Admission(Verdict.STORED)
    if policy.disk_low:
        return Admission(Verdict.DEFERRED, Reason.DISK)
    if envelope.kind == Kind.CHANNEL and envelope.dst != policy.me:
        return _post(tx, checked, via, age, fate, policy, now, foreign_bytes, emergency=emergency)
    if envelope.dst != policy.me:
        if not policy.carries(envelope.src, envelope.dst):
            return Admission(Verdict.REFUSED, Reason.POLICY)
        return _carry(tx, envelope, via, age, fate, policy, now, passing=passing)
    if envelope.kind == Kind.MESSAGE and understood(envelope):
        return _deliver(tx, checked, age, policy, now)
    return Admission(Verdict.REFUSED, Reason.UNSUPPORTED)


def _delivered_before(tx: MeshStore, checked: Checked) -> bool:
    """Say whether a message is in the inbox already, under this sealing or another.

    The uid answers for every sealing; ids kept for good are as many as messages, no more.
    """
    if checked.opened is None:
        return False
    letter = checked.opened.letter
    return tx.delivered(letter.author, letter.uid)


def _delivered(tx: MeshStore) -> Status:
    return Status.DELIVERED_VOLATILE if tx.volatile else Status.DELIVERED


def _deliver(tx: MeshStore, checked: Checked, age: int, policy: Policy, now: Now) -> Admission:
    envelope, opened = checked.envelope, checked.opened
    if opened is None:
        # Nothing is remembered of it: anybody can make such envelopes, and the next copy gets the same answer.
        tx.count("unopenable")
        return Admission(Verdict.STORED, status=Status.UNOPENABLE)
    letter = opened.letter
    if letter.type == TYPE_KEY:
        return _deliver_key(tx, envelope, letter)
    request = letter.author not in policy.contacts
    line = Line(
        LineKind.MESSAGE, letter.author, letter.uid, now.wall, letter.text, envelope.hop,
        opened.protection.value, request, letter.domain, sent_at=_sent_at(age, now),
    )  # fmt: skip
    if request and _requests_full(tx, line, policy.limits):
        return Admission(Verdict.DEFERRED, Reason.FULL)
    cursor = tx.deliver(line)
    assert cursor is not None, "admit has asked"
    tx.remember(envelope.id, Fate.DELIVERED, None)
    tx.count("delivered")
    return Admission(Verdict.STORED, status=_delivered(tx), line=replace(line, cursor=cursor))


def _deliver_key(tx: MeshStore, envelope: MeshEnvelope, letter: Letter) -> Admission:
    """Take a channel's secret, which the node then puts in its place, from the channel's owner and from nobody else."""
    if wanted(tx, letter.body, letter.author) is None:
        tx.count("keys_refused")
        return Admission(Verdict.STORED, status=Status.REFUSED)
    tx.remember(envelope.id, Fate.DELIVERED, None)
    return Admission(Verdict.STORED, status=_delivered(tx))


def _sent_at(age: int, now: Now) -> WallTime:
    """Return when something that is so old was written; 0 where our own clock may be wrong."""
    return WallTime(now.wall - age if now.trusted else 0)


def _post(
    tx: MeshStore,
    checked: Checked,
    via: PeerKey,
    age: int,
    fate: Fate | None,
    policy: Policy,
    now: Now,
    foreign_bytes: float,
    *,
    emergency: bool,
) -> Admission:
    """Put a post into its channel's window, and into the inbox if it opened.

    A willing node keeps posts of channels that are not its own; a member keeps unread what is sealed in an epoch whose
    key it has not got yet.
    """
    envelope, post = checked.envelope, checked.post
    if policy.keeps:
        return _keep_post(tx, envelope, via, age, now)
    subscription = tx.channel(ChannelId(envelope.dst))
    ours = None if subscription is None or subscription.left else subscription
    if not ours and not policy.willing:
        return Admission(Verdict.REFUSED, Reason.POLICY)
    if ours and not understood(envelope):
        return Admission(Verdict.REFUSED, Reason.UNSUPPORTED)
    if fate is not None and not (ours and fate is Fate.PASSED):
        tx.count("duplicates")
        return Admission(Verdict.DUPLICATE)
    line = None
    if ours and post is None and not checked.keyless:
        # Nothing is remembered of it: any member can make such posts.
        tx.count("unopenable")
        return Admission(Verdict.REFUSED, Reason.UNOPENABLE)
    if ours and post is not None and not fits(ours, envelope.src, post):
        # Nothing is remembered of it: the charter that lists its author may come later.
        tx.count("unlisted")
        return Admission(Verdict.REFUSED, Reason.UNLISTED)
    if ours and post is not None and post.type == TYPE_TEXT:
        line = read_post(tx, ours, envelope, post, age, now, emergency=emergency)
        if line is None and fate is not Fate.PASSED:
            # The same post in another envelope; see _deliver. What we had ourselves and let go of is kept once more.
            tx.count("duplicates")
            return Admission(Verdict.DUPLICATE)
    # That it was seen need not be noted yet: whatever lets go of a post notes it (``window.release``).
    held = _held(envelope, via, age, now)
    held = _numbered(held, tx.hold(held))
    gone = slide(tx, held, policy.limits.posts, now.at, foreign_bytes=foreign_bytes, trusted=policy.trusted)
    return Admission(Verdict.STORED, line=line, held=held, gone=gone)


def read_post(
    tx: MeshStore,
    subscription: Subscription,
    envelope: MeshEnvelope,
    post: Post,
    age: int,
    now: Now,
    *,
    emergency: bool = False,
) -> Line | None:
    """Put an opened post of a channel we are in into the inbox, once by (author, uid); None when it was there.

    ``emergency`` says that it is shown as one.
    """
    line = Line(
        LineKind.POST, envelope.src, post.uid, now.wall, post.text, envelope.hop, subscription.channel.kind.value,
        domain=post.domain, read=subscription.muted and not emergency, channel=envelope.dst,
        sent_at=_sent_at(age, now), id=envelope.id, seq=post.seq, parents=post.parents, emergency=emergency,
        cursor=tx.newest_line() + 1,
    )  # fmt: skip
    cursor = tx.deliver(line)
    if cursor is None:
        return None
    assert cursor == line.cursor
    tx.count("delivered")
    take_place(tx, subscription, envelope, post, now)
    return line


def take_place(tx: MeshStore, subscription: Subscription, envelope: MeshEnvelope, post: Post, now: Now) -> None:
    """Note the number of an opened post, and that it is a head of its channel unless its author has gone on from it.

    Whatever uses up a number of its author's passes here, whether people are shown it or not: else it would be missed.
    """
    channel, author = subscription.channel.id, envelope.src
    known = tx.heard(channel, author)
    tx.put_heard(channel, hear(known, author, post.seq, now.at))
    if known is None or post.seq >= known.highest:
        tx.put_channel(subscription.after(heads_after(subscription.heads, envelope.id, post.parents)))


def _keep_post(tx: MeshStore, envelope: MeshEnvelope, via: PeerKey, age: int, now: Now) -> Admission:
    """Keep a post unread, for a home server's users and the time of the window; the caller lets the window slide."""
    if tx.fate(envelope.id) is not None:
        tx.count("duplicates")
        return Admission(Verdict.DUPLICATE)
    if envelope.hop >= envelope.max_hops:
        return Admission(Verdict.REFUSED, Reason.HOPS)
    if age >= WINDOW_MS:
        return Admission(Verdict.REFUSED, Reason.EXPIRED)
    held = _held(envelope, via, age, now)
    held = replace(held, expires_at=min(held.expires_at, Instant(now.at + WINDOW_MS - age)))
    serial = tx.hold(held)
    tx.remember(envelope.id, Fate.HELD, _forget_at(envelope, now.at))
    return Admission(Verdict.STORED, held=replace(held, serial=serial))


def _held(envelope: MeshEnvelope, via: bytes, age: int, now: Now) -> Held:
    return Held(
        envelope.id, envelope.kind, envelope.src, envelope.dst, via, envelope.wire(age_ms=age),
        now.at, Instant(now.at + envelope.ttl_ms - age),
    )  # fmt: skip


def _requests_full(tx: MeshStore, line: Line, limits: Limits) -> bool:
    everyone = tx.usage(Scope.REQUESTS)
    return (
        everyone.count >= limits.requests
        or everyone.bytes + line.size > limits.requests_bytes
        or tx.usage(Scope.REQUESTS, line.peer).count >= limits.requests_per_author
    )


def _carry(
    tx: MeshStore,
    envelope: MeshEnvelope,
    via: PeerKey,
    age: int,
    fate: Fate | None,
    policy: Policy,
    now: Now,
    *,
    passing: bool,
) -> Admission:
    if envelope.hop >= envelope.max_hops:
        return Admission(Verdict.REFUSED, Reason.HOPS)
    held = _held(envelope, via, age, now)
    if fate is not None:
        tx.count("duplicates")
        known = tx.held(envelope.id) if fate is Fate.HELD else None
        if known is not None:
            _keep_better(tx, known, held)
            # What is held is remembered: a copy kept young must not outlive the memory of its id.
            tx.remember(envelope.id, Fate.HELD, _forget_at(envelope, now.at))
        return Admission(Verdict.DUPLICATE)
    if not make_room(tx, held, policy, now.at, passing=passing):
        return Admission(Verdict.DEFERRED, Reason.FULL)
    return Admission(Verdict.STORED, held=_keep(tx, envelope, held, now))


def _keep(tx: MeshStore, envelope: MeshEnvelope, held: Held, now: Now) -> Held:
    serial = tx.hold(held)
    tx.remember(envelope.id, Fate.HELD, _forget_at(envelope, now.at), held.via)
    return _numbered(held, serial)


def _numbered(held: Held, serial: int) -> Held:
    # Not ``replace``, which takes three times as long: this is done for all that passes through.
    return Held(
        held.id, held.kind, held.src, held.dst, held.via, held.wire, held.stored_at, held.expires_at, serial
    )  # fmt: skip


def again(tx: MeshStore, envelope: MeshEnvelope, via: PeerKey, policy: Policy, now: Now) -> Held | None:
    """Take in once more what was passed on, because it must go another way; None when that is not possible.

    It was admitted before, and comes by the same gate: its author's signature was checked again.
    """
    age = lifetime(envelope, via, now)
    if isinstance(age, Reason) or tx.fate(envelope.id) is not Fate.PASSED:
        return None
    if envelope.hop >= envelope.max_hops or policy.disk_low or not policy.carries(envelope.src, envelope.dst):
        return None
    held = _held(envelope, via, age, now)
    return _keep(tx, envelope, held, now) if make_room(tx, held, policy, now.at, passing=True) else None


def _keep_better(tx: MeshStore, known: Held, copy: Held) -> None:
    """Of two copies keep the smaller age and the smaller hop count: a liar's worn-out one must not win."""
    (hop, _), (other, _) = (
        TRANSIT.unpack_from(known.wire, TRANSIT_OFFSET),
        TRANSIT.unpack_from(copy.wire, TRANSIT_OFFSET),
    )
    if copy.expires_at <= known.expires_at and other >= hop:
        return
    younger = copy if copy.expires_at > known.expires_at else known
    age = TRANSIT.unpack_from(younger.wire, TRANSIT_OFFSET)[1]
    wire = younger.wire[:TRANSIT_OFFSET] + TRANSIT.pack(min(hop, other), age) + younger.wire[HEADER_BYTES:]
    tx.release(known.id)
    tx.hold(replace(younger, wire=wire))


def _forget_at(envelope: MeshEnvelope, now: Instant) -> Instant:
    """Dedup outlives every honest copy: each carrier may keep it for one lifetime (docs/protocol.md §6)."""
    return Instant(now + 2 * envelope.ttl_ms + HOUR_MS)


def submit(tx: MeshStore, envelope: MeshEnvelope, policy: Policy, now: Now) -> Held | Reason:
    """Put an envelope of our own into the outbox; return it as it is held there, or why it is not.

    The second door of the gate, for what needs no judging. Its id needs no dedup entry: what comes back under our own
    name is recognised by its author.
    """
    if policy.disk_low:
        return Reason.DISK
    wire = envelope.wire()
    if tx.usage(Scope.OWN).bytes + len(wire) > policy.limits.own_bytes:
        return Reason.FULL
    expires = Instant(now.at + envelope.ttl_ms - envelope.age_ms)
    held = Held(envelope.id, envelope.kind, envelope.src, envelope.dst, b"", wire, now.at, expires)
    return replace(held, serial=tx.hold(held))


def publish(
    tx: MeshStore, envelope: MeshEnvelope, policy: Policy, now: Now
) -> tuple[Held, Sequence[EnvelopeId]] | Reason:
    """Put a post of our own into its channel's window; return it as it is held there, and what left the window for it.

    Or why it is not held.
    """
    if policy.disk_low:
        return Reason.DISK
    held = _held(envelope, b"", envelope.age_ms, now)
    held = replace(held, serial=tx.hold(held))
    return held, slide(tx, held, policy.limits.posts, now.at)
