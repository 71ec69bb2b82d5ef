"""A reload that comes while a connection is being made: who passed the check a moment before is judged again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.federation.villages import NORTH, SOUTH, STORED, Desk, Villages, pretending, scene, stranger, until

from quicprochat.adapters import quic
from quicprochat.core.errors import QuicprochatError
from quicprochat.server.federation import client


def test_whoever_was_accepted_just_before_is_ended_before_it_is_served(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        exchange = them.up[NORTH].exchange
        assert exchange is not None
        serve = exchange._accepted
        late: list[quic.Connection] = []
        exchange.listener._accepted = late.append
        async with stranger(them, SOUTH, NORTH) as south:
            reaching = asyncio.create_task(south.reach(NORTH))
            await until(lambda: bool(late))
            # The handshake is over and nobody serves the connection yet, when the list changes.
            await them.change(NORTH, them.federation(NORTH, {}))
            async with asyncio.timeout(5):  # the caller gives up after ten
                await until(lambda: late[0].over)
            serve(late[0])
            with pytest.raises(QuicprochatError):
                await reaching
        assert exchange.connections(SOUTH) == 0

    scene(tmp_path, NORTH, SOUTH, up=1)(scenario)


def test_a_domain_that_was_dialled_just_before_gets_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()
    enter = client._Link.open

    async def slowly(connection: quic.Connection, domain: str) -> Any:
        link = await enter(connection, domain)
        entered.set()
        await go_on.wait()
        return link

    async def scenario(them: Villages) -> None:
        desk = Desk(SOUTH)
        async with pretending(them, desk) as accepted:
            north = await them.start(NORTH, them.federation(NORTH, {SOUTH: ""}))
            assert north.exchange is not None
            calling = north.exchange.client
            await them.change(NORTH, them.federation(NORTH))
            await until(lambda: calling.connected(SOUTH))
            await calling.leave(SOUTH, "to be made anew")
            monkeypatch.setattr(client._Link, "open", slowly)
            # Somebody's look-up has just entered at South when South is taken off the list.
            asking = asyncio.create_task(calling.find_name(SOUTH, "bob"))
            await entered.wait()
            await them.change(NORTH, them.federation(NORTH, {}))
            go_on.set()
            with pytest.raises(QuicprochatError):
                await asking
            await until(lambda: bool(accepted) and all(one.over for one in accepted))
            assert not calling.connected(SOUTH)

    scene(tmp_path, NORTH, SOUTH, up=0)(scenario)


def test_who_is_listed_again_is_greeted_so_that_what_waits_there_comes(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        await them.change(NORTH, them.federation(NORTH, {}))
        south = await them.start(SOUTH)
        assert south.exchange is not None
        courier = south.exchange.couriers[NORTH]
        async with them.person(NORTH) as ada, them.person(SOUTH) as bob:
            assert await bob.put(bob.letter(ada.key), domain=NORTH) == [STORED]
            await until(lambda: courier.failures > 0)
            courier._contact.clear()
            # Nobody pokes south, whose pauses grow.
            await them.change(NORTH, them.federation(NORTH))
            await ada.got()

    scene(tmp_path, NORTH, SOUTH, up=1)(scenario)
