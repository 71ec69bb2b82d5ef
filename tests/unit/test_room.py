"""Who gives way when there is no more room for others' mail."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.people import Person, deferred, let_in, people

from quicprochat.core.envelope import MeshEnvelope
from quicprochat.core.gate import Admission, Limits, Reason, Verdict
from quicprochat.core.store import Fate, Scope

PLACES = 12


def size_of_one() -> int:
    alice, zoe = people("alice", "zoe")
    return len(alice.envelope(zoe.key).wire())


@pytest.fixture
def circle() -> list[Person]:
    """Rita has twelve places; mallory, bob and cat are her neighbours."""
    limits = Limits(carried_bytes=PLACES * size_of_one(), share=1, per_pair=1_000, per_recipient=1_000)
    return people("rita", "mallory", "bob", "cat", "alice", "zoe", limits=limits)


def fill(rita: Person, author: Person, to: Person, via: Person, count: int) -> list[MeshEnvelope]:
    """Let so many in, which must be taken; return them."""
    envelopes = [author.envelope(to.key, hop=1) for _ in range(count)]
    for envelope in envelopes:
        assert let_in(rita, envelope, via) == Admission(Verdict.STORED)
    return envelopes


def held(rita: Person, envelopes: list[MeshEnvelope]) -> int:
    return sum(rita.store.held(envelope.id) is not None for envelope in envelopes)


def test_a_store_filled_from_one_link_has_room_for_others_until_all_have_the_same(circle: list[Person]) -> None:
    rita, mallory, bob, cat, alice, zoe = circle
    flood = fill(rita, mallory, zoe, mallory, PLACES)
    assert let_in(rita, mallory.envelope(zoe.key), mallory) == deferred(Reason.FULL)
    from_bob = fill(rita, alice, zoe, bob, PLACES // 3)
    from_cat = fill(rita, alice, zoe, cat, PLACES // 3)
    assert (held(rita, flood), held(rita, from_bob), held(rita, from_cat)) == (4, 4, 4)
    assert held(rita, flood[-4:]) == 4, "the oldest went"
    assert let_in(rita, alice.envelope(zoe.key), bob) == deferred(Reason.FULL)
    assert rita.store.counters()["evicted"] == PLACES - 4
    assert rita.store.usage(Scope.CARRIED).count == PLACES


def test_on_the_fullest_link_the_author_with_most_gives_way(circle: list[Person]) -> None:
    rita, mallory, bob, _, alice, zoe = circle
    few = fill(rita, alice, zoe, mallory, 3)
    many = fill(rita, mallory, zoe, mallory, PLACES - 3)
    fill(rita, bob, zoe, bob, 4)
    assert (held(rita, few), held(rita, many)) == (3, PLACES - 7)
    more = fill(rita, alice, zoe, mallory, 1)
    assert (held(rita, few + more), held(rita, many)) == (4, PLACES - 8), "on one link too, the lighter author has room"


def test_a_contacts_mail_does_not_give_way_to_a_strangers(circle: list[Person]) -> None:
    rita, mallory, bob, _, alice, zoe = circle
    rita.policy = replace(rita.policy, contacts=frozenset({zoe.key}))
    dear = fill(rita, mallory, zoe, mallory, PLACES)
    assert let_in(rita, bob.envelope(alice.key), bob) == deferred(Reason.FULL)
    assert held(rita, dear) == PLACES
    fill(rita, bob, zoe, bob, 1)
    assert held(rita, dear) == PLACES - 1


def test_what_gave_way_is_known_when_it_comes_again(circle: list[Person]) -> None:
    rita, mallory, bob, _, alice, zoe = circle
    flood = fill(rita, mallory, zoe, mallory, PLACES)
    fill(rita, alice, zoe, bob, 1)
    assert rita.store.fate(flood[0].id) is Fate.PASSED
    assert let_in(rita, flood[0], mallory) == Admission(Verdict.DUPLICATE)
    assert rita.store.held(flood[0].id) is None, "not without a way"


def test_one_long_envelope_may_need_the_place_of_several(circle: list[Person]) -> None:
    rita, mallory, bob, _, alice, zoe = circle
    flood = fill(rita, mallory, zoe, mallory, PLACES)
    long = alice.envelope(zoe.key, "x" * 2 * size_of_one())
    assert let_in(rita, long, bob) == Admission(Verdict.STORED)
    assert held(rita, flood) < PLACES - 1
    assert rita.store.usage(Scope.CARRIED).bytes <= PLACES * size_of_one()


def test_made_up_authors_on_one_link_fill_half_of_a_recipients_places() -> None:
    rita, zoe, mallory, bob, *made_up = people(
        "rita", "zoe", "mallory", "bob", *(f"nobody {n}" for n in range(7)), limits=Limits(per_recipient=10)
    )
    answers = [let_in(rita, author.envelope(zoe.key, hop=1), mallory).verdict for author in made_up]
    assert answers == [Verdict.STORED] * 5 + [Verdict.DEFERRED] * 2
    assert let_in(rita, bob.envelope(zoe.key), bob).verdict is Verdict.STORED


def test_a_home_server_lets_nothing_go_that_it_acknowledged(circle: list[Person]) -> None:
    rita, mallory, bob, _, alice, zoe = circle
    rita.policy = replace(rita.policy, keeps=True)
    flood = fill(rita, mallory, zoe, mallory, PLACES)
    assert let_in(rita, alice.envelope(zoe.key), bob) == deferred(Reason.FULL)
    assert held(rita, flood) == PLACES
