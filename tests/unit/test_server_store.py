"""The server's own tables: their schema beside the store's, and rows that are damaged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import apsw
import pytest
from tests.conformance.rows import Step, key

from quicprochat.adapters.sqlite import ServerStore, SqliteStore, schema
from quicprochat.core.errors import LocalError, StoreError
from quicprochat.core.ids import PeerKey
from quicprochat.core.time import Instant, WallTime

ADA, BOB, EVE = key("ada"), key("bob"), key("eve")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "server.db"


@pytest.fixture
def store(path: Path) -> Iterator[ServerStore]:
    opened = ServerStore.open(path)
    yield opened
    opened.close()


def see(store: ServerStore, *keys: PeerKey, at: int = 0) -> None:
    with Step(store):
        for one in keys:
            store.see_user(one, Instant(at), WallTime(at))


# --- users


def test_users_are_listed_in_pages_in_the_order_of_their_keys(store: ServerStore) -> None:
    keys = sorted(key(str(n)) for n in range(10))
    see(store, *reversed(keys))
    assert [user.key for user in store.users(b"", 4)] == keys[:4]
    assert [user.key for user in store.users(keys[3], 100)] == keys[4:]
    assert store.user_count() == 10


def test_first_and_last_visit_are_told_apart(store: ServerStore, path: Path) -> None:
    see(store, ADA, at=5)
    see(store, ADA, at=9)
    store.close()
    store = ServerStore.open(path)
    user = store.user(ADA)
    assert user is not None
    assert (user.first_seen, user.last_seen, user.seen_at, user.name) == (5, 9, 9, "")
    assert store.user_count() == 1
    store.close()


def test_whoever_was_nobody_is_found_when_he_has_come(store: ServerStore) -> None:
    assert store.user(ADA) is None
    store.begin()
    store.see_user(ADA, Instant(5), WallTime(5))
    assert store.user(ADA) is not None
    store.rollback()
    assert store.user(ADA) is None
    see(store, ADA)
    assert store.user(ADA) is not None
    with Step(store):
        store.drop_user(ADA)
    assert store.user(ADA) is None


def test_a_name_and_its_look_have_one_owner(store: ServerStore) -> None:
    see(store, ADA, BOB)
    with Step(store):
        store.name_user(ADA, "ada", "ada")
    assert store.user_named("ada") == store.user_looking_like("ada") == ADA
    assert store.user_named("bob") is None
    for name, look in (("ada", "other"), ("other", "ada")):
        with pytest.raises(StoreError), Step(store):
            store.name_user(BOB, name, look)
        assert store.user_named("ada") == ADA


def test_a_dropped_user_leaves_its_name_free(store: ServerStore) -> None:
    see(store, ADA, BOB)
    with Step(store):
        store.name_user(ADA, "ada", "ada")
        store.drop_user(ADA)
        store.drop_user(EVE)
        store.name_user(BOB, "ada", "ada")
    assert store.user_count() == 1
    assert store.user_named("ada") == BOB


def test_idle_users_are_those_without_a_name_who_were_away_longest(store: ServerStore) -> None:
    see(store, ADA, at=10)
    see(store, BOB, at=5)
    see(store, EVE, at=1)
    see(store, key("4"), at=50)
    with Step(store):
        store.name_user(EVE, "eve", "eve")
    assert store.idle_users(Instant(50), 10) == [BOB, ADA]
    assert store.idle_users(Instant(50), 1) == [BOB]


def test_a_rolled_back_user_is_not_counted(store: ServerStore) -> None:
    store.begin()
    store.see_user(ADA, Instant(0), WallTime(0))
    store.rollback()
    assert store.user_count() == 0
    assert store.user(ADA) is None


# --- invites


def test_an_invite_is_used_once_and_not_when_it_is_old(store: ServerStore) -> None:
    with Step(store):
        store.put_invite(b"one", Instant(100))
        store.put_invite(b"two", Instant(100))
        assert store.invite_count(Instant(99)) == 2
        assert store.invite_count(Instant(100)) == 0
        assert not store.take_invite(b"three", Instant(0))
        assert store.take_invite(b"one", Instant(99))
        assert not store.take_invite(b"one", Instant(99))
        assert not store.take_invite(b"two", Instant(100))
        assert store.drop_invites(Instant(100)) == 1


# --- damage


def spoil(path: Path, sql: str) -> None:
    db = apsw.Connection(str(path))
    db.execute(sql)
    db.close()


def test_a_damaged_user_is_left_out_dropped_and_comes_again(path: Path) -> None:
    store = ServerStore.open(path)
    see(store, ADA, BOB)
    with Step(store):
        store.name_user(ADA, "ada", "ada")
    store.close()
    spoil(path, "UPDATE user SET name = 'adb' WHERE name = 'ada'")
    store = ServerStore.open(path)
    assert store.user(ADA) is None
    assert store.user_named("adb") is None
    assert [user.key for user in store.users(b"", 10)] == [BOB]
    see(store, ADA, at=7)
    store.close()
    store = ServerStore.open(path)
    user = store.user(ADA)
    assert user is not None
    assert (user.first_seen, user.name) == (7, "")
    assert store.user_count() == 2
    assert store.counters()["damaged"] == 1
    store.close()


# --- the schema


def test_the_servers_tables_have_a_version_of_their_own(path: Path) -> None:
    ServerStore.open(path).close()
    db = apsw.Connection(str(path))
    assert db.execute("SELECT version, readable_from FROM meta").get == (
        schema.CURRENT.version, schema.CURRENT.readable_from,
    )  # fmt: skip
    assert db.execute("SELECT version, readable_from FROM server_meta").get == (
        schema.SERVER.version, schema.SERVER.readable_from,
    )  # fmt: skip
    db.close()


def test_a_store_without_them_gets_them(path: Path) -> None:
    plain = SqliteStore.open(path)
    with Step(plain):
        plain.set_value("x", b"1")
    plain.close()
    store = ServerStore.open(path)
    see(store, ADA)
    assert store.value("x") == b"1"
    store.close()
    assert schema.backup_of(path, schema.CURRENT.version, 0).exists()


def test_an_older_servers_file_is_backed_up_and_upgraded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ServerStore.open(path)
    see(store, ADA)
    store.close()
    version = schema.SERVER.version
    more = replace(schema.SERVER, steps=(*schema.SERVER.steps, "ALTER TABLE user ADD COLUMN more INTEGER;"))
    monkeypatch.setattr(schema, "SERVER", replace(more, readable_from=1))
    store = ServerStore.open(path)
    assert store._db.execute("SELECT version FROM server_meta").get == version + 1
    assert store.user(ADA) is not None
    store.close()
    backup = schema.backup_of(path, schema.CURRENT.version, version)
    assert oct(backup.stat().st_mode & 0o777) == "0o600"
    old = apsw.Connection(str(backup))
    assert old.execute("SELECT version FROM server_meta").get == version
    old.close()


@pytest.mark.parametrize("which", ["CURRENT", "SERVER"])
def test_a_newer_servers_file_is_refused_and_left_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    newest: schema.Schema = getattr(schema, which)
    steps = (*newest.steps, "CREATE TABLE more (x INTEGER) STRICT;")
    with monkeypatch.context() as patch:
        patch.setattr(schema, which, replace(newest, steps=steps, readable_from=len(steps)))
        ServerStore.open(path).close()
    content = path.read_bytes()
    with pytest.raises(StoreError, match="written by a newer quicprochat"):
        ServerStore.open(path)
    assert path.read_bytes() == content


# --- copies


def test_a_copy_has_what_was_written_meanwhile_and_not_what_is_to_be_forgotten(
    store: ServerStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quicprochat.adapters.sqlite.copy.STEP_PAGES", 1)
    with Step(store):
        store.set_value("secret", b"gone")
        store.set_value("kept", bytes(100_000))
    target = tmp_path / "copy"
    copy = store.copy(target)
    steps = 0
    while not copy.step():
        steps += 1
        see(store, key(str(steps)))
        assert not target.exists()
        assert steps < 1_000
    assert steps > 20
    copy.finish(("secret",))
    assert [file.name for file in tmp_path.glob("copy*")] == ["copy"]
    assert oct(target.stat().st_mode & 0o777) == "0o600"
    copied = ServerStore.open(target)
    copied.check()
    assert copied.value("kept") == bytes(100_000)
    assert copied.value("secret") is None
    assert copied.user_count() == steps
    copied.close()
    assert store.value("secret") == b"gone"


def test_a_copy_is_never_written_over_a_file(store: ServerStore, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    target.write_text("mine")
    with pytest.raises(LocalError, match="exists already"):
        store.copy(target)
    target.unlink()
    copy = store.copy(target)
    while not copy.step():
        pass
    target.write_text("mine")
    with pytest.raises(LocalError, match="exists already"):
        copy.finish(())
    assert target.read_text() == "mine"
    assert [file.name for file in tmp_path.glob("copy*")] == ["copy"]


def test_a_copy_given_up_leaves_nothing(store: ServerStore, tmp_path: Path) -> None:
    copy = store.copy(tmp_path / "copy")
    copy.step()
    copy.abandon()
    copy.abandon()
    assert list(tmp_path.glob("copy*")) == []
    see(store, ADA)
    assert store.user_count() == 1
