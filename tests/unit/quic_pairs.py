"""Two ends of a QUIC connection on the loopback interface, ours and foreign ones."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from quicprochat.adapters import quic
from quicprochat.adapters.quic.stream import StreamTransport

LOOPBACK = ("127.0.0.1", 0)
ALPN = "capnp"
SOON_S = 10.0
SERVER_SEED, CLIENT_SEED = bytes(31) + b"s", bytes(31) + b"c"


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(40):
            await scenario()

    asyncio.run(bounded())


async def soon(awaitable: Any) -> Any:
    async with asyncio.timeout(SOON_S):
        return await awaitable


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON_S):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)


def credentials(seed: bytes | None = None) -> quic.Credentials:
    return quic.Credentials(*quic.self_signed(seed or os.urandom(32), "somebody", 1))


SERVER, CLIENT = credentials(SERVER_SEED), credentials(CLIENT_SEED)
PIN = quic.fingerprint(SERVER.certificate)
CLIENT_KEY = quic.key_holder(CLIENT.certificate, ())


_dialled: list[quic.Connection] = []


class Taker(asyncio.BufferedProtocol):
    """Takes what comes, when asked to, and notes what else it is told."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.told: list[str] = []
        self.lost = asyncio.get_running_loop().create_future()
        self._buffer = bytearray(20_000)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.got += self._buffer[:nbytes]

    def eof_received(self) -> bool:
        raise AssertionError("the end is never told this way: pycapnp would crash")

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")
        self.lost.set_result(exc)


@asynccontextmanager
async def listening(
    checks: Mapping[str, quic.Check] | None = None, limit: int = 100
) -> AsyncIterator[tuple[quic.Listener, list[quic.Connection]]]:
    """A server, and the connections it accepted."""
    accepted: list[quic.Connection] = []
    _dialled.clear()
    listener = await quic.listen(LOOPBACK, SERVER, checks or {ALPN: quic.key_holder}, accepted.append, limit=limit)
    try:
        yield listener, accepted
    finally:
        for connection in _dialled:
            await connection.leave()
        await listener.close()


async def dial(to: quic.Listener, check: quic.Check | None = None, **how: Any) -> quic.Connection:
    made = await quic.connect(
        to.address, how.get("alpn", ALPN), how.get("credentials", CLIENT), check or quic.pinned(PIN), SOON_S
    )
    _dialled.append(made)
    return made


@asynccontextmanager
async def streamed() -> AsyncIterator[SimpleNamespace]:
    """A connection with its stream: ``there`` is the client's end, ``here`` the server's, which has read a greeting."""
    async with listening() as (listener, accepted):
        out = await dial(listener)
        there: StreamTransport = await out.stream(SOON_S)
        taker_there, taker_here = Taker(), Taker()
        there.set_protocol(taker_there)
        there.write(b"hello")
        await until(lambda: bool(accepted))
        here: StreamTransport = await accepted[0].stream(SOON_S)
        here.set_protocol(taker_here)
        here.resume_reading()
        await until(lambda: taker_here.got == b"hello")
        taker_here.got.clear()
        yield SimpleNamespace(
            listener=listener, out=out, into=accepted[0], there=there, here=here,
            taker_there=taker_there, taker_here=taker_here,
        )  # fmt: skip


def ids(listener: quic.Listener) -> dict[bytes, QuicConnectionProtocol]:
    """Every connection id that a server knows."""
    assert listener._port is not None
    return listener._port._protocols


class Forger:
    """Sends first packets that nobody follows up; answers reach its socket, as a bystander's would get them."""

    def __init__(self, to: tuple[str, int]) -> None:
        self.to = to
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)

    def initial(self, now: float = 0.0) -> QuicConnection:
        """Send one; return what could go on with it."""
        configuration = QuicConfiguration(is_client=True, alpn_protocols=[ALPN], verify_mode=ssl.CERT_NONE)
        made = QuicConnection(configuration=configuration)
        made.connect(self.to, now)
        self.send(made, now)
        return made

    def send(self, made: QuicConnection, now: float = 0.0) -> None:
        for data, _ in made.datagrams_to_send(now):
            self._socket.sendto(data, self.to)

    def answers(self) -> Iterator[bytes]:
        while True:
            try:
                yield self._socket.recv(2_000)
            except BlockingIOError:
                return

    def close(self) -> None:
        self._socket.close()


class Foreign(QuicConnectionProtocol):
    """A client that is aioquic's own, with nothing of ours."""

    def __init__(self, connection: QuicConnection) -> None:
        super().__init__(connection)
        self.ended: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        self.resumed: bool | None = None

    def quic_event_received(self, event: events.QuicEvent) -> None:
        match event:
            case events.ConnectionTerminated(error_code=code, reason_phrase=reason):
                self.ended.set_result((code, reason))
            case events.HandshakeCompleted(session_resumed=resumed):
                self.resumed = resumed


@asynccontextmanager
async def foreign(to: quic.Listener, **settings: Any) -> AsyncIterator[Foreign]:
    """Begin a connection; the handshake goes on by itself."""
    settings.setdefault("alpn_protocols", [ALPN])
    configuration = QuicConfiguration(is_client=True, verify_mode=ssl.CERT_NONE, **settings)
    async with bare(to, QuicConnection(configuration=configuration)) as client:
        client.connect(to.address)
        yield client


@asynccontextmanager
async def bare(to: quic.Listener, connection: QuicConnection) -> AsyncIterator[Foreign]:
    """A foreign client on a socket; nothing is sent yet."""
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_datagram_endpoint(lambda: Foreign(connection), local_addr=("127.0.0.1", 0))
    try:
        yield client
    finally:
        if client._timer is not None:
            client._timer.cancel()
        transport.close()
