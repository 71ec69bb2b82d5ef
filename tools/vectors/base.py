"""What all vectors are made from: fixed people, fixed bytes, and signatures that only a careless verifier takes."""

from __future__ import annotations

import hashlib
from typing import Any

from nacl import bindings as sodium

from quicprochat.adapters.crypto import Ed25519Signer, SodiumCrypto, X25519Private
from quicprochat.core.address import Address
from quicprochat.core.identity import fingerprint
from quicprochat.core.ids import EnvelopeId, Label, PeerKey, domain
from quicprochat.core.record import PeerRecord
from quicprochat.core.seal import Prekey

CREATED_MS = 1_790_000_000_000
ORDER = 2**252 + 27742317777372353535851937790883648493
Json = dict[str, Any]


def fixed(name: str, size: int = 32) -> bytes:
    """Stand in for randomness."""
    return hashlib.shake_256(b"quicprochat test vector/" + name.encode()).digest(size)


def no_entropy(count: int) -> bytes:
    raise AssertionError("vectors take no entropy")


CRYPTO = SodiumCrypto(no_entropy)
SEEDS = {name: fixed(f"seed/{name}") for name in ("alice", "bob", "carol")}
ALICE, BOB, CAROL = (Ed25519Signer(seed) for seed in SEEDS.values())
PREKEY = X25519Private(fixed("prekey"))
IDS = tuple(EnvelopeId(fixed(f"id {n}")) for n in range(64))
RECORD = PeerRecord(
    BOB.key, 3, 7, CREATED_MS, 1_209_600, 5, "Bob", "example.org", "https://relay.example.org",
    (Prekey(PREKEY.public), Prekey(X25519Private(fixed("older prekey")).public)),
    (Address("192.0.2.1", 7000), Address("2001:db8::1", 65535)),
)  # fmt: skip


def keys() -> list[Json]:
    return [
        {
            "name": name,
            "seed": seed,
            "key": Ed25519Signer(seed).key,
            "exchange_key": CRYPTO.exchange_key(Ed25519Signer(seed).key),
            "fingerprint": fingerprint(Ed25519Signer(seed).key),
        }
        for name, seed in SEEDS.items()
    ]


# --- keys that must be refused

TORSION = {
    2: bytes.fromhex("ec" + "ff" * 30 + "7f"),
    4: bytes(32),
    8: bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
}
IDENTITY = b"\1" + bytes(31)
SMALL = {
    "identity": "01" + "00" * 31, "order 2": "ec" + "ff" * 30 + "7f",
    "order 4": "00" * 32, "order 4, negative": "00" * 31 + "80",
    "order 8, a": "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "order 8, b": "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "order 8, c": "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "order 8, d": "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "identity, sign bit set": "01" + "00" * 30 + "80", "order 2, sign bit set": "ec" + "ff" * 31,
    "identity as p + 1": "ee" + "ff" * 30 + "7f", "identity as p + 1, sign bit set": "ee" + "ff" * 31,
    "order 4 as p": "ed" + "ff" * 30 + "7f", "order 4 as p, sign bit set": "ed" + "ff" * 31,
}  # fmt: skip


def forged(key: bytes, seed: bytes, message: bytes) -> bytes | None:
    """Return a signature that libsodium accepts under ``seed``'s key plus a small-order point, if the hash allows."""
    half = bytearray(hashlib.sha512(seed).digest()[:32])
    half[0] &= 248
    half[31] = half[31] & 127 | 64
    secret = int.from_bytes(half, "little")
    for attempt in range(256):
        nonce = int.from_bytes(fixed(f"nonce/{attempt}", 64), "little") % ORDER
        point = sodium.crypto_scalarmult_ed25519_base_noclamp(nonce.to_bytes(32, "little"))
        challenge = int.from_bytes(hashlib.sha512(point + key + message).digest(), "little") % ORDER
        if challenge % 8 == 0:
            return point + ((nonce + challenge * secret) % ORDER).to_bytes(32, "little")
    return None


def mixed(order: int) -> PeerKey:
    return PeerKey(sodium.crypto_core_ed25519_add(ALICE.key, TORSION[order]))


def improper_keys() -> list[Json]:
    message = domain(Label.ENVELOPE) + b"any message"
    cases: list[Json] = [{"why": why, "key": key, "signature": IDENTITY + bytes(32)} for why, key in SMALL.items()]
    cases += [
        {"why": f"mixed order: alice's plus a point of order {n}", "key": mixed(n),
         "signature": forged(mixed(n), SEEDS["alice"], message)}
        for n in TORSION
    ]  # fmt: skip
    prime = 2**255 - 19
    cases += [
        {"why": f"not canonical: y = p + {y}", "key": (prime + y).to_bytes(32, "little"),
         "signature": ALICE.sign(Label.ENVELOPE, b"any message")}
        for y in (3, 4, 9)
    ]  # fmt: skip
    cases.append({"why": "not on the curve", "key": b"\2" + bytes(31), "signature": bytes(64)})
    for case in cases:
        case["message"] = message
    return cases


def signatures_refused() -> list[Json]:
    message = b"a message"
    good = ALICE.sign(Label.RECORD, message)
    scalar = int.from_bytes(good[32:], "little") + ORDER
    cases = [
        ("S + L", "record", message, good[:32] + scalar.to_bytes(32, "little")),
        ("other label", "envelope", message, good),
        ("other message", "record", message + b"!", good),
        ("one byte short", "record", message, good[:-1]),
        ("label before the message only", "record", b"", good),
    ]
    return [{"why": w, "key": ALICE.key, "label": x, "message": m, "signature": s} for w, x, m, s in cases]
