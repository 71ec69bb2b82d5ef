"""Names of things, and the labels that keep every signature and hash of ours apart from every other.

``domain(label)`` is ``"quicprochat-mesh/1/" || label || 0x00``. Every signature or hash starts with one, no two uses
share one, and TLS (64 spaces first), X.509 (DER) and the iroh relay (a bare 32-byte digest) cannot produce it; that
is what makes one key for the mesh, for iroh and for TLS sound.
"""

from __future__ import annotations

import hashlib
from enum import Enum
from typing import NewType

PeerKey = NewType("PeerKey", bytes)
"""An Ed25519 public key, 32 bytes: the peer itself."""

EnvelopeId = NewType("EnvelopeId", bytes)
"""SHA-256 over the signed core of an envelope, 32 bytes: neither signature, hops nor age enter it."""

Uid = NewType("Uid", bytes)
"""The author's 16 random bytes for one message; survives sealing the same message again."""

ChannelId = NewType("ChannelId", bytes)
"""SHA-256 of a channel's secret, 32 bytes; the destination of its posts."""

KEY_BYTES = 32
ID_BYTES = 32
UID_BYTES = 16
SIGNATURE_BYTES = 64


class Label(Enum):
    """The registry of domain labels: one per signed or hashed format, never reused for another."""

    ID = "id"
    ENVELOPE = "envelope"
    RECORD = "record"
    PREKEY_ID = "prekey-id"
    DM = "dm"
    DM_CONTEXT = "dm-ctx"
    DM_INNER = "dm-inner"
    CHANNEL_ID = "channel-id"
    CHANNEL_TOPIC = "channel-topic"
    CHANNEL_MESSAGE = "channel-msg"
    CHANNEL_AAD = "channel-aad"
    CHANNEL_INNER = "channel-inner"
    CHANNEL_PASSPHRASE = "channel-pass"
    INVITE = "invite"
    FINGERPRINT = "fp"
    TICKET = "ticket"
    EXPORT = "export"
    RANGE = "range"
    SHORT = "short"
    ROUTE = "route"
    ROUTE_DIGEST = "route-digest"


_PREFIXES = {label: b"quicprochat-mesh/1/" + label.value.encode("ascii") + b"\x00" for label in Label}


def domain(label: Label) -> bytes:
    """Return the prefix that separates one use of a key or hash from every other."""
    return _PREFIXES[label]


def labelled_hash(label: Label, *parts: bytes) -> bytes:
    """SHA-256 over the label's prefix and the parts, which the caller must make unambiguous (fixed width or length)."""
    digest = hashlib.sha256(domain(label))
    for part in parts:
        digest.update(part)
    return digest.digest()
