"""Envelopes seen and envelopes held, with the quotas they count against.

What a transaction does to them waits (``late``), so that what comes and goes within one transaction leaves nothing but
its id, and what passes through a relay costs its loop no more than one question.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice

from quicprochat.adapters.sqlite.database import Database, Row, checksum, sturdy
from quicprochat.adapters.sqlite.late import Table, among
from quicprochat.core.envelope import CORE_BYTES, HEADER_BYTES
from quicprochat.core.ids import ID_BYTES, EnvelopeId, Label, PeerKey, Uid, labelled_hash
from quicprochat.core.parts import level, part_of
from quicprochat.core.quota import Quotas, scopes_of
from quicprochat.core.store import Fate, Held, Scope, Usage
from quicprochat.core.time import Instant

_TIMES = struct.Struct(">qq")
_TOGETHER = 100_000
"""Sums that are gathered before they are charged, when the store opens."""
_AHEAD = 64
"""Ids that ``oldest`` reads at once: who pushes one out of a full window soon pushes out the next."""
_AHEAD_MAX = 4_096
"""Questions of which it is remembered what comes next."""
FEW = 4
"""Fewer ids are not looked for in advance: each is asked for once, which costs no more."""
_CORE_LENGTH = CORE_BYTES.to_bytes(4, "big")
# Where the core of an envelope has what is asked of it here (core/envelope.py).
_KIND = 2
_SRC = slice(4, 36)
_DST = slice(36, 68)
_PAYLOAD_HASH = slice(102, 134)

_COLUMNS = "serial, " + sturdy("via", "#stored_at", "#expires_at", "checksum", "wire")
_CHARGED = sturdy("via", "dst", "substr(wire, 1, 68)", "#length(wire)")
_FATES = {int(fate): fate for fate in Fate}
_IS_HELD = f"SELECT {int(Fate.HELD)} FROM held WHERE id = ?1"
_SEEN_FATE = "SELECT fate FROM seen WHERE id = ?1"
_FATE = f"{_IS_HELD} UNION ALL {_SEEN_FATE} LIMIT 1"


def _checksum(wire: bytes, via: bytes, stored_at: int, expires_at: int) -> bytes:
    """Cover the header, whose core has the payload's hash, and the store's own columns."""
    return checksum(wire[:HEADER_BYTES], via, _TIMES.pack(stored_at, expires_at))


def _row(held: Held) -> Row:
    check = _checksum(held.wire, held.via, held.stored_at, held.expires_at)
    return (held.serial, held.id, held.dst, held.via, held.stored_at, held.expires_at, check, held.wire)


HELD = Table("held", by="serial", row=_row, size=lambda held: len(held.wire))
SEEN = Table("seen", by="id", instead=" ON CONFLICT DO UPDATE SET fate = excluded.fate, forget_at = excluded.forget_at")
"""Whose part of the memory an id is in stays as it was first said."""


def _intact(row: Row) -> Held | None:
    """Return the envelope of a row, None when the row is not what was written.

    The id is made anew from the core: the column might be read from a damaged index beside an intact row.
    """
    serial, via, stored_at, expires_at, check, wire = row
    core = wire[:CORE_BYTES]
    if (
        _checksum(wire, via, stored_at, expires_at) != check
        or hashlib.sha256(wire[HEADER_BYTES:]).digest() != core[_PAYLOAD_HASH]
    ):
        return None
    id = EnvelopeId(labelled_hash(Label.ID, _CORE_LENGTH, core))
    return Held(id, core[_KIND], PeerKey(core[_SRC]), core[_DST], via, wire, stored_at, expires_at, serial)


@lru_cache(maxsize=1024)
def _scopes(via: bytes, kind: int, src: bytes, dst: bytes) -> tuple[tuple[Scope, bytes], ...]:
    return scopes_of(Held(EnvelopeId(b""), kind, PeerKey(src), dst, via, b"", Instant(0), Instant(0)))


class _Ahead:
    """The oldest envelopes on the disk that answer one question, and the serial up to which was read."""

    __slots__ = ("after", "ids")

    def __init__(self) -> None:
        self.ids: dict[EnvelopeId, None] = {}
        self.after = 0


class Envelopes(Database):
    """The dedup table and the outbox; see ``MeshStore``. What is held must be a true envelope: it is checked so."""

    _KEYED: tuple[Table, ...] = (SEEN, HELD)
    """The tables with one row for an envelope, found by its id."""
    _FRESH_MAX, _FRESH_BYTES = 4_096, 4 << 20
    """Envelopes kept in memory beside the disk: what passes through is asked for and let go of moments later."""

    def _forget_cached(self) -> None:
        super()._forget_cached()
        self._fresh: dict[EnvelopeId, Held] = {}
        """Held, written or not."""
        self._fresh_bytes = 0
        self._soonest: Instant | None = None
        """Nothing that is held expires before this."""
        self._asked = False
        """True while ``_soonest`` holds."""
        self._ahead: dict[tuple[bytes, PeerKey | None, bytes | None], _Ahead] = {}
        """What ``oldest`` has read, by what it was asked for."""

    def _load(self) -> None:
        super()._load()
        self._quotas = Quotas()
        self._serial: int = self._one("SELECT seq FROM sqlite_sequence WHERE name = 'held'") or 0
        # A server may hold a million: rows of one author for one recipient are charged together, and none is kept.
        totals: dict[tuple[bytes, bytes, bytes], list[int]] = {}
        for via, dst, core, size in self._each(f"SELECT {_CHARGED} FROM held"):
            total = totals.setdefault((via, dst, core[: _SRC.stop]), [0, 0])
            total[0] += 1
            total[1] += size
            if len(totals) >= _TOGETHER:
                self._charge_all(totals)
        self._charge_all(totals)

    def _charge_all(self, totals: dict[tuple[bytes, bytes, bytes], list[int]]) -> None:
        for (via, dst, core), (count, size) in totals.items():
            self._charge(via, dst, core, size, 1, count)
        totals.clear()

    def _charge(self, via: bytes, dst: bytes, core: bytes, size: int, sign: int, count: int = 1) -> None:
        if len(core) <= _KIND:
            return  # damage; what else there was of it never counted
        scopes = _scopes(via, core[_KIND], core[_SRC], dst)
        if count == 1:
            self._quotas.add_all(scopes, size, sign)
            return
        for scope, key in scopes:
            self._quotas.add(scope, key, size, sign, count)

    def _write_late(self, tables: Sequence[Table] | None = None) -> None:
        super()._write_late(tables)
        self._asked = False  # what was let go of had counted

    # --- dedup

    def foresee(self, ids: Sequence[EnvelopeId], uids: Sequence[tuple[PeerKey, Uid]] = ()) -> None:
        """See ``MeshStore``: what no table has need not be looked for again, one by one."""
        if len(ids) < FEW:
            return
        places, values = among(ids)
        sql = " UNION ALL ".join(f"SELECT id FROM {table.name} WHERE id IN ({places})" for table in self._KEYED)
        unknown = set(ids).difference(id for (id,) in self._peek_rows(sql, values))
        for table in self._KEYED:
            self._late.foresee(table, unknown)

    def fate(self, id: EnvelopeId) -> Fate | None:
        late = self._late
        if id in self._fresh or late.find(HELD, id) is not None:
            return Fate.HELD
        fate: int | None = None
        if (known := late.find(SEEN, id)) is not None or late.missing(SEEN, id):
            if not late.missing(HELD, id):
                fate = self._peek(_IS_HELD, (id,))
            if fate is None and known is not None:
                fate = known[1]
        else:
            fate = self._peek(_SEEN_FATE if late.missing(HELD, id) else _FATE, (id,))
        return _FATES.get(fate) if fate is not None else None

    def remember(self, id: EnvelopeId, fate: Fate, forget_at: Instant | None, via: bytes = b"") -> None:
        known = self._late.find(SEEN, id)
        self._later(SEEN, id, (id, int(fate), forget_at, part_of(via) if known is None else known[3]))

    def forget(self, now: Instant, limit: int) -> int:
        return self._run(
            "DELETE FROM seen WHERE id IN (SELECT id FROM seen WHERE forget_at <= ? ORDER BY forget_at LIMIT ?)",
            (now, limit),
        )

    def forget_passed(self, keep: int, limit: int) -> int:
        passed = f"fate IN ({int(Fate.GONE)}, {int(Fate.PASSED)})"  # as the index has it
        counts: dict[int, int] = dict(self._rows(f"SELECT part, count(*) FROM seen WHERE {passed} GROUP BY part"))
        cuts = level(counts, min(limit, sum(counts.values()) - keep))
        return sum(
            self._run(
                f"DELETE FROM seen WHERE id IN "
                f"(SELECT id FROM seen WHERE {passed} AND part = ? ORDER BY forget_at, id LIMIT ?)",
                (part, many),
            )
            for part, many in cuts.items()
        )

    # --- held envelopes

    def hold(self, held: Held) -> int:
        self._write()
        assert self._late.find(HELD, held.id) is None
        self._serial += 1
        size = len(held.wire)
        self._charge(held.via, held.dst, held.wire[: _DST.stop], size, 1)
        # Not ``replace``, which takes three times as long: this is done for all that comes in.
        kept = Held(
            held.id, held.kind, held.src, held.dst, held.via, held.wire, held.stored_at, held.expires_at, self._serial
        )
        self._freshen(kept)
        if self._asked and (self._soonest is None or held.expires_at < self._soonest):
            self._soonest = held.expires_at
        self._later(HELD, held.id, kept)
        return self._serial

    def _freshen(self, held: Held) -> None:
        """Keep an envelope that is held in memory."""
        self._fresh[held.id] = held
        self._fresh_bytes += len(held.wire)
        while len(self._fresh) > self._FRESH_MAX or self._fresh_bytes > self._FRESH_BYTES:
            self._stale(next(iter(self._fresh)))

    def _stale(self, id: EnvelopeId) -> Held | None:
        held = self._fresh.pop(id, None)
        if held is not None:
            self._fresh_bytes -= len(held.wire)
        return held

    def held(self, id: EnvelopeId) -> Held | None:
        return self._near(id) or self.held_many((id,)).get(id)

    def held_many(self, ids: Sequence[EnvelopeId]) -> dict[EnvelopeId, Held]:
        """Return those of these envelopes that are held."""
        found: dict[EnvelopeId, Held] = {}
        written: list[EnvelopeId] = []
        for id in ids:
            if (known := self._near(id)) is not None:
                found[id] = known
            elif not self._late.missing(HELD, id):
                written.append(id)
        if written:
            places, values = among(written)
            rows = self._peek_rows(f"SELECT {_COLUMNS} FROM held WHERE id IN ({places})", values)
            # A damaged index might lead to another's row.
            wanted = set(written)
            found.update((held.id, held) for held in self._whole("held", rows, _intact) if held.id in wanted)
        return found

    def _near(self, id: EnvelopeId) -> Held | None:
        """Return an envelope that is held and in memory."""
        known: Held | None = self._fresh.get(id) or self._late.find(HELD, id)
        return known

    def release(self, id: EnvelopeId) -> None:
        self.release_many((id,))

    def release_many(self, ids: Sequence[EnvelopeId]) -> None:
        written: list[EnvelopeId] = []
        for id in ids:
            if (known := self._near(id)) is not None:
                self._stale(id)
                if self._late.drop(HELD, id) is None:
                    self._delete_later(HELD, id, known.serial)
                self._let_go(id, known.via, known.dst, known.wire[: _DST.stop], len(known.wire))
            elif not self._late.missing(HELD, id):
                written.append(id)
        if written:
            places, values = among(written)
            rows = self._peek_rows(f"SELECT id, serial, {_CHARGED} FROM held WHERE id IN ({places})", values)
            damaged = set(written)
            for id, serial, via, dst, core, size in rows:
                self._delete_later(HELD, id, serial)
                self._let_go(id, via, dst, core, size)
                if dst == core[_DST]:
                    damaged.discard(id)
            for id in damaged:
                # A row that is not found, or not as what it is: whoever asks for the oldest must not get it for ever.
                for ahead in self._ahead.values():
                    ahead.ids.pop(id, None)

    def _let_go(self, id: EnvelopeId, via: bytes, dst: bytes, core: bytes, size: int) -> None:
        """Count an envelope no more, and do not take it for the oldest again."""
        self._charge(via, dst, core, size, -1)
        if self._ahead:
            src = PeerKey(core[_SRC])
            for question in ((dst, src, None), (dst, None, None), (dst, None, via), (dst, src, via)):
                if (ahead := self._ahead.get(question)) is not None:
                    ahead.ids.pop(id, None)

    def waiting(self, dst: bytes, after: int, limit: int) -> Sequence[Held]:
        sql = f"SELECT {_COLUMNS} FROM held WHERE dst = ? AND serial > ? ORDER BY serial LIMIT ?"
        found: list[Held] = []
        while len(found) < limit:
            rows = self._rows(sql, (dst, after, limit - len(found)))
            if not rows:
                break
            after = rows[-1][0]
            found += [held for held in self._whole("held", rows, _intact) if held.dst == dst]
        return found

    def own(self, after: int, limit: int) -> Sequence[Held]:
        sql = f"SELECT {_COLUMNS} FROM held WHERE via = x'' AND serial > ? ORDER BY serial LIMIT ?"
        found: list[Held] = []
        while len(found) < limit:
            rows = self._rows(sql, (after, limit - len(found)))
            if not rows:
                break
            after = rows[-1][0]
            found += [held for held in self._whole("held", rows, _intact) if held.own]
        return found

    def expired(self, now: Instant, limit: int) -> Sequence[Held]:
        # Found by the index, read from the table: a damaged index must not make an intact row look damaged.
        rows = self._rows(
            f"SELECT {_COLUMNS} FROM held WHERE serial IN "
            "(SELECT serial FROM held WHERE expires_at <= ? ORDER BY expires_at, serial LIMIT ?)",
            (now, limit + len(self._damaged)),
        )
        found = self._whole("held", rows, _intact)
        return sorted(found, key=lambda held: (held.expires_at, held.serial))[:limit]

    def next_expiry(self) -> Instant | None:
        if not self._asked:
            self._soonest = self._peek("SELECT min(expires_at) FROM held")
            self._asked = True
            for held in self._late.items(HELD):
                if self._soonest is None or held.expires_at < self._soonest:
                    self._soonest = held.expires_at
        return self._soonest

    def usage(self, scope: Scope, key: bytes = b"") -> Usage:
        return self._quotas.usage(scope, key)

    def destinations(self) -> Sequence[bytes]:
        return [dst for (dst,) in self._rows("SELECT DISTINCT CAST(dst AS BLOB) FROM held ORDER BY 1")]

    def crowding(self, via: bytes, src: PeerKey, limit: int) -> Sequence[Held]:
        rows = self._rows(
            f"SELECT {_COLUMNS} FROM held WHERE via = ? AND substr(wire, 5, 32) = ? AND via != x''"
            " AND substr(wire, 3, 1) NOT IN (x'02', x'03') ORDER BY serial LIMIT ?",
            (via, src, limit),
        )
        return [held for held in self._whole("held", rows, _intact) if held.via == via and held.src == src]

    def heaviest(self, scope: Scope, prefix: bytes = b"") -> tuple[bytes, Usage] | None:
        return self._quotas.heaviest(scope, prefix)

    def recipients(self) -> int:
        count: int = self._one("SELECT count(DISTINCT dst) FROM held")
        return count - self._channels_held()

    def _channels_held(self) -> int:
        # From the totals, since kinds stand in no index; a channel's id is a hash, and so nobody's key.
        return len({key for scope in (Scope.POSTS, Scope.OWN_POSTS) for key in self._quotas.keys(scope, ID_BYTES)})

    def oldest(self, dst: bytes, src: PeerKey | None, limit: int, via: bytes | None = None) -> Sequence[EnvelopeId]:
        ahead = self._ahead.get((dst, src, via))
        if ahead is None:
            if len(self._ahead) >= _AHEAD_MAX:
                self._ahead.clear()
            ahead = self._ahead[dst, src, via] = _Ahead()
        if len(ahead.ids) < limit:
            self._read_ahead(ahead, dst, src, limit, via)
        found = list(islice(ahead.ids, limit))
        if len(found) < limit:
            # What is not written yet is newer than all that is.
            new = (held for held in self._late.items(HELD) if held.dst == dst and via in (None, held.via))
            wanted = (held.id for held in new if (not held.own if src is None else held.src == src))
            found += islice(wanted, limit - len(found))
        return found

    def _read_ahead(self, ahead: _Ahead, dst: bytes, src: PeerKey | None, limit: int, via: bytes | None) -> None:
        whose = "via != x''" if src is None else "substr(wire, 5, 32) = :src"
        if via is not None:
            whose += " AND via = :via"
        sql = (
            f"SELECT serial, id FROM held WHERE dst = :dst AND serial > :after AND {whose} ORDER BY serial LIMIT :limit"
        )
        many = max(limit, _AHEAD)
        while len(ahead.ids) < limit:
            rows = self._peek_rows(sql, {"dst": dst, "src": src, "via": via, "after": ahead.after, "limit": many})
            for serial, id in rows:
                ahead.after = serial
                if not self._late.missing(HELD, id):
                    ahead.ids[id] = None
            if len(rows) < many:
                break
