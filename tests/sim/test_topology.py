"""Graphs: reading them, and what the simulator says of networks whose answer is known."""

from __future__ import annotations

import gzip
import io
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from quicprochat.core.errors import LocalError
from quicprochat.core.route_table import Table
from quicprochat.sim.graph import Edge, Graph, read_graph, shortest
from quicprochat.sim.plot import radial
from quicprochat.sim.progress import Progress
from quicprochat.sim.topology import Topology, components, diameter, middle, run, simulate, text

DATA = Path(os.environ.get("QPC_TEST_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data"))
KEYS = {
    "nodes", "links", "delivered_ratio", "reachable_ratio", "convergence_s", "stretch", "loops",
    "control_bytes_per_node_s",
}  # fmt: skip


def graph(*links: tuple[str, str], alone: tuple[str, ...] = ()) -> Graph:
    nodes = dict.fromkeys([*(end for link in links for end in link), *alone])
    return Graph(tuple(nodes), tuple(Edge(*link) for link in links))


def square(side: int) -> Graph:
    steps = [(x, y, x + dx, y + dy) for x in range(side) for y in range(side) for dx, dy in ((1, 0), (0, 1))]
    return graph(*((f"{x},{y}", f"{u},{v}") for x, y, u, v in steps if max(u, v) < side))


def community(name: str) -> Graph:
    path = DATA / f"freifunk-{name}.json"
    if not path.is_file():
        pytest.skip(f"the graphs of real networks are not here ({path})")
    return read_graph(path)


# --- files


def written(path: Path, found: Any, *, packed: bool = False) -> Path:
    data = json.dumps(found).encode()
    path.write_bytes(gzip.compress(data) if packed else data)
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "found",
    [
        {"nodes": [{"id": 7}, {"id": "x"}], "links": [{"source": "7", "target": 8}]},
        {"nodes": [{"id": "x"}], "links": [{"from": 7, "to": "8", "type": "fibre"}]},
        {"links": [{"from": 7, "to": 8}, {"from": "x", "to": "x"}]},
        [{"from": 7, "to": 8}, {"from": "x", "to": "x"}, {"from": 8, "to": 7, "source_tq": 0.5}],
    ],
)
def test_every_format_is_the_same_graph(tmp_path: Path, found: Any, packed: bool) -> None:
    read = read_graph(written(tmp_path / "graph", found, packed=packed))
    assert sorted(read.nodes) == ["7", "8", "x"]
    assert [(edge.one, edge.other, edge.loss) for edge in read.edges] == [("7", "8", 0.0)]


def test_quality_is_loss_and_an_end_that_says_nothing_takes_the_other_s(tmp_path: Path) -> None:
    ends = [(1, 1), (0.25, 1), (0, 0.5), (0.5, 0), (0, 0), (0.001, 0.001)]
    links = [{"from": 0, "to": n + 1, "source_tq": a, "target_tq": b} for n, (a, b) in enumerate(ends)]
    read = read_graph(written(tmp_path / "graph", [*links, {"from": 0, "to": 9, "type": "vpn"}]))
    assert [round(edge.loss, 3) for edge in read.edges] == [0, 0.5, 0.5, 0.5, 0, 0.95, 0]
    assert read.noted["silent_ends"] == 3
    assert read.edges[-1].rtt_ms > read.edges[0].rtt_ms


@pytest.mark.parametrize(
    "found",
    [
        {}, [], 5, {"links": {}}, {"links": [5]}, {"links": [], "nodes": 5}, [{"from": 1}], [{"from": 1, "to": None}],
        [{"from": 1, "to": True}], [{"from": 1, "to": 2, "source_tq": 2}], [{"from": 1, "to": 2, "source_tq": "1"}],
        [{"from": 0, "to": n} for n in range(20_001)],
    ],
)  # fmt: skip
def test_what_is_no_graph_says_why(tmp_path: Path, found: Any) -> None:
    with pytest.raises(LocalError, match="is no graph"):
        read_graph(written(tmp_path / "graph", found))


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "graph"
    for wrong in (path, tmp_path, Path("no\x00file")):
        with pytest.raises(LocalError, match="cannot read"):
            read_graph(wrong)
    for data in (gzip.compress(b"[]")[:-4], b"\x1f\x8bxx"):
        path.write_bytes(data)
        with pytest.raises(LocalError, match="damaged gzip"):
            read_graph(path)
    for data in (b"", b" \n", gzip.compress(b"")):
        path.write_bytes(data)
        with pytest.raises(LocalError, match="is empty"):
            read_graph(path)
    for data in (b"\xff\xfe", b"[" * 100_000, b"{"):
        path.write_bytes(data)
        with pytest.raises(LocalError, match="it is not JSON"):
            read_graph(path)
    monkeypatch.setattr("quicprochat.sim.files.FILE_MAX_BYTES", 1_000)
    path.write_bytes(gzip.compress(b"1" * 1_001))
    with pytest.raises(LocalError, match="more than"):
        read_graph(path)


def test_known_distances() -> None:
    assert shortest({"a": {"b": 1, "c": 9}, "b": {"c": 2}, "c": {}, "d": {}}, "a") == {"a": 0, "b": 1, "c": 3}
    assert diameter(square(7)) == 12
    assert diameter(graph()) == 0
    assert sorted(map(len, components(graph(("a", "b"), alone=("c",))))) == [1, 2]


# --- reports


def test_a_grid_finds_itself_in_less_than_a_second() -> None:
    report = simulate(square(7))
    assert report.keys() >= KEYS
    assert (report["nodes"], report["links"]) == (49, 84)
    assert (report["delivered_ratio"], report["reachable_ratio"], report["stretch"], report["loops"]) == (1, 1, 1, 0)
    assert 0.05 <= report["convergence_s"] <= 1.0
    assert 1 <= report["control_bytes_per_node_s"] <= 10
    assert report["control_window_s"] == 3_600
    assert report["signatures"] >= 2 * 49


def test_the_same_seed_is_the_same_run(tmp_path: Path) -> None:
    lossy = Graph(square(3).nodes, tuple(Edge(e.one, e.other, 10, 0.3) for e in square(3).edges))
    assert simulate(lossy, seed=5, pairs=20) == simulate(lossy, seed=5, pairs=20)
    assert simulate(lossy, seed=5, pairs=20) != simulate(lossy, seed=6, pairs=20)


def test_pieces_reach_themselves_only() -> None:
    report = simulate(graph(("a", "b"), ("b", "c"), ("d", "e"), alone=("f",)), pairs=300)
    assert report["delivered_ratio"] == report["reachable_ratio"]
    assert 0.15 < report["reachable_ratio"] < 0.4
    assert simulate(graph(alone=("a",)))["pairs"] == 0


def test_what_is_cut_is_gone_and_the_rest_is_right_again() -> None:
    ring = graph(*((f"n{n}", f"n{(n + 1) % 12}") for n in range(12)))
    report = simulate(ring, cut="n3", pairs=200)
    assert report["cut_delivered_ratio"] == report["cut_reachable_ratio"] == report["cut_stretch"] == 1
    assert report["diameter_left"] == 10
    assert report["reconvergence_s"] <= 0.4 * report["diameter_left"]
    assert report["loops"] == 0
    bridge = simulate(graph(("a", "b"), ("b", "c"), ("c", "d")), cut="b", pairs=200)
    assert bridge["cut_delivered_ratio"] == bridge["cut_reachable_ratio"] < 1


def test_loops_and_wrong_ways_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulator without the rule that forbids loops, and without the one that takes the nearest."""
    monkeypatch.setattr(Table, "feasible", lambda self, number, neighbour: True)
    ring = graph(*((f"n{n}", f"n{(n + 1) % 6}") for n in range(6)), ("n0", "leaf"), ("leaf", "twig"))
    assert simulate(ring, cut="leaf", pairs=10)["loops"] > 0
    monkeypatch.undo()
    plain = Table.through

    def longest(self: Table, number: int, neighbour: Any) -> int:
        found = plain(self, number, neighbour)
        return found + (5_000 << 16) if neighbour.key == min(self.links) else found

    monkeypatch.setattr(Table, "through", longest)
    assert simulate(square(4), pairs=50)["stretch"] > 1


def test_a_report_for_a_person() -> None:
    shown = text(simulate(square(3), cut="1,1", pairs=10))
    assert "100.00%" in shown
    assert "right again after" in shown
    assert "1.000 times the cheapest" in shown
    assert "then cut" not in text(simulate(square(3), pairs=10))


def test_a_node_that_is_not_there_cannot_be_cut(tmp_path: Path) -> None:
    path = written(tmp_path / "graph", [{"from": 1, "to": 2}])
    with pytest.raises(LocalError) as refused:
        run(str(path), {"cut": "3"})
    assert refused.value.code == "not_found"
    assert run(str(path), {"cut": "2", "pairs": 5})["cut_reachable_ratio"] == 1


def test_progress_is_shown_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown, silent = Terminal(), io.StringIO()
    for stream in (shown, silent):
        monkeypatch.setattr(sys, "stderr", stream)
        progress = Progress("routes")
        progress.at(0.5, "half")
        progress.at(7)
        progress.end()
    assert "routes [###############...............] half" in shown.getvalue()
    assert shown.getvalue().endswith("\r")
    assert silent.getvalue() == ""
    monkeypatch.setattr(sys, "stderr", None)
    Progress("routes").at(0.5)


# --- real networks


def test_leipzig_is_whole_shortest_and_quiet() -> None:
    report = simulate(community("leipzig"), cut="45")
    assert (report["nodes"], report["links"]) == (210, 413)
    assert (report["delivered_ratio"], report["stretch_max"], report["loops"]) == (1, 1, 0)
    assert report["convergence_s"] <= 5
    assert report["control_bytes_per_node_s"] < 470
    assert report["cut_delivered_ratio"] == report["cut_reachable_ratio"]
    assert report["reconvergence_s"] <= 0.4 * report["diameter_left"]


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_berlin_falls_into_its_pieces_without_a_loop() -> None:
    report = simulate(community("berlin"), cut="ic-0")
    assert (report["delivered_ratio"], report["stretch_max"], report["loops"]) == (1, 1, 0)
    assert report["cut_delivered_ratio"] == report["cut_reachable_ratio"] < 0.5
    assert report["loops"] == 0


@pytest.mark.soak
@pytest.mark.timeout(1_800)
def test_munich_finds_itself() -> None:
    report = simulate(community("munich"), cut="ic-0")
    assert (report["delivered_ratio"], report["stretch_max"], report["loops"]) == (1, 1, 0)
    assert report["cut_delivered_ratio"] == report["cut_reachable_ratio"] < 0.2


def test_a_node_that_comes_back_is_found_again() -> None:
    world = Topology(square(4), 1, 50)
    world.start()
    world.settle(world.pairs, Progress("test"))
    mesh = world.mesh
    node = mesh.names["1,1"]
    for other in mesh.stations[node].links:
        mesh.down(node, other)
    mesh.run(mesh.now + 10_000)
    assert world.delivered([("1,1", "3,3")]) == 0
    for other in mesh.stations[node].links:
        mesh.up(node, other)
    mesh.run(mesh.now + 10_000)
    assert world.delivered(world.pairs) == 1


def test_what_is_too_far_away_is_not_said_to_be_found() -> None:
    line = graph(*((f"n{n}", f"n{n + 1}") for n in range(70)))
    report = simulate(line, pairs=200, window_s=1)
    assert report["delivered_ratio"] < report["reachable_ratio"] == 1
    assert report["convergence_s"] is None
    assert "not all" in text(report)


@pytest.mark.parametrize(
    "options", [{"pairs": 1_000_001}, {"window": 0}, {"window": 86_401}, {"plot": "a.xyz"}, {"plot": "no/such/a.png"}]
)
def test_what_cannot_be_run_is_refused_before_the_file_is_read(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(LocalError) as refused:
        run(str(tmp_path / "missing"), options)
    assert "missing" not in str(refused.value)


def test_the_network_and_its_routes_are_drawn(tmp_path: Path) -> None:
    path = written(tmp_path / "graph", [{"from": n, "to": (n + 1) % 7} for n in range(7)] + [{"from": 8, "to": 9}])
    for name, options in (("plain.png", {}), ("cut.png", {"cut": "3"}), ("plain.svg", {})):
        picture = tmp_path / name
        report = run(str(path), {"plot": str(picture), "window": 5, **options})
        assert report["control_window_s"] == 5
        data = picture.read_bytes()
        assert data.startswith(b"\x89PNG\r\n" if name.endswith("png") else b"<?xml")
        assert 10_000 < len(data) < 1_000_000
    assert (tmp_path / "plain.png").read_bytes() != (tmp_path / "cut.png").read_bytes()


def test_a_tree_is_laid_out_in_rings_without_crossings() -> None:
    places = radial("rabcdx", "r", {"a": "r", "b": "r", "c": "a", "d": "a"})
    assert {name: round(math.hypot(*place)) for name, place in places.items()} == {
        "r": 0, "a": 1, "b": 1, "c": 2, "d": 2, "x": 3,
    }  # fmt: skip
    turns = [math.atan2(*places[name][::-1]) % (2 * math.pi) for name in "bcd"]
    assert turns == sorted(turns)
    assert len({(round(x, 6), round(y, 6)) for x, y in places.values()}) == 6


def test_the_middle_is_near_to_all() -> None:
    assert middle(graph(*((f"n{n}", f"n{n + 1}") for n in range(8)), alone=("z",))) == "n4"


def test_next_hops_towards_a_node_and_what_their_paths_cost() -> None:
    world = Topology(graph(("a", "b"), ("b", "c"), ("c", "d"), alone=("e",)), 1, 10)
    world.start()
    world.settle(world.pairs, Progress("test"))
    costs, parents = world.towards("b")
    assert parents == {"a": "b", "c": "b", "d": "c"}
    assert costs == {"b": 0, "a": costs["c"], "c": costs["c"], "d": 2 * costs["c"]}
