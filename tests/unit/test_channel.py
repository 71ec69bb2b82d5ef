"""Channels: what the secret opens, and what it does not."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from tests.conformance.vectors import Case, each

from quicprochat.adapters.crypto import Ed25519Signer, SodiumCrypto
from quicprochat.core import channel
from quicprochat.core.channel import (
    Access,
    BroadcastChannel,
    Post,
    channel_id,
    check_topic,
    decode_post,
    encode_post,
    heads_after,
    near_topic,
    open_post,
    open_secret,
    open_with,
    post_epoch,
    seal_post,
)
from quicprochat.core.envelope import Header, Kind, MeshEnvelope, make
from quicprochat.core.errors import LocalError, WireError
from quicprochat.core.ids import EnvelopeId, Label, PeerKey, Uid, domain
from quicprochat.core.seal import TEXT_MAX_BYTES, pad

CRYPTO = SodiumCrypto(lambda count: bytes(count))
ALICE, BOB = (Ed25519Signer(bytes([n]) * 32) for n in range(2))
SECRET, SALT = bytes(range(32)), b"\x05" * 32
CHANNEL = BroadcastChannel.private(SECRET, "home")
IDS = tuple(EnvelopeId(bytes([n]) * 32) for n in range(5))
POST = Post(Uid(bytes(16)), 7, "Grüße", IDS[:2], "example.org")
HEADER = Header(Kind.CHANNEL, ALICE.key, CHANNEL.id, bytes(16), 1_790_000_000_000, 60)


def posted(header: Header = HEADER, post: Post = POST, secret: bytes = SECRET, epoch: int = 0) -> MeshEnvelope:
    return make(header, seal_post(header, secret, epoch, SALT, post, CRYPTO), ALICE)


def opened(envelope: MeshEnvelope, secret: bytes = SECRET) -> Post | None:
    return open_post(envelope, secret, CRYPTO)


def moved(payload: bytes, header: Header = HEADER) -> MeshEnvelope:
    return make(header, payload, ALICE)


# --- channels and topics


def test_an_open_channels_secret_is_as_specified() -> None:
    name = hashlib.sha256("Grüße".encode()).digest()
    assert open_secret("Grüße", CRYPTO) == CRYPTO.hkdf(name, bytes(32), domain(Label.CHANNEL_TOPIC), 32)
    assert open_secret("Gru\u0308ße", CRYPTO) == open_secret("Grüße", CRYPTO) != open_secret("grüße", CRYPTO)


def test_a_channels_id_is_a_labelled_hash_of_its_first_secret() -> None:
    assert channel_id(SECRET) == hashlib.sha256(domain(Label.CHANNEL_ID) + SECRET).digest()


def test_an_open_channel_follows_from_its_topic_and_a_private_one_from_its_secret() -> None:
    public = BroadcastChannel.open("Gru\u0308ße", CRYPTO)
    assert public == BroadcastChannel(channel_id(public.secret), Access.OPEN, open_secret("Grüße", CRYPTO), 0, "Grüße")
    assert BroadcastChannel(channel_id(SECRET), Access.PRIVATE, SECRET, 0, "home") == CHANNEL
    assert repr(SECRET) not in repr(CHANNEL)
    with pytest.raises(AssertionError):
        BroadcastChannel.private(SECRET[:31])


@pytest.mark.parametrize("topic", ["a", "freifunk", "Straße", "a/b", "x-y", "5", "名前", "t" * 64, "é" * 32])
def test_a_topic_is_one_word(topic: str) -> None:
    assert check_topic(topic) == topic


@pytest.mark.parametrize(
    "topic",
    ["", " ", "two words", " x", "x\n", "x\u00a0y", "x\u200by", "x\u202ey", "\ud800", "\U000e0fff", "#x", "/x",
     "-x", "@x", "t" * 65, "é" * 33, "a\0b", "a>b", ">", "news.*", "*", "\u200fx", "t" * 10_240],
)  # fmt: skip
def test_what_is_no_word_is_no_topic(topic: str) -> None:
    with pytest.raises(LocalError):
        check_topic(topic)


# --- inner


def test_the_inner_is_as_specified() -> None:
    expected = b"".join((
        b"\x01", bytes(16), struct.pack(">Q", 7), b"\x02", *IDS[:2], b"\x0bexample.org", b"\x01",
        struct.pack(">I", 7), "Grüße".encode(),
    ))  # fmt: skip
    assert encode_post(POST) == expected
    assert decode_post(expected) == POST


@pytest.mark.parametrize("count", range(5))
def test_up_to_four_parents_keep_their_order(count: int) -> None:
    post = replace(POST, parents=IDS[:count][::-1])
    assert opened(posted(post=post)) == post


def test_the_largest_sequence_number_fits() -> None:
    assert decode_post(encode_post(replace(POST, seq=2**64 - 1))).seq == 2**64 - 1


def test_every_truncation_of_the_inner_is_refused() -> None:
    inner = encode_post(POST)
    for size in range(len(inner)):
        with pytest.raises(WireError):
            decode_post(inner[:size])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda x: b"\x02" + x[1:], "version"), (lambda x: b"\x00" + x[1:], "version"),
        (lambda x: x[:25] + b"\x05" + bytes(200), "5 parents"), (lambda x: x + b"\x00", "after its end"),
        (lambda x: x[:102] + b"\x00" + x[103:], "type"), (lambda x: x[:-1] + b"\xff", "UTF-8"),
        (lambda x: x[:92] + b"\xff" + x[93:], "UTF-8"),
        (lambda x: x[:103] + struct.pack(">I", TEXT_MAX_BYTES + 1) + bytes(TEXT_MAX_BYTES + 1), "65536 are allowed"),
    ],
)  # fmt: skip
def test_a_wrong_inner_is_refused(change: Callable[[bytes], bytes], why: str) -> None:
    with pytest.raises(WireError, match=why):
        decode_post(change(encode_post(POST)))


@pytest.mark.parametrize(
    "post",
    [
        replace(POST, text="x" * (TEXT_MAX_BYTES + 1)), replace(POST, domain="d" * 256), replace(POST, text="\udcff"),
        replace(POST, domain="\ud800"),
    ],
)  # fmt: skip
def test_what_does_not_fit_a_post_is_refused_with_a_sentence(post: Post) -> None:
    with pytest.raises(LocalError):
        encode_post(post)


@pytest.mark.parametrize("size", [0, 60_000, 65_000])
def test_a_long_post_fits_an_envelope(size: int) -> None:
    post = replace(POST, text="x" * size)
    envelope = MeshEnvelope.decode(posted(post=post).wire())
    assert opened(envelope) == post


def test_the_longest_post_fits_an_envelope() -> None:
    longest = replace(POST, text="x" * TEXT_MAX_BYTES, parents=IDS[:4], domain="d" * 255)
    assert opened(posted(post=longest)) == longest


def test_a_post_that_an_envelope_cannot_hold_is_refused_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "PAYLOAD_MAX_BYTES", len(posted().payload) - 1)
    with pytest.raises(LocalError, match="does not fit") as caught:
        posted()
    assert caught.value.code == "too_long"


# --- sealing and opening


def test_a_post_opens_with_its_secret() -> None:
    assert opened(posted()) == POST
    assert opened(posted(epoch=9)) == POST


def test_the_payload_is_as_specified() -> None:
    okm = CRYPTO.hkdf(SECRET, SALT, domain(Label.CHANNEL_MESSAGE) + CHANNEL.id + ALICE.key + struct.pack(">I", 3), 64)
    aad = domain(Label.CHANNEL_AAD) + okm[32:] + HEADER.bare_core
    sealed = CRYPTO.aead_seal(okm[:32], pad(encode_post(POST)), aad)
    assert posted(epoch=3).payload == struct.pack(">I", 3) + SALT + okm[32:] + sealed


def test_the_epoch_is_read_without_a_secret() -> None:
    assert post_epoch(posted(epoch=2**32 - 1)) == 2**32 - 1
    assert post_epoch(posted(epoch=0)) == 0
    assert post_epoch(moved(posted().payload[:67])) is None
    assert post_epoch(make(replace(HEADER, kind=Kind.MESSAGE), posted().payload, ALICE)) is None


def test_a_new_secret_keeps_the_channel() -> None:
    newer = b"\x09" * 32
    envelope = posted(secret=newer, epoch=1)
    assert envelope.dst == CHANNEL.id
    assert opened(envelope, newer) == POST
    assert opened(envelope) is None


def test_another_secret_opens_nothing() -> None:
    assert opened(posted(), b"\x01" * 32) is None
    assert opened(posted(), b"") is None


@pytest.mark.parametrize(
    "header",
    [
        replace(HEADER, src=BOB.key), replace(HEADER, dst=b"\x01" * 32), replace(HEADER, nonce=b"\x01" * 16),
        replace(HEADER, created_ms=0), replace(HEADER, ttl_s=61), replace(HEADER, max_hops=33),
    ],
)  # fmt: skip
def test_a_post_holds_to_its_envelope(header: Header) -> None:
    """A member cannot put another's words under its own name, nor under another moment."""
    assert opened(moved(posted().payload, header)) is None


def test_every_byte_of_the_payload_is_needed() -> None:
    payload = posted().payload
    for at in range(len(payload)):
        assert opened(moved(payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :])) is None


@pytest.mark.parametrize("size", [0, 1, 4, 36, 67, 68, 83, 84, 100])
def test_a_payload_cut_short_does_not_open(size: int) -> None:
    assert opened(moved(posted().payload[:size])) is None


@pytest.mark.parametrize(
    ("kind", "flags", "suite"),
    [
        (Kind.CHANNEL, 0, 1),
        (Kind.MESSAGE, 0, 1),
        (Kind.RECEIPT, 0, 1),
        (3, 1, 1),
        (3, 2, 1),
        (3, 3, 1),
        (3, 128, 1),
        (1, 1, 1),
        (3, 0, 2),
        (3, 0, 0),
    ],
)
def test_only_a_post_of_a_known_suite_and_flags_opens(kind: int, flags: int, suite: int) -> None:
    """Sealed for just these, so that nothing but the check refuses."""
    header = replace(HEADER, kind=kind, flags=flags)
    key, com = channel._key_and_commitment(header, SECRET, 0, SALT, CRYPTO)
    sealed = CRYPTO.aead_seal(key, pad(encode_post(POST)), channel._aad(header, com))
    envelope = replace(moved(bytes(4) + SALT + com + sealed, header), suite=suite)
    assert (opened(envelope) == POST) is ((kind, flags, suite) in {(Kind.CHANNEL, 0, 1), (Kind.CHANNEL, 1, 1)})


def test_a_commitment_is_compared_before_anything_is_decrypted() -> None:
    """Bare ChaCha20-Poly1305 has ciphertexts that open under several keys."""

    class Watched(SodiumCrypto):
        decrypted = 0

        def aead_open(self, key: bytes, ciphertext: bytes, aad: bytes) -> bytes | None:
            self.decrypted += 1
            return super().aead_open(key, ciphertext, aad)

    watched = Watched(lambda count: bytes(count))
    assert open_post(posted(), b"\x01" * 32, watched) is None
    assert watched.decrypted == 0
    assert open_post(posted(), SECRET, watched) == POST
    assert watched.decrypted == 1


def test_a_wrong_commitment_is_refused_though_all_else_fits() -> None:
    """The AAD made for the wrong commitment, so that the ciphertext alone would open."""
    key, com = channel._key_and_commitment(HEADER, SECRET, 0, SALT, CRYPTO)
    for claimed, fine in ((com, True), (bytes(32), False)):
        sealed = CRYPTO.aead_seal(key, pad(encode_post(POST)), channel._aad(HEADER, claimed))
        assert (opened(moved(bytes(4) + SALT + claimed + sealed)) == POST) is fine


def two_key_ciphertext(keys: tuple[bytes, bytes], aad: bytes, want: bytes) -> bytes:
    """A ciphertext whose one tag is right under both keys; under the first it begins with ``want``.

    Poly1305 is a polynomial over the blocks modulo 2^130 - 5: two free blocks at the end make two tags equal.
    """
    prime, high = 2**130 - 5, 1 << 128

    def stream(key: bytes, size: int) -> bytes:
        return Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(64 + size))

    head = bytes(a ^ b for a, b in zip(want, stream(keys[0], len(want))[64:], strict=True))
    padded = aad + bytes(-len(aad) % 16) + head
    blocks = [int.from_bytes(padded[at : at + 16], "little") + high for at in range(0, len(padded), 16)]
    lengths = high + int.from_bytes(struct.pack("<QQ", len(aad), len(head) + 32), "little")
    sides = []
    for key in keys:
        one_time = stream(key, 0)
        r = int.from_bytes(one_time[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
        known = 0
        for block in blocks:
            known = (known + block) * r % prime
        sides.append((r, (known * r**3 + lengths * r) % prime, int.from_bytes(one_time[16:32], "little")))
    (r1, known1, s1), (r2, known2, s2) = sides
    divisor = pow(r1**3 * r2**2 - r2**3 * r1**2, -1, prime)
    for tag in range(10_000):
        # x * r^3 + y * r^2 + known = tag - s, for both keys; most solutions are no blocks of 16 bytes.
        right1, right2 = ((tag - s1) % high - known1) % prime, ((tag - s2) % high - known2) % prime
        x = (right1 * r2**2 - right2 * r1**2) * divisor % prime - high
        y = (r1**3 * right2 - r2**3 * right1) * divisor % prime - high
        if 0 <= x < high and 0 <= y < high:
            return head + x.to_bytes(16, "little") + y.to_bytes(16, "little") + tag.to_bytes(16, "little")
    raise AssertionError("no such ciphertext was found")


def test_a_ciphertext_that_opens_under_two_keys_opens_for_no_second_reader() -> None:
    """Made by somebody who knows both secrets, so that two readers would see two different posts."""
    secrets = SECRET, b"\x01" * 32
    (key, com), (other, _) = (channel._key_and_commitment(HEADER, secret, 0, SALT, CRYPTO) for secret in secrets)
    aad = channel._aad(HEADER, com)
    sealed = two_key_ciphertext((key, other), aad, pad(encode_post(POST)))
    plains = [CRYPTO.aead_open(one, sealed, aad) for one in (key, other)]
    assert all(plain is not None for plain in plains), "it would open under both"
    assert plains[0] != plains[1]
    envelope = moved(bytes(4) + SALT + com + sealed)
    assert opened(envelope, secrets[1]) is None
    assert open_with(envelope, ((0, secrets[1]),), CRYPTO) is None


def test_of_several_secrets_of_an_epoch_the_right_one_opens() -> None:
    secrets = ((0, b"\x01" * 32), (1, SECRET), (0, SECRET))
    assert open_with(posted(), secrets, CRYPTO) == POST
    assert open_with(posted(), secrets[:2], CRYPTO) is None, "the secret of another epoch"
    assert open_with(posted(epoch=1), secrets, CRYPTO) == POST
    assert open_with(posted(), (), CRYPTO) is None


def test_heads_keep_the_newest_four_and_each_once() -> None:
    assert heads_after((), IDS[0], ()) == (IDS[0],)
    assert heads_after(IDS[:4], IDS[4], ()) == IDS[1:5]
    assert heads_after(IDS[:3], IDS[3], IDS[:2]) == (IDS[2], IDS[3])
    assert heads_after(IDS[:2], IDS[0], ()) == (IDS[1], IDS[0])


def test_what_is_inside_is_read_strictly() -> None:
    key, com = channel._key_and_commitment(HEADER, SECRET, 0, SALT, CRYPTO)
    for plain in (b"", encode_post(POST), pad(encode_post(POST) + b"!"), pad(encode_post(POST)) + bytes(256)):
        sealed = CRYPTO.aead_seal(key, plain, channel._aad(HEADER, com))
        assert opened(moved(bytes(4) + SALT + com + sealed)) is None


def test_each_author_and_each_salt_has_a_key_of_its_own() -> None:
    keys = {
        channel._key_and_commitment(replace(HEADER, src=PeerKey(src)), SECRET, epoch, salt, CRYPTO)[0]
        for src in (ALICE.key, BOB.key)
        for epoch in (0, 1)
        for salt in (SALT, bytes(32))
    }
    assert len(keys) == 8


def test_only_a_posts_header_and_a_whole_salt_are_sealed() -> None:
    with pytest.raises(AssertionError):
        seal_post(replace(HEADER, kind=Kind.MESSAGE), SECRET, 0, SALT, POST, CRYPTO)
    with pytest.raises(AssertionError):
        seal_post(HEADER, SECRET, 0, SALT[:31], POST, CRYPTO)


@each("posts_refused")
def test_what_the_vectors_say_does_not_open(case: Case) -> None:
    assert open_post(MeshEnvelope.decode(case["wire"]), case["secret"], CRYPTO) is None


def test_a_topic_that_may_have_been_meant_is_found_whatever_its_case() -> None:
    assert near_topic("BAKRY", ("village", "Bakery")) == "Bakery"
    assert near_topic("well", ("village", "bakery")) == near_topic("well", ()) == ""
