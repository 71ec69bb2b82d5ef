"""What a machine is able to: questions that only ``qpc doctor`` asks."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_RECEIVE_MAX = Path("/proc/sys/net/core/rmem_max")
_WAL = b"\x02\x02"
"""https://www.sqlite.org/fileformat.html §1.3.3: read and write versions of a database with a write-ahead log."""


def receive_buffer_max_bytes() -> int | None:
    """Return how large a socket's receive buffer may become; None where the system does not say."""
    try:
        return int(_RECEIVE_MAX.read_text())
    except (OSError, ValueError):
        return None


def write_through(directory: Path) -> None:
    """Write a file in a directory down to the disk, and take it away again. Raises: OSError."""
    with tempfile.TemporaryFile(dir=directory) as file:
        file.write(b"x")
        file.flush()
        os.fsync(file.fileno())


def has_write_ahead_log(database: Path) -> bool | None:
    """Say whether a database of SQLite is in WAL mode; None where there is none."""
    try:
        with database.open("rb") as file:
            head = file.read(20)
    except OSError:
        return None
    return head[18:20] == _WAL if len(head) == 20 else None
