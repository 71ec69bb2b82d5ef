"""What comes in, told to everybody who listens."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from itertools import takewhile

from quicprochat.core.store import Line
from quicprochat.p2p.driver import Driver

BATCH = 256
"""Lines read from the store in one go, and lines at hand for listeners who keep up."""


class Feed:
    """The journal as it grows: lines are handed on from memory, and read from the store by whoever lags behind."""

    def __init__(self, driver: Driver, newest: int) -> None:
        self._driver = driver
        self._recent: deque[Line] = deque(maxlen=BATCH)
        # The cursors of the last line there is, and of the last one no longer at hand.
        self._newest = self._passed = newest
        self._news = asyncio.Event()
        self._told = 0
        self._stopped = False

    def take(self, line: Line) -> None:
        """Hand on a line that has just become durable."""
        if len(self._recent) == BATCH:
            self._passed = self._recent[0].cursor
        self._recent.append(line)
        self._newest = line.cursor
        self.tell()

    def tell(self) -> None:
        """Wake everybody who waits for news of any kind."""
        self._told += 1
        self._news.set()
        self._news = asyncio.Event()

    def stop(self) -> None:
        """Let every listener end."""
        self._stopped = True
        self.tell()

    @property
    def told(self) -> int:
        """How often there was something new so far."""
        return self._told

    async def news(self, since: int | None = None) -> None:
        """Wait until there is something new: a line, a link, an alarm, the end.

        With ``since``, a value of :attr:`told`, news since then count: none is missed between looking and waiting.
        """
        if since is None or since == self._told:
            await self._news.wait()

    async def listen(self, timeout_s: float | None = None) -> AsyncGenerator[Line, None]:
        """Yield lines: first those not read yet, then each as it comes, until the time is over or the node stops.

        Several may listen at once: each gets every line that comes from now on, also when another one has read it.
        """
        clock = asyncio.get_running_loop().time
        deadline = None if timeout_s is None else clock() + timeout_s
        after, live = 0, self._newest
        while not self._stopped and (old := [x for x in await self._read(after, unread=True) if x.cursor <= live]):
            for line in old:
                yield line
            after = old[-1].cursor
        after = live
        while not self._stopped:
            lines = await self._since(after)
            for line in lines:
                yield line
            after = lines[-1].cursor if lines else max(after, self._passed)  # what is damaged is passed over
            if after < self._newest:
                continue
            if deadline is not None and clock() >= deadline:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await self._news.wait()

    async def _since(self, after: int) -> Sequence[Line]:
        if after < self._passed:
            return await self._read(after, unread=False)
        return list(takewhile(lambda line: line.cursor > after, reversed(self._recent)))[::-1]

    async def _read(self, after: int, *, unread: bool) -> Sequence[Line]:
        return await self._driver.read(lambda store: store.journal(after=after, limit=BATCH, unread=unread))
