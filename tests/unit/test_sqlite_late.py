"""What waits to be written: nobody sees less of it than of what is written, and a rollback leaves nothing of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest
from tests.conformance.rows import Step, channel_id, held, key, message, numbers, subscription

from quicprochat.adapters.sqlite import ServerStore
from quicprochat.adapters.sqlite.channels import _CHANNEL
from quicprochat.adapters.sqlite.envelopes import HELD, SEEN
from quicprochat.adapters.sqlite.federation import OUTBOX, REPORT
from quicprochat.adapters.sqlite.history import NUMBERS
from quicprochat.adapters.sqlite.journal import _DELIVERED, _LINE
from quicprochat.adapters.sqlite.late import Late, Table, among
from quicprochat.adapters.sqlite.peers import _VALUE
from quicprochat.core.envelope import Kind
from quicprochat.core.federation import Outgoing, Report
from quicprochat.core.ids import EnvelopeId
from quicprochat.core.store import Fate, Scope, Usage
from quicprochat.core.time import Instant, WallTime

ADA = key("ada")
THINGS = Table("thing", by="n", size=lambda row: len(row[1]))
OTHERS = Table("other", insert="INSERT OR REPLACE", row=lambda item: (item, item))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ServerStore]:
    opened = ServerStore.open(tmp_path / "server.db", ballast_bytes=0)
    yield opened
    opened.close()


# --- Late itself


def thing(n: int, text: str = "") -> tuple[int, str]:
    return (n, text)


def test_what_goes_is_written_before_what_comes() -> None:
    late = Late()
    late.delete(THINGS, "a", 1)
    late.add(THINGS, "a", thing(2))
    late.add(OTHERS, "x", 9)
    assert [*late.take()] == [
        ("DELETE FROM thing WHERE n IN (?1)", [1]),
        ("INSERT INTO thing VALUES (?, ?)", [2, ""]),
        ("INSERT OR REPLACE INTO other VALUES (?, ?)", [9, 9]),
    ]
    assert not late
    assert [*late.take()] == []


def test_rows_go_in_powers_of_two_in_the_order_in_which_they_came() -> None:
    late = Late()
    for n in range(45):
        late.add(THINGS, n, thing(n))
    late.add(THINGS, 0, thing(99))
    taken = [bindings for _, bindings in late.take()]
    assert [len(bindings) // 2 for bindings in taken] == [32, 8, 4, 1]
    assert [n for bindings in taken for n in bindings[::2]] == [*range(1, 45), 99]


def test_what_comes_and_goes_is_never_written() -> None:
    late = Late()
    late.add(THINGS, "a", thing(1))
    assert late.drop(THINGS, "a") == thing(1)
    assert late.drop(THINGS, "a") is None
    assert not late
    assert [*late.take()] == []


def test_a_key_without_a_row_is_known_until_it_gets_one() -> None:
    late = Late()
    late.add(THINGS, "waits", thing(1))
    late.foresee(THINGS, ["a", "b", "waits"])
    late.delete(THINGS, "gone", 7)
    assert [late.missing(THINGS, name) for name in ("a", "b", "gone", "waits", "c")] == [True, True, True, False, False]
    assert not late.missing(OTHERS, "a")
    late.add(THINGS, "a", thing(2))
    late.add(THINGS, "gone", thing(3))
    assert [*late.take()] != []
    assert [late.missing(THINGS, name) for name in ("a", "b", "gone", "waits")] == [False, True, False, False]
    late.clear()
    assert not late.missing(THINGS, "b")


@pytest.mark.parametrize("text", ["", "long" * 4_096], ids=["many", "long"])
def test_it_is_full_of_many_rows_or_of_long_ones_and_empty_afterwards(text: str) -> None:
    late = Late()
    count = 0
    while not late.full():
        late.add(THINGS, count, thing(count, text))
        late.add(THINGS, count, thing(count, text))
        count += 1
    assert count == (64 if text else 1_024)
    late.drop(THINGS, 0)
    assert not late.full()
    late.delete(THINGS, "gone", 1)
    late.replace(THINGS, 1, thing(1, text + text))
    assert late.full()
    assert [*late.take([OTHERS])] == []
    assert late.full()
    assert [*late.take([THINGS])] != []
    late.add(THINGS, 0, thing(0, text))
    assert not late.full()


def test_a_statement_names_tables_by_whole_words_in_any_case() -> None:
    late = Late()
    late.add(THINGS, 1, thing(1))
    late.delete(OTHERS, 1, 1)
    assert late.named("SELECT things, another FROM somewhere") == []
    assert late.named("SELECT 1 FROM Thing WHERE n=?") == [THINGS]
    assert {*late.named("DELETE FROM thing WHERE n IN (SELECT n FROM other)")} == {THINGS, OTHERS}


def test_brackets_have_few_sizes() -> None:
    assert among(["a"]) == ("?1", ["a"])
    assert among(["a", "b", "c"]) == ("?1, ?2, ?3, ?4", ["a", "b", "c", "c"])


# --- in the store


def outgoing(id: EnvelopeId) -> Outgoing:
    return Outgoing(id, "north.example", "south.example", ADA, Kind.MESSAGE, 10, Instant(9), Instant(0))


WRITES: dict[Table, Callable[[ServerStore], object]] = {
    HELD: lambda store: store.hold(held("a")),
    SEEN: lambda store: store.remember(held("a").id, Fate.GONE, None),
    OUTBOX: lambda store: store.put_outgoing(outgoing(held("a").id)),
    REPORT: lambda store: store.put_report(Report(ADA, held("a").id, "south.example", 1, 1, Instant(0)), 9, 9),
    NUMBERS: lambda store: store.put_heard(channel_id("a"), numbers("ann")),
    _LINE: lambda store: store.note(message("a")),
    _DELIVERED: lambda store: store.deliver(message("a")),
    _VALUE: lambda store: store.set_value("a", b"a"),
    _CHANNEL: lambda store: store.put_channel(subscription("a")),
}


@pytest.mark.parametrize("table", WRITES, ids=lambda table: table.name)
def test_every_statement_about_a_table_sees_what_waits_for_it(store: ServerStore, table: Table) -> None:
    count = f"SELECT count(*) FROM {table.name}"
    for ask in (store._one, lambda sql: store._rows(sql)[0][0], lambda sql: list(store._each(sql)).pop()[0]):
        store.begin()
        WRITES[table](store)
        assert store._peek(count) == 0, "it was written at once"
        assert store._one("SELECT count(*) FROM user") == 0
        assert store._peek(count) == 0, "it was written for a question about another table"
        assert ask(count) == 1
        store.rollback()
    store.begin()
    WRITES[table](store)
    assert store._run(f"DELETE FROM {table.name}") == 1
    store.rollback()


def test_no_statement_reads_a_table_that_it_does_not_name(store: ServerStore) -> None:
    assert store._one("SELECT count(*) FROM sqlite_schema WHERE type IN ('view', 'trigger')") == 0
    for table in WRITES:
        assert store._rows(f"PRAGMA foreign_key_list({table.name})") == []


def test_what_is_held_and_let_go_of_in_one_transaction_is_never_written(store: ServerStore) -> None:
    with Step(store):
        store.set_value("x", b"x")
    written: list[str] = []
    store._db.trace_v2(apsw.SQLITE_TRACE_STMT, lambda event: written.append(event["sql"]))
    with Step(store):
        store.hold(held("a", via="ada"))
        store.put_outgoing(outgoing(held("a").id))
        store.release(held("a").id)
        assert (store.held(held("a").id), store.fate(held("a").id)) == (None, None)
    store._db.trace_v2(0, None)
    assert [sql for sql in written if "INSERT" in sql or "DELETE" in sql] == []
    assert store.outgoing_domains() == {}
    assert store.usage(Scope.LINK, ADA) == Usage()


def test_what_is_held_is_held_whatever_waits_to_be_remembered(store: ServerStore) -> None:
    one = held("a")
    with Step(store):
        store.hold(one)
    store._forget_cached()
    with Step(store):
        store.remember(one.id, Fate.GONE, None)
        assert store.fate(one.id) is Fate.HELD
        store.release(one.id)
        assert store.fate(one.id) is Fate.GONE
        store.forget_ids([one.id])
        assert store.fate(one.id) is None
        store.hold(one)
        assert store.fate(one.id) is Fate.HELD
    assert store.waiting(one.dst, 0, 9)[0].id == one.id
    assert store.waiting(one.dst, 0, 9)[0].serial == 2


def test_a_rollback_leaves_nothing_of_what_waited_or_was_written_early(store: ServerStore) -> None:
    kept, new = held("kept", via="ada"), held("new", via="ada")
    with Step(store):
        store.hold(kept)
        store.put_outgoing(outgoing(kept.id))
        store.put_channel(subscription("news", heads=1))
        store.see_user(ADA, Instant(0), WallTime(0))
    for written in (False, True):
        store.begin()
        store.foresee([new.id, *(held(str(n)).id for n in range(5))])
        store.hold(new)
        store.put_outgoing(outgoing(new.id))
        store.release(kept.id)
        store.remember(kept.id, Fate.GONE, None)
        store.put_channel(subscription("news", heads=2))
        store.put_channel(subscription("club"))
        store.set_value("x", b"x")
        store.drop_user(ADA)
        assert store.user(ADA) is None
        assert store.oldest(kept.dst, None, 9) == [new.id]
        if written:
            store._write_late()
        store.rollback()
        assert not store._late
        assert [one.id for one in store.waiting(kept.dst, 0, 9)] == [kept.id]
        assert store.oldest(kept.dst, None, 9) == [kept.id]
        assert (store.held(new.id), store.fate(new.id), store.outgoing(new.id)) == (None, None, None)
        assert store.held(kept.id) is not None
        assert store.fate(kept.id) is Fate.HELD
        assert store.outgoing(kept.id) is not None
        assert store.channel(channel_id("news")) == subscription("news", heads=1)
        assert store.channel(channel_id("club")) is None
        assert store.value("x") is None
        assert store.user(ADA) is not None
        assert store.outgoing_domains() == {"south.example": 1}
