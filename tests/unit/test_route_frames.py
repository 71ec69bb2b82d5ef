"""Routing frames: exact bytes, round trips, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicprochat.core.errors import WireError
from quicprochat.core.ids import Label, PeerKey, domain
from quicprochat.core.route_frames import (
    ANNOUNCEMENT_BYTES,
    INFINITY,
    ITEMS_MAX,
    METRIC_MAX,
    REQUEST_HOPS,
    REQUESTS_MAX,
    Announcement,
    Request,
    announce,
    decode_digest,
    decode_requests,
    decode_update,
    digest_of,
    distance,
    encode_digest,
    encode_requests,
    encode_update,
    hops_of,
    metric_of,
    open_announcement,
)
from quicprochat.sim.crypto import SimCrypto

WIRES = st.binary(min_size=ANNOUNCEMENT_BYTES, max_size=ANNOUNCEMENT_BYTES)
IDS = st.integers(0, 0xFFFE)
PATHS = st.lists(st.integers(0, 2**64 - 1), max_size=ITEMS_MAX)


def numbered(pairs: list[tuple[int, bytes]]) -> list[bytes]:
    return [part for id, wire in pairs for part in (id.to_bytes(2, "big"), wire)]


@given(st.lists(st.tuples(IDS, WIRES), max_size=5), st.lists(st.tuples(IDS, WIRES), max_size=5), PATHS, st.booleans())
def test_an_update_comes_out_as_it_went_in(
    new: list[tuple[int, bytes]], whole: list[tuple[int, bytes]], paths: list[int], first: bool
) -> None:
    renewed = [(id, wire[32:]) for id, wire in whole]
    found = decode_update(encode_update(numbered(new), numbered(renewed), paths, first=first))
    assert (found.first, found.new, found.renewed, list(found.paths)) == (first, new, renewed, paths)


@given(st.binary(max_size=400))
def test_any_bytes_are_an_update_that_writes_them_or_an_error(data: bytes) -> None:
    try:
        found = decode_update(data)
    except WireError:
        return
    again = encode_update(numbered(list(found.new)), numbered(list(found.renewed)), found.paths, first=found.first)
    assert again[2:] == data[2:]


def test_an_update_byte_by_byte() -> None:
    crypto = SimCrypto(b"frames")
    signer = crypto.signer(b"far")
    far = announce(signer, 3 << 32 | 4, b"recordha", 5)
    body = signer.key + bytes.fromhex("0000000300000004") + b"recordha" + b"\x05"
    assert far.wire[:49] == body
    assert far.wire[49:] == signer.sign(Label.ROUTE, body)
    assert domain(Label.ROUTE) == b"quicprochat-mesh/1/route\x00"
    assert (far.seqno, far.record_hash, far.flags, far.key) == (3 << 32 | 4, b"recordha", 5, signer.key)
    update = encode_update([b"\x00\x09", far.wire], [], [9 << 48 | distance(70_000, 2)], first=True)
    assert update == bytes.fromhex("01 01 0001 0000 0009") + far.wire + bytes.fromhex("0009 00011170 0002")
    opened = open_announcement(far.wire, crypto)
    assert opened is not None
    assert opened.wire == far.wire


def test_only_the_origin_can_announce() -> None:
    crypto = SimCrypto(b"frames")
    signer, other = crypto.signer(b"far"), crypto.signer(b"other")
    far = announce(signer, 1 << 32, bytes(8))
    stolen = other.key + far.wire[32:]
    stranger = SimCrypto(b"elsewhere").signer(b"stranger")
    for wire in (stolen, far.wire[:-1] + b"\x00", announce(stranger, 1 << 32, bytes(8)).wire):
        assert open_announcement(wire, crypto) is None


@given(st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.integers(0, 2**64 - 1)), min_size=1, max_size=64))
def test_requests_come_out_as_they_went_in(asked: list[tuple[bytes, int]]) -> None:
    requests = [Request(PeerKey(key), seqno, 7) for key, seqno in asked]
    assert decode_requests(encode_requests(requests)) == requests


def test_requests_are_bounded() -> None:
    one = Request(PeerKey(bytes(32)), 1, 255)
    assert decode_requests(encode_requests([one]))[0].hops == REQUEST_HOPS
    assert len(decode_requests(encode_requests([one] * REQUESTS_MAX))) == REQUESTS_MAX
    for data in (b"\x02", encode_requests([one])[:-1], encode_requests([one] * (REQUESTS_MAX + 1))):
        with pytest.raises(WireError):
            decode_requests(data)


def test_a_digest_tells_tables_apart() -> None:
    signer = SimCrypto(b"frames").signer(b"far")
    old, new = announce(signer, 1, bytes(8)), announce(signer, 2, bytes(8))
    tables: list[list[tuple[int, int, Announcement]]] = [
        [], [(1, 5, old)], [(2, 5, old)], [(1, 6, old)], [(1, 5, new)], [(1, 5, old), (2, 5, new)],
    ]  # fmt: skip
    digests = [digest_of(table) for table in tables]
    assert len(set(digests)) == len(tables)
    assert [decode_digest(encode_digest(digest)) for digest in digests] == digests
    for data in (b"\x03", b"\x03" + bytes(7), b"\x03" + bytes(9)):
        with pytest.raises(WireError):
            decode_digest(data)


def test_distances_are_ordered_by_metric_then_hops() -> None:
    assert distance(1, 60) < distance(2, 1) < distance(2, 2) < distance(METRIC_MAX, 0) < INFINITY
    assert (metric_of(distance(70_000, 9)), hops_of(distance(70_000, 9))) == (70_000, 9)
