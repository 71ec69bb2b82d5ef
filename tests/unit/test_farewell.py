"""Servers that were left: how long they are visited, and which."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.drivers import driven

from quicprochat.core.errors import UnavailableError
from quicprochat.core.time import Instant
from quicprochat.p2p import farewell
from quicprochat.p2p.farewell import AT_LEAST_MS, AT_MOST_MS, LEFT_KEY, LEFT_MAX, Farewells


class Street:
    """Servers that say, at each visit, whether they are empty; each round of visits moves the clock on."""

    def __init__(self, home: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.visits: list[str] = []
        self.empty: Callable[[str], bool] = lambda _: True
        self.step_ms = AT_LEAST_MS // 4
        self.farewells = Farewells(home.driver, self.make)
        monkeypatch.setattr(farewell, "VISIT_EVERY_S", 0)

    async def make(self, server: str) -> Any:
        async def once() -> bool:
            self.visits.append(server)
            self.home.clock.ms += self.step_ms
            return self.empty(server)

        return SimpleNamespace(once=once, id=1)

    async def move(self, old: str, new: str) -> None:
        now = Instant(self.home.clock.ms)
        await self.home.driver.call(lambda tx: self.farewells.note(tx, old, new, now))

    async def left(self) -> str:
        value: bytes | None = await self.home.driver.read(lambda tx: tx.value(LEFT_KEY))
        return (value or b"").decode()

    async def run(self) -> None:
        async with asyncio.timeout(20):
            await self.farewells.run()


def run(monkeypatch: pytest.MonkeyPatch, work: Callable[[Street], Awaitable[None]]) -> None:
    async def scenario() -> None:
        async with driven() as home:
            await work(Street(home, monkeypatch))

    asyncio.run(scenario())


def test_a_server_is_visited_for_a_day_and_then_until_it_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(street: Street) -> None:
        await street.move("old:1", "new:1")
        street.empty = lambda _: len(street.visits) >= 9
        await street.run()
        assert street.visits == ["old:1"] * 9
        assert await street.left() == ""

    run(monkeypatch, work)


def test_one_that_is_always_empty_is_left_alone_after_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(street: Street) -> None:
        await street.move("old:1", "new:1")
        await street.run()
        assert street.visits == ["old:1"] * 5  # at 0, 6, 12, 18 and 24 hours

    run(monkeypatch, work)


def test_one_that_never_answers_is_given_up_when_no_message_can_live_there(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(street: Street) -> None:
        def away(_: str) -> bool:
            raise UnavailableError("no way")

        street.empty, street.step_ms = away, AT_MOST_MS // 3
        await street.move("old:1", "new:1")
        await street.run()
        assert 3 <= len(street.visits) <= 5

    run(monkeypatch, work)


def test_who_goes_back_or_goes_without_leaves_nobody_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(street: Street) -> None:
        await street.move("a:1", "b:1")
        await street.move("b:1", "a:1")
        assert (await street.left()).split()[0] == "b:1"
        await street.move("a:1", "a:1")
        assert (await street.left()).split()[0] == "b:1"
        await street.move("a:1", "")
        assert await street.left() == ""
        await street.run()
        assert street.visits == []

    run(monkeypatch, work)


def test_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(street: Street) -> None:
        for n in range(LEFT_MAX + 3):
            await street.move(f"s{n}:1", f"s{n + 1}:1")
        assert [row.split()[0] for row in (await street.left()).splitlines()] == [
            f"s{n}:1" for n in range(3, LEFT_MAX + 3)
        ]

    run(monkeypatch, work)
