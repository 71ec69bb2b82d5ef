"""Where calls go: to the process that owns the home, or, when there is none, to a node of this process.

An owner may end while others call it. What only reads or waits is then asked of the next owner, which may be this very
process; so a ``listen`` outlives the daemon it began on.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING

from quicprochat import __version__
from quicprochat.adapters.home import HOW_TO_STOP
from quicprochat.client.errors import CallError, Moved, Vanished
from quicprochat.client.settings import Settings
from quicprochat.client.socket import READ_MAX, Call, Hello, Json, SocketCall, lasting
from quicprochat.core.errors import LocalError, UnavailableError

if TYPE_CHECKING:
    from quicprochat.client.server import Server
    from quicprochat.p2p import P2pNode

log = logging.getLogger("quicprochat.session")

TAKE_OVER_S = 5.0
"""How long an owner that is starting or ending is waited for."""
TAKE_OVER_STEP_S = 0.02


class Session:
    """Calls on one home. ``stays`` is True for a daemon and a prompt: others then rely on this process.

    ``leave`` is set when somebody else wants to own the home and this process, owning it, should soon end.
    """

    def __init__(self, settings: Settings, *, stays: bool, network: bool) -> None:
        self._settings = settings
        self._stays = stays
        self._network = network
        self._opening = asyncio.Lock()
        self._server: Server | None = None
        self.node: P2pNode | None = None
        self._hello = Hello(__version__, networked=False, stays=stays)
        self.leave = asyncio.Event()

    @property
    def hello(self) -> Hello:
        """What the owner of the home says of itself."""
        return self._hello if self.node is None else replace(self._hello, networked=self.node.networked)

    async def __aenter__(self) -> Session:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Attach to the owner of the home, or become it. Raises: LocalError, UnavailableError, CallError."""
        if not await self._attach():
            await self._take_over(self._attach)

    async def own(self) -> None:
        """Become the owner of the home; a call that owns it for a moment is asked to hurry, and waited for.

        Raises: CallError, LocalError with code ``owned``; UnavailableError.
        """
        if await self._attach():
            self._refuse_beside_another()
            await self._ask_to_leave()
        await self._take_over(self._never_attach)

    async def _never_attach(self) -> bool:
        if await self._attach():
            self._refuse_beside_another()
        return False

    def _refuse_beside_another(self) -> None:
        if self.hello.stays:
            home = self._settings.home
            raise CallError(f"a node runs on the home {home} already; stop it first ({HOW_TO_STOP})", "owned")

    async def _attach(self) -> bool:
        """Look whether a process answers for the home."""
        call = await SocketCall.connect(self._settings.home)
        if call is None:
            return False
        self._hello = call.hello
        await call.close()
        return True

    async def _ask_to_leave(self) -> None:
        call = await SocketCall.connect(self._settings.home)
        if call is not None:
            try:
                await call.ask("leave", {})
                await call.next()
            except Moved:
                pass
            finally:
                await call.close()

    async def _take_over(self, attached: Callable[[], Awaitable[bool]]) -> None:
        """Own the home as soon as nobody else does, unless ``attached`` says that this is not needed any more."""
        deadline = _clock() + TAKE_OVER_S
        while True:
            try:
                return await self._start()
            except LocalError as error:
                if error.code != "owned" or _clock() > deadline:
                    raise
            await asyncio.sleep(TAKE_OVER_STEP_S)
            if await attached():
                return None

    async def _start(self) -> None:
        from quicprochat.client.server import Server
        from quicprochat.core.network import Network
        from quicprochat.core.policy import Carry
        from quicprochat.p2p import Options, P2pNode

        s = self._settings
        options = Options(
            s.home,
            bind=s.bind,
            relay=s.relay,
            network=Network(s.network),
            ephemeral=s.ephemeral,
            server=s.server,
            discovery=not s.no_discovery,
            quiet=s.quiet,
            carry=Carry(s.carry),
            stays=self._stays,
        )
        node = P2pNode(options, network=self._network)
        await node.start()
        self._hello = Hello(__version__, networked=node.networked, stays=self._stays)
        self._server = Server(node, self._hello, self.leave.set)
        try:
            await self._server.start()
        except BaseException:
            await node.close()
            raise
        self.node = node

    async def close(self) -> None:
        """Stop a node of our own; another process's node is left as it is."""
        if self._server is not None:
            await self._server.close()
            self._server = None
        if self.node is not None:
            await self.node.close()
            self.node = None

    @property
    def loses_messages(self) -> bool:
        """True when what waits now is gone with this process."""
        return self.node is not None and self._settings.ephemeral

    # --- calls

    async def ask(self, command: str, args: Json) -> Json:
        """Return the one object that a command answers with. Raises: QuicprochatError."""
        async with Stream(self, command, args) as stream:
            return await anext(stream)

    async def ask_all(self, command: str, args: Json) -> list[Json]:
        """Return all objects that a command answers with. Raises: QuicprochatError."""
        async with Stream(self, command, args) as stream:
            found = [(stream.owner, item) async for item in stream]
            return [item for owner, item in found if owner == stream.owner]

    def stream(self, command: str, args: Json) -> Stream:
        """Return the answer of ``inbox`` or ``listen``, to be iterated inside ``async with``."""
        return Stream(self, command, args)

    async def begin(self, command: str, args: Json) -> Call:
        """Start a call where the home's node is. Raises: QuicprochatError."""
        while self.node is None:
            call = await SocketCall.connect(self._settings.home)
            if call is None:
                await self._reopen()
                continue
            self._hello = call.hello
            try:
                await call.ask(command, args)
            except BaseException:
                await call.close()
                raise
            return call
        from quicprochat.client.server import LocalCall

        return LocalCall(self.node, command, args)

    async def _reopen(self) -> None:
        """Find the home's next owner, or become it."""
        async with self._opening:
            if self.node is None and not await self._attach():
                log.info("the process that owned this home has ended; this one goes on")
                await self._take_over(self._attach)


def _clock() -> float:
    return asyncio.get_running_loop().time()


class Stream:
    """The answer of one command, across owners. Say :meth:`written` of each line that was written out.

    In ``listen``, :meth:`kept` says of a line that it was not; the next owner then tells it again.

    ``owner`` counts owners: a list that one of them did not finish is begun anew by the next.
    """

    def __init__(self, session: Session, command: str, args: Json) -> None:
        self._session = session
        self._command = command
        self._args = dict(args)
        self._call: Call | None = None
        self._deadline = _clock() + args["timeout"] if args.get("timeout") is not None else None
        self._kept: deque[int] = deque(maxlen=READ_MAX + 1)
        self.owner = 0

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            await call.close()

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Json:
        while True:
            try:
                if self._call is None:
                    self._call = await self._session.begin(self._command, self._args)
                    self.owner += 1
                item = await self._call.next()
            except Moved as error:
                await self._close()
                self._prepare_next(error)
                continue
            if item is None:
                raise StopAsyncIteration
            return item

    def written(self, line: Json) -> None:
        """Say that a line was written out: in ``listen`` it then counts as read."""
        cursor = line["cursor"]
        if self._command == "inbox":
            self._args["since"] = cursor
            return
        if self._call is not None:
            self._call.written(cursor)
        self._args["after"] = cursor
        if self._args.get("count") and line["event"] in ("message", "post"):
            self._args["count"] -= 1

    def kept(self, line: Json) -> None:
        """Say that a line of ``listen`` was not written out: it stays unread."""
        if self._session.hello.version != __version__:
            return self.written(line)  # an owner of another version may not know the word
        self._kept.append(line["cursor"])
        if self._call is not None:
            self._call.kept(line["cursor"])
        return None

    def _prepare_next(self, error: Moved) -> None:
        """Leave to the home's next owner what is left of the command."""
        if isinstance(error, Vanished) and not lasting(self._command, self._args):
            raise UnavailableError(f"{error}; whether this was done before is not known") from error
        if self._kept:
            self._args["kept"] = list(self._kept)[-READ_MAX:]
            if len(self._kept) > READ_MAX:
                self._args.pop("after", None)  # rather twice than taken for read
        if self._deadline is not None:
            self._args["timeout"] = max(0.0, self._deadline - _clock())
