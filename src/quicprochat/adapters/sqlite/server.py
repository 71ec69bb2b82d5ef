"""ServerStore: a home server's store, which also knows its users, their names and the invites."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quicprochat.adapters.sqlite import schema
from quicprochat.adapters.sqlite.copy import Copy
from quicprochat.adapters.sqlite.database import Row, checksum, sturdy
from quicprochat.adapters.sqlite.federation import FederationTables
from quicprochat.adapters.sqlite.followers import Followers
from quicprochat.core.errors import StoreError
from quicprochat.core.ids import PeerKey
from quicprochat.core.time import Instant, WallTime
from quicprochat.core.users import User

_COLUMNS = sturdy("key", "#first_seen", "#last_seen", "#seen_at", "name", "checksum")

_NOBODY_MAX = 4_096
"""Keys that are kept in memory for not being users': those of other domains are asked for with every message."""


def _intact(row: Row) -> User | None:
    """Return the user of a row, None when the row is not what was written."""
    key, first, last, seen_at, name, check = row
    if checksum(key, name) != check:
        return None
    return User(PeerKey(key), WallTime(first), WallTime(last), Instant(seen_at), name.decode("utf-8", "replace"))


class ServerStore(Followers, FederationTables):
    """See ``core.users.UserStore``, ``core.following.FollowStore`` and ``core.federation.FederationStore``."""

    @classmethod
    def _schemas(cls) -> tuple[schema.Schema, ...]:
        return (*super()._schemas(), schema.SERVER)

    def _load(self) -> None:
        super()._load()
        self._users: int = self._one("SELECT count(*) FROM user")

    def _forget_cached(self) -> None:
        super()._forget_cached()
        self._nobody: set[PeerKey] = set()  # no users, as was found out already

    def first_stored(self) -> Instant | None:
        """Return since when the longest waiting envelope has been here, None when none waits."""
        at: Instant | None = self._one("SELECT stored_at FROM held ORDER BY serial LIMIT 1")
        return at

    def copy(self, target: Path) -> Copy:
        """Begin a copy of everything; see there."""
        return Copy(self._db, target)

    def drop_value(self, key: str) -> None:
        """Forget a small named value."""
        self._run("DELETE FROM value WHERE key = ?", (key,))

    def check(self) -> None:
        """Read every page once. Raises: StoreError, when the file is damaged."""
        found = [problem for (problem,) in self._rows("PRAGMA quick_check(1)")]
        if found != ["ok"]:
            raise StoreError(f"{self._path} is damaged ({found[0]}): use an older copy")

    # --- users

    def user(self, key: PeerKey) -> User | None:
        if key in self._nobody:
            return None
        rows = self._rows(f"SELECT {_COLUMNS} FROM user WHERE key = ?", (key,))
        if not rows:
            if len(self._nobody) >= _NOBODY_MAX:
                self._nobody.clear()
            self._nobody.add(key)
        found = self._whole("user", rows, _intact)
        return found[0] if found else None

    def user_count(self) -> int:
        return self._users

    def users(self, after: bytes, limit: int) -> Sequence[User]:
        sql = f"SELECT {_COLUMNS} FROM user WHERE key > ? ORDER BY key LIMIT ?"
        return self._whole("user", self._rows(sql, (after, limit + len(self._damaged))), _intact)[:limit]

    def see_user(self, key: PeerKey, at: Instant, wall: WallTime) -> None:
        self._nobody.discard(key)
        if ("user", key) in self._damaged:
            # What is written now is good, and must not be dropped for what stood there.
            self._run("DELETE FROM user WHERE key = ?", (key,))
            self._damaged.remove(("user", key))
            self._users -= 1
            self.count("damaged")
        if not self._run("UPDATE user SET last_seen = ?, seen_at = ? WHERE key = ?", (wall, at, key)):
            self._run("INSERT INTO user VALUES (?, ?, ?, ?, NULL, NULL, ?)", (key, wall, wall, at, checksum(key, b"")))
            self._users += 1

    def name_user(self, key: PeerKey, name: str, look: str) -> None:
        check = checksum(key, name.encode())
        changed = self._run("UPDATE user SET name = ?, look = ?, checksum = ? WHERE key = ?", (name, look, check, key))
        assert changed, "a name for nobody"

    def user_named(self, name: str) -> PeerKey | None:
        return self._whose("name", name)

    def user_looking_like(self, look: str) -> PeerKey | None:
        return self._whose("look", look)

    def _whose(self, column: str, value: str) -> PeerKey | None:
        # Found by the index, believed from the row.
        sql = f"SELECT {_COLUMNS} FROM user WHERE key IN (SELECT key FROM user WHERE {column} = ?)"
        found = self._whole("user", self._rows(sql, (value,)), _intact)
        return found[0].key if found else None

    def drop_user(self, key: PeerKey) -> None:
        self._users -= self._run("DELETE FROM user WHERE key = ?", (key,))
        self.follow(key, ())

    def idle_users(self, before: Instant, limit: int) -> Sequence[PeerKey]:
        sql = "SELECT key FROM user WHERE name IS NULL AND seen_at < ? ORDER BY seen_at LIMIT ?"
        return [PeerKey(key) for (key,) in self._rows(sql, (before, limit))]

    # --- invites

    def put_invite(self, hash: bytes, expires_at: Instant) -> None:
        self._run("INSERT OR REPLACE INTO invite VALUES (?, ?)", (hash, expires_at))

    def take_invite(self, hash: bytes, now: Instant) -> bool:
        return bool(self._run("DELETE FROM invite WHERE hash = ? AND expires_at > ?", (hash, now)))

    def invite_count(self, now: Instant) -> int:
        count: int = self._one("SELECT count(*) FROM invite WHERE expires_at > ?", (now,))
        return count

    def drop_invites(self, now: Instant) -> int:
        return self._run("DELETE FROM invite WHERE expires_at <= ?", (now,))
