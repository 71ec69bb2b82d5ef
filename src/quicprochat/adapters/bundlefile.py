"""A bundle's file: written whole or not at all, never over another file; read piece by piece."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from quicprochat.core.bundle import BUNDLE_MAX_BYTES
from quicprochat.core.errors import LocalError, UnavailableError

PIECE_BYTES = 256 * 1024


class BundleFile:
    """A new file that grows beside its name and gets that once it is complete and durable.

    Raises: LocalError with code ``exists`` where the name is taken; UnavailableError when it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if os.path.lexists(path):
            raise self._exists()
        try:
            self._handle, name = tempfile.mkstemp(".new", f".{path.name}.", path.parent)
        except OSError as error:
            raise self._failed(error) from error
        self._half = Path(name)

    def write(self, pieces: Iterable[bytes]) -> None:
        """Append."""
        data = memoryview(b"".join(pieces))
        try:
            while data:
                data = data[os.write(self._handle, data) :]
        except OSError as error:
            self.abandon()
            raise self._failed(error) from error

    def finish(self) -> int:
        """Make it survive a power cut, and give it its name; return its bytes."""
        try:
            os.fsync(self._handle)
            size = os.fstat(self._handle).st_size
            self._name()
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
            return size
        except OSError as error:
            raise self._failed(error) from error
        finally:
            self.abandon()

    def _name(self) -> None:
        try:
            os.link(self._half, self._path)
        except FileExistsError:
            raise self._exists() from None
        except OSError:
            # The file systems of memory sticks have no hard links.
            if os.path.lexists(self._path):
                raise self._exists() from None
            self._half.rename(self._path)

    def abandon(self) -> None:
        """Leave nothing half behind; after the end it changes nothing."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        with suppress(OSError):
            self._half.unlink()

    def _exists(self) -> LocalError:
        return LocalError(f"{self._path} exists already, and is left as it is; choose another name", code="exists")

    def _failed(self, error: OSError) -> UnavailableError:
        return UnavailableError(f"the bundle {self._path} cannot be written: {error.strerror}; there is none now")


def read_pieces(path: Path) -> Iterator[bytes]:
    """Yield the file's bytes, some at a time. Raises: LocalError, UnavailableError."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise LocalError(f"there is no file {path}", code="not_found") from None
    except OSError as error:
        raise UnavailableError(f"the file {path} cannot be read: {error.strerror}") from error
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise LocalError(f"{path} is not a plain file")
        if found.st_size > BUNDLE_MAX_BYTES:
            raise LocalError(f"{path} has {found.st_size} bytes, and a bundle at most {BUNDLE_MAX_BYTES}")
        left = BUNDLE_MAX_BYTES + 1
        while left > 0 and (piece := os.read(handle, PIECE_BYTES)):
            left -= len(piece)
            yield piece
    except OSError as error:
        raise UnavailableError(f"the file {path} cannot be read: {error.strerror}") from error
    finally:
        os.close(handle)
