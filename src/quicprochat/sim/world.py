"""A discrete-event world: peers made of the real node, cables between them, and the faults of both.

Streams are reliable and ordered, as QUIC's are: loss shows as delay, or as a broken connection whose two ends notice
at different times. One seed fixes everything; ``trace`` of two runs is the same.
"""

from __future__ import annotations

import random  # noqa: TID251  seeded, and nothing secret comes from it
from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any
from zlib import crc32

from quicprochat.core.errors import WireError
from quicprochat.core.gate import Limits
from quicprochat.core.link import FrameParser, FrameType, frame
from quicprochat.sim.clock import Clock
from quicprochat.sim.crypto import SimCrypto
from quicprochat.sim.peer import Peer

REDIAL_MS = 1_000


class World:
    """Time, chance, and everybody in it."""

    def __init__(self, seed: int, *, traced: bool = True) -> None:
        """``traced`` False keeps no trace, which of a large world is long."""
        self.now = 0
        self.rng = random.Random(seed)
        self.seed = b"world %d " % seed
        self.crypto = SimCrypto(self.seed + b"nature")
        self.peers: list[Peer] = []
        self.frames: Counter[FrameType] = Counter()
        self.trace: list[tuple[int, str, str]] = []
        self.tap: Callable[[Link, FrameType, bytes], None] = lambda link, kind, body: None
        """Sees every frame that is sent."""
        self._due: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        self._traced = traced

    def after(self, ms: int, what: Callable[..., None], *args: Any) -> None:
        """Let something happen later; what is due at one moment happens in the order it was asked for."""
        self._order += 1
        heappush(self._due, (self.now + ms, self._order, what, args))

    def run(self, ms: int) -> None:
        """Let so much time pass."""
        end = self.now + ms
        while self._due and self._due[0][0] <= end:
            self.now, _, what, args = heappop(self._due)
            what(*args)
        self.now = end

    def peer(self, name: str, clock: Clock | None = None, limits: Limits | None = None) -> Peer:
        """Add a peer, switched off."""
        self.peers.append(Peer(self, name, clock or Clock(), limits or Limits()))
        return self.peers[-1]

    def note(self, who: str, what: str) -> None:
        """Write a line of the trace."""
        if self._traced:
            self.trace.append((self.now, who, what))


def retried_ms(latency_ms: int, loss: float, rng: random.Random) -> int:
    """Draw by how much a packet is late: a round trip and a millisecond for each time that it is lost."""
    late = 0
    while rng.random() < loss:
        late += 2 * latency_ms + 1
    return late


class Cable:
    """The one way between two peers; while it is plugged in and both run, they hold a connection over it."""

    def __init__(
        self, one: Peer, other: Peer, *, latency_ms: int = 20, jitter_ms: int = 0, bytes_per_s: int = 1_000_000,
        notice_ms: int = 0, loss: float = 0.0,
    ) -> None:  # fmt: skip
        """``notice_ms`` bounds how long an end takes to see that the connection broke.

        A lost packet, a share ``loss`` of all, comes a round trip later, and with it what was sent after it.
        """
        self.ends = (one, other)
        self.world = one.world
        self.latency_ms, self.jitter_ms, self.bytes_per_s = latency_ms, jitter_ms, bytes_per_s
        self.notice_ms = notice_ms
        self.loss = loss
        self.plugged = False
        self.links: tuple[Link, ...] = ()
        for peer in self.ends:
            peer.cables.append(self)

    def plug(self) -> None:
        """Make the way passable."""
        self.plugged = True
        self.dial()

    def pull(self) -> None:
        """Cut the way; what is on it is lost."""
        self.plugged = False
        self.drop()

    def dial(self) -> None:
        """Connect if that is possible and not done."""
        one, other = self.ends
        if self.plugged and not self.links and one.welcomes(other) and other.welcomes(one):
            self.links = (Link(one, self), Link(other, self))
            self.links[0].far, self.links[1].far = self.links[1], self.links[0]
            for link in self.links:
                link.peer.greet(link)

    def drop(self, dead: Peer | None = None) -> None:
        """Break the connection; each end notices in its own time, a peer that died with it (``dead``) never.

        What a dead peer had sent after its hello is still on the way.
        """
        links, self.links = self.links, ()
        for link in links:
            link.alive = link.ready and dead is not None and link.peer is not dead
            notice_ms = self.notice_ms + (2 * (self.latency_ms + self.jitter_ms) if link.alive else 0)
            link.peer.later(self.world.rng.randint(0, notice_ms), link.peer.lost, link)
        if links:
            self.world.after(REDIAL_MS, self.dial)


class Link:
    """One end of one connection; ``far`` is the other."""

    far: Link

    def __init__(self, peer: Peer, cable: Cable) -> None:
        self.id = peer.next_link()
        self.peer = peer
        self.cable = cable
        self.alive = True
        self.ready = False
        self._parser = FrameParser()
        self._clear_at = 0

    def send(self, kind: FrameType, body: bytes) -> None:
        """Send one frame; it arrives after all that were sent before it, unless the connection breaks."""
        world, cable, data = self.cable.world, self.cable, frame(kind, body)
        if not self.alive:
            return
        world.frames[kind] += 1
        world.tap(self, kind, body)
        flight = cable.latency_ms + world.rng.randint(0, cable.jitter_ms)
        if cable.loss:
            flight += retried_ms(cable.latency_ms, cable.loss, world.rng)
        self._clear_at = max(self._clear_at, world.now + flight) + len(data) * 1_000 // cable.bytes_per_s
        world.after(self._clear_at - world.now, self.far.receive, data)

    def receive(self, data: bytes) -> None:
        """Bytes from the far end are here."""
        if self.alive:
            self.cable.world.note(self.peer.name, f"receives {len(data)} bytes, {crc32(data):08x}")
            try:
                for kind, body in self._parser.feed(data):
                    self.peer.receive(self, kind, body)
            except WireError as error:
                self.cable.world.note(self.peer.name, f"ends the link: {error}")
                self.cable.drop()
