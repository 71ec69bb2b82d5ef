"""What is known of other peers, our own prekeys, and the small things: named values and counters."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from quicprochat.adapters.sqlite.database import Database, Row, checksum, sturdy
from quicprochat.adapters.sqlite.late import Table
from quicprochat.core.errors import StoreError
from quicprochat.core.ids import PeerKey
from quicprochat.core.store import (
    HOMES_MAX,
    KNOWN_AUTHORS_MAX,
    SIGHTINGS_MAX,
    Author,
    Home,
    HomeSource,
    Sighting,
    StoredPrekey,
    StoredRecord,
)
from quicprochat.core.time import Instant, WallTime

_RECORD = struct.Struct(">qqqq")
_INSTANT = struct.Struct(">q")
_RECORD_COLUMNS = sturdy("key", "#epoch", "#seq", "#age_ms", "#stored_at", "checksum", "data")
_HOME = struct.Struct(">qqqq")
_HOME_COLUMNS = sturdy("key", "domain", "#source", "#epoch", "#seq", "#at", "checksum")
_AUTHOR = struct.Struct(">qq")
_AUTHOR_COLUMNS = sturdy("key", "#since", "#heard_at", "via", "checksum")
_BIAS = 1 << 64


def _signed(number: int) -> int:
    """Fold an unsigned number of 64 bits into what SQLite has: a peer may choose any sequence number."""
    return number - _BIAS if number >= _BIAS >> 1 else number


def _record(row: Row) -> StoredRecord | None:
    key, epoch, seq, age, stored_at, check, data = row
    try:
        if checksum(key, _RECORD.pack(epoch, seq, age, stored_at), data) != check:
            return None
    except (TypeError, struct.error):
        return None
    return StoredRecord(key, epoch % _BIAS, seq % _BIAS, data, age % _BIAS, stored_at)


def _home(row: Row) -> Home | None:
    key, domain, source, epoch, seq, at, check = row
    try:
        if checksum(key, domain, _HOME.pack(source, epoch, seq, at)) != check:
            return None
        return Home(key, domain.decode(), HomeSource(source), epoch % _BIAS, seq % _BIAS, at)
    except (TypeError, ValueError, struct.error):
        return None


def _author(row: Row) -> Author | None:
    key, since, heard_at, via, check = row
    try:
        if checksum(key, via, _AUTHOR.pack(since, heard_at)) != check:
            return None
    except (TypeError, struct.error):
        return None
    return Author(key, since, heard_at, via)


def _prekey(row: Row) -> StoredPrekey | None:
    id, made_at, check, secret = row
    try:
        return StoredPrekey(id, secret, made_at) if checksum(id, _INSTANT.pack(made_at), secret) == check else None
    except (TypeError, struct.error):
        return None


_VALUE = Table("value", insert="INSERT OR REPLACE")
_READ_VALUE = f"SELECT {sturdy('checksum', 'data')} FROM value WHERE key = ?"


class Peers(Database):
    """Records, sightings, prekeys, values and counters; see ``MeshStore``."""

    def _load(self) -> None:
        super()._load()
        self._gathered: Counter[str] = Counter()
        self._totals = {
            name.decode(errors="replace"): total
            for name, total in self._rows(f"SELECT {sturdy('name', '#total')} FROM counter")
        }

    def _flush(self) -> None:
        super()._flush()
        if self._damaged:
            self._gathered["damaged"] += len(self._damaged)
        if not self._gathered:
            return
        self._sql.executemany(
            "INSERT INTO counter VALUES (?1, ?2) ON CONFLICT DO UPDATE SET total = total + ?2",
            self._gathered.items(),
        )
        for name, by in self._gathered.items():
            self._totals[name] = self._totals.get(name, 0) + by
        self._gathered.clear()

    # --- small values and counters

    def value(self, key: str) -> bytes | None:
        late = self._late.find(_VALUE, key)
        row = late[1:] if late else self._peek(_READ_VALUE, (key,))
        if row is None:
            return None
        check, data = row
        assert isinstance(data, bytes)
        if checksum(key.encode(), data) != check:
            # Unlike a message it cannot come again, and a sequence number that starts anew does harm.
            failure = StoreError(f"{self._path} is damaged: its value {key!r} is not what was written; use a backup")
            self._poison(failure)
            raise failure
        return data

    def set_value(self, key: str, data: bytes) -> None:
        self._later(_VALUE, key, (key, checksum(key.encode(), data), data))

    def count(self, name: str, by: int = 1) -> None:
        # Statistics ride with the next real write: a flood of duplicates must not cost an fsync for each batch.
        self._gathered[name] += by

    def counters(self) -> dict[str, int]:
        found = Counter(self._totals)
        for name, by in self._gathered.items():
            found[name] += by
        if self._damaged:
            found["damaged"] += len(self._damaged)
        return dict(found)

    # --- peers

    def put_record(self, record: StoredRecord) -> bool:
        known = self.record(record.key)
        if known is not None and known.version >= record.version:
            return False
        numbers = (_signed(record.epoch), _signed(record.seq), _signed(record.age_ms), record.stored_at)
        check = checksum(record.key, _RECORD.pack(*numbers), record.data)
        self._run(
            "INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?, ?, ?, ?)", (record.key, *numbers, check, record.data)
        )
        self._replaced("record", record.key)
        return True

    def record(self, key: PeerKey) -> StoredRecord | None:
        rows = self._rows(f"SELECT {_RECORD_COLUMNS} FROM record WHERE key = ?", (key,))
        found = self._whole("record", rows, _record)
        return found[0] if found else None

    def records(self, limit: int) -> Sequence[StoredRecord]:
        rows = self._rows(
            f"SELECT {_RECORD_COLUMNS} FROM record ORDER BY stored_at DESC, key LIMIT ?", (limit + len(self._damaged),)
        )
        return self._whole("record", rows, _record)[:limit]

    def drop_record(self, key: PeerKey) -> None:
        self._run("DELETE FROM record WHERE key = ?", (key,))

    def see(self, sighting: Sighting, contacts: AbstractSet[PeerKey] = frozenset()) -> None:
        self._run(
            "INSERT OR REPLACE INTO sighting VALUES (?, ?, ?, ?)",
            (sighting.key, sighting.wall, sighting.at, sighting.address),
        )
        excess = self._one("SELECT count(*) FROM sighting") - SIGHTINGS_MAX
        if excess <= 0:
            return
        # Enough of the oldest that so many are there which are no contacts, if there are so many.
        oldest = self._rows(
            f"SELECT {sturdy('key')} FROM sighting WHERE key <> ? ORDER BY at, key LIMIT ?",
            (sighting.key, excess + len(contacts)),
        )
        oldest.sort(key=lambda row: row[0] in contacts)
        self._run_many("DELETE FROM sighting WHERE key = ?", oldest[:excess])

    def sightings(self, limit: int) -> Sequence[Sighting]:
        rows = self._rows(
            f"SELECT {sturdy('key', '#wall', '#at', 'address')} FROM sighting ORDER BY at DESC, key LIMIT ?", (limit,)
        )
        return [
            Sighting(key, WallTime(wall), Instant(at), address.decode(errors="replace"))
            for key, wall, at, address in rows
        ]

    def put_home(self, home: Home, contacts: AbstractSet[PeerKey] = frozenset()) -> None:
        numbers = (int(home.source), _signed(home.epoch), _signed(home.seq), home.at)
        check = checksum(home.key, home.domain.encode(), _HOME.pack(*numbers))
        self._run("INSERT OR REPLACE INTO home VALUES (?, ?, ?, ?, ?, ?, ?)", (home.key, home.domain, *numbers, check))
        self._replaced("home", home.key)
        excess = self._one("SELECT count(*) FROM home") - HOMES_MAX
        if excess <= 0:
            return
        # Enough that so many are there which are no contacts', if there are so many.
        oldest = self._rows(
            f"SELECT {sturdy('key')} FROM home WHERE key <> ? ORDER BY source = ?, at, key LIMIT ?",
            (home.key, int(HomeSource.PERSON), excess + len(contacts)),
        )
        oldest.sort(key=lambda row: row[0] in contacts)
        self._run_many("DELETE FROM home WHERE key = ?", oldest[:excess])

    def home(self, key: PeerKey) -> Home | None:
        found = self._whole("home", self._rows(f"SELECT {_HOME_COLUMNS} FROM home WHERE key = ?", (key,)), _home)
        return found[0] if found else None

    def homes(self, limit: int) -> Sequence[Home]:
        rows = self._rows(
            f"SELECT {_HOME_COLUMNS} FROM home ORDER BY at DESC, key LIMIT ?", (limit + len(self._damaged),)
        )
        return self._whole("home", rows, _home)[:limit]

    def put_author(self, author: Author) -> None:
        check = checksum(author.key, author.via, _AUTHOR.pack(author.since, author.heard_at))
        self._run(
            "INSERT OR REPLACE INTO author VALUES (?, ?, ?, ?, ?)",
            (author.key, author.since, author.heard_at, author.via, check),
        )
        self._replaced("author", author.key)
        if self._one("SELECT count(*) FROM author") <= KNOWN_AUTHORS_MAX:
            return
        self._run(
            "DELETE FROM author WHERE key = (SELECT key FROM author WHERE key <> ? AND via ="
            " (SELECT via FROM author GROUP BY via ORDER BY count(*) DESC, via LIMIT 1)"
            " ORDER BY heard_at, key LIMIT 1)",
            (author.key,),
        )

    def author(self, key: PeerKey) -> Author | None:
        rows = self._rows(f"SELECT {_AUTHOR_COLUMNS} FROM author WHERE key = ?", (key,))
        found = self._whole("author", rows, _author)
        return found[0] if found else None

    # --- prekeys

    def put_prekey(self, prekey: StoredPrekey) -> None:
        check = checksum(prekey.id, _INSTANT.pack(prekey.made_at), prekey.secret)
        self._run(
            "INSERT OR REPLACE INTO prekey VALUES (?, ?, ?, ?)", (prekey.id, prekey.made_at, check, prekey.secret)
        )

    def prekeys(self) -> Sequence[StoredPrekey]:
        rows = self._rows(
            f"SELECT {sturdy('id', '#made_at', 'checksum', 'secret')} FROM prekey ORDER BY made_at DESC, id"
        )
        return self._whole("prekey", rows, _prekey)

    def drop_prekeys(self, made_before: Instant) -> int:
        gone = self._run("DELETE FROM prekey WHERE made_at < ?", (made_before,))
        if gone:
            self._scrub = True
        return gone
