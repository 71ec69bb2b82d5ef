"""Peer records: what a peer says of itself, signed, newest wins.

    body   = ver 1 | key 32 | epoch 8 | seq 8 | created_ms 8 | lifetime_s 4 | features 4
           | name_len 1 | name | domain_len 1 | domain | relay_len 1 | relay
           | count 1 | count * prekey 32 | count 1 | count * address (family 1 | ip 4 or 16 | port 2)
    record = body | Ed25519(key, D("record") | body)

``epoch`` and ``seq`` are persisted counters of the owner, not times; a higher pair replaces a lower one. Where a
record travels, its age travels beside it, so that nodes without a clock let it expire too.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quicprochat.core.address import Address, decode_addresses, encode_addresses
from quicprochat.core.crypto import Crypto, Signer
from quicprochat.core.errors import LocalError, WireError
from quicprochat.core.ids import SIGNATURE_BYTES, Label, PeerKey
from quicprochat.core.seal import DOMAIN_MAX_BYTES, Prekey
from quicprochat.core.wire import Reader, utf8

if TYPE_CHECKING:
    from quicprochat.core.store import StoredRecord  # which needs this module, by way of receipts

RECORD_VERSION = 1
RECORD_MAX_BYTES = 2_048
RECORD_LIFETIME_S = 14 * 86_400
NAME_MAX_BYTES = 64
RELAY_MAX_BYTES = 255
PREKEYS_MAX = 4
ADDRESSES_MAX = 16

_HEAD = struct.Struct(">B32sQQQII")


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """A peer's signed card. ``signed`` are the bytes it was read from or made as; they are passed on unchanged."""

    key: PeerKey
    epoch: int
    seq: int
    created_ms: int = 0
    lifetime_s: int = RECORD_LIFETIME_S
    features: int = 0
    name: str = ""
    domain: str = ""
    relay: str = ""
    prekeys: tuple[Prekey, ...] = ()
    addresses: tuple[Address, ...] = ()
    signed: bytes = field(default=b"", repr=False)

    @property
    def version(self) -> tuple[int, int]:
        """What orders records of one peer."""
        return (self.epoch, self.seq)

    def body(self) -> bytes:
        """Return the bytes that are signed. Raises: LocalError when a field is too long."""
        head = _HEAD.pack(
            RECORD_VERSION, self.key, self.epoch, self.seq, self.created_ms, self.lifetime_s, self.features
        )
        texts = (
            _short(self.name, NAME_MAX_BYTES, "the name"),
            _short(self.domain, DOMAIN_MAX_BYTES, "the home domain"),
            _short(self.relay, RELAY_MAX_BYTES, "the relay address"),
        )
        prekeys = self.prekeys[:PREKEYS_MAX]
        keys = bytes([len(prekeys)]) + b"".join(prekey.public for prekey in prekeys)
        return head + b"".join(texts) + keys + encode_addresses(self.addresses, ADDRESSES_MAX)


def _short(text: str, limit: int, what: str) -> bytes:
    raw = utf8(text, what)
    if len(raw) > limit:
        raise LocalError(f"{what} has {len(raw)} bytes; {limit} are allowed", code="too_long")
    return bytes([len(raw)]) + raw


def sign_record(record: PeerRecord, signer: Signer) -> bytes:
    """Return the record's bytes, signed by its owner. Raises: LocalError when a field is too long."""
    body = record.body()
    return body + signer.sign(Label.RECORD, body)


def open_record(data: bytes, crypto: Crypto) -> PeerRecord:
    """Read a record and check its owner's signature. Raises: WireError."""
    record = _parse(data)
    body, signature = data[:-SIGNATURE_BYTES], data[-SIGNATURE_BYTES:]
    if not crypto.verify(record.key, Label.RECORD, body, signature):
        raise WireError("a peer record that its owner did not sign")
    if not crypto.valid_key(record.key):
        raise WireError("a peer record of a key that is not a proper one")
    return record


def reread_verified(stored: StoredRecord) -> PeerRecord:
    """Read a record of our own store again, without asking for its signature a second time. Raises: WireError.

    For rows of the store and nothing else: :func:`open_record` let each in, and a damaged row is never returned. Bytes
    from a link, a file or a server prove nothing before they were verified.
    """
    return _parse(stored.data)


def _parse(data: bytes) -> PeerRecord:
    if not SIGNATURE_BYTES < len(data) <= RECORD_MAX_BYTES:
        raise WireError(f"a peer record of {len(data)} bytes")
    reader = Reader(data[:-SIGNATURE_BYTES], "a peer record")
    version, key, epoch, seq, created, lifetime, features = _HEAD.unpack(reader.take(_HEAD.size))
    if version != RECORD_VERSION:
        raise WireError(f"a peer record of version {version}")
    if not 0 < lifetime <= RECORD_LIFETIME_S:
        raise WireError(f"a peer record that wants to live {lifetime} s; {RECORD_LIFETIME_S} are allowed")
    name = reader.text(1, NAME_MAX_BYTES)
    home = reader.text(1, DOMAIN_MAX_BYTES)
    relay = reader.text(1, RELAY_MAX_BYTES)
    count = reader.uint(1)
    if count > PREKEYS_MAX:
        raise WireError(f"a peer record with {count} prekeys; {PREKEYS_MAX} are allowed")
    prekeys = tuple(Prekey(reader.take(32)) for _ in range(count))
    addresses = decode_addresses(reader, ADDRESSES_MAX)
    reader.end()
    return PeerRecord(
        PeerKey(key), epoch, seq, created, lifetime, features, name, home, relay, prekeys, addresses, data
    )
