"""Two real endpoints on the loopback interface: two keys, one machine, no relay."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

iroh = pytest.importorskip("iroh", reason="needs the extra [mesh]")

from quicprochat.adapters.iroh import ALPN, Endpoint, Stream  # noqa: E402
from quicprochat.adapters.iroh import endpoint as adapter  # noqa: E402

LOOPBACK = ("127.0.0.1", 0)
SOON_S = 5.0
"""Far more than anything here takes on a loaded machine; what hangs fails by this."""


@pytest.fixture(autouse=True)
def quick_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "CLOSE_S", 0.2)


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scenario()

    asyncio.run(bounded())


async def soon(awaitable: Awaitable[Any]) -> Any:
    async with asyncio.timeout(SOON_S):
        return await awaitable


@asynccontextmanager
async def endpoint(bind: tuple[str, int] = LOOPBACK, secret: bytes | None = None) -> AsyncIterator[Endpoint]:
    mine = await Endpoint.bind(secret or os.urandom(32), bind=bind, relay_url=None)
    try:
        yield mine
    finally:
        await mine.close()


@asynccontextmanager
async def linked() -> AsyncIterator[SimpleNamespace]:
    """Two endpoints and a connection between them; ``a`` dialled ``b``."""
    async with endpoint() as a, endpoint() as b:
        out = await a.connect(b.key, b.addresses(), None, SOON_S)
        into = await soon(b.accept())
        yield SimpleNamespace(a=a, b=b, out=out, into=into)


@asynccontextmanager
async def streamed() -> AsyncIterator[SimpleNamespace]:
    """The same with the stream of each side; the dialler's greeting is read already."""
    async with linked() as pair:
        there: Stream = await pair.out.stream(SOON_S)
        await there.write(b"hello")
        here: Stream = await pair.into.stream(SOON_S)
        assert await here.read() == b"hello"
        pair.there, pair.here = there, here
        yield pair


async def read_all(stream: Stream, count: int) -> bytes:
    got = b""
    while len(got) < count:
        part = await soon(stream.read())
        assert part
        got += part
    return got


async def foreign(alpn: bytes = ALPN) -> Any:
    """An endpoint of iroh's own, for peers that do what our adapter never does."""
    builder = iroh.EndpointBuilder()
    builder.apply_minimal()
    builder.alpns([alpn])
    builder.relay_mode(iroh.RelayMode.custom(iroh.RelayMap.empty()))
    builder.bind_addr("127.0.0.1:0")
    builder.bind_addr("[::1]:0")
    return await builder.bind()


def target(mine: Endpoint) -> Any:
    hints = [f"{ip}:{port}" for ip, port in mine.addresses()]
    return iroh.EndpointAddr(iroh.EndpointId.from_bytes(mine.key), None, hints)


class Swallower(asyncio.DatagramProtocol):
    """Stands between a dialler and an endpoint, and drops every answer: a handshake that never ends."""

    def __init__(self, to: tuple[str, int]) -> None:
        self.to = to
        self.answered = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        if address == self.to:
            self.answered.set()
        else:
            self.transport.sendto(data, self.to)


@asynccontextmanager
async def slow_dial(dialler: Endpoint, to: Endpoint) -> AsyncIterator[None]:
    """A dial whose handshake the endpoint has begun and will not finish."""
    loop = asyncio.get_running_loop()
    transport, middle = await loop.create_datagram_endpoint(
        lambda: Swallower(to.addresses()[0]), local_addr=("127.0.0.1", 0)
    )
    where = transport.get_extra_info("sockname")
    dial = asyncio.create_task(dialler.connect(to.key, [where], None, 25))
    try:
        await soon(middle.answered.wait())
        yield
    finally:
        dial.cancel()
        await asyncio.gather(dial, return_exceptions=True)
        transport.close()
