"""The home server's machine has a clock at 1970, at 2100, and jumping: nothing that was acknowledged expires of it.

The machine's clocks are replaced beneath the real SystemClock, as for a node (``tests/durability/test_clock.py``).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.durability.harness import free_port, seeded
from tests.durability.test_clock import RIGHT, WALLS, saying
from tests.server.attacked import Attacked, Caller, calling, run, serves
from tests.server.load import Load

from quicprochat.adapters import rpc
from quicprochat.core.gate import Reason, Verdict
from quicprochat.core.time import DAY_MS, HOUR_MS, MINUTE_MS

STORED = [(Verdict.STORED, Reason.NONE)]
ROOMY = {"carried_bytes": 4 << 30, "share": 1.0, "per_pair": 10**6, "per_recipient": 10**6}
SEED = bytes(31) + b"u"
KEY = Caller.of(SEED).key
"""Somebody without a name, who is known and does not come again."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Attacked]:
    """A server whose clock is right at first."""
    made = Attacked(tmp_path / "home", port=free_port(), limits=ROOMY, machine=saying("right"))
    yield made
    made.kill()


async def register(server: Attacked, seed: bytes, name: str) -> None:
    async with calling(server, seed) as caller:
        await rpc.Remote.ask(caller.session.register(name, ""), "registering")


async def whose(server: Attacked, name: str) -> bytes:
    async with calling(server) as caller:
        return bytes((await rpc.Remote.ask(caller.session.findName(name), "looking up a name")).key)


def sane(server: Attacked) -> dict[str, Any]:
    """Return the server's status, in which nothing is out of this world."""
    (status,) = server.operator("status")
    assert status["oldest_s"] is None or 0 <= status["oldest_s"] < MINUTE_MS // 1_000
    assert 0 <= status["uptime_s"] < MINUTE_MS // 1_000
    for user in server.operator("users"):
        for seen in (user["first_seen"], user["last_seen"]):
            assert seen is None or "2026" <= seen < "2056", user
    return status


def test_jumps_by_years_both_ways_and_across_restarts_lose_and_expire_nothing(server: Attacked) -> None:
    """Whoever was acknowledged, named or known before the jumps is so after them."""
    dice = seeded("the server's clock")

    async def scenario() -> None:
        load = Load(server)
        await register(server, os.urandom(32), "ada")
        ada = await whose(server, "ada")
        async with calling(server, SEED):
            pass
        for n, wall in enumerate([*WALLS, *dice.sample(list(WALLS), len(WALLS))]):
            async with load.online():
                server.clock(**saying("right"))
                for jump in (wall, "right", wall):
                    server.clock(**saying(jump, synchronised=dice.random() < 0.7))
                await load.more(50)
                sane(server)
                server.kill()
            # On the same boot, or on another one that does not know the time yet.
            again = saying(dice.choice(list(WALLS)), synchronised=False)
            server.start(machine={**again, "boot": f"boot-{n // 2}"})
        await load.drained()
        print(load.compare())
        assert await whose(server, "ada") == ada
        async with calling(server) as author:
            assert await author.put(author.envelope(KEY).wire()) == STORED
        sane(server)
        assert server.end()[0] == 0

    run(scenario, seconds=110)


async def wait_in_queue(server: Attacked, hours: int) -> None:
    async with calling(server, SEED):
        pass
    async with calling(server) as author:
        assert await author.put(author.envelope(KEY, ttl_s=hours * HOUR_MS // 1_000).wire()) == STORED


async def waiting(server: Attacked) -> int:
    async with calling(server, SEED) as reader:
        return len(await reader.fetch())


@pytest.mark.parametrize(("wall", "synchronised"), [*((wall, True) for wall in WALLS), ("a year ahead", False)])
def test_what_waits_outlives_a_jump_and_a_reboot_after_it(server: Attacked, wall: str, synchronised: bool) -> None:
    """Also where the clock was wrong and believed when the machine went down, and right when it came up."""

    async def scenario() -> None:
        before = server.clock(**saying("right"))
        await wait_in_queue(server, hours=2)
        assert server.clock(**saying(wall, synchronised=synchronised)) - before < MINUTE_MS
        await wait_in_queue(server, hours=2)
        server.kill()
        server.start(machine={**saying("right"), "boot": "another"})
        assert await waiting(server) == 2
        assert server.clock(**saying("right")) - before < MINUTE_MS
        sane(server)

    run(scenario)


def test_time_that_a_right_clock_proves_does_pass(server: Attacked) -> None:
    """The other side of it: what was to live for half an hour is gone after an hour's outage, users are not."""

    async def scenario() -> None:
        async with calling(server, SEED):
            pass
        async with calling(server) as author:
            short, long = author.envelope(KEY, ttl_s=1_800), author.envelope(KEY, ttl_s=7_200)
            assert await author.put(short.wire(), long.wire()) == STORED * 2
        server.kill()
        server.start(machine={**saying("an hour ahead"), "boot": "another"})
        async with calling(server, SEED) as reader:
            assert [one.id for one in await reader.fetch()] == [long.id]

    run(scenario)


def test_users_are_not_forgotten_for_the_year_that_the_server_was_away(server: Attacked) -> None:
    """Or that only a wrong clock says has gone by: nobody could come meanwhile. The clock is set while it runs."""

    async def scenario() -> None:
        await register(server, os.urandom(32), "ada")
        async with calling(server, SEED):
            pass
        before = server.clock(**saying("right"))
        server.kill()
        server.start(machine={**saying("1970", synchronised=False), "boot": "another"})
        assert server.clock(**saying("a year ahead")) - before > 300 * DAY_MS
        sane(server)
        assert {user["public_key"] for user in server.operator("users")} >= {KEY.hex()}
        async with calling(server) as author:
            assert await author.put(author.envelope(KEY).wire()) == STORED
        assert len(await whose(server, "ada")) == 32

    run(scenario)


def test_sender_whose_clock_contradicts_the_servers_is_told_and_takes_its_time_back(server: Attacked) -> None:
    """Either of the two may be wrong: the envelope is refused for that reason, and is taken without the claim."""

    async def scenario() -> None:
        async with calling(server, SEED):
            pass
        server.clock(**saying("a year ahead"))
        async with calling(server) as author:
            claims = author.envelope(KEY, created_ms=RIGHT)
            assert await author.put(claims.wire()) == [(Verdict.REFUSED, Reason.CLOCK)]
            assert await author.put(author.envelope(KEY).wire()) == STORED
        server.clock(**saying("2100"))
        async with calling(server) as author:
            assert await author.put(author.envelope(KEY, created_ms=RIGHT).wire()) == STORED
        await asyncio.gather(serves(server), serves(server))

    run(scenario)
