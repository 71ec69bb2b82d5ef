"""Disks that can fill up, turn read-only and lose power, in a mount namespace that nobody else sees. Needs root."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

SHUTDOWN = 0x8004587D
"""_IOR('X', 125, u32): EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN."""
NO_LOG_FLUSH = struct.pack("I", 2)
"""What is not on the disk yet is gone, as when the power is cut."""
IMAGE_BYTES = {"ext4": 256 << 20, "xfs": 320 << 20}
"""300 MiB is the least that mkfs.xfs makes."""
MKFS = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"]}


class Cellar:
    """A private mount namespace, held open by a process that waits."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo here; exec cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"here\n":
            self.close()
            pytest.skip("needs root and mount namespaces")

    @property
    def prefix(self) -> list[str]:
        """What to put before a command that is to run in there."""
        return ["nsenter", "--target", str(self._holder.pid), "--mount", "--"]

    def run(self, *command: str) -> str:
        return subprocess.run([*self.prefix, *command], check=True, capture_output=True, text=True).stdout

    def outside(self, path: Path) -> Path:
        """Where a path in there is to be found from here."""
        return Path(f"/proc/{self._holder.pid}/root{path}")

    def close(self) -> None:
        """Everything mounted in there goes with the last process in it."""
        self._holder.kill()
        self._holder.wait()
        for pipe in (self._holder.stdin, self._holder.stdout, self._holder.stderr):
            assert pipe is not None
            pipe.close()


class Disk:
    """Something mounted at ``place`` in a cellar; ``outside`` is the same seen from here."""

    def __init__(self, where: Cellar, place: Path) -> None:
        place.mkdir()
        self.cellar = where
        self.prefix = where.prefix
        self.place = place
        self.outside = where.outside(place)

    def free(self) -> int:
        room = os.statvfs(self.outside)
        return room.f_bavail * room.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Fill the disk up, all but so many bytes."""
        with open(self.outside / "filler", "ab") as filler:
            size = os.fstat(filler.fileno()).st_size
            while (piece := self.free() - leave) > 0:
                while piece:  # somebody else may be taking what is left at the same time
                    try:
                        os.posix_fallocate(filler.fileno(), size, piece)
                    except OSError:
                        piece //= 2
                    else:
                        size += piece
                        break
                else:
                    return

    def make_room(self) -> None:
        (self.outside / "filler").unlink()


class SmallDisk(Disk):
    """A tmpfs."""

    def __init__(self, where: Cellar, place: Path, size: int) -> None:
        super().__init__(where, place)
        where.run("mount", "-t", "tmpfs", "-o", f"size={size}", "small", str(place))


class LoopDisk(Disk):
    """A file system in a file."""

    def __init__(self, where: Cellar, place: Path, kind: str, options: str = "noatime") -> None:
        if shutil.which(MKFS[kind][0]) is None or kind not in Path("/proc/filesystems").read_text():
            pytest.skip(f"no {MKFS[kind][0]}, or a kernel without {kind}")
        super().__init__(where, place)
        self._image = place.with_suffix(".img")
        self._options = f"loop,{options}"
        with open(self._image, "wb") as image:
            image.truncate(IMAGE_BYTES[kind])
        subprocess.run([*MKFS[kind], str(self._image)], check=True, capture_output=True)
        try:
            self.mount()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no loop mounts here: {error.stderr.strip()}")

    def mount(self) -> None:
        self.cellar.run("mount", "-o", self._options, str(self._image), str(self.place))

    def cut(self) -> None:
        """Cut the power."""
        handle = os.open(self.outside, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(handle, SHUTDOWN, NO_LOG_FLUSH)
        finally:
            os.close(handle)

    def power_up(self) -> None:
        """Come back after :meth:`cut`; nobody may have a file open."""
        self.cellar.run("umount", str(self.place))
        self.mount()

    def break_down(self) -> None:
        """Make the kernel find an error, upon which ext4 (mounted with errors=remount-ro) takes no more writes."""
        device = Path(self.cellar.run("findmnt", "-n", "-o", "SOURCE", str(self.place)).strip()).name
        try:
            Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("a test")
        except OSError as error:
            pytest.skip(f"this kernel does not let errors be made: {error}")


@contextlib.contextmanager
def small_disk(base: Path, size: int) -> Iterator[SmallDisk]:
    with contextlib.closing(Cellar()) as cellar:
        yield SmallDisk(cellar, base / "disk", size)


@contextlib.contextmanager
def loop_disk(base: Path, kind: str, options: str = "noatime") -> Iterator[LoopDisk]:
    try:
        with contextlib.closing(Cellar()) as cellar:
            yield LoopDisk(cellar, base / "disk", kind, options)
    finally:
        (base / "disk.img").unlink(missing_ok=True)
