"""The tables of federation: the outbox beside the envelopes, correspondents, reports; quotas that survive a restart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import apsw
import pytest
from tests.conformance.rows import Step, held, key

from quicprochat.adapters.sqlite import ServerStore, schema
from quicprochat.core.envelope import Kind
from quicprochat.core.federation import Outgoing, Report
from quicprochat.core.ids import PeerKey
from quicprochat.core.store import Fate, Held, Usage
from quicprochat.core.time import Instant

ADA, BOB = key("ada"), key("bob")
NORTH, SOUTH, EAST = "north.example", "south.example", "east.example"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "server.db"


@pytest.fixture
def store(path: Path) -> Iterator[ServerStore]:
    opened = ServerStore.open(path)
    yield opened
    opened.close()


def row(one: Held, *, to: str = SOUTH, user: PeerKey = ADA, due: int = 0, kind: int = Kind.MESSAGE) -> Outgoing:
    return Outgoing(one.id, NORTH, to, user, kind, len(one.wire), one.expires_at, Instant(due))


def put(
    store: ServerStore, name: str, *, to: str = SOUTH, user: PeerKey = ADA, due: int = 0, kind: int = Kind.MESSAGE,
    size: int = 64, expires: int = 9_000,
) -> Held:  # fmt: skip
    one = held(name, via="ada", kind=kind, size=size, expires=expires)
    with Step(store):
        store.hold(one)
        store.put_outgoing(row(one, to=to, user=user, due=due, kind=kind))
    return one


def test_rows_are_due_in_order_each_for_its_domain(store: ServerStore) -> None:
    late, early, third = put(store, "a", due=9), put(store, "b", due=5), put(store, "c", due=5)
    other = put(store, "d", to=EAST)
    assert [one.id for one in store.due_outgoing(SOUTH, Instant(9), 10)] == [early.id, third.id, late.id]
    assert [one.id for one in store.due_outgoing(SOUTH, Instant(8), 1)] == [early.id]
    assert [one.id for one in store.due_outgoing(EAST, Instant(0), 10)] == [other.id]
    assert store.due_outgoing(SOUTH, Instant(4), 10) == []
    assert (store.next_due(SOUTH), store.next_due(EAST), store.next_due(NORTH)) == (5, 0, None)
    assert store.outgoing_domains() == {SOUTH: 3, EAST: 1}


def test_row_comes_back_as_it_was_put(store: ServerStore) -> None:
    one = put(store, "a", due=7)
    found = store.outgoing(one.id)
    assert found == replace(row(one, due=7), serial=1)
    assert store.outgoing(held("b").id) is None
    with Step(store):
        store.answer_outgoing(one.id, Instant(20), 3, 3, 6)
    found = store.outgoing(one.id)
    assert found is not None
    assert (found.due_at, found.tries, found.verdict, found.reason, found.set_aside) == (20, 3, 3, 6, False)


def test_set_aside_is_not_due_until_it_is_put_again_or_woken(store: ServerStore) -> None:
    one, other = put(store, "a"), put(store, "b", due=50)
    with Step(store):
        store.answer_outgoing(one.id, None, 1, 2, 4)
    assert store.next_due(SOUTH) == 50
    assert store.outgoing_set_aside(SOUTH) == 1
    with Step(store):
        assert store.wake_outgoing(SOUTH, Instant(10), set_aside=False) == 1
    assert [x.id for x in store.due_outgoing(SOUTH, Instant(10), 10)] == [other.id]
    with Step(store):
        assert store.wake_outgoing(SOUTH, Instant(11), set_aside=True) == 1
    assert {x.id for x in store.due_outgoing(SOUTH, Instant(11), 10)} == {one.id, other.id}
    with Step(store):
        store.answer_outgoing(one.id, None, 1, 2, 4)
        store.put_outgoing(row(one, due=12))
    assert store.outgoing_set_aside(SOUTH) == 0
    assert store.outgoing_domains() == {SOUTH: 2}, "put again, it is one row as before"


def test_releasing_an_envelope_drops_its_row(store: ServerStore) -> None:
    one = put(store, "a")
    put(store, "b")
    with Step(store):
        store.release(one.id)
    assert store.outgoing(one.id) is None
    assert store.outgoing_domains() == {SOUTH: 1}
    with Step(store):
        store.drop_outgoing(one.id)
    assert store.outgoing_domains() == {SOUTH: 1}


def test_releasing_many_drops_their_rows_and_counts(store: ServerStore) -> None:
    made = [put(store, str(n), user=ADA if n % 2 else BOB) for n in range(10)]
    with Step(store):
        store.release_many([one.id for one in made[:8]])
    assert store.outgoing_domains() == {SOUTH: 2}
    assert [one.id for one in store.outgoing_rows(SOUTH, 0, 9)] == [one.id for one in made[8:]]
    assert store.outgoing_usage(SOUTH, ADA) == Usage(1, len(made[9].wire))
    assert store.held_many([one.id for one in made]).keys() == {one.id for one in made[8:]}


def test_looking_ahead_knows_the_rows_of_the_outbox(store: ServerStore) -> None:
    known = put(store, "known")
    others = [held(str(n), via="ada") for n in range(5)]
    with Step(store):
        store.foresee([known.id, *(one.id for one in others)])
        assert store.outgoing(known.id) is not None
        store.put_outgoing(row(known, due=30))
        for one in others:
            assert store.outgoing(one.id) is None
            store.hold(one)
            store.put_outgoing(row(one))
            store.put_outgoing(row(one, due=30))
    assert [one.due_at for one in store.outgoing_rows(SOUTH, 0, 9)] == 6 * [30]
    assert store.outgoing_domains() == {SOUTH: 6}


def test_quotas_are_by_domain_and_user_without_receipts_and_survive_a_restart(path: Path) -> None:
    store = ServerStore.open(path)
    one = put(store, "a", size=64)
    put(store, "b", user=BOB, size=96)
    put(store, "c", to=EAST)
    put(store, "d", kind=Kind.RECEIPT)
    gone = put(store, "e", user=BOB)
    with Step(store):
        store.release(gone.id)
    for _ in range(2):
        assert store.outgoing_usage(SOUTH) == Usage(2, 2 * len(one.wire) + 32)
        assert store.outgoing_usage(SOUTH, ADA) == Usage(1, len(one.wire))
        assert store.outgoing_usage(SOUTH, BOB) == Usage(1, len(one.wire) + 32)
        assert store.outgoing_usage(NORTH) == Usage()
        assert store.outgoing_domains() == {SOUTH: 3, EAST: 1}
        store.close()
        store = ServerStore.open(path)
    store.close()


def test_rollback_undoes_rows_and_quotas(store: ServerStore) -> None:
    store.begin()
    one = held("a", via="ada")
    store.hold(one)
    store.put_outgoing(row(one))
    store.rollback()
    assert store.outgoing_domains() == {}
    assert store.outgoing_usage(SOUTH) == Usage()
    assert store.outgoing(one.id) is None


def test_rows_are_listed_in_pages_and_expire(store: ServerStore) -> None:
    made = [put(store, str(n), expires=100 + n) for n in range(5)]
    first = store.outgoing_rows(SOUTH, 0, 3)
    assert [one.id for one in first] == [one.id for one in made[:3]]
    assert [one.id for one in store.outgoing_rows(SOUTH, first[-1].serial, 3)] == [one.id for one in made[3:]]
    assert store.expired_outgoing(Instant(101), 10) == [one.id for one in made[:2]]
    assert store.expired_outgoing(Instant(200), 1) == [made[0].id]


def test_an_id_can_be_forgotten(store: ServerStore) -> None:
    one = held("a", via="ada")
    with Step(store):
        store.remember(one.id, Fate.HELD, Instant(1_000))
        store.forget_ids([one.id])
        store.forget_ids([one.id, held("b").id])
        store.forget_ids([])
    assert store.fate(one.id) is None


def test_authors_domain_is_known_until_its_time_and_the_newest_holds(store: ServerStore) -> None:
    with Step(store):
        store.put_correspondent(ADA, SOUTH, Instant(10), 5)
    assert store.correspondent(ADA, Instant(9)) == SOUTH
    assert store.correspondent(ADA, Instant(10)) == store.correspondent(BOB, Instant(0)) == ""
    with Step(store):
        store.put_correspondent(ADA, EAST, Instant(20), 5)
    assert store.correspondent(ADA, Instant(10)) == EAST
    with Step(store):
        assert store.drop_correspondents(Instant(19), 9) == 0
        assert store.drop_correspondents(Instant(20), 9) == 1


def test_authors_are_few_and_the_one_that_ends_first_goes(path: Path) -> None:
    store = ServerStore.open(path)
    with Step(store):
        for n in range(4):
            store.put_correspondent(key(str(n)), SOUTH, Instant(100 - n), 3)
    store.close()
    store = ServerStore.open(path)
    with Step(store):
        store.put_correspondent(key("4"), SOUTH, Instant(200), 3)
    known = [bool(store.correspondent(key(str(n)), Instant(0))) for n in range(5)]
    assert known == [True, True, False, False, True]
    store.close()


def report(name: str, author: PeerKey = ADA, at: int = 0) -> Report:
    return Report(author, held(name).id, SOUTH, 0, 0, Instant(at))


def test_reports_are_told_in_order_and_dropped_up_to_one(path: Path) -> None:
    store = ServerStore.open(path)
    with Step(store):
        store.put_reports([report("a"), report("b")], 10, 10)
        store.put_reports([report("c"), report("d", BOB)], 10, 10)
    store.close()
    store = ServerStore.open(path)
    found = store.reports(ADA, 0, 2)
    assert [replace(one, serial=0) for one in found] == [report("a"), report("b")]
    assert [one.id for one in store.reports(ADA, found[-1].serial, 2)] == [report("c").id]
    with Step(store):
        store.drop_reports(ADA, found[-1].serial)
    assert [one.id for one in store.reports(ADA, 0, 9)] == [report("c").id]
    assert [one.id for one in store.reports(BOB, 0, 9)] == [report("d").id]
    assert store.report_count() == 2
    store.close()


def test_reports_are_bounded_by_author_and_altogether_and_by_age(store: ServerStore) -> None:
    with Step(store):
        store.put_reports([report(str(n), at=n) for n in range(3)], 2, 3)
        store.put_reports([report("3", at=3)], 2, 3)
    assert [one.id for one in store.reports(ADA, 0, 9)] == [report("2").id, report("3").id]
    with Step(store):
        store.put_reports([report(str(n), BOB, at=n) for n in range(4, 6)], 2, 3)
    assert store.report_count() == 3
    assert [one.id for one in store.reports(ADA, 0, 9)] == [report("3").id]
    with Step(store):
        assert store.drop_old_reports(Instant(5), 9) == 2
    assert (store.report_count(), store.reports(ADA, 0, 9)) == (1, ())


# --- damage


def spoil(path: Path, sql: str) -> None:
    db = apsw.Connection(str(path))
    db.execute(sql)
    db.close()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE outbox SET destination = 'evil.example'",
        "UPDATE outbox SET user = x'00'",
        "UPDATE outbox SET id = x'00'",
    ],
)
def test_damaged_row_sends_nothing_astray(path: Path, sql: str) -> None:
    store = ServerStore.open(path)
    one = put(store, "a")
    store.close()
    spoil(path, sql)
    store = ServerStore.open(path)
    assert store.outgoing(one.id) is None
    for domain in (SOUTH, "evil.example"):
        assert store.due_outgoing(domain, Instant(99), 9) == []
    with Step(store):
        store.set_value("x", b"")
    assert store.outgoing_domains() == {}
    assert store.counters()["damaged"] == 1
    assert store.held(one.id) is not None, "its author offers it again, and that makes a new row"
    store.close()


def test_damaged_correspondent_and_report_are_left_out(path: Path) -> None:
    store = ServerStore.open(path)
    with Step(store):
        store.put_correspondent(ADA, SOUTH, Instant(10), 5)
        store.put_reports([report("a")], 9, 9)
    store.close()
    spoil(path, "UPDATE correspondent SET domain = 'evil.example'")
    spoil(path, "UPDATE report SET verdict = 2")
    store = ServerStore.open(path)
    assert store.correspondent(ADA, Instant(0)) == ""
    assert store.reports(ADA, 0, 9) == []
    with Step(store):
        store.set_value("x", b"")
    assert store.report_count() == 0
    store.close()


# --- the schema


def test_a_server_from_before_federation_gets_the_tables(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(schema, "SERVER", replace(schema.SERVER, steps=schema.SERVER.steps[:1]))
        db = apsw.Connection(str(path))
        schema.prepare(db, path, schema.CURRENT, schema.SERVER)
        db.close()
    store = ServerStore.open(path)
    put(store, "a")
    assert store.outgoing_domains() == {SOUTH: 1}
    store.close()
    assert schema.backup_of(path, schema.CURRENT.version, 1).exists()
