"""Counting over the last minute."""

from __future__ import annotations

from quicprochat.core.time import Instant
from quicprochat.server.meter import Meter


class Clock:
    def __init__(self) -> None:
        self.ms = 5_000_000

    def __call__(self) -> Instant:
        return Instant(self.ms)


def test_what_was_counted_leaves_the_minute_and_stays_in_the_total() -> None:
    clock = Clock()
    meter = Meter(clock)
    meter.count("stored", 3)
    clock.ms += 30_000
    meter.count("stored")
    meter.count("duplicate")
    assert meter.last_minute() == {"stored": 4, "duplicate": 1}
    clock.ms += 29_999
    assert meter.last_minute() == {"stored": 4, "duplicate": 1}
    clock.ms += 1
    assert meter.last_minute() == {"stored": 1, "duplicate": 1}
    clock.ms += 30_000
    assert meter.last_minute() == {}
    assert meter.totals() == {"stored": 4, "duplicate": 1}


def test_a_long_silence_or_a_leap_of_the_clock_empties_the_minute() -> None:
    clock = Clock()
    meter = Meter(clock)
    meter.count("stored")
    clock.ms += 10**12
    assert meter.last_minute() == {}
    meter.count("stored")
    assert meter.last_minute() == {"stored": 1}
