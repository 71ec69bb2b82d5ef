"""Write fuzz/corpus from docs/test-vectors.json: what each target begins with.

    PYTHONPATH=src:. python fuzz/make_corpus.py

Files are named by their content, as libFuzzer does; inputs that once failed a target may be added by hand and stay.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from fuzz import words

from quicprochat.core.bundle import BundleWriter
from quicprochat.core.encounter import Want, encode_offer
from quicprochat.core.ids import EnvelopeId
from quicprochat.core.reconcile import Mode, Range, Ranges
from quicprochat.core.route_frames import INFINITY, Request, announce, distance, encode_requests, encode_update
from quicprochat.core.time import Instant, Now, WallTime
from quicprochat.sim.crypto import SimCrypto

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT / "fuzz" / "corpus"
LONGEST = 2_500
"""Longer inputs teach a fuzzer nothing and slow it down."""


def seeds() -> dict[str, list[bytes]]:
    """Return the inputs of each target."""
    vectors: dict[str, Any] = json.loads((ROOT / "docs" / "test-vectors.json").read_text("utf-8"))

    def hexed(name: str, *sections: str) -> list[bytes]:
        return [bytes.fromhex(case[name]) for section in sections for case in vectors[section]]

    plains = hexed("plain", "messages")
    inners = [plain.rstrip(b"\0")[64:-1] for plain in plains]
    frames = hexed("frame", "frames")
    kinds = {"hello": 1, "results": 5, "record": 6, "bye": 7, "interest": 0x80, "channel": 0x8A}
    wrong = [
        (1 + len(case["body"]) // 2).to_bytes(4, "big") + bytes([kinds[case["format"]]]) + bytes.fromhex(case["body"])
        for case in vectors["frames_refused"]
    ]
    wires = hexed("wire", "envelopes", "envelopes_refused")
    posts = [wire[207:] for wire in hexed("wire", "posts", "posts_refused")]
    post = b"\1" + bytes(24) + b"\1" + bytes(32) + b"\4home\1" + (2).to_bytes(4, "big") + b"hi"
    tickets = [case["ticket"].encode() for case in (*vectors["tickets"], *vectors["tickets_refused"])]
    invites = [case["invite"].encode() for case in (*vectors["invites"], *vectors["invites_refused"])]
    bodies = [base64.b32decode(text[5:].upper() + b"=" * (-len(text[5:]) % 8))[:-4] for text in invites[:5]]
    contact = {
        "public_key": vectors["keys"][1]["key"], "name": "Bob", "verified": True, "blocked": False,
        "addresses": ["192.0.2.1:7000", "[2001:db8::1]:7000"], "relay": "r",
    }  # fmt: skip
    identity = {"version": 1, "secret_key": vectors["keys"][0]["seed"], "public_key": vectors["keys"][0]["key"]}
    books: list[Any] = [[], [contact], [{}], None]
    files = [json.dumps({**identity, "name": "me", "contacts": people}) for people in books]
    header = b"quicprochat identity\n\x01" + (3).to_bytes(4, "big") + (1 << 17).to_bytes(4, "big") + bytes(16)
    aged = {"prekeys": [["A" * 43 + "=", 5]], "records": [["AAAA", 7]], "wall": 0}
    moved = [json.dumps({"identity": json.loads(file), "record": [1, 2], **aged}).encode() for file in files]
    member = {
        "id": "A" * 43 + "=", "secret": "", "kind": "private", "epoch": 1, "topic": "club", "left": True, "seq": 4,
        "heads": ["A" * 43 + "="],
    }  # fmt: skip
    again = {**member, "id": "B" * 43 + "=", "secret": "A" * 43 + "=", "left": False}
    lists: list[Any] = [[member, again], [member, member], [{**again, "epoch": 0}], [{}], None]
    for channels in lists:
        document = {"identity": json.loads(files[0]), "record": [1, 2], **aged, "channels": channels}
        moved.append(json.dumps(document).encode())
    writer, moment = BundleWriter(), Now(Instant(0), WallTime(1_800_000_000_000), True)
    head, pieces = writer.begin(moment), [writer.add(wire) for wire in hexed("wire", "envelopes")[:2]]
    bundle = b"".join([head, *pieces, writer.end()])
    id = b"id=" + vectors["keys"][1]["key"].encode()
    said = [[b"ver=1", b"role=node", id], [b"server=mesh.example.org:7000", b"domain=example.org", b"fp=" + b"0" * 64]]
    return {
        "announcement": [
            *(b"".join(bytes([len(pair)]) + pair for pair in pairs) for pairs in said),
            b"\0",
            b"\xffver=1",
            b"[2001:db8::1]:7000",
        ],
        "bundle": [bundle, bundle[:-1], bundle + b"!", bundle[:40] + bytes([bundle[40] ^ 1]) + bundle[41:], head],
        "envelope": wires + [bytes.fromhex(wire) for wire in vectors["transit"]["wires"]],
        "letter": plains + inners,
        "receipt": hexed("payload", "receipts", "receipts_refused"),
        "record": hexed("record", "records", "records_refused"),
        "link": [*frames, b"".join(frames[1:4]), *wrong, b"\0\0\0\0\1", b"\xff" * 5],
        "ticket": [*tickets, b"192.0.2.1:7000", b"[2001:db8::1]:7000", b"Bob", contact["public_key"].encode()],
        "invite": [*invites, *bodies],
        "identity": [text.encode() for text in files] + [files[1].encode()[:-9], b"[" * 2_000],
        "export": [*(header + document for document in moved), header, header[:-20] + b"\xff" * 20, moved[1]],
        "channel": [
            *hexed("body", "charters", "charters_refused", "words", "words_refused", "channel_keys"),
            *posts,
            post,
            post + b"\x80" + bytes(185),
            b"freifunk",
            "Gru\u0308ße".encode(),
        ],
        "rpc": conversations(),
        "route": routing(),
        "carry": carried(),
        "check": wires + hexed("wire", "receipts", "messages", "messages_unopenable") + inners[:1] + [post],
    }


def conversations() -> list[bytes]:
    """Return what a client may say, after its greeting or with it; the first byte is where it is cut."""
    hello = words.bootstrap(0) + words.enter(1)
    calls = [
        words.session_call(2, "enqueue", envelope=bytes(64)),
        words.session_call(2, "batchEnqueue", envelopes=[b"one", b"two"]),
        words.session_call(2, "fetch", after=0, limit=10),
        words.session_call(2, "acknowledge", ids=[bytes(32)]),
        words.subscribe(),
        words.call(2, 0, (), words.ENTRANCE, 77),
        words.finish(1),
    ]
    return [b"\0" + call for call in calls] + [b"\x40" + hello + b"".join(calls), b"\0" + b"".join(calls)]


def routing() -> list[bytes]:
    """Return what neighbours may say of routes: promises, news, requests, digests, and frames cut short."""
    crypto = SimCrypto(b"fuzz")
    signers = [crypto.signer(name) for name in (b"far", b"n0", b"me")]
    first, second = ([announce(signer, epoch << 32, bytes(8)).wire for signer in signers] for epoch in (1, 2))
    whole = [part for n, wire in enumerate(first) for part in (n.to_bytes(2, "big"), wire)]
    renewed = [part for n, wire in enumerate(second) for part in (n.to_bytes(2, "big"), wire[32:])]
    told, lost = ([n << 48 | d for n in range(3)] for d in (distance(40, 2), INFINITY))
    bodies = [
        encode_update(whole, (), told), encode_update((), renewed, ()), encode_update((), (), lost),
        encode_requests([Request(signer.key, 2 << 32) for signer in signers]), b"\x03" + bytes(8), b"\x04",
        encode_update(whole, (), told, first=True), encode_update(whole, (), told)[:-3],
    ]  # fmt: skip
    frames = [bytes([n % 2 | n << 4]) + len(body).to_bytes(2, "big") + body for n, body in enumerate(bodies)]
    return [frames[0] + frame for frame in frames] + [b"".join(frames)]


def carried() -> list[bytes]:
    """Return frames of carrying: bare, and as the target takes them, two with their types."""
    names = (bytes(8), b"\xff" * 8)
    ranges = (
        Range(b"\0\0\1", Mode.SAME), Range(b"\0\0\2\5", Mode.FINGERPRINT, bytes(8)),
        Range(b"\0\0\3", Mode.LIST, names=names), Range(b"\1", Mode.LIST), Range(b"", Mode.LACK, names=names[1:]),
    )  # fmt: skip
    begin = Ranges(0, (Range(b"", Mode.FINGERPRINT, bytes(8)),), bytes(16)).encode()
    nothing = Ranges(0, (Range(b"", Mode.LIST),), bytes(16)).encode()
    went_on, end = Ranges(1, ranges).encode(), Ranges(1, ()).encode()
    offer, want = encode_offer([EnvelopeId(bytes([n]) * 32) for n in range(3)]), Want(2, (0, 1)).encode()
    frames = [(0, begin), (0, nothing), (0, went_on), (0, end), (1, offer), (2, want)]
    typed = [(len(body) + 1, bytes([kind]) + body) for kind, body in frames]
    pairs = [bytes([size]) + one + other for size, one in typed if size < 256 for _, other in typed]
    return [body for _, body in frames] + pairs


def named() -> dict[Path, bytes]:
    """Return every file of the corpus and its content."""
    return {
        CORPUS / target / hashlib.sha256(data).hexdigest()[:16]: data
        for target, inputs in seeds().items()
        for data in inputs
        if len(data) <= LONGEST
    }


if __name__ == "__main__":
    for path, data in named().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
