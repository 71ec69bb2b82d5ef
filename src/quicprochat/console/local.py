"""Frames on a Unix socket in a home: one JSON object a line."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quicprochat.console.errors import CallError

Json = dict[str, Any]

SUN_PATH_BYTES = 103
"""The longest path of a Unix socket without its final zero: 107 on Linux, 103 on macOS."""


@contextmanager
def reachable(home: Path, name: str) -> Iterator[str]:
    """Give a path of the socket ``name`` in a home that fits into an address, however long the home's own path is.

    A long one is reached through the descriptor of its directory (/proc on Linux), or where there is no /proc, through
    a short symbolic link in a private temporary directory. The path is valid inside the ``with`` only.
    """
    direct = home / name
    if len(os.fsencode(direct)) <= SUN_PATH_BYTES:
        yield str(direct)
        return
    directory = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        through = Path(f"/proc/self/fd/{directory}")
        if through.exists():
            yield str(through / name)
            return
        import tempfile

        with tempfile.TemporaryDirectory(prefix="qpc-", dir="/tmp") as short:
            link = Path(short) / "home"
            link.symlink_to(home)
            yield str(link / name)
    finally:
        os.close(directory)


def encode(frame: Json) -> bytes:
    """Return a frame's line."""
    return json.dumps(frame, separators=(",", ":")).encode("ascii") + b"\n"


async def read_frame(reader: asyncio.StreamReader) -> Json | None:
    """Return the next frame, None at the end. Raises: CallError when it is none, OSError."""
    try:
        line = await reader.readline()
    except ValueError:
        raise CallError("a line that is too long came through the home's socket", "protocol") from None
    if not line.endswith(b"\n"):
        return None
    try:
        frame = json.loads(line)
    except (ValueError, RecursionError):
        frame = None
    if not isinstance(frame, dict):
        raise CallError("a line that is no JSON object came through the home's socket", "protocol")
    return frame
