"""The history of channels: where posts stand, and which numbers of an author were seen. Texts are the journal's."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from quicprochat.adapters.sqlite.database import Database, Row, checksum, sturdy
from quicprochat.adapters.sqlite.journal import POSTS, unpack_place
from quicprochat.core.gaps import AUTHORS_MAX, Gap, Heard
from quicprochat.core.history import Place
from quicprochat.core.ids import ChannelId, PeerKey
from quicprochat.core.time import Instant, WallTime

_AT = struct.Struct(">q")
_SPAN = struct.Struct(">QQ")
_GAP = struct.Struct(">QQq")
_HEARD = "n, " + sturdy("channel", "author", "#at", "checksum", "numbers")
_PLACE = "cursor, " + sturdy("peer", "place")


def _intact(row: Row) -> Heard | None:
    """Return what a row says of an author, None when the row is not what was written."""
    _, channel, author, at, check, numbers = row
    try:
        if checksum(channel, author, _AT.pack(at), numbers) != check:
            return None
        lowest, highest = _SPAN.unpack_from(numbers)
        gaps = tuple(Gap(*found) for found in _GAP.iter_unpack(numbers[_SPAN.size :]))
    except struct.error:
        return None
    return Heard(PeerKey(author), lowest, highest, gaps, Instant(at))


class History(Database):
    """See ``MeshStore``."""

    def places(
        self, channel: ChannelId, *, after: int = 0, since: WallTime | None = None, unread: bool = False, limit: int
    ) -> Sequence[Place]:
        conditions = ["channel = :channel", POSTS, "cursor > :after"]
        conditions += ["at >= :since"] if since is not None else []
        conditions += ["read = 0"] if unread else []
        cursors = f"SELECT cursor FROM line WHERE {' AND '.join(conditions)} ORDER BY cursor DESC LIMIT :limit"
        sql = f"SELECT {_PLACE} FROM line WHERE cursor IN ({cursors}) ORDER BY cursor"
        # Damage here spoils the order alone: a line is compared with its checksum where its text is read.
        bindings = {"channel": channel, "after": after, "since": since, "limit": limit}
        return [Place(cursor, peer, *unpack_place(place)) for cursor, peer, place in self._rows(sql, bindings)]

    def put_heard(self, channel: ChannelId, heard: Heard) -> None:
        gaps = (_GAP.pack(gap.first, gap.last, gap.noticed_at) for gap in heard.gaps)
        numbers = b"".join((_SPAN.pack(heard.lowest, heard.highest), *gaps))
        check = checksum(channel, heard.author, _AT.pack(heard.at), numbers)
        values = (heard.at, check, numbers, channel, heard.author)
        if self._run("UPDATE heard SET at = ?, checksum = ?, numbers = ? WHERE channel = ? AND author = ?", values):
            return
        self._run(
            "INSERT OR REPLACE INTO heard (at, checksum, numbers, channel, author) VALUES (?, ?, ?, ?, ?)", values
        )
        if self._one("SELECT count(*) FROM heard WHERE channel = ?", (channel,)) > AUTHORS_MAX:
            self._run(
                "DELETE FROM heard WHERE n = (SELECT n FROM heard WHERE channel = ? AND author != ? "
                "ORDER BY at, author LIMIT 1)",
                (channel, heard.author),
            )

    def heard(self, channel: ChannelId, author: PeerKey) -> Heard | None:
        rows = self._rows(f"SELECT {_HEARD} FROM heard WHERE channel = ? AND author = ?", (channel, author))
        found = self._whole("heard", rows, _intact)
        return found[0] if found else None

    def heard_in(self, channel: ChannelId) -> Sequence[Heard]:
        rows = self._rows(f"SELECT {_HEARD} FROM heard WHERE channel = ? ORDER BY author", (channel,))
        return self._whole("heard", rows, _intact)

    def forget_heard(self, channel: ChannelId) -> None:
        self._run("DELETE FROM heard WHERE channel = ?", (channel,))
