"""Routing as a state machine: whatever happens to links and nodes, in whatever order frames arrive, nothing circles.

Hypothesis decides which link delivers its next frame; the successor graph of every destination is looked at after each.
"""

from __future__ import annotations

from collections import deque
from itertools import combinations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from quicprochat.core.ids import PeerKey
from quicprochat.core.memory import MemoryStore
from quicprochat.core.route import Routes
from quicprochat.core.time import Instant
from quicprochat.sim.crypto import SimCrypto

NODES = 5
PAIRS = list(combinations(range(NODES), 2))


class RouteMachine(RuleBasedStateMachine):
    """Five nodes. Each direction of a link is a queue; a link that breaks loses what is in it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.crypto = SimCrypto(b"machine")
        self.signers = [self.crypto.signer(b"node %d" % n) for n in range(NODES)]
        self.keys = [signer.key for signer in self.signers]
        self.disks = [MemoryStore() for _ in range(NODES)]
        self.nodes: list[Routes] = []
        self.queues: dict[tuple[int, int], deque[bytes]] = {}

    @initialize(links=st.sets(st.sampled_from(PAIRS), min_size=NODES - 1))
    def begin(self, links: set[tuple[int, int]]) -> None:
        self.nodes = [self.boot(n) for n in range(NODES)]
        for one, other in sorted(links):
            self.connect(one, other, resume=False)

    def boot(self, node: int) -> Routes:
        routes = Routes(self.signers[node], self.crypto)
        routes.start(self.disks[node], Instant(self.now))
        return routes

    def connect(self, one: int, other: int, *, resume: bool) -> None:
        held = {a: self.nodes[a].held(self.keys[b]) if resume else b"" for a, b in ((one, other), (other, one))}
        for a, b in ((one, other), (other, one)):
            self.queues[a, b] = deque()
            self.nodes[a].link_up(self.keys[b], 10 + (one * 7 + other * 3) % 20, held[b], Instant(self.now))
        self.send(one)
        self.send(other)

    def send(self, node: int) -> None:
        for key, _, body in self.nodes[node].due(Instant(self.now)):
            self.queues[node, self.keys.index(key)].append(body)

    def cut(self, one: int, other: int) -> None:
        for a, b in ((one, other), (other, one)):
            if self.queues.pop((a, b), None) is not None:
                self.nodes[a].link_down(self.keys[b], Instant(self.now))
                self.send(a)

    def deliver(self, one: int, other: int) -> None:
        body = self.queues[one, other].popleft()
        assert self.nodes[other].received(self.keys[one], body, Instant(self.now)) is None
        self.send(other)

    @rule(pair=st.sampled_from(PAIRS), resume=st.booleans())
    def change(self, pair: tuple[int, int], resume: bool) -> None:
        if pair in self.queues:
            self.cut(*pair)
        else:
            self.connect(*pair, resume=resume)

    @rule(node=st.integers(0, NODES - 1))
    def crash(self, node: int) -> None:
        for other in range(NODES):
            if other != node:
                self.cut(node, other)
        self.nodes[node] = self.boot(node)

    @rule(pair=st.sampled_from(PAIRS), rtt_ms=st.sampled_from((1, 30, 300, 2_000)))
    def reprice(self, pair: tuple[int, int], rtt_ms: int) -> None:
        for _ in range(20):
            self.nodes[pair[0]].cost(self.keys[pair[1]], rtt_ms, 0.0, Instant(self.now))
        self.send(pair[0])

    @precondition(lambda self: any(self.queues.values()))
    @rule(data=st.data(), count=st.integers(1, 6))
    def arrive(self, data: st.DataObject, count: int) -> None:
        for _ in range(count):
            if waiting := sorted(ends for ends, queue in self.queues.items() if queue):
                self.deliver(*data.draw(st.sampled_from(waiting)))
                self.nothing_circles()

    @rule(ms=st.sampled_from((1, 20, 200, 1_000, 5_000, 60_000)))
    def wait(self, ms: int) -> None:
        self.now += ms
        for node in range(NODES):
            self.send(node)

    @invariant()
    def nothing_circles(self) -> None:
        for destination in self.keys if self.nodes else ():
            done: set[int] = {self.keys.index(destination)}
            for start in range(NODES):
                self.follow(start, destination, done, [])

    def follow(self, node: int, destination: PeerKey, done: set[int], trail: list[int]) -> None:
        if node in done:
            return
        assert node not in trail, f"towards {self.keys.index(destination)}: {[*trail, node]}"
        for key in self.nodes[node].next_hops(destination):
            if (node, self.keys.index(key)) in self.queues:
                self.follow(self.keys.index(key), destination, done, [*trail, node])
        done.add(node)

    def teardown(self) -> None:
        """Whatever happened, let it come to rest: then everybody reaches whom a path leads to."""
        if not self.nodes:
            return
        for _ in range(400):
            for ends in sorted(self.queues):
                while self.queues[ends]:
                    self.deliver(*ends)
            self.wait(500)
        for start in range(NODES):
            reached, wave = {start}, [start]
            while wave:
                at = wave.pop()
                near = {b for a, b in self.queues if a == at} - reached
                reached |= near
                wave += near
            found = {n for n in range(NODES) if n == start or self.nodes[start].next_hops(self.keys[n])}
            assert found == reached


TestRoutes = RouteMachine.TestCase
TestRoutes.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
