"""QUIC between clients and servers: both ends proved, one stream, bounded windows. Over aioquic."""

from quicprochat.adapters.quic.certificates import announced, anybody, fingerprint, key_holder, pinned, self_signed
from quicprochat.adapters.quic.connection import Connection
from quicprochat.adapters.quic.endpoint import Credentials, Listener, connect, listen
from quicprochat.adapters.quic.tls import Check, UntrustedError

__all__ = [
    "Check", "Connection", "Credentials", "Listener", "UntrustedError", "announced", "anybody", "connect",
    "fingerprint", "key_holder", "listen", "pinned", "self_signed",
]  # fmt: skip
