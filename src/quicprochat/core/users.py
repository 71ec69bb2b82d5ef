"""Who is known at a home server: users, their names, and invites; kept beside what a ``MeshStore`` keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from quicprochat.core.ids import PeerKey
from quicprochat.core.store import MeshStore
from quicprochat.core.time import Instant, WallTime


@dataclass(frozen=True, slots=True)
class User:
    """A key that may be written to here. ``seen_at`` is the moment of ``last_seen`` by the life clock."""

    key: PeerKey
    first_seen: WallTime
    last_seen: WallTime
    seen_at: Instant
    name: str = ""


class UserStore(MeshStore, Protocol):
    """What a home server remembers. Same rules as for ``MeshStore``: writing inside a transaction only."""

    def user(self, key: PeerKey) -> User | None:
        """Return a user."""
        ...

    def user_count(self) -> int:
        """Return how many users there are; cheap."""
        ...

    def users(self, after: bytes, limit: int) -> Sequence[User]:
        """Return users with a key above ``after``, in the order of their keys."""
        ...

    def see_user(self, key: PeerKey, at: Instant, wall: WallTime) -> None:
        """Note that a key was here; one that was never here becomes a user."""
        ...

    def name_user(self, key: PeerKey, name: str, look: str) -> None:
        """Give a user a name that nobody has; ``look`` is its ``names.skeleton``, and nobody has that either."""
        ...

    def user_named(self, name: str) -> PeerKey | None:
        """Return whose name this is, exactly."""
        ...

    def user_looking_like(self, look: str) -> PeerKey | None:
        """Return who has a name of this look."""
        ...

    def drop_user(self, key: PeerKey) -> None:
        """Forget a user and its name."""
        ...

    def idle_users(self, before: Instant, limit: int) -> Sequence[PeerKey]:
        """Return users without a name who were last here before a moment, the longest away first."""
        ...

    def put_invite(self, hash: bytes, expires_at: Instant) -> None:
        """Keep an invite by its hash."""
        ...

    def take_invite(self, hash: bytes, now: Instant) -> bool:
        """Use an invite up; False when there is none of this hash, or its time is over."""
        ...

    def invite_count(self, now: Instant) -> int:
        """Return how many invites can still be used."""
        ...

    def drop_invites(self, now: Instant) -> int:
        """Forget invites whose time is over; return how many."""
        ...
