"""The machine sleeps: the life clock goes on, the loop's does not."""

from __future__ import annotations

import asyncio

import pytest

from quicprochat.core.time import Instant
from quicprochat.p2p import wake


def test_a_sleep_is_noticed_once_and_a_busy_moment_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wake, "POLL_S", 0.01)
    asleep_ms, looked, told = 0, asyncio.Event(), 0

    async def scenario() -> None:
        nonlocal asleep_ms, told
        loop = asyncio.get_running_loop()

        def instant() -> Instant:
            looked.set()
            return Instant(int(1_000 * loop.time()) + asleep_ms)

        def awake() -> None:
            nonlocal told
            told += 1

        async def look() -> None:
            looked.clear()
            async with asyncio.timeout(20):
                await looked.wait()

        watching = asyncio.create_task(wake.watch_sleep(instant, awake))
        await look()
        asleep_ms += wake.SLEPT_MS // 2
        for _ in range(5):
            await look()
        assert told == 0
        asleep_ms += wake.SLEPT_MS + 1_000
        for _ in range(5):
            await look()
        assert told == 1
        watching.cancel()

    asyncio.run(scenario())
