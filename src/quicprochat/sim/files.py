"""Reading what a simulation is given: a file, plain or gzip, of bounded size."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from quicprochat.console.text import display
from quicprochat.core.errors import LocalError

FILE_MAX_BYTES = 256 << 20
"""Unpacked. The largest graph and the largest trace that we know have 3 MB."""


def read(path: Path) -> bytes:
    """Return what is in a file, unpacked. Raises: LocalError in one sentence for what cannot be read."""
    name = display(str(path))
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            data = file.read(FILE_MAX_BYTES + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise LocalError(f"{name} is a damaged gzip file; get it again") from None
    except (OSError, ValueError) as error:
        raise LocalError(f"cannot read {name}: {getattr(error, 'strerror', None) or error}") from None
    if not data.strip():
        raise LocalError(f"{name} is empty; docs/simulator.md shows the formats")
    if len(data) > FILE_MAX_BYTES:
        raise LocalError(
            f"{name} has more than {FILE_MAX_BYTES >> 20} MiB unpacked; no graph or trace we know is so large"
        )
    return data
