"""The file of an exported identity: what opens it, and all that must not."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl import pwhash

from quicprochat.adapters.crypto import Ed25519Signer, SodiumCrypto
from quicprochat.adapters.passphrase import stretch
from quicprochat.adapters.system import entropy
from quicprochat.core.address import Address
from quicprochat.core.channel import PARENTS_MAX, BroadcastChannel, Earlier, Member, Subscription
from quicprochat.core.errors import LocalError, UnavailableError
from quicprochat.core.export import (
    CHANNELS_MAX,
    COST,
    COST_MAX,
    COST_MIN,
    EXPORT_MAX_BYTES,
    MAGIC,
    PREKEYS_MAX,
    Aged,
    Contents,
    Cost,
    Membership,
    check_new_passphrase,
    open_export,
    passphrase_bytes,
    seal_export,
)
from quicprochat.core.export_channels import membership_document
from quicprochat.core.identity import Contact, MeshIdentity
from quicprochat.core.ids import EnvelopeId
from quicprochat.core.link import INTEREST_MAX
from quicprochat.core.time import Instant

SEED = bytes(range(32))
B32 = base64.b64encode(bytes(32)).decode()
ADA, BOB = (Ed25519Signer(bytes([n]) * 32).key for n in (1, 2))
CRYPTO = SodiumCrypto(entropy)
ME = MeshIdentity(
    SEED,
    Ed25519Signer(SEED).key,
    "Ann\u00e9",
    {
        ADA: Contact(ADA, "ada", verified=True, addresses=(Address("192.0.2.1", 7_000),), relay="https://r.example"),
        BOB: Contact(BOB, "", blocked=True),
    },
)
CLUB, NEWS = BroadcastChannel.private(b"s" * 32, "club"), BroadcastChannel.open("news", CRYPTO)
HEADS = tuple(EnvelopeId(bytes([n]) * 32) for n in range(PARENTS_MAX))
OWNED = Subscription(
    replace(BroadcastChannel.private(b"o" * 32, "town", ADA, announce=True), epoch=2),
    earlier=(Earlier(1, Instant(5_000), b"e" * 32),), charter=3, posters=(ADA, BOB), said=4, muted=True,
)  # fmt: skip
TOWN = Membership(OWNED, 0, (Member(OWNED.channel.id, ADA, said=1), Member(OWNED.channel.id, BOB, False, 2, True, 1)))
CHANNELS = (
    Membership(Subscription(replace(CLUB, epoch=2), HEADS), 41),
    Membership(Subscription(NEWS), 0),
    Membership(Subscription(replace(BroadcastChannel.private(b"t" * 32, "club"), secret=b""), left=True), 3),
)
CONTENTS = Contents(
    ME, (3, 41), (Aged(b"p" * 32, 5), Aged(b"q" * 32, 10**9)), (Aged(b"a record", 7),), 1_800_000_000_000
)
WORD = b"correct horse"
HEADER_BYTES = len(MAGIC) + 1 + 4 + 4 + 16


def quick(passphrase: bytes, salt: bytes, cost: Cost) -> bytes:
    """Stand in for Argon2id, so that ten thousand files can be tried."""
    return hashlib.sha256(b"%d %d %s %s" % (cost.ops, cost.mem_kib, salt, passphrase)).digest()


def never(passphrase: bytes, salt: bytes, cost: Cost) -> bytes:
    raise AssertionError(f"memory was asked for: {cost}")


def made(contents: Contents = CONTENTS, cost: Cost = COST) -> bytes:
    return seal_export(contents, WORD, quick, CRYPTO, entropy, cost)


def opened(data: bytes, passphrase: bytes = WORD) -> Contents:
    return open_export(data, passphrase, quick, CRYPTO)


def test_what_went_in_comes_out() -> None:
    assert opened(made()) == CONTENTS
    assert opened(made(replace(CONTENTS, prekeys=(), records=(), wall=0))).prekeys == ()
    moving = replace(CONTENTS, channels=CHANNELS)
    assert opened(made(moving)) == moving


def test_no_two_files_are_alike_and_none_shows_what_is_in_it() -> None:
    one, other = made(), made()
    assert one[HEADER_BYTES:] != other[HEADER_BYTES:]
    for secret in (SEED, SEED.hex().encode(), b"ada", ADA, ADA.hex().encode(), b"p" * 32):
        assert secret not in one


def test_the_format_is_what_is_documented() -> None:
    """Opened here by nothing of ours."""
    cost = COST_MIN
    data = seal_export(CONTENTS, WORD, stretch, CRYPTO, entropy, cost)
    header, sealed = data[:46], data[46:]
    assert header[:30] == b"quicprochat identity\n\x01\x00\x00\x00\x01\x00\x00\x20\x00"
    secret = pwhash.argon2id.kdf(32, WORD, header[30:], opslimit=1, memlimit=8 << 20)
    label = b"quicprochat-mesh/1/export\x00"
    key = HKDF(SHA256(), 32, b"", label).derive(secret)
    document = json.loads(ChaCha20Poly1305(key).decrypt(bytes(12), sealed, label + header))
    assert document["identity"]["secret_key"] == SEED.hex()
    assert (document["record"], document["wall"]) == ([3, 41], CONTENTS.wall)
    assert [age for _, age in document["prekeys"]] == [5, 10**9]


def test_every_altered_byte_is_refused_with_one_sentence() -> None:
    data = made()
    for place in range(len(data)):
        for bits in (0x01, 0x80):
            changed = bytearray(data)
            changed[place] ^= bits
            with pytest.raises(LocalError) as caught:
                opened(bytes(changed))
            assert "\n" not in str(caught.value)


def test_a_file_cut_short_or_made_longer_is_refused() -> None:
    data = made()
    for size in range(len(data)):
        with pytest.raises(LocalError):
            opened(data[:size])
    with pytest.raises(LocalError):
        opened(data + b"\0")


def test_another_passphrase_opens_nothing() -> None:
    for word in (b"", b"correct horse ", b"Correct horse", b"x"):
        with pytest.raises(LocalError, match="passphrase is wrong") as caught:
            opened(made(), word)
        assert caught.value.code == "untrusted"


@pytest.mark.parametrize(
    "cost",
    [
        Cost(COST_MAX.ops + 1, COST.mem_kib),
        Cost(COST.ops, COST_MAX.mem_kib + 1),
        Cost(2**32 - 1, 2**32 - 1),
        Cost(0, COST.mem_kib),
        Cost(COST.ops, COST_MIN.mem_kib - 1),
        Cost(1, 0),
    ],
)
def test_a_file_cannot_make_us_spend_more_than_a_file_of_ours_does(cost: Cost) -> None:
    data = made(cost=cost)
    with pytest.raises(LocalError, match="asks for"):
        open_export(data, WORD, never, CRYPTO)
    assert COST_MAX.mem_kib <= 1 << 20


def test_what_is_not_ours_costs_nothing() -> None:
    later = MAGIC + b"\x02" + made()[len(MAGIC) + 1 :]
    for data, said in ((b"", "no exported"), (b"PK\x03\x04" * 99, "no exported"), (later, "version 2")):
        with pytest.raises(LocalError, match=said):
            open_export(data, WORD, never, CRYPTO)
    with pytest.raises(LocalError, match="larger"):
        open_export(made() + bytes(EXPORT_MAX_BYTES), WORD, never, CRYPTO)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("identity", {}),
        ("identity", "x"),
        ("record", [1]),
        ("record", [1, -1]),
        ("record", [2**63, 0]),
        ("prekeys", [["AAAA", 0]]),
        ("prekeys", [["!", 0]]),
        ("prekeys", [["AAAA"]]),
        ("prekeys", [["A" * 43 + "=", 0]] * (PREKEYS_MAX + 1)),
        ("records", [["AAAA", -5]]),
        ("records", [["AAAA", True]]),
        ("records", 3),
        ("wall", "today"),
        ("wall", None),
    ],
)
def test_a_file_of_another_program_with_the_right_passphrase_is_still_read_with_distrust(
    key: str, value: object
) -> None:
    data = made()
    secret = CRYPTO.hkdf(quick(WORD, data[30:46], COST), b"", b"quicprochat-mesh/1/export\x00", 32)
    aad = b"quicprochat-mesh/1/export\x00" + data[:46]
    plain = CRYPTO.aead_open(secret, data[46:], aad)
    assert plain is not None
    document = json.loads(plain)
    fine = json.dumps({**document, "of a later version": 1}).encode()
    assert opened(data[:46] + CRYPTO.aead_seal(secret, fine, aad)) == CONTENTS
    for changed in ({**document, key: value}, {k: v for k, v in document.items() if k != key}, [document]):
        with pytest.raises(LocalError, match="made by a program"):
            opened(data[:46] + CRYPTO.aead_seal(secret, json.dumps(changed).encode(), aad))


def with_channels(items: object) -> bytes:
    """The file of a program that writes this as its channels."""
    data = made(replace(CONTENTS, channels=CHANNELS))
    secret = CRYPTO.hkdf(quick(WORD, data[30:46], COST), b"", b"quicprochat-mesh/1/export\x00", 32)
    aad = b"quicprochat-mesh/1/export\x00" + data[:46]
    plain = CRYPTO.aead_open(secret, data[46:], aad)
    assert plain is not None
    document = json.loads(plain)
    if isinstance(items, dict):
        document["channels"][0] |= items
    else:
        document["channels"] = items
    return data[:46] + CRYPTO.aead_seal(secret, json.dumps(document).encode(), aad)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "AAAA"}, {"id": 7}, {"id": "!"}, {"id": base64.b64encode(NEWS.id).decode(), "epoch": 0},
        {"secret": ""}, {"secret": "AAAA"}, {"secret": base64.b64encode(bytes(32)).decode(), "epoch": 0},
        {"left": True}, {"left": 0}, {"kind": "x"}, {"kind": "open"}, {"kind": []},
        {"epoch": -1}, {"epoch": 2**32}, {"epoch": True}, {"seq": -1}, {"seq": 2**63}, {"seq": None},
        {"topic": "a b"}, {"topic": ""}, {"topic": "a>"}, {"topic": "x" * 65}, {"topic": 5}, {"topic": "news"},
        {"heads": ["AAAA"]}, {"heads": "AAAA"}, {"heads": [base64.b64encode(bytes(32)).decode()] * 5},
        {"id": base64.b64encode(NEWS.id).decode()}, {}, "club", 3, [{}], [None], ["x"],
    ],
    ids=str,
)  # fmt: skip
def test_channels_that_cannot_be_are_refused(change: object) -> None:
    if change == {}:
        assert opened(with_channels(change)).channels == CHANNELS
        return
    with pytest.raises(LocalError, match="made by a program"):
        opened(with_channels(change))


def owned_with(**changes: object) -> bytes:
    """The file of a program that writes this of a channel with everything in it."""
    document = membership_document(TOWN) | changes
    return with_channels([document])


def test_an_owners_channel_comes_back_whole() -> None:
    assert opened(owned_with()).channels == (TOWN,)
    passphrase = replace(CLUB, owner=ADA, salt=b"s" * 16)
    whole = Membership(Subscription(passphrase), 0)
    assert opened(made(replace(CONTENTS, channels=(whole,)))).channels == (whole,)


@pytest.mark.parametrize(
    "change",
    [
        {"owner": "AAAA"}, {"owner": ""}, {"owner": 5}, {"salt": "AAAA"}, {"salt": B32[:22] + "=="},
        {"earlier": [[1, "AAAA", 5]]}, {"earlier": [[2**32, B32, 5]]}, {"earlier": [[1, B32, -1]]},
        {"earlier": [[1, B32]]}, {"earlier": [[1, B32, 5]] * 9}, {"earlier": "x"},
        {"charter": -1}, {"charter": 2**63}, {"posters": ["AAAA"]},
        {"posters": [B32] * 65}, {"posters": "x"}, {"said": 2**63}, {"said": True}, {"muted": 1}, {"members": [[B32]]},
        {"members": [[B32, True, 0, False, 0]] * 2}, {"members": [["AAAA", True, 0, False, 0]]},
        {"members": [[B32, 1, 0, False, 0]]}, {"members": [[B32, True, 0, False, 2**32]]},
        {"members": [[B32, True, -1, False, 0]]},
        {"kind": "open"}, {"left": True, "secret": ""}, {"members": [[]] * 1_001},
    ],
    ids=str,
)  # fmt: skip
def test_an_owners_channel_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(LocalError, match="made by a program"):
        opened(owned_with(**change))


def test_channels_are_counted() -> None:
    def joined(count: int, *, left: int = 0) -> tuple[Membership, ...]:
        some = [BroadcastChannel.private(n.to_bytes(32, "big"), f"topic{n}") for n in range(count + left)]
        return tuple(
            Membership(Subscription(replace(c, secret=b"") if n >= count else c, left=n >= count), 0)
            for n, c in enumerate(some)
        )

    most = replace(CONTENTS, channels=joined(INTEREST_MAX, left=CHANNELS_MAX - INTEREST_MAX))
    assert opened(made(most)) == most
    for more in (joined(INTEREST_MAX + 1), joined(0, left=CHANNELS_MAX + 1)):
        with pytest.raises(LocalError, match="made by a program"):
            opened(made(replace(CONTENTS, channels=more)))


def test_a_passphrase_is_the_same_on_every_keyboard() -> None:
    assert passphrase_bytes("Stra\u00dfe \u00e9") == passphrase_bytes("Stra\u00dfe e\u0301")
    for text in ("", "x" * 1_025, "a\udcff"):
        with pytest.raises(LocalError):
            passphrase_bytes(text)


def test_a_new_passphrase_is_not_too_short() -> None:
    check_new_passphrase("eight888")
    with pytest.raises(LocalError, match="8 characters"):
        check_new_passphrase("seven77")


def test_memory_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr("quicprochat.adapters.passphrase.bindings.crypto_pwhash_alg", fail)
    with pytest.raises(UnavailableError, match="MiB of memory"):
        stretch(WORD, bytes(16), COST)
