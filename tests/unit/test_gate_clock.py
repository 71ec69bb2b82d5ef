"""The gate and time: ``created`` is the author's claim, the age its carriers'; both may be wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.people import T0, WALL, Person, at, by_clock, let_in, people

from quicprochat.core.envelope import MeshEnvelope
from quicprochat.core.gate import CLOCK_SLACK_MS, Reason, Verdict
from quicprochat.core.time import DAY_MS, HOUR_MS, Now


@pytest.fixture
def circle() -> list[Person]:
    """Alice writes, Bob reads, Carol is a third person."""
    return people("alice", "bob", "carol")


def verdict_on(bob: Person, envelope: MeshEnvelope, via: Person, *, now: Now | None = None) -> tuple[Verdict, Reason]:
    admission = let_in(bob, envelope, via, now=now or by_clock(T0))
    return admission.verdict, admission.reason


@pytest.mark.parametrize("off_ms", [CLOCK_SLACK_MS, -CLOCK_SLACK_MS])
def test_the_first_hop_refuses_what_says_it_was_made_at_another_time(circle: list[Person], off_ms: int) -> None:
    alice, bob, carol = circle
    fine = alice.envelope(bob.key, created_ms=WALL + T0 + off_ms)
    off_ms += 1 if off_ms > 0 else -1
    wrong = alice.envelope(bob.key, created_ms=WALL + T0 + off_ms)
    assert verdict_on(bob, fine, alice) == (Verdict.STORED, Reason.NONE)
    assert verdict_on(bob, wrong, alice) == (Verdict.REFUSED, Reason.CLOCK)
    assert verdict_on(bob, wrong, alice, now=at(T0, WALL + T0)) == (Verdict.STORED, Reason.NONE), "no clock, no word"
    for later, via in ((replace(wrong, hop=1), alice), (wrong, carol)):
        again = let_in(people("alice", "bob")[1], later, via, now=by_clock(T0))
        assert again.reason is Reason.NONE, "only the author itself can be told"


def test_the_first_hop_compares_with_the_age(circle: list[Person]) -> None:
    alice, bob, _ = circle
    for moment, answer in ((HOUR_MS, Reason.NONE), (T0, Reason.CLOCK)):
        waited = alice.envelope(bob.key, created_ms=WALL, age_ms=HOUR_MS)
        assert verdict_on(bob, waited, alice, now=by_clock(moment))[1] is answer


def test_an_author_without_a_clock_is_never_contradicted(circle: list[Person]) -> None:
    alice, bob, _ = circle
    assert verdict_on(bob, alice.envelope(bob.key, created_ms=0), alice) == (Verdict.STORED, Reason.NONE)


def test_a_trusted_clock_sees_that_a_carrier_lied_about_the_age(circle: list[Person]) -> None:
    alice, bob, carol = circle
    young = alice.envelope(bob.key, created_ms=WALL, ttl_s=3_600, hop=1, age_ms=0)
    assert verdict_on(bob, young, carol, now=by_clock(HOUR_MS)) == (Verdict.REFUSED, Reason.EXPIRED)
    assert verdict_on(bob, young, carol, now=at(HOUR_MS, WALL + HOUR_MS)) == (Verdict.STORED, Reason.NONE)


def test_a_message_from_the_future_is_as_old_as_its_age_says(circle: list[Person]) -> None:
    alice, bob, carol = circle
    for ahead in (CLOCK_SLACK_MS, CLOCK_SLACK_MS + 1, 365 * DAY_MS):
        for age_ms, answer in ((HOUR_MS - 1, Reason.NONE), (HOUR_MS, Reason.EXPIRED)):
            future = alice.envelope(bob.key, created_ms=WALL + T0 + ahead, ttl_s=3_600, hop=1, age_ms=age_ms)
            assert verdict_on(bob, future, carol)[1] is answer
