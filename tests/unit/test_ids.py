"""The registry of labels keeps every use of a key or hash apart from every other, ours and others'."""

from __future__ import annotations

import hashlib
from itertools import permutations

import pytest

from quicprochat.adapters.crypto import Ed25519Signer, SodiumCrypto
from quicprochat.core.envelope import Header, Kind, make
from quicprochat.core.ids import Label, Uid, domain, labelled_hash
from quicprochat.core.record import PeerRecord, sign_record
from quicprochat.core.seal import Letter, seal

REGISTRY = {
    "ID": "id", "ENVELOPE": "envelope", "RECORD": "record", "PREKEY_ID": "prekey-id", "DM": "dm",
    "DM_CONTEXT": "dm-ctx", "DM_INNER": "dm-inner", "CHANNEL_ID": "channel-id", "CHANNEL_TOPIC": "channel-topic",
    "CHANNEL_MESSAGE": "channel-msg", "CHANNEL_AAD": "channel-aad", "CHANNEL_INNER": "channel-inner",
    "FINGERPRINT": "fp", "TICKET": "ticket", "EXPORT": "export", "ROUTE": "route",
    "ROUTE_DIGEST": "route-digest",
    "RANGE": "range", "SHORT": "short", "INVITE": "invite", "CHANNEL_PASSPHRASE": "channel-pass",
}  # fmt: skip


class RecordingSigner(Ed25519Signer):
    """Signs, and keeps what it signed."""

    def __init__(self) -> None:
        super().__init__(bytes(32))
        self.signed: list[tuple[Label, bytes]] = []

    def sign(self, label: Label, message: bytes) -> bytes:
        self.signed.append((label, domain(label) + message))
        return super().sign(label, message)


def everything_signed() -> list[tuple[Label, bytes]]:
    """What a peer signs, each format at its smallest."""
    signer = RecordingSigner()
    header = Header(Kind.MESSAGE, signer.key, Ed25519Signer(b"\1" * 32).key, bytes(16))
    make(header, b"", signer)
    sign_record(PeerRecord(signer.key, 0, 0), signer)
    seal(header, None, Letter(signer.key, Uid(bytes(16)), ""), SodiumCrypto(lambda count: bytes(count)), signer)
    return signer.signed


def test_the_registry_is_what_was_published() -> None:
    assert {label.name: label.value for label in Label} == REGISTRY
    assert len(set(REGISTRY.values())) == len(REGISTRY)


def test_a_domain_is_prefix_label_and_a_zero() -> None:
    assert domain(Label.ID) == b"quicprochat-mesh/1/id\x00"
    assert all(domain(label) == b"quicprochat-mesh/1/" + label.value.encode() + b"\x00" for label in Label)


def test_no_domain_begins_with_another() -> None:
    for one, other in permutations(Label, 2):
        assert not domain(one).startswith(domain(other))


@pytest.mark.parametrize("label", Label)
def test_a_label_is_ascii_without_a_zero(label: Label) -> None:
    assert label.value.isascii()
    assert label.value.isprintable()
    assert domain(label).count(0) == 1


def test_a_labelled_hash_is_over_domain_and_parts() -> None:
    expected = hashlib.sha256(b"quicprochat-mesh/1/ticket\x00onetwo").digest()
    assert labelled_hash(Label.TICKET, b"one", b"two") == expected


def test_the_same_bytes_hash_apart_under_each_label() -> None:
    assert len({labelled_hash(label, b"bytes") for label in Label}) == len(Label)


def test_each_signed_format_has_its_own_label() -> None:
    assert [label for label, _ in everything_signed()] == [Label.ENVELOPE, Label.RECORD, Label.DM_INNER]


@pytest.mark.parametrize(("label", "message"), everything_signed())
def test_what_we_sign_cannot_be_another_protocols(label: Label, message: bytes) -> None:
    """TLS 1.3 signs 64 spaces first (RFC 8446 §4.4.3), X.509 signs DER, an iroh relay has a bare digest signed."""
    tls = [b" " * 64 + b"TLS 1.3, " + side + b" CertificateVerify\x00" for side in (b"client", b"server")]
    assert not any(context.startswith(message[: len(context)]) for context in tls)
    assert message[0] not in (0x20, 0x30)
    assert len(message) > 32
    assert message.startswith(domain(label))
