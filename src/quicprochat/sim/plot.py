"""The pictures of ``qpc sim``. Needs matplotlib, from the extra ``plot``; loaded by nothing else.

A network is drawn around one destination: a node's distance from the middle is the hops of its path there, and its
share of the circle that of the leaves behind it. So the picture comes from the routes alone, needs no coordinates, and
shows a tree of any size without a crossing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from math import cos, pi, sin
from pathlib import Path
from typing import TYPE_CHECKING

from quicprochat.console.text import display
from quicprochat.core.errors import LocalError
from quicprochat.sim.graph import Graph
from quicprochat.sim.outcome import Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INSTALL = "pip install '.[plot]' in the source directory, or quicprochat[plot] from where you got it"
HOUR_S = 3_600

Point = tuple[float, float]
Curve = Sequence[tuple[float, float]]
"""Seconds and a share, at the moments at which the share may have changed."""


def figure(figsize: tuple[float, float] = (8.5, 5)) -> Figure:
    """Return an empty picture; sizes in inches. Raises: LocalError where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise LocalError(f"--plot draws with matplotlib, which is missing; install the extra: {INSTALL}") from None
    return Figure(figsize=figsize, layout="constrained")


def check(path: str) -> None:
    """See that a picture can be drawn there, before a long run. Raises: LocalError."""
    figure()
    if Path(path).suffix.lower() not in (".png", ".svg", ".pdf"):
        raise LocalError(f"--plot {display(path)} says no kind of picture; end the name in .png, .svg or .pdf")
    where = Path(path).parent
    if Path(path).is_dir() or not where.is_dir() or not os.access(where, os.W_OK):
        raise LocalError(f"no picture can be written to {display(path)}; name a file in a directory you may write to")


def save(drawn: Figure, path: str) -> None:
    """Write a picture. Raises: LocalError."""
    try:
        drawn.savefig(path, dpi=90)
    except (OSError, ValueError) as error:
        raise LocalError(f"cannot draw into {display(path)}: {error}") from None


# --- traces


def deliveries(runs: Mapping[str, Outcome], best: Outcome, title: str) -> Figure:
    """Draw what each router delivered within each time, over the most that was possible."""
    drawn = figure()
    axes = drawn.subplots()
    ttl_h = best.ttl_s / HOUR_S
    for name, one in {"best possible (earliest arrival)": best, **runs}.items():
        delays = sorted(one.delays.values())
        hours = [0.0, *(delay / HOUR_S for delay in delays), ttl_h]
        shares = [number / len(one.messages) for number in (*range(len(delays) + 1), len(delays))]
        wide = one is best
        label = f"{name}: {one.ratio():.1%}"
        axes.step(hours, shares, where="post", linewidth=5 if wide else 1.6, alpha=0.35 if wide else 1, label=label)
    axes.set(xlabel="hours since a message was written", ylabel="part of the messages that arrived", title=title)
    axes.set(ylim=(0, None), xlim=(0, ttl_h))
    axes.grid(alpha=0.3)
    axes.legend()
    return drawn


# --- topologies


def network(graph: Graph, costs: Mapping[str, int], parents: Mapping[str, str], curves: Mapping[str, Curve]) -> Figure:
    """Draw a network with its routes to one destination, and how routes became right over time.

    ``costs`` has the destination, at 0, and all nodes with a route to it; ``parents`` the next hop of each but the
    destination.
    """
    from matplotlib.collections import LineCollection

    drawn = figure((11.5, 5.5))
    left, right = drawn.subplots(1, 2, width_ratios=(3, 2))
    root = next(node for node in costs if node not in parents)
    at = radial(graph.nodes, root, parents)
    thin = min(1.0, 12 / len(graph.nodes) ** 0.5)
    others = [(at[edge.one], at[edge.other]) for edge in graph.edges if not _is_route(edge.one, edge.other, parents)]
    routes = [(at[node], at[parent]) for node, parent in parents.items()]
    left.add_collection(LineCollection(others, colors="0.8", linewidths=0.7 * thin, zorder=1))
    left.add_collection(LineCollection(routes, colors="0.25", linewidths=1.3 * thin, zorder=2))
    lost = [node for node in graph.nodes if node not in costs]
    size = min(40.0, max(3.0, 8_000 / len(graph.nodes)))
    if lost:
        left.scatter(*zip(*(at[node] for node in lost), strict=True), s=size, color="0.7", marker="x", label="no route")
    known = list(costs)
    dots = left.scatter(*zip(*(at[node] for node in known), strict=True), s=size, c=list(costs.values()), zorder=3)
    left.scatter(0, 0, s=4 * size + 20, color="red", marker="*", zorder=4, label=f"destination {display(root[:32])}")
    drawn.colorbar(dots, ax=left, label="cost of the path to it", shrink=0.8)
    left.set(title=f"{len(graph.nodes)} nodes, {len(graph.edges)} links; dark: next hops, a ring further for each hop")
    left.legend(loc="upper right")
    left.set_aspect("equal")
    left.axis("off")
    _convergence(right, curves)
    return drawn


def _is_route(one: str, other: str, parents: Mapping[str, str]) -> bool:
    return parents.get(one) == other or parents.get(other) == one


def _convergence(axes: Axes, curves: Mapping[str, Curve]) -> None:
    longest = 0.0
    for name, curve in curves.items():
        right_at = next((after for after, share in curve if share == 1), None)
        words = f"{name}: all after {right_at:.2f} s" if right_at is not None else name
        seconds, shares = zip((0.0, 0.0 if name == "start" else curve[0][1]), *curve, strict=True)
        axes.step(seconds, shares, where="post", label=words)
        longest = max(longest, *(after for after, share in curve if share < 1), 0.1)
    axes.set(xlabel="seconds of the network's time", ylabel="part of the connected pairs whose next hops lead there")
    axes.set(xlim=(0, 1.5 * longest), ylim=(0, 1.03), title="routes become right")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")


def radial(nodes: Sequence[str], root: str, parents: Mapping[str, str]) -> dict[str, Point]:
    """Return a place for each node: the root in the middle, a ring for each hop, what has no parent outside of all."""
    children: dict[str, list[str]] = {}
    for node, parent in parents.items():
        children.setdefault(parent, []).append(node)
    order = [(root, 0)]
    for node, depth in order:
        order += ((child, depth + 1) for child in children.get(node, ()))
    leaves: dict[str, int] = {}
    for node, _ in reversed(order):
        leaves[node] = sum(leaves[child] for child in children.get(node, ())) or 1
    places = {root: (0.0, 0.0)}
    start = {root: 0.0}
    for node, depth in order:
        angle = start[node]
        for child in sorted(children.get(node, ()), key=lambda child: (leaves[child], child)):
            start[child] = angle
            places[child] = _on_ring(depth + 1, angle + leaves[child] / leaves[root] / 2)
            angle += leaves[child] / leaves[root]
    outside = [node for node in nodes if node not in places]
    for number, node in enumerate(outside):
        places[node] = _on_ring(order[-1][1] + 1, number / len(outside))
    return places


def _on_ring(radius: int, turn: float) -> Point:
    return radius * cos(2 * pi * turn), radius * sin(2 * pi * turn)
