"""The token bucket."""

from __future__ import annotations

import pytest

from quicprochat.core.bucket import TokenBucket
from quicprochat.core.time import Instant


def taken(bucket: TokenBucket, now: int, most: int) -> int:
    """How many single tokens are there, of so many asked for."""
    return sum(bucket.take(Instant(now)) for _ in range(most))


def test_so_many_at_once_and_no_more() -> None:
    assert taken(TokenBucket(5, 1, Instant(0)), 0, 100) == 5


def test_so_many_a_second_after_that() -> None:
    bucket = TokenBucket(5, 2, Instant(0))
    taken(bucket, 0, 5)
    assert [taken(bucket, now, 100) for now in (499, 500, 1_500, 1_500)] == [0, 1, 2, 0]


def test_rest_saves_up_no_more_than_one_burst() -> None:
    bucket = TokenBucket(5, 2, Instant(0))
    taken(bucket, 0, 3)
    assert taken(bucket, 10**9, 100) == 5


def test_several_are_taken_together_or_not_at_all() -> None:
    bucket = TokenBucket(5, 1, Instant(0))
    assert not bucket.take(Instant(0), 6)
    assert bucket.take(Instant(0), 4)
    assert not bucket.take(Instant(0), 2)
    assert bucket.take(Instant(0), 1)


@pytest.mark.parametrize(("count", "per_s"), [(1, 1), (3, 2), (1, 0.3), (64, 64), (7, 1_000)])
def test_after_the_wait_they_are_there_and_not_much_before(count: int, per_s: float) -> None:
    bucket = TokenBucket(count, per_s, Instant(0))
    assert bucket.wait_ms(Instant(0), count) == 0
    assert bucket.take(Instant(0), count)
    wait = bucket.wait_ms(Instant(0), count)
    assert wait == pytest.approx(count * 1_000 / per_s, abs=1)
    assert not bucket.take(Instant(wait - 2), count)
    assert bucket.take(Instant(wait), count)


def test_a_moment_that_repeats_gives_nothing() -> None:
    bucket = TokenBucket(1, 1_000, Instant(50))
    assert taken(bucket, 50, 10) == 1
    assert taken(bucket, 50, 10) == 0


def test_what_was_spent_comes_back_with_time() -> None:
    bucket = TokenBucket(5, 2, Instant(0))
    taken(bucket, 0, 4)
    assert (bucket.spent(Instant(0)), bucket.spent(Instant(1_000)), bucket.spent(Instant(10_000))) == (4, 2, 0)
    assert bucket.has(Instant(10_000), 5)
    assert not bucket.has(Instant(10_000), 6)


def test_who_comes_later_waits_for_what_others_owe() -> None:
    bucket = TokenBucket(4, 2, Instant(0))
    assert bucket.owe(Instant(0), 4) == 0
    assert bucket.owe(Instant(0), 4) == 2_001
    assert bucket.owe(Instant(0), 1) == 2_501
    assert bucket.owe(Instant(2_500), 1) == 501
    assert bucket.owe(Instant(10_000), 4) == 0
