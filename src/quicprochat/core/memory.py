"""MeshStore in dictionaries: for ``--ephemeral`` nodes and for the simulator, which also crashes it.

``durable`` False is a store that a restart forgets. The simulator passes True and keeps the object across the
crashes it plays: rollback then really restores what a crash before the commit would leave.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Any

from quicprochat.core.channel import Member, Subscription
from quicprochat.core.envelope import Kind
from quicprochat.core.gaps import AUTHORS_MAX, Heard
from quicprochat.core.history import Place
from quicprochat.core.ids import ChannelId, EnvelopeId, PeerKey, Uid
from quicprochat.core.parts import level, part_of
from quicprochat.core.quota import Quotas
from quicprochat.core.receipt import OPEN_STATES, State
from quicprochat.core.seal import Protection
from quicprochat.core.store import (
    HOMES_MAX,
    KNOWN_AUTHORS_MAX,
    SIGHTINGS_MAX,
    Author,
    Fate,
    Held,
    Home,
    HomeSource,
    Line,
    LineKind,
    Scope,
    Sent,
    Sighting,
    StoredPrekey,
    StoredRecord,
    TraceEvent,
    Usage,
)
from quicprochat.core.time import Instant, WallTime

_INBOX = (LineKind.MESSAGE, LineKind.POST)
_POSTS = (LineKind.POST, LineKind.OWN_POST)

_PASSED = (Fate.GONE, Fate.PASSED)
STALE_MAX = 4_096
"""So many entries of the heaps of what is to be forgotten may be out of date in any case."""


class _Passed:
    """Ids that were passed on or let go, of one part: how many, and a heap of when each is to be forgotten.

    The heap also has entries that do not hold any more.
    """

    __slots__ = ("count", "order")

    def __init__(self) -> None:
        self.count = 0
        self.order: list[tuple[int, EnvelopeId]] = []


class MemoryStore:
    """See :class:`quicprochat.core.store.MeshStore`; every write leaves an undo behind for ``rollback``."""

    def __init__(self, *, durable: bool = False) -> None:
        self._durable = durable
        self._undo: list[Callable[[], object]] = []
        self._values: dict[str, bytes] = {}
        self._counters: Counter[str] = Counter()
        self._gathered: Counter[str] = Counter()
        self._fates: dict[EnvelopeId, tuple[Fate, Instant | None, int]] = {}
        self._forget: list[tuple[Instant, EnvelopeId]] = []
        self._passed: defaultdict[int, _Passed] = defaultdict(_Passed)
        self._pushed = 0
        """Entries of the heaps above, at most: those popped since are counted too."""
        self._held: dict[EnvelopeId, Held] = {}
        self._by_dst: defaultdict[bytes, dict[int, Held]] = defaultdict(dict)
        self._expiry: list[tuple[Instant, EnvelopeId]] = []
        self._serial = 0
        self._quotas = Quotas()
        self._sent: dict[Uid, Sent] = {}
        self._uids: dict[EnvelopeId, Uid] = {}
        self._trace: defaultdict[Uid, list[TraceEvent]] = defaultdict(list)
        self._lines: dict[int, Line] = {}
        self._delivered: set[tuple[PeerKey, Uid]] = set()
        self._cursor = 0
        self._records: dict[PeerKey, StoredRecord] = {}
        self._sightings: dict[PeerKey, Sighting] = {}
        self._homes: dict[PeerKey, Home] = {}
        self._authors: dict[PeerKey, Author] = {}
        self._prekeys: dict[bytes, StoredPrekey] = {}
        self._channels: dict[ChannelId, Subscription] = {}
        self._heard: defaultdict[ChannelId, dict[PeerKey, Heard]] = defaultdict(dict)
        self._members: dict[tuple[ChannelId, PeerKey], Member] = {}

    @property
    def volatile(self) -> bool:
        return not self._durable

    @property
    def dirty(self) -> bool:
        return bool(self._undo)

    def begin(self) -> None:
        assert not self._undo

    def commit(self) -> None:
        if self._undo:
            self._counters += self._gathered
            self._gathered.clear()
            if self._pushed > 4 * len(self._fates) + STALE_MAX:
                self._without_stale()
        self._undo.clear()

    def _without_stale(self) -> None:
        """Make the heaps of what is to be forgotten anew: most in them does not hold any more."""
        self._forget = [(at, id) for id, (_, at, _) in self._fates.items() if at is not None]
        heapify(self._forget)
        self._passed.clear()
        for id, (fate, at, part) in self._fates.items():
            if fate in _PASSED:
                self._passed[part].count += 1
                self._passed[part].order.append((-1 if at is None else at, id))
        for passed in self._passed.values():
            heapify(passed.order)
        self._pushed = len(self._forget) + sum(passed.count for passed in self._passed.values())

    def rollback(self) -> None:
        if self._undo:
            self._gathered.clear()
        while self._undo:
            self._undo.pop()()

    def close(self) -> None:
        self.rollback()
        self._gathered.clear()

    def _set(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        if key in table:
            old = table[key]
            self._undo.append(lambda: table.__setitem__(key, old))
        else:
            self._undo.append(lambda: table.pop(key))
        table[key] = value

    def _del(self, table: dict[Any, Any], key: Any) -> None:
        old = table.pop(key)
        self._undo.append(lambda: table.__setitem__(key, old))

    # --- small values and counters

    def value(self, key: str) -> bytes | None:
        return self._values.get(key)

    def set_value(self, key: str, data: bytes) -> None:
        self._set(self._values, key, data)

    def count(self, name: str, by: int = 1) -> None:
        self._gathered[name] += by

    def counters(self) -> dict[str, int]:
        return dict(self._counters + self._gathered)

    # --- dedup

    def fate(self, id: EnvelopeId) -> Fate | None:
        if id in self._held:
            return Fate.HELD
        known = self._fates.get(id)
        return known[0] if known else None

    def foresee(self, ids: Sequence[EnvelopeId], uids: Sequence[tuple[PeerKey, Uid]] = ()) -> None:
        """Nothing is gained by it in memory."""

    def remember(self, id: EnvelopeId, fate: Fate, forget_at: Instant | None, via: bytes = b"") -> None:
        known = self._fates.get(id)
        part = part_of(via) if known is None else known[2]
        self._set(self._fates, id, (fate, forget_at, part))
        self._count_passed(known, -1)
        self._count_passed(self._fates[id], 1)
        self._pushed += 2
        if fate in _PASSED:
            heappush(self._passed[part].order, (-1 if forget_at is None else forget_at, id))
        if forget_at is not None:
            heappush(self._forget, (forget_at, id))

    def _count_passed(self, known: tuple[Fate, Instant | None, int] | None, by: int) -> None:
        if known is not None and known[0] in _PASSED:
            self._passed[known[2]].count += by
            self._undo.append(partial(self._count_back, known[2], by))

    def _count_back(self, part: int, by: int) -> None:
        self._passed[part].count -= by

    def forget(self, now: Instant, limit: int) -> int:
        gone = 0
        while self._forget and self._forget[0][0] <= now and gone < limit:
            at, id = heappop(self._forget)
            self._undo.append(partial(heappush, self._forget, (at, id)))
            if self._fates.get(id, (None, None))[1] == at:
                self._count_passed(self._fates[id], -1)
                self._del(self._fates, id)
                gone += 1
        return gone

    def forget_passed(self, keep: int, limit: int) -> int:
        counts = {part: passed.count for part, passed in self._passed.items() if passed.count}
        cuts = level(counts, min(limit, sum(counts.values()) - keep))
        for part, many in cuts.items():
            order = self._passed[part].order
            while many:
                at, id = heappop(order)
                self._undo.append(partial(heappush, order, (at, id)))
                known = self._fates.get(id)
                if known is None or known[0] not in _PASSED or (-1 if known[1] is None else known[1]) != at:
                    continue
                self._count_passed(known, -1)
                self._del(self._fates, id)
                many -= 1
        return sum(cuts.values())

    # --- held envelopes

    def hold(self, held: Held) -> int:
        assert held.id not in self._held
        self._serial += 1
        kept = replace(held, serial=self._serial)
        self._set(self._held, held.id, kept)
        self._set(self._by_dst[held.dst], kept.serial, kept)
        heappush(self._expiry, (held.expires_at, held.id))
        self._quotas.change(kept, 1)
        self._undo.append(lambda: self._quotas.change(kept, -1))
        return kept.serial

    def held(self, id: EnvelopeId) -> Held | None:
        return self._held.get(id)

    def release(self, id: EnvelopeId) -> None:
        held = self._held.get(id)
        if held is None:
            return
        self._del(self._held, id)
        self._del(self._by_dst[held.dst], held.serial)
        self._quotas.change(held, -1)
        self._undo.append(lambda: self._quotas.change(held, 1))
        # A rollback must find the entry again, although it may have been popped from the heap meanwhile.
        self._undo.append(lambda: heappush(self._expiry, (held.expires_at, id)))

    def release_many(self, ids: Sequence[EnvelopeId]) -> None:
        for id in ids:
            self.release(id)

    def waiting(self, dst: bytes, after: int, limit: int) -> Sequence[Held]:
        found = sorted(serial for serial in self._by_dst.get(dst, ()) if serial > after)
        return [self._by_dst[dst][serial] for serial in found[:limit]]

    def own(self, after: int, limit: int) -> Sequence[Held]:
        found = (held for held in self._held.values() if held.own and held.serial > after)
        return sorted(found, key=lambda held: held.serial)[:limit]

    def _drop_stale_expiry(self) -> None:
        while self._expiry:
            at, id = self._expiry[0]
            held = self._held.get(id)
            if held is not None and held.expires_at == at:
                return
            heappop(self._expiry)

    def expired(self, now: Instant, limit: int) -> Sequence[Held]:
        found = sorted((h for h in self._held.values() if h.expires_at <= now), key=lambda h: (h.expires_at, h.serial))
        return found[:limit]

    def next_expiry(self) -> Instant | None:
        self._drop_stale_expiry()
        return self._expiry[0][0] if self._expiry else None

    def usage(self, scope: Scope, key: bytes = b"") -> Usage:
        return self._quotas.usage(scope, key)

    def destinations(self) -> Sequence[bytes]:
        return sorted(dst for dst, held in self._by_dst.items() if held)

    def crowding(self, via: bytes, src: PeerKey, limit: int) -> Sequence[Held]:
        apart = (Kind.RECEIPT, Kind.CHANNEL)
        found = (h for h in self._held.values() if h.via == via and h.src == src and h.kind not in apart)
        return sorted(found, key=lambda held: held.serial)[:limit]

    def heaviest(self, scope: Scope, prefix: bytes = b"") -> tuple[bytes, Usage] | None:
        return self._quotas.heaviest(scope, prefix)

    def recipients(self) -> int:
        return sum(1 for held in self._by_dst.values() if any(h.kind != Kind.CHANNEL for h in held.values()))

    def oldest(self, dst: bytes, src: PeerKey | None, limit: int, via: bytes | None = None) -> Sequence[EnvelopeId]:
        waiting = self._by_dst.get(dst, {})
        wanted = (waiting[serial] for serial in sorted(waiting))
        found = (h.id for h in wanted if (not h.own if src is None else h.src == src) and via in (None, h.via))
        return list(islice(found, limit))

    # --- sent messages

    def put_sent(self, sent: Sent) -> None:
        self._set(self._sent, sent.uid, sent)
        self._set(self._uids, sent.envelope_id, sent.uid)

    def sent(self, uid: Uid) -> Sent | None:
        return self._sent.get(uid)

    def sent_of(self, id: EnvelopeId) -> Sent | None:
        uid = self._uids.get(id)
        return None if uid is None else self._sent[uid]

    def set_state(self, uid: Uid, state: State, reason: str) -> None:
        self._set(self._sent, uid, replace(self._sent[uid], state=state, reason=reason))

    def resealed(self, uid: Uid, id: EnvelopeId, protection: Protection) -> None:
        old = self._sent[uid]
        self._set(self._sent, uid, replace(old, envelope_id=id, protection=protection, seals=old.seals + 1))
        self._set(self._uids, id, uid)

    def queued_with(self, to: PeerKey, protection: Protection, limit: int) -> Sequence[Sent]:
        queued = (s for s in self._sent.values() if s.to == to and s.state is State.QUEUED)
        return list(islice((s for s in queued if s.protection is protection), limit))

    def open_sent(self, limit: int) -> Sequence[Sent]:
        newest = (s for s in reversed(self._sent.values()) if s.state in OPEN_STATES)
        return list(islice(newest, limit))[::-1]

    def envelopes_of(self, uid: Uid) -> Sequence[EnvelopeId]:
        return [id for id, owner in self._uids.items() if owner == uid]

    def add_trace(self, uid: Uid, event: TraceEvent) -> None:
        self._trace[uid].append(event)
        self._undo.append(self._trace[uid].pop)

    def trace(self, uid: Uid) -> Sequence[TraceEvent]:
        return list(self._trace.get(uid, ()))

    # --- journal

    def _append(self, line: Line) -> int:
        self._cursor += 1
        self._set(self._lines, self._cursor, replace(line, cursor=self._cursor))
        return self._cursor

    def deliver(self, line: Line) -> int | None:
        key = (line.peer, line.uid)
        if key in self._delivered:
            return None
        self._delivered.add(key)
        self._undo.append(lambda: self._delivered.discard(key))
        if line.request:
            self._count_request(line, 1)
        return self._append(line)

    def delivered(self, author: PeerKey, uid: Uid) -> bool:
        return (author, uid) in self._delivered

    def _count_request(self, line: Line, sign: int) -> None:
        for key in (b"", line.peer):
            self._quotas.add(Scope.REQUESTS, key, line.size, sign)
            self._undo.append(partial(self._quotas.add, Scope.REQUESTS, key, line.size, -sign))

    def note(self, line: Line) -> int:
        return self._append(line)

    def journal(
        self,
        *,
        after: int,
        limit: int,
        unread: bool = False,
        messages: bool = False,
        peer: PeerKey | None = None,
    ) -> Sequence[Line]:
        found: list[Line] = []
        for cursor in sorted(c for c in self._lines if c > after):
            line = self._lines[cursor]
            if line.kind is LineKind.OWN_POST or (unread and line.read) or (messages and line.kind not in _INBOX):
                continue
            if peer is not None and line.peer != peer:
                continue
            found.append(line)
            if len(found) >= limit:
                break
        return found

    def lines(self, cursors: Sequence[int]) -> Sequence[Line]:
        return [self._lines[cursor] for cursor in cursors if cursor in self._lines]

    def newest_line(self) -> int:
        return self._cursor

    def mark_read(self, cursors: Iterable[int]) -> None:
        for cursor in cursors:
            line = self._lines.get(cursor)
            if line is not None and not line.read:
                self._set(self._lines, cursor, replace(line, read=True))

    def unread(self) -> int:
        return sum(1 for line in self._lines.values() if line.kind in _INBOX and not line.read)

    def unread_posts(self, channel: ChannelId) -> int:
        return self.unread_channels().get(channel, 0)

    def unread_channels(self) -> dict[ChannelId, int]:
        found = (line for line in self._lines.values() if line.kind is LineKind.POST and not line.read)
        return dict(Counter(ChannelId(line.channel) for line in found))

    def accept(self, author: PeerKey) -> int:
        found = [line for line in self._lines.values() if line.peer == author and line.request]
        for line in found:
            self._set(self._lines, line.cursor, replace(line, request=False))
            self._count_request(line, -1)
        return len(found)

    def requesters(self, limit: int) -> Sequence[PeerKey]:
        return sorted({line.peer for line in self._lines.values() if line.request})[:limit]

    # --- peers

    def put_record(self, record: StoredRecord) -> bool:
        known = self._records.get(record.key)
        if known is not None and known.version >= record.version:
            return False
        self._set(self._records, record.key, record)
        return True

    def record(self, key: PeerKey) -> StoredRecord | None:
        return self._records.get(key)

    def records(self, limit: int) -> Sequence[StoredRecord]:
        return sorted(self._records.values(), key=lambda r: (-r.stored_at, r.key))[:limit]

    def drop_record(self, key: PeerKey) -> None:
        if key in self._records:
            self._del(self._records, key)

    def see(self, sighting: Sighting, contacts: AbstractSet[PeerKey] = frozenset()) -> None:
        self._set(self._sightings, sighting.key, sighting)
        excess = len(self._sightings) - SIGHTINGS_MAX
        if excess <= 0:
            return
        others = (s for s in self._sightings.values() if s.key != sighting.key)
        for old in sorted(others, key=lambda s: (s.key in contacts, s.at, s.key))[:excess]:
            self._del(self._sightings, old.key)

    def sightings(self, limit: int) -> Sequence[Sighting]:
        return sorted(self._sightings.values(), key=lambda s: (-s.at, s.key))[:limit]

    def put_home(self, home: Home, contacts: AbstractSet[PeerKey] = frozenset()) -> None:
        self._set(self._homes, home.key, home)
        excess = len(self._homes) - HOMES_MAX
        if excess <= 0:
            return
        others = (h for h in self._homes.values() if h.key != home.key)
        order = sorted(others, key=lambda h: (h.key in contacts, h.source is HomeSource.PERSON, h.at, h.key))
        for old in order[:excess]:
            self._del(self._homes, old.key)

    def home(self, key: PeerKey) -> Home | None:
        return self._homes.get(key)

    def homes(self, limit: int) -> Sequence[Home]:
        return sorted(self._homes.values(), key=lambda h: (-h.at, h.key))[:limit]

    # --- channels

    def put_channel(self, subscription: Subscription, *, scrub: bool = False) -> None:
        self._set(self._channels, subscription.channel.id, subscription)

    def channel(self, id: ChannelId) -> Subscription | None:
        return self._channels.get(id)

    def channels(self) -> Sequence[Subscription]:
        return [self._channels[id] for id in sorted(self._channels)]

    def put_author(self, author: Author) -> None:
        self._set(self._authors, author.key, author)
        if len(self._authors) <= KNOWN_AUTHORS_MAX:
            return
        most = Counter(one.via for one in self._authors.values())
        via = min(most, key=lambda via: (-most[via], via))
        others = (one for one in self._authors.values() if one.via == via and one.key != author.key)
        oldest = min(others, key=lambda one: (one.heard_at, one.key), default=None)
        if oldest is not None:
            self._del(self._authors, oldest.key)

    def author(self, key: PeerKey) -> Author | None:
        return self._authors.get(key)

    def places(
        self, channel: ChannelId, *, after: int = 0, since: WallTime | None = None, unread: bool = False, limit: int
    ) -> Sequence[Place]:
        found: list[Place] = []
        for cursor in sorted(self._lines, reverse=True):
            line = self._lines[cursor]
            if cursor <= after or len(found) >= limit:
                break
            if line.kind not in _POSTS or line.channel != channel or (unread and line.read):
                continue
            if since is None or line.at >= since:
                found.append(line.place)
        return found[::-1]

    def put_heard(self, channel: ChannelId, heard: Heard) -> None:
        theirs = self._heard[channel]
        self._set(theirs, heard.author, heard)
        if len(theirs) > AUTHORS_MAX:
            others = (one for one in theirs.values() if one.author != heard.author)
            self._del(theirs, min(others, key=lambda one: (one.at, one.author)).author)

    def heard(self, channel: ChannelId, author: PeerKey) -> Heard | None:
        return self._heard.get(channel, {}).get(author)

    def heard_in(self, channel: ChannelId) -> Sequence[Heard]:
        return [heard for _, heard in sorted(self._heard.get(channel, {}).items())]

    def forget_heard(self, channel: ChannelId) -> None:
        for author in list(self._heard.get(channel, ())):
            self._del(self._heard[channel], author)

    def put_member(self, member: Member) -> None:
        self._set(self._members, (member.channel, member.peer), member)

    def member(self, channel: ChannelId, peer: PeerKey) -> Member | None:
        return self._members.get((channel, peer))

    def members(self, channel: ChannelId) -> Sequence[Member]:
        return [self._members[key] for key in sorted(self._members) if key[0] == channel]

    def drop_members(self, channel: ChannelId) -> None:
        for key in [key for key in self._members if key[0] == channel]:
            self._del(self._members, key)

    # --- prekeys

    def put_prekey(self, prekey: StoredPrekey) -> None:
        self._set(self._prekeys, prekey.id, prekey)

    def prekeys(self) -> Sequence[StoredPrekey]:
        return sorted(self._prekeys.values(), key=lambda p: (-p.made_at, p.id))

    def drop_prekeys(self, made_before: Instant) -> int:
        old = [p.id for p in self._prekeys.values() if p.made_at < made_before]
        for id in old:
            self._del(self._prekeys, id)
        return len(old)
