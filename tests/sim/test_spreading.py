"""Posts of a channel over a graph: what the simulator says of graphs whose answer is known, and of real ones."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.sim.test_topology import community, graph, square, written

from quicprochat.core.errors import LocalError
from quicprochat.sim.command import simulate as command
from quicprochat.sim.graph import Edge, Graph
from quicprochat.sim.spreading import halves, simulate, text
from quicprochat.sim.yardsticks import along, flood, redundancy


def slow(one: str, other: str) -> int:
    return 10


def test_flooding_sends_over_each_link_but_back() -> None:
    near = graph(("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")).neighbours()
    sent, came = flood(near, "a", slow)
    assert sent == 2 * 4 - 3, "everybody sends to all but the giver, and who begins has none"
    assert came == {"a": 0, "b": 10, "c": 10, "d": 20}
    assert redundancy(sent, 4) == pytest.approx(2 / 3)
    assert redundancy(3, 4) == 0
    assert redundancy(0, 1) == 0


def test_the_shortest_path_is_chosen_by_averages_and_takes_what_its_links_take() -> None:
    ways = {"a": {"b": 1, "c": 5}, "b": {"a": 1, "c": 1}, "c": {"a": 5, "b": 1}}
    assert along(ways, "a", slow) == {"a": 0, "b": 10, "c": 20}


def test_both_halves_of_a_cut_are_connected() -> None:
    for whole in (square(5), graph(*((f"{n}", f"{n + 1}") for n in range(9))), graph(("a", "b"))):
        near = whole.neighbours()
        sides = halves(whole, whole.nodes)
        assert sides[0] | sides[1] == set(whole.nodes)
        assert not sides[0] & sides[1]
        assert abs(len(sides[0]) - len(sides[1])) <= len(whole.nodes) / 3
        for side in sides:
            seen, due = {min(side)}, [min(side)]
            for node in due:
                new = set(near[node]) & side - seen
                seen |= new
                due += new
            assert seen == side


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_posts_reach_all_who_subscribe_once_and_soon(share: float) -> None:
    report = simulate(square(5), posts=10, share=share, quiet_s=30)
    assert report["subscribers"] == round(25 * share)
    assert report["reached_ratio"] == 1
    assert report["flooding_redundancy"] == pytest.approx(4 / 3, abs=1e-4), "2 * 40 - 24 for 24"
    assert report["redundancy"] <= 0.05
    assert report["last_delivery_ratio"] <= 1.5
    assert report["twice"] == 0
    assert 0 < report["control_bytes_per_post_and_node"] < 500
    assert sum(report["halves"]) == 25
    assert report["cut_links"] > 0
    assert report["cut_posts"] == 80
    assert (report["cut_reached_ratio"], report["heal_reached_ratio"], report["heal_twice"]) == (1, 1, 0)
    assert report["heal_rounds"] > 0, "so many posts are compared first"
    assert report["heal_ms"] < 1_000


def test_lossy_links_are_compared_with_lossy_links() -> None:
    whole = square(4)
    lossy = Graph(whole.nodes, tuple(Edge(edge.one, edge.other, 20, 0.3) for edge in whole.edges))
    report = simulate(lossy, posts=10, quiet_s=10)
    assert (report["reached_ratio"], report["redundancy"], report["twice"]) == (1, 0, 0)
    assert report["shortest_path_ms"] > simulate(whole, posts=1, quiet_s=1)["shortest_path_ms"]


def test_what_heals_a_partition_does_not_meet_itself_on_a_link() -> None:
    # Links of different lengths that lose packets: posts overtake the news of the ways to their authors.
    whole, rng = square(6), random.Random(5)
    edges = (Edge(edge.one, edge.other, rng.choice((4, 30)), rng.choice((0, 0.3))) for edge in whole.edges)
    report = simulate(Graph(whole.nodes, tuple(edges)), seed=5, posts=1, quiet_s=1)
    assert (report["heal_reached_ratio"], report["heal_twice"]) == (1, 0)


def test_a_link_that_loses_packets_is_not_asked_again_and_again_after_a_partition() -> None:
    # It was 8 and 14 round trips when each link began to offer with two posts, however many it had carried.
    ends = tuple(map(str, range(6)))
    line = tuple(Edge(one, other, 4) for one, other in pairwise(ends[:-1]))
    for seed in (1, 2):
        report = simulate(Graph(ends, (*line, Edge("4", "5", 4, 0.95))), seed=seed, posts=1, quiet_s=1)
        assert (report["heal_reached_ratio"], report["heal_twice"]) == (1, 0)
        assert report["heal_round_trips"] < 6


def test_the_same_seed_is_the_same_run() -> None:
    first, second = (simulate(square(3), seed=7, posts=3, quiet_s=5) for _ in range(2))
    assert first == second


def test_pieces_that_are_not_connected_are_apart() -> None:
    report = simulate(graph(("a", "b"), ("b", "c"), ("x", "y"), alone=("z",)), posts=6, quiet_s=5)
    assert report["reached_ratio"] == 1
    assert sum(report["halves"]) == 3, "the largest piece is cut"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"subscribers": "0"}, "a share above 0"),
        ({"subscribers": "1.5"}, "a share above 0"),
        ({"subscribers": "nan"}, "a share above 0"),
        ({"subscribers": "some"}, "a share above 0"),
        ({"posts": 0}, "--posts is from 1"),
        ({"posts": 501}, "--posts is from 1"),
        ({"window": 0}, "--window is from 1 second"),
        ({"pairs": 5}, "--pairs means nothing to qpc sim topology --channel"),
    ],
)
def test_what_cannot_be_simulated_says_why(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    file = written(tmp_path / "graph", [{"from": 1, "to": 2}])
    with pytest.raises(LocalError, match=says):
        command({"kind": "topology", "file": str(file), "channel": True, **options}, as_json=True)


def test_nobody_to_write_to_is_said(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="no two subscribers are connected"):
        simulate(graph(alone=("a", "b")))


def test_the_command_answers_in_json_and_in_words(tmp_path: Path) -> None:
    file = str(written(tmp_path / "graph", [{"from": n, "to": n + 1} for n in range(4)]))
    asked = {"kind": "topology", "file": file, "channel": True, "posts": 3, "window": 5, "subscribers": "0.6"}
    report = json.loads(command(asked, as_json=True))
    assert (report["nodes"], report["subscribers"], report["posts"]) == (5, 3, 3)
    words = command(asked, as_json=False)
    assert words == text(report)
    assert "100.00% of the subscribers" in words
    with pytest.raises(LocalError, match="--posts means nothing to qpc sim topology"):
        command({"kind": "topology", "file": file, "posts": 3}, as_json=True)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_a_real_community_is_reached_once_and_soon(share: float) -> None:
    report = simulate(community("leipzig"), posts=20, share=share, quiet_s=10)
    assert report["reached_ratio"] == 1
    assert report["flooding_redundancy"] == pytest.approx(1.95, abs=0.01), "as published"
    assert report["redundancy"] <= 0.05
    assert report["last_delivery_ratio"] <= 1.5
    assert (report["heal_reached_ratio"], report["twice"], report["heal_twice"]) == (1, 0, 0)
