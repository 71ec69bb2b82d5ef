"""The gate: what it keeps for others, how long, and how much of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.people import T0, WALL, Person, at, by_clock, deferred, let_in, people, refused

from quicprochat.core.envelope import Kind, MeshEnvelope
from quicprochat.core.gate import Admission, Carry, Limits, Reason, Verdict, submit
from quicprochat.core.ids import EnvelopeId
from quicprochat.core.store import Fate, Held, Scope, Usage
from quicprochat.core.time import HOUR_MS, Instant

SOME_ID = EnvelopeId(bytes(32))


@pytest.fixture
def circle() -> list[Person]:
    """Alice and Bob write to Zoe, who is away; Rita carries; Mallory lies."""
    return people("alice", "bob", "zoe", "rita", "mallory")


def size_of_one() -> int:
    alice, zoe = people("alice", "zoe")
    return len(alice.envelope(zoe.key).wire())


def stored(admission: Admission) -> bool:
    assert admission in (Admission(Verdict.STORED), deferred(Reason.FULL))
    return admission.verdict is Verdict.STORED


def test_others_mail_is_kept_as_it_came_for_the_rest_of_its_life(circle: list[Person]) -> None:
    alice, bob, zoe, rita, _ = circle
    envelope = alice.envelope(zoe.key, ttl_s=60, hop=2, age_ms=1_000)
    assert let_in(rita, envelope, bob) == Admission(Verdict.STORED)
    held = Held(
        envelope.id, Kind.MESSAGE, alice.key, zoe.key, bob.key, envelope.wire(), Instant(T0), Instant(T0 + 59_000), 1
    )
    assert rita.store.held(envelope.id) == held
    assert rita.store.fate(envelope.id) is Fate.HELD
    assert (rita.inbox(), rita.store.counters()) == ([], {})


def test_time_at_a_carrier_counts_and_so_does_the_hop(circle: list[Person]) -> None:
    alice, bob, zoe, rita, _ = circle
    envelope = alice.envelope(zoe.key, hop=2, age_ms=1_000)
    let_in(rita, envelope, bob)
    held = rita.store.held(envelope.id)
    assert held is not None
    sent = MeshEnvelope.decode(held.to_send(Instant(T0 + 500)))
    assert sent == replace(envelope, hop=3, age_ms=1_500)


def test_a_lie_about_the_age_is_corrected_where_a_clock_is_trusted(circle: list[Person]) -> None:
    alice, bob, zoe, rita, _ = circle
    envelope = alice.envelope(zoe.key, created_ms=WALL, ttl_s=7_200, hop=1)
    let_in(rita, envelope, bob, now=by_clock(HOUR_MS))
    held = rita.store.held(envelope.id)
    assert held is not None
    assert held.wire == envelope.wire(age_ms=HOUR_MS)
    assert held.expires_at == HOUR_MS + HOUR_MS


def test_the_last_hop_is_not_carried_on(circle: list[Person]) -> None:
    alice, bob, zoe, rita, _ = circle
    assert let_in(rita, alice.envelope(zoe.key, max_hops=4, hop=4), bob) == refused(Reason.HOPS)
    assert stored(let_in(rita, alice.envelope(zoe.key, max_hops=4, hop=3), bob))


def test_what_is_not_understood_is_carried_all_the_same(circle: list[Person]) -> None:
    alice, _, zoe, rita, _ = circle
    for kind, flags in ((77, 0), (77, 5), (Kind.MESSAGE, 128)):
        assert stored(let_in(rita, alice.envelope(zoe.key, kind=kind, flags=flags), alice))


def test_posts_are_not_carried_for_others(circle: list[Person]) -> None:
    alice, _, zoe, rita, _ = circle
    assert let_in(rita, alice.envelope(zoe.key, kind=Kind.CHANNEL), alice) == refused(Reason.POLICY)


def test_the_memory_of_an_id_outlives_every_honest_copy(circle: list[Person]) -> None:
    alice, _, zoe, rita, _ = circle
    let_in(rita, alice.envelope(zoe.key, ttl_s=3_600), alice)
    for moment, forgotten in ((T0 + 3 * HOUR_MS - 1, 0), (T0 + 3 * HOUR_MS, 1)):
        rita.store.begin()
        assert rita.store.forget(Instant(moment), 10) == forgotten
        rita.store.commit()


# --- copies


def test_an_honest_copy_takes_the_place_of_one_that_a_liar_made_old(circle: list[Person]) -> None:
    alice, bob, zoe, rita, mallory = circle
    envelope = alice.envelope(zoe.key, ttl_s=3_600, hop=1)
    let_in(rita, replace(envelope, age_ms=HOUR_MS - 1), mallory)
    assert let_in(rita, replace(envelope, age_ms=10), bob) == Admission(Verdict.DUPLICATE)
    held = rita.store.held(envelope.id)
    assert held is not None
    assert (held.expires_at, held.via) == (T0 + HOUR_MS - 10, bob.key)
    assert held.serial > 1, "it is offered again"
    assert rita.store.usage(Scope.CARRIED) == Usage(1, len(envelope.wire()))
    assert rita.store.usage(Scope.LINK, mallory.key) == Usage()
    assert rita.store.counters() == {"duplicates": 1}


@pytest.mark.parametrize("age_ms", [10, 11])
def test_a_copy_that_would_die_no_later_changes_nothing(circle: list[Person], age_ms: int) -> None:
    alice, bob, zoe, rita, mallory = circle
    envelope = alice.envelope(zoe.key, hop=1)
    let_in(rita, replace(envelope, age_ms=10), bob)
    before = rita.store.held(envelope.id)
    assert let_in(rita, replace(envelope, age_ms=age_ms), mallory) == Admission(Verdict.DUPLICATE)
    assert rita.store.held(envelope.id) == before


def test_a_copy_with_fewer_hops_gives_its_hop_count_and_nothing_else(circle: list[Person]) -> None:
    """A liar's copy with almost no hops left must not keep an honest one from going on."""
    alice, bob, zoe, rita, mallory = circle
    envelope = alice.envelope(zoe.key, hop=31)
    let_in(rita, replace(envelope, age_ms=10), mallory)
    let_in(rita, replace(envelope, hop=2, age_ms=20), bob)
    held = rita.store.held(envelope.id)
    assert held is not None
    assert MeshEnvelope.decode(held.to_send(Instant(T0))).hop == 3
    assert held.expires_at == T0 + envelope.ttl_ms - 10


def test_a_node_that_carries_for_nobody_says_so(circle: list[Person]) -> None:
    alice, _, zoe, rita, _ = circle
    rita.policy = replace(rita.policy, carry=Carry.NO)
    assert let_in(rita, alice.envelope(zoe.key), alice) == Admission(Verdict.REFUSED, Reason.POLICY)
    assert let_in(rita, alice.envelope(rita.key), alice).verdict is Verdict.STORED


def test_what_was_passed_on_is_not_taken_again(circle: list[Person]) -> None:
    alice, bob, zoe, rita, _ = circle
    envelope = alice.envelope(zoe.key)
    let_in(rita, envelope, alice)
    rita.store.begin()
    rita.store.release(envelope.id)
    rita.store.remember(envelope.id, Fate.GONE, Instant(T0 + HOUR_MS))
    rita.store.commit()
    assert let_in(rita, envelope, bob) == Admission(Verdict.DUPLICATE)
    assert rita.store.held(envelope.id) is None


# --- quotas: each bounds one flood, and leaves the others alone


def test_carried_mail_is_bounded_in_bytes() -> None:
    size = size_of_one()
    alice, zoe, rita = people("alice", "zoe", "rita", limits=Limits(carried_bytes=3 * size, share=1))
    late = alice.envelope(zoe.key)
    assert [stored(let_in(rita, alice.envelope(zoe.key), alice)) for _ in range(3)] == [True] * 3
    assert not stored(let_in(rita, late, alice))
    assert rita.store.fate(late.id) is None, "it is welcome later"
    assert rita.store.usage(Scope.CARRIED) == Usage(3, 3 * size)


def test_one_recipient_fills_only_its_own_places() -> None:
    alice, bob, zoe, rita = people("alice", "bob", "zoe", "rita", limits=Limits(per_recipient=2))
    assert [stored(let_in(rita, author.envelope(zoe.key), author)) for author in (alice, bob, bob)] == [1, 1, 0]
    assert stored(let_in(rita, alice.envelope(bob.key), alice))


def test_one_author_fills_only_a_part_of_a_recipients_places() -> None:
    alice, bob, zoe, rita = people("alice", "bob", "zoe", "rita", limits=Limits(per_pair=2))
    assert [stored(let_in(rita, alice.envelope(zoe.key), alice)) for _ in range(3)] == [True, True, False]
    assert stored(let_in(rita, bob.envelope(zoe.key), alice))
    assert stored(let_in(rita, alice.envelope(bob.key), alice))


def test_one_author_fills_only_its_share_whoever_brings_it() -> None:
    limits = Limits(carried_bytes=8 * size_of_one())
    alice, bob, zoe, rita, dave = people("alice", "bob", "zoe", "rita", "dave", limits=limits)
    carriers = (alice, bob, dave)
    answers = [
        stored(let_in(rita, alice.envelope(to.key), via)) for to, via in zip((zoe, bob, dave), carriers, strict=True)
    ]
    assert answers == [True, True, False]
    assert stored(let_in(rita, bob.envelope(zoe.key), bob))


def test_one_link_fills_only_its_share_whoever_wrote_it() -> None:
    limits = Limits(carried_bytes=8 * size_of_one())
    alice, bob, zoe, rita, dave = people("alice", "bob", "zoe", "rita", "dave", limits=limits)
    assert [stored(let_in(rita, author.envelope(zoe.key), dave)) for author in (alice, bob, dave)] == [1, 1, 0]
    assert stored(let_in(rita, dave.envelope(zoe.key), alice))


def test_a_full_house_of_mail_does_not_keep_receipts_out() -> None:
    size = size_of_one()
    alice, zoe, rita = people("alice", "zoe", "rita", limits=Limits(carried_bytes=size, share=1, receipt_bytes=600))
    receipts = [zoe.receipt(alice.key, SOME_ID) for _ in range(3)]
    assert [stored(let_in(rita, alice.envelope(zoe.key), alice)) for _ in range(2)] == [True, False]
    assert [stored(let_in(rita, receipt, zoe)) for receipt in receipts] == [True, True, False]
    assert rita.store.usage(Scope.RECEIPTS) == Usage(2, 2 * len(receipts[0].wire()))
    assert rita.store.usage(Scope.CARRIED) == Usage(1, size)


def test_receipts_fit_exactly() -> None:
    alice, zoe = people("alice", "zoe")
    size = len(zoe.receipt(alice.key, SOME_ID).wire())
    for room, answers in ((2 * size, [True, True]), (2 * size - 1, [True, False])):
        alice, zoe, rita = people("alice", "zoe", "rita", limits=Limits(receipt_bytes=room, share=1))
        assert [stored(let_in(rita, zoe.receipt(alice.key, SOME_ID), zoe)) for _ in range(2)] == answers


def test_one_link_fills_only_its_share_of_the_receipts_whoever_signed_them() -> None:
    alice, zoe = people("alice", "zoe")
    limits = Limits(receipt_bytes=8 * len(zoe.receipt(alice.key, SOME_ID).wire()))
    alice, zoe, rita, mallory, dave = people("alice", "zoe", "rita", "mallory", "dave", limits=limits)
    signers = (mallory, dave, mallory, dave)
    answers = [let_in(rita, signer.receipt(alice.key, SOME_ID), mallory) for signer in signers]
    assert [stored(answer) for answer in answers] == [True, True, False, False]
    assert stored(let_in(rita, zoe.receipt(alice.key, SOME_ID), zoe)), "another link has room"
    assert stored(let_in(rita, mallory.receipt(alice.key, SOME_ID), zoe))


def test_our_own_outbox_and_others_mail_do_not_crowd_each_other() -> None:
    size = size_of_one()
    limits = Limits(carried_bytes=size, share=1, own_bytes=size, requests=1)
    alice, zoe, rita = people("alice", "zoe", "rita", limits=limits)
    assert [stored(let_in(rita, alice.envelope(zoe.key), alice)) for _ in range(2)] == [True, False]
    rita.store.begin()
    answers = [submit(rita.store, rita.envelope(zoe.key), rita.policy, at(T0)) for _ in range(2)]
    rita.store.commit()
    assert [isinstance(answers[0], Held), answers[1]] == [True, Reason.FULL]
    assert let_in(rita, alice.envelope(rita.key), alice).verdict is Verdict.STORED, "the inbox is counted elsewhere"
    assert rita.store.usage(Scope.OWN) == rita.store.usage(Scope.CARRIED) == Usage(1, size)


def test_a_duplicate_needs_no_room() -> None:
    size = size_of_one()
    alice, bob, zoe, rita = people("alice", "bob", "zoe", "rita", limits=Limits(carried_bytes=size, share=1))
    envelope = alice.envelope(zoe.key, hop=1, age_ms=10)
    let_in(rita, envelope, bob)
    assert let_in(rita, replace(envelope, age_ms=5), bob) == Admission(Verdict.DUPLICATE)
    held = rita.store.held(envelope.id)
    assert held is not None
    assert held.wire == envelope.wire(age_ms=5)
