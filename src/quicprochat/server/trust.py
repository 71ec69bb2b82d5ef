"""What federation's files say: who we are to other servers, and whom we believe. Read at the start and on SIGHUP."""

from __future__ import annotations

import datetime
import hashlib
import logging
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from quicprochat.adapters import quic
from quicprochat.console.text import rfc3339
from quicprochat.core.errors import LocalError
from quicprochat.core.time import MINUTE_MS, SECOND_MS, Instant, WallTime
from quicprochat.server.config import Config, read_file

log = logging.getLogger("quicprochat.federation")

DER_MAX_BYTES = 64 * 1024
"""Of a certificate or a key: both have less than 2 KiB."""
DISTRUSTED = 0x16
"""The code with which a connection ends whose other end is not trusted any longer."""
REFUSALS_A_MINUTE = 8
"""Lines about servers that were refused."""
EXPIRING_DAYS = 30
"""So long before its end a certificate is spoken of."""

_UNREADABLE = (
    ValueError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType,
)  # fmt: skip

Key = EllipticCurvePrivateKey | Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class Loaded:
    """``credentials`` are shown to other servers, ``trust`` judges theirs."""

    credentials: quic.Credentials
    trust: quic.Trust

    @property
    def untimely(self) -> str:
        """The sentence for a certificate of ours that is not valid yet or no longer, by the clock of now; else ""."""
        trust = self.trust
        return quic.check_own(trust.domain, self.credentials.certificate, trust.ca, trust.now())

    @property
    def remark(self) -> str:
        """What the operator should hear about time: :attr:`untimely`, or that the end is near; else ""."""
        trust = self.trust
        days = days_left(self.credentials.certificate, trust.now())
        if self.untimely or days > EXPIRING_DAYS:
            return self.untimely
        return f"this server's certificate for {trust.domain} ends in {days} days; qpc-server cert issue renews it"


def load_trust(config: Config, now: Callable[[], datetime.datetime]) -> Loaded:
    """Read the files of a configuration that federates, and see that they belong together.

    A certificate that is not valid yet, or no longer, is no error: a clock that began in 1970 must not keep a server
    from serving its own users, and may be right before the next domain calls. Raises: LocalError, UnavailableError.
    """
    domain: str = config["federation_domain"]
    cert: Path = config["federation_cert"]
    certificate, key = read_certificate(cert), read_key(config["federation_key"])
    if certificate.public_key() != key.public_key():
        raise LocalError(
            f"{config['federation_key']} is not the key of {cert}; both must be of one qpc-server cert issue"
        )
    authority = read_authority(config["federation_ca"])
    try:
        quic.check_own(domain, certificate, authority, now())
    except quic.UntrustedError as error:
        raise LocalError(f"{cert} {error}") from error
    cas = {peer: read_authority(path) for peer, path in config.cas.items()}
    trust = quic.Trust(domain, frozenset(config.peers), authority, cas, now)
    return Loaded(quic.Credentials(certificate, key), trust)


def read_certificate(path: Path) -> x509.Certificate:
    """Return a certificate whose every part can be read: the library looks at them late.

    Raises: LocalError, UnavailableError.
    """
    data = _read_der(path, "x509")
    try:
        certificate = x509.load_der_x509_certificate(data)
        _ = certificate.extensions, certificate.public_key(), certificate.signature_hash_algorithm
        _ = certificate.subject.rfc4514_string(), certificate.issuer.rfc4514_string()
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except _UNREADABLE:
        raise LocalError(f"{path} is no certificate in DER, or has parts that cannot be read") from None
    return certificate


def read_authority(path: Path) -> x509.Certificate:
    """Return the certificate of somebody who may sign those of servers. Raises: LocalError, UnavailableError."""
    authority = read_certificate(path)
    try:
        quic.check_authority(authority)
    except quic.UntrustedError as error:
        raise LocalError(f"{path} {error}") from error
    return authority


def read_key(path: Path, *, shared: bool = False) -> Key:
    """Return a private key, P-256 or Ed25519; ``shared`` if it may lie where others can read, as on a memory stick.

    Raises: LocalError, UnavailableError.
    """
    data = _read_der(path, "pkey")
    if not shared and stat.S_IMODE(os.stat(path).st_mode) & stat.S_IRWXO:
        raise LocalError(f"{path} is a private key that every user of this machine can reach; run: chmod o= {path}")
    try:
        key = serialization.load_der_private_key(data, None)
    except TypeError:
        raise LocalError(f"{path} is locked with a passphrase, which a server cannot type; store it without") from None
    except (ValueError, UnsupportedAlgorithm):
        raise LocalError(f"{path} is no private key in DER") from None
    if isinstance(key, Ed25519PrivateKey) or (
        isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1)
    ):
        return key
    raise LocalError(f"{path} is a key of another kind: P-256 and Ed25519 are taken")


def _read_der(path: Path, kind: str) -> bytes:
    data = read_file(path, DER_MAX_BYTES)
    if data.lstrip().startswith(b"-----BEGIN"):
        raise LocalError(f"{path} is PEM, and DER is needed: openssl {kind} -in {path} -outform der -out NEW.der")
    return data


def days_left(certificate: x509.Certificate, now: datetime.datetime) -> int:
    """Return for how many whole days a certificate is still valid; negative once it is over."""
    return (certificate.not_valid_after_utc - now).days


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate, as ``openssl x509 -fingerprint`` has it, without colons."""
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def standing(loaded: Loaded) -> Mapping[str, Any]:
    """Return what ``status`` says of our certificate."""
    certificate = loaded.credentials.certificate
    return {
        "certificate_expires_at": shown(certificate.not_valid_after_utc),
        "certificate_days_left": days_left(certificate, loaded.trust.now()),
        "certificate_fingerprint": fingerprint(certificate),
    }


def shown(at: datetime.datetime) -> str | None:
    """Return a time of a certificate in RFC 3339."""
    return rfc3339(WallTime(int(at.timestamp()) * SECOND_MS))


class RefusalLog:
    """Says why other servers were refused, however many try: the same words once a minute, and few altogether.

    ``now`` is the life clock. Anybody who reaches the port can claim to be any domain, so a line proves nothing.
    """

    def __init__(self, now: Callable[[], Instant]) -> None:
        self._now = now
        self._since = now()
        self._said: set[str] = set()
        self._unsaid = 0

    def __call__(self, error: quic.UntrustedError) -> None:
        """Note one refusal."""
        if self._now() - self._since >= MINUTE_MS:
            if self._unsaid:
                log.warning("servers were refused %d more times", self._unsaid)
            self._since, self._said, self._unsaid = self._now(), set(), 0
        text = str(error)
        if text in self._said or len(self._said) >= REFUSALS_A_MINUTE:
            self._unsaid += 1
            return
        self._said.add(text)
        log.warning("a server was refused: %s", text)


def end_distrusted(trust: quic.Trust, connections: Iterable[quic.Connection]) -> int:
    """End the connections whose other end is not trusted any longer; return how many. For every reload and minute.

    Off the list, another authority for its domain, a certificate that ended meanwhile: see ``quic.distrusted``.
    """
    ended = 0
    for connection in tuple(connections):
        error = None if connection.over else quic.distrusted(trust, connection.certificate)
        if error is not None:
            log.warning("the connection with %s is ended: %s", connection.peer.decode("ascii"), error)
            connection.end(DISTRUSTED, "this certificate is not accepted any more")
            ended += 1
    return ended
