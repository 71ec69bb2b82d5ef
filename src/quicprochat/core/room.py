"""Room for others' mail: quotas, each against one flood, and who gives way when everything is full.

Carried mail promises nothing to anybody: its author keeps it. So a full store does not refuse whoever comes late; the
link that fills most of it gives way, and on that link the author with most. What a link or an author may gain by
sending more is therefore only its own older mail.
"""

from __future__ import annotations

from quicprochat.core.envelope import Kind
from quicprochat.core.ids import PeerKey
from quicprochat.core.policy import Policy
from quicprochat.core.store import Fate, Held, MeshStore, Scope
from quicprochat.core.time import Instant
from quicprochat.core.window import after_release

VICTIMS = 16
"""Envelopes looked at to find one that is not a contact's."""
EVICTED_MAX = 256
"""Envelopes that give way to one: the longest takes the place of so many of the shortest."""


def make_room(tx: MeshStore, held: Held, policy: Policy, now: Instant, *, passing: bool) -> bool:
    """Say whether an envelope for somebody else may be kept, and let others go for it where that is fair.

    ``passing`` True: a next hop waits for it, so it may go beyond what one pair or recipient may leave here for long.
    """
    limits = policy.limits
    if held.kind == Kind.RECEIPT:
        return not (
            _over(tx, Scope.RECEIPTS, b"", held, limits.receipt_bytes)
            or _over(tx, Scope.RECEIPTS, held.via, held, limits.receipt_bytes * limits.share)
        )
    part = limits.carried_bytes * limits.share
    if _over(tx, Scope.ORIGIN, held.src, held, part) or _over(tx, Scope.LINK, held.via, held, part):
        return False
    if not passing and _too_many(tx, held, policy):
        return False
    for _ in range(EVICTED_MAX):
        if not _over(tx, Scope.CARRIED, b"", held, limits.carried_bytes):
            return True
        if policy.keeps or not _evict(tx, held, policy, now):
            return False
    return False


def _over(tx: MeshStore, scope: Scope, key: bytes, held: Held, most: float) -> bool:
    return tx.usage(scope, key).bytes + len(held.wire) > most


def _too_many(tx: MeshStore, held: Held, policy: Policy) -> bool:
    limits = policy.limits
    link_most = max(1, limits.per_recipient * limits.per_link_and_recipient)
    return (
        tx.usage(Scope.RECIPIENT, held.dst).count >= limits.per_recipient
        # A home server knows who is at the other end, and each link is one author's.
        or (not policy.keeps and tx.usage(Scope.LINK_RECIPIENT, held.via + held.dst).count >= link_most)
        or tx.usage(Scope.PAIR, held.src + held.dst).count >= limits.per_pair
    )


def _evict(tx: MeshStore, held: Held, policy: Policy, now: Instant) -> bool:
    """Let one envelope go of the link, and on it of the author, with the most; False where that would be unfair."""
    link = tx.heaviest(Scope.LINK)
    if link is None:
        return False
    via, used = link
    size = len(held.wire)
    if via != held.via and used.bytes <= tx.usage(Scope.LINK, held.via).bytes + size:
        return False
    origin = tx.heaviest(Scope.LINK_ORIGIN, via)
    if origin is None:
        return False
    src = origin[0][len(via) :]
    if via == held.via and origin[1].bytes <= tx.usage(Scope.LINK_ORIGIN, held.via + held.src).bytes + size:
        return False
    for victim in tx.crowding(via, PeerKey(src), VICTIMS):
        if policy.known(held.src, held.dst) or not policy.known(victim.src, victim.dst):
            tx.release(victim.id)
            # Not GONE: when its author offers it again, and there is a way, it is welcome.
            tx.remember(victim.id, Fate.PASSED, after_release(now))
            tx.count("evicted")
            return True
    return False
