"""A home: one directory, one owner at a time, readable by its user alone.

``identity.json`` the keypair and contacts, ``mesh.db`` everything else, ``lock`` held by the process that owns the
home, ``qpc.sock`` where that process answers.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from quicprochat.core.errors import LocalError, UnavailableError

HOW_TO_STOP = "Ctrl-C where it runs, or kill with its process id"


class Home:
    """The directory of one identity; creating it makes the directory, 0700.

    Raises: LocalError when it cannot be one, with a sentence that says why.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self._lock: int | None = None
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            info = self.path.stat()
        except FileExistsError:
            raise LocalError(f"{self.path} is not a directory; choose one with --home", code="home") from None
        except OSError as error:
            raise UnavailableError(f"the home {self.path} cannot be used: {error.strerror}") from error
        if info.st_uid != os.geteuid():
            raise LocalError(f"the home {self.path} belongs to another user; choose your own with --home", code="home")
        if stat.S_IMODE(info.st_mode) & 0o077:
            raise LocalError(f"the home {self.path} is open to other users; run: chmod 700 {self.path}", code="home")

    @property
    def identity(self) -> Path:
        """The keypair and the contacts."""
        return self.path / "identity.json"

    @property
    def database(self) -> Path:
        """Messages, ids, records, prekeys."""
        return self.path / "mesh.db"

    def own(self) -> None:
        """Become the owner, until :meth:`disown` or the end of the process. Raises: LocalError when there is one."""
        try:
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise UnavailableError(f"the home {self.path} cannot be locked: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise LocalError(
                f"another process owns the home {self.path}; stop it ({HOW_TO_STOP}), or choose another home",
                code="owned",
            ) from None
        self._lock = lock

    def disown(self) -> None:
        """Let go of the home."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
