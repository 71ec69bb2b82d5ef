"""Many idle sessions: what each costs, and what the one too many hears."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path

from tests.server.attacked import attacked, calling, connected, run, serves, soon, until

SESSIONS = 500
EACH_KB = 200
"""Ten thousand fit into 2 GiB."""


def test_five_hundred_idle_sessions_are_cheap_and_the_next_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        with attacked(tmp_path / "home", connections=SESSIONS) as server:
            await serves(server)
            await until(lambda: server.look()["clients"] == 0)
            before = server.look(collect=True)
            async with AsyncExitStack() as stack:
                opened = 0
                while opened < SESSIONS:
                    some = [stack.enter_async_context(calling(server, os.urandom(32))) for _ in range(20)]
                    opened += len(await asyncio.gather(*some))
                held = server.look()
                assert held["clients"] == SESSIONS
                assert (held["memory_kb"] - before["memory_kb"]) / SESSIONS < EACH_KB
                async with connected(server) as late:
                    assert "no room for another connection" in await soon(late.ended())
            await until(lambda: server.look()["clients"] == 0)
            await until(lambda: server.look()["ids"] == 0)
            await serves(server)

    run(scenario)
