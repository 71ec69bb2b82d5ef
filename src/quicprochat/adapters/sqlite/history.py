"""The history of channels: where posts stand, and which numbers of an author were seen. Texts are the journal's."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from quicprochat.adapters.sqlite.database import Database, Row, checksum, sturdy
from quicprochat.adapters.sqlite.journal import POSTS, unpack_place
from quicprochat.adapters.sqlite.late import Table
from quicprochat.core.gaps import AUTHORS_MAX, Gap, Heard
from quicprochat.core.history import Place
from quicprochat.core.ids import ChannelId, PeerKey
from quicprochat.core.time import Instant, WallTime

_AT = struct.Struct(">q")
_SPAN = struct.Struct(">QQ")
_GAP = struct.Struct(">QQq")
NUMBERS = Table("heard", insert="INSERT OR REPLACE", row=lambda item: _row(*item))
_RECENT_MAX = 4_096
"""Authors in channels whose numbers are in memory: each of their posts asks for them, and changes them."""
_HEARD = "n, " + sturdy("channel", "author", "#at", "checksum", "numbers")
_PLACE = "cursor, " + sturdy("peer", "place")


def _row(channel: ChannelId, heard: Heard) -> Row:
    gaps = (_GAP.pack(gap.first, gap.last, gap.noticed_at) for gap in heard.gaps)
    numbers = b"".join((_SPAN.pack(heard.lowest, heard.highest), *gaps))
    check = checksum(channel, heard.author, _AT.pack(heard.at), numbers)
    return (None, channel, heard.author, heard.at, check, numbers)


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

    def _forget_cached(self) -> None:
        super()._forget_cached()
        self._recent: dict[tuple[ChannelId, PeerKey], Heard] = {}

    def put_heard(self, channel: ChannelId, heard: Heard) -> None:
        if (channel, heard.author) not in self._recent and self.heard(channel, heard.author) is None:
            self._make_room_for_one(channel)
        self._later(NUMBERS, (channel, heard.author), (channel, heard))
        self._keep(channel, heard)

    def _make_room_for_one(self, channel: ChannelId) -> None:
        if self._one("SELECT count(*) FROM heard WHERE channel = ?", (channel,)) < AUTHORS_MAX:
            return
        gone = self._take(
            "DELETE FROM heard WHERE n = (SELECT n FROM heard WHERE channel = ? ORDER BY at, author LIMIT 1) "
            "RETURNING author",
            (channel,),
        )
        for (author,) in gone:
            self._recent.pop((channel, author), None)

    def heard(self, channel: ChannelId, author: PeerKey) -> Heard | None:
        if (known := self._recent.get((channel, author))) is not None:
            return known
        rows = self._rows(f"SELECT {_HEARD} FROM heard WHERE channel = ? AND author = ?", (channel, author))
        found = self._whole("heard", rows, _intact)
        if not found:
            return None
        self._keep(channel, found[0])
        return found[0]

    def _keep(self, channel: ChannelId, heard: Heard) -> None:
        self._recent[channel, heard.author] = heard
        if len(self._recent) > _RECENT_MAX:
            del self._recent[next(iter(self._recent))]

    def heard_in(self, channel: ChannelId) -> Sequence[Heard]:
        rows = self._rows(f"SELECT {_HEARD} FROM heard WHERE channel = ? ORDER BY author", (channel,))
        return self._whole("heard", rows, _intact)

    def forget_heard(self, channel: ChannelId) -> None:
        self._run("DELETE FROM heard WHERE channel = ?", (channel,))
        self._recent = {key: heard for key, heard in self._recent.items() if key[0] != channel}
