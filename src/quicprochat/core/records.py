"""Peers' records as a node keeps them: the newest of each, for sealing, and passed on to the neighbours."""

from __future__ import annotations

from collections.abc import Container, Iterable
from itertools import chain

from quicprochat.core.bucket import TokenBucket
from quicprochat.core.crypto import Crypto
from quicprochat.core.events import Alarm, Effect, LinkId, RecordArrived, SendRecord
from quicprochat.core.gate import Policy
from quicprochat.core.homes import Homes
from quicprochat.core.ids import PeerKey
from quicprochat.core.record import RECORD_LIFETIME_S, open_record
from quicprochat.core.seal import Prekey
from quicprochat.core.spread import OFFER_MAX, Spread
from quicprochat.core.store import MeshStore, StoredRecord
from quicprochat.core.time import Instant, Now

RECORDS_MAX = 4_096
"""Records of others that are kept; a flood of made-up peers pushes out the oldest who are not contacts."""
ALARM_BURST, ALARM_PER_S = 16, 1 / 600
"""Alarms about records of strangers: anybody can make up peers that contradict themselves. Contacts are not counted."""


class Records:
    """Others' records; our own is the card's affair."""

    def __init__(self, crypto: Crypto, homes: Homes) -> None:
        self._crypto = crypto
        self._homes = homes
        self._versions: dict[PeerKey, tuple[int, int]] = {}
        self._conflicts: set[PeerKey] = set()
        self._alarms = TokenBucket(ALARM_BURST, ALARM_PER_S, Instant(0))
        self._spread = Spread()
        self._spread_at: Instant | None = None

    def start(self, tx: MeshStore) -> None:
        """Take up what the store remembers."""
        self._versions = {r.key: (r.epoch, r.seq) for r in reversed(tx.records(RECORDS_MAX))}

    def link_up(
        self, link: LinkId, peer: PeerKey, linked: Iterable[PeerKey], tx: MeshStore, policy: Policy, now: Now
    ) -> None:
        """Offer a new neighbour records, those of who is linked first; the latest of them before the others."""
        owners = chain(reversed(list(linked)), (record.key for record in tx.records(OFFER_MAX)))
        self._spread.link_up(link, peer, (o for o in owners if o not in policy.blocked), now.at)

    def link_down(self, link: LinkId) -> None:
        """Forget a link."""
        self._spread.link_down(link)

    def heard(
        self, event: RecordArrived, linked: Container[PeerKey], tx: MeshStore, policy: Policy, now: Now,
        out: list[Effect],
    ) -> bool:  # fmt: skip
        """Judge somebody's record; say whether its prekeys are the best ones known of that peer."""
        record = event.record
        if record.key in policy.blocked or event.age_ms >= record.lifetime_s * 1_000:
            return False
        known = self._versions.get(record.key)
        if known is None and (stored := tx.record(record.key)) is not None:
            # More are kept than were loaded at the start.
            known = self._versions[record.key] = stored.version
        if known is not None and record.version <= known:
            stored = tx.record(record.key)
            if stored is not None and record.version == known and stored.data != record.signed:
                self._conflict(record.key, tx, policy, now, out)
                return False
            if stored is not None and record.version < known and event.link is not None:
                # Its owner, or a neighbour, is behind: show the newer one.
                out.append(SendRecord(event.link, stored.data, _age(stored, now)))
            if event.link is not None:
                self._spread.shown(record.key, event.link)
            return record.version == known
        if known is None:
            self._make_room(linked, tx, policy)
        tx.put_record(StoredRecord(record.key, *record.version, record.signed, event.age_ms, now.at))
        self._versions.pop(record.key, None)
        self._versions[record.key] = record.version  # last, as the newest to come
        self._spread.news(record.key, event.link, now.at)
        self._homes.recorded(tx, record, event.age_ms, now.at, policy.contacts)
        return True

    def _conflict(self, peer: PeerKey, tx: MeshStore, policy: Policy, now: Now, out: list[Effect]) -> None:
        """Raise the alarm that a peer contradicts itself: once in a run, however often it does."""
        tx.count("record_conflicts")
        if peer in self._conflicts or (peer not in policy.contacts and not self._alarms.take(now.at)):
            return
        self._conflicts.add(peer)
        out.append(Alarm("record_conflict", "two different records of one peer have the same number", peer))

    def _make_room(self, linked: Container[PeerKey], tx: MeshStore, policy: Policy) -> None:
        if len(self._versions) < RECORDS_MAX:
            return
        for old in self._versions:
            if old not in policy.contacts and old not in linked:
                tx.drop_record(old)
                del self._versions[old]
                return

    def prekey_of(self, peer: PeerKey, tx: MeshStore, now: Now) -> Prekey | None:
        """Return what to seal to a peer with, None when nothing valid is known."""
        stored = tx.record(peer)
        if stored is None:
            return None
        record = open_record(stored.data, self._crypto)
        if _age(stored, now) >= record.lifetime_s * 1_000:
            return None
        return record.prekeys[0] if record.prekeys else None

    def flush(self, links: Container[LinkId], tx: MeshStore, policy: Policy, now: Now, out: list[Effect]) -> None:
        """Pass on what is due."""
        for link, owner in self._spread.due(now.at):
            stored = tx.record(owner)
            if stored is None or link not in links or owner in policy.blocked:
                continue
            if (age_ms := _age(stored, now)) < RECORD_LIFETIME_S * 1_000:
                out.append(SendRecord(link, stored.data, age_ms))
        self._spread_at = self._spread.deadline(now.at)

    def deadline(self) -> Instant | None:
        """Return when :meth:`flush` has something to send."""
        return self._spread_at


def _age(stored: StoredRecord, now: Now) -> int:
    """How long ago a stored record was signed."""
    return stored.age_ms + max(0, now.at - stored.stored_at)
