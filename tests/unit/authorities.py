"""Certificates of servers as an authority makes them, good ones and each kind of bad one."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from quicprochat.adapters import quic

CLIENT_AUTH, SERVER_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
BOTH = (SERVER_AUTH, CLIENT_AUTH)
NOW = datetime.datetime(2026, 7, 1, 12, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
ADDRESS = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))

Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True)
class Issuer:
    """Somebody who signs: an authority, or somebody who should not."""

    certificate: x509.Certificate
    key: Key


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def hashed(key: Key) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def authority(
    common_name: str = "authority", *, start: int = -30, days: int = 300, under: Issuer | None = None
) -> Issuer:
    """An authority that may itself be signed by another."""
    key = ec.generate_private_key(ec.SECP256R1())
    signer = under.key if under else key
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder(
            under.certificate.subject if under else name(common_name), name(common_name), key.public_key(),
            x509.random_serial_number(), NOW + start * DAY, NOW + days * DAY,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )  # fmt: skip
    return Issuer(builder.sign(signer, hashed(signer)), key)


def leaf(
    domain: str,
    issuer: Issuer | None,
    *,
    usages: Sequence[ObjectIdentifier] = BOTH,
    names: Sequence[x509.GeneralName] | None = None,
    start: int = -1,
    days: int = 90,
    key: Key | None = None,
    ca: bool = False,
) -> quic.Credentials:
    """A server's certificate and key; without an issuer it signs itself."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    signer: Key = issuer.key if issuer else key
    names = [x509.DNSName(domain)] if names is None else names
    builder = (
        x509.CertificateBuilder(
            issuer.certificate.subject if issuer else name(domain), name(domain), key.public_key(),
            x509.random_serial_number(), NOW + start * DAY, NOW + days * DAY,
        )
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )  # fmt: skip
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return quic.Credentials(builder.sign(signer, hashed(signer)), key)
