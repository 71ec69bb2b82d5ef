"""A graph of whole nodes that share a channel, and what is seen of every post: who has it, since when, at what price.

Each node is the real one (``sim.peer``): its gate, store, routes and channels, with a commit for each step.
"""

from __future__ import annotations

import random  # noqa: TID251  seeded, and nothing secret comes from it
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from quicprochat.core.channel import BroadcastChannel
from quicprochat.core.envelope import CORE_BYTES, HOPS_MAX, Kind
from quicprochat.core.events import Effect, Journaled, LinkMeasured, PostAccepted
from quicprochat.core.gate import Limits
from quicprochat.core.ids import Uid
from quicprochat.core.link import FrameType
from quicprochat.core.store import LineKind
from quicprochat.core.window import PostLimits
from quicprochat.sim.clock import Clock
from quicprochat.sim.graph import Graph
from quicprochat.sim.mesh import FRAME_HEAD_BYTES
from quicprochat.sim.peer import Peer
from quicprochat.sim.world import Cable, Link, World

TOPIC = "news"
TEXT = "Water is given out at the school from eight to ten. Bring what you can carry it in. " * 4
TEXT_CHARACTERS = 300
BYTES_PER_S = 2_500_000
"""What a link carries: 20 Mbit/s."""
STEP_MS = 20
QUIET_MS = 3_000
"""Routes have settled when nobody has had anything to tell about them for so long, or after SETTLE_MAX_MS: in a large
graph there is always somebody who has."""
SETTLE_MAX_MS = 60_000
KIND_OFFSET = 2
_CHANNEL_KIND = 33
"""Where a CHANNEL frame says what is in it."""
_APART = frozenset({FrameType.HELLO, FrameType.ROUTE, FrameType.RECORD, FrameType.ENVELOPE})
"""What is no control traffic of channels: it would be sent without any, or is a post."""


@dataclass(slots=True)
class Posted:
    """A post on its way. Times are the world's, in milliseconds."""

    author: str
    uid: Uid
    written: int = -1
    """When it was on its author's disk."""
    came: dict[str, int] = field(default_factory=dict)
    """When it was in a subscriber's inbox, on disk."""
    core: bytes = b""
    """What it is known by on the wire."""


class Neighbour(Peer):
    """A peer that tells its community what becomes of posts."""

    def __init__(self, community: Community, name: str) -> None:
        # Everybody has been there for longer than an hour, and nobody is a newcomer.
        super().__init__(community.world, name, Clock(), Limits(posts=PostLimits(newcomer_hops=HOPS_MAX)))
        self.policy = replace(self.policy, stays=True)
        self._community = community

    def receive(self, link: Link, kind: int, body: bytes) -> None:
        """A frame is here; with the first one the link is up, and what it loses is known as if it were an old one."""
        super().receive(link, kind, body)
        if kind == FrameType.HELLO:
            cable = link.cable
            self.post(LinkMeasured(link.id, 2 * cable.latency_ms, cable.loss, relayed=False))

    def _release(self, effect: Effect) -> None:
        super()._release(effect)
        self.told.clear()
        match effect:
            case PostAccepted():
                self._community.written(effect)
            case Journaled() if effect.line.kind is LineKind.POST:
                self._community.came(self.name, effect.line.uid)
            case _:
                pass


class Community:
    """Nodes and cables of a graph; some of the nodes subscribe, all take part."""

    def __init__(self, graph: Graph, seed: int, subscribers: Iterable[str]) -> None:
        self.graph = graph
        self.world = World(seed, traced=False)
        self.world.tap = self._sent
        self.rng = random.Random(seed)
        self.nodes = {name: Neighbour(self, name) for name in graph.nodes}
        self.world.peers.extend(self.nodes.values())
        self.subscribers = sorted(subscribers)
        self.channel = BroadcastChannel.open(TOPIC, self.world.crypto)
        self.cables = {
            edge: Cable(
                self.nodes[edge.one], self.nodes[edge.other], latency_ms=edge.latency_ms, loss=edge.loss,
                bytes_per_s=BYTES_PER_S,
            )
            for edge in graph.edges
        }  # fmt: skip
        self.posts: dict[Uid, Posted] = {}
        self.sent: Counter[bytes] = Counter()
        """Transmissions of each post, by its core."""
        self.has: defaultdict[bytes, set[str]] = defaultdict(set)
        """Who was sent a post."""
        self.twice = 0
        """Transmissions of a post over a link that it had crossed before, either way."""
        self.control: Counter[FrameType] = Counter()
        """Bytes of frames about channels, heads included."""
        self.rounds: Counter[int] = Counter()
        """Frames that compared sets, by the ``id`` of the cable; the caller clears it."""
        self.routes_at = 0
        """When anything was last told about routes."""
        self._crossed: set[tuple[bytes, int]] = set()

    def start(self) -> None:
        """Switch everything on, with all links up, and let who subscribes do so."""
        for cable in self.cables.values():
            cable.plugged = True
        for node in self.nodes.values():
            node.start()
        for name in self.subscribers:
            self.nodes[name].subscribe(self.channel)

    # --- what is seen

    def _sent(self, link: Link, kind: FrameType, body: bytes) -> None:
        if kind is FrameType.ENVELOPE and body[KIND_OFFSET] == Kind.CHANNEL:
            core, crossing = body[:CORE_BYTES], (body[:CORE_BYTES], id(link.cable))
            self.sent[core] += 1
            self.has[core].add(link.far.peer.name)
            self.twice += crossing in self._crossed
            self._crossed.add(crossing)
        elif kind is FrameType.ROUTE:
            self.routes_at = self.world.now
        elif kind not in _APART:
            self.rounds[id(link.cable)] += compares(kind, body)
            self.control[kind] += FRAME_HEAD_BYTES + len(body)

    def written(self, effect: PostAccepted) -> None:
        """A post is on its author's disk."""
        assert effect.id is not None, effect.reason
        post = self.posts[effect.uid]
        held = self.nodes[post.author].store.held(effect.id)
        assert held is not None
        post.written, post.core = self.world.now, held.wire[:CORE_BYTES]

    def came(self, name: str, uid: Uid) -> None:
        """A post is in somebody's inbox."""
        post = self.posts[uid]
        assert name not in post.came, "a post came twice"
        post.came[name] = self.world.now

    # --- what is done

    def post(self, author: str) -> Posted:
        """Let somebody write a post."""
        uid = self.nodes[author].broadcast(self.channel.id, TEXT[:TEXT_CHARACTERS])
        self.posts[uid] = post = Posted(author, uid)
        return post

    def settle(self) -> None:
        """Let time pass until routes have settled."""
        until = self.world.now + SETTLE_MAX_MS
        self.routes_at = self.world.now
        while self.world.now - self.routes_at < QUIET_MS and self.world.now < until:
            self.world.run(STEP_MS)

    def wait(self, posts: Sequence[Posted], readers: Iterable[str], most_ms: int) -> bool:
        """Let time pass until all these readers have all these posts; False when so long was not enough."""
        until, readers = self.world.now + most_ms, set(readers)
        waiting = [(post, readers - {post.author}) for post in posts]
        while waiting := [(post, who) for post, who in waiting if not post.came.keys() >= who]:
            if self.world.now >= until:
                return False
            self.world.run(1)
        return True


def compares(kind: FrameType, body: bytes) -> bool:
    """Say whether a frame compares what both ends have."""
    return kind is FrameType.CHANNEL and body[_CHANNEL_KIND] == FrameType.RANGES
