"""The store in dictionaries, where its own workings differ from what the conformance suite asks of every store."""

from __future__ import annotations

from random import Random

import pytest
from tests.unit.people import people

from quicprochat.core import memory
from quicprochat.core.ids import EnvelopeId
from quicprochat.core.memory import MemoryStore
from quicprochat.core.quota import Quotas
from quicprochat.core.store import Fate, Held, Scope, Usage
from quicprochat.core.time import Instant

ALICE, ZOE = people("alice", "zoe")


def held(number: int, expires_at: int = 100) -> Held:
    return Held(EnvelopeId(b"%032d" % number), 1, ALICE.key, ZOE.key, b"", bytes(300), Instant(0), Instant(expires_at))


def test_what_a_restart_does_to_it_is_said_when_it_is_made() -> None:
    assert (MemoryStore().volatile, MemoryStore(durable=True).volatile) == (True, False)


def test_a_transaction_within_another_is_a_bug() -> None:
    store = MemoryStore()
    store.begin()
    store.hold(held(1))
    with pytest.raises(AssertionError):
        store.begin()


def test_holding_what_is_held_is_a_bug() -> None:
    store = MemoryStore()
    store.begin()
    store.hold(held(1))
    with pytest.raises(AssertionError):
        store.hold(held(1))


def test_closing_takes_back_what_was_not_committed() -> None:
    store = MemoryStore(durable=True)
    store.begin()
    store.hold(held(1))
    store.close()
    assert store.held(held(1).id) is None


def test_the_next_expiry_is_found_again_after_a_rollback_that_saw_past_it() -> None:
    """Looking for the next expiry throws away what is out of date; a rollback may bring that back."""
    store = MemoryStore()
    store.begin()
    store.hold(held(1, 50))
    store.hold(held(2, 70))
    store.commit()
    store.begin()
    store.release(held(1).id)
    assert store.next_expiry() == 70
    store.rollback()
    assert store.next_expiry() == 50


def test_an_id_is_forgotten_after_a_rollback_that_had_forgotten_it() -> None:
    store = MemoryStore()
    store.begin()
    store.remember(held(1).id, Fate.HELD, Instant(10))
    store.commit()
    store.begin()
    assert store.forget(Instant(10), 5) == 1
    store.rollback()
    assert store.fate(held(1).id) is Fate.HELD
    store.begin()
    assert store.forget(Instant(10), 5) == 1
    store.commit()
    assert store.fate(held(1).id) is None


def test_an_id_remembered_for_longer_outlives_its_first_date() -> None:
    store = MemoryStore()
    store.begin()
    store.remember(held(1).id, Fate.HELD, Instant(10))
    store.remember(held(1).id, Fate.GONE, Instant(20))
    assert (store.forget(Instant(19), 5), store.fate(held(1).id)) == (0, Fate.GONE)
    assert (store.forget(Instant(20), 5), store.fate(held(1).id)) == (1, None)


def test_totals_agree_with_what_is_held_through_commits_and_rollbacks() -> None:
    store, chance, there = MemoryStore(), Random(5), set[int]()
    for _ in range(300):
        before = set(there)
        store.begin()
        for number in chance.sample(range(20), 3):
            if number in there:
                store.release(held(number).id)
                there.remove(number)
            else:
                store.hold(held(number))
                there.add(number)
        if chance.random() < 0.5:
            store.rollback()
            there = before
        else:
            store.commit()
        assert store.usage(Scope.OWN) == Usage(len(there), 300 * len(there))
        assert {one.id for one in store.waiting(ZOE.key, 0, 100)} == {held(number).id for number in there}
        assert store.recipients() == bool(there)


def test_a_total_of_nothing_takes_no_room() -> None:
    quotas = Quotas()
    for number in range(100):
        quotas.add(Scope.LINK, b"%d" % number, 10)
        quotas.add(Scope.LINK, b"%d" % number, 10, -1)
    assert not any(quotas._used.values())


def test_the_heaviest_is_kept_in_bounded_room_although_nobody_asks_again() -> None:
    quotas = Quotas()
    quotas.add(Scope.LINK, b"a", 10)
    assert quotas.heaviest(Scope.LINK, b"") == (b"a", Usage(1, 10))
    for _ in range(1_000):
        quotas.add(Scope.LINK, b"a", 10)
    assert sum(len(heap) for heap in quotas._heaps.values()) < 100
    assert quotas.heaviest(Scope.LINK, b"") == (b"a", Usage(1_001, 10_010))


def test_what_is_remembered_again_and_again_takes_no_more_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "STALE_MAX", 100)
    store = MemoryStore()
    ids = [EnvelopeId(b"%032d" % number) for number in range(10)]
    for turn in range(500):
        store.begin()
        for id in ids:
            store.remember(id, Fate.HELD if turn % 2 else Fate.GONE, Instant(turn), b"v" * 32)
        store.commit()
    assert len(store._forget) + sum(len(passed.order) for passed in store._passed.values()) <= 2 * (100 + 4 * 10)
    store.begin()
    store.remember(ids[0], Fate.GONE, Instant(1))
    assert store.forget_passed(0, 5) == 1
    assert store.forget(Instant(500), 100) == 9
