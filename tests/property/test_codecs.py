"""Every format: what is written reads back, and any other bytes are refused with the one error meant for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from quicprochat.adapters.crypto import Ed25519Signer, SodiumCrypto, X25519Private
from quicprochat.core.address import Address, decode_addresses, encode_addresses
from quicprochat.core.channel import Post, decode_post, encode_post, open_post, seal_post
from quicprochat.core.envelope import HOPS_MAX, TTL_MAX_S, Header, Kind, MeshEnvelope, make
from quicprochat.core.errors import LocalError, WireError
from quicprochat.core.gate import Checked, Reason, Reject, Verdict, check
from quicprochat.core.identity import Contact, MeshIdentity, Ticket, fingerprint, pair_fingerprint, parse_identity
from quicprochat.core.ids import ChannelId, EnvelopeId, PeerKey, Uid
from quicprochat.core.link import (
    FRAME_MAX_BYTES,
    INTEREST_MAX,
    FrameParser,
    FrameType,
    Hello,
    Result,
    decode_bye,
    decode_interest,
    decode_record,
    decode_results,
    encode_interest,
    encode_record,
    encode_results,
    frame,
)
from quicprochat.core.receipt import Receipt, Status
from quicprochat.core.record import RECORD_LIFETIME_S, PeerRecord, open_record, sign_record
from quicprochat.core.seal import Letter, Opened, Prekey, Protection, decode_letter, encode_letter, pad, seal, unpad
from quicprochat.core.seal import open_sealed as open_letter
from quicprochat.core.wire import Reader

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
CRYPTO = SodiumCrypto(lambda count: bytes(count))
ALICE, BOB = (Ed25519Signer(bytes([n]) * 32) for n in range(2))
PRIVATE = X25519Private(bytes(range(32)))


def exactly(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


def uint(width: int) -> st.SearchStrategy[int]:
    return st.integers(0, 256**width - 1)


def text(limit: int) -> st.SearchStrategy[str]:
    """Text of at most so many bytes in UTF-8."""
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=limit // 4)


ids = exactly(32).map(EnvelopeId)
ips = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
addresses = st.builds(Address, ips, st.integers(1, 65_535))
headers = st.builds(
    Header, uint(1), st.just(ALICE.key), exactly(32), exactly(16), uint(8), st.integers(1, TTL_MAX_S),
    st.integers(1, HOPS_MAX), uint(1),
)  # fmt: skip
letters = st.builds(Letter, exactly(32).map(PeerKey), exactly(16).map(Uid), text(2_000), text(255))
receipts = st.builds(
    Receipt, st.sampled_from(Status), st.lists(ids, min_size=1, max_size=64).map(tuple), st.binary(max_size=2_048)
)
prekeys = st.lists(exactly(32).map(Prekey), max_size=4).map(tuple)
address_lists = st.lists(addresses, max_size=16).map(tuple)
records = st.builds(
    PeerRecord, st.just(ALICE.key), uint(8), uint(8), uint(8), st.integers(1, RECORD_LIFETIME_S), uint(4), text(64),
    text(255), text(255), prekeys, address_lists,
)  # fmt: skip
posts = st.builds(Post, exactly(16).map(Uid), uint(8), text(2_000), st.lists(ids, max_size=4).map(tuple), text(255))
hellos = st.builds(
    Hello, exactly(16), exactly(16), st.binary(max_size=2_048), uint(8), uint(4),
    st.integers(FRAME_MAX_BYTES, 2**32 - 1), st.integers(1, 65_535), st.integers(0, 1), st.integers(1, 255),
)  # fmt: skip
results = st.builds(Result, ids, st.sampled_from(Verdict), st.sampled_from(Reason))


# --- round trips


@quick
@given(headers, st.binary(max_size=600), uint(1), uint(8))
def test_envelopes_round_trip(header: Header, payload: bytes, hop: int, age: int) -> None:
    made = make(header, payload, ALICE)
    wire = made.wire(hop=hop, age_ms=age)
    envelope = MeshEnvelope.decode(wire)
    assert envelope.wire() == wire
    assert (envelope.hop, envelope.age_ms, envelope.payload, envelope.id) == (hop, age, payload, made.id)
    assert Header.of(envelope) == header
    assert envelope.core == header.core(payload)


@quick
@given(letters)
def test_letters_round_trip(letter: Letter) -> None:
    inner = encode_letter(letter)
    assert decode_letter(inner) == letter
    assert encode_letter(decode_letter(inner)) == inner
    assert unpad(pad(inner)) == inner


@settings(quick, max_examples=25)
@given(letters, exactly(16), uint(8), st.booleans())
def test_sealed_letters_round_trip(letter: Letter, nonce: bytes, created: int, bootstrap: bool) -> None:
    letter = Letter(ALICE.key, letter.uid, letter.text, letter.domain)
    header = Header(Kind.MESSAGE, ALICE.key, BOB.key, nonce, created)
    prekey = None if bootstrap else Prekey(PRIVATE.public)
    envelope = make(header, seal(header, prekey, letter, CRYPTO, ALICE), ALICE)
    keys = {bytes(8): BOB.exchange_private(), Prekey(PRIVATE.public).id: PRIVATE}
    expected = Opened(letter, Protection.IDENTITY if bootstrap else Protection.PREKEY)
    assert open_letter(MeshEnvelope.decode(envelope.wire()), keys, CRYPTO) == expected
    checked = check(envelope.wire(), BOB.key, keys, CRYPTO)
    assert isinstance(checked, Checked)
    assert checked.opened == expected


@quick
@given(st.binary(max_size=5_000))
def test_padding_round_trips_and_is_unique(data: bytes) -> None:
    padded = pad(data)
    assert unpad(padded) == data
    assert len(padded) & (len(padded) - 1) == 0
    for wrong in (padded[:-1], padded + b"\x00", padded + bytes(len(padded))):
        with pytest.raises(WireError):
            unpad(wrong)


@quick
@given(receipts)
def test_receipts_round_trip(receipt: Receipt) -> None:
    assert Receipt.decode(receipt.encode()) == receipt


@settings(quick, max_examples=40)
@given(records)
def test_records_round_trip(record: PeerRecord) -> None:
    data = sign_record(record, ALICE)
    opened = open_record(data, CRYPTO)
    assert opened.signed == data
    assert opened.body() == record.body() == data[:-64]


@quick
@given(posts)
def test_posts_round_trip(post: Post) -> None:
    assert decode_post(encode_post(post)) == post
    header = Header(Kind.CHANNEL, ALICE.key, bytes(32), bytes(16))
    envelope = make(header, seal_post(header, bytes(32), 1, bytes(32), post, CRYPTO), ALICE)
    assert open_post(envelope, bytes(32), CRYPTO) == post
    assert open_post(envelope, b"\x01" * 32, CRYPTO) is None


@quick
@given(address_lists)
def test_addresses_round_trip(found: tuple[Address, ...]) -> None:
    reader = Reader(encode_addresses(found, 16), "addresses")
    assert decode_addresses(reader, 16) == found
    reader.end()
    assert tuple(Address.parse(str(address)) for address in found) == found


@quick
@given(exactly(32).map(PeerKey), st.lists(addresses, max_size=8).map(tuple), text(255))
def test_tickets_round_trip(key: PeerKey, found: tuple[Address, ...], relay: str) -> None:
    ticket = Ticket(key, found, relay)
    assert Ticket.parse(str(ticket)) == ticket
    assert len(str(ticket)) <= 1_000


@quick
@given(hellos)
def test_hellos_round_trip(hello: Hello) -> None:
    assert Hello.decode(hello.encode()) == hello
    assert Hello.decode(hello.encode() + b"later") == hello


@quick
@given(st.sets(st.binary(min_size=32, max_size=32), max_size=INTEREST_MAX))
def test_interest_round_trips(ids: set[bytes]) -> None:
    channels = tuple(sorted(ChannelId(id) for id in ids))
    assert decode_interest(encode_interest(channels)) == channels


@quick
@given(st.lists(results, min_size=1, max_size=255).map(tuple))
def test_results_round_trip(found: tuple[Result, ...]) -> None:
    assert decode_results(encode_results(found)) == found


@quick
@given(uint(8), st.binary(max_size=2_048))
def test_record_frames_round_trip(age: int, record: bytes) -> None:
    assert decode_record(encode_record(record, age)) == (age, record)


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
contacts = st.builds(
    Contact, exactly(32).map(PeerKey), names, st.booleans(), st.booleans(),
    st.lists(addresses, max_size=3).map(tuple), names,
)  # fmt: skip


@quick
@given(names, st.lists(contacts, max_size=4, unique_by=lambda contact: contact.key))
def test_identity_files_round_trip(name: str, people: list[Contact]) -> None:
    identity = MeshIdentity(bytes(32), ALICE.key, name, {contact.key: contact for contact in people})
    assert MeshIdentity(*parse_identity(identity.to_json())) == identity


@quick
@given(exactly(32), exactly(32))
def test_fingerprints_have_the_same_shape_and_side(one: bytes, other: bytes) -> None:
    assert [len(group) for group in fingerprint(one).split()] == [5] * 6
    assert pair_fingerprint(one, other) == pair_fingerprint(other, one)


# --- arbitrary bytes

READERS: dict[str, tuple[Callable[[bytes], Any], Callable[[Any], bytes] | None]] = {
    "envelope": (MeshEnvelope.decode, MeshEnvelope.wire),
    "receipt": (Receipt.decode, Receipt.encode),
    "letter": (decode_letter, None),
    "post": (decode_post, encode_post),
    "record frame": (decode_record, lambda found: encode_record(found[1], found[0])),
    "hello": (Hello.decode, None),
    "results": (decode_results, None),
    "bye": (decode_bye, None),
    "padding": (unpad, pad),
}

STARTS = (
    b"", b"\x01", b"\x01\x01\x01", b"\x01\x01\x01" + bytes(32), b"\x01" + bytes(34), b"qpc1\x01\x01",
    make(Header(1, ALICE.key, BOB.key, bytes(16)), b"", ALICE).wire(), Hello(bytes(16), bytes(16), b"").encode(),
    encode_letter(Letter(ALICE.key, Uid(bytes(16)), "hi")), encode_post(Post(Uid(bytes(16)), 1, "hi")),
    Receipt(Status.DELIVERED, (EnvelopeId(bytes(32)),)).encode(),
)  # fmt: skip


@st.composite
def nearly(draw: st.DrawFn) -> bytes:
    """Bytes that begin like something real, or are something real with a few bytes changed."""
    data = bytearray(draw(st.sampled_from(STARTS)))
    for at in draw(st.lists(st.integers(0, max(0, len(data) - 1)), max_size=3)) if data else []:
        data[at] = draw(uint(1))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data) + draw(
        st.binary(max_size=80)
    )


@pytest.mark.parametrize("name", READERS)
@settings(quick, max_examples=150)
@given(data=nearly())
def test_bytes_are_a_value_that_encodes_to_them_or_a_wire_error(name: str, data: bytes) -> None:
    read, write = READERS[name]
    try:
        value = read(data)
    except WireError:
        return
    if write is not None:
        assert write(value) == data


class Gullible(SodiumCrypto):
    """Believes every signature, so that what stands behind one is reached."""

    def verify(self, key: bytes, label: object, message: bytes, signature: bytes) -> bool:
        return len(signature) == 64


GULLIBLE = Gullible(lambda count: bytes(count))


@settings(quick, max_examples=200)
@given(
    data=st.one_of(nearly(), records.map(lambda r: r.body() + bytes(64))),
    cut=st.integers(0, 40),
    at=uint(2),
    by=uint(1),
)
@example(data=bytes(65), cut=0, at=0, by=0)
def test_records_are_read_strictly_whatever_is_signed(data: bytes, cut: int, at: int, by: int) -> None:
    changed = bytearray(data[: len(data) - cut])
    if changed:
        changed[at % len(changed)] ^= by
    try:
        record = open_record(bytes(changed), GULLIBLE)
    except WireError:
        return
    assert record.body() == bytes(changed)[:-64]


@settings(quick, max_examples=200)
@given(data=nearly(), mine=st.booleans())
def test_the_gate_judges_any_bytes(data: bytes, mine: bool) -> None:
    for crypto in (CRYPTO, GULLIBLE):
        answer = check(data, BOB.key if mine else ALICE.key, {bytes(8): BOB.exchange_private()}, crypto)
        assert isinstance(answer, Reject) or answer.envelope.wire() == data


@quick
@given(st.lists(st.tuples(st.sampled_from(FrameType), st.binary(max_size=40)), max_size=8), st.data())
def test_a_stream_gives_the_same_frames_however_it_arrives(
    said: list[tuple[FrameType, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(frame(kind, body) for kind, body in said) + data.draw(st.binary(max_size=4))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert fed([stream]) == fed(pieces) == fed([bytes([byte]) for byte in stream])


@quick
@given(st.binary(max_size=60))
def test_any_stream_gives_the_same_frames_and_the_same_end_however_it_arrives(stream: bytes) -> None:
    small = stream.replace(b"\xff", b"\x00")
    for data in (stream, small):
        assert fed([data]) == fed([bytes([byte]) for byte in data])


def fed(pieces: list[bytes]) -> tuple[list[tuple[int, bytes]], str, int]:
    """The frames, the error that ended them, and how much waits."""
    parser, frames = FrameParser(), list[tuple[int, bytes]]()
    try:
        for piece in pieces:
            frames.extend(parser.feed(piece))
    except WireError as error:
        return frames, str(error), 0
    return frames, "", parser.pending


# --- what people type or paste


@settings(quick, max_examples=150)
@given(st.text(st.characters(codec="ascii"), max_size=80), st.sampled_from(["", "qpc1", str(Ticket(ALICE.key))]))
def test_any_text_is_a_ticket_or_a_sentence(typed: str, start: str) -> None:
    try:
        ticket = Ticket.parse(start + typed)
    except LocalError:
        return
    assert Ticket.parse(str(ticket)) == ticket


@quick
@given(st.text(st.characters(max_codepoint=0x3000), max_size=40))
def test_any_text_is_an_address_or_a_sentence(typed: str) -> None:
    try:
        address = Address.parse(typed)
    except LocalError:
        return
    assert Address.parse(str(address)) == address


fields = st.sampled_from(["version", "secret_key", "public_key", "name", "contacts", "verified", "x"])
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(fields, inner, max_size=3),
    max_leaves=8,
)


@quick
@given(documents, st.binary(max_size=60))
def test_any_file_is_an_identity_or_a_sentence(document: object, noise: bytes) -> None:
    whole = MeshIdentity(bytes(32), ALICE.key, "me", {BOB.key: Contact(BOB.key, "Bob")}).to_json()
    for data in (
        json.dumps(document).encode(),
        noise,
        whole[:50] + noise + whole[50:],
        whole[: len(noise)] + whole[60:],
    ):
        try:
            seed, _, _, people = parse_identity(data)
        except LocalError:
            continue
        assert len(seed) == 32
        assert all(len(key) == 32 for key in people)
