"""A terminal of our own: a pseudo terminal whose other end is a pyte screen, with every raw byte kept."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios
from contextlib import suppress

import pyte

OURS = re.compile(
    r"\x1b\[(?:[0-9;]*m"  # colours
    r"|[0-9]*[ABCDJK]"  # moving within what we drew, and erasing it
    r"|\?(?:7|12|25|1|2004)[hl])"  # autowrap, cursor shown or hidden, cursor keys, marked pastes
)
"""Every escape sequence that the prompt itself has any use for."""

HIDING = frozenset(
    "\u200b\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff\u3164\U000e0041"
)


class Emulator:
    """``slave`` is the terminal for the program; :meth:`take` what it drew."""

    def __init__(self, rows: int = 24, columns: int = 80) -> None:
        self.master, self.slave = pty.openpty()
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = bytearray()
        self.resize(rows, columns)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)

    def take(self) -> bool:
        """Draw what has come; False when the program has closed its end."""
        try:
            data = os.read(self.master, 65_536)
        except OSError:
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    @property
    def rows(self) -> list[str]:
        """What stands on the screen, without the blanks at the ends of rows."""
        return [row.rstrip() for row in self.screen.display]

    @property
    def shown(self) -> str:
        return "\n".join(self.rows)

    @property
    def plain(self) -> str:
        """Everything that was ever drawn, without escape sequences and carriage returns."""
        return OURS.sub("", self.raw.decode(errors="replace")).replace("\r", "")

    @property
    def strange(self) -> list[str]:
        """Return whatever was drawn that could steer a terminal, or hide something, and is not our own doing."""
        rest = set(OURS.sub("", self.raw.decode())) - set("\r\n\b")
        return sorted(c for c in rest if ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or c in HIDING)

    @property
    def bars(self) -> list[int]:
        """How many cells of each row are drawn in reverse, of rows that have any: the status line."""
        cells = (self.screen.buffer[row] for row in range(self.screen.lines))
        counts = (sum(row[column].reverse for column in range(self.screen.columns)) for row in cells)
        return [count for count in counts if count]

    def close(self) -> None:
        for end in (self.master, self.slave):
            with suppress(OSError):
                os.close(end)
