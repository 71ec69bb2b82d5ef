"""The one task that owns the node: it gathers, steps, commits, and only then lets effects out.

Only others' mail on its way through leaves ahead of the commit, so that on a long way it doesn't wait for every disk.

What queued while the last commit ran is the next batch. Where nobody waits for the disk, because nothing but others'
mail passed on was answered, steps share a commit: the transaction stays open for ``SHARED_MS`` at most (ADR 6).
Everything else reaches the node through ``post`` and the store through ``call``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import Any, Protocol, TypeVar

from quicprochat.core.errors import QuicprochatError, StoreError, UnavailableError
from quicprochat.core.events import Effect, Event, leaves_early, may_wait
from quicprochat.core.store import MeshStore
from quicprochat.core.time import Instant, Now

T = TypeVar("T")

CLOCK_KEY = "clock"
EVENTS_MAX = 1_024
"""Events in one transaction: bounds how long one commit, and everybody behind it, can take."""
MARK_EVERY_MS = 60_000
"""The life clock is kept with every write, and this often when there is none."""
UNHURRIED_MS = 50
"""So long at most what nobody waits for goes without a transaction of its own: one that somebody waits for takes it."""
INLINE_EVENTS = 64
"""A turn of so few events commits on the spot: handing it to a thread and back costs as much as a quick disk does."""
SLOW_MS, SLOW_COMMITS, SLOW_FOR_MS = 10, 3, 10_000
"""So many more slow commits than quick ones are a slow disk's; for a while no commit holds the loop up, however small.
A single one may have waited for the processor, and on a busy machine a thread waits for that twice."""
SHARED_MS, SHARED_EVENTS = 20, 256
"""A transaction that nobody waits for stays open so long at most, or for so many events. The first answer to what a
neighbour gave us to pass on leaves with a commit of its own, those of the next milliseconds with one for all."""


class Point(Enum):
    """The moments of a turn between which a power cut makes a difference; tests stop the process at each."""

    GATHERED = "gathered"
    STEPPED = "stepped"
    PASSED_ON = "passed on"
    COMMITTED = "committed"
    RELEASED = "released"


class Clock(Protocol):
    """Where the driver's moments come from."""

    def now(self) -> Now:
        """Return this moment."""
        ...

    def mark(self, now: Now) -> bytes:
        """Return what to store of it."""
        ...


class Stepper(Protocol):
    """What is driven: a node, or a server's upkeep."""

    def start(self, tx: MeshStore, now: Now) -> Sequence[Effect]:
        """Take up what the store remembers."""
        ...

    def step(self, events: Sequence[Event], tx: MeshStore, now: Now) -> Sequence[Effect]:
        """Act on what happened, inside one transaction; its effects follow its commit, but see ``leaves_early``."""
        ...

    def next_deadline(self) -> Instant:
        """Return when to step even if nothing happens."""
        ...


class Driver:
    """Runs a node over a store; ``release`` carries out effects in order and must not wait."""

    def __init__(
        self,
        node: Stepper,
        store: MeshStore,
        clock: Clock,
        release: Callable[[Effect], None],
        probe: Callable[[Point], None] | None = None,
    ) -> None:
        self._node = node
        self._store = store
        self._clock = clock
        self._release = release
        self._probe = probe or (lambda _: None)
        self._events: list[Event] = []
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._calls: list[tuple[Callable[[MeshStore], Any], asyncio.Future[Any]]] = []
        self._unhurried: list[tuple[Callable[[MeshStore], Any], asyncio.Future[Any]]] = []
        self._unhurried_until = Instant(0)
        self._answering: list[tuple[Callable[[MeshStore], Any], asyncio.Future[Any]]] = []
        self._asides: deque[tuple[Callable[[MeshStore], Any], asyncio.Future[Any]]] = deque()
        self._posted = 0
        self._done = 0
        self._wake = asyncio.Event()
        self._marked_at = 0
        self._stopped: QuicprochatError | None = None
        self._finishing = False
        self._committing = False
        self._open = False
        """A transaction is under way; nobody may read what is not committed."""
        self._shared_until: Instant | None = None
        self._answered_at = Instant(-SHARED_MS)
        """When a commit last let answers out that could have waited."""
        self._taken = 0
        """Events and calls of the open transaction."""
        self._due: list[Effect] = []
        """What leaves after the commit."""
        self._slow = 0
        """Commits that took long, less those since that did not."""
        self._slow_until = 0
        self._pool = ThreadPoolExecutor(1, "store")

    def now(self) -> Now:
        """Return this moment on the driver's clock."""
        return self._clock.now()

    def post(self, *events: Event) -> None:
        """Queue events for the next step; whoever posts for others bounds how many."""
        self._events.extend(events)
        self._posted += len(events)
        self._wake.set()

    def settle(self, events: Sequence[Event]) -> asyncio.Future[None]:
        """Queue events; the future is done when they are durable and their effects are out. Raises: StoreError."""
        self._check()
        self.post(*events)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((self._posted, done))
        return done

    async def call(self, work: Callable[[MeshStore], T]) -> T:
        """Run ``work`` inside the next transaction; return its result once that is durable. Raises: StoreError."""
        self._check()
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._calls.append((work, done))
        self._wake.set()
        return await done

    async def call_unhurried(self, work: Callable[[MeshStore], T]) -> T:
        """The same for what nobody waits for: a transaction of others takes it along, if one comes soon.

        Such a call runs before those that came with it, and after ``UNHURRIED_MS`` at the latest. Raises: StoreError.
        """
        self._check()
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if not self._unhurried:
            self._unhurried_until = Instant(self._clock.now().at + UNHURRIED_MS)
            self._wake.set()  # to look at the clock again
        self._unhurried.append((work, done))
        return await done

    async def read(self, work: Callable[[MeshStore], T]) -> T:
        """Run ``work``, which only reads: at once, unless a commit has the store. Raises: StoreError."""
        if self._committing or self._open:
            return await self.call(work)
        self._check()
        return work(self._store)

    async def aside(self, work: Callable[[MeshStore], T]) -> T:
        """Run ``work``, which writes nothing, between two transactions and in the store's thread: it takes long.

        Everybody's next turn waits for it, so much work is asked for in parts. Whatever it raises is its caller's.
        """
        self._check()
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._asides.append((work, done))
        self._wake.set()
        return await done

    @property
    def stopped(self) -> bool:
        """True once nothing is run any more."""
        return self._stopped is not None

    def _check(self) -> None:
        if self._stopped is not None:
            raise self._stopped

    async def start(self) -> None:
        """Let the node take up what the store remembers."""
        now = self._clock.now()
        self._store.begin()
        effects = self._node.start(self._store, now)
        await self._commit(now)
        self._let_out(effects)

    async def run(self) -> None:
        """Step until :meth:`finish`. Raises: StoreError, after which nothing more is promised to anybody."""
        try:
            while self._events or self._calls or self._unhurried or self._asides or not self._finishing:
                await self._turn()
            await self._finish_shared()
            await self._keep_clock()
        except QuicprochatError as error:
            self._stop(error)
            raise
        finally:
            self._stop(UnavailableError("the node has stopped", retryable=False))

    def finish(self) -> None:
        """Let :meth:`run` return once what is queued is done."""
        self._finishing = True
        self._wake.set()

    def close(self) -> None:
        """Let go of the store; :meth:`run` must have ended."""
        self._pool.shutdown(wait=True)  # a cancelled run may have left a commit under way
        self._store.close()

    async def _keep_clock(self) -> None:
        self._marked_at = 0
        self._store.begin()
        now = self._clock.now()
        self._store.set_value(CLOCK_KEY, self._clock.mark(now))
        await self._commit(now)

    async def _turn(self) -> None:
        await self._wait()
        if self._asides:
            await self._finish_shared()
            await self._step_aside(*self._asides[0])
            self._asides.popleft()
        now = self._clock.now()
        if self._only_commits(now.at):
            await self._finish(now)
            return
        events, self._events = self._events[:EVENTS_MAX], self._events[EVENTS_MAX:]
        calls, self._calls, self._unhurried = [*self._unhurried, *self._calls], [], []
        self._answering = calls
        self._probe(Point.GATHERED)
        if not self._open:
            self._store.begin()
            self._open = True
        answers = [(done, *_outcome(work, self._store)) for work, done in calls]
        effects = self._node.step(events, self._store, now)
        self._taken += len(events) + len(calls)
        self._done += len(events)
        self._probe(Point.STEPPED)
        urgent = await self._pass_on(effects) or bool(calls)
        self._probe(Point.PASSED_ON)
        if not self._may_share(urgent=urgent, now=now.at):
            await self._finish(now)
        for done, value, error in answers:
            if done.done():
                continue
            if error is None:
                done.set_result(value)
            else:
                done.set_exception(error)

    def _only_commits(self, now: Instant) -> bool:
        """Say whether there is nothing to do but to commit what steps before this moment shared."""
        if self._events or self._calls or self._unhurried or self._shared_until is None:
            return False
        return self._shared_until <= now < min(self._node.next_deadline(), self._marked_at + MARK_EVERY_MS)

    async def _pass_on(self, effects: Sequence[Effect]) -> bool:
        """Let out what need not wait for the disk, keep the rest; return whether somebody waits for that."""
        if self._store.volatile or not self._store.dirty:
            self._due += effects
            return True
        early, urgent = False, False
        for effect in effects:
            if leaves_early(effect):
                self._release(effect)
                early = True
            else:
                self._due.append(effect)
                urgent = urgent or not may_wait(effect)
        if early:
            await asyncio.sleep(0)  # a commit on the spot would hold the links up: they write now
        return urgent

    def _may_share(self, *, urgent: bool, now: Instant) -> bool:
        """Say whether the next step may write into the same transaction."""
        if urgent or self._finishing or self._taken >= SHARED_EVENTS:
            return False
        if self._shared_until is None:
            self._shared_until = Instant(now + SHARED_MS)
        if self._due:
            self._shared_until = min(self._shared_until, Instant(self._answered_at + SHARED_MS))
        return now < self._shared_until

    async def _finish_shared(self) -> None:
        if self._open:
            await self._finish(self._clock.now())

    async def _finish(self, now: Now) -> None:
        """Commit, then do what waited for it."""
        await self._commit(now, small=self._taken <= INLINE_EVENTS)
        self._probe(Point.COMMITTED)
        self._open, self._shared_until, self._taken = False, None, 0
        due, self._due = self._due, []
        if due and all(map(may_wait, due)):
            self._answered_at = now.at
        self._let_out(due)
        self._probe(Point.RELEASED)
        while self._waiters and self._waiters[0][0] <= self._done:
            waiter = self._waiters.pop(0)[1]
            if not waiter.done():
                waiter.set_result(None)

    async def _step_aside(self, work: Callable[[MeshStore], T], done: asyncio.Future[T]) -> None:
        # As with a commit: nobody else may touch the store meanwhile, also when the driver is cancelled.
        self._committing = True
        running = asyncio.get_running_loop().run_in_executor(self._pool, work, self._store)
        await asyncio.shield(asyncio.wait((running,)))
        self._committing = False
        error = running.exception()
        if done.done():
            return
        if error is None:
            done.set_result(running.result())
        else:
            done.set_exception(error)

    async def _wait(self) -> None:
        rung = False
        while not (rung or self._events or self._calls or self._asides or self._answerable() or self._finishing):
            self._wake.clear()
            now = self._clock.now().at
            deadline = min(self._node.next_deadline(), self._marked_at + MARK_EVERY_MS)
            if self._shared_until is not None:
                deadline = min(deadline, self._shared_until)
            if self._unhurried:
                deadline = min(deadline, self._unhurried_until)
            try:
                async with asyncio.timeout(max(0, deadline - now) / 1_000):
                    await self._wake.wait()
            except TimeoutError:
                rung = True

    def _answerable(self) -> bool:
        """Say whether somebody waits for what is done already: no event of theirs is queued, no commit is to come."""
        return not self._open and bool(self._waiters) and self._waiters[0][0] <= self._done

    async def _commit(self, now: Now, *, small: bool = False) -> None:
        store = self._store
        if store.dirty or now.at >= self._marked_at + MARK_EVERY_MS:
            store.set_value(CLOCK_KEY, self._clock.mark(now))
            self._marked_at = now.at
        if store.volatile or not store.dirty:
            store.commit()
        elif small and now.at >= self._slow_until:
            began = self._clock.now().at
            store.commit()
            ended = self._clock.now().at
            self._slow = self._slow + 1 if ended - began >= SLOW_MS else max(0, self._slow - 1)
            if self._slow >= SLOW_COMMITS:
                # One more after that time, and it is slow again: a disk that always is must not hold the loop often.
                self._slow, self._slow_until = SLOW_COMMITS - 1, ended + SLOW_FOR_MS
        else:
            # Shielded: a cancelled driver must not leave a thread at work on the store. Then nobody may read any more.
            self._committing = True
            await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._pool, store.commit))
            self._committing = False

    def _let_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            self._release(effect)

    def _stop(self, why: QuicprochatError) -> None:
        self._stopped = self._stopped or why
        calls = (*self._answering, *self._unhurried, *self._calls, *self._asides)
        futures = [done for _, done in self._waiters] + [done for _, done in calls]
        for future in futures:
            if not future.done():
                future.set_exception(self._stopped)
                future.exception()  # whoever waited may be gone; that is no error of its own


def _outcome(work: Callable[[MeshStore], T], store: MeshStore) -> tuple[T | None, QuicprochatError | None]:
    """Run one call; what it refuses is its caller's affair and not the transaction's."""
    try:
        return work(store), None
    except StoreError:
        raise
    except QuicprochatError as error:
        return None, error
