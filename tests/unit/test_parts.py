"""Who gives up how much of a bounded memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quicprochat.core.parts import level, part_of


def test_nothing_goes_while_there_is_room() -> None:
    assert level({1: 5, 2: 9}, 0) == {}
    assert level({1: 5}, -3) == {}


def test_the_largest_gives_up_alone_until_it_is_as_small_as_the_next() -> None:
    assert level({1: 10, 2: 900}, 500) == {2: 500}
    assert level({1: 10, 2: 900}, 890) == {2: 890}


def test_then_both_give_up_alike() -> None:
    assert level({1: 10, 2: 900}, 892) == {1: 1, 2: 891}
    assert level({1: 4, 2: 4, 3: 1}, 6) == {1: 3, 2: 3}
    assert level({1: 4, 2: 4, 3: 1}, 9) == {1: 4, 2: 4, 3: 1}


@given(st.dictionaries(st.integers(0, 9), st.integers(1, 50), max_size=6), st.integers(0, 300))
def test_exactly_so_many_go_and_who_gives_up_is_left_with_as_much_as_anybody(
    counts: dict[int, int], excess: int
) -> None:
    cuts = level(counts, excess)
    assert sum(cuts.values()) == min(excess, sum(counts.values()))
    left = {part: count - cuts.get(part, 0) for part, count in counts.items()}
    assert all(left[part] >= max(left.values()) - 1 for part in cuts)
    assert all(many >= 0 for many in left.values())


def test_neighbours_have_parts_of_their_own() -> None:
    assert part_of(b"") == 0
    assert len({part_of(bytes([n]) * 32) for n in range(256)}) == 256
