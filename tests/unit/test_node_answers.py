"""What the recipient and the carriers answer: receipts that prove, results that inform, and cures."""

from __future__ import annotations

import pytest
from tests.unit.people import T0, Person, at, envelopes, kinds, people, receipts

from quicprochat.core.envelope import TTL_MAX_S, Kind, MeshEnvelope
from quicprochat.core.events import Journaled, LinkDown, LinkId, ResultsArrived, SendEnvelope, SendResults
from quicprochat.core.gate import Limits, Reason, Verdict
from quicprochat.core.link import RESULTS_MAX, Result
from quicprochat.core.neighbours import REPEAT_BURST, REPEAT_PER_S
from quicprochat.core.receipt import RECEIPT_IDS_MAX, Receipt, Status
from quicprochat.core.record import open_record
from quicprochat.core.seal import Prekey
from quicprochat.core.store import Fate, Scope, Usage
from quicprochat.core.time import DAY_MS, Instant

LINK = 1
LOST_PREKEY = Prekey(bytes(32))


@pytest.fixture
def circle() -> list[Person]:
    """Bob's node is looked at. Alice writes to him, Carol brings things, Zoe is away."""
    alice, bob, carol, zoe = people("alice", "bob", "carol", "zoe")
    bob.meet(LINK, alice)
    bob.meet(2, carol)
    return [alice, bob, carol, zoe]


def result(link: int, envelope: MeshEnvelope, verdict: Verdict, reason: Reason = Reason.NONE) -> SendResults:
    return SendResults(LinkId(link), (Result(envelope.id, verdict, reason),))


# --- receipts of ours


def test_the_author_gets_a_receipt_and_nothing_else(circle: list[Person]) -> None:
    alice, bob, _, _ = circle
    envelope = alice.envelope(bob.key)
    journaled, send = bob.step(bob.arrived(LINK, envelope))
    assert journaled == Journaled(bob.inbox()[0])
    assert isinstance(send, SendEnvelope)
    assert send.link == LINK
    answer = MeshEnvelope.decode(send.wire)
    assert (answer.kind, answer.src, answer.dst) == (Kind.RECEIPT, bob.key, alice.key)
    assert (answer.hop, answer.age_ms, answer.created_ms, answer.ttl_s) == (0, 0, 0, TTL_MAX_S)
    assert Receipt.decode(answer.payload) == Receipt(Status.DELIVERED, (envelope.id,))
    assert alice.check(answer).receipt is not None, "and its signature holds"


def test_one_receipt_answers_up_to_64(circle: list[Person]) -> None:
    alice, bob, _, _ = circle
    some = [alice.envelope(bob.key) for _ in range(RECEIPT_IDS_MAX + 1)]
    before = bob.crypto.tally.signs
    out = bob.step(*(bob.arrived(LINK, envelope) for envelope in some))
    assert receipts(out) == [
        Receipt(Status.DELIVERED, tuple(one.id for one in some[:RECEIPT_IDS_MAX])),
        Receipt(Status.DELIVERED, (some[-1].id,)),
    ]
    assert bob.crypto.tally.signs == before + 2


def test_a_second_copy_in_one_batch_is_answered_with_the_first(circle: list[Person]) -> None:
    alice, bob, _, _ = circle
    envelope = alice.envelope(bob.key)
    out = bob.step(bob.arrived(LINK, envelope), bob.arrived(2, envelope))
    assert out[0] == Journaled(bob.inbox()[0])
    assert {id for receipt in receipts(out) for id in receipt.ids} == {envelope.id}
    assert out[-1] == result(2, envelope, Verdict.DUPLICATE)
    assert len(bob.inbox()) == 1


def test_a_duplicate_gets_the_receipt_again(circle: list[Person]) -> None:
    alice, bob, _, _ = circle
    envelope = alice.envelope(bob.key)
    bob.step(bob.arrived(LINK, envelope))
    for instant in (T0 + 1, T0 + 400 * DAY_MS):
        bob.now = at(instant)
        out = bob.step(bob.arrived(LINK, envelope))
        assert receipts(out) == [Receipt(Status.DELIVERED, (envelope.id,))]
    assert len(bob.inbox()) == 1


def test_who_repeats_itself_without_end_is_not_always_answered(circle: list[Person]) -> None:
    alice, bob, _, _ = circle
    envelope = bob.arrived(LINK, alice.envelope(bob.key))
    bob.step(envelope)
    answered = sum(len(bob.step(envelope)) for _ in range(2 * REPEAT_BURST))
    assert answered == REPEAT_BURST
    bob.now = at(T0 + 1_000)
    assert sum(len(bob.step(envelope)) for _ in range(2 * REPEAT_BURST)) == REPEAT_PER_S
    assert kinds(bob.step(bob.arrived(LINK, alice.envelope(bob.key)))) == ["Journaled", "SendEnvelope"], (
        "news always are"
    )


def test_a_flood_of_what_does_not_open_is_not_always_answered(circle: list[Person]) -> None:
    alice, bob, _, _ = circle
    arrived = [bob.arrived(LINK, alice.envelope(bob.key, prekey=LOST_PREKEY)) for _ in range(2 * REPEAT_BURST)]
    assert sum(len(bob.step(one)) for one in arrived) == REPEAT_BURST


def test_what_does_not_open_is_answered_with_the_keys_for_next_time(circle: list[Person]) -> None:
    alice, bob, _, _ = circle
    envelope = alice.envelope(bob.key, prekey=LOST_PREKEY)
    (receipt,) = receipts(bob.step(bob.arrived(LINK, envelope)))
    assert receipt == Receipt(Status.UNOPENABLE, (envelope.id,), bob.record.signed)
    assert open_record(receipt.record, alice.crypto).prekeys == (bob.prekey,)


def test_good_and_bad_news_go_apart(circle: list[Person]) -> None:
    alice, bob, _, _ = circle
    good, bad = alice.envelope(bob.key), alice.envelope(bob.key, prekey=LOST_PREKEY)
    out = receipts(bob.step(bob.arrived(LINK, good), bob.arrived(LINK, bad)))
    assert [(receipt.status, receipt.ids) for receipt in out] == [
        (Status.DELIVERED, (good.id,)),
        (Status.UNOPENABLE, (bad.id,)),
    ]


def test_a_node_that_forgets_says_so() -> None:
    alice, _ = people("alice", "bob")
    bob = Person(alice.crypto, "bob", durable=False)
    bob.meet(LINK, alice)
    out = bob.step(bob.arrived(LINK, alice.envelope(bob.key)))
    assert [receipt.status for receipt in receipts(out)] == [Status.DELIVERED_VOLATILE]


def test_a_receipt_is_never_answered(circle: list[Person]) -> None:
    alice, bob, _, zoe = circle
    for to in (bob, zoe):
        assert bob.step(bob.arrived(LINK, alice.receipt(to.key, alice.envelope(bob.key).id))) == ()


# --- an author who is not here


def test_a_receipt_for_an_absent_author_waits_for_them(circle: list[Person]) -> None:
    _, bob, _, zoe = circle
    envelope = zoe.envelope(bob.key, hop=1)
    out = bob.step(bob.arrived(2, envelope))
    assert out == (Journaled(bob.inbox()[0]), result(2, envelope, Verdict.STORED))
    assert bob.store.usage(Scope.OWN).count == 1
    (receipt,) = receipts(bob.meet(3, zoe))
    assert receipt == Receipt(Status.DELIVERED, (envelope.id,))
    assert bob.store.usage(Scope.OWN) == Usage(), "it is made again if it gets lost"


def test_receipts_for_strangers_leave_half_of_the_outbox_to_the_owner() -> None:
    alice, bob, carol = people("alice", "bob", "carol", limits=Limits(own_bytes=10_000))
    bob.meet(2, carol)
    for _ in range(100):
        bob.step(bob.arrived(2, alice.envelope(bob.key, hop=1)))
    assert len(bob.inbox()) == 100
    assert 5_000 <= bob.store.usage(Scope.OWN).bytes < 5_500
    assert kinds(bob.step(bob.written(alice.key))) == ["Accepted"]
    assert bob.store.usage(Scope.OWN).bytes > 5_500


# --- results


def test_a_carrier_is_told_what_became_of_what_it_brought(circle: list[Person]) -> None:
    alice, bob, _, zoe = circle
    mine, others = zoe.envelope(bob.key, hop=1), alice.envelope(zoe.key, hop=1)
    for envelope in (mine, others):
        out = bob.step(bob.arrived(2, envelope))
        assert out[-1] == result(2, envelope, Verdict.STORED)
        assert bob.step(bob.arrived(2, envelope))[-1] == result(2, envelope, Verdict.DUPLICATE)


def test_an_author_is_told_that_a_carrier_has_its_message(circle: list[Person]) -> None:
    alice, bob, _, zoe = circle
    envelope = alice.envelope(zoe.key)
    for verdict in (Verdict.STORED, Verdict.DUPLICATE):
        assert bob.step(bob.arrived(LINK, envelope)) == (result(LINK, envelope, verdict),)


def test_an_author_is_told_why_its_message_is_not_taken(circle: list[Person]) -> None:
    alice, bob, _, _ = circle
    unknown = alice.envelope(bob.key, kind=Kind.CHANNEL)
    assert bob.step(bob.arrived(LINK, unknown)) == (result(LINK, unknown, Verdict.REFUSED, Reason.UNSUPPORTED),)
    bob.decide(disk_low=True)
    late = alice.envelope(bob.key)
    assert bob.step(bob.arrived(LINK, late)) == (result(LINK, late, Verdict.DEFERRED, Reason.DISK),)


def test_results_go_in_frames_of_255(circle: list[Person]) -> None:
    alice, bob, _, _ = circle
    some = [alice.envelope(bob.key, kind=Kind.CHANNEL) for _ in range(RESULTS_MAX + 1)]
    out = bob.step(*(bob.arrived(LINK, envelope) for envelope in some))
    assert [len(effect.results) for effect in out if isinstance(effect, SendResults)] == [RESULTS_MAX, 1]


# --- cures


def holding(circle: list[Person]) -> MeshEnvelope:
    """Alice's message to Zoe, carried by Bob; Alice has gone."""
    alice, bob, _, zoe = circle
    envelope = alice.envelope(zoe.key)
    bob.step(bob.arrived(LINK, envelope), LinkDown(LinkId(LINK)))
    assert bob.store.held(envelope.id) is not None
    return envelope


def test_the_recipients_receipt_cures(circle: list[Person]) -> None:
    alice, bob, _, zoe = circle
    envelope = holding(circle)
    receipt = zoe.receipt(alice.key, envelope.id, hop=1)
    assert bob.step(bob.arrived(2, receipt)) == ()
    assert bob.store.held(envelope.id) is None
    assert bob.store.fate(envelope.id) is Fate.PASSED
    assert bob.store.usage(Scope.CARRIED) == Usage()
    assert bob.store.usage(Scope.RECEIPTS).count == 1, "and is carried on to the author"
    bob.step(bob.arrived(2, envelope))
    assert bob.store.held(envelope.id) is None, "a late copy stays away"
    bob.store.begin()
    bob.store.forget(Instant(T0 + 28 * DAY_MS), 99)
    assert bob.store.fate(envelope.id) is Fate.PASSED
    bob.store.rollback()


def test_a_cure_that_the_recipient_did_not_sign_does_nothing(circle: list[Person]) -> None:
    alice, bob, carol, _ = circle
    envelope = holding(circle)
    for liar in (carol, alice):
        bob.step(bob.arrived(2, liar.receipt(alice.key, envelope.id, hop=1)))
        bob.step(bob.arrived(2, liar.receipt(carol.key, envelope.id, hop=1)))
    assert bob.store.held(envelope.id) is not None
    assert bob.store.fate(envelope.id) is Fate.HELD


@pytest.mark.parametrize("status", [Status.DELIVERED_VOLATILE, Status.UNOPENABLE, Status.REFUSED])
def test_only_delivered_cures(circle: list[Person], status: Status) -> None:
    alice, bob, _, zoe = circle
    envelope = holding(circle)
    bob.step(bob.arrived(2, zoe.receipt(alice.key, envelope.id, status=status, hop=1)))
    assert bob.store.held(envelope.id) is not None


def test_a_cure_touches_nothing_of_our_own(circle: list[Person]) -> None:
    """Zoe may sign what she likes to Alice; what Bob wrote to Zoe he lets go when she tells him."""
    alice, bob, _, zoe = circle
    written = bob.written(zoe.key)
    bob.step(written)
    bob.step(bob.arrived(2, zoe.receipt(alice.key, written.envelope.id, hop=1)))
    assert bob.store.held(written.envelope.id) is not None


def test_a_cure_for_what_is_not_here_is_only_carried(circle: list[Person]) -> None:
    alice, bob, _, zoe = circle
    bob.step(LinkDown(LinkId(LINK)))
    bob.step(bob.arrived(2, zoe.receipt(alice.key, alice.envelope(zoe.key).id, hop=1)))
    assert bob.store.usage(Scope.RECEIPTS).count == 1


def test_a_cure_ends_what_is_under_way_without_harm(circle: list[Person]) -> None:
    alice, bob, _, zoe = circle
    envelope = holding(circle)
    bob.meet(3, zoe)
    bob.step(bob.arrived(2, zoe.receipt(alice.key, envelope.id, hop=1)))
    assert bob.step(ResultsArrived(LinkId(3), (Result(envelope.id, Verdict.STORED),))) == ()
    assert envelopes(bob.step(now=at(T0 + 15_000))) == []
    bob.step(LinkDown(LinkId(3)))
