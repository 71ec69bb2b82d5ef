"""Running totals of what is held, per scope: a quota is asked for every envelope, so nobody counts rows for it."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush

from quicprochat.core.envelope import Kind
from quicprochat.core.ids import KEY_BYTES
from quicprochat.core.store import Held, Scope, Usage


def scopes_of(held: Held) -> tuple[tuple[Scope, bytes], ...]:
    """Return every quota that an envelope counts against."""
    if held.kind == Kind.CHANNEL:
        if held.own:
            return ((Scope.OWN_POSTS, held.dst),)
        return ((Scope.POSTS, b""), (Scope.POSTS, held.dst), (Scope.POSTS, held.src + held.dst))
    if held.own:
        return ((Scope.OWN, b""), (Scope.OWN_RECEIPTS, b"")) if held.kind == Kind.RECEIPT else ((Scope.OWN, b""),)
    if held.kind == Kind.RECEIPT:
        return ((Scope.RECEIPTS, b""), (Scope.RECEIPTS, held.via))
    return (
        (Scope.CARRIED, b""),
        (Scope.RECIPIENT, held.dst),
        (Scope.ORIGIN, held.src),
        (Scope.LINK, held.via),
        (Scope.LINK_ORIGIN, held.via + held.src),
        (Scope.LINK_RECIPIENT, held.via + held.dst),
        (Scope.PAIR, held.src + held.dst),
    )


class Quotas:
    """Running totals per scope; both stores keep one, because a quota is asked for every envelope."""

    __slots__ = ("_heaps", "_used")

    def __init__(self) -> None:
        self._heaps: dict[tuple[Scope, bytes], list[tuple[int, bytes]]] = {}
        """(-bytes, key) for what was asked for the heaviest of; entries that do not hold any more are among them."""
        self._used: dict[Scope, dict[bytes, list[int]]] = {scope: {} for scope in Scope}

    def add(self, scope: Scope, key: bytes, size: int, sign: int = 1, count: int = 1) -> None:
        """Count one more, or ``count``, (or, with sign -1, less) of ``size`` bytes together."""
        table = self._used[scope]
        used = table.setdefault(key, [0, 0])
        used[0] += sign * count
        used[1] += sign * size
        if not used[0]:
            del table[key]
        elif self._heaps:
            for prefix in (b"", key[:KEY_BYTES]):
                if (heap := self._heaps.get((scope, prefix))) is None:
                    continue
                heappush(heap, (-used[1], key))
                if len(heap) > 4 * len(table) + 64:
                    del self._heaps[scope, prefix]  # mostly what does not hold any more; made anew when it is asked for

    def add_all(self, scopes: Iterable[tuple[Scope, bytes]], size: int, sign: int) -> None:
        """Count one envelope of ``size`` bytes in or out; what :meth:`add` does, for all that passes through."""
        if self._heaps:
            for scope, key in scopes:
                self.add(scope, key, size, sign)
            return
        size *= sign
        for scope, key in scopes:
            table = self._used[scope]
            used = table.get(key)
            if used is None:
                table[key] = [sign, size]
                continue
            used[0] += sign
            used[1] += size
            if not used[0]:
                del table[key]

    def change(self, held: Held, sign: int) -> None:
        """Count an envelope in or out of all its scopes."""
        self.add_all(scopes_of(held), len(held.wire), sign)

    def keys(self, scope: Scope, size: int) -> set[bytes]:
        """Return a scope's keys of so many bytes for which something is counted."""
        return {key for key in self._used[scope] if len(key) == size}

    def heaviest(self, scope: Scope, prefix: bytes) -> tuple[bytes, Usage] | None:
        """Return the key with this beginning, empty or one peer's key, that has the most bytes; of equals the lowest.

        A full store asks it for every envelope, however many authors somebody makes up: so it is kept in a heap.
        """
        table = self._used[scope]
        heap = self._heaps.get((scope, prefix))
        if heap is None:
            heap = [(-used[1], key) for key, used in table.items() if key.startswith(prefix)]
            heapify(heap)
            self._heaps[scope, prefix] = heap
        while heap:
            size, key = heap[0]
            used = table.get(key)
            if used is not None and used[1] == -size:
                return key, Usage(used[0], used[1])
            heappop(heap)
        del self._heaps[scope, prefix]
        return None

    def usage(self, scope: Scope, key: bytes) -> Usage:
        """Return a scope's total."""
        used = self._used[scope].get(key)
        return Usage(used[0], used[1]) if used else Usage()
