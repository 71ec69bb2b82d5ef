"""Messages that are sealed again: to a prekey learned since, without a clock found wrong, or because none opened."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.people import T0, Person, at, envelopes, people

from quicprochat.core.envelope import TTL_DEFAULT_S
from quicprochat.core.events import (
    Effect,
    LinkId,
    RecordArrived,
    Reseal,
    Resealed,
    ResealFailed,
    ResultsArrived,
    Tick,
    Withdrawn,
    Written,
)
from quicprochat.core.gate import Limits, Reason, Verdict
from quicprochat.core.ids import EnvelopeId
from quicprochat.core.link import Result
from quicprochat.core.outbox import SEALS_MAX, UPGRADE_BATCH
from quicprochat.core.receipt import State, Status
from quicprochat.core.seal import Prekey, Protection
from quicprochat.core.store import Scope, Usage
from quicprochat.core.time import HOUR_MS

LINK = 1
LOST_PREKEY = Prekey(bytes(32))


@pytest.fixture
def circle() -> list[Person]:
    """Alice has never met Bob or Carol."""
    return people("alice", "bob", "carol")


def write(alice: Person, to: Person, prekey: Prekey | None = None, **how: int) -> Written:
    written = alice.written(to.key, "hi", prekey, **how)  # type: ignore[arg-type]
    alice.step(written)
    return written


def reseal(
    written: Written, to: Person, *, age_ms: int = 0, claim_time: bool = True, ttl_s: int = TTL_DEFAULT_S
) -> Reseal:
    return Reseal(written.uid, to.key, written.text, ttl_s, age_ms, to.prekey, claim_time)


def resealed(alice: Person, asked: Reseal) -> Resealed:
    """What the edge answers."""
    sealed = alice.envelope(asked.to, asked.text, asked.prekey, uid=asked.uid, ttl_s=asked.ttl_s, age_ms=asked.age_ms)
    return Resealed(asked.uid, sealed, Protection.PREKEY if asked.prekey else Protection.IDENTITY)


def unopenable(alice: Person, bob: Person, id: EnvelopeId, *, record: bool = True) -> tuple[Effect, ...]:
    signed = bob.record.signed if record else b""
    receipt = bob.receipt(alice.key, id, status=Status.UNOPENABLE, record=signed)
    return alice.step(alice.arrived(LINK, receipt))


def clock_refused(alice: Person, id: EnvelopeId) -> tuple[Effect, ...]:
    return alice.step(ResultsArrived(LinkId(LINK), (Result(id, Verdict.REFUSED, Reason.CLOCK),)))


# --- a prekey is learned


def test_what_waits_for_an_identity_key_is_sealed_to_the_prekey_before_it_leaves(circle: list[Person]) -> None:
    alice, bob, _ = circle
    written = write(alice, bob)
    out = alice.meet(LINK, bob)
    assert out == (reseal(written, bob),), "nothing leaves under the weaker key"
    (sent,) = envelopes(alice.step(answer := resealed(alice, reseal(written, bob))))
    assert sent == answer.envelope
    message = alice.store.sent(written.uid)
    assert message is not None
    assert (message.protection, message.seals, message.state) == (Protection.PREKEY, 2, State.QUEUED)
    assert alice.store.envelopes_of(written.uid) == [written.envelope.id, sent.id]
    assert alice.store.held(written.envelope.id) is None
    assert alice.store.usage(Scope.OWN) == Usage(1, len(sent.wire()))


def test_nothing_lets_the_old_sealing_out_while_the_new_one_is_made(circle: list[Person]) -> None:
    alice, bob, _ = circle
    written = write(alice, bob)
    alice.meet(LINK, bob)
    assert alice.step(Tick(), now=at(T0 + HOUR_MS)) == ()
    assert alice.meet(LINK + 1, bob, record=False) == ()
    assert alice.meet(LINK + 2, bob) == (), "it is asked for once"
    asked = reseal(written, bob)
    assert envelopes(alice.step(resealed(alice, asked))) != []


def test_its_age_goes_on_and_its_end_stays(circle: list[Person]) -> None:
    alice, bob, _ = circle
    written = write(alice, bob, ttl_s=7_200)
    alice.now = at(T0 + HOUR_MS)
    out = alice.step(RecordArrived(None, bob.record, 0))
    assert out == (reseal(written, bob, age_ms=HOUR_MS, ttl_s=7_200),)
    alice.step(resealed(alice, reseal(written, bob, age_ms=HOUR_MS, ttl_s=7_200)))
    assert alice.node.next_deadline() <= T0 + 2 * HOUR_MS
    alice.step(Tick(), now=at(T0 + 2 * HOUR_MS - 1))
    assert alice.state(written.uid) is State.QUEUED
    alice.step(Tick(), now=at(T0 + 2 * HOUR_MS))
    assert alice.state(written.uid) is State.EXPIRED


def test_only_what_is_not_protected_better_already_is_sealed_again(circle: list[Person]) -> None:
    alice, bob, carol = circle
    write(alice, bob, bob.prekey)
    write(alice, carol)
    assert alice.step(RecordArrived(None, bob.record, 0)) == ()


def test_a_copy_that_left_is_not_sealed_again(circle: list[Person]) -> None:
    alice, bob, _ = circle
    written = write(alice, bob)
    alice.store.begin()
    alice.store.set_state(written.uid, State.RELAYED, "")
    alice.store.commit()
    assert alice.step(RecordArrived(None, bob.record, 0)) == ()


def test_a_record_without_prekeys_changes_nothing(circle: list[Person]) -> None:
    alice, bob, _ = circle
    write(alice, bob)
    assert alice.step(RecordArrived(None, bob.record_of(1, 9), 0)) == ()


def test_a_request_that_a_crash_swallowed_is_made_again(circle: list[Person]) -> None:
    alice, bob, _ = circle
    written = write(alice, bob)
    alice.step(RecordArrived(None, bob.record, 0))
    alice.start(at(T0))
    assert alice.meet(LINK, bob) == (reseal(written, bob),)


def test_all_that_wait_are_sealed_again(circle: list[Person]) -> None:
    alice, bob, _ = circle
    written = [write(alice, bob) for _ in range(5)]
    assert alice.meet(LINK, bob) == tuple(reseal(one, bob) for one in written)


# --- a sealing that comes too late, or finds no room


def test_a_message_that_ended_meanwhile_is_not_held_again(circle: list[Person]) -> None:
    alice, bob, _ = circle
    withdrawn, expired, delivered = write(alice, bob), write(alice, bob, ttl_s=60), write(alice, bob)
    alice.meet(LINK, bob)
    alice.step(Withdrawn(withdrawn.uid))
    alice.step(alice.arrived(LINK, bob.receipt(alice.key, delivered.envelope.id)))
    alice.step(Tick(), now=at(T0 + 60_000))
    for one in (withdrawn, expired, delivered):
        assert alice.step(resealed(alice, reseal(one, bob))) == ()
    assert alice.store.usage(Scope.OWN) == Usage()


def test_the_new_sealing_takes_the_place_of_the_old_in_a_full_outbox() -> None:
    size = len(people("alice")[0].envelope(people("bob")[0].key).wire())
    alice, bob = people("alice", "bob", limits=Limits(own_bytes=size))
    written = write(alice, bob)
    alice.meet(LINK, bob)
    assert len(envelopes(alice.step(resealed(alice, reseal(written, bob))))) == 1
    assert alice.store.usage(Scope.OWN) == Usage(1, size)


def test_a_sealing_that_finds_no_room_leaves_the_old_one_to_be_sent() -> None:
    size = len(people("alice")[0].envelope(people("bob")[0].key).wire())
    alice, bob = people("alice", "bob", limits=Limits(own_bytes=size))
    written = write(alice, bob)
    alice.meet(LINK, bob)
    (first,) = envelopes(alice.step(resealed(alice, replace(reseal(written, bob), text="x" * 2_000))))
    assert first.id == written.envelope.id
    message = alice.store.sent(written.uid)
    assert message is not None
    assert (message.envelope_id, message.seals) == (written.envelope.id, 1)


def test_a_disk_that_is_almost_full_does_not_keep_a_better_sealing_out(circle: list[Person]) -> None:
    """It takes the room of the old one; otherwise everything sealed before the first link would be stuck."""
    alice, bob, _ = circle
    written = write(alice, bob)
    alice.decide(disk_low=True)
    alice.meet(LINK, bob)
    (sent,) = envelopes(alice.step(resealed(alice, reseal(written, bob))))
    assert sent.id != written.envelope.id
    assert alice.store.held(written.envelope.id) is None


def test_what_could_not_be_sealed_again_is_sent_as_it_was(circle: list[Person]) -> None:
    alice, bob, _ = circle
    written = write(alice, bob)
    alice.meet(LINK, bob)
    (sent,) = envelopes(alice.step(ResealFailed(written.uid)))
    assert sent.id == written.envelope.id


def test_everything_that_waits_is_sealed_better_before_any_of_it_leaves(circle: list[Person]) -> None:
    """More than one batch of it: what stood beyond the first must not slip out under the identity key."""
    alice, bob, _ = circle
    count = 2 * UPGRADE_BATCH + 3
    uids = [write(alice, bob).uid for _ in range(count)]
    effects = alice.meet(LINK, bob)
    sealed = 0
    while asked := [effect for effect in effects if isinstance(effect, Reseal)]:
        assert not envelopes(effects)
        sealed += len(asked)
        effects = alice.step(*(resealed(alice, one) for one in asked))
    assert sealed == count
    ids = {sent.id for sent in envelopes(effects)}
    assert ids == {message.envelope_id for uid in uids if (message := alice.store.sent(uid)) is not None}


def test_what_waits_behind_many_that_left_is_sealed_again_too(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.store.begin()
    for _ in range(UPGRADE_BATCH):
        written = alice.written(bob.key)
        alice.node.step([written], alice.store, alice.now)
        alice.store.set_state(written.uid, State.RELAYED, "")
    alice.store.commit()
    last = write(alice, bob)
    assert alice.step(RecordArrived(None, bob.record, 0)) == (reseal(last, bob),)


# --- a clock that was wrong


def test_a_message_whose_time_was_not_believed_is_sealed_again_without_one(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob)
    written = write(alice, bob, bob.prekey, created_ms=5)
    before = alice.node.claim_time
    assert clock_refused(alice, written.envelope.id) == (reseal(written, bob, claim_time=False),)
    assert (before, alice.node.claim_time) == (True, False), "nor do later messages claim it"
    assert alice.trace(written.uid) == [("refused:clock", "direct")]
    (sent,) = envelopes(alice.step(resealed(alice, reseal(written, bob))))
    assert sent.created_ms == 0


def test_only_a_refusal_counts_as_a_word_on_our_clock(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob)
    written = write(alice, bob, bob.prekey)
    event = ResultsArrived(LinkId(LINK), (Result(written.envelope.id, Verdict.DEFERRED, Reason.CLOCK),))
    assert alice.step(event) == ()
    assert alice.node.claim_time


def test_a_neighbour_cannot_make_us_seal_for_ever(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob)
    written = write(alice, bob, bob.prekey)
    id = written.envelope.id
    for _ in range(SEALS_MAX - 1):
        assert clock_refused(alice, id) == (reseal(written, bob, claim_time=False),)
        (sent,) = envelopes(alice.step(resealed(alice, reseal(written, bob))))
        id = sent.id
    assert clock_refused(alice, id) == ()
    assert alice.state(written.uid) is State.QUEUED


def test_who_requires_forward_secrecy_gets_no_identity_key_instead(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob, record=False)
    written = alice.written(bob.key, "hi", bob.prekey, require_fs=True)
    alice.step(written)
    assert clock_refused(alice, written.envelope.id) == ()
    assert alice.state(written.uid) is State.QUEUED


def test_who_requires_forward_secrecy_gets_another_prekey(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob)
    written = alice.written(bob.key, "hi", bob.prekey, require_fs=True)
    alice.step(written)
    assert clock_refused(alice, written.envelope.id) == (reseal(written, bob, claim_time=False),)


def test_where_no_prekey_is_known_the_identity_key_serves_again(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob, record=False)
    written = write(alice, bob)
    assert clock_refused(alice, written.envelope.id) == (replace(reseal(written, bob, claim_time=False), prekey=None),)


# --- a recipient that cannot open


def test_what_did_not_open_is_sealed_to_the_prekey_that_came_with_the_answer(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob, record=False)
    written = write(alice, bob, LOST_PREKEY)
    assert unopenable(alice, bob, written.envelope.id) == (reseal(written, bob),)
    assert (alice.state(written.uid), alice.trace(written.uid)) == (State.QUEUED, [("unopenable", "direct")])
    (sent,) = envelopes(alice.step(resealed(alice, reseal(written, bob))))
    out = alice.step(alice.arrived(LINK, bob.receipt(alice.key, sent.id)))
    assert len(out) == 2
    assert alice.state(written.uid) is State.DELIVERED
    assert alice.store.usage(Scope.OWN) == Usage()


def test_an_answer_without_a_record_leaves_it_waiting(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob, record=False)
    written = write(alice, bob, LOST_PREKEY)
    assert unopenable(alice, bob, written.envelope.id, record=False) == ()
    assert (alice.state(written.uid), alice.trace(written.uid)) == (State.QUEUED, [("unopenable", "direct")])


def test_a_record_without_prekeys_is_no_help(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob, record=False)
    written = write(alice, bob, LOST_PREKEY)
    bare = bob.record_of(1, 9).signed
    receipt = bob.receipt(alice.key, written.envelope.id, status=Status.UNOPENABLE, record=bare)
    assert alice.step(alice.arrived(LINK, receipt)) == ()
    assert alice.state(written.uid) is State.QUEUED


def test_a_record_from_somebody_else_gives_no_prekey(circle: list[Person]) -> None:
    alice, bob, carol = circle
    alice.meet(LINK, carol, record=False)
    written = write(alice, bob, LOST_PREKEY)
    assert unopenable(alice, carol, written.envelope.id) == ()
    assert alice.trace(written.uid) == []


def test_a_word_on_a_former_sealing_is_old_news(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob, record=False)
    written = write(alice, bob, LOST_PREKEY)
    unopenable(alice, bob, written.envelope.id)
    alice.step(resealed(alice, reseal(written, bob)))
    assert unopenable(alice, bob, written.envelope.id) == ()
    assert len(alice.trace(written.uid)) == 1


def test_a_word_on_a_message_that_ended_is_old_news_too(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob, record=False)
    written = write(alice, bob, LOST_PREKEY)
    alice.step(Withdrawn(written.uid))
    assert unopenable(alice, bob, written.envelope.id) == ()
    assert alice.trace(written.uid) == [("cancelled", "")]


def test_a_receipt_for_a_former_sealing_is_a_receipt_for_the_message(circle: list[Person]) -> None:
    alice, bob, _ = circle
    written = write(alice, bob)
    alice.meet(LINK, bob)
    alice.step(resealed(alice, reseal(written, bob)))
    alice.step(alice.arrived(LINK, bob.receipt(alice.key, written.envelope.id)))
    assert alice.state(written.uid) is State.DELIVERED
    assert alice.store.usage(Scope.OWN) == Usage()
    assert alice.step(Tick(), now=at(T0 + HOUR_MS)) == (), "and it is not offered again"


def test_a_recipient_that_opens_nothing_is_given_up_after_so_many_sealings(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob, record=False)
    written = write(alice, bob, LOST_PREKEY)
    id = written.envelope.id
    for _ in range(SEALS_MAX - 1):
        assert unopenable(alice, bob, id) == (reseal(written, bob),)
        (sent,) = envelopes(alice.step(resealed(alice, reseal(written, bob))))
        id = sent.id
    unopenable(alice, bob, id)
    message = alice.store.sent(written.uid)
    assert message is not None
    assert (message.state, message.reason, message.seals) == (State.FAILED, "unopenable", SEALS_MAX)
    assert alice.store.usage(Scope.OWN) == Usage()


def test_it_opens_at_the_other_end_and_comes_once(circle: list[Person]) -> None:
    alice, bob, _ = circle
    written = write(alice, bob)
    bob.meet(7, alice)
    bob.step(bob.arrived(7, written.envelope))
    alice.meet(LINK, bob)
    (sent,) = envelopes(alice.step(resealed(alice, reseal(written, bob))))
    (receipt,) = envelopes(bob.step(bob.arrived(7, sent)))
    alice.step(alice.arrived(LINK, receipt))
    assert [line.text for line in bob.inbox()] == ["hi"]
    assert alice.state(written.uid) is State.DELIVERED
