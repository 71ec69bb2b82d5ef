"""The durable form of ``MeshStore``: one SQLite file, one connection, and a reserve for the day the disk is full."""

from quicprochat.adapters.sqlite.server import ServerStore
from quicprochat.adapters.sqlite.store import SqliteStore

__all__ = ["ServerStore", "SqliteStore"]
