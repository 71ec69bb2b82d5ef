"""``qpc sim topology``: every node of a graph runs the routing. Do all find each other, how soon, and at what price?

All nodes start at time 0 with all links up. Time is virtual; a link delays by half its round trip, and a lost packet by
a round trip more. Nothing but the routing runs: what is counted are its frames.
"""

from __future__ import annotations

import itertools
import random  # noqa: TID251  seeded, and nothing secret comes from it
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quicprochat.console.text import display, fields
from quicprochat.core.envelope import HOPS_MAX
from quicprochat.core.errors import LocalError
from quicprochat.core.route_cost import link_cost
from quicprochat.core.route_table import DESTINATIONS_MAX
from quicprochat.sim.graph import Graph, read_graph, shortest
from quicprochat.sim.mesh import Mesh
from quicprochat.sim.plot import check, network, save
from quicprochat.sim.progress import Progress

PAIRS = 1_000
PAIRS_MAX = 1_000_000
SAMPLE_MS = 20
QUIET_MS = 10_000
"""Nothing moved for so long: routes have settled. Longer than anything a node waits for before it acts."""
SETTLE_MAX_MS = 900_000
HOUR_S = 3_600
SHORT_S = 300
WINDOW_MAX_S = 24 * HOUR_S
MIDDLE_AMONG = 100
LONG_WINDOW_UPDATES = 400_000
"""Nodes times directions of links: up to so many, settled traffic is measured for an hour, with every announcement
signed anew; beyond, for five minutes."""


class Topology:
    """A graph that runs."""

    def __init__(self, graph: Graph, seed: int, pairs: int) -> None:
        self.graph = graph
        self.mesh = mesh = Mesh(seed, destinations_max=max(DESTINATIONS_MAX, len(graph.nodes)))
        for name in graph.nodes:
            mesh.station(name)
        for edge in graph.edges:
            mesh.join(mesh.names[edge.one], mesh.names[edge.other], edge)
        rng = random.Random(seed)
        drawn = (rng.sample(graph.nodes, 2) for _ in range(pairs if len(graph.nodes) > 1 else 0))
        self.pairs = [(one, other) for one, other in drawn]
        self.curve: list[tuple[float, float]] = []
        """Of the last :meth:`settle`: seconds, and the share of its pairs that were delivered then."""

    def start(self) -> None:
        """Bring all links up."""
        for edge in self.graph.edges:
            self.mesh.up(self.mesh.names[edge.one], self.mesh.names[edge.other])

    def settle(self, pairs: Sequence[tuple[str, str]], progress: Progress) -> float | None:
        """Let time pass until nothing moves; return after how many seconds all these pairs were delivered for good.

        None when some still aren't then: what is more than 64 hops away is not found.
        Raises: LocalError when it does not come to rest.
        """
        mesh, start = self.mesh, self.mesh.now
        keys = [(mesh.names[one], mesh.names[other]) for one, other in pairs]
        expected = sum(size * size for size in map(len, components(self.graph)))
        looked, right_at = -1, start
        self.curve = []
        while mesh.now - max(mesh.moved_at, start) < QUIET_MS:
            mesh.run(mesh.now + SAMPLE_MS)
            if mesh.moved_at > looked:
                looked = mesh.now
                right = sum(mesh.path(*pair) is not None for pair in keys)
                self.curve.append(((mesh.now - start) / 1_000, _share(right, len(keys))))
                if right < len(keys):
                    right_at = mesh.now + SAMPLE_MS
            known = sum(station.routes.destinations for station in mesh.stations.values())
            progress.at(known / expected, f"{(mesh.now - start) / 1_000:.1f} s of the network's time")
            if mesh.now - start > SETTLE_MAX_MS:
                raise LocalError(f"routes have not settled within {SETTLE_MAX_MS // 1_000} s of virtual time")
        progress.end()
        if self.curve and self.curve[-1][1] < 1:
            return None
        return max(right_at - start, SAMPLE_MS) / 1_000

    def ways(self) -> dict[str, dict[str, int]]:
        """Return what each link costs."""
        found: dict[str, dict[str, int]] = {name: {} for name in self.graph.nodes}
        for edge in self.graph.edges:
            found[edge.one][edge.other] = found[edge.other][edge.one] = link_cost(edge.rtt_ms, edge.loss)
        return found

    def stretches(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return, for each pair that is delivered, the cost of its path over that of the cheapest."""
        ways, mesh = self.ways(), self.mesh
        called = {key: name for name, key in mesh.names.items()}
        best: dict[str, dict[str, int]] = {}
        found = []
        for one, other in pairs:
            path = mesh.path(mesh.names[one], mesh.names[other])
            if path is not None:
                names = [called[key] for key in path]
                cost = sum(ways[a][b] for a, b in itertools.pairwise(names))
                if one not in best:
                    best[one] = shortest(ways, one)
                found.append(cost / best[one][other])
        return found

    def towards(self, name: str) -> tuple[dict[str, int], dict[str, str]]:
        """Return what the paths to a node cost, its own 0 among them, and the next hop of each node that has one."""
        mesh, ways = self.mesh, self.ways()
        called = {key: name for name, key in mesh.names.items()}
        costs, parents = {name: 0}, {}
        for node in self.graph.nodes:
            names = [called[key] for key in mesh.path(mesh.names[node], mesh.names[name]) or ()]
            if len(names) > 1:
                parents[node] = names[1]
                costs[node] = sum(ways[a][b] for a, b in itertools.pairwise(names))
        return costs, parents

    def delivered(self, pairs: Sequence[tuple[str, str]]) -> float:
        """Return the share of pairs between which a message arrives."""
        names, mesh = self.mesh.names, self.mesh
        return _share(sum(mesh.path(names[one], names[other]) is not None for one, other in pairs), len(pairs))

    def control(self, window_s: int, progress: Progress) -> float:
        """Return the bytes of routing frames that a node sends a second, over a while in which nothing happens."""
        before = sum(station.sent_bytes for station in self.mesh.stations.values())
        for part in range(100):
            self.mesh.run(self.mesh.now + window_s * 10)
            progress.at(part / 100, "settled traffic")
        progress.end()
        sent = sum(station.sent_bytes for station in self.mesh.stations.values()) - before
        return sent / len(self.graph.nodes) / window_s


def run(file: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Simulate and return the report. Raises: LocalError, UnavailableError."""
    if (pairs := options.get("pairs", PAIRS)) > PAIRS_MAX:
        raise LocalError(f"{pairs} pairs are too many; {PAIRS_MAX} are allowed")
    window_s = None if options.get("window") is None else int(options["window"])
    if window_s is not None and not 1 <= window_s <= WINDOW_MAX_S:
        raise LocalError(f"--window is from 1 second to {WINDOW_MAX_S // HOUR_S} hours")
    plot = options.get("plot")
    if plot is not None:
        check(plot)
    graph = read_graph(Path(file))
    cut = options.get("cut")
    if cut is not None and cut not in graph.nodes:
        raise LocalError(f"there is no node {display(str(cut)[:64])!r} in {display(file)}", code="not_found")
    return simulate(graph, seed=options.get("seed", 1), pairs=pairs, cut=cut, window_s=window_s, plot=plot)


def simulate(
    graph: Graph, *, seed: int = 1, pairs: int = PAIRS, cut: str | None = None, window_s: int | None = None,
    plot: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run a graph and return the report; ``plot`` is a file for a picture of how it ends. Raises: LocalError."""
    progress = Progress("routes")
    world = Topology(graph, seed, pairs)
    reachable = _connected(graph, world.pairs)
    world.start()
    convergence = world.settle(reachable, progress)
    curves = {"start": world.curve}
    cold_bytes = sum(station.sent_bytes for station in world.mesh.stations.values())
    stretches = world.stretches(reachable)
    report = {
        "nodes": len(graph.nodes),
        "links": len(graph.edges),
        "pairs": len(world.pairs),
        "delivered_ratio": world.delivered(world.pairs),
        "reachable_ratio": _share(len(reachable), len(world.pairs)),
        "convergence_s": convergence,
        "convergence_bytes_per_node": round(cold_bytes / len(graph.nodes)),
        "stretch": round(sum(stretches) / len(stretches), 6) if stretches else None,
        "stretch_max": round(max(stretches), 6) if stretches else None,
    }
    if window_s is None:
        window_s = HOUR_S if 2 * len(graph.nodes) * len(graph.edges) <= LONG_WINDOW_UPDATES else SHORT_S
    report["control_bytes_per_node_s"] = round(world.control(window_s, progress), 3)
    report["control_window_s"] = window_s
    if cut is not None:
        report |= _cut(world, cut, progress)
        curves[f"without {display(cut[:32])}"] = world.curve
    if plot is not None and world.graph.nodes:
        save(network(world.graph, *world.towards(middle(world.graph)), curves), plot)
    tally = world.mesh.crypto.tally
    report |= {"loops": world.mesh.loops, "signatures": tally.signs, "verifications": tally.verifies, "seed": seed}
    return report | {key: value for key, value in graph.noted.items() if value}


def _cut(world: Topology, node: str, progress: Progress) -> dict[str, Any]:
    """Take a node away. Its neighbours notice at once: how long a link takes to be found dead comes on top."""
    mesh = world.mesh
    left = world.graph.without(node)
    pairs = [pair for pair in world.pairs if node not in pair]
    reachable = _connected(left, pairs)
    for other in list(mesh.stations[mesh.names[node]].links):
        mesh.down(mesh.names[node], other)
    world.graph = left
    seconds = world.settle(reachable, progress)
    stretches = world.stretches(reachable)
    return {
        "cut": node,
        "reconvergence_s": seconds,
        "diameter_left": diameter(left),
        "cut_delivered_ratio": world.delivered(pairs),
        "cut_reachable_ratio": _share(len(reachable), len(pairs)),
        "cut_stretch": round(sum(stretches) / len(stretches), 6) if stretches else None,
    }


def components(graph: Graph) -> list[set[str]]:
    """Return the pieces of a graph."""
    near = graph.neighbours()
    seen: set[str] = set()
    found = []
    for node in graph.nodes:
        if node not in seen:
            piece = set(_depths(near, node))
            seen |= piece
            found.append(piece)
    return found


def diameter(graph: Graph) -> int:
    """Return the hops of the longest of all shortest paths."""
    near = graph.neighbours()
    return max((max(_depths(near, node).values()) for node in graph.nodes), default=0)


def middle(graph: Graph) -> str:
    """Return the node with the fewest hops to all others, of the best-linked ones."""
    near = graph.neighbours()

    def hops(node: str) -> int:
        depths = _depths(near, node)
        return sum(depths.values()) + (len(graph.nodes) - len(depths)) * len(graph.nodes)

    return min(sorted(graph.nodes, key=lambda node: -len(near[node]))[:MIDDLE_AMONG], key=hops)


def _depths(near: Mapping[str, Sequence[str]], node: str) -> dict[str, int]:
    depths = {node: 0}
    wave = [node]
    while wave:
        following = []
        for at in wave:
            for other in near[at]:
                if other not in depths:
                    depths[other] = depths[at] + 1
                    following.append(other)
        wave = following
    return depths


def _connected(graph: Graph, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    piece = {node: number for number, nodes in enumerate(components(graph)) for node in nodes}
    return [(one, other) for one, other in pairs if piece[one] == piece[other]]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


_WORDS = (
    ("nodes", "nodes", "{}"),
    ("links", "links", "{}"),
    ("pairs", "pairs sampled", "{}"),
    ("reachable_ratio", "of them connected", "{:.2%}"),
    ("delivered_ratio", "of them delivered", "{:.2%}"),
    ("convergence_s", "found each other after", "{:.2f} s"),
    ("convergence_bytes_per_node", "sent for that", "{} bytes by each node"),
    ("stretch", "paths cost", "{:.3f} times the cheapest"),
    ("control_bytes_per_node_s", "settled traffic", "{:.1f} bytes/s from each node"),
    ("cut", "then cut", "{}"),
    ("reconvergence_s", "right again after", "{:.2f} s, after its neighbours noticed"),
    ("diameter_left", "diameter left", "{} hops"),
    ("cut_reachable_ratio", "still connected", "{:.2%}"),
    ("cut_delivered_ratio", "still delivered", "{:.2%}"),
    ("cut_stretch", "paths cost then", "{:.3f} times the cheapest"),
    ("loops", "loops seen", "{}"),
    ("signatures", "signatures made", "{}"),
    ("verifications", "signatures checked", "{}"),
    ("silent_ends", "links with an end that reports no quality", "{}"),
    ("parallel", "links told more than once", "{}"),
    ("self_links", "links from a node to itself", "{}"),
)


def text(report: Mapping[str, Any]) -> str:
    """Return the report for a person."""
    rows = [(words, form.format(report[key])) for key, words, form in _WORDS if report.get(key) is not None]
    for key, what in (("convergence_s", "not all found"), ("reconvergence_s", "not all right")):
        if key in report and report[key] is None:
            rows.append((what, f"some are more than {HOPS_MAX} hops away, and no message goes so far"))
    return fields(*rows) + "\n"
