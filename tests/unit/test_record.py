"""Peer records: what a peer says of itself, in bytes that nobody else can make."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest

import quicprochat
from quicprochat.adapters.crypto import Ed25519Signer, SodiumCrypto
from quicprochat.core.address import Address, decode_addresses, encode_addresses
from quicprochat.core.errors import LocalError, WireError
from quicprochat.core.ids import Label, PeerKey
from quicprochat.core.record import (
    ADDRESSES_MAX,
    NAME_MAX_BYTES,
    PREKEYS_MAX,
    RECORD_LIFETIME_S,
    RECORD_MAX_BYTES,
    RELAY_MAX_BYTES,
    PeerRecord,
    open_record,
    reread_verified,
    sign_record,
)
from quicprochat.core.seal import DOMAIN_MAX_BYTES, Prekey
from quicprochat.core.store import StoredRecord
from quicprochat.core.time import Instant
from quicprochat.core.wire import Reader

CRYPTO = SodiumCrypto(lambda count: bytes(count))
ALICE, BOB = (Ed25519Signer(bytes([n]) * 32) for n in range(2))
V4, V6 = Address("192.0.2.1", 7_000), Address("2001:db8::1", 1)
FULL = PeerRecord(
    ALICE.key, 1, 2, 3, 4, 5, "Al", "a.org", "relay", (Prekey(b"\x01" * 32), Prekey(b"\x02" * 32)), (V4, V6)
)
BARE = PeerRecord(ALICE.key, 0, 0)


def opened(record: PeerRecord) -> PeerRecord:
    return open_record(sign_record(record, ALICE), CRYPTO)


def signed(body: bytes) -> bytes:
    return body + ALICE.sign(Label.RECORD, body)


def test_the_body_is_as_specified() -> None:
    expected = b"".join((
        b"\x01", ALICE.key, struct.pack(">QQQII", 1, 2, 3, 4, 5), b"\x02Al", b"\x05a.org", b"\x05relay",
        b"\x02" + b"\x01" * 32 + b"\x02" * 32,
        b"\x02" + b"\x04\xc0\x00\x02\x01\x1b\x58" + b"\x06\x20\x01\x0d\xb8" + bytes(11) + b"\x01\x00\x01",
    ))  # fmt: skip
    assert FULL.body() == expected
    assert sign_record(FULL, ALICE) == expected + ALICE.sign(Label.RECORD, expected)


@pytest.mark.parametrize("record", [FULL, BARE, replace(FULL, name="Ж" * 32), replace(BARE, epoch=2**64 - 1)])
def test_what_was_signed_reads_back(record: PeerRecord) -> None:
    data = sign_record(record, ALICE)
    assert open_record(data, CRYPTO) == replace(record, signed=data)


def test_the_largest_record_fits_the_limit() -> None:
    largest = replace(
        FULL, name="n" * NAME_MAX_BYTES, domain="d" * DOMAIN_MAX_BYTES, relay="r" * RELAY_MAX_BYTES,
        prekeys=(Prekey(bytes(32)),) * PREKEYS_MAX, addresses=(V6,) * ADDRESSES_MAX,
    )  # fmt: skip
    assert len(sign_record(largest, ALICE)) <= RECORD_MAX_BYTES
    assert opened(largest).addresses == largest.addresses


def test_the_higher_pair_of_numbers_is_newer() -> None:
    versions = [replace(BARE, epoch=epoch, seq=seq).version for epoch, seq in ((0, 9), (1, 0), (1, 1), (2, 0))]
    assert versions == sorted(versions)
    assert replace(BARE, created_ms=9).version == BARE.version


def test_a_field_too_long_is_not_signed() -> None:
    for change in ({"name": "n" * 65}, {"domain": "d" * 256}, {"relay": "r" * 256}, {"name": "é" * 33}):
        with pytest.raises(LocalError, match="are allowed") as caught:
            sign_record(replace(BARE, **change), ALICE)  # type: ignore[arg-type]
        assert caught.value.code == "too_long"


def test_too_many_prekeys_or_addresses_are_left_out() -> None:
    prekeys = tuple(Prekey(bytes([n]) * 32) for n in range(PREKEYS_MAX + 1))
    addresses = tuple(Address("192.0.2.1", 1 + n) for n in range(ADDRESSES_MAX + 1))
    record = opened(replace(BARE, prekeys=prekeys, addresses=addresses))
    assert record.prekeys == prekeys[:PREKEYS_MAX]
    assert record.addresses == addresses[:ADDRESSES_MAX]


# --- what is refused


def test_every_byte_is_protected() -> None:
    data = sign_record(FULL, ALICE)
    for at in range(len(data)):
        with pytest.raises(WireError):
            open_record(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], CRYPTO)


def test_every_truncation_is_refused_though_signed() -> None:
    body = FULL.body()
    for size in range(len(body)):
        with pytest.raises(WireError):
            open_record(signed(body[:size]), CRYPTO)


def test_bytes_after_the_end_are_refused_though_signed() -> None:
    with pytest.raises(WireError, match="after its end"):
        open_record(signed(FULL.body() + b"\x00"), CRYPTO)


@pytest.mark.parametrize("size", [0, 1, 63, 64, RECORD_MAX_BYTES + 1])
def test_a_length_that_cannot_be_is_refused_unread(size: int) -> None:
    with pytest.raises(WireError, match=f"a peer record of {size} bytes"):
        open_record(bytes(size), CRYPTO)


@pytest.mark.parametrize("version", [0, 2, 255])
def test_an_unknown_version_is_refused(version: int) -> None:
    with pytest.raises(WireError, match="version"):
        open_record(signed(bytes([version]) + FULL.body()[1:]), CRYPTO)


@pytest.mark.parametrize(("lifetime", "fine"), [(0, 0), (1, 1), (RECORD_LIFETIME_S, 1), (RECORD_LIFETIME_S + 1, 0)])
def test_a_record_lives_for_two_weeks_at_most(lifetime: int, fine: int) -> None:
    record = replace(BARE, lifetime_s=lifetime)
    if fine:
        assert opened(record).lifetime_s == lifetime
    else:
        with pytest.raises(WireError, match="wants to live"):
            opened(record)


def test_a_field_announced_too_long_is_refused_though_signed() -> None:
    head = BARE.body()[:65]
    for body in (
        head + b"\x41" + b"n" * 65 + b"\x00\x00\x00\x00",
        head + b"\x00\x00\x00\x05" + bytes(160) + b"\x00",
        head + b"\x00\x00\x00\x00\x11" + b"\x04\x01\x02\x03\x04\x00\x01" * 17,
    ):
        with pytest.raises(WireError, match="are allowed"):
            open_record(signed(body), CRYPTO)


@pytest.mark.parametrize("at", [66, 69, 75])
def test_text_that_is_not_utf_8_is_refused_though_signed(at: int) -> None:
    body = bytearray(FULL.body())
    body[at] = 0xFF
    with pytest.raises(WireError, match="UTF-8"):
        open_record(signed(bytes(body)), CRYPTO)


def test_somebody_elses_signature_is_refused() -> None:
    with pytest.raises(WireError, match="did not sign"):
        open_record(sign_record(FULL, BOB), CRYPTO)


@pytest.mark.parametrize("label", [label for label in Label if label is not Label.RECORD])
def test_a_signature_under_another_label_is_refused(label: Label) -> None:
    with pytest.raises(WireError, match="did not sign"):
        open_record(FULL.body() + ALICE.sign(label, FULL.body()), CRYPTO)


def test_a_weak_key_has_no_record() -> None:
    weak = PeerKey(b"\x01" + bytes(31))
    with pytest.raises(WireError):
        open_record(replace(BARE, key=weak).body() + weak + bytes(32), CRYPTO)


# --- what our own store kept


def stored(data: bytes) -> StoredRecord:
    return StoredRecord(ALICE.key, 1, 2, data, 0, Instant(0))


def test_what_the_store_kept_reads_the_same_without_its_signature_being_checked_again() -> None:
    data = sign_record(FULL, ALICE)
    assert reread_verified(stored(data)) == open_record(data, CRYPTO)
    unsigned = data[:-64] + bytes(64)
    assert reread_verified(stored(unsigned)) == replace(FULL, signed=unsigned)
    for size in range(len(data)):
        with pytest.raises(WireError):
            reread_verified(stored(data[:size]))


def test_only_listings_of_the_store_pass_over_the_signature() -> None:
    """A new caller is looked at before it is added here: what it hands over must be rows of our own store."""
    package = Path(quicprochat.__file__).parent
    named = {
        str(path.relative_to(package)): count
        for path in package.rglob("*.py")
        if (count := path.read_text("utf-8").count("reread_verified"))
    }
    assert named == {
        "core/record.py": 1,
        "p2p/people.py": 3,  # its import and two calls
        "server/home_server.py": 2,  # records that users published, for the domain where they say that they live
    }
    assert "reread_verified" not in quicprochat.__all__


# --- addresses


@pytest.mark.parametrize(
    ("text", "ip", "port"),
    [
        ("192.0.2.1:7000", "192.0.2.1", 7_000), ("[2001:db8::1]:1", "2001:db8::1", 1),
        ("[2001:DB8:0:0::1]:65535", "2001:db8::1", 65_535),
    ],
)  # fmt: skip
def test_addresses_are_read_in_their_usual_form(text: str, ip: str, port: int) -> None:
    address = Address.parse(text)
    assert address == Address(ip, port)
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    ["", ":", "192.0.2.1", "192.0.2.1:", "192.0.2.1:0", "192.0.2.1:65536", "2001:db8::1:7", "[2001:db8::1]", "host:1",
     "192.0.2.1:+1", "192.0.2.1:1_0", "192.0.2.1:\u0661", "256.0.0.1:1", "1.2.3:1", "\udcff:1"],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(LocalError, match="write ip:port"):
        Address.parse(text)


def test_addresses_round_trip_in_their_packed_form() -> None:
    packed = encode_addresses((V4, V6), 16)
    reader = Reader(packed, "addresses")
    assert decode_addresses(reader, 16) == (V4, V6)
    reader.end()


@pytest.mark.parametrize(
    "packed",
    [
        b"", b"\x01\x06", b"\x01\x04\x01\x02\x03\x04\x00\x00", b"\x01\x05\x01\x02\x03\x04\x00\x01",
        b"\x01\x00" + bytes(15) + b"\x01\x00\x01", b"\x01\x10" + bytes(15) + b"\x01\x00\x01",
    ],
)  # fmt: skip
def test_packed_addresses_of_another_shape_are_refused(packed: bytes) -> None:
    with pytest.raises(WireError):
        decode_addresses(Reader(packed, "addresses"), 16)
