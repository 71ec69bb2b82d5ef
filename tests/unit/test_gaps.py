"""What is missing of an author's posts: only between numbers that came, bounded, and gone once it has come."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from quicprochat.core.gaps import GAPS_MAX, HOPE_MS, Gap, Heard, hear
from quicprochat.core.ids import PeerKey
from quicprochat.core.time import Instant

ANN = PeerKey(b"A" * 32)
U64_MAX = 2**64 - 1


def heard(*numbers: int) -> Heard:
    """What is known after these came, one a millisecond from 1."""
    known = None
    for moment, number in enumerate(numbers, 1):
        known = hear(known, ANN, number, Instant(moment))
    assert known is not None
    return known


def missing(known: Heard) -> list[tuple[int, int]]:
    return [(gap.first, gap.last) for gap in known.gaps]


def test_the_first_number_that_comes_is_no_gap_whatever_it_is() -> None:
    assert heard(500) == Heard(ANN, 500, 500, (), Instant(1))


def test_a_jump_is_a_gap_and_what_fills_it_takes_it_away() -> None:
    assert missing(heard(1, 2, 6)) == [(3, 5)]
    assert missing(heard(1, 2, 6, 4)) == [(3, 3), (5, 5)]
    assert missing(heard(1, 2, 6, 3)) == [(4, 5)]
    assert missing(heard(1, 2, 6, 5)) == [(3, 4)]
    assert missing(heard(1, 2, 6, 4, 3, 5)) == []
    assert missing(heard(1, 2, 6, 2, 6, 1)) == [(3, 5)]


def test_what_comes_from_before_the_first_extends_what_is_known_downwards() -> None:
    assert missing(heard(10, 9)) == []
    assert missing(heard(10, 7)) == [(8, 9)]
    assert (heard(10, 7).lowest, heard(10, 7).highest) == (7, 10)
    assert missing(heard(10, 12, 7)) == [(8, 9), (11, 11)]


def test_a_part_of_a_gap_was_noticed_when_the_whole_was() -> None:
    known = heard(1, 9, 5)
    assert known.gaps == (Gap(2, 4, Instant(2)), Gap(6, 8, Instant(2)))
    assert known.at == Instant(3)
    assert known.gaps[0].may_close(Instant(1 + HOPE_MS))
    assert not known.gaps[0].may_close(Instant(2 + HOPE_MS))


def test_a_gap_is_found_by_the_number_after_it() -> None:
    known = heard(1, 4, 9)
    assert known.gap_before(4) == Gap(2, 3, Instant(2))
    assert known.gap_before(9) == Gap(5, 8, Instant(3))
    assert [known.gap_before(seq) for seq in (0, 1, 2, 3, 5, 10, U64_MAX)] == [None] * 7


def test_numbers_that_say_nothing_change_nothing() -> None:
    assert heard(0) == Heard(ANN, 0, 0, (), Instant(1))
    assert missing(heard(0, 5)) == []
    assert missing(heard(5, 0, 6)) == []
    assert (heard(5, 0).lowest, heard(5, 0).at) == (5, Instant(2))


def test_an_author_that_lies_fills_no_more_than_its_bound() -> None:
    known = heard(1, 2**60, U64_MAX)
    assert missing(known) == [(2, 2**60 - 1), (2**60 + 1, U64_MAX - 1)]
    jumps = heard(*range(1, 1_000, 2))
    assert len(jumps.gaps) == GAPS_MAX
    # Those noticed first are given up, and what comes of them all the same is no error.
    assert missing(jumps)[-1] == (998, 998)
    assert hear(jumps, ANN, 2, Instant(2_000)).gaps == jumps.gaps


@given(st.lists(st.integers(0, 60), min_size=1, max_size=60), st.integers(1, 2**64 - 100))
def test_gaps_are_exactly_what_did_not_come_between_lowest_and_highest(numbers: list[int], start: int) -> None:
    came = [start + number for number in numbers]
    known = heard(*came)
    assert (known.lowest, known.highest) == (min(came), max(came))
    absent = {n for gap in known.gaps for n in range(gap.first, gap.last + 1)}
    assert absent == set(range(known.lowest, known.highest + 1)) - set(came)
    assert all(gap.first <= gap.last for gap in known.gaps)
    assert all(one.last + 1 < other.first for one, other in pairwise(known.gaps))


@given(st.lists(st.integers(0, U64_MAX), min_size=1, max_size=200))
def test_no_numbers_break_the_count(numbers: list[int]) -> None:
    known = heard(*numbers)
    assert len(known.gaps) <= GAPS_MAX
    assert all(known.lowest < gap.first <= gap.last < known.highest for gap in known.gaps)
