"""A channel's history at the library's face and at the commands', on a node whose store the test fills."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.rows import placed

from quicprochat.adapters.crypto import Ed25519Signer
from quicprochat.client.commands import HISTORY_SHOWN, answer
from quicprochat.client.socket import READ_MAX
from quicprochat.core.channel import BroadcastChannel
from quicprochat.core.errors import LocalError
from quicprochat.core.gaps import HOPE_MS, hear
from quicprochat.core.store import Line, LineKind, MeshStore
from quicprochat.core.time import HOUR_MS, Instant, WallTime
from quicprochat.p2p import Options, P2pNode, history
from quicprochat.p2p.history import PAGE, Missing

Json = dict[str, Any]


def on_a_node(tmp_path: Path, work: Callable[[P2pNode, BroadcastChannel], Coroutine[Any, Any, None]]) -> None:
    async def inside() -> None:
        async with asyncio.timeout(20), P2pNode(Options(tmp_path, ephemeral=True), network=False) as node:
            await work(node, await node.subscribe("news"))

    asyncio.run(inside())


async def fill(node: P2pNode, lines: Sequence[Line], *, heard_at: int | None = None) -> list[int]:
    """Put lines into the store as the gate does; return their cursors."""
    now = node._runtime.driver.now().at if heard_at is None else Instant(heard_at)

    def write(store: MeshStore) -> list[int]:
        cursors = []
        for line in lines:
            if line.kind is LineKind.OWN_POST:
                cursors.append(store.note(line))
                continue
            cursors.append(store.deliver(line) or 0)
            known = store.heard(node.channels()[0].id, line.peer)
            store.put_heard(node.channels()[0].id, hear(known, line.peer, line.seq, now))
        return cursors

    return await node._runtime.call(write)


def said(channel: BroadcastChannel, name: str, seq: int = 1, *parents: str, author: str = "ann") -> Line:
    return replace(placed(name, seq, *parents, author=author), channel=channel.id)


def mine(node: P2pNode, channel: BroadcastChannel, name: str, *parents: str) -> Line:
    return replace(placed(name, 1, *parents, own=True), peer=node.key, channel=channel.id)


async def told(node: P2pNode, **sieve: Any) -> list[str]:
    """Return texts, and what is missing as the numbers."""
    return [
        f"{line.first}-{line.last}{'' if line.open else '!'}" if isinstance(line, Missing) else line.text
        async for line in node.history("news", **sieve)
    ]


async def asked(node: P2pNode, **args: Any) -> list[Json]:
    return [item async for item in answer(node, "history", {"topic": "news", **args})]


def test_posts_stand_by_cause_with_our_own_among_them(tmp_path: Path) -> None:
    async def work(node: P2pNode, channel: BroadcastChannel) -> None:
        await fill(node, [
            said(channel, "answer", 1, "question", author="bob"), mine(node, channel, "mine", "answer"),
            said(channel, "aside", 1, author="cat"), said(channel, "question"),
            replace(said(channel, "elsewhere", author="dan"), channel=b"e" * 32),
        ])  # fmt: skip
        assert await told(node) == ["question", "answer", "mine", "aside"]
        assert await told(node, count=2) == ["mine", "aside"]
        assert await told(node, count=0) == []

    on_a_node(tmp_path, work)


@pytest.mark.parametrize("seed", range(5))
def test_clocks_that_lie_change_no_order(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)

    def lying(line: Line) -> Line:
        """Written and received in 1970, tomorrow or whenever: by the author's clock, a carrier's and our own."""
        return replace(line, at=WallTime(chance.randrange(1 << 42)), sent_at=WallTime(chance.randrange(1 << 42)))

    async def work(node: P2pNode, channel: BroadcastChannel) -> None:
        talk = [
            said(channel, str(n), n // 2 + 1, *([str(n - 1)] if n else []), author=("ann", "bob")[n % 2])
            for n in range(12)
        ]
        chance.shuffle(talk)
        await fill(node, [lying(line) for line in talk])
        assert await told(node) == [str(n) for n in range(12)]

    on_a_node(tmp_path, work)


def test_a_history_reaches_back_no_further_than_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "REACH_MAX", 3)

    async def work(node: P2pNode, channel: BroadcastChannel) -> None:
        await fill(node, [said(channel, str(n), n) for n in range(1, 7)])
        assert await told(node) == ["4", "5", "6"]
        assert await told(node, count=1 << 62) == ["4", "5", "6"]

    on_a_node(tmp_path, work)


def test_a_gap_stands_before_the_post_that_shows_it_and_goes_when_it_is_filled(tmp_path: Path) -> None:
    async def work(node: P2pNode, channel: BroadcastChannel) -> None:
        lines = [said(channel, "1", 1), said(channel, "x", 7, author="bob"), said(channel, "5", 5)]
        await fill(node, [*lines, said(channel, "again", 5)])
        assert await told(node) == ["1", "x", "2-4", "5", "again"]
        assert [view.gaps for view in await node.channel_views()] == [1]
        await fill(node, [said(channel, "3", 3)])
        assert await told(node) == ["1", "x", "2-2", "3", "4-4", "5", "again"]
        assert [view.gaps for view in await node.channel_views()] == [2]
        await fill(node, [said(channel, "2", 2), said(channel, "4", 4)])
        assert await told(node) == ["1", "x", "2", "3", "4", "5", "again"]
        assert [view.gaps for view in await node.channel_views()] == [0]

    on_a_node(tmp_path, work)


def test_what_can_come_no_more_is_shown_as_that_and_not_counted(tmp_path: Path) -> None:
    async def work(node: P2pNode, channel: BroadcastChannel) -> None:
        long_ago = node._runtime.driver.now().at - HOPE_MS
        await fill(node, [said(channel, "1", 1), said(channel, "3", 3)], heard_at=long_ago)
        assert await told(node) == ["1", "2-2!", "3"]
        assert [view.gaps for view in await node.channel_views()] == [0]
        await fill(node, [said(channel, "5", 5)])
        assert await told(node) == ["1", "2-2!", "3", "4-4", "5"]
        assert [view.gaps for view in await node.channel_views()] == [1]

    on_a_node(tmp_path, work)


def test_a_long_history_comes_whole_and_in_pages(tmp_path: Path) -> None:
    async def work(node: P2pNode, channel: BroadcastChannel) -> None:
        lines = [said(channel, str(n), n) for n in range(1, PAGE + 51)]
        await fill(node, lines[1:] + lines[:1])
        expected = [line.text for line in lines]
        assert await told(node) == expected
        assert await told(node, count=PAGE + 1) == expected[-PAGE - 1 :]
        assert [item["text"] for item in await asked(node)] == expected[-HISTORY_SHOWN:]
        assert [item["text"] for item in await asked(node, since=1)][:2] == ["1", "3"]
        assert len(await asked(node, since="2040-01-01")) == 0
        assert len(await asked(node, since="2020-01-01")) == len(lines)

    on_a_node(tmp_path, work)


def test_since_goes_by_when_a_post_came_here(tmp_path: Path) -> None:
    async def work(node: P2pNode, channel: BroadcastChannel) -> None:
        now = node.wall()
        ages = {"old": 30, "middle": 20, "new": 1}
        lines = [said(channel, name, n) for n, name in enumerate(ages, 1)]
        await fill(node, [replace(x, at=WallTime(now - ages[x.text] * HOUR_MS), sent_at=WallTime(1)) for x in lines])
        assert [item["text"] for item in await asked(node, since="25h")] == ["middle", "new"]
        assert [item["text"] for item in await asked(node, since="25h", count=1)] == ["new"]
        assert [item["text"] for item in await asked(node, since="1d12h")] == ["old", "middle", "new"]
        for wrong in ("yesterday", -1, True, 1.5):
            with pytest.raises(LocalError):
                await asked(node, since=wrong)

    on_a_node(tmp_path, work)


def test_lines_are_those_of_the_inbox_and_gaps_say_what_is_missing(tmp_path: Path) -> None:
    async def work(node: P2pNode, channel: BroadcastChannel) -> None:
        ann = Ed25519Signer(b"a" * 32).key
        await node.add(ann.hex(), "Ann")
        hers = [replace(said(channel, str(n), n), peer=ann) for n in (1, 4)]
        await fill(node, [*hers, mine(node, channel, "mine")])
        first, gap, post, own = await asked(node)
        assert (first["event"], first["text"], first["seq"], first["own"]) == ("post", "1", 1, False)
        place = {"channel": channel.id.hex(), "topic": "news"}
        assert gap == {
            "event": "gap", "from": ann.hex(), "name": "Ann", **place, "first": 2, "last": 3, "open": True,
        }  # fmt: skip
        assert (post["name"], post["topic"], post["kind"]) == ("Ann", "news", "private")
        assert (own["event"], own["from"], own["own"], own["text"]) == ("post", node.key.hex(), True, "mine")
        listed = [item async for item in answer(node, "inbox", {})]
        assert listed == [first, post]

    on_a_node(tmp_path, work)


def test_history_is_unread_until_somebody_says_otherwise(tmp_path: Path) -> None:
    async def work(node: P2pNode, channel: BroadcastChannel) -> None:
        cursors = await fill(node, [said(channel, str(n), n) for n in range(1, 4)])
        await asked(node)
        assert [view.unread for view in await node.channel_views()] == [3]
        assert [(found.topic, count) for found, count in (await node.status()).unread_posts] == [("news", 3)]
        assert [item async for item in answer(node, "read", {"cursors": cursors[:2]})] == [{}]
        assert [item["text"] for item in await asked(node, unread=True)] == ["3"]
        assert [view.unread for view in await node.channel_views()] == [1]
        nonsense: list[object] = [None, "x", {}, [-1], ["1"], [1] * (READ_MAX + 1)]
        for wrong in nonsense:
            with pytest.raises(LocalError):
                _ = [item async for item in answer(node, "read", {"cursors": wrong})]

    on_a_node(tmp_path, work)


def test_a_channel_one_is_not_in_has_no_history_here(tmp_path: Path) -> None:
    async def work(node: P2pNode, channel: BroadcastChannel) -> None:
        await fill(node, [said(channel, "1")])
        await node.unsubscribe("news")
        with pytest.raises(LocalError) as refused:
            await asked(node)
        assert refused.value.code == "not_found"

    on_a_node(tmp_path, work)


def test_a_liars_number_is_a_line_like_any_other(tmp_path: Path) -> None:
    async def work(node: P2pNode, channel: BroadcastChannel) -> None:
        await fill(node, [said(channel, "1", 1), said(channel, "far", 2**60), said(channel, "end", 2**64 - 1)])
        assert await told(node) == ["1", f"2-{2**60 - 1}", "far", f"{2**60 + 1}-{2**64 - 2}", "end"]

    on_a_node(tmp_path, work)
