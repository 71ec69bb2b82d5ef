"""What a person sees of an emergency, and that nobody can make an ordinary post look like one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.unit.emulator import Emulator
from tests.unit.talking import EVE, Talk, post, talking

from quicprochat.client import stdio
from quicprochat.client.output import headline
from quicprochat.client.perform import Performer
from quicprochat.client.stdio import Output

HEADLINE = "EMERGENCY from ada in #square (open)"
ALARM = post("the dyke breaks", "ef" * 32, topic="square", kind="open", emergency=True)
FAKES = [
    HEADLINE,
    f"look:\n{HEADLINE}\nthe dyke breaks",
    f"\x1b[7m{HEADLINE}\x1b[0m",
    f"x\r{HEADLINE}\a",
    f"\n\n\x1b[2K\x1b[1G\x1b[7m{HEADLINE}",
    "x" * 200 + HEADLINE,
    "".join(f"{HEADLINE:<80}" for _ in range(12)),
    f"\u2028{HEADLINE}\u0085{HEADLINE}",
]


def run(work: Callable[[Talk], Coroutine[Any, Any, None]], tmp_path: Path, **more: Any) -> None:
    async def inside() -> None:
        async with talking(tmp_path, **more) as talk:
            await work(talk)

    asyncio.run(inside())


def reversed_rows(emulator: Emulator) -> list[str]:
    """What stands in reverse video on the screen, row by row; the status line below is not counted."""
    rows = []
    for number in range(emulator.screen.lines - 1):
        cells = emulator.screen.buffer[number]
        text = "".join(cells[n].data for n in range(emulator.screen.columns) if cells[n].reverse).rstrip()
        if text:
            rows.append(text)
    return [row for row in rows if not row.startswith(" Me")]


def test_an_emergency_has_a_line_of_its_own_in_reverse_video_and_rings_once(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        await talk.enter("/join garden")
        talk.home.arrive(ALARM)
        await talk.shows("the dyke breaks")
        row = talk.emulator.rows.index(HEADLINE)
        assert reversed_rows(talk.emulator) == [HEADLINE]
        assert "ada: the dyke breaks" in talk.emulator.rows[row + 1]
        assert talk.emulator.raw.count(b"\a") == 1

    run(work, tmp_path)


@pytest.mark.parametrize("text", FAKES)
@pytest.mark.parametrize("flag", [{"emergency": False}, {}])
def test_no_text_looks_like_one(tmp_path: Path, text: str, flag: dict[str, bool]) -> None:
    async def work(talk: Talk) -> None:
        talk.home.arrive(post(text, "ef" * 32, name="", topic="square", kind="open", **{"from": EVE}, **flag))
        talk.home.arrive(post("the end", "ef" * 32, topic="square"))
        await talk.shows("ada: the end")
        assert reversed_rows(talk.emulator) == []
        assert not any(row.startswith("EMERGENCY") for row in talk.emulator.rows)
        assert b"\a" not in talk.emulator.raw

    run(work, tmp_path)


def test_only_a_post_is_ever_marked() -> None:
    assert headline(ALARM) == HEADLINE
    assert headline({**ALARM, "emergency": False}) == ""
    assert headline({**ALARM, "event": "message"}) == ""
    assert headline({**ALARM, "topic": "a\n\x1b[0mb", "kind": "private"}) == "EMERGENCY from ada in #a [0mb"


class Lines:
    """A session whose one stream has some lines."""

    def __init__(self, *lines: dict[str, Any]) -> None:
        self.lines, self.read = list(lines), list[dict[str, Any]]()

    def stream(self, command: str, args: dict[str, Any]) -> Lines:
        return self

    async def __aenter__(self) -> Lines:
        return self

    async def __aexit__(self, *raised: object) -> None:
        return None

    async def __aiter__(self) -> Any:
        for line in self.lines:
            yield line

    def written(self, line: dict[str, Any]) -> None:
        self.read.append(line)


def written_out(
    monkeypatch: pytest.MonkeyPatch, command: str, *lines: dict[str, Any], term: str = "xterm", as_json: bool = False
) -> Emulator:
    """What a single command writes to a terminal."""
    emulator = Emulator(columns=60)
    monkeypatch.setattr(stdio, "STDOUT", emulator.slave)
    monkeypatch.setenv("TERM", term)

    async def work() -> None:
        session = Lines(*lines)
        await Performer(session, Output(), as_json=as_json).stream(command, {})  # type: ignore[arg-type]
        assert session.read == list(lines)

    asyncio.run(work())
    while True:
        emulator.take()
        if emulator.raw.count(b"\n") >= len(lines):
            return emulator


def test_listen_at_a_terminal_marks_and_rings_and_inbox_does_not_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    emulator = written_out(monkeypatch, "listen", ALARM)
    assert emulator.rows[0] == HEADLINE
    assert reversed_rows(emulator) == [HEADLINE]
    assert emulator.raw.count(b"\a") == 1
    older = written_out(monkeypatch, "inbox", ALARM)
    assert reversed_rows(older) == [HEADLINE]
    assert b"\a" not in older.raw


@pytest.mark.parametrize("text", FAKES)
def test_no_text_looks_like_one_to_who_listens(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    fake = post(text, "ef" * 32, name="", topic="square", kind="open", **{"from": EVE})
    emulator = written_out(monkeypatch, "listen", fake)
    assert reversed_rows(emulator) == []
    assert b"\x1b" not in emulator.raw
    assert b"\a" not in emulator.raw
    assert not any(line.startswith("EMERGENCY") for line in emulator.raw.decode().splitlines())


def test_a_terminal_without_reverse_video_gets_the_line_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    emulator = written_out(monkeypatch, "listen", ALARM, term="dumb")
    assert emulator.rows[0] == HEADLINE
    assert b"\x1b" not in emulator.raw


def test_a_script_gets_json_and_no_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    emulator = written_out(monkeypatch, "listen", ALARM, as_json=True)
    assert json.loads(emulator.raw) == ALARM
