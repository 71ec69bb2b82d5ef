"""``qpc-server ca init``, ``cert issue``, ``cert show``: certificates between servers, made without a running server.

An authority is a directory with a certificate and its key. It signs the certificates of servers itself, for as long as
it lasts; there is no list of what it took back: who is no peer any longer leaves ``[federation_peers]``.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from quicprochat.adapters import quic
from quicprochat.core.domain import parse_domain
from quicprochat.core.errors import LocalError, UnavailableError
from quicprochat.core.time import plausible
from quicprochat.server.trust import (
    Key,
    days_left,
    fingerprint,
    read_authority,
    read_certificate,
    read_key,
    shown,
)

Json = dict[str, Any]

AUTHORITY_DAYS = 3_653
"""Ten years: to replace an authority, every server's operator must act."""
DAYS = 397
"""A year, and a month to be late: a village's server is looked after once a year."""
DAYS_MAX = AUTHORITY_DAYS
SLACK = datetime.timedelta(days=1)
"""A certificate begins so long before it is made, for the other's clock may be slow."""

AUTHORITY, AUTHORITY_KEY = "ca.der", "ca-key.der"
CERTIFICATE, KEY = "cert.der", "key.der"
_USAGES = {ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth", ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth"}


def init_authority(directory: Path, now: datetime.datetime) -> Json:
    """Make an authority in a directory, which may be new. Raises: LocalError, UnavailableError."""
    _check_clock(now)
    _make_directory(directory)
    for file in (directory / AUTHORITY, directory / AUTHORITY_KEY):
        if os.path.lexists(file):
            raise LocalError(f"{file} exists already, and nothing is written over", code="exists")
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    # Its key is in the name, so that a person sees two authorities apart.
    name = _name(f"quicprochat federation {identifier.digest.hex()[:8]}")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SLACK)
        .not_valid_after(now + datetime.timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_others=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    _create(directory / AUTHORITY_KEY, _key_der(key), 0o600)
    _create(directory / AUTHORITY, _der(certificate), 0o644)
    return {
        "certificate": str(directory / AUTHORITY),
        "key": str(directory / AUTHORITY_KEY),
        "expires_at": shown(certificate.not_valid_after_utc),
        "fingerprint": fingerprint(certificate),
    }


def issue(ca: Path, domain: str, out: Path, days: int, now: datetime.datetime) -> Json:
    """Make or renew the certificate of a domain's server: ``cert.der``, ``key.der``, ``ca.der``.

    A key that is there already stays: so a renewed certificate fits the old one's, and an Ed25519 key can be brought.
    Raises: LocalError, UnavailableError.
    """
    _check_clock(now)
    domain = parse_domain(domain)
    if not 1 <= days <= DAYS_MAX:
        raise LocalError(f"--days is {days}; a certificate lasts for 1 to {DAYS_MAX} days")
    authority, authority_key = _read_issuer(ca, now)
    _make_directory(out)
    if os.path.samefile(ca, out):
        raise LocalError("--out is the authority's own directory: choose another, which a server may read")
    _check_place(out, domain, authority)
    if os.path.lexists(out / KEY):
        key = read_key(out / KEY)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        _create(out / KEY, _key_der(key), 0o600)
    certificate = _sign(domain, key, authority, authority_key, now, days)
    if not (out / AUTHORITY).exists():
        _create(out / AUTHORITY, _der(authority), 0o644)
    _replace(out / CERTIFICATE, _der(certificate))
    return {"directory": str(out), **describe(out / CERTIFICATE, now)}


def describe(file: Path, now: datetime.datetime) -> Json:
    """Return what a certificate says. Raises: LocalError, UnavailableError when it is none."""
    certificate = read_certificate(file)
    problem = ""
    domain: str | None = None
    authority = _authority_of(file, certificate)
    is_authority = _may_sign(certificate)
    if not is_authority:
        try:
            domain = quic.domain_of(certificate)
            if authority is not None:
                problem = quic.check_own(domain, certificate, authority, now)
        except quic.UntrustedError as error:
            problem = f"{file} {error}"
    return {
        "file": str(file),
        "domain": domain,
        "authority": is_authority,
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "not_before": shown(certificate.not_valid_before_utc),
        "expires_at": shown(certificate.not_valid_after_utc),
        "days_left": days_left(certificate, now) if _plausible(now) else None,
        "usages": _usages(certificate),
        "fingerprint": fingerprint(certificate),
        "authority_fingerprint": None if authority is None else fingerprint(authority),
        "problem": problem,
    }


def _read_issuer(ca: Path, now: datetime.datetime) -> tuple[x509.Certificate, Key]:
    if not (ca / AUTHORITY).exists():
        raise LocalError(f"{ca} has no authority; make one: qpc-server ca init {ca}", code="not_found")
    authority, key = read_authority(ca / AUTHORITY), read_key(ca / AUTHORITY_KEY, shared=True)
    if authority.public_key() != key.public_key():
        raise LocalError(f"{ca / AUTHORITY_KEY} is not the key of {ca / AUTHORITY}")
    if not authority.not_valid_before_utc <= now < authority.not_valid_after_utc:
        raise LocalError(
            f"this machine's clock says {now:%Y-%m-%d}, and the authority in {ca} is valid from"
            f" {authority.not_valid_before_utc:%Y-%m-%d} to {authority.not_valid_after_utc:%Y-%m-%d}: set the clock"
            " right, or make a new authority"
        )
    return authority, key


def _check_place(out: Path, domain: str, authority: x509.Certificate) -> None:
    """Raises: LocalError when the directory is another domain's, or of another authority."""
    if os.path.lexists(out / CERTIFICATE):
        try:
            found = quic.domain_of(read_certificate(out / CERTIFICATE))
        except quic.UntrustedError as error:
            raise LocalError(f"{out / CERTIFICATE} {error}; choose another --out") from None
        if found != domain:
            raise LocalError(f"{out} has the certificate of {found}; choose another --out", code="exists")
    if os.path.lexists(out / AUTHORITY) and read_certificate(out / AUTHORITY) != authority:
        raise LocalError(f"{out / AUTHORITY} is of another authority; choose another --out", code="exists")


def _sign(
    domain: str, key: Key, authority: x509.Certificate, signer: Key, now: datetime.datetime, days: int
) -> x509.Certificate:
    end = min(now + datetime.timedelta(days=days), authority.not_valid_after_utc)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(domain) if len(domain) <= 64 else x509.Name([]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(now - SLACK, authority.not_valid_before_utc))
        .not_valid_after(end)
        # Critical where there is no subject beside it (RFC 5280 §4.2.1.6): a common name has 64 characters at most.
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(domain)]), critical=len(domain) > 64)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_others=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(list(_USAGES)), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_identifier(authority), critical=False)
        .sign(signer, hashes.SHA256())
    )


def _identifier(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        found = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found)


def _authority_of(file: Path, certificate: x509.Certificate) -> x509.Certificate | None:
    """Return who signed a certificate, if that lies beside it, or is itself."""
    for candidate in (file, file.with_name(AUTHORITY)):
        with suppress(LocalError, UnavailableError, ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature):
            found = read_certificate(candidate)
            certificate.verify_directly_issued_by(found)
            return found
    return None


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        quic.check_authority(certificate)
    except quic.UntrustedError:
        return False
    return True


def _usages(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return []
    return [_USAGES.get(usage, usage.dotted_string) for usage in found]


def _key_usage(*, signs_others: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_others, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=signs_others, crl_sign=signs_others,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _plausible(now: datetime.datetime) -> bool:
    return plausible(int(now.timestamp() * 1_000))


def _check_clock(now: datetime.datetime) -> None:
    """Raises: LocalError when no certificate can be made by this clock."""
    if not _plausible(now):
        raise LocalError(
            f"this machine's clock says {now:%Y-%m-%d}, which cannot be right; a certificate made by it would be valid"
            " at the wrong time. Set the clock, then try again"
        )


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _key_der(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _make_directory(directory: Path) -> None:
    with _said(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def _create(path: Path, data: bytes, mode: int) -> None:
    """Make a file, durably, never over another. An authority may lie on a memory stick, which knows no links."""
    with _said(path):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(handle)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _replace(path: Path, data: bytes) -> None:
    half = path.with_name(f".{path.name}.{os.getpid()}.new")
    _create(half, data, 0o644)
    with _said(path):
        half.rename(path)


@contextmanager
def _said(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnavailableError(f"{path} cannot be made: {error.strerror}") from error
