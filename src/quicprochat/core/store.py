"""MeshStore: what a node remembers, as an interface; the in-memory form stands in ``memory.py``, SQLite in an adapter.

Synchronous on purpose: one caller, one transaction at a time, and ``commit`` returns when what was written would
survive a power cut (or, for a volatile store, never claims to). Everything that must hold together is written in one
transaction: a message, its dedup id and what is said about it.

Times are Instants of the home's life clock (``core.time``) unless a name says wall.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Protocol

from quicprochat.core.channel import Member, Subscription
from quicprochat.core.envelope import HEADER_BYTES, TRANSIT, TRANSIT_OFFSET
from quicprochat.core.gaps import Heard
from quicprochat.core.history import Place
from quicprochat.core.ids import ChannelId, EnvelopeId, PeerKey, Uid
from quicprochat.core.receipt import State
from quicprochat.core.seal import TYPE_TEXT, Protection
from quicprochat.core.time import Instant, WallTime

SIGHTINGS_MAX = 4_096
"""Peers of which it is noted when they were linked: as many as records, since anybody in reach may link by himself."""
HOMES_MAX = 4_096
"""Peers whose home domain is known: every stranger's message names one."""
KNOWN_AUTHORS_MAX = 8_192
"""Authors of whom it is known since when they post: any number of keys can be made up."""


class Fate(IntEnum):
    """What became of an envelope id that was seen here; the dedup table maps ids to it."""

    HELD = 1
    """Its bytes are in the store, waiting."""
    DELIVERED = 2
    """It is in this node's inbox; remembered for good, whatever happens to the message."""
    GONE = 3
    """It was held and is not any more: confirmed, expired or withdrawn."""
    PASSED = 4
    """It was held until a next hop had stored it, or gave way to others; when it comes again, it may be taken again."""


@dataclass(frozen=True, slots=True)
class Held:
    """An envelope kept to be handed on.

    ``wire`` is the envelope as it was when it was stored, ``stored_at`` when that was: together they give its age
    now. ``via`` is the peer it came from, empty for our own. ``serial`` is the store's order of arrival (0 before
    storing).
    """

    id: EnvelopeId
    kind: int
    src: PeerKey
    dst: bytes
    via: bytes
    wire: bytes
    stored_at: Instant
    expires_at: Instant
    serial: int = 0

    @property
    def own(self) -> bool:
        """True for what this node wrote itself."""
        return not self.via

    def to_send(self, now: Instant) -> bytes:
        """Return the envelope's bytes with its age of this moment, and one more hop if it is not our own."""
        if self.own and now <= self.stored_at:
            return self.wire
        hop, age = TRANSIT.unpack_from(self.wire, TRANSIT_OFFSET)
        transit = TRANSIT.pack(hop if self.own else hop + 1, age + max(0, now - self.stored_at))
        return self.wire[:TRANSIT_OFFSET] + transit + self.wire[HEADER_BYTES:]


class Scope(Enum):
    """What a quota counts. ``key`` beside it is a peer's key, two keys, or empty."""

    OWN = "own"
    """Our own outbox; key empty."""
    OWN_RECEIPTS = "own receipts"
    """Those in our own outbox that are receipts; key empty."""
    CARRIED = "carried"
    """Everybody else's mail, receipts apart; key empty."""
    RECEIPTS = "receipts"
    """Everybody else's receipts; key empty for all, or the peer of the link they came over."""
    RECIPIENT = "recipient"
    """Others' mail for one recipient; key = recipient."""
    ORIGIN = "origin"
    """Others' mail from one author; key = author."""
    LINK = "link"
    """Others' mail that came over one link; key = the peer of that link."""
    LINK_ORIGIN = "link and origin"
    """Others' mail from one author that came over one link; key = peer of the link | author."""
    LINK_RECIPIENT = "link and recipient"
    """Others' mail for one recipient that came over one link; key = peer of the link | recipient."""
    PAIR = "pair"
    """Others' mail from one author to one recipient; key = author | recipient."""
    REQUESTS = "requests"
    """Messages from strangers in the inbox, not yet accepted; key empty for all, or the author."""
    OWN_POSTS = "own posts"
    """Our own posts that are kept; key = channel."""
    POSTS = "posts"
    """Others' posts that are kept; key empty for all, or the channel, or author | channel."""
    LINK_POSTS = "posts by link"
    """Others' posts that are kept and came over one link; key = channel | peer of the link."""

    # Members are single, so who they are will do: Enum's own is Python, and a quota is asked five times an envelope.
    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class Usage:
    """How many, and how many bytes."""

    count: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Sent:
    """A message of our own, from the moment it is safe in the outbox.

    ``reason`` explains the state in a word for scripts, "" where there is nothing to explain. ``envelope_id`` is the
    current sealing; earlier ones stay known, because a receipt may name them. ``seals`` counts sealings. ``type`` is
    what it carries: a text, or a channel's secret (``seal.TYPE_KEY``), and then ``text`` says which, not the secret.
    """

    uid: Uid
    to: PeerKey
    text: str
    created_wall: WallTime
    expires_at: Instant
    ttl_s: int
    state: State
    protection: Protection
    envelope_id: EnvelopeId
    require_fs: bool = False
    seals: int = 1
    reason: str = ""
    type: int = TYPE_TEXT


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One thing that happened to a sent message: when by the wall clock, the state or report, through whom."""

    at: WallTime
    state: str
    carrier: str


class LineKind(Enum):
    """What a line of the journal tells."""

    MESSAGE = "message"
    RECEIPT = "receipt"
    POST = "post"
    OWN_POST = "own post"
    """One that this node wrote: it stands in its channel's history, and no reader of the inbox is told of it."""


_UNKNOWN = WallTime(0)
_NO_ID = EnvelopeId(b"")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the journal: a message or post that arrived, a post of ours, or a change of state of what was sent.

    ``peer`` is the author of a message or post, or whom the sent message was to. Only a post has a ``channel``, and
    ``id``, ``seq`` and ``parents`` as in ``history.Place`` (an older version's line has none of the three).
    ``at`` is when it came; ``sent_at`` when it was written, by the age of its envelope, 0 where that is not known.
    ``cursor`` orders lines and is never reused (0 before storing). ``read`` once a reader has written it out.
    """

    kind: LineKind
    peer: PeerKey
    uid: Uid
    at: WallTime
    text: str = ""
    hops: int = 0
    protection: str = ""
    request: bool = False
    domain: str = ""
    state: str = ""
    reason: str = ""
    read: bool = False
    cursor: int = 0
    channel: bytes = b""
    sent_at: WallTime = _UNKNOWN
    id: EnvelopeId = _NO_ID
    seq: int = 0
    parents: tuple[EnvelopeId, ...] = ()
    emergency: bool = False
    """A post that its author called an emergency, and whom our owner trusts for it."""

    @property
    def place(self) -> Place:
        """What gives a post its place in its channel."""
        return Place(self.cursor, self.peer, self.id, self.seq, self.parents)

    @property
    def size(self) -> int:
        """Bytes of text, as the request quota counts them."""
        return len(self.text.encode("utf-8"))


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A peer's newest signed record, with its age when it came, and what was seen of the peer."""

    key: PeerKey
    epoch: int
    seq: int
    data: bytes
    age_ms: int
    stored_at: Instant

    @property
    def version(self) -> tuple[int, int]:
        """What orders records of one peer."""
        return (self.epoch, self.seq)


@dataclass(frozen=True, slots=True)
class Sighting:
    """When a link to a peer last began or ended (wall clock, life clock), and its address ("ip:port" or "")."""

    key: PeerKey
    wall: WallTime
    at: Instant
    address: str


@dataclass(frozen=True, slots=True)
class Author:
    """Who posts, or may: ``since`` when there is this author (life clock), ``heard_at`` about when it was heard last.

    ``via`` is the neighbour that brought the first post or record.
    """

    key: PeerKey
    since: Instant
    heard_at: Instant
    via: bytes


class HomeSource(IntEnum):
    """Who said where a peer lives."""

    LETTER = 1
    """The peer, inside the seal of a message."""
    RECORD = 2
    """The peer, in its signed record."""
    PERSON = 3
    """Our own person, who typed it."""


@dataclass(frozen=True, slots=True)
class Home:
    """Where a peer lives: a domain in the form of ``homes.domain_name``, who said so, and when (life clock).

    ``epoch`` and ``seq`` number the newest record of the peer that was known then, both 0 for none.
    """

    key: PeerKey
    domain: str
    source: HomeSource
    epoch: int
    seq: int
    at: Instant

    @property
    def version(self) -> tuple[int, int]:
        """What a record must exceed to say something new."""
        return (self.epoch, self.seq)


@dataclass(frozen=True, slots=True)
class StoredPrekey:
    """The private half of one of our prekeys."""

    id: bytes
    secret: bytes
    made_at: Instant


class MeshStore(Protocol):
    """Two implementations, one conformance suite (tests/conformance). Every method may raise StoreError.

    Writing methods are legal between ``begin`` and ``commit``/``rollback`` only; reading ones always.
    """

    @property
    def volatile(self) -> bool:
        """True when a restart forgets everything; receipts then say so."""
        ...

    @property
    def dirty(self) -> bool:
        """True when the open transaction has written something."""
        ...

    def begin(self) -> None:
        """Open the transaction."""
        ...

    def commit(self) -> None:
        """Make the transaction durable.

        Raises: StoreFullError, when nothing of it was kept; StoreError, after which it may or may not turn up at the
        next start, and the store takes no more.
        """
        ...

    def rollback(self) -> None:
        """Forget the transaction."""
        ...

    def close(self) -> None:
        """Let go of files; an open transaction is rolled back."""
        ...

    # --- small values and counters

    def value(self, key: str) -> bytes | None:
        """Return a small named value."""
        ...

    def set_value(self, key: str, data: bytes) -> None:
        """Keep a small named value."""
        ...

    def count(self, name: str, by: int = 1) -> None:
        """Add to a named counter; kept with the next transaction that writes anything else."""
        ...

    def counters(self) -> dict[str, int]:
        """Return all counters."""
        ...

    # --- dedup

    def fate(self, id: EnvelopeId) -> Fate | None:
        """Return what became of an id, None when it was never seen (or is forgotten). What is held is HELD."""
        ...

    def foresee(self, ids: Sequence[EnvelopeId], uids: Sequence[tuple[PeerKey, Uid]] = ()) -> None:
        """Say which envelopes come next, for a store that rather looks for many at a time; changes no answer.

        ``uids`` are those of what is in them, with its authors, as far as it is for our inbox.
        """
        ...

    def remember(self, id: EnvelopeId, fate: Fate, forget_at: Instant | None, via: bytes = b"") -> None:
        """Set an id's fate; ``forget_at`` None means never forgotten.

        ``via`` is the neighbour that brought it, and of whose part of the memory it is; said with a new id, then kept.
        """
        ...

    def forget(self, now: Instant, limit: int) -> int:
        """Forget up to ``limit`` ids whose time has come; return how many."""
        ...

    def forget_passed(self, keep: int, limit: int) -> int:
        """Forget ids of what is GONE or PASSED, up to ``limit`` of those beyond ``keep``; return how many.

        They are those of the neighbours of which there are most (``parts.level``), of each the longest released first.
        """
        ...

    # --- held envelopes

    def hold(self, held: Held) -> int:
        """Keep an envelope; return its serial. The id must not be held already.

        ``wire`` must be the whole of a true envelope with that id: anything else reads as damaged later.
        """
        ...

    def held(self, id: EnvelopeId) -> Held | None:
        """Return a held envelope."""
        ...

    def release(self, id: EnvelopeId) -> None:
        """Let go of a held envelope; nothing happens when it is not held."""
        ...

    def release_many(self, ids: Sequence[EnvelopeId]) -> None:
        """Let go of held envelopes; those that are not held make no difference."""
        ...

    def waiting(self, dst: bytes, after: int, limit: int) -> Sequence[Held]:
        """Return what is held for a destination with a serial above ``after``, oldest first."""
        ...

    def own(self, after: int, limit: int) -> Sequence[Held]:
        """Return our own held envelopes with a serial above ``after``, oldest first."""
        ...

    def expired(self, now: Instant, limit: int) -> Sequence[Held]:
        """Return held envelopes whose time is over."""
        ...

    def next_expiry(self) -> Instant | None:
        """Return when the next held envelope expires; before the commit of what was let go of, perhaps a moment before.

        Cheap, asked with every step.
        """
        ...

    def oldest(self, dst: bytes, src: PeerKey | None, limit: int, via: bytes | None = None) -> Sequence[EnvelopeId]:
        """Return what is held longest for a destination: from one author, or (None) from anybody but ourselves.

        With ``via`` only what came over that link.
        """
        ...

    def usage(self, scope: Scope, key: bytes = b"") -> Usage:
        """Return what a scope counts now; cheap, asked for every envelope."""
        ...

    def destinations(self) -> Sequence[bytes]:
        """Return every destination for which something is held, channels among them, in their order."""
        ...

    def crowding(self, via: bytes, src: PeerKey, limit: int) -> Sequence[Held]:
        """Return others' mail, receipts and posts apart, that came over one link from one author, oldest first."""
        ...

    def heaviest(self, scope: Scope, prefix: bytes = b"") -> tuple[bytes, Usage] | None:
        """Return the key with this beginning for which a scope counts the most bytes, and its count."""
        ...

    def recipients(self) -> int:
        """Return for how many different destinations something is held; channels are not counted."""
        ...

    # --- sent messages

    def put_sent(self, sent: Sent) -> None:
        """Keep a new message of our own and map its envelope id to it."""
        ...

    def sent(self, uid: Uid) -> Sent | None:
        """Return a message of our own."""
        ...

    def sent_of(self, id: EnvelopeId) -> Sent | None:
        """Return the message that an envelope id, current or former, belongs to."""
        ...

    def set_state(self, uid: Uid, state: State, reason: str) -> None:
        """Change the state of a message of our own."""
        ...

    def resealed(self, uid: Uid, id: EnvelopeId, protection: Protection) -> None:
        """Note that a message was sealed again: new current id, old ids stay mapped, ``seals`` grows."""
        ...

    def queued_with(self, to: PeerKey, protection: Protection, limit: int) -> Sequence[Sent]:
        """Return messages to a peer that were sealed this way and are QUEUED, oldest first."""
        ...

    def open_sent(self, limit: int) -> Sequence[Sent]:
        """Return our newest messages that are in an open state, QUEUED or RELAYED; newest last."""
        ...

    def envelopes_of(self, uid: Uid) -> Sequence[EnvelopeId]:
        """Return every envelope id of a message, oldest first."""
        ...

    def add_trace(self, uid: Uid, event: TraceEvent) -> None:
        """Note something that happened to a sent message."""
        ...

    def trace(self, uid: Uid) -> Sequence[TraceEvent]:
        """Return what happened to a sent message, oldest first."""
        ...

    # --- journal: inbox and changes of state

    def deliver(self, line: Line) -> int | None:
        """Put a MESSAGE or POST into the inbox; return its cursor, or None when (author, uid) was delivered before."""
        ...

    def delivered(self, author: PeerKey, uid: Uid) -> bool:
        """Say whether a message was ever delivered; true for good, also after it was deleted."""
        ...

    def note(self, line: Line) -> int:
        """Append a RECEIPT or an OWN_POST; return its cursor."""
        ...

    def journal(
        self,
        *,
        after: int,
        limit: int,
        unread: bool = False,
        messages: bool = False,
        peer: PeerKey | None = None,
    ) -> Sequence[Line]:
        """Return lines with a cursor above ``after`` in order; only unread, only what was received, only one peer's.

        Posts of our own are never among them.
        """
        ...

    def lines(self, cursors: Sequence[int]) -> Sequence[Line]:
        """Return the lines with these cursors, in the order in which they are named; one that is gone is left out."""
        ...

    def newest_line(self) -> int:
        """Return the cursor of the last line that was ever appended, 0 before the first."""
        ...

    def mark_read(self, cursors: Iterable[int]) -> None:
        """Mark lines as read."""
        ...

    def unread(self) -> int:
        """Return how many messages and posts are unread."""
        ...

    def unread_posts(self, channel: ChannelId) -> int:
        """Return how many posts of one channel are unread."""
        ...

    def unread_channels(self) -> dict[ChannelId, int]:
        """Return how many posts are unread of each channel that has some."""
        ...

    def accept(self, author: PeerKey) -> int:
        """Turn an author's requests into ordinary messages; return how many."""
        ...

    def requesters(self, limit: int) -> Sequence[PeerKey]:
        """Return authors of requests, in the order of their keys."""
        ...

    # --- peers

    def put_record(self, record: StoredRecord) -> bool:
        """Keep a peer's record in place of an older one; False, and nothing changes, where one no older is kept."""
        ...

    def record(self, key: PeerKey) -> StoredRecord | None:
        """Return a peer's record."""
        ...

    def records(self, limit: int) -> Sequence[StoredRecord]:
        """Return records, the newest to come first."""
        ...

    def drop_record(self, key: PeerKey) -> None:
        """Forget a peer's record."""
        ...

    def see(self, sighting: Sighting, contacts: AbstractSet[PeerKey] = frozenset()) -> None:
        """Note that a peer was linked; beyond SIGHTINGS_MAX the oldest goes, of contacts only when all are contacts."""
        ...

    def sightings(self, limit: int) -> Sequence[Sighting]:
        """Return peers that were linked, the most recent first."""
        ...

    def put_home(self, home: Home, contacts: AbstractSet[PeerKey] = frozenset()) -> None:
        """Keep where a peer lives in place of what was known; beyond HOMES_MAX one goes that was said longest ago.

        What our person said goes after the others, and contacts' homes go last.
        """
        ...

    def home(self, key: PeerKey) -> Home | None:
        """Return where a peer lives."""
        ...

    def homes(self, limit: int) -> Sequence[Home]:
        """Return where peers live, what was said last first."""
        ...

    def put_author(self, author: Author) -> None:
        """Keep since when an author posts, in place of what was known.

        Beyond KNOWN_AUTHORS_MAX one other goes: of the neighbour that brought most of them, who was heard longest ago.
        """
        ...

    def author(self, key: PeerKey) -> Author | None:
        """Return since when an author posts."""
        ...

    # --- channels

    def put_channel(self, subscription: Subscription, *, scrub: bool = False) -> None:
        """Keep a subscription in place of what was known of the channel; of one that was left no secret stays.

        ``scrub``: a secret that was in it is not any more, and must be gone from the disk too.
        """
        ...

    def channel(self, id: ChannelId) -> Subscription | None:
        """Return the subscription to a channel, also one that was left."""
        ...

    def channels(self) -> Sequence[Subscription]:
        """Return all subscriptions, left ones among them, in the order of their ids."""
        ...

    def places(
        self, channel: ChannelId, *, after: int = 0, since: WallTime | None = None, unread: bool = False, limit: int
    ) -> Sequence[Place]:
        """Return the places of a channel's newest posts, our own among them, as they arrived.

        Only those with a cursor above ``after``, those that came at ``since`` or later, those that are unread.
        """
        ...

    def put_heard(self, channel: ChannelId, heard: Heard) -> None:
        """Keep which numbers of an author were seen; beyond AUTHORS_MAX in a channel who was heard longest ago goes."""
        ...

    def heard(self, channel: ChannelId, author: PeerKey) -> Heard | None:
        """Return which numbers of an author were seen in a channel."""
        ...

    def heard_in(self, channel: ChannelId) -> Sequence[Heard]:
        """Return what is known of a channel's authors, in the order of their keys."""
        ...

    def forget_heard(self, channel: ChannelId) -> None:
        """Forget a channel's authors and their numbers."""
        ...

    def put_member(self, member: Member) -> None:
        """Keep what is known of a member of a channel in place of what was; who bounds them is ``members.py``."""
        ...

    def member(self, channel: ChannelId, peer: PeerKey) -> Member | None:
        """Return what is known of a peer as a member of a channel."""
        ...

    def members(self, channel: ChannelId) -> Sequence[Member]:
        """Return the members of a channel that are known, those that left among them, in the order of their keys."""
        ...

    def drop_members(self, channel: ChannelId) -> None:
        """Forget the members of a channel."""
        ...

    # --- prekeys

    def put_prekey(self, prekey: StoredPrekey) -> None:
        """Keep a new prekey of our own."""
        ...

    def prekeys(self) -> Sequence[StoredPrekey]:
        """Return our prekeys, newest first."""
        ...

    def drop_prekeys(self, made_before: Instant) -> int:
        """Delete prekeys made before a moment, so that they are gone from the disk; return how many."""
        ...
