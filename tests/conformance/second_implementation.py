"""A second implementation of docs/protocol.md, written from that page alone and importing nothing of the product.

Where the product uses PyNaCl this uses ``cryptography`` (Ed25519), and the reverse (X25519, ChaCha20-Poly1305); HPKE
and HKDF are written out. It is small and slow, and exists to show that the page says enough. Whatever it does not like
raises :class:`Refused`; plain dictionaries stand for the formats.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from nacl import bindings as sodium
from nacl.exceptions import CryptoError
from nacl.exceptions import RuntimeError as SodiumError


class Refused(Exception):
    """What the page says must be refused; the text names the step."""


def need(fine: bool, why: str) -> None:
    if not fine:
        raise Refused(why)


class Cursor:
    """Reads from the front."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, count: int) -> bytes:
        need(len(self.data) >= count, "cut short")
        piece, self.data = self.data[:count], self.data[count:]
        return piece

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def text(self, width: int, limit: int) -> str:
        size = self.number(width)
        need(size <= limit, "field too long")
        try:
            return self.take(size).decode("utf-8")
        except UnicodeDecodeError:
            raise Refused("not UTF-8") from None

    def end(self) -> None:
        need(not self.data, "trailing bytes")


def u(width: int, value: int) -> bytes:
    return value.to_bytes(width, "big")


def sized(width: int, text: str | bytes) -> bytes:
    raw = text.encode("utf-8") if isinstance(text, str) else text
    return u(width, len(raw)) + raw


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


# --- §2 names and keys


def d(label: str) -> bytes:
    return b"quicprochat-mesh/1/" + label.encode() + b"\0"


P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
CURVE_D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]


def decompress(key: bytes) -> Point | None:
    y, sign = int.from_bytes(key, "little") % 2**255, key[31] >> 7
    if y >= P:
        return None
    square = (y * y - 1) * pow(CURVE_D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if x * x % P != square or (x == 0 and sign):
        return None
    return (P - x if x % 2 != sign else x), y


def add(a: tuple[int, int, int], b: tuple[int, int, int]) -> tuple[int, int, int]:
    # RFC 8032 §5.1.4 in projective coordinates, without the shortcuts.
    zz = a[2] * b[2] % P
    zz2, xx, yy = zz * zz, a[0] * b[0], a[1] * b[1]
    e = CURVE_D * xx * yy % P
    cross = (a[0] + a[1]) * (b[0] + b[1]) - xx - yy
    return zz * (zz2 - e) * cross % P, zz * (zz2 + e) * (yy + xx) % P, (zz2 - e) * (zz2 + e) % P


@lru_cache(maxsize=1_000)
def proper(key: bytes) -> bool:
    """§2.2: canonical, on the curve, of prime order."""
    point = decompress(key) if len(key) == 32 else None
    if point is None or point == (0, 1):
        return False
    base, total = (*point, 1), (0, 1, 1)
    for bit in bin(L)[2:]:
        total = add(total, total)
        if bit == "1":
            total = add(total, base)
    return total[0] == 0 and total[1] == total[2]


def public(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def sign(seed: bytes, label: str, message: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).sign(d(label) + message)


def verify(key: bytes, label: str, message: bytes, signature: bytes) -> bool:
    if len(signature) != 64 or not proper(key):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, d(label) + message)
    except InvalidSignature:
        return False
    return True


def exchange_public(key: bytes) -> bytes:
    need(proper(key), "improper key")
    y = int.from_bytes(key, "little") % 2**255
    return ((1 + y) * pow(1 - y, -1, P) % P).to_bytes(32, "little")


def exchange_secret(seed: bytes) -> bytes:
    half = bytearray(hashlib.sha512(seed).digest()[:32])
    half[0] &= 248
    half[31] = half[31] & 127 | 64
    return bytes(half)


def fingerprint(key: bytes) -> str:
    digest = sha256(d("fp"), key)
    return " ".join(f"{int.from_bytes(digest[5 * n : 5 * n + 5], 'big') % 100_000:05}" for n in range(6))


def pair_fingerprint(one: bytes, other: bytes) -> str:
    return " ".join(fingerprint(key) for key in sorted((one, other)))


def write_addresses(addresses: list[str]) -> bytes:
    packed = []
    for text in addresses:
        host, port = text.rsplit(":", 1)
        ip = ipaddress.ip_address(host.strip("[]"))
        packed.append(u(1, ip.version) + ip.packed + u(2, int(port)))
    return u(1, len(packed)) + b"".join(packed)


def read_addresses(cursor: Cursor) -> list[str]:
    count, found = cursor.number(1), []
    need(count <= 16, "too many addresses")
    for _ in range(count):
        family = cursor.number(1)
        need(family in (4, 6), "unknown address family")
        ip = ipaddress.ip_address(cursor.take(4 if family == 4 else 16))
        port = cursor.number(2)
        need(port > 0, "port 0")
        found.append(f"[{ip}]:{port}" if family == 6 else f"{ip}:{port}")
    return found


def write_ticket(key: bytes, relay: str, addresses: list[str]) -> str:
    body = key + sized(1, relay) + write_addresses(addresses)
    return "qpc1" + base64.b32encode(body + sha256(d("ticket"), body)[:4]).decode().rstrip("=").lower()


def read_ticket(text: str) -> dict[str, Any]:
    need(text.isascii() and text.lower().startswith("qpc1") and len(text) <= 1_000, "not a ticket")
    code = text[4:].upper()
    try:
        data = base64.b32decode(code + "=" * (-len(code) % 8))
    except ValueError:
        raise Refused("not base32") from None
    need(sha256(d("ticket"), data[:-4])[:4] == data[-4:], "checksum")
    cursor = Cursor(data[:-4])
    ticket: dict[str, Any] = {"key": cursor.take(32), "relay": cursor.text(1, 255), "addresses": read_addresses(cursor)}
    cursor.end()
    need(write_ticket(**ticket) == "qpc1" + code.lower(), "another spelling")
    return ticket


# --- §3 envelope


def core(fields: dict[str, Any], payload: bytes | None) -> bytes:
    f = fields
    tail = bytes(36) if payload is None else u(4, len(payload)) + sha256(payload)
    return b"".join((
        bytes([1, 1, f["kind"], f["flags"]]), f["src"], f["dst"], u(8, f["created_ms"]), u(4, f["ttl_s"]),
        bytes([f["max_hops"], 0]), f["nonce"], tail,
    ))  # fmt: skip


def write_envelope(seed: bytes, fields: dict[str, Any], payload: bytes) -> bytes:
    inside = core(fields, payload)
    return inside + sign(seed, "envelope", inside) + bytes(9) + payload


def read_envelope(data: bytes) -> dict[str, Any]:
    """§3.4, steps 1 to 7 and 9."""
    need(207 <= len(data) <= 131_363, "length")
    c = Cursor(data)
    e: dict[str, Any] = {name: c.number(1) for name in ("version", "suite", "kind", "flags")}
    e |= {"src": c.take(32), "dst": c.take(32), "created_ms": c.number(8), "ttl_s": c.number(4)}
    e |= {"max_hops": c.number(1), "reserved": c.number(1), "nonce": c.take(16)}
    size, digest = c.number(4), c.take(32)
    e |= {"core": data[:134], "signature": c.take(64), "hop": c.number(1), "age_ms": c.number(8), "payload": c.data}
    need(e["version"] == 1, "version")
    need(e["reserved"] == 0, "reserved")
    need(1 <= e["ttl_s"] <= 1_209_600, "lifetime")
    need(1 <= e["max_hops"] <= 64, "hop limit")
    need(size == len(e["payload"]), "payload length")
    need(digest == sha256(e["payload"]), "payload hash")
    e["emergency"] = e["kind"] == 3 and e["flags"] == 1
    e["understood"] = e["suite"] == 1 and (e["flags"] == 0 or e["emergency"])
    e["receipt"] = read_receipt(e["payload"]) if e["kind"] == 2 and e["understood"] else None
    need(verify(e["src"], "envelope", e["core"], e["signature"]), "signature")
    if e["receipt"] and e["receipt"]["record"]:
        need(read_record(e["receipt"]["record"])["key"] == e["src"], "somebody else's record")
    e["id"] = sha256(d("id"), u(4, 134), e["core"])
    return e


# --- §4 direct messages, and HPKE (RFC 9180) beneath them


def hkdf_extract(salt: bytes, ikm: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), ikm, "sha256")


def hkdf_expand(prk: bytes, info: bytes, length: int) -> bytes:
    out, block, counter = b"", b"", 1
    while len(out) < length:
        block = hmac.digest(prk, block + info + bytes([counter]), "sha256")
        out, counter = out + block, counter + 1
    return out[:length]


def aead_seal(key: bytes, nonce: bytes, plain: bytes, aad: bytes) -> bytes:
    return sodium.crypto_aead_chacha20poly1305_ietf_encrypt(plain, aad, nonce, key)


def aead_open(key: bytes, nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
    need(len(sealed) >= 16, "shorter than a tag")
    try:
        return sodium.crypto_aead_chacha20poly1305_ietf_decrypt(sealed, aad, nonce, key)
    except CryptoError:
        raise Refused("tag") from None


KEM_SUITE = b"KEM" + u(2, 0x0020)
HPKE_SUITE = b"HPKE" + u(2, 0x0020) + u(2, 0x0001) + u(2, 0x0003)


def labeled_extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return hkdf_extract(salt, b"HPKE-v1" + suite + label + ikm)


def labeled_expand(suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    return hkdf_expand(prk, u(2, length) + b"HPKE-v1" + suite + label + info, length)


def hpke_keys(secret: bytes, peer: bytes, enc: bytes, recipient: bytes, info: bytes) -> tuple[bytes, bytes]:
    try:
        shared = sodium.crypto_scalarmult(secret, peer)
    except SodiumError:
        raise Refused("all-zero result") from None
    prk = labeled_extract(KEM_SUITE, b"", b"eae_prk", shared)
    shared = labeled_expand(KEM_SUITE, prk, b"shared_secret", enc + recipient, 32)
    context = b"\0" + labeled_extract(HPKE_SUITE, b"", b"psk_id_hash", b"")
    context += labeled_extract(HPKE_SUITE, b"", b"info_hash", info)
    prk = labeled_extract(HPKE_SUITE, shared, b"secret", b"")
    key = labeled_expand(HPKE_SUITE, prk, b"key", context, 32)
    return key, labeled_expand(HPKE_SUITE, prk, b"base_nonce", context, 12)


def hpke_seal(recipient: bytes, ephemeral: bytes, info: bytes, plain: bytes, aad: bytes = b"") -> bytes:
    enc = sodium.crypto_scalarmult_base(ephemeral)
    key, nonce = hpke_keys(ephemeral, recipient, enc, recipient, info)
    return enc + aead_seal(key, nonce, plain, aad)


def hpke_open(secret: bytes, info: bytes, sealed: bytes, aad: bytes = b"") -> bytes:
    need(len(sealed) >= 48, "cut short")
    enc, recipient = sealed[:32], sodium.crypto_scalarmult_base(secret)
    key, nonce = hpke_keys(secret, enc, enc, recipient, info)
    return aead_open(key, nonce, sealed[32:], aad)


def pad(data: bytes) -> bytes:
    size = 256
    while size <= len(data):
        size *= 2
    return data + b"\x80" + bytes(size - len(data) - 1)


def unpad(data: bytes) -> bytes:
    at = data.rfind(b"\x80")
    need(at >= 0 and len(data) <= 131_072 and pad(data[:at]) == data, "padding")
    return data[:at]


def prekey_name(prekey: bytes) -> bytes:
    return sha256(d("prekey-id"), prekey)[:8]


def dm_info(e: dict[str, Any], name: bytes, prekey: bytes) -> bytes:
    tail = e["nonce"] + u(8, e["created_ms"]) + u(4, e["ttl_s"])
    return d("dm") + e["src"] + e["dst"] + name + prekey + tail


def dm_signed(info: bytes, inner: bytes) -> bytes:
    return sha256(d("dm-ctx"), info) + sha256(inner)


def write_letter(author: bytes, uid: bytes, home: str, text: str) -> bytes:
    return b"\1" + author + bytes(40) + b"\1" + uid + sized(1, home) + sized(4, text)


def seal_dm(
    seed: bytes, fields: dict[str, Any], prekey: bytes | None, ephemeral: bytes, uid: bytes, home: str, text: str
) -> bytes:
    name = bytes(8) if prekey is None else prekey_name(prekey)
    to = exchange_public(fields["dst"]) if prekey is None else prekey
    info, inner = dm_info(fields, name, to), write_letter(public(seed), uid, home, text)
    isig = sign(seed, "dm-inner", dm_signed(info, inner))
    return name + hpke_seal(to, ephemeral, info, pad(isig + inner))


def open_dm(e: dict[str, Any], secrets: dict[bytes, bytes]) -> dict[str, Any]:
    """§4.4; ``secrets`` maps prekey names to private keys."""
    name, sealed = e["payload"][:8], e["payload"][8:]
    need(name in secrets, "unknown prekey")
    info = dm_info(e, name, sodium.crypto_scalarmult_base(secrets[name]))
    content = unpad(hpke_open(secrets[name], info, sealed))
    isig, inner = content[:64], content[64:]
    c = Cursor(inner)
    need(c.number(1) == 1, "inner version")
    author = c.take(32)
    c.take(40)
    need(c.number(1) == 1, "type")
    letter = {"author": author, "uid": c.take(16), "domain": c.text(1, 255), "text": c.text(4, 65_536)}
    c.end()
    need(author == e["src"], "author is not src")
    need(verify(author, "dm-inner", dm_signed(info, inner), isig), "inner signature")
    return letter


# --- §5 receipts, §7 records


def write_receipt(status: int, ids: list[bytes], record: bytes) -> bytes:
    return bytes([1, status, len(ids)]) + b"".join(ids) + sized(2, record)


def read_receipt(payload: bytes) -> dict[str, Any]:
    c = Cursor(payload)
    need(c.number(1) == 1, "receipt version")
    status, count = c.number(1), c.number(1)
    need(1 <= status <= 4, "status")
    need(1 <= count <= 64, "count")
    ids, size = [c.take(32) for _ in range(count)], c.number(2)
    need(size <= 2_048, "record too long")
    receipt = {"status": status, "ids": ids, "record": c.take(size)}
    c.end()
    return receipt


def write_record(seed: bytes, r: dict[str, Any]) -> bytes:
    body = b"".join((
        b"\1", public(seed), u(8, r["epoch"]), u(8, r["seq"]), u(8, r["created_ms"]), u(4, r["lifetime_s"]),
        u(4, r["features"]), sized(1, r["name"]), sized(1, r["domain"]), sized(1, r["relay"]),
        u(1, len(r["prekeys"])), *r["prekeys"], write_addresses(r["addresses"]),
    ))  # fmt: skip
    return body + sign(seed, "record", body)


def read_record(data: bytes) -> dict[str, Any]:
    need(64 < len(data) <= 2_048, "record length")
    body, signature = data[:-64], data[-64:]
    c = Cursor(body)
    need(c.number(1) == 1, "record version")
    r: dict[str, Any] = {"key": c.take(32), "epoch": c.number(8), "seq": c.number(8), "created_ms": c.number(8)}
    r |= {"lifetime_s": c.number(4), "features": c.number(4)}
    need(1 <= r["lifetime_s"] <= 1_209_600, "record lifetime")
    r |= {"name": c.text(1, 64), "domain": c.text(1, 255), "relay": c.text(1, 255)}
    count = c.number(1)
    need(count <= 4, "prekeys")
    r |= {"prekeys": [c.take(32) for _ in range(count)], "addresses": read_addresses(c)}
    c.end()
    need(verify(r["key"], "record", body, signature), "record signature")
    return r
