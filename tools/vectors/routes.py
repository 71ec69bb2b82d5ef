"""Vectors of routing frames: announcements, updates, requests, digests."""

from __future__ import annotations

from tools.vectors.base import ALICE, BOB, Json, fixed

from quicprochat.core import route_frames as frames
from quicprochat.core.link import FrameType, frame
from quicprochat.core.route_frames import INFINITY, Announcement, Request, announce, distance

FIRST = announce(ALICE, 5 << 32 | 2, fixed("record hash", 8))
LATER = announce(ALICE, 6 << 32, fixed("record hash", 8), 1)
OTHER = announce(BOB, 1 << 32, bytes(8))


def _announced(found: Announcement) -> Json:
    names = ("key", "seqno", "record_hash", "flags")
    return {**{name: getattr(found, name) for name in names}, "wire": found.wire}


def announcements() -> list[Json]:
    return [_announced(found) for found in (FIRST, LATER, OTHER)]


def announcements_refused() -> list[Json]:
    return [
        {"why": "signature", "wire": FIRST.wire[:-1] + bytes([FIRST.wire[-1] ^ 1])},
        {"why": "signature", "wire": BOB.key + FIRST.wire[32:]},
        {"why": "signature", "wire": FIRST.wire[:48] + b"\1" + FIRST.wire[49:]},
        {"why": "number", "wire": announce(ALICE, 1 << 63, bytes(8)).wire},
        {"why": "number", "wire": announce(ALICE, 0, bytes(8)).wire},
    ]


def routes() -> list[Json]:
    table = [(1, distance(70, 2), FIRST), (9, distance(40, 1), OTHER)]
    new = [part for id, _, found in table for part in (id.to_bytes(2, "big"), found.wire)]
    paths = [id << 48 | found for id, found, _ in table]
    renewed = [b"\0\1", LATER.wire[32:]]
    digest = frames.digest_of(table)
    told = [[id, found >> 16, found & 0xFFFF] for id, found, _ in table]
    lost = [[9, 0xFFFFFFFF, 0xFFFF]]
    requests = [Request(ALICE.key, 6 << 32, 64), Request(BOB.key, 2 << 32, 3)]
    made = [
        ("a table", frames.encode_update(new, (), paths, first=True),
         {"first": True, "new": [[1, FIRST.wire], [9, OTHER.wire]], "renewed": [], "paths": told}),
        ("a newer announcement, and one lost", frames.encode_update((), renewed, [9 << 48 | INFINITY]),
         {"first": False, "new": [], "renewed": [[1, LATER.wire[32:]]], "paths": lost}),
        ("nothing new", frames.encode_update((), (), ()), {"first": False, "new": [], "renewed": [], "paths": []}),
        ("requests", frames.encode_requests(requests), [[r.key, r.seqno, r.hops] for r in requests]),
        ("the digest of that table", frames.encode_digest(digest), digest),
        ("again", bytes([frames.AGAIN]), None),
    ]  # fmt: skip
    return [
        {"name": name, "body": body, "frame": frame(FrameType.ROUTE, body), "says": says} for name, body, says in made
    ]


def routes_refused() -> list[Json]:
    request = frames.encode_requests([Request(ALICE.key, 1)])
    cases = [
        ("kind", b""), ("kind", b"\0"), ("kind", b"\5"), ("cut short", b"\1\0\0\0\0"),
        ("lengths", b"\1\0\0\1\0\0" + bytes(114)), ("lengths", b"\1\0\0\0\0\1" + bytes(82)),
        ("lengths", b"\1\0\0\0\0\0" + bytes(7)), ("too many", b"\1\0\0\0\0\0" + bytes(8 * 513)),
        ("count", b"\2"), ("lengths", request[:-1]), ("count", b"\2" + request[1:] * 65),
        ("lengths", b"\3" + bytes(7)), ("lengths", b"\3" + bytes(9)), ("trailing bytes", b"\4\0"),
    ]  # fmt: skip
    return [{"why": why, "body": body} for why, body in cases]
