"""Neighbours that misuse channels over real links: they are cut off or ignored, and others are served meanwhile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path

from tests.integration.attacker import Attacker
from tests.integration.test_abuse import node, scene

from quicprochat.core.encounter import Want, encode_offer
from quicprochat.core.errors import UnavailableError
from quicprochat.core.ids import ChannelId, EnvelopeId
from quicprochat.core.link import EVERY_CHANNEL, ChannelFrame, FrameType, encode_interest
from quicprochat.core.store import Line
from quicprochat.p2p import P2pNode


def offer(count: int = 192) -> bytes:
    ids = tuple(EnvelopeId(os.urandom(32)) for _ in range(count))
    return ChannelFrame(ChannelId(os.urandom(32)), 1, FrameType.OFFER, encode_offer(ids)).encode()


def test_offers_without_end_in_made_up_channels_end_the_link_and_others_are_served(tmp_path: Path) -> None:
    async def play(victim: P2pNode, attacker: Attacker) -> None:
        async with node(tmp_path / "honest") as honest:
            await honest.add(str(victim.ticket()), "victim")
            await honest.wait_linked(victim.key, 10)
            for one in (victim, honest):
                await one.subscribe("village")
            await attacker.link(victim)
            await attacker.say(FrameType.INTEREST, encode_interest((EVERY_CHANNEL,)))
            flooding = asyncio.create_task(flood(attacker))
            for number in range(30):
                await honest.broadcast("village", f"post {number}")
            heard = [line.text async for line in first(victim, 30)]
            assert "offers more than it brings" in await attacker.connection.closed()
            await asyncio.gather(flooding, return_exceptions=True)
            assert heard == [f"post {n}" for n in range(30)]

    scene(tmp_path, play)


async def first(node: P2pNode, count: int) -> AsyncGenerator[Line, None]:
    """Yield so many lines as they come."""
    async for line in node.listen(15):
        yield line
        count -= 1
        if not count:
            return


async def flood(attacker: Attacker) -> None:
    while True:
        await attacker.say(FrameType.CHANNEL, offer())


def test_frames_before_any_interest_are_skipped_and_the_link_lives(tmp_path: Path) -> None:
    async def play(victim: P2pNode, attacker: Attacker) -> None:
        await attacker.link(victim)
        for _ in range(200):
            await attacker.say(FrameType.CHANNEL, offer(4))
        await attacker.say(FrameType.PING)
        while (await attacker.hear())[0] != FrameType.PONG:
            pass

    scene(tmp_path, play)


def test_wanting_what_nobody_offered_ends_the_link(tmp_path: Path) -> None:
    async def play(victim: P2pNode, attacker: Attacker) -> None:
        await attacker.link(victim)
        await attacker.say(FrameType.INTEREST, encode_interest((EVERY_CHANNEL,)))
        want = ChannelFrame(ChannelId(bytes([7]) * 32), 1, FrameType.WANT, Want(0, (0,)).encode())
        await attacker.say(FrameType.CHANNEL, want.encode())
        assert "nobody offered" in await attacker.connection.closed()

    scene(tmp_path, play)


def test_telling_channels_without_end_is_abuse(tmp_path: Path) -> None:
    async def play(victim: P2pNode, attacker: Attacker) -> None:
        await attacker.link(victim)
        try:
            for number in range(200):
                await attacker.say(FrameType.INTEREST, encode_interest((EVERY_CHANNEL,) if number % 2 else ()))
        except UnavailableError:
            pass
        assert "too many changes of interest" in await attacker.connection.closed()
        assert victim.networked

    scene(tmp_path, play)
