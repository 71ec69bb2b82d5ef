"""Passing on: to whom, what becomes of it, and what is tried when nothing does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.people import T0, Person, at, envelopes, people

from quicprochat.core import node
from quicprochat.core.envelope import MeshEnvelope
from quicprochat.core.events import Effect, LinkDown, LinkId, ResultsArrived, SendEnvelope, SendResults, leaves_early
from quicprochat.core.forward import OTHERS_MAX, PATIENCE_FIRST_MS, PAUSE_FIRST_MS, SURE_MS
from quicprochat.core.gate import Carry, Limits, Reason, Verdict
from quicprochat.core.ids import EnvelopeId
from quicprochat.core.link import Result
from quicprochat.core.receipt import State
from quicprochat.core.store import Fate
from quicprochat.core.time import HOUR_MS

UP, ONE, TWO = 1, 2, 3
"""Rita's links: to whoever brings something, and to two next hops."""


@pytest.fixture
def circle() -> list[Person]:
    """Rita passes on what alice writes to zoe: alice is linked, zoe behind bob, and behind cat as well."""
    rita, alice, bob, cat, zoe = people("rita", "alice", "bob", "cat", "zoe")
    for link, person in ((UP, alice), (ONE, bob), (TWO, cat)):
        rita.meet(link, person)
    rita.hops.lead(zoe, bob, cat)
    rita.hops.lead(alice)
    return [rita, alice, bob, cat, zoe]


def to_links(out: tuple[Effect, ...]) -> list[int]:
    return [effect.link for effect in out if isinstance(effect, SendEnvelope)]


def said(out: tuple[Effect, ...]) -> list[tuple[int, Verdict]]:
    return [(effect.link, r.verdict) for effect in out if isinstance(effect, SendResults) for r in effect.results]


def answer(
    person: Person, link: int, id: EnvelopeId, verdict: Verdict = Verdict.STORED, now: int | None = None
) -> tuple[Effect, ...]:
    moment = None if now is None else at(now)
    return person.step(ResultsArrived(LinkId(link), (Result(id, verdict, Reason.NONE),)), now=moment)


def test_what_comes_goes_to_the_best_next_hop_older_and_one_hop_further(circle: list[Person]) -> None:
    rita, alice, _, _, zoe = circle
    envelope = alice.envelope(zoe.key, age_ms=100)
    out = rita.step(rita.arrived(UP, envelope))
    assert (to_links(out), said(out)) == ([ONE], [(UP, Verdict.STORED)])
    assert envelopes(out) == [replace(envelope, hop=1)]


def test_only_others_mail_may_leave_ahead_of_the_commit(circle: list[Person]) -> None:
    rita, alice, bob, _, zoe = circle
    out = rita.step(rita.arrived(UP, alice.envelope(zoe.key)))
    assert [
        (effect.link, leaves_early(effect)) for effect in out if isinstance(effect, SendEnvelope | SendResults)
    ] == [
        (ONE, True),
        (UP, False),
    ]
    to_neighbour = rita.step(rita.arrived(UP, alice.envelope(bob.key)))
    assert [leaves_early(effect) for effect in to_neighbour if isinstance(effect, SendEnvelope)] == [True]
    own = rita.step(rita.written(zoe.key))
    assert [leaves_early(effect) for effect in own if isinstance(effect, SendEnvelope)] == [False]
    receipt = rita.step(rita.arrived(ONE, bob.envelope(rita.key)))
    assert [leaves_early(effect) for effect in receipt if isinstance(effect, SendEnvelope)] == [False]


def test_a_copy_is_kept_until_the_next_hop_has_one_and_then_only_the_id(circle: list[Person]) -> None:
    rita, alice, _, _, zoe = circle
    envelope = alice.envelope(zoe.key)
    rita.step(rita.arrived(UP, envelope))
    assert rita.store.held(envelope.id) is not None
    answer(rita, ONE, envelope.id)
    assert rita.store.held(envelope.id) is None
    assert rita.store.fate(envelope.id) is Fate.PASSED
    assert rita.store.counters() == {"passed_on": 1}


def test_nothing_goes_back_where_it_came_from_nor_to_its_author(circle: list[Person]) -> None:
    rita, alice, bob, cat, zoe = circle
    out = rita.step(rita.arrived(ONE, alice.envelope(zoe.key, hop=1)))
    assert to_links(out) == [TWO]
    rita.hops.lead(zoe, bob, cat)
    assert to_links(rita.step(rita.arrived(UP, cat.envelope(zoe.key, hop=1)))) == [ONE]
    rita.hops.lead(zoe, bob)
    assert to_links(rita.step(rita.arrived(ONE, cat.envelope(zoe.key, hop=1)))) == []


def test_at_the_last_hop_it_ends(circle: list[Person]) -> None:
    rita, alice, _, _, zoe = circle
    out = rita.step(rita.arrived(UP, alice.envelope(zoe.key, max_hops=3, hop=3)))
    assert (to_links(out), said(out)) == ([], [(UP, Verdict.REFUSED)])


def test_hops_that_a_liar_sets_back_make_nothing_go_round(circle: list[Person]) -> None:
    rita, alice, _, _, zoe = circle
    envelope = alice.envelope(zoe.key, hop=9)
    rita.step(rita.arrived(UP, envelope))
    answer(rita, ONE, envelope.id)
    for _ in range(20):
        out = rita.step(rita.arrived(TWO, replace(envelope, hop=0)))
        assert (to_links(out), said(out)) == ([], [(TWO, Verdict.DUPLICATE)])


@pytest.mark.parametrize("verdict", [Verdict.REFUSED, Verdict.DEFERRED])
def test_what_one_next_hop_does_not_take_the_other_gets(circle: list[Person], verdict: Verdict) -> None:
    rita, alice, _, _, zoe = circle
    envelope = alice.envelope(zoe.key)
    rita.step(rita.arrived(UP, envelope))
    assert to_links(answer(rita, ONE, envelope.id, verdict)) == [TWO]
    assert to_links(answer(rita, TWO, envelope.id, verdict)) == []
    assert rita.store.held(envelope.id) is not None


def test_what_all_put_off_waits_and_so_does_what_comes_after_it(circle: list[Person]) -> None:
    rita, alice, bob, _, zoe = circle
    rita.hops.lead(zoe, bob)
    first, second = alice.envelope(zoe.key), alice.envelope(zoe.key)
    rita.step(rita.arrived(UP, first))
    answer(rita, ONE, first.id, Verdict.DEFERRED)
    assert to_links(rita.step(rita.arrived(UP, second))) == []
    assert rita.node.next_deadline() <= T0 + PAUSE_FIRST_MS
    out = rita.step(now=at(T0 + PAUSE_FIRST_MS))
    assert [envelope.id for envelope in envelopes(out)] == [first.id, second.id]


def test_what_was_under_way_over_a_broken_link_goes_another_way(circle: list[Person]) -> None:
    rita, alice, _, _, zoe = circle
    envelope = alice.envelope(zoe.key)
    rita.step(rita.arrived(UP, envelope))
    assert to_links(rita.step(LinkDown(LinkId(ONE)))) == [TWO]


def test_a_copy_that_comes_again_late_is_passed_to_another_and_the_first_is_judged(circle: list[Person]) -> None:
    rita, alice, bob, _, zoe = circle
    envelope = alice.envelope(zoe.key)
    rita.step(rita.arrived(UP, envelope))
    answer(rita, ONE, envelope.id)
    assert to_links(rita.step(rita.arrived(UP, envelope), now=at(T0 + 1_000))) == [], "too soon to mean anything"
    assert rita.hops.judged == []
    out = rita.step(rita.arrived(UP, replace(envelope, age_ms=5_000)), now=at(T0 + PATIENCE_FIRST_MS))
    assert (to_links(out), said(out)) == ([TWO], [(UP, Verdict.DUPLICATE)])
    assert rita.hops.judged == [(bob.key, zoe.key, False)]


def test_what_was_confirmed_is_passed_on_again_only_for_a_receipt_that_got_lost(circle: list[Person]) -> None:
    """Who brings it again, late, waits for the receipt that went by here; nobody is to blame on the way to zoe."""
    rita, alice, bob, _, zoe = circle
    envelope = alice.envelope(zoe.key)
    rita.step(rita.arrived(UP, envelope))
    rita.step(rita.arrived(ONE, zoe.receipt(alice.key, envelope.id, hop=1)))
    assert rita.store.held(envelope.id) is None
    assert to_links(rita.step(rita.arrived(UP, envelope), now=at(T0 + 1_000))) == [], "it is on its way"
    late = replace(envelope, age_ms=5_000)
    assert to_links(rita.step(rita.arrived(UP, late), now=at(T0 + PATIENCE_FIRST_MS))) == [ONE]
    assert rita.hops.judged == [(bob.key, zoe.key, True)]
    out = rita.step(rita.arrived(ONE, zoe.receipt(alice.key, envelope.id, hop=1)), now=at(T0 + 6_000))
    assert to_links(out) == [UP]


def test_what_was_confirmed_before_it_came_is_passed_on_for_another_receipt(circle: list[Person]) -> None:
    rita, alice, _, _, zoe = circle
    envelope = alice.envelope(zoe.key)
    rita.step(rita.arrived(ONE, zoe.receipt(alice.key, envelope.id, hop=1)))
    assert to_links(rita.step(rita.arrived(UP, envelope))) == [ONE]
    rita.hops.ways.clear()
    other = alice.envelope(zoe.key)
    rita.step(rita.arrived(ONE, zoe.receipt(alice.key, other.id, hop=1)))
    assert said(rita.step(rita.arrived(UP, other))) == [(UP, Verdict.DUPLICATE)]
    assert rita.store.held(other.id) is None, "a cured copy that has no way is not worth carrying"


def test_only_the_recipients_own_receipt_counts(circle: list[Person]) -> None:
    rita, alice, _, cat, zoe = circle
    envelope = alice.envelope(zoe.key)
    rita.step(rita.arrived(UP, envelope))
    rita.step(rita.arrived(TWO, cat.receipt(alice.key, envelope.id)))
    assert rita.store.held(envelope.id) is not None
    assert rita.hops.judged == []


def test_a_receipt_that_came_another_way_praises_nobody(circle: list[Person]) -> None:
    rita, alice, _, _, zoe = circle
    envelope = alice.envelope(zoe.key)
    rita.step(rita.arrived(UP, envelope))
    rita.step(rita.arrived(TWO, zoe.receipt(alice.key, envelope.id, hop=1)))
    assert rita.hops.judged == []


def test_a_receipt_goes_back_to_who_brought_the_message_and_is_kept_while_that_link_may_be_dead() -> None:
    rita, alice, bob, cat, zoe = people("rita", "alice", "bob", "cat", "zoe")
    rita.meet(ONE, bob)
    rita.meet(TWO, cat)
    rita.meet(4, zoe)
    rita.hops.lead(alice, cat, bob)
    envelope = alice.envelope(zoe.key, hop=2)
    rita.step(rita.arrived(ONE, envelope))
    answer(rita, 4, envelope.id)
    receipt = zoe.receipt(alice.key, envelope.id)
    assert to_links(rita.step(rita.arrived(4, receipt))) == [ONE], "although routing has another"
    assert rita.store.held(receipt.id) is not None
    assert to_links(rita.step(LinkDown(LinkId(ONE)))) == [TWO]
    rita.step(now=at(T0 + SURE_MS))
    assert rita.store.held(receipt.id) is None


def test_ids_of_what_was_passed_on_are_bounded_and_the_longest_gone_is_forgotten(
    circle: list[Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "SEEN_MAX", 2)
    rita, alice, _, _, zoe = circle
    mine = alice.envelope(rita.key)
    rita.step(rita.arrived(UP, mine))
    passed = [alice.envelope(zoe.key) for _ in range(4)]
    for moment, envelope in enumerate(passed):
        rita.step(rita.arrived(UP, envelope), now=at(T0 + moment))
        answer(rita, ONE, envelope.id)
    rita.step(now=at(T0 + node.SWEEP_MS))
    assert [rita.store.fate(envelope.id) for envelope in passed] == [None, None, Fate.PASSED, Fate.PASSED]
    assert rita.store.fate(mine.id) is Fate.DELIVERED


# --- the author


@pytest.fixture
def author() -> list[Person]:
    """Alice writes to zoe, behind four others."""
    alice, *others, zoe = people("alice", "b", "c", "d", "e", "zoe")
    for link, person in enumerate(others, 1):
        alice.meet(link, person)
    alice.hops.lead(zoe, *others)
    return [alice, *others, zoe]


def test_without_a_receipt_three_others_are_tried_and_then_all_again_more_slowly(author: list[Person]) -> None:
    alice, *others, zoe = author
    written = alice.written(zoe.key)
    now, tried = T0, to_links(alice.step(written))
    for _ in range(OTHERS_MAX + 2):
        answer(alice, tried[-1], written.envelope.id, now=now)
        assert alice.state(written.uid) is State.RELAYED
        while not (more := to_links(alice.step(now=at(now)))):
            now = alice.node.next_deadline()
        tried += more
    assert tried == [1, 2, 3, 4, 1, 2]
    assert alice.hops.judged[:4] == [(person.key, zoe.key, False) for person in others]
    assert alice.trace(written.uid)[0] == ("relayed", others[0].key.hex()), "the first carrier"


def test_a_receipt_ends_it(author: list[Person]) -> None:
    alice, first, *_, zoe = author
    written = alice.written(zoe.key)
    alice.step(written)
    answer(alice, 1, written.envelope.id)
    alice.step(alice.arrived(1, zoe.receipt(alice.key, written.envelope.id, hop=4)))
    assert alice.state(written.uid) is State.DELIVERED
    assert alice.hops.judged == [(first.key, zoe.key, True)]
    assert to_links(alice.step(now=at(T0 + HOUR_MS))) == []


def test_what_has_no_way_goes_as_soon_as_there_is_one(author: list[Person]) -> None:
    alice, first, *_, zoe = author
    alice.hops.lead(zoe)
    assert to_links(alice.step(alice.written(zoe.key))) == []
    alice.hops.lead(zoe, first)
    assert to_links(alice.step()) == [1]


# --- whose mail


@pytest.mark.parametrize(
    ("carry", "contacts", "taken"),
    [
        (Carry.ALL, "", True), (Carry.NO, "alice", False), (Carry.CONTACTS, "", False),
        (Carry.CONTACTS, "alice", True), (Carry.CONTACTS, "zoe", True), (Carry.CONTACTS, "bob", False),
    ],
)  # fmt: skip
def test_only_mail_that_the_owner_wants_to_pass_on_is_taken(carry: Carry, contacts: str, taken: bool) -> None:
    rita, alice, bob, zoe = people("rita", "alice", "bob", "zoe")
    rita.policy = replace(rita.policy, carry=carry)
    rita.start(rita.now)
    rita.decide(contacts=tuple(person for person in (alice, bob, zoe) if person.name == contacts))
    rita.meet(UP, alice)
    rita.meet(ONE, bob)
    rita.hops.lead(zoe, bob)
    out = rita.step(rita.arrived(UP, alice.envelope(zoe.key)))
    assert said(out) == [(UP, Verdict.STORED if taken else Verdict.REFUSED)]
    assert to_links(out) == ([ONE] if taken else [])


def test_what_can_go_on_is_not_bounded_by_what_may_rest() -> None:
    rita, alice, bob, zoe = people("rita", "alice", "bob", "zoe", limits=Limits(per_pair=2))
    rita.meet(UP, alice)
    rita.meet(ONE, bob)
    resting = [said(rita.step(rita.arrived(UP, alice.envelope(zoe.key)))) for _ in range(3)]
    assert resting == [[(UP, Verdict.STORED)]] * 2 + [[(UP, Verdict.DEFERRED)]]
    rita.hops.lead(zoe, bob)
    passing = [said(rita.step(rita.arrived(UP, alice.envelope(zoe.key)))) for _ in range(3)]
    assert passing == [[(UP, Verdict.STORED)]] * 3


def test_destinations_take_turns(circle: list[Person]) -> None:
    """A long queue for one does not keep another's from going."""
    rita, alice, bob, _, zoe = circle
    [yan] = people("yan")
    rita.step(LinkDown(LinkId(ONE)))
    rita.step(LinkDown(LinkId(TWO)))
    for _ in range(60):
        rita.step(rita.arrived(UP, alice.envelope(zoe.key)))
    rita.step(rita.arrived(UP, alice.envelope(yan.key)))
    rita.hops.lead(zoe, bob)
    rita.hops.lead(yan, bob)
    sent = [MeshEnvelope.decode(e.wire).dst for e in rita.meet(9, bob, window=40) if isinstance(e, SendEnvelope)]
    assert len(sent) == 40
    assert yan.key in sent
