"""Copying the log into the file beside the commits, through a second connection in a thread of its own.

In a big file the pages that a checkpoint writes lie far apart, and syncing them takes 10 ms for every hundred messages:
one message in a hundred would wait for it. Here nobody waits, and the copies are small, because the disk that syncs
one of them keeps the next commit waiting all the same.

A failed checkpoint is never tried again (a second sync would lie), so the first failure is the last word: the store
must be told of it and write no more. The log still has everything, and the next start copies it after a fresh look.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import apsw

VFS = "unix-excl"
"""SQLite's file layer for a file that one process has to itself: no other gets in, its connections share the log's
index in memory instead of in a file."""


class Checkpointer:
    """Made after the file's own connection and closed before it. Raises: apsw.Error."""

    def __init__(self, path: Path, synchronous: Literal["FULL", "NORMAL"]) -> None:
        self._db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=VFS)
        try:
            self._db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            self._db.pragma("trusted_schema", 0)
            self._db.pragma("synchronous", synchronous)
            self._db.pragma("schema_version")  # it knows of the log once it has read
        except apsw.Error:
            self._db.close()
            raise
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._under_way: Future[None] | None = None
        self.failure: apsw.Error | None = None
        """Why the store must not go on; None as long as all is well."""

    def start(self) -> None:
        """Copy what the log has now, unless a copy is under way."""
        if self.failure is None and (self._under_way is None or self._under_way.done()):
            self._under_way = self._thread.submit(self._copy)

    def wait(self) -> None:
        """Return when no copy is under way."""
        if self._under_way is not None:
            self._under_way.result()
            self._under_way = None

    def close(self) -> None:
        """Finish what is under way and let go of the file."""
        self._thread.shutdown(wait=True)
        self._db.close()

    def _copy(self) -> None:
        try:
            self._db.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_PASSIVE)
        except (apsw.FullError, apsw.BusyError):
            pass  # the log has it, and after the next commit it is tried again
        except apsw.Error as error:
            self.failure = error
