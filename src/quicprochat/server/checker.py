"""Signatures are checked in one thread beside the event loop; what comes while it works is its next batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from quicprochat.core.crypto import Crypto
from quicprochat.core.gate import Checked, Reject, check
from quicprochat.core.ids import PeerKey

INLINE = 2
"""So few envelopes are checked on the spot: a thread costs more than it frees, and they wait behind nobody's batch."""
BATCH = 256
"""Envelopes that go to the thread together: some 20 ms of its time. With 64 a server's transactions were smaller, and
an envelope cost more."""

Results = list[Checked | Reject]
_Job = tuple[PeerKey, Sequence[bytes], "asyncio.Future[Results]"]


class Checker:
    """The stateless half of the gate for everything that clients send."""

    def __init__(self, crypto: Crypto) -> None:
        self._crypto = crypto
        self._thread = ThreadPoolExecutor(1, "check")
        self._few: list[_Job] = []
        """Small ones of this turn of the loop."""
        self._small: deque[_Job] = deque()
        self._many: deque[_Job] = deque()
        self._many_first = False
        self._soon = False
        self._busy = False

    def close(self) -> None:
        """Let go of the thread; nothing may be under way."""
        self._thread.shutdown(wait=True)

    async def check(self, me: PeerKey, envelopes: Sequence[bytes]) -> Results:
        """Judge envelopes; see ``gate.check``."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Results] = loop.create_future()
        (self._few if len(envelopes) <= INLINE else self._many).append((me, envelopes, done))
        if not self._soon:
            self._soon = True
            loop.call_soon(self._look)  # others may have come with this one
        return await done

    def _look(self) -> None:
        self._soon = False
        few, self._few = self._few, []
        if sum(len(envelopes) for _, envelopes, _ in few) <= INLINE:
            self._answer(few, self._work(few))
        else:
            self._small.extend(few)
        if not self._busy:
            self._next()

    def _next(self) -> None:
        """Take the next batch: small ones first, but a large one at the latest after a batch without."""
        batch: list[_Job] = []
        count = 0
        queues = (self._many, self._small) if self._many_first else (self._small, self._many)
        for queue in queues:
            while queue and (not batch or count + len(queue[0][1]) <= BATCH):
                one = queue.popleft()
                if not one[2].cancelled():
                    batch.append(one)
                    count += len(one[1])
                if self._many_first and queue is self._many:
                    break
        self._many_first = bool(self._many) and all(len(one[1]) <= INLINE for one in batch)
        self._busy = bool(batch)
        if batch:
            work = asyncio.get_running_loop().run_in_executor(self._thread, self._work, batch)
            work.add_done_callback(partial(self._checked, batch))

    def _work(self, batch: Sequence[_Job]) -> list[Results]:
        return [[check(data, me, {}, self._crypto) for data in envelopes] for me, envelopes, _ in batch]

    def _answer(self, batch: Sequence[_Job], results: list[Results]) -> None:
        for (_, _, done), result in zip(batch, results, strict=True):
            if not done.done():
                done.set_result(result)

    def _checked(self, batch: Sequence[_Job], work: asyncio.Future[list[Results]]) -> None:
        error = work.exception()
        if error is None:
            self._answer(batch, work.result())
        else:  # a fault of ours, which its callers get: the others go on
            for _, _, done in batch:
                if not done.done():
                    done.set_exception(error)
        self._next()
