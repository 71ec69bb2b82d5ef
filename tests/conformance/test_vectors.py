"""docs/test-vectors.json, read by the product and by the second implementation, which must agree on every case."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conformance import second_channels_and_links as streams
from tests.conformance import second_implementation as second
from tests.conformance.second_implementation import Refused
from tests.conformance.vectors import BY_NAME, VECTORS, Case, each
from tools.make_vectors import FILE, text

from quicprochat.adapters.crypto import Ed25519Signer, SodiumCrypto, X25519Private
from quicprochat.core import channel, link
from quicprochat.core.envelope import Header, Kind, MeshEnvelope, make
from quicprochat.core.errors import LocalError, WireError
from quicprochat.core.gate import Checked, Reject, check
from quicprochat.core.identity import Ticket, fingerprint, pair_fingerprint
from quicprochat.core.ids import Label, PeerKey, Uid, domain, labelled_hash
from quicprochat.core.receipt import Receipt
from quicprochat.core.record import open_record
from quicprochat.core.seal import Letter, Prekey, open_sealed, seal, unpad


def entropy(count: int) -> bytes:
    return bytes(range(count))


CRYPTO = SodiumCrypto(entropy)
ALICE, BOB = (Ed25519Signer(BY_NAME[name]["seed"]) for name in ("alice", "bob"))


def refuses(read: Callable[[], object], why: str) -> None:
    with pytest.raises(Refused, match=why.replace("+", r"\+")):
        read()


def test_the_file_is_what_the_generator_writes() -> None:
    current = FILE.read_text("utf-8")
    assert text(current) == current


def test_the_second_implementation_imports_nothing_of_the_product() -> None:
    for module in (second, streams):
        assert module.__file__
        assert "quicprochat." not in Path(module.__file__).read_text("utf-8").replace("quicprochat.`", "")


# --- labels, keys, signatures


@each("labels")
def test_labels(case: Case) -> None:
    label = Label(case["label"])
    assert domain(label) == second.d(case["label"]) == case["bytes"]
    assert labelled_hash(label) == second.sha256(second.d(case["label"])) == case["hash of nothing"]


def test_every_label_has_a_vector() -> None:
    assert [case["label"] for case in VECTORS["labels"]] == [label.value for label in Label]


@each("keys")
def test_keys(case: Case) -> None:
    key = Ed25519Signer(case["seed"]).key
    assert key == second.public(case["seed"]) == case["key"]
    assert CRYPTO.exchange_key(key) == second.exchange_public(key) == case["exchange_key"]
    assert (
        second.exchange_secret(case["seed"]) == Ed25519Signer(case["seed"]).exchange_private().key.private_bytes_raw()
    )
    assert fingerprint(key) == second.fingerprint(key) == case["fingerprint"]


def test_pair_fingerprint_is_the_same_on_both_sides() -> None:
    one, other = VECTORS["pair"]["keys"]
    for keys in ((one, other), (other, one)):
        assert pair_fingerprint(*keys) == second.pair_fingerprint(*keys) == VECTORS["pair"]["digits"]


@each("improper_keys")
def test_improper_keys(case: Case) -> None:
    assert not CRYPTO.valid_key(case["key"])
    assert not second.proper(case["key"])
    with pytest.raises(LocalError, match="not a valid Ed25519 key"):
        CRYPTO.exchange_key(case["key"])


@each("signatures_refused")
def test_refused_signatures(case: Case) -> None:
    args = (case["key"], case["message"], case["signature"])
    assert not CRYPTO.verify(args[0], Label(case["label"]), *args[1:])
    assert not second.verify(args[0], case["label"], *args[1:])


# --- tickets


@each("tickets")
def test_tickets(case: Case) -> None:
    ticket = Ticket.parse(case["ticket"])
    assert (ticket.key, ticket.relay, [str(a) for a in ticket.addresses]) == (
        case["key"], case["relay"], case["addresses"],
    )  # fmt: skip
    assert str(ticket) == case["ticket"]
    read = second.read_ticket(case["ticket"])
    assert read == {name: case[name] for name in ("key", "relay", "addresses")}
    assert second.write_ticket(**read) == case["ticket"]
    capitals = case["ticket"].upper()
    assert Ticket.parse(capitals) == ticket
    assert second.read_ticket(capitals) == read


@each("tickets_refused")
def test_refused_tickets(case: Case) -> None:
    with pytest.raises(Refused):
        second.read_ticket(case["ticket"])
    with pytest.raises(LocalError, match="ticket is damaged"):
        Ticket.parse(case["ticket"])


# --- envelopes


@each("envelopes")
def test_envelopes(case: Case) -> None:
    checked = check(case["wire"], BOB.key, {}, CRYPTO)
    read = second.read_envelope(case["wire"])
    assert isinstance(checked, Checked)
    for name in (
        "suite",
        "kind",
        "flags",
        "src",
        "dst",
        "created_ms",
        "ttl_s",
        "max_hops",
        "nonce",
        "core",
        "signature",
    ):
        assert getattr(checked.envelope, name) == read[name] == case[name]
    assert checked.envelope.payload == read["payload"] == case["payload"]
    assert checked.envelope.id == read["id"] == case["id"]
    assert checked.envelope.wire() == case["wire"]
    if read["understood"]:
        assert second.write_envelope(BY_NAME["alice"]["seed"], read, read["payload"]) == case["wire"]


def test_hops_and_age_leave_the_id_alone() -> None:
    seen = set()
    for wire in VECTORS["transit"]["wires"]:
        envelope, read = MeshEnvelope.decode(wire), second.read_envelope(wire)
        assert envelope.id == read["id"] == VECTORS["transit"]["id"]
        assert (envelope.hop, envelope.age_ms) == (read["hop"], read["age_ms"])
        assert isinstance(check(wire, BOB.key, {}, CRYPTO), Checked)
        seen.add((envelope.hop, envelope.age_ms))
    assert len(seen) == len(VECTORS["transit"]["wires"])


@each("envelopes_refused")
def test_refused_envelopes(case: Case) -> None:
    refuses(lambda: second.read_envelope(case["wire"]), case["why"])
    refused = check(case["wire"], BOB.key, {}, CRYPTO)
    assert isinstance(refused, Reject)
    assert refused.fault.value == ("signature" if case["why"] == "signature" else "malformed")


# --- direct messages


@each("messages")
def test_messages(case: Case) -> None:
    keys = {case["key_name"]: X25519Private(case["secret"])}
    checked = check(case["wire"], BOB.key, keys, CRYPTO)
    assert isinstance(checked, Checked)
    assert checked.opened is not None
    letter, read = checked.opened.letter, second.read_envelope(case["wire"])
    assert checked.opened.protection.value == case["protection"]
    opened = second.open_dm(read, {case["key_name"]: case["secret"]})
    shown = {"author": letter.author, "uid": letter.uid, "domain": letter.domain, "text": letter.text}
    assert shown == opened == case["letter"]
    assert second.dm_info(read, case["key_name"], keys[case["key_name"]].public) == case["info"]
    assert second.hpke_open(case["secret"], case["info"], case["payload"][8:]) == case["plain"]
    assert second.pad(unpad(case["plain"])) == case["plain"]
    assert checked.envelope.id == case["id"]


@each("messages_unopenable")
def test_unopenable_messages(case: Case) -> None:
    checked = check(case["wire"], BOB.key, {case["key_name"]: X25519Private(case["secret"])}, CRYPTO)
    assert isinstance(checked, Checked)
    assert checked.opened is None
    with pytest.raises(Refused):
        second.open_dm(second.read_envelope(case["wire"]), {case["key_name"]: case["secret"]})


FIELDS = {"kind": 1, "flags": 0, "src": ALICE.key, "dst": BOB.key, "created_ms": 5, "ttl_s": 60, "max_hops": 3}
HEADER = Header(1, ALICE.key, BOB.key, entropy(16), 5, 60, 3)


@pytest.mark.parametrize("prekey", [True, False])
def test_what_one_seals_the_other_opens(prekey: bool) -> None:
    fields = FIELDS | {"nonce": entropy(16)}
    private = X25519Private(entropy(32)) if prekey else BOB.exchange_private()
    public, secret = private.public, private.key.private_bytes_raw()
    name = second.prekey_name(public) if prekey else bytes(8)
    said = {"author": ALICE.key, "uid": entropy(16), "domain": "home", "text": "x" * 300}

    letter = Letter(ALICE.key, Uid(entropy(16)), "x" * 300, "home")
    ours = seal(HEADER, Prekey(public) if prekey else None, letter, CRYPTO, ALICE)
    assert second.open_dm(second.read_envelope(make(HEADER, ours, ALICE).wire()), {name: secret}) == said

    seed = BY_NAME["alice"]["seed"]
    theirs = second.seal_dm(seed, fields, public if prekey else None, bytes(31) + b"\1", entropy(16), "home", "x" * 300)
    envelope = MeshEnvelope.decode(second.write_envelope(seed, fields, theirs))
    opened = open_sealed(envelope, {name: private}, CRYPTO)
    assert opened is not None
    assert opened.letter == letter


# --- receipts and records


@each("receipts")
def test_receipts(case: Case) -> None:
    receipt, read = Receipt.decode(case["payload"]), second.read_receipt(case["payload"])
    assert (receipt.status, list(receipt.ids), receipt.record) == (case["status"], case["ids"], case["record"])
    assert read == {name: case[name] for name in ("status", "ids", "record")}
    assert receipt.encode() == second.write_receipt(**read) == case["payload"]
    checked = check(case["wire"], ALICE.key, {}, CRYPTO)
    assert isinstance(checked, Checked)
    assert checked.receipt == receipt
    assert second.read_envelope(case["wire"])["receipt"] == read


@each("receipts_refused")
def test_refused_receipts(case: Case) -> None:
    refuses(lambda: second.read_receipt(case["payload"]), case["why"])
    with pytest.raises(WireError):
        Receipt.decode(case["payload"])


@each("records")
def test_records(case: Case) -> None:
    record, read = open_record(case["record"], CRYPTO), second.read_record(case["record"])
    assert read == {name: case[name] for name in read}
    ours = {name: getattr(record, name) for name in read}
    ours |= {"prekeys": [p.public for p in record.prekeys], "addresses": [str(a) for a in record.addresses]}
    assert ours == read
    owner = next(key for key in VECTORS["keys"] if key["key"] == record.key)
    assert second.write_record(owner["seed"], read) == record.signed == case["record"]


@each("records_refused")
def test_refused_records(case: Case) -> None:
    refuses(lambda: second.read_record(case["record"]), case["why"])
    with pytest.raises(WireError):
        open_record(case["record"], CRYPTO)


# --- channels


@each("channels")
def test_channels(case: Case) -> None:
    if case["topic"] is not None:
        assert channel.open_secret(case["topic"], CRYPTO) == streams.open_secret(case["topic"]) == case["secret"]
    assert channel.channel_id(case["secret"]) == streams.channel_id(case["secret"]) == case["id"]


@pytest.mark.parametrize("topic", VECTORS["topics_refused"])
def test_refused_topics(topic: str) -> None:
    with pytest.raises(LocalError):
        channel.check_topic(topic)
    with pytest.raises(Refused):
        streams.check_topic(topic)


@each("posts")
def test_posts(case: Case) -> None:
    envelope, read = MeshEnvelope.decode(case["wire"]), second.read_envelope(case["wire"])
    said = case["post"]
    post = channel.Post(Uid(said["uid"]), said["seq"], said["text"], tuple(said["parents"]), said["domain"])
    assert channel.open_post(envelope, case["secret"], CRYPTO) == post
    assert streams.open_post(read, case["secret"]) == said
    assert channel.post_epoch(envelope) == case["epoch"]
    sealing = (case["secret"], case["epoch"], case["salt"])
    assert channel.seal_post(Header.of(envelope), *sealing, post, CRYPTO) == envelope.payload
    assert streams.seal_post(read, *sealing, said) == envelope.payload
    assert envelope.id == case["id"]
    assert envelope.kind == Kind.CHANNEL


@each("posts_refused")
def test_refused_posts(case: Case) -> None:
    refuses(lambda: streams.open_post(second.read_envelope(case["wire"]), case["secret"]), case["why"])
    assert isinstance(checked := check(case["wire"], PeerKey(bytes(32)), {}, CRYPTO), Checked)
    assert channel.open_post(checked.envelope, case["secret"], CRYPTO) is None


# --- link frames


def said_by_us(kind: int, body: bytes) -> Any:
    match kind:
        case link.FrameType.HELLO:
            hello = link.Hello.decode(body)
            return {name: getattr(hello, name) for name in link.Hello.__slots__}
        case link.FrameType.RESULTS:
            return [[r.id, r.verdict, r.reason] for r in link.decode_results(body)]
        case link.FrameType.RECORD:
            return list(link.decode_record(body))
        case link.FrameType.BYE:
            return list(link.decode_bye(body))
        case link.FrameType.INTEREST:
            return list(link.decode_interest(body))
        case link.FrameType.CHANNEL:
            found = link.ChannelFrame.decode(body)
            assert found.encode() == body
            return [found.channel, found.interests, found.kind, found.body]
    return None


READERS = {
    1: streams.read_hello, 5: streams.read_results, 6: streams.read_record_frame, 7: streams.read_bye,
    0x80: streams.read_interest, 0x8A: streams.read_channel_frame,
}  # fmt: skip


@each("frames")
def test_frames(case: Case) -> None:
    parsed = (case["type"], case["body"])
    assert list(link.FrameParser().feed(case["frame"])) == streams.read_frames(case["frame"]) == [parsed]
    assert link.frame(link.FrameType(case["type"]), case["body"]) == streams.write_frame(*parsed) == case["frame"]
    says = json.loads(json.dumps(said_by_us(*parsed), default=bytes.hex))
    assert says == case["says"]
    if case["type"] == link.FrameType.INTEREST:
        channels = link.decode_interest(case["body"])
        assert link.encode_interest(channels) == streams.write_interest(list(channels)) == case["body"]
    if reader := READERS.get(case["type"]):
        assert json.loads(json.dumps(reader(case["body"]), default=bytes.hex)) == case["says"]


@each("frames_refused")
def test_refused_frames(case: Case) -> None:
    kind = {"hello": 1, "results": 5, "record": 6, "bye": 7, "interest": 0x80, "channel": 0x8A}[case["format"]]
    refuses(lambda: READERS[kind](case["body"]), case["why"])
    with pytest.raises(WireError):
        said_by_us(kind, case["body"])
