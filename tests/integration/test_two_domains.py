"""Two people, two domains: their nodes, their home servers and the wire between these, all real."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.federation.villages import NORTH, SOUTH, Villages, run, villages

from quicprochat.console.errors import NOT_FOUND, REFUSED, UNREACHABLE, exit_code
from quicprochat.core.errors import LocalError, QuicprochatError
from quicprochat.core.receipt import State
from quicprochat.core.seal import Protection
from quicprochat.p2p import Options, P2pNode

PATIENCE_S = 20.0


@pytest.fixture(autouse=True)
def _no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """What arrives here came through the servers."""
    monkeypatch.setattr("quicprochat.p2p.runtime.find_spec", lambda _: None)


def at(place: Villages, domain: str, name: str) -> P2pNode:
    """A node whose server is that of a domain; use as ``async with``."""
    return P2pNode(Options(place.place / name, server=str(place.up[domain].address)))


async def connected(*nodes: P2pNode) -> None:
    async with asyncio.timeout(PATIENCE_S):
        for node in nodes:
            while node.server().standing != "connected":
                await node._runtime.feed.news()


async def traced(node: P2pNode, uid: object, *wanted: tuple[str, str]) -> None:
    """Wait until these rows stand in a message's trace, in this order."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            rows = [(event.state, event.carrier) for event in (await node.trace(uid)).events]  # type: ignore[arg-type]
            if [row for row in rows if row in wanted] == list(wanted):
                return
            await asyncio.sleep(0.02)


def test_a_message_to_a_name_of_another_domain_and_the_answer(tmp_path: Path) -> None:
    async def work() -> None:
        async with (
            villages(tmp_path, NORTH, SOUTH) as place,
            at(place, NORTH, "ada") as ada,
            at(place, SOUTH, "bob") as bob,
        ):
            await connected(ada, bob)
            assert await bob.register("Bob") == ("bob", SOUTH)
            sent = await ada.send(f"Bob@{SOUTH.upper()}", "is the bridge open?", require_fs=True)
            assert sent.protection is Protection.PREKEY
            assert (await ada.wait(sent.uid, State.DELIVERED, PATIENCE_S)).state is State.DELIVERED
            server = place.up[NORTH].fingerprint.hex()
            await traced(ada, sent.uid, ("relayed", server), ("stored", SOUTH))
            async with asyncio.timeout(PATIENCE_S):
                line = await anext(bob.messages())
            assert (line.text, line.peer, line.domain) == ("is the bridge open?", ada.key, NORTH)
            # Bob knows where she lives from inside the seal alone.
            answer = await bob.send(ada.key, "since noon")
            await bob.wait(answer.uid, State.DELIVERED, PATIENCE_S)
            (known,) = [peer for peer in await bob.peers() if peer.key == ada.key]
            assert known.domain == NORTH

    run(work)


def test_a_message_waits_for_a_domain_that_is_away_and_a_known_name_still_means_its_key(tmp_path: Path) -> None:
    async def work() -> None:
        async with villages(tmp_path, NORTH, SOUTH) as place, at(place, NORTH, "ada") as ada:
            async with at(place, SOUTH, "bob") as bob:
                await connected(ada, bob)
                await bob.register("bob")
                assert await ada.resolve(f"bob@{SOUTH}") == bob.key
                port = place.up[SOUTH].address
            await place.stop(SOUTH)
            with pytest.raises(QuicprochatError, match="Nothing was sent") as refused:
                await ada.send(f"carol@{SOUTH}", "hello?")
            assert exit_code(refused.value) == UNREACHABLE
            sent = await ada.send(f"bob@{SOUTH}", "when you are back")
            assert (await ada.wait(sent.uid, State.RELAYED, PATIENCE_S)).state is State.RELAYED
            await place.start(SOUTH)
            assert port is not None
            async with at(place, SOUTH, "bob") as bob:
                await bob.use_server(str(place.up[SOUTH].address), trust=place.up[SOUTH].fingerprint)
                await ada.wait(sent.uid, State.DELIVERED, PATIENCE_S)

    run(work)


def test_what_nobody_is_called_and_a_domain_that_is_no_peer(tmp_path: Path) -> None:
    async def work() -> None:
        async with villages(tmp_path, NORTH, SOUTH) as place, at(place, NORTH, "ada") as ada:
            await connected(ada)
            with pytest.raises(LocalError, match="nobody") as refused:
                await ada.send(f"carol@{SOUTH}", "hello?")
            assert exit_code(refused.value) == NOT_FOUND
            with pytest.raises(LocalError, match=r"third\.example") as refused:
                await ada.send("carol@third.example", "hello?")
            assert exit_code(refused.value) == REFUSED
            assert await ada.outbox() == []

    run(work)


def test_the_trace_says_that_the_other_domain_does_not_know_the_recipient(tmp_path: Path) -> None:
    async def work() -> None:
        async with villages(tmp_path, NORTH, SOUTH) as place, at(place, NORTH, "ada") as ada:
            await connected(ada)
            stranger = P2pNode(Options(tmp_path / "carol"), network=False)
            async with stranger:
                key = stranger.key
            sent = await ada.send(f"{key.hex()}@{SOUTH}", "hello?")
            await traced(ada, sent.uid, ("relayed", place.up[NORTH].fingerprint.hex()), ("deferred:unknown", SOUTH))
            assert (await ada.sent(sent.uid)).state is State.RELAYED

    run(work)


def test_who_moves_to_another_domain_gets_what_is_offered_anew(tmp_path: Path) -> None:
    """What waits at the old server need not be fetched there: its author still has it."""

    async def work() -> None:
        async with (
            villages(tmp_path, NORTH, SOUTH) as place,
            at(place, NORTH, "ada") as ada,
            at(place, SOUTH, "bob") as bob,
        ):
            await connected(ada, bob)
            key = bob.key
            await bob.use_server("")
            sent = await ada.send(f"{key.hex()}@{SOUTH}", "to the old house")
            await traced(ada, sent.uid, ("stored", SOUTH))
            await bob.use_server(str(place.up[NORTH].address))
            await connected(bob)
            assert bob._runtime.account.domain == NORTH
            letter = await bob.send(f"{ada.key.hex()}@{NORTH}", "I moved")
            await bob.wait(letter.uid, State.DELIVERED, PATIENCE_S)
            await ada.wait(sent.uid, State.DELIVERED, PATIENCE_S)
            async with asyncio.timeout(PATIENCE_S):
                assert (await anext(bob.messages())).text == "to the old house"

    run(work)
