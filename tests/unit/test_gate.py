"""The gate: what it takes in for us, what it refuses, and who may call it.

What it carries for others is in test_gate_carry.py, what it makes of times in test_gate_clock.py.
"""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.people import T0, Person, at, deferred, let_in, people, refused

from quicprochat.core.envelope import HOPS_MAX, Kind
from quicprochat.core.gate import (
    Admission,
    Fault,
    Limits,
    Reason,
    Reject,
    Verdict,
    admit,
    check,
    submit,
)
from quicprochat.core.ids import EnvelopeId
from quicprochat.core.memory import MemoryStore
from quicprochat.core.receipt import Status
from quicprochat.core.seal import Prekey
from quicprochat.core.store import Fate, Held, Line, LineKind, Scope, Usage
from quicprochat.core.time import DAY_MS, Instant, Now, WallTime

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "quicprochat"
YEAR_MS = 365 * DAY_MS
LOST_PREKEY = Prekey(bytes(32))
"""A prekey whose private half nobody has."""


@pytest.fixture
def circle() -> list[Person]:
    """Alice writes, Bob reads, Carol is a third person."""
    return people("alice", "bob", "carol")


# --- the first half


def test_cheap_checks_come_before_the_signature(circle: list[Person]) -> None:
    alice, bob, _ = circle
    good = alice.envelope(bob.key).wire()
    before = alice.crypto.tally.verifies
    for bad in (b"", good[:-1], good + b"\0", b"\2" + good[1:], good[:-1] + bytes([good[-1] ^ 1])):
        answer = check(bad, bob.key, bob.keys, bob.crypto)
        assert isinstance(answer, Reject)
        assert answer.fault is Fault.MALFORMED
    assert alice.crypto.tally.verifies == before


def test_nothing_is_opened_before_its_author_is_proved(circle: list[Person]) -> None:
    alice, bob, _ = circle
    wire = bytearray(alice.envelope(bob.key).wire())
    wire[150] ^= 1
    answer = check(bytes(wire), bob.key, bob.keys, bob.crypto)
    assert isinstance(answer, Reject)
    assert answer.fault is Fault.SIGNATURE
    assert bob.crypto.tally.opens == 0


def test_what_is_for_others_is_not_opened(circle: list[Person]) -> None:
    alice, bob, carol = circle
    assert carol.check(alice.envelope(bob.key)).opened is None
    assert carol.crypto.tally.opens == 0


# --- messages to me


def test_a_message_to_me_goes_into_the_inbox_with_all_that_is_known_of_it(circle: list[Person]) -> None:
    alice, bob, carol = circle
    envelope = alice.envelope(bob.key, "hello", bob.prekey, uid=(uid := alice.uid()), hop=3, age_ms=5)
    admission = let_in(bob, envelope, carol, now=Now(Instant(T0), WallTime(77)))
    line = Line(LineKind.MESSAGE, alice.key, uid, WallTime(77), "hello", 3, "forward-secret", True, cursor=1)
    assert admission == Admission(Verdict.STORED, status=Status.DELIVERED, line=line)
    assert bob.inbox() == [line]
    assert bob.store.fate(envelope.id) is Fate.DELIVERED
    assert bob.store.counters() == {"delivered": 1}
    assert bob.store.held(envelope.id) is None


def test_the_reader_is_told_that_an_identity_key_protected_a_message(circle: list[Person]) -> None:
    alice, bob, _ = circle
    let_in(bob, alice.envelope(bob.key), alice)
    assert [line.protection for line in bob.inbox()] == ["identity-key"]


def test_a_contacts_message_is_no_request(circle: list[Person]) -> None:
    alice, bob, carol = circle
    policy = replace(bob.policy, contacts=frozenset({alice.key}))
    let_in(bob, alice.envelope(bob.key), alice, policy=policy)
    let_in(bob, carol.envelope(bob.key), carol, policy=policy)
    assert [line.request for line in bob.inbox()] == [False, True]


def test_a_message_that_came_once_is_answered_and_not_delivered_again(circle: list[Person]) -> None:
    alice, bob, carol = circle
    envelope = alice.envelope(bob.key)
    let_in(bob, envelope, alice)
    again = let_in(bob, replace(envelope, hop=7, age_ms=9), carol)
    assert again == Admission(Verdict.DUPLICATE, status=Status.DELIVERED)
    assert len(bob.inbox()) == 1
    assert bob.store.counters() == {"delivered": 1, "duplicates": 1}


@pytest.mark.parametrize("age_ms", [0, 8 * DAY_MS])
def test_what_was_delivered_is_remembered_for_good(circle: list[Person], age_ms: int) -> None:
    """A liar can keep an envelope for a year and send it with age 0; an old USB stick does it without malice."""
    alice, bob, carol = circle
    envelope = alice.envelope(bob.key)
    let_in(bob, envelope, alice)
    bob.store.begin()
    assert bob.store.forget(Instant(T0 + YEAR_MS), 1_000) == 0
    bob.store.commit()
    again = let_in(bob, replace(envelope, age_ms=age_ms), carol, now=at(T0 + YEAR_MS))
    assert again == Admission(Verdict.DUPLICATE, status=Status.DELIVERED)
    assert len(bob.inbox()) == 1


def test_one_message_sealed_twice_is_delivered_once(circle: list[Person]) -> None:
    alice, bob, _ = circle
    uid = alice.uid()
    first, second = (alice.envelope(bob.key, uid=uid) for _ in range(2))
    assert first.id != second.id
    let_in(bob, first, alice)
    assert let_in(bob, second, alice) == Admission(Verdict.DUPLICATE, status=Status.DELIVERED)
    assert [line.uid for line in bob.inbox()] == [uid]
    assert bob.store.fate(second.id) is None, "the uid is remembered, and that is enough"
    assert bob.store.counters() == {"delivered": 1, "duplicates": 1}


def test_the_same_uid_from_another_author_is_another_message(circle: list[Person]) -> None:
    alice, bob, carol = circle
    uid = alice.uid()
    for author in (alice, carol):
        assert let_in(bob, author.envelope(bob.key, uid=uid), author).verdict is Verdict.STORED
    assert len(bob.inbox()) == 2


def test_a_store_that_forgets_says_so_in_its_receipts() -> None:
    alice, bob = people("alice", "bob")
    bob.store = MemoryStore()
    envelope = alice.envelope(bob.key)
    assert let_in(bob, envelope, alice).status is Status.DELIVERED_VOLATILE
    assert let_in(bob, envelope, alice).status is Status.DELIVERED_VOLATILE


def test_what_does_not_open_is_answered_each_time_and_costs_no_room(circle: list[Person]) -> None:
    alice, bob, _ = circle
    envelope = alice.envelope(bob.key, prekey=LOST_PREKEY, ttl_s=3_600)
    for _ in range(2):
        assert let_in(bob, envelope, alice) == Admission(Verdict.STORED, status=Status.UNOPENABLE)
    assert bob.inbox() == []
    assert bob.store.counters() == {"unopenable": 2}
    assert bob.store.fate(envelope.id) is None


def test_the_id_seen_first_with_a_bad_signature_does_not_block_the_real_message(circle: list[Person]) -> None:
    alice, bob, _ = circle
    envelope = alice.envelope(bob.key)
    forged = replace(envelope, signature=bytes(64))
    assert isinstance(check(forged.wire(), bob.key, bob.keys, bob.crypto), Reject)
    assert let_in(bob, envelope, alice).verdict is Verdict.STORED


# --- refusals


def test_our_own_message_coming_back_is_acknowledged_and_nothing_else(circle: list[Person]) -> None:
    alice, bob, carol = circle
    mine = bob.envelope(carol.key)
    bob.store.begin()
    assert admit(bob.store, bob.check(mine), alice.key, bob.policy, bob.now) == Admission(Verdict.DUPLICATE)
    assert not bob.store.dirty


def test_a_blocked_author_is_refused_whoever_brings_it(circle: list[Person]) -> None:
    alice, bob, carol = circle
    policy = replace(bob.policy, blocked=frozenset({alice.key}))
    bob.store.begin()
    for to in (bob, carol):
        checked = bob.check(alice.envelope(to.key))
        assert admit(bob.store, checked, carol.key, policy, bob.now) == refused(Reason.POLICY)
    assert not bob.store.dirty


def test_an_envelope_dies_when_its_age_reaches_its_lifetime(circle: list[Person]) -> None:
    alice, bob, _ = circle
    for age_ms, answer in ((60_000, refused(Reason.EXPIRED)), (59_999, None)):
        admission = let_in(bob, alice.envelope(bob.key, ttl_s=60, age_ms=age_ms), alice)
        assert admission == answer or (answer is None and admission.verdict is Verdict.STORED)


def test_the_last_hop_may_reach_me_and_no_further(circle: list[Person]) -> None:
    alice, bob, carol = circle
    assert let_in(bob, alice.envelope(bob.key, max_hops=4, hop=4), carol).verdict is Verdict.STORED
    assert let_in(bob, alice.envelope(bob.key, max_hops=4, hop=5), carol) == refused(Reason.HOPS)
    assert let_in(bob, alice.envelope(bob.key, max_hops=HOPS_MAX, hop=255), carol) == refused(Reason.HOPS)


@pytest.mark.parametrize(("kind", "flags"), [(Kind.CHANNEL, 0), (9, 0), (Kind.MESSAGE, 1)])
def test_what_this_version_does_not_understand_is_refused_and_not_remembered(
    circle: list[Person], kind: int, flags: int
) -> None:
    alice, bob, _ = circle
    bob.store.begin()
    checked = bob.check(alice.envelope(bob.key, kind=kind, flags=flags))
    assert admit(bob.store, checked, alice.key, bob.policy, bob.now) == refused(Reason.UNSUPPORTED)
    assert not bob.store.dirty


def test_a_full_disk_defers_everything_but_what_is_here_already(circle: list[Person]) -> None:
    alice, bob, carol = circle
    delivered = alice.envelope(bob.key)
    let_in(bob, delivered, alice)
    policy = replace(bob.policy, disk_low=True)
    for to in (bob, carol):
        late = alice.envelope(to.key)
        assert let_in(bob, late, alice, policy=policy) == deferred(Reason.DISK)
        assert bob.store.fate(late.id) is None
    assert let_in(bob, delivered, alice, policy=policy).verdict is Verdict.DUPLICATE


# --- requests of strangers


def test_strangers_fill_only_their_own_part_of_the_inbox() -> None:
    alice, bob, carol = people("alice", "bob", "carol", limits=Limits(requests=2))
    assert [let_in(bob, alice.envelope(bob.key), alice).reason for _ in range(3)] == [0, 0, Reason.FULL]
    late = carol.envelope(bob.key)
    assert let_in(bob, late, carol) == deferred(Reason.FULL)
    assert bob.store.fate(late.id) is None, "it is welcome later"
    friends = replace(bob.policy, contacts=frozenset({carol.key}))
    assert let_in(bob, late, carol, policy=friends).verdict is Verdict.STORED
    bob.store.begin()
    bob.store.accept(alice.key)
    bob.store.commit()
    assert let_in(bob, alice.envelope(bob.key), alice).verdict is Verdict.STORED


def test_one_stranger_fills_only_its_own_part() -> None:
    alice, bob, carol = people("alice", "bob", "carol", limits=Limits(requests_per_author=1))
    assert [let_in(bob, alice.envelope(bob.key), alice).reason for _ in range(2)] == [0, Reason.FULL]
    assert let_in(bob, carol.envelope(bob.key), carol).verdict is Verdict.STORED


def test_requests_are_bounded_in_bytes_of_text() -> None:
    alice, bob = people("alice", "bob", limits=Limits(requests_bytes=10))
    texts = ("äöü", "xxxxx", "xxxx", "x")
    answers = [let_in(bob, alice.envelope(bob.key, text), alice).reason for text in texts]
    assert answers == [Reason.NONE, Reason.FULL, Reason.NONE, Reason.FULL]
    assert bob.store.usage(Scope.REQUESTS) == Usage(2, 10)


def test_what_arrived_is_known_under_every_sealing_when_there_is_no_room_for_more() -> None:
    """Otherwise its author would offer it until it expires, and never learn that it arrived."""
    alice, bob = people("alice", "bob", limits=Limits(requests=1, requests_per_author=1))
    uid = alice.uid()
    let_in(bob, alice.envelope(bob.key, uid=uid), alice)
    came = Admission(Verdict.DUPLICATE, status=Status.DELIVERED)
    assert let_in(bob, alice.envelope(bob.key, uid=uid), alice) == came
    low = replace(bob.policy, disk_low=True)
    assert let_in(bob, alice.envelope(bob.key, uid=uid), alice, policy=low) == came
    assert let_in(bob, alice.envelope(bob.key, uid=uid, ttl_s=60, age_ms=60_000), alice) == came
    assert len(bob.inbox()) == 1
    assert bob.store.counters() == {"delivered": 1, "duplicates": 3}
    assert let_in(bob, alice.envelope(bob.key), alice) == deferred(Reason.FULL), "there is no room indeed"


# --- receipts to me


def test_a_receipt_to_me_is_taken_and_leaves_nothing_in_the_store(circle: list[Person]) -> None:
    alice, bob, _ = circle
    bob.store.begin()
    checked = bob.check(alice.receipt(bob.key, EnvelopeId(bytes(32))))
    for _ in range(2):
        assert admit(bob.store, checked, alice.key, bob.policy, bob.now) == Admission(Verdict.STORED)
    assert not bob.store.dirty


def test_a_receipt_brings_me_its_authors_record_and_nobody_elses(circle: list[Person]) -> None:
    alice, bob, carol = circle
    some = EnvelopeId(bytes(32))
    for brought, to, read in (
        (alice.record.signed, bob, alice.record),
        (carol.record.signed, bob, None),
        (alice.record.signed[:-1], bob, None),
        (alice.record.signed, carol, None),
        (b"", bob, None),
    ):
        checked = bob.check(alice.receipt(to.key, some, status=Status.UNOPENABLE, record=brought))
        assert checked.record == read
        assert checked.receipt is not None


# --- the second door


def test_our_own_message_waits_in_the_outbox(circle: list[Person]) -> None:
    alice, bob, _ = circle
    envelope = alice.envelope(bob.key, ttl_s=60, age_ms=1_000)
    alice.store.begin()
    answer = submit(alice.store, envelope, alice.policy, at(T0))
    alice.store.commit()
    held = Held(
        envelope.id, Kind.MESSAGE, alice.key, bob.key, b"", envelope.wire(), Instant(T0), Instant(T0 + 59_000), 1
    )
    assert answer == alice.store.held(envelope.id) == held
    assert alice.store.usage(Scope.OWN) == Usage(1, len(envelope.wire()))
    assert alice.store.fate(envelope.id) is Fate.HELD


def test_the_outbox_is_bounded_in_bytes(circle: list[Person]) -> None:
    alice, bob, _ = circle
    first, second = alice.envelope(bob.key), alice.envelope(bob.key)
    size = len(first.wire())
    for room, answer in ((2 * size - 1, Reason.FULL), (2 * size, None)):
        store = MemoryStore()
        policy = replace(alice.policy, limits=Limits(own_bytes=room))
        store.begin()
        assert isinstance(submit(store, first, policy, at(T0)), Held)
        answered = submit(store, second, policy, at(T0))
        assert answered == (answer or store.held(second.id))
        assert (store.held(second.id) is not None) == (answer is None)


def test_nothing_is_promised_on_a_full_disk(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.store.begin()
    policy = replace(alice.policy, disk_low=True)
    assert submit(alice.store, alice.envelope(bob.key), policy, at(T0)) is Reason.DISK
    assert not alice.store.dirty


def test_nobody_but_the_gate_puts_envelopes_or_messages_into_a_store() -> None:
    """The node's one call puts back what it had just taken out, when a better sealing found no room."""
    callers = {
        (str(path.relative_to(PACKAGE)), function.name, call.func.attr)
        for path in PACKAGE.rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in ("hold", "deliver")
        # These hold no envelopes, and only know of them.
        if not ast.unparse(call.func.value).endswith(("carry", "_sharing"))
        if (path.name, ast.unparse(call.func)) != ("sharing.py", "self.hold")
    }
    assert callers <= {
        ("core/gate.py", "_keep", "hold"),
        ("core/gate.py", "_deliver", "deliver"),
        ("core/gate.py", "_keep_better", "hold"),
        ("core/gate.py", "_keep_post", "hold"),
        ("core/gate.py", "_post", "hold"),
        ("core/gate.py", "read_post", "deliver"),
        ("core/gate.py", "publish", "hold"),
        ("core/gate.py", "submit", "hold"),
        ("core/node.py", "_resealed", "hold"),
    }
    assert {name for _, name, _ in callers} >= {"_keep", "_deliver", "_keep_post", "read_post", "publish", "submit"}
