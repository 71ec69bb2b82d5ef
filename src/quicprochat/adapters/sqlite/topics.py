"""The topics in a store that no process has open, for Tab: read without a node, and without what a node must load."""

from __future__ import annotations

from pathlib import Path

import apsw


def topics_at_rest(path: Path) -> list[str]:
    """Return the topics of channels that were joined and not left; none where the file is not as it should be.

    Only the owner of the home may call it. Nothing is written: a log that a crash left stays for the next node.
    """
    if not path.is_file():
        return []
    try:
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            db.pragma("locking_mode", "exclusive")  # as the store has it: no file of shared memory is made
            return [str(topic) for (topic,) in db.execute("SELECT topic FROM channel WHERE NOT left ORDER BY topic")]
        finally:
            db.close()
    except apsw.Error:
        return []
