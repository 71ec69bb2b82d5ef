"""kill -9 of a home server that keeps posts: nothing it said yes to is missing, and nothing is there twice."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import pytest
from tests.durability.harness import free_port
from tests.federation.villages import Person
from tests.server.attacked import Attacked, calling, run

from quicprochat.core.errors import UnavailableError
from quicprochat.core.gate import Verdict
from quicprochat.core.ids import EnvelopeId

ROOF = os.urandom(32)
MOMENTS = [
    ("GATHERED", 8),
    ("STEPPED", 20),
    ("COMMITTED", 8),
    ("RELEASED", 20),
    ("log:half-write", 40),
    ("log:sync", 10),
]


async def posting(person: Person, told: dict[EnvelopeId, bool]) -> None:
    """Post until the server is gone; note what it was offered, and what it has answered for."""
    while True:
        posts = [person.post(ROOF, bytes(500)) for _ in range(4)]
        told |= dict.fromkeys((one.id for one in posts), False)
        outcomes = await person.put(*posts)
        told |= {one.id: verdict is Verdict.STORED for one, (verdict, _) in zip(posts, outcomes, strict=True)}


@pytest.mark.timeout(180)
def test_what_was_answered_for_is_there_after_every_kind_of_death(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = Attacked(tmp_path / "home", port=free_port())
        told: dict[EnvelopeId, bool] = {}
        bob = os.urandom(32)
        try:
            async with calling(server, bob) as caller:
                await Person(caller, "", bob).follow(ROOF)
            for kill in MOMENTS:
                server.kill()
                server.start(kill=kill)
                async with calling(server) as caller:
                    work = asyncio.create_task(posting(Person(caller, "", b""), told))
                    assert await asyncio.to_thread(server.killed), f"{kill} did not come"
                    work.cancel()
                    with suppress(asyncio.CancelledError, UnavailableError):
                        await work
            server.start()
            async with calling(server, bob) as caller:
                person = Person(caller, "", bob)
                await person.follow(ROOF)
                listed = [EnvelopeId(id) for _, id in await person.listed(ROOF)]
                stored = {id for id, yes in told.items() if yes}
                assert len(stored) > 20
                assert set(listed) >= stored
                assert len(set(listed)) == len(listed)
                assert set(listed) <= told.keys()
            assert server.end()[0] == 0
        finally:
            server.kill()

    run(scenario, seconds=150)
