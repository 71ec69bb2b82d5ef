"""A home server in a process of its own, to be attacked. Its argument is JSON: ``home``, ``connections``, ``limits``,
and ``kill``, a moment and the how manieth, at which it kills itself; ``federation``: its ``domain``, its ``port`` for
others, the ``peers``, and the directory of its ``certificates``.

Commands come as lines on standard input: ``look`` answers with memory and counts, ``collect`` runs the garbage
collector first, ``status`` and ``users`` are the operator's; ``clock`` and JSON set the clocks of the ``machine`` that
was asked for. A process whose test is gone ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.durability.mortal import Executioner, MortalDisk
from tests.unit.authorities import NOW

from quicprochat.adapters import quic, rpc
from quicprochat.adapters.sqlite import ServerStore
from quicprochat.core.address import Address
from quicprochat.core.errors import QuicprochatError
from quicprochat.core.gate import Limits
from quicprochat.server import home_server
from quicprochat.server.federation import FederationOptions
from quicprochat.server.home_server import HomeServer, ServerOptions
from quicprochat.server.operate import Operator
from quicprochat.server.trust import Loaded, read_authority, read_certificate, read_key
from quicprochat.server.turns import ServerDriver


def memory_kb() -> int:
    """Return this process's resident memory."""
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])


def say(**event: Any) -> None:
    print(json.dumps(event), flush=True)


def look(server: HomeServer) -> dict[str, Any]:
    return {
        "memory_kb": memory_kb(),
        "connections": len(server.listener.connections),
        "shaking": len(server.listener._shaking),
        "refused": server.listener.refused,
        "clients": sum(map(len, server._clients.values())),
        "tasks": len(asyncio.all_tasks()),
        "outgoing": sum(server.store.outgoing_domains().values()),
        "ids": len(server.listener._port._protocols) if server.listener._port else 0,
    }


async def obey(server: HomeServer, word: str, argument: str, machine: Any) -> None:
    """Carry a command out, and answer."""
    match word:
        case "status" | "users":
            say(items=[item async for item in Operator(server).perform(word, {})])
        case "clock":
            machine.set(**json.loads(argument))
            await server.driver.settle([])  # a step: whatever is due at the new time is done
            say(at=server.driver.now().at)
        case _:
            if word == "collect":
                gc.collect()
            say(**look(server))


async def serve(server: HomeServer, machine: Any) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    failed = asyncio.create_task(server.failed())
    while not failed.done():
        line = asyncio.create_task(reader.readline())
        await asyncio.wait([line, failed], return_when=asyncio.FIRST_COMPLETED)
        if not line.done():
            line.cancel()
            break
        word, _, argument = (await line).decode().strip().partition(" ")
        if not word:
            break
        await obey(server, word, argument, machine)
    if failed.done():
        await failed
    failed.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await failed


def federation(settings: dict[str, Any]) -> FederationOptions:
    domain, peers, place = settings["domain"], settings["peers"], Path(settings["certificates"])
    credentials = quic.Credentials(read_certificate(place / "cert.der"), read_key(place / "key.der"))
    trust = quic.Trust(domain, frozenset(peers), read_authority(place / "ca.der"), {}, lambda: NOW)
    listen = Address("127.0.0.1", settings["port"])
    return FederationOptions(domain, listen, Loaded(credentials, trust), peers)


async def main(settings: dict[str, Any]) -> int:
    options = ServerOptions(
        Path(settings["home"]),
        Address("127.0.0.1", settings.get("port", 0)),
        settings.get("federation", {}).get("domain", ""),
        limits=Limits(**settings.get("limits", {"carried_bytes": 4 << 30, "share": 0.05})),
        connections=settings.get("connections", 10_000),
        disk_reserve_bytes=settings.get("disk_reserve_bytes", 1 << 20),
        federation=federation(settings["federation"]) if "federation" in settings else None,
    )
    machine = None
    if "machine" in settings:
        from tests.durability.worker import Machine

        machine = Machine(**settings["machine"])
    async with rpc.running():
        try:
            async with HomeServer(options) as server:
                say(port=server.address.port, fingerprint=server.fingerprint.hex())
                await serve(server, machine)
        except QuicprochatError as error:
            say(failed=type(error).__name__, text=str(error))
            return 3
    return 0


def be_mortal(moment: str, nth: int) -> None:
    """Let the server's driver, and its database, pass by somebody who may kill it."""
    executioner = Executioner(moment, nth)
    vars(home_server)["ServerDriver"] = partial(ServerDriver, probe=executioner.point)
    if ":" in moment:
        disk = MortalDisk(executioner)
        vars(home_server)["ServerStore"] = SimpleNamespace(
            open=lambda path: (disk, ServerStore.open(path, vfs="mortal"))[1]
        )


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    if "kill" in asked:
        be_mortal(*asked["kill"])
    if asked.get("synchronous", "FULL") != "FULL":
        # What the power-cut tests must see fail.
        vars(home_server)["ServerStore"] = SimpleNamespace(
            open=partial(ServerStore.open, synchronous=asked["synchronous"])
        )
    for name, value in asked.get("patience", {}).items():
        # Times of the endpoint that a test has no time for.
        setattr(sys.modules[quic.Listener.__module__], name, value)
    vars(home_server)["STREAM_S"] = asked.get("stream_s", home_server.STREAM_S)
    sys.exit(asyncio.run(main(asked)))
