"""Channels: what this node is in, or was, and who else is. Their posts are envelopes, and lines of the journal."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from quicprochat.adapters.sqlite.database import Database, Row, checksum, sturdy
from quicprochat.adapters.sqlite.late import Table
from quicprochat.core.channel import SECRET_BYTES, Access, BroadcastChannel, Earlier, Member, Subscription
from quicprochat.core.ids import ID_BYTES, KEY_BYTES, ChannelId, EnvelopeId, PeerKey
from quicprochat.core.time import Instant

_FIXED = struct.Struct(">I?")
_CHANNEL = Table("channel", insert="INSERT OR REPLACE", row=lambda subscription: _row(subscription))
_NEWER = struct.Struct(">qq?")
_EARLIER = struct.Struct(f">Iq{SECRET_BYTES}s")
_MEMBER = struct.Struct(">?q?I")
_COLUMNS = sturdy(
    "id", "kind", "#epoch", "topic", "#left", "heads", "checksum", "secret",
    "owner", "salt", "earlier", "#charter", "posters", "#said", "#muted",
)  # fmt: skip
_MEMBER_COLUMNS = "n, " + sturdy("channel", "peer", "#present", "#said", "#removed", "#epoch", "letter", "checksum")


def _parts(id: bytes, kind: bytes, epoch: int, topic: bytes, left: int, heads: bytes, secret: bytes) -> list[bytes]:
    return [id, kind, _FIXED.pack(epoch, left), topic, heads, secret]


def _newer_parts(
    owner: bytes, salt: bytes, earlier: bytes, charter: int, posters: bytes, said: int, muted: int
) -> tuple[bytes, ...]:
    """Return what a checksum covers of columns that came later: nothing where a row of before has their defaults."""
    if not (owner or salt or earlier or charter or posters or said or muted):
        return ()
    return (owner, salt, earlier, posters, _NEWER.pack(charter, said, muted))


def _row(subscription: Subscription) -> Row:
    channel, left = subscription.channel, subscription.left
    heads, posters = b"".join(subscription.heads), b"".join(subscription.posters)
    earlier = b"".join(_EARLIER.pack(old.epoch, old.until, old.secret) for old in subscription.earlier)
    kind, topic = channel.kind.value, channel.topic
    newer = (
        channel.owner, channel.salt, earlier, subscription.charter, posters, subscription.said, subscription.muted
    )  # fmt: skip
    parts = _parts(channel.id, kind.encode(), channel.epoch, topic.encode(), left, heads, channel.secret)
    check = checksum(*parts, *_newer_parts(*newer))
    return (channel.id, kind, channel.epoch, topic, left, heads, check, channel.secret, *newer)


def _pieces(data: bytes, size: int) -> list[bytes]:
    if len(data) % size:
        raise ValueError("a list that does not end with its last piece")
    return [data[at : at + size] for at in range(0, len(data), size)]


def _intact(row: Row) -> Subscription | None:
    """Return the subscription of a row, None when the row is not what was written."""
    id, kind, epoch, topic, left, heads, check, secret, *newer = row
    owner, salt, earlier, charter, posters, said, muted = newer
    try:
        parts = _parts(id, kind, epoch, topic, left, heads, secret)
        if checksum(*parts, *_newer_parts(owner, salt, earlier, charter, posters, said, muted)) != check:
            return None
        channel = BroadcastChannel(ChannelId(id), Access(kind.decode()), secret, epoch, topic.decode(), owner, salt)
        return Subscription(
            channel,
            tuple(map(EnvelopeId, _pieces(heads, ID_BYTES))),
            bool(left),
            tuple(Earlier(of, Instant(until), old) for of, until, old in _EARLIER.iter_unpack(earlier)),
            charter,
            tuple(map(PeerKey, _pieces(posters, KEY_BYTES))),
            said,
            bool(muted),
        )
    except (ValueError, struct.error):
        return None


def _member_checksum(
    channel: bytes, peer: bytes, present: int, said: int, removed: int, epoch: int, letter: bytes
) -> bytes:
    return checksum(channel, peer, _MEMBER.pack(present, said, removed, epoch), letter)


def _intact_member(row: Row) -> Member | None:
    _n, channel, peer, present, said, removed, epoch, letter, check = row
    try:
        if _member_checksum(channel, peer, present, said, removed, epoch, letter) != check:
            return None
    except struct.error:
        return None
    return Member(ChannelId(channel), PeerKey(peer), bool(present), said, bool(removed), epoch, letter)


class Channels(Database):
    """Subscriptions and members; see ``MeshStore``."""

    def _forget_cached(self) -> None:
        super()._forget_cached()
        # Each post asks for its channel, and moves its heads.
        self._known: dict[ChannelId, Subscription] = {}

    def put_channel(self, subscription: Subscription, *, scrub: bool = False) -> None:
        id = subscription.channel.id
        self._later(_CHANNEL, id, subscription)
        self._known[id] = subscription
        self._replaced("channel", id)
        if subscription.left or scrub:
            # Like a prekey's, a secret must be gone from the disk.
            self._scrub = True

    def channel(self, id: ChannelId) -> Subscription | None:
        if (known := self._known.get(id)) is not None:
            return known
        rows = self._rows(f"SELECT {_COLUMNS} FROM channel WHERE id = ?", (id,))
        found = self._whole("channel", rows, _intact)
        if found:
            self._known[id] = found[0]
        return found[0] if found else None

    def channels(self) -> Sequence[Subscription]:
        return self._whole("channel", self._rows(f"SELECT {_COLUMNS} FROM channel ORDER BY id"), _intact)

    def put_member(self, member: Member) -> None:
        fields = (
            member.channel, member.peer, member.present, member.said, member.removed, member.epoch, member.letter
        )  # fmt: skip
        self._run(
            "INSERT INTO channel_member VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (channel, peer) DO UPDATE "
            "SET present = excluded.present, said = excluded.said, removed = excluded.removed, epoch = excluded.epoch, "
            "letter = excluded.letter, checksum = excluded.checksum",
            (*fields, _member_checksum(*fields)),
        )

    def member(self, channel: ChannelId, peer: PeerKey) -> Member | None:
        # Found by the index, read from the table; see Messages._only.
        rows = self._rows(
            f"SELECT {_MEMBER_COLUMNS} FROM channel_member WHERE n = "
            "(SELECT n FROM channel_member WHERE channel = ? AND peer = ?)",
            (channel, peer),
        )
        found = self._whole("channel_member", rows, _intact_member)
        return found[0] if found else None

    def members(self, channel: ChannelId) -> Sequence[Member]:
        rows = self._rows(
            f"SELECT {_MEMBER_COLUMNS} FROM channel_member WHERE n IN "
            "(SELECT n FROM channel_member WHERE channel = ?) ORDER BY peer",
            (channel,),
        )
        return self._whole("channel_member", rows, _intact_member)

    def drop_members(self, channel: ChannelId) -> None:
        self._run("DELETE FROM channel_member WHERE channel = ?", (channel,))
