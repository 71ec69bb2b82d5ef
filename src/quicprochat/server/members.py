"""Who may use a home server: users, the invites that make some, and the names they claim.

A user is a key that may be written to here and may speak here. How a key becomes one is the operator's decision
(:class:`Registration`); keys that the operator blocks are nobody here, whatever they were before.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Container
from dataclasses import dataclass
from enum import Enum

from quicprochat.core.crypto import Entropy
from quicprochat.core.errors import LocalError
from quicprochat.core.ids import PeerKey
from quicprochat.core.local_name import local_name
from quicprochat.core.names import skeleton
from quicprochat.core.store import MeshStore
from quicprochat.core.time import DAY_MS, MINUTE_MS, Instant, Now
from quicprochat.core.users import UserStore

SEEN_EVERY_MS = 10 * MINUTE_MS
"""How exactly is known when a user was last here: less is less to tell, and fewer writes when everybody comes back."""
INVITE_BYTES = 10
"""80 bits: nobody guesses one over the network."""
INVITE_MAX_CHARS = 64
INVITES_MAX = 10_000
IDLE_MS = 90 * DAY_MS
"""A user without a name who was not here for so long is forgotten: keys made for fun must not fill the disk."""
RELEASE_BATCH = 256


class Registration(Enum):
    """How a key becomes a user."""

    OPEN = "open"
    """By connecting."""
    INVITE = "invite"
    """By bringing a code that the operator made; those who are users stay users."""
    LIST = "list"
    """By standing in the operator's list, and for as long as it does."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The operator's decisions; they may change while the server runs."""

    registration: Registration = Registration.OPEN
    listed: frozenset[PeerKey] = frozenset()
    blocked: frozenset[PeerKey] = frozenset()
    users_max: int = 100_000


def new_invite(entropy: Entropy) -> str:
    """Return a fresh invite code."""
    digits = base64.b32encode(entropy(INVITE_BYTES)).decode("ascii")
    return "-".join(digits[n : n + 4] for n in range(0, len(digits), 4))


_MISREAD = str.maketrans({"0": "O", "1": "I", "8": "B", "-": "", " ": ""})


def invite_hash(code: str) -> bytes:
    """Return what is stored of an invite code; case, hyphens and spaces make no difference, nor 0 for O."""
    digits = code[:INVITE_MAX_CHARS].upper().translate(_MISREAD)
    return hashlib.sha256(b"quicprochat-server/1/invite\x00" + digits.encode("utf-8", "replace")).digest()


class Members:
    """The rules applied. What takes a ``tx`` runs inside a transaction."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._known: set[PeerKey] = set()  # users of the database that were asked for in this run

    def local(self, tx: UserStore, key: PeerKey) -> bool:
        """Say whether a key may be written to here, and speak."""
        if key in self.rules.blocked:
            return False
        if self.rules.registration is Registration.LIST:
            return key in self.rules.listed
        if key not in self._known and tx.user(key) is not None:
            self._known.add(key)
        return key in self._known

    def welcome(self, tx: UserStore, key: PeerKey, now: Now) -> bool:
        """A key has connected; return whether it is a user. In an open server it is one from now on."""
        known = tx.user(key)
        if not self.local(tx, key):
            if key in self.rules.blocked or self.rules.registration is not Registration.OPEN:
                return False
            if tx.user_count() >= self.rules.users_max:
                return False
        if known is None or now.at - known.seen_at >= SEEN_EVERY_MS:
            tx.see_user(key, now.at, now.wall)
        return True

    def leave(self, tx: UserStore, key: PeerKey, now: Now) -> None:
        """A key's connection has ended: if it is still a user, it was here until now."""
        known = tx.user(key)
        if known is not None and now.at - known.seen_at >= SEEN_EVERY_MS:
            tx.see_user(key, now.at, now.wall)

    def refusal(self, key: PeerKey) -> tuple[str, str] | None:
        """Return why a key that is no user cannot become one by a call of its own: the code and a sentence."""
        rules = self.rules
        if key in rules.blocked:
            return "policy", "the operator of this server has blocked this key"
        if rules.registration is Registration.LIST:
            return "policy", "this server serves the keys in its operator's list, and this one is not among them"
        if rules.registration is Registration.OPEN:
            return "full", "this server has all the users it can take; try again later, or ask its operator"
        return None

    def register(self, tx: UserStore, key: PeerKey, name: str, invite: str, now: Now) -> str:
        """Make a user of a key that brings an invite, or give a user a name, or both; return the name as it is kept.

        Nothing of it happens when a part of it cannot. Raises: LocalError.
        """
        user = self.local(tx, key)
        if not user and (refusal := self.refusal(key)) is not None:
            raise LocalError(refusal[1], code=refusal[0])
        if not user and not invite:
            raise LocalError("this server takes new users by invite only: ask its operator for one", code="policy")
        if user and not name:
            raise LocalError("a name is missing")
        kept = self._free_name(tx, key, name) if name else ""
        if not user:
            if tx.user_count() >= self.rules.users_max:
                raise LocalError("this server has all the users it can take; ask its operator", code="full")
            if not tx.take_invite(invite_hash(invite), now.at):
                raise LocalError("this invite was used already, is too old, or was mistyped", code="policy")
        if not user or tx.user(key) is None:
            tx.see_user(key, now.at, now.wall)
        if kept:
            tx.name_user(key, kept, skeleton(kept))
        return kept

    @staticmethod
    def _free_name(tx: UserStore, key: PeerKey, name: str) -> str:
        """Return a name as it is kept, if this key may have it. Raises: LocalError."""
        kept = local_name(name)
        user = tx.user(key)
        if user is not None and user.name and user.name != kept:
            # Whoever gave a name up would leave it, with all the trust it has, to the next.
            raise LocalError(f"this key is called {user.name} here already, and names do not change", code="exists")
        if tx.user_named(kept) not in (None, key):
            raise LocalError("this name belongs to another key already; choose another", code="exists")
        if tx.user_looking_like(skeleton(kept)) not in (None, key):
            raise LocalError("this name looks like one that belongs to another key; choose another", code="exists")
        return kept

    def invite(self, tx: UserStore, code: str, expires_at: Instant, now: Now) -> None:
        """Keep an invite. Raises: LocalError when there are too many."""
        if tx.invite_count(now.at) >= INVITES_MAX:
            raise LocalError(f"{INVITES_MAX:,} invites are open; let some be used, or expire, first", code="full")
        tx.put_invite(invite_hash(code), expires_at)

    def remove(self, tx: UserStore, key: PeerKey) -> int:
        """Forget a user: its name, its record and what waits for it; return how many envelopes that were."""
        if tx.user(key) is None:
            raise LocalError("no user here has this key", code="not_found")
        gone = _release_all(tx, key)
        tx.drop_record(key)
        tx.drop_user(key)
        self._known.discard(key)
        return gone

    def forget_idle(self, tx: UserStore, now: Now, present: Container[PeerKey], limit: int) -> int:
        """Forget old invites, and users without a name who were not here for long; return how many were looked at."""
        tx.drop_invites(now.at)
        idle = tx.idle_users(Instant(now.at - IDLE_MS), limit)
        for key in idle:
            if key in present:
                tx.see_user(key, now.at, now.wall)
            else:
                self.remove(tx, key)
        return len(idle)


def _release_all(tx: MeshStore, recipient: PeerKey) -> int:
    gone = 0
    while held := tx.waiting(recipient, 0, RELEASE_BATCH):
        for one in held:
            tx.release(one.id)
        gone += len(held)
    return gone
