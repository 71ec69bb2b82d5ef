"""A file of zeros that is deleted when the disk is full, so that there is room to delete the rest.

In WAL mode a DELETE writes before it frees, and fails on a full disk; so room is kept while there is plenty.
"""

from __future__ import annotations

import os
from pathlib import Path

BALLAST_BYTES = 2 << 20
"""Room for a transaction of deletions and for copying the log into the file (guess; see ``TIGHT_PAGES``)."""


class Ballast:
    """The reserve of one store."""

    __slots__ = ("_bytes", "_path")

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._bytes = size

    def keep(self) -> bool:
        """Set the reserve aside where it is not and the disk has room for two; say whether it is there now.

        Never fails: a disk without room for a reserve is the caller's to see with ``free_bytes``.
        """
        if self._bytes <= 0:
            return False
        try:
            if self._path.stat().st_size == self._bytes:
                return True
        except OSError:
            pass
        try:
            if free_bytes(self._path.parent) < 2 * self._bytes:
                return False
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.ftruncate(file, 0)
                os.posix_fallocate(file, 0, self._bytes)
            finally:
                os.close(file)
        except OSError:
            self.drop()
            return False
        return True

    def drop(self) -> int:
        """Give the reserve up; return how many bytes that freed."""
        try:
            size = self._path.stat().st_size
            self._path.unlink()
        except OSError:
            return 0
        return size


def free_bytes(directory: Path) -> int:
    """Return how many bytes this user may still write in a directory's file system; 0 when nobody can say."""
    try:
        room = os.statvfs(directory)
    except OSError:
        return 0
    return room.f_bavail * room.f_frsize
