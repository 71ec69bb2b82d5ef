"""Envelopes seen and envelopes held, with the quotas they count against."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from functools import lru_cache

from quicprochat.adapters.sqlite.database import Database, Row, checksum, marks, sturdy
from quicprochat.core.envelope import CORE_BYTES, HEADER_BYTES
from quicprochat.core.ids import ID_BYTES, EnvelopeId, Label, PeerKey, labelled_hash
from quicprochat.core.quota import Quotas, scopes_of
from quicprochat.core.store import Fate, Held, Scope, Usage
from quicprochat.core.time import Instant

_TIMES = struct.Struct(">qq")
_TOGETHER = 100_000
"""Sums that are gathered before they are charged, when the store opens."""
_FRESH_MAX = 4_096
"""Envelopes of which it is kept in memory what they count against: what passes through is let go of moments later."""
FEW = 4
"""Below this statements for one are quicker than one for all."""
_CORE_LENGTH = CORE_BYTES.to_bytes(4, "big")
# Where the core of an envelope has what is asked of it here (core/envelope.py).
_KIND = 2
_SRC = slice(4, 36)
_DST = slice(36, 68)
_PAYLOAD_HASH = slice(102, 134)

_COLUMNS = "serial, " + sturdy("via", "#stored_at", "#expires_at", "checksum", "wire")
_CHARGED = sturdy("via", "dst", "substr(wire, 1, 68)", "#length(wire)")
_FATES = {int(fate): fate for fate in Fate}


def _checksum(wire: bytes, via: bytes, stored_at: int, expires_at: int) -> bytes:
    """Cover the header, whose core has the payload's hash, and the store's own columns."""
    return checksum(wire[:HEADER_BYTES], via, _TIMES.pack(stored_at, expires_at))


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

    _KEYED: tuple[str, ...] = ("seen", "held")
    """The tables with one row for an envelope, found by its id."""

    def _load(self) -> None:
        super()._load()
        self._quotas = Quotas()
        self._fresh: dict[EnvelopeId, tuple[int, bytes, bytes, bytes, int]] = {}
        self._unknown: set[EnvelopeId] = set()  # of these there is no row anywhere
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
        for scope, key in _scopes(via, core[_KIND], core[_SRC], dst):
            self._quotas.add(scope, key, size, sign, count)

    # --- dedup

    def foresee(self, ids: Sequence[EnvelopeId]) -> None:
        """See ``MeshStore``: what is not there now need not be looked for again, one by one, until it is written."""
        if len(ids) < FEW:
            return
        names = marks(len(ids))
        known = self._rows(" UNION ALL ".join(f"SELECT id FROM {t} WHERE id IN ({names})" for t in self._KEYED), ids)
        self._unknown = set(ids).difference(id for (id,) in known)

    def fate(self, id: EnvelopeId) -> Fate | None:
        if id in self._unknown:
            return None
        return _FATES.get(self._one("SELECT fate FROM seen WHERE id = ?", (id,)))

    def remember(self, id: EnvelopeId, fate: Fate, forget_at: Instant | None) -> None:
        self._unknown.discard(id)
        self._later("INSERT OR REPLACE INTO seen VALUES ?", (id, int(fate), forget_at))

    def forget(self, now: Instant, limit: int) -> int:
        return self._run(
            "DELETE FROM seen WHERE id IN (SELECT id FROM seen WHERE forget_at <= ? ORDER BY forget_at LIMIT ?)",
            (now, limit),
        )

    def forget_passed(self, keep: int, limit: int) -> int:
        passed = f"fate IN ({int(Fate.GONE)}, {int(Fate.PASSED)})"  # as the index has it
        excess = min(limit, self._one(f"SELECT count(*) FROM seen WHERE {passed}") - keep)
        if excess <= 0:
            return 0
        return self._run(
            f"DELETE FROM seen WHERE id IN (SELECT id FROM seen WHERE {passed} ORDER BY forget_at, id LIMIT ?)",
            (excess,),
        )

    # --- held envelopes

    def hold(self, held: Held) -> int:
        self._serial += 1
        check = _checksum(held.wire, held.via, held.stored_at, held.expires_at)
        self._unknown.discard(held.id)
        self._later(
            "INSERT INTO held VALUES ?",
            (self._serial, held.id, held.dst, held.via, held.stored_at, held.expires_at, check, held.wire),
        )
        core, size = held.wire[: _DST.stop], len(held.wire)
        self._charge(held.via, held.dst, core, size, 1)
        self._fresh[held.id] = (self._serial, held.via, held.dst, core, size)
        if len(self._fresh) > _FRESH_MAX:
            del self._fresh[next(iter(self._fresh))]
        return self._serial

    def held(self, id: EnvelopeId) -> Held | None:
        if id in self._unknown:
            return None
        found = self._whole("held", self._rows(f"SELECT {_COLUMNS} FROM held WHERE id = ?", (id,)), _intact)
        return found[0] if found and found[0].id == id else None

    def release(self, id: EnvelopeId) -> None:
        # Two statements: DELETE with RETURNING puts its row into a temporary table and takes longer.
        row = self._fresh.pop(id, None) or self._one(f"SELECT serial, {_CHARGED} FROM held WHERE id = ?", (id,))
        if row is not None:
            serial, via, dst, core, size = row
            self._run("DELETE FROM held WHERE serial = ?", (serial,))
            self._charge(via, dst, core, size, -1)

    def held_many(self, ids: Sequence[EnvelopeId]) -> dict[EnvelopeId, Held]:
        rows = self._rows(f"SELECT {_COLUMNS} FROM held WHERE id IN ({marks(len(ids))})", ids)
        return {held.id: held for held in self._whole("held", rows, _intact)}

    def release_many(self, ids: Sequence[EnvelopeId]) -> None:
        if len(ids) < FEW:
            for id in ids:
                self.release(id)
            return
        fresh = {id: self._fresh.pop(id, None) for id in ids}
        rows = [row for row in fresh.values() if row is not None]
        if old := [id for id, row in fresh.items() if row is None]:
            rows += self._rows(f"SELECT serial, {_CHARGED} FROM held WHERE id IN ({marks(len(old))})", old)
        if not rows:
            return
        self._run(f"DELETE FROM held WHERE serial IN ({marks(len(rows))})", [row[0] for row in rows])
        for _, via, dst, core, size in rows:
            self._charge(via, dst, core, size, -1)

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
        at: Instant | None = self._one("SELECT min(expires_at) FROM held")
        return at

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

    def oldest(self, dst: bytes, src: PeerKey | None, limit: int) -> Sequence[EnvelopeId]:
        whose = "via != x''" if src is None else "substr(wire, 5, 32) = :src"
        sql = f"SELECT id FROM held WHERE dst = :dst AND {whose} ORDER BY serial LIMIT :limit"
        return [id for (id,) in self._rows(sql, {"dst": dst, "src": src, "limit": limit})]
