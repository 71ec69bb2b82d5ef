"""Clients under load against a server that is killed again and again, and what each was told.

The clients live in the test's process: what they were told survives any kill of the server's.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from tests.server.attacked import Attacked, Caller, calling, until

from quicprochat.adapters import rpc
from quicprochat.core.envelope import MeshEnvelope
from quicprochat.core.errors import UnavailableError
from quicprochat.core.gate import Verdict

AUTHORS = 3
BATCH_MAX = 40
WAITING_MAX = 600
"""Messages that the reader does not have yet, before authors hold back: the end should soon be reached."""


class Ledger:
    """What was promised."""

    def __init__(self) -> None:
        self.stored: set[bytes] = set()
        """Ids that the server said yes to."""
        self.taken: Counter[bytes] = Counter()
        """How often each came."""
        self.confirmed: set[bytes] = set()
        """Ids whose acknowledgement the server said yes to."""
        self.again: set[bytes] = set()
        """Ids that came after that."""


class Inbox(rpc.home.Receiver.Server):  # type: ignore[misc]
    """A receiver that has what is pushed, and confirms it."""

    def __init__(self, taken: Counter[bytes]) -> None:
        self._taken = taken

    async def deliver_context(self, context: Any) -> None:
        ids = [Caller.id_of(bytes(one.envelope)) for one in context.params.deliveries]
        self._taken.update(ids)
        context.results.ids = ids


class Load:
    """Authors and a reader, who fetches or is ``pushed`` to; :meth:`online` while the server lives. ``theirs`` is the
    reader's server, if it is another, and ``domain`` what the authors call it."""

    def __init__(
        self, server: Attacked, theirs: Attacked | None = None, domain: str = "", *, pushed: bool = False
    ) -> None:
        self.server = server
        self.theirs = theirs or server
        self.pushed = pushed
        self._domain = domain
        self.told = Ledger()
        self._reader = Caller.of(seed := os.urandom(32))
        self._seed = seed
        self._authors = [os.urandom(32) for _ in range(AUTHORS)]
        self._unanswered: dict[bytes, list[MeshEnvelope]] = {one: [] for one in self._authors}
        self._dice = random.Random("load")

    @asynccontextmanager
    async def online(self, *, sending: bool = True) -> AsyncIterator[None]:
        """Let all of them at it. What breaks because the server is gone is no fault of theirs."""
        async with calling(self.theirs, self._seed):
            pass  # the reader is known from now on
        works = [self._read()] + [self._write(seed) for seed in self._authors if sending]
        tasks = [asyncio.create_task(self._quietly(work)) for work in works]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for result in results:
                if isinstance(result, Exception):
                    raise result

    async def _quietly(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (UnavailableError, TimeoutError):
            return

    async def _write(self, seed: bytes) -> None:
        async with calling(self.server, seed) as author:
            again = self._unanswered[seed]
            for n in itertools.count():
                while len(self.told.stored - self.told.taken.keys()) > WAITING_MAX:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                if not again:
                    size = self._dice.randint(1, BATCH_MAX) if n % 3 else 1
                    again += [author.envelope(self._reader.key, os.urandom(300)) for _ in range(size)]
                answers = await author.put(*[one.wire() for one in again], domain=self._domain)
                assert {verdict for verdict, _ in answers} <= {Verdict.STORED, Verdict.DUPLICATE}, answers
                self.told.stored |= {one.id for one in again}
                again.clear()

    async def _read(self) -> None:
        async with calling(self.theirs, self._seed) as reader:
            if self.pushed:
                await rpc.Remote.ask(reader.session.subscribe(receiver=Inbox(self.told.taken)), "subscribing")
                await reader.connection.ended()
            while True:
                found = [one.id for one in await reader.fetch(limit=100)]
                self.told.taken.update(found)
                self.told.again |= self.told.confirmed & set(found)
                if not found:
                    await asyncio.sleep(0.01)
                    continue
                await reader.acknowledge(*found)
                self.told.confirmed |= set(found)

    async def more(self, count: int) -> None:
        """Wait until so many more were promised."""
        enough = len(self.told.stored) + count
        await until(lambda: len(self.told.stored) > enough)

    async def drained(self) -> None:
        """Let the reader fetch until nothing is left, and nothing is on its way."""
        async with calling(self.theirs, self._seed) as reader, asyncio.timeout(30):
            while True:
                found = [one.id for one in await reader.fetch(limit=100)]
                if not found:
                    if self.theirs is self.server or not self.told.stored - self.told.taken.keys():
                        return
                    await asyncio.sleep(0.05)
                    continue
                self.told.taken.update(found)
                self.told.again |= self.told.confirmed & set(found)
                await reader.acknowledge(*found)
                self.told.confirmed |= set(found)

    def compare(self) -> dict[str, int]:
        """Hold what was promised against what came."""
        told = self.told
        lost = told.stored - told.taken.keys()
        assert not lost, f"{len(lost)} of {len(told.stored)} acknowledged envelopes never came"
        assert not told.again, f"{len(told.again)} envelopes came after their acknowledgement was acknowledged"
        return {"stored": len(told.stored), "taken": len(told.taken), "more than once": sum(told.taken.values())
                - len(told.taken)}  # fmt: skip
