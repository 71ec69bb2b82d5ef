"""Handing over what waits: in order, within the window, and again when nothing answers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.people import T0, Person, at, envelopes, kinds, people

from quicprochat.core import courier
from quicprochat.core.courier import (
    BATCH,
    DEFERRED_LAST_MS,
    DEFERRED_MS,
    IN_FLIGHT_BYTES,
    RETRY_FIRST_MS,
    RETRY_LAST_MS,
)
from quicprochat.core.envelope import MeshEnvelope
from quicprochat.core.events import Effect, EnvelopeRejected, LinkDown, LinkId, ResultsArrived, Tick, Withdrawn
from quicprochat.core.gate import Limits, Reason, Verdict
from quicprochat.core.ids import EnvelopeId
from quicprochat.core.link import Result
from quicprochat.core.store import Fate, Scope, Usage
from quicprochat.core.time import DAY_MS, HOUR_MS, Instant

LINK = 1


@pytest.fixture
def circle() -> list[Person]:
    """Alice writes to Bob; Carol is somebody else."""
    return people("alice", "bob", "carol")


def write(alice: Person, to: Person, count: int, text: str = "hi") -> list[MeshEnvelope]:
    """So many messages into the outbox; returned are their envelopes."""
    written = [alice.written(to.key, text, to.prekey) for _ in range(count)]
    alice.step(*written)
    return [one.envelope for one in written]


def ids(out: tuple[Effect, ...]) -> list[EnvelopeId]:
    return [envelope.id for envelope in envelopes(out)]


def idsof(some: list[MeshEnvelope]) -> list[EnvelopeId]:
    return [envelope.id for envelope in some]


def results(verdict: Verdict, *some: EnvelopeId, reason: Reason = Reason.NONE, link: int = LINK) -> ResultsArrived:
    return ResultsArrived(LinkId(link), tuple(Result(id, verdict, reason) for id in some))


def receipt(alice: Person, bob: Person, *some: MeshEnvelope) -> tuple[Effect, ...]:
    return alice.step(alice.arrived(LINK, bob.receipt(alice.key, *idsof(list(some)))))


def test_a_link_brings_what_waits_oldest_first(circle: list[Person]) -> None:
    alice, bob, carol = circle
    first = write(alice, bob, 2)
    write(alice, carol, 1)
    second = write(alice, bob, 2)
    assert envelopes(alice.meet(LINK, bob)) == first + second


def test_everything_comes_however_much_it_is(circle: list[Person]) -> None:
    alice, bob, _ = circle
    waiting = write(alice, bob, 2 * BATCH + 3)
    assert ids(alice.meet(LINK, bob)) == idsof(waiting)


def test_what_is_written_while_older_messages_wait_comes_after_them(circle: list[Person]) -> None:
    alice, bob, _ = circle
    a, b = write(alice, bob, 2)
    assert ids(alice.meet(LINK, bob, window=1)) == [a.id]
    (c,) = write(alice, bob, 1)
    assert ids(receipt(alice, bob, a)) == [b.id]
    assert ids(receipt(alice, bob, b)) == [c.id]


# --- the window


def test_no_more_is_under_way_than_the_neighbour_asked_for(circle: list[Person]) -> None:
    alice, bob, _ = circle
    waiting = write(alice, bob, 5)
    assert ids(alice.meet(LINK, bob, window=2)) == idsof(waiting[:2])
    assert ids(alice.step(Tick())) == []
    assert ids(receipt(alice, bob, waiting[1])) == [waiting[2].id]
    assert ids(receipt(alice, bob, waiting[0], waiting[2])) == idsof(waiting[3:])


def test_what_is_written_into_a_full_window_waits(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob, window=1)
    written = [alice.written(bob.key, "hi", bob.prekey) for _ in range(2)]
    assert kinds(alice.step(*written)) == ["Accepted", "SendEnvelope", "Accepted"]
    assert ids(receipt(alice, bob, written[0].envelope)) == [written[1].envelope.id]


def test_few_bytes_are_under_way_however_wide_the_window(circle: list[Person]) -> None:
    alice, bob, _ = circle
    large = write(alice, bob, 12, "x" * 60_000)
    size = len(large[0].wire())
    fit = -(-IN_FLIGHT_BYTES // size)
    assert fit < len(large)
    assert ids(alice.meet(LINK, bob)) == idsof(large[:fit])
    assert ids(receipt(alice, bob, large[0])) == [large[fit].id]


def test_the_byte_that_reaches_the_bound_is_the_last(circle: list[Person], monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob, _ = circle
    size = len(write(alice, bob, 1)[0].wire())
    for bound in (size + 1, 2 * size):
        monkeypatch.setattr(courier, "IN_FLIGHT_BYTES", bound)
        alice, bob = people("alice", "bob")
        write(alice, bob, 4)
        assert len(ids(alice.meet(LINK, bob))) == 2


@pytest.mark.parametrize("verdict", Verdict)
def test_every_answer_makes_room(circle: list[Person], verdict: Verdict) -> None:
    alice, bob, _ = circle
    first, second = write(alice, bob, 2)
    alice.meet(LINK, bob, window=1)
    assert ids(alice.step(results(verdict, first.id))) == [second.id]


def test_a_receipt_that_comes_another_way_makes_room_too(circle: list[Person]) -> None:
    alice, bob, carol = circle
    first, second = write(alice, bob, 2)
    alice.meet(LINK, bob, window=1)
    alice.meet(2, carol)
    out = alice.step(alice.arrived(2, bob.receipt(alice.key, first.id, hop=1)))
    assert ids(out) == [second.id]


def test_answers_for_what_is_not_under_way_change_nothing(circle: list[Person]) -> None:
    alice, bob, carol = circle
    first, second = write(alice, bob, 2)
    alice.meet(LINK, bob, window=1)
    alice.meet(2, carol)
    for event in (
        results(Verdict.REFUSED, second.id, reason=Reason.UNSUPPORTED),
        results(Verdict.REFUSED, EnvelopeId(bytes(32))),
        results(Verdict.REFUSED, first.id, reason=Reason.UNSUPPORTED, link=2),
        results(Verdict.REFUSED, first.id, reason=Reason.UNSUPPORTED, link=77),
    ):
        assert alice.step(event) == ()
    assert alice.store.usage(Scope.OWN).count == 2


# --- again


def test_what_is_not_answered_is_offered_again_ever_more_slowly(circle: list[Person]) -> None:
    alice, bob, _ = circle
    waiting = write(alice, bob, 2)
    alice.meet(LINK, bob)
    assert alice.node.next_deadline() == T0 + RETRY_FIRST_MS
    offered = [second for second in range(1_800) if offers(alice, second, waiting)]
    assert offered == [15, 45, 105, 225, 465, 765, 1_065, 1_365, 1_665]
    assert RETRY_LAST_MS == 300_000


def offers(alice: Person, second: int, waiting: list[MeshEnvelope]) -> bool:
    """Let it be so many seconds after T0; say whether everything was offered, with its age of then."""
    sent = envelopes(alice.step(Tick(), now=at(T0 + 1_000 * second)))
    assert sent in ([], [replace(envelope, age_ms=1_000 * second) for envelope in waiting])
    return bool(sent)


def test_an_answer_shows_that_the_neighbour_is_there_and_ends_the_slowness(circle: list[Person]) -> None:
    alice, bob, _ = circle
    waiting = write(alice, bob, 2)
    alice.meet(LINK, bob)
    for second in range(106):
        offers(alice, second, waiting)
    receipt(alice, bob, waiting[0])
    assert [second for second in range(106, 200) if offers(alice, second, waiting[1:])] == [105 + 15, 105 + 45]


def test_an_answer_gives_the_rest_their_time_anew(circle: list[Person]) -> None:
    alice, bob, _ = circle
    first, second = write(alice, bob, 2)
    alice.meet(LINK, bob)
    alice.now = at(T0 + 10_000)
    receipt(alice, bob, first)
    assert [n for n in range(10, 60) if offers(alice, n, [second])] == [25, 55]


def test_a_new_message_does_not_put_off_the_older_ones(circle: list[Person]) -> None:
    alice, bob, _ = circle
    (first,) = write(alice, bob, 1)
    alice.meet(LINK, bob)
    alice.now = at(T0 + 10_000)
    (second,) = write(alice, bob, 1)
    assert ids(alice.step(Tick(), now=at(T0 + RETRY_FIRST_MS))) == [first.id, second.id]


def test_the_clock_of_an_answer_begins_with_the_question(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob)
    alice.step(Tick(), now=at(T0 + HOUR_MS))
    waiting = write(alice, bob, 1)
    assert alice.step(Tick(), now=at(T0 + HOUR_MS + RETRY_FIRST_MS - 1)) == ()
    assert ids(alice.step(Tick(), now=at(T0 + HOUR_MS + RETRY_FIRST_MS))) == idsof(waiting)


def test_what_was_let_go_meanwhile_is_not_offered_again_and_makes_room(circle: list[Person]) -> None:
    alice, bob, _ = circle
    written = [alice.written(bob.key, "hi", bob.prekey) for _ in range(2)]
    alice.step(*written)
    alice.meet(LINK, bob, window=1)
    assert envelopes(alice.step(Withdrawn(written[0].uid))) == []
    assert ids(alice.step(Tick(), now=at(T0 + RETRY_FIRST_MS))) == [written[1].envelope.id]


def test_a_neighbour_without_room_is_asked_again_later(circle: list[Person]) -> None:
    alice, bob, _ = circle
    first, second = write(alice, bob, 2)
    alice.meet(LINK, bob)
    assert alice.step(results(Verdict.DEFERRED, first.id, reason=Reason.FULL)) == ()
    assert receipt(alice, bob, second) != ()
    assert alice.node.next_deadline() == T0 + DEFERRED_MS
    assert ids(alice.step(Tick(), now=at(T0 + DEFERRED_MS - 1))) == []
    assert ids(alice.step(Tick(), now=at(T0 + DEFERRED_MS))) == [first.id]


def deferrals(alice: Person, envelope: MeshEnvelope, start: int, minutes: int) -> list[int]:
    """Let the neighbour put it off whenever it is offered; return the minutes of the offers after ``start``."""
    offered = []
    for half in range(2 * minutes):
        moment = at(start + half * 30_000)
        if envelope.id in ids(alice.step(Tick(), now=moment)):
            offered.append(half // 2)
            alice.step(results(Verdict.DEFERRED, envelope.id, reason=Reason.FULL), now=moment)
    return offered


def test_a_neighbour_that_stays_without_room_is_asked_ever_more_seldom(circle: list[Person]) -> None:
    alice, bob, _ = circle
    (first,) = write(alice, bob, 1)
    alice.meet(LINK, bob)
    alice.step(results(Verdict.DEFERRED, first.id, reason=Reason.FULL))
    assert deferrals(alice, first, T0, 300) == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]
    assert DEFERRED_LAST_MS == HOUR_MS
    alice.step(LinkDown(LinkId(LINK)))
    assert ids(alice.meet(2, bob)) == [first.id]
    alice.step(results(Verdict.DEFERRED, first.id, reason=Reason.FULL, link=2))
    assert alice.node.next_deadline() == alice.now.at + DEFERRED_MS, "a new link is a new beginning"
    assert alice.store.trace(alice.store.sent_of(first.id).uid)[1:] == []  # type: ignore[union-attr]


def test_a_neighbour_that_found_room_meanwhile_is_asked_as_soon_as_at_first(circle: list[Person]) -> None:
    alice, bob, _ = circle
    (first,) = write(alice, bob, 1)
    alice.meet(LINK, bob)
    alice.step(results(Verdict.DEFERRED, first.id, reason=Reason.FULL))
    deferrals(alice, first, T0, 100)
    receipt(alice, bob, first)
    alice.step(Tick(), now=at(T0 + 10 * HOUR_MS))
    (second,) = write(alice, bob, 1)
    alice.step(results(Verdict.DEFERRED, second.id, reason=Reason.FULL))
    assert deferrals(alice, second, T0 + 10 * HOUR_MS, 5) == [0, 1, 3]


def test_several_deferred_at_different_times_are_asked_for_together(circle: list[Person]) -> None:
    alice, bob, _ = circle
    first, second = write(alice, bob, 2)
    alice.meet(LINK, bob)
    alice.step(results(Verdict.DEFERRED, first.id, reason=Reason.DISK))
    alice.step(results(Verdict.DEFERRED, second.id, reason=Reason.DISK), now=at(T0 + 10_000))
    assert ids(alice.step(Tick(), now=at(T0 + DEFERRED_MS))) == [first.id, second.id]


def test_what_was_deferred_waits_its_time_though_others_are_offered_again(circle: list[Person]) -> None:
    alice, bob, _ = circle
    first, second = write(alice, bob, 2)
    alice.meet(LINK, bob)
    alice.step(results(Verdict.DEFERRED, first.id))
    offered = [(n, ids(alice.step(Tick(), now=at(T0 + 1_000 * n)))) for n in range(31)]
    assert [one for one in offered if one[1]] == [(15, [second.id]), (30, [first.id])]


def test_what_was_deferred_and_offered_again_is_followed_like_new(circle: list[Person]) -> None:
    alice, bob, _ = circle
    (first,) = write(alice, bob, 1)
    alice.meet(LINK, bob)
    alice.step(results(Verdict.DEFERRED, first.id))
    offered = [(n, ids(alice.step(Tick(), now=at(T0 + 1_000 * n)))) for n in range(46)]
    assert [one for one in offered if one[1]] == [(30, [first.id]), (45, [first.id])]


def test_looking_again_does_not_repeat_what_is_under_way(circle: list[Person]) -> None:
    alice, bob, _ = circle
    first, second = write(alice, bob, 2)
    alice.meet(LINK, bob)
    alice.step(results(Verdict.DEFERRED, first.id), now=at(T0))
    receipt_clock = at(T0 + 20_000)
    (third,) = write(alice, bob, 1)
    alice.step(alice.arrived(LINK, bob.receipt(alice.key, third.id)), now=receipt_clock)
    assert ids(alice.step(Tick(), now=at(T0 + DEFERRED_MS))) == [first.id], f"not {second.id.hex()}"


def test_what_is_refused_for_good_is_not_offered_again_on_this_link(circle: list[Person]) -> None:
    alice, bob, _ = circle
    (refused,) = write(alice, bob, 1)
    alice.meet(LINK, bob)
    alice.step(results(Verdict.REFUSED, refused.id, reason=Reason.POLICY))
    assert ids(alice.step(Tick(), now=at(T0 + HOUR_MS))) == []
    alice.step(LinkDown(LinkId(LINK)))
    assert ids(alice.meet(2, bob)) == [refused.id]


def test_nor_because_something_new_is_written(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob, window=1)
    (refused,) = write(alice, bob, 1)
    alice.step(results(Verdict.REFUSED, refused.id, reason=Reason.POLICY))
    some = write(alice, bob, 2)
    assert ids(receipt(alice, bob, some[0])) == [some[1].id]


def test_a_new_link_brings_everything_that_no_receipt_confirmed(circle: list[Person]) -> None:
    alice, bob, _ = circle
    first, second = write(alice, bob, 2)
    alice.meet(LINK, bob)
    receipt(alice, bob, first)
    alice.step(LinkDown(LinkId(LINK)))
    assert alice.step(Tick(), now=at(T0 + HOUR_MS)) == (), "nothing goes out without a link"
    assert ids(alice.meet(2, bob)) == [second.id]


def test_a_new_link_takes_over_from_one_that_is_not_known_to_be_dead(circle: list[Person]) -> None:
    alice, bob, _ = circle
    (waiting,) = write(alice, bob, 1)
    alice.meet(LINK, bob)
    (again,) = [e for e in alice.meet(2, bob) if kinds((e,)) == ["SendEnvelope"]]
    assert again.link == 2  # type: ignore[union-attr]
    alice.step(LinkDown(LinkId(LINK)), EnvelopeRejected(LinkId(LINK)))
    assert alice.step(results(Verdict.REFUSED, waiting.id, reason=Reason.UNSUPPORTED)) == ()
    assert kinds(alice.step(alice.written(bob.key, "hi", bob.prekey))) == ["Accepted", "SendEnvelope"]


# --- others' mail and receipts


def carried(alice: Person, bob: Person, carol: Person) -> MeshEnvelope:
    """Bob's message to Carol, which Alice has taken in."""
    alice.meet(8, bob)
    envelope = bob.envelope(carol.key, prekey=carol.prekey)
    alice.step(alice.arrived(8, envelope))
    return envelope


def test_others_mail_goes_to_its_recipient_one_hop_older(circle: list[Person]) -> None:
    alice, bob, carol = circle
    envelope = carried(alice, bob, carol)
    alice.now = at(T0 + 500)
    assert envelopes(alice.meet(LINK, carol)) == [replace(envelope, hop=1, age_ms=500)]
    assert alice.store.held(envelope.id) is not None


@pytest.mark.parametrize("verdict", [Verdict.STORED, Verdict.DUPLICATE, Verdict.REFUSED])
def test_a_carrier_is_done_when_the_recipient_has_answered(circle: list[Person], verdict: Verdict) -> None:
    alice, bob, carol = circle
    envelope = carried(alice, bob, carol)
    alice.meet(LINK, carol)
    alice.step(results(verdict, envelope.id))
    assert alice.store.held(envelope.id) is None
    assert alice.store.fate(envelope.id) is Fate.PASSED
    alice.store.begin()
    assert alice.store.forget(Instant(T0 + 28 * DAY_MS), 10) == 0, "no old copy can come back"
    alice.store.rollback()


def test_a_carrier_keeps_what_the_recipient_has_no_room_for(circle: list[Person]) -> None:
    alice, bob, carol = circle
    envelope = carried(alice, bob, carol)
    alice.meet(LINK, carol)
    alice.step(results(Verdict.DEFERRED, envelope.id))
    assert alice.store.fate(envelope.id) is Fate.HELD
    assert ids(alice.step(Tick(), now=at(T0 + DEFERRED_MS))) == [envelope.id]


def test_receipts_go_at_once_and_are_not_waited_for() -> None:
    alice, bob, carol = people("alice", "bob", "carol", limits=Limits())
    alice.meet(8, bob)
    receipts = [bob.receipt(carol.key, EnvelopeId(bytes([n]) * 32)) for n in range(5)]
    alice.step(*(alice.arrived(8, one) for one in receipts))
    (message,) = write(alice, carol, 1)
    out = alice.meet(LINK, carol, window=1)
    assert envelopes(out) == [*(replace(one, hop=1) for one in receipts), message]
    assert alice.store.usage(Scope.RECEIPTS) == Usage()
    assert alice.store.usage(Scope.OWN).count == 1


@pytest.mark.parametrize("batch", [1, 3, BATCH])
def test_many_receipts_go_at_a_pace_and_messages_pass_them(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    """More than a neighbour reads would end its link as too slow, and the receipts with it."""
    alice, bob, carol = people("alice", "bob", "carol", limits=Limits(share=1))
    alice.meet(8, bob)
    news = [bob.receipt(carol.key, EnvelopeId(bytes([n]) * 32)) for n in range(20)]
    size = len(news[0].wire())
    monkeypatch.setattr(courier, "IN_FLIGHT_BYTES", 4 * size)
    monkeypatch.setattr(courier, "RECEIPT_BYTES_PER_S", size)
    monkeypatch.setattr(courier, "BATCH", batch)
    alice.step(*(alice.arrived(8, one) for one in news[:12]))
    (message,) = write(alice, carol, 1)
    alice.step(*(alice.arrived(8, one) for one in news[12:]))
    assert ids(alice.meet(LINK, carol)) == idsof([*news[:4], message])
    assert alice.store.usage(Scope.RECEIPTS).count == 16
    late = bob.receipt(carol.key, EnvelopeId(bytes([99]) * 32))
    assert ids(alice.step(alice.arrived(8, late))) == [], "it comes after the others"
    receipt(alice, carol, message)
    came: list[EnvelopeId] = []
    while alice.node.next_deadline() < T0 + 60_000:
        now = at(max(alice.now.at, alice.node.next_deadline()))
        before = alice.store.usage(Scope.RECEIPTS).count
        came += ids(alice.step(Tick(), now=now))
        assert before - alice.store.usage(Scope.RECEIPTS).count <= 4
        assert len(came) <= (now.at - T0) / 1_000 + 1
    assert came == idsof([*news[4:], late])
    assert alice.store.usage(Scope.RECEIPTS) == Usage()
