"""What neighbours say to each other about routes, as bytes, and the announcement that only its origin can make.

    announcement = key 32 | seqno 8 | record hash 8 | flags 1 | Ed25519(key, D("route") | what is before)
    UPDATE  = 1 | flags 1 | new_count 2 | renewed_count 2 | new * (id 2 | announcement)
            | renewed * (id 2 | announcement without its key) | the rest: n * (id 2 | metric 4 | hops 2)
    REQUEST = 2 | n * (key 32 | seqno 8 | hops 1)
    DIGEST  = 3 | digest 8
    AGAIN   = 4

An id is the sender's own number for a destination and lives as long as the link: key and signature cross a link once
for each sequence number, a new metric costs eight bytes. Metric and hops are read as one number, a *distance*, whose
order is that of the metric, then of the hops.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from quicprochat.core.crypto import Crypto, Signer
from quicprochat.core.errors import WireError
from quicprochat.core.ids import SIGNATURE_BYTES, Label, PeerKey, labelled_hash

UPDATE, REQUEST, DIGEST, AGAIN = 1, 2, 3, 4
FIRST = 0x01
"""Flag of an UPDATE: the receiver forgets what it held from this neighbour; ids begin anew."""

_BODY = struct.Struct(">32sQ8sB")
_HEAD = struct.Struct(">BBHH")
_REQUEST = struct.Struct(">32sQB")
_ENTRY = struct.Struct(">Q8s")
ANNOUNCEMENT_BYTES = _BODY.size + SIGNATURE_BYTES
RENEWED_BYTES = ANNOUNCEMENT_BYTES - 32
DIGEST_BYTES = 8
HASH_BYTES = 8

SEQNO_MAX = 1 << 63
"""No honest origin comes near (epoch 4 | count 4): a thief of a key who signs more must not put it out of reach."""
DISTANCE_BITS = 48
INFINITY = (1 << DISTANCE_BITS) - 1
"""Metric and hops of a destination that cannot be reached, or not this way."""
METRIC_MAX = (1 << 32) - 2
ITEMS_MAX = 512
"""Destinations in one UPDATE: no frame keeps others waiting."""
REQUESTS_MAX = 64
REQUEST_HOPS = 64
UNDEFINED = 0xFFFF
"""No id: a node has fewer destinations."""


class Announcement:
    """An origin's word that it is there: its sequence number and the hash of its record, in ``wire`` as signed."""

    __slots__ = ("flags", "key", "record_hash", "seqno", "wire")

    def __init__(self, wire: bytes, key: PeerKey | None = None) -> None:
        """``key``, where it is at hand, so that all announcements of one origin share it."""
        read, self.seqno, self.record_hash, self.flags = _BODY.unpack_from(wire)
        self.key = PeerKey(read) if key is None else key
        self.wire = wire

    def __repr__(self) -> str:
        return f"<announcement {self.seqno:x} of {self.key.hex()[:8]}>"


def announce(signer: Signer, seqno: int, record_hash: bytes, flags: int = 0) -> Announcement:
    """Return our own announcement, signed."""
    body = _BODY.pack(signer.key, seqno, record_hash, flags)
    return Announcement(body + signer.sign(Label.ROUTE, body))


def open_announcement(wire: bytes, crypto: Crypto) -> Announcement | None:
    """Return an announcement if its origin signed it and its number is possible, else None."""
    body = wire[: _BODY.size]
    announcement = Announcement(wire)
    if not 0 < announcement.seqno < SEQNO_MAX or not crypto.valid_key(announcement.key):
        return None
    return announcement if crypto.verify(announcement.key, Label.ROUTE, body, wire[_BODY.size :]) else None


def distance(metric: int, hops: int) -> int:
    """Return metric and hops as one number."""
    return metric << 16 | hops


def metric_of(found: int) -> int:
    """Return a distance's metric."""
    return found >> 16


def hops_of(found: int) -> int:
    """Return a distance's hops."""
    return found & 0xFFFF


# --- updates


@dataclass(frozen=True, slots=True)
class Update:
    """An UPDATE cut into pieces: ids with announcements, whole or without their keys, then id and distance as one."""

    first: bool
    new: Sequence[tuple[int, bytes]]
    renewed: Sequence[tuple[int, bytes]]
    paths: Sequence[int]
    """``id << 48 | distance``"""


def encode_update(
    new: Sequence[bytes], renewed: Sequence[bytes], paths: Sequence[int], *, first: bool = False
) -> bytes:
    """Return an UPDATE; ``new`` and ``renewed`` hold ids and announcements by turns."""
    return b"".join(
        (
            _HEAD.pack(UPDATE, FIRST if first else 0, len(new) // 2, len(renewed) // 2),
            *new,
            *renewed,
            struct.pack(f">{len(paths)}Q", *paths),
        )
    )


def decode_update(body: bytes) -> Update:
    """Read an UPDATE. Raises: WireError."""
    if len(body) < _HEAD.size:
        raise WireError("a routing update that is cut short")
    _, flags, new_count, renewed_count = _HEAD.unpack_from(body)
    after_new = _HEAD.size + new_count * (2 + ANNOUNCEMENT_BYTES)
    after_renewed = after_new + renewed_count * (2 + RENEWED_BYTES)
    paths, odd = divmod(len(body) - after_renewed, 8)
    if paths < 0 or odd or max(new_count, renewed_count, paths) > ITEMS_MAX:
        raise WireError("a routing update whose lengths do not fit")
    return Update(
        bool(flags & FIRST),
        _numbered(body, _HEAD.size, after_new, ANNOUNCEMENT_BYTES),
        _numbered(body, after_new, after_renewed, RENEWED_BYTES),
        struct.unpack_from(f">{paths}Q", body, after_renewed),
    )


def _numbered(body: bytes, start: int, end: int, size: int) -> list[tuple[int, bytes]]:
    return [
        (body[at] << 8 | body[at + 1], body[at + 2 : at + 2 + size])
        for at in range(start, end, 2 + size)
    ]  # fmt: skip


# --- the rest


@dataclass(frozen=True, slots=True)
class Request:
    """Somebody asks a destination for an announcement numbered ``seqno`` or more; it may still go ``hops``."""

    key: PeerKey
    seqno: int
    hops: int = REQUEST_HOPS


def encode_requests(requests: Iterable[Request]) -> bytes:
    """Return a REQUEST; at most REQUESTS_MAX."""
    return bytes([REQUEST]) + b"".join(_REQUEST.pack(r.key, r.seqno, r.hops) for r in requests)


def decode_requests(body: bytes) -> list[Request]:
    """Read a REQUEST. Raises: WireError."""
    count, odd = divmod(len(body) - 1, _REQUEST.size)
    if odd or not 0 < count <= REQUESTS_MAX:
        raise WireError("a list of route requests whose length does not fit")
    return [
        Request(PeerKey(key), seqno, min(hops, REQUEST_HOPS)) for key, seqno, hops in _REQUEST.iter_unpack(body[1:])
    ]


def encode_digest(digest: bytes) -> bytes:
    """Return a DIGEST."""
    return bytes([DIGEST]) + digest


def decode_digest(body: bytes) -> bytes:
    """Read a DIGEST. Raises: WireError."""
    if len(body) != 1 + DIGEST_BYTES:
        raise WireError("a routing digest of another length")
    return body[1:]


def digest_of(entries: Iterable[tuple[int, int, Announcement]]) -> bytes:
    """Return 8 bytes that stand for a table: (id, distance, announcement) of all that is reachable, ids ascending."""
    packed = (_ENTRY.pack(id << DISTANCE_BITS | found, a.wire[-8:]) for id, found, a in entries)
    return labelled_hash(Label.ROUTE_DIGEST, *packed)[:DIGEST_BYTES]
