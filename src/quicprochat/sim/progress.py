"""One line on a terminal that says how far a long run is; nothing where nobody watches."""

from __future__ import annotations

import sys
from contextlib import suppress

WIDTH = 30


class Progress:
    """A bar on standard error, drawn again when it would look different."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._shown = ""
        with suppress(AttributeError, ValueError):
            self._terminal = sys.stderr.isatty()
            return
        self._terminal = False

    def at(self, done: float, note: str = "") -> None:
        """Show the part that is done, 0 to 1, and a few words."""
        if not self._terminal:
            return
        full = int(min(max(done, 0.0), 1.0) * WIDTH)
        text = f"{self._what} [{'#' * full}{'.' * (WIDTH - full)}] {note}"
        if text != self._shown:
            self._write(f"\r{text:<{len(self._shown)}}")
            self._shown = text

    def end(self) -> None:
        """Take the line away."""
        if self._shown:
            self._write(f"\r{' ' * len(self._shown)}\r")
            self._shown = ""

    @staticmethod
    def _write(text: str) -> None:
        with suppress(OSError):
            sys.stderr.write(text)
            sys.stderr.flush()
