"""A driver over a real node and a store whose commits take as long as a test says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

from tests.unit.people import Person, at

from quicprochat.core.memory import MemoryStore
from quicprochat.core.time import Instant, Now
from quicprochat.p2p.driver import Driver
from quicprochat.sim.crypto import SimCrypto


class HandClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.ms = 10_000

    def now(self) -> Now:
        return at(self.ms)

    def mark(self, now: Now) -> bytes:
        return b"mark"


class Disk(MemoryStore):
    """A durable store in memory: notes in which thread each commit ran, and lets the clock go on meanwhile."""

    def __init__(self, clock: HandClock) -> None:
        super().__init__(durable=True)
        self.commit_ms = 0
        self.threads: list[int] = []
        self.clock = clock

    def commit(self) -> None:
        if self.dirty:
            self.threads.append(threading.get_ident())
            self.clock.ms += self.commit_ms
        super().commit()


@asynccontextmanager
async def driven() -> AsyncIterator[SimpleNamespace]:
    """A running driver with its ``disk`` and ``clock``."""
    clock = HandClock()
    disk = Disk(clock)
    person = Person(SimCrypto(b"drivers"), "ada", start=False)
    person.store = disk
    person.start(at(clock.ms))
    driver = Driver(person.node, disk, clock, lambda _: None)
    running = asyncio.create_task(driver.run())
    try:
        yield SimpleNamespace(driver=driver, disk=disk, clock=clock, until=lambda ms: Instant(clock.ms + ms))
    finally:
        driver.finish()
        await running
        driver.close()
