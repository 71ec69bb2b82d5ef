"""Three kinds of time that must never be mixed, and the one clock that the store can rely on.

Clocks of routers start in 1970 and jump; so lifetimes are counted on the *life clock* of a home: milliseconds this
home has lived. It never goes back, survives restarts, and counts an outage only when the wall clock can be trusted
(RFC 9171 §4.2.1 solves the same with a bundle age). Wall time is shown to people and never orders a timer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

Instant = NewType("Instant", int)
"""Milliseconds on the life clock of this home. Stored; comparable across restarts of the same home only."""

WallTime = NewType("WallTime", int)
"""Milliseconds since 1970-01-01 UTC as the wall clock says; 0 means unknown. Shown, never compared with Instants."""

SECOND_MS = 1_000
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000

WALL_FLOOR = WallTime(1_767_225_600_000)
"""2026-01-01 UTC: this software did not exist before, so a wall clock that says less is wrong."""

WALL_CEILING = WallTime(WALL_FLOOR + 30 * 365 * DAY_MS)
"""A wall clock more than thirty years ahead of the floor is wrong too (guess; bounds one leap of the life clock)."""


@dataclass(frozen=True, slots=True)
class Now:
    """The moment a step runs at: life clock, wall clock, and whether the wall clock may be believed."""

    at: Instant
    wall: WallTime = WallTime(0)
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class ClockMark:
    """What is persisted of the clocks: the life clock, the boot it was read in, and the last trusted pair.

    ``boot_id`` names one boot of the machine, ``since_boot_ms`` counts from it including sleep (CLOCK_BOOTTIME).
    ``trusted_wall`` is 0 until the wall clock was trusted once; ``trusted_at`` is the life clock
    at that moment and ``trusted_boot`` the boot it was in.
    """

    at: Instant
    boot_id: bytes
    since_boot_ms: int
    trusted_wall: WallTime = WallTime(0)
    trusted_at: Instant = Instant(0)
    trusted_boot: bytes = b""


def plausible(wall: int) -> bool:
    """Say whether a wall clock reading can be right at all."""
    return WALL_FLOOR <= wall <= WALL_CEILING


def resumed(mark: ClockMark | None, boot_id: bytes, since_boot_ms: int) -> Instant:
    """Return the life clock at start: the persisted one, plus the outage where the same boot measured it.

    After a reboot the outage counts as zero until the wall clock is trusted (see :func:`leapt`): a message lives
    longer than promised rather than dying early.
    """
    if mark is None:
        return Instant(0)
    outage = since_boot_ms - mark.since_boot_ms if boot_id and mark.boot_id == boot_id else 0
    return Instant(mark.at + max(0, outage))


def leapt(mark: ClockMark | None, at: Instant, wall: WallTime, *, trusted: bool, boot_id: bytes = b"") -> Instant:
    """Return the life clock moved forward over an outage that a trusted wall clock now proves.

    Never moves back; a wall clock outside the plausible range proves nothing. Within the boot in which the wall clock
    was trusted already there is nothing to make up: that boot has measured the time itself, and a time server that is
    wrong must not age what waits.
    """
    if mark is None or not trusted or not mark.trusted_wall or not plausible(wall):
        return at
    if boot_id and mark.trusted_boot == boot_id:
        return at
    return Instant(max(at, mark.trusted_at + (wall - mark.trusted_wall)))
