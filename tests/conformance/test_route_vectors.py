"""The routing vectors, read by the product and by the second implementation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.conformance import second_routes as second
from tests.conformance.second_implementation import Refused
from tests.conformance.vectors import BY_NAME, VECTORS, Case, each

from quicprochat.adapters.crypto import Ed25519Signer, SodiumCrypto
from quicprochat.core import route_frames as frames
from quicprochat.core.ids import PeerKey
from quicprochat.core.link import FrameType, frame
from quicprochat.core.memory import MemoryStore
from quicprochat.core.route import Fault, Routes
from quicprochat.core.time import Instant


def no_entropy(count: int) -> bytes:
    raise AssertionError(count)


CRYPTO = SodiumCrypto(no_entropy)
CAROL = Ed25519Signer(BY_NAME["carol"]["seed"])
BOB = PeerKey(BY_NAME["bob"]["key"])


def linked() -> Routes:
    routes = Routes(CAROL, CRYPTO)
    routes.start(MemoryStore(), Instant(0))
    routes.link_up(BOB, 10, b"", Instant(0))
    return routes


def test_the_second_implementation_imports_nothing_of_the_product() -> None:
    assert second.__file__
    assert "quicprochat." not in Path(second.__file__).read_text("utf-8")


@each("announcements")
def test_announcements(case: Case) -> None:
    found = frames.open_announcement(case["wire"], CRYPTO)
    assert found is not None
    read = {name: getattr(found, name) for name in ("key", "seqno", "record_hash", "flags")}
    assert read == second.read_announcement(case["wire"]) == {name: case[name] for name in read}
    by = next(Ed25519Signer(key["seed"]) for key in VECTORS["keys"] if key["key"] == found.key)
    assert frames.announce(by, found.seqno, found.record_hash, found.flags).wire == case["wire"]


@each("announcements_refused")
def test_refused_announcements(case: Case) -> None:
    assert frames.open_announcement(case["wire"], CRYPTO) is None
    with pytest.raises(Refused, match=case["why"]):
        second.read_announcement(case["wire"])


def said_by_us(body: bytes) -> Any:
    if body[0] == frames.UPDATE:
        found = frames.decode_update(body)
        paths = [[item >> 48, item >> 16 & 0xFFFFFFFF, item & 0xFFFF] for item in found.paths]
        return {"first": found.first, "new": found.new, "renewed": found.renewed, "paths": paths}
    if body[0] == frames.REQUEST:
        return [[r.key, r.seqno, r.hops] for r in frames.decode_requests(body)]
    return frames.decode_digest(body) if body[0] == frames.DIGEST else None


@each("routes")
def test_routing_frames(case: Case) -> None:
    assert frame(FrameType.ROUTE, case["body"]) == case["frame"]
    assert case["frame"][4] == 0x81
    for read in (said_by_us, second.read_route):
        assert json.loads(json.dumps(read(case["body"]), default=bytes.hex)) == json.loads(
            json.dumps(case["says"], default=bytes.hex)
        )
    assert linked().received(BOB, case["body"], Instant(0)) is None


@each("routes_refused")
def test_refused_routing_frames(case: Case) -> None:
    assert linked().received(BOB, case["body"], Instant(0)) is Fault.MALFORMED
    with pytest.raises(Refused, match=case["why"]):
        second.read_route(case["body"])


def test_the_table_of_the_vectors_is_the_one_that_is_held() -> None:
    told, renewed, _, _, digest, _ = (case["body"] for case in VECTORS["routes"])
    routes = linked()
    assert routes.received(BOB, told, Instant(0)) is None
    assert digest == b"\x03" + routes.held(BOB)
    assert routes.held(BOB) == second.digest(second.read_route(told))
    assert {view.destination for view in routes.table()} == {BY_NAME["alice"]["key"], BOB}
    assert routes.received(BOB, renewed, Instant(0)) is None
    assert {view.destination for view in routes.table()} == {BY_NAME["alice"]["key"]}
    assert digest != b"\x03" + routes.held(BOB)
