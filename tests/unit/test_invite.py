"""Invites: one string for one channel, and a typing error in it is noticed."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.conformance.vectors import Case, each

from quicprochat.adapters.crypto import SodiumCrypto
from quicprochat.core.channel import Access, BroadcastChannel, channel_id
from quicprochat.core.errors import LocalError
from quicprochat.core.export import Cost
from quicprochat.core.ids import Label, domain, labelled_hash
from quicprochat.core.invite import (
    INVITE_PREFIX,
    PASSPHRASE_COST,
    Invite,
    check_channel_passphrase,
    passphrase_secret,
)

CRYPTO = SodiumCrypto(lambda count: bytes(count))
SECRET, OWNER, SALT = bytes(range(32)), b"\x07" * 32, b"salt" * 4
FAMILY = BroadcastChannel.private(SECRET, "family", OWNER)
NEWS = BroadcastChannel.private(SECRET, "Grüße", OWNER, announce=True)
KINDS = [
    FAMILY,
    NEWS,
    BroadcastChannel.private(SECRET, "no-owner"),
    replace(FAMILY, epoch=2**32 - 1, secret=b"\x01" * 32),
    replace(NEWS, epoch=1, secret=b"\x01" * 32),
]


def written(body: bytes) -> str:
    """The invite that has this body, with a right checksum."""
    check = labelled_hash(Label.INVITE, body)[:4]
    return INVITE_PREFIX + base64.b32encode(body + check).decode().rstrip("=").lower()


def body_of(text: str) -> bytes:
    code = text[len(INVITE_PREFIX) :].upper()
    return base64.b32decode(code + "=" * (-len(code) % 8))[:-4]


@pytest.mark.parametrize("channel", KINDS)
def test_an_invite_gives_the_channel_back(channel: BroadcastChannel) -> None:
    text = str(Invite.of(channel))
    assert Invite.parse(text).channel() == channel
    assert Invite.parse(f" {text.upper()}\n").channel() == channel, "scanned in capitals"
    assert channel.secret.hex() not in repr(Invite.parse(text))


def test_an_invite_is_as_specified() -> None:
    body = b"\x05" + bytes(4) + SECRET + OWNER + b"\x07" + "Grüße".encode()
    assert str(Invite.of(NEWS)) == written(body)
    later = replace(FAMILY, epoch=3, secret=b"\x01" * 32)
    body = b"\x04\x00\x00\x00\x03" + b"\x01" * 32 + OWNER + FAMILY.id + b"\x06family"
    assert str(Invite.of(later)) == written(body)


def test_an_open_channel_has_no_invite() -> None:
    with pytest.raises(LocalError, match="whoever knows the topic"):
        Invite.of(BroadcastChannel.open("village", CRYPTO))


def test_a_passphrase_is_not_in_the_invite_nor_is_the_secret() -> None:
    channel = replace(FAMILY, salt=SALT)
    invite = Invite.of(channel)
    assert SECRET not in body_of(str(invite))
    assert body_of(str(invite)) == b"\x06" + bytes(4) + SALT + OWNER + FAMILY.id + b"\x06family"
    again = Invite.parse(str(invite))
    assert (again.secret, again.salt) == (b"", SALT)
    assert again.channel(SECRET) == channel
    with pytest.raises(LocalError, match="not the passphrase of that channel") as refused:
        again.channel(b"\x01" * 32)
    assert refused.value.code == "untrusted"


def test_once_the_secret_was_renewed_the_passphrase_has_no_part_in_the_invite() -> None:
    assert Invite.of(replace(FAMILY, epoch=1, secret=b"\x01" * 32)).salt == b""


def test_a_secret_comes_from_a_passphrase_as_specified() -> None:
    asked: list[tuple[bytes, bytes, Cost]] = []

    def stretch(passphrase: bytes, salt: bytes, cost: Cost) -> bytes:
        asked.append((passphrase, salt, cost))
        return b"\x09" * 32

    secret = passphrase_secret(b"correct horse", SALT, stretch, CRYPTO)
    assert secret == CRYPTO.hkdf(b"\x09" * 32, b"", domain(Label.CHANNEL_PASSPHRASE), 32)
    assert asked == [(b"correct horse", SALT, PASSPHRASE_COST)]


def test_a_passphrase_that_is_guessed_in_a_moment_is_refused() -> None:
    assert check_channel_passphrase("12345678") == b"12345678"
    with pytest.raises(LocalError, match="8 characters or more"):
        check_channel_passphrase("1234567")


def test_every_mistyped_character_is_noticed() -> None:
    text = str(Invite.of(FAMILY))
    for at in range(len(INVITE_PREFIX), len(text)):
        wrong = text[:at] + ("b" if text[at] != "b" else "c") + text[at + 1 :]
        with pytest.raises(LocalError, match="has a mistake in it"):
            Invite.parse(wrong)


def test_two_exchanged_characters_and_every_missing_end_are_noticed() -> None:
    text = str(Invite.of(FAMILY))
    for at in range(len(INVITE_PREFIX), len(text) - 1):
        if text[at] != text[at + 1]:
            with pytest.raises(LocalError, match="mistake"):
                Invite.parse(text[:at] + text[at + 1] + text[at] + text[at + 2 :])
    for size in range(len(INVITE_PREFIX), len(text)):
        with pytest.raises(LocalError, match="mistake"):
            Invite.parse(text[:size])


@pytest.mark.parametrize("text", ["", "hello", "qpc1abc", "qpci2abc", "q", "\u0455pci1abc", "http://example.org"])
def test_what_is_no_invite_is_called_none(text: str) -> None:
    with pytest.raises(LocalError, match="begins with qpci1"):
        Invite.parse(text)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body + b"!",
        lambda body: body[:-1],
        lambda body: b"\x01" + body[1:],  # an announcement channel without an owner: what follows means something else
        lambda body: b"\x06" + body[1:],
        lambda body: body[:-6] + b"fami*y",
        lambda body: body[:-6] + b"fami\0y",
        lambda body: body[:-6] + b"\xe2\x80\xaefam",
        lambda body: body[:-6] + b"\xff\xff\xff\xff\xff\xff",
        lambda body: body[:-7] + b"\x41" + b"t" * 65,
        lambda body: b"\x01" + bytes(4) + SECRET + b"\x06family",
        lambda body: b"\x06\x00\x00\x00\x01" + SALT + OWNER + FAMILY.id + b"\x06family",
    ],
)
def test_an_invite_to_a_channel_that_cannot_be_is_refused(change: Callable[[bytes], bytes]) -> None:
    good = body_of(str(Invite.of(FAMILY)))
    assert Invite.parse(written(good)).channel() == FAMILY
    with pytest.raises(LocalError, match="mistake"):
        Invite.parse(written(change(good)))


def test_an_invite_of_a_later_version_is_called_that() -> None:
    good = body_of(str(Invite.of(FAMILY)))
    with pytest.raises(LocalError, match="newer version"):
        Invite.parse(written(b"\x0c" + good[1:]))


def test_an_invite_is_written_in_one_way_only() -> None:
    text = str(Invite.of(replace(FAMILY, topic="ab")))
    with pytest.raises(LocalError):
        Invite.parse(text + "=")
    # Unused bits at the end of the last character.
    letters = "abcdefghijklmnopqrstuvwxyz234567"
    size = len(text) - len(INVITE_PREFIX)
    assert size * 5 % 8, "there are unused bits to set"
    with pytest.raises(LocalError):
        Invite.parse(text[:-1] + letters[letters.index(text[-1]) | 1])


def test_an_enormous_invite_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(code: str) -> bytes:
        raise AssertionError("read")

    monkeypatch.setattr("quicprochat.core.invite.base64.b32decode", read)
    with pytest.raises(LocalError, match="mistake"):
        Invite.parse(INVITE_PREFIX + "a" * 10_000_000)


@each("invites")
def test_the_vectors_are_invites(case: Case) -> None:
    found = Invite.parse(case["invite"])
    assert (found.id, found.topic, found.epoch, found.owner) == (
        case["id"], case["topic"], case["epoch"], case["owner"]
    )  # fmt: skip
    assert (found.secret, found.salt, found.kind) == (case["secret"], case["salt"], Access(case["kind"]))
    assert str(found) == case["invite"]
    if found.secret and not found.epoch:
        assert channel_id(found.secret) == found.id


@each("invites_refused")
def test_the_vectors_that_are_none_are_refused(case: Case) -> None:
    with pytest.raises(LocalError):
        Invite.parse(case["invite"])
