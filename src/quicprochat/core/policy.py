"""What a node's owner allows: whose mail it takes, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from quicprochat.core.ids import PeerKey
from quicprochat.core.window import PostLimits


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what is kept, each with the flood it stops (sizes are guesses for a small computer)."""

    own_bytes: int = 64 << 20
    """Our own outbox: a script in a loop."""
    carried_bytes: int = 64 << 20
    """Everybody else's mail together."""
    receipt_bytes: int = 8 << 20
    """Everybody else's receipts; apart, so that mail cannot crowd out the news that it arrived."""
    per_recipient: int = 1_000
    """Others' mail for one recipient, in messages."""
    per_link_and_recipient: float = 0.5
    """Part of ``per_recipient`` that may have come over one link: somebody with many made-up names."""
    per_pair: int = 100
    """Others' mail from one author to one recipient."""
    share: float = 0.25
    """Part of ``carried_bytes`` that one origin, or one link, may fill, and of ``receipt_bytes`` one link."""
    requests: int = 10_000
    """Messages of strangers waiting to be accepted."""
    requests_bytes: int = 32 << 20
    requests_per_author: int = 100
    posts: PostLimits = field(default_factory=PostLimits)


class Carry(Enum):
    """Whose mail a node takes for others."""

    NO = "no"
    CONTACTS = "contacts"
    """What its contacts write, and what is written to them."""
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Policy:
    """What the gate needs to know of this node at one moment."""

    me: PeerKey
    contacts: frozenset[PeerKey] = frozenset()
    blocked: frozenset[PeerKey] = frozenset()
    limits: Limits = field(default_factory=Limits)
    disk_low: bool = False
    carry: Carry = Carry.ALL
    keeps: bool = False
    """A home server's: what it has acknowledged never gives way to anything."""
    stays: bool = False
    """True for a node that is there for longer than one command."""

    @property
    def willing(self) -> bool:
        """Say whether this node takes part in every channel, also in those whose posts it cannot read."""
        return self.stays and self.carry is Carry.ALL

    def carries(self, src: PeerKey, dst: bytes) -> bool:
        """Say whether mail from one to another is taken."""
        return self.carry is Carry.ALL or (self.carry is Carry.CONTACTS and self.known(src, dst))

    def known(self, src: PeerKey, dst: bytes) -> bool:
        """Say whether the author or the recipient is a contact."""
        return src in self.contacts or dst in self.contacts
