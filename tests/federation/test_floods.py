"""A domain that sends as much as it can: memory and disk stay bounded, and users here are served meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from tests.federation.test_peers import told
from tests.federation.villages import EAST, FULL, NORTH, STORED, Villages, scene, stranger

from quicprochat.core.gate import Limits
from quicprochat.core.store import Scope

LIMIT = 200


def flooded(place: Path, count: int, seconds: float) -> None:
    async def scenario(them: Villages) -> None:
        server = them.up[NORTH]
        async with (
            stranger(them, EAST, NORTH) as east,
            them.person(NORTH) as ada,
            them.person(NORTH) as ann,
            them.person(NORTH) as author,
        ):
            wires = [author.letter(ada.key).wire() for _ in range(2_048)]
            answers: Counter[object] = Counter()
            sent = 0

            async def flood() -> None:
                nonlocal sent
                while sent < count:
                    at = sent % len(wires)
                    sent += 256
                    answers.update(told(await east.relay_enqueue(NORTH, wires[at : at + 256])))

            floods = [asyncio.create_task(flood()) for _ in range(16)]
            served = 0
            while not all(one.done() for one in floods):
                # Meanwhile somebody here writes to somebody here.
                assert await ann.put(ann.letter(ann.key)) == [STORED]
                served += 1
                await asyncio.sleep(0.1)
            for one in floods:
                one.result()
            assert answers[STORED] == LIMIT
            assert answers[FULL] > 0
            assert sum(answers.values()) >= count
            assert server.store.usage(Scope.RECIPIENT, ada.key).count == LIMIT
            assert served >= 2

    limits = Limits(carried_bytes=1 << 30, share=1.0, per_pair=10**6, per_recipient=LIMIT)
    scene(place, NORTH, EAST, up=1, limits=limits, seconds=seconds)(scenario)


def test_a_flood_fills_one_recipients_places_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    flooded(tmp_path, 10_000, 50)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_hundred_thousand_at_once(tmp_path: Path) -> None:
    flooded(tmp_path, 100_000, 280)
