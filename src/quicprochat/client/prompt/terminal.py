"""The terminal's output, without holding up the loop.

A terminal that takes no more output (a stopped one, a slow line) must not make links die, so a thread of its own does
the writing. What it could not take within bounds is left out and drawn anew.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

BACKLOG_MAX_CHARS = 256 * 1024
"""Characters that may wait for a terminal that takes none."""
_ASCII = {
    "…": "...", "\u2013": "-", "\u2014": "-", "\u2018": "'", "\u2019": "'", "“": '"', "”": '"', "«": "<<", "»": ">>",
    "→": "->", "·": "-", "•": "*", "ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss",
    "€": "EUR", "✓": "v",
}  # fmt: skip


def _replacement(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(_ASCII.get(character, "?") for character in error.object[error.start : error.end]), error.end


codecs.register_error("quicprochat", _replacement)


def encoding_of(environment: Mapping[str, str], stdout: str) -> str:
    """Return the encoding that the terminal understands.

    Python takes a C locale for UTF-8; whoever set one, or another character set, by name, is taken at their word.
    """
    if environment.get("PYTHONIOENCODING") or environment.get("PYTHONUTF8"):
        return stdout
    locale = next((environment[key] for key in ("LC_ALL", "LC_CTYPE", "LANG") if environment.get(key)), "")
    if locale in ("C", "POSIX"):
        return "ascii"
    named = locale.partition(".")[2].partition("@")[0]
    with suppress(LookupError):
        return codecs.lookup(named).name if named else stdout
    return stdout


class Terminal:
    """The terminal's output, as a file for prompt_toolkit. ``gone`` is called, in the loop, when it has hung up."""

    def __init__(self, fd: int, encoding: str, gone: Callable[[], None] = lambda: None) -> None:
        self.encoding = encoding
        self.gone = gone
        self.hung_up = False
        self.caught_up: Callable[[], None] = lambda: None
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._parts: list[str] = []
        self._held = 0
        self._skipped = False
        self._waiting: list[str] = []
        self._under_way = 0
        self._changed = threading.Condition()
        self._closing = False
        self._drained = asyncio.Event()
        self._drained.set()
        threading.Thread(target=self._run, name="terminal", daemon=True).start()

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def write(self, text: str) -> int:
        self._parts.append(text)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written, unless it is being gathered."""
        if not self._held:
            self._hand_on(needed=False)

    def _hand_on(self, *, needed: bool) -> None:
        if not self._parts:
            return
        text = "".join(self._parts)
        self._parts.clear()
        with self._changed:
            backlog = self._under_way + sum(map(len, self._waiting))
            if self.hung_up or (backlog and backlog + len(text) > BACKLOG_MAX_CHARS and not needed):
                self._skipped = True
                return
            self._waiting.append(text)
            self._drained.clear()
            self._changed.notify()

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Write out in one piece what is written inside, so that nothing flickers; never skipped."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            self._hand_on(needed=True)

    async def drained(self) -> None:
        """Wait until the system took everything, or the terminal has hung up."""
        await self._drained.wait()

    def close(self) -> None:
        """Let the thread end once it has written what it can."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closing:
                    self._changed.wait()
                if not self._waiting:
                    return
                text = "".join(self._waiting)
                self._waiting.clear()
                self._under_way = len(text)
            try:
                view = memoryview(text.encode(self.encoding, "quicprochat"))
                while view:
                    view = view[_write(self._fd, view) :]
            except OSError:
                self.hung_up = True
            with self._changed:
                self._under_way = 0
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._written)

    def _written(self) -> None:
        with self._changed:
            if self.hung_up:
                self._waiting.clear()
            if self._waiting or self._under_way:
                return
            skipped, self._skipped = self._skipped, False
            self._drained.set()
        if self.hung_up:
            self.gone()
        elif skipped:
            self.caught_up()


def _write(fd: int, data: memoryview) -> int:
    try:
        return os.write(fd, data)
    except BlockingIOError:  # somebody else made our terminal non-blocking
        select.select([], [fd], [])
        return 0


def size_of(fd: int) -> tuple[int, int]:
    """Return rows and columns; a terminal that does not know has 24 by 80."""
    with suppress(OSError):
        size = os.get_terminal_size(fd)
        return size.lines or 24, size.columns or 80
    return 24, 80


def standard_encoding() -> str:
    """Return the encoding of this process's terminal."""
    stdout = sys.stdout.encoding if sys.stdout is not None else "utf-8"
    return encoding_of(os.environ, stdout or "utf-8")
