"""Self-signed Ed25519 certificates, and the checks that take one for a key and nothing more (RFC 8410, RFC 5280).

Lifetimes say nothing here: the key is the identity, and clocks that start in 1970 must not lock anybody out.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

from quicprochat.adapters.quic.tls import Check, UntrustedError

_FOREVER = (datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC), datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC))


def self_signed(seed: bytes, name: str, serial: int) -> tuple[x509.Certificate, Ed25519PrivateKey]:
    """Return a certificate for the Ed25519 key of a 32-byte seed. ``serial`` is a positive number below 2**159."""
    key = Ed25519PrivateKey.from_private_bytes(seed)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(_FOREVER[0])
        .not_valid_after(_FOREVER[1])
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    return builder.sign(key, None), key


def fingerprint(certificate: x509.Certificate) -> bytes:
    """Return SHA-256 of the certificate's public key (its SubjectPublicKeyInfo in DER): what is pinned and shown."""
    key = certificate.public_key()
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).digest()


def key_holder(leaf: x509.Certificate, _: Sequence[x509.Certificate]) -> bytes:
    """Check a client: any Ed25519 key will do, and its 32 bytes are who that is."""
    key = leaf.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise UntrustedError("a client must show an Ed25519 key")
    return key.public_bytes_raw()


def anybody(leaf: x509.Certificate, _: Sequence[x509.Certificate]) -> bytes:
    """Check a server for the first time: whoever it is, its fingerprint is returned for the caller to pin."""
    return fingerprint(leaf)


def announced(expected: bytes) -> Check:
    """Return the check of a first visit to a server that said beforehand which fingerprint it has."""

    def check(leaf: x509.Certificate, _: Sequence[x509.Certificate]) -> bytes:
        found = fingerprint(leaf)
        if found != expected:
            raise UntrustedError(
                f"who answers there is not who was announced: the fingerprint is {found.hex()[:16]}… and not "
                f"{expected.hex()[:16]}…; nothing was sent, and nothing is remembered"
            )
        return found

    return check


def pinned(expected: bytes) -> Check:
    """Return the check of a server whose fingerprint is known."""

    def check(leaf: x509.Certificate, _: Sequence[x509.Certificate]) -> bytes:
        found = fingerprint(leaf)
        if found != expected:
            raise UntrustedError(
                f"the server's key has changed: it was {expected.hex()[:16]}… and is {found.hex()[:16]}…; nothing was "
                "sent. If its operator confirms the new key, forget the old one first"
            )
        return found

    return check
