"""The first use of a home server that was found on the local network: a person confirms its fingerprint, or nothing is
sent there, and who answers must have it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.integration.test_home_server import connected, free_port, person, run, serving

from quicprochat.core.errors import LocalError, UnavailableError
from quicprochat.core.ids import PeerKey
from quicprochat.p2p import P2pNode, announced
from quicprochat.p2p.account import PIN_PREFIX
from quicprochat.p2p.announced import matching, spoken
from quicprochat.p2p.options import Options
from quicprochat.p2p.views import ServerView
from quicprochat.server.home_server import HomeServer

OTHER = bytes(range(32))


@pytest.fixture(autouse=True)
def _no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an installation without the extra; announcements are made by hand."""
    monkeypatch.setattr("quicprochat.p2p.runtime.find_spec", lambda _: None)


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announced, "LOOK_FOR_S", 0.2)


def view(server: HomeServer, *, fingerprint: bytes | None = None, domain: str = "village.example") -> ServerView:
    """What a server, or somebody in its name, announces."""
    return ServerView(str(server.address), domain, None, (fingerprint or server.fingerprint).hex())


@asynccontextmanager
async def hearing(home: Path, *views: ServerView) -> AsyncIterator[P2pNode]:
    """A node on whose network these servers are announced."""
    async with P2pNode(Options(home)) as node:
        hears(node, views)
        yield node


def hears(node: P2pNode, views: Sequence[ServerView]) -> None:
    vars(node._runtime)["discovery"] = SimpleNamespace(servers=lambda: list(views), found=dict)


async def pin(node: P2pNode, server: HomeServer) -> bytes | None:
    return await node._runtime.call(lambda tx: tx.value(PIN_PREFIX + str(server.address)))


async def untrusted(node: P2pNode, text: str, trust: bytes | None = None) -> str:
    """Choose a server, which must be refused; return what is said."""
    with pytest.raises(LocalError) as refused:
        await node.use_server(text, trust=trust)
    assert refused.value.code == "untrusted"
    return str(refused.value)


def test_nobody_is_connected_to_a_found_server_unasked(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path / "s") as server, hearing(tmp_path / "a", view(server)) as a:
            for text in ("village.example", "Village.Example", server.fingerprint.hex()[:8]):
                said = await untrusted(a, text)
                assert spoken(server.fingerprint) in said
                assert f"qpc server {text} --trust {server.fingerprint.hex()}" in said
                assert not (await a.find_server(text)).known
            assert (a.server().server, await pin(a, server)) == ("", None)
            assert server.store.user(a.key) is None

    run(scenario())


def test_confirmed_server_is_pinned_and_home_from_then_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path / "s") as server:
            port = server.address.port
            async with hearing(tmp_path / "a", view(server)) as a:
                standing = await a.use_server("village.example", trust=server.fingerprint)
                assert (standing.standing, standing.server) == ("connected", str(server.address))
                assert await pin(a, server) == server.fingerprint
                assert (await a.find_server("village.example")).known
                assert (await a.use_server("village.example")).standing == "connected"
            async with P2pNode(Options(tmp_path / "a")) as a:
                await connected(a)
        async with serving(tmp_path / "impostor", port) as impostor, hearing(tmp_path / "a", view(impostor)) as a:
            await connected(a, "untrusted")
            assert "know it by another" in await untrusted(a, "village.example")
            assert impostor.store.user(a.key) is None

    run(scenario())


def test_who_answers_with_another_fingerprint_than_announced_hears_nothing(tmp_path: Path) -> None:
    """The confirmation was for the announced fingerprint; the server behind the address has another."""

    async def scenario() -> None:
        async with serving(tmp_path / "s") as server, serving(tmp_path / "home") as home:
            async with person(tmp_path / "a", home) as a:
                await connected(a)
                hears(a, [view(server, fingerprint=OTHER)])
                said = await untrusted(a, "village.example", OTHER)
                assert "not who was announced" in said
                assert await pin(a, server) is None
                assert server.store.user(a.key) is None
                assert a.server().server == str(home.address)
                await connected(a)
            async with P2pNode(Options(tmp_path / "a")) as a:
                await connected(a)
                assert a.server().server == str(home.address), "a liar's server is remembered"
                # The address is free of what was announced of it: whoever knows it types it.
                assert (await a.use_server(str(server.address))).standing == "connected"
                assert await pin(a, server) == server.fingerprint

    run(scenario())


def test_confirmed_is_the_announced_fingerprint_and_no_other(tmp_path: Path) -> None:
    """Between the question and the answer somebody else took the announcement over."""

    async def scenario() -> None:
        async with serving(tmp_path / "s") as server, hearing(tmp_path / "a", view(server)) as a:
            assert spoken(server.fingerprint) in await untrusted(a, "village.example", OTHER)
            assert (a.server().server, await pin(a, server)) == ("", None)
            assert server.store.user(a.key) is None

    run(scenario())


def test_typed_address_is_pinned_at_its_first_visit_whatever_is_announced(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path / "s") as server, hearing(tmp_path / "a", view(server, fingerprint=OTHER)) as a:
            standing = await a.use_server(str(server.address))
            assert (standing.standing, standing.fingerprint) == ("connected", server.fingerprint.hex())
            assert await pin(a, server) == server.fingerprint

    run(scenario())


def test_server_that_does_not_answer_is_not_remembered(tmp_path: Path) -> None:
    nobody = ServerView(f"127.0.0.1:{free_port()}", "village.example", None, OTHER.hex())

    async def scenario() -> None:
        async with hearing(tmp_path / "a", nobody) as a:
            with pytest.raises(UnavailableError):
                await a.use_server("village.example", trust=OTHER)
            assert a.server().server == ""

    run(scenario())


def test_what_names_no_server_or_two_is_a_sentence(tmp_path: Path) -> None:
    one = ServerView("192.0.2.1:7000", "village.example", None, OTHER.hex())
    other = ServerView("192.0.2.2:7000", "Village.example", None, bytes(32).hex())
    silent = ServerView("192.0.2.3:7000", "town.example", None, "")

    async def scenario() -> None:
        async with hearing(tmp_path / "a", one, other, silent) as a:
            for text, code in (("village.example", "ambiguous"), ("nowhere", "not_found"), ("town.example", "usage")):
                with pytest.raises(LocalError) as refused:
                    await a.use_server(text)
                assert refused.value.code == code
            assert (await a.find_server(OTHER.hex()[:8])).server == one.server
        async with P2pNode(Options(tmp_path / "b")) as b:
            with pytest.raises(LocalError, match="write host:port"):
                await b.use_server("village.example")

    run(scenario())


def test_digits_name_a_server_by_its_fingerprint_or_its_key() -> None:
    one = ServerView("192.0.2.1:7000", "", None, "ab" * 32)
    other = ServerView("192.0.2.2:7000", "", PeerKey(b"\xcd" * 32), "ef" * 32)
    assert matching([one, other], "ABABABAB") == [one]
    assert matching([one, other], "cdcdcdcd") == [other]
    assert matching([one, other], "ababab") == []
    assert matching([one, other], "") == []
