"""The envelope's bytes: what each means, and that none can be changed but hop and age."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.conformance.vectors import Case, each

from quicprochat.adapters.crypto import Ed25519Signer, SodiumCrypto
from quicprochat.core.envelope import (
    CORE_BYTES,
    ENVELOPE_MAX_BYTES,
    HEADER_BYTES,
    HOPS_DEFAULT,
    HOPS_MAX,
    PAYLOAD_MAX_BYTES,
    TTL_DEFAULT_S,
    TTL_MAX_S,
    Header,
    Kind,
    MeshEnvelope,
    make,
)
from quicprochat.core.errors import WireError
from quicprochat.core.gate import Checked, Fault, Reject, check, understood
from quicprochat.core.ids import Label, PeerKey, Uid, domain
from quicprochat.core.receipt import Receipt, Status
from quicprochat.core.record import PeerRecord, sign_record
from quicprochat.core.seal import BOOTSTRAP_ID, Letter, seal


def no_entropy(count: int) -> bytes:
    raise AssertionError(count)


CRYPTO = SodiumCrypto(no_entropy)
ALICE, BOB, CAROL = (Ed25519Signer(bytes([n]) * 32) for n in range(3))
NONCE = bytes(range(16))
HEADER = Header(Kind.MESSAGE, ALICE.key, BOB.key, NONCE, 1_790_000_000_000, 3_600, 5)
ENVELOPE = make(HEADER, b"payload", ALICE)
WIRE = ENVELOPE.wire(hop=2, age_ms=1_000)


def judged(data: bytes, me: PeerKey = CAROL.key) -> Checked | Reject:
    return check(data, me, {}, CRYPTO)


def good(data: bytes, me: PeerKey = CAROL.key) -> Checked:
    answer = judged(data, me)
    assert isinstance(answer, Checked), answer
    return answer


def refused(data: bytes) -> Fault:
    answer = judged(data)
    assert isinstance(answer, Reject), answer
    return answer.fault


def signed(core: bytes, payload: bytes = b"payload") -> bytes:
    """An envelope its author did sign, whatever stands in its core."""
    return core + ALICE.sign(Label.ENVELOPE, core) + bytes(9) + payload


def with_byte(at: int, value: int) -> bytes:
    core = bytearray(ENVELOPE.core)
    core[at] = value
    return signed(bytes(core))


def flipped(data: bytes, at: int, by: int = 1) -> bytes:
    return data[:at] + bytes([data[at] ^ by]) + data[at + 1 :]


# --- layout


def test_the_core_is_as_specified() -> None:
    expected = b"".join((
        b"\x01\x01\x01\x00", ALICE.key, BOB.key, struct.pack(">Q", 1_790_000_000_000), struct.pack(">I", 3_600),
        b"\x05\x00", NONCE, struct.pack(">I", 7), hashlib.sha256(b"payload").digest(),
    ))  # fmt: skip
    assert len(expected) == CORE_BYTES == 134
    assert ENVELOPE.core == HEADER.core(b"payload") == expected


def test_the_wire_is_core_signature_hop_age_payload() -> None:
    signature = ALICE.sign(Label.ENVELOPE, ENVELOPE.core)
    assert ENVELOPE.core + signature + b"\x02" + struct.pack(">Q", 1_000) + b"payload" == WIRE
    assert len(WIRE) == HEADER_BYTES + 7 == 214
    assert ENVELOPE.wire() == ENVELOPE.core + signature + bytes(9) + b"payload"


def test_decoding_gives_every_field_and_encoding_gives_the_bytes_back() -> None:
    envelope = MeshEnvelope.decode(WIRE)
    fields = (envelope.version, envelope.suite, envelope.kind, envelope.flags, envelope.src, envelope.dst)
    assert fields == (1, 1, Kind.MESSAGE, 0, ALICE.key, BOB.key)
    times = (envelope.created_ms, envelope.ttl_s, envelope.ttl_ms, envelope.max_hops, envelope.hop, envelope.age_ms)
    assert times == (1_790_000_000_000, 3_600, 3_600_000, 5, 2, 1_000)
    assert (envelope.nonce, envelope.payload) == (NONCE, b"payload")
    assert envelope.wire() == WIRE
    assert Header.of(envelope) == HEADER


def test_defaults_are_a_week_thirty_two_hops_and_no_clock() -> None:
    envelope = make(Header(Kind.MESSAGE, ALICE.key, BOB.key, NONCE), b"", ALICE)
    assert (envelope.ttl_s, envelope.max_hops, envelope.created_ms, envelope.flags) == (604_800, 32, 0, 0)
    assert (TTL_DEFAULT_S, HOPS_DEFAULT, TTL_MAX_S, HOPS_MAX) == (604_800, 32, 1_209_600, 64)


def test_the_bare_core_has_no_payload_in_it() -> None:
    assert HEADER.bare_core == ENVELOPE.bare_core == ENVELOPE.core[:98] + bytes(36)


def test_an_altered_object_does_not_pass_its_bytes_on() -> None:
    """What goes out is what came in, not what somebody made of it."""
    envelope = MeshEnvelope.decode(WIRE)
    assert envelope.wire(hop=9, age_ms=5) == WIRE[:198] + b"\x09" + struct.pack(">Q", 5) + WIRE[207:]


# --- id


def test_the_id_is_a_labelled_hash_of_the_core() -> None:
    assert ENVELOPE.id == hashlib.sha256(domain(Label.ID) + struct.pack(">I", 134) + ENVELOPE.core).digest()


def test_the_id_leaves_out_signature_hop_and_age() -> None:
    for hop in (0, 1, 64, 255):
        for age in (0, 1, 2**64 - 1):
            assert good(ENVELOPE.wire(hop=hop, age_ms=age)).envelope.id == ENVELOPE.id
    for at in range(134, 198):
        assert MeshEnvelope.decode(flipped(WIRE, at)).id == ENVELOPE.id


@pytest.mark.parametrize("at", range(CORE_BYTES))
def test_each_byte_of_the_core_is_protected(at: int) -> None:
    for by in (0x01, 0x80):
        assert refused(flipped(WIRE, at, by)) in (Fault.MALFORMED, Fault.SIGNATURE)


def test_each_byte_of_the_core_changes_the_id() -> None:
    ids = {replace(ENVELOPE, core=flipped(ENVELOPE.core, at)).id for at in range(CORE_BYTES)}
    assert len(ids | {ENVELOPE.id}) == CORE_BYTES + 1


def test_each_byte_of_the_signature_is_needed() -> None:
    assert all(refused(flipped(WIRE, at)) is Fault.SIGNATURE for at in range(134, 198))


def test_each_byte_of_the_payload_is_needed() -> None:
    assert all(refused(flipped(WIRE, at)) is Fault.MALFORMED for at in range(207, 214))


# --- what is refused


@pytest.mark.parametrize("size", [*range(0, 214, 7), 206, 207, 213])
def test_a_truncated_envelope_is_refused(size: int) -> None:
    with pytest.raises(WireError):
        MeshEnvelope.decode(WIRE[:size])
    assert refused(WIRE[:size]) is Fault.MALFORMED


def test_bytes_after_the_end_are_refused() -> None:
    assert refused(WIRE + b"\x00") is Fault.MALFORMED


def test_the_largest_envelope_is_taken_and_one_byte_more_is_not() -> None:
    largest = make(HEADER, bytes(PAYLOAD_MAX_BYTES), ALICE).wire()
    assert len(largest) == ENVELOPE_MAX_BYTES == HEADER_BYTES + PAYLOAD_MAX_BYTES
    assert good(largest).envelope.payload == bytes(PAYLOAD_MAX_BYTES)
    with pytest.raises(WireError, match="over the limit"):
        MeshEnvelope.decode(make(HEADER, bytes(PAYLOAD_MAX_BYTES + 1), ALICE).wire())


@pytest.mark.parametrize("version", [0, 2, 255])
def test_an_unknown_version_is_refused_though_signed(version: int) -> None:
    with pytest.raises(WireError, match="version"):
        MeshEnvelope.decode(with_byte(0, version))


@pytest.mark.parametrize("reserved", [1, 0x80, 0xFF])
def test_the_reserved_byte_is_zero(reserved: int) -> None:
    with pytest.raises(WireError, match="reserved"):
        MeshEnvelope.decode(with_byte(81, reserved))


@pytest.mark.parametrize(
    ("ttl", "fine"), [(0, False), (1, True), (TTL_MAX_S, True), (TTL_MAX_S + 1, False), (2**32 - 1, False)]
)
def test_a_lifetime_is_from_a_second_to_two_weeks(ttl: int, fine: bool) -> None:
    expect(fine, lambda: MeshEnvelope.decode(make(Header(1, ALICE.key, BOB.key, NONCE, 0, ttl), b"", ALICE).wire()))


@pytest.mark.parametrize(
    ("hops", "fine"), [(0, False), (1, True), (HOPS_MAX, True), (HOPS_MAX + 1, False), (255, False)]
)
def test_a_hop_limit_is_from_one_to_sixty_four(hops: int, fine: bool) -> None:
    header = Header(1, ALICE.key, BOB.key, NONCE, 0, 1, hops)
    expect(fine, lambda: MeshEnvelope.decode(make(header, b"", ALICE).wire()))


def expect(fine: bool, act: Callable[[], object]) -> None:
    if fine:
        act()
    else:
        with pytest.raises(WireError):
            act()


def test_a_payload_that_is_not_the_announced_one_is_refused() -> None:
    core = ENVELOPE.core
    for announced in (0, 6, 8, 2**32 - 1):
        with pytest.raises(WireError, match=f"announces {announced} bytes of payload and brings 7"):
            MeshEnvelope.decode(signed(core[:98] + struct.pack(">I", announced) + core[102:]))
    with pytest.raises(WireError, match="not the one it was signed with"):
        MeshEnvelope.decode(signed(core, b"PAYLOAD"))


@pytest.mark.parametrize(
    ("at", "value"), [(1, 0), (1, 2), (1, 255), (2, 0), (2, 4), (2, 255), (3, 1), (3, 2), (3, 128)]
)
def test_unknown_suites_kinds_and_flags_are_carried_if_signed_and_never_understood(at: int, value: int) -> None:
    checked = good(with_byte(at, value), me=BOB.key)
    assert checked.opened is None
    assert checked.receipt is None
    assert checked.envelope.wire() == with_byte(at, value)
    known = checked.envelope.kind in list(Kind) and understood(checked.envelope)
    assert not known
    assert refused(flipped(with_byte(at, value), 140)) is Fault.SIGNATURE


def sealed(header: Header) -> bytes:
    payload = seal(header, None, Letter(ALICE.key, Uid(NONCE), "hi"), CRYPTO, ALICE)
    return make(header, payload, ALICE).wire()


def test_a_message_is_opened_only_by_its_recipient_and_only_if_it_is_understood() -> None:
    keys = {BOOTSTRAP_ID: BOB.exchange_private()}
    plain, flagged = (sealed(Header(Kind.MESSAGE, ALICE.key, BOB.key, NONCE, flags=flags)) for flags in (0, 1))
    core = bytearray(plain[:CORE_BYTES])
    core[1] = 2
    other_suite = signed(bytes(core), plain[HEADER_BYTES:])
    texts = []
    for wire, me in ((plain, BOB), (plain, CAROL), (flagged, BOB), (other_suite, BOB)):
        checked = check(wire, me.key, keys, CRYPTO)
        assert isinstance(checked, Checked)
        texts.append(checked.opened and checked.opened.letter.text)
    assert texts == ["hi", None, None, None]


def test_a_post_is_not_opened_as_a_message() -> None:
    keys = {BOOTSTRAP_ID: BOB.exchange_private()}
    header = Header(Kind.CHANNEL, ALICE.key, BOB.key, NONCE)
    checked = check(sealed(header), BOB.key, keys, CRYPTO)
    assert isinstance(checked, Checked)
    assert checked.opened is None


# --- who signed


def test_somebody_elses_signature_is_refused() -> None:
    assert refused(ENVELOPE.core + BOB.sign(Label.ENVELOPE, ENVELOPE.core) + bytes(9) + b"payload") is Fault.SIGNATURE


@pytest.mark.parametrize("label", [label for label in Label if label is not Label.ENVELOPE])
def test_a_signature_under_another_label_is_refused(label: Label) -> None:
    assert refused(ENVELOPE.core + ALICE.sign(label, ENVELOPE.core) + bytes(9) + b"payload") is Fault.SIGNATURE


@each("envelopes_refused")
def test_what_the_vectors_say_is_refused(case: Case) -> None:
    """Among them an envelope from a key of mixed order whose signature verifies."""
    assert refused(case["wire"]) is (Fault.SIGNATURE if case["why"] == "signature" else Fault.MALFORMED)


# --- receipts in the gate


def receipt(payload: bytes, flags: int = 0) -> bytes:
    return make(Header(Kind.RECEIPT, ALICE.key, BOB.key, NONCE, flags=flags), payload, ALICE).wire()


def test_a_receipt_is_read_for_everybody() -> None:
    payload = Receipt(Status.DELIVERED, (ENVELOPE.id,)).encode()
    assert good(receipt(payload)).receipt == Receipt(Status.DELIVERED, (ENVELOPE.id,))


def test_a_malformed_receipt_is_refused() -> None:
    assert refused(receipt(b"\x01\x01\x00\x00\x00")) is Fault.MALFORMED


def test_a_receipt_brings_its_authors_record_and_no_other() -> None:
    for owner, fine in ((ALICE, True), (CAROL, False)):
        record = sign_record(PeerRecord(owner.key, 1, 1), owner)
        wire = receipt(Receipt(Status.UNOPENABLE, (ENVELOPE.id,), record).encode())
        found = good(wire, me=BOB.key).record
        assert (found is not None and found.key == ALICE.key) == fine


def test_a_record_that_does_not_verify_is_left_out_and_nobody_is_blamed() -> None:
    """Whoever carried the receipt could not know."""
    record = flipped(sign_record(PeerRecord(ALICE.key, 1, 1), ALICE), 40)
    judged_ = good(receipt(Receipt(Status.UNOPENABLE, (ENVELOPE.id,), record).encode()), me=BOB.key)
    assert judged_.record is None
    assert judged_.receipt is not None


def test_a_carrier_does_not_look_at_the_record_in_a_receipt() -> None:
    record = sign_record(PeerRecord(ALICE.key, 1, 1), ALICE)
    assert good(receipt(Receipt(Status.UNOPENABLE, (ENVELOPE.id,), record).encode()), me=CAROL.key).record is None


def test_a_receipt_with_unknown_flags_is_carried_and_not_read() -> None:
    assert good(receipt(b"sealed, in some later version", flags=1)).receipt is None
    assert good(receipt(Receipt(Status.DELIVERED, (ENVELOPE.id,)).encode(), flags=1)).receipt is None
