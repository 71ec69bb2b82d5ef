"""The home's socket: the process that owns a home answers every other process of the same user there.

JSON lines over a Unix socket, one call a connection:

    owner  -> {"hello": {"version", "networked", "stays"}}      first, unasked
    caller -> {"command": "...", "args": {...}}                 once
    owner  -> {"item": {...}}                                   any number
    caller -> {"read": cursor}                                  in ``listen``: lines up to this one are written out
    caller -> {"kept": cursor}                                  in ``listen``: this line is not, and stays unread
    owner  -> {"end": true}                                     last: complete, and what was read is marked so
            | {"error": {"code": "...", "message": "..."}}      or: why not
            | {"moved": true}                                   or: the owner ends and did not do it; ask the next

A caller that goes away cancels its call. An owner that goes away without a last word may have done it or not. Who owns
a home is decided by the lock in it alone; the socket of an owner that was killed is replaced by the next.
"""

from __future__ import annotations

import asyncio
import socket as sockets
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from quicprochat.client.errors import CallError, Moved, Vanished
from quicprochat.console import local
from quicprochat.console.local import Json, encode, read_frame
from quicprochat.core.errors import UnavailableError

__all__ = [
    "ANSWER_MAX_BYTES", "HELLO_S", "LINE_MAX_BYTES", "NAME", "READ_MAX", "Call", "Hello", "Json", "SocketCall",
    "encode", "lasting", "reachable", "read_frame",
]  # fmt: skip

NAME = "qpc.sock"
LINE_MAX_BYTES = 1 << 20
"""Bounds what one line of a caller makes the owner hold; a text of 64 KiB, every byte of it escaped, needs 400 KB."""
ANSWER_MAX_BYTES = 16 << 20
"""Bounds a line of the owner's; an address book with 10,000 contacts needs 6 MB."""
READ_MAX = 4_096
"""Lines of the journal that one request names."""
HELLO_S = 5.0
"""How long a caller waits for the owner's first word: an owner that is stopped in its tracks never says it."""
GONE = "the process that owned this home has ended"


@dataclass(frozen=True, slots=True)
class Hello:
    """What an owner says of itself. ``stays`` is False where it lives for one call only."""

    version: str
    networked: bool
    stays: bool


LASTING = frozenset(
    {
        "channels", "doctor", "history", "identity", "inbox", "listen", "outbox", "peers", "reached", "read",
        "requests", "route", "store", "trace", "wait", "watch",
    }
)  # fmt: skip


def lasting(command: str, args: Json) -> bool:
    """Say whether a call only reads or waits, so that it may be cut short and asked again of the home's next owner."""
    return command in LASTING and not (command == "identity" and args.get("name") is not None)


def reachable(home: Path) -> AbstractContextManager[str]:
    """Give a path of the home's socket that fits into an address, however long the home's own path is."""
    return local.reachable(home, NAME)


class Call(Protocol):
    """A command under way, wherever it runs."""

    async def next(self) -> Json | None:
        """Return the next object of the answer, None after the last.

        Raises: QuicprochatError; Moved or Vanished when the owner of the home ended in between.
        """
        ...

    def written(self, cursor: int) -> None:
        """Say that lines up to this cursor were written out, and so count as read."""
        ...

    def kept(self, cursor: int) -> None:
        """Say that a line will not be written out: it stays unread, whatever is said of later ones."""
        ...

    async def close(self) -> None:
        """End the call, also in its midst."""
        ...


class SocketCall:
    """A call to the process that owns the home."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hello: Hello) -> None:
        self._reader = reader
        self._writer = writer
        self.hello = hello

    @classmethod
    async def connect(cls, home: Path) -> SocketCall | None:
        """Reach the owner of a home; None when nobody answers at its socket. Raises: UnavailableError, CallError."""
        connection = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        try:
            connection.setblocking(False)
            with reachable(home) as address:
                connection.connect(address)  # at once or not at all: a Unix socket has no handshake
            reader, writer = await asyncio.open_connection(sock=connection, limit=ANSWER_MAX_BYTES)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            connection.close()
            return None  # what is no directory has no owner, and can get none
        except BlockingIOError:
            connection.close()
            raise CallError("the process that owns this home has too many callers; try again later", "busy") from None
        except OSError as error:
            connection.close()
            raise UnavailableError(f"the socket in {home} cannot be reached: {error.strerror}") from error
        call = cls(reader, writer, Hello("", networked=False, stays=False))
        try:
            async with asyncio.timeout(HELLO_S):
                frame = await call._frame()
            if frame is None or "moved" in frame:
                await call.close()
                return None
            call.hello = _read_hello(frame)
        except TimeoutError:
            await call.close()
            raise UnavailableError(f"the process that owns the home {home} does not answer") from None
        except BaseException:
            await call.close()
            raise
        return call

    async def _frame(self) -> Json | None:
        try:
            frame = await read_frame(self._reader)
        except OSError:
            return None
        if frame is not None and isinstance(error := frame.get("error"), dict):
            raise CallError(str(error.get("message")), str(error.get("code")))
        return frame

    async def ask(self, command: str, args: Json) -> None:
        """Send the request. Raises: CallError when it is too long; Vanished."""
        line = encode({"command": command, "args": args})
        if len(line) > LINE_MAX_BYTES:
            raise CallError("this is too long for one call", "too_long")
        try:
            self._writer.write(line)
            await self._writer.drain()
        except OSError as error:
            raise Vanished(GONE) from error

    async def next(self) -> Json | None:
        frame = await self._frame()
        if frame is None:
            raise Vanished(GONE)
        if "end" in frame:
            return None
        item = frame.get("item")
        if not isinstance(item, dict):
            raise Moved(GONE)
        return item

    def written(self, cursor: int) -> None:
        self._writer.write(encode({"read": cursor}))

    def kept(self, cursor: int) -> None:
        self._writer.write(encode({"kept": cursor}))

    async def close(self) -> None:
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


def _read_hello(frame: Json) -> Hello:
    hello = frame.get("hello")
    if not isinstance(hello, dict):
        raise CallError("what answers at the home's socket is no node of ours", "protocol")
    return Hello(str(hello.get("version")), bool(hello.get("networked")), bool(hello.get("stays")))
