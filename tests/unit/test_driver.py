"""Where commits run: on the spot when they are small and the disk is quick, else in the store's thread; what leaves
before them, and which steps share one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from tests.unit.drivers import Disk, HandClock, driven

from quicprochat.core.errors import StoreError
from quicprochat.core.events import CloseLink, Effect, Event, LinkId, SendEnvelope, SendResults, Tick
from quicprochat.core.link import Goodbye
from quicprochat.core.store import MeshStore
from quicprochat.core.time import Instant, Now
from quicprochat.p2p.driver import INLINE_EVENTS, SHARED_EVENTS, SHARED_MS, SLOW_COMMITS, SLOW_FOR_MS, SLOW_MS, Driver


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


def test_slow_disk_holds_the_loop_up_a_few_times_and_then_not_for_a_while() -> None:
    async def scenario() -> None:
        async with driven() as it:
            home = threading.get_ident()
            for _ in range(SLOW_COMMITS + 1):
                it.disk.commit_ms = SLOW_MS
                await it.driver.call(write)
                it.disk.commit_ms = 0
                await it.driver.call(write)
            assert set(it.disk.threads) == {home}, "what was late once may have waited for the processor"
            it.disk.commit_ms = SLOW_MS
            for _ in range(SLOW_COMMITS):
                await it.driver.call(write)
            assert it.disk.threads[-1] == threading.get_ident()
            it.disk.commit_ms = 0
            await it.driver.call(write)
            assert it.disk.threads[-1] != threading.get_ident()
            it.clock.ms += SLOW_FOR_MS
            await it.driver.call(write)
            assert it.disk.threads[-1] == threading.get_ident()

    asyncio.run(scenario())


def test_disk_that_is_slow_two_times_of_three_is_slow_and_stays_so_while_it_is() -> None:
    async def scenario() -> None:
        async with driven() as it:
            for ms in [SLOW_MS, SLOW_MS, 0] * SLOW_COMMITS:
                it.disk.commit_ms = ms
                await it.driver.call(write)
            assert it.disk.threads[-1] != threading.get_ident()
            it.clock.ms += SLOW_FOR_MS
            it.disk.commit_ms = SLOW_MS
            await it.driver.call(write)
            assert it.disk.threads[-1] == threading.get_ident(), "it is tried again"
            await it.driver.call(write)
            assert it.disk.threads[-1] != threading.get_ident(), "once"

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


class Passing:
    """What takes in others' mail in each step that has events, and answers it; or says something of its own."""

    def __init__(self) -> None:
        self.steps = 0
        self.says: tuple[Effect, ...] = (SendResults(LinkId(2), ()),)

    def start(self, tx: MeshStore, now: Now) -> Sequence[Effect]:
        return ()

    def step(self, events: Sequence[Event], tx: MeshStore, now: Now) -> Sequence[Effect]:
        self.steps += 1
        if not events:
            return ()
        write(tx)
        return self.says

    def next_deadline(self) -> Instant:
        return Instant(1 << 40)


@asynccontextmanager
async def passing() -> AsyncIterator[tuple[Driver, Broken, Passing]]:
    clock, node = HandClock(), Passing()
    disk = Broken(clock)
    driver = Driver(node, disk, clock, disk.log.append)
    running = asyncio.create_task(driver.run())
    await driver.settle([Tick()])  # the first answer leaves at once
    disk.log.clear()
    yield driver, disk, node
    driver.finish()
    await running
    driver.close()


async def rest() -> None:
    """Let everybody do what can be done without waiting."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_steps_that_nobody_waits_for_share_a_commit_and_answers_wait_for_it() -> None:
    async def scenario() -> None:
        async with passing() as (driver, disk, node):
            settled = [driver.settle([Tick()])]
            await rest()
            settled.append(driver.settle([Tick()]))
            await rest()
            assert disk.log == [], "a result left before its commit"
            assert not settled[0].done()
            disk.clock.ms += SHARED_MS
            await asyncio.gather(*settled)
            assert disk.log == ["commit", node.says[0], node.says[0]]

    asyncio.run(scenario())


def test_a_lone_answer_leaves_at_once_and_what_has_none_waits_for_company() -> None:
    async def scenario() -> None:
        async with passing() as (driver, disk, node):
            disk.clock.ms += SHARED_MS
            await driver.settle([Tick()])
            assert disk.log == ["commit", *node.says]
            node.says = ()
            disk.clock.ms += SHARED_MS
            driver.post(Tick())
            await rest()
            assert disk.log[2:] == []

    asyncio.run(scenario())


@pytest.mark.parametrize("urgent", [SendEnvelope(LinkId(1), b"our own"), CloseLink(LinkId(1), Goodbye.BUSY, "")])
def test_what_a_node_says_for_itself_takes_the_shared_commit_along(urgent: Effect) -> None:
    async def scenario() -> None:
        async with passing() as (driver, disk, node):
            (result,) = node.says
            driver.post(Tick())
            await rest()
            node.says = (urgent,)
            await driver.settle([Tick()])
            assert disk.log == ["commit", result, urgent]

    asyncio.run(scenario())


def test_a_commit_that_is_due_by_itself_needs_no_step() -> None:
    async def scenario() -> None:
        async with passing() as (driver, disk, node):
            settled = driver.settle([Tick()])
            await rest()
            steps = node.steps
            disk.clock.ms += SHARED_MS
            await settled
            assert (node.steps, disk.log) == (steps, ["commit", *node.says])

    asyncio.run(scenario())


def test_no_shared_commit_grows_beyond_its_bound() -> None:
    async def scenario() -> None:
        async with passing() as (driver, disk, node):
            await driver.settle([Tick()] * SHARED_EVENTS)
            assert disk.log == ["commit", *node.says]

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["call", "read", "aside"])
def test_nobody_reads_what_a_shared_commit_has_not_made_durable(how: str) -> None:
    async def scenario() -> None:
        async with passing() as (driver, disk, node):
            driver.post(Tick())
            await rest()
            await getattr(driver, how)(lambda store: disk.log.append(store.value("key")))
            committed = ["commit", *node.says, b"value"]
            assert disk.log == (committed if how == "aside" else [b"value", *committed[:-1]])

    asyncio.run(scenario())


def test_a_driver_that_ends_commits_what_was_shared() -> None:
    async def scenario() -> None:
        async with passing() as (driver, disk, node):
            driver.post(Tick())
            await rest()
            assert disk.log == []
        assert disk.log[:2] == ["commit", *node.says]

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
