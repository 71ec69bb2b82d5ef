"""A courier empties one domain's outbox. Each domain has its own, so one that is down keeps nobody else waiting."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from quicprochat.adapters.rpc import Problem
from quicprochat.adapters.system import entropy
from quicprochat.core.errors import QuicprochatError, StoreError
from quicprochat.core.federation import Parcel
from quicprochat.core.gate import Verdict
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.time import Instant
from quicprochat.server.federation.client import FederationClient
from quicprochat.server.federation.fresh import Fresh
from quicprochat.server.federation.outbox import Outbox
from quicprochat.server.federation.rules import (
    BATCH_BYTES,
    OFFERED_MAX,
    OUT_IN_FLIGHT,
    PUT_OFF_FIRST_MS,
    RETRY_FIRST_S,
    RETRY_LAST_S,
)
from quicprochat.server.meter import Meter
from quicprochat.server.queue import Outcome
from quicprochat.server.turns import FEW, ServerDriver

log = logging.getLogger("quicprochat.server.federation")

OF_THE_BATCH = frozenset({"usage", "too_long", "protocol", "internal"})
"""Problems that something in the batch may have made; another batch may get through."""


WRITING_MAX = 2 * OUT_IN_FLIGHT
"""Batches answered whose answers are not written down yet."""


class Courier:
    """Lives as long as the operator lists the domain. ``told`` hears of authors for whom there are reports;
    ``traffic`` counts what became of envelopes."""

    def __init__(
        self,
        domain: str,
        driver: ServerDriver,
        outbox: Outbox,
        client: FederationClient,
        meter: Meter,
        told: Callable[[Iterable[PeerKey]], None],
        traffic: Counter[str],
    ) -> None:
        self.domain = domain
        self.failures = 0
        """Attempts that failed since the last one that did not."""
        self.trouble = ""
        """Why the last one failed."""
        self.retry_at: int | None = None
        """When the next is made, on the life clock; None when nothing is waited for."""
        self._driver = driver
        self._outbox = outbox
        self._client = client
        self._meter = meter
        self._told = told
        self._traffic = traffic
        self._news = asyncio.Event()
        self._contact = asyncio.Event()
        self._writing: set[asyncio.Task[None]] = set()  # answers that are being written down
        self._size = OFFERED_MAX
        self._fresh = Fresh()

    def news(self, parcels: Sequence[Parcel]) -> None:
        """There is something to send, which is in the outbox and durable."""
        self._fresh.add(parcels)
        self._news.set()

    def contact(self) -> None:
        """The domain seems to be reachable: try now, and all that may be tried."""
        self._fresh.put_off(self._driver.now().at)
        self._contact.set()
        self._news.set()

    def reached(self) -> None:
        """There is a connection: what kept us from one is over."""
        if not self.failures and self.trouble:
            log.info("%s is reached now", self.domain)
            self.trouble = ""

    def unreached(self, error: QuicprochatError) -> None:
        """The domain could not be reached, though there was nothing to send."""
        if not self.failures:
            self.trouble = str(error)

    async def run(self) -> None:
        """Send until cancelled. Raises: StoreError."""
        self._fresh.restart(self._driver.now().at)  # after a fault: what was under way is only in the outbox
        while True:
            await self._until_due()
            self._contact.clear()
            try:
                await self._empty()
            except StoreError:
                raise
            except QuicprochatError as error:
                self._fresh.restart(self._driver.now().at)
                await self._rest(error)

    async def _until_due(self) -> None:
        while True:
            self._news.clear()
            if self._fresh.waits(self._driver.now().at):
                return
            due = await self._driver.read(lambda _: self._outbox.next_due(self.domain))
            now = self._driver.now().at
            if due is not None and due <= now:
                self._fresh.restart(now)
                return
            self._fresh.good_until(due)
            try:
                async with asyncio.timeout(None if due is None else (due - now) / 1_000 + 0.001):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def _rest(self, error: QuicprochatError) -> None:
        """Pause after a failure; a sign that the domain is reachable ends the pause."""
        if not self.failures:
            log.info("%s cannot be served for now: %s", self.domain, error)
        self.failures += 1
        self.trouble = str(error)
        pause = pause_s(self.failures)
        self.retry_at = self._driver.now().at + int(1_000 * pause)
        try:
            async with asyncio.timeout(pause):
                await self._contact.wait()
        except TimeoutError:
            pass
        self.retry_at = None

    async def _empty(self) -> None:
        """Send what is due, several batches at a time, until nothing is. Raises: QuicprochatError."""
        calls: set[asyncio.Task[None]] = set()
        try:
            while True:
                self._news.clear()
                while (
                    len(calls) < OUT_IN_FLIGHT
                    and len(self._writing) < WRITING_MAX
                    and (batch := await self._next_batch())
                ):
                    calls.add(asyncio.create_task(self._hand_over(batch)))
                if not calls and not self._writing:
                    return
                news = asyncio.create_task(self._news.wait())
                try:
                    done, _ = await asyncio.wait({*calls, *self._writing, news}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    news.cancel()
                calls -= done
                self._writing -= done
                failed = [error for call in done - {news} if (error := call.exception())]
                if failed:  # all of them are looked at; what the store says goes before what a domain says
                    raise next((error for error in failed if isinstance(error, StoreError)), failed[0])
        finally:
            for call in calls:
                call.cancel()
            # What was answered must not be offered again before that is written.
            await asyncio.gather(*calls, return_exceptions=True)
            await asyncio.gather(*self._writing, return_exceptions=True)
            self._writing.clear()

    async def _next_batch(self) -> list[Parcel]:
        """Return what is due next; nothing again that was returned before: its answer is on its way."""
        fresh, now = self._fresh, self._driver.now().at
        if fresh.complete(now):
            return fresh.take(self._size, now)
        if fresh.over(now):
            return []  # until what is under way is done with; then the outbox is read from its beginning
        fresh.reading()
        parcels, orphans = await self._read()
        while orphans:
            await self._driver.call(partial(self._drop, orphans))
            if parcels:
                break
            parcels, orphans = await self._read()
        size = 0
        for n, parcel in enumerate(parcels):
            size += len(parcel.held.wire)
            if n and size > BATCH_BYTES:
                parcels = parcels[:n]
                break
        fresh.read(parcels)
        return parcels

    async def _read(self) -> tuple[list[Parcel], list[EnvelopeId]]:
        return await self._driver.read(lambda _: self._outbox.due(self.domain, self._size, self._fresh.upto))

    def _drop(self, orphans: Sequence[EnvelopeId], _: object) -> None:
        self._outbox.drop(orphans)

    async def _hand_over(self, batch: list[Parcel]) -> None:
        now = self._driver.now().at
        try:
            outcomes = await self._client.relay_enqueue(
                self.domain, [parcel.held.to_send(now) for parcel in batch]
            )  # fmt: skip
        except StoreError:
            raise
        except QuicprochatError as error:
            await self._failed(batch, error)
            raise
        if self.failures:
            log.info("%s is served again", self.domain)
        self.failures, self.trouble = 0, ""
        self._writing.add(asyncio.create_task(self._write_down(batch, outcomes)))

    async def _write_down(self, batch: list[Parcel], outcomes: list[Outcome]) -> None:
        def write_down(_: object) -> set[PeerKey]:
            # Should we die before, they are offered again, and known there.
            return self._outbox.answered(batch, outcomes)

        if len(batch) > FEW or len(self._writing) >= WRITING_MAX // 2:
            told = await self._driver.call_for(len(batch), write_down)
        else:
            told = await self._driver.call_unhurried(write_down)
        self._size = min(OFFERED_MAX, 2 * self._size)
        if any(outcome.verdict is Verdict.DEFERRED for outcome in outcomes):
            self._fresh.put_off(Instant(self._driver.now().at + PUT_OFF_FIRST_MS))
        for verdict, count in Counter(outcome.verdict for outcome in outcomes).items():
            self._traffic[f"out_{verdict.name.lower()}"] += count
            if verdict is Verdict.STORED:
                self._meter.count("relayed", count)
        self._told(told)

    async def _failed(self, batch: list[Parcel], error: QuicprochatError) -> None:
        """Find out, by smaller and smaller batches, whether one envelope is to blame, and let the others pass it."""
        poison = isinstance(error, Problem) and error.code in OF_THE_BATCH
        if len(batch) == 1:
            told = await self._driver.call(lambda _: self._outbox.failed_alone(batch[0], poison=poison))
            self._told(told)
        if poison:
            # The domain answers: looking for the culprit need not take longer and longer.
            self.failures = 0
        self._size = max(1, len(batch) // 2)


def pause_s(failures: int) -> float:
    """Return how long to rest after so many failures."""
    return float(min(RETRY_LAST_S, RETRY_FIRST_S * 2.0 ** min(failures - 1, 16)) * _jitter())


def _jitter() -> float:
    """Return a factor from 0.75 to 1, so that servers that lost the same path do not come back at one moment."""
    return 0.75 + 0.25 * entropy(1)[0] / 255
