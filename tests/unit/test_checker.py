"""Checks are answered in turn: few ones soon, the oldest first, and many ones all the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from quicprochat.adapters.crypto import SodiumCrypto
from quicprochat.adapters.system import entropy
from quicprochat.core.gate import Fault, Reject
from quicprochat.core.ids import PeerKey
from quicprochat.server import checker
from quicprochat.server.checker import BATCH, Checker

ME = PeerKey(bytes(32))


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await scenario

    asyncio.run(bounded())


def test_few_ones_that_wait_for_the_thread_are_answered_in_the_order_they_came() -> None:
    async def scenario() -> None:
        judge, order = Checker(SodiumCrypto(entropy)), list[int]()

        async def ask(number: int, count: int) -> None:
            await judge.check(ME, [b"nothing"] * count)
            order.append(number)

        asked = [asyncio.create_task(ask(0, BATCH))]
        for turn in range(1, 5):
            await asyncio.sleep(0)
            asked += [asyncio.create_task(ask(turn, 1)) for _ in range(3)]
        await asyncio.gather(*asked)
        assert order[-12:] == sorted(order[-12:])
        judge.close()

    run(scenario())


def test_many_ones_get_their_turn_while_there_are_always_few_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        judge = Checker(SodiumCrypto(entropy))
        answered = asyncio.Event()

        async def few() -> None:
            while not answered.is_set():
                await judge.check(ME, [b"nothing"])

        asking = []
        for _ in range(2):  # the second lot asks while the thread has the first, and the first while it has the second
            asking += [asyncio.create_task(few()) for _ in range(10)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert len(await judge.check(ME, [b"nothing"] * BATCH)) == BATCH
        answered.set()
        await asyncio.gather(*asking)
        judge.close()

    def slowly(*_: object) -> Reject:
        time.sleep(0.001)
        return Reject(Fault.MALFORMED, "nothing")

    monkeypatch.setattr(checker, "check", slowly)
    run(scenario())


def test_a_check_that_fails_is_its_callers_affair_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Reject:
        raise RuntimeError("a fault of the program")

    async def scenario() -> None:
        judge = Checker(SodiumCrypto(entropy))
        with monkeypatch.context() as broken:
            broken.setattr(checker, "check", fail)
            with pytest.raises(RuntimeError, match="a fault of the program"):
                await judge.check(ME, [b"nothing"] * BATCH)
        assert len(await judge.check(ME, [b"nothing"] * BATCH)) == BATCH
        judge.close()

    run(scenario())
