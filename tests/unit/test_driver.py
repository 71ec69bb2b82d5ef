"""Where commits run: on the spot when they are small and the disk is quick, else in the store's thread."""

from __future__ import annotations

import asyncio
import threading

import pytest
from tests.unit.drivers import driven

from quicprochat.core.store import MeshStore
from quicprochat.p2p.driver import INLINE_EVENTS, SLOW_FOR_MS, SLOW_MS


def write(store: MeshStore) -> None:
    store.set_value("key", b"value")


def test_small_commit_on_a_quick_disk_runs_in_the_loop() -> None:
    async def scenario() -> None:
        async with driven() as it:
            it.disk.commit_ms = SLOW_MS - 1
            for _ in range(3):
                await it.driver.call(write)
            assert it.disk.threads[-3:] == [threading.get_ident()] * 3

    asyncio.run(scenario())


def test_slow_disk_holds_the_loop_up_once_and_then_not_for_a_while() -> None:
    async def scenario() -> None:
        async with driven() as it:
            it.disk.commit_ms = SLOW_MS
            await it.driver.call(write)
            assert it.disk.threads[-1] == threading.get_ident()
            it.disk.commit_ms = 0
            await it.driver.call(write)
            assert it.disk.threads[-1] != threading.get_ident()
            it.clock.ms += SLOW_FOR_MS
            await it.driver.call(write)
            assert it.disk.threads[-1] == threading.get_ident()

    asyncio.run(scenario())


def test_large_commit_never_runs_in_the_loop() -> None:
    async def scenario() -> None:
        async with driven() as it:
            await asyncio.gather(*(it.driver.call(write) for _ in range(INLINE_EVENTS + 1)))
            assert it.disk.threads[-1] != threading.get_ident()

    asyncio.run(scenario())


def test_what_takes_long_runs_between_transactions_and_not_in_the_loop() -> None:
    """Written from both sides at once: a copy of the store can be made only where no transaction is open."""

    async def scenario() -> None:
        async with driven() as it:
            seen: list[tuple[bool, bool]] = []

            def look(store: MeshStore) -> int:
                seen.append((store.dirty, threading.get_ident() == home))
                return len(seen)

            home = threading.get_ident()
            writers = [asyncio.ensure_future(it.driver.call(write)) for _ in range(50)]
            assert [await it.driver.aside(look) for _ in range(20)] == list(range(1, 21))
            await asyncio.gather(*writers)
            assert set(seen) == {(False, False)}

    asyncio.run(scenario())


def test_a_fault_between_transactions_is_its_callers_and_stops_nobody() -> None:
    async def scenario() -> None:
        async with driven() as it:

            def fail(store: MeshStore) -> None:
                raise ValueError("a fault")

            with pytest.raises(ValueError, match="a fault"):
                await it.driver.aside(fail)
            await it.driver.call(write)
            waiting = asyncio.ensure_future(it.driver.aside(lambda _: None))
            await asyncio.sleep(0)
            waiting.cancel()
            await it.driver.call(write)

    asyncio.run(scenario())
