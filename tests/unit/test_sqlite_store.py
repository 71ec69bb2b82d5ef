"""What only the store on disk has to do: its file, its settings, its schema, and room to go on in."""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import apsw
import pytest
from tests.conformance.rows import (
    WALL,
    Step,
    envelope,
    held,
    key,
    lives,
    message,
    numbers,
    owned,
    placed,
    post,
    receipt,
    sent,
    subscription,
    uid,
)

from quicprochat.adapters.sqlite import SqliteStore, database, schema
from quicprochat.adapters.sqlite.ballast import Ballast
from quicprochat.core.errors import StoreError, StoreFullError
from quicprochat.core.ids import EnvelopeId
from quicprochat.core.receipt import State
from quicprochat.core.seal import Protection
from quicprochat.core.store import Author, Fate, Held, Scope, StoredPrekey, StoredRecord, TraceEvent
from quicprochat.core.time import Instant

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore.open(path)
    yield opened
    opened.close()


def log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def ballast_of(path: Path) -> Path:
    return path.with_name(path.name + ".ballast")


def reopened(store: SqliteStore, path: Path) -> SqliteStore:
    store.close()
    return SqliteStore.open(path)


# --- the file and its settings


def test_every_setting_holds(store: SqliteStore) -> None:
    expected = {
        "journal_mode": "wal",
        "synchronous": 2,
        "mmap_size": 0,
        "cell_size_check": 1,
        "trusted_schema": 0,
        "foreign_keys": 1,
        "secure_delete": 1,
        "journal_size_limit": database.LOG_LIMIT_BYTES,
        "wal_autocheckpoint": 0,
        "temp_store": 2,
        "cache_size": -database.CACHE_KIB,
        "application_id": schema.APPLICATION_ID,
    }
    assert {name: store._db.pragma(name) for name in expected} == expected
    assert store._db.open_vfs == "unix-excl"


def test_a_setting_that_does_not_hold_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LOG_LIMIT_BYTES", -7)
    with pytest.raises(StoreError, match="journal_size_limit"):
        SqliteStore.open(path)


def test_the_control_of_the_power_cut_experiment_is_really_weaker(path: Path) -> None:
    store = SqliteStore.open(path, synchronous="NORMAL")
    assert store._db.pragma("synchronous") == 1
    store.close()


def test_nobody_else_can_read_the_files(path: Path) -> None:
    old = os.umask(0)
    try:
        store = SqliteStore.open(path)
        with Step(store):
            store.set_value("x", b"1")
        modes = {file.name: oct(file.stat().st_mode & 0o777) for file in path.parent.iterdir()}
        store.close()
    finally:
        os.umask(old)
    assert set(modes) == {"store.db", "store.db-wal", "store.db.ballast"}
    assert set(modes.values()) == {"0o600"}


def test_a_second_store_on_the_file_is_refused(store: SqliteStore, path: Path) -> None:
    with pytest.raises(StoreError, match="in use by another process"):
        SqliteStore.open(path)
    with Step(store):
        store.set_value("x", b"1")


def test_another_process_is_kept_out(store: SqliteStore, path: Path) -> None:
    with Step(store):
        store.set_value("x", b"1")
    look = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('SELECT * FROM value')"
    done = subprocess.run([sys.executable, "-c", look, str(path)], capture_output=True, text=True, timeout=30)
    assert "database is locked" in done.stderr
    assert not path.with_name(path.name + "-shm").exists()


def test_the_tables_answer_the_hot_questions_by_index(store: SqliteStore) -> None:
    asked: dict[str, object] = {}

    def heard(_cursor: object, sql: str, bindings: object) -> bool:
        asked[sql] = bindings
        return True

    store._sql.exec_trace = heard
    with Step(store):
        store.fate(envelope("a").id)
        store.remember(envelope("a").id, Fate.HELD, Instant(5))
        store.forget(Instant(9), 5)
        store.hold(held("a"))
        store.held(held("a").id)
        store.waiting(key("ann"), 0, 5)
        store.expired(Instant(1), 5)
        store.next_expiry()
        store.release(held("a").id)
        store.put_sent(sent("a"))
        store.sent(uid("a"))
        store.sent_of(envelope("none").id)
        store.set_state(uid("a"), State.RELAYED, "")
        store.resealed(uid("a"), envelope("b").id, Protection.PREKEY)
        store.queued_with(key("ann"), Protection.PREKEY, 5)
        store.envelopes_of(uid("a"))
        store.add_trace(uid("a"), TraceEvent(WALL, "relayed", ""))
        store.trace(uid("a"))
        store.deliver(message("a"))
        store.delivered(key("ann"), uid("a"))
        store.note(receipt("a"))
        store.journal(after=0, limit=5)
        store.journal(after=0, limit=5, unread=True)
        store.journal(after=0, limit=5, unread=True, messages=True)
        store.mark_read([1])
        store.unread()
        store.accept(key("ann"))
        store.record(key("ann"))
        store.records(5)
        store.sightings(5)
        store.journal(after=0, limit=5, messages=True, peer=key("ann"))
        store.put_channel(subscription("news"))
        store.channel(subscription("news").channel.id)
        store.oldest(key("ann"), None, 5)
        store.oldest(key("ann"), key("bob"), 5)
        store.deliver(post("p"))
        store.unread_posts(subscription("news").channel.id)
        store.unread_channels()
        store.places(subscription("news").channel.id, limit=5)
        store.places(subscription("news").channel.id, after=1, since=WALL, unread=True, limit=5)
        store.lines([1])
        store.put_heard(subscription("news").channel.id, numbers("ann"))
        store.heard(subscription("news").channel.id, key("ann"))
        store.heard_in(subscription("news").channel.id)
        store.forget_heard(subscription("news").channel.id)
    store._sql.exec_trace = None
    slow = []
    for sql, bindings in asked.items():
        if sql.startswith(("SELECT", "INSERT", "UPDATE", "DELETE")):
            plan = [row[3] for row in store._db.execute(f"EXPLAIN QUERY PLAN {sql}", bindings)]  # type: ignore[arg-type]
            plan = [step for step in plan if "VALUES" not in step]  # several rows in one INSERT
            slow += [(sql, step) for step in plan if "TEMP B-TREE" in step or ("SCAN" in step and "INDEX" not in step)]
    print(slow)
    assert len(asked) > 25
    assert slow == []


def test_cursors_are_not_used_again_even_when_lines_are_deleted(store: SqliteStore, path: Path) -> None:
    with Step(store):
        last = [store.note(receipt(name)) for name in "abc"][-1]
        store.deliver(message("m"))
    store._db.execute("DELETE FROM line")
    store = reopened(store, path)
    with Step(store):
        assert store.note(receipt("d")) > last + 1
        assert store.deliver(message("m")) is None, "a deleted message arrived a second time"
    store.close()


def test_a_write_outside_a_transaction_is_a_bug(store: SqliteStore) -> None:
    with pytest.raises(AssertionError):
        store.set_value("x", b"1")


def test_a_closed_store_says_so(store: SqliteStore) -> None:
    store.close()
    with pytest.raises(StoreError, match="is closed"):
        store.value("x")
    store.begin()
    with pytest.raises(StoreError, match="is closed"):
        store.set_value("x", b"1")


# --- files that are not ours, or not usable


@pytest.mark.parametrize("content", [b"x", b"hello, this is no database\n" * 500, bytes(8192)], ids=len)
def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"is no message store.*move it away"):
        SqliteStore.open(path)
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_database_of_another_program_is_refused_and_left_alone(path: Path, mode: str) -> None:
    other = apsw.Connection(str(path))
    other.pragma("journal_mode", mode)
    other.execute("CREATE TABLE bookmarks (url)")
    other.close()
    content = path.read_bytes()
    with pytest.raises(StoreError, match="database of another program"):
        SqliteStore.open(path)
    assert path.read_bytes() == content


def test_a_missing_or_wrong_directory_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot be created.*check its directory"):
        SqliteStore.open(tmp_path / "missing" / "store.db")
    with pytest.raises(StoreError, match="cannot be opened"):
        SqliteStore.open(tmp_path)


# --- schema


NEXT = schema.CURRENT.version + 1
READABLE_FROM = schema.CURRENT.readable_from


def newer(*, readable_from: int, sql: str = "CREATE TABLE more (x) STRICT;") -> schema.Schema:
    return schema.Schema((*schema.CURRENT.steps, sql.replace("(x)", "(x INTEGER)")), readable_from)


def test_an_older_file_is_backed_up_and_upgraded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteStore.open(path)
    with Step(store):
        store.set_value("x", b"1")
    store.close()
    monkeypatch.setattr(schema, "CURRENT", newer(readable_from=1))
    store = SqliteStore.open(path)
    assert store.value("x") == b"1"
    assert store._db.execute("SELECT version, readable_from FROM meta").get == (NEXT, 1)
    assert store._db.execute("SELECT count(*) FROM more").get == 0
    backup = schema.backup_of(path, NEXT - 1)
    assert oct(backup.stat().st_mode & 0o777) == "0o600"
    old = apsw.Connection(str(backup))
    assert old.execute("SELECT version, readable_from FROM meta").get == (NEXT - 1, READABLE_FROM)
    assert old.execute("SELECT data FROM value").get == b"1"
    old.close()
    store.close()


def test_a_store_of_version_1_keeps_its_lines_and_takes_channels(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(schema, "CURRENT", schema.Schema(schema.CURRENT.steps[:1], 1))
        store = SqliteStore.open(path)
        with Step(store):
            store.hold(held("a"))
            store.set_value("x", b"1")
            for cursor, kind, line in ((1, 1, message("m", text="Grüße")), (2, 2, receipt("r"))):
                check = database.checksum(
                    struct.pack(">qqq", kind, line.at, line.hops), line.peer, line.uid, line.protection.encode(),
                    line.domain.encode(), line.state.encode(), line.reason.encode(), line.text.encode(),
                )  # fmt: skip
                row = (
                    cursor, kind, 0, 0, line.peer, line.uid, line.at, line.hops, line.protection, line.domain,
                    line.state, line.reason, check, line.text,
                )  # fmt: skip
                store._run("INSERT INTO line VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        store.close()
    store = SqliteStore.open(path)
    assert schema.backup_of(path, 1).exists()
    lines = [replace(message("m", text="Grüße"), cursor=1), replace(receipt("r"), cursor=2)]
    assert store.journal(after=0, limit=10) == lines
    assert store.counters() == {}, "an old line was taken for damaged"
    with Step(store):
        store.put_channel(subscription("news"))
        assert store.deliver(post("p")) == 3
    store = reopened(store, path)
    assert store.journal(after=0, limit=10) == [*lines, replace(post("p"), cursor=3)]
    assert (store.channels(), store.unread(), store.value("x")) == ([subscription("news")], 2, b"1")
    assert store.held(held("a").id) is not None
    store.close()


def test_a_store_of_version_3_keeps_its_lines_and_learns_when_they_were_sent(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(schema, "CURRENT", schema.Schema(schema.CURRENT.steps[:3], 2))
        store = SqliteStore.open(path)
        with Step(store):
            for cursor, kind, line in ((1, 1, message("m", text="Grüße")), (2, 3, post("p"))):
                check = database.checksum(
                    struct.pack(">qqq", kind, line.at, line.hops), line.peer, line.uid, line.protection.encode(),
                    line.domain.encode(), line.state.encode(), line.reason.encode(), line.text.encode(),
                    *((line.channel,) if line.channel else ()),
                )  # fmt: skip
                row = (
                    cursor, kind, 0, 0, line.peer, line.uid, line.at, line.hops, line.protection, line.domain,
                    line.state, line.reason, check, line.text, line.channel,
                )  # fmt: skip
                store._run("INSERT INTO line VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        store.close()
    store = SqliteStore.open(path)
    assert schema.backup_of(path, 3).exists()
    lines = [replace(message("m", text="Grüße"), cursor=1), replace(post("p"), cursor=2)]
    assert store.journal(after=0, limit=10) == lines
    assert store.counters() == {}, "an old line was taken for damaged"
    new = replace(post("q"), sent_at=WALL)
    with Step(store):
        assert store.deliver(new) == 3
    store = reopened(store, path)
    assert store.journal(after=0, limit=10) == [*lines, replace(new, cursor=3)]
    store._db.execute("UPDATE line SET sent_at = sent_at + 1 WHERE cursor = 3")
    assert store.journal(after=0, limit=10) == lines, "a moment that nobody wrote was believed"
    store.close()


def test_a_store_of_version_6_keeps_its_posts_and_learns_where_new_ones_stand(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(schema, "CURRENT", schema.Schema(schema.CURRENT.steps[:6], 4))
        store = SqliteStore.open(path)
        with Step(store):
            line = replace(post("old"), sent_at=WALL)
            check = database.checksum(
                struct.pack(">qqq", 3, line.at, line.hops), line.peer, line.uid, line.protection.encode(),
                line.domain.encode(), line.state.encode(), line.reason.encode(), line.text.encode(), line.channel,
                struct.pack(">q", line.sent_at),
            )  # fmt: skip
            row = (
                1, 3, 0, 0, line.peer, line.uid, line.at, line.hops, line.protection, line.domain,
                line.state, line.reason, check, line.text, line.channel, line.sent_at,
            )  # fmt: skip
            store._run("INSERT INTO line VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        store.close()
    store = SqliteStore.open(path)
    assert schema.backup_of(path, 6).exists()
    old, new, own = (
        replace(line, cursor=n) for n, line in ((1, line), (2, placed("a", 7)), (3, placed("b", own=True)))
    )
    assert (store.journal(after=0, limit=10), store.counters()) == ([old], {})
    with Step(store):
        store.deliver(new)
        store.note(own)
    store = reopened(store, path)
    news = subscription("news").channel.id
    assert list(store.places(news, limit=10)) == [old.place, new.place, own.place]
    assert (old.place.id, old.place.seq, old.place.parents) == (b"", 0, ())
    assert list(store.lines([1, 2, 3])) == [old, new, own]
    store._db.execute("UPDATE line SET place = zeroblob(40) WHERE cursor = 2")
    assert list(store.lines([1, 2, 3])) == [old, own], "a place that nobody wrote was believed"
    store.close()


def test_a_store_of_version_7_keeps_what_it_has_seen_and_learns_of_emergencies(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [EnvelopeId(bytes([number]) * 32) for number in range(5)]
    with monkeypatch.context() as patch:
        patch.setattr(schema, "CURRENT", schema.Schema(schema.CURRENT.steps[:7], 7))
        store = SqliteStore.open(path)
        with Step(store):
            for number, id in enumerate(ids):
                store._run("INSERT INTO seen VALUES (?, ?, ?)", (id, int(Fate.GONE), 100 + number))
        store.close()
    store = SqliteStore.open(path)
    assert schema.backup_of(path, 7).exists()
    assert all(store.fate(id) is Fate.GONE for id in ids)
    new = EnvelopeId(b"n" * 32)
    with Step(store):
        store.remember(new, Fate.GONE, Instant(1), key("bob"))
        store.put_author(Author(key("ann"), Instant(1), Instant(2), key("bob")))
        store.deliver(replace(post("alarm"), emergency=True))
        store.deliver(post("ordinary"))
    with Step(store):
        assert store.forget_passed(3, 10) == 3
    assert [id for id in (*ids, new) if store.fate(id)] == [ids[3], ids[4], new], "those of nobody are one part"
    store = reopened(store, path)
    assert [line.emergency for line in store.journal(after=0, limit=10)] == [True, False]
    store._db.execute("UPDATE line SET emergency = 1 - emergency")
    assert store.journal(after=0, limit=10) == [], "a mark that nobody wrote was believed"
    store.close()


def test_numbers_that_nobody_wrote_are_forgotten_and_their_author_is_heard_anew(store: SqliteStore, path: Path) -> None:
    news = subscription("news").channel.id
    with Step(store):
        store.put_heard(news, numbers("ann", seen=(1, 9)))
        store.put_heard(news, numbers("bob"))
    store._db.execute("UPDATE heard SET numbers = zeroblob(17) WHERE author = ?", (key("ann"),))
    store = reopened(store, path)
    assert list(store.heard_in(news)) == [numbers("bob")]
    assert store.heard(news, key("ann")) is None
    with Step(store):
        store.set_value("x", b"1")
    assert store.counters()["damaged"] == 1
    with Step(store):
        store.put_heard(news, numbers("ann", seen=(3,)))
    assert store.heard(news, key("ann")) == numbers("ann", seen=(3,))
    store.close()


def test_a_store_of_version_4_keeps_its_records_and_learns_where_peers_live(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = StoredRecord(key("ann"), 1, 2, b"record", 3, Instant(4))
    with monkeypatch.context() as patch:
        patch.setattr(schema, "CURRENT", schema.Schema(schema.CURRENT.steps[:4], 4))
        store = SqliteStore.open(path)
        with Step(store):
            store.put_record(record)
        store.close()
    store = SqliteStore.open(path)
    assert schema.backup_of(path, 4).exists()
    assert (store.record(key("ann")), store.home(key("ann"))) == (record, None)
    with Step(store):
        store.put_home(lives("ann"))
    store = reopened(store, path)
    assert store.home(key("ann")) == lives("ann")
    store.close()


def test_an_upgrade_that_fails_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SqliteStore.open(path).close()
    with monkeypatch.context() as patch:
        patch.setattr(schema, "CURRENT", newer(readable_from=NEXT, sql="CREATE TABLE more (x); CREATE TABLE more (x);"))
        with pytest.raises(StoreError):
            SqliteStore.open(path)
    store = SqliteStore.open(path)
    assert store._db.execute("SELECT version FROM meta").get == NEXT - 1
    assert store._db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'more'").get == 0
    store.close()


def test_an_upgrade_without_room_for_a_backup_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SqliteStore.open(path).close()
    schema.backup_of(path, NEXT - 1).with_name(f"store.db.v{NEXT - 1}.backup.new").mkdir()
    monkeypatch.setattr(schema, "CURRENT", newer(readable_from=NEXT))
    with pytest.raises(StoreError, match="no backup could be written"):
        SqliteStore.open(path)


def test_a_newer_file_is_used_if_it_says_we_may_and_refused_if_not(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(schema, "CURRENT", newer(readable_from=1))
        SqliteStore.open(path).close()
    store = SqliteStore.open(path)
    assert store._db.execute("SELECT version FROM meta").get == NEXT
    store.close()
    path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(schema, "CURRENT", newer(readable_from=NEXT))
        SqliteStore.open(path).close()
    content = path.read_bytes()
    with pytest.raises(StoreError, match=rf"written by a newer quicprochat \(schema {NEXT}.*install the newer version"):
        SqliteStore.open(path)
    assert path.read_bytes() == content


# --- prekeys


def holds(path: Path, secret: bytes) -> set[str]:
    return {file.name for file in path.parent.iterdir() if secret in file.read_bytes()}


def test_dropped_prekeys_are_gone_from_the_disk(path: Path) -> None:
    store = SqliteStore.open(path)
    rng = random.Random(1)
    keys = [StoredPrekey(rng.randbytes(8), rng.randbytes(32), Instant(number)) for number in range(400)]
    for first in range(0, 400, 50):
        with Step(store):
            for prekey in keys[first : first + 50]:
                store.put_prekey(prekey)
            store.hold(held(f"m{first}"))
    assert holds(path, keys[-1].secret) == {"store.db-wal"}, "the test would not see a secret"
    with Step(store):
        assert store.drop_prekeys(Instant(150)) == 150
        for number in range(3):
            store.hold(held(f"n{number}"))
    assert log_of(path).stat().st_size == 0
    content = path.read_bytes() + log_of(path).read_bytes()
    assert [prekey.id for prekey in keys[:150] if prekey.secret in content] == []
    assert all(prekey.secret in content for prekey in keys[150:])
    with Step(store):
        store.drop_prekeys(Instant(400))
    content = path.read_bytes() + log_of(path).read_bytes()
    assert [prekey.id for prekey in keys if prekey.secret in content] == []
    store.close()


def test_channels_and_messages_of_before_channels_had_owners_are_as_they_were(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, message = subscription("news"), sent("a")
    channel = old.channel
    with monkeypatch.context() as patch:
        patch.setattr(schema, "CURRENT", schema.Schema(schema.CURRENT.steps[:7], 7))
        store = SqliteStore.open(path)
        with Step(store):
            fixed = struct.pack(">I?", channel.epoch, False)
            heads = b"".join(old.heads)
            parts = (channel.id, b"private", fixed, channel.topic.encode(), heads, channel.secret)
            store._run(
                "INSERT INTO channel VALUES (?, 'private', ?, ?, 0, ?, ?, ?)",
                (channel.id, channel.epoch, channel.topic, heads, database.checksum(*parts), channel.secret),
            )
            numbers = struct.pack(">qqq?", message.created_wall, message.expires_at, message.ttl_s, False)
            check = database.checksum(message.uid, message.to, message.text.encode(), numbers)
            store._run(
                "INSERT INTO sent VALUES (NULL, ?, ?, 'queued', '', ?, 1, ?, ?, ?, ?, 0, ?, ?)",
                (
                    message.uid, message.envelope_id, message.protection.value, message.to, message.created_wall,
                    message.expires_at, message.ttl_s, check, message.text,
                ),
            )  # fmt: skip
        store.close()
    store = SqliteStore.open(path)
    assert (store.channels(), store.sent(message.uid)) == ([old], message)
    with Step(store):
        store.put_channel(replace(old, muted=True))
    assert store.channels() == [replace(old, muted=True)]
    assert store.counters() == {}, "nothing was taken for damaged"
    store.close()


def test_the_secret_of_a_channel_that_was_left_is_gone_from_the_disk(path: Path) -> None:
    store = SqliteStore.open(path)
    secret = subscription("news").channel.secret
    for heads in range(5):
        with Step(store):
            store.put_channel(subscription("news", heads=heads))
            store.put_channel(subscription("kept"))
    assert holds(path, secret) == {"store.db-wal"}, "the test would not see a secret"
    with Step(store):
        store.put_channel(subscription("news", left=True))
    assert holds(path, secret) == set()
    assert holds(path, subscription("kept").channel.secret) == {"store.db"}
    store.close()


def test_an_earlier_secret_of_a_channel_is_gone_from_the_disk_when_it_is_let_go(path: Path) -> None:
    store = SqliteStore.open(path)
    secret = owned("news").earlier[1].secret
    with Step(store):
        store.put_channel(owned("news"))
    assert holds(path, secret) == {"store.db-wal"}, "the test would not see a secret"
    with Step(store):
        store.put_channel(owned("news", earlier=owned("news").earlier[:1]), scrub=True)
    assert holds(path, secret) == set()
    assert store.channels() == [owned("news", earlier=owned("news").earlier[:1])]
    store.close()


def test_a_crash_between_commit_and_checkpoint_keeps_no_prekey(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = b"a secret that must not outlive.."
    store = SqliteStore.open(path)
    with Step(store):
        store.put_prekey(StoredPrekey(b"12345678", secret, Instant(1)))
    monkeypatch.setattr(store, "_checkpoint", lambda: None)
    with Step(store):
        store.drop_prekeys(Instant(9))
    crashed = path.parent / "crashed" / "store.db"
    crashed.parent.mkdir()
    for file in (path, log_of(path)):
        shutil.copy(file, crashed.parent)
    store.close()
    assert holds(crashed, secret) == {"store.db-wal"}
    store = SqliteStore.open(crashed)
    assert holds(crashed, secret) == set()
    store.close()


def test_dropping_prekeys_removes_backups_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = b"a secret that must not outlive.."
    store = SqliteStore.open(path)
    with Step(store):
        store.put_prekey(StoredPrekey(b"12345678", secret, Instant(1)))
    store.close()
    monkeypatch.setattr(schema, "CURRENT", newer(readable_from=1))
    store = SqliteStore.open(path)
    assert holds(path, secret) == {"store.db", f"store.db.v{NEXT - 1}.backup"}
    with Step(store):
        store.drop_prekeys(Instant(9))
    assert holds(path, secret) == set()
    store.close()


# --- the log


def fill_log(store: SqliteStore, pages: int) -> None:
    """Commit until the log has so many pages."""
    serial = 0
    while store._log_pages < pages:
        with Step(store):
            store.set_value("big", bytes(200_000 + serial))
        serial += 1


def test_the_log_is_copied_beside_the_commits(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_checkpoint", lambda: pytest.fail("a commit waited for the log to be copied"))
    fill_log(store, database.CHECKPOINT_PAGES)
    assert store._beside is not None
    store._beside.wait()
    with Step(store):
        store.set_value("x", b"1")
    assert store._log_pages < 10, "the log begins anew once all of it is in the file"


def test_a_log_that_nobody_copies_is_bounded(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store._beside is not None
    monkeypatch.setattr(store._beside, "start", lambda: None)
    fill_log(store, database.LOG_PAGES - 60)
    for number in range(10):
        with Step(store):
            store.set_value("big", bytes(100_000 + number))
    assert store._log_pages < 300


def test_after_a_copy_beside_that_failed_nothing_is_written_any_more(path: Path) -> None:
    class Broken:
        def wal_checkpoint(self, *_: object) -> None:
            raise apsw.IOError("fsync")

        def close(self) -> None:
            pass

    store = SqliteStore.open(path)
    assert store._beside is not None
    store._beside._db.close()
    store._beside._db = Broken()  # type: ignore[assignment]
    fill_log(store, database.CHECKPOINT_PAGES)
    store._beside.wait()
    store.begin()
    with pytest.raises(StoreError, match="lies on a disk that failed"):
        store.set_value("x", b"1")
    store.rollback()
    store.close()
    assert log_of(path).stat().st_size > database.CHECKPOINT_PAGES * 4_096, "a second sync could lie"
    store = SqliteStore.open(path)
    assert store.value("big") is not None
    assert store.value("x") is None
    store.close()


# --- room


def test_the_ballast_is_given_up_once_and_comes_back(store: SqliteStore, path: Path) -> None:
    assert ballast_of(path).stat().st_size == 2 << 20
    assert ballast_of(path).stat().st_blocks * 512 >= 2 << 20, "a sparse file keeps no room"
    with Step(store):
        store.set_value("x", b"1")
    assert store._log_pages > 0
    assert store.make_room() == 2 << 20
    assert store._log_pages == 0, "what the log adds to the file needs the room first"
    assert not ballast_of(path).exists()
    assert store.make_room() == 0
    reopened(store, path).close()
    assert ballast_of(path).exists()


def test_the_ballast_needs_room_for_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ballast = Ballast(tmp_path / "ballast", 4096)
    monkeypatch.setattr("quicprochat.adapters.sqlite.ballast.free_bytes", lambda _: 8191)
    assert not ballast.keep()
    assert not (tmp_path / "ballast").exists()
    monkeypatch.setattr("quicprochat.adapters.sqlite.ballast.free_bytes", lambda _: 8192)
    assert ballast.keep()


def test_disk_low_counts_what_is_free_inside_the_file(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not store.disk_low(1)
    assert store.disk_low(1 << 60)
    with Step(store):
        for number in range(50):
            store.hold(held(f"m{number}", size=100_000))
    with Step(store):
        for number in range(50):
            store.release(held(f"m{number}", size=100_000).id)
    free = 0
    monkeypatch.setattr("quicprochat.adapters.sqlite.store.free_bytes", lambda _: free)
    for free, reserve, low in (
        (20 << 20, 16 << 20, False),
        (11 << 20, 16 << 20, True),
        (13 << 20, 16 << 20, False),
        (database.LOG_LIMIT_BYTES - 1, 12 << 20, True),
        (database.LOG_LIMIT_BYTES, 12 << 20, False),
    ):
        assert store.disk_low(reserve) is low, free
    store._sql.exec_trace = lambda *_: pytest.fail("asked SQLite, where a commit may run in another thread")
    assert store.disk_low(16 << 20)
    store._sql.exec_trace = None
    store = reopened(store, store._path)
    assert not store.disk_low(12 << 20), "forgot its free pages"
    store.close()


def in_namespace(directory: Path, scenario: str) -> None:
    """Run a scenario of this file with a small tmpfs of its own mounted on ``directory``."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("mounting a small file system needs root and unshare")
    directory.mkdir()
    module = f"tests.unit.{Path(__file__).stem}"
    program = f"import pathlib, {module} as t; t.{scenario}(pathlib.Path({str(directory)!r}))"
    mount = 'mount -t tmpfs -o size=12m qpc "$1" && exec "$2" -c "$3"'
    alone = ("unshare", "--mount", "--propagation", "private")
    done = subprocess.run(
        [*alone, "sh", "-c", mount, "sh", str(directory), sys.executable, program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src")))},
        capture_output=True,
        text=True,
        timeout=50,
    )
    if done.returncode == 32 or "unshare failed" in done.stderr:
        pytest.skip(f"no private mounts here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr


def release_all(store: SqliteStore, items: Iterable[Held]) -> None:
    with Step(store):
        for item in items:
            store.release(item.id)


def fill_the_disk(directory: Path) -> None:
    path = directory / "store.db"
    store = SqliteStore.open(path)
    rng = random.Random(3)
    committed: list[Held] = []

    def fill() -> None:
        while True:
            step = [held(f"f{rng.random()}", size=rng.choice((300, 2_000, 60_000))) for _ in range(rng.choice((1, 8)))]
            store.begin()
            for item in step:
                store.hold(item)
                store.remember(item.id, Fate.HELD, Instant(5))
            store.commit()
            committed.extend(step)

    def kept() -> None:
        assert [item.id for item in store.waiting(key("ann"), 0, 100_000)] == [item.id for item in committed]
        assert store.usage(Scope.OWN).bytes == sum(len(item.wire) for item in committed)

    with pytest.raises(StoreFullError, match=r"is full.*make room"):
        fill()
    assert len(committed) > 20
    kept()
    # Without room not even deleting works, which is what the ballast is for.
    with (directory / "waste").open("wb", buffering=0) as waste, suppress(OSError):
        while waste.write(bytes(4096)):
            pass
    assert store.disk_low(1 << 20)
    with pytest.raises(StoreFullError):
        release_all(store, committed)
    kept()
    assert store.make_room() == 2 << 20
    gone, committed[:] = committed[: len(committed) * 3 // 4], committed[len(committed) * 3 // 4 :]
    for first in range(0, len(gone), 16):
        with Step(store):
            for item in gone[first : first + 16]:
                store.release(item.id)
                store.remember(item.id, Fate.GONE, Instant(6))
    kept()
    # The pages that became free take new mail, although the disk itself stays full.
    for number in range(20):
        item = held(f"after {number}", size=2_000)
        with Step(store):
            store.hold(item)
        committed.append(item)
    kept()
    store.close()
    store = SqliteStore.open(path)
    kept()
    assert store.fate(gone[0].id) is Fate.GONE
    assert not ballast_of(path).exists()
    store.close()


def read_only_disk(directory: Path) -> None:
    path = directory / "store.db"
    store = SqliteStore.open(path)
    with Step(store):
        store.set_value("x", b"1")
    store.close()

    def remount(mode: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{mode}", str(directory)], check=True)

    remount("ro")
    for file in (path, directory / "other.db"):
        with pytest.raises(StoreError, match=r"cannot be (written|created).*(read-only|Read-only)"):
            SqliteStore.open(file)
    remount("rw")
    store = SqliteStore.open(path)
    assert store.value("x") == b"1"
    store.close()


def test_a_full_disk_loses_nothing_and_recovers(tmp_path: Path) -> None:
    in_namespace(tmp_path / "small", "fill_the_disk")


def test_a_read_only_disk_is_one_sentence(tmp_path: Path) -> None:
    in_namespace(tmp_path / "small", "read_only_disk")


def test_a_file_we_may_not_write_is_one_sentence(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everything")
    SqliteStore.open(path).close()
    path.chmod(0o400)
    with pytest.raises(StoreError, match="cannot be written"):
        SqliteStore.open(path)
    path.chmod(0o600)
    path.parent.chmod(0o500)
    with pytest.raises(StoreError, match="cannot be"):
        SqliteStore.open(path)
    path.parent.chmod(0o700)
