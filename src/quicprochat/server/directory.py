"""The directory: records that users publish of themselves, and whose name a name is."""

from __future__ import annotations

from quicprochat.core.crypto import Crypto
from quicprochat.core.errors import LocalError, WireError
from quicprochat.core.gate import CLOCK_SLACK_MS
from quicprochat.core.ids import PeerKey
from quicprochat.core.local_name import local_name
from quicprochat.core.record import PeerRecord, open_record
from quicprochat.core.store import MeshStore, StoredRecord
from quicprochat.core.time import Now
from quicprochat.core.users import UserStore


def read_record(data: bytes, owner: PeerKey, crypto: Crypto) -> PeerRecord:
    """Read the record that a user publishes: signed, and its own. Raises: LocalError."""
    try:
        record = open_record(data, crypto)
    except WireError as error:
        raise LocalError(f"this is no peer record: {error}") from error
    if record.key != owner:
        raise LocalError("a record is published by its owner only", code="policy")
    return record


def publish(tx: MeshStore, record: PeerRecord, age_ms: int, now: Now) -> bool:
    """Keep a record, if it is newer than what is here and has not outlived itself; return whether it is kept.

    The same record again changes nothing, not even its age: it only ever gets older.
    """
    if record.created_ms and now.trusted:
        implied = now.wall - record.created_ms
        if implied >= -CLOCK_SLACK_MS:
            age_ms = max(age_ms, implied)
    known = tx.record(record.key)
    if age_ms >= record.lifetime_s * 1_000 or (known is not None and (known.epoch, known.seq) >= record.version):
        return False
    tx.put_record(StoredRecord(record.key, *record.version, record.signed, age_ms, now.at))
    return True


def find_record(tx: MeshStore, key: PeerKey, now: Now, crypto: Crypto) -> tuple[bytes, int]:
    """Return a key's record and its age in milliseconds; empty when there is none, or it has outlived itself."""
    found = tx.record(key)
    if found is not None:
        age = found.age_ms + max(0, now.at - found.stored_at)
        if age < open_record(found.data, crypto).lifetime_s * 1_000:
            return found.data, age
    return b"", 0


def find_name(tx: UserStore, name: str) -> PeerKey:
    """Return whose name this is. Raises: LocalError."""
    try:
        kept = local_name(name)
    except LocalError:
        kept = ""
    key = tx.user_named(kept) if kept else None
    if key is None:
        raise LocalError("nobody has this name here", code="not_found")
    return key
