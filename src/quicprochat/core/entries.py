"""The envelope ids a node has seen and that have not expired, in an order that all nodes share.

An **entry** is ``created_ms 8 | id 32``. Both are fixed by the author, since the id is a hash over ``created_ms`` too, so
every node sorts alike, and what was written lately stands together at the end. (Age and time of arrival differ from
node to node.) Who writes 0 because its clock cannot be trusted, or lies, only makes a difference dearer to find.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from typing import NewType

from quicprochat.core.ids import ID_BYTES, EnvelopeId
from quicprochat.core.time import Instant

Entry = NewType("Entry", bytes)
"""created_ms 8 | envelope id 32; compared as bytes."""

CREATED_BYTES = 8
ENTRY_BYTES = CREATED_BYTES + ID_BYTES
ENTRIES_MAX = 65_536
"""Entries compared with a neighbour (guess): 8 MB of memory, and 3 ms for one pass of SHA-256 over all."""
COARSE_MS = 600_000
"""Entries leave together that expire within the same ten minutes, so that leaving costs one pass for all of them."""


def entry_of(created_ms: int, id: EnvelopeId) -> Entry:
    """Return the entry of an envelope."""
    return Entry(created_ms.to_bytes(CREATED_BYTES, "big") + id)


def id_of(entry: Entry) -> EnvelopeId:
    """Return whose entry this is."""
    return EnvelopeId(entry[CREATED_BYTES:])


class EntrySet:
    """A sorted set of entries with their ends.

    Adding moves some pointers and hashes nothing; a range is hashed when it is compared: 10,000 entries take about as
    long as one signature. A structure with sums would save that, at the price of a sum that can be forged (ADR 20).
    """

    __slots__ = ("_digest", "_ends", "_known", "_max", "_sorted")

    def __init__(self, limit: int = ENTRIES_MAX) -> None:
        self._max = limit
        self._known: dict[EnvelopeId, Entry] = {}
        self._sorted: list[Entry] = []
        self._ends: dict[int, list[Entry]] = {}
        self._digest: bytes | None = None

    def __len__(self) -> int:
        return len(self._sorted)

    def __contains__(self, id: EnvelopeId) -> bool:
        return id in self._known

    def __getitem__(self, index: int) -> Entry:
        return self._sorted[index]

    def add(self, entry: Entry, expires_at: Instant) -> bool:
        """Add an entry until a moment; False when it is there. When full, what ends first makes room."""
        id = id_of(entry)
        if id in self._known:
            return False
        self._known[id] = entry
        insort(self._sorted, entry)
        self._ends.setdefault(-(-expires_at // COARSE_MS), []).append(entry)
        self._digest = None
        if len(self._sorted) > self._max:
            self._drop(min(self._ends))
        return True

    def _drop(self, end: int) -> None:
        gone = {entry for entry in self._ends.pop(end) if self._known.pop(id_of(entry), None)}
        self._sorted = [entry for entry in self._sorted if entry not in gone]
        self._digest = None

    def expire(self, now: Instant) -> None:
        """Let go of what has expired, up to COARSE_MS late."""
        for end in [end for end in self._ends if end * COARSE_MS <= now]:
            self._drop(end)

    def next_end(self) -> Instant | None:
        """Return when :meth:`expire` has something to do."""
        return Instant(min(self._ends) * COARSE_MS) if self._ends else None

    def index(self, bound: bytes) -> int:
        """Return how many entries stand before a bound."""
        return bisect_left(self._sorted, bound)

    def slice(self, start: int, end: int) -> list[Entry]:
        """Return entries by their places."""
        return self._sorted[start:end]

    def digest(self, start: int, end: int) -> bytes:
        """Return SHA-256 over the entries from one place up to another; that over all is kept until something changes."""
        if start or end < len(self._sorted):
            return hashlib.sha256(b"".join(self._sorted[start:end])).digest()
        if self._digest is None:
            self._digest = hashlib.sha256(b"".join(self._sorted)).digest()
        return self._digest
