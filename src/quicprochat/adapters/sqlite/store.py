"""SqliteStore: ``MeshStore`` in one file that survives kill -9, power cuts, a full disk and a flipped bit.

The parts stand by what they keep: ``envelopes``, ``messages``, ``journal``, ``peers``, ``channels``,
``history``. They share the connection and its one transaction (``database``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

import apsw

from quicprochat.adapters.sqlite import schema
from quicprochat.adapters.sqlite.ballast import BALLAST_BYTES, Ballast, free_bytes
from quicprochat.adapters.sqlite.channels import Channels
from quicprochat.adapters.sqlite.checkpoint import Checkpointer
from quicprochat.adapters.sqlite.database import CACHE_KIB, LOG_LIMIT_BYTES, connect, explain
from quicprochat.adapters.sqlite.history import History
from quicprochat.adapters.sqlite.journal import Journal
from quicprochat.adapters.sqlite.messages import Messages
from quicprochat.adapters.sqlite.peers import Peers
from quicprochat.core.errors import StoreError


class SqliteStore(Journal, Messages, Peers, Channels, History):
    """See :class:`quicprochat.core.store.MeshStore`; opened with :meth:`open`."""

    _ballast: Ballast

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        ballast_bytes: int = BALLAST_BYTES,
        cache_kib: int = CACHE_KIB,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        vfs: str | None = None,
    ) -> Self:
        """Open a store, or make it where there is none; its directory must exist.

        ``ballast_bytes`` is kept in reserve for a full disk; ``cache_kib`` bounds how much of the file is in memory.
        ``synchronous="NORMAL"`` exists for one purpose: the control run of the power-cut experiment, which must see
        messages lost. With it a commit promises nothing. ``vfs`` names another file layer, for tests that break it; the
        log is then copied between the commits, by the same connection.
        Raises: StoreError, one sentence that says what to do, when the file is of another program or of a newer
        version, is damaged, in use, or cannot be written; it is then left as it was.
        """
        db = connect(path, synchronous=synchronous, cache_kib=cache_kib, vfs=vfs)
        beside: Checkpointer | None = None
        try:
            schema.prepare(db, path, *cls._schemas())
            if vfs is None:
                beside = Checkpointer(path, synchronous)
            store = cls(db, path, beside)
            # What a crash left in the log may hold prekeys that were to be gone.
            store._checkpoint(cut=True)
            store._load()
            store._measure()
        except (apsw.Error, StoreError) as error:
            if beside is not None:
                beside.close()
            db.close()
            if isinstance(error, StoreError):
                raise
            raise explain(error, path) from error
        store._ballast = Ballast(path.with_name(path.name + ".ballast"), ballast_bytes)
        store._ballast.keep()
        return store

    @classmethod
    def _schemas(cls) -> tuple[schema.Schema, ...]:
        """Return what the file must have."""
        return (schema.CURRENT,)

    @property
    def volatile(self) -> bool:
        return False

    def disk_low(self, reserve_bytes: int) -> bool:
        """Say whether new mail should be refused, because less than a reserve can be written before the disk is full.

        Free pages inside the file count as room, as long as the log, through which all writing goes, can grow.
        May be called at any time, also while a commit runs in another thread.
        """
        free = free_bytes(self._path.parent)
        if free >= reserve_bytes:
            return False
        return free < LOG_LIMIT_BYTES or free + self._free_inside < reserve_bytes

    def make_room(self) -> int:
        """Delete the ballast of a full disk, so that deleting works again; return the bytes freed.

        Legal outside a transaction only. The ballast is set aside again by the next ``open`` that finds room for it.
        """
        assert not self._writing
        freed = self._ballast.drop()
        if freed and not self._poisoned:
            # First the log, while there is room for what it adds to the file; then it can be written over.
            self._checkpoint()
        return freed
