"""Who is at the other end: certificates of both sides checked inside the TLS handshake (RFC 8446 §4.4).

aioquic 1.7.2 never asks a client for its certificate, and its only check of a server's certificate knows nothing of
pins. So one connection's TLS context gets this class: it asks, refuses an empty answer, and runs our check before
anything else may happen. A client's check runs before its own certificate is sent, so an impostor does not even learn
who called. What is used of aioquic has private names; ``tests/unit/test_quic_guard.py`` notices when they change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from aioquic import tls
from aioquic.quic.connection import QuicConnection
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from quicprochat.core.errors import LocalError

Check = Callable[[x509.Certificate, Sequence[x509.Certificate]], bytes]
"""Take the leaf and the rest of the chain; return who that is, or raise :class:`UntrustedError`.

TLS proves afterwards that the other end has the leaf's key: until then the answer is a claim.
"""


class UntrustedError(LocalError):
    """The other end's certificate is not the one we trust; nothing was sent to it.

    ``clock``: it would be at another time, so one of the two clocks may be wrong, and the other end is told.
    """

    def __init__(self, message: str, *, clock: bool = False) -> None:
        super().__init__(message, code="untrusted")
        self.clock = clock


class AlertAccessDenied(tls.Alert):
    """The certificate was understood and refused."""

    description = tls.AlertDescription.access_denied


class AlertCertificateExpired(tls.Alert):
    """The certificate would be good at another time; of one that is not valid yet TLS says the same."""

    description = tls.AlertDescription.certificate_expired


class AlertCertificateRequired(tls.Alert):
    """A client sent no certificate."""

    description = tls.AlertDescription.certificate_required


class PeerContext(tls.Context):
    """A TLS context that knows whom it talks to. Made by :func:`authenticate` only, never constructed."""

    # Class attributes, since an existing context changes its class.
    check: Check | None = None
    identity: bytes | None = None
    """What the check returned, once TLS has proved that the other end has that key."""
    refusal: UntrustedError | None = None

    def _server_handle_certificate(self, input_buf: object) -> None:
        super()._server_handle_certificate(input_buf)  # type: ignore[arg-type]
        if self._peer_certificate is None:
            self._set_state(tls.State.SERVER_EXPECT_CERTIFICATE)  # a Finished that follows is out of order
            raise AlertCertificateRequired("a client certificate is needed")

    def _server_handle_certificate_verify(self, input_buf: object) -> None:
        # The check first: a refusal leaves the handshake where no packet can finish it.
        identity = self._checked()
        super()._server_handle_certificate_verify(input_buf)  # type: ignore[arg-type]
        self.identity = identity

    def _client_handle_certificate_verify(self, input_buf: object) -> None:
        identity = self._checked()
        super()._client_handle_certificate_verify(input_buf)  # type: ignore[arg-type]
        self.identity = identity

    def _checked(self) -> bytes:
        if self.check is None or self._peer_certificate is None:
            raise AlertAccessDenied("nobody is trusted here")
        try:
            return self.check(self._peer_certificate, self._peer_certificate_chain)
        except UntrustedError as error:
            self.refusal = error
            if error.clock:
                raise AlertCertificateExpired("this certificate is not valid now: compare the clocks") from error
            # Else the other end learns that it was refused, not why.
            raise AlertAccessDenied("this certificate is not accepted") from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise tls.AlertUnsupportedCertificate("this certificate has a key of an unknown kind") from error


def authenticate(quic: QuicConnection, checks: Mapping[str, Check]) -> None:
    """Let this connection trust only whom the check of its ALPN accepts. Call it before the first datagram."""
    initialize = quic._initialize

    def _initialize(peer_cid: bytes) -> None:
        initialize(peer_cid)
        context = quic.tls
        context.__class__ = PeerContext
        assert isinstance(context, PeerContext)
        if quic._is_client:
            (context.check,) = checks.values()
            return
        before = context.alpn_cb

        def alpn_chosen(alpn: str) -> None:
            if before is not None:
                before(alpn)
            context.check = checks[alpn]

        context.alpn_cb = alpn_chosen
        # Read after the ALPN was chosen; asked for always, so that no path of the handshake goes without.
        context._request_client_certificate = True

    quic._initialize = _initialize  # type: ignore[method-assign]


def identity_of(quic: QuicConnection) -> bytes:
    """Return who is at the other end of a connection whose handshake is complete."""
    identity = getattr(quic.tls, "identity", None)
    if identity is None:  # not an assertion: those can be switched off
        raise UntrustedError("a handshake without a check")
    assert isinstance(identity, bytes)
    return identity


def refusal_of(quic: QuicConnection) -> UntrustedError | None:
    """Return why our check refused the other end, if it did."""
    return getattr(getattr(quic, "tls", None), "refusal", None)


def certificate_of(quic: QuicConnection) -> x509.Certificate | None:
    """Return the certificate that the other end of a connection has shown."""
    return getattr(getattr(quic, "tls", None), "_peer_certificate", None)
