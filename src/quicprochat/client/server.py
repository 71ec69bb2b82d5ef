"""The owner's side of the home's socket: calls of other processes, run on this process's node."""

from __future__ import annotations

import asyncio
import logging
import socket as sockets
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from quicprochat.client.commands import answer
from quicprochat.client.errors import CallError, code_of
from quicprochat.client.socket import LINE_MAX_BYTES, NAME, Hello, Json, encode, lasting, reachable, read_frame
from quicprochat.core.errors import QuicprochatError, UnavailableError
from quicprochat.p2p import P2pNode

log = logging.getLogger("quicprochat.socket")

CALLS_MAX = 64
"""Calls under way at once; one more is refused, so that a script in a loop cannot fill the memory."""
WINDOW = 1_024
"""Lines of ``listen`` sent and not yet said to be written out."""
REQUEST_S = 10.0
CLOSE_S = 5.0
"""How long a closing owner waits for short calls to end."""
LAST_WORD_S = 1.0
"""How long a caller that does not read may keep us from hanging up."""
RETRY_S = 1.0
"""When no connection can be accepted, for want of descriptors: how long until the next attempt."""


class LocalCall:
    """A call on a node of this process."""

    def __init__(self, node: P2pNode, command: str, args: Json) -> None:
        self._node = node
        self._answer = answer(node, command, args)
        self._read: list[int] = []
        self._marking: asyncio.Task[None] | None = None

    async def next(self) -> Json | None:
        item = await anext(self._answer, None)
        if item is None:
            await self.settle()
        return item

    def written(self, cursor: int) -> None:
        self._read.append(cursor)
        if self._marking is None or self._marking.done():
            self._marking = asyncio.create_task(self._mark())

    def kept(self, cursor: int) -> None:
        """Nothing is to be done: only what was written out is marked."""

    async def _mark(self) -> None:
        while self._read:  # as many as came during the last transaction go into the next
            cursors, self._read = self._read, []
            await self._node.read(cursors)

    async def settle(self) -> None:
        """Wait until all that was written out is marked as read. Raises: StoreError, UnavailableError."""
        if self._marking is not None:
            await self._marking

    async def close(self) -> None:
        await self._answer.aclose()
        with suppress(QuicprochatError):  # what was not marked comes again, and the node's own end says why
            await self.settle()


class Server:
    """Answers at the socket of a home that this process owns. ``leave`` is told when somebody wants to own it."""

    def __init__(self, node: P2pNode, hello: Hello, leave: Callable[[], None]) -> None:
        self._node = node
        self._hello = hello
        self._leave = leave
        self._path: Path = node.home.path / NAME
        self._listener: sockets.socket | None = None
        self._calls: dict[asyncio.Task[None], bool] = {}
        self._closing = False

    async def start(self) -> None:
        """Open the socket, in place of one that a killed owner left. Raises: UnavailableError."""
        listener = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        try:
            self._path.unlink(missing_ok=True)
            with reachable(self._path.parent) as address:
                listener.bind(address)
            self._path.chmod(0o600)  # nobody else comes this far anyway: the home is 0700
            listener.listen(CALLS_MAX)
            listener.setblocking(False)
        except OSError as error:
            listener.close()
            raise UnavailableError(f"the socket {self._path} cannot be opened: {error.strerror}") from error
        self._listener = listener
        self._listen()

    async def close(self) -> None:
        """Take no more calls, send the lasting ones on, let the short ones end. The home must still be owned."""
        if self._listener is None:
            return
        self._closing = True
        with suppress(OSError):
            self._path.unlink()
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        self._listener = None
        await asyncio.sleep(0)  # calls that were just taken begin, and can then be ended
        for task, may_go in tuple(self._calls.items()):
            if may_go:
                task.cancel()
        if self._calls:
            _, late = await asyncio.wait(self._calls, timeout=CLOSE_S)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    def _accept(self, listener: sockets.socket) -> None:
        # Not asyncio.start_server, nor sock_accept: both lose a connection that comes while they are stopped.
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return  # whoever called has gone again
        except OSError as error:
            log.warning("the home's socket cannot take a call: %s", error.strerror)
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener)
            loop.call_later(RETRY_S, self._listen)
            return
        task = asyncio.create_task(self._serve(connection))
        self._calls[task] = True
        task.add_done_callback(self._calls.pop)

    def _listen(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    async def _serve(self, connection: sockets.socket) -> None:
        task = asyncio.current_task()
        assert task is not None
        last: Json | None
        reader, writer = await asyncio.open_connection(sock=connection, limit=LINE_MAX_BYTES)
        try:
            last = await self._converse(task, reader, writer)
        except asyncio.CancelledError:
            last = {"moved": True} if self._calls[task] else None
        except QuicprochatError as error:
            last = {"error": {"code": code_of(error), "message": str(error)}}
        except OSError as error:
            log.debug("a caller went away: %s", error)
            last = None
        except Exception:
            # A fault of ours in one call must not take the node with it.
            log.exception("a call ended by a fault of this program; please report it")
            message = "the node met a fault of its own in this call; please report it, with what the node logged"
            last = {"error": {"code": "internal", "message": message}}
        try:
            with suppress(OSError, TimeoutError, asyncio.CancelledError):
                async with asyncio.timeout(LAST_WORD_S):
                    if last is not None:
                        writer.write(encode(last))
                    writer.close()
                    await writer.wait_closed()
        finally:
            writer.transport.abort()  # nothing more to do where all went well

    async def _converse(
        self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Json | None:
        """Hold one conversation; return its last frame, None when the caller has gone."""
        if self._closing:
            return {"moved": True}
        if len(self._calls) > CALLS_MAX:
            raise CallError(f"{CALLS_MAX} calls are under way on this home; try again later", "busy")
        writer.write(encode({"hello": asdict(replace(self._hello, networked=self._node.networked))}))
        try:
            async with asyncio.timeout(REQUEST_S):
                request = await read_frame(reader)
        except TimeoutError:
            return None
        if request is None:
            return None
        command, args = request.get("command"), request.get("args", {})
        if not isinstance(command, str) or not isinstance(args, dict):
            raise CallError('a request is {"command": "...", "args": {...}}', "usage")
        if command == "leave":
            self._leave()
            return {"end": True}
        self._calls[task] = lasting(command, args)
        return await self._answer(LocalCall(self._node, command, args), command == "listen", reader, writer)

    async def _answer(
        self, call: LocalCall, marks: bool, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Json | None:
        lines = _Lines()
        speaking = asyncio.create_task(_speak(call, lines if marks else None, writer))
        hearing = asyncio.create_task(_hear(call, lines, reader))
        try:
            await asyncio.wait((speaking, hearing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            speaking.cancel()
            hearing.cancel()
            await asyncio.wait((speaking, hearing))
            await call.close()
        if not speaking.cancelled():
            speaking.result()
            return {"end": True}
        hearing.result()
        return None


class _Lines:
    """Which lines were sent and are not yet said to be written out."""

    def __init__(self) -> None:
        self._sent: deque[int] = deque()
        self._changed = asyncio.Event()

    def sent(self, cursor: int) -> None:
        self._sent.append(cursor)

    def written(self, cursor: int) -> list[int]:
        """Return the lines that a caller's word covers."""
        covered = []
        while self._sent and self._sent[0] <= cursor:
            covered.append(self._sent.popleft())
        self._changed.set()
        return covered

    def kept(self, cursor: int) -> None:
        """Cover a line by no later word of the caller's."""
        with suppress(ValueError):
            self._sent.remove(cursor)
        self._changed.set()

    async def fewer_than(self, count: int) -> None:
        while len(self._sent) >= count:
            self._changed.clear()
            await self._changed.wait()


async def _speak(call: LocalCall, lines: _Lines | None, writer: asyncio.StreamWriter) -> None:
    while (item := await call.next()) is not None:
        if lines is not None:
            lines.sent(item["cursor"])
        writer.write(encode({"item": item}))
        await writer.drain()
        if lines is not None:
            await lines.fewer_than(WINDOW)
    if lines is not None:
        await lines.fewer_than(1)
        await call.settle()


async def _hear(call: LocalCall, lines: _Lines, reader: asyncio.StreamReader) -> None:
    """Hear what was written out and what was not, until the caller goes away."""
    while (frame := await read_frame(reader)) is not None:
        match frame:
            case {"read": int(cursor)}:
                for line in lines.written(cursor):
                    call.written(line)
            case {"kept": int(cursor)}:
                lines.kept(cursor)
            case _:
                raise CallError('during a call only {"read": cursor} and {"kept": cursor} are understood', "protocol")
