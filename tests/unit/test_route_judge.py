"""Who is blamed for what did not arrive, and what a cut explains."""

from __future__ import annotations

from quicprochat.core.route_judge import ANY, FORGIVE_MS, NOTICE_MS, PAIRS_MAX, PRICES, WIDE_MIN, Judge
from quicprochat.core.time import Instant

FAR, OTHER = 7, 8
CUT = Instant(50_000)
HANDED = Instant(CUT - 1_000)
MISSED = Instant(CUT + 5_000)


def at(ms: int) -> Instant:
    return Instant(ms)


def test_what_was_handed_over_before_the_way_was_lost_is_nobodys_fault() -> None:
    for reason in (FAR, ANY):
        judge = Judge()
        judge.lost_way(reason, CUT)
        for _ in range(100):
            judge.judge(FAR, MISSED, arrived=False, since=HANDED)
        assert judge.price(FAR) == 0


def test_what_was_handed_over_after_it_is() -> None:
    judge = Judge()
    judge.lost_way(FAR, CUT)
    judge.judge(FAR, at(CUT + 9_000), arrived=False, since=at(CUT + 1))
    judge.judge(OTHER, MISSED, arrived=False, since=HANDED)
    assert (judge.price(FAR), judge.price(OTHER)) == (PRICES[1], PRICES[1])


def test_blame_from_before_the_cut_was_noticed_is_taken_back_and_older_blame_is_not() -> None:
    for reason in (FAR, ANY):
        judge = Judge()
        judge.judge(FAR, MISSED, arrived=False, since=HANDED)
        assert judge.price(FAR) == PRICES[1]
        judge.lost_way(reason, at(MISSED + NOTICE_MS - 1))
        assert judge.price(FAR) == 0
        judge = Judge()
        judge.judge(FAR, MISSED, arrived=False, since=HANDED)
        judge.lost_way(reason, at(MISSED + NOTICE_MS))
        assert judge.price(FAR) == PRICES[1]


def test_blame_for_many_is_taken_back_with_the_price_for_all() -> None:
    judge = Judge()
    for number in range(WIDE_MIN):
        judge.judge(number, MISSED, arrived=False, since=HANDED)
    assert judge.price(FAR) > 0
    judge.lost_way(ANY, at(MISSED + 1_000))
    assert (judge.price(FAR), judge.price(0)) == (0, 0)


def test_who_loses_its_way_again_and_again_and_delivers_nothing_is_excused_once() -> None:
    judge = Judge()
    prices = []
    for turn in range(5):
        handed = at(CUT + 20_000 * turn)
        judge.judge(FAR, at(handed + 5_000), arrived=False, since=handed)
        judge.lost_way(FAR, at(handed + 6_000))
        prices.append(judge.price(FAR))
    assert prices == [0, *PRICES[1:], PRICES[-1]]


def test_who_delivers_in_between_is_excused_again() -> None:
    judge = Judge()
    for turn in range(5):
        handed = at(CUT + 20_000 * turn)
        judge.judge(FAR, at(handed + 5_000), arrived=False, since=handed)
        judge.lost_way(FAR, at(handed + 6_000))
        assert judge.price(FAR) == 0
        judge.judge(FAR, at(handed + 7_000), arrived=True)


def test_an_excuse_that_was_not_needed_gives_way_to_the_next() -> None:
    judge = Judge()
    judge.lost_way(FAR, at(1_000))
    judge.lost_way(FAR, CUT)
    judge.judge(FAR, MISSED, arrived=False, since=HANDED)
    assert judge.price(FAR) == 0


def test_a_newer_announcement_forgives_one_failure_once_and_not_at_once() -> None:
    judge = Judge()
    judge.judge(FAR, MISSED, arrived=False, since=HANDED)
    judge.renewed(FAR, at(MISSED + NOTICE_MS - 1))
    assert judge.price(FAR) == PRICES[1], "asking for another way brings a newer one at once, by a black hole too"
    judge.renewed(FAR, at(MISSED + NOTICE_MS))
    assert judge.price(FAR) == 0
    again = at(MISSED + 2 * NOTICE_MS)
    judge.judge(FAR, again, arrived=False, since=at(again - 5_000))
    judge.renewed(FAR, at(again + NOTICE_MS))
    assert judge.price(FAR) == PRICES[1]
    judge.judge(FAR, at(again + NOTICE_MS), arrived=False, since=at(again))
    judge.renewed(FAR, at(again + FORGIVE_MS))
    assert judge.price(FAR) == PRICES[2], "two failures are none that nobody noticed"


def test_excuses_are_bounded() -> None:
    judge = Judge()
    for number in range(2 * PAIRS_MAX):
        judge.lost_way(number, CUT)
    assert len(judge._excuses) == PAIRS_MAX
