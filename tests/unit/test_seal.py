"""Sealing a direct message, and the many ways in which one must not open."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.conformance.vectors import Case, each

from quicprochat.adapters.crypto import Ed25519Signer, SodiumCrypto, X25519Private
from quicprochat.core.envelope import Header, Kind, MeshEnvelope, make
from quicprochat.core.errors import LocalError, WireError
from quicprochat.core.ids import Label, Uid, domain, labelled_hash
from quicprochat.core.seal import (
    BOOTSTRAP_ID,
    DOMAIN_MAX_BYTES,
    PAD_LAST_BYTES,
    TEXT_MAX_BYTES,
    Letter,
    Opened,
    Prekey,
    Protection,
    decode_letter,
    encode_letter,
    open_sealed,
    pad,
    prekey_id,
    seal,
    unpad,
)


def no_entropy(count: int) -> bytes:
    raise AssertionError(count)


CRYPTO = SodiumCrypto(no_entropy)
ALICE, BOB, CAROL = (Ed25519Signer(bytes([n]) * 32) for n in range(3))
PRIVATE = X25519Private(bytes(range(32)))
PREKEY = Prekey(PRIVATE.public)
KEYS = {PREKEY.id: PRIVATE, BOOTSTRAP_ID: BOB.exchange_private()}
UID = Uid(bytes(range(16)))
LETTER = Letter(ALICE.key, UID, "Grüße", "example.org")
HEADER = Header(Kind.MESSAGE, ALICE.key, BOB.key, bytes(16), 1_790_000_000_000, 60)


def sealed(header: Header = HEADER, letter: Letter = LETTER, prekey: Prekey | None = PREKEY) -> MeshEnvelope:
    return make(header, seal(header, prekey, letter, CRYPTO, ALICE), ALICE)


def opened(envelope: MeshEnvelope) -> Opened | None:
    return open_sealed(envelope, KEYS, CRYPTO)


def moved(payload: bytes, header: Header) -> MeshEnvelope:
    """The same payload in another envelope, whose outer signature is not looked at here."""
    return make(header, payload, ALICE)


# --- padding


@pytest.mark.parametrize(
    ("size", "padded"),
    [(0, 256), (1, 256), (255, 256), (256, 512), (511, 512), (512, 1_024), (65_535, 65_536), (131_071, 131_072)],
)
def test_padding_goes_to_the_next_size(size: int, padded: int) -> None:
    assert pad(b"x" * size) == b"x" * size + b"\x80" + bytes(padded - size - 1)
    assert unpad(pad(b"x" * size)) == b"x" * size


def test_what_does_not_fit_the_largest_size_is_refused() -> None:
    with pytest.raises(LocalError) as caught:
        pad(bytes(PAD_LAST_BYTES))
    assert caught.value.code == "too_long"


def test_padding_keeps_what_looks_like_padding() -> None:
    for content in (b"\x80", b"\x80\x00", b"x\x80\x00\x00", b"\x00", bytes(300)):
        assert unpad(pad(content)) == content


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x80", bytes(256), b"x" * 256, b"\x80" + bytes(254), b"\x80" + bytes(256), b"\x80" + bytes(511),
        b"x" * 100 + b"\x80" + bytes(411), b"x" * 100 + b"\x81" + bytes(155), b"x" * 255 + b"\x01",
    ],
)  # fmt: skip
def test_every_other_padding_is_refused(data: bytes) -> None:
    with pytest.raises(WireError, match="padding"):
        unpad(data)


def test_padding_beyond_the_largest_size_is_the_peers_fault() -> None:
    with pytest.raises(WireError):
        unpad(b"x" * PAD_LAST_BYTES + b"\x80")


# --- inner


def test_the_inner_is_as_specified() -> None:
    text = "Grüße".encode()
    expected = b"".join((
        b"\x01", ALICE.key, bytes(40), b"\x01", UID, b"\x0bexample.org", struct.pack(">I", len(text)), text,
    ))  # fmt: skip
    assert encode_letter(LETTER) == expected
    assert decode_letter(expected) == LETTER


def test_a_reply_prekey_is_ignored() -> None:
    inner = encode_letter(LETTER)
    assert decode_letter(inner[:33] + b"\xff" * 40 + inner[73:]) == LETTER


def test_texts_and_domains_have_limits() -> None:
    longest = Letter(ALICE.key, UID, "x" * TEXT_MAX_BYTES, "d" * DOMAIN_MAX_BYTES)
    assert decode_letter(encode_letter(longest)) == longest
    assert opened(sealed(letter=longest)) == Opened(longest, Protection.PREKEY)
    with pytest.raises(LocalError, match="send it in parts") as caught:
        encode_letter(replace(longest, text="x" * (TEXT_MAX_BYTES - 1) + "é"))
    assert caught.value.code == "too_long"
    with pytest.raises(LocalError, match="home domain"):
        encode_letter(replace(longest, domain="d" * (DOMAIN_MAX_BYTES + 1)))


def test_a_text_announced_too_long_is_refused() -> None:
    inner = encode_letter(replace(LETTER, text="", domain=""))
    with pytest.raises(WireError, match="65536 are allowed"):
        decode_letter(inner[:-4] + struct.pack(">I", TEXT_MAX_BYTES + 1) + bytes(TEXT_MAX_BYTES + 1))


@pytest.mark.parametrize("letter", [replace(LETTER, text="\udcff"), replace(LETTER, domain="\ud800")])
def test_half_a_character_cannot_be_sent(letter: Letter) -> None:
    """The shell makes these of bytes that are no UTF-8."""
    with pytest.raises(LocalError):
        encode_letter(letter)


def test_every_truncation_of_the_inner_is_refused() -> None:
    inner = encode_letter(LETTER)
    for size in range(len(inner)):
        with pytest.raises(WireError):
            decode_letter(inner[:size])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda x: b"\x00" + x[1:], "version"), (lambda x: b"\x02" + x[1:], "version"),
        (lambda x: x[:73] + b"\x00" + x[74:], "type"), (lambda x: x[:73] + b"\x03" + x[74:], "type"),
        (lambda x: x + b"\x00", "after its end"), (lambda x: x[:-1] + b"\xff", "UTF-8"),
        (lambda x: x[:91] + b"\xff" + x[92:], "UTF-8"),
    ],
)  # fmt: skip
def test_a_wrong_inner_is_refused(change: Callable[[bytes], bytes], why: str) -> None:
    with pytest.raises(WireError, match=why):
        decode_letter(change(encode_letter(LETTER)))


# --- sealing and opening


def test_a_message_to_a_prekey_opens() -> None:
    assert opened(sealed()) == Opened(LETTER, Protection.PREKEY)


def test_a_message_to_the_identity_key_opens_and_says_so() -> None:
    envelope = sealed(prekey=None)
    assert envelope.payload[:8] == BOOTSTRAP_ID == bytes(8)
    assert opened(envelope) == Opened(LETTER, Protection.IDENTITY)
    assert {p.name: p.value for p in Protection} == {"PREKEY": "forward-secret", "IDENTITY": "identity-key"}


def test_the_payload_begins_with_the_name_of_the_prekey() -> None:
    assert sealed().payload[:8] == PREKEY.id == prekey_id(PREKEY.public)
    assert PREKEY.id == labelled_hash(Label.PREKEY_ID, PREKEY.public)[:8]
    assert len(sealed().payload) == 8 + 32 + 256 + 16


def test_sealing_again_changes_the_envelope_and_not_the_message() -> None:
    one, other = sealed(), sealed()
    assert one.id != other.id
    assert opened(one) == opened(other)


def test_the_context_that_is_sealed_to_is_as_specified() -> None:
    payload = sealed().payload
    info = b"".join((
        domain(Label.DM), ALICE.key, BOB.key, PREKEY.id, PREKEY.public, bytes(16),
        struct.pack(">QI", 1_790_000_000_000, 60),
    ))  # fmt: skip
    assert CRYPTO.open(PRIVATE, info, payload[8:]) is not None


@pytest.mark.parametrize("prekey", [PREKEY, None])
@pytest.mark.parametrize(
    "header",
    [
        replace(HEADER, src=CAROL.key), replace(HEADER, dst=CAROL.key), replace(HEADER, nonce=b"\x01" * 16),
        replace(HEADER, created_ms=0), replace(HEADER, ttl_s=61),
    ],
)  # fmt: skip
def test_a_seal_holds_to_its_envelope(header: Header, prekey: Prekey | None) -> None:
    assert opened(moved(sealed(prekey=prekey).payload, header)) is None


def test_every_byte_of_the_payload_is_needed() -> None:
    payload = sealed().payload
    for at in range(len(payload)):
        altered = payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :]
        assert opened(moved(altered, HEADER)) is None


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 39, 40, 55, 56, 100])
def test_a_payload_cut_short_does_not_open(size: int) -> None:
    assert opened(moved(sealed().payload[:size], HEADER)) is None


def test_an_unknown_prekey_does_not_open() -> None:
    assert open_sealed(sealed(), {BOOTSTRAP_ID: KEYS[BOOTSTRAP_ID]}, CRYPTO) is None
    assert open_sealed(sealed(), {}, CRYPTO) is None


def test_a_message_to_a_prekey_does_not_pass_for_one_to_the_identity_key() -> None:
    keys = {BOOTSTRAP_ID: PRIVATE}
    assert open_sealed(moved(BOOTSTRAP_ID + sealed().payload[8:], HEADER), keys, CRYPTO) is None


def test_nothing_is_sealed_to_an_improper_key() -> None:
    weak = replace(HEADER, dst=b"\x01" + bytes(31))
    with pytest.raises(LocalError, match="not a valid Ed25519 key"):
        seal(weak, None, LETTER, CRYPTO, ALICE)


# --- who wrote


def content_of(envelope: MeshEnvelope, private: X25519Private) -> bytes:
    """What a recipient finds in its message: inner signature and inner."""
    header = Header.of(envelope)
    tail = struct.pack(">16sQI", header.nonce, header.created_ms, header.ttl_s)
    info = domain(Label.DM) + header.src + header.dst + envelope.payload[:8] + private.public + tail
    plain = CRYPTO.open(private, info, envelope.payload[8:])
    assert plain is not None
    return unpad(plain)


def resealed(content: bytes, header: Header, private: X25519Private) -> MeshEnvelope:
    """Any content, properly sealed to a prekey and put into an envelope with this header."""
    name = prekey_id(private.public)
    tail = struct.pack(">16sQI", header.nonce, header.created_ms, header.ttl_s)
    info = domain(Label.DM) + header.src + header.dst + name + private.public + tail
    return make(header, name + CRYPTO.seal(private.public, info, pad(content)), ALICE)


def test_a_recipient_cannot_pass_words_on_as_if_written_to_somebody_else() -> None:
    """Surreptitious forwarding (Davis 2001): Bob seals to Carol what Alice signed for Bob."""
    carols = X25519Private(b"\x07" * 32)
    stolen = content_of(sealed(), PRIVATE)
    for header in (
        replace(HEADER, dst=CAROL.key),  # as from Alice, had Bob her outer signature
        replace(HEADER, src=BOB.key, dst=CAROL.key),  # as from Bob
    ):
        forwarded = resealed(stolen, header, carols)
        assert open_sealed(forwarded, {prekey_id(carols.public): carols}, CRYPTO) is None


def test_words_cannot_be_sealed_again_to_another_prekey_of_the_same_recipient() -> None:
    other = X25519Private(b"\x07" * 32)
    again = resealed(content_of(sealed(), PRIVATE), HEADER, other)
    assert open_sealed(again, {prekey_id(other.public): other}, CRYPTO) is None


def test_what_the_thief_of_a_recipients_key_writes_is_from_nobody() -> None:
    """The prekey opens; it does not sign."""
    inner = encode_letter(LETTER)
    for thief in (BOB, CAROL):
        isig = thief.sign(Label.DM_INNER, content_of(sealed(), PRIVATE)[:64])
        assert opened(resealed(isig + inner, HEADER, PRIVATE)) is None


def test_the_author_inside_is_the_one_outside() -> None:
    """Carol's words, properly signed and sealed for an envelope of Alice's; and Alice's for one of Carol's."""
    for src, author in ((ALICE, CAROL), (CAROL, ALICE)):
        header = replace(HEADER, src=src.key)
        payload = seal(header, PREKEY, replace(LETTER, author=author.key), CRYPTO, author)
        assert opened(moved(payload, header)) is None


def test_a_resealed_message_with_the_right_content_opens() -> None:
    """The control for the tests above: the helper itself breaks nothing."""
    assert opened(resealed(content_of(sealed(), PRIVATE), HEADER, PRIVATE)) == Opened(LETTER, Protection.PREKEY)


def test_the_inner_signature_covers_every_byte_of_the_inner() -> None:
    content = content_of(sealed(), PRIVATE)
    for at in range(len(content)):
        altered = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        assert opened(resealed(altered, HEADER, PRIVATE)) is None


@each("messages_unopenable")
def test_what_the_vectors_say_does_not_open(case: Case) -> None:
    keys = {case["key_name"]: X25519Private(case["secret"])}
    assert open_sealed(MeshEnvelope.decode(case["wire"]), keys, CRYPTO) is None
