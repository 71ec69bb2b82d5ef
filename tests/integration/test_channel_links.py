"""Channels through the library, over real links, with neighbours that play by the rules and one that does not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.attacker import Attacker
from tests.integration.test_abuse import node, scene

from quicprochat.adapters.crypto import SodiumCrypto
from quicprochat.adapters.system import entropy
from quicprochat.core.channel import Access, BroadcastChannel, Post, open_post, seal_post
from quicprochat.core.envelope import Header, Kind, MeshEnvelope, make
from quicprochat.core.errors import LocalError
from quicprochat.core.gate import Reason, Verdict
from quicprochat.core.ids import Uid
from quicprochat.core.link import (
    EVERY_CHANNEL,
    INTEREST_MAX,
    FrameType,
    Result,
    decode_interest,
    decode_results,
    encode_interest,
    frame,
)
from quicprochat.core.store import Line, LineKind
from quicprochat.p2p import P2pNode
from quicprochat.p2p.link import INTEREST_BURST

CRYPTO = SodiumCrypto(entropy)
VILLAGE = BroadcastChannel.open("village", CRYPTO)


def pair(tmp_path: Path, play: Callable[[P2pNode, P2pNode], Awaitable[None]]) -> None:
    """Two nodes, linked."""

    async def run() -> None:
        async with asyncio.timeout(40), node(tmp_path / "a") as a, node(tmp_path / "b") as b:
            await b.add(str(a.ticket()), "alice")
            await b.wait_linked(a.key, 20)
            await a.wait_linked(b.key, 20)
            await play(a, b)

    asyncio.run(run())


async def heard(lines: AsyncIterator[Line], count: int) -> list[Line]:
    found: list[Line] = []
    async for line in lines:
        found.append(line)
        if len(found) == count:
            break
    return found


async def subscribed(author: P2pNode, topic: str) -> list[Uid]:
    """Post until the other end is known to subscribe; return the posts' uids."""
    uids: list[Uid] = []
    while True:
        posted = await author.broadcast(topic, f"post {len(uids)}")
        uids.append(posted.uid)
        if posted.neighbours:
            return uids


async def until(wanted: FrameType, attacker: Attacker) -> bytes:
    while True:
        kind, body = await attacker.hear()
        if kind == wanted:
            return body


async def until_kept(node: P2pNode, posts: int) -> None:
    """Wait until a node keeps so many posts."""
    while (await node.store_view()).posts != posts:
        pass  # asking lets the node go on


def test_the_library_joins_posts_and_hears(tmp_path: Path) -> None:
    async def play(a: P2pNode, b: P2pNode) -> None:
        made = await a.subscribe("family", "new")
        assert (made.kind, len(made.secret), a.channels()) == (Access.PRIVATE, 32, (made,))
        assert made.owner == a.key
        bare = replace(made, owner=b"")  # a bare key does not say whose the channel is
        assert await b.subscribe("family", made.secret) == bare
        assert await b.subscribe("family", made.secret.hex()) == bare, "twice is once"
        uids = await subscribed(a, "family")
        # What was written before a saw b's interest is asked for, and may come after what was handed over at once.
        lines = await heard(b.posts(), len(uids))
        assert {(line.kind, line.peer, line.uid, line.channel) for line in lines} == {
            (LineKind.POST, a.key, uid, made.id) for uid in uids
        }
        assert b.channel(lines[0].channel) == bare
        assert await a.reached(uids[-1], 10) == 1
        await until_kept(b, 1 + len(uids))  # the first is that a has joined, which is kept as a post is
        (view,) = await b.channel_views()
        assert (view.channel, view.posts, view.members) == (bare, 1 + len(uids), 2)
        with pytest.raises(LocalError) as error:
            await a.reached(Uid(bytes(16)))
        assert error.value.code == "not_found"

    pair(tmp_path, play)


def test_messages_and_posts_are_heard_apart(tmp_path: Path) -> None:
    async def play(a: P2pNode, b: P2pNode) -> None:
        await a.subscribe("village")
        await b.subscribe("village")
        uids = await subscribed(a, "village")
        for uid in uids:
            await a.reached(uid, 10)
        await a.send(b.key, "just for you")
        messages = b.messages()
        assert (await anext(messages)).text == "just for you"
        assert (await b.channel_views())[0].unread == len(uids), "whoever hears messages has not read the posts"
        assert {line.uid for line in await heard(b.posts(), len(uids))} == set(uids)

    pair(tmp_path, play)


def test_two_calls_at_once_make_one_channel_of_a_topic(tmp_path: Path) -> None:
    async def play(a: P2pNode, _: P2pNode) -> None:
        answers = await asyncio.gather(*(a.subscribe("family", "new") for _ in range(5)), return_exceptions=True)
        assert sum(isinstance(answer, BroadcastChannel) for answer in answers) == 1
        assert sum(isinstance(answer, LocalError) and answer.code == "exists" for answer in answers) == 4
        assert len(a.channels()) == 1

    pair(tmp_path, play)


def test_what_cannot_be_a_key_or_a_channel_is_refused(tmp_path: Path) -> None:
    async def play(a: P2pNode, _: P2pNode) -> None:
        for key in (b"", b"x" * 31, b"x" * 33, "ab", "zz" * 32, " " + "ab" * 31 + "a", "ab " * 32):
            with pytest.raises(LocalError, match="64 hexadecimal digits"):
                await a.subscribe("x", key)
        with pytest.raises(LocalError, match="everybody can compute it"):
            await a.subscribe("village", VILLAGE.secret)
        one = await a.subscribe("one", b"k" * 32)
        with pytest.raises(LocalError, match=r"the key of the channel one, .* to call it two, .* unsubscribe one"):
            await a.subscribe("two", b"k" * 32)
        with pytest.raises(LocalError, match="bytes; a post holds"):
            await a.broadcast("one", "x" * 65_537)
        with pytest.raises(LocalError, match="not UTF-8"):
            await a.broadcast("one", "\udcff")
        await a.unsubscribe("one")
        assert (a.channels(), a.channel(one.id)) == ((), BroadcastChannel(one.id, Access.PRIVATE, b"", topic="one"))
        assert (await a.subscribe("two", b"k" * 32)).id == one.id, "a channel that was left may come back as another"
        for n in range(INTEREST_MAX - 1):
            await a.subscribe(f"t{n}")
        with pytest.raises(LocalError, match="that is the most"):
            await a.subscribe("one-more")

    pair(tmp_path, play)


# --- a neighbour that does not play by the rules


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "cut short"),
        (b"\0\1" + bytes(31), "cut short"),
        (b"\0\2" + bytes(64), "does not ascend"),
        (b"\0\0!", "bytes after its end"),
        (b"\1\1" + b"".join(n.to_bytes(32, "big") for n in range(257)), "256 are allowed"),
    ],
    ids=["empty", "short", "twice", "more", "too many"],
)
def test_an_interest_that_no_node_tells_ends_the_link(tmp_path: Path, body: bytes, reason: str) -> None:
    async def play(victim: P2pNode, attacker: Attacker) -> None:
        await attacker.link(victim)
        await attacker.say(FrameType.INTEREST, body)
        assert reason in await attacker.connection.closed()

    scene(tmp_path, play)


def test_whoever_keeps_changing_its_interest_is_cut_off(tmp_path: Path) -> None:
    async def play(victim: P2pNode, attacker: Attacker) -> None:
        await attacker.link(victim)
        bodies = [encode_interest((VILLAGE.id,) if n % 2 else ()) for n in range(INTEREST_BURST + 40)]
        await attacker.stream.write(b"".join(frame(FrameType.INTEREST, body) for body in bodies))
        assert "too many changes of interest" in await attacker.connection.closed()

    scene(tmp_path, play)


def test_a_stranger_gets_what_it_asks_for_by_id_and_reads_only_what_is_open(tmp_path: Path) -> None:
    async def play(victim: P2pNode, attacker: Attacker) -> None:
        private = await victim.subscribe("family", "new")
        await victim.subscribe("village")
        await attacker.link(victim)
        told = decode_interest(await until(FrameType.INTEREST, attacker))
        assert set(told) == {private.id, VILLAGE.id}
        await attacker.say(FrameType.INTEREST, encode_interest(told))
        while not (await victim.broadcast("family", "a word among us")).neighbours:
            pass
        await victim.broadcast("village", "to everybody")
        posts = [MeshEnvelope.decode(await until(FrameType.ENVELOPE, attacker)) for _ in range(2)]
        found = {post.dst: open_post(post, VILLAGE.secret, CRYPTO) for post in posts}
        assert found[private.id] is None
        assert found[VILLAGE.id] is not None
        assert b"a word among us" not in b"".join(post.wire() for post in posts)

    scene(tmp_path, play, stays=False)


def test_a_node_that_stays_takes_part_in_all_channels_and_does_not_say_which_are_its_own(tmp_path: Path) -> None:
    async def play(victim: P2pNode, attacker: Attacker) -> None:
        await victim.subscribe("village")
        await attacker.link(victim)
        assert decode_interest(await until(FrameType.INTEREST, attacker)) == (EVERY_CHANNEL,)
        await attacker.say(FrameType.CHANNEL, b"short")
        assert "cut short" in await attacker.connection.closed()

    scene(tmp_path, play)


def test_a_post_crosses_a_node_that_does_not_read_it(tmp_path: Path) -> None:
    async def run() -> None:
        async with (
            asyncio.timeout(50), node(tmp_path / "a") as a, node(tmp_path / "b") as b, node(tmp_path / "c") as c,
        ):  # fmt: skip
            made = await a.subscribe("family", "new")
            await c.subscribe("family", made.secret)
            await b.add(str(a.ticket()), "alice")
            await b.add(str(c.ticket()), "carol")
            for near, far in ((b, a), (b, c), (a, b), (c, b)):
                await near.wait_linked(far.key, 20)
            posted = await a.broadcast("family", "soup")
            (line,) = await heard(c.posts(), 1)
            assert (line.text, line.uid, line.peer, line.hops) == ("soup", posted.uid, a.key, 1)
            await c.broadcast("family", "bread")
            (line,) = await heard(a.posts(), 1)
            assert (line.text, line.hops) == ("bread", 1)
            assert await b.inbox() == []
            await until_kept(b, 3)  # for who comes later; one is that a has joined

    asyncio.run(run())


def test_posts_nobody_asked_for_or_nobody_can_open_are_refused_with_a_reason(tmp_path: Path) -> None:
    async def play(victim: P2pNode, attacker: Attacker) -> None:
        private = await victim.subscribe("family", "new")
        await attacker.link(victim)

        def post(channel: bytes, secret: bytes) -> MeshEnvelope:
            header = Header(Kind.CHANNEL, attacker.signer.key, channel, os.urandom(16))
            inside = Post(Uid(os.urandom(16)), 1, "hello")
            return make(header, seal_post(header, secret, 0, os.urandom(32), inside, CRYPTO), attacker.signer)

        for envelope, reason in (
            (post(VILLAGE.id, VILLAGE.secret), Reason.POLICY),
            (post(private.id, VILLAGE.secret), Reason.UNOPENABLE),
        ):
            await attacker.say(FrameType.ENVELOPE, envelope.wire())
            results = decode_results(await until(FrameType.RESULTS, attacker))
            assert results == (Result(envelope.id, Verdict.REFUSED, reason),)
        assert await victim.inbox() == []
        await attacker.say(FrameType.ENVELOPE, (good := post(private.id, private.secret)).wire())
        results = decode_results(await until(FrameType.RESULTS, attacker))
        assert results == (Result(good.id, Verdict.STORED, Reason.NONE),), "whoever has the key is a member"

    scene(tmp_path, play, stays=False)
