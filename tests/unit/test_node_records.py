"""Peer records as the node keeps them: the newest wins, the old and the too many go."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.people import T0, Person, at, kinds, people

from quicprochat.core import records as records_module
from quicprochat.core.events import Alarm, Effect, LinkId, RecordArrived, SendRecord
from quicprochat.core.receipt import Status
from quicprochat.core.record import RECORD_LIFETIME_S, PeerRecord
from quicprochat.core.store import StoredRecord
from quicprochat.core.time import HOUR_MS, Instant

LINK = 1
LIFETIME_MS = RECORD_LIFETIME_S * 1_000


@pytest.fixture
def circle() -> list[Person]:
    return people("alice", "bob", "carol")


def hear(alice: Person, record: PeerRecord, *, link: int | None = LINK, age_ms: int = 0) -> tuple[Effect, ...]:
    return alice.step(RecordArrived(None if link is None else LinkId(link), record, age_ms))


def kept(alice: Person, bob: Person) -> tuple[int, int] | None:
    stored = alice.store.record(bob.key)
    return None if stored is None else (stored.epoch, stored.seq)


def test_a_record_is_kept_as_it_was_signed_with_its_age(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.now = at(T0 + 5)
    assert hear(alice, bob.record, age_ms=7) == ()
    assert alice.store.record(bob.key) == StoredRecord(bob.key, 1, 1, bob.record.signed, 7, Instant(T0 + 5))


@pytest.mark.parametrize("newer", [(1, 2), (2, 0), (2, 1)])
def test_the_newest_wins_in_any_order(circle: list[Person], newer: tuple[int, int]) -> None:
    alice, bob, _ = circle
    for order in ((bob.record, bob.record_of(*newer)), (bob.record_of(*newer), bob.record)):
        alice = Person(alice.crypto, "alice")
        for record in order:
            hear(alice, record, link=None)
        assert kept(alice, bob) == newer


def test_who_is_behind_is_shown_the_newer_one(circle: list[Person]) -> None:
    alice, bob, _ = circle
    newer = bob.record_of(1, 9)
    hear(alice, newer, age_ms=50)
    alice.now = at(T0 + 100)
    assert hear(alice, bob.record) == (SendRecord(LinkId(LINK), newer.signed, 150),)
    assert hear(alice, bob.record, link=None) == (), "unless it came from nowhere"
    assert hear(alice, newer) == ()


def test_two_records_with_one_number_are_an_alarm_and_the_first_stays(circle: list[Person]) -> None:
    alice, bob, _ = circle
    hear(alice, bob.record_of(1, 9, name="one"))
    out = hear(alice, bob.record_of(1, 9, name="two"))
    assert out == (Alarm("record_conflict", "two different records of one peer have the same number", bob.key),)
    assert alice.store.record(bob.key).data == bob.record_of(1, 9, name="one").signed  # type: ignore[union-attr]


def test_nothing_is_sealed_to_a_record_that_contradicts_the_first(circle: list[Person]) -> None:
    alice, bob, _ = circle
    hear(alice, bob.record_of(1, 9, name="one"))
    alice.step(alice.written(bob.key))
    assert kinds(hear(alice, bob.record_of(1, 9, (bob.prekey,), "two"))) == ["Alarm"]


def conflict(alice: Person, who: Person) -> list[Effect]:
    """Let somebody contradict itself; return the alarms."""
    out = hear(alice, who.record_of(1, 9, name="one")) + hear(alice, who.record_of(1, 9, name="two"))
    return [effect for effect in out if isinstance(effect, Alarm)]


def test_who_contradicts_itself_again_and_again_is_told_of_once_in_a_run(circle: list[Person]) -> None:
    alice, bob, _ = circle
    assert [len(conflict(alice, bob)) for _ in range(3)] == [1, 0, 0]
    assert alice.store.counters()["record_conflicts"] == 3
    alice.start(at(T0))
    assert len(conflict(alice, bob)) == 1


def test_made_up_peers_raise_few_alarms_and_hide_none_about_a_contact(circle: list[Person]) -> None:
    alice, bob, carol = circle
    alice.decide(contacts=(bob,))
    strangers = [Person(alice.crypto, f"stranger {n}") for n in range(2 * records_module.ALARM_BURST)]
    assert sum(len(conflict(alice, stranger)) for stranger in strangers) == records_module.ALARM_BURST
    assert conflict(alice, carol) == []
    assert len(conflict(alice, bob)) == 1
    alice.now = at(T0 + HOUR_MS)
    assert len(conflict(alice, carol)) == 1, "later there is room for another"


def test_a_record_dies_at_its_age_even_where_there_is_no_clock(circle: list[Person]) -> None:
    alice, bob, _ = circle
    hear(alice, bob.record, age_ms=LIFETIME_MS)
    assert kept(alice, bob) is None
    hear(alice, bob.record, age_ms=LIFETIME_MS - 1)
    assert kept(alice, bob) == (1, 1)


def test_a_shorter_life_counts(circle: list[Person]) -> None:
    alice, bob, _ = circle
    hear(alice, replace(bob.record, lifetime_s=60), age_ms=60_000)
    assert kept(alice, bob) is None


def test_a_blocked_peers_record_is_not_kept(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.decide(blocked=(bob,))
    hear(alice, bob.record)
    assert kept(alice, bob) is None


def test_a_restart_knows_what_is_newest(circle: list[Person]) -> None:
    alice, bob, _ = circle
    newer = bob.record_of(1, 9)
    hear(alice, newer)
    alice.start(at(T0))
    assert hear(alice, bob.record) == (SendRecord(LinkId(LINK), newer.signed, 0),)
    assert kept(alice, bob) == (1, 9)


def test_a_restart_that_does_not_read_them_all_lets_no_older_one_in(
    circle: list[Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob, carol = circle
    alice.decide(contacts=(bob, carol))
    newer = bob.record_of(1, 9)
    hear(alice, newer)
    alice.now = at(T0 + 1)
    hear(alice, carol.record)
    monkeypatch.setattr(records_module, "RECORDS_MAX", 1)
    alice.start(at(T0 + 1))
    alice.decide(contacts=(bob, carol))
    assert hear(alice, bob.record) == (SendRecord(LinkId(LINK), newer.signed, 1),)
    assert len(hear(alice, bob.record_of(1, 9, name="two"))) == 1, "nor one that contradicts it"
    assert kept(alice, bob) == (1, 9)


def test_a_receipt_brings_a_record_with_the_age_of_its_envelope(circle: list[Person]) -> None:
    alice, bob, carol = circle
    alice.meet(LINK, carol)
    receipt = bob.receipt(alice.key, alice.envelope(bob.key).id, status=Status.UNOPENABLE, record=bob.record.signed)
    alice.step(alice.arrived(LINK, replace(receipt, hop=1, age_ms=HOUR_MS)))
    stored = alice.store.record(bob.key)
    assert stored is not None
    assert stored.age_ms == HOUR_MS


def test_made_up_peers_push_out_each_other_but_no_contact_and_no_neighbour(
    circle: list[Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records_module, "RECORDS_MAX", 5)
    alice, bob, carol = circle
    alice.decide(contacts=(bob,))
    hear(alice, bob.record)
    alice.meet(LINK, carol)
    strangers = [Person(alice.crypto, f"stranger {n}") for n in range(10)]
    for n, stranger in enumerate(strangers):
        alice.now = at(T0 + n + 1)
        hear(alice, stranger.record, link=None)
    assert {record.key for record in alice.store.records(99)} == {
        bob.key, carol.key, *(stranger.key for stranger in strangers[-3:])
    }  # fmt: skip
    hear(alice, strangers[0].record, link=None)
    assert kept(alice, strangers[0]) == (1, 1), "who was pushed out may come again"
    hear(alice, bob.record_of(1, 9))
    assert len(alice.store.records(99)) == 5, "a newer record of a known peer needs no room"


def records(out: tuple[Effect, ...]) -> list[tuple[int, bytes]]:
    return [(effect.link, effect.record) for effect in out if isinstance(effect, SendRecord)]


def test_a_new_neighbour_is_offered_what_is_known_but_no_blocked_peer_and_not_itself(circle: list[Person]) -> None:
    alice, bob, carol = circle
    dave, erin = Person(alice.crypto, "dave"), Person(alice.crypto, "erin")
    for person in (bob, carol, dave):
        hear(alice, person.record, link=None)
    alice.decide(blocked=(dave,))
    out = alice.meet(LINK, bob)
    assert records(out) == [(LINK, carol.record.signed)]
    assert records(alice.meet(LINK + 1, erin)) == [
        (LINK, erin.record.signed), (LINK + 1, bob.record.signed), (LINK + 1, carol.record.signed)
    ]  # fmt: skip


def test_a_newer_record_is_passed_on_once_with_its_age_and_an_older_one_never(circle: list[Person]) -> None:
    alice, bob, carol = circle
    dave = Person(alice.crypto, "dave")
    alice.meet(LINK, bob)
    alice.meet(LINK + 1, carol)
    alice.now = at(T0 + 60_000)
    newer = dave.record_of(1, 9)
    assert hear(alice, newer, age_ms=7) == (SendRecord(LinkId(LINK + 1), newer.signed, 7),)
    assert hear(alice, newer, link=LINK + 1) == ()
    assert records(hear(alice, dave.record)) == [(LINK, newer.signed)], "who is behind is shown the newer one"
    assert hear(alice, dave.record, link=None) == ()
