"""The tables of a federated home server: outbox, correspondents, reports; see ``core.federation.FederationStore``."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from quicprochat.adapters.sqlite.database import Row, checksum, sturdy
from quicprochat.adapters.sqlite.envelopes import SEEN
from quicprochat.adapters.sqlite.late import Table, among
from quicprochat.adapters.sqlite.store import SqliteStore
from quicprochat.core.envelope import Kind
from quicprochat.core.federation import Outgoing, Report
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.store import Held, Usage
from quicprochat.core.time import Instant

_FIXED = struct.Struct(">qqq")
_ANSWER = struct.Struct(">qq")
_MOMENT = struct.Struct(">q")

# Which columns may be NULL is read beside them: sturdy() makes a number of everything.
_OUTBOX = (
    sturdy("#n", "id", "origin", "destination", "user", "#kind", "#size", "#expires_at", "#due_at", "#tries",
           "#verdict", "#reason", "checksum")
    + ", due_at IS NULL, verdict IS NULL"
)  # fmt: skip
_REPORT = sturdy("#n", "author", "id", "domain", "#verdict", "#reason", "#made_at", "checksum")
_CORRESPONDENT = sturdy("author", "domain", "#expires_at", "checksum")
_CHARGED = sturdy("destination", "user", "#kind", "#size")


def _fixed(row: Outgoing) -> bytes:
    numbers = _FIXED.pack(row.kind, row.size, row.expires_at)
    return checksum(row.id, row.origin.encode(), row.destination.encode(), row.user, numbers)


def _outbox_row(row: Outgoing) -> Row:
    return (
        row.serial, row.id, row.origin, row.destination, row.user, row.kind, row.size, row.expires_at, row.due_at,
        row.tries, row.verdict, row.reason, _fixed(row),
    )  # fmt: skip


def _report_row(report: Report) -> Row:
    return (
        None, report.author, report.id, report.domain, report.verdict, report.reason, report.made_at,
        _report_checksum(report),
    )  # fmt: skip


OUTBOX = Table("outbox", by="n", row=_outbox_row)
REPORT = Table("report", row=_report_row)


def _outgoing(row: Row) -> Outgoing | None:
    n, id, origin, destination, user, kind, size, expires, due, tries, verdict, reason, check, aside, unanswered = row
    if checksum(id, origin, destination, user, _FIXED.pack(kind, size, expires)) != check:
        return None
    return Outgoing(
        EnvelopeId(id), origin.decode(), destination.decode(), PeerKey(user), kind, size, Instant(expires),
        None if aside else Instant(due), tries, None if unanswered else verdict, reason, n,
    )  # fmt: skip


def _report_checksum(report: Report) -> bytes:
    return checksum(report.author, report.id, report.domain.encode(), _ANSWER.pack(report.verdict, report.reason))


def _report(row: Row) -> Report | None:
    n, author, id, domain, verdict, reason, made_at, check = row
    if checksum(author, id, domain, _ANSWER.pack(verdict, reason)) != check:
        return None
    return Report(PeerKey(author), EnvelopeId(id), domain.decode(), verdict, reason, Instant(made_at), n)


def _correspondent(row: Row) -> tuple[str, Instant] | None:
    author, domain, expires_at, check = row
    if checksum(author, domain, _MOMENT.pack(expires_at)) != check:
        return None
    return domain.decode(), Instant(expires_at)


class FederationTables(SqliteStore):
    """Totals are kept in memory: a quota is asked for every envelope."""

    _KEYED = (*SqliteStore._KEYED, OUTBOX)
    _FRESH_MAX, _FRESH_BYTES = 16_384, 16 << 20  # what waits for the answer of another domain is let go of by it

    def _forget_cached(self) -> None:
        super()._forget_cached()
        self._sent_rows: dict[EnvelopeId, Outgoing] = {}
        """Rows of the outbox as they were put or read, written or not; when they are due may have changed."""

    def _load(self) -> None:
        super()._load()
        self._outbox_serial: int = self._one("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'") or 0
        self._used: dict[tuple[str, bytes], list[int]] = {}
        self._rows_of: Counter[str] = Counter()
        for destination, user, kind, count, size in self._each(
            f"SELECT {sturdy('destination', 'user', '#kind')}, count(*), sum({sturdy('#size')}) FROM outbox"
            " GROUP BY destination, user, kind"
        ):
            self._charge_outgoing(destination.decode("utf-8", "replace"), user, kind, count, size)
        self._authors: Counter[PeerKey] = Counter(
            {PeerKey(a): c for a, c in self._each(f"SELECT {sturdy('author')}, count(*) FROM report GROUP BY author")}
        )
        self._reports = self._authors.total()
        self._correspondents: int = self._one("SELECT count(*) FROM correspondent")

    def _charge_outgoing(self, destination: str, user: bytes, kind: int, count: int, size: int) -> None:
        self._rows_of[destination] += count
        if not self._rows_of[destination]:
            del self._rows_of[destination]
        if kind == Kind.RECEIPT:
            return
        for key in ((destination, b""), (destination, user)):
            used = self._used.setdefault(key, [0, 0])
            used[0] += count
            used[1] += size
            if not used[0]:
                del self._used[key]

    # --- the outbox

    def held_many(self, ids: Sequence[EnvelopeId]) -> dict[EnvelopeId, Held]:
        found = super().held_many(ids)
        for id, held in found.items():
            if id not in self._fresh:
                self._freshen(held)  # it is read to be sent, and let go of moments later
        return found

    def release_many(self, ids: Sequence[EnvelopeId]) -> None:
        super().release_many(ids)
        if self._rows_of:
            self._drop_many(ids)

    def put_outgoing(self, row: Outgoing) -> Outgoing:
        waiting: Outgoing | None = self._late.find(OUTBOX, row.id)
        if waiting is not None:
            kept = replace(waiting, due_at=row.due_at)
            self._late.replace(OUTBOX, row.id, kept)
            return kept
        if self._is_written(row.id):
            self._run("UPDATE outbox SET due_at = ? WHERE id = ?", (row.due_at, row.id))
            return row
        self._outbox_serial += 1
        r = row
        # Not ``replace``, which takes three times as long: this is done for all that leaves for another domain.
        kept = Outgoing(
            r.id, r.origin, r.destination, r.user, r.kind, r.size, r.expires_at, r.due_at, r.tries, r.verdict, r.reason,
            self._outbox_serial,
        )  # fmt: skip
        self._later(OUTBOX, row.id, kept)
        self._charge_outgoing(row.destination, row.user, row.kind, 1, row.size)
        self._remember_row(kept)
        return kept

    def _remember_row(self, row: Outgoing) -> None:
        if len(self._sent_rows) >= self._FRESH_MAX:
            del self._sent_rows[next(iter(self._sent_rows))]
        self._sent_rows[row.id] = row

    def _is_written(self, id: EnvelopeId) -> bool:
        if self._late.missing(OUTBOX, id):
            return False
        return self._peek("SELECT 1 FROM outbox WHERE id = ?", (id,)) is not None

    def _outbox(self, where: str, bindings: tuple[object, ...]) -> list[Outgoing]:
        rows = self._rows(f"SELECT {_OUTBOX} FROM outbox WHERE {where}", bindings)
        return self._whole("outbox", rows, _outgoing)

    def outgoing(self, id: EnvelopeId) -> Outgoing | None:
        if self._late.find(OUTBOX, id) is None and self._late.missing(OUTBOX, id):
            return None
        found = self._outbox("id = ?", (id,))
        return found[0] if found and found[0].id == id else None

    def due_outgoing(
        self, destination: str, now: Instant, limit: int, after: tuple[int, int] = (-1, 0)
    ) -> Sequence[Outgoing]:
        where = "destination = ? AND due_at <= ? AND (due_at, n) > (?, ?) ORDER BY due_at, n LIMIT ?"
        found = self._outbox(where, (destination, now, *after, limit))
        due = [row for row in found if row.destination == destination]
        for row in due:
            self._remember_row(row)
        return due

    def next_due(self, destination: str) -> Instant | None:
        due: Instant | None = self._one(
            "SELECT due_at FROM outbox WHERE destination = ? AND due_at IS NOT NULL ORDER BY due_at LIMIT 1",
            (destination,),
        )
        return due

    def answer_outgoing(
        self, id: EnvelopeId, due_at: Instant | None, tries: int, verdict: int | None, reason: int
    ) -> None:
        self._run(
            "UPDATE outbox SET due_at = ?, tries = ?, verdict = ?, reason = ? WHERE id = ?",
            (due_at, tries, verdict, reason, id),
        )

    def wake_outgoing(self, destination: str, now: Instant, *, set_aside: bool) -> int:
        which = "(due_at > ? OR due_at IS NULL)" if set_aside else "due_at > ?"
        return self._run(f"UPDATE outbox SET due_at = ? WHERE destination = ? AND {which}", (now, destination, now))

    def drop_outgoing(self, id: EnvelopeId) -> None:
        self._drop_many((id,))

    def _drop_many(self, ids: Sequence[EnvelopeId]) -> None:
        written: list[EnvelopeId] = []
        for id in ids:
            recent = self._sent_rows.pop(id, None)
            if (row := self._late.drop(OUTBOX, id)) is not None:
                self._charge_outgoing(row.destination, row.user, row.kind, -1, -row.size)
            elif recent is not None:
                self._delete_later(OUTBOX, id, recent.serial)
                self._charge_outgoing(recent.destination, recent.user, recent.kind, -1, -recent.size)
            elif not self._late.missing(OUTBOX, id):
                written.append(id)
        if written:
            places, values = among(written)
            rows = self._peek_rows(f"SELECT id, n, {_CHARGED} FROM outbox WHERE id IN ({places})", values)
            for id, n, destination, user, kind, size in rows:
                self._delete_later(OUTBOX, id, n)
                self._charge_outgoing(destination.decode("utf-8", "replace"), user, kind, -1, -size)

    def expired_outgoing(self, now: Instant, limit: int) -> Sequence[EnvelopeId]:
        sql = "SELECT id FROM outbox WHERE expires_at <= ? ORDER BY expires_at LIMIT ?"
        return [EnvelopeId(id) for (id,) in self._rows(sql, (now, limit))]

    def outgoing_rows(self, destination: str, after: int, limit: int) -> Sequence[Outgoing]:
        return self._outbox("destination = ? AND n > ? ORDER BY n LIMIT ?", (destination, after, limit))

    def outgoing_usage(self, destination: str, user: PeerKey | None = None) -> Usage:
        used = self._used.get((destination, user or b""))
        return Usage(used[0], used[1]) if used else Usage()

    def outgoing_domains(self) -> Mapping[str, int]:
        return dict(self._rows_of)

    def outgoing_set_aside(self, destination: str) -> int:
        sql = "SELECT count(*) FROM outbox WHERE destination = ? AND due_at IS NULL"
        count: int = self._one(sql, (destination,))
        return count

    def forget_ids(self, ids: Sequence[EnvelopeId]) -> None:
        for id in ids:
            self._late.drop(SEEN, id)
            self._delete_later(SEEN, id, id)

    # --- where an author's mail came from

    def put_correspondent(self, author: PeerKey, domain: str, expires_at: Instant, limit: int) -> None:
        check = checksum(author, domain.encode(), _MOMENT.pack(expires_at))
        values = (domain, expires_at, check, author)
        if self._run("UPDATE correspondent SET domain = ?, expires_at = ?, checksum = ? WHERE author = ?", values):
            return
        if self._correspondents >= limit:
            self._correspondents -= self._run(
                "DELETE FROM correspondent WHERE author IN"
                " (SELECT author FROM correspondent ORDER BY expires_at LIMIT ?)",
                (self._correspondents - limit + 1,),
            )
        self._run("INSERT INTO correspondent VALUES (?, ?, ?, ?)", (author, domain, expires_at, check))
        self._correspondents += 1

    def correspondent(self, author: PeerKey, now: Instant) -> str:
        rows = self._rows(f"SELECT {_CORRESPONDENT} FROM correspondent WHERE author = ?", (author,))
        found = self._whole("correspondent", rows, _correspondent)
        return found[0][0] if found and found[0][1] > now else ""

    def drop_correspondents(self, now: Instant, limit: int) -> int:
        gone = self._run(
            "DELETE FROM correspondent WHERE author IN"
            " (SELECT author FROM correspondent WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)",
            (now, limit),
        )
        self._correspondents -= gone
        return gone

    # --- reports

    def put_reports(self, reports: Sequence[Report], per_author: int, limit: int) -> None:
        for report in reports:
            self._later(REPORT, object(), report)  # nobody asks for one by a key
        self._reports += len(reports)
        came = Counter(report.author for report in reports)
        self._authors.update(came)
        for author in came:
            if (beyond := self._authors[author] - per_author) > 0:
                which = "n IN (SELECT n FROM report WHERE author = ? ORDER BY n LIMIT ?)"
                self._drop_reports_of(author, which, (author, beyond))
        if (beyond := self._reports - limit) > 0:
            self._drop_reports("1 ORDER BY n LIMIT ?", (beyond,))

    def _drop_reports(self, which: str, bindings: tuple[object, ...]) -> int:
        sql = f"SELECT n, {sturdy('author')} FROM report WHERE {which}"
        rows = self._rows(sql, bindings)
        for n, author in rows:
            self._drop_reports_of(PeerKey(author), "n = ?", (n,))
        return len(rows)

    def _drop_reports_of(self, author: PeerKey, which: str, bindings: tuple[object, ...]) -> None:
        """Drop some of one author's: those need not be read first."""
        gone = self._run(f"DELETE FROM report WHERE {which}", bindings)
        self._reports -= gone
        self._authors[author] -= gone
        if self._authors[author] <= 0:
            del self._authors[author]

    def reports(self, author: PeerKey, after: int, limit: int) -> Sequence[Report]:
        if not self._authors[author]:
            return ()
        sql = f"SELECT {_REPORT} FROM report WHERE author = ? AND n > ? ORDER BY n LIMIT ?"
        rows = self._rows(sql, (author, after, limit))
        return [report for report in self._whole("report", rows, _report) if report.author == author]

    def drop_reports(self, author: PeerKey, up_to: int) -> None:
        self._drop_reports_of(author, "author = ? AND n <= ?", (author, up_to))

    def drop_old_reports(self, made_before: Instant, limit: int) -> int:
        return self._drop_reports("made_at < ? ORDER BY made_at LIMIT ?", (made_before, limit))

    def report_count(self) -> int:
        return self._reports
