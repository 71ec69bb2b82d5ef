"""The socket in the server's home where the operator's commands are answered.

JSON lines, one call a connection:

    caller -> {"command": "...", "args": {...}}
    server -> {"item": {...}}                    any number
            | {"alive": true}                    now and then, while it works
            | {"end": true}                      last
            | {"error": {"code", "message"}}     last, instead

The home is readable by its user alone, and so is the socket. A caller that goes away ends its call.
"""

from __future__ import annotations

import asyncio
import logging
import socket as sockets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from quicprochat.console.errors import CallError, code_of
from quicprochat.console.local import Json, encode, reachable, read_frame
from quicprochat.core.errors import QuicprochatError, UnavailableError

log = logging.getLogger("quicprochat.server.control")

NAME = "qpc-server.sock"
CALLS_MAX = 16
LINE_MAX_BYTES = 64 << 10
REQUEST_S = 10.0
ALIVE_S = 5.0
SILENCE_S = 30.0
"""How long a caller waits for a word."""
WRITE_S = 10.0
"""How long a caller that does not read is waited for."""

Perform = Callable[[str, Json], AsyncIterator[Json]]


class Control:
    """The server's side; the home must be owned."""

    def __init__(self, home: Path, perform: Perform) -> None:
        self._home = home
        self._perform = perform
        self._server: asyncio.Server | None = None
        self._calls: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Open the socket, in place of one that a killed server left. Raises: UnavailableError."""
        path = self._home / NAME
        listener = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        try:
            path.unlink(missing_ok=True)
            with reachable(self._home, NAME) as address:
                listener.bind(address)
            path.chmod(0o600)  # nobody else comes this far anyway: the home is 0700
            listener.listen(CALLS_MAX)
            self._server = await asyncio.start_unix_server(self._called, sock=listener, limit=LINE_MAX_BYTES)
        except OSError as error:
            listener.close()
            raise UnavailableError(f"the socket {path} cannot be opened: {error.strerror}") from error

    async def close(self) -> None:
        """End what is under way, and take the socket away."""
        if self._server is None:
            return
        self._server.close()
        for task in tuple(self._calls):
            task.cancel()
        if self._calls:
            await asyncio.wait(self._calls)
        with suppress(OSError):
            (self._home / NAME).unlink()

    def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _write(writer, await self._answer(reader, writer))
        except (OSError, TimeoutError) as error:
            log.debug("a caller went away: %s", error)
        except asyncio.CancelledError:
            pass  # the server is stopping, and hangs up
        except Exception:
            # A fault of ours in a call of the operator's must not take the server with it.
            log.exception("a call ended by a fault of this program; please report it")
            with suppress(OSError, TimeoutError):
                await _write(writer, _error("internal", "the server met a fault of its own; its log says more"))
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Json:
        """Carry a call out; return its last frame."""
        try:
            if len(self._calls) > CALLS_MAX:
                raise CallError(f"{CALLS_MAX} calls are under way; try again later", "busy")
            async with asyncio.timeout(REQUEST_S):
                request = await read_frame(reader) or {}
            command, args = request.get("command"), request.get("args", {})
            if not isinstance(command, str) or not isinstance(args, dict):
                raise CallError('a request is {"command": "...", "args": {...}}', "usage")
            items = self._perform(command, args)
            while (item := await _next(items, writer)) is not None:
                await _write(writer, {"item": item})
        except QuicprochatError as error:
            return _error(code_of(error), str(error))
        return {"end": True}


async def _next(items: AsyncIterator[Json], writer: asyncio.StreamWriter) -> Json | None:
    """Return the next object, and meanwhile let the caller know that we are at it."""
    working = asyncio.ensure_future(anext(items, None))
    try:
        while not (await asyncio.wait((working,), timeout=ALIVE_S))[0]:
            await _write(writer, {"alive": True})
    finally:
        if not working.done():
            working.cancel()
            await asyncio.wait((working,))
    return working.result()


async def _write(writer: asyncio.StreamWriter, frame: Json) -> None:
    writer.write(encode(frame))
    async with asyncio.timeout(WRITE_S):
        await writer.drain()


def _error(code: str, message: str) -> Json:
    return {"error": {"code": code, "message": message}}


def ask(home: Path, command: str, args: Json) -> Iterator[Json]:
    """Ask the server of a home; yield the objects of its answer. Raises: CallError, UnavailableError."""
    import json

    with _connected(home) as connection:
        connection.sendall(encode({"command": command, "args": args}))
        with connection.makefile("rb") as lines:
            for line in lines:
                frame = json.loads(line)
                if "end" in frame:
                    return
                if "error" in frame:
                    raise CallError(str(frame["error"]["message"]), str(frame["error"]["code"]))
                if "item" in frame:
                    yield frame["item"]
    raise UnavailableError("the server stopped before it had answered")


@contextmanager
def _connected(home: Path) -> Iterator[sockets.socket]:
    connection = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    connection.settimeout(SILENCE_S)
    try:
        try:
            with reachable(home, NAME) as address:
                connection.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            raise UnavailableError(
                f"no server runs on the home {home}: start it, or name its home with --home"
            ) from None
        yield connection
    except TimeoutError:
        raise UnavailableError(f"the server does not answer within {SILENCE_S:g} s") from None
    except OSError as error:
        raise UnavailableError(f"the server cannot be asked through {home / NAME}: {error.strerror}") from error
    finally:
        connection.close()
