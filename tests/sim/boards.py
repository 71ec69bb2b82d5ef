"""Channels over many hops in the simulator: people, cables, and an ear for every payload on every link."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace

from quicprochat.core.channel import BroadcastChannel
from quicprochat.core.envelope import Kind, MeshEnvelope
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.link import FrameType
from quicprochat.sim.clock import Clock
from quicprochat.sim.peer import Peer
from quicprochat.sim.world import Cable, Link, World

FAMILY = BroadcastChannel.private(b"\x07" * 32, "family")
VILLAGE = BroadcastChannel.private(b"\x08" * 32, "village")
SETTLED_MS = 8_000
"""After this, links are up and routes have settled."""


class Mesh:
    """A world of peers in which everybody is willing, unless said otherwise."""

    def __init__(self, seed: int = 1) -> None:
        self.world = World(seed)
        self.cables: dict[frozenset[str], Cable] = {}
        self.peers: dict[str, Peer] = {}
        self.sent: Counter[tuple[str, str, EnvelopeId]] = Counter()
        """Payloads of posts: from, to, id."""
        self.ids: defaultdict[EnvelopeId, int] = defaultdict(int)
        self._names: dict[PeerKey, str] = {}
        self.world.tap = self._hear

    def _hear(self, link: Link, kind: FrameType, body: bytes) -> None:
        if kind is FrameType.ENVELOPE:
            envelope = MeshEnvelope.decode(body)
            if envelope.kind == Kind.CHANNEL:
                self.sent[link.peer.name, link.far.peer.name, envelope.id] += 1
                self.ids[envelope.id] += 1

    def add(self, *names: str, willing: bool = True) -> None:
        """Add peers and switch them on."""
        for name in names:
            peer = self.peers[name] = self.world.peer(name, Clock())
            peer.policy = replace(peer.policy, stays=willing)
            self._names[peer.key] = name
            peer.start()

    def lay(self, *pairs: str, latency_ms: int = 20) -> None:
        """Lay cables, each between two peers with names of one letter, and plug them in."""
        for one, other in map(tuple, pairs):
            cable = Cable(self.peers[one], self.peers[other], latency_ms=latency_ms)
            self.cables[frozenset((one, other))] = cable
            cable.plug()

    def pull(self, *pairs: str) -> None:
        for pair in pairs:
            self.cables[frozenset(pair)].pull()

    def plug(self, *pairs: str) -> None:
        for pair in pairs:
            self.cables[frozenset(pair)].plug()

    def join(self, names: Iterable[str], channel: BroadcastChannel = FAMILY) -> None:
        for name in names:
            self.peers[name].subscribe(channel)

    def settle(self, ms: int = SETTLED_MS) -> None:
        self.world.run(ms)

    def post(self, name: str, text: str, channel: BroadcastChannel = FAMILY) -> None:
        self.peers[name].broadcast(channel.id, text)

    def texts(self, name: str) -> list[str]:
        return [line.text for line in self.peers[name].inbox()]

    def hops(self, name: str) -> list[int]:
        return [line.hops for line in self.peers[name].inbox()]

    def held(self, name: str, channel: BroadcastChannel = FAMILY) -> int:
        return len(self.peers[name].store.waiting(channel.id, 0, 100_000))

    def payloads(self) -> int:
        return sum(self.sent.values())

    def repeats(self) -> int:
        """How often a payload went over a link in one direction more than once."""
        return sum(count - 1 for count in self.sent.values())
