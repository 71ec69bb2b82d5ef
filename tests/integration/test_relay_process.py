"""``qpc relay`` as a process, with programs that know iroh and nothing of this project."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from signal import SIGHUP, SIGTERM
from subprocess import Popen
from typing import Any

import pytest
from nacl.signing import SigningKey
from tests.integration.home_server import Server
from tests.integration.qpc import PATIENCE_S, finish, read_line, run, start

iroh = pytest.importorskip("iroh", reason="needs the extra [mesh]")

ALPN = b"somebody/else/1"


@pytest.fixture
def relays() -> Iterator[list[Popen[bytes]]]:
    started: list[Popen[bytes]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def relay(relays: list[Popen[bytes]], *arguments: str) -> str:
    """Start one; return its address."""
    relays.append(start("relay", "--listen", "127.0.0.1:0", *arguments))
    word, address = read_line(relays[-1]).split()
    assert word == "ready"
    return address


@asynccontextmanager
async def plain(secret: bytes, url: str) -> AsyncIterator[Any]:
    """An iroh endpoint that nobody is told any other way to than this relay."""
    relays = iroh.RelayMap.empty()
    relays.insert(iroh.RelayConfig(url=url, quic_port=None))
    options = iroh.EndpointOptions(
        preset=iroh.preset_minimal(), relay_mode=iroh.RelayMode.custom(relays), bind_addr="127.0.0.1:0", alpns=[ALPN],
        secret_key=secret,
    )  # fmt: skip
    made = await iroh.Endpoint.bind(options)
    try:
        yield made
    finally:
        await made.close()


async def echo(endpoint: Any) -> None:
    incoming = await endpoint.accept_next()
    assert incoming is not None
    connection = await (await incoming.accept()).connect()
    stream = await connection.accept_bi()
    await stream.send().write_all(await stream.recv().read_to_end(1 << 20))
    await stream.send().finish()
    await connection.closed()


def test_two_plain_iroh_programs_talk_through_it(relays: list[Popen[bytes]]) -> None:
    url = f"http://{relay(relays)}"

    async def scenario() -> None:
        async with plain(os.urandom(32), url) as ada, plain(os.urandom(32), url) as bob:
            answering = asyncio.create_task(echo(bob))
            async with asyncio.timeout(PATIENCE_S):
                await bob.online()
                connection = await ada.connect(iroh.EndpointAddr(bob.id(), url, []), ALPN)
                stream = await connection.open_bi()
                said = os.urandom(200_000)
                await stream.send().write_all(said)
                await stream.send().finish()
                assert await stream.recv().read_to_end(1 << 20) == said
                connection.close(0, b"")
                await answering

    asyncio.run(scenario())
    relays[-1].send_signal(SIGTERM)
    assert finish(relays[-1]).code == 0


def test_only_listed_keys_are_carried_and_the_list_is_read_again(relays: list[Popen[bytes]], tmp_path: Path) -> None:
    secret, listed = os.urandom(32), tmp_path / "listed"
    listed.write_text("# nobody yet\n")
    url = f"http://{relay(relays, '--allow', str(listed))}"

    async def scenario() -> None:
        async with plain(secret, url) as ada:
            online = asyncio.ensure_future(ada.online())
            await asyncio.wait([online], timeout=1.0)
            assert not online.done()
            listed.write_text(f"{ada.id().to_bytes().hex()} ada\n")
            relays[-1].send_signal(SIGHUP)
            async with asyncio.timeout(PATIENCE_S):
                await online

    asyncio.run(scenario())


def test_bad_arguments_are_explained(relays: list[Popen[bytes]], tmp_path: Path) -> None:
    assert run("relay", "--listen", "here").code == 2
    assert run("relay", "--allow", str(tmp_path / "missing")).code == 3
    (tmp_path / "wrong").write_text("xyz\n")
    assert "line 1" in run("relay", "--allow", str(tmp_path / "wrong")).talk
    taken = relay(relays)
    refused = run("relay", "--listen", taken)
    assert (refused.code, "another program has it" in refused.talk) == (3, True)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def reached(secret: bytes, url: str, within_s: float) -> bool:
    """Say whether the relay takes a key within so long."""

    async def scenario() -> bool:
        async with plain(secret, url) as node:
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await node.online()
                    return True
        return False

    return asyncio.run(scenario())


def test_a_home_server_relays_by_its_rules(tmp_path: Path) -> None:
    """Anybody; then, after a reload, its users alone; and never whom it has blocked."""
    secret, blocked = os.urandom(32), tmp_path / "blocked"
    file = tmp_path / "server" / "qpc-server.toml"
    file.parent.mkdir(mode=0o700)
    rules = f'relay_listen = "127.0.0.1:0"\nblock_list = "{blocked}"\n'
    file.write_text(rules)
    blocked.write_text("")
    server = Server(tmp_path / "server")
    server.up()
    try:
        figures = server.run("status", "--json").json["relay"]
        assert (figures["clients"], figures["clients_max"]) == (0, 1_000)
        assert "relay" in server.run("status").out
        url = f"http://{figures['address']}"
        assert reached(secret, url, PATIENCE_S)
        file.write_text(rules + 'relay_for = "users"\n')
        server.signal(SIGHUP)
        eventually(lambda: "relay_for = users" in server.said())
        assert not reached(secret, url, 1.0)
        assert server.run("status", "--json").json["relay"]["refused"] > 0
        file.write_text(rules)
        blocked.write_text(f"{SigningKey(secret).verify_key.encode().hex()}\n")
        server.signal(SIGHUP)
        eventually(lambda: "relay_for = anybody" in server.said())
        assert not reached(secret, url, 1.0)
        assert reached(os.urandom(32), url, PATIENCE_S)
    finally:
        server.end()
