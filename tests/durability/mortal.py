"""A process that kills itself at a chosen moment, also in the middle of a write to its database."""

from __future__ import annotations

import os
import signal
import time

import apsw

from quicprochat.p2p.driver import Point


class Executioner:
    """Kills this process at the n-th time that a named moment comes."""

    def __init__(self, moment: str, nth: int) -> None:
        self._moment = moment
        self._left = nth

    def at(self, moment: str, pause_s: float = 0.0) -> None:
        """Die if it is time; ``pause_s`` before that, in which other threads go on."""
        if moment == self._moment:
            self._left -= 1
            if self._left == 0:
                time.sleep(pause_s)
                die()

    def point(self, point: Point) -> None:
        self.at(point.name)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


PAUSE_S = 0.2
"""A disk may take so long; whoever is told something meanwhile is told too early."""


class MortalFile(apsw.VFSFile):
    """A database file, or its log; dies in the middle of a write, or just before a sync."""

    def __init__(self, filename: apsw.URIFilename | str, flags: list[int], executioner: Executioner) -> None:
        name = filename if isinstance(filename, str) else filename.filename()
        self._kind = "log" if name.endswith("-wal") else "file"
        self._executioner = executioner
        super().__init__("", filename, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        half = data[: len(data) // 2]
        self._executioner.at(f"{self._kind}:before-write", PAUSE_S)
        super().xWrite(half, offset)
        self._executioner.at(f"{self._kind}:half-write", PAUSE_S)
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self._executioner.at(f"{self._kind}:sync", PAUSE_S)
        super().xSync(flags)


class MortalDisk(apsw.VFS):
    """SQLite's own file layer with :class:`MortalFile`."""

    def __init__(self, executioner: Executioner) -> None:
        self._executioner = executioner
        super().__init__("mortal", "")

    def xOpen(self, name: apsw.URIFilename | str | None, flags: list[int]) -> apsw.VFSFile:
        if name is None:
            return super().xOpen(name, flags)
        return MortalFile(name, flags, self._executioner)
