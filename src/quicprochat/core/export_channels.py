"""Channels in an exported identity: what a home knows of each, as JSON (docs/protocol.md §2.5)."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from quicprochat.core.channel import (
    EARLIER_MAX,
    PARENTS_MAX,
    PASSPHRASE_SALT_BYTES,
    SECRET_BYTES,
    Access,
    BroadcastChannel,
    Earlier,
    Member,
    Subscription,
    channel_id,
    check_topic,
)
from quicprochat.core.charter import POSTERS_MAX
from quicprochat.core.crypto import Crypto
from quicprochat.core.ids import ID_BYTES, KEY_BYTES, ChannelId, EnvelopeId, PeerKey
from quicprochat.core.link import INTEREST_MAX
from quicprochat.core.members import MEMBERS_MAX
from quicprochat.core.time import Instant

CHANNELS_MAX = 4_096
"""Channels we are in, at most INTEREST_MAX, and those that were left after posting there."""
COUNTER_MAX = 1 << 63
EPOCH_MAX = 1 << 32
AGE_MAX_MS = 1 << 60


@dataclass(frozen=True, slots=True)
class Membership:
    """A channel that moves, and the number of our last post there: none is given twice, so that a gap shows.

    ``until`` of its earlier secrets is how long they are still kept, counted from when the file was made. Members have
    no letters: messages do not move.
    """

    subscription: Subscription
    last_number: int
    members: tuple[Member, ...] = ()


def membership_document(membership: Membership) -> dict[str, Any]:
    """Return a membership as it stands in the file; what is not there is left out."""
    subscription, channel = membership.subscription, membership.subscription.channel
    document = {
        "id": to_text(channel.id),
        "kind": channel.kind.value,
        "secret": to_text(channel.secret),
        "epoch": channel.epoch,
        "topic": channel.topic,
        "left": subscription.left,
        "heads": [to_text(head) for head in subscription.heads],
        "seq": membership.last_number,
    }
    newer = {
        "owner": to_text(channel.owner),
        "salt": to_text(channel.salt),
        "earlier": [[old.epoch, to_text(old.secret), old.until] for old in subscription.earlier],
        "charter": subscription.charter,
        "posters": [to_text(key) for key in subscription.posters],
        "said": subscription.said,
        "muted": subscription.muted,
        "members": [[to_text(m.peer), m.present, m.said, m.removed, m.epoch] for m in membership.members],
    }
    return document | {key: value for key, value in newer.items() if value}


def memberships(items: Any, crypto: Crypto) -> tuple[Membership, ...]:
    """Read the channels of a file. Raises: KeyError, TypeError, ValueError, LocalError when they are not right."""
    if not isinstance(items, list) or len(items) > CHANNELS_MAX:
        raise ValueError(f"its channels are no list of at most {CHANNELS_MAX}")
    found = tuple(_membership(item, crypto) for item in items)
    channels = [membership.subscription.channel for membership in found]
    joined = [membership.subscription.channel.topic for membership in found if not membership.subscription.left]
    if len({channel.id for channel in channels}) != len(channels) or len(set(joined)) != len(joined):
        raise ValueError("one of its channels is there twice")
    if len(joined) > INTEREST_MAX:
        raise ValueError(f"it is in more than {INTEREST_MAX} channels")
    return found


def _membership(item: Any, crypto: Crypto) -> Membership:
    id, secret, left = from_text(item["id"]), from_text(item["secret"]), flag(item["left"])
    kind, epoch, topic = Access(item["kind"]), number(item["epoch"], EPOCH_MAX), check_topic(item["topic"])
    owner, salt = from_text(item.get("owner", "")), from_text(item.get("salt", ""))
    if len(id) != ID_BYTES or len(secret) != (0 if left else SECRET_BYTES):
        raise ValueError("one of its channels has no proper key")
    first = None if left or epoch else channel_id(secret)
    if kind is Access.OPEN:
        first = BroadcastChannel.open(topic, crypto).id
    if first not in (None, id):
        raise ValueError("one of its channels has the key of another one")
    if len(owner) not in (0, KEY_BYTES) or len(salt) not in (0, PASSPHRASE_SALT_BYTES) or (salt and (left or epoch)):
        raise ValueError("one of its channels has no proper owner or salt")
    if (kind is Access.ANNOUNCEMENT and not owner) or (kind is Access.OPEN and (owner or salt)):
        raise ValueError("one of its channels has an owner that it cannot have")
    channel = BroadcastChannel(ChannelId(id), kind, secret, epoch, topic, owner, salt)
    earlier = tuple(_earlier(*old) for old in _some(item.get("earlier", []), 0 if left else EARLIER_MAX))
    subscription = Subscription(
        channel,
        tuple(map(EnvelopeId, _hashes(item["heads"], PARENTS_MAX))),
        left,
        earlier,
        number(item.get("charter", 0), COUNTER_MAX),
        tuple(map(PeerKey, _hashes(item.get("posters", []), POSTERS_MAX))),
        number(item.get("said", 0), COUNTER_MAX),
        flag(item.get("muted", False)),
    )
    members = tuple(_member(channel.id, *member) for member in _some(item.get("members", []), MEMBERS_MAX))
    if len({member.peer for member in members}) != len(members):
        raise ValueError("one of its channels has a member twice")
    return Membership(subscription, number(item["seq"], COUNTER_MAX), members)


def _earlier(epoch: Any, secret: Any, left_ms: Any) -> Earlier:
    data = from_text(secret)
    if len(data) != SECRET_BYTES:
        raise ValueError("one of its channels has an earlier key that is none")
    return Earlier(number(epoch, EPOCH_MAX), Instant(number(left_ms, AGE_MAX_MS)), data)


def _member(channel: ChannelId, peer: Any, present: Any, said: Any, removed: Any, epoch: Any) -> Member:
    (key,) = _hashes([peer], 1)
    return Member(
        channel, PeerKey(key), flag(present), number(said, COUNTER_MAX), flag(removed), number(epoch, EPOCH_MAX)
    )


def _hashes(items: Any, most: int) -> list[bytes]:
    """Return keys or ids, which have 32 bytes each."""
    found = [from_text(item) for item in _some(items, most)]
    if any(len(item) != ID_BYTES for item in found):
        raise ValueError("one of its channels has ids or keys that are none")
    return found


def _some(items: Any, most: int) -> list[Any]:
    if not isinstance(items, list) or len(items) > most:
        raise ValueError(f"one of its channels has no list of at most {most} where one belongs")
    return items


def to_text(data: bytes) -> str:
    """Return bytes as they stand in JSON."""
    return base64.b64encode(data).decode("ascii")


def from_text(text: Any) -> bytes:
    """Undo :func:`to_text`. Raises: ValueError, TypeError."""
    return base64.b64decode(text, validate=True)


def flag(value: Any) -> bool:
    """Return a switch. Raises: ValueError."""
    if not isinstance(value, bool):
        raise ValueError(f"{value!r:.40} where true or false belongs")
    return value


def number(value: Any, below: int) -> int:
    """Return a whole number below a bound. Raises: ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < below:
        raise ValueError(f"{value!r:.40} where a number belongs")
    return value
