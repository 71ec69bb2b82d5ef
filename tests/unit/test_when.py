"""Moments as people type them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from quicprochat.client.grammar import parse, parse_line
from quicprochat.console.when import Ago, moment, read_when, written
from quicprochat.core.errors import LocalError
from quicprochat.core.time import WallTime

NOW = WallTime(1_800_000_000_000)
EVENING = WallTime(1_795_458_600_000)  # 2026-11-23T18:30:00Z


@pytest.fixture(autouse=True)
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A zone two hours ahead of UTC, whatever the machine's."""
    monkeypatch.setenv("TZ", "<+02>-2")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("90m", 5_400), ("3h", 10_800), ("2d", 172_800), ("1w", 604_800), ("1h30m", 5_400), ("0s", 0)],
)
def test_how_long_ago(text: str, seconds: int) -> None:
    assert read_when(text) == Ago(seconds)
    assert moment(text, NOW) == NOW - seconds * 1_000
    assert written(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23T18:30:00Z",
        "2026-11-23T18:30:00.000+00:00",
        "2026-11-23 20:30",
        "2026-11-23T20:30",
        "2026-11-23T13:30-05:00",
    ],
)
def test_a_date_and_a_time_here_or_in_a_zone(text: str) -> None:
    assert moment(text, NOW) == EVENING
    assert written(text) == "2026-11-23T18:30:00.000Z"


def test_a_date_begins_at_midnight_here() -> None:
    assert written("2026-11-23") == "2026-11-22T22:00:00.000Z"


def test_longer_ago_than_there_are_clocks_is_all() -> None:
    assert moment("999999w", NOW) == 0
    assert moment("1969-01-01", NOW) == 0
    assert written("1969-01-01") == "1970-01-01T00:00:00.001Z"  # rather than no time at all


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2", "d", "2x", "-2d", "1h1d", "2d ", "\u0662d", "2026-13-01", "2026-11-23Tnoon", "0001-01-01T",
     "2026-11-23T18:30:00Z\x1b", "9999999999s"],
)  # fmt: skip
def test_what_means_nothing_is_said_to(text: str) -> None:
    assert (moment(text, NOW), written(text)) == (None, None)


def test_since_takes_a_cursor_or_a_moment() -> None:
    def since(text: str) -> object:
        return parse(("mesh", "history", "news", "--since", text), {})[0].args["since"]

    assert since("17") == 17
    assert since("2d") == "2d"
    assert since("2026-11-23T20:30") == "2026-11-23T18:30:00.000Z"
    for wrong in ("yesterday", "1" * 19, "\u0663"):
        with pytest.raises(LocalError, match="cursor"):
            since(wrong)
    line = parse_line('/mesh history "two words" --since 2d --count 5')
    assert line is not None
    assert line.args == {"topic": "two words", "since": "2d", "count": 5}
