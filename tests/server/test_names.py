"""A name that two keys claim at the same moment, and one that was given before the server died."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path

from tests.durability.harness import free_port
from tests.server.attacked import Attacked, Caller, attacked, calling, run, serves

from quicprochat.adapters import rpc

CLAIMS = 16


async def claim(caller: Caller, name: str) -> str:
    """Return the name as it is kept, or why it is not."""
    try:
        return str((await rpc.Remote.ask(caller.session.register(name, ""), "registering")).name)
    except rpc.Problem as problem:
        return problem.code


async def whose(caller: Caller, name: str) -> bytes:
    return bytes((await rpc.Remote.ask(caller.session.findName(name), "looking up a name")).key)


def test_of_many_who_claim_a_name_at_once_one_has_it(tmp_path: Path) -> None:
    """Also in another case, and as something that looks the same; all of them in one commit."""
    spellings = ["Village-Well", "village-well", "vi11age-well", "village-wel1"]

    async def scenario() -> None:
        with attacked(tmp_path / "home") as server:
            async with AsyncExitStack() as stack:
                callers = [await stack.enter_async_context(calling(server)) for _ in range(CLAIMS)]
                names = [spellings[n % len(spellings)] for n in range(CLAIMS)]
                answers = await asyncio.gather(*map(claim, callers, names))
                assert sorted(answers)[:-1] == ["exists"] * (CLAIMS - 1), answers
                (winner,) = [n for n, answer in enumerate(answers) if answer != "exists"]
                assert {await whose(one, answers[winner]) for one in callers} == {callers[winner].key}
                assert await claim(callers[winner], names[winner]) == answers[winner]
            await serves(server)

    run(scenario)


def test_name_that_was_given_outlives_the_server(tmp_path: Path) -> None:
    async def scenario() -> None:
        seed = os.urandom(32)
        server = Attacked(tmp_path / "home", port=free_port())
        try:
            async with calling(server, seed) as ada:
                assert await claim(ada, "ada") == "ada"
                server.kill()
            server.start()
            async with calling(server) as thief:
                assert await claim(thief, "ada") == "exists"
                assert await whose(thief, "ada") == Caller.of(seed).key
        finally:
            server.kill()

    run(scenario)
