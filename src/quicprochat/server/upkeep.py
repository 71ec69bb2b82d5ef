"""What a server's store needs from time to time: what is expired or nobody's goes, and old ids, invites and users are
forgotten."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from quicprochat.core.events import Effect, Event
from quicprochat.core.store import MeshStore
from quicprochat.core.time import DAY_MS, HOUR_MS, Instant, Now

SWEEP_BATCH = 256
"""Rows of one kind in one transaction: nobody waits long behind a sweep."""
USERS_BATCH = 16
"""Each may leave a whole queue to delete."""
SWEEP_EVERY_MS = HOUR_MS
AWAY_MS = DAY_MS
"""A gap in the server's own life from which on nobody is blamed for not having come meanwhile."""
PRESENT_KEY = "server.present"
SEEN_MAX = 500_000
"""Ids of posts that left their window; the longest gone are forgotten (guess)."""


def _nothing(_: Now, there_ms: int, limit: int) -> bool:
    return False


class Upkeep:
    """Driven by the same driver as a node; it has no links and lets nothing out.

    ``forget_idle`` forgets so many users who did not come for ``patience_ms``; see :meth:`Members.forget_idle`. None of
    them before the server has been there for so long itself: nobody can come to a server that is off or asleep, and its
    life clock may have leapt because a wall clock was wrong. ``channels`` does the same for channels, is told for how
    long the server has been there, and says whether there is more to do.
    """

    def __init__(
        self,
        forget_idle: Callable[[Now, int], int],
        patience_ms: int,
        channels: Callable[[Now, int, int], bool] = _nothing,
    ) -> None:
        self._channels = channels
        self._forget_idle = forget_idle
        self._patience_ms = patience_ms
        self._sweep_at = Instant(0)
        self._last = self._since = Instant(0)

    def start(self, tx: MeshStore, now: Now) -> Sequence[Effect]:
        """Sweep at once: much may have expired since the last run."""
        self._sweep_at = self._last = self._since = now.at
        with suppress(ValueError):  # of a damaged value nothing is believed
            last, since = (tx.value(PRESENT_KEY) or b"").decode("ascii").split(" ")
            self._last, self._since = Instant(int(last)), Instant(int(since))
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
        there_ms = self._there_ms(tx, now)
        idle = self._forget_idle(now, USERS_BATCH if there_ms >= self._patience_ms else 0)
        more = len(expired) == SWEEP_BATCH or forgotten == SWEEP_BATCH or idle == USERS_BATCH
        more |= tx.forget_passed(SEEN_MAX, SWEEP_BATCH) == SWEEP_BATCH
        more |= self._channels(now, there_ms, SWEEP_BATCH)
        self._sweep_at = now.at if more else Instant(now.at + SWEEP_EVERY_MS)
        return ()

    def _there_ms(self, tx: MeshStore, now: Now) -> int:
        """Note that the server is here; return for how long it has been."""
        if now.at - self._last >= AWAY_MS:
            self._since = now.at
        self._last = now.at
        tx.set_value(PRESENT_KEY, f"{self._last} {self._since}".encode("ascii"))
        return now.at - self._since

    def next_deadline(self) -> Instant:
        """Return when to sweep next."""
        return self._sweep_at
