"""Our own announcement: its number, when it is signed anew, and who else may be using our name."""

from __future__ import annotations

from quicprochat.core.bucket import TokenBucket
from quicprochat.core.crypto import Signer
from quicprochat.core.route_frames import HASH_BYTES, SEQNO_MAX, Announcement, announce
from quicprochat.core.route_table import SELF, Neighbour, Table
from quicprochat.core.store import MeshStore
from quicprochat.core.time import HOUR_MS, Instant

RESIGN_MS = HOUR_MS
BUMPS, BUMPS_PER_S = 5, 0.5
"""Announcements that requests may make us sign."""

_EPOCH_KEY = "route.epoch"
_EPOCH_BITS = 32


class Own:
    """Signs what we say of ourselves, under numbers that only grow: ``epoch`` is the run of the node, kept on disk."""

    def __init__(self, signer: Signer, table: Table) -> None:
        self._signer = signer
        self._table = table
        self._epoch = self._count = 0
        self._kept_epoch = 0
        self._record_hash = bytes(HASH_BYTES)
        self._flags = 0
        self._jumped = self.cloned = False
        self._bumps = TokenBucket(BUMPS, BUMPS_PER_S, Instant(0))
        self._resign_at = Instant(0)
        self._bump_at: Instant | None = None

    @property
    def key(self) -> bytes:
        """Our key."""
        return self._signer.key

    def start(self, tx: MeshStore, now: Instant) -> None:
        """Begin an epoch above all that were ever announced."""
        stored = tx.value(_EPOCH_KEY)
        self._epoch = int.from_bytes(stored, "big") + 1 if stored else 1
        self.keep(tx)
        self._bumps = TokenBucket(BUMPS, BUMPS_PER_S, now)
        # Spread over the hour: a village that has power again does not sign in step for ever.
        self._resign_at = Instant(now + 1 + int.from_bytes(self._signer.key[:4], "big") % RESIGN_MS)
        self._sign(urgent=True)

    def keep(self, tx: MeshStore) -> None:
        """Write the epoch down if it is new."""
        if self._epoch != self._kept_epoch:
            tx.set_value(_EPOCH_KEY, self._epoch.to_bytes(4, "big"))
            self._kept_epoch = self._epoch

    @property
    def seqno(self) -> int:
        """The number of our last announcement."""
        return self._epoch << _EPOCH_BITS | self._count

    def say(self, record_hash: bytes, flags: int) -> None:
        """Announce another record hash, or other flags, if they are others."""
        if (record_hash, flags) != (self._record_hash, self._flags):
            self._record_hash, self._flags = record_hash, flags
            self._count += 1
            self._sign(urgent=False)

    def asked(self, seqno: int, now: Instant) -> None:
        """Somebody waits for an announcement of ours with this number or a higher one."""
        if seqno > self.seqno and self._bump_at is None:
            self._bump(now)

    def heard(self, wire: bytes, neighbour: Neighbour, now: Instant) -> None:
        """An announcement of ours came back. A newer one than our last: this home was restored, or copied.

        We go past it once; the second time a copy of us must be alive, and we fall silent.
        """
        other = neighbour.said[SELF] = Announcement(wire)
        if other.seqno <= self.seqno or self.cloned or not neighbour.proofs.take(now):
            return
        if self._table.opened(wire) is None:
            return
        if self._jumped or other.seqno >> _EPOCH_BITS >= (SEQNO_MAX >> _EPOCH_BITS) - 1:
            self.cloned = True
            return
        self._jumped = True
        self._epoch, self._count = (other.seqno >> _EPOCH_BITS) + 1, 0
        self._sign(urgent=True)

    def timers(self, now: Instant) -> None:
        """Sign what is due."""
        if now >= self._resign_at:
            self._resign_at = Instant(now + RESIGN_MS)
            self._count += 1
            self._sign(urgent=False)
        if self._bump_at is not None and now >= self._bump_at:
            self._bump(now)

    def deadline(self) -> Instant:
        """Return when :meth:`timers` has something to do."""
        return self._resign_at if self._bump_at is None else min(self._resign_at, self._bump_at)

    def _bump(self, now: Instant) -> None:
        if wait := self._bumps.wait_ms(now):
            self._bump_at = Instant(now + wait)
            return
        self._bumps.take(now)
        self._bump_at = None
        self._count += 1
        self._sign(urgent=True)

    def _sign(self, *, urgent: bool) -> None:
        if self.cloned:
            return
        own = announce(self._signer, self.seqno, self._record_hash, self._flags)
        table = self._table
        table.newest[SELF] = table.current[SELF] = own
        (table.urgent if urgent else table.lazy)[SELF] = None
