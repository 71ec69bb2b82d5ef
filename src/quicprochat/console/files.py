"""Files that a person wrote: read whole, bounded, with errors that name the place."""

from __future__ import annotations

from pathlib import Path

from quicprochat.core.errors import LocalError, UnavailableError
from quicprochat.core.ids import KEY_BYTES, PeerKey

LIST_MAX_BYTES = 64 << 20
"""Of a list of keys: half a million with a note behind each."""


def read_bounded(path: Path, limit: int) -> bytes:
    """Return what a file has. Raises: UnavailableError; LocalError when it is longer than ``limit`` bytes."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise UnavailableError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > limit:
        raise LocalError(f"{path} has more than {limit} bytes; that is no file of ours")
    return data


def read_keys(path: Path | None) -> frozenset[PeerKey]:
    """Read a list of keys: one a line, then anything; lines that begin with # are remarks.

    Raises: LocalError with the line's number, UnavailableError.
    """
    if path is None:
        return frozenset()
    found = set()
    for number, line in enumerate(read_bounded(path, LIST_MAX_BYTES).decode("utf-8", "replace").splitlines(), 1):
        word = line.split("#")[0].split(maxsplit=1)[:1]
        if not word:
            continue
        try:
            key = bytes.fromhex(word[0])
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES or len(word[0]) != 2 * KEY_BYTES:
            raise LocalError(f"{path}, line {number}: a key has {2 * KEY_BYTES} hexadecimal digits")
        found.add(PeerKey(key))
    return frozenset(found)
