"""pycapnp over an asyncio transport, with what keeps a peer from crashing or flooding the process.

pycapnp 2.2.4 is guarded against here: an RPC object that is freed unclosed crashes, so each is closed by the task that
made it, and only there; a handler's exception sends its traceback with file names to the peer, so none leaves a
method; calls in flight are not bounded, so they are counted; a message is parsed lazily under limits that refuse
bombs. ``tests/unit/test_rpc_guard.py`` holds each of these.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from weakref import WeakSet

import capnp

from quicprochat.core.errors import QuicprochatError, UnavailableError

log = logging.getLogger("quicprochat.rpc")

TRAVERSAL_WORDS = 256 * 1024
"""8-byte words one message may make us look at: 2 MiB, four times the largest honest batch."""
NESTING = 16

capnp.remove_import_hook()
_HERE = Path(__file__).parent / "schema"
home: Any = capnp.load(str(_HERE / "home.capnp"), imports=[str(Path(capnp.__file__).parent.parent)])
"""The schema of the home server."""


_loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()


class Problem(QuicprochatError):
    """A call was answered with a problem; ``code`` is a word of the command line's errors."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


@asynccontextmanager
async def running() -> AsyncIterator[None]:
    """Run Cap'n Proto's event loop inside this one. Within another ``running`` it changes nothing."""
    loop = asyncio.get_running_loop()
    if loop in _loops:
        yield
        return
    _loops.add(loop)
    try:
        async with capnp.kj_loop():
            yield
    finally:
        _loops.discard(loop)


def _attach(transport: asyncio.Transport) -> Any:
    box: list[Any] = []
    # What its create_server does with each connection; the name is private and guarded by a test.
    protocol = capnp.AsyncIoStream._connect(box.append)
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    return box[0]


class Served:
    """One peer's calls: how many are in flight, and how many may be.

    ``busy`` is told when a peer has more calls in flight than it was told it may; end its connection then.
    """

    def __init__(self, in_flight_max: int, busy: Callable[[], None]) -> None:
        self.max = in_flight_max
        self._busy = busy
        self.in_flight = 0

    async def run(self, transport: asyncio.Transport, bootstrap: Any) -> None:
        """Answer calls until the other end is gone."""
        server = capnp.TwoPartyServer(
            _attach(transport),
            bootstrap=bootstrap,
            traversal_limit_in_words=TRAVERSAL_WORDS,
            nesting_limit=NESTING,
        )
        try:
            await server.on_disconnect()
        finally:
            server.close()

    def call(self, work: Callable[[Any, Any], Awaitable[None]], context: Any) -> Coroutine[Any, Any, None]:
        """Count a call from the moment it arrived; pycapnp runs what is returned."""
        self.in_flight += 1
        if self.in_flight > self.max:
            self._busy()
        return self._carry_out(work, context)

    async def _carry_out(self, work: Callable[[Any, Any], Awaitable[None]], context: Any) -> None:
        try:
            if self.in_flight <= self.max:
                await work(context.params, context.results)
        except QuicprochatError as error:
            _say(context, getattr(error, "code", "unavailable"), str(error))
        except capnp.KjException as error:
            # The peer's own message: malformed, too deep, too large.
            log.debug("a call could not be read: %s", error.description)
            _say(context, "protocol", "this call could not be read")
        except Exception:
            log.exception("a call failed by a fault of this program; please report it")
            _say(context, "internal", "the server failed at this call")
        finally:
            self.in_flight -= 1


def _say(context: Any, code: str, message: str) -> None:
    context.results.problem = {"code": str(code), "message": message}


def method(work: Callable[[Any, Any, Any], Awaitable[None]]) -> Callable[[Any, Any], Coroutine[Any, Any, None]]:
    """Make a handler ``(self, params, results)`` one that pycapnp can call; ``self.served`` counts it.

    Assign the result to ``<method's name in the schema>_context``.
    """

    def called(self: Any, context: Any) -> Coroutine[Any, Any, None]:
        served: Served = self.served
        return served.call(lambda params, results: work(self, params, results), context)

    return called


class Remote:
    """The other end's bootstrap capability, for a client. Use :meth:`run` in a task of its own."""

    def __init__(self, transport: asyncio.Transport, interface: Any) -> None:
        self._client = capnp.TwoPartyClient(
            _attach(transport), traversal_limit_in_words=TRAVERSAL_WORDS, nesting_limit=NESTING
        )
        self.bootstrap = self._client.bootstrap().cast_as(interface)

    async def run(self) -> None:
        """Wait until the other end is gone, and close; whatever happens, this must be let finish."""
        try:
            await self._client.on_disconnect()
        finally:
            self._client.close()

    @staticmethod
    async def ask(call: Any, what: str) -> Any:
        """Await a call; return its results. Raises: Problem; UnavailableError when the connection is gone."""
        try:
            answer = await call
        except capnp.KjException as error:
            if error.type == "DISCONNECTED":
                raise UnavailableError(f"{what}: the connection is gone") from error
            raise UnavailableError(f"{what}: the server does not understand the call", retryable=False) from error
        if answer.problem.code:
            raise Problem(answer.problem.message, answer.problem.code)
        return answer
