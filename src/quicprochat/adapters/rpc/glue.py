"""pycapnp over an asyncio transport, with what keeps a peer from crashing or flooding the process.

pycapnp 2.2.4 is guarded against here: an RPC object that is freed unclosed crashes, so each is closed by the task that
made it, and only there; a handler's exception sends its traceback with file names to the peer, so none leaves a
method, and a method that is missing answers like others; what a peer may have open is bounded by the doorkeeper; a
message is parsed lazily under limits that refuse bombs. ``tests/unit/test_rpc_guard.py`` holds each of these.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakSet

import capnp

from quicprochat.adapters.rpc.doorkeeper import MESSAGE_WORDS, Doorkeeper
from quicprochat.core.errors import QuicprochatError, StoreError, UnavailableError

log = logging.getLogger("quicprochat.rpc")

NESTING = 16
COLLECT_S, COLLECT_ALL_S = 1.0, 60.0
"""Seconds between collections of young garbage, and of all."""
COLLECT_SHARE = 50
"""Collecting all takes no more than one part in so many of the time."""
COLLECT_GROWTH = 0.25
"""All is collected early when so much has been added to what lives long: half of it may be dead (Python's own rule)."""
UNFINISHED = 32
"""Questions beyond a peer's calls: the bootstrap, the session, answers whose "finish" is under way."""
PUSHES_MAX = 64
"""Calls that a server may have open at a client."""

capnp.remove_import_hook()
_HERE = Path(__file__).parent / "schema"
_IMPORTS = [str(Path(capnp.__file__).parent.parent)]
home: Any = capnp.load(str(_HERE / "home.capnp"), imports=_IMPORTS)
"""The schema of the home server."""
federation: Any = capnp.load(str(_HERE / "federation.capnp"), imports=_IMPORTS)
"""The schema between servers."""


_loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()


class Problem(QuicprochatError):
    """A call was answered with a problem; ``code`` is a word of the command line's errors."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


@asynccontextmanager
async def running() -> AsyncIterator[None]:
    """Run Cap'n Proto's event loop inside this one. Within another ``running`` it changes nothing.

    Garbage is collected by this loop alone while it lasts: a capability that dies in another thread kills the process,
    and Python collects in whichever thread happens to allocate (a commit's, a check's).
    """
    loop = asyncio.get_running_loop()
    if loop in _loops:
        yield
        return
    _loops.add(loop)
    automatic = gc.isenabled()
    gc.disable()
    collecting = asyncio.create_task(_collect())
    try:
        async with capnp.kj_loop():
            yield
    finally:
        _loops.discard(loop)
        collecting.cancel()
        gc.collect()
        if automatic:
            gc.enable()


async def _collect() -> None:
    """Do what Python does by itself, at about the same pace: the young often, all of it now and then.

    A flood of connections that live for some seconds leaves garbage which is not young any more, so growth counts too.
    """
    loop = asyncio.get_running_loop()
    all_at, rest_until = loop.time() + COLLECT_ALL_S, 0.0
    old, added = len(gc.get_objects(generation=2)), 0
    while True:
        await asyncio.sleep(COLLECT_S)
        began = loop.time()
        if began >= rest_until and (began >= all_at or added > old * COLLECT_GROWTH):
            gc.collect()
            old, added = len(gc.get_objects(generation=2)), 0
            # With thousands of connections it takes long, and all of them wait.
            rest_until = loop.time() + COLLECT_SHARE * (loop.time() - began)
            all_at = loop.time() + COLLECT_ALL_S
        else:
            young = gc.get_count()[0]
            added += max(0, young - gc.collect(1))


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Read what came from the peer within this. Raises: UnavailableError, for good when the peer sent nonsense."""
    try:
        yield
    except capnp.KjException as error:
        if error.type == "DISCONNECTED":
            raise UnavailableError(f"{what}: the connection is gone") from error
        log.debug("%s: %s", what, error.description)
        raise UnavailableError(f"{what}: the other end does not understand it", retryable=False) from error


def _attach(transport: asyncio.Transport, keeper: Doorkeeper) -> Any:
    box: list[Any] = []
    # What its create_server does with each connection; the name is private and guarded by a test.
    keeper.begin(capnp.AsyncIoStream._connect(box.append))
    return box[0]


class Served:
    """One peer's calls. ``refuse`` is told, with a reason, when the peer goes too far; end its connection then."""

    def __init__(self, in_flight_max: int, refuse: Callable[[str], None]) -> None:
        self.max = in_flight_max
        self._refuse = refuse
        self._keeper: Doorkeeper | None = None

    @property
    def in_flight(self) -> int:
        """How many calls wait for an answer."""
        return self._keeper.unanswered if self._keeper is not None else 0

    async def room(self) -> None:
        """Wait until the peer takes what it was sent, before making an answer of many bytes."""
        if self._keeper is not None:
            await self._keeper.room.wait()

    async def run(self, transport: asyncio.Transport, bootstrap: Any) -> None:
        """Answer calls until the other end is gone."""
        self._keeper = Doorkeeper(transport, self.max + UNFINISHED, self._refuse)
        server = capnp.TwoPartyServer(
            _attach(transport, self._keeper),
            bootstrap=bootstrap,
            traversal_limit_in_words=MESSAGE_WORDS,
            nesting_limit=NESTING,
        )
        try:
            await server.on_disconnect()
        finally:
            server.close()


async def _carry_out(work: Callable[[Any, Any, Any], Awaitable[None]], served: Any, context: Any) -> None:
    """Run a handler; whatever happens, the peer gets an answer of ours and never a traceback."""
    try:
        await work(served, context.params, context.results)
    except StoreError as error:
        log.debug("a call came while the store fails: %s", error)
        _say(context, "unavailable", "the server cannot store anything; try again later")
    except QuicprochatError as error:
        _say(context, getattr(error, "code", "unavailable"), str(error))
    except capnp.KjException as error:
        # The peer's own message: malformed, too deep, too large.
        log.debug("a call could not be read: %s", error.description)
        _say(context, "protocol", "this call could not be read")
    except Exception:
        log.exception("a call failed by a fault of this program; please report it")
        _say(context, "internal", "the server failed at this call")


def _say(context: Any, code: str, message: str) -> None:
    try:
        context.results.problem = {"code": str(code), "message": message}
    except capnp.KjException as error:
        log.debug("an answer could not be written: %s", error.description)


def method(work: Callable[[Any, Any, Any], Awaitable[None]]) -> Callable[[Any, Any], Coroutine[Any, Any, None]]:
    """Make a handler ``(self, params, results)`` one that pycapnp can call.

    Assign the result to ``<method's name in the schema>_context``.
    """

    def called(self: Any, context: Any) -> Coroutine[Any, Any, None]:
        return _carry_out(work, self, context)

    return called


async def _unsupported(_: Any, params: Any, results: Any) -> None:
    raise Problem("this server does not do that", "unsupported")


class Capability:
    """Beside a schema's ``Server`` class: a method of the schema that has no handler here answers with a problem."""

    def __getattr__(self, name: str) -> Any:
        if not name.endswith("_context"):
            raise AttributeError(name)
        return method(_unsupported).__get__(self)


class Remote:
    """The other end's bootstrap capability, for a client. Use :meth:`run` in a task of its own."""

    def __init__(self, transport: asyncio.Transport, interface: Any) -> None:
        def refuse(reason: str) -> None:
            log.debug("the server was hung up on: %s", reason)
            asyncio.get_running_loop().call_soon(transport.abort)

        keeper = Doorkeeper(transport, PUSHES_MAX + UNFINISHED, refuse)
        self._client = capnp.TwoPartyClient(
            _attach(transport, keeper), traversal_limit_in_words=MESSAGE_WORDS, nesting_limit=NESTING
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
        with reading(what):
            answer = await call
            code, message = answer.problem.code, answer.problem.message
        if code:
            raise Problem(message, code)
        return answer
