"""How the simulator's costs grow with nodes, links and messages; each kind becomes a picture and a line of JSON.

python -m bench.growth [nodes] [links] [messages] [--out DIR] [--nodes-max N]

Networks and encounters are made up here, with fixed seeds. Each point is a process of its own: memory is its peak,
time that of its processor, so other work on the machine matters little to both.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import combinations
from math import hypot
from pathlib import Path
from typing import Any

from quicprochat.sim import topology, trace
from quicprochat.sim.contacts import Trace, parse_trace, workload
from quicprochat.sim.graph import Edge, Graph
from quicprochat.sim.plot import figure, save

NODES = (125, 250, 500, 1_000, 2_000)
LINKS_EACH = (3, 4, 8, 16)
"""Mean number of neighbours."""
LINKS_NODES = 250
MESSAGES = (125, 250, 500, 1_000)
PEOPLE = 100
PLACES = 12
HOURS = 12
WINDOW_S = 300

Point = dict[str, float]


def network(nodes: int, neighbours: float) -> Graph:
    """Return points on a square, linked to the nearest and all in one piece; one link in ten leads anywhere.

    Without those, paths of a thousand nodes are longer than the 64 hops that an envelope may go.
    """
    rng = random.Random(nodes)
    at = [(rng.random(), rng.random()) for _ in range(nodes)]

    def apart(pair: tuple[int, int]) -> float:
        return hypot(at[pair[0]][0] - at[pair[1]][0], at[pair[0]][1] - at[pair[1]][1])

    piece = list(range(nodes))

    def find(node: int) -> int:
        while piece[node] != node:
            piece[node] = piece[piece[node]]
            node = piece[node]
        return node

    pairs = sorted(combinations(range(nodes), 2), key=apart)
    wanted = round(nodes * neighbours / 2)
    tunnels = rng.sample(pairs, wanted // 10)
    kept: dict[tuple[int, int], None] = {}
    spare = wanted - (nodes - 1)
    for one, other in [*tunnels, *pairs]:
        if find(one) != find(other) or spare > 0:
            spare -= find(one) == find(other)
            kept[one, other] = None
            piece[find(one)] = find(other)
    return Graph(tuple(map(str, range(nodes))), tuple(Edge(str(one), str(other), 4) for one, other in kept))


def crowd() -> Trace:
    """Return the encounters of people who go to another place every hour, and stand near one or two there."""
    rng = random.Random(1)
    rows = []
    for hour in range(HOURS):
        places: list[list[int]] = [[] for _ in range(PLACES)]
        for person in range(PEOPLE):
            places[rng.choice((person % PLACES, rng.randrange(PLACES)))].append(person)
        for step in range(hour * 180, hour * 180 + 180):
            for there in places:
                for one, other in combinations(there, 2):
                    if rng.random() < 0.01:
                        rows.append(f"{20 * (step + 1)} {one} {other}")
    return parse_trace("\n".join(rows).encode(), "crowd")


def routed(nodes: int, neighbours: float) -> Point:
    """Run a network until it has settled, and for five minutes more."""
    graph = network(nodes, neighbours)
    began = time.process_time()
    found = topology.simulate(graph, pairs=500, window_s=WINDOW_S)
    if (found["delivered_ratio"], found["stretch"], found["loops"]) != (1, 1, 0):
        raise RuntimeError(f"{nodes} nodes with {neighbours} neighbours: {found}")
    return _spent(began) | {
        "nodes": nodes, "links": len(graph.edges), "convergence_s": found["convergence_s"],
        "convergence_kb_per_node": found["convergence_bytes_per_node"] / 1_000,
        "control_bytes_per_node_s": found["control_bytes_per_node_s"],
    }  # fmt: skip


def carried(messages: int) -> Point:
    """Let a crowd carry so many messages, each for six hours."""
    people, ttl_s = crowd(), HOURS // 2 * 3_600
    began = time.process_time()
    outcome = trace.simulate(people, workload(people, messages, ttl_s), ttl_s)
    if outcome.duplicates:
        raise RuntimeError(f"{messages} messages: {outcome.duplicates} came twice")
    return _spent(began) | {
        "messages": messages, "encounters": people.encounters, "delivered_ratio": outcome.ratio(),
        "copies_per_message": outcome.copies_per_message,
        "control_kb_per_message": outcome.control_bytes / messages / 1_000,
    }  # fmt: skip


def _spent(began: float) -> Point:
    status = Path("/proc/self/status").read_text()
    peak_kib = int(status.split("VmHWM:")[1].split()[0])
    return {"cpu_s": round(time.process_time() - began, 2), "peak_mib": round(peak_kib / 1_024, 1)}


KINDS: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "nodes": ("nodes, four neighbours each", (
        ("cpu_s", "seconds of one core"), ("peak_mib", "memory, MiB"),
        ("convergence_s", "seconds until all found each other"),
        ("control_bytes_per_node_s", "bytes/s of a settled node"),
    )),
    "links": (f"links among {LINKS_NODES} nodes", (
        ("cpu_s", "seconds of one core"), ("peak_mib", "memory, MiB"),
        ("convergence_s", "seconds until all found each other"),
        ("control_bytes_per_node_s", "bytes/s of a settled node"),
    )),
    "messages": (f"messages among {PEOPLE} people", (
        ("cpu_s", "seconds of one core"), ("peak_mib", "memory, MiB"),
        ("copies_per_message", "copies of a message"),
        ("control_kb_per_message", "kB of other frames a message"),
    )),
}  # fmt: skip
"""What lies on each kind's horizontal axis, and the panels above it."""


def measure(kind: str, nodes_max: int) -> list[Point]:
    """Run all points of a kind, one after the other."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as processes:
        match kind:
            case "nodes":
                due = [processes.submit(routed, nodes, 4) for nodes in NODES if nodes <= nodes_max]
            case "links":
                due = [processes.submit(routed, LINKS_NODES, neighbours) for neighbours in LINKS_EACH]
            case _:
                due = [processes.submit(carried, messages) for messages in MESSAGES]
        points = []
        for one in due:
            points.append(one.result())
            print(json.dumps(points[-1]), file=sys.stderr, flush=True)
        return points


def draw(kind: str, points: list[Point], path: Path) -> None:
    """Draw a panel for each cost; both axes logarithmic, with the slope of proportional growth as a dotted line."""
    across, panels = KINDS[kind]
    drawn: Any = figure(figsize=(9, 6))
    drawn.suptitle(f"Growth with {across}")
    x = [point[kind] for point in points]
    for axes, (key, words) in zip(drawn.subplots(2, 2).flat, panels, strict=True):
        y = [point[key] for point in points]
        axes.loglog(x, y, marker="o")
        axes.loglog([x[0], x[-1]], [y[-1] * x[0] / x[-1], y[-1]], linestyle=":", color="grey")
        for point in zip(x, y, strict=True):
            value = f"{point[1]:,.0f}" if point[1] >= 100 else f"{point[1]:.3g}"
            axes.annotate(value, point, textcoords="offset points", xytext=(0, 7), ha="center", fontsize=8)
        axes.set(title=words, xlabel=kind)
        axes.set_xticks(x, [f"{one:,.0f}" for one in x])
        axes.minorticks_off()
        axes.set_yticks([])
        axes.margins(0.1, 0.2)
        axes.grid(alpha=0.3)
    save(drawn, str(path))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", choices=[[], *KINDS], default=[], metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--out", type=Path, help="directory for the pictures; without it figures only")
    parser.add_argument("--nodes-max", type=int, default=NODES[-1])
    args = parser.parse_args()
    for kind in args.kinds or KINDS:
        points = measure(kind, args.nodes_max)
        print(json.dumps({f"growth_{kind}": points}), flush=True)
        if args.out is not None:
            draw(kind, points, args.out / f"growth-{kind}.png")


if __name__ == "__main__":
    main()
