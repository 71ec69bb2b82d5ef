"""A session's answers of many bytes wait until the client takes what it got."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from quicprochat.adapters import rpc
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.server.push import BATCH_BYTES, IN_FLIGHT, Pusher
from quicprochat.server.queue import Delivery
from quicprochat.server.session import Client, Session

KEY = PeerKey(bytes(32))
LONG = 60_000


class Shelf:
    """A queue with a hundred long envelopes in it."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.taken_ids: list[bytes] = []

    async def waiting(self, _: PeerKey, after: int, limit: int) -> list[Delivery]:
        self.asked.append((after, limit))
        return [
            Delivery(n, EnvelopeId(n.to_bytes(32, "big")), bytes(LONG))
            for n in range(after + 1, min(after + limit, 100) + 1)
        ]

    async def taken(self, ids: list[bytes]) -> None:
        self.taken_ids += ids


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_fetches_wait_for_room_and_for_each_other() -> None:
    async def scenario() -> None:
        shelf, served = Shelf(), rpc.Served(10, lambda _: None)
        room = asyncio.Event()
        vars(served)["room"] = room.wait
        client = Client(KEY, shelf, SimpleNamespace(), served)  # type: ignore[arg-type]
        client.admitted = True
        answers: list[Any] = []

        def init(name: str, count: int) -> list[SimpleNamespace]:
            answers.append([SimpleNamespace() for _ in range(count)])
            return list(answers[-1])

        ask = SimpleNamespace(limit=256, after=0)
        calls = [asyncio.create_task(Session(client).handle_fetch(ask, SimpleNamespace(init=init))) for _ in range(3)]
        await turns()
        assert shelf.asked == []
        room.set()
        await asyncio.gather(*calls)
        assert len(shelf.asked) == 3
        assert all(sum(len(one.envelope) for one in answer) <= BATCH_BYTES for answer in answers)

    asyncio.run(scenario())


def test_pushes_under_way_are_few_and_bounded_and_need_room() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        room, go_on = asyncio.Event(), asyncio.Event()
        sent: list[int] = []

        async def deliver(batch: Any) -> list[EnvelopeId]:
            sent.append(sum(len(one.wire) for one in batch))
            await go_on.wait()
            return [one.id for one in batch] + [EnvelopeId(b"\xff" * 32)]

        async def wait() -> None:
            await room.wait()

        pusher = asyncio.create_task(Pusher(shelf, KEY, deliver, wait).run())  # type: ignore[arg-type]
        await turns()
        assert sent == []
        room.set()
        await turns()
        assert len(sent) == IN_FLIGHT
        assert max(sent) <= BATCH_BYTES
        assert max(limit for _, limit in shelf.asked[1:]) <= 2  # not sixty-four at a time to send one
        go_on.set()
        async with asyncio.timeout(5):
            while len(shelf.taken_ids) < 100:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0)
        assert sorted(shelf.taken_ids) == [n.to_bytes(32, "big") for n in range(1, 101)]
        pusher.cancel()
        await asyncio.gather(pusher, return_exceptions=True)

    asyncio.run(scenario())
