"""``qpc sim topology --channel``: posts of one channel over a graph of whole nodes. Whom do they reach, and when?

Beside it, in the same run, flooding over the same links. Then the graph is cut into two halves, both write, and the
links come back.
"""

from __future__ import annotations

import random  # noqa: TID251  seeded, and nothing secret comes from it
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from quicprochat.console.text import display, fields
from quicprochat.core.errors import LocalError
from quicprochat.sim.community import Community, Posted
from quicprochat.sim.graph import Edge, Graph, read_graph, shortest
from quicprochat.sim.peer import COMMIT_MS
from quicprochat.sim.progress import Progress
from quicprochat.sim.topology import components
from quicprochat.sim.world import retried_ms
from quicprochat.sim.yardsticks import along, flood, redundancy

POSTS, POSTS_MAX = 40, 500
AUTHORS = 10
WARM_UP = 2
"""Posts of each author before those that count."""
GAP_MS = 1_000
"""Between two posts: longer than a node waits before it offers what nobody gave or asked for."""
LATE_MS = 60_000
"""A post that has not reached everybody after so long is counted as it stands."""
QUIET_S = 900
"""Longer than it takes until each link compares again."""
QUIET_MAX_S = 86_400
HALF_POSTS = 40
"""Posts that each half writes while the graph is cut: too many to be offered without comparing first."""


def run(file: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Simulate and return the report. Raises: LocalError, UnavailableError."""
    if not 1 <= (posts := options.get("posts", POSTS)) <= POSTS_MAX:
        raise LocalError(f"--posts is from 1 to {POSTS_MAX}")
    if not 1 <= (quiet_s := int(options.get("window", QUIET_S))) <= QUIET_MAX_S:
        raise LocalError(f"--window is from 1 second to {QUIET_MAX_S // 3_600} hours")
    share = _share(str(options.get("subscribers", "1")))
    return simulate(read_graph(Path(file)), seed=options.get("seed", 1), share=share, posts=posts, quiet_s=quiet_s)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:  # also what is no number
        raise LocalError(f"--subscribers is a share above 0, and at most 1, not {display(text[:64])}")
    return share


def simulate(
    graph: Graph, *, seed: int = 1, share: float = 1.0, posts: int = POSTS, quiet_s: int = QUIET_S
) -> dict[str, Any]:
    """Run a graph and return the report. Raises: LocalError."""
    progress, rng = Progress("posts"), random.Random(seed)
    readers = rng.sample(sorted(graph.nodes), max(2, round(share * len(graph.nodes))) if len(graph.nodes) > 1 else 0)
    pieces = [piece for piece in components(graph) if len(piece & set(readers)) > 1]
    if not pieces:
        raise LocalError("no two subscribers are connected; there is nothing to simulate")
    world = Community(graph, seed, readers)
    world.start()
    world.settle()
    authors = rng.sample(candidates := sorted(set().union(*pieces) & set(readers)), min(AUTHORS, len(candidates)))
    cold = _write(world, pieces, authors * WARM_UP, progress)
    before = sum(world.control.values())
    warm = _write(world, pieces, [authors[number % len(authors)] for number in range(posts)], progress)
    control = sum(world.control.values()) - before
    report = {
        "nodes": len(graph.nodes), "links": len(graph.edges), "subscribers": len(readers), "authors": len(authors),
        "posts": posts, **_spread(world, pieces, cold, warm),
        "control_bytes_per_post_and_node": round(control / posts / len(graph.nodes), 1),
    }  # fmt: skip
    before = sum(world.control.values())
    world.world.run(quiet_s * 1_000)
    quiet = sum(world.control.values()) - before
    report |= {"quiet_bytes_per_node_s": round(quiet / len(graph.nodes) / quiet_s, 3), "quiet_window_s": quiet_s}
    report |= _heal(world, max(pieces, key=len), rng, progress)
    progress.end()
    tally = world.world.crypto.tally
    return report | {"signatures": tally.signs, "verifications": tally.verifies, "seed": seed}


def _write(world: Community, pieces: Sequence[set[str]], authors: Sequence[str], progress: Progress) -> list[Posted]:
    """Let authors write one after the other, and wait until all have all."""
    written = []
    for number, author in enumerate(authors):
        written.append(world.post(author))
        world.world.run(GAP_MS)
        progress.at(number / len(authors), f"{len(world.posts)} written")
    for post in written:
        world.wait([post], _readers(world, pieces, post.author), LATE_MS)
    return written


def _readers(world: Community, pieces: Sequence[set[str]], author: str) -> set[str]:
    piece = next(piece for piece in pieces if author in piece)
    return (piece & set(world.subscribers)) - {author}


# --- what became of posts


def _spread(world: Community, pieces: Sequence[set[str]], cold: list[Posted], warm: list[Posted]) -> dict[str, Any]:
    """Compare posts with flooding, and with the shortest paths."""
    ways, near = _ways(world.graph), world.graph.neighbours()
    edges = {ends: edge for edge in world.graph.edges for ends in ((edge.one, edge.other), (edge.other, edge.one))}
    rng = random.Random(world.rng.random())

    def delay(one: str, other: str) -> int:
        edge = edges[one, other]
        return edge.latency_ms + retried_ms(edge.latency_ms, edge.loss, rng)

    reached, lasts, bests, flooded, floods = [], [], [], [], []
    for post in warm:
        readers = _readers(world, pieces, post.author)
        reached.append(len(post.came.keys() & readers) / len(readers))
        paths = along(ways, post.author, delay)
        best = max(paths[reader] for reader in readers) + COMMIT_MS
        sent, came = flood(near, post.author, delay)
        floods.append(redundancy(sent, len(came)))
        flooded.append(max(came[reader] for reader in readers) + COMMIT_MS)
        bests.append(best)
        if post.came.keys() >= readers:
            lasts.append(max(post.came.values()) - post.written)
    return {
        "reached_ratio": mean(reached),
        "redundancy": round(mean(_redundancy(world, post) for post in warm), 4),
        "redundancy_max": round(max(_redundancy(world, post) for post in warm), 4),
        "redundancy_cold": round(mean(_redundancy(world, post) for post in cold), 4),
        "flooding_redundancy": round(mean(floods), 4),
        "last_delivery_ms": median(lasts) if lasts else None,
        "shortest_path_ms": median(bests),
        "last_delivery_ratio": round(mean(lasts) / mean(bests), 3) if lasts else None,
        "flooding_delivery_ratio": round(mean(flooded) / mean(bests), 3),
        "twice": world.twice,
    }


def _redundancy(world: Community, post: Posted) -> float:
    return redundancy(world.sent[post.core], len(world.has[post.core] | {post.author}))


def _ways(graph: Graph) -> dict[str, dict[str, int]]:
    """Return how long a packet takes over each link on the average, one way and in microseconds."""
    found: dict[str, dict[str, int]] = {name: {} for name in graph.nodes}
    for edge in graph.edges:
        retries = edge.loss / (1 - edge.loss)
        found[edge.one][edge.other] = found[edge.other][edge.one] = round(
            1_000 * (edge.latency_ms + retries * (2 * edge.latency_ms + 1))
        )
    return found


# --- cut and healed


def halves(graph: Graph, piece: Iterable[str]) -> tuple[set[str], set[str]]:
    """Return a connected piece of a graph in two parts that are each connected, as equal as one cut makes them.

    The cut is one link of a tree of shortest hops, and with it every link between the two sides of that.
    """
    near = graph.neighbours()
    root = min(piece)
    order, parent = [root], {root: root}
    for node in order:
        for other in near[node]:
            if other not in parent:
                parent[other] = node
                order.append(other)
    size = dict.fromkeys(order, 1)
    for node in reversed(order[1:]):
        size[parent[node]] += size[node]
    top = min(order[1:], key=lambda node: (abs(2 * size[node] - len(order)), node))
    below = {top}
    for node in order:
        if parent[node] in below and node != root:
            below.add(node)
    return below, set(order) - below


def _heal(world: Community, piece: set[str], rng: random.Random, progress: Progress) -> dict[str, Any]:
    """Cut a piece into two halves, let both write, join them, and see how soon everybody has everything."""
    sides = halves(world.graph, piece)
    cut = [edge for edge in world.graph.edges if (edge.one in sides[0]) != (edge.other in sides[0])]
    cut = [edge for edge in cut if edge.one in piece]
    for edge in cut:
        world.cables[edge].pull()
    world.settle()
    subscribers = set(world.subscribers)
    posts: list[Posted] = []
    for side in sides:
        authors = sorted(side & subscribers)
        posts += _write(world, [side], [rng.choice(authors) for _ in range(HALF_POSTS if authors else 0)], progress)
    apart = [
        len(post.came.keys() & side) / max(1, len(side & subscribers - {post.author}))
        for post in posts
        for side in sides
        if post.author in side
    ]
    twice, joined = world.twice, world.world.now
    world.rounds.clear()
    for edge in cut:
        world.cables[edge].plug()
    healed = world.wait(posts, subscribers & piece, LATE_MS)
    last = max(max(post.came.values(), default=0) for post in posts)
    rounds = max((world.rounds[id(world.cables[edge])] for edge in cut), default=0)
    heal_ms = last - joined if healed else None
    farthest_ms = max((edge.rtt_ms for edge in cut), default=0) + 2 * (COMMIT_MS + _farthest(world.graph, piece, cut))
    return {
        "cut_links": len(cut), "halves": [len(side) for side in sides], "cut_posts": len(posts),
        "cut_reached_ratio": round(mean(apart), 6),
        "heal_reached_ratio": 1.0 if healed else _reached(posts, subscribers & piece),
        "heal_ms": heal_ms,
        "heal_rounds": -(-rounds // 2),
        "heal_farthest_rtt_ms": round(farthest_ms, 1),
        "heal_round_trips": None if heal_ms is None else round(heal_ms / farthest_ms, 2),
        "heal_twice": world.twice - twice,
    }  # fmt: skip


def _reached(posts: Sequence[Posted], readers: set[str]) -> float:
    return mean(len(post.came.keys() & readers) / len(readers - {post.author}) for post in posts)


def _farthest(graph: Graph, piece: set[str], cut: Sequence[Edge]) -> float:
    """Return how long the way from the nearest of these links to whoever is farthest takes one way, in milliseconds.

    With a commit at each node on it: nobody speaks of what is not on its disk.
    """
    ways = {one: {other: us + 1_000 * COMMIT_MS for other, us in near.items()} for one, near in _ways(graph).items()}
    ways[""] = dict.fromkeys((end for edge in cut for end in (edge.one, edge.other)), 0)
    paths = shortest(ways, "")
    return max(paths[node] for node in piece) / 1_000


_WORDS = (
    ("nodes", "nodes", "{}"),
    ("links", "links", "{}"),
    ("subscribers", "of them subscribe", "{}"),
    ("posts", "posts", "{}, after some that do not count"),
    ("reached_ratio", "reached", "{:.2%} of the subscribers who can be"),
    ("redundancy", "sent in vain", "{:.3f} for each that was not; the most redundant post has"),
    ("redundancy_max", "", "{:.3f}"),
    ("redundancy_cold", "before that", "{:.3f}, each author's first posts"),
    ("flooding_redundancy", "flooding", "{:.3f}"),
    ("last_delivery_ms", "last of all reached after", "{:.0f} ms"),
    ("shortest_path_ms", "shortest path to it", "{:.0f} ms"),
    ("last_delivery_ratio", "ratio", "{:.2f}"),
    ("flooding_delivery_ratio", "flooding", "{:.2f}"),
    ("control_bytes_per_post_and_node", "besides", "{:.0f} bytes a post from each node"),
    ("quiet_bytes_per_node_s", "nothing written", "{:.2f} bytes/s from each node"),
    ("twice", "twice over one link", "{}"),
    ("cut_links", "then cut", "{} links"),
    ("halves", "halves", "{} nodes"),
    ("cut_reached_ratio", "posts reached", "{:.2%} of the subscribers on their side"),
    ("heal_reached_ratio", "joined again: reached", "{:.2%} of all"),
    ("heal_ms", "after", "{:.0f} ms"),
    ("heal_round_trips", "that is", "{:.1f} round trips of the way over the cut to the farthest"),
    ("heal_rounds", "comparing took", "{} round trips over one link at most"),
    ("heal_twice", "twice over one link", "{}"),
    ("signatures", "signatures made", "{}"),
    ("verifications", "signatures checked", "{}"),
)


def text(report: Mapping[str, Any]) -> str:
    """Return the report for a person."""
    shown = {**report, "halves": " and ".join(map(str, report["halves"]))}
    return (
        fields(*((words, form.format(shown[key])) for key, words, form in _WORDS if shown.get(key) is not None)) + "\n"
    )
