"""Notices that the machine has slept: its links are dead, though nobody has said so yet."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from quicprochat.core.time import Instant

log = logging.getLogger("quicprochat")

POLL_S = 2.0
SLEPT_MS = 5_000


async def watch_sleep(instant: Callable[[], Instant], awake: Callable[[], None]) -> None:
    """Call ``awake`` after each sleep of the machine, until cancelled.

    The loop's clock stands still while the machine sleeps, the life clock (``instant``) does not.
    """
    loop = asyncio.get_running_loop()
    before, alive = loop.time(), instant()
    while True:
        await asyncio.sleep(POLL_S)
        slept = (instant() - alive) - 1_000 * (loop.time() - before)
        before, alive = loop.time(), instant()
        if slept > SLEPT_MS:
            log.debug("awake after %.0f s", slept / 1_000)
            awake()
