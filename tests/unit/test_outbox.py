"""What the author's node says of its messages: only what was proved, or what its owner decided."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.people import T0, WALL, Person, at, by_clock, envelopes, people

from quicprochat.core.events import (
    Accepted,
    Effect,
    Journaled,
    LinkId,
    ResultsArrived,
    SendEnvelope,
    StateChanged,
    Tick,
    Withdrawn,
    Written,
)
from quicprochat.core.gate import Limits, Reason, Verdict
from quicprochat.core.ids import EnvelopeId, PeerKey, Uid
from quicprochat.core.link import Result
from quicprochat.core.outbox import TRACE_MAX, Outbox
from quicprochat.core.receipt import State, Status
from quicprochat.core.seal import Protection
from quicprochat.core.store import Line, LineKind, Scope, Sent, Usage
from quicprochat.core.time import Instant, WallTime

LINK = 1


@pytest.fixture
def circle() -> list[Person]:
    """Alice writes to Bob; Carol has no part in it. They know each other's records."""
    alice, bob, carol = people("alice", "bob", "carol")
    for peer in (bob, carol):
        alice.meet(9, peer)
    alice.start(at(T0))
    return [alice, bob, carol]


def write(alice: Person, to: Person, **how: int) -> Written:
    written = alice.written(to.key, "hi", to.prekey, **how)  # type: ignore[arg-type]
    alice.step(written)
    return written


def told(uid: Uid, to: Person, state: State, reason: str = "", *, cursor: int = 1, wall: int = 0) -> tuple[Effect, ...]:
    """The two effects of a change of state."""
    line = Line(LineKind.RECEIPT, to.key, uid, WallTime(wall), state=state.value, reason=reason, cursor=cursor)
    return (StateChanged(uid, to.key, state, reason), Journaled(line))


def answer(alice: Person, id: EnvelopeId, verdict: Verdict, reason: Reason = Reason.NONE) -> tuple[Effect, ...]:
    return alice.step(ResultsArrived(LinkId(LINK), (Result(id, verdict, reason),)))


# --- accepting


def test_a_message_is_accepted_once_it_is_in_the_outbox(circle: list[Person]) -> None:
    alice, bob, _ = circle
    written = alice.written(bob.key, "hi", bob.prekey, ttl_s=60)
    out = alice.step(written, now=at(T0 + 5, 77))
    sent = Sent(
        written.uid, bob.key, "hi", WallTime(77), Instant(T0 + 5 + 60_000), 60, State.QUEUED, Protection.PREKEY,
        written.envelope.id,
    )  # fmt: skip
    assert out == (Accepted(written.uid, Reason.NONE, sent),)
    assert alice.store.sent(written.uid) == sent
    assert alice.store.usage(Scope.OWN).count == 1
    assert alice.trace(written.uid) == []


def test_it_leaves_at_once_where_the_recipient_is_linked(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob)
    written = alice.written(bob.key, "hi", bob.prekey)
    _, send = alice.step(written)
    assert send == SendEnvelope(LinkId(LINK), written.envelope.wire())


def test_what_is_written_for_one_does_not_go_to_another(circle: list[Person]) -> None:
    alice, bob, carol = circle
    alice.meet(LINK, carol)
    assert len(alice.step(alice.written(bob.key, "hi", bob.prekey))) == 1


def test_a_full_outbox_accepts_nothing_and_says_so() -> None:
    alice, bob = people("alice", "bob", limits=Limits(own_bytes=600))
    write(alice, bob)
    written = alice.written(bob.key, "hi", bob.prekey)
    assert alice.step(written) == (Accepted(written.uid, Reason.FULL),)
    assert alice.store.sent(written.uid) is None


# --- receipts


def test_a_receipt_of_the_recipient_makes_it_delivered(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob)
    written = write(alice, bob)
    out = alice.step(alice.arrived(LINK, bob.receipt(alice.key, written.envelope.id)), now=at(T0 + 9, 77))
    assert out == told(written.uid, bob, State.DELIVERED, wall=77)
    assert alice.trace(written.uid) == [("delivered", "direct")]
    assert alice.store.usage(Scope.OWN) == Usage()
    assert alice.store.journal(after=0, limit=9)[0].state == "delivered"


def test_a_receipt_that_comes_through_somebody_names_them_in_the_trace(circle: list[Person]) -> None:
    alice, bob, carol = circle
    alice.meet(LINK, carol)
    written = write(alice, bob)
    alice.step(alice.arrived(LINK, bob.receipt(alice.key, written.envelope.id, hop=1)))
    assert alice.trace(written.uid) == [("delivered", carol.key.hex())]


def test_one_receipt_confirms_many_messages(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob)
    written = [write(alice, bob) for _ in range(3)]
    out = alice.step(alice.arrived(LINK, bob.receipt(alice.key, *(one.envelope.id for one in written))))
    assert out == sum((told(one.uid, bob, State.DELIVERED, cursor=n) for n, one in enumerate(written, 1)), ())


def test_a_receipt_that_comes_again_says_nothing_new(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob)
    written = write(alice, bob)
    receipt = bob.receipt(alice.key, written.envelope.id)
    alice.step(alice.arrived(LINK, receipt))
    for again in (receipt, bob.receipt(alice.key, written.envelope.id), bob.receipt(alice.key, written.envelope.id)):
        assert alice.step(alice.arrived(LINK, again)) == ()
    assert len(alice.trace(written.uid)) == 1


@pytest.mark.parametrize("status", Status)
def test_a_receipt_of_anybody_else_is_worth_nothing(circle: list[Person], status: Status) -> None:
    alice, bob, carol = circle
    alice.meet(LINK, carol)
    written = write(alice, bob)
    assert alice.step(alice.arrived(LINK, carol.receipt(alice.key, written.envelope.id, status=status))) == ()
    assert (alice.state(written.uid), alice.trace(written.uid)) == (State.QUEUED, [])
    assert alice.store.counters() == {"receipts_ignored": 1}


def test_a_receipt_for_what_was_never_sent_is_counted_and_ignored(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob)
    assert alice.step(alice.arrived(LINK, bob.receipt(alice.key, EnvelopeId(bytes(32))))) == ()
    assert alice.store.counters() == {"receipts_ignored": 1}


@pytest.mark.parametrize("end", [State.EXPIRED, State.CANCELLED, State.FAILED])
def test_a_late_receipt_turns_every_end_into_delivered(circle: list[Person], end: State) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob)
    written = write(alice, bob, ttl_s=60)
    if end is State.EXPIRED:
        alice.step(Tick(), now=at(T0 + 60_000))
    elif end is State.CANCELLED:
        alice.step(Withdrawn(written.uid))
    else:
        alice.step(alice.arrived(LINK, bob.receipt(alice.key, written.envelope.id, status=Status.REFUSED)))
    assert alice.state(written.uid) is end
    out = alice.step(alice.arrived(LINK, bob.receipt(alice.key, written.envelope.id)))
    assert out == told(written.uid, bob, State.DELIVERED, cursor=2)


def test_a_proof_is_not_taken_back(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob)
    written = write(alice, bob, ttl_s=60)
    alice.step(alice.arrived(LINK, bob.receipt(alice.key, written.envelope.id)))
    for status in Status:
        assert alice.step(alice.arrived(LINK, bob.receipt(alice.key, written.envelope.id, status=status))) == ()
    assert alice.step(Withdrawn(written.uid)) == ()
    assert alice.step(Tick(), now=at(T0 + 60_000)) == ()
    assert alice.state(written.uid) is State.DELIVERED


def test_a_recipient_that_keeps_nothing_is_named_as_such(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob)
    written = write(alice, bob)
    receipt = bob.receipt(alice.key, written.envelope.id, status=Status.DELIVERED_VOLATILE)
    assert alice.step(alice.arrived(LINK, receipt)) == told(written.uid, bob, State.DELIVERED, "volatile")


def test_a_recipient_that_refuses_ends_it(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob)
    written = write(alice, bob)
    receipt = bob.receipt(alice.key, written.envelope.id, status=Status.REFUSED)
    assert alice.step(alice.arrived(LINK, receipt)) == told(written.uid, bob, State.FAILED, "refused")
    assert alice.store.usage(Scope.OWN) == Usage()


# --- a neighbour's answers


@pytest.mark.parametrize("verdict", [Verdict.STORED, Verdict.DUPLICATE])
def test_an_acknowledgement_is_no_receipt(circle: list[Person], verdict: Verdict) -> None:
    """The recipient's node has it, and will say so under its signature; until then nothing is let go."""
    alice, bob, _ = circle
    alice.meet(LINK, bob)
    written = write(alice, bob)
    assert answer(alice, written.envelope.id, verdict) == ()
    assert (alice.state(written.uid), alice.trace(written.uid)) == (State.QUEUED, [])
    assert alice.store.held(written.envelope.id) is not None


@pytest.mark.parametrize("verdict", [Verdict.STORED, Verdict.DUPLICATE])
def test_a_carrier_that_has_a_copy_makes_it_relayed_and_it_is_kept_all_the_same(
    circle: list[Person], verdict: Verdict
) -> None:
    alice, bob, carol = circle
    written = write(alice, bob)
    held = alice.store.held(written.envelope.id)
    assert held is not None
    out: list[Effect] = []
    outbox = Outbox()
    alice.store.begin()
    for _ in range(2):
        answered = outbox.result(alice.store, Result(held.id, verdict), held, carol.key, alice.now, out)
        assert answered is None
    alice.store.commit()
    assert tuple(out) == told(written.uid, bob, State.RELAYED)
    assert alice.trace(written.uid) == [("relayed", carol.key.hex())]
    assert alice.store.held(held.id) == held


@pytest.mark.parametrize("reason", [Reason.UNSUPPORTED, Reason.HOPS])
def test_what_the_recipient_can_never_take_fails(circle: list[Person], reason: Reason) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob)
    written = write(alice, bob)
    word = reason.name.lower()
    assert answer(alice, written.envelope.id, Verdict.REFUSED, reason) == told(written.uid, bob, State.FAILED, word)
    assert alice.trace(written.uid) == [(f"refused:{word}", "direct"), ("failed", "direct")]


@pytest.mark.parametrize("reason", Reason)
def test_no_carrier_can_make_a_message_fail(circle: list[Person], reason: Reason) -> None:
    alice, bob, carol = circle
    written = write(alice, bob)
    held = alice.store.held(written.envelope.id)
    assert held is not None
    out: list[Effect] = []
    alice.store.begin()
    Outbox().result(alice.store, Result(held.id, Verdict.REFUSED, reason), held, carol.key, alice.now, out)
    alice.store.commit()
    assert out == []
    assert alice.trace(written.uid) == [(f"refused:{reason.name.lower()}", carol.key.hex())]


@pytest.mark.parametrize(
    ("verdict", "reason", "word"),
    [
        (Verdict.REFUSED, Reason.POLICY, "refused:policy"),
        (Verdict.REFUSED, Reason.EXPIRED, "refused:expired"),
        (Verdict.DEFERRED, Reason.FULL, "deferred:full"),
        (Verdict.DEFERRED, Reason.UNSUPPORTED, "deferred:unsupported"),
    ],
)
def test_other_answers_are_for_the_trace(circle: list[Person], verdict: Verdict, reason: Reason, word: str) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob)
    written = write(alice, bob)
    assert answer(alice, written.envelope.id, verdict, reason) == ()
    assert (alice.state(written.uid), alice.trace(written.uid)) == (State.QUEUED, [(word, "direct")])


def say(alice: Person, written: Written, carrier: PeerKey, verdict: Verdict, reason: Reason) -> None:
    """Let a carrier answer, without a link of its own."""
    held = alice.store.held(written.envelope.id)
    assert held is not None
    alice.store.begin()
    Outbox().result(alice.store, Result(held.id, verdict, reason), held, carrier, alice.now, [])
    alice.store.commit()


def test_what_is_said_again_and_again_stands_in_the_trace_once(circle: list[Person]) -> None:
    alice, bob, carol = circle
    written = write(alice, bob)
    for _ in range(3):
        for reason in (Reason.FULL, Reason.DISK):
            say(alice, written, carol.key, Verdict.DEFERRED, reason)
    assert alice.trace(written.uid) == [("deferred:full", carol.key.hex()), ("deferred:disk", carol.key.hex())]


def test_a_recipient_that_says_again_that_it_cannot_open_is_noted_once(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob)
    written = write(alice, bob)
    for _ in range(3):
        alice.step(alice.arrived(LINK, bob.receipt(alice.key, written.envelope.id, status=Status.UNOPENABLE)))
    assert alice.trace(written.uid) == [("unopenable", "direct")]


def test_a_trace_is_bounded_and_always_has_room_for_what_became_of_the_message(circle: list[Person]) -> None:
    alice, bob, carol = circle
    written = write(alice, bob, ttl_s=60)
    for number in range(2 * TRACE_MAX):
        say(alice, written, PeerKey(number.to_bytes(32, "big")), Verdict.DEFERRED, Reason.FULL)
    say(alice, written, carol.key, Verdict.STORED, Reason.NONE)
    alice.step(Tick(), now=at(T0 + 60_000))
    alice.meet(LINK, bob)
    alice.step(alice.arrived(LINK, bob.receipt(alice.key, written.envelope.id)))
    trace = alice.trace(written.uid)
    assert [state for state, _ in trace[-3:]] == ["relayed", "expired", "delivered"]
    assert len(trace) == TRACE_MAX


def test_no_answer_counts_once_a_message_has_come_to_its_end(circle: list[Person]) -> None:
    alice, bob, carol = circle
    written = write(alice, bob)
    held = alice.store.held(written.envelope.id)
    assert held is not None
    alice.step(Withdrawn(written.uid))
    out: list[Effect] = []
    alice.store.begin()
    for verdict, reason in ((Verdict.STORED, Reason.NONE), (Verdict.REFUSED, Reason.CLOCK)):
        result = Result(held.id, verdict, reason)
        assert Outbox().result(alice.store, result, held, carol.key, alice.now, out) is None
    receipt = replace(held, id=EnvelopeId(bytes(32)))
    assert Outbox().result(alice.store, Result(receipt.id, Verdict.STORED), receipt, carol.key, alice.now, out) is None
    assert not alice.store.dirty
    assert out == []


# --- our own decisions


def test_what_nobody_confirmed_in_time_expires(circle: list[Person]) -> None:
    alice, bob, _ = circle
    written = write(alice, bob, ttl_s=60)
    assert alice.node.next_deadline() == T0 + 60_000
    assert alice.step(Tick(), now=at(T0 + 59_999)) == ()
    out = alice.step(Tick(), now=at(T0 + 60_000))
    assert out == told(written.uid, bob, State.EXPIRED, "nobody confirmed")
    assert alice.trace(written.uid) == [("expired", "")]
    assert alice.store.counters() == {"expired": 1}
    assert alice.store.usage(Scope.OWN) == Usage()


def test_a_receipt_in_the_last_moment_counts(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob)
    written = write(alice, bob, ttl_s=60)
    receipt = alice.arrived(LINK, bob.receipt(alice.key, written.envelope.id))
    assert alice.step(receipt, now=at(T0 + 60_000)) == told(written.uid, bob, State.DELIVERED)


def test_a_message_can_be_withdrawn_until_its_end(circle: list[Person]) -> None:
    alice, bob, _ = circle
    written = write(alice, bob, ttl_s=60)
    assert alice.step(Withdrawn(written.uid)) == told(written.uid, bob, State.CANCELLED)
    assert alice.store.usage(Scope.OWN) == Usage()
    assert alice.step(Withdrawn(written.uid)) == ()
    assert alice.step(Tick(), now=at(T0 + 60_000)) == ()
    assert envelopes(alice.meet(LINK, bob)) == []


def test_withdrawing_what_was_never_written_does_nothing(circle: list[Person]) -> None:
    alice, _, _ = circle
    assert alice.step(Withdrawn(Uid(bytes(16)))) == ()


def test_what_is_withdrawn_on_the_way_is_not_offered_again(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob)
    written = write(alice, bob)
    alice.step(Withdrawn(written.uid))
    assert alice.step(Tick(), now=at(T0 + 15_000)) == ()


def test_its_age_goes_on_counting_in_the_outbox(circle: list[Person]) -> None:
    alice, bob, _ = circle
    written = write(alice, bob)
    alice.now = at(T0 + 700)
    (sent,) = envelopes(alice.meet(LINK, bob))
    assert sent == replace(written.envelope, age_ms=700)


def test_the_trace_and_the_journal_tell_the_wall_clocks_time(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.step(Tick(), now=by_clock(T0))
    written = write(alice, bob)
    alice.step(Withdrawn(written.uid))
    assert [event.at for event in alice.store.trace(written.uid)] == [WALL + T0]
    assert alice.store.journal(after=0, limit=1)[0].at == WALL + T0


def test_an_envelope_is_never_sent_after_its_time(circle: list[Person]) -> None:
    alice, bob, _ = circle
    write(alice, bob, ttl_s=60)
    alice.now = at(T0 + 60_000)
    assert envelopes(alice.meet(LINK, bob)) == []
