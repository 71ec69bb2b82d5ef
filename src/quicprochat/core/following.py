"""What a home server remembers of channels: who follows them, here and at other domains, and how far those have come.

The posts themselves are held envelopes, as mail is. A server knows a channel by its id, and never what it is about.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

from quicprochat.core.ids import ChannelId, EnvelopeId, PeerKey
from quicprochat.core.time import Instant
from quicprochat.core.users import UserStore


class FollowStore(UserStore, Protocol):
    """Same rules as for ``MeshStore``: writing inside a transaction only. ``drop_user`` ends what a user follows."""

    # --- who follows what

    def follow(self, user: PeerKey, channels: Collection[ChannelId]) -> None:
        """A user follows these channels from now on, and no other."""
        ...

    def followed_by(self, user: PeerKey) -> frozenset[ChannelId]:
        """Return what a user follows."""
        ...

    def followed(self) -> Mapping[ChannelId, int]:
        """Return every channel that somebody follows, and how many do; cheap, asked for every post."""
        ...

    def follow_count(self) -> int:
        """Return how many pairs of user and channel there are; cheap."""
        ...

    def idle_followers(self, before: Instant, limit: int) -> Sequence[PeerKey]:
        """Return users who follow something and were not here since a moment."""
        ...

    # --- windows

    def newest_serial(self) -> int:
        """Return the serial of what was stored last."""
        ...

    def post_ids(self, channel: ChannelId, after: int, limit: int) -> Sequence[tuple[int, EnvelopeId]]:
        """Return serial and id of a channel's posts with a serial above ``after``, in order."""
        ...

    def windows(self) -> AbstractSet[ChannelId]:
        """Return the channels of which posts are kept; cheap."""
        ...

    def widest(self) -> ChannelId | None:
        """Return the channel whose posts take most bytes."""
        ...

    def crowds(self, channel: ChannelId) -> PeerKey | None:
        """Return who brought most of the bytes that are kept of a channel."""
        ...

    def brought(self, channel: ChannelId, via: PeerKey, limit: int) -> Sequence[EnvelopeId]:
        """Return what is kept longest of a channel and was brought by somebody."""
        ...

    def forget_ids(self, ids: Sequence[EnvelopeId]) -> None:
        """Forget that envelopes were seen: they may come in again."""
        ...

    # --- other domains

    def take_interest(self, domain: str, channels: Collection[ChannelId]) -> None:
        """Users of a domain follow these channels too; how far it has come in one it follows already stays."""
        ...

    def lose_interest(self, domain: str, channels: Collection[ChannelId]) -> None:
        """Nobody at a domain follows these channels any more."""
        ...

    def interests(self, domain: str) -> Mapping[ChannelId, int]:
        """Return what a domain's users follow, and the serial up to which it has answered for our posts; cheap."""
        ...

    def interested(self) -> AbstractSet[str]:
        """Return the domains whose users follow anything; cheap."""
        ...

    def come(self, domain: str, channel: ChannelId, after: int) -> None:
        """A domain has answered for every post of a channel up to a serial."""
        ...
