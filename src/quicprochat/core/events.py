"""What goes into a step (in the past tense) and what comes out of it (in the imperative)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NewType

from quicprochat.core.address import Address
from quicprochat.core.channel import BroadcastChannel, Subscription
from quicprochat.core.envelope import MeshEnvelope
from quicprochat.core.gate import Checked, Reason, Verdict
from quicprochat.core.ids import ChannelId, EnvelopeId, PeerKey, Uid
from quicprochat.core.link import FrameType, Goodbye, Result
from quicprochat.core.receipt import State
from quicprochat.core.record import PeerRecord
from quicprochat.core.seal import TYPE_TEXT, Prekey, Protection
from quicprochat.core.store import Line, Sent

LinkId = NewType("LinkId", int)
"""One link of one run; never reused, so that a late event of an old link cannot touch a new one."""


# --- events


@dataclass(frozen=True, slots=True)
class LinkUp:
    """A link is up and both hellos are exchanged.

    ``window`` is what the peer takes before answering; a new ``store_epoch`` says that it forgot what it held.
    ``carrier`` is a home server, which takes mail for others. ``rtt_ms`` and ``relayed`` are what the link costs, and
    ``routes`` is the digest of what the neighbour still knows of our routes.
    """

    link: LinkId
    peer: PeerKey
    window: int
    address: Address | None = None
    store_epoch: bytes = b""
    carrier: bool = False
    rtt_ms: float = 0
    relayed: bool = False
    routes: bytes = b""


@dataclass(frozen=True, slots=True)
class LinkMeasured:
    """What a link costs now: its round trip, the share of packets that got lost, whether a relay carries it."""

    link: LinkId
    rtt_ms: float
    loss: float
    relayed: bool


@dataclass(frozen=True, slots=True)
class FrameArrived:
    """A neighbour sent a frame of routing or carrying, which the node itself reads."""

    link: LinkId
    kind: FrameType
    body: bytes


@dataclass(frozen=True, slots=True)
class BundleArrived:
    """Envelopes that passed ``check`` came in a file. Answered by :class:`BundleTaken` with the same number."""

    ref: int
    checked: tuple[Checked, ...]


@dataclass(frozen=True, slots=True)
class CopiedByHand:
    """These envelopes are in a file that the owner takes somewhere."""

    ids: tuple[EnvelopeId, ...]


@dataclass(frozen=True, slots=True)
class LinkDown:
    """A link is gone."""

    link: LinkId


@dataclass(frozen=True, slots=True)
class EnvelopeArrived:
    """A neighbour handed us an envelope that passed ``check``."""

    link: LinkId
    checked: Checked


@dataclass(frozen=True, slots=True)
class EnvelopeRejected:
    """A neighbour handed us bytes that did not pass ``check``."""

    link: LinkId


@dataclass(frozen=True, slots=True)
class ResultsArrived:
    """A neighbour answered envelopes we handed it."""

    link: LinkId
    results: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What another domain's server answered to an envelope, by the word of the home server that handed it over."""

    id: EnvelopeId
    domain: str
    verdict: Verdict
    reason: Reason = Reason.NONE


@dataclass(frozen=True, slots=True)
class ReportsArrived:
    """Our home server told what became of envelopes farther on."""

    link: LinkId
    reports: tuple[Report, ...]


@dataclass(frozen=True, slots=True)
class HomeNamed:
    """Our person said at which domain a peer lives."""

    key: PeerKey
    domain: str


@dataclass(frozen=True, slots=True)
class RecordArrived:
    """A verified peer record, ``age_ms`` old; ``link`` None when it did not come over a link."""

    link: LinkId | None
    record: PeerRecord
    age_ms: int


@dataclass(frozen=True, slots=True)
class InterestArrived:
    """A neighbour told which channels it subscribes to, all of them."""

    link: LinkId
    channels: tuple[ChannelId, ...]


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The owner joined a channel."""

    channel: BroadcastChannel


@dataclass(frozen=True, slots=True)
class Unsubscribed:
    """The owner left a channel."""

    channel: ChannelId


@dataclass(frozen=True, slots=True)
class Leaving:
    """The owner is about to leave a channel: tell who is there. Answered by :class:`PostAccepted`."""

    channel: ChannelId
    uid: Uid


@dataclass(frozen=True, slots=True)
class Muted:
    """The owner wants to hear of a channel no more, or again."""

    channel: ChannelId
    muted: bool


@dataclass(frozen=True, slots=True)
class PostersChanged:
    """The owner of this node, who owns the channel, lists who else writes there."""

    channel: ChannelId
    posters: tuple[PeerKey, ...]


@dataclass(frozen=True, slots=True)
class Rotated:
    """The owner of this node, who owns the channel, has a new secret for it.

    ``letters`` says for each member by which message it goes out; those follow in the same step. ``without`` are
    members who get none.
    """

    channel: ChannelId
    epoch: int
    secret: bytes = field(repr=False)
    letters: tuple[tuple[PeerKey, Uid], ...] = ()
    without: tuple[PeerKey, ...] = ()


@dataclass(frozen=True, slots=True)
class PostWritten:
    """The owner wrote a post, whose length was checked. Answered by :class:`PostAccepted`."""

    channel: ChannelId
    uid: Uid
    text: str


@dataclass(frozen=True, slots=True)
class Written:
    """The owner wrote a message; it was sealed at the edge. Answered by :class:`Accepted`.

    Of ``type`` see ``Sent``.
    """

    envelope: MeshEnvelope
    uid: Uid
    text: str
    protection: Protection
    require_fs: bool = False
    type: int = TYPE_TEXT


@dataclass(frozen=True, slots=True)
class Resealed:
    """The edge sealed a message again, as :class:`Reseal` asked."""

    uid: Uid
    envelope: MeshEnvelope
    protection: Protection


@dataclass(frozen=True, slots=True)
class ResealFailed:
    """The edge could not seal a message again; it stays as it was."""

    uid: Uid


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The owner cancelled a message."""

    uid: Uid


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """The owner's contacts or block list changed, or the disk filled up or got room again."""

    contacts: frozenset[PeerKey]
    blocked: frozenset[PeerKey]
    disk_low: bool


@dataclass(frozen=True, slots=True)
class SelfChanged:
    """What our own record says has changed; a new one with a higher sequence number follows."""

    name: str
    domain: str
    relay: str
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Tick:
    """A deadline has come; which one, the node knows."""


Event = (
    LinkUp | LinkDown | EnvelopeArrived | EnvelopeRejected | ResultsArrived | RecordArrived | Written | Resealed
    | ResealFailed | Withdrawn | PolicyChanged | SelfChanged | Tick | InterestArrived | Subscribed | Unsubscribed
    | PostWritten | Leaving | Muted | PostersChanged | Rotated | ReportsArrived | HomeNamed | LinkMeasured
    | FrameArrived | BundleArrived | CopiedByHand
)  # fmt: skip


# --- effects; carried out only after the step's transaction is durable, except what ``leaves_early``


@dataclass(frozen=True, slots=True)
class SendEnvelope:
    """Hand an envelope to a neighbour; to a home server with the domain where its recipient lives, "" if unknown.

    ``onward``: it is somebody else's, and only passes through. Whoever brought it keeps a copy until it is answered
    for, which happens after the commit; so a crash before that loses nothing, and this may leave ahead of it.
    """

    link: LinkId
    wire: bytes
    domain: str = ""
    onward: bool = False


@dataclass(frozen=True, slots=True)
class SendResults:
    """Answer a neighbour."""

    link: LinkId
    results: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class SendRecord:
    """Hand a peer record to a neighbour."""

    link: LinkId
    record: bytes
    age_ms: int


@dataclass(frozen=True, slots=True)
class SendFrame:
    """Send a neighbour a frame of routing or carrying."""

    link: LinkId
    kind: FrameType
    body: bytes


@dataclass(frozen=True, slots=True)
class BundleTaken:
    """The answers to :class:`BundleArrived`, in its order."""

    ref: int
    results: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class CloseLink:
    """End a link; ``ban_ms`` > 0 also refuses the peer for that long."""

    link: LinkId
    code: Goodbye
    reason: str
    ban_ms: int = 0


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to :class:`Written`: Reason.NONE when the message is safe in the outbox."""

    uid: Uid
    reason: Reason
    sent: Sent | None = None


@dataclass(frozen=True, slots=True)
class Reseal:
    """Seal this message again: to ``prekey`` (None: the identity key), with or without our clock's word.

    One of another ``type`` than a text has its ``body`` inside.
    """

    uid: Uid
    to: PeerKey
    text: str
    ttl_s: int
    age_ms: int
    prekey: Prekey | None
    claim_time: bool
    type: int = TYPE_TEXT
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Journaled:
    """A line is in the journal: a message came, or a message of ours has a new state."""

    line: Line


@dataclass(frozen=True, slots=True)
class StateChanged:
    """A message of ours is in a new state."""

    uid: Uid
    to: PeerKey
    state: State
    reason: str


@dataclass(frozen=True, slots=True)
class PrekeysChanged:
    """Our prekeys changed: reload them for opening."""


@dataclass(frozen=True, slots=True)
class RecordMade:
    """Our own record is new; use it in hellos."""

    record: PeerRecord


@dataclass(frozen=True, slots=True)
class SendInterest:
    """Tell a neighbour which channels we subscribe to, all of them."""

    link: LinkId
    channels: tuple[ChannelId, ...]


@dataclass(frozen=True, slots=True)
class ChannelsChanged:
    """These are the channels we are in now, and those we left: use their secrets for opening."""

    subscriptions: tuple[Subscription, ...]


@dataclass(frozen=True, slots=True)
class PostAccepted:
    """The answer to :class:`PostWritten`: Reason.NONE when the post is safe; POLICY when we are not in the channel.

    ``neighbours`` is how many linked peers subscribe to the channel at this moment.
    """

    uid: Uid
    reason: Reason
    id: EnvelopeId | None = None
    neighbours: int = 0


@dataclass(frozen=True, slots=True)
class PostTaken:
    """A neighbour has a post of ours, for the first time in this run."""

    id: EnvelopeId
    peer: PeerKey


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something a person must be told."""

    code: str
    text: str
    peer: PeerKey | None = None


Effect = (
    SendEnvelope | SendResults | SendRecord | CloseLink | Accepted | Reseal | Journaled | StateChanged | PrekeysChanged
    | RecordMade | Alarm | SendInterest | ChannelsChanged | PostAccepted | PostTaken | SendFrame | BundleTaken
)  # fmt: skip


def leaves_early(effect: Effect) -> bool:
    """Say whether an effect may be carried out before its step is durable: it acknowledges and promises nothing."""
    return isinstance(effect, SendEnvelope) and effect.onward


def may_wait(effect: Effect) -> bool:
    """Say whether nobody loses time when an effect leaves some milliseconds later: whoever gets a result has given
    away what it is for, and sends on meanwhile."""
    return isinstance(effect, SendResults)


__all__ = [
    "Accepted", "Alarm", "BundleArrived", "BundleTaken", "ChannelsChanged", "CloseLink", "CopiedByHand", "Effect",
    "EnvelopeArrived", "EnvelopeId", "EnvelopeRejected", "Event", "FrameArrived", "HomeNamed", "InterestArrived",
    "Journaled", "Leaving", "LinkDown", "LinkId", "LinkMeasured", "LinkUp", "Muted", "PolicyChanged", "PostAccepted",
    "PostTaken", "PostWritten", "PostersChanged", "PrekeysChanged", "RecordArrived", "RecordMade", "Report",
    "ReportsArrived", "Reseal", "ResealFailed", "Resealed", "ResultsArrived", "Rotated",
    "SelfChanged", "SendEnvelope", "SendFrame", "SendInterest",
    "SendRecord", "SendResults", "StateChanged", "Subscribed", "Tick", "Unsubscribed", "Withdrawn", "Written",
    "leaves_early", "may_wait",
]  # fmt: skip
