"""qpc sim as a process: what it prints, how it ends, and that it needs neither a home nor the mesh."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.integration.qpc import NO_EXTRA, run

from quicprochat.sim.command import simulate

SQUARE = [{"from": 1, "to": 2}, {"from": 2, "to": 3}, {"from": 3, "to": 4}, {"from": 4, "to": 1}]


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "square.json"
    path.write_text(json.dumps(SQUARE))
    return path


def test_a_graph_is_run_without_a_home_and_without_the_extra(graph: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = run(
        "sim", "topology", str(graph), "--pairs", "7", "--seed", "0", "--json", "--home", str(home), program=NO_EXTRA
    )
    assert (done.code, done.talk) == (0, "")
    report = done.json
    assert (report["nodes"], report["links"], report["pairs"], report["seed"]) == (4, 4, 7, 0)
    assert (report["delivered_ratio"], report["loops"]) == (1.0, 0)
    assert not home.exists()


def test_a_person_gets_a_report(graph: Path) -> None:
    done = run("sim", "topology", str(graph), "--cut", "3")
    assert done.code == 0
    assert "found each other after" in done.out
    assert "then cut" in done.out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("topology",), 2, "FILE is missing"),
        (("topologie", "x"), 2, "none of topology"),
        (("topology", "nowhere.json"), 2, "cannot read nowhere.json"),
        (("topology", __file__), 2, "is no graph"),
        (("topology", "GRAPH", "--cut", "9"), 5, "there is no node"),
        (("topology", "GRAPH", "--pairs", "0"), 2, "--pairs"),
        (("topology", "GRAPH", "--seed", "-1"), 2, "--seed"),
    ],
)
def test_what_cannot_be_run_says_why(graph: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = run("sim", *(str(graph) if word == "GRAPH" else word for word in arguments), "--json")
    assert (done.code, done.out) == (code, "")
    assert said in done.error["message"]


def test_an_option_of_another_simulation_is_refused(graph: Path) -> None:
    with pytest.raises(Exception, match="--ttl means nothing to qpc sim topology"):
        simulate({"kind": "topology", "file": str(graph), "ttl": 5}, as_json=True)
