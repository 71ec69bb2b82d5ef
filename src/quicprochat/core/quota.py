"""Running totals of what is held, per scope: a quota is asked for every envelope, so nobody counts rows for it."""

from __future__ import annotations

from quicprochat.core.envelope import Kind
from quicprochat.core.store import Held, Scope, Usage


def scopes_of(held: Held) -> tuple[tuple[Scope, bytes], ...]:
    """Return every quota that an envelope counts against."""
    if held.kind == Kind.CHANNEL:
        if held.own:
            return ((Scope.OWN_POSTS, held.dst),)
        return ((Scope.POSTS, b""), (Scope.POSTS, held.dst), (Scope.POSTS, held.src + held.dst))
    if held.own:
        return ((Scope.OWN, b""),)
    if held.kind == Kind.RECEIPT:
        return ((Scope.RECEIPTS, b""), (Scope.RECEIPTS, held.via))
    return (
        (Scope.CARRIED, b""),
        (Scope.RECIPIENT, held.dst),
        (Scope.ORIGIN, held.src),
        (Scope.LINK, held.via),
        (Scope.PAIR, held.src + held.dst),
    )


class Quotas:
    """Running totals per scope; both stores keep one, because a quota is asked for every envelope."""

    __slots__ = ("_used",)

    def __init__(self) -> None:
        self._used: dict[tuple[Scope, bytes], list[int]] = {}

    def add(self, scope: Scope, key: bytes, size: int, sign: int = 1, count: int = 1) -> None:
        """Count one more, or ``count``, (or, with sign -1, less) of ``size`` bytes together."""
        used = self._used.setdefault((scope, key), [0, 0])
        used[0] += sign * count
        used[1] += sign * size
        if not used[0]:
            del self._used[scope, key]

    def change(self, held: Held, sign: int) -> None:
        """Count an envelope in or out of all its scopes."""
        for scope, key in scopes_of(held):
            self.add(scope, key, len(held.wire), sign)

    def keys(self, scope: Scope, size: int) -> set[bytes]:
        """Return a scope's keys of so many bytes for which something is counted."""
        return {key for of, key in self._used if of is scope and len(key) == size}

    def usage(self, scope: Scope, key: bytes) -> Usage:
        """Return a scope's total."""
        used = self._used.get((scope, key))
        return Usage(used[0], used[1]) if used else Usage()
