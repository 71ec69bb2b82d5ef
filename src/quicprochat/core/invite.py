"""Invites: what one member hands another to be let into a private or an announcement channel (docs/protocol.md §8.4).

    invite = "qpci1" | base32, small letters, no padding, of (body | check 4)
    body   = flags 1 | epoch 4 | key | owner | id | topic_len 1 | topic
    key    = secret 32, or with the flag PASSPHRASE salt 16 (the secret comes from the passphrase, which is not in it)
    owner  = key 32 with the flag OWNER, else nothing
    id     = channel id 32 where it does not follow from the secret (PASSPHRASE, or an epoch above 0), else nothing
    check  = the first 4 bytes of SHA-256(D("invite") | body)

One channel has one invite, so that two people can compare theirs. What it says of the owner is the giver's word.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

from quicprochat.core.channel import (
    PASSPHRASE_SALT_BYTES,
    SECRET_BYTES,
    TOPIC_MAX_BYTES,
    Access,
    BroadcastChannel,
    channel_id,
    check_topic,
)
from quicprochat.core.crypto import Crypto
from quicprochat.core.errors import LocalError, WireError
from quicprochat.core.export import Cost, Stretch, passphrase_bytes
from quicprochat.core.ids import ID_BYTES, KEY_BYTES, ChannelId, Label, domain, labelled_hash
from quicprochat.core.wire import Reader, utf8

INVITE_PREFIX = "qpci1"
INVITE_MAX_CHARS = 400
CHECK_BYTES = 4
ANNOUNCEMENT, PASSPHRASE, OWNER = 1, 2, 4
_KNOWN_FLAGS = ANNOUNCEMENT | PASSPHRASE | OWNER

PASSPHRASE_COST = Cost(3, 64 << 10)
"""The second recommendation of RFC 9106 §4, with one lane: 64 MiB, which a small board with 1 GB bears. Fixed, so that
no invite can ask for more."""
PASSPHRASE_MIN_CHARS = 8


@dataclass(frozen=True, slots=True)
class Invite:
    """A channel as an invite tells it. ``secret`` is empty, and ``salt`` is not, where a passphrase must be known."""

    id: ChannelId
    kind: Access
    topic: str
    epoch: int = 0
    owner: bytes = b""
    secret: bytes = field(default=b"", repr=False)
    salt: bytes = b""

    @classmethod
    def of(cls, channel: BroadcastChannel) -> Invite:
        """Return the invite to a channel that we are in. Raises: LocalError for an open one, which needs none."""
        if channel.kind is Access.OPEN:
            raise LocalError(
                f"{channel.topic} is an open channel: whoever knows the topic is in it with: "
                f"qpc mesh subscribe {channel.topic}"
            )
        secret = b"" if channel.salt else channel.secret
        return cls(channel.id, channel.kind, channel.topic, channel.epoch, channel.owner, secret, channel.salt)

    def __str__(self) -> str:
        flags = (
            ANNOUNCEMENT * (self.kind is Access.ANNOUNCEMENT) | PASSPHRASE * bool(self.salt) | OWNER * bool(self.owner)
        )
        topic = utf8(self.topic, "the topic")
        id = self.id if self.salt or self.epoch else b""
        head = bytes([flags]) + self.epoch.to_bytes(4, "big")
        body = b"".join((head, self.secret or self.salt, self.owner, id, bytes([len(topic)]), topic))
        return INVITE_PREFIX + base64.b32encode(body + _check(body)).decode("ascii").rstrip("=").lower()

    @classmethod
    def parse(cls, text: str) -> Invite:
        """Read an invite; the checksum catches a typing error. Raises: LocalError."""
        text = text.strip().lower() if text.isascii() else ""
        if not text.startswith(INVITE_PREFIX):
            raise LocalError(f"this is no invite: an invite begins with {INVITE_PREFIX}, and qpc mesh invite prints it")
        try:
            invite = _decoded(text[len(INVITE_PREFIX) :])
        except (WireError, ValueError):
            raise LocalError(
                "this invite has a mistake in it, or a part of it is missing: copy the whole of it once more"
            ) from None
        if str(invite) != text:
            raise LocalError("this invite is not written as invites are: ask for it once more")
        return invite

    def channel(self, secret: bytes = b"") -> BroadcastChannel:
        """Return the channel; ``secret`` is what the passphrase gave. Raises: LocalError when it is another's."""
        secret = self.secret or secret
        if not self.epoch and channel_id(secret) != self.id:
            raise LocalError("this is not the passphrase of that channel; nothing was joined", code="untrusted")
        return BroadcastChannel(self.id, self.kind, secret, self.epoch, self.topic, self.owner, self.salt)


def _check(body: bytes) -> bytes:
    return labelled_hash(Label.INVITE, body)[:CHECK_BYTES]


def _decoded(code: str) -> Invite:
    if len(code) > INVITE_MAX_CHARS:
        raise WireError("too long for an invite")
    data = base64.b32decode(code.upper() + "=" * (-len(code) % 8))
    body, check = data[:-CHECK_BYTES], data[-CHECK_BYTES:]
    if _check(body) != check:
        raise WireError("wrong checksum")
    reader = Reader(body, "an invite")
    flags, epoch = reader.uint(1), reader.uint(4)
    if flags & ~_KNOWN_FLAGS:
        raise LocalError("this invite is of a newer version of this program, which you need to join that channel")
    by_passphrase = bool(flags & PASSPHRASE)
    key = reader.take(PASSPHRASE_SALT_BYTES if by_passphrase else SECRET_BYTES)
    owner = reader.take(KEY_BYTES) if flags & OWNER else b""
    id = ChannelId(reader.take(ID_BYTES) if by_passphrase or epoch else channel_id(key))
    topic = reader.text(1, TOPIC_MAX_BYTES)
    reader.end()
    if (by_passphrase and epoch) or (flags & ANNOUNCEMENT and not owner) or _topic(topic) != topic:
        raise WireError("an invite to a channel that cannot be")
    kind = Access.ANNOUNCEMENT if flags & ANNOUNCEMENT else Access.PRIVATE
    secret, salt = (b"", key) if by_passphrase else (key, b"")
    return Invite(id, kind, topic, epoch, owner, secret, salt)


def _topic(topic: str) -> str:
    try:
        return check_topic(topic)
    except LocalError:
        raise WireError("an invite with a topic that is none") from None


def check_channel_passphrase(text: str) -> bytes:
    """Return a new passphrase as it is stretched. Raises: LocalError when it is guessed in a moment."""
    if len(text) < PASSPHRASE_MIN_CHARS:
        raise LocalError(
            f"a channel's passphrase has {PASSPHRASE_MIN_CHARS} characters or more; five random words are better, since"
            " whoever has an invite or sees your posts can try guesses for years"
        )
    return passphrase_bytes(text)


def passphrase_secret(passphrase: bytes, salt: bytes, stretch: Stretch, crypto: Crypto) -> bytes:
    """Return the first secret of a channel that a passphrase opens. Takes a second on a small board.

    HKDF-SHA256(Argon2id(passphrase, salt, PASSPHRASE_COST), no salt, D("channel-pass"), 32 bytes).
    """
    stretched = stretch(passphrase, salt, PASSPHRASE_COST)
    return crypto.hkdf(stretched, b"", domain(Label.CHANNEL_PASSPHRASE), SECRET_BYTES)
