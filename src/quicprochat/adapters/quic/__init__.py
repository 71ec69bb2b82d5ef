"""QUIC between clients and servers: both ends proved, one stream, bounded windows. Over aioquic."""

from quicprochat.adapters.quic.certificates import announced, anybody, fingerprint, key_holder, pinned, self_signed
from quicprochat.adapters.quic.connection import Connection
from quicprochat.adapters.quic.endpoint import Credentials, Listener, connect, listen
from quicprochat.adapters.quic.federation import (
    FEDERATION_ALPN,
    USAGES,
    Trust,
    check_authority,
    check_own,
    distrusted,
    domain_of,
    federated,
)
from quicprochat.adapters.quic.tls import Check, UntrustedError

__all__ = [
    "FEDERATION_ALPN", "USAGES", "Check", "Connection", "Credentials", "Listener", "Trust", "UntrustedError",
    "announced", "anybody", "check_authority", "check_own", "connect", "distrusted", "domain_of", "federated",
    "fingerprint", "key_holder", "listen", "pinned", "self_signed",
]  # fmt: skip
