"""Channels: one secret for all members, one key for each post (docs/protocol.md §8).

    id      = SHA-256(D("channel-id") | secret)      of the channel's first secret; the destination of every post
    okm     = HKDF-SHA256(secret, salt 32, D("channel-msg") | dst 32 | src 32 | epoch 4, 64 bytes)
    payload = epoch 4 | salt 32 | com 32 | ChaCha20-Poly1305(key, 0, pad(inner), D("channel-aad") | com | bare core)
              with key = okm[:32] and com = okm[32:]
    inner   = ver 1 | uid 16 | seq 8 | count 1 (0..4) | count * parent id 32
            | domain_len 1 | domain | type 1 | body_len 4 | body      type 1 is a text; charter.py has the others

The bare core is the envelope's, with the payload's length and hash zero, since those depend on the ciphertext. ``com``
commits to the secret: ChaCha20-Poly1305 alone lets one ciphertext open under two keys. Every member holds the secret,
so it proves membership and nothing more; the author is who signed the envelope.
"""

from __future__ import annotations

import difflib
import hashlib
import hmac
import struct
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from quicprochat.core.crypto import Crypto
from quicprochat.core.envelope import (
    FLAG_EMERGENCY,
    PAYLOAD_MAX_BYTES,
    SUITE_X25519,
    TTL_MAX_S,
    Header,
    Kind,
    MeshEnvelope,
)
from quicprochat.core.errors import LocalError, WireError
from quicprochat.core.ids import (
    ID_BYTES,
    UID_BYTES,
    ChannelId,
    EnvelopeId,
    Label,
    PeerKey,
    Uid,
    domain,
    labelled_hash,
)
from quicprochat.core.seal import DOMAIN_MAX_BYTES, TEXT_MAX_BYTES, pad, unpad
from quicprochat.core.time import Instant
from quicprochat.core.wire import Reader, utf8

POST_VERSION = 1
TYPE_TEXT = 1
SECRET_BYTES = 32
PASSPHRASE_SALT_BYTES = 16
SALT_BYTES = 32
COMMITMENT_BYTES = 32
PARENTS_MAX = 4
"""Posts that a post names as read before it; more would buy little order for 32 bytes each."""
TOPIC_MAX_BYTES = 64

Secrets = Mapping[bytes, tuple[tuple[int, bytes], ...]]
"""What opens posts: for each channel's id its epochs and secrets; one epoch may have several."""

_HEAD = struct.Struct(">I32s32s")
_EPOCH = struct.Struct(">I")
_INNER = struct.Struct(">B16sQB")
_RESERVED_STARTS = ("#", "/", "-", "@")
_WILDCARDS = ("*", ">")


class Access(Enum):
    """Who can read a channel, and who can write."""

    OPEN = "open"
    """Whoever knows or guesses its topic, and that is everybody."""
    PRIVATE = "private"
    """Whoever was given its 32 random bytes."""
    ANNOUNCEMENT = "announcement"
    """Read like a private one; texts are taken from its owner, and from those that the owner lists."""


@dataclass(frozen=True, slots=True)
class BroadcastChannel:
    """A channel as one of its members knows it.

    ``id`` stays what it was under the first secret; a new secret comes with the next ``epoch``. ``owner`` is the key of
    who made it, empty where nobody did (an open channel) or it is not known here. ``salt`` is there while the secret
    comes from a passphrase.
    """

    id: ChannelId
    kind: Access
    secret: bytes = field(repr=False)
    epoch: int = 0
    topic: str = ""
    owner: bytes = b""
    salt: bytes = b""

    @classmethod
    def open(cls, topic: str, crypto: Crypto) -> BroadcastChannel:
        """Return the open channel of a topic. Raises: LocalError when it cannot be a topic."""
        secret = open_secret(topic, crypto)
        return cls(channel_id(secret), Access.OPEN, secret, topic=check_topic(topic))

    @classmethod
    def private(cls, secret: bytes, topic: str = "", owner: bytes = b"", *, announce: bool = False) -> BroadcastChannel:
        """Return the private channel, or announcement channel, that begins with this secret of 32 random bytes."""
        assert len(secret) == SECRET_BYTES
        assert owner or not announce, "without an owner nobody could announce anything"
        kind = Access.ANNOUNCEMENT if announce else Access.PRIVATE
        return cls(channel_id(secret), kind, secret, topic=topic, owner=owner)


@dataclass(frozen=True, slots=True)
class Earlier:
    """A secret that a newer one has replaced; it opens what was written before, ``until`` nothing of that can come."""

    epoch: int
    until: Instant
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Subscription:
    """A channel this node is in, or was in: then ``left`` is True and the secrets are gone.

    ``heads`` are the newest posts known that no other one known names as read before it, at most PARENTS_MAX.
    ``earlier`` are replaced secrets, the last replaced first. ``charter`` is the version of the owner's newest charter
    here, 0 for none, and ``posters`` whom it lists. ``said`` counts what we said of ourselves (joined, left); posts of
    a ``muted`` channel come as read ones.
    """

    channel: BroadcastChannel
    heads: tuple[EnvelopeId, ...] = ()
    left: bool = False
    earlier: tuple[Earlier, ...] = ()
    charter: int = 0
    posters: tuple[PeerKey, ...] = ()
    said: int = 0
    muted: bool = False

    def after(self, heads: tuple[EnvelopeId, ...]) -> Subscription:
        """Return it with other heads. (Not ``replace``, which takes three times as long: each post changes them.)"""
        return Subscription(
            self.channel, heads, self.left, self.earlier, self.charter, self.posters, self.said, self.muted
        )

    @property
    def secrets(self) -> tuple[tuple[int, bytes], ...]:
        """Everything that opens posts, each with its epoch; the newest first."""
        return ((self.channel.epoch, self.channel.secret), *((old.epoch, old.secret) for old in self.earlier))


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody who said to be in a channel, or wrote there.

    ``present`` is False once they said that they left. ``said`` numbers their last word about that. On the owner's
    node: ``removed`` by a rotation; ``letter`` is the message that brings them the secret of ``epoch``, empty for none.
    """

    channel: ChannelId
    peer: PeerKey
    present: bool = True
    said: int = 0
    removed: bool = False
    epoch: int = 0
    letter: bytes = b""


EARLIER_MAX = 8
"""Replaced secrets kept for one channel: an owner that rotates all the time must not fill our memory."""
EARLIER_KEEP_MS = TTL_MAX_S * 1_000
"""How long a replaced secret is kept: as long as a post that was sealed with it may be under way."""


def entered(known: Subscription | None, channel: BroadcastChannel, now: Instant) -> Subscription:
    """Return the subscription to a channel that we join, perhaps again, or of which we learn more: a newer secret, who
    its owner is. What is known stays: whoever joins again must not take an old charter for a new one."""
    if known is None:
        return Subscription(channel)
    old = known.channel
    if not channel.owner:  # a bare key says nothing of it
        channel = replace(channel, owner=old.owner, kind=old.kind)
    if known.left:
        return replace(known, channel=channel, left=False)
    known = replace(known, channel=replace(old, owner=old.owner or channel.owner, kind=channel.kind))
    return told(known, channel.epoch, channel.secret, now)


def renewed(known: Subscription, epoch: int, secret: bytes, now: Instant) -> Subscription:
    """Return a subscription with a secret that takes the place of the one in use, which goes on opening for a while."""
    old = known.channel
    if (epoch, secret) in known.secrets:
        return known
    replaced = Earlier(old.epoch, Instant(now + EARLIER_KEEP_MS), old.secret)
    channel = replace(old, epoch=epoch, secret=secret, salt=b"")
    return replace(known, channel=channel, earlier=(replaced, *known.earlier)[:EARLIER_MAX])


def told(known: Subscription, epoch: int, secret: bytes, now: Instant) -> Subscription:
    """Return a subscription with one more secret, of which the newest epoch is written with; they come in any order."""
    if epoch >= known.channel.epoch or (epoch, secret) in known.secrets:
        return renewed(known, epoch, secret, now)
    late = Earlier(epoch, Instant(now + EARLIER_KEEP_MS), secret)
    return replace(known, earlier=(late, *known.earlier)[:EARLIER_MAX])


def secrets_of(subscriptions: Iterable[Subscription]) -> Secrets:
    """Return what opens the posts of all channels we are in."""
    return {one.channel.id: one.secrets for one in subscriptions if not one.left}


def heads_after(heads: tuple[EnvelopeId, ...], id: EnvelopeId, parents: Iterable[EnvelopeId]) -> tuple[EnvelopeId, ...]:
    """Return a channel's heads with one more post: it takes the place of those it names as read before it."""
    answered = {id, *parents}
    return (*(head for head in heads if head not in answered), id)[-PARENTS_MAX:]


@dataclass(frozen=True, slots=True)
class Post:
    """What is inside a channel frame; its author is the envelope's.

    ``seq`` counts this author's texts in this channel from 1, so that a gap shows; ``parents`` are texts the author
    had read, so that answers stand below what they answer. A post of another ``type`` has a ``body`` in place of the
    text, and is for programs.
    """

    uid: Uid
    seq: int
    text: str
    parents: tuple[EnvelopeId, ...] = ()
    domain: str = ""
    type: int = TYPE_TEXT
    body: bytes = b""


def check_topic(topic: str) -> str:
    """Return a topic in the form that is hashed (NFC). Raises: LocalError with what is wrong.

    Unassigned characters are not printable, so two nodes never normalise a topic that both accept differently.
    """
    normal = unicodedata.normalize("NFC", topic)
    if not normal or not normal.isprintable() or " " in normal:
        raise LocalError("a topic is one word of visible characters")
    if any(sign in normal for sign in _WILDCARDS):
        raise LocalError(f"a topic has none of {' '.join(_WILDCARDS)} in it: each channel is subscribed to by its name")
    if normal.startswith(_RESERVED_STARTS):
        raise LocalError(f"a topic does not begin with one of {' '.join(_RESERVED_STARTS)}")
    if len(normal.encode("utf-8")) > TOPIC_MAX_BYTES:
        raise LocalError(f"a topic has at most {TOPIC_MAX_BYTES} bytes", code="too_long")
    return normal


def near_topic(topic: str, topics: Iterable[str]) -> str:
    """Return which of these topics may have been meant by one with a slip in it, "" where none is near."""
    folded = {one.casefold(): one for one in topics}
    found = difflib.get_close_matches(topic.casefold(), folded, n=1)
    return folded[found[0]] if found else ""


def open_secret(topic: str, crypto: Crypto) -> bytes:
    """Return the secret of an open channel, which anybody can compute.

    HKDF-SHA256(SHA-256(NFC(topic) in UTF-8), no salt, D("channel-topic"), 32 bytes). Raises: LocalError.
    """
    name = hashlib.sha256(check_topic(topic).encode("utf-8")).digest()
    return crypto.hkdf(name, b"", domain(Label.CHANNEL_TOPIC), SECRET_BYTES)


def channel_id(secret: bytes) -> ChannelId:
    """Return the id of the channel that begins with this secret."""
    return ChannelId(labelled_hash(Label.CHANNEL_ID, secret))


def encode_post(post: Post) -> bytes:
    """Return the inner bytes. Raises: LocalError when something in it is too long or no text."""
    home = utf8(post.domain, "the home domain")
    body = utf8(post.text, "the text") if post.type == TYPE_TEXT else post.body
    if len(body) > TEXT_MAX_BYTES:
        raise LocalError(f"the text has {len(body)} bytes; a post holds {TEXT_MAX_BYTES}", code="too_long")
    if len(home) > DOMAIN_MAX_BYTES:
        raise LocalError(f"the home domain has {len(home)} bytes; {DOMAIN_MAX_BYTES} are allowed")
    assert len(post.uid) == UID_BYTES
    assert len(post.parents) <= PARENTS_MAX
    return b"".join((
        _INNER.pack(POST_VERSION, post.uid, post.seq, len(post.parents)), *post.parents,
        bytes([len(home)]), home, bytes([post.type]), len(body).to_bytes(4, "big"), body,
    ))  # fmt: skip


def decode_post(inner: bytes) -> Post:
    """Read the inner bytes. Raises: WireError."""
    reader = Reader(inner, "a post")
    version, uid, seq, count = _INNER.unpack(reader.take(_INNER.size))
    if version != POST_VERSION:
        raise WireError(f"a post of version {version}")
    if count > PARENTS_MAX:
        raise WireError(f"a post with {count} parents; {PARENTS_MAX} are allowed")
    named = reader.take(count * ID_BYTES)
    parents = tuple([EnvelopeId(named[at : at + ID_BYTES]) for at in range(0, len(named), ID_BYTES)])
    home = reader.text(1, DOMAIN_MAX_BYTES)
    if not (kind := reader.uint(1)):
        raise WireError("a post of type 0")
    text, body = "", b""
    if kind == TYPE_TEXT:
        text = reader.text(4, TEXT_MAX_BYTES)
    else:
        body = reader.sized(4, TEXT_MAX_BYTES)
    reader.end()
    return Post(Uid(uid), seq, text, parents, home, kind, body)


def _key_and_commitment(
    of: Header | MeshEnvelope, secret: bytes, epoch: int, salt: bytes, crypto: Crypto
) -> tuple[bytes, bytes]:
    info = b"".join((domain(Label.CHANNEL_MESSAGE), of.dst, of.src, _EPOCH.pack(epoch)))
    okm = crypto.hkdf(secret, salt, info, 32 + COMMITMENT_BYTES)
    return okm[:32], okm[32:]


def _aad(of: Header | MeshEnvelope, commitment: bytes) -> bytes:
    return domain(Label.CHANNEL_AAD) + commitment + of.bare_core


def seal_post(header: Header, secret: bytes, epoch: int, salt: bytes, post: Post, crypto: Crypto) -> bytes:
    """Return the payload of a post.

    ``salt`` are 32 fresh random bytes: the key comes from them, and it must never seal twice. Raises: LocalError when
    the post is too long.
    """
    assert header.kind == Kind.CHANNEL
    assert len(salt) == SALT_BYTES
    key, commitment = _key_and_commitment(header, secret, epoch, salt, crypto)
    sealed = crypto.aead_seal(key, pad(encode_post(post)), _aad(header, commitment))
    payload = _HEAD.pack(epoch, salt, commitment) + sealed
    if len(payload) > PAYLOAD_MAX_BYTES:
        raise LocalError("the post does not fit into an envelope: send it in parts", code="too_long")
    return payload


def post_epoch(envelope: MeshEnvelope) -> int | None:
    """Return the epoch a post says it was sealed in, to choose the secrets worth trying; None for what is no post."""
    if envelope.kind != Kind.CHANNEL or len(envelope.payload) < _HEAD.size:
        return None
    return int(_EPOCH.unpack_from(envelope.payload)[0])


def lacks_key(envelope: MeshEnvelope, secrets: Iterable[tuple[int, bytes]]) -> bool:
    """Say whether a post says to be of an epoch that none of a channel's secrets is for."""
    epoch = post_epoch(envelope)
    return epoch is not None and all(epoch != known for known, _ in secrets)


def open_post(envelope: MeshEnvelope, secret: bytes, crypto: Crypto) -> Post | None:
    """Open a post whose outer signature was checked; None when it does not open with this secret, for whatever reason.

    The commitment is compared first, so a ciphertext made to open under several keys opens under none.
    """
    if envelope.kind != Kind.CHANNEL or envelope.suite != SUITE_X25519 or envelope.flags & ~FLAG_EMERGENCY:
        return None
    if len(envelope.payload) < _HEAD.size:
        return None
    epoch, salt, claimed = _HEAD.unpack_from(envelope.payload)
    key, commitment = _key_and_commitment(envelope, secret, epoch, salt, crypto)
    if not hmac.compare_digest(commitment, claimed):
        return None
    plain = crypto.aead_open(key, envelope.payload[_HEAD.size :], _aad(envelope, commitment))
    if plain is None:
        return None
    try:
        return decode_post(unpad(plain))
    except WireError:
        return None


def open_with(envelope: MeshEnvelope, secrets: Iterable[tuple[int, bytes]], crypto: Crypto) -> Post | None:
    """Open a post with whichever of a channel's secrets fits its epoch; None when none does."""
    epoch = post_epoch(envelope)
    for of, secret in secrets:
        if of == epoch and (post := open_post(envelope, secret, crypto)) is not None:
            return post
    return None
