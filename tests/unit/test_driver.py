"""Where commits run: on the spot when they are small and the disk is quick, else in the store's thread."""

from __future__ import annotations

import asyncio
import threading

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
