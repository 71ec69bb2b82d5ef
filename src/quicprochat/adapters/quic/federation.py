"""Who another server is: the one domain in a certificate from the authority that we trust for that domain.

A check runs inside the handshake (see ``tls``), the same on both sides. An authority signs the certificates of servers
itself: whatever else the other end sends along is not looked at. RFC 5280 by ``cryptography.x509.verification``, whose
defaults are for browsers; what they let pass and we do not: no extended key usage, or one of the two; several names,
wildcards, addresses.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, Policy, PolicyBuilder, Store, VerificationError

from quicprochat.adapters.quic.tls import Check, UntrustedError
from quicprochat.core.domain import is_domain
from quicprochat.core.time import plausible

FEDERATION_ALPN = "quicprochat/federation/1"
USAGES = frozenset({ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH})
"""Both are needed on both sides: a server calls and is called, and one that could do half would fail only later."""

_ONE_USAGE = (
    "is not for both ends of a connection: its extended key usage must be serverAuth and clientAuth; qpc-server cert"
    " issue makes such a one"
)
_UNREADABLE = (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, x509.InvalidVersion)


@dataclass(frozen=True, slots=True)
class Trust:
    """Which other domains a server believes in, and who may vouch for them."""

    domain: str
    """Our own: nobody else may have it."""
    domains: frozenset[str]
    ca: x509.Certificate
    """Vouches for every domain without an entry in ``cas``, so it can impersonate each of those."""
    cas: Mapping[str, x509.Certificate]
    now: Callable[[], datetime.datetime]
    """The wall clock, with a time zone."""

    def authority(self, domain: str) -> x509.Certificate:
        """Return who vouches for a domain."""
        return self.cas.get(domain, self.ca)


def federated(trust: Callable[[], Trust], expected: str = "") -> Check:
    """Return the check of another server; ``trust`` is asked anew for each connection.

    ``expected`` is the domain that was called, "" where we are called. The check returns the domain, in ASCII.
    """

    def check(leaf: x509.Certificate, _: Sequence[x509.Certificate]) -> bytes:
        now = trust()
        domain = _shown_domain(leaf)
        if expected and domain != expected:
            raise UntrustedError(
                f"where {expected} was called, a server answered with a certificate for {domain}; nothing was sent."
                f" Correct the address of {expected} in [federation_peers]"
            )
        _judge(now, domain, leaf, now.now())
        return domain.encode("ascii")

    return check


def distrusted(trust: Trust, leaf: x509.Certificate) -> UntrustedError | None:
    """Say why a server that is connected must not be any longer, by what is trusted now; None if it may stay.

    A certificate that ended meanwhile is no longer good. A clock that went back proves nothing: that it had begun is
    known from the handshake.
    """
    try:
        domain = _shown_domain(leaf)
        began = max(leaf.not_valid_before_utc, trust.authority(domain).not_valid_before_utc)
        _judge(trust, domain, leaf, max(trust.now(), began))
    except UntrustedError as error:
        return error
    return None


def domain_of(leaf: x509.Certificate) -> str:
    """Return the one domain that a certificate names.

    Raises: UntrustedError, a sentence to be put behind whose certificate it is.
    """
    try:
        names = list(leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        names = []
    except _UNREADABLE as error:
        raise UntrustedError("has parts that cannot be read; a new one is needed") from error
    if len(names) != 1 or not isinstance(names[0], x509.DNSName) or not is_domain(names[0].value.lower()):
        raise UntrustedError(
            "must name one domain and nothing else: no second name, no wildcard, no address; qpc-server cert issue"
            " makes such a one"
        )
    return names[0].value.lower()


def _shown_domain(leaf: x509.Certificate) -> str:
    try:
        return domain_of(leaf)
    except UntrustedError as error:
        raise UntrustedError(f"the other server's certificate {error}") from error


def _judge(trust: Trust, domain: str, leaf: x509.Certificate, now: datetime.datetime) -> None:
    """Raises: UntrustedError unless this certificate speaks for one of our peers."""
    if domain == trust.domain:
        raise UntrustedError(
            f"another server shows a certificate for {domain}, this server's own domain; nobody else may have it"
        )
    if domain not in trust.domains:
        raise UntrustedError(f"{domain} is not in [federation_peers]; add it there if it may exchange messages")
    authority = trust.authority(domain)
    if _vouched(leaf, authority, now):
        return
    if _vouched(leaf, authority, _common_moment(leaf, authority)):
        raise UntrustedError(_untimely(domain, leaf, authority, now), clock=True)
    raise UntrustedError(_unfit(trust, domain, leaf))


def _common_moment(leaf: x509.Certificate, authority: x509.Certificate) -> datetime.datetime:
    """Return a time at which both are valid, if there is one."""
    return max(leaf.not_valid_before_utc, authority.not_valid_before_utc)


def _vouched(leaf: x509.Certificate, authority: x509.Certificate, at: datetime.datetime) -> bool:
    """Say whether this authority itself issued this certificate, for a server, to be used at this time."""
    verifier = (
        PolicyBuilder()
        .store(Store([authority]))
        .time(at)
        .max_chain_depth(0)
        .extension_policies(
            ca_policy=ExtensionPolicy.webpki_defaults_ca(),
            ee_policy=ExtensionPolicy.webpki_defaults_ee().require_present(
                x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _both_usages
            ),
        )
        .build_client_verifier()
    )
    try:
        verifier.verify(leaf, [])
    except (VerificationError, *_UNREADABLE):
        return False
    return True


def _both_usages(_: Policy, __: x509.Certificate, usages: x509.ExtendedKeyUsage) -> None:
    if not set(usages) >= USAGES:
        raise ValueError("a server's certificate is for both ends of a connection")


def _untimely(domain: str, leaf: x509.Certificate, authority: x509.Certificate, now: datetime.datetime) -> str:
    """Return the sentence that names the clock; "" when both certificates are valid."""
    clock = f"this machine's clock says {now:%Y-%m-%d}"
    for what, one in (("certificate", leaf), ("authority's certificate", authority)):
        begin, end = one.not_valid_before_utc, one.not_valid_after_utc
        likely = plausible(int(now.timestamp() * 1000))
        if now < begin:
            todo = "this clock is wrong, or that of whoever made it" if likely else "set the clock right"
            return f"{clock}: the {what} of {domain} is not valid before {begin:%Y-%m-%d}; {todo}"
        if now > end:
            todo = "it needs a new one" if likely else "set the clock right"
            return f"{clock}: the {what} of {domain} was valid until {end:%Y-%m-%d}; {todo}"
    return ""


def _unfit(trust: Trust, domain: str, leaf: x509.Certificate) -> str:
    """Return the sentence for a certificate that is good at no time."""
    if not _has_both_usages(leaf):
        return f"the certificate of {domain} {_ONE_USAGE}"
    if domain in trust.cas:
        return (
            f"the certificate of {domain} is not from the authority that [federation_cas] names for it; ask its"
            " operator whether the authority has changed"
        )
    return (
        f"the certificate of {domain} is not from the authority in federation_ca; if it has one of its own, name it in"
        " [federation_cas]"
    )


def _has_both_usages(leaf: x509.Certificate) -> bool:
    try:
        return set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) >= USAGES
    except x509.ExtensionNotFound:
        return False


def check_authority(authority: x509.Certificate) -> None:
    """Raises: UntrustedError, a sentence to be put behind a file's name, unless this may sign servers' certificates."""
    try:
        rights = authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        usage = authority.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        rights = usage = False
    except _UNREADABLE:
        raise UntrustedError("cannot be read as an authority's certificate") from None
    if not rights or not usage:
        raise UntrustedError("is not an authority's certificate: it may sign no others; qpc-server ca init makes one")
    try:
        key: CertificatePublicKeyTypes | None = authority.public_key()
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise UntrustedError("has a key of a kind that no authority may have here; qpc-server ca init makes a good one")


def check_own(domain: str, leaf: x509.Certificate, authority: x509.Certificate, now: datetime.datetime) -> str:
    """Look at our own certificate as another server will; return what is wrong with its time, "" when nothing is.

    A clock can still be set right while the server runs, so that is no error. Raises: UntrustedError, a sentence to be
    put behind a file's name.
    """
    found = domain_of(leaf)
    if found != domain:
        raise UntrustedError(f"is a certificate for {found}, and federation_domain is {domain}")
    if not _vouched(leaf, authority, _common_moment(leaf, authority)):
        if not _has_both_usages(leaf):
            raise UntrustedError(_ONE_USAGE)
        raise UntrustedError("is not from the authority in federation_ca")
    return _untimely(domain, leaf, authority, now)
