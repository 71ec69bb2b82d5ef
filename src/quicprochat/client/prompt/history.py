"""The history of typed lines, kept in the home: readable by its owner alone, bounded, without secrets.

One JSON string a line, oldest first. A line is in memory at once, so that a slip can be corrected, and on disk only
when it did what it should. What may hold a secret is kept nowhere.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from prompt_toolkit.history import History

NAME = "history"
ENTRIES_MAX = 1_000
ENTRY_MAX_CHARS = 4_096
FILE_MAX_BYTES = 1 << 20
"""A file that has grown beyond is written anew with the last entries."""

_SECRET = re.compile(
    r"--(key|invite|pass\w*|secret|seed)\b|qpc\w*1[a-z0-9]{20}|[0-9a-f]{64}|\bpass(word|phrase)?\b", re.IGNORECASE
)


def secret(line: str) -> bool:
    """Say whether a line may hold what nobody should find later, or was told to stay out with a space in front."""
    return line.startswith(" ") or _SECRET.search(line) is not None


class HomeHistory(History):
    """The history of one home; ``path`` None keeps it in memory."""

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        self._path = path

    def load_history_strings(self) -> Iterable[str]:
        return reversed(self._read())

    def append_string(self, string: str) -> None:
        if not secret(string):
            super().append_string(string)

    def store_string(self, string: str) -> None:
        """Nothing: see :meth:`keep`."""

    def keep(self, line: str) -> None:
        """Write a line to disk. A disk that is full or read-only is no reason to complain here."""
        if self._path is None or secret(line) or not line.strip() or len(line) > ENTRY_MAX_CHARS:
            return
        with suppress(OSError):
            # A name in place of the file, put there by whoever can write to the home, is not followed.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            file = os.open(self._path, flags, 0o600)
            try:
                os.write(file, json.dumps(line).encode("ascii") + b"\n")
                large = os.fstat(file).st_size > FILE_MAX_BYTES
            finally:
                os.close(file)
            if large:
                self._shorten()

    def _read(self) -> list[str]:
        if self._path is None:
            return []
        try:
            file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return []
        with open(file, "rb") as opened:
            info = os.fstat(file)
            if not stat.S_ISREG(info.st_mode):
                return []
            opened.seek(max(0, info.st_size - 2 * FILE_MAX_BYTES))
            data = opened.read(2 * FILE_MAX_BYTES)
        found = []
        for row in data.splitlines():
            with suppress(ValueError, RecursionError):
                entry = json.loads(row)
                if isinstance(entry, str) and len(entry) <= ENTRY_MAX_CHARS:
                    found.append(entry)
        return found[-ENTRIES_MAX:]

    def _shorten(self) -> None:
        assert self._path is not None
        rows = [json.dumps(entry).encode("ascii") + b"\n" for entry in self._read()]
        while sum(map(len, rows)) > FILE_MAX_BYTES // 2:
            del rows[: max(1, len(rows) // 4)]
        fresh = self._path.with_name(f"{self._path.name}.new")
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(file, "wb") as opened:
            opened.write(b"".join(rows))
        os.replace(fresh, self._path)
