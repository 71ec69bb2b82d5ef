"""The life clock through restarts, reboots and wall clocks that lie."""

from __future__ import annotations

import pytest

from quicprochat.core.time import (
    DAY_MS,
    HOUR_MS,
    WALL_CEILING,
    WALL_FLOOR,
    ClockMark,
    Instant,
    WallTime,
    leapt,
    plausible,
    resumed,
)

YEAR_MS = 365 * DAY_MS
YEAR_1970 = WallTime(0)
YEAR_2100 = WallTime(4_102_444_800_000)
NOW = WallTime(WALL_FLOOR + YEAR_MS)


def mark(at: int = 1_000, since: int = 500, wall: int = NOW, trusted_at: int = 800, boot: bytes = b"boot") -> ClockMark:
    return ClockMark(Instant(at), boot, since, WallTime(wall), Instant(trusted_at))


@pytest.mark.parametrize(
    ("wall", "answer"),
    [
        (YEAR_1970, False), (1, False), (WALL_FLOOR - 1, False), (WALL_FLOOR, True), (NOW, True),
        (WALL_CEILING, True), (WALL_CEILING + 1, False), (YEAR_2100, False), (-1, False),
    ],
)  # fmt: skip
def test_a_wall_clock_is_plausible_from_2026_for_thirty_years(wall: int, answer: bool) -> None:
    assert plausible(wall) is answer


def test_the_floor_is_2026() -> None:
    assert WALL_FLOOR == 56 * YEAR_MS + 14 * DAY_MS


# --- at start


def test_a_new_home_begins_at_zero() -> None:
    assert resumed(None, b"boot", 10**9) == 0


def test_within_one_boot_the_outage_counts() -> None:
    assert resumed(mark(at=1_000, since=500), b"boot", 500 + HOUR_MS) == 1_000 + HOUR_MS


def test_after_a_reboot_the_outage_counts_as_zero() -> None:
    assert resumed(mark(at=1_000, since=500), b"other boot", 10**9) == 1_000


def test_a_boot_clock_that_ran_back_takes_nothing_away() -> None:
    assert resumed(mark(at=1_000, since=500), b"boot", 499) == 1_000


# --- when the wall clock can be trusted


def test_a_trusted_wall_clock_moves_the_life_clock_over_the_outage() -> None:
    assert leapt(mark(trusted_at=800), Instant(1_000), WallTime(NOW + DAY_MS), trusted=True) == 800 + DAY_MS


def test_the_life_clock_never_moves_back() -> None:
    for wall in (NOW - DAY_MS, NOW, NOW + 199):
        assert leapt(mark(trusted_at=800), Instant(1_000), WallTime(wall), trusted=True) == 1_000


@pytest.mark.parametrize(
    "wall", [YEAR_1970, WallTime(1), WallTime(WALL_FLOOR - 1), WallTime(WALL_CEILING + 1), YEAR_2100]
)
def test_an_impossible_wall_clock_proves_nothing(wall: WallTime) -> None:
    assert leapt(mark(wall=WALL_FLOOR), Instant(1_000), wall, trusted=True) == 1_000


def test_an_untrusted_wall_clock_proves_nothing() -> None:
    assert leapt(mark(), Instant(1_000), WallTime(NOW + DAY_MS), trusted=False) == 1_000


def test_nothing_is_proved_without_a_trusted_moment_before() -> None:
    assert leapt(mark(wall=0), Instant(1_000), WallTime(NOW + DAY_MS), trusted=True) == 1_000
    assert leapt(None, Instant(1_000), WallTime(NOW + DAY_MS), trusted=True) == 1_000


def test_one_leap_is_bounded_by_the_plausible_range() -> None:
    assert leapt(mark(wall=WALL_FLOOR, trusted_at=0), Instant(0), WALL_CEILING, trusted=True) == 30 * YEAR_MS


def test_a_clock_that_jumps_to_and_fro_moves_forward_once() -> None:
    at, last = Instant(1_000), mark(trusted_at=800)
    for jump in (HOUR_MS, -DAY_MS, HOUR_MS, -NOW, HOUR_MS, YEAR_2100):
        at = leapt(last, at, WallTime(NOW + jump), trusted=True)
    assert at == 800 + HOUR_MS


def test_after_a_reboot_into_1970_the_life_clock_goes_on_and_catches_up_later() -> None:
    """A router: two days off, then an hour without the time, then synchronised."""
    before = mark(at=5_000, since=4_000, trusted_at=5_000)
    at = resumed(before, b"next boot", 30_000)
    assert at == 5_000
    at = leapt(before, Instant(at + HOUR_MS), WallTime(HOUR_MS), trusted=False)
    assert at == 5_000 + HOUR_MS
    at = leapt(before, at, WallTime(NOW + 2 * DAY_MS + HOUR_MS), trusted=True)
    assert at == 5_000 + 2 * DAY_MS + HOUR_MS
