"""Routing frames, written from docs/protocol.md §13 and nothing else."""

from __future__ import annotations

import hashlib
from typing import Any

from tests.conformance.second_implementation import Cursor, need, u, verify


def read_announcement(wire: bytes) -> dict[str, Any]:
    c = Cursor(wire)
    found: dict[str, Any] = {"key": c.take(32), "seqno": c.number(8), "record_hash": c.take(8), "flags": c.number(1)}
    need(0 < found["seqno"] < 2**63, "number")
    need(verify(found["key"], "route", wire[:49], c.take(64)), "signature")
    c.end()
    return found


def read_route(body: bytes) -> Any:
    c = Cursor(body)
    need(len(body) > 0, "kind")
    kind = c.number(1)
    need(kind in (1, 2, 3, 4), "kind")
    if kind == 1:
        return read_update(c)
    if kind == 2:
        need(1 <= len(body) // 41 <= 64, "count")
        need(len(body) % 41 == 1, "lengths")
        return [[c.take(32), c.number(8), c.number(1)] for _ in range(len(body) // 41)]
    need(len(body) == (9 if kind == 3 else 1), "lengths" if kind == 3 else "trailing bytes")
    return c.take(8) if kind == 3 else None


def read_update(c: Cursor) -> dict[str, Any]:
    flags, new, renewed = c.number(1), c.number(2), c.number(2)
    need(115 * new + 83 * renewed <= len(c.data), "lengths")
    rest = len(c.data) - 115 * new - 83 * renewed
    need(rest % 8 == 0, "lengths")
    need(max(new, renewed, rest // 8) <= 512, "too many")
    return {
        "first": bool(flags & 1),
        "new": [[c.number(2), c.take(113)] for _ in range(new)],
        "renewed": [[c.number(2), c.take(81)] for _ in range(renewed)],
        "paths": [[c.number(2), c.number(4), c.number(2)] for _ in range(rest // 8)],
    }


def digest(update: dict[str, Any]) -> bytes:
    """Return the digest of a table that consists of one UPDATE's new entries."""
    wires = dict(update["new"])
    entries = [u(2, id) + u(4, metric) + u(2, hops) + wires[id][-8:] for id, metric, hops in sorted(update["paths"])]
    return hashlib.sha256(b"quicprochat-mesh/1/route-digest\0" + b"".join(entries)).digest()[:8]
