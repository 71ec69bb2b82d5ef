"""Exported identities, after docs/protocol.md §2.5; see ``second_implementation``."""

from __future__ import annotations

import base64
import json
import unicodedata
from typing import Any

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from tests.conformance.second_implementation import aead_open, d, hkdf_expand, hkdf_extract, need

MAGIC = b"quicprochat identity\n"


def read_export(data: bytes, passphrase: str) -> dict[str, Any]:
    need(data[:21] == MAGIC and len(data) >= 46, "no export")
    need(len(data) <= 64 * 1024 * 1024, "too large")
    header, sealed = data[:46], data[46:]
    ops, mem_kib = int.from_bytes(header[22:26], "big"), int.from_bytes(header[26:30], "big")
    need(header[21] == 1, "version")
    need(1 <= ops <= 16 and 8_192 <= mem_kib <= 524_288, "cost")
    kdf = Argon2id(salt=header[30:], length=32, iterations=ops, lanes=1, memory_cost=mem_kib)
    secret = kdf.derive(unicodedata.normalize("NFC", passphrase).encode())
    key = hkdf_expand(hkdf_extract(b"", secret), d("export"), 32)
    contents: dict[str, Any] = json.loads(aead_open(key, bytes(12), sealed, d("export") + header))
    return {
        "seed": bytes.fromhex(contents["identity"]["secret_key"]),
        "record": contents["record"],
        "prekeys": [{"secret": base64.b64decode(item), "age_ms": age} for item, age in contents["prekeys"]],
        "records": [{"data": base64.b64decode(item), "age_ms": age} for item, age in contents["records"]],
        "wall": contents["wall"],
        "channels": [read_channel(channel) for channel in contents.get("channels", [])],
    }


def read_channel(channel: dict[str, Any]) -> dict[str, Any]:
    binary = {name: base64.b64decode(channel[name]) for name in ("id", "secret")}
    plain = {name: channel[name] for name in ("kind", "epoch", "topic", "left", "seq")}
    heads = [base64.b64decode(head) for head in channel["heads"]]
    return {**binary, **plain, "heads": heads, **read_newer(channel)}


def read_newer(channel: dict[str, Any]) -> dict[str, Any]:
    return {
        **{name: base64.b64decode(channel.get(name, "")) for name in ("owner", "salt")},
        "earlier": [
            {"epoch": epoch, "secret": base64.b64decode(secret), "left_ms": left}
            for epoch, secret, left in channel.get("earlier", [])
        ],
        "charter": channel.get("charter", 0),
        "posters": [base64.b64decode(key) for key in channel.get("posters", [])],
        "said": channel.get("said", 0),
        "muted": channel.get("muted", False),
        "members": [
            {"key": base64.b64decode(key), "present": present, "said": said, "removed": removed, "epoch": epoch}
            for key, present, said, removed, epoch in channel.get("members", [])
        ],
    }
