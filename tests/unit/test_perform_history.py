"""What counts as read when a history is written out: what was written, no more and no less."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from quicprochat.client.grammar import Request
from quicprochat.client.perform import READ_AT_ONCE, Performer
from quicprochat.client.socket import Hello

Json = dict[str, Any]


def post(cursor: int, *, own: bool = False) -> Json:
    return {"event": "post", "cursor": cursor, "from": "ab" * 32, "own": own}


GAP: Json = {"event": "gap", "from": "ab" * 32, "first": 2, "last": 3, "open": True}


class Home:
    """Stands for a session: its history is the test's, and it remembers what it was told of."""

    def __init__(self, *lines: Json) -> None:
        self.lines = lines
        self.read: list[list[int]] = []
        self.hello = Hello("0", networked=True, stays=True)

    def stream(self, command: str, args: Json) -> Home:
        assert (command, args) == ("history", {"topic": "news"})
        return self

    async def __aenter__(self) -> Home:
        self._left = list(self.lines)
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def __aiter__(self) -> Home:
        return self

    async def __anext__(self) -> Json:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop(0)

    async def ask(self, command: str, args: Json) -> Json:
        assert command == "read"
        self.read.append(list(args["cursors"]))
        return {}


class Out:
    """Takes so many lines, then its reader goes away."""

    encoding = "utf-8"

    def __init__(self, most: int = 10_000) -> None:
        self.most = most
        self.lines: list[Json] = []

    async def write(self, text: str) -> None:
        if len(self.lines) == self.most:
            raise BrokenPipeError
        self.lines.append(json.loads(text))


def perform(home: Home, out: Out) -> None:
    performer = Performer(home, out, as_json=True)  # type: ignore[arg-type]
    asyncio.run(performer.perform(Request("history", {"topic": "news"}, mesh=True)))


def test_others_posts_that_were_written_count_as_read() -> None:
    home, out = Home(post(5), GAP, post(3), post(4, own=True)), Out()
    perform(home, out)
    assert out.lines == [post(5), GAP, post(3), post(4, own=True)]
    assert home.read == [[5, 3]]


def test_what_the_reader_did_not_take_stays_unread() -> None:
    home = Home(*map(post, range(1, 10)))
    with pytest.raises(BrokenPipeError):
        perform(home, Out(4))
    assert home.read == [[1, 2, 3, 4]]


def test_a_long_history_is_noted_in_parts() -> None:
    count = 2 * READ_AT_ONCE + 1
    home = Home(*map(post, range(1, count + 1)))
    perform(home, Out())
    assert [len(part) for part in home.read] == [READ_AT_ONCE, READ_AT_ONCE, 1]
    assert [cursor for part in home.read for cursor in part] == list(range(1, count + 1))


def test_what_the_homes_next_owner_tells_again_is_written_once() -> None:
    other_gap = {**GAP, "first": 7, "last": 7}
    home, out = Home(post(1), GAP, post(2), post(1), GAP, post(2), other_gap, post(3)), Out()
    perform(home, out)
    assert out.lines == [post(1), GAP, post(2), other_gap, post(3)]
    assert home.read == [[1, 2, 3]]


def test_nothing_is_noted_of_an_empty_history(capsys: pytest.CaptureFixture[str]) -> None:
    home = Home()
    perform(home, Out())
    assert home.read == []
    assert capsys.readouterr().err == ""
