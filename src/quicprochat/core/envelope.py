"""MeshEnvelope: the one thing that ever travels, whoever carries it.

Layout (big-endian, fixed width; docs/protocol.md §3)::

    core 134 = ver 1 | suite 1 | kind 1 | flags 1 | src 32 | dst 32 | created_ms 8 | ttl_s 4
             | max_hops 1 | reserved 1 (0) | nonce 16 | payload_len 4 | SHA-256(payload) 32
    wire     = core | Ed25519(src, D("envelope") | core) 64 | hop 1 | age_ms 8 | payload

The id covers the core alone. Hops and age change on the way, so nothing is ever trusted because of them.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

from quicprochat.core.crypto import Signer
from quicprochat.core.errors import WireError
from quicprochat.core.ids import EnvelopeId, Label, PeerKey, labelled_hash

VERSION = 1
SUITE_X25519 = 1
"""HPKE X25519/HKDF-SHA256/ChaCha20-Poly1305. Suite 2 (MLKEM768-X25519) is reserved."""

FLAG_EMERGENCY = 0x01
"""Of a post: its author calls it an emergency; whoever reads or carries it decides whether that counts."""

CORE = struct.Struct(">BBBB32s32sQIBB16sI32s")
CORE_BYTES = 134
_BARE_BYTES, _NO_PAYLOAD = 98, bytes(36)
CREATED = slice(68, 76)
MAX_HOPS = 80
"""Where the core has them."""
TRANSIT = struct.Struct(">BQ")
TRANSIT_OFFSET = CORE_BYTES + 64
HEADER_BYTES = TRANSIT_OFFSET + TRANSIT.size

TTL_DEFAULT_S = 7 * 86_400
TTL_MAX_S = 14 * 86_400
HOPS_DEFAULT = 32
HOPS_MAX = 64
"""A message may cross this many nodes; 7 would cut off almost a third of a real city mesh's pairs."""
PAYLOAD_MAX_BYTES = 4 + 32 + 32 + 131_072 + 16
"""A channel post in the largest padding: epoch, salt, commitment, text, tag. A direct message needs 28 bytes less."""
ENVELOPE_MAX_BYTES = HEADER_BYTES + PAYLOAD_MAX_BYTES


class Kind(IntEnum):
    """What an envelope carries. Others may come; a relay forwards what it does not know if it verifies."""

    MESSAGE = 1
    RECEIPT = 2
    CHANNEL = 3


@dataclass(frozen=True)
class MeshEnvelope:
    """An envelope as it was received or made: fields for use, and the bytes they were read from.

    ``core`` and ``signature`` are kept as received; nothing is re-encoded to be checked or passed on. ``created_ms``
    is the author's wall clock or 0 for unknown; ``age_ms`` is how long it has travelled when it reached or left us.
    """

    version: int
    suite: int
    kind: int
    flags: int
    src: PeerKey
    dst: bytes
    created_ms: int
    ttl_s: int
    max_hops: int
    nonce: bytes
    core: bytes
    signature: bytes
    hop: int
    age_ms: int
    payload: bytes

    @cached_property
    def id(self) -> EnvelopeId:
        """SHA-256(D("id") | len 4 | core): the same for every copy, however far it came."""
        return EnvelopeId(labelled_hash(Label.ID, CORE_BYTES.to_bytes(4, "big"), self.core))

    @property
    def emergency(self) -> bool:
        """True for a post that its author calls an emergency; anybody can, so it proves nothing."""
        return self.kind == Kind.CHANNEL and self.flags == FLAG_EMERGENCY

    @property
    def bare_core(self) -> bytes:
        """The core as it came, with the payload's length and hash zero."""
        return self.core[:_BARE_BYTES] + _NO_PAYLOAD

    @property
    def ttl_ms(self) -> int:
        """Lifetime in milliseconds, counted by age."""
        return self.ttl_s * 1_000

    def wire(self, *, hop: int | None = None, age_ms: int | None = None) -> bytes:
        """Return the bytes to send, with the hop count and age of this moment."""
        transit = TRANSIT.pack(self.hop if hop is None else hop, self.age_ms if age_ms is None else age_ms)
        return b"".join((self.core, self.signature, transit, self.payload))

    @classmethod
    def decode(cls, data: bytes) -> MeshEnvelope:
        """Read an envelope and check all that costs no cryptography: lengths, ranges, reserved bits.

        Unknown versions, suites, kinds and flags are errors here or in the gate, never guessed at.
        Raises: WireError.
        """
        if len(data) < HEADER_BYTES:
            raise WireError(f"an envelope of {len(data)} bytes, shorter than its header of {HEADER_BYTES}")
        if len(data) > ENVELOPE_MAX_BYTES:
            raise WireError(f"an envelope of {len(data)} bytes, over the limit of {ENVELOPE_MAX_BYTES}")
        core = data[:CORE_BYTES]
        (version, suite, kind, flags, src, dst, created, ttl, max_hops, reserved, nonce, length, digest) = CORE.unpack(
            core
        )
        if version != VERSION:
            raise WireError(f"an envelope of version {version}; this node speaks version {VERSION}")
        if reserved:
            raise WireError("an envelope whose reserved byte is not zero")
        if not 0 < ttl <= TTL_MAX_S:
            raise WireError(f"an envelope with a lifetime of {ttl} s; 1 to {TTL_MAX_S} are allowed")
        if not 0 < max_hops <= HOPS_MAX:
            raise WireError(f"an envelope with a hop limit of {max_hops}; 1 to {HOPS_MAX} are allowed")
        payload = data[HEADER_BYTES:]
        if length != len(payload):
            raise WireError(f"an envelope that announces {length} bytes of payload and brings {len(payload)}")
        hop, age = TRANSIT.unpack_from(data, TRANSIT_OFFSET)
        if hashlib.sha256(payload).digest() != digest:
            raise WireError("an envelope whose payload is not the one it was signed with")
        return cls(
            version, suite, kind, flags, PeerKey(src), dst, created, ttl, max_hops, nonce,
            core, data[CORE_BYTES:TRANSIT_OFFSET], hop, age, payload,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Header:
    """The fields of an envelope that its author chooses before there is a payload."""

    kind: int
    src: PeerKey
    dst: bytes
    nonce: bytes
    created_ms: int = 0
    ttl_s: int = TTL_DEFAULT_S
    max_hops: int = HOPS_DEFAULT
    flags: int = 0

    def core(self, payload: bytes) -> bytes:
        """Return the 134-byte core."""
        return self._core(len(payload), hashlib.sha256(payload).digest())

    @property
    def bare_core(self) -> bytes:
        """The core with the payload's length and hash zero."""
        return self._core(0, bytes(32))

    def _core(self, length: int, digest: bytes) -> bytes:
        return CORE.pack(
            VERSION, SUITE_X25519, self.kind, self.flags, self.src, self.dst, self.created_ms, self.ttl_s,
            self.max_hops, 0, self.nonce, length, digest,
        )  # fmt: skip

    @classmethod
    def of(cls, envelope: MeshEnvelope) -> Header:
        """Return the header an envelope was made with."""
        e = envelope
        return cls(e.kind, e.src, e.dst, e.nonce, e.created_ms, e.ttl_s, e.max_hops, e.flags)


def make(header: Header, payload: bytes, signer: Signer) -> MeshEnvelope:
    """Sign a new envelope: hop 0, age 0."""
    core = header.core(payload)
    signature = signer.sign(Label.ENVELOPE, core)
    h = header
    return MeshEnvelope(
        VERSION, SUITE_X25519, h.kind, h.flags, h.src, h.dst, h.created_ms, h.ttl_s, h.max_hops, h.nonce,
        core, signature, 0, 0, payload,
    )  # fmt: skip
