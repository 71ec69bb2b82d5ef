"""Several hops over real links: nodes in a line that cannot dial each other but for their neighbours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path

from bench.hidden import Hidden

from quicprochat.core.address import Address
from quicprochat.core.receipt import State
from quicprochat.p2p import Options, P2pNode
from quicprochat.p2p.views import RouteView


@asynccontextmanager
async def line(tmp_path: Path, names: str, **options: object) -> AsyncIterator[list[Hidden]]:
    """Nodes in a row, each linked to the next."""
    async with AsyncExitStack() as stack:
        nodes: list[Hidden] = []
        for name in names:
            opened = Options(tmp_path / name, bind=Address("127.0.0.1", 0), **options)  # type: ignore[arg-type]
            nodes.append(Hidden(opened))
            await stack.enter_async_context(nodes[-1])
        for one, other in pairwise(nodes):
            await one.add(other.where(), "next")
            await one.wait_linked(other.key, 20)
        yield nodes


def play(story: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(60):
            await story()

    asyncio.run(run())


async def route_to(node: P2pNode, to: P2pNode) -> RouteView:
    while True:
        for view in node.routes():
            if view.destination == to.key:
                return view
        await asyncio.sleep(0.05)


def test_a_message_crosses_four_links_to_somebody_known_only_by_announcements(tmp_path: Path) -> None:
    async def story() -> None:
        async with line(tmp_path, "abcde") as (a, b, c, d, e):
            way = await route_to(a, e)
            assert (way.next_hop, way.hops, way.via) == (b.key, 4, "mesh")
            sent = await a.send(e.key, "hello from far away")
            got = await anext(e.listen(20))
            assert (got.text, got.peer, got.hops) == ("hello from far away", a.key, 3)
            done = await a.wait(sent.uid, State.DELIVERED, 20)
            assert done.state is State.DELIVERED
            events = [(event.state, event.carrier) for event in (await a.trace(sent.uid)).events]
            assert events == [("relayed", b.key.hex()), ("delivered", b.key.hex())]
            for relay in (b, c, d):
                assert await relay.inbox() == []
                while (await relay.store_view()).messages:  # noqa: ASYNC110 - the receipt, until its link has lived on
                    await asyncio.sleep(0.2)
            assert e.key not in a.linked()

    play(story)
