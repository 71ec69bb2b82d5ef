"""A server and a client in one process, with handlers that no server of ours has. Run as a program: crashes are news.

The argument names what is tried; the last line of the output is "alive" when another client was served afterwards.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
from typing import Any

from quicprochat.adapters import quic, rpc

SECRET = "/var/lib/secret"  # a path, as tracebacks have them


class Entrance(rpc.Capability, rpc.home.Entrance.Server):  # type: ignore[misc]
    def __init__(self, connection: quic.Connection) -> None:
        self.connection = connection

    async def handle_enter(self, params: Any, results: Any) -> None:
        match params.version:
            case 1:
                results.session = Session()
            case 2:
                raise ValueError(SECRET)
            case 3:
                self.connection.end(0x99, "thrown out within a call")
            case 4:
                self.connection.end(0x99, "thrown out within a call")
                await asyncio.sleep(0.2)
                results.session = Session()
            case 5:
                await self.connection.ended()
            case 6:
                raise asyncio.CancelledError
            case 7:
                results.info = {"perRecipient": "not a number"}

    enter_context = rpc.method(handle_enter)


class Session(rpc.Capability, rpc.home.Session.Server):  # type: ignore[misc]
    pass


class Client:
    """As a program makes one; :meth:`close` is what it must do in the end."""

    async def __aenter__(self) -> Client:
        credentials = quic.Credentials(*quic.self_signed(os.urandom(32), "x", 1))
        self.connection = await quic.connect(ADDRESS[0], "capnp", credentials, quic.anybody, 5)
        self.remote = rpc.Remote(await self.connection.stream(5), rpc.home.Entrance)
        self.running = asyncio.create_task(self.remote.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.connection.leave()
        await asyncio.gather(self.running, return_exceptions=True)

    async def enter(self, version: int) -> Any:
        async with asyncio.timeout(5):
            return await rpc.Remote.ask(self.remote.bootstrap.enter(version=version), "entering")


ADDRESS: list[tuple[str, int]] = []


async def failing_handler() -> None:
    logging.disable()
    for version in (2, 6, 7, 99):
        async with Client() as client:
            try:
                await client.enter(version)
            except (rpc.Problem, Exception) as error:  # noqa: BLE001 - whatever it is, it is printed
                print("told:", type(error).__name__, " ".join(f"{error} {error.__cause__ or ''}".split()))


async def ended_within_a_call() -> None:
    for version in (3, 4, 5):
        async with Client() as client:
            call = asyncio.create_task(client.enter(version))
            await asyncio.sleep(0.05)
            client.connection.end(0, "bye")
            await asyncio.gather(call, return_exceptions=True)


async def never_closed() -> None:
    for _ in range(20):
        client = await Client().__aenter__()
        call = asyncio.create_task(client.enter(5))
        await asyncio.sleep(0.01)
        client.running.cancel()
        call.cancel()
        await asyncio.gather(call, client.running, return_exceptions=True)
        client.connection.end(0, "")
        del call, client
        gc.collect()


async def dropped_everywhere() -> None:
    """Sessions die in cycles while threads allocate, which is when Python would collect them there."""
    stop = threading.Event()

    def allocate() -> None:
        while not stop.is_set():
            kept: list[Any] = []
            for _ in range(5_000):
                kept.append([kept])

    thread = threading.Thread(target=allocate)
    thread.start()
    for _ in range(10):
        async with Client() as client:
            cycle = [(await client.enter(1)).session]
            cycle.append(cycle)
            del cycle
            await asyncio.sleep(0.01)
    stop.set()
    thread.join()


async def main(what: str) -> None:
    served: set[asyncio.Task[None]] = set()

    async def serve(connection: quic.Connection) -> None:
        calls = rpc.Served(16, lambda reason: connection.end(1, reason))
        await calls.run(await connection.stream(5), Entrance(connection))
        connection.end(0, "goodbye")

    def accepted(connection: quic.Connection) -> None:
        task = asyncio.create_task(serve(connection))
        served.add(task)
        task.add_done_callback(served.discard)

    async with rpc.running():
        credentials = quic.Credentials(*quic.self_signed(os.urandom(32), "server", 1))
        listener = await quic.listen(("127.0.0.1", 0), credentials, {"capnp": quic.key_holder}, accepted, limit=100)
        ADDRESS.append(listener.address)
        await globals()[what]()
        async with Client() as client:
            await client.enter(1)
        await listener.close()
        await asyncio.gather(*served, return_exceptions=True)
    print("alive")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
