"""The envelope ids a node has seen and that have not expired, in an order that all nodes share.

An **entry** is ``created_ms 8 | id 32``. Both are fixed by the author, since the id is a hash over ``created_ms`` too;
so every node sorts alike, and what was written lately stands together at the end. (Age and time of arrival differ
from node to node.) Who writes 0 because its clock cannot be trusted, or lies, only makes a difference dearer to find.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right, insort
from typing import NewType

from quicprochat.core.ids import ID_BYTES, EnvelopeId
from quicprochat.core.time import Instant

Entry = NewType("Entry", bytes)
"""created_ms 8 | envelope id 32; compared as bytes."""

CREATED_BYTES = 8
ENTRY_BYTES = CREATED_BYTES + ID_BYTES
ENTRIES_MAX = 65_536
"""Entries compared with a neighbour (guess): 8 MB of memory, and 3 ms for one pass of SHA-256 over all."""
BLOCK_END = 8
"""What ends a block; part of the protocol."""
COARSE_MS = 600_000
"""Entries leave together that expire within the same ten minutes, so that leaving costs one pass for all of them."""


def entry_of(created_ms: int, id: EnvelopeId) -> Entry:
    """Return the entry of an envelope."""
    return Entry(created_ms.to_bytes(CREATED_BYTES, "big") + id)


def id_of(entry: Entry) -> EnvelopeId:
    """Return whose entry this is."""
    return EnvelopeId(entry[CREATED_BYTES:])


class EntrySet:
    """A sorted set of entries with their ends, and hashes over any range of it.

    Entries whose last byte is below BLOCK_END end a block, one in 32; so both sides cut alike without a word. Hashes of
    whole blocks are kept: adding an entry moves some pointers and makes one block's hash void, and a range is hashed
    from its blocks' hashes. Sums would do with less, but sums can be forged (docs/adr/0020-carrying.md).
    """

    __slots__ = ("_block_hashes", "_block_lasts", "_digest", "_ends", "_known", "_max", "_sorted")

    def __init__(self, limit: int = ENTRIES_MAX) -> None:
        self._max = limit
        self._known: dict[EnvelopeId, Entry] = {}
        self._sorted: list[Entry] = []
        self._block_lasts: list[Entry] = []
        self._block_hashes: dict[Entry, bytes] = {}
        """By the block's last entry."""
        self._ends: dict[int, list[Entry]] = {}
        self._digest: bytes | None = None

    def __len__(self) -> int:
        return len(self._sorted)

    def __contains__(self, id: EnvelopeId) -> bool:
        return id in self._known

    def __getitem__(self, index: int) -> Entry:
        return self._sorted[index]

    def add(self, entry: Entry, expires_at: Instant) -> bool:
        """Add an entry until a moment; False when it was. When full, what ends first makes room."""
        id = id_of(entry)
        if id in self._known:
            return False
        self._known[id] = entry
        self._ends.setdefault(-(-expires_at // COARSE_MS), []).append(entry)
        insort(self._sorted, entry)
        self._changed(entry)
        if entry[-1] < BLOCK_END:
            insort(self._block_lasts, entry)
        if len(self._known) > self._max:
            self._drop(min(self._ends))
        return True

    def settle(self, id: EnvelopeId) -> None:
        """Compare an entry no longer; that it was seen stays."""
        entry = self._known.get(id)
        place = len(self._sorted) if entry is None else bisect_left(self._sorted, entry)
        if entry is not None and place < len(self._sorted) and self._sorted[place] == entry:
            del self._sorted[place]
            self._changed(entry)
            if entry[-1] < BLOCK_END:
                self._block_lasts.remove(entry)
                self._changed(entry)

    def _changed(self, entry: Entry) -> None:
        """Forget the hashes that an entry which came or went was part of."""
        self._digest = None
        place = bisect_left(self._block_lasts, entry)
        if place < len(self._block_lasts):
            self._block_hashes.pop(self._block_lasts[place], None)

    def _drop(self, end: int) -> None:
        gone = set(self._ends.pop(end))
        for entry in gone:
            del self._known[id_of(entry)]
        self._sorted = [entry for entry in self._sorted if entry not in gone]
        self._block_lasts = [entry for entry in self._sorted if entry[-1] < BLOCK_END]
        self._block_hashes.clear()
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
        """Return SHA-256 over the hashes of the blocks, whole or cut, from one place up to another."""
        whole = start == 0 and end == len(self._sorted)
        if not whole or self._digest is None:
            digest = hashlib.sha256(b"".join(self._pieces(start, end))).digest()
            if not whole:
                return digest
            self._digest = digest
        return self._digest

    def _pieces(self, start: int, end: int) -> list[bytes]:
        if start >= end:
            return []
        entries, lasts = self._sorted, self._block_lasts
        place = bisect_left(lasts, entries[start])
        pieces = []
        if start and entries[start - 1][-1] >= BLOCK_END and place < len(lasts) and lasts[place] <= entries[end - 1]:
            # The range begins within a block.
            after = bisect_left(entries, lasts[place]) + 1
            pieces.append(_hash(entries[start:after]))
            start, place = after, place + 1
        for last in lasts[place : bisect_right(lasts, entries[end - 1])]:
            piece = self._block_hashes.get(last)
            if piece is None:
                first = bisect_right(entries, lasts[place - 1]) if place else 0
                piece = self._block_hashes[last] = _hash(entries[first : bisect_left(entries, last) + 1])
            pieces.append(piece)
            place += 1
        begin = max(start, bisect_right(entries, lasts[place - 1])) if place else start
        if begin < end:
            pieces.append(_hash(entries[begin:end]))
        return pieces


def _hash(entries: list[Entry]) -> bytes:
    return hashlib.sha256(b"".join(entries)).digest()
