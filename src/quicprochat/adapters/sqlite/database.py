"""One connection to one file: its settings, its transaction, and what every failure means.

The rules: a commit returns when the disk has the data; an error of the disk is never tried again, because after a
failed fsync the kernel forgets that the pages were dirty and a second one lies; damage is dropped row by row where a
row can be told from its neighbours, and stops the store where it cannot.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar
from weakref import WeakValueDictionary

import apsw

from quicprochat.adapters.sqlite import schema
from quicprochat.adapters.sqlite.ballast import free_bytes
from quicprochat.adapters.sqlite.checkpoint import VFS, Checkpointer
from quicprochat.adapters.sqlite.late import Late, Table
from quicprochat.core.errors import StoreError, StoreFullError

CHECKPOINT_PAGES = 256
"""The log is copied into the file beside the commits when it has this many pages (1 MiB): each copy delays whoever
commits meanwhile by 2 ms in a file of a million envelopes, with four times as many pages by 5 ms."""

LOG_PAGES = 2_048
"""A log of so many pages (8 MiB) is copied before anything else is written: one that always grows while it is copied
would never begin anew."""

TIGHT_PAGES = 128
TIGHT_BYTES = 32 << 20
"""With less room than this on the disk the log is copied from this many pages on: the copy may make the file grow,
and on a full disk that growth and the deletions must fit into the ballast together."""

LOG_LIMIT_BYTES = 8 << 20
"""A log that huge transactions made longer is cut back to this."""

SMALLEST_BYTES = 512
"""The smallest page SQLite knows."""

CACHE_KIB = 16 << 10
"""Pages kept in memory at most; a home router may want less (guess)."""

Row = tuple[Any, ...]
Bindings = Sequence[Any] | dict[str, Any]
_T = TypeVar("_T")

_REASONS: tuple[tuple[type[apsw.Error], str], ...] = (
    (apsw.NotADBError, "is no message store, or its first page is damaged: move it away, or name another file"),
    (
        apsw.CorruptError,
        "is damaged: move it away to start anew, or copy it and save what can be read with SQLite's .recover",
    ),
    (apsw.BusyError, "is in use by another process: stop that one first"),
    (apsw.LockedError, "is in use by another process: stop that one first"),
    (apsw.ReadOnlyError, "cannot be written: check its owner, its mode and whether the disk is mounted read-only"),
    (apsw.CantOpenError, "cannot be opened for writing: check its directory's owner and mode"),
    (apsw.PermissionsError, "cannot be opened for writing: check its directory's owner and mode"),
    (apsw.IOError, "lies on a disk that failed: nothing more is promised; check the disk, then start again"),
    (apsw.ConnectionClosedError, "is closed"),
    (apsw.CursorClosedError, "is closed"),
)


def explain(error: apsw.Error, path: Path) -> StoreError:
    """Return the sentence a person is told about an error of SQLite."""
    if isinstance(error, apsw.FullError):
        return StoreFullError(f"the disk of {path} is full: nothing of this step was kept; make room on it")
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return StoreError(f"{path} {reason} (SQLite: {error})")
    return StoreError(f"{path} could not be used (SQLite: {type(error).__name__}: {error})")


def sturdy(*columns: str) -> str:
    """Return columns for a SELECT, ``name`` for bytes and text, ``#name`` for numbers.

    Damage can change the type of a value, and text that is no text any more would spoil the whole query: so every
    value is read as what it was written as, text as bytes, and its row's checksum decides.
    """
    return ", ".join(
        f"CAST(ifnull({c[1:]}, 0) AS INTEGER)" if c.startswith("#") else f"CAST(ifnull({c}, x'') AS BLOB)"
        for c in columns
    )


def checksum(*parts: bytes) -> bytes:
    """Return 8 bytes that tell whether a row is still what was written."""
    return hashlib.blake2b(b"\x00".join(parts), digest_size=8).digest()


class Database:
    """What the parts of the store share. ``_rows`` and ``_one`` read, ``_run`` and ``_later`` write; nothing else runs
    SQL.

    The transaction is opened by its first write, so that a step that only reads costs the disk nothing. What is given
    to ``_later`` and ``_delete_later`` is written by its commit, or before any statement that names its table: each
    sees what was written before it. Only ``_peek`` and ``_peek_rows`` do not: they are for who looked in ``Late``.
    """

    def __init__(self, db: apsw.Connection, path: Path, beside: Checkpointer | None = None) -> None:
        self._db = db
        self._beside = beside
        self._path = path
        # One cursor for everything: making one costs as much as a small SELECT. Results are always read to their
        # end, because a statement left half-read would keep the log from being reset.
        self._sql = db.cursor()
        self._begun = False
        self._writing = False
        self._late = Late()
        self._failed: StoreError | None = None
        self._poisoned = False
        self._closed = False
        self._damaged: set[tuple[str, int | bytes]] = set()
        self._log_pages = 0
        self._free_inside = 0
        self._scrub = False
        db.set_wal_hook(self._logged)

    def _logged(self, _db: apsw.Connection, _name: str, pages: int) -> int:
        self._log_pages = pages
        return apsw.SQLITE_OK

    # --- for the parts to extend

    def _load(self) -> None:
        """Read from the file what is kept in memory: at the start, and when memory no longer fits the file."""
        self._forget_cached()

    def _forget_cached(self) -> None:
        """Drop what memory has of rows, and could read again: also where the file cannot be read any more."""

    def count(self, name: str, by: int = 1) -> None:
        """Add to a named counter; see ``MeshStore``."""
        raise NotImplementedError

    def _flush(self) -> None:
        """Write what was gathered in memory during the transaction, just before its commit."""

    # --- statements

    def _rows(self, sql: str, bindings: Bindings = ()) -> list[Row]:
        self._catch_up(sql)
        return self._peek_rows(sql, bindings)

    def _peek_rows(self, sql: str, bindings: Bindings = ()) -> list[Row]:
        """Do what ``_rows`` does, on what is written: for who looked in ``Late``."""
        try:
            return self._sql.execute(sql, bindings).fetchall()
        except apsw.Error as error:
            raise self._fail(error) from error
        except UnicodeDecodeError as error:
            raise self._fail(apsw.CorruptError("text that is none")) from error

    def _each(self, sql: str, bindings: Bindings = ()) -> Iterator[Row]:
        """Return rows one by one; nothing may be written meanwhile."""
        self._catch_up(sql)
        try:
            yield from self._sql.execute(sql, bindings)
        except apsw.Error as error:
            raise self._fail(error) from error
        except UnicodeDecodeError as error:
            raise self._fail(apsw.CorruptError("text that is none")) from error

    def _one(self, sql: str, bindings: Bindings = ()) -> Any:
        """Return the only row of a query (of one column: its value), None when there is none."""
        self._catch_up(sql)
        return self._peek(sql, bindings)

    def _peek(self, sql: str, bindings: Bindings = ()) -> Any:
        """Do what ``_one`` does, on what is written: for who looked in ``Late``."""
        try:
            return self._sql.execute(sql, bindings).get
        except apsw.Error as error:
            raise self._fail(error) from error
        except UnicodeDecodeError as error:
            raise self._fail(apsw.CorruptError("text that is none")) from error

    def _write(self) -> None:
        """Something is to be written, now or with the commit."""
        if not self._writing:
            self._start()

    def _run(self, sql: str, bindings: Bindings = ()) -> int:
        """Write; return how many rows changed."""
        self._write()
        self._catch_up(sql)
        try:
            self._sql.execute(sql, bindings)
        except apsw.Error as error:
            raise self._fail(error) from error
        return self._db.changes()

    def _take(self, sql: str, bindings: Bindings = ()) -> list[Row]:
        """Write with a RETURNING clause; return its rows."""
        self._write()
        return self._rows(sql, bindings)

    def _run_many(self, sql: str, bindings: Iterable[tuple[Any, ...]]) -> None:
        self._write()
        self._catch_up(sql)
        try:
            self._sql.executemany(sql, bindings)
        except apsw.Error as error:
            raise self._fail(error) from error

    def _later(self, table: Table, key: Any, item: Any) -> None:
        """Write a row with the commit, or before SQL is asked about its table; see ``Late``."""
        self._write()
        self._late.add(table, key, item)
        if self._late.full():
            self._write_late()

    def _delete_later(self, table: Table, key: Any, value: Any) -> None:
        """Delete a row of the disk in the same way; see ``Late.delete``."""
        self._write()
        self._late.delete(table, key, value)
        if self._late.full():
            self._write_late()

    def _catch_up(self, sql: str) -> None:
        """Write what waits for the tables that a statement names."""
        if self._late and (tables := self._late.named(sql)):
            self._write_late(tables)

    def _write_late(self, tables: Sequence[Table] | None = None) -> None:
        try:
            for sql, bindings in self._late.take(tables):
                self._sql.execute(sql, bindings)
        except apsw.Error as error:
            raise self._fail(error) from error

    # --- the transaction

    @property
    def dirty(self) -> bool:
        """True when something was written, or tried to be."""
        return self._writing or self._failed is not None

    def begin(self) -> None:
        assert not self._writing, "the transaction before this one was neither committed nor rolled back"
        self._begun = True
        if self._damaged and not self._poisoned:
            self._start()

    def _start(self) -> None:
        assert self._begun, "a write outside begin and commit"
        self._hear_of_copies()
        if self._failed is not None:
            self._refuse(self._failed)
        try:
            self._sql.execute("BEGIN IMMEDIATE")
        except apsw.Error as error:
            raise self._fail(error) from error
        self._writing = True

    def commit(self) -> None:
        """See ``MeshStore``. May run in another thread, as long as nobody uses the store meanwhile.

        A full disk is no verdict on the store: it may go on after ``make_room``. Every other failure is: it then
        refuses to write until it is opened again, and what the failed commit wrote may turn up there.
        """
        self._begun = False
        if self._failed is not None:
            failed = self._failed
            self._settle()
            self._refuse(failed)
        if not self._writing:
            return
        try:
            self._write_late()
            self._drop_damaged()
            self._flush()
            self._sql.execute("COMMIT")
        except apsw.Error as error:
            failure = self._fail(error)
            self._settle()
            raise failure from error
        except StoreError:
            self._settle()
            raise
        self._writing = False
        # From here on the commit holds, whatever fails: that is told to the next write.
        with suppress(StoreError):
            if self._damaged:
                self._damaged.clear()
                self._load()
            self._measure()
        self._look_after_the_log()

    def rollback(self) -> None:
        self._begun = False
        if self._writing:
            self._undo()
            self._settle()
        elif self._failed is not None:
            self._settle()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._beside is not None:
            self._beside.close()
            self._hear_of_copies()
        if self._poisoned:
            # Closing would write the log into the file: that is for the next start to do, after a fresh look.
            self._db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self._begun = self._writing = False
        self._failed = StoreError(f"{self._path} is closed")
        self._poisoned = True
        try:
            self._undo()
            self._db.set_wal_hook(None)
            self._db.close()
        except apsw.Error as error:
            raise explain(error, self._path) from error

    def _undo(self) -> None:
        self._writing = False
        self._late.clear()
        self._forget_cached()
        try:
            if self._db.in_transaction:
                self._sql.execute("ROLLBACK")
        except apsw.Error as error:
            self._poison(explain(error, self._path))

    def _settle(self) -> None:
        """Make memory fit the file again after a transaction that did not happen."""
        if not self._poisoned:
            self._failed = None
            self._load()

    # --- failures

    def _fail(self, error: apsw.Error) -> StoreError:
        """Undo the transaction at once, so that no later statement of it runs alone; return what to raise."""
        failure = explain(error, self._path)
        begun = self._begun or self._writing
        if self._writing:
            self._undo()
        if not isinstance(failure, StoreFullError):
            self._poison(failure)
        elif begun:
            self._failed = failure
        return failure

    def _poison(self, failure: StoreError) -> None:
        if not self._poisoned:
            self._poisoned = True
            self._failed = failure

    def _refuse(self, failure: StoreError) -> NoReturn:
        raise type(failure)(str(failure))

    # --- damage

    def _whole(self, table: str, rows: Iterable[Row], read: Callable[[Row], _T | None]) -> list[_T]:
        """Return what the rows hold. A row that ``read`` says is damaged is left out, counted and dropped.

        The first column of the rows is the key of the table.
        """
        found: list[_T] = []
        for row in rows:
            item = read(row)
            if item is None:
                self._quarantine(table, row[0])
            else:
                found.append(item)
        return found

    def _quarantine(self, table: str, key: int | bytes) -> None:
        """Leave a damaged row out from now on; it is counted and deleted with the next commit."""
        self._damaged.add((table, key))
        if self._begun and not self._writing and self._failed is None:
            self._start()

    def _replaced(self, table: str, key: bytes) -> None:
        """A good row stands in the place of one that was damaged, and must not be dropped for it."""
        if (table, key) in self._damaged:
            self._damaged.remove((table, key))
            self.count("damaged")

    def _drop_damaged(self) -> None:
        for table, key in sorted(self._damaged, key=repr):
            for sql in _DROP[table]:
                self._sql.execute(sql, (key,))

    # --- room

    def _measure(self) -> None:
        """Note how many bytes inside the file are free; kept, because it is asked for while a commit runs."""
        self._free_inside = self._one("PRAGMA freelist_count") * self._one("PRAGMA page_size")

    # --- the log

    def _look_after_the_log(self) -> None:
        if self._poisoned:
            return
        pages = self._log_pages
        if self._scrub or pages >= LOG_PAGES or (pages >= TIGHT_PAGES and free_bytes(self._path.parent) < TIGHT_BYTES):
            self._checkpoint()
        elif pages >= CHECKPOINT_PAGES and self._beside is not None:
            self._beside.start()

    def _hear_of_copies(self) -> None:
        if self._beside is not None and self._beside.failure is not None:
            self._poison(explain(self._beside.failure, self._path))

    def _checkpoint(self, *, cut: bool = False) -> None:
        """Copy the log into the file; after prekeys were deleted also cut it, so that they are gone from the disk.

        What was committed is safe in the log whether this works or not, so nothing is raised here: a full disk is
        tried again after the next commit, any other failure makes that commit refuse.
        """
        if self._beside is not None:
            self._beside.wait()
            self._hear_of_copies()
            if self._poisoned:
                return
        mode = apsw.SQLITE_CHECKPOINT_TRUNCATE if cut or self._scrub else apsw.SQLITE_CHECKPOINT_PASSIVE
        try:
            self._db.wal_checkpoint("main", mode)
            self._log_pages = 0
            if self._scrub:
                schema.remove_backups(self._path)
                self._scrub = False
        except (apsw.FullError, OSError):
            pass
        except apsw.Error as error:
            self._poison(explain(error, self._path))


_DROP = {
    "held": (
        # A good copy of the envelope may then come again.
        "DELETE FROM seen WHERE fate = 1 AND id = (SELECT id FROM held WHERE serial = ?)",
        "DELETE FROM held WHERE serial = ?",
    ),
    "sent": (
        "DELETE FROM trace WHERE sent = ?",
        "DELETE FROM former_envelope WHERE sent = ?",
        "DELETE FROM sent WHERE n = ?",
    ),
    "line": ("DELETE FROM line WHERE cursor = ?",),
    "record": ("DELETE FROM record WHERE key = ?",),
    "home": ("DELETE FROM home WHERE key = ?",),
    "author": ("DELETE FROM author WHERE key = ?",),
    "prekey": ("DELETE FROM prekey WHERE id = ?",),
    "channel": ("DELETE FROM channel WHERE id = ?",),
    "heard": ("DELETE FROM heard WHERE n = ?",),
    "channel_member": ("DELETE FROM channel_member WHERE n = ?",),
    "user": ("DELETE FROM user WHERE key = ?",),
    "outbox": ("DELETE FROM outbox WHERE n = ?",),
    "report": ("DELETE FROM report WHERE n = ?",),
    "correspondent": ("DELETE FROM correspondent WHERE author = ?",),
}


_open: WeakValueDictionary[tuple[int, int], apsw.Connection] = WeakValueDictionary()
"""The connections of this process by device and number of their files: ``VFS`` keeps out other processes only."""


def _in_use(db: apsw.Connection | None) -> bool:
    try:
        return db is not None and bool(db.filename)
    except apsw.ConnectionClosedError:
        return False


def connect(path: Path, *, synchronous: Literal["FULL", "NORMAL"], cache_kib: int, vfs: str | None) -> apsw.Connection:
    """Open the file, made empty with mode 0600 if it is not there, and lock it. Raises: StoreError.

    Nothing is written to a file that turns out not to be ours.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        schema.sync_directory(path.parent)
    except FileExistsError:
        pass
    except OSError as error:
        raise StoreError(f"{path} cannot be created ({error.strerror}): check its directory") from error
    file = path.stat()
    if vfs is None and _in_use(_open.get((file.st_dev, file.st_ino))):
        raise explain(apsw.BusyError("twice in one process"), path)
    try:
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs or VFS)
    except apsw.Error as error:
        raise explain(error, path) from error
    if vfs is None:
        _open[file.st_dev, file.st_ino] = db
    try:
        _set_up(db, path, synchronous, cache_kib, alone=vfs is not None)
    except apsw.Error as error:
        db.close()
        raise explain(error, path) from error
    except StoreError:
        db.close()
        raise
    return db


def _set_up(db: apsw.Connection, path: Path, synchronous: str, cache_kib: int, *, alone: bool) -> None:
    if 0 < path.stat().st_size < SMALLEST_BYTES:
        # SQLite takes such a file for an empty one, and would write over it.
        raise explain(apsw.NotADBError("shorter than a header"), path)
    if db.readonly("main"):
        raise explain(apsw.ReadOnlyError("opened read-only"), path)
    db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    if alone:
        # First of all: with it the log needs no shared memory file, and nobody else gets in. ``VFS`` does the same.
        _set(db, path, "locking_mode", "exclusive")
    schema.is_new(db, path)
    _set(db, path, "journal_mode", "wal")
    _set(db, path, "synchronous", {"FULL": 2, "NORMAL": 1}[synchronous])
    _set(db, path, "wal_autocheckpoint", 0)
    _set(db, path, "journal_size_limit", LOG_LIMIT_BYTES)
    _set(db, path, "mmap_size", 0)
    _set(db, path, "cell_size_check", 1)
    _set(db, path, "trusted_schema", 0)
    _set(db, path, "foreign_keys", 1)
    # FAST would leave deleted prekeys on free pages, and saves no time that could be measured.
    _set(db, path, "secure_delete", 1)
    # Nothing of the store may turn up in a temporary directory.
    _set(db, path, "temp_store", 2)
    _set(db, path, "cache_size", -cache_kib)
    db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)


def _set(db: apsw.Connection, path: Path, name: str, value: int | str) -> None:
    db.pragma(name, value)
    found = db.pragma(name)
    if found != value:
        raise StoreError(f"{path} cannot be used: SQLite has {name} = {found} where {value} is needed")
