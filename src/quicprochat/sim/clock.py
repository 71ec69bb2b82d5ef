"""One machine's clocks in a simulated world: a wall clock that may lie, and the life clock of the home on it.

Follows what ``adapters/system.py`` does on a real machine, with the same functions of ``core.time``.
"""

from __future__ import annotations

from dataclasses import replace

from quicprochat.core.time import DAY_MS, WALL_FLOOR, ClockMark, Instant, Now, WallTime, leapt, plausible, resumed

WORLD_BEGIN = WallTime(WALL_FLOOR + 300 * DAY_MS)
"""The true wall time at world time 0."""
SHOWS_1970 = -WORLD_BEGIN
SHOWS_2100 = 4_102_444_800_000 - WORLD_BEGIN
"""Values of ``skew_ms`` for a clock that woke up in 1970, or in 2100."""


class Clock:
    """``synchronised`` is what the machine believes of its wall clock, ``skew_ms`` how wrong that clock is."""

    def __init__(self, *, skew_ms: int = 0, synchronised: bool = True) -> None:
        self.skew_ms = skew_ms
        self.synchronised = synchronised
        self._mark: ClockMark | None = None
        self._begun_from: ClockMark | None = None
        self._boots = 0
        self._booted_at = 0
        self._started_at = 0
        self._base = Instant(0)
        self._trusted: tuple[WallTime, Instant] | None = None

    def start(self, time: int, *, rebooted: bool) -> None:
        """Begin a run of the home: take up from what the last commit kept."""
        if rebooted or not self._boots:
            self._boots += 1
            self._booted_at = time
        self._started_at = time
        self._begun_from = self._mark
        self._base = resumed(self._mark, self._boot_id, time - self._booted_at)
        self._trusted = None

    @property
    def _boot_id(self) -> bytes:
        return b"boot %d" % self._boots

    def now(self, time: int) -> Now:
        """Return this moment as the machine sees it."""
        wall = WallTime(WORLD_BEGIN + time + self.skew_ms)
        trusted = self.synchronised and plausible(wall)
        at = Instant(self._base + time - self._started_at)
        if self._trusted is None:
            ahead = leapt(self._begun_from, at, wall, trusted=trusted, boot_id=self._boot_id)
            self._base = Instant(self._base + ahead - at)
            at = ahead
        if trusted:
            self._trusted = (wall, at)
        return Now(at, wall, trusted)

    def keep(self, time: int, now: Now) -> None:
        """Keep the moment of a step that was committed."""
        mark, last = ClockMark(now.at, self._boot_id, time - self._booted_at), self._begun_from
        if self._trusted is not None:
            wall, at = self._trusted
            mark = replace(mark, trusted_wall=wall, trusted_at=at, trusted_boot=self._boot_id)
        elif last is not None:
            mark = replace(
                mark, trusted_wall=last.trusted_wall, trusted_at=last.trusted_at, trusted_boot=last.trusted_boot
            )
        self._mark = mark
