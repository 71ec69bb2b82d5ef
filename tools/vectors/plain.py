"""Vectors of receipts, records, tickets, channels and link frames."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

from tools.vectors.base import ALICE, BOB, CREATED_MS, CRYPTO, IDS, PREKEY, RECORD, SEEDS, Json, fixed, forged, mixed
from tools.vectors.sealed import PLAIN

from quicprochat.adapters.crypto import Ed25519Signer
from quicprochat.core import channel, charter, ids, link, seal
from quicprochat.core.envelope import Header, Kind, make
from quicprochat.core.gate import Reason, Verdict
from quicprochat.core.identity import Ticket
from quicprochat.core.ids import Label, Uid, domain
from quicprochat.core.invite import INVITE_PREFIX, Invite
from quicprochat.core.receipt import Receipt, Status
from quicprochat.core.record import PeerRecord, sign_record
from quicprochat.core.rotation import ChannelKey


def receipts() -> list[Json]:
    made = [
        Receipt(Status.DELIVERED, IDS[:1]), Receipt(Status.DELIVERED_VOLATILE, IDS), Receipt(Status.REFUSED, IDS[:2]),
        Receipt(Status.UNOPENABLE, IDS[:1], sign_record(RECORD, BOB)),
    ]  # fmt: skip
    header = Header(Kind.RECEIPT, BOB.key, ALICE.key, fixed("receipt", 16), 0, 1_209_600)
    return [
        {"status": r.status, "ids": r.ids, "record": r.record, "payload": r.encode(),
         "wire": make(header, r.encode(), BOB).wire()}
        for r in made
    ]  # fmt: skip


def receipts_refused() -> list[Json]:
    one = Receipt(Status.DELIVERED, IDS[:1]).encode()
    many = bytes([1, 1, 65]) + IDS[0] * 65 + bytes(2)
    long = one[:-2] + (2_049).to_bytes(2, "big") + bytes(2_049)
    cases = [
        ("receipt version", b"\2" + one[1:]), ("status", b"\1\0" + one[2:]), ("status", b"\1\5" + one[2:]),
        ("count", bytes([1, 1, 0, 0, 0])), ("count", many), ("cut short", one[:-1]), ("cut short", b""),
        ("trailing bytes", one + b"!"), ("record too long", long),
    ]  # fmt: skip
    return [{"why": why, "payload": payload} for why, payload in cases]


def record_json(record: PeerRecord, wire: bytes) -> Json:
    names = ("key", "epoch", "seq", "created_ms", "lifetime_s", "features", "name", "domain", "relay")
    return {
        **{name: getattr(record, name) for name in names},
        "prekeys": [prekey.public for prekey in record.prekeys],
        "addresses": [str(address) for address in record.addresses], "record": wire,
    }  # fmt: skip


def records() -> list[Json]:
    bare = PeerRecord(ALICE.key, 0, 1, 0, 1)
    return [record_json(RECORD, sign_record(RECORD, BOB)), record_json(bare, sign_record(bare, ALICE))]


def records_refused() -> list[Json]:
    body = RECORD.body()

    def resigned(changed: bytes) -> bytes:
        return changed + BOB.sign(Label.RECORD, changed)

    name_at, prekeys_at = 65, body.index(PREKEY.public) - 1
    mixed_body = PeerRecord(mixed(8), 1, 1, 0).body()
    forgery = forged(mixed(8), SEEDS["alice"], domain(Label.RECORD) + mixed_body)
    cases = [
        ("record length", b""), ("record length", bytes(64)), ("record length", bytes(2_049)),
        ("cut short", resigned(body[:-1])), ("trailing bytes", resigned(body + b"!")),
        ("record version", resigned(b"\2" + body[1:])),
        ("record lifetime", resigned(body[:57] + bytes(4) + body[61:])),
        ("record lifetime", resigned(body[:57] + (1_209_601).to_bytes(4, "big") + body[61:])),
        ("field too long", resigned(body[:name_at] + b"\x41" + b"n" * 65 + body[name_at + 4 :])),
        ("not UTF-8", resigned(body[: name_at + 1] + b"\xff" + body[name_at + 2 :])),
        ("prekeys", resigned(body[:prekeys_at] + b"\5" + bytes(160) + b"\0")),
        ("too many addresses", resigned(body[:prekeys_at] + b"\0\x11" + b"\4\1\2\3\4\0\1" * 17)),
        ("unknown address family", resigned(body[:prekeys_at] + b"\0\1\5\1\2\3\4\0\1")),
        ("port 0", resigned(body[:prekeys_at] + b"\0\1\4\1\2\3\4\0\0")),
        ("record signature", body + ALICE.sign(Label.RECORD, body)),
        ("record signature", body + BOB.sign(Label.ENVELOPE, body)),
    ]  # fmt: skip
    improper = {"name": "improper key", "why": "record signature", "record": mixed_body + (forgery or b"")}
    return [*({"why": why, "record": wire} for why, wire in cases), improper]


def tickets() -> list[Json]:
    made = [Ticket(ALICE.key), Ticket(BOB.key, RECORD.addresses, RECORD.relay)]
    return [
        {"key": t.key, "relay": t.relay, "addresses": [str(a) for a in t.addresses], "ticket": str(t)} for t in made
    ]


def tickets_refused() -> list[Json]:
    text = str(Ticket(ALICE.key))
    letters = "abcdefghijklmnopqrstuvwxyz234567"
    other = letters[letters.index(text[-1]) ^ 1]
    changed = text[:9] + "7a"[text[9] == "7"] + text[10:]
    cases = [
        ("no prefix", text[4:]), ("cut short", text[:-1]), ("one character changed", changed),
        ("unused bits set", text[:-1] + other), ("padding written", text + "="), ("a space", text + " "), ("empty", ""),
        ("prefix only", "qpc1"), ("not ASCII", text + "é"), ("lookalike letter", text.replace("s", "\u017f")),
    ]  # fmt: skip
    return [{"why": why, "ticket": ticket} for why, ticket in cases]


# --- channels and links


def channels() -> list[Json]:
    topics = ("freifunk", "Grüße", "Gru\u0308ße")
    opened = [{"topic": t, "secret": channel.open_secret(t, CRYPTO)} for t in topics]
    made: list[Json] = [*opened, {"topic": None, "secret": fixed("channel")}]
    return [{**case, "id": channel.channel_id(case["secret"])} for case in made]


def invites() -> list[Json]:
    family = channel.BroadcastChannel.private(fixed("channel"), "family", BOB.key)
    news = channel.BroadcastChannel.private(fixed("channel"), "Grüße", BOB.key, announce=True)
    made = [
        family, news, channel.BroadcastChannel.private(fixed("channel"), "no-owner"),
        replace(family, epoch=3, secret=fixed("channel, epoch 3")), replace(family, salt=fixed("salt", 16)),
    ]  # fmt: skip
    return [invite_case(Invite.of(one)) for one in made]


def invite_case(found: Invite) -> Json:
    return {
        "id": found.id, "kind": found.kind.value, "topic": found.topic, "epoch": found.epoch, "owner": found.owner,
        "secret": found.secret, "salt": found.salt, "invite": str(found),
    }  # fmt: skip


def invites_refused() -> list[Json]:
    text = str(Invite.of(channel.BroadcastChannel.private(fixed("channel"), "family", BOB.key)))
    changed = text[:9] + "7a"[text[9] == "7"] + text[10:]
    code = text[len(INVITE_PREFIX) :].upper()
    body = base64.b32decode(code + "=" * (-len(code) % 8))[:-4]

    def written(body: bytes) -> str:
        check = ids.labelled_hash(Label.INVITE, body)[:4]
        return INVITE_PREFIX + base64.b32encode(body + check).decode("ascii").rstrip("=").lower()

    cases = [
        ("no prefix", text[5:]), ("cut short", text[:-1]), ("one character changed", changed), ("empty", ""),
        ("trailing bytes", written(body + b"!")), ("topic", written(body[:-6] + b"fami>y")),
        ("unknown flag", written(b"\x0c" + body[1:])), ("announcement without owner", written(b"\1" + body[1:])),
    ]  # fmt: skip
    return [{"why": why, "invite": invite} for why, invite in cases]


def charters() -> list[Json]:
    made = [charter.Charter(1), charter.Charter(2**63 - 1, tuple(sorted((ALICE.key, BOB.key))))]
    return [{"version": one.version, "posters": one.posters, "body": one.encode()} for one in made]


def charters_refused() -> list[Json]:
    one, two = sorted((ALICE.key, BOB.key))
    version = (1).to_bytes(8, "big")
    cases = [
        ("version", bytes(9)), ("version", b"\x80" + bytes(8)), ("posters do not ascend", version + b"\2" + two + one),
        ("a poster twice", version + b"\2" + one + one), ("cut short", version + b"\1" + one[:-1]),
        ("trailing bytes", version + b"\0!"), ("too many", version + b"\x41" + bytes(65 * 32)),
    ]  # fmt: skip
    return [{"why": why, "body": body} for why, body in cases]


def words() -> list[Json]:
    made = [charter.Word(joined=True, number=1), charter.Word(joined=False, number=2**63 - 1)]
    return [{"joined": one.joined, "number": one.number, "body": one.encode()} for one in made]


def words_refused() -> list[Json]:
    one = charter.Word(joined=True, number=1).encode()
    cases = [
        ("state", b"\0" + one[1:]), ("state", b"\3" + one[1:]), ("number", b"\1" + bytes(8)),
        ("number", b"\1\x80" + bytes(7)), ("cut short", one[:-1]), ("trailing bytes", one + b"!"),
    ]  # fmt: skip
    return [{"why": why, "body": body} for why, body in cases]


def channel_keys() -> list[Json]:
    key = ChannelKey(channel.channel_id(fixed("channel")), 7, fixed("channel, epoch 7"))
    return [{"id": key.channel, "epoch": key.epoch, "secret": key.secret, "body": key.encode()}]


def post_case(name: str, secret: bytes, epoch: int, post: channel.Post, chan: bytes) -> Json:
    header = Header(Kind.CHANNEL, ALICE.key, chan, fixed(f"post {name}", 16), CREATED_MS)
    salt = fixed(f"salt {name}")
    envelope = make(header, channel.seal_post(header, secret, epoch, salt, post, CRYPTO), ALICE)
    shown = {"uid": post.uid, "seq": post.seq, "parents": post.parents, "domain": post.domain, "text": post.text}
    wire = envelope.wire()
    return {
        "name": name,
        "secret": secret,
        "epoch": epoch,
        "salt": salt,
        "post": shown,
        "id": envelope.id,
        "wire": wire,
    }


def posts() -> list[Json]:
    known = channel.open_secret("freifunk", CRYPTO)
    secret, newer = fixed("channel"), fixed("channel, epoch 1")
    hello = channel.Post(Uid(fixed("post", 16)), 1, "Hallo zusammen")
    answer = channel.Post(Uid(fixed("answer", 16)), 2**64 - 1, "Ja", IDS[:4], "example.org")
    chan = channel.channel_id(secret)
    return [
        post_case("open channel", known, 0, hello, channel.channel_id(known)),
        post_case("private channel", secret, 0, answer, chan),
        post_case("private channel after a change of secret", newer, 1, hello, chan),
    ]


def posts_refused() -> list[Json]:
    secret = fixed("channel")
    chan = channel.channel_id(secret)
    post = channel.Post(Uid(fixed("post", 16)), 1, "Hallo zusammen")
    header = Header(Kind.CHANNEL, ALICE.key, chan, fixed("post", 16))
    payload = channel.seal_post(header, secret, 0, fixed("salt"), post, CRYPTO)

    def case(
        why: str, payload: bytes = payload, secret: bytes = secret, signer: Ed25519Signer = ALICE, **new: Any
    ) -> Json:
        fields = {"kind": header.kind, "src": signer.key, "dst": chan, "nonce": header.nonce, **new}
        return {"why": why, "secret": secret, "wire": make(Header(**fields), payload, signer).wire()}

    def sealed_as(inner: bytes, padded: bytes | None = None) -> bytes:
        key, com = channel._key_and_commitment(header, secret, 0, fixed("salt"), CRYPTO)
        plain = seal.pad(inner) if padded is None else padded
        return payload[:68] + CRYPTO.aead_seal(key, plain, channel._aad(header, com))

    inner = channel.encode_post(post)
    return [
        case("commitment", secret=fixed("wrong secret")), case("commitment", signer=BOB),
        case("commitment", dst=fixed("another channel")), case("commitment", b"\0\0\0\1" + payload[4:]),
        case("commitment", payload[:36] + bytes(32) + payload[68:]),
        case("tag", nonce=fixed("other nonce", 16)), case("tag", ttl_s=1), case("tag", payload[:-1] + b"\0"),
        case("shorter than a tag", payload[:68]), case("cut short", payload[:67]),
        case("not a post of suite 1", flags=2), case("not a post of suite 1", kind=Kind.MESSAGE),
        case("padding", sealed_as(b"", inner + bytes(256 - len(inner)))),
        case("post version", sealed_as(b"\2" + inner[1:])), case("parents", sealed_as(inner[:25] + b"\5" + bytes(200))),
        case("type", sealed_as(inner[:27] + b"\0" + inner[28:])), case("trailing bytes", sealed_as(inner + b"!")),
    ]  # fmt: skip


def hello_json(hello: link.Hello) -> Json:
    names = (
        "version_min", "version_max", "features", "frame_max", "window", "session", "store_epoch", "record_age_ms",
        "record", "routes",
    )  # fmt: skip
    return {name: getattr(hello, name) for name in names}


def frames() -> list[Json]:
    first = link.Hello(fixed("session", 16), fixed("store", 16), sign_record(RECORD, BOB), 60_000)
    again = link.Hello(fixed("session", 16), fixed("store", 16), b"", routes=fixed("routes", 8))
    later = link.Hello(fixed("session", 16), fixed("store", 16), b"", 0, 9, 200_000, 1, 0, 255)
    results = (
        link.Result(IDS[0], Verdict.STORED), link.Result(IDS[1], Verdict.DUPLICATE),
        link.Result(IDS[2], Verdict.REFUSED, Reason.CLOCK), link.Result(IDS[3], Verdict.DEFERRED, Reason.DISK),
    )  # fmt: skip
    said = [[r.id, r.verdict, r.reason] for r in results]
    card = sign_record(RECORD, BOB)
    interests = sorted({ids.ChannelId(case["id"]) for case in channels()})
    offer = link.ChannelFrame(interests[0], 3, link.FrameType.OFFER, b"\0\1" + IDS[0])
    made: list[tuple[str, link.FrameType, bytes, Any]] = [
        ("hello", link.FrameType.HELLO, first.encode(), hello_json(first)),
        ("hello of a later version", link.FrameType.HELLO, later.encode() + b"more", hello_json(later)),
        ("hello of one who was linked before", link.FrameType.HELLO, again.encode() + b"more", hello_json(again)),
        ("ping", link.FrameType.PING, b"", None), ("pong", link.FrameType.PONG, b"", None),
        ("beat", link.FrameType.BEAT, b"", None),
        ("envelope", link.FrameType.ENVELOPE, make(PLAIN, b"payload", ALICE).wire(), None),
        ("results", link.FrameType.RESULTS, link.encode_results(results), said),
        ("results with an unknown reason", link.FrameType.RESULTS, b"\1" + IDS[0] + b"\2\xff", [[IDS[0], 2, 0]]),
        ("record", link.FrameType.RECORD, link.encode_record(card, 12_345), [12_345, card]),
        ("interest", link.FrameType.INTEREST, link.encode_interest(interests), interests),
        ("no interest", link.FrameType.INTEREST, link.encode_interest(()), []),
        ("interest in all", link.FrameType.INTEREST, link.encode_interest((link.EVERY_CHANNEL,)), [bytes(32)]),
        ("offer in a channel", link.FrameType.CHANNEL, offer.encode(), [offer.channel, 3, 0x85, offer.body]),
        ("bye", link.FrameType.BYE, link.encode_bye(link.Goodbye.LEAVING, "bis später"), [0, "bis später"]),
        ("bye without a reason", link.FrameType.BYE, b"\xfe", [254, ""]),
    ]  # fmt: skip
    return [
        {"name": name, "type": kind, "body": body, "frame": link.frame(kind, body), "says": says}
        for name, kind, body, says in made
    ]


def frames_refused() -> list[Json]:
    hello = link.Hello(fixed("session", 16), fixed("store", 16), b"").encode()
    cases = [
        ("hello", "magic", b"qpc2" + hello[4:]), ("hello", "versions", hello[:4] + b"\2\3" + hello[6:]),
        ("hello", "limits", hello[:10] + (link.FRAME_MAX_BYTES - 1).to_bytes(4, "big") + hello[14:]),
        ("hello", "limits", hello[:14] + bytes(2) + hello[16:]), ("hello", "cut short", hello[:-1]),
        ("hello", "record too long", hello[:-2] + (2_049).to_bytes(2, "big") + bytes(2_049)),
        ("results", "no results", b"\0"), ("results", "verdict", b"\1" + IDS[0] + b"\4\0"),
        ("results", "cut short", b"\2" + IDS[0] + b"\0\0"), ("results", "trailing bytes", b"\1" + IDS[0] + b"\0\0!"),
        ("interest", "order", b"\0\2" + bytes(64)), ("interest", "order", b"\0\2" + b"\1" * 32 + bytes(32)),
        ("interest", "cut short", b"\0\1" + bytes(31)), ("interest", "trailing bytes", bytes(3)),
        ("interest", "too many channels", b"\1\1" + b"".join(n.to_bytes(32, "big") for n in range(257))),
        ("record", "record too long", bytes(8 + 2_049)), ("record", "cut short", bytes(7)), ("bye", "cut short", b""),
        ("channel", "cut short", bytes(33)),
    ]  # fmt: skip
    return [{"format": name, "why": why, "body": body} for name, why, body in cases]
