"""Standard input and output without holding up the loop: a slow reader of ours must not make links die.

Both run in threads of their own that the end of the process doesn't wait for, and use the descriptors directly: a
blocked thread holds no lock of ``sys.stdout``.
"""

from __future__ import annotations

import asyncio
import os
import queue
import shutil
import sys
import threading
from contextlib import suppress
from typing import Protocol

from quicprochat.client.errors import CallError
from quicprochat.core.errors import LocalError

STDIN, STDOUT = 0, 1
LINE_MAX_BYTES = 1 << 20
LINES_WAITING = 16
"""Lines read ahead of their being carried out."""


class Writes(Protocol):
    """Where answers go."""

    @property
    def encoding(self) -> str:
        """What its reader understands."""
        ...

    async def write(self, text: str, *, headline: str = "", ring: bool = False) -> None:
        """Write a text out, below a line of our own that must not be missed; ``ring`` sounds a terminal's bell.

        Raises: BrokenPipeError when nobody reads any more; CallError.
        """
        ...


class Output:
    """Standard output. A line counts as written out once the system took all of it."""

    def __init__(self) -> None:
        self.encoding = sys.stdout.encoding if sys.stdout is not None else "utf-8"
        self._jobs: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]]] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._draws = os.isatty(STDOUT) and os.environ.get("TERM", "dumb") != "dumb"
        threading.Thread(target=self._run, name="stdout", daemon=True).start()

    def above(self, headline: str, *, ring: bool) -> str:
        """Return a headline as it stands above what it is about: in reverse video where the reader is a terminal."""
        if not headline:
            return ""
        bell = "\a" if ring and os.isatty(STDOUT) else ""
        return f"{bell}\x1b[7m{headline}\x1b[0m\n" if self._draws else f"{bell}{headline}\n"

    async def write(self, text: str, *, headline: str = "", ring: bool = False) -> None:
        text = self.above(headline, ring=ring) + text
        done: asyncio.Future[None] = self._loop.create_future()
        self._jobs.put((text.encode(self.encoding, "replace"), done))
        try:
            await done
        except BrokenPipeError:
            raise
        except OSError as error:
            raise CallError(f"standard output cannot be written: {error.strerror}", "output") from error

    def _run(self) -> None:
        while True:
            data, done = self._jobs.get()
            error: OSError | None = None
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(STDOUT, view) :]
            except OSError as failure:
                error = failure
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(_settle, done, error)


def _settle(done: asyncio.Future[None], error: OSError | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)


class Lines:
    """The lines of standard input: iterate. Raises: CallError for a line that is too long or no UTF-8."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Queue[bytes | None] = asyncio.Queue(LINES_WAITING)
        threading.Thread(target=self._run, name="stdin", daemon=True).start()

    def __aiter__(self) -> Lines:
        return self

    async def __anext__(self) -> str:
        line = await self._ready.get()
        if line is None:
            raise StopAsyncIteration
        if len(line) > LINE_MAX_BYTES:
            raise CallError("this line is too long", "too_long")
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError:
            raise CallError("this line is not valid UTF-8", "usage") from None

    def _run(self) -> None:
        with suppress(RuntimeError):  # the loop is closed
            rest = b""
            while data := self._read():
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._hand_over(line)
                rest = rest[: LINE_MAX_BYTES + 1]
            if rest:
                self._hand_over(rest)
            self._hand_over(None)

    @staticmethod
    def _read() -> bytes:
        try:
            return os.read(STDIN, 65_536)
        except OSError:
            return b""

    def _hand_over(self, line: bytes | None) -> None:
        asyncio.run_coroutine_threadsafe(self._ready.put(line), self._loop).result()


def terminal_columns() -> int | None:
    """Return how wide the terminal is that standard output goes to; None where it goes elsewhere."""
    return shutil.get_terminal_size().columns if os.isatty(STDOUT) else None


def read_text() -> str:
    """Read a message from standard input; one newline at its end is dropped. Raises: LocalError."""
    from quicprochat.core.seal import TEXT_MAX_BYTES

    data = b""
    try:
        while len(data) <= TEXT_MAX_BYTES + 1 and (part := os.read(STDIN, TEXT_MAX_BYTES + 2 - len(data))):
            data += part
    except OSError as error:
        raise LocalError(f"standard input cannot be read: {error.strerror}") from error
    data = data.removesuffix(b"\n")
    if len(data) > TEXT_MAX_BYTES:
        raise LocalError(f"a text has at most {TEXT_MAX_BYTES} bytes; this one has more", code="too_long")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise LocalError("the text on standard input is not valid UTF-8") from None
