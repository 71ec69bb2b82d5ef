"""Channels at one home server: who follows gets every post once, in order, and what was answered for is kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.federation.villages import DUPLICATE, FULL, NORTH, STORED, UNKNOWN, Villages, scene, until

from quicprochat.adapters.rpc import Problem
from quicprochat.core.gate import Reason, Verdict
from quicprochat.core.ids import ChannelId
from quicprochat.core.store import Scope
from quicprochat.core.time import DAY_MS, Instant, Now
from quicprochat.server import channels as rules
from quicprochat.server.channels import ChannelRules
from quicprochat.server.home_server import HomeServer

ROOF, BOARD = os.urandom(32), os.urandom(32)


def test_a_follower_gets_posts_of_others_in_order_and_nothing_of_other_channels(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada, them.person(NORTH) as bob, them.person(NORTH) as eve:
            for one, channels in ((ada, (ROOF,)), (bob, (ROOF, BOARD)), (eve, (BOARD,))):
                await one.listen()
                await one.follow(*channels)
            posts = [ada.post(ROOF, bytes([n])) for n in range(100)]
            assert await ada.put(*posts) == [STORED] * 100
            assert await ada.put(posts[7]) == [DUPLICATE]
            await until(lambda: len(bob.receiver.posts) == 100)
            assert [one.id for one in bob.receiver.posts] == [one.id for one in posts]
            assert bob.receiver.serials == sorted(bob.receiver.serials)
            answer = bob.post(ROOF)
            assert await bob.put(answer) == [STORED]
            await until(lambda: bool(ada.receiver.posts))
            assert [one.id for one in ada.receiver.posts] == [answer.id], "nothing of her own comes back"
            assert not eve.receiver.posts
            assert not bob.receiver.envelopes, "posts wait in no mailbox"

    scene(tmp_path, NORTH)(scenario)


def test_a_channel_that_nobody_follows_is_answered_truthfully_and_not_kept(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada:
            post = ada.post(ROOF)
            assert await ada.put(post) == [UNKNOWN]
            assert them.up[NORTH].store.usage(Scope.POSTS).count == 0
            await ada.follow(ROOF)
            assert await ada.put(post) == [STORED], "not remembered as refused"

    scene(tmp_path, NORTH)(scenario)


def test_ids_first_and_only_what_is_asked_for(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        seed = os.urandom(32)
        async with them.person(NORTH, seed) as ada, them.person(NORTH) as bob:
            await ada.follow(ROOF)
            posts = [ada.post(ROOF, bytes(1_000)) for _ in range(100)]
            assert await ada.put(*posts) == [STORED] * 100
            assert await bob.listed(ROOF) == [], "who does not follow is told nothing"
            assert await bob.posts(posts[0].id) == []
            await bob.listen()
            await bob.follow(ROOF)
            listed = await bob.listed(ROOF, 0, 60)
            listed += await bob.listed(ROOF, listed[-1][0])
            assert [id for _, id in listed] == [one.id for one in posts]
            assert await bob.listed(ROOF, listed[-1][0]) == []
            assert [one.id for one in await bob.posts(posts[3].id, os.urandom(32), posts[1].id)] == [
                posts[3].id, posts[1].id,
            ]  # fmt: skip
            some = await bob.posts(*[one.id for one in posts])
            assert [one.id for one in some] == [one.id for one in posts[: len(some)]]
            assert 0 < len(some) < 100, "one answer is bounded in bytes"
            unknown = os.urandom(32)
            assert await bob.lacking(posts[0].id, unknown) == [unknown]
            assert not bob.receiver.posts, "what was there before is not pushed"
            late = ada.post(ROOF)
            await ada.put(late)
            await until(lambda: bool(bob.receiver.posts))
            assert [one.id for one in bob.receiver.posts] == [late.id]

    scene(tmp_path, NORTH)(scenario)


def test_what_was_answered_for_outlives_the_server_and_so_does_following(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        bobs = os.urandom(32)
        async with them.person(NORTH, bobs) as bob:
            await bob.follow(ROOF)
        async with them.person(NORTH) as ada:
            posts = [ada.post(ROOF) for _ in range(3)]
            assert await ada.put(*posts) == [STORED] * 3, "for a follower who is away"
        await them.stop(NORTH)
        await them.start(NORTH)
        async with them.person(NORTH, bobs) as bob, them.person(NORTH) as ada:
            assert await ada.put(ada.post(ROOF)) == [STORED]
            await bob.listen()
            await bob.follow(ROOF)
            assert len(await bob.listed(ROOF)) == 4
            await bob.follow()
            assert await ada.put(ada.post(ROOF)) == [UNKNOWN]
            assert await bob.listed(ROOF) == []

    scene(tmp_path, NORTH)(scenario)


def test_a_flood_by_one_user_leaves_the_others_posts_in_the_window(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada, them.person(NORTH) as eve:
            await ada.follow(ROOF)
            dear = [ada.post(ROOF) for _ in range(20)]
            assert await ada.put(*dear) == [STORED] * 20
            # One author.
            assert await eve.put(*[eve.post(ROOF) for _ in range(200)]) == [STORED] * 200
            kept = [id for _, id in await ada.listed(ROOF)]
            assert set(kept) >= {one.id for one in dear}
            assert len(kept) == 20 + 25
            # Many authors, whom somebody has made up.
            for _ in range(10):
                async with them.person(NORTH) as someone:
                    made_up = [someone.post(ROOF) for _ in range(20)]
                assert await eve.put(*made_up) == [STORED] * 20
            kept = [id for _, id in await ada.listed(ROOF)]
            assert set(kept) >= {one.id for one in dear}
            assert len(kept) == 100

    scene(tmp_path, NORTH, channels=ChannelRules(posts=100, share=0.25))(scenario)


def test_one_channels_flood_leaves_other_channels_their_windows(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada, them.person(NORTH) as eve:
            await ada.follow(ROOF)
            await eve.follow(BOARD)
            dear = [ada.post(ROOF, bytes(1_000)) for _ in range(10)]
            assert await ada.put(*dear) == [STORED] * 10
            assert await eve.put(*[eve.post(BOARD, bytes(1_000)) for _ in range(200)]) == [STORED] * 200
            assert {id for _, id in await ada.listed(ROOF)} == {one.id for one in dear}
            assert them.up[NORTH].store.usage(Scope.POSTS).bytes <= 64_000

    scene(tmp_path, NORTH, channels=ChannelRules(storage=64_000, share=1.0))(scenario)


def test_more_posts_than_a_person_writes_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "BRING_BURST", 5)

    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada, them.person(NORTH) as bob:
            await ada.follow(ROOF)
            posts = [ada.post(ROOF) for _ in range(8)]
            assert await ada.put(*posts) == [STORED] * 5 + [FULL] * 3
            assert await ada.put(posts[0]) == [DUPLICATE], "what is here already costs nothing"
            assert await bob.put(bob.post(ROOF)) == [STORED]

    scene(tmp_path, NORTH)(scenario)


def test_old_and_worn_out_posts_are_refused(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada:
            await ada.follow(ROOF)
            stale = ada.post(ROOF, ttl_s=14 * 86_400).wire(age_ms=8 * DAY_MS)
            forged = ada.post(ROOF).wire()[:-1] + b"x"
            assert await ada.put(stale, forged) == [
                (Verdict.REFUSED, Reason.EXPIRED), (Verdict.REFUSED, Reason.UNSUPPORTED),
            ]  # fmt: skip

    scene(tmp_path, NORTH)(scenario)


def test_a_reader_that_does_not_answer_costs_a_few_batches(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada, them.person(NORTH) as bob:
            await bob.listen()
            bob.receiver.reading.clear()
            await bob.follow(ROOF)
            posts = [ada.post(ROOF, bytes(30_000)) for _ in range(64)]
            for n in range(0, 64, 16):
                assert await ada.put(*posts[n : n + 16]) == [STORED] * 16
            await until(lambda: len(bob.receiver.posts) == 8)  # four batches of two
            (client,) = them.up[NORTH]._clients[bob.key]
            assert client._posts is not None
            assert client._posts._room.locked()
            bob.receiver.reading.set()
            await until(lambda: len(bob.receiver.posts) == 64)
            assert [one.id for one in bob.receiver.posts] == [one.id for one in posts]

    scene(tmp_path, NORTH)(scenario)


def test_calls_that_ask_too_much_are_refused(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as eve:
            for call, code in (
                (eve.follow(*[os.urandom(32) for _ in range(257)]), "usage"),
                (eve.follow(b"short"), "usage"),
                (eve.listed(b"short"), "usage"),
                (eve.posts(*[os.urandom(32) for _ in range(257)]), "usage"),
                (eve.lacking(*[os.urandom(32) for _ in range(1_025)]), "usage"),
            ):
                with pytest.raises(Problem) as refused:
                    await call
                assert refused.value.code == code
            assert them.up[NORTH].store.follow_count() == 0
            await eve.follow(*[os.urandom(32) for _ in range(256)])

    scene(tmp_path, NORTH)(scenario)


def test_a_full_server_says_so_and_users_that_are_removed_follow_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "FOLLOWS_MAX", 3)

    async def scenario(them: Villages) -> None:
        server = them.up[NORTH]
        async with them.person(NORTH) as ada, them.person(NORTH) as bob:
            await ada.follow(ROOF, BOARD)
            with pytest.raises(Problem) as refused:
                await bob.follow(ROOF, BOARD)
            assert refused.value.code == "full"
            await ada.follow(ROOF)
            await bob.follow(ROOF, BOARD)
            assert server.store.followed() == {ROOF: 2, BOARD: 1}
            await server.remove(ada.key)
            assert server.store.followed() == {ROOF: 1, BOARD: 1}
            assert server.store.follow_count() == 2

    scene(tmp_path, NORTH)(scenario)


async def swept(server: HomeServer, days: float, *, there: bool = True) -> None:
    """Let the server look after its channels as if so many days had gone by."""
    now = server.driver.now()
    later = Now(Instant(now.at + int(days * DAY_MS)), now.wall, now.trusted)
    await server.driver.call(lambda _: server._look_after_channels(later, int(days * DAY_MS) if there else 0, 256))


def test_who_never_comes_back_stops_counting_and_what_nobody_follows_goes(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        server = them.up[NORTH]
        async with them.person(NORTH) as bob:
            await bob.follow(BOARD)
        await until(lambda: bob.key not in server.sessions)
        async with them.person(NORTH) as ada:
            await ada.follow(ROOF)
            posts = [ada.post(channel) for channel in (ROOF, BOARD)]
            assert await ada.put(*posts) == [STORED] * 2
            await swept(server, 29)
            assert server.store.followed() == {ROOF: 1, BOARD: 1}
            await swept(server, 31, there=False)
            assert server.store.followed() == {ROOF: 1, BOARD: 1}, "nobody can come to a server that is off"
            await swept(server, 31)
            assert server.store.followed() == {ROOF: 1}, "who is connected is here"
            await swept(server, 31)
            assert server.store.windows() == {ChannelId(ROOF)}
            assert server.store.held(posts[1].id) is None
            assert server.store.fate(posts[1].id) is None, "whoever follows it again may be given it again"

    scene(tmp_path, NORTH)(scenario)
