"""The tables of a home server's channels: who follows what, here and at other domains; see ``core.following``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from types import MappingProxyType

from quicprochat.adapters.sqlite.database import Row, checksum, sturdy
from quicprochat.adapters.sqlite.store import SqliteStore
from quicprochat.core.envelope import Kind
from quicprochat.core.ids import ChannelId, EnvelopeId, PeerKey
from quicprochat.core.time import Instant

_KIND = 2
"""Where an envelope's core has its kind."""
_FOLLOW = sturdy("channel", "user", "checksum")
_INTEREST = sturdy("domain", "channel", "#after", "checksum")


def _follow(row: Row) -> tuple[ChannelId, PeerKey] | None:
    channel, user, check = row
    return (ChannelId(channel), PeerKey(user)) if checksum(channel, user) == check else None


def _interest(row: Row) -> tuple[str, ChannelId, int] | None:
    domain, channel, after, check = row
    return (domain.decode(), ChannelId(channel), after) if checksum(domain, channel) == check else None


class Followers(SqliteStore):
    """Counts are kept in memory: they are asked for every post."""

    def _load(self) -> None:
        # Before what is held is counted.
        self._windows: dict[ChannelId, dict[PeerKey, int]] = {}
        self._channel_bytes: dict[ChannelId, int] = {}
        super()._load()
        self._followed: dict[ChannelId, int] = {
            ChannelId(channel): count
            for channel, count in self._each(f"SELECT {sturdy('channel')}, count(*) FROM follow GROUP BY channel")
        }
        self._follows = sum(self._followed.values())
        self._interests: dict[str, dict[ChannelId, int]] = {}
        rows = self._rows(f"SELECT {_INTEREST} FROM interest ORDER BY domain, channel")
        for domain, channel, after in filter(None, map(_interest, rows)):
            self._interests.setdefault(domain, {})[channel] = after

    def _charge(self, via: bytes, dst: bytes, core: bytes, size: int, sign: int, count: int = 1) -> None:
        super()._charge(via, dst, core, size, sign, count)
        if len(core) <= _KIND or core[_KIND] != Kind.CHANNEL:
            return
        channel, bringer = ChannelId(dst), PeerKey(via)
        window = self._windows.setdefault(channel, {})
        window[bringer] = window.get(bringer, 0) + sign * size
        self._channel_bytes[channel] = self._channel_bytes.get(channel, 0) + sign * size
        if not window[bringer]:
            del window[bringer]
        if not window:
            del self._windows[channel], self._channel_bytes[channel]

    # --- who follows what

    def follow(self, user: PeerKey, channels: Collection[ChannelId]) -> None:
        wanted, known = frozenset(channels), self.followed_by(user)
        for channel in sorted(known - wanted):
            gone = self._run("DELETE FROM follow WHERE channel = ? AND user = ?", (channel, user))
            self._count_follow(channel, -gone)
        for channel in sorted(wanted - known):
            # A damaged row of the same key is replaced, and was counted.
            gone = self._run("DELETE FROM follow WHERE channel = ? AND user = ?", (channel, user))
            self._run("INSERT INTO follow VALUES (?, ?, ?)", (channel, user, checksum(channel, user)))
            self._count_follow(channel, 1 - gone)

    def _count_follow(self, channel: ChannelId, by: int) -> None:
        self._follows += by
        self._followed[channel] = self._followed.get(channel, 0) + by
        if self._followed[channel] <= 0:
            del self._followed[channel]

    def followed_by(self, user: PeerKey) -> frozenset[ChannelId]:
        # Found by the index, believed from the row.
        rows = self._rows(f"SELECT {_FOLLOW} FROM follow WHERE user = ?", (user,))
        found = filter(None, map(_follow, rows))
        return frozenset(channel for channel, whose in found if whose == user)

    def followed(self) -> Mapping[ChannelId, int]:
        return MappingProxyType(self._followed)

    def follow_count(self) -> int:
        return self._follows

    def idle_followers(self, before: Instant, limit: int) -> Sequence[PeerKey]:
        sql = "SELECT DISTINCT user FROM follow JOIN user ON user.key = follow.user WHERE seen_at < ? LIMIT ?"
        return [PeerKey(key) for (key,) in self._rows(sql, (before, limit))]

    # --- windows

    def newest_serial(self) -> int:
        return self._serial

    def post_ids(self, channel: ChannelId, after: int, limit: int) -> Sequence[tuple[int, EnvelopeId]]:
        sql = "SELECT serial, id FROM held WHERE dst = ? AND serial > ? ORDER BY serial LIMIT ?"
        return [(serial, EnvelopeId(id)) for serial, id in self._rows(sql, (channel, after, limit))]

    def windows(self) -> AbstractSet[ChannelId]:
        return self._windows.keys()

    def widest(self) -> ChannelId | None:
        return max(self._channel_bytes, key=lambda id: (self._channel_bytes[id], id), default=None)

    def crowds(self, channel: ChannelId) -> PeerKey | None:
        window = self._windows.get(channel, {})
        return max(window, key=lambda via: (window[via], via), default=None)

    def brought(self, channel: ChannelId, via: PeerKey, limit: int) -> Sequence[EnvelopeId]:
        sql = "SELECT id FROM held WHERE dst = ? AND via = ? ORDER BY serial LIMIT ?"
        return [EnvelopeId(id) for (id,) in self._rows(sql, (channel, via, limit))]

    # --- other domains

    def take_interest(self, domain: str, channels: Collection[ChannelId]) -> None:
        known = self._interests.setdefault(domain, {})
        for channel in sorted(frozenset(channels) - known.keys()):
            check = checksum(domain.encode(), channel)
            self._run("INSERT OR REPLACE INTO interest VALUES (?, ?, 0, ?)", (domain, channel, check))
            known[channel] = 0

    def lose_interest(self, domain: str, channels: Collection[ChannelId]) -> None:
        known = self._interests.get(domain, {})
        for channel in sorted(known.keys() & frozenset(channels)):
            self._run("DELETE FROM interest WHERE domain = ? AND channel = ?", (domain, channel))
            del known[channel]
        if not known:
            self._interests.pop(domain, None)

    def interests(self, domain: str) -> Mapping[ChannelId, int]:
        return MappingProxyType(self._interests.get(domain, {}))

    def interested(self) -> AbstractSet[str]:
        return self._interests.keys()

    def come(self, domain: str, channel: ChannelId, after: int) -> None:
        known = self._interests.get(domain, {})
        if channel in known:
            self._run("UPDATE interest SET after = ? WHERE domain = ? AND channel = ?", (after, domain, channel))
            known[channel] = after
