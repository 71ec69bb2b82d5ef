"""Copying a store's file while it is in use."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import apsw

from quicprochat.adapters.sqlite.schema import sync_directory
from quicprochat.core.errors import LocalError, UnavailableError

STEP_PAGES = 512
"""2 MiB: some milliseconds in which the store cannot be used."""


class Copy:
    """A copy that is complete all at once, or not there: it grows in a file beside its target, readable by us alone.

    What is written to the store meanwhile comes in by itself, because it goes through the same connection. Making one
    and :meth:`step` need the store, outside transactions; :meth:`finish` does not. One thread at a time. Raises:
    LocalError when something is in the way, UnavailableError when the copy cannot be written; then nothing is left.
    """

    def __init__(self, source: apsw.Connection, target: Path) -> None:
        self._target = target
        if os.path.lexists(target):
            raise LocalError(f"{target} exists already, and is left as it is", code="exists")
        try:
            handle, name = tempfile.mkstemp(".new", target.name + ".", target.parent)
        except OSError as error:
            hint = ""
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                hint = "; choose a place where this process, and not only you, may write"
            raise UnavailableError(f"nothing can be written beside {target}: {error.strerror}{hint}") from error
        os.close(handle)
        self._half = Path(name)
        try:
            self._db = apsw.Connection(name)
            self._db.pragma("synchronous", 0)  # one fsync at the end is enough: nobody sees the file before
            self._backup = self._db.backup("main", source, "main")
        except apsw.Error as error:
            self._half.unlink()
            raise self._failed(error) from error

    def step(self) -> bool:
        """Copy a part; return whether all of it is there, and the store is not needed any more."""
        try:
            complete = self._backup.step(STEP_PAGES)
            if complete:
                self._backup.finish()
            return complete
        except apsw.Error as error:
            self.abandon()
            raise self._failed(error) from error

    def finish(self, forget: Iterable[str]) -> int:
        """Leave some named values out, and give the copy its name once it survives a power cut; return its bytes."""
        try:
            self._db.pragma("journal_mode", "DELETE")
            with self._db:
                for key in forget:
                    self._db.execute("DELETE FROM value WHERE key = ?", (key,))
            self._db.close()
            with self._half.open("rb") as file:
                os.fsync(file.fileno())
                size = os.fstat(file.fileno()).st_size
            self._name()
            sync_directory(self._target.parent)
            return size
        except (apsw.Error, OSError) as error:
            raise self._failed(error) from error
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Give up, and leave nothing behind; after the end it changes nothing."""
        with suppress(apsw.Error):
            self._backup.close(force=True)
        with suppress(apsw.Error):
            self._db.close(force=True)
        for name in (self._half, self._half.with_name(self._half.name + "-journal")):
            with suppress(OSError):
                name.unlink()

    def _name(self) -> None:
        try:
            os.link(self._half, self._target)
        except FileExistsError:
            raise LocalError(f"{self._target} exists already, and is left as it is", code="exists") from None
        except OSError:
            # A file system without hard links, as on a memory stick.
            if os.path.lexists(self._target):
                raise LocalError(f"{self._target} exists already, and is left as it is", code="exists") from None
            self._half.rename(self._target)

    def _failed(self, error: apsw.Error | OSError) -> UnavailableError:
        return UnavailableError(f"the copy {self._target} could not be written ({error}); there is none now")
