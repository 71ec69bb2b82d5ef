"""Networks that never rest: links come, break and change their price, nodes crash; and what must hold all the while."""

from __future__ import annotations

import itertools
import random

from quicprochat.core.ids import PeerKey
from quicprochat.sim.graph import Edge, shortest
from quicprochat.sim.mesh import Mesh

REST_MS = 150_000
"""Long enough for the longest hold-down, a refilled bucket of announcements and every repeated request."""


def names(count: int) -> list[str]:
    return [f"n{number}" for number in range(count)]


def grid(side: int, rtt_ms: int = 2) -> Mesh:
    """Return a square of nodes, all links up."""
    cells = [(x, y) for x in range(side) for y in range(side)]
    edges = [((x, y), (x + dx, y + dy)) for x, y in cells for dx, dy in ((1, 0), (0, 1)) if max(x + dx, y + dy) < side]
    return network([(str(a), str(b)) for a, b in edges], rtt_ms)


def ring(count: int, rtt_ms: int = 2) -> Mesh:
    nodes = names(count)
    return network(list(zip(nodes, [*nodes[1:], nodes[0]], strict=True)), rtt_ms)


def line(count: int, rtt_ms: int = 2) -> Mesh:
    nodes = names(count)
    return network(list(itertools.pairwise(nodes)), rtt_ms)


def network(links: list[tuple[str, str]], rtt_ms: int = 2, seed: int = 1) -> Mesh:
    """Return a world with these links, all up."""
    mesh = Mesh(seed)
    for name in dict.fromkeys(end for link in links for end in link):
        mesh.station(name)
    for one, other in links:
        mesh.join(mesh.names[one], mesh.names[other], Edge(one, other, rtt_ms))
    for one, other in links:
        mesh.up(mesh.names[one], mesh.names[other])
    return mesh


def ways(mesh: Mesh) -> dict[str, dict[str, int]]:
    """Return what each live link costs its two ends."""
    called = {key: name for name, key in mesh.names.items()}
    found: dict[str, dict[str, int]] = {name: {} for name in mesh.names}
    for key, station in mesh.stations.items():
        for other, wire in station.links.items():
            cost = station.routes.cost_of(other)
            if wire.up and cost is not None:
                found[called[key]][called[other]] = cost
    return found


def wrong_pairs(mesh: Mesh) -> list[tuple[str, str, str]]:
    """Return pairs that are not delivered though they could be, the reverse, or that go a dearer way than the best."""
    costs = ways(mesh)
    found = []
    for one in mesh.names:
        best = shortest(costs, one)
        for other in mesh.names:
            path = mesh.path(mesh.names[one], mesh.names[other])
            if (path is None) == (other in best):
                found.append((one, other, "not delivered" if path is None else "delivered over a dead link"))
            elif path is not None and price(mesh, costs, path) != best[other]:
                found.append((one, other, f"costs {price(mesh, costs, path)}, the best {best[other]}"))
    return found


def price(mesh: Mesh, costs: dict[str, dict[str, int]], path: list[PeerKey]) -> int:
    called = {key: name for name, key in mesh.names.items()}
    return sum(costs[called[a]][called[b]] for a, b in itertools.pairwise(path))


def circles(mesh: Mesh) -> list[str]:
    """Return destinations towards which a message could circle at this moment."""
    return [name for name, key in mesh.names.items() if mesh.successors_circle(key)]


class Churn:
    """One random network and its random troubles, all from one seed."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.mesh = Mesh(seed)
        nodes = names(rng.randint(3, 8))
        for name in nodes:
            self.mesh.station(name)
        pairs = [(a, b) for n, a in enumerate(nodes) for b in nodes[n + 1 :]]
        rng.shuffle(pairs)
        self.links = pairs[: rng.randint(len(nodes) - 1, min(len(pairs), 2 * len(nodes)))]
        lossy = rng.random() < 0.5
        for one, other in self.links:
            loss = rng.choice((0.0, 0.1, 0.3)) if lossy else 0.0
            edge = Edge(one, other, rng.choice((2, 4, 30, 120, 600)), loss)
            self.mesh.join(self.mesh.names[one], self.mesh.names[other], edge)
        self.events = rng.randint(8, 25)

    def trouble(self) -> None:
        """Let one thing happen."""
        mesh, rng = self.mesh, self.rng
        one, other = (mesh.names[end] for end in rng.choice(self.links))
        up = mesh.stations[one].links[other].up
        what = rng.random()
        if what < 0.08:
            mesh.crash(one)
        elif not up:
            mesh.up(one, other, resume=rng.random() < 0.7)
        elif what < 0.5:
            mesh.price(*rng.choice(((one, other), (other, one))), rng.choice((1, 20, 400)), rng.choice((0.0, 0.5)))
        else:
            mesh.down(one, other)

    def run(self) -> None:
        """Let it all happen, look for circles after each event, and let it settle."""
        for _ in range(self.events):
            self.trouble()
            self.check()
            until = self.mesh.now + self.rng.choice((0, 1, 5, 40, 250, 3_000))
            while self.mesh.next_at() <= until:
                if self.mesh.step():
                    self.check()
            self.mesh.run(until)
        self.mesh.run(self.mesh.now + REST_MS)
        self.check()
        assert wrong_pairs(self.mesh) == []
        assert sum(station.routes.faults for station in self.mesh.stations.values()) == 0

    def check(self) -> None:
        assert circles(self.mesh) == []
        assert self.mesh.loops == 0
