"""Rows that are written at the end of a transaction, together.

A step over many envelopes writes the same few kinds of rows again and again. One statement for many of them costs less
than many for one each, and above all it can run where the commit runs: in a thread, beside whoever goes on meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

_AT_ONCE = 32
"""Rows in one statement; fewer go in powers of two, so that there are only a few statements to prepare."""
_FULL = 1_024
"""Rows that wait at most: they take memory, and on a full disk an early error saves work."""


class Late:
    """Rows by the statement that writes them, and by their key."""

    __slots__ = ("_count", "_rows")

    def __init__(self) -> None:
        self._count = 0
        self._rows: dict[str, dict[Any, tuple[Any, ...]]] = {}

    def __bool__(self) -> bool:
        return bool(self._rows)

    def add(self, insert: str, key: Any, row: tuple[Any, ...]) -> bool:
        """Keep a row for ``insert``, a statement without its values: ``INSERT INTO table``; say whether to write now.

        Of two rows with one key the later is written.
        """
        rows = self._rows.get(insert)
        if rows is None:
            rows = self._rows[insert] = {}
        rows[key] = row
        self._count += 1
        return self._count >= _FULL

    def find(self, insert: str, key: Any) -> tuple[Any, ...] | None:
        """Return a row that waits, None when none with this key does."""
        rows = self._rows.get(insert)
        return rows.get(key) if rows is not None else None

    def clear(self) -> None:
        """Forget all."""
        self._count = 0
        self._rows.clear()

    def take(self) -> Iterator[tuple[str, list[Any]]]:
        """Return what to execute, with its bindings; nothing waits any more."""
        waiting, self._rows, self._count = self._rows, {}, 0
        for insert, rows in waiting.items():
            found, at = list(rows.values()), 0
            while at < len(found):
                count = min(_AT_ONCE, 1 << ((len(found) - at).bit_length() - 1))
                yield _sql(insert, len(found[0]), count), [value for row in found[at : at + count] for value in row]
                at += count


@lru_cache(maxsize=256)
def _sql(insert: str, columns: int, count: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"{insert} VALUES {', '.join([row] * count)}"
