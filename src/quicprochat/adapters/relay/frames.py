"""What iroh's clients and a relay say to each other, as iroh 1.x speaks it: one WebSocket message is one frame.

A frame is a type byte and a body. The payloads are QUIC datagrams, encrypted between the two nodes; a relay sees who
sends to whom, when, and how much.
"""

from __future__ import annotations

from enum import IntEnum

from blake3 import blake3
from nacl import bindings
from nacl.exceptions import BadSignatureError

PROTOCOLS = ("iroh-relay-v2", "iroh-relay-v1")
"""WebSocket subprotocols, the preferred one first."""

KEY_BYTES = 32
CHALLENGE_BYTES = 16
SIGNATURE_BYTES = 64
TOKEN_BYTES = 8
FRAME_MAX_BYTES = 96 << 10
"""iroh sends at most 64 KiB of datagrams in a frame, and a few bytes of head."""

_CONTEXT = "iroh-relay handshake v1 challenge signature"
_HEAD = 1 + KEY_BYTES


class Frame(IntEnum):
    """The first byte of a message."""

    CHALLENGE = 0
    AUTH = 1
    CONFIRM = 2
    DENY = 3
    SEND = 4
    """One datagram for a key."""
    SEND_MANY = 5
    DELIVER = 6
    """One datagram from a key."""
    DELIVER_MANY = 7
    GONE = 8
    """A key that had sent something has left."""
    PING = 9
    PONG = 10
    HEALTH = 11
    """Text about the connection (v1)."""
    RESTARTING = 12
    STATUS = 13
    """A number about the connection (v2)."""


_TO_DELIVER = {Frame.SEND: bytes([Frame.DELIVER]), Frame.SEND_MANY: bytes([Frame.DELIVER_MANY])}
_ELSEWHERE = 1


def challenge(nonce: bytes) -> bytes:
    """Return the relay's first frame."""
    return bytes([Frame.CHALLENGE]) + nonce


def authenticated(frame: bytes, nonce: bytes) -> bytes | None:
    """Return the key that signed the challenge; None where the answer is anything else."""
    if len(frame) != _HEAD + 1 + SIGNATURE_BYTES or frame[0] != Frame.AUTH or frame[_HEAD] != SIGNATURE_BYTES:
        return None
    key, signature = frame[1:_HEAD], frame[_HEAD + 1 :]
    digest: bytes = blake3(nonce, derive_key_context=_CONTEXT).digest()
    try:
        bindings.crypto_sign_open(signature + digest, key)
    except BadSignatureError:
        return None
    return key


def deny(reason: str) -> bytes:
    """Return the refusal of a key; the reason's length is one byte, so at most 127 bytes of it are told."""
    text = reason.encode()[:127]
    return bytes([Frame.DENY, len(text)]) + text


def destination(frame: bytes) -> bytes:
    """Return the key that a datagram frame is for; empty where it is none."""
    return frame[1:_HEAD] if frame[0] in _TO_DELIVER and len(frame) > _HEAD else b""


def delivered(frame: bytes, sender: bytes) -> bytes:
    """Return what the recipient gets of a datagram frame."""
    return _TO_DELIVER[Frame(frame[0])] + sender + frame[_HEAD:]


def elsewhere(protocol: str) -> bytes:
    """Return the word to a connection whose key has connected again; datagrams go to the newer one now."""
    if protocol == PROTOCOLS[0]:
        return bytes([Frame.STATUS, _ELSEWHERE])
    return bytes([Frame.HEALTH]) + b"this key has connected again from elsewhere"


def restarting(reconnect_ms: int, try_for_ms: int) -> bytes:
    """Return the notice that the relay stops and may be back."""
    return bytes([Frame.RESTARTING]) + reconnect_ms.to_bytes(4, "big") + try_for_ms.to_bytes(4, "big")
