"""What a server's store needs from time to time: what is expired goes, and old ids, invites and users are forgotten."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quicprochat.core.events import Effect, Event
from quicprochat.core.store import MeshStore
from quicprochat.core.time import HOUR_MS, Instant, Now

SWEEP_BATCH = 256
"""Rows of one kind in one transaction: nobody waits long behind a sweep."""
USERS_BATCH = 16
"""Each may leave a whole queue to delete."""
SWEEP_EVERY_MS = HOUR_MS


class Upkeep:
    """Driven by the same driver as a node; it has no links and lets nothing out.

    ``forget_idle`` forgets users who are gone for good; see :meth:`Members.forget_idle`.
    """

    def __init__(self, forget_idle: Callable[[Now, int], int]) -> None:
        self._forget_idle = forget_idle
        self._sweep_at = Instant(0)

    def start(self, tx: MeshStore, now: Now) -> Sequence[Effect]:
        """Sweep at once: much may have expired since the last run."""
        self._sweep_at = now.at
        return ()

    def step(self, events: Sequence[Event], tx: MeshStore, now: Now) -> Sequence[Effect]:
        """Sweep when it is time; a full batch means that there is more, and the next step takes it."""
        if now.at < self._sweep_at:
            return ()
        expired = tx.expired(now.at, SWEEP_BATCH)
        for held in expired:
            tx.release(held.id)
            tx.count("expired")
        forgotten = tx.forget(now.at, SWEEP_BATCH)
        idle = self._forget_idle(now, USERS_BATCH)
        more = len(expired) == SWEEP_BATCH or forgotten == SWEEP_BATCH or idle == USERS_BATCH
        self._sweep_at = now.at if more else Instant(now.at + SWEEP_EVERY_MS)
        return ()

    def next_deadline(self) -> Instant:
        """Return when to sweep next."""
        return self._sweep_at
