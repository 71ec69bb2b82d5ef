"""The journal: the inbox and the changes of state, in the order in which a reader is told of them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from quicprochat.adapters.sqlite.database import Row, checksum, sturdy
from quicprochat.adapters.sqlite.envelopes import FEW, Envelopes
from quicprochat.adapters.sqlite.late import Table
from quicprochat.core.ids import ID_BYTES, KEY_BYTES, ChannelId, EnvelopeId, PeerKey, Uid
from quicprochat.core.store import Line, LineKind, Scope

_FIXED = struct.Struct(">qqq")
_WALL = struct.Struct(">q")
_SEQ = struct.Struct(">Q")
_MESSAGE, _RECEIPT, _POST, _OWN_POST = 1, 2, 3, 4
_KINDS = {
    _MESSAGE: LineKind.MESSAGE,
    _RECEIPT: LineKind.RECEIPT,
    _POST: LineKind.POST,
    _OWN_POST: LineKind.OWN_POST,
}
_NUMBERS = {kind: number for number, kind in _KINDS.items()}
_TEXT = 13
_LINE = Table("line", size=lambda row: len(row[_TEXT]))
_DELIVERED = Table("delivered")
_RECEIVED = f"kind IN ({_MESSAGE}, {_POST})"
POSTS = f"kind IN ({_POST}, {_OWN_POST})"
"""Says of a line that it is a post; the words of its index."""

_COLUMNS = "cursor, " + sturdy(
    "#kind", "#read", "#request", "peer", "uid", "#at", "#hops", "protection", "domain", "state", "reason", "checksum",
    "text", "channel", "#sent_at", "place", "#emergency",
)  # fmt: skip
_CHARGED = sturdy("peer", "#octet_length(text)")


def _intact(row: Row) -> Line | None:
    """Return the line of a row, None when the row is not what was written."""
    (cursor, kind, read, request, peer, uid, at, hops, protection, domain, state, reason, check, text, *newer) = row
    channel, sent_at, place, emergency = newer
    parts = (peer, uid, protection, domain, state, reason, text)
    try:
        if checksum(_FIXED.pack(kind, at, hops), *parts, *_newer_parts(channel, sent_at, place, emergency)) != check:
            return None
        return Line(
            _KINDS[kind], peer, uid, at, text.decode(), hops, protection.decode(), bool(request), domain.decode(),
            state.decode(), reason.decode(), bool(read), cursor, channel, sent_at, *unpack_place(place),
            bool(emergency),
        )  # fmt: skip
    except (TypeError, ValueError, KeyError, struct.error):
        return None


def _newer_parts(channel: bytes, sent_at: int, place: bytes, emergency: int) -> tuple[bytes, ...]:
    """Return what a checksum covers of columns that came later: nothing where a row of before has their default."""
    return (
        *((channel,) if channel else ()),
        *((_WALL.pack(sent_at),) if sent_at else ()),
        *((place,) if place else ()),
        *((b"emergency",) if emergency else ()),
    )


def _pack_place(line: Line) -> bytes:
    return b"".join((line.id, _SEQ.pack(line.seq), *line.parents)) if line.id else b""


def unpack_place(place: bytes) -> tuple[EnvelopeId, int, tuple[EnvelopeId, ...]]:
    """Return a post's id, its number and its parents, as far as they are there."""
    if len(place) < ID_BYTES + _SEQ.size:
        return EnvelopeId(b""), 0, ()
    parents = range(ID_BYTES + _SEQ.size, len(place), ID_BYTES)
    return (
        EnvelopeId(place[:ID_BYTES]), _SEQ.unpack_from(place, ID_BYTES)[0],
        tuple(EnvelopeId(place[at : at + ID_BYTES]) for at in parents),
    )  # fmt: skip


class Journal(Envelopes):
    """Lines, and which messages were ever delivered; see ``MeshStore``. Requests count against the quotas."""

    def _load(self) -> None:
        super()._load()
        self._cursor: int = self._one("SELECT seq FROM sqlite_sequence WHERE name = 'line'") or 0
        for peer, size in self._rows(f"SELECT {_CHARGED} FROM line WHERE request = 1"):
            self._count_request(peer, size, 1)

    def _count_request(self, peer: bytes, size: int, sign: int) -> None:
        for key in (b"", peer):
            self._quotas.add(Scope.REQUESTS, key, size, sign)

    def _append(self, kind: int, line: Line) -> int:
        self._cursor += 1
        place = _pack_place(line)
        check = checksum(
            _FIXED.pack(kind, line.at, line.hops), line.peer, line.uid, line.protection.encode(),
            line.domain.encode(), line.state.encode(), line.reason.encode(), line.text.encode(),
            *_newer_parts(line.channel, line.sent_at, place, line.emergency),
        )  # fmt: skip
        self._later(
            _LINE, self._cursor,
            (
                self._cursor, kind, line.read, line.request, line.peer, line.uid, line.at, line.hops,
                line.protection, line.domain, line.state, line.reason, check, line.text, line.channel,
                line.sent_at, place, line.emergency,
            ),
        )  # fmt: skip
        return self._cursor

    def foresee(self, ids: Sequence[EnvelopeId], uids: Sequence[tuple[PeerKey, Uid]] = ()) -> None:
        super().foresee(ids, uids)
        if len(uids) >= FEW:
            places = ", ".join(["(?, ?)"] * len(uids))
            wanted = f"WITH wanted (a, u) AS (VALUES {places})"
            sql = f"{wanted} SELECT a, u FROM wanted CROSS JOIN delivered ON author = a AND uid = u"
            there = self._peek_rows(sql, [part for pair in uids for part in pair])
            self._late.foresee(_DELIVERED, set(uids).difference(there))

    def deliver(self, line: Line) -> int | None:
        if self.delivered(line.peer, line.uid):
            return None
        self._later(_DELIVERED, (line.peer, line.uid), (line.peer, line.uid, self._cursor + 1))
        cursor = self._append(_NUMBERS[line.kind], line)
        if line.request:
            self._count_request(line.peer, line.size, 1)
        return cursor

    def delivered(self, author: PeerKey, uid: Uid) -> bool:
        if self._late.find(_DELIVERED, (author, uid)) is not None:
            return True
        if self._late.missing(_DELIVERED, (author, uid)):
            return False
        return self._peek("SELECT 1 FROM delivered WHERE author = ? AND uid = ?", (author, uid)) is not None

    def note(self, line: Line) -> int:
        return self._append(_NUMBERS[line.kind], line)

    def journal(
        self, *, after: int, limit: int, unread: bool = False, messages: bool = False, peer: PeerKey | None = None
    ) -> Sequence[Line]:
        conditions = ["cursor > :after", _RECEIVED if messages else f"kind != {_OWN_POST}"]
        if unread:
            conditions.append("read = 0")
        if peer is not None:
            conditions.append("peer = :peer")
        if peer is not None and messages and not unread:
            # The index of what was delivered finds one author's messages among everybody's.
            conditions[0] = "cursor IN (SELECT cursor FROM delivered WHERE author = :peer AND cursor > :after)"
        # Found by an index, read from the table: a damaged index must not make an intact row look damaged.
        cursors = f"SELECT cursor FROM line WHERE {' AND '.join(conditions)} ORDER BY cursor LIMIT :limit"
        sql = f"SELECT {_COLUMNS} FROM line WHERE cursor IN ({cursors}) ORDER BY cursor"
        found: list[Line] = []
        while len(found) < limit:
            rows = self._rows(sql, {"after": after, "limit": limit - len(found), "peer": peer})
            if not rows:
                break
            after = rows[-1][0]
            found += self._whole("line", rows, _intact)
        return found

    def lines(self, cursors: Sequence[int]) -> Sequence[Line]:
        sql = f"SELECT {_COLUMNS} FROM line WHERE cursor = ?"
        return self._whole("line", (row for cursor in cursors for row in self._rows(sql, (cursor,))), _intact)

    def newest_line(self) -> int:
        return self._cursor

    def mark_read(self, cursors: Iterable[int]) -> None:
        self._run_many("UPDATE line SET read = 1 WHERE cursor = ? AND read = 0", ((cursor,) for cursor in cursors))

    def unread(self) -> int:
        count: int = self._one(f"SELECT count(*) FROM line WHERE read = 0 AND {_RECEIVED}")
        return count

    def unread_posts(self, channel: ChannelId) -> int:
        sql = f"SELECT count(*) FROM line WHERE channel = ? AND read = 0 AND kind = {_POST}"
        count: int = self._one(sql, (channel,))
        return count

    def unread_channels(self) -> dict[ChannelId, int]:
        sql = f"SELECT {sturdy('channel')}, count(*) FROM line WHERE read = 0 AND kind = {_POST} GROUP BY channel"
        return {ChannelId(channel): count for channel, count in self._rows(sql)}

    def accept(self, author: PeerKey) -> int:
        rows = self._take(f"UPDATE line SET request = 0 WHERE peer = ? AND request = 1 RETURNING {_CHARGED}", (author,))
        for peer, size in rows:
            self._count_request(peer, size, -1)
        return len(rows)

    def requesters(self, limit: int) -> Sequence[PeerKey]:
        # The index of requests has them in order; the quota of requests bounds how many it holds.
        rows = self._rows("SELECT DISTINCT peer FROM line WHERE request = 1 ORDER BY peer LIMIT ?", (limit,))
        return [PeerKey(peer) for (peer,) in rows if isinstance(peer, bytes) and len(peer) == KEY_BYTES]
