"""Where commits run: on the spot when they are small and the disk is quick, else in the store's thread; and what leaves
before them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest
from tests.unit.drivers import Disk, HandClock, driven

from quicprochat.core.errors import StoreError
from quicprochat.core.events import Effect, Event, LinkId, SendEnvelope, SendResults, Tick
from quicprochat.core.store import MeshStore
from quicprochat.core.time import Instant, Now
from quicprochat.p2p.driver import INLINE_EVENTS, SLOW_FOR_MS, SLOW_MS, Driver


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


def test_what_nobody_waits_for_goes_with_the_next_transaction_and_before_it() -> None:
    async def scenario() -> None:
        async with driven() as it:
            order: list[str] = []

            def note(store: MeshStore, name: str) -> None:
                write(store)
                order.append(name)

            unhurried = asyncio.ensure_future(it.driver.call_unhurried(lambda tx: note(tx, "first")))
            await asyncio.sleep(0.001)
            before = len(it.disk.threads)
            await it.driver.call(lambda tx: note(tx, "second"))
            await unhurried
            assert (order, len(it.disk.threads)) == (["first", "second"], before + 1)

    asyncio.run(scenario())


def test_what_nobody_waits_for_is_done_in_the_end() -> None:
    async def scenario() -> None:
        async with driven() as it:
            async with asyncio.timeout(10):
                await it.driver.call_unhurried(write)  # with nobody to take it along
            last = asyncio.ensure_future(it.driver.call_unhurried(write))
            await asyncio.sleep(0)
            before = len(it.disk.threads)
        assert len(it.disk.threads) > before
        assert last.done()
        assert last.exception() is None

    asyncio.run(scenario())


def test_whoever_waits_for_what_is_done_already_is_told_soon() -> None:
    async def scenario() -> None:
        async with driven() as it:
            await it.driver.call(write)
            await asyncio.sleep(0)  # the driver has nothing to do, and waits
            async with asyncio.timeout(10):
                await it.driver.settle([])

    asyncio.run(scenario())


ONWARD = SendEnvelope(LinkId(1), b"another's", onward=True)
KEPT: tuple[Effect, ...] = (SendEnvelope(LinkId(1), b"our own"), SendResults(LinkId(2), ()))


class Relay:
    """What passes something on in each step that has events."""

    def start(self, tx: MeshStore, now: Now) -> Sequence[Effect]:
        return ()

    def step(self, events: Sequence[Event], tx: MeshStore, now: Now) -> Sequence[Effect]:
        if not events:
            return ()
        write(tx)
        return (KEPT[0], ONWARD, KEPT[1])

    def next_deadline(self) -> Instant:
        return Instant(1 << 40)


class Broken(Disk):
    """A disk that takes nothing once it is told to."""

    def __init__(self, clock: HandClock) -> None:
        super().__init__(clock)
        self.log: list[object] = []
        self.broken = False

    def commit(self) -> None:
        if self.dirty:
            self.log.append("commit")
            if self.broken:
                raise StoreError("the disk is broken")
        super().commit()


@pytest.mark.parametrize("events", [1, INLINE_EVENTS + 1])
def test_only_what_passes_through_leaves_ahead_of_the_commit(events: int) -> None:
    async def scenario() -> None:
        clock = HandClock()
        disk = Broken(clock)
        driver = Driver(Relay(), disk, clock, disk.log.append)
        running = asyncio.create_task(driver.run())
        await driver.call(lambda _: None)
        disk.log.clear()
        await driver.settle([Tick()] * events)
        assert disk.log == [ONWARD, "commit", *KEPT]
        disk.log.clear()
        disk.broken = True
        with pytest.raises(StoreError, match="broken"):
            await driver.settle([Tick()] * events)
        assert disk.log == [ONWARD, "commit"], "a promise left without its commit"
        with pytest.raises(StoreError, match="broken"):
            await running
        driver.close()

    asyncio.run(scenario())


def test_links_write_what_passes_through_while_nobody_reads_what_is_not_committed() -> None:
    async def scenario() -> None:
        clock = HandClock()
        disk = Broken(clock)
        out: asyncio.Event = asyncio.Event()
        driver = Driver(Relay(), disk, clock, lambda effect: out.set() if effect == ONWARD else None)
        running = asyncio.create_task(driver.run())

        async def link() -> None:
            await out.wait()
            disk.log.append("written")
            disk.log.append(await driver.read(lambda store: store.dirty))

        writing = asyncio.create_task(link())
        await driver.call(lambda _: None)
        disk.log.clear()
        await driver.settle([Tick()])
        await writing
        assert disk.log == ["written", "commit", False]
        driver.finish()
        await running
        driver.close()

    asyncio.run(scenario())
