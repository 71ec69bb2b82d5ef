"""Copies of the server's database: made while it runs, and put back while it does not.

A copy has no epoch, so a server that runs on one makes a new epoch: clients notice, and offer again whatever the copy
does not know of. Without that a message between copy and restore would be lost for good.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import suppress
from pathlib import Path

from quicprochat.adapters.home import Home
from quicprochat.adapters.sqlite import ServerStore
from quicprochat.core.errors import LocalError, QuicprochatError, StoreError, UnavailableError
from quicprochat.p2p.driver import Driver
from quicprochat.server.home_server import DATABASE, EPOCH_KEY, SEED_KEY

REPLACED = DATABASE + ".replaced"
_LOG = "-wal"


async def back_up(driver: Driver, store: ServerStore, target: Path) -> int:
    """Copy the database while the server goes on; return the copy's bytes. Raises: LocalError, UnavailableError."""
    copy = await driver.aside(lambda _: store.copy(target))
    try:
        while not await driver.aside(lambda _: copy.step()):
            pass
        # The slowest part is to make it durable, and the store need not wait for that.
        return await asyncio.to_thread(copy.finish, (EPOCH_KEY,))
    except BaseException:
        with suppress(QuicprochatError):
            await driver.aside(lambda _: copy.abandon())  # behind a part that may still be under way
        raise
    finally:
        if driver.stopped:
            copy.abandon()


def restore(home: Path, source: Path) -> int:
    """Put a copy in the place of the database of a server that is stopped; return its bytes.

    The database that was there is kept as ``server.db.replaced``. Raises: LocalError, UnavailableError, StoreError;
    then the server has what it had.
    """
    owned = Home(home)
    owned.own()
    try:
        return _restore(owned.path, source)
    finally:
        owned.disown()


def _restore(home: Path, source: Path) -> int:
    database, replaced, half = home / DATABASE, home / REPLACED, home / (DATABASE + ".restored")
    if os.path.lexists(replaced):
        raise LocalError(f"{replaced} is from an earlier restore: move it away first", code="exists")
    try:
        _copy(source, half)
        _make_ready(half, source)
        for suffix in ("", _LOG):
            # The log belongs to its database: beside another it would spoil that one.
            if os.path.lexists(f"{database}{suffix}"):
                os.rename(f"{database}{suffix}", f"{replaced}{suffix}")
        half.rename(database)
        handle = os.open(home, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        return database.stat().st_size
    except OSError as error:
        raise UnavailableError(f"{source} could not be put back: {error.strerror}") from error
    finally:
        for suffix in ("", _LOG, ".ballast"):
            with suppress(OSError):
                os.unlink(f"{half}{suffix}")


def _copy(source: Path, target: Path) -> None:
    with suppress(FileNotFoundError):
        target.unlink()
    if os.path.lexists(f"{source}{_LOG}"):
        raise LocalError(f"{source} is in use, or was not closed: its newest changes lie in {source}{_LOG}")
    with source.open("rb") as read, open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as write:
        shutil.copyfileobj(read, write, 1 << 20)
        write.flush()
        os.fsync(write.fileno())


def _make_ready(copy: Path, source: Path) -> None:
    """Check that this is a server's database, whole, and take its epoch away. Raises: LocalError, StoreError."""
    try:
        store = ServerStore.open(copy, ballast_bytes=0)
    except StoreError as error:
        raise LocalError(f"{source} cannot be restored: {str(error).replace(str(copy), str(source))}") from error
    try:
        if store.value(SEED_KEY) is None:
            raise LocalError(f"{source} is not from a server: it has no server's key")
        store.check()
        store.begin()
        store.drop_value(EPOCH_KEY)
        store.commit()
    finally:
        store.close()
