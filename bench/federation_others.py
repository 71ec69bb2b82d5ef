"""What one domain's trouble is to the others: parts of bench/federation.py.

Single messages go to a third domain all the while.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from bench.federation_parts import fill, processor
from bench.federation_villages import ELSEWHERE, HERE, THERE, Author, villages
from bench.home_parts import Correspondence, session

from quicprochat.adapters import rpc
from quicprochat.core.envelope import MeshEnvelope
from quicprochat.core.ids import EnvelopeId

PROBE_EVERY_S = 0.02
PROBES_MAX = 10_000
LOAD_EVERY_S = 0.08

Result = dict[str, float]


class Watched(rpc.home.Receiver.Server):  # type: ignore[misc]
    """Confirms what it gets, and notes when."""

    def __init__(self) -> None:
        self.came: dict[EnvelopeId, asyncio.Future[float]] = {}

    async def deliver_context(self, context: Any) -> None:
        ids = [MeshEnvelope.decode(one.envelope).id for one in context.params.deliveries]
        for id in ids:
            self.came[id].set_result(time.perf_counter())
        context.results.ids = ids


class Probe:
    """Single messages from here to elsewhere, one each ``PROBE_EVERY_S``, and how long each takes."""

    def __init__(self, author: Any, watched: Watched, envelopes: Iterator[MeshEnvelope]) -> None:
        self._author = author
        self._watched = watched
        self._envelopes = envelopes

    async def until(self, enough: asyncio.Future[Any]) -> list[float]:
        """Go on until something is done; return milliseconds from the call to the recipient's hands."""
        calls = []
        due = time.perf_counter()
        while not enough.done():
            calls.append(asyncio.create_task(self._one()))
            due += PROBE_EVERY_S
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
        return await asyncio.gather(*calls)

    async def _one(self) -> float:
        envelope = next(self._envelopes)
        came = self._watched.came[envelope.id] = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        await rpc.Remote.ask(self._author.enqueue(envelope.wire(), ELSEWHERE), "sending")
        return 1_000 * (await came - began)


async def waiting(a: argparse.Namespace) -> Result:
    """A domain comes back that much waits for."""
    people, others = Correspondence(), Correspondence()
    probes = iter(others.copies(PROBES_MAX))
    async with villages(a.dir, HERE, THERE, ELSEWHERE) as place:
        there = await place.start(THERE, {})
        async with session(place.port(THERE), people.reader):
            pass
        await there.end()
        await asyncio.to_thread(fill, place.place, HERE, THERE, people, a.waiting)
        here, _ = await place.start(HERE), await place.start(ELSEWHERE)
        async with (
            session(place.port(ELSEWHERE), others.reader) as (_, reader),
            session(place.port(HERE), others.author) as (_, author),
        ):
            watched = Watched()
            await rpc.Remote.ask(reader.subscribe(receiver=watched), "subscribing")
            await rpc.Remote.ask(author.subscribe(receiver=Author()), "subscribing")
            probe = Probe(author, watched, probes)
            pause = (await here.ask("long_down", domain=THERE))["pause_s"]
            await probe.until(asyncio.ensure_future(asyncio.sleep(1)))  # connections are open from now on
            usual = await probe.until(asyncio.ensure_future(asyncio.sleep(a.probe)))
            there = await place.start(THERE)
            ready = time.perf_counter()
            both = {"node1": here, "node2": there}
            before = await processor(both)
            stored = asyncio.create_task(there.ask("taken_in", count=a.waiting))
            meanwhile = await probe.until(stored)
            drained = stored.result()["at"] - ready
            await here.ask("emptied", domain=THERE)
            after = await processor(both)
            usual += await probe.until(asyncio.ensure_future(asyncio.sleep(a.probe)))
        return {
            "waiting_pause_s": pause,
            "waiting_s": a.waiting / drained,
            **{f"waiting_{name}_cpu_us": 1e6 * (after[name] - before[name]) / a.waiting for name in both},
            **{f"elsewhere_usual_{key}": value for key, value in percentiles(usual).items()},
            **{f"elsewhere_meanwhile_{key}": value for key, value in percentiles(meanwhile).items()},
        }


async def beside(a: argparse.Namespace) -> Result:
    """Another domain is down and its outbox grows; then it is up and mail flows. In turns with neither."""
    people, others = Correspondence(), Correspondence()
    probes = iter(others.copies(PROBES_MAX))
    batch = max(1, int(a.load * LOAD_EVERY_S))
    parts = iter([[one.wire() for one in people.copies(batch)] for _ in range(int(5 * a.probe / LOAD_EVERY_S))])
    async with villages(a.dir, HERE, THERE, ELSEWHERE) as place:
        there = await place.start(THERE, {})
        async with session(place.port(THERE), people.reader):
            pass
        await there.end()
        here, _ = await place.start(HERE), await place.start(ELSEWHERE)
        async with (
            session(place.port(ELSEWHERE), others.reader) as (_, reader),
            session(place.port(HERE), others.author) as (_, author),
            session(place.port(HERE), people.author) as (_, busy),
        ):
            watched = Watched()
            await rpc.Remote.ask(reader.subscribe(receiver=watched), "subscribing")
            for one in (author, busy):
                await rpc.Remote.ask(one.subscribe(receiver=Author()), "subscribing")
            probe = Probe(author, watched, probes)

            async def load() -> None:
                while True:
                    await rpc.Remote.ask(busy.batchEnqueue(next(parts), THERE), "sending")
                    await asyncio.sleep(LOAD_EVERY_S)

            async def phase(*, loaded: bool) -> list[float]:
                loading = asyncio.create_task(load()) if loaded else None
                try:
                    return await probe.until(asyncio.ensure_future(asyncio.sleep(a.probe)))
                finally:
                    if loading is not None:
                        loading.cancel()
                        with suppress(asyncio.CancelledError):
                            await loading

            await probe.until(asyncio.ensure_future(asyncio.sleep(1)))  # connections are open from now on
            alone = await phase(loaded=False)
            down = await phase(loaded=True)
            alone += await phase(loaded=False)
            there = await place.start(THERE)
            await here.ask("emptied", domain=THERE)
            alone += await phase(loaded=False)
            flowing = await phase(loaded=True)
            await here.ask("emptied", domain=THERE)
            alone += await phase(loaded=False)
        return {
            f"beside_{name}_{key}": value
            for name, found in (("nothing", alone), ("one_down", down), ("one_busy", flowing))
            for key, value in percentiles(found).items()
        }


def percentiles(delays: list[float]) -> Result:
    delays = sorted(delays)
    return {"p50_ms": statistics.median(delays), "p99_ms": delays[int(0.99 * len(delays))], "worst_ms": delays[-1]}
