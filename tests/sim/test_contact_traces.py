"""Carrying on contact traces: small ones made up here, and the published figures where the data is at hand."""

from __future__ import annotations

import gzip
import json
import os
from functools import lru_cache
from pathlib import Path

import pytest

from quicprochat.cli import main
from quicprochat.core.errors import LocalError
from quicprochat.sim.contacts import Trace, Written, parse_trace, read_trace, workload
from quicprochat.sim.oracle import oracle
from quicprochat.sim.outcome import Outcome
from quicprochat.sim.routers import Direct, Epidemic, Prophet, Router, Spray, play
from quicprochat.sim.trace import simulate

DATA = Path(os.environ.get("QPC_TEST_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
FILES = {
    "hospital": "sociopatterns-hospital-lyon-2010.tsv.gz",
    "school": "sociopatterns-primaryschool-2009.tsv.gz",
    "workplace": "sociopatterns-workplace-invs13.dat",
}
DAY_S = 86_400

WALK = b"""\
20 1 2
40 2 3
60 3 4 ward ward
80 1 4
"""
"""1 meets 2, 2 meets 3, 3 meets 4, 1 meets 4."""


def a_crowd(nodes: int = 30, steps: int = 300) -> Trace:
    """People who meet by a fixed rule: at each step some neighbours on a ring that turns."""
    rows = []
    for step in range(steps):
        near = [n for n in range(nodes) if (n * 7 + step * 3) % 11 == 0]
        rows += [f"{20 * (step + 1)} {n} {(n + 1 + step // 40) % nodes}" for n in near]
    return parse_trace("\n".join(rows).encode(), "crowd")


def run(
    trace: Trace, count: int = 60, ttl_s: int = 2_000, *, bytes_per_s: int | None = None, store: int | None = None
) -> tuple[Outcome, Outcome]:
    messages = workload(trace, count, ttl_s)
    carried = simulate(trace, messages, ttl_s, bytes_per_s=bytes_per_s, store=store)
    return carried, oracle(trace, messages, ttl_s)


# --- reading


def test_a_trace_is_read_plain_and_packed(tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    plain.write_bytes(WALK)
    packed.write_bytes(gzip.compress(WALK))
    trace = read_trace(plain)
    assert trace == read_trace(packed)
    assert trace.ids == (1, 2, 3, 4)
    assert [(interval.start, interval.pairs) for interval in trace.intervals] == [
        (0, ((0, 1),)), (20, ((1, 2),)), (40, ((2, 3),)), (60, ((0, 3),)),
    ]  # fmt: skip
    assert (trace.begin, trace.end, trace.encounters) == (0, 80, 4)


def test_consecutive_intervals_are_one_encounter() -> None:
    assert parse_trace(b"20 1 2\n40 2 1\n80 1 2\n80 2 1\n", "t").encounters == 2


@pytest.mark.parametrize("text", [b"", b"# nothing\n", b"20 1\n", b"x 1 2\n", b"20 1 1\n", b"\xff\xfe\n"])
def test_what_is_no_trace_is_refused_in_one_sentence(text: bytes) -> None:
    with pytest.raises(LocalError) as refused:
        parse_trace(text, "t")
    assert "\n" not in str(refused.value)


def test_a_damaged_gzip_file_is_refused(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.write_bytes(gzip.compress(WALK * 100)[:-12])
    with pytest.raises(LocalError, match="damaged"):
        read_trace(damaged)


def test_a_lifetime_longer_than_the_trace_is_refused() -> None:
    with pytest.raises(LocalError, match="shorter --ttl"):
        workload(parse_trace(WALK, "walk"), 1, 80)


# --- carrying


def test_a_message_goes_from_pocket_to_pocket() -> None:
    trace = parse_trace(WALK, "walk")
    messages = (Written(0, 0, 3, 5), Written(1, 3, 0, 5), Written(2, 0, 3, 25))
    for outcome in (simulate(trace, messages, 79), oracle(trace, messages, 79)):
        assert outcome.delays == {0: 35, 1: 55, 2: 35}
    carried = simulate(trace, messages, 79)
    assert carried.duplicates == 0
    assert simulate(trace, messages, 34).delays == {}


def test_a_message_crosses_all_who_are_connected_in_one_interval() -> None:
    line = "\n".join(f"20 {n} {n + 1}" for n in range(20)).encode()
    trace = parse_trace(line, "line")
    outcome = simulate(trace, (Written(0, 0, 20, 0), Written(1, 20, 0, 7)), 19)
    assert outcome.delays == {0: 0, 1: 0}
    assert outcome.copies == 40


def test_carrying_without_limits_is_as_good_as_the_oracle() -> None:
    carried, best = run(a_crowd(), ttl_s=300)
    assert 0 < best.ratio() < 1
    assert carried.delays == best.delays
    assert carried.copies <= best.copies
    assert carried.duplicates == 0


def test_the_same_trace_gives_the_same_run() -> None:
    runs = [run(a_crowd(), bytes_per_s=200, store=5)[0] for _ in range(2)]
    assert runs[0].delays == runs[1].delays
    assert (runs[0].copies, runs[0].control_bytes) == (runs[1].copies, runs[1].control_bytes)


def test_limits_cost_deliveries_and_are_kept() -> None:
    free = run(a_crowd())[0]
    narrow = run(a_crowd(), bytes_per_s=60)[0]
    assert len(narrow.delays) < len(free.delays)
    trace = a_crowd()
    sent = narrow.control_bytes + 775 * (narrow.copies + narrow.late_copies)
    assert sent <= 60 * 20 * sum(len(interval.pairs) for interval in trace.intervals)


def test_a_cure_saves_copies() -> None:
    carried = run(a_crowd())[0]
    uncured = simulate_flooding(a_crowd())
    assert carried.late_copies < uncured


def simulate_flooding(trace: Trace) -> int:
    """Copies that flooding would make after delivery: everybody gets everything."""
    messages = workload(trace, 60, 2_000)
    reached = 0
    for message in messages:
        others = tuple(Written(n, message.src, n, message.created) for n in range(len(trace.ids)) if n != message.src)
        reached += len(oracle(trace, others, 2_000).delays)
    return reached - oracle(trace, messages, 2_000).copies


# --- figures published with the data


@lru_cache(8)
def published(name: str) -> tuple[Trace, tuple[Written, ...]]:
    path = DATA / FILES[name]
    if not path.is_file():
        pytest.skip(f"{path.name} is not here; its licence keeps it out of the project")
    trace = read_trace(path)
    return trace, workload(trace, 1_000, DAY_S)


HOURS = (1, 6, 24)


@pytest.mark.parametrize(
    ("name", "encounters", "first", "ratios", "median", "copies"),
    [
        ("hospital", 14_037, (1391, 1323, 1291618945), (0.048, 0.158, 0.429), 32_921, 20.9),
        ("school", 77_521, (1630, 1890, 1254390665), (0.362, 0.703, 0.984), 6_096, 122.3),
        ("workplace", 4_592, (22, 78, 5325), (0.002, 0.035, 0.215), 49_464, 15.0),
    ],
)
def test_the_oracle_reproduces_the_published_bounds(
    name: str, encounters: int, first: tuple[int, int, int], ratios: tuple[float, ...], median: int, copies: float
) -> None:
    trace, messages = published(name)
    assert trace.encounters == encounters
    assert (trace.ids[messages[0].src], trace.ids[messages[0].dst], messages[0].created) == first
    best = oracle(trace, messages, DAY_S)
    assert tuple(best.ratio(hours * 3_600) for hours in HOURS) == ratios
    assert best.median_delay_s == median
    assert best.copies_per_message == pytest.approx(copies, rel=0.02)


@pytest.mark.parametrize(
    ("name", "router", "ratios"),
    [
        ("hospital", "prophet", (0.040, 0.142, 0.405)),
        ("hospital", "spray", (0.040, 0.144, 0.394)),
        ("hospital", "direct", (0.014, 0.051, 0.174)),
        ("hospital", "epidemic", (0.048, 0.158, 0.429)),
        ("workplace", "prophet", (0.001, 0.018, 0.118)),
        ("workplace", "spray", (0.001, 0.020, 0.100)),
        ("workplace", "direct", (0.001, 0.004, 0.028)),
    ],
)
def test_the_comparison_routers_reproduce_theirs(name: str, router: str, ratios: tuple[float, ...]) -> None:
    trace, messages = published(name)
    made: dict[str, Router] = {
        "prophet": Prophet(len(trace.ids)), "spray": Spray(8), "direct": Direct(), "epidemic": Epidemic(),
    }  # fmt: skip
    outcome = play(trace, messages, DAY_S, made[router])
    for hours, ratio in zip(HOURS, ratios, strict=True):
        assert outcome.ratio(hours * 3_600) == pytest.approx(ratio, abs=0.016), "the published standard error"


def test_carrying_reaches_the_oracle_at_the_workplace() -> None:
    trace, messages = published("workplace")
    carried, best = simulate(trace, messages, DAY_S), oracle(trace, messages, DAY_S)
    assert carried.ratio() >= 0.99 * best.ratio()
    assert carried.median_delay_s is not None
    assert best.median_delay_s is not None
    assert carried.median_delay_s <= 1.05 * best.median_delay_s
    assert carried.copies <= best.copies
    assert carried.duplicates == 0


@pytest.mark.parametrize(
    ("name", "bytes_per_s", "store"),
    [("workplace", 1_000, 20), ("workplace", 50, 5), ("hospital", 100, 5), ("hospital", 50, 5), ("hospital", 50, 20)],
)
def test_carrying_delivers_more_than_the_others_within_the_same_limits(name: str, bytes_per_s: int, store: int) -> None:
    """Though the others know for free what the other side has and what has arrived."""
    trace, messages = published(name)
    carried, *others = (
        simulate(trace, messages, DAY_S, router, bytes_per_s=bytes_per_s, store=store)
        for router in ("epidemic", "prophet", "spray", "direct")
    )
    assert carried.ratio() > max(other.ratio() for other in others)
    assert carried.duplicates == 0


@pytest.mark.parametrize("router", ["prophet", "spray"])
def test_what_routers_pay_for_their_vectors_comes_off_their_messages(router: str) -> None:
    trace = a_crowd()
    messages = workload(trace, 60, 2_000)
    free, paying = (simulate(trace, messages, 2_000, name, bytes_per_s=40) for name in (router, f"{router}-paying"))
    assert free.control_bytes == 0
    assert paying.control_bytes > 0
    assert len(paying.delays) < len(free.delays)
    sent = paying.control_bytes + 775 * (paying.copies + paying.late_copies)
    assert sent <= 40 * 20 * sum(len(interval.pairs) for interval in trace.intervals)


# --- the command


def test_the_command_reports(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "walk.tsv"
    path.write_bytes(WALK)
    arguments = ["sim", "trace", str(path), "--messages", "5", "--ttl", "60", "--json"]
    assert main(arguments) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["delivered_ratio"] == report["oracle_ratio"]
    assert {
        "median_delay_s", "oracle_median_delay_s", "copies_per_message", "duplicate_payloads", "control_bytes",
    } <= set(report)  # fmt: skip
    assert main([*arguments, "--seed", "7"]) == 0
    assert json.loads(capfd.readouterr().out)["seed"] == 7
    assert main([*arguments[:-1], "--router", "prophet"]) == 0
    assert "possible" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--pairs", "3"], "--pairs"),
        (["--router", "pigeon"], "--router"),
        (["--messages", "1000000"], "too many"),
        (["--ttl", "80"], "shorter"),
    ],
)
def test_what_means_nothing_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], word: str
) -> None:
    path = tmp_path / "walk.tsv"
    path.write_bytes(WALK)
    assert main(["sim", "trace", str(path), *options]) == 2
    said = capsys.readouterr()
    assert word in said.err
    assert said.out == ""


def test_plotting_without_matplotlib_says_so_before_anything_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    assert main(["sim", "trace", str(tmp_path / "missing"), "--plot", str(tmp_path / "out.png")]) == 2
    assert "pip install '.[plot]'" in capsys.readouterr().err


def test_deliveries_of_all_routers_are_drawn_and_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, picture = tmp_path / "walk.tsv", tmp_path / "out.png"
    path.write_bytes(WALK)
    arguments = ["sim", "trace", str(path), "--messages", "20", "--ttl", "60", "--against"]
    assert main([*arguments, "--plot", str(picture), "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert [one["router"] for one in report["against"]] == ["prophet", "spray", "direct"]
    assert all(one["delivered_ratio"] <= report["delivered_ratio"] for one in report["against"])
    assert picture.read_bytes().startswith(b"\x89PNG\r\n")
    assert 10_000 < picture.stat().st_size < 1_000_000
    assert main([*arguments, "--router", "spray"]) == 0
    assert "with epidemic" in capfd.readouterr().out
