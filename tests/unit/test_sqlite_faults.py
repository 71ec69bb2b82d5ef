"""Disks that fail, processes that are killed, and bytes that change: what the store on disk makes of them."""

from __future__ import annotations

import io
import os
import random
import shutil
import signal
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import apsw
import pytest
from tests.conformance.rows import (
    WALL,
    Step,
    channel_id,
    envelope,
    held,
    held_post,
    key,
    lives,
    member,
    message,
    post,
    sent,
    subscription,
    uid,
)  # fmt: skip

from quicprochat.adapters.sqlite import SqliteStore
from quicprochat.adapters.sqlite.database import checksum
from quicprochat.core.errors import StoreError, StoreFullError
from quicprochat.core.seal import Protection
from quicprochat.core.store import Author, Fate, Held, Scope, StoredPrekey, StoredRecord, TraceEvent
from quicprochat.core.time import Instant
from quicprochat.core.window import PostLimits, slide


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def quick_path() -> Iterator[Path]:
    """A directory where fsync costs nothing, for tests that make a store some hundred times."""
    shared = Path("/dev/shm")
    directory = Path(tempfile.mkdtemp(prefix="qpc-store-", dir=shared if os.access(shared, os.W_OK) else None))
    yield directory
    shutil.rmtree(directory)


def reopened(store: SqliteStore, path: Path) -> SqliteStore:
    store.close()
    return SqliteStore.open(path)


# --- a disk that fails


class Faults:
    """Counts what is done to the disk, and from the n-th time on fails (or kills the process)."""

    def __init__(self) -> None:
        self.done = 0
        self.fail_at = 0
        self.once = False
        self.kill = False
        self.code: int = apsw.SQLITE_IOERR
        self.syncs = 0
        self.syncs_after_failure = 0
        self.failed = False

    def hit(self) -> None:
        self.done += 1
        if self.fail_at and (self.done == self.fail_at or (self.done > self.fail_at and not self.once)):
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            self.failed = True
            raise apsw.exception_for(self.code)


class FaultyFile(apsw.VFSFile):
    def __init__(self, name: str | apsw.URIFilename, flags: list[int], faults: Faults) -> None:
        self.faults = faults
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self.faults.hit()
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        self.faults.hit()
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        self.faults.syncs += 1
        self.faults.syncs_after_failure += self.faults.failed
        self.faults.hit()
        super().xSync(flags)


class FaultyDisk(apsw.VFS):
    def __init__(self) -> None:
        self.faults = Faults()
        super().__init__("faulty", "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> FaultyFile:
        assert name is not None
        return FaultyFile(name, flags, self.faults)


@pytest.fixture
def disk() -> Iterator[FaultyDisk]:
    made = FaultyDisk()
    yield made
    made.unregister()


def test_a_commit_of_nothing_does_not_touch_the_disk(path: Path, disk: FaultyDisk) -> None:
    store = SqliteStore.open(path, vfs="faulty")
    with Step(store):
        store.hold(held("a"))
    done = disk.faults.done
    with Step(store):
        pass
    with Step(store):
        store.fate(envelope("a").id)
        store.usage(Scope.OWN)
        store.waiting(key("ann"), 0, 10)
        store.journal(after=0, limit=10)
        store.next_expiry()
    with Step(store):
        store.release(envelope("other").id)
    assert disk.faults.done == done
    store.close()


def test_every_commit_with_something_in_it_is_synced_once(path: Path, disk: FaultyDisk) -> None:
    store = SqliteStore.open(path, vfs="faulty")
    with Step(store):
        store.set_value("x", b"0")
    syncs = disk.faults.syncs
    for number in range(10):
        with Step(store):
            store.set_value("x", b"%d" % number)
            store.count("c")
    assert disk.faults.syncs == syncs + 10
    store.close()


STEPS = 7


def write_steps(store: SqliteStore, acknowledged: BinaryIO) -> None:
    """Commit some steps, with a checkpoint now and then, and write a byte after each."""
    for step in range(STEPS):
        with Step(store):
            item = held(f"m{step}", size=3_000)
            store.hold(item)
            store.remember(item.id, Fate.HELD, None)
            store.count("steps")
            store.put_prekey(StoredPrekey(b"%08d" % step, bytes(32), Instant(step)))
            if step % 3 == 2:
                store.drop_prekeys(Instant(step))
        acknowledged.write(b".")


@pytest.mark.parametrize("once", [True, False], ids=["transient", "persistent"])
def test_whatever_write_fails_nothing_acknowledged_is_lost(quick_path: Path, disk: FaultyDisk, once: bool) -> None:
    """Rules R6 and R7: the n-th I/O fails, for every n."""
    faults = disk.faults
    original = quick_path / "original.db"
    SqliteStore.open(original, ballast_bytes=0).close()
    for number in range(1, 1_000):
        path = quick_path / f"{number}.db"
        shutil.copy(original, path)
        store = SqliteStore.open(path, vfs="faulty", ballast_bytes=0)
        vars(faults).update(vars(Faults()))
        faults.fail_at, faults.once = number, once
        acknowledged = io.BytesIO()
        failure = None
        try:
            write_steps(store, acknowledged)
        except StoreError as error:
            failure = error
        synced = faults.syncs_after_failure
        if faults.failed:
            # Also when the commit itself was safe and only the checkpoint after it failed.
            assert failure is None or "disk that failed" in str(failure)
            store.begin()
            with pytest.raises(StoreError):
                store.set_value("x", b"after the failure")
            store.rollback()
            store.begin()
            with pytest.raises(StoreError):
                store.commit()
        else:
            assert failure is None
        reached = faults.failed
        faults.fail_at = 0
        store.close()
        assert not reached or faults.syncs_after_failure == synced, "a failed fsync was tried again"
        after = SqliteStore.open(path, ballast_bytes=0)
        found = {item.id for item in after.waiting(key("ann"), 0, 1_000)}
        assert after.value("x") is None
        after.close()
        assert {held(f"m{step}", size=3_000).id for step in range(acknowledged.tell())} <= found
        if not reached:
            assert acknowledged.tell() == STEPS
            assert number > 30
            return
    pytest.fail("the workload never ran to its end")


def test_a_full_disk_is_not_the_end(path: Path, disk: FaultyDisk) -> None:
    store = SqliteStore.open(path, vfs="faulty")
    with Step(store):
        store.hold(held("kept"))
    disk.faults.code, disk.faults.fail_at = apsw.SQLITE_FULL, disk.faults.done + 1
    store.begin()
    store.hold(held("lost"))
    store.count("c")
    with pytest.raises(StoreFullError, match=r"is full.*make room"):
        store.commit()
    assert store.usage(Scope.OWN).count == 1
    assert store.counters() == {}
    disk.faults.fail_at = 0
    with Step(store):
        store.release(held("kept").id)
        store.hold(held("next"))
    store = reopened(store, path)
    assert [item.id for item in store.waiting(key("ann"), 0, 10)] == [held("next").id]
    store.close()


def hold_all(store: SqliteStore, items: Iterable[Held]) -> None:
    for item in items:
        store.hold(item)


def test_a_transaction_that_broke_halfway_is_not_committed_in_part(path: Path, disk: FaultyDisk) -> None:
    store = SqliteStore.open(path, vfs="faulty", ballast_bytes=0)
    store._db.pragma("cache_size", 10)
    disk.faults.code, disk.faults.fail_at = apsw.SQLITE_FULL, disk.faults.done + 5
    store.begin()
    items = (held(f"m{number}", size=3_000) for number in range(1_000))
    with pytest.raises(StoreFullError):
        hold_all(store, items)
    with pytest.raises(StoreFullError):
        store.hold(held("one more"))
    disk.faults.fail_at = 0
    with pytest.raises(StoreFullError):
        store.commit()
    assert store.usage(Scope.OWN).count == 0
    with Step(store):
        store.hold(held("next"))
    store = reopened(store, path)
    assert [item.id for item in store.waiting(key("ann"), 0, 2_000)] == [held("next").id]
    store.close()


@pytest.mark.parametrize("code", [apsw.SQLITE_FULL, apsw.SQLITE_IOERR], ids=["full", "broken"])
@pytest.mark.parametrize("asked", [False, True], ids=["commit", "question"])
def test_nothing_of_a_transaction_that_failed_is_read_from_memory(
    path: Path, disk: FaultyDisk, code: int, asked: bool
) -> None:
    """Whether it fails with the commit or with a question before, and also where the file is not read again."""
    store = SqliteStore.open(path, vfs="faulty", ballast_bytes=0)
    store._db.pragma("cache_size", 10)
    kept = held("kept", dst="news")
    with Step(store):
        store.hold(kept)
        store.put_channel(subscription("news", heads=1))
    disk.faults.code, disk.faults.fail_at = code, disk.faults.done + 1
    new = [held(f"m{number}", size=3_000, dst="news") for number in range(100)]
    store.begin()
    store.foresee([item.id for item in new])
    hold_all(store, new)
    store.release(kept.id)
    store.put_channel(subscription("news", heads=2))
    store.put_channel(subscription("club"))
    store.set_value("x", b"x")
    store.deliver(message("m"))
    if asked:
        with pytest.raises(StoreError):
            store.waiting(kept.dst, 0, 1)
        assert store.dirty
        # Whoever goes on all the same is told at once, and leaves nothing behind.
        with pytest.raises(StoreError):
            store.put_channel(subscription("club"))
        with pytest.raises(StoreError):
            store.hold(held("one more"))
    with pytest.raises(StoreFullError if code == apsw.SQLITE_FULL else StoreError):
        store.commit()
    disk.faults.fail_at = 0
    assert [store.held(item.id) for item in (new[0], new[-1], held("one more"))] == [None] * 3
    assert [store.fate(item.id) for item in (new[0], kept)] == [None, Fate.HELD]
    assert [item.id for item in store.waiting(kept.dst, 0, 9)] == [kept.id]
    assert store.channel(channel_id("news")) == subscription("news", heads=1)
    assert store.channel(channel_id("club")) is None
    assert store.value("x") is None
    assert not store.delivered(message("m").peer, message("m").uid)
    store.begin()
    if code == apsw.SQLITE_FULL:
        store.hold(new[0])
        store.commit()
        assert [item.id for item in store.waiting(kept.dst, 0, 9)] == [kept.id, new[0].id]
    else:
        with pytest.raises(StoreError, match="disk that failed"):
            store.hold(new[0])
        store.rollback()
    store.close()


def open_and_end(path: Path) -> None:
    SqliteStore.open(path, vfs="faulty", ballast_bytes=0)


def killed_at(number: int, disk: FaultyDisk, work: Callable[[], None]) -> bool:
    """Run ``work`` in a child that is killed at its n-th I/O; False when it came to its end before."""
    disk.faults.done, disk.faults.fail_at, disk.faults.kill = 0, number, True
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    disk.faults.fail_at = 0
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_killed_at_any_moment_of_its_making_it_is_whole_or_new(quick_path: Path, disk: FaultyDisk) -> None:
    number, killed = 0, True
    while killed:
        number += 1
        path = quick_path / f"{number}.db"
        killed = killed_at(number, disk, partial(open_and_end, path))
        store = SqliteStore.open(path, ballast_bytes=0)
        with Step(store):
            store.hold(held("a"))
        store.close()
    assert number > 10


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_killed_at_any_moment_it_keeps_what_was_acknowledged(quick_path: Path, disk: FaultyDisk) -> None:
    original = quick_path / "original.db"
    SqliteStore.open(original, ballast_bytes=0).close()
    acknowledgements = quick_path / "acknowledged"

    def work(path: Path) -> None:
        with acknowledgements.open("ab", buffering=0) as acknowledged:
            write_steps(SqliteStore.open(path, vfs="faulty", ballast_bytes=0), acknowledged)

    number, killed = 0, True
    while killed:
        number += 1
        path = quick_path / f"{number}.db"
        shutil.copy(original, path)
        acknowledgements.write_bytes(b"")
        killed = killed_at(number, disk, partial(work, path))
        store = SqliteStore.open(path, ballast_bytes=0)
        done = acknowledgements.stat().st_size
        kept = len(store.waiting(key("ann"), 0, 1_000))
        assert done <= kept <= done + 1
        assert store.counters().get("steps", 0) == kept
        assert [store.fate(held(f"m{step}", size=3_000).id) for step in range(kept)] == [Fate.HELD] * kept
        store.close()
    assert done == STEPS
    assert number > 30


# --- damage


def flip(path: Path, needle: bytes, *, at: int = 0) -> int:
    """Change one bit behind every place where some bytes stand in a file; return how many."""
    content = bytearray(path.read_bytes())
    count, place = 0, content.find(needle)
    while place >= 0:
        content[place + at] ^= 0x04
        count += 1
        place = content.find(needle, place + 1)
    path.write_bytes(content)
    return count


PARTS = {"core": 70, "signature": 140, "age": 203, "payload": 207 + 3}


@pytest.mark.parametrize("part", PARTS)
def test_a_damaged_envelope_is_never_handed_on(path: Path, part: str) -> None:
    bad, good = held("bad", expires=50, size=900), held("good", expires=60)
    store = SqliteStore.open(path)
    with Step(store):
        store.hold(bad)
        store.hold(good)
        store.remember(bad.id, Fate.HELD, None)
        store.remember(good.id, Fate.HELD, None)
    store.close()
    assert flip(path, bad.wire[:134], at=PARTS[part]) == 1
    store = SqliteStore.open(path)
    assert store.held(bad.id) is None
    assert [item.id for item in store.waiting(key("ann"), 0, 1)] == [good.id]
    assert [item.id for item in store.expired(Instant(99), 1)] == [good.id]
    assert store.counters() == {"damaged": 1}
    # The row goes with the next commit, even if that step writes nothing of its own.
    store.begin()
    assert store.dirty
    store.commit()
    for _ in range(2):
        assert store.counters() == {"damaged": 1}
        assert store.next_expiry() == 60
        assert store.usage(Scope.OWN).count == 1
        assert store.fate(bad.id) is None, "a good copy could never come again"
        assert store.fate(good.id) is Fate.HELD
        store = reopened(store, path)
    store.close()


@pytest.mark.parametrize("column", [5, 37])
def test_a_damaged_post_is_not_the_oldest_for_ever(path: Path, column: int) -> None:
    """Whoever makes room asks for the oldest until there is room."""
    bad = held("bad", expires=50)
    store = SqliteStore.open(path)
    with Step(store):
        store.hold(bad)
    store.close()
    assert flip(path, bad.id + bad.dst, at=column) == 1
    store = SqliteStore.open(path)
    store.begin()
    rounds = 0
    while ids := store.oldest(bad.dst, None, 256):
        for id in ids:
            store.release(id)
        assert (rounds := rounds + 1) < 5
    store.rollback()
    store.close()


def test_a_damaged_index_hands_nothing_wrong_on_and_drops_nothing_intact(path: Path) -> None:
    items = [held(f"m{number}", expires=0x4142434445) for number in range(6)]
    store = SqliteStore.open(path)
    with Step(store):
        assert [store.hold(item) for item in items] == [1, 2, 3, 4, 5, 6]
    store.close()
    assert flip(path, items[1].id + bytes([2]), at=32) == 1, "serial 2 becomes 6"
    assert flip(path, (0x4142434445).to_bytes(6, "big") + bytes([3]), at=3) == 1, "serial 3 expires at another time"
    store = SqliteStore.open(path)
    assert store.held(items[1].id) is None
    for item in items[2:]:
        found = store.held(item.id)
        assert found is not None
        assert found.id == item.id
    assert len(store.expired(Instant(2**60), 9)) == 6
    store._db.execute("UPDATE held SET dst = ? WHERE serial = 1", (key("eve"),))
    assert store.waiting(key("eve"), 0, 9) == []
    assert "damaged" not in store.counters()
    store.close()


def test_damage_found_in_a_step_is_dropped_with_it(path: Path) -> None:
    store = SqliteStore.open(path)
    with Step(store):
        store.hold(held("bad"))
    store.close()
    flip(path, held("bad").wire[:134], at=210)
    store = SqliteStore.open(path)
    store.begin()
    assert not store.expired(Instant(99_999), 9)
    assert store.dirty, "a step that only finds damage would find it for ever"
    store.rollback()
    store.begin()
    store.commit()
    assert store.next_expiry() is None
    assert store.usage(Scope.OWN).count == 0
    store.close()


@pytest.mark.parametrize(
    ("needle", "at"),
    [(b"the damaged text", 4), (b"\xc3\xa4 the damaged", 0), (b"damaged.example", 3), (uid("bad"), 5)],
    ids=["text", "not utf-8 any more", "domain", "uid"],
)
def test_a_damaged_line_is_never_shown(path: Path, needle: bytes, at: int) -> None:
    store = SqliteStore.open(path)
    with Step(store):
        store.deliver(message("bad", text="ä the damaged text", request=True, domain="damaged.example"))
        store.deliver(message("good", text="the good text", request=True))
    store.close()
    # The uid also stands in the table of what was delivered, which stays as it is.
    assert flip(path, needle, at=at) >= 1
    store = SqliteStore.open(path)
    assert [line.text for line in store.journal(after=0, limit=1)] == ["the good text"]
    with Step(store):
        store.count("other")
    assert store.counters() == {"damaged": 1, "other": 1}
    assert store.unread() == 1
    assert store.usage(Scope.REQUESTS).count == 1
    store.close()


def test_a_damaged_home_is_not_believed_and_the_next_word_takes_its_place(path: Path) -> None:
    store = SqliteStore.open(path)
    with Step(store):
        store.put_home(lives("ann", "the.damaged.example", at=9))
        store.put_home(lives("bob", "the.good.example"))
    store.close()
    assert flip(path, b"the.damaged.example", at=5) == 1
    store = SqliteStore.open(path)
    assert store.home(key("ann")) is None
    assert store.homes(1) == [lives("bob", "the.good.example")]
    with Step(store):
        store.put_home(lives("ann", "new.example"))
    store = reopened(store, path)
    assert store.home(key("ann")) == lives("ann", "new.example")
    assert store.counters() == {"damaged": 1}
    store.close()


def test_a_damaged_author_is_a_new_one_and_no_row_beside_it_is_touched(path: Path) -> None:
    store = SqliteStore.open(path)
    with Step(store):
        store.put_author(Author(key("ann"), Instant(1), Instant(2), key("cat")))
        store.put_author(Author(key("bob"), Instant(3), Instant(4), b"the other"))
    store.close()
    assert flip(path, checksum(key("ann"), key("cat"), struct.pack(">qq", 1, 2)), at=5) == 1
    store = SqliteStore.open(path)
    assert store.author(key("ann")) is None
    assert store.author(key("bob")) == Author(key("bob"), Instant(3), Instant(4), b"the other")
    with Step(store):
        store.put_author(Author(key("ann"), Instant(9), Instant(9), b""))
    store = reopened(store, path)
    assert store.author(key("ann")) == Author(key("ann"), Instant(9), Instant(9), b"")
    store.close()


def test_a_channel_that_is_joined_again_takes_the_place_of_a_damaged_one(path: Path) -> None:
    store = SqliteStore.open(path)
    with Step(store):
        store.put_channel(subscription("the-damaged-topic"))
    store.close()
    assert flip(path, b"the-damaged-topic", at=5) == 1
    store = SqliteStore.open(path)
    with Step(store):
        assert store.channel(channel_id("the-damaged-topic")) is None
        store.put_channel(subscription("the-damaged-topic"))
    store = reopened(store, path)
    assert store.channel(channel_id("the-damaged-topic")) == subscription("the-damaged-topic")
    assert store.counters() == {"damaged": 1}
    store.close()


def test_damaged_messages_records_and_prekeys_are_left_out(path: Path) -> None:
    store = SqliteStore.open(path)
    with Step(store):
        store.put_sent(sent("bad", text="the damaged text"))
        store.put_sent(sent("good", text="the good text"))
        store.add_trace(uid("bad"), TraceEvent(WALL, "relayed", ""))
        store.resealed(uid("bad"), envelope("again").id, Protection.PREKEY)
        store.put_record(StoredRecord(key("ann"), 1, 1, b"the damaged record", 0, Instant(9)))
        store.put_record(StoredRecord(key("bob"), 1, 1, b"the good record", 0, Instant(8)))
        store.put_prekey(StoredPrekey(b"badbadba", b"the damaged secret of 32 bytes..", Instant(9)))
        store.put_prekey(StoredPrekey(b"goodgood", b"the good secret of 32 bytes.....", Instant(8)))
        store.put_channel(subscription("the-damaged-topic"))
        store.put_channel(subscription("good"))
        store.put_member(member("cat", channel="good", letter=b"the damaged letter"))
        store.put_member(member("dan", channel="good"))
        store.deliver(post("bad", channel="the damaged place"))
        store.deliver(post("good", channel="good"))
    store.close()
    damaged = (
        b"the damaged text",
        b"the damaged record",
        b"the damaged secret",
        b"the-damaged-topic",
        b"the damaged letter",
    )
    for needle in damaged:
        assert flip(path, needle, at=5) == 1
    assert flip(path, channel_id("the damaged place"), at=5) == 3, "in the line and in two indexes"
    store = SqliteStore.open(path)
    assert store.sent(uid("bad")) is None
    assert store.sent_of(envelope("bad").id) is None
    assert [item.uid for item in store.queued_with(key("ann"), Protection.PREKEY, 1)] == [uid("good")]
    assert [item.data for item in store.records(1)] == [b"the good record"]
    assert store.record(key("ann")) is None
    assert [item.id for item in store.prekeys()] == [b"goodgood"]
    assert store.channels() == [subscription("good")]
    assert store.members(channel_id("good")) == [member("dan", channel="good")]
    assert store.channel(channel_id("the-damaged-topic")) is None
    assert [line.uid for line in store.journal(after=0, limit=9)] == [uid("good")]
    with Step(store):
        pass
    assert store.counters() == {"damaged": 6}
    assert store.trace(uid("bad")) == []
    store.close()


def test_a_good_record_takes_the_place_of_a_damaged_one(path: Path) -> None:
    store = SqliteStore.open(path)
    with Step(store):
        store.put_record(StoredRecord(key("ann"), 1, 9, b"the damaged record", 0, Instant(9)))
    store.close()
    assert flip(path, b"the damaged record", at=5) == 1
    store = SqliteStore.open(path)
    good = StoredRecord(key("ann"), 1, 8, b"the good record", 0, Instant(10))
    with Step(store):
        assert store.put_record(good)
    assert store.record(key("ann")) == good
    assert store.counters() == {"damaged": 1}
    store.close()


def test_a_damaged_value_stops_the_store(path: Path) -> None:
    store = SqliteStore.open(path)
    with Step(store):
        store.set_value("epoch", b"a counter that must not start anew")
    store.close()
    flip(path, b"a counter that", at=3)
    store = SqliteStore.open(path)
    with pytest.raises(StoreError, match=r"is damaged.*epoch"):
        store.value("epoch")
    store.begin()
    with pytest.raises(StoreError, match="is damaged"):
        store.set_value("epoch", b"1")
    store.close()


def rich(path: Path) -> tuple[dict[bytes, bytes], set[str]]:
    """A store of some hundred pages; return its envelopes by id, and its texts."""
    wires: dict[bytes, bytes] = {}
    texts: set[str] = set()
    store = SqliteStore.open(path, ballast_bytes=0)
    for part in range(6):
        with Step(store):
            for number in range(part * 40, part * 40 + 40):
                item = held(f"r{number}", src="bob", via="cat", dst=("ann", "dan")[number % 2], size=number * 11)
                store.hold(item)
                store.remember(item.id, Fate.HELD, Instant(number))
                store.deliver(message(f"r{number}", text=f"text {number} " * (number % 30), request=number % 3 == 0))
                store.put_sent(sent(f"r{number}", text=f"sent {number}"))
                store.add_trace(uid(f"r{number}"), TraceEvent(WALL, "relayed", "cat"))
                store.put_record(StoredRecord(key(f"p{number}"), number, 1, b"record" * 30, 0, Instant(number)))
                store.count(f"counter {number % 7}")
                store.put_channel(subscription(f"topic-{number % 20}", heads=number % 5, left=number % 7 == 0))
                store.deliver(post(f"p{number}", text=f"post {number}"))
                texts.add(f"post {number}")
                item = held_post(f"p{number}", size=number)
                store.hold(item)
                wires[item.id] = item.wire
                item = held(f"r{number}", src="bob", via="cat", dst=("ann", "dan")[number % 2], size=number * 11)
                wires[item.id] = item.wire
                texts |= {f"text {number} " * (number % 30), f"sent {number}"}
    store.close()
    return wires, texts


def read_all(path: Path, wires: dict[bytes, bytes], texts: set[str]) -> str:
    """Start on a damaged file, read and write: what comes out is right, or it is refused; return which."""
    try:
        store = SqliteStore.open(path, ballast_bytes=0)
    except StoreError:
        return "refused"
    try:
        handed_on: list[Held] = []
        for dst in ("ann", "dan", "news"):
            handed_on += store.waiting(key(dst), 0, 1_000)
        handed_on += store.expired(Instant(10_000), 1_000)
        assert all(wires[item.id] == item.wire for item in handed_on)
        shown = [line.text for line in store.journal(after=0, limit=1_000)]
        shown += [item.text for item in store.queued_with(key("ann"), Protection.PREKEY, 1_000)]
        assert set(shown) <= texts
        assert all(record.data == b"record" * 30 for record in store.records(1_000))
        for number in range(0, 240, 7):
            store.trace(uid(f"r{number}"))
        known = [
            subscription(f"topic-{n}", heads=h, left=left)
            for n in range(20)
            for h in range(5)
            for left in (False, True)
        ]
        assert all(found in known for found in store.channels())
        with Step(store):
            newcomer = held_post("new")
            store.hold(newcomer)
            slide(store, newcomer, PostLimits(others=100, share=1), Instant(1))
            store.hold(held("new"))
            store.deliver(message("new"))
            for item in handed_on[::5]:
                store.release(item.id)
        return "damaged" if store.counters().get("damaged") else "whole"
    except StoreError:
        return "stopped"
    finally:
        store.close()


def test_damage_anywhere_is_refused_or_left_out_but_never_handed_on(tmp_path: Path) -> None:
    """Rule R2 by chance: flipped bits, zeroed pages, cut files. Some hundred seeds; each names itself when it fails."""
    original = tmp_path / "original.db"
    wires, texts = rich(original)
    content = original.read_bytes()
    outcomes = dict.fromkeys(("refused", "stopped", "damaged", "whole"), 0)
    for seed in range(200):
        rng = random.Random(seed)
        spoiled = bytearray(content)
        kind = seed % 4
        if kind == 0:
            first = rng.randrange(len(content) // 4096) * 4096
            spoiled[first : first + 4096] = bytes(4096)
        elif kind == 1:
            del spoiled[rng.randrange(len(content)) :]
        else:
            for _ in range(1 if kind == 2 else 20):
                spoiled[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path = tmp_path / "spoiled.db"
        path.write_bytes(spoiled)
        try:
            outcomes[read_all(path, wires, texts)] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
        for file in tmp_path.glob("spoiled.db*"):
            file.unlink()
    assert outcomes["damaged"] > 10, outcomes  # so that each outcome was really met
    assert outcomes["refused"] + outcomes["stopped"] > 10, outcomes
