"""The file of an exported identity: written whole or not at all, never over another file, for its user alone."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from quicprochat.core.errors import LocalError, UnavailableError
from quicprochat.core.export import EXPORT_MAX_BYTES


def write_export(path: Path, data: bytes) -> None:
    """Make the file, durably. Raises: LocalError with code ``exists``; UnavailableError.

    The name is taken with an empty file first, so that nothing is ever written over; file systems of memory sticks have
    no other way. A power cut leaves an empty file or the whole one.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    except FileExistsError:
        raise LocalError(
            f"{path} exists already, and nothing is written over; choose another name", code="exists"
        ) from None
    except OSError as error:
        raise UnavailableError(f"the file {path} cannot be made: {error.strerror}") from error
    try:
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
        for half in (temporary, path):
            with suppress(OSError):
                half.unlink()
        raise UnavailableError(f"the file {path} cannot be written: {error.strerror}") from error


def read_export(path: Path) -> bytes:
    """Return the file's bytes; at most one more than an export can have. Raises: LocalError, UnavailableError."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise LocalError(f"there is no file {path}", code="not_found") from None
    except OSError as error:
        raise UnavailableError(f"the file {path} cannot be read: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise LocalError(f"{path} is not a plain file")
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(EXPORT_MAX_BYTES + 1)
    except OSError as error:
        raise UnavailableError(f"the file {path} cannot be read: {error.strerror}") from error
    finally:
        os.close(handle)
