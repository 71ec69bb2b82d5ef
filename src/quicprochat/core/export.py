"""An identity in one file that only a passphrase opens: for a backup, and for moving to another machine.

    header = magic 21 | version 1 | ops 4 | mem_kib 4 | salt 16
    key    = HKDF-SHA256(Argon2id(passphrase, salt, ops, mem_kib, 32 bytes), info = D("export"), 32 bytes)
    file   = header | ChaCha20-Poly1305(key, contents, aad = D("export") | header)

The salt is fresh for every file, so a key is used once. The header is authenticated with the contents, so every
altered byte is noticed. Messages are not in it.
"""

from __future__ import annotations

import json
import struct
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from quicprochat.core.crypto import Crypto, Entropy
from quicprochat.core.errors import LocalError
from quicprochat.core.export_channels import (
    AGE_MAX_MS,
    COUNTER_MAX,
    from_text,
    membership_document,
    memberships,
    number,
    to_text,
)
from quicprochat.core.export_channels import CHANNELS_MAX as CHANNELS_MAX
from quicprochat.core.export_channels import Membership as Membership
from quicprochat.core.identity import MeshIdentity, parse_identity
from quicprochat.core.ids import Label, domain
from quicprochat.core.wire import utf8

MAGIC = b"quicprochat identity\n"
VERSION = 1
SALT_BYTES = 16
EXPORT_MAX_BYTES = 64 << 20
"""Ten thousand contacts with their records need half of it."""
PASSPHRASE_MIN_CHARS = 8
PASSPHRASE_MAX_BYTES = 1_024
PREKEYS_MAX = 256

_HEAD = struct.Struct(f">{len(MAGIC)}sBII{SALT_BYTES}s")
_DAMAGED = "the passphrase is wrong, or the file was damaged or changed; nothing was imported"

Stretch = Callable[[bytes, bytes, "Cost"], bytes]
"""Argon2id: passphrase, salt and cost to 32 bytes."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one guess of a passphrase costs: passes over so much memory."""

    ops: int
    mem_kib: int


COST = Cost(3, 128 << 10)
"""A third of a second on a laptop, and memory that a small router still has; RFC 9106 §4 asks for 64 MiB at least."""
COST_MIN, COST_MAX = Cost(1, 8 << 10), Cost(16, 512 << 10)
"""What a file may ask of us: it is read before anybody knows who wrote it."""


@dataclass(frozen=True, slots=True)
class Aged:
    """A private prekey or a contact's record, and how old it was when the file was made."""

    data: bytes
    age_ms: int


@dataclass(frozen=True, slots=True)
class Contents:
    """What moves. ``version`` is the last number of our own record; ``wall`` when the file was made, 0 if unknown."""

    identity: MeshIdentity
    version: tuple[int, int]
    prekeys: tuple[Aged, ...]
    records: tuple[Aged, ...]
    wall: int = 0
    channels: tuple[Membership, ...] = ()


def passphrase_bytes(text: str) -> bytes:
    """Return a passphrase as it is stretched: the same on every keyboard. Raises: LocalError when it is none."""
    data = utf8(unicodedata.normalize("NFC", text), "the passphrase")
    if not data or len(data) > PASSPHRASE_MAX_BYTES:
        raise LocalError(f"a passphrase has 1 to {PASSPHRASE_MAX_BYTES} bytes; this one has {len(data)}")
    return data


def check_new_passphrase(text: str) -> None:
    """Refuse a passphrase that is guessed in a moment. Raises: LocalError."""
    if len(text) < PASSPHRASE_MIN_CHARS:
        raise LocalError(
            f"a passphrase for a file that is your identity has {PASSPHRASE_MIN_CHARS} characters or more; five "
            "random words are better"
        )


def seal_export(
    contents: Contents, passphrase: bytes, stretch: Stretch, crypto: Crypto, entropy: Entropy, cost: Cost = COST
) -> bytes:
    """Return the file's bytes."""
    salt = entropy(SALT_BYTES)
    header = _HEAD.pack(MAGIC, VERSION, cost.ops, cost.mem_kib, salt)
    key = _key(passphrase, salt, cost, stretch, crypto)
    return header + crypto.aead_seal(key, _encode(contents), domain(Label.EXPORT) + header)


def open_export(data: bytes, passphrase: bytes, stretch: Stretch, crypto: Crypto) -> Contents:
    """Read a file's bytes. Raises: LocalError, one sentence that says what is wrong; UnavailableError for memory."""
    header = data[: _HEAD.size]
    if not data.startswith(MAGIC) or len(header) < _HEAD.size:
        raise LocalError("this file is no exported identity")
    if len(data) > EXPORT_MAX_BYTES:
        raise LocalError(f"this file is larger than the {EXPORT_MAX_BYTES} bytes that an exported identity can need")
    _, version, ops, mem_kib, salt = _HEAD.unpack(header)
    if version != VERSION:
        raise LocalError(
            f"this file has version {version}, and this program reads version {VERSION}: use the program that made it, "
            "or a newer one"
        )
    if not COST_MIN.ops <= ops <= COST_MAX.ops or not COST_MIN.mem_kib <= mem_kib <= COST_MAX.mem_kib:
        raise LocalError(
            f"this file asks for {ops} passes over {mem_kib} KiB of memory, which no file of ours does; it was changed"
        )
    key = _key(passphrase, salt, Cost(ops, mem_kib), stretch, crypto)
    plain = crypto.aead_open(key, data[_HEAD.size :], domain(Label.EXPORT) + header)
    if plain is None:
        raise LocalError(_DAMAGED, code="untrusted")
    return _decode(plain, crypto)


def _key(passphrase: bytes, salt: bytes, cost: Cost, stretch: Stretch, crypto: Crypto) -> bytes:
    return crypto.hkdf(stretch(passphrase, salt, cost), b"", domain(Label.EXPORT), 32)


def _encode(contents: Contents) -> bytes:
    document: dict[str, Any] = {
        "identity": json.loads(contents.identity.to_json()),
        "record": list(contents.version),
        "prekeys": _listed(contents.prekeys),
        "records": _listed(contents.records),
        "wall": contents.wall,
    }
    if contents.channels:
        document["channels"] = [membership_document(membership) for membership in contents.channels]
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def _listed(items: Iterable[Aged]) -> list[Any]:
    return [[to_text(item.data), item.age_ms] for item in items]


def _decode(plain: bytes, crypto: Crypto) -> Contents:
    """Read what the passphrase opened; keys of later versions that mean nothing here are passed over."""
    try:
        document = json.loads(plain)
        seed, key, name, contacts = parse_identity(json.dumps(document["identity"]).encode("utf-8"))
        epoch, seq = document["record"]
        prekeys, records = _aged(document["prekeys"]), _aged(document["records"])
        if len(prekeys) > PREKEYS_MAX or any(len(prekey.data) != 32 for prekey in prekeys):
            raise ValueError("its prekeys are none")
        version = (number(epoch, COUNTER_MAX), number(seq, COUNTER_MAX))
        wall = number(document["wall"], AGE_MAX_MS)
        channels = memberships(document.get("channels", []), crypto)
    except (KeyError, TypeError, ValueError, RecursionError, LocalError) as error:
        raise LocalError(f"this file was made by a program that does not make such files rightly ({error})") from None
    return Contents(MeshIdentity(seed, key, name, contacts), version, prekeys, records, wall, channels)


def _aged(items: Any) -> tuple[Aged, ...]:
    return tuple(Aged(from_text(data), number(age, AGE_MAX_MS)) for data, age in items)
