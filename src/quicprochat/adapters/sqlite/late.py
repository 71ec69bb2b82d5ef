"""What a transaction adds to the tables and takes out of them, before it is written.

A step over many envelopes writes the same few kinds of rows again and again. One statement for many of them costs less
than many for one each, and above all it can run where the commit runs: in a thread, beside whoever goes on meanwhile.
What comes and goes within one transaction is never written at all.

One rule: what a transaction adds waits here, and whoever asks SQL about a table for which something waits either looks
here too or has it written first. The second is what ``Database`` does by itself, with every statement that names the
table; the first is for those who look for rows by their key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_AT_ONCE = 32
"""Rows in one statement; fewer go in powers of two, so that there are only a few statements to prepare."""
_FULL, _FULL_BYTES = 1_024, 1 << 20
"""Rows that wait at most, and bytes: they take memory, and on a full disk an early error saves work."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A table whose rows wait: how they are made, written, and deleted (``by`` a column).

    ``instead`` says what to do where there is such a row. What waits may be anything of which ``row`` makes a row when
    it is written; ``size`` tells its bytes, as far as they matter.
    """

    name: str
    insert: str = "INSERT"
    by: str = "rowid"
    instead: str = ""
    row: Callable[[Any], tuple[Any, ...]] = tuple
    size: Callable[[Any], int] = lambda _: 0


class Late:
    """What waits, by table and key. A key stands for one row; of two with one key the later is written.

    It also knows keys of which the disk has no row that counts, and which need not be looked for there: those to be
    deleted, and those that somebody looked for in advance. A rollback takes it all away.
    """

    __slots__ = ("_bytes", "_count", "_gone", "_missing", "_rows")

    def __init__(self) -> None:
        # No table stands here with nothing.
        self._rows: dict[Table, dict[Any, Any]] = {}
        self._gone: dict[Table, dict[Any, Any]] = {}
        self._missing: dict[Table, set[Any]] = {}
        self._count = self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._rows or self._gone)

    def full(self) -> bool:
        """Say whether it is time to write."""
        return self._count >= _FULL or self._bytes >= _FULL_BYTES

    def add(self, table: Table, key: Any, item: Any) -> None:
        """Keep what a row is made of."""
        rows = self._rows.get(table)
        if rows is None:
            rows = self._rows[table] = {}
        elif key in rows:
            self._count -= 1
            self._bytes -= table.size(rows.pop(key))
        rows[key] = item
        self._count += 1
        self._bytes += table.size(item)
        if (missing := self._missing.get(table)) is not None:
            missing.discard(key)

    def replace(self, table: Table, key: Any, item: Any) -> None:
        """Put something in the place of what waits; the order stays."""
        rows = self._rows[table]
        self._bytes += table.size(item) - table.size(rows[key])
        rows[key] = item

    def find(self, table: Table, key: Any) -> Any:
        """Return what waits, None when nothing with this key does."""
        rows = self._rows.get(table)
        return rows.get(key) if rows is not None else None

    def items(self, table: Table) -> Iterator[Any]:
        """Return all that waits for a table, in the order in which it came."""
        return iter(self._rows.get(table, {}).values())

    def drop(self, table: Table, key: Any) -> Any:
        """Let something not be written at all; return it, None when it was not there."""
        rows = self._rows.get(table)
        if rows is None or (item := rows.pop(key, None)) is None:
            return None
        if not rows:
            del self._rows[table]
        self._count -= 1
        self._bytes -= table.size(item)
        return item

    def delete(self, table: Table, key: Any, value: Any) -> None:
        """Delete a row of the disk, which has this value in the column by which its table deletes."""
        gone = self._gone.setdefault(table, {})
        if key not in gone:
            gone[key] = value
            self._count += 1

    def missing(self, table: Table, key: Any) -> bool:
        """Say whether the disk is known to have no row with a key, or to have none after what is to be deleted."""
        return key in self._gone.get(table, ()) or key in self._missing.get(table, ())

    def foresee(self, table: Table, keys: Iterable[Any]) -> None:
        """Note for which keys the disk has no row; those of before are forgotten."""
        rows = self._rows.get(table, {})
        self._missing[table] = {key for key in keys if key not in rows}

    def named(self, sql: str) -> list[Table]:
        """Return the tables of a statement for which something waits."""
        words = _words(sql)
        return [table for table in {**self._gone, **self._rows} if table.name in words]

    def clear(self) -> None:
        """Forget all."""
        for what in (self._rows, self._gone, self._missing):
            what.clear()
        self._count = self._bytes = 0

    def take(self, tables: Sequence[Table] | None = None) -> Iterator[tuple[str, list[Any]]]:
        """Return what to execute for some tables or all, with its bindings; nothing waits for them any more."""
        for table in [*{**self._gone, **self._rows}] if tables is None else tables:
            gone, rows = self._gone.pop(table, {}), self._rows.pop(table, {})
            self._count -= len(gone) + len(rows)
            self._bytes -= sum(map(table.size, rows.values()))
            # First what goes: what was let go of may be held again.
            values = list(gone.values())
            for at in range(0, len(values), _AT_ONCE):
                places, some = among(values[at : at + _AT_ONCE])
                yield f"DELETE FROM {table.name} WHERE {table.by} IN ({places})", some
            found, at = [table.row(item) for item in rows.values()], 0
            while at < len(found):
                count = min(_AT_ONCE, 1 << ((len(found) - at).bit_length() - 1))
                insert = _insert(table, len(found[0]), count)
                yield insert, [value for row in found[at : at + count] for value in row]
                at += count


def among(values: Sequence[Any]) -> tuple[str, list[Any]]:
    """Return what stands in the brackets of ``IN (...)`` for some values, and its bindings.

    Their number is made a power of two by naming the last one again, so that there are only a few statements to
    prepare. The places are numbered: a statement may have the brackets more than once.
    """
    count = 1 << (len(values) - 1).bit_length()
    return _places(count), [*values, *[values[-1]] * (count - len(values))]


@lru_cache(maxsize=32)
def _places(count: int) -> str:
    return ", ".join(f"?{n}" for n in range(1, count + 1))


@lru_cache(maxsize=256)
def _insert(table: Table, columns: int, count: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"{table.insert} INTO {table.name} VALUES {', '.join([row] * count)}{table.instead}"


@lru_cache(maxsize=512)
def _words(sql: str) -> frozenset[str]:
    return frozenset(_WORD.findall(sql.lower()))
