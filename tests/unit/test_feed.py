"""The feed: every listener gets every line once and in order, however slow it is."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace

from tests.unit.drivers import driven

from quicprochat.core.ids import PeerKey, Uid
from quicprochat.core.store import Line, LineKind
from quicprochat.core.time import WallTime
from quicprochat.p2p.feed import BATCH, Feed


@asynccontextmanager
async def fed(before: int = 0) -> AsyncIterator[SimpleNamespace]:
    """A feed over a driven store that holds so many unread lines from earlier."""
    async with driven() as it:

        async def append(count: int, *, told: bool = True) -> None:
            for _ in range(count):
                line = Line(LineKind.MESSAGE, PeerKey(bytes(32)), Uid(os.urandom(16)), WallTime(0), text="x")
                cursor = await it.driver.call(lambda store, line=line: store.deliver(line))
                if told:
                    it.feed.take(replace(line, cursor=cursor))

        it.append = append
        await append(before, told=False)
        it.feed = Feed(it.driver, it.disk.newest_line())
        yield it


async def cursors(feed: Feed, count: int) -> list[int]:
    found: list[int] = []
    async with asyncio.timeout(10), aclosing(feed.listen()) as lines:
        async for line in lines:
            found.append(line.cursor)
            if len(found) == count:
                break
    return found


def test_unread_lines_come_first_and_then_the_new_ones() -> None:
    async def scenario() -> None:
        async with fed(before=BATCH + 3) as it:
            await it.driver.call(lambda store: store.mark_read([1, BATCH]))
            listening = asyncio.create_task(cursors(it.feed, BATCH + 3))
            await asyncio.sleep(0)
            await it.append(2)
            old = [n for n in range(1, BATCH + 4) if n not in (1, BATCH)]
            assert await listening == [*old, BATCH + 4, BATCH + 5]

    asyncio.run(scenario())


def test_line_another_listener_has_read_meanwhile_still_comes() -> None:
    async def scenario() -> None:
        async with fed() as it:
            listening = asyncio.create_task(cursors(it.feed, 1))
            await asyncio.sleep(0)
            await it.append(1)
            await it.driver.call(lambda store: store.mark_read([1]))
            assert await listening == [1]

    asyncio.run(scenario())


def test_listener_that_lags_behind_misses_nothing() -> None:
    async def scenario() -> None:
        async with fed() as it:
            async with aclosing(it.feed.listen()) as lines:
                first = asyncio.ensure_future(anext(lines))
                await asyncio.sleep(0)
                await it.append(1)
                assert (await first).cursor == 1
                await it.append(2 * BATCH + 7)  # far more than the feed keeps at hand
                found = [(await anext(lines)).cursor for _ in range(2 * BATCH + 7)]
            assert found == list(range(2, 2 * BATCH + 9))

    asyncio.run(scenario())


def test_lines_that_cannot_be_read_any_more_are_passed_over() -> None:
    async def scenario() -> None:
        async with fed() as it, aclosing(it.feed.listen()) as lines:
            first = asyncio.ensure_future(anext(lines))
            await asyncio.sleep(0)
            await it.append(1)
            assert (await first).cursor == 1
            await it.append(BATCH + 1)
            del it.disk._lines[2]  # the one line that is no longer at hand
            assert (await anext(lines)).cursor == 3

    asyncio.run(scenario())


def test_time_ends_a_listener() -> None:
    async def scenario() -> None:
        async with fed(before=1) as it, asyncio.timeout(10):
            assert [line.cursor async for line in it.feed.listen(0)] == [1]

    asyncio.run(scenario())


def test_end_of_the_node_ends_a_listener() -> None:
    async def scenario() -> None:
        async with fed() as it:
            listening = asyncio.create_task(cursors(it.feed, 1))
            await asyncio.sleep(0)
            it.feed.stop()
            assert await listening == []

    asyncio.run(scenario())
