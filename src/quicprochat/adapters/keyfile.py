"""The identity file: read with distrust, written so that there is always a whole one.

A new file is written beside the old one, synced, and renamed over it, and the directory is synced: after a power cut
there is the old identity or the new one, never none.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from quicprochat.core.errors import LocalError, UnavailableError
from quicprochat.core.identity import FILE_MAX_BYTES


def read_keyfile(path: Path) -> bytes | None:
    """Return the file's bytes, None when there is no file.

    Raises: LocalError when it is a link, not a plain file, somebody else's, readable by others, or too large.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        if path.is_symlink():
            raise LocalError(f"the identity file {path} is a link; put the file itself there", code="home") from None
        raise UnavailableError(f"the identity file {path} cannot be read: {error.strerror}") from error
    try:
        _check(os.fstat(handle), path)
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(FILE_MAX_BYTES + 1)
    finally:
        os.close(handle)


def _check(info: os.stat_result, path: Path) -> None:
    """Refuse a file that others may have made or read. Raises: LocalError."""
    if not stat.S_ISREG(info.st_mode):
        problem = "is not a plain file"
    elif info.st_uid != os.geteuid():
        problem = "belongs to another user"
    elif stat.S_IMODE(info.st_mode) & 0o077:
        problem = f"is open to other users; run: chmod 600 {path}"
    elif info.st_size > FILE_MAX_BYTES:
        problem = f"has {info.st_size} bytes; no identity is that large"
    else:
        return
    raise LocalError(f"the identity file {path} {problem}", code="home")


def write_keyfile(path: Path, data: bytes) -> None:
    """Put these bytes in place of the file, atomically and durably. Raises: UnavailableError."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
        temporary.rename(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise UnavailableError(f"the identity file {path} cannot be written: {error.strerror}") from error
