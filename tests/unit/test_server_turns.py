"""Whoever asks a server for much takes turns with others who do; whoever asks for little waits for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar, cast

from quicprochat.core.store import MeshStore
from quicprochat.p2p.driver import Clock, Stepper
from quicprochat.server.turns import FEW, TURN, ServerDriver

T = TypeVar("T")


class Held(ServerDriver):
    """Commits when it is told to."""

    def __init__(self) -> None:
        super().__init__(cast(Stepper, None), cast(MeshStore, None), cast(Clock, None))
        self.begun: list[asyncio.Future[None]] = []

    async def call(self, work: Callable[[MeshStore], T]) -> T:
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.begun.append(committed)
        await committed
        return work(cast(MeshStore, None))


def run(scenario: Callable[[Held], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(10):
            await scenario(Held())

    asyncio.run(main())


def said(number: int, _: MeshStore) -> int:
    return number


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_so_many_share_a_transaction_and_the_rest_waits_for_the_next() -> None:
    async def scenario(driver: Held) -> None:
        calls = [asyncio.create_task(driver.call_for(TURN // 2, partial(said, n))) for n in range(3)]
        await settled()
        assert len(driver.begun) == 2
        driver.begun[0].set_result(None)
        await settled()
        assert len(driver.begun) == 3
        for one in driver.begun[1:]:
            one.set_result(None)
        assert await asyncio.gather(*calls) == [0, 1, 2]

    run(scenario)


def test_few_wait_for_nobody() -> None:
    async def scenario(driver: Held) -> None:
        many = [asyncio.create_task(driver.call_for(TURN, lambda _: None)) for _ in range(2)]
        few = asyncio.create_task(driver.call_for(FEW, lambda _: "few"))
        await settled()
        assert len(driver.begun) == 2, "one of the many, and the few"
        driver.begun[1].set_result(None)
        assert await few == "few"
        driver.begun[0].set_result(None)
        await settled()
        driver.begun[2].set_result(None)
        await asyncio.gather(*many)

    run(scenario)


def test_more_than_a_turn_goes_alone_and_in_its_order() -> None:
    async def scenario(driver: Held) -> None:
        order: list[str] = []

        def noted(what: str, _: MeshStore) -> None:
            order.append(what)

        asked = [(TURN // 2, "half"), (3 * TURN, "much"), (TURN // 2, "late")]
        calls = [asyncio.create_task(driver.call_for(count, partial(noted, w))) for count, w in asked]
        for n in range(3):
            await settled()
            assert len(driver.begun) == n + 1
            driver.begun[n].set_result(None)
        await asyncio.gather(*calls)
        assert order == ["half", "much", "late"]

    run(scenario)


def test_who_gives_up_leaves_its_turn_to_others() -> None:
    async def scenario(driver: Held) -> None:
        at_work, waiting, last = (asyncio.create_task(driver.call_for(TURN, lambda _: None)) for _ in range(3))
        await settled()
        waiting.cancel()
        at_work.cancel()
        await settled()
        assert len(driver.begun) == 2, "the last one's turn has come"
        driver.begun[1].set_result(None)
        await last

    run(scenario)
