"""What a broadcast is measured with: flooding, shortest paths, and how often something was sent in vain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from heapq import heappop, heappush

from quicprochat.sim.graph import shortest

Delay = Callable[[str, str], int]
"""Milliseconds that something takes over a link, one way."""


def flood(near: Mapping[str, Sequence[str]], origin: str, delay: Delay) -> tuple[int, dict[str, int]]:
    """Flood a graph; return how many transmissions that took, and when each node had it first, in milliseconds.

    Whoever has it for the first time hands it to all neighbours but who gave it. No protocol reaches anybody sooner,
    and none without memory of what others have sends more.
    """
    sent, came = 0, {origin: 0}
    due: list[tuple[int, int, str, str]] = [(0, 0, origin, "")]
    while due:
        at, _, node, giver = heappop(due)
        if giver and node in came:
            continue
        came[node] = at
        for other in near[node]:
            if other != giver:
                sent += 1
                heappush(due, (at + delay(node, other), sent, other, node))
    return sent, came


def along(ways: Mapping[str, Mapping[str, int]], origin: str, delay: Delay) -> dict[str, int]:
    """Return when each node has what takes the shortest path to it, in milliseconds.

    ``ways`` is what a link takes on the average: the paths are the shortest by that, and what takes them has the luck
    of its moment.
    """
    paths, came = shortest(ways, origin), {origin: 0}
    for node in sorted(paths, key=paths.__getitem__):
        for other, price in ways[node].items():
            if other not in came and paths[node] + price == paths[other]:
                came[other] = came[node] + delay(node, other)
    return came


def redundancy(sent: int, nodes: int) -> float:
    """Return the relative message redundancy of a broadcast that ``nodes`` had in the end, its origin among them.

    0 is a tree; 1, that everybody got it twice. (Leitão, Pereira and Rodrigues: Epidemic Broadcast Trees, 2007.)
    """
    return sent / (nodes - 1) - 1 if nodes > 1 else 0.0
