"""Pushing: what waits for a client goes to its receiver, few at a time; the store keeps the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.server.queue import Delivery, Queue

BATCH = 64
BATCH_BYTES = 64 * 1024
"""Of one batch, or a single envelope that is longer."""
IN_FLIGHT = 4
"""Batches sent and not answered: a client that never reads costs us these and no more."""

Deliver = Callable[[Sequence[Delivery]], Awaitable[Sequence[EnvelopeId]]]
"""Hand a batch to the client; return the ids that need not come again. Raises: UnavailableError."""


class Pusher:
    """One client's receiver. :meth:`run` lives as long as its connection."""

    def __init__(self, queue: Queue, recipient: PeerKey, deliver: Deliver, room: Callable[[], Awaitable[None]]) -> None:
        self._queue = queue
        self._recipient = recipient
        self._deliver = deliver
        self._taken = room
        self._news = asyncio.Event()
        self._news.set()
        self._room = asyncio.Semaphore(IN_FLIGHT)

    def news(self) -> None:
        """Look again: something came."""
        self._news.set()

    async def run(self) -> None:
        """Push until cancelled. Raises: UnavailableError when the client is gone; StoreError."""
        after, limit = 0, BATCH
        async with asyncio.TaskGroup() as group:
            while True:
                await self._news.wait()
                self._news.clear()
                while found := await self._queue.waiting(self._recipient, after, limit):
                    batch = bounded(found)
                    after = batch[-1].serial
                    # Long envelopes are not read sixty-four at a time to send one.
                    limit = len(batch) if len(batch) < len(found) else min(BATCH, 2 * limit)
                    await self._taken()
                    await self._room.acquire()
                    group.create_task(self._hand_over(batch))

    async def _hand_over(self, batch: Sequence[Delivery]) -> None:
        try:
            done = await self._deliver(batch)
        finally:
            self._room.release()
        if taken := {delivery.id for delivery in batch} & set(done):
            await self._queue.taken(sorted(taken))


def bounded(batch: list[Delivery]) -> list[Delivery]:
    """Return as many of them as fit into one answer, at least one."""
    size = 0
    for n, delivery in enumerate(batch):
        size += len(delivery.wire)
        if n and size > BATCH_BYTES:
            return batch[:n]
    return batch
