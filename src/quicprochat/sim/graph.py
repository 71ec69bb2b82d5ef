"""Graphs of real and made-up networks: reading them from files, and shortest paths to compare ours with.

A file is JSON, plain or gzip: ``{"nodes": [{"id"}], "links": [link]}``, or just a list of links. A link names its ends
``source`` and ``target``, or ``from`` and ``to``; ``source_tq`` and ``target_tq`` (0 to 1) are the link quality that
each end reports, ``type`` is ``wifi``, ``vpn`` or anything else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import sqrt
from pathlib import Path
from typing import Any

from quicprochat.console.text import display
from quicprochat.core.errors import LocalError
from quicprochat.sim.files import read

NODES_MAX = 20_000
TQ_MIN = 0.05
"""A link that is worse would not be one (guess)."""

RTT_MS = {"wifi": 4, "vpn": 30, "other": 2}
"""Round trips assumed for the types of links, in milliseconds (guess)."""


@dataclass(frozen=True, slots=True)
class Edge:
    """A link of the graph: its ends, round trip, and the share of packets that is lost."""

    one: str
    other: str
    rtt_ms: int = 2
    loss: float = 0.0

    @property
    def latency_ms(self) -> int:
        """How long a packet that is not lost takes, one way."""
        return max(1, self.rtt_ms // 2)


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes and links; of several links between two nodes the best is kept, and one from a node to itself is left out.

    ``noted`` counts what was odd in the file.
    """

    nodes: tuple[str, ...]
    edges: tuple[Edge, ...]
    noted: Mapping[str, int] = field(default_factory=dict)

    def without(self, node: str) -> Graph:
        """Return the graph that is left when a node is gone."""
        nodes = tuple(name for name in self.nodes if name != node)
        return Graph(nodes, tuple(edge for edge in self.edges if node not in (edge.one, edge.other)))

    def neighbours(self) -> dict[str, list[str]]:
        """Return who is linked to whom."""
        found: dict[str, list[str]] = {node: [] for node in self.nodes}
        for edge in self.edges:
            found[edge.one].append(edge.other)
            found[edge.other].append(edge.one)
        return found


def read_graph(path: Path) -> Graph:
    """Read a graph. Raises: LocalError in one sentence for a file that cannot be read or is none."""
    data, name = read(path), display(str(path))
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise LocalError(f"{name} is no graph: it is not JSON; docs/simulator.md shows the formats") from None
    try:
        return _parse(found)
    except ValueError as error:
        raise LocalError(f"{name} is no graph: {error}; docs/simulator.md shows the formats") from error


def _parse(found: Any) -> Graph:
    listed = {"links": found} if isinstance(found, list) else found
    if not isinstance(listed, dict) or not isinstance(listed.get("links"), list):
        raise ValueError("it has no list of links")
    noted = {"silent_ends": 0, "self_links": 0, "parallel": 0}
    nodes: dict[str, None] = {}
    for node in _objects(listed.get("nodes", [])):
        nodes[_id(node.get("id"))] = None
    edges: dict[tuple[str, str], Edge] = {}
    for link in _objects(listed["links"]):
        one = _id(link["source"] if "source" in link else link.get("from"))
        other = _id(link["target"] if "target" in link else link.get("to"))
        nodes[one] = nodes[other] = None
        if one == other:
            noted["self_links"] += 1
            continue
        edge = Edge(one, other, RTT_MS.get(str(link.get("type")), RTT_MS["other"]), _loss(link, noted))
        ends = (min(one, other), max(one, other))
        if ends in edges:
            noted["parallel"] += 1
        if ends not in edges or edge.loss < edges[ends].loss:
            edges[ends] = edge
    if not nodes:
        raise ValueError("it has no nodes")
    if len(nodes) > NODES_MAX:
        raise ValueError(f"it has {len(nodes)} nodes, and {NODES_MAX} are allowed")
    return Graph(tuple(nodes), tuple(edges.values()), noted)


def _objects(items: Any) -> Iterable[dict[str, Any]]:
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ValueError("nodes and links are lists of objects")
    return items


def _id(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("a link or node does not name its id")
    return str(value)


def _loss(link: Mapping[str, Any], noted: dict[str, int]) -> float:
    """Return the share of packets lost, from the quality that both ends report; 0 means that this end said nothing."""
    ends = []
    for key in ("source_tq", "target_tq"):
        quality = link.get(key, 1)
        if isinstance(quality, bool) or not isinstance(quality, int | float) or not 0 <= quality <= 1:
            raise ValueError(f"{key} is {str(quality)[:20]!r}, and a quality is from 0 to 1")
        ends.append(float(quality))
    if 0.0 in ends:
        noted["silent_ends"] += 1
        ends = [max(ends) or 1.0] * 2
    return 1 - max(TQ_MIN, sqrt(ends[0] * ends[1]))


def shortest(ways: Mapping[str, Mapping[str, int]], origin: str) -> dict[str, int]:
    """Return the cost of the cheapest path from ``origin`` to every node it can reach (Dijkstra 1959)."""
    costs = {origin: 0}
    due = [(0, origin)]
    while due:
        cost, node = heappop(due)
        if cost > costs[node]:
            continue
        for other, price in ways[node].items():
            if cost + price < costs.get(other, 1 << 62):
                costs[other] = cost + price
                heappush(due, (cost + price, other))
    return costs
