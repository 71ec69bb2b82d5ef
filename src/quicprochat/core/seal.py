"""Sealing a direct message so that only its recipient reads it, and opening one (docs/protocol.md §4).

HPKE base mode to the recipient's signed prekey hides the text from every carrier; an Ed25519 signature *inside* the
seal proves the author to the reader. The two signatures of an envelope never stand in for each other: the outer one
lets carriers charge an origin, the inner one is what a person is told.

    info  = D("dm") | src 32 | dst 32 | prekey id 8 | prekey 32 | nonce 16 | created_ms 8 | ttl_s 4
    inner = ver 1 | author 32 | reply prekey id 8 | reply prekey 32 | type 1 | uid 16
          | domain_len 1 | domain | body_len 4 | body
    isig  = Ed25519(author, D("dm-inner") | SHA-256(D("dm-ctx") | info) | SHA-256(inner))
    payload = prekey id 8 | HPKE.Seal(prekey, info, pad(isig | inner))

Both identities and the prekey stand in ``info``, so a recipient cannot pass an author's words on as if the author had
written them to somebody else (Davis 2001), and a stolen recipient key forges nobody.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from quicprochat.core.crypto import Crypto, PrivateKey, Signer
from quicprochat.core.envelope import Header, MeshEnvelope
from quicprochat.core.errors import LocalError, WireError
from quicprochat.core.ids import SIGNATURE_BYTES, Label, PeerKey, Uid, domain, labelled_hash
from quicprochat.core.wire import Reader, utf8

TEXT_MAX_BYTES = 65_536
DOMAIN_MAX_BYTES = 255
INNER_VERSION = 1
TYPE_TEXT = 1
TYPE_KEY = 2
"""A channel's secret, from its owner (docs/protocol.md §8.6)."""
KEY_LETTER_BYTES = 68

PREKEY_ID_BYTES = 8
BOOTSTRAP_ID = bytes(PREKEY_ID_BYTES)
"""Stands for the recipient's own identity key, converted, where no prekey of theirs is known."""

PAD_FIRST_BYTES = 256
PAD_LAST_BYTES = 131_072
NO_REPLY_PREKEY = bytes(PREKEY_ID_BYTES + 32)
"""Reserved for pairwise reply prekeys: version 1 writes zeros and ignores what it reads."""

_INFO_TAIL = struct.Struct(">16sQI")


class Protection(Enum):
    """What a message was sealed to; told to both ends, never silently lowered."""

    PREKEY = "forward-secret"
    IDENTITY = "identity-key"


@dataclass(frozen=True, slots=True)
class Prekey:
    """The public half of a recipient's rotating X25519 key."""

    public: bytes

    @property
    def id(self) -> bytes:
        """The first 8 bytes of a labelled hash: says which private key opens, and nothing more."""
        return prekey_id(self.public)


def prekey_id(public: bytes) -> bytes:
    """Return the 8-byte name of a prekey."""
    return labelled_hash(Label.PREKEY_ID, public)[:PREKEY_ID_BYTES]


@dataclass(frozen=True, slots=True)
class Letter:
    """What is inside the seal: who wrote, which message this is, the author's home domain ("" for none), the text.

    A letter of another ``type`` has a ``body`` in place of the text, and is for programs.
    """

    author: PeerKey
    uid: Uid
    text: str
    domain: str = ""
    type: int = TYPE_TEXT
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Opened:
    """A letter that opened and whose author's signature holds."""

    letter: Letter
    protection: Protection


def pad(data: bytes) -> bytes:
    """Append 0x80 and zeros up to 256 * 2**k bytes, so that a carrier learns a size class and not a length."""
    size = PAD_FIRST_BYTES
    while size < len(data) + 1:
        size *= 2
    if size > PAD_LAST_BYTES:
        raise LocalError(f"{len(data)} bytes do not fit into a message", code="too_long")
    return data + b"\x80" + bytes(size - len(data) - 1)


def unpad(data: bytes) -> bytes:
    """Undo :func:`pad`, strictly: one plaintext has one padding. Raises: WireError."""
    body = data.rstrip(b"\x00")
    if len(data) > PAD_LAST_BYTES or not body.endswith(b"\x80") or len(pad(body[:-1])) != len(data):
        raise WireError("padding that this protocol does not make")
    return body[:-1]


def _info(header: Header, prekey_id: bytes, public: bytes) -> bytes:
    tail = _INFO_TAIL.pack(header.nonce, header.created_ms, header.ttl_s)
    return b"".join((domain(Label.DM), header.src, header.dst, prekey_id, public, tail))


def _signed(info: bytes, inner: bytes) -> bytes:
    context = hashlib.sha256(domain(Label.DM_CONTEXT) + info).digest()
    return context + hashlib.sha256(inner).digest()


def encode_letter(letter: Letter) -> bytes:
    """Return the inner bytes. Raises: LocalError when text or domain is too long."""
    home = utf8(letter.domain, "the home domain")
    body = utf8(letter.text, "the text") if letter.type == TYPE_TEXT else letter.body
    if len(body) > TEXT_MAX_BYTES:
        raise LocalError(
            f"the text has {len(body)} bytes; a message holds {TEXT_MAX_BYTES}: send it in parts",
            code="too_long",
        )
    if len(home) > DOMAIN_MAX_BYTES:
        raise LocalError(f"the home domain has {len(home)} bytes; {DOMAIN_MAX_BYTES} are allowed")
    return b"".join((
        bytes([INNER_VERSION]), letter.author, NO_REPLY_PREKEY, bytes([letter.type]), letter.uid,
        bytes([len(home)]), home, len(body).to_bytes(4, "big"), body,
    ))  # fmt: skip


def decode_letter(inner: bytes) -> Letter:
    """Read the inner bytes. Raises: WireError."""
    reader = Reader(inner, "a sealed message")
    if (version := reader.uint(1)) != INNER_VERSION:
        raise WireError(f"a sealed message of version {version}")
    author = PeerKey(reader.take(32))
    reader.take(len(NO_REPLY_PREKEY))
    if (kind := reader.uint(1)) not in (TYPE_TEXT, TYPE_KEY):
        raise WireError(f"a sealed message of type {kind}")
    uid = Uid(reader.take(16))
    home = reader.text(1, DOMAIN_MAX_BYTES)
    text, body = "", b""
    if kind == TYPE_TEXT:
        text = reader.text(4, TEXT_MAX_BYTES)
    else:
        body = reader.sized(4, KEY_LETTER_BYTES)
    reader.end()
    return Letter(author, uid, text, home, kind, body)


def seal(header: Header, prekey: Prekey | None, letter: Letter, crypto: Crypto, signer: Signer) -> bytes:
    """Return the payload of a direct message.

    ``prekey`` None seals to the recipient's converted identity key: readable, but without forward secrecy.
    Raises: LocalError when the letter is too long.
    """
    if prekey is None:
        key_id, public = BOOTSTRAP_ID, crypto.exchange_key(header.dst)
    else:
        key_id, public = prekey.id, prekey.public
    info = _info(header, key_id, public)
    inner = encode_letter(letter)
    signature = signer.sign(Label.DM_INNER, _signed(info, inner))
    return key_id + crypto.seal(public, info, pad(signature + inner))


def open_sealed(envelope: MeshEnvelope, keys: Mapping[bytes, PrivateKey], crypto: Crypto) -> Opened | None:
    """Open a direct message addressed to us; None when it cannot be, for whatever reason.

    ``keys`` maps prekey ids to private keys; the converted identity key stands under ``BOOTSTRAP_ID``.
    One answer for every failure, so that nobody learns which step refused.
    """
    key_id = envelope.payload[:PREKEY_ID_BYTES]
    private = keys.get(key_id)
    if private is None:
        return None
    info = _info(Header.of(envelope), key_id, private.public)
    plain = crypto.open(private, info, envelope.payload[PREKEY_ID_BYTES:])
    if plain is None:
        return None
    try:
        content = unpad(plain)
        signature, inner = content[:SIGNATURE_BYTES], content[SIGNATURE_BYTES:]
        letter = decode_letter(inner)
    except WireError:
        return None
    if letter.author != envelope.src:
        return None
    if not crypto.verify(letter.author, Label.DM_INNER, _signed(info, inner), signature):
        return None
    return Opened(letter, Protection.IDENTITY if key_id == BOOTSTRAP_ID else Protection.PREKEY)
