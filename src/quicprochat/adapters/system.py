"""The machine's clocks and entropy: the only place that asks for them."""

from __future__ import annotations

import ctypes
import datetime
import os
import random
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from quicprochat.core.time import ClockMark, Instant, Now, WallTime, leapt, plausible, resumed

_TIME_ERROR = 5
"""adjtimex(2): the kernel's clock is not synchronised."""

_WORD_HOLDS_MS = 1_000
"""How long the kernel's word about its clock is taken without asking again: asking costs as much as a small step."""

_SIDE_BY_SIDE_MS = 2
"""Two clocks read in milliseconds may differ by one more than before and nobody set either."""


def entropy(count: int) -> bytes:
    """Return ``count`` unpredictable bytes from the kernel."""
    return os.urandom(count)


@lru_cache(maxsize=1)
def _adjtimex() -> Callable[[object], int] | None:
    try:
        function: Callable[[object], int] = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None
    return function


def kernel_synchronised() -> bool:
    """Say whether the kernel believes its wall clock to be synchronised (adjtimex(2)); False where it cannot tell."""
    adjtimex = _adjtimex()
    # struct timex is smaller than this on every platform; modes 0, its first field, only reads.
    return adjtimex is not None and 0 <= adjtimex(ctypes.create_string_buffer(512)) < _TIME_ERROR


def boot_id() -> bytes:
    """Return what names this boot of the machine; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    except OSError:
        return b""


def _since_boot_ms() -> int:
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime_ns(clock) // 1_000_000


def monotonic_us() -> int:
    """Return CLOCK_MONOTONIC in microseconds, for those who compare with their own reading of it."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000


def utc_now() -> datetime.datetime:
    """Return what the wall clock says, for comparing with a certificate; nobody says that it is right."""
    return datetime.datetime.now(datetime.UTC)


class SystemClock:
    """The life clock of a home on this machine; see ``core.time``.

    Counts sleep. Call :meth:`now` for the moment of a step, and keep :meth:`mark` in the store with every write.
    """

    def __init__(self, stored: bytes | None) -> None:
        self._boot = boot_id()
        self._start_ms = _since_boot_ms()
        self._mark = decode_mark(stored) if stored else None
        self._base = resumed(self._mark, self._boot, self._start_ms)
        self._trusted: tuple[WallTime, Instant] | None = None
        self._synchronised = False
        self._asked: tuple[int, int] | None = None

    def now(self) -> Now:
        """Return this moment."""
        since = _since_boot_ms()
        wall = WallTime(time.time_ns() // 1_000_000)
        trusted = self._kernels_word(since, wall) and plausible(wall)
        at = Instant(self._base + since - self._start_ms)
        if self._trusted is None:
            ahead = leapt(self._mark, at, wall, trusted=trusted, boot_id=self._boot)
            self._base = Instant(self._base + ahead - at)
            at = ahead
        # Of the trusted moments of a run the one is kept that makes the next outage shortest: where a time server was
        # wrong for a while, and set the wall clock back, the way forward again must not pass for time that went by.
        if trusted and (self._trusted is None or wall - at >= self._trusted[0] - self._trusted[1]):
            self._trusted = (wall, at)
        return Now(at, wall, trusted)

    def _kernels_word(self, since: int, wall: WallTime) -> bool:
        # Whoever sets the wall clock by hand takes the kernel's word away at that moment, and parts the two clocks.
        if (
            self._asked is None
            or since - self._asked[0] >= _WORD_HOLDS_MS
            or abs((wall - since) - self._asked[1]) >= _SIDE_BY_SIDE_MS
        ):
            self._asked = (since, wall - since)
            self._synchronised = kernel_synchronised()
        return self._synchronised

    def mark(self, now: Now) -> bytes:
        """Return what to store so that the next run takes up where this one is."""
        since, last = _since_boot_ms(), self._mark
        if self._trusted is not None:
            return encode_mark(ClockMark(now.at, self._boot, since, *self._trusted, self._boot))
        if last is not None:
            kept = (last.trusted_wall, last.trusted_at, last.trusted_boot)
            return encode_mark(ClockMark(now.at, self._boot, since, *kept))
        return encode_mark(ClockMark(now.at, self._boot, since))


def encode_mark(mark: ClockMark) -> bytes:
    """Return a clock mark as text: six fields with a space between."""
    boots = [boot.decode("ascii") or "-" for boot in (mark.boot_id, mark.trusted_boot)]
    fields = (mark.at, boots[0], mark.since_boot_ms, mark.trusted_wall, mark.trusted_at, boots[1])
    return " ".join(str(field) for field in fields).encode("ascii")


def decode_mark(data: bytes) -> ClockMark | None:
    """Read a stored clock mark; None for what is none, since a wrong clock is worse than a fresh one."""
    try:
        at, boot, since, wall, trusted_at, trusted_boot = data.decode("ascii").split(" ")
        boots = [b"" if name == "-" else name.encode("ascii") for name in (boot, trusted_boot)]
        return ClockMark(
            Instant(int(at)), boots[0], int(since), WallTime(int(wall)), Instant(int(trusted_at)), boots[1]
        )
    except ValueError:
        return None


def jitter() -> float:
    """Return a number in [0, 1) that spreads retries; for timing only, never for keys."""
    return random.random()
