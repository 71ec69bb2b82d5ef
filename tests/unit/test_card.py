"""Our own record and prekeys: when they are made, kept and dropped, and what a copy of ourselves gives away."""

from __future__ import annotations

import pytest
from tests.unit.people import T0, WALL, Person, at, by_clock, kinds, people

from quicprochat.core.card import PREKEY_KEEP_MS, REFRESH_MS, ROTATE_MS
from quicprochat.core.events import (
    Alarm,
    Effect,
    LinkId,
    PrekeysChanged,
    RecordArrived,
    RecordMade,
    SelfChanged,
    SendRecord,
    Tick,
)
from quicprochat.core.record import PeerRecord, open_record
from quicprochat.core.time import DAY_MS, HOUR_MS
from quicprochat.sim.crypto import SimCrypto

CLONED = Alarm("identity_cloned", "this identity is in use elsewhere too: a copy of its key file is running")


@pytest.fixture
def alice() -> Person:
    return people("alice")[0]


def tick(person: Person, instant: int) -> tuple[Effect, ...]:
    return person.step(Tick(), now=at(instant))


def heard(record: PeerRecord) -> RecordArrived:
    return RecordArrived(LinkId(1), record, 0)


# --- prekeys


def test_a_first_start_makes_a_prekey_and_says_so() -> None:
    alice = Person(SimCrypto(b""), "alice", start=False)
    out = alice.start(at(T0))
    (stored,) = alice.store.prekeys()
    assert PrekeysChanged() in out
    assert stored.made_at == T0
    assert alice.record.prekeys[0].id == stored.id
    assert alice.keys[stored.id].public == alice.record.prekeys[0].public


def test_a_restart_keeps_the_prekey_of_the_day_and_loads_it(alice: Person) -> None:
    prekey = alice.prekey
    out = alice.start(at(T0 + ROTATE_MS - 1))
    assert PrekeysChanged() in out
    assert (alice.prekey, len(alice.store.prekeys())) == (prekey, 1)


def test_a_restart_after_a_day_makes_a_new_one(alice: Person) -> None:
    prekey = alice.prekey
    alice.start(at(T0 + ROTATE_MS))
    assert alice.prekey != prekey
    assert [p.made_at for p in alice.store.prekeys()] == [T0 + ROTATE_MS, T0]


def test_a_day_of_life_brings_a_new_prekey_and_a_record_that_shows_it(alice: Person) -> None:
    bob = Person(alice.crypto, "bob")
    alice.meet(1, bob, record=False)
    tick(alice, T0 + REFRESH_MS)
    old = alice.record
    assert tick(alice, T0 + ROTATE_MS - 1) == ()
    out = tick(alice, T0 + ROTATE_MS)
    assert out == (PrekeysChanged(), RecordMade(alice.record), SendRecord(LinkId(1), alice.record.signed, 0))
    assert alice.record.seq == old.seq + 1
    assert alice.record.prekeys != old.prekeys
    assert open_record(alice.record.signed, alice.crypto) == alice.record


def test_rotation_goes_by_life_time_whatever_the_wall_clock_says(alice: Person) -> None:
    prekey = alice.prekey
    alice.step(Tick(), now=at(T0 + 1, WALL + 400 * DAY_MS, trusted=True))
    assert alice.prekey == prekey
    alice.step(Tick(), now=at(T0 + ROTATE_MS, 5))
    assert alice.prekey != prekey


def test_a_prekey_is_kept_for_29_days_and_then_gone(alice: Person) -> None:
    """Its record may be used until it is 14 days old, and the message may then travel for 14 days."""
    assert PREKEY_KEEP_MS == 29 * DAY_MS
    first = alice.store.prekeys()[0]
    for day in range(1, 30):
        tick(alice, T0 + day * DAY_MS)
        assert first in alice.store.prekeys(), f"on day {day}"
    tick(alice, T0 + 30 * DAY_MS)
    assert first not in alice.store.prekeys()
    assert len(alice.store.prekeys()) == 30
    assert first.id not in alice.keys


def test_a_message_to_a_prekey_of_28_days_ago_still_opens(alice: Person) -> None:
    bob = Person(alice.crypto, "bob")
    late = bob.envelope(alice.key, prekey=alice.prekey, ttl_s=14 * 86_400, age_ms=14 * DAY_MS - 1)
    for day in range(1, 29):
        tick(alice, T0 + day * DAY_MS)
    assert alice.check(late).opened is not None


# --- the record


def test_a_record_says_what_the_owner_wants_said_and_only_news_make_a_new_one(alice: Person) -> None:
    record = alice.record
    assert (record.key, record.name, record.version) == (alice.key, "alice", (1, 1))
    assert alice.step(SelfChanged("alice", "", "", ())) == ()
    out = alice.step(SelfChanged("alice", "example.org", "https://relay.example", ()))
    assert out == (RecordMade(alice.record),)
    assert (alice.record.domain, alice.record.relay) == ("example.org", "https://relay.example")
    assert alice.record.version == (1, 2)


def test_a_record_is_signed_again_twice_a_day(alice: Person) -> None:
    assert tick(alice, T0 + REFRESH_MS - 1) == ()
    assert tick(alice, T0 + REFRESH_MS) == (RecordMade(alice.record),)
    assert alice.record.version == (1, 2)
    assert tick(alice, T0 + REFRESH_MS + 1) == ()


def test_numbers_grow_over_restarts(alice: Person) -> None:
    for start in range(2, 6):
        alice.start(at(T0 + start))
        assert alice.record.version == (1, start)


def test_a_record_says_when_it_was_made_only_by_a_trusted_clock(alice: Person) -> None:
    assert alice.record.created_ms == 0
    alice.step(SelfChanged("other", "", "", ()), now=at(T0, 12_345))
    assert alice.record.created_ms == 0
    alice.step(SelfChanged("alice", "", "", ()), now=by_clock(T0))
    assert alice.record.created_ms == WALL + T0


# --- hearing ourselves


def test_an_old_record_of_our_own_is_no_news(alice: Person) -> None:
    old = alice.record
    alice.step(SelfChanged("other", "", "", ()))
    assert alice.step(heard(old)) == ()
    assert alice.step(heard(alice.record)) == ()


def test_after_a_restored_backup_we_jump_past_what_others_remember(alice: Person) -> None:
    bob = Person(alice.crypto, "bob")
    alice.meet(1, bob, record=False)
    out = alice.step(heard(alice.record_of(3, 41)))
    assert alice.record.version == (3, 42)
    assert alice.record.name == "alice"
    assert out == (RecordMade(alice.record), SendRecord(LinkId(1), alice.record.signed, 0))
    alice.start(at(T0))
    assert alice.record.version == (3, 43), "the jump is remembered"


def test_another_record_with_our_number_is_a_copys(alice: Person) -> None:
    alice.step(heard(alice.record_of(*alice.record.version, name="not me")))
    assert alice.record.version == (1, 2)


def test_a_second_newer_record_means_a_copy_is_alive(alice: Person) -> None:
    alice.step(heard(alice.record_of(1, 41)))
    assert alice.step(heard(alice.record_of(1, 43))) == (CLONED,)
    assert alice.record.version == (1, 42)


def test_a_copy_that_goes_on_is_told_of_once_in_a_run(alice: Person) -> None:
    for seq in (41, 43):
        alice.step(heard(alice.record_of(1, seq)))
    for seq in range(44, 50):
        assert alice.step(heard(alice.record_of(1, seq))) == ()
    alice.start(at(T0))
    for seq in (60, 62):
        out = alice.step(heard(alice.record_of(1, seq)))
    assert out == (CLONED,)


def test_who_has_a_living_copy_announces_nothing_more(alice: Person) -> None:
    for seq in (41, 43):
        alice.step(heard(alice.record_of(1, seq)))
    assert alice.step(SelfChanged("other", "", "", ())) == ()
    assert kinds(tick(alice, T0 + 3 * REFRESH_MS)) == ["PrekeysChanged"]
    assert alice.node.next_deadline() > T0 + 3 * REFRESH_MS, "nor does it try all the time"
    assert alice.record.version == (1, 42)


def test_a_new_start_may_jump_again(alice: Person) -> None:
    for seq in (41, 43):
        alice.step(heard(alice.record_of(1, seq)))
    alice.start(at(T0 + HOUR_MS))
    assert alice.record.version == (1, 43)
    alice.step(heard(alice.record_of(1, 43, name="the copy")))
    assert alice.record.version == (1, 44)
