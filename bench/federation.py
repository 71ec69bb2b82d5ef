"""Two villages' home servers, and people at them: how fast and how soon mail gets from one domain into the other.

Servers and people are processes of their own; servers prove themselves by real certificates. What is answered is
verified and synced (synchronous=FULL), at each server and at both people.

    python -m bench.federation [servers people waiting] [--runs 3] [--count N] [--peer CMD]

``servers``: envelopes made beforehand go to the first server in batches of 64; the clock stops when the second has
stored all. ``people``: nodes that seal, send, open, store and confirm; all four processes share two cores. ``waiting``:
what waited for a domain that was down for long leaves when it is back, beside single messages to a third domain.
``--peer`` runs another system's benchmark (any command that prints one line of JSON with ``bench`` and ``result``)
before and after ours, and prints a table of both to standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bench import federation_table
from bench.federation_parts import Process, fill, make_certificates
from bench.home_parts import Correspondence, session
from bench.home_server import BATCH, BATCHES_IN_FLIGHT, Inbox, in_flight, only_confirm

from quicprochat.adapters import rpc
from quicprochat.core.envelope import MeshEnvelope
from quicprochat.core.gate import Verdict
from quicprochat.core.ids import EnvelopeId

HERE, THERE, ELSEWHERE = "node1.mesh.local", "node2.mesh.local", "node3.mesh.local"
CORES = 2
PROBE_EVERY_S = 0.02
PROBES_MAX = 10_000

Result = dict[str, float]


class Villages:
    """Servers that know each other, each a process."""

    def __init__(self, place: Path, *domains: str) -> None:
        self.place = place
        self.ports = dict(zip(domains, free_ports(len(domains)), strict=True))
        self.up: dict[str, Process] = {}
        self.all: list[Process] = []
        make_certificates(place, domains)

    def peers(self, domain: str) -> dict[str, str]:
        return {other: f"127.0.0.1:{port}" for other, port in self.ports.items() if other != domain}

    async def start(self, domain: str, peers: Mapping[str, str] | None = None) -> Process:
        """Start a domain's server; it knows all others, unless ``peers`` says whom it knows."""
        listed = json.dumps(self.peers(domain) if peers is None else peers)
        server = await self.run(domain.split(".")[0], "server", self.place, domain, self.ports[domain], listed)
        self.up[domain] = server
        return server

    async def person(self, name: str, domain: str) -> Process:
        """Start somebody's node; whose home server is that of a domain."""
        return await self.run(name, "person", self.place / name, f"127.0.0.1:{self.port(domain)}")

    async def run(self, name: str, *arguments: object) -> Process:
        process = await Process.start(name, *arguments)
        self.all.append(process)
        return process

    def port(self, domain: str) -> int:
        """Return where a server's clients connect."""
        return int(self.up[domain].ready["port"])


@asynccontextmanager
async def villages(directory: str | None, *domains: str) -> AsyncIterator[Villages]:
    with tempfile.TemporaryDirectory(dir=directory) as base:
        found = Villages(Path(base), *domains)
        try:
            yield found
            for process in reversed(found.all):
                await process.end()
        finally:
            for process in found.all:
                process.kill()


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Author(Inbox):
    """A client that is told what other domains answer."""

    def __init__(self) -> None:
        super().__init__(0, only_confirm)

    async def report_context(self, context: Any) -> None:
        """All is heard."""


async def processor(processes: Mapping[str, Process]) -> dict[str, float]:
    return {name: (await process.ask("used"))["cpu"] for name, process in processes.items()}


# --- server to server


async def servers(a: argparse.Namespace) -> Result:
    """Envelopes made beforehand, from one server to the other."""
    people = Correspondence()
    parts = [[one.wire() for one in people.copies(BATCH)] for _ in range(a.count // BATCH)]
    count = BATCH * len(parts)
    async with villages(a.dir, HERE, THERE) as place:
        here, there = await place.start(HERE), await place.start(THERE)
        async with session(place.port(THERE), people.reader):
            pass  # from now on the reader is known
        async with session(place.port(HERE), people.author) as (_, author):
            await rpc.Remote.ask(author.subscribe(receiver=Author()), "subscribing")
            both = {"node1": here, "node2": there}
            before, began = await processor(both), time.perf_counter()
            putting = asyncio.create_task(
                in_flight(BATCHES_IN_FLIGHT, [partial(author.batchEnqueue, part, THERE) for part in parts])
            )
            stored = (await there.ask("taken_in", count=count))["at"]
            answers = await putting
            emptied = (await here.ask("emptied", domain=THERE))["at"]
            assert all(one.verdict == Verdict.STORED for answer in answers for one in answer.outcomes)
            after = await processor(both)
        return {
            "servers_s": count / (stored - began),
            "servers_until_forgotten_s": count / (emptied - began),
            **{f"servers_{name}_cpu_us": 1e6 * (after[name] - before[name]) / count for name in both},
        }


# --- people


async def people(a: argparse.Namespace) -> Result:
    """Two people at two domains, as their programs do it."""
    async with villages(a.dir, HERE, THERE) as place:
        # Nobody is listed yet: servers greet those whom they know when they start.
        here, there = await place.start(HERE, {}), await place.start(THERE, {})
        ada, bob = await place.person("ada", HERE), await place.person("bob", THERE)
        await ada.ask("knows", key=bob.ready["key"])
        await bob.ask("knows", key=ada.ready["key"])
        await bob.ask("register", name="bob")
        for domain in (HERE, THERE):
            await place.up[domain].ask("peers", peers=place.peers(domain))
        writing = asyncio.create_task(ada.ask("write", to=f"bob@{THERE}"))
        first = await bob.ask("line")
        await writing
        four = {"ada": ada, "node1": here, "node2": there, "bob": bob}
        alone = await processor(four)
        delays, back = [], []
        for _ in range(a.latency):
            writing = asyncio.create_task(ada.ask("write", to=bob.ready["key"]))
            delays.append((await bob.ask("line"))["delay_ms"])
            back.append((await writing)["delivered_ms"])
        delays = sorted(delays[a.latency // 10 :])
        before = await processor(four)
        many = await ada.ask("write_many", to=bob.ready["key"], count=a.messages, window=a.window)
        after = await processor(four)
        return {
            "first_contact_ms": first["delay_ms"],
            "message_p50_ms": statistics.median(delays),
            "message_p99_ms": delays[int(0.99 * len(delays))],
            "receipt_p50_ms": statistics.median(back),
            "people_s": a.messages / many["seconds"],
            **{f"message_{name}_cpu_us": 1e6 * (before[name] - alone[name]) / a.latency for name in four},
            **{f"people_{name}_cpu_us": 1e6 * (after[name] - before[name]) / a.messages for name in four},
        }


# --- a domain that was down


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
            stored = asyncio.create_task(there.ask("taken_in", count=a.waiting))
            meanwhile = await probe.until(stored)
            drained = stored.result()["at"] - ready
            await here.ask("emptied", domain=THERE)
            usual += await probe.until(asyncio.ensure_future(asyncio.sleep(a.probe)))
        return {
            "waiting_pause_s": pause,
            "waiting_s": a.waiting / drained,
            **{f"elsewhere_usual_{key}": value for key, value in percentiles(usual).items()},
            **{f"elsewhere_meanwhile_{key}": value for key, value in percentiles(meanwhile).items()},
        }


def percentiles(delays: list[float]) -> Result:
    delays = sorted(delays)
    return {"p50_ms": statistics.median(delays), "p99_ms": delays[int(0.99 * len(delays))], "worst_ms": delays[-1]}


PARTS = {"servers": servers, "people": people, "waiting": waiting}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all of them without any")
    parser.add_argument("--count", type=int, default=20_000, help="envelopes from server to server")
    parser.add_argument("--messages", type=int, default=5_000, help="messages from person to person")
    parser.add_argument("--window", type=int, default=512, help="messages on their way at once")
    parser.add_argument("--latency", type=int, default=300, help="messages sent one at a time")
    parser.add_argument("--waiting", type=int, default=100_000, help="envelopes that wait for the domain that was down")
    parser.add_argument("--probe", type=float, default=15.0, help="seconds of single messages before and after that")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dir", default=None, help="where the homes are made; put it on the disk to be measured")
    parser.add_argument("--peer", help="another system's benchmark, run in the same run")
    a = parser.parse_args()
    if unknown := set(a.parts) - PARTS.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    os.sched_setaffinity(0, cores)  # the processes inherit it

    def peer() -> Any:
        done = subprocess.run(shlex.split(a.peer), stdout=subprocess.PIPE, text=True)
        if done.returncode or not done.stdout:
            raise SystemExit(f"{a.peer!r} ended with {done.returncode} and printed nothing to compare with")
        return json.loads(done.stdout.splitlines()[-1])

    async def run() -> Result:
        found: Result = {"load": os.getloadavg()[0]}
        async with rpc.running():
            for name in a.parts or PARTS:
                found |= await PARTS[name](a)
        return found

    out: dict[str, Any] = {"bench": "federation", "cores": len(cores)}
    if a.peer:
        out["peer_before"] = peer()
    out["runs"] = runs = [asyncio.run(run()) for _ in range(a.runs)]
    out["result"] = {key: round(statistics.median(one[key] for one in runs), 3) for key in runs[0]}
    if a.peer:
        out["peer_after"] = peer()
    print(json.dumps(out, indent=2))
    if a.peer:
        peers = (out["peer_before"], out["peer_after"])
        print(federation_table.text(federation_table.rows(out["result"], peers)), file=sys.stderr)


if __name__ == "__main__":
    main()
