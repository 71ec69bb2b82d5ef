"""Whatever bytes a client sends, they end in answers or in the end of its connection, and the next client is served."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import capnp
from fuzz.common import ALICE, instrumented, run
from fuzz.words import bootstrap, enter

with instrumented():
    from quicprochat.adapters import rpc
    from quicprochat.core.gate import Verdict
    from quicprochat.core.ids import EnvelopeId
    from quicprochat.server.queue import Delivery, Outcome
    from quicprochat.server.session import Client, Entrance, Info

TURNS = 12
"""Of the event loop, for what was asked to be answered."""
HONEST = bootstrap(0) + enter(1)


class Line(asyncio.Transport):
    """A transport whose other end is here."""

    def __init__(self) -> None:
        super().__init__()
        self.said = bytearray()
        self.closed = False
        self._reading = True
        self._to: Any = None
        self._arrived = b""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._to = protocol

    def bring(self, data: bytes) -> None:
        self._arrived += data
        self._deliver()

    def _deliver(self) -> None:
        while self._reading and self._arrived and not self.closed:
            into = self._to.get_buffer(len(self._arrived))
            count = min(len(into), len(self._arrived))
            into[:count] = self._arrived[:count]
            self._arrived = self._arrived[count:]
            self._to.buffer_updated(count)

    def lose(self) -> None:
        if self._to is not None:
            to, self._to = self._to, None
            self.closed = True
            to.connection_lost(ConnectionResetError("the end"))

    def write(self, data: Any) -> None:
        self.said += data

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._deliver()

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True
        asyncio.get_running_loop().call_soon(self.lose)


class Shelf:
    """In the queue's place: one envelope that is always there."""

    async def put(self, via: bytes, envelopes: list[bytes]) -> list[Outcome]:
        assert all(isinstance(one, bytes) for one in envelopes)
        return [Outcome(Verdict.STORED)] * len(envelopes)

    async def waiting(self, recipient: bytes, after: int, limit: int) -> list[Delivery]:
        return [Delivery(1, EnvelopeId(bytes(32)), bytes(200))] if after == 0 else []

    async def done(self, recipient: bytes, ids: list[bytes]) -> None:
        assert all(len(id) == 32 for id in ids)

    async def taken(self, ids: list[bytes]) -> None:
        assert ids == [bytes(32)]


class Desk:
    """In the place of what else a server does for a key."""

    async def info(self, key: bytes) -> Info:
        return Info("1", "", bytes(16), 1, "open", admitted=True, name="")

    def refusal(self, key: bytes) -> None:
        return None

    async def publish(self, key: bytes, record: bytes, age_ms: int) -> None:
        assert isinstance(record, bytes)

    async def find_record(self, key: bytes) -> tuple[bytes, int]:
        assert len(key) == 32
        return b"", 0

    async def find_name(self, name: str) -> bytes:
        assert isinstance(name, str)
        return bytes(32)

    async def register(self, key: bytes, name: str, invite: str) -> str:
        return name + invite


async def served(pieces: list[bytes]) -> bytes:
    """Serve a client that sends these and goes; return what it was told."""
    line = Line()
    told = rpc.Served(16, lambda _: line.close())
    client = Client(ALICE.key, Shelf(), Desk(), told)  # type: ignore[arg-type]
    client.admitted = True
    client.failed = lambda _: line.close()
    serving = asyncio.create_task(told.run(line, Entrance(client)))
    await asyncio.sleep(0)
    for piece in pieces:
        line.bring(piece)
        await asyncio.sleep(0)
    for _ in range(TURNS):
        await asyncio.sleep(0)
    line.lose()
    await serving
    client.close()
    return bytes(line.said)


def count(told: bytes) -> int:
    """Return how many messages these are."""
    found = at = 0
    while at < len(told):
        segments = 1 + struct.unpack_from("<I", told, at)[0]
        sizes = struct.unpack_from(f"<{segments}I", told, at + 4)
        at += (4 + 4 * segments + 7) // 8 * 8 + 8 * sum(sizes)
        found += 1
    assert at == len(told), "half a message"
    return found


async def both(pieces: list[bytes]) -> None:
    async with asyncio.timeout(10):
        count(await served(pieces))
        assert count(await served([HONEST])) == 2


async def scenario(pieces: list[bytes]) -> None:
    # Not kept open between inputs: a thread can have one such loop, and a second one kills the process.
    async with capnp.kj_loop():
        await both(pieces)


def one_input(data: bytes) -> None:
    cut = data[0] if data else 0
    rest = data[1:]
    asyncio.run(scenario([HONEST, rest] if cut == 0 else [rest[:cut], rest[cut:]]))


if __name__ == "__main__":
    run(one_input)
