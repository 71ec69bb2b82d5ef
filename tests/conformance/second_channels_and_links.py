"""The second implementation's other half: channels and link frames (docs/protocol.md §8 and §9)."""

from __future__ import annotations

import hmac
import unicodedata
from typing import Any

from tests.conformance.second_implementation import (
    Cursor,
    Refused,
    aead_open,
    aead_seal,
    core,
    d,
    hkdf_expand,
    hkdf_extract,
    need,
    pad,
    sha256,
    sized,
    u,
    unpad,
)

# --- §8 channels


def check_topic(topic: str) -> bytes:
    normal = unicodedata.normalize("NFC", topic)
    need("*" not in normal and ">" not in normal, "wildcard")
    need(normal.isprintable() and " " not in normal and normal[:1] not in ("", "#", "/", "-", "@"), "topic")
    need(len(normal.encode()) <= 64, "topic too long")
    return normal.encode()


def open_secret(topic: str) -> bytes:
    return hkdf_expand(hkdf_extract(b"", sha256(check_topic(topic))), d("channel-topic"), 32)


def channel_id(secret: bytes) -> bytes:
    return sha256(d("channel-id"), secret)


def post_keys(e: dict[str, Any], secret: bytes, epoch: int, salt: bytes) -> tuple[bytes, bytes]:
    okm = hkdf_expand(hkdf_extract(salt, secret), d("channel-msg") + e["dst"] + e["src"] + u(4, epoch), 64)
    return okm[:32], okm[32:]


def seal_post(fields: dict[str, Any], secret: bytes, epoch: int, salt: bytes, post: dict[str, Any]) -> bytes:
    key, commitment = post_keys(fields, secret, epoch, salt)
    inner = b"".join((
        b"\1", post["uid"], u(8, post["seq"]), u(1, len(post["parents"])), *post["parents"],
        sized(1, post["domain"]), b"\1", sized(4, post["text"]),
    ))  # fmt: skip
    aad = d("channel-aad") + commitment + core(fields, None)
    return u(4, epoch) + salt + commitment + aead_seal(key, bytes(12), pad(inner), aad)


def open_post(e: dict[str, Any], secret: bytes) -> dict[str, Any]:
    need(e["kind"] == 3 and e["understood"], "not a post of suite 1")
    c = Cursor(e["payload"])
    epoch, salt, commitment = c.number(4), c.take(32), c.take(32)
    key, expected = post_keys(e, secret, epoch, salt)
    need(hmac.compare_digest(commitment, expected), "commitment")
    inner = Cursor(unpad(aead_open(key, bytes(12), c.data, d("channel-aad") + commitment + core(e, None))))
    need(inner.number(1) == 1, "post version")
    post: dict[str, Any] = {"uid": inner.take(16), "seq": inner.number(8)}
    count = inner.number(1)
    need(count <= 4, "parents")
    post |= {"parents": [inner.take(32) for _ in range(count)], "domain": inner.text(1, 255)}
    need(inner.number(1) == 1, "type")
    post |= {"text": inner.text(4, 65_536)}
    inner.end()
    return post


# --- §9 links


def write_frame(kind: int, body: bytes) -> bytes:
    return u(4, 1 + len(body)) + u(1, kind) + body


def read_frames(stream: bytes) -> list[tuple[int, bytes]]:
    """Return the complete frames at the front."""
    frames = []
    while len(stream) >= 5:
        size = int.from_bytes(stream[:4], "big")
        need(1 <= size <= 131_364, "frame length")
        if len(stream) < 4 + size:
            break
        frames.append((stream[4], stream[5 : 4 + size]))
        stream = stream[4 + size :]
    return frames


def write_hello(h: dict[str, Any]) -> bytes:
    return b"".join((
        b"qpc1", u(1, h["version_min"]), u(1, h["version_max"]), u(4, h["features"]), u(4, h["frame_max"]),
        u(2, h["window"]), h["session"], h["store_epoch"], u(8, h["record_age_ms"]), sized(2, h["record"]),
    ))  # fmt: skip


def read_hello(body: bytes) -> dict[str, Any]:
    c = Cursor(body)
    need(c.take(4) == b"qpc1", "magic")
    h: dict[str, Any] = {"version_min": c.number(1), "version_max": c.number(1), "features": c.number(4)}
    h |= {"frame_max": c.number(4), "window": c.number(2), "session": c.take(16), "store_epoch": c.take(16)}
    h |= {"record_age_ms": c.number(8)}
    need(h["version_min"] <= 1 <= h["version_max"], "versions")
    need(h["frame_max"] >= 131_364 and h["window"] >= 1, "limits")
    size = c.number(2)
    need(size <= 2_048, "record too long")
    h["record"] = c.take(size)
    rest = c.data
    known = len(rest) >= 1 and rest[0] <= 8 and len(rest) >= 1 + rest[0]
    return h | {"routes": rest[1 : 1 + rest[0]] if known else b""}


def write_results(results: list[tuple[bytes, int, int]]) -> bytes:
    return u(1, len(results)) + b"".join(id + bytes([verdict, reason]) for id, verdict, reason in results)


def read_results(body: bytes) -> list[tuple[bytes, int, int]]:
    c = Cursor(body)
    count = c.number(1)
    need(count >= 1, "no results")
    results = []
    for _ in range(count):
        id, verdict, reason = c.take(32), c.number(1), c.number(1)
        need(verdict <= 3, "verdict")
        results.append((id, verdict, reason if reason <= 8 else 0))
    c.end()
    return results


def read_record_frame(body: bytes) -> tuple[int, bytes]:
    c = Cursor(body)
    age = c.number(8)
    need(len(c.data) <= 2_048, "record too long")
    return age, c.data


def write_interest(ids: list[bytes]) -> bytes:
    return u(2, len(ids)) + b"".join(ids)


def read_interest(body: bytes) -> list[bytes]:
    c = Cursor(body)
    count = c.number(2)
    need(count <= 256, "too many channels")
    ids = [c.take(32) for _ in range(count)]
    c.end()
    need(ids == sorted(set(ids)), "order")
    return ids


def read_channel_frame(body: bytes) -> tuple[bytes, int, int, bytes]:
    c = Cursor(body)
    head = c.take(32), c.number(1), c.number(1)
    return *head, body[34:]


def read_bye(body: bytes) -> tuple[int, str]:
    c = Cursor(body)
    return c.number(1), c.data[:200].decode("utf-8", "replace")


__all__ = ["Refused"]
