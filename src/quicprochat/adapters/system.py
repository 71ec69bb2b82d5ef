"""The machine's clocks and entropy: the only place that asks for them."""

from __future__ import annotations

import ctypes
import os
import random
import time
from pathlib import Path

from quicprochat.core.time import ClockMark, Instant, Now, WallTime, leapt, plausible, resumed

_TIME_ERROR = 5
"""adjtimex(2): the kernel's clock is not synchronised."""
_SYNC_CHECK_MS = 60_000


def entropy(count: int) -> bytes:
    """Return ``count`` unpredictable bytes from the kernel."""
    return os.urandom(count)


def kernel_synchronised() -> bool:
    """Say whether the kernel believes its wall clock to be synchronised (adjtimex(2)); False where it cannot tell."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        buffer = ctypes.create_string_buffer(512)  # struct timex, larger than on any platform; modes 0 only reads
        state: int = libc.adjtimex(buffer)
    except (OSError, AttributeError):
        return False
    return 0 <= state < _TIME_ERROR


def boot_id() -> bytes:
    """Return what names this boot of the machine; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    except OSError:
        return b""


def _since_boot_ms() -> int:
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime_ns(clock) // 1_000_000


class SystemClock:
    """The life clock of a home on this machine; see ``core.time``.

    Counts sleep. Call :meth:`now` for the moment of a step, and keep :meth:`mark` in the store with every write.
    """

    def __init__(self, stored: bytes | None) -> None:
        self._boot = boot_id()
        self._start_ms = _since_boot_ms()
        self._mark = decode_mark(stored) if stored else None
        self._base = resumed(self._mark, self._boot, self._start_ms)
        self._synchronised = False
        self._checked_ms: int | None = None
        self._trusted: tuple[WallTime, Instant] | None = None

    def now(self) -> Now:
        """Return this moment."""
        since = _since_boot_ms()
        if self._checked_ms is None or since - self._checked_ms > _SYNC_CHECK_MS:
            self._synchronised, self._checked_ms = kernel_synchronised(), since
        wall = WallTime(time.time_ns() // 1_000_000)
        trusted = self._synchronised and plausible(wall)
        at = Instant(self._base + since - self._start_ms)
        ahead = leapt(self._mark, at, wall, trusted=trusted)
        if ahead > at:
            self._base = Instant(self._base + ahead - at)
            at = ahead
        if trusted:
            self._trusted = (wall, at)
        return Now(at, wall, trusted)

    def mark(self, now: Now) -> bytes:
        """Return what to store so that the next run takes up where this one is."""
        wall, at = self._trusted or (
            (self._mark.trusted_wall, self._mark.trusted_at) if self._mark else (WallTime(0), Instant(0))
        )
        return encode_mark(ClockMark(now.at, self._boot, _since_boot_ms(), wall, at))


def encode_mark(mark: ClockMark) -> bytes:
    """Return a clock mark as text: five fields with a space between."""
    fields = (mark.at, mark.boot_id.decode("ascii") or "-", mark.since_boot_ms, mark.trusted_wall, mark.trusted_at)
    return " ".join(str(field) for field in fields).encode("ascii")


def decode_mark(data: bytes) -> ClockMark | None:
    """Read a stored clock mark; None for what is none, since a wrong clock is worse than a fresh one."""
    try:
        at, boot, since, wall, trusted_at = data.decode("ascii").split(" ")
        name = b"" if boot == "-" else boot.encode("ascii")
        return ClockMark(Instant(int(at)), name, int(since), WallTime(int(wall)), Instant(int(trusted_at)))
    except ValueError:
        return None


def jitter() -> float:
    """Return a number in [0, 1) that spreads retries; for timing only, never for keys."""
    return random.random()
