"""Messages of our own: what was said, under which envelopes it travels, and what became of it."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from quicprochat.adapters.sqlite.database import Database, Row, checksum, sturdy
from quicprochat.core.ids import EnvelopeId, PeerKey, Uid
from quicprochat.core.receipt import OPEN_STATES, State
from quicprochat.core.seal import TYPE_TEXT, Protection
from quicprochat.core.store import Sent, TraceEvent
from quicprochat.core.time import WallTime

_FIXED = struct.Struct(">qqq?")

_COLUMNS = "n, " + sturdy(
    "uid", "peer", "text", "#created", "#expires_at", "#ttl_s", "state", "protection", "envelope_id", "#require_fs",
    "#seals", "reason", "checksum", "#type",
)  # fmt: skip
_STATES = {state.value.encode(): state for state in State}
_PROTECTIONS = {protection.value.encode(): protection for protection in Protection}
# Word for word the condition of the index.
_OPEN = "state IN ('queued', 'relayed')"
assert {state.value for state in OPEN_STATES} == {"queued", "relayed"}


def _checksum(
    uid: bytes, peer: bytes, text: bytes, created: int, expires: int, ttl: int, require_fs: int, type: int
) -> bytes:
    newer = (bytes([type]),) if type != TYPE_TEXT else ()  # a row of before has none
    return checksum(uid, peer, text, _FIXED.pack(created, expires, ttl, require_fs), *newer)


def _intact(row: Row) -> Sent | None:
    """Return the message of a row, None when the row is not what was written."""
    (_n, uid, peer, text, created, expires, ttl, state, protection, envelope_id, require_fs, seals, *newer) = row
    reason, check, type = newer
    try:
        if _checksum(uid, peer, text, created, expires, ttl, require_fs, type) != check:
            return None
        return Sent(
            uid, peer, text.decode(), created, expires, ttl, _STATES[state], _PROTECTIONS[protection],
            envelope_id, bool(require_fs), seals, reason.decode(), type,
        )  # fmt: skip
    except (TypeError, ValueError, KeyError, AttributeError, struct.error):
        return None


class Messages(Database):
    """The messages we wrote; see ``MeshStore``."""

    def put_sent(self, sent: Sent) -> None:
        check = _checksum(
            sent.uid, sent.to, sent.text.encode(), sent.created_wall, sent.expires_at, sent.ttl_s, sent.require_fs,
            sent.type,
        )  # fmt: skip
        self._run(
            "INSERT INTO sent VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                sent.uid, sent.envelope_id, sent.state.value, sent.reason, sent.protection.value, sent.seals,
                sent.to, sent.created_wall, sent.expires_at, sent.ttl_s, sent.require_fs, check, sent.text,
                sent.type,
            ),
        )  # fmt: skip

    def sent(self, uid: Uid) -> Sent | None:
        return self._only("SELECT n FROM sent WHERE uid = ?", uid)

    def sent_of(self, id: EnvelopeId) -> Sent | None:
        return self._only("SELECT n FROM sent WHERE envelope_id = ?", id) or self._only(
            "SELECT sent FROM former_envelope WHERE id = ?", id
        )

    def _only(self, number: str, key: bytes) -> Sent | None:
        # Found by an index, read from the table: a damaged index must not make an intact row look damaged.
        rows = self._rows(f"SELECT {_COLUMNS} FROM sent WHERE n = ({number})", (key,))
        found = self._whole("sent", rows, _intact)
        return found[0] if found else None

    def set_state(self, uid: Uid, state: State, reason: str) -> None:
        self._run("UPDATE sent SET state = ?, reason = ? WHERE uid = ?", (state.value, reason, uid))

    def resealed(self, uid: Uid, id: EnvelopeId, protection: Protection) -> None:
        self._run("INSERT INTO former_envelope SELECT envelope_id, n, seals FROM sent WHERE uid = ?", (uid,))
        self._run(
            "UPDATE sent SET envelope_id = ?, protection = ?, seals = seals + 1 WHERE uid = ?",
            (id, protection.value, uid),
        )

    def queued_with(self, to: PeerKey, protection: Protection, limit: int) -> Sequence[Sent]:
        rows = self._rows(
            f"SELECT {_COLUMNS} FROM sent WHERE n IN "
            f"(SELECT n FROM sent WHERE peer = ? AND protection = ? AND state = 'queued' AND {_OPEN} "
            "ORDER BY n LIMIT ?) ORDER BY n",
            (to, protection.value, limit + len(self._damaged)),
        )
        return self._whole("sent", rows, _intact)[:limit]

    def open_sent(self, limit: int) -> Sequence[Sent]:
        # By the index of what is open: +n keeps the planner from walking through everything ever sent.
        rows = self._rows(
            f"SELECT {_COLUMNS} FROM sent WHERE n IN (SELECT n FROM sent WHERE {_OPEN} ORDER BY +n DESC LIMIT ?) "
            "ORDER BY n",
            (limit + len(self._damaged),),
        )
        found = self._whole("sent", rows, _intact)
        return found[max(0, len(found) - limit) :]

    def envelopes_of(self, uid: Uid) -> Sequence[EnvelopeId]:
        rows = self._rows(
            "SELECT f.id, f.nth FROM former_envelope AS f JOIN sent AS s ON f.sent = s.n WHERE s.uid = ?1 "
            "UNION ALL SELECT envelope_id, seals FROM sent WHERE uid = ?1 ORDER BY 2",
            (uid,),
        )
        return [id for id, _nth in rows]

    def add_trace(self, uid: Uid, event: TraceEvent) -> None:
        self._run(
            "INSERT INTO trace SELECT n, (SELECT ifnull(max(nth), 0) + 1 FROM trace WHERE sent = n), ?, ?, ? "
            "FROM sent WHERE uid = ?",
            (event.at, event.state, event.carrier, uid),
        )

    def trace(self, uid: Uid) -> Sequence[TraceEvent]:
        rows = self._rows(
            f"SELECT {sturdy('#at', 'state', 'carrier')} FROM trace "
            "WHERE sent = (SELECT n FROM sent WHERE uid = ?) ORDER BY nth",
            (uid,),
        )
        return [
            TraceEvent(WallTime(at), state.decode(errors="replace"), carrier.decode(errors="replace"))
            for at, state, carrier in rows
        ]
