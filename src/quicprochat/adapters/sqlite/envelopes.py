"""Envelopes seen and envelopes held, with the quotas they count against.

What a transaction does to them is gathered and written with its commit, in the store's thread, or before the first
question that only SQL can answer. So what comes and goes within one transaction leaves nothing but its id, and what
passes through a relay costs its loop no more than one question.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from functools import lru_cache

from quicprochat.adapters.sqlite.database import Database, Row, checksum, sturdy
from quicprochat.core.envelope import CORE_BYTES, HEADER_BYTES
from quicprochat.core.ids import ID_BYTES, EnvelopeId, Label, PeerKey, labelled_hash
from quicprochat.core.parts import level, part_of
from quicprochat.core.quota import Quotas, scopes_of
from quicprochat.core.store import Fate, Held, Scope, Usage
from quicprochat.core.time import Instant

_TIMES = struct.Struct(">qq")
_TOGETHER = 100_000
"""Sums that are gathered before they are charged, when the store opens."""
_FRESH_MAX, _FRESH_BYTES = 4_096, 4 << 20
"""Envelopes kept in memory beside the disk: what passes through is asked for and let go of moments later."""
_NEW_BYTES = 1 << 20
"""What is held is gathered up to so much; more, and it is written at once, so that a huge step needs no huge memory."""
_CORE_LENGTH = CORE_BYTES.to_bytes(4, "big")
# Where the core of an envelope has what is asked of it here (core/envelope.py).
_KIND = 2
_SRC = slice(4, 36)
_DST = slice(36, 68)
_PAYLOAD_HASH = slice(102, 134)

_COLUMNS = "serial, " + sturdy("via", "#stored_at", "#expires_at", "checksum", "wire")
_CHARGED = sturdy("via", "dst", "substr(wire, 1, 68)", "#length(wire)")
_FATES = {int(fate): fate for fate in Fate}
_FATE = f"SELECT {int(Fate.HELD)} FROM held WHERE id = ?1 UNION ALL SELECT fate FROM seen WHERE id = ?1 LIMIT 1"


def _checksum(wire: bytes, via: bytes, stored_at: int, expires_at: int) -> bytes:
    """Cover the header, whose core has the payload's hash, and the store's own columns."""
    return checksum(wire[:HEADER_BYTES], via, _TIMES.pack(stored_at, expires_at))


def _row(held: Held) -> Row:
    check = _checksum(held.wire, held.via, held.stored_at, held.expires_at)
    return (held.serial, held.id, held.dst, held.via, held.stored_at, held.expires_at, check, held.wire)


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


class Envelopes(Database):
    """The dedup table and the outbox; see ``MeshStore``. What is held must be a true envelope: it is checked so."""

    def _load(self) -> None:
        super()._load()
        self._quotas = Quotas()
        self._fresh: dict[EnvelopeId, Held] = {}
        self._fresh_bytes = 0
        self._new: dict[EnvelopeId, Held] = {}
        """Held since the transaction began, and not written yet."""
        self._new_bytes = 0
        self._gone: dict[EnvelopeId, int] = {}
        """Serials of rows that were let go of and are still there."""
        self._fates: dict[EnvelopeId, tuple[int, Instant | None, int]] = {}
        """Remembered and not written yet."""
        self._soonest: Instant | None = None
        """No row that is written expires before this."""
        self._asked = False
        """True while ``_soonest`` holds."""
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

    def _write_out(self) -> None:
        """Let the tables have what was gathered."""
        if not (self._new or self._gone or self._fates):
            return
        # First what goes: an id that was let go of may be held again.
        self._run_many("DELETE FROM held WHERE serial = ?", [(serial,) for serial in self._gone.values()])
        self._run_many("INSERT INTO held VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [_row(new) for new in self._new.values()])
        self._run_many(
            "INSERT INTO seen VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET fate = excluded.fate, forget_at = excluded.forget_at",
            [(id, *known) for id, known in self._fates.items()],
        )
        self._new.clear()
        self._new_bytes = 0
        self._gone.clear()
        self._fates.clear()
        self._asked = False

    def _flush(self) -> None:
        super()._flush()
        self._write_out()

    # --- dedup

    def fate(self, id: EnvelopeId) -> Fate | None:
        if id in self._new:
            return Fate.HELD
        if id in self._fates:
            return _FATES[self._fates[id][0]]
        if id in self._gone:
            return _FATES.get(self._peek("SELECT fate FROM seen WHERE id = ?", (id,)))
        return _FATES.get(self._peek(_FATE, (id,)))

    def remember(self, id: EnvelopeId, fate: Fate, forget_at: Instant | None, via: bytes = b"") -> None:
        self._write()
        known = self._fates.get(id)
        self._fates[id] = (int(fate), forget_at, part_of(via) if known is None else known[2])

    def forget(self, now: Instant, limit: int) -> int:
        self._write_out()
        return self._run(
            "DELETE FROM seen WHERE id IN (SELECT id FROM seen WHERE forget_at <= ? ORDER BY forget_at LIMIT ?)",
            (now, limit),
        )

    def forget_passed(self, keep: int, limit: int) -> int:
        self._write_out()
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
        assert held.id not in self._new
        self._serial += 1
        size = len(held.wire)
        self._charge(held.via, held.dst, held.wire[: _DST.stop], size, 1)
        # Not ``replace``, which takes three times as long: this is done for all that comes in.
        kept = Held(
            held.id, held.kind, held.src, held.dst, held.via, held.wire, held.stored_at, held.expires_at, self._serial
        )
        self._new[held.id] = self._fresh[held.id] = kept
        self._fresh_bytes += size
        while len(self._fresh) > _FRESH_MAX or self._fresh_bytes > _FRESH_BYTES:
            self._stale(next(iter(self._fresh)))
        if self._asked and (self._soonest is None or held.expires_at < self._soonest):
            self._soonest = held.expires_at
        self._new_bytes += size
        if self._new_bytes > _NEW_BYTES:
            self._write_out()
        return self._serial

    def _stale(self, id: EnvelopeId) -> Held | None:
        held = self._fresh.pop(id, None)
        if held is not None:
            self._fresh_bytes -= len(held.wire)
        return held

    def held(self, id: EnvelopeId) -> Held | None:
        if (known := self._new.get(id) or self._fresh.get(id)) is not None:
            return known
        if id in self._gone:
            return None
        found = self._whole("held", self._peek_rows(f"SELECT {_COLUMNS} FROM held WHERE id = ?", (id,)), _intact)
        return found[0] if found and found[0].id == id else None

    def release(self, id: EnvelopeId) -> None:
        fresh = self._stale(id)
        new = self._new.pop(id, None)
        if (known := new or fresh) is not None:
            if new is None:
                self._write()
                self._gone[id] = known.serial
            self._charge(known.via, known.dst, known.wire[: _DST.stop], len(known.wire), -1)
            return
        if id in self._gone:
            return
        row = self._peek(f"SELECT serial, {_CHARGED} FROM held WHERE id = ?", (id,))
        if row is not None:
            serial, via, dst, core, size = row
            self._write()
            self._gone[id] = serial
            self._charge(via, dst, core, size, -1)

    def waiting(self, dst: bytes, after: int, limit: int) -> Sequence[Held]:
        self._write_out()
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
        self._write_out()
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
        self._write_out()
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
            for held in self._new.values():
                if self._soonest is None or held.expires_at < self._soonest:
                    self._soonest = held.expires_at
        return self._soonest

    def usage(self, scope: Scope, key: bytes = b"") -> Usage:
        return self._quotas.usage(scope, key)

    def destinations(self) -> Sequence[bytes]:
        self._write_out()
        return [dst for (dst,) in self._rows("SELECT DISTINCT CAST(dst AS BLOB) FROM held ORDER BY 1")]

    def crowding(self, via: bytes, src: PeerKey, limit: int) -> Sequence[Held]:
        self._write_out()
        rows = self._rows(
            f"SELECT {_COLUMNS} FROM held WHERE via = ? AND substr(wire, 5, 32) = ? AND via != x''"
            " AND substr(wire, 3, 1) NOT IN (x'02', x'03') ORDER BY serial LIMIT ?",
            (via, src, limit),
        )
        return [held for held in self._whole("held", rows, _intact) if held.via == via and held.src == src]

    def heaviest(self, scope: Scope, prefix: bytes = b"") -> tuple[bytes, Usage] | None:
        return self._quotas.heaviest(scope, prefix)

    def recipients(self) -> int:
        self._write_out()
        count: int = self._one("SELECT count(DISTINCT dst) FROM held")
        return count - self._channels_held()

    def _channels_held(self) -> int:
        # From the totals, since kinds stand in no index; a channel's id is a hash, and so nobody's key.
        return len({key for scope in (Scope.POSTS, Scope.OWN_POSTS) for key in self._quotas.keys(scope, ID_BYTES)})

    def oldest(self, dst: bytes, src: PeerKey | None, limit: int, via: bytes | None = None) -> Sequence[EnvelopeId]:
        self._write_out()
        whose = "via != x''" if src is None else "substr(wire, 5, 32) = :src"
        if via is not None:
            whose += " AND via = :via"
        sql = f"SELECT id FROM held WHERE dst = :dst AND {whose} ORDER BY serial LIMIT :limit"
        return [id for (id,) in self._rows(sql, {"dst": dst, "src": src, "via": via, "limit": limit})]
