"""A world of nodes that do nothing but route: links with delay, cuts, crashes, and a watch for loops.

Frames arrive in the order in which they were sent over a link, or not at all when it breaks. One seed fixes everything.
"""

from __future__ import annotations

import random  # noqa: TID251  seeded, and nothing secret comes from it
from collections.abc import Iterable
from heapq import heappop, heappush

from quicprochat.core.ids import PeerKey
from quicprochat.core.memory import MemoryStore
from quicprochat.core.route import Routes
from quicprochat.core.route_cost import link_cost
from quicprochat.core.route_frames import Announcement, open_announcement
from quicprochat.core.time import Instant
from quicprochat.sim.crypto import SimCrypto, SimSigner
from quicprochat.sim.graph import Edge

FRAME_HEAD_BYTES = 5


class Station:
    """A node: its routes, and what lies on its disk."""

    __slots__ = ("alarm_at", "disk", "frames", "links", "routes", "sent_bytes", "signer")

    def __init__(self, signer: SimSigner) -> None:
        self.signer = signer
        self.disk = MemoryStore()
        self.links: dict[PeerKey, Wire] = {}
        self.routes: Routes
        self.alarm_at = -1
        self.sent_bytes = 0
        self.frames = 0


class Wire:
    """One direction of a link; ``session`` tells its connections apart: what was on the way is lost by a cut."""

    __slots__ = ("clear_at", "cost", "latency_ms", "loss", "session", "target", "up")

    def __init__(self, target: Station, edge: Edge) -> None:
        self.target = target
        self.latency_ms = edge.latency_ms
        self.loss = edge.loss
        self.cost = link_cost(edge.rtt_ms, edge.loss)
        self.session = 0
        self.clear_at = 0
        self.up = False


class Mesh:
    """Time, chance, stations, and the wires between them."""

    def __init__(self, seed: int, *, destinations_max: int = 4_096, watch: bool = True) -> None:
        self.now = 0
        self.rng = random.Random(seed)
        self.crypto = SimCrypto(b"mesh %d" % seed)
        self.stations: dict[PeerKey, Station] = {}
        self.names: dict[str, PeerKey] = {}
        self.loops = 0
        self.looped: tuple[int, PeerKey] | None = None
        """When a loop was first seen, and for which destination."""
        self.moved_at = 0
        """When a next hop last changed anywhere."""
        self._watch = watch
        self._destinations_max = destinations_max
        self._opened: dict[bytes, Announcement | None] = {}
        self._due: list[tuple[int, int, Station, PeerKey | None, int, bytes]] = []
        self._order = 0

    # --- building

    def station(self, name: str) -> PeerKey:
        """Add a node and start it."""
        signer = self.crypto.signer(name.encode())
        station = Station(signer)
        self.stations[signer.key] = station
        self.names[name] = signer.key
        self._boot(station)
        return signer.key

    def join(self, one: PeerKey, other: PeerKey, edge: Edge) -> None:
        """Lay a wire between two nodes; it is down until :meth:`up`."""
        self.stations[one].links[other] = Wire(self.stations[other], edge)
        self.stations[other].links[one] = Wire(self.stations[one], edge)

    def _boot(self, station: Station) -> None:
        station.routes = Routes(station.signer, self.crypto, destinations_max=self._destinations_max, opened=self._open)
        station.routes.start(station.disk, Instant(self.now))
        station.alarm_at = -1

    def _open(self, wire: bytes) -> Announcement | None:
        """Check an announcement; one that was checked by another node is counted and not computed again."""
        if wire in self._opened:
            self.crypto.tally.verifies += 1
        else:
            self._opened[wire] = open_announcement(wire, self.crypto)
        return self._opened[wire]

    # --- events

    def up(self, one: PeerKey, other: PeerKey, *, resume: bool = True) -> None:
        """Connect two nodes; each knows from the other's hello what that one holds."""
        ends = ((one, other), (other, one))
        held = {a: self.stations[a].routes.held(b) if resume else b"" for a, b in ends}
        for a, b in ends:
            wire = self.stations[a].links[b]
            wire.up = True
            wire.session += 1
            wire.clear_at = self.now
            self.stations[a].routes.link_up(b, wire.cost, held[b], Instant(self.now))
        for a, _ in ends:
            self._flush(self.stations[a])

    def down(self, one: PeerKey, other: PeerKey) -> None:
        """Cut the link of two nodes; both see it at once, and what is under way is lost."""
        for a, b in ((one, other), (other, one)):
            station = self.stations[a]
            wire = station.links[b]
            if wire.up:
                wire.up = False
                wire.session += 1
                station.routes.link_down(b, Instant(self.now))
                self._flush(station)

    def crash(self, node: PeerKey) -> None:
        """A node dies and is there again at once, without links and with nothing but its disk."""
        station = self.stations[node]
        for other in station.links:
            self.down(node, other)
        self._boot(station)

    def price(self, one: PeerKey, other: PeerKey, rtt_ms: int, loss: float) -> None:
        """One end of a link measures it anew."""
        station = self.stations[one]
        station.routes.cost(other, rtt_ms, loss, Instant(self.now))
        self._flush(station)

    def run(self, until: int) -> None:
        """Let time pass up to a moment."""
        due, one = self._due, self._one
        while due and due[0][0] <= until:
            one()
        self.now = until

    def _one(self) -> bool:
        self.now, _, station, sender, session, body = heappop(self._due)
        if sender is None:
            if session != station.alarm_at:
                return False
            station.alarm_at = -1
        elif self.stations[sender].links[station.signer.key].session == session:
            station.routes.received(sender, body, Instant(self.now))
        else:
            return False
        self._flush(station)
        return True

    def next_at(self) -> float:
        """Return when the next event is due; infinity if none is."""
        return self._due[0][0] if self._due else float("inf")

    def step(self) -> bool:
        """Let one event happen; say whether it meant anything to anybody."""
        return self._one() if self._due else False

    def _flush(self, station: Station) -> None:
        routes = station.routes
        for target, _, body in routes.due(Instant(self.now)):
            wire = station.links[target]
            station.sent_bytes += FRAME_HEAD_BYTES + len(body)
            station.frames += 1
            if not wire.up:
                continue
            delay = wire.latency_ms
            while wire.loss and self.rng.random() < wire.loss:
                delay += 2 * wire.latency_ms + 1
            wire.clear_at = max(wire.clear_at, self.now + delay)
            self._push(wire.clear_at, wire.target, station.signer.key, wire.session, body)
        at = routes.deadline()
        if at is not None:
            at = Instant(max(at, self.now + 1))
            if station.alarm_at < 0 or at < station.alarm_at:
                station.alarm_at = at
                self._push(at, station, None, at, b"")
        if moved := routes.changed():
            self.moved_at = self.now
            if self._watch:
                self._look(station.signer.key, moved)

    def _push(self, at: int, station: Station, sender: PeerKey | None, session: int, body: bytes) -> None:
        self._order += 1
        heappush(self._due, (at, self._order, station, sender, session, body))

    # --- watching

    def _look(self, start: PeerKey, destinations: Iterable[PeerKey]) -> None:
        """A loop comes into being where a next hop changes, so it is looked for from there."""
        for destination in destinations:
            at: PeerKey | None = self.next_hop(start, destination)
            for _ in range(len(self.stations)):
                if at is None or at == destination:
                    break
                if at == start:
                    self.loops += 1
                    self.looped = self.looped or (self.now, destination)
                    break
                at = self.next_hop(at, destination)

    def next_hop(self, node: PeerKey, destination: PeerKey) -> PeerKey | None:
        """Return whom a node hands messages for a destination to, where there is a live link."""
        station = self.stations[node]
        at = station.routes.next_hop(destination)
        return at if at is not None and station.links[at].up else None

    def path(self, start: PeerKey, destination: PeerKey) -> list[PeerKey] | None:
        """Return the nodes a message passes, both ends included, or None where it is stuck or circles."""
        path = [start]
        while path[-1] != destination:
            at = self.next_hop(path[-1], destination)
            if at is None or len(path) > len(self.stations):
                return None
            path.append(at)
        return path

    def successors_circle(self, destination: PeerKey) -> bool:
        """Say whether following any of the two next hops can lead in a circle."""
        state: dict[PeerKey, int] = {destination: 2}
        for root in self.stations:
            stack = [root]
            while stack:
                node = stack[-1]
                if state.get(node, 0) == 0:
                    state[node] = 1
                    station = self.stations[node]
                    for at in station.routes.next_hops(destination):
                        if station.links[at].up:
                            if state.get(at, 0) == 1:
                                return True
                            if state.get(at, 0) == 0:
                                stack.append(at)
                else:
                    stack.pop()
                    state[node] = 2
        return False
