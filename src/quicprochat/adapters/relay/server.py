"""The relay: who is connected, and whose datagrams go where.

For unmodified iroh clients, over plain HTTP: what they send through it is encrypted between them already, and an https
address would need a certificate that a public authority signed.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from quicprochat.adapters.relay import frames
from quicprochat.adapters.relay.session import Session, Stage
from quicprochat.core.errors import UnavailableError

SWEEP_S = 1.0
PER_KEY = 3
"""Connections of one key: the newest is sent to, the others wait for it to fail."""
WAITING, WAITING_PER_HOST = 256, 64
"""Connections that have proved nothing yet; one more ends the oldest of that host, or of all."""
RECONNECT_MS, TRY_FOR_MS = 1_000, 60_000
GOODBYE_S = 1.0
"""How long stopping waits for clients to read that it stops."""


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """Bounds, each with what it stops."""

    clients: int = 1_000
    bytes_per_s: int = 50_000_000
    """From one client, for long: it is read more slowly then."""
    queue_bytes: int = 512 << 10
    """For one client that does not read; more is dropped, as a full router would, and QUIC sends it again."""
    handshake_s: float = 10.0
    ping_s: float = 15.0
    silence_s: float = 45.0
    """Without a word, and asked for one: gone."""


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """What an operator sees. Frames and bytes are those forwarded since the start."""

    clients: int
    connecting: int
    frames: int
    bytes: int
    dropped: int
    """Frames for somebody who does not read."""
    unknown: int
    """Frames for somebody who is not here."""
    refused: int
    """Connections whose key was not proven or not admitted."""


class Relay:
    """Use :meth:`listen` and :meth:`close`.

    ``refusal`` says why a key may not use the relay; an empty text lets it in. ``entropy`` makes challenges.
    """

    def __init__(
        self,
        entropy: Callable[[int], bytes],
        refusal: Callable[[bytes], Awaitable[str]],
        limits: RelayLimits | None = None,
    ) -> None:
        self.limits = limits or RelayLimits()
        self.entropy = entropy
        self._refusal = refusal
        self._sessions: dict[Session, None] = {}  # oldest first
        self._clients: dict[bytes, list[Session]] = {}  # the newest last
        self._waiting: Counter[str] = Counter()
        self._touched: set[Session] = set()
        self._counts: Counter[str] = Counter()
        self._loop: asyncio.AbstractEventLoop
        self._server: asyncio.Server | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    async def listen(self, ip: str, port: int) -> tuple[str, int]:
        """Take connections from now on; return where. Raises: UnavailableError."""
        self._loop = asyncio.get_running_loop()
        try:
            self._server = await self._loop.create_server(
                lambda: Session(self, self.entropy(frames.CHALLENGE_BYTES)), sock=_socket(ip, port), backlog=256
            )
        except OSError as error:
            why = "another program has it" if error.errno == errno.EADDRINUSE else str(error.strerror)
            raise UnavailableError(f"the relay cannot listen on TCP port {port} of {ip}: {why}") from error
        self._sweep = self._loop.call_later(SWEEP_S, self._look)
        address = self._server.sockets[0].getsockname()
        return str(address[0]), int(address[1])

    async def close(self) -> None:
        """Tell every client that the relay stops and may be back, and end; one that never listened has no clients."""
        if self._server is None:
            return
        self._server.close()
        if self._sweep is not None:
            self._sweep.cancel()
        notice = frames.restarting(RECONNECT_MS, TRY_FOR_MS)
        for session in tuple(self._sessions):
            if session.stage is Stage.OPEN:
                session.send(notice)
            session.end()
        self._flush()
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await self._empty.wait()
        for task in self._tasks:
            task.cancel()
        for session in tuple(self._sessions):
            session.abort()
        await self._server.wait_closed()

    def status(self) -> RelayStatus:
        """Return how things are."""
        counts = self._counts
        return RelayStatus(
            len(self._clients), self._waiting.total(), counts["frames"], counts["bytes"], counts["dropped"],
            counts["unknown"], counts["refused"],
        )  # fmt: skip

    async def review(self) -> None:
        """Ask again of every client whether it may be here: the rules have changed."""
        for key in tuple(self._clients):
            if await self._refusal(key):
                for session in tuple(self._clients.get(key, ())):
                    session.end()

    # --- what sessions ask

    def time(self) -> float:
        """Return the loop's clock."""
        return self._loop.time()

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        """Do something after a while."""
        self._loop.call_later(seconds, what)

    def opened(self, session: Session) -> None:
        """Make room for a connection that has proved nothing yet."""
        self._sessions[session] = None
        self._empty.clear()
        self._waiting[session.host] += 1
        if self._waiting[session.host] > WAITING_PER_HOST:
            self._end_oldest(lambda s: s.host == session.host)
        elif self._waiting.total() > WAITING:
            self._end_oldest(lambda _: True)

    def closed(self, session: Session) -> None:
        """Forget a connection; tell those it has written to, if it was the last of its key."""
        self._sessions.pop(session, None)
        if not self._sessions:
            self._empty.set()
        self._touched.discard(session)
        if session.stage is not Stage.OPEN:
            self._no_longer_waiting(session)
            return
        sessions = self._clients.get(session.key, [])
        if session in sessions:
            sessions.remove(session)
        if not sessions and self._clients.pop(session.key, None) is not None:
            gone = bytes([frames.Frame.GONE]) + session.key
            for key in session.correspondents:
                if key in self._clients:
                    self._clients[key][-1].send(gone)

    def refused(self) -> None:
        """Count a connection that was turned away."""
        self._counts["refused"] += 1

    def proved(self, session: Session) -> None:
        """Decide whether a key may use the relay."""
        task = self._loop.create_task(self._decide(session))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def forward(self, sender: Session, to: bytes, frame: bytes) -> None:
        """Pass a datagram frame on, or drop it."""
        sessions = self._clients.get(to)
        if sessions is None:
            self._counts["unknown"] += 1
        elif sessions[-1].send(frames.delivered(frame, sender.key)):
            self._counts["frames"] += 1
            self._counts["bytes"] += len(frame)
        else:
            self._counts["dropped"] += 1

    def touched(self, session: Session) -> None:
        """Write to this connection at the end of the turn, all that was said to it at once."""
        if not self._touched:
            self._loop.call_soon(self._flush)
        self._touched.add(session)

    # --- inside

    async def _decide(self, session: Session) -> None:
        refusal = await self._refusal(session.key)
        if session.over:
            return
        sessions = self._clients.get(session.key, [])
        if not refusal and not sessions and len(self._clients) >= self.limits.clients:
            refusal = "this relay is full"
        if refusal:
            session.deny(refusal)
            return
        self._no_longer_waiting(session)
        session.admit()
        if sessions:
            sessions[-1].send(frames.elsewhere(sessions[-1].protocol))
        self._clients.setdefault(session.key, sessions).append(session)
        if len(sessions) > PER_KEY:
            sessions[0].abort()

    def _flush(self) -> None:
        touched, self._touched = self._touched, set()
        for session in touched:
            session.flush()

    def _no_longer_waiting(self, session: Session) -> None:
        self._waiting[session.host] -= 1
        if self._waiting[session.host] <= 0:
            del self._waiting[session.host]

    def _end_oldest(self, which: Callable[[Session], bool]) -> None:
        for session in self._sessions:
            if session.stage is not Stage.OPEN and which(session):
                session.abort()
                return

    def _look(self) -> None:
        now = self.time()
        for session in tuple(self._sessions):
            session.check(now)
        self._sweep = self._loop.call_later(SWEEP_S, self._look)


def _socket(ip: str, port: int) -> socket.socket:
    """Bind a TCP socket; ``::`` takes IPv4 as well, which asyncio by itself would not."""
    # The protocol is named because asyncio sends small frames at once (TCP_NODELAY) only on sockets that say TCP.
    made = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind((ip, port))
    except OSError:
        made.close()
        raise
    return made
