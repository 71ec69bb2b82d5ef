"""Which version of the schema a file has, and how it gets to the newest.

Version n is what ``sql/0001.sql`` to ``sql/n.sql`` make when they run in order; a new file runs them all. Each file
also says the oldest program version that can still use it, so that going back to an older program is refused only
where it would do harm. A home server's tables are a schema of their own (``sql/server``) in the same file, with its
own version beside.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import apsw

from quicprochat.core.errors import StoreError

APPLICATION_ID = 0x51504321
"""Stands in the file's header and tells our files from other programs' ("QPC!")."""


@dataclass(frozen=True, slots=True)
class Schema:
    """What a program knows: the SQL of every step, and the oldest program that understands the last one.

    ``meta`` is the table where a file says which version of this schema it has.
    """

    steps: tuple[str, ...]
    readable_from: int
    meta: str = "meta"

    @property
    def version(self) -> int:
        """The version that the last step makes."""
        return len(self.steps)


def _step(number: int, folder: str = "") -> str:
    return (files(__package__) / "sql" / folder / f"{number:04}.sql").read_text("utf-8")


CURRENT = Schema(steps=tuple(_step(number) for number in range(1, 9)), readable_from=8)
SERVER = Schema(steps=(_step(1, "server"), _step(2, "server")), readable_from=1, meta="server_meta")


def backup_of(path: Path, *versions: int) -> Path:
    """Return where a file's copy from before its upgrade lies; ``versions`` are those of its schemas then."""
    return path.with_name(f"{path.name}.v{'.'.join(map(str, versions))}.backup")


def is_new(db: apsw.Connection, path: Path) -> bool:
    """Say whether a file is still empty, having read no more than its header and list of tables.

    Raises: StoreError when it belongs to another program; apsw.Error.
    """
    application = db.pragma("application_id")
    if application == APPLICATION_ID:
        return False
    if application or db.execute("SELECT count(*) FROM sqlite_schema").get:
        raise StoreError(f"{path} is a database of another program: name another file; this one was left as it is")
    return True


def prepare(db: apsw.Connection, path: Path, *schemas: Schema) -> None:
    """Make the tables of a new file, or bring an older one up to date; each in one transaction.

    Before an upgrade the old file is copied to ``backup_of``. Raises: StoreError, apsw.Error.
    """
    if is_new(db, path):
        with db:
            db.pragma("application_id", APPLICATION_ID)
            for schema in schemas:
                _run_steps(db, schema, 0)
        return
    versions = [_version(db, path, schema) for schema in schemas]
    if any(version < schema.version for version, schema in zip(versions, schemas, strict=True)):
        _back_up(db, path, backup_of(path, *versions))
        with db:
            for version, schema in zip(versions, schemas, strict=True):
                if version < schema.version:
                    _run_steps(db, schema, version)


def _version(db: apsw.Connection, path: Path, schema: Schema) -> int:
    """Return which version of a schema a file has, 0 where it has none of it. Raises: StoreError: we may not use it."""
    if not db.execute("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?", (schema.meta,)).get:
        return 0
    version, readable_from = db.execute(f"SELECT version, readable_from FROM {schema.meta}").get
    if readable_from > schema.version:
        raise StoreError(
            f"{path} was written by a newer quicprochat (schema {version}, usable from schema {readable_from} on; "
            f"this program knows {schema.version}): install the newer version; the file was left as it is"
        )
    return int(version)


def _run_steps(db: apsw.Connection, schema: Schema, done: int) -> None:
    for step in schema.steps[done:]:
        db.execute(step)
    db.execute(f"INSERT OR REPLACE INTO {schema.meta} VALUES (1, ?, ?)", (schema.version, schema.readable_from))


def _back_up(db: apsw.Connection, path: Path, target: Path) -> None:
    half = target.with_name(target.name + ".new")
    try:
        half.unlink(missing_ok=True)
        os.close(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        copy = apsw.Connection(str(half))
        try:
            with copy.backup("main", db, "main") as backup:
                backup.step()
            copy.pragma("journal_mode", "DELETE")
        finally:
            copy.close()
        half.rename(target)
        sync_directory(target.parent)
    except (OSError, apsw.Error) as error:
        with suppress(OSError):
            half.unlink()
        raise StoreError(
            f"{path} must be upgraded, and no backup could be written to {target} first ({error}): make room there"
        ) from error


def remove_backups(path: Path) -> None:
    """Delete the copies from before upgrades: they still hold what was deleted since."""
    for found in path.parent.iterdir():
        if found.name.startswith(f"{path.name}.v") and found.name.endswith((".backup", ".backup.new")):
            found.unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Make names in a directory durable. Raises: OSError."""
    handle = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
