"""A server's driver: what somebody asks for in bulk takes turns, so that nobody waits long behind it.

A driver does all that is asked of it in one transaction. That is right for many who ask for little each; somebody's
thousand envelopes would keep everybody waiting until all of them are written.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from quicprochat.core.store import MeshStore
from quicprochat.p2p.driver import Clock, Driver, Point, Stepper

T = TypeVar("T")

FEW = 8
"""Envelopes for which nobody takes turns."""
TURN = 256
"""Envelopes of those who bring more that go into one transaction: some 10 ms of the loop's time. With 128 there were
more transactions, and each costs what it costs whatever is in it."""


class ServerDriver(Driver):
    """Call :meth:`call_for` with whatever is done for a number of envelopes."""

    def __init__(
        self, upkeep: Stepper, store: MeshStore, clock: Clock, probe: Callable[[Point], None] | None = None
    ) -> None:
        super().__init__(upkeep, store, clock, lambda _: None, probe)
        self._room = TURN
        self._turns: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def call_for(self, count: int, work: Callable[[MeshStore], T]) -> T:
        """Do what ``call`` does for so many envelopes, when it is their turn. Raises: StoreError."""
        if count <= FEW:
            return await self.call(work)
        await self._take_turn(count)
        try:
            return await self.call(work)
        finally:
            self._room += count
            self._next_turns()

    async def _take_turn(self, count: int) -> None:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.append((count, mine))
        self._next_turns()
        try:
            await mine
        except asyncio.CancelledError:
            if not mine.cancelled():  # it was our turn already
                self._room += count
            self._next_turns()
            raise

    def _next_turns(self) -> None:
        """Let in those who have waited longest, as far as there is room; more than fits at all goes alone."""
        while self._turns:
            count, waiting = self._turns[0]
            if waiting.cancelled():
                self._turns.popleft()
                continue
            if count > self._room and self._room < TURN:
                return
            self._turns.popleft()
            self._room -= count
            waiting.set_result(None)
