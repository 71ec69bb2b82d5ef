"""The UDP socket in the loop: many datagrams a turn, and never a queue of its own."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from tests.unit.quic_pairs import dial, ids, listening, run, until

from quicprochat.adapters.quic.datagrams import READS_MAX, Datagrams


class Told(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.errors: list[Exception] = []
        self.lost = 0
        self.close_at = -1

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.got.append(data)
        if len(self.got) == self.close_at:
            self.transport.close()

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost += 1


def bound() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", 0))
    made.setblocking(False)
    return made


def test_one_turn_takes_many_but_not_all() -> None:
    async def scenario() -> None:
        told, ours, theirs = Told(), bound(), bound()
        transport = Datagrams(asyncio.get_running_loop(), ours, told)
        for n in range(READS_MAX + 5):
            theirs.sendto(bytes([n]), transport.get_extra_info("sockname"))
        transport._readable()
        assert len(told.got) == READS_MAX
        await until(lambda: len(told.got) == READS_MAX + 5)
        transport.close()
        theirs.close()

    run(scenario)


def test_closing_in_the_middle_of_a_turn_is_heeded() -> None:
    async def scenario() -> None:
        told, ours, theirs = Told(), bound(), bound()
        told.close_at = 3
        transport = Datagrams(asyncio.get_running_loop(), ours, told)
        for _ in range(10):
            theirs.sendto(b"x", transport.get_extra_info("sockname"))
        await until(lambda: told.lost == 1)
        assert len(told.got) == 3
        transport.close()
        transport.sendto(b"x", theirs.getsockname())
        await asyncio.sleep(0)
        assert (told.lost, told.errors) == (1, [])
        theirs.close()

    run(scenario)


def test_what_the_kernel_does_not_take_is_dropped() -> None:
    class Full:
        """A socket whose buffer is full."""

        def __init__(self, real: socket.socket) -> None:
            self.fileno, self.close = real.fileno, real.close

        def sendto(self, *_: Any) -> None:
            raise BlockingIOError

    async def scenario() -> None:
        told, ours = Told(), bound()
        transport = Datagrams(asyncio.get_running_loop(), Full(ours), told)  # type: ignore[arg-type]
        transport.sendto(bytes(1_200), ("127.0.0.1", 9))
        assert [type(error) for error in told.errors] == [BlockingIOError]
        transport.close()

    run(scenario)


def test_forgetting_a_connection_does_not_walk_through_all() -> None:
    class Many(dict[bytes, Any]):
        def items(self) -> Any:
            raise AssertionError("with thousands of connections, a flood would win")

    async def scenario() -> None:
        async with listening() as (listener, accepted):
            assert listener._port is not None
            listener._port._protocols = Many()
            first, _ = await dial(listener), await dial(listener)
            await until(lambda: len(accepted) == 2)
            first.end(0, "")
            await until(lambda: all(known is accepted[1] for known in ids(listener).values()))
            assert ids(listener)
            assert listener.connections == {accepted[1]}

    run(scenario)
