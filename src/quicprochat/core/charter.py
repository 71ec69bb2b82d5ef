"""What a channel's owner and members say of the channel itself, in posts that nobody is shown (docs/protocol.md §8.5).

    charter = version 8 | count 1 (0..64) | count * key 32, ascending     by the owner: who else writes texts
    word    = state 1 (1 joined, 2 left) | number 8                       by a member: the highest number counts

Both stand where a text has its body. Such posts have no number and no parents: numbers and order are those of texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from quicprochat.core.channel import TYPE_TEXT, Access, Post, Subscription
from quicprochat.core.errors import WireError
from quicprochat.core.ids import KEY_BYTES, PeerKey
from quicprochat.core.wire import Reader

TYPE_CHARTER = 2
TYPE_WORD = 3
POSTERS_MAX = 64
"""Posters beside the owner: bounds what each post of an announcement channel is compared with."""
NUMBER_MAX = (1 << 63) - 1
_JOINED, _LEFT = 1, 2


@dataclass(frozen=True, slots=True)
class Charter:
    """Whom the owner of an announcement channel lets write there; a higher version takes the place of a lower."""

    version: int
    posters: tuple[PeerKey, ...] = ()

    def encode(self) -> bytes:
        """Return the body of the post."""
        assert 0 < self.version <= NUMBER_MAX
        assert len(self.posters) <= POSTERS_MAX
        return self.version.to_bytes(8, "big") + bytes([len(self.posters)]) + b"".join(sorted(self.posters))

    @classmethod
    def decode(cls, body: bytes) -> Charter:
        """Read the body of the post. Raises: WireError."""
        reader = Reader(body, "a charter")
        version, count = reader.uint(8), reader.uint(1)
        if not 0 < version <= NUMBER_MAX:
            raise WireError(f"a charter of version {version}")
        if count > POSTERS_MAX:
            raise WireError(f"a charter with {count} posters; {POSTERS_MAX} are allowed")
        posters = tuple(PeerKey(reader.take(KEY_BYTES)) for _ in range(count))
        reader.end()
        if any(later <= earlier for earlier, later in pairwise(posters)):
            raise WireError("a charter whose posters do not ascend")
        return cls(version, posters)


@dataclass(frozen=True, slots=True)
class Word:
    """A member says that it is in the channel, or leaves it; ``number`` counts its words."""

    joined: bool
    number: int

    def encode(self) -> bytes:
        """Return the body of the post."""
        assert 0 < self.number <= NUMBER_MAX
        return bytes([_JOINED if self.joined else _LEFT]) + self.number.to_bytes(8, "big")

    @classmethod
    def decode(cls, body: bytes) -> Word:
        """Read the body of the post. Raises: WireError."""
        reader = Reader(body, "a word of a member")
        state, number = reader.uint(1), reader.uint(8)
        reader.end()
        if state not in (_JOINED, _LEFT) or not 0 < number <= NUMBER_MAX:
            raise WireError(f"a word of a member that says {state}, number {number}")
        return cls(state == _JOINED, number)


def may_write(subscription: Subscription, author: bytes) -> bool:
    """Say whether an author's texts are taken in a channel."""
    channel = subscription.channel
    return channel.kind is not Access.ANNOUNCEMENT or author == channel.owner or author in subscription.posters


def fits(subscription: Subscription, author: bytes, post: Post) -> bool:
    """Say whether a post that opened may be in its channel: a text of who may write, or a notice that is in order."""
    if post.type == TYPE_TEXT:
        return may_write(subscription, author)
    try:
        if post.type == TYPE_CHARTER:
            Charter.decode(post.body)
            return author == subscription.channel.owner
        if post.type == TYPE_WORD:
            Word.decode(post.body)
            return True
    except WireError:
        return False
    return may_write(subscription, author)  # a later version's
