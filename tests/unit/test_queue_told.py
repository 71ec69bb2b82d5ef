"""What is durable is told of, also when whoever brought it goes while it is being written."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quicprochat.adapters.crypto import SodiumCrypto
from quicprochat.adapters.system import entropy
from quicprochat.core.ids import PeerKey
from quicprochat.core.policy import Policy
from quicprochat.core.time import Instant
from quicprochat.server.meter import Meter
from quicprochat.server.queue import Queue

ME, VIA = PeerKey(bytes(32)), PeerKey(b"\1" * 32)


class SlowDisk:
    """A driver whose commit takes until it is let go on."""

    def __init__(self) -> None:
        self.busy, self.go_on = asyncio.Event(), asyncio.Event()

    async def call_for(self, count: int, work: object) -> list[object]:
        self.busy.set()
        await self.go_on.wait()
        return []


@pytest.mark.parametrize("bring", ["put", "deposit"])
def test_recipients_hear_of_what_a_client_brought_that_went_before_the_answer(bring: str) -> None:
    async def scenario() -> None:
        disk, told = SlowDisk(), asyncio.Event()
        driver: Any = disk
        meter = Meter(lambda: Instant(0))
        queue = Queue(driver, lambda: Policy(ME), SodiumCrypto(entropy), lambda _: True, lambda _: None, meter)
        queue._tell_recipients = lambda *_: told.set()  # type: ignore[method-assign]
        work = queue.put(VIA, []) if bring == "put" else queue.deposit(VIA, [], 1.0, lambda *_: None)
        bringing = asyncio.create_task(work)
        await disk.busy.wait()
        bringing.cancel()
        disk.go_on.set()
        async with asyncio.timeout(5):
            await told.wait()
        with pytest.raises(asyncio.CancelledError):
            await bringing
        queue.close()

    asyncio.run(scenario())
