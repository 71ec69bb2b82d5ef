"""Channels by way of home servers: nodes, their servers and the wire between these, all real."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.federation.villages import NORTH, Villages, run, until, villages
from tests.integration.test_two_domains import PATIENCE_S, at, connected

from quicprochat.core.store import LineKind, Scope
from quicprochat.p2p import P2pNode
from quicprochat.p2p.home_posts import CURSORS_KEY, HomePosts
from quicprochat.server.home_server import DATABASE
from quicprochat.server.posting import PostDesk


@pytest.fixture(autouse=True)
def _no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """What arrives here came through the servers."""
    monkeypatch.setattr("quicprochat.p2p.runtime.find_spec", lambda _: None)


async def texts(node: P2pNode) -> list[str]:
    """Return the posts in a node's inbox, in the order in which they came."""
    lines = await node._runtime.driver.read(lambda tx: tx.journal(after=0, limit=10_000))
    return [line.text for line in lines if line.kind is LineKind.POST]


async def reads(node: P2pNode, *wanted: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while len(found := await texts(node)) < len(wanted):  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.02)
    assert found == list(wanted)


async def followed(place: Villages, domain: str, count: int) -> None:
    """Wait until so many pairs of user and channel are known to a server."""
    await until(lambda: place.up[domain].store.follow_count() == count)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many posts were asked for, call by call."""
    calls: list[int] = []
    fetch = PostDesk.fetch

    async def counting(self: PostDesk, reader: object, ids: object) -> object:
        calls.append(len(ids))  # type: ignore[arg-type]
        return await fetch(self, reader, ids)  # type: ignore[arg-type]

    monkeypatch.setattr(PostDesk, "fetch", counting)
    return calls


def test_two_users_of_one_server_post_and_read(tmp_path: Path, fetched: list[int]) -> None:
    async def work() -> None:
        async with villages(tmp_path, NORTH) as place, at(place, NORTH, "ada") as ada, at(place, NORTH, "bob") as bob:
            await connected(ada, bob)
            await ada.subscribe("roof")
            await bob.subscribe("roof")
            await followed(place, NORTH, 2)
            first = await ada.broadcast("roof", "who has a ladder?")
            assert await ada.reached(first.uid, PATIENCE_S) == 1, "the server has it"
            await reads(bob, "who has a ladder?")
            await bob.broadcast("roof", "I have")
            await reads(ada, "I have")
            assert place.up[NORTH].store.usage(Scope.POSTS).count == 2
            assert fetched == [], "what comes while one is here needs no asking"

    run(work)


def test_who_was_away_gets_what_is_new_and_nothing_twice(tmp_path: Path, fetched: list[int]) -> None:
    async def work() -> None:
        async with villages(tmp_path, NORTH) as place, at(place, NORTH, "ada") as ada:
            async with at(place, NORTH, "bob") as bob:
                await connected(ada, bob)
                for node in (ada, bob):
                    await node.subscribe("roof")
                await followed(place, NORTH, 2)
                for n in range(5):
                    await ada.broadcast("roof", f"before {n}")
                await reads(bob, *(f"before {n}" for n in range(5)))
            for n in range(3):
                await ada.broadcast("roof", f"meanwhile {n}")
            await until(lambda: place.up[NORTH].store.usage(Scope.POSTS).count == 8)
            async with at(place, NORTH, "bob") as bob:
                await connected(bob)
                await reads(bob, *(f"before {n}" for n in range(5)), *(f"meanwhile {n}" for n in range(3)))
                async with asyncio.timeout(PATIENCE_S):
                    newest = place.up[NORTH].store.newest_serial().to_bytes(8, "big")
                    driver = bob._runtime.driver
                    while not (await driver.read(lambda tx: tx.value(CURSORS_KEY)) or b"").endswith(newest):  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
                assert fetched == [3]
                counters = await bob._runtime.driver.read(lambda tx: tx.counters())
                assert counters.get("duplicates", 0) == 0
            # Once more: how far it had come was noted, so not even ids come again.
            listed: list[int] = []
            before = PostDesk.listed

            async def counting(self: PostDesk, channel: object, after: int, limit: int) -> object:
                found = await before(self, channel, after, limit)  # type: ignore[arg-type]
                listed.append(len(found))
                return found

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(PostDesk, "listed", counting)
                async with at(place, NORTH, "bob") as bob:
                    await connected(bob)
                    await until(lambda: bool(listed))
                    assert listed == [0]
            assert fetched == [3]

    run(work)


def test_a_first_comer_gets_the_window_and_a_server_that_forgot_is_given_it_again(tmp_path: Path) -> None:
    async def work() -> None:
        async with villages(tmp_path, NORTH) as place, at(place, NORTH, "ada") as ada:
            await connected(ada)
            await ada.subscribe("roof")
            for n in range(150):
                await ada.broadcast("roof", str(n))
            await until(lambda: place.up[NORTH].store.usage(Scope.POSTS).count == 150)
            async with at(place, NORTH, "bob") as bob:
                await connected(bob)
                await bob.subscribe("roof")
                await reads(bob, *map(str, range(150)))
            address, epoch = place.up[NORTH].address, place.up[NORTH].epoch
            await place.stop(NORTH)
            (tmp_path / NORTH / DATABASE).unlink()
            await place.start(NORTH)
            assert place.up[NORTH].epoch != epoch
            # Another key: it has to be chosen anew.
            server = place.up[NORTH]
            assert server.address != address
            await ada.use_server(str(server.address))
            await until(lambda: server.store.usage(Scope.POSTS).count == 150)

    run(work)


def test_leaving_ends_following_and_an_ended_server_keeps_what_it_answered_for(tmp_path: Path) -> None:
    async def work() -> None:
        async with villages(tmp_path, NORTH) as place:
            async with at(place, NORTH, "ada") as ada:
                await connected(ada)
                await ada.subscribe("roof")
                await ada.subscribe("swap")
                await followed(place, NORTH, 2)
                await ada.unsubscribe("swap")
                await followed(place, NORTH, 1)
            assert place.up[NORTH].store.follow_count() == 1, "who is away follows on"

    run(work)


def test_the_database_of_the_server_has_neither_topic_nor_text(tmp_path: Path) -> None:
    topic, text = "the-secret-garden", "the key lies under the stone"

    async def work() -> None:
        async with villages(tmp_path, NORTH) as place, at(place, NORTH, "ada") as ada:
            await connected(ada)
            channel = await ada.subscribe(topic, "new")
            posted = await ada.broadcast(topic, text)
            assert await ada.reached(posted.uid, PATIENCE_S) == 1
            id, secret = bytes(channel.id), channel.secret
        files = b"".join(path.read_bytes() for path in (tmp_path / NORTH).iterdir() if path.is_file())
        assert id in files, "this is where it would be"
        assert bytes(posted.id) in files
        for hidden in (topic.encode(), text.encode(), secret, secret.hex().encode()):
            assert hidden not in files

    run(work)


def test_what_our_own_gate_puts_off_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quicprochat.p2p.home_posts.PUT_OFF_S", 0.05)
    asked_later: list[object] = []
    later: Callable[..., None] = HomePosts._ask_later

    def noting(self: HomePosts, channel: object) -> None:
        asked_later.append(channel)
        later(self, channel)

    monkeypatch.setattr(HomePosts, "_ask_later", noting)

    async def work() -> None:
        async with villages(tmp_path, NORTH) as place, at(place, NORTH, "ada") as ada, at(place, NORTH, "bob") as bob:
            await connected(ada, bob)
            for node in (ada, bob):
                await node.subscribe("roof")
            await followed(place, NORTH, 2)
            bob._runtime.node._policy = bob._runtime.node._policy.__class__(  # a disk that is full for a while
                bob._runtime.node._policy.me, disk_low=True
            )
            await ada.broadcast("roof", "one")
            await ada.broadcast("roof", "two")
            await until(lambda: bool(asked_later))
            bob._runtime.node._policy = bob._runtime.node._policy.__class__(bob._runtime.node._policy.me)
            async with asyncio.timeout(PATIENCE_S):
                while sorted(await texts(bob)) != ["one", "two"]:  # noqa: ASYNC110 - in whichever order
                    await asyncio.sleep(0.02)

    run(work)
