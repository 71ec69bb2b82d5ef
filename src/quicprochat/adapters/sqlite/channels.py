"""Channels: what this node subscribes to, or did. Their posts are envelopes, and lines of the journal."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from quicprochat.adapters.sqlite.database import Database, Row, checksum, sturdy
from quicprochat.adapters.sqlite.late import Table
from quicprochat.core.channel import Access, BroadcastChannel, Subscription
from quicprochat.core.ids import ID_BYTES, ChannelId, EnvelopeId

_FIXED = struct.Struct(">I?")
_CHANNEL = Table("channel", insert="INSERT OR REPLACE")
_COLUMNS = sturdy("id", "kind", "#epoch", "topic", "#left", "heads", "checksum", "secret")


def _checksum(id: bytes, kind: bytes, epoch: int, topic: bytes, left: int, heads: bytes, secret: bytes) -> bytes:
    return checksum(id, kind, _FIXED.pack(epoch, left), topic, heads, secret)


def _intact(row: Row) -> Subscription | None:
    """Return the subscription of a row, None when the row is not what was written."""
    id, kind, epoch, topic, left, heads, check, secret = row
    try:
        if _checksum(id, kind, epoch, topic, left, heads, secret) != check:
            return None
        channel = BroadcastChannel(ChannelId(id), Access(kind.decode()), secret, epoch, topic.decode())
    except (ValueError, struct.error):
        return None
    ids = (EnvelopeId(heads[at : at + ID_BYTES]) for at in range(0, len(heads), ID_BYTES))
    return Subscription(channel, tuple(ids), bool(left))


class Channels(Database):
    """Subscriptions; see ``MeshStore``."""

    def _forget_cached(self) -> None:
        super()._forget_cached()
        # Each post asks for its channel, and moves its heads.
        self._known: dict[ChannelId, Subscription] = {}

    def put_channel(self, subscription: Subscription) -> None:
        channel, heads, left = subscription.channel, b"".join(subscription.heads), subscription.left
        kind, topic = channel.kind.value, channel.topic
        check = _checksum(channel.id, kind.encode(), channel.epoch, topic.encode(), left, heads, channel.secret)
        row = (channel.id, kind, channel.epoch, topic, left, heads, check, channel.secret)
        self._later(_CHANNEL, channel.id, row)
        self._known[channel.id] = subscription
        self._replaced("channel", channel.id)
        if left:
            # Like a prekey's, its secret must be gone from the disk.
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
