"""Two nodes and a home server over real sockets: no link between them, and a message waits where it is safe."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from quicprochat.adapters import rpc
from quicprochat.core.address import Address
from quicprochat.core.errors import LocalError, QuicprochatError
from quicprochat.core.receipt import State
from quicprochat.p2p import Options, P2pNode
from quicprochat.server.home_server import HomeServer, ServerOptions

PATIENCE_S = 20.0


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(50), rpc.running():
            await work

    asyncio.run(bounded())


@pytest.fixture(autouse=True)
def _no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an installation without the extra: what arrives here came through the server."""
    monkeypatch.setattr("quicprochat.p2p.runtime.find_spec", lambda _: None)


@asynccontextmanager
async def serving(home: Path, port: int = 0, domain: str = "") -> AsyncIterator[HomeServer]:
    async with HomeServer(ServerOptions(home, Address("127.0.0.1", port or free_port()), domain)) as server:
        yield server


def free_port() -> int:
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@asynccontextmanager
async def person(home: Path, server: HomeServer | str) -> AsyncIterator[P2pNode]:
    async with P2pNode(Options(home)) as node:
        await node.use_server(str(server.address) if isinstance(server, HomeServer) else server)
        yield node


async def connected(node: P2pNode, standing: str = "connected") -> None:
    async with asyncio.timeout(PATIENCE_S):
        while node.server().standing != standing:
            await node._runtime.feed.news()


async def next_line(node: P2pNode) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        return await anext(node.messages())


def test_message_waits_at_the_server_for_somebody_who_is_away(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "s") as server:
            port = server.address.port
            async with person(tmp_path / "b", server) as b:
                await connected(b)
                key = b.key
            async with person(tmp_path / "a", server) as a:
                await connected(a)
                sent = await a.send(key, "are you there?")
                assert (await a.wait(sent.uid, State.RELAYED, PATIENCE_S)).state is State.RELAYED
        async with serving(tmp_path / "s", port) as server, person(tmp_path / "b", server) as b:
            line = await next_line(b)
            assert (line.text, line.hops) == ("are you there?", 1)
            assert line.protection == "forward-secret"
            async with person(tmp_path / "a", server) as a:
                assert (await a.wait(sent.uid, State.DELIVERED, PATIENCE_S)).state is State.DELIVERED
                carriers = {event.carrier for event in (await a.trace(sent.uid)).events}
                assert server.fingerprint.hex() in carriers
            assert [one.text for one in await b.inbox()] == ["are you there?"]

    run(work())


def test_both_connected_talk_at_once_and_the_route_is_shown(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "s") as server, person(tmp_path / "b", server) as b:
            await connected(b)
            async with person(tmp_path / "a", server) as a:
                await connected(a)
                await a.add(b.key.hex(), "bob")
                sent = await a.send("bob", "hi")
                await a.wait(sent.uid, State.DELIVERED, PATIENCE_S)
                (route,) = a.routes()
                assert (route.destination, route.via, route.hops) == (b.key, "server", 2)

    run(work())


def test_changed_key_of_the_server_stops_the_client(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "s") as server:
            port = server.address.port
            async with person(tmp_path / "a", server) as a:
                await connected(a)
        async with serving(tmp_path / "impostor", port) as server, person(tmp_path / "a", server) as a:
            await connected(a, "untrusted")
            assert "has changed" in str(a.server().trouble)
            assert server._clients == {}
            await a.use_server(str(server.address), trust=server.fingerprint)
            await connected(a)

    run(work())


def test_client_comes_back_when_the_server_does(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "s") as server:
            port = server.address.port
        async with person(tmp_path / "a", f"127.0.0.1:{port}") as a:
            await connected(a, "unreachable")
            for _ in range(2):
                async with serving(tmp_path / "s", port):
                    await connected(a)
                await connected(a, "unreachable")

    run(work())


def test_name_at_a_domain_is_its_servers_word_and_stays_what_it_was(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "s", domain="village.example") as server:
            port = server.address.port
            async with person(tmp_path / "b", server) as b, person(tmp_path / "a", server) as a:
                await connected(b)
                await connected(a)
                assert await b.register("Bob") == ("bob", "village.example")
                assert await a.resolve("Bob@village.example") == b.key
                assert await a.resolve(f"{b.key.hex()}@village.example") == b.key
                with pytest.raises(QuicprochatError, match="nobody has this name"):
                    await a.resolve("carol@village.example")
                with pytest.raises(LocalError, match=r"town\.example") as refused:
                    await a.resolve("bob@town.example")  # not whoever is called bob here
                assert refused.value.code == "policy"
                sent = await a.send("bob@village.example", "hi")
                await a.wait(sent.uid, State.DELIVERED, PATIENCE_S)
                bob = b.key
        async with person(tmp_path / "a", f"127.0.0.1:{port}") as a:
            assert await a.resolve("bob@village.example") == bob, "known from before"
        async with (
            serving(tmp_path / "other", port, "village.example") as server,
            person(tmp_path / "m", server) as mallory,
            person(tmp_path / "a", server) as a,
        ):
            await a.use_server(str(server.address), trust=server.fingerprint)
            await connected(mallory)
            await connected(a)
            await mallory.register("bob")
            with pytest.raises(LocalError) as refused:
                await a.send("bob@village.example", "hi")
            assert refused.value.code == "untrusted"

    run(work())


def test_server_that_was_left_for_another_is_visited_until_nothing_waits_there(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "old") as old, serving(tmp_path / "new", domain="new.example") as new:
            async with person(tmp_path / "b", old) as b:
                await connected(b)
                key = b.key
            async with person(tmp_path / "a", old) as a:
                await connected(a)
                sent = await a.send(key, "to the old house")
                await a.wait(sent.uid, State.RELAYED, PATIENCE_S)
            # Chosen while there is no network, so that the old server is not visited as the one we live at.
            async with P2pNode(Options(tmp_path / "b"), network=False) as b:
                await b.use_server(str(new.address))
            async with P2pNode(Options(tmp_path / "b")) as b:
                assert (await next_line(b)).text == "to the old house"
                assert b.server().domain == "new.example"
                async with asyncio.timeout(PATIENCE_S):
                    while await old.service.within(lambda tx: tx.waiting(key, 0, 1)):  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
                card, _ = await old.service.find_record(key)
                assert b"new.example" in card  # who asks there learns where to write now

    run(work())


def test_long_messages_go_in_batches_that_the_server_takes(tmp_path: Path) -> None:
    long = "x" * 65_536

    async def work() -> None:
        async with serving(tmp_path / "s") as server, person(tmp_path / "b", server) as b:
            await connected(b)
            async with person(tmp_path / "a", f"127.0.0.1:{free_port()}") as a:
                await connected(a, "unreachable")
                sent = [await a.send(b.key, long) for _ in range(40)]
                await a.use_server(str(server.address))
                for one in sent:
                    await a.wait(one.uid, State.DELIVERED, PATIENCE_S)
            assert len(await b.inbox()) == 40

    run(work())


def test_server_with_an_endless_domain_is_not_believed(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "s", domain="d" * 256) as server, person(tmp_path / "a", server) as a:
            await connected(a, "unreachable")
            assert a.server().domain == ""
            assert "cannot be" in str(a.server().trouble)

    run(work())
