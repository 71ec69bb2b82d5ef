"""Vectors of envelopes and direct messages."""

from __future__ import annotations

from typing import Any

from tools.vectors.base import (
    ALICE,
    BOB,
    CAROL,
    CREATED_MS,
    CRYPTO,
    IDENTITY,
    PREKEY,
    SEEDS,
    Json,
    fixed,
    forged,
    mixed,
)

from quicprochat.adapters.crypto import Ed25519Signer, X25519Private
from quicprochat.core import seal
from quicprochat.core.envelope import Header, Kind, MeshEnvelope, make
from quicprochat.core.ids import Label, PeerKey, Uid, domain

KEPT: list[bytes] = []
"""Payloads sealed before; HPKE draws its own ephemeral key, so a sealing is kept while it opens to the same bytes."""

PLAIN = Header(Kind.MESSAGE, ALICE.key, BOB.key, fixed("nonce", 16), CREATED_MS)


def described(envelope: MeshEnvelope, **more: Any) -> Json:
    e = envelope
    fields = ("suite", "kind", "flags", "src", "dst", "created_ms", "ttl_s", "max_hops", "nonce", "hop", "age_ms")
    return {
        **more, **{name: getattr(e, name) for name in fields},
        "payload": e.payload, "core": e.core, "signature": e.signature, "id": e.id, "wire": e.wire(),
    }  # fmt: skip


def signed(core: bytes, payload: bytes, signer: Ed25519Signer = ALICE) -> bytes:
    """Return an envelope whatever its core says."""
    return core + signer.sign(Label.ENVELOPE, core) + bytes(9) + payload


def altered(at: int, value: int) -> bytes:
    core = bytearray(PLAIN.core(b"payload"))
    core[at] = value
    return bytes(core)


def envelopes() -> list[Json]:
    clockless = Header(Kind.MESSAGE, ALICE.key, BOB.key, fixed("other nonce", 16), 0, 1, 64)
    unknown = MeshEnvelope.decode(signed(altered(1, 2), b"payload"))
    flagged = MeshEnvelope.decode(signed(altered(3, 1), b"payload"))
    kind = MeshEnvelope.decode(signed(altered(2, 9), b"payload"))
    later = Header(Kind.RECEIPT, ALICE.key, BOB.key, fixed("nonce", 16), flags=1)
    return [
        described(make(PLAIN, b"payload", ALICE), name="any payload"),
        described(make(clockless, b"", ALICE), name="no clock, empty payload, shortest life, most hops"),
        described(unknown, name="unknown suite: carried, not opened"),
        described(flagged, name="unknown flag: carried, not opened"),
        described(kind, name="unknown kind: carried, not opened"),
        described(
            make(later, b"no receipt of version 1", ALICE), name="receipt with an unknown flag: carried, not read"
        ),
    ]


def transit() -> Json:
    envelope = make(PLAIN, b"payload", ALICE)
    moments = ((0, 0), (1, 1_500), (32, 604_799_999), (255, 2**64 - 1))
    return {"id": envelope.id, "wires": [envelope.wire(hop=hop, age_ms=age) for hop, age in moments]}


def envelopes_refused() -> list[Json]:
    core, payload = PLAIN.core(b"payload"), b"payload"
    good = signed(core, payload)
    bad_ttl = core[:76] + (1_209_601).to_bytes(4, "big") + core[80:]
    receipt = Header(Kind.RECEIPT, ALICE.key, BOB.key, fixed("nonce", 16)).core(b"\1\1\0")
    weak = Header(Kind.MESSAGE, PeerKey(IDENTITY), BOB.key, fixed("nonce", 16)).core(payload)
    mixed_core, mixed_signature = b"", None
    for attempt in range(64):
        mixed_core = Header(Kind.MESSAGE, mixed(8), BOB.key, fixed(f"mixed {attempt}", 16)).core(payload)
        mixed_signature = forged(mixed(8), SEEDS["alice"], domain(Label.ENVELOPE) + mixed_core)
        if mixed_signature:
            break
    cases = [
        ("length", good[:206]), ("payload length", good[:-1]), ("payload length", good + b"!"),
        ("version", signed(altered(0, 2), payload)), ("reserved", signed(altered(81, 1), payload)),
        ("lifetime", signed(core[:76] + bytes(4) + core[80:], payload)), ("lifetime", signed(bad_ttl, payload)),
        ("hop limit", signed(altered(80, 0), payload)), ("hop limit", signed(altered(80, 65), payload)),
        ("payload hash", good[:-1] + b"D"), ("count", signed(receipt, b"\1\1\0")),
        ("signature", good[:134] + bytes(64) + good[198:]), ("signature", signed(core, payload, BOB)),
        ("signature", core + ALICE.sign(Label.RECORD, core) + bytes(9) + payload),
        ("signature", weak + IDENTITY + bytes(32) + bytes(9) + payload),
        ("signature", mixed_core + (mixed_signature or b"") + bytes(9) + payload),
    ]  # fmt: skip
    return [{"why": why, "wire": wire} for why, wire in cases]


# --- direct messages


def sealed(key_id: bytes, to: X25519Private, plain: bytes, info: bytes) -> bytes:
    """Return a payload: one that was sealed before if it fits, else a new one."""
    for payload in KEPT:
        if payload[:8] == key_id and CRYPTO.open(to, info, payload[8:]) == plain:
            return payload
    KEPT.append(key_id + CRYPTO.seal(to.public, info, plain))
    return KEPT[-1]


def message(name: str, *, bootstrap: bool = False, letter: seal.Letter | None = None, **change: Any) -> Json:
    """Return a message from alice to bob with something about it changed."""
    to = BOB.exchange_private() if bootstrap else PREKEY
    key_id = seal.BOOTSTRAP_ID if bootstrap else seal.prekey_id(to.public)
    header: Header = change.get("header", PLAIN)
    info = seal._info(change.get("info_header", header), key_id, to.public)
    inner = change.get("inner") or seal.encode_letter(
        letter or seal.Letter(ALICE.key, Uid(fixed("uid", 16)), "Grüße", "example.org")
    )
    author: Ed25519Signer = change.get("author", ALICE)
    isig = author.sign(change.get("label", Label.DM_INNER), seal._signed(info, inner))
    plain = change.get("pad", seal.pad)(change.get("isig", isig) + inner)
    sealed_info = seal._info(change.get("sealed_header", header), key_id, to.public)
    payload = sealed(key_id, to, plain, sealed_info)
    payload = change.get("payload", lambda p: p)(payload)
    envelope = make(header, payload, change.get("outer", ALICE))
    return {
        "name": name, "recipient": BOB.key, "key_name": key_id, "secret": to.key.private_bytes_raw(),
        "info": sealed_info, "plain": plain, "payload": payload, "id": envelope.id, "wire": envelope.wire(),
    }  # fmt: skip


def messages() -> list[Json]:
    long = seal.Letter(ALICE.key, Uid(fixed("long", 16)), "€" * 100, "")
    empty = seal.Letter(ALICE.key, Uid(fixed("empty", 16)), "", "")
    cases = [
        ("to a prekey", None, False), ("to the identity key", None, True),
        ("next size of padding", long, False), ("empty text", empty, False),
    ]  # fmt: skip
    found = []
    for name, letter, bootstrap in cases:
        made = message(name, bootstrap=bootstrap, letter=letter)
        shown = seal.decode_letter(seal.unpad(made["plain"])[64:])
        content = {"author": shown.author, "uid": shown.uid, "domain": shown.domain, "text": shown.text}
        found.append({**made, "protection": "identity-key" if bootstrap else "forward-secret", "letter": content})
    return found


def messages_unopenable() -> list[Json]:
    inner = seal.encode_letter(seal.Letter(ALICE.key, Uid(fixed("uid", 16)), "Grüße", "example.org"))
    to_carol = Header(Kind.MESSAGE, ALICE.key, CAROL.key, fixed("nonce", 16), CREATED_MS)
    from_carol = Header(Kind.MESSAGE, CAROL.key, BOB.key, fixed("nonce", 16), CREATED_MS)
    later = Header(Kind.MESSAGE, ALICE.key, BOB.key, fixed("nonce", 16), CREATED_MS + 1)
    cases = [
        message("unknown prekey", payload=lambda p: b"\xff" * 8 + p[8:]),
        message("all-zero X25519 result", payload=lambda p: p[:8] + bytes(32) + p[40:]),
        message("ciphertext altered", payload=lambda p: p[:-1] + bytes([p[-1] ^ 1])),
        message("no ciphertext", payload=lambda p: p[:8]),
        message("sealed for another moment", sealed_header=later),
        message("no padding byte", pad=lambda x: x + bytes(256 - len(x))),
        message("padded to 255 bytes", pad=lambda x: seal.pad(x)[:-1]),
        message("padded to the size after", pad=lambda x: seal.pad(x) + bytes(256)),
        message("inner version 2", inner=b"\2" + inner[1:]),
        message("inner type 3", inner=inner[:73] + b"\3" + inner[74:]),
        message("bytes after the inner", inner=inner + b"!"),
        message("text cut short", inner=inner[:-1]),
        message("text that is not UTF-8", inner=inner[:-1] + b"\xff"),
        message("inner signature of somebody else", author=BOB),
        message("inner signature under another label", label=Label.RECORD),
        message("inner signature missing", isig=bytes(64)),
        message("author is not src", header=from_carol, outer=CAROL),
        message("alice's words to carol, passed on to bob", info_header=to_carol),
    ]
    return [{name: case[name] for name in ("name", "key_name", "secret", "payload", "wire")} for case in cases]
