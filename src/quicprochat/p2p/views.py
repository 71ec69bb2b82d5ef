"""What callers get to see: frozen snapshots, never the node's own tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from quicprochat.core.address import Address
from quicprochat.core.channel import BroadcastChannel
from quicprochat.core.errors import QuicprochatError
from quicprochat.core.events import Alarm
from quicprochat.core.ids import EnvelopeId, PeerKey, Uid
from quicprochat.core.network import Network
from quicprochat.core.store import Sent, TraceEvent
from quicprochat.core.time import WallTime
from quicprochat.core.underlay import Hint


@dataclass(frozen=True, slots=True)
class PeerView:
    """A peer as known here. ``name`` is the contact's name, else what the peer calls itself.

    ``last_seen`` is now while the peer is linked, else when its last link ended, 0 when there was none.
    ``looks_like`` is the name of the contact that this peer, who is another, would be taken for by its own name.
    """

    key: PeerKey
    name: str
    contact: bool
    verified: bool
    blocked: bool
    linked: bool
    addresses: tuple[Address, ...]
    domain: str
    last_seen: WallTime
    announced: bool = False
    """True while the peer announces itself on the local network."""
    looks_like: str = ""
    trusted: bool = False
    """True when what this peer posts as an emergency is taken for one."""


@dataclass(frozen=True, slots=True)
class ServerView:
    """A home server that announces itself on the local network, as it says. ``server`` is host:port."""

    server: str
    domain: str
    key: PeerKey | None
    fingerprint: str


@dataclass(frozen=True, slots=True)
class RouteView:
    """A way to a destination. ``metric`` is what it costs: for each hop its round trip in ms and some for the hop.

    ``relayed``: the packets to the next hop go through a relay of iroh. ``underlay`` is what the mesh underneath says
    of the way to the next hop, None where it says nothing.
    """

    destination: PeerKey
    next_hop: PeerKey
    metric: int
    hops: int
    age_s: float
    via: str
    relayed: bool = False
    underlay: Hint | None = None


@dataclass(frozen=True, slots=True)
class ServerStanding:
    """How we stand with the home server: "none", "connecting", "connected", "unreachable" or "untrusted".

    ``server`` is host:port, ``fingerprint`` hexadecimal; both "" where there is none. ``trouble`` says what is wrong.
    """

    server: str
    standing: str
    fingerprint: str
    domain: str
    trouble: QuicprochatError | None


@dataclass(frozen=True, slots=True)
class Status:
    """The node at a glance. ``waiting`` counts our own messages that nobody has confirmed, ``told`` all news so far."""

    name: str
    key: PeerKey
    networked: bool
    links: int
    waiting: int
    unread: int
    disk_low: bool
    alarms: tuple[Alarm, ...]
    told: int
    server: str = "none"
    unread_posts: tuple[tuple[BroadcastChannel, int], ...] = ()
    """Channels we are in that have unread posts, and how many, by topic."""
    changes: int = 0
    """How often the address book or our channels changed in this run: whoever knows them by heart asks again."""


@dataclass(frozen=True, slots=True)
class RelayView:
    """A relay that is known. ``owner``: a person named it; ``home``: we are reachable through it."""

    url: str
    owner: bool
    answers: bool
    home: bool


@dataclass(frozen=True, slots=True)
class Reachability:
    """What the node knows of reaching others and being reached.

    ``seen`` is where trusted peers see us now; ``announced`` counts peers that announce themselves on the local
    network, None where nobody listens; ``underlay`` names what could be read of the mesh underneath, ``ways`` counts
    its routes.
    """

    network: Network
    networked: bool
    addresses: tuple[Address, ...]
    links: int
    announced: int | None
    relays: tuple[RelayView, ...]
    seen: tuple[tuple[PeerKey, Address], ...]
    server: ServerStanding
    underlay: tuple[str, ...]
    ways: int


@dataclass(frozen=True, slots=True)
class StoreView:
    """What the store holds and has done. ``carried`` are others' messages and receipts, counted in ``messages`` too."""

    messages: int
    bytes: int
    recipients: int
    capacity_per_recipient: int
    expired: int
    delivered: int
    duplicates: int
    unread: int
    posts: int
    carried: int
    carried_bytes: int
    passed_on: int
    evicted: int


@dataclass(frozen=True, slots=True)
class TraceView:
    """A sent message, what happened to it, and every envelope it was sealed into."""

    sent: Sent
    events: tuple[TraceEvent, ...]
    envelopes: tuple[EnvelopeId, ...]


@dataclass(frozen=True, slots=True)
class ChannelView:
    """A channel we are in; ``posts`` are those kept for subscribers who come later, our own among them.

    ``members`` counts those that are known to be there, ourselves among them; ``gaps`` are posts missing between
    others of their author, one after another as one, that may still come; ``unreadable`` the posts that are kept and
    for which we have no key.
    """

    channel: BroadcastChannel
    posts: int
    unread: int
    members: int = 1
    gaps: int = 0
    muted: bool = False
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class MemberView:
    """A member of a channel. ``standing`` is "joined", "left" or "removed" (by a rotation of ours).

    ``secret`` says, where we own the channel, how it stands with the one in use: "has", "missing", or the state of
    the message that carries it; else "".
    """

    key: PeerKey
    owner: bool
    poster: bool
    me: bool
    standing: str
    secret: str


@dataclass(frozen=True, slots=True)
class PostersView:
    """Who writes into an announcement channel, beside its owner; ``version`` 0 while no list of the owner came."""

    channel: BroadcastChannel
    version: int
    posters: tuple[PeerKey, ...]


@dataclass(frozen=True, slots=True)
class RotationView:
    """A channel with a new secret, to how many members it went out, and who got none."""

    channel: BroadcastChannel
    letters: int
    without: tuple[PeerKey, ...]


@dataclass(frozen=True, slots=True)
class Posted:
    """A post of ours, just written; ``neighbours`` is how many linked peers subscribe to its channel."""

    uid: Uid
    id: EnvelopeId
    channel: BroadcastChannel
    neighbours: int
    emergency: bool = False


@dataclass(frozen=True, slots=True)
class BundleWritten:
    """A bundle that was made; ``own`` counts those of its envelopes that we wrote."""

    file: Path
    envelopes: int
    own: int
    bytes: int


@dataclass(frozen=True, slots=True)
class BundleRead:
    """A bundle that was taken in: of its envelopes, which were new, known, refused and put off, with the reasons."""

    file: Path
    envelopes: int
    stored: int
    duplicates: int
    refused: dict[str, int]
    deferred: dict[str, int]
