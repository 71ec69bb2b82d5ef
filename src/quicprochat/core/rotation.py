"""A channel's secret on its way from the owner to a member, inside a direct message (docs/protocol.md §8.6).

    body = channel id 32 | epoch 4 | secret 32

A sent one is remembered without its secret, so that it is nowhere but in the channel itself, and goes with that.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from quicprochat.core.channel import SECRET_BYTES, Subscription
from quicprochat.core.errors import WireError
from quicprochat.core.ids import ID_BYTES, ChannelId, PeerKey
from quicprochat.core.store import MeshStore

_BODY = struct.Struct(f">{ID_BYTES}sI{SECRET_BYTES}s")
EPOCH_LAST = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class ChannelKey:
    """The secret of one epoch of a channel."""

    channel: ChannelId
    epoch: int
    secret: bytes = field(repr=False)

    def encode(self) -> bytes:
        """Return the body of the message."""
        return _BODY.pack(self.channel, self.epoch, self.secret)

    @classmethod
    def decode(cls, body: bytes) -> ChannelKey:
        """Read the body of the message. Raises: WireError."""
        if len(body) != _BODY.size:
            raise WireError(f"a channel's key of {len(body)} bytes")
        channel, epoch, secret = _BODY.unpack(body)
        return cls(ChannelId(channel), epoch, secret)

    @property
    def reference(self) -> str:
        """What is kept of a sent one in place of a text."""
        return f"{self.channel.hex()} {self.epoch}"


def recalled(store: MeshStore, reference: str) -> ChannelKey | None:
    """Return what a reference stands for; None when the channel was left, or the secret let go."""
    id, _, epoch = reference.partition(" ")
    subscription = store.channel(ChannelId(bytes.fromhex(id)))
    if subscription is None or subscription.left:
        return None
    found = next((secret for of, secret in subscription.secrets if of == int(epoch)), None)
    return ChannelKey(subscription.channel.id, int(epoch), found) if found is not None else None


def wanted(store: MeshStore, body: bytes, author: PeerKey) -> tuple[ChannelKey, Subscription] | None:
    """Return a key that came, and the channel that it is for; None unless it comes from the owner of one we are in."""
    try:
        key = ChannelKey.decode(body)
    except WireError:
        return None
    subscription = store.channel(key.channel)
    if subscription is None or subscription.left or subscription.channel.owner != author:
        return None
    return key, subscription
