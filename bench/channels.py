"""One author and eight subscribers of a channel: how many posts arrive each second, and how soon one reaches the last.

Every node is a whole ``P2pNode`` with its own home and SQLite on disk (synchronous=FULL). The author is a process and
each subscriber is one, as in life; with ``--processes 1`` all subscribers are in one, as in many benchmarks of publish
and subscribe, where one interpreter's lock bounds them. A post counts for a subscriber once its program was handed the
line: signature and commitment checked, opened, committed. Nothing is made before the clock runs: sealing, signing and
numbering are part of it.

    python -m bench.channels [--count 850] [--latency 100] [--subscribers 8] [--processes 8] [--runs 3] [--peer CMD]

``--latency`` posts are written one at a time, ``--gap-ms`` apart, to a channel of their own; then ``--count`` as fast
as they go, ``--window`` of them not yet on the author's own disk. A subscriber takes 1,000 posts of one author at once
and then one a second (``core/window.py``), so both together stay below.

``--peer`` runs another system's benchmark (any command that prints one line of JSON with ``bench`` and ``result``)
before and after ours, and prints a table to standard error; it may be given several times.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from bench.hidden import Hidden
from bench.home_table import laid_out
from bench.limits import verify_us
from bench.two_people import TEXT, hear, rss, say

from quicprochat.core.address import Address
from quicprochat.core.channel import SECRET_BYTES
from quicprochat.core.store import LineKind
from quicprochat.p2p import Options, P2pNode

TOPIC = "bench"
GREETING = "hello"
HERE = "127.0.0.1"
JOIN_S, LATENCY_S, RUSH_S = 30, 120, 240


def node(home: str) -> Hidden:
    return Hidden(Options(Path(home), bind=Address(HERE, 0)))


async def told() -> dict[str, Any]:
    """Return what the benchmark's own process says next."""
    return dict(json.loads(await asyncio.to_thread(sys.stdin.readline)))


# --- the two roles


async def author(home: str, key: str) -> None:
    """Write what one is told to."""
    me = node(home)
    async with me:
        await me.subscribe(TOPIC, key)
        say(where=me.where())
        while (order := await told())["posts"]:
            cpu, began = time.process_time(), time.monotonic_ns()
            await write(me, **order)
            say(began=began, cpu=time.process_time() - cpu, rss=rss())


async def write(me: P2pNode, posts: int, text: str, window: int, gap_ms: int = 0) -> None:
    """Write so many posts, each with its time: one every ``gap_ms``, or as fast as they go."""
    room = asyncio.Semaphore(window)

    async def post() -> None:
        async with room:
            await me.broadcast(TOPIC, f"{time.monotonic_ns()} {text}"[:300])

    if not gap_ms:
        await asyncio.gather(*(post() for _ in range(posts)))
        return
    began = time.monotonic()
    for number in range(posts):
        await asyncio.sleep(max(0, began + number * gap_ms / 1_000 - time.monotonic()))
        await post()


class Ear:
    """What one subscriber's program hears."""

    def __init__(self, listening: P2pNode) -> None:
        self._node = listening
        self.came: list[tuple[int, int]] = []
        """When each post was written and when it was here, by the one clock of this machine."""
        self.hellos = asyncio.Event()

    async def listen(self) -> None:
        async for line in self._node.listen():
            if line.kind is not LineKind.POST:
                continue
            written, words = line.text.split(" ", 1)
            if words == GREETING:
                self.hellos.set()
            else:
                self.came.append((int(written), time.monotonic_ns()))

    async def heard(self, count: int) -> list[tuple[int, int]]:
        """Return all of so many posts, once they are here."""
        while len(self.came) < count:
            await asyncio.sleep(0.01)
        found, self.came = self.came, []
        return found


async def subscribers(base: str, key: str, where: str, first: int, count: int) -> None:
    """Be some of the subscribers."""
    async with AsyncExitStack() as stack:
        ears = []
        for number in range(first, first + count):
            one = await stack.enter_async_context(node(f"{base}/{number}"))
            await one.subscribe(TOPIC, key)
            await one.wait_linked((await one.add(where, "author")).key, JOIN_S)
            ears.append(Ear(one))
        tasks = [asyncio.create_task(ear.listen()) for ear in ears]
        say(linked=count)
        for ear in ears:
            await ear.hellos.wait()
        say(greeted=count)
        while want := (await told())["posts"]:
            cpu = time.process_time()
            found = await asyncio.gather(*(ear.heard(want) for ear in ears))
            say(came=found, cpu=time.process_time() - cpu, rss=rss())
        for task in tasks:
            task.cancel()


# --- the benchmark


class Worker:
    """A process with a role."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "bench.channels", "--role", *map(str, arguments)]
        if profile := os.environ.get(f"BENCH_PROFILE_{str(arguments[0]).upper()}"):
            command[1:2] = ["-m", "cProfile", "-o", profile, "-m"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def tell(self, **order: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        return hear(self.process)


def phase(
    writer: Worker, readers: list[Worker], posts: int, **order: Any
) -> tuple[dict[str, Any], dict[int, list[int]], dict[str, float]]:
    """Let so many posts be written; return what the author says, when each post came, and what readers took."""
    for reader in readers:
        reader.tell(posts=posts)
    writer.tell(posts=posts, text=TEXT, **order)
    wrote = writer.hear()
    came: dict[int, list[int]] = {}
    took = {"cpu": 0.0, "rss": 0.0}
    for reader in readers:
        report = reader.hear()
        took = {name: value + report[name] for name, value in took.items()}
        for one in report["came"]:
            assert len(one) == posts, "a post came twice"
            for written, at in one:
                came.setdefault(written, []).append(at)
    return wrote, came, took


def run(a: argparse.Namespace) -> dict[str, float]:
    key = os.urandom(SECRET_BYTES).hex()
    with tempfile.TemporaryDirectory(dir=a.dir) as base:
        workers = [writer := Worker("author", f"{base}/author", key)]
        try:
            where = writer.hear()["where"]
            shares = [len(range(at, a.subscribers, a.processes)) for at in range(a.processes)]
            readers = [Worker("subscribers", base, key, where, sum(shares[:at]), n) for at, n in enumerate(shares)]
            workers += readers
            for reader in readers:
                reader.hear()
            writer.tell(posts=1, text=GREETING, window=1)
            writer.hear()
            for reader in readers:
                reader.hear()
            _, slow, _ = phase(writer, readers, a.latency, window=1, gap_ms=a.gap_ms)
            wrote, fast, took = phase(writer, readers, a.count, window=a.window)
            for worker in workers:
                worker.tell(posts=0)
            for worker in workers:
                worker.process.wait(30)
        finally:
            for worker in workers:
                worker.process.kill()
                worker.process.wait()
    assert all(len(times) == a.subscribers for found in (slow, fast) for times in found.values())
    last = sorted((max(times) - written) / 1e6 for written, times in slow.items())
    seconds = (max(map(max, fast.values())) - wrote["began"]) / 1e9
    return {
        "deliveries_s": a.count * a.subscribers / seconds,
        "last_p50_ms": statistics.median(last),
        "last_p99_ms": last[int(0.99 * len(last))],
        "author_cpu_us_a_post": 1e6 * wrote["cpu"] / a.count,
        "subscriber_cpu_us_a_delivery": 1e6 * took["cpu"] / a.count / a.subscribers,
        "all_cpu_us_a_delivery": 1e6 * (wrote["cpu"] + took["cpu"]) / a.count / a.subscribers,
        "author_rss_mb": wrote["rss"],
        "subscribers_rss_mb": took["rss"],
    }


def table(result: Mapping[str, float], peers: list[Mapping[str, Any]]) -> str:
    """Return ours and the others' figures for reading."""
    rows = [("what", "deliveries a second", "p50 ms", "p99 ms")]
    rows.append((
        "quicprochat, to the last of all", f"{result['deliveries_s']:,.0f}", f"{result['last_p50_ms']:.1f}",
        f"{result['last_p99_ms']:.1f}",
    ))  # fmt: skip
    for peer in peers:
        for key, value in peer["result"].items():
            median = value["median"] if isinstance(value, Mapping) else value
            if "deliveries_s" in key:
                rows.append((f"{peer['bench']}: {key.removesuffix('_deliveries_s')}", f"{median:,.0f}", "", ""))
    return laid_out(rows)


def main() -> None:
    if sys.argv[1:2] == ["--role"]:
        role, *rest = sys.argv[2:]
        if role == "author":
            asyncio.run(author(*rest))
        else:
            base, key, where, *numbers = rest
            asyncio.run(subscribers(base, key, where, *map(int, numbers)))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=850, help="posts written as fast as they go")
    parser.add_argument("--latency", type=int, default=100, help="posts written one at a time")
    parser.add_argument("--gap-ms", type=int, default=30)
    parser.add_argument("--window", type=int, default=256, help="posts not yet on the author's disk")
    parser.add_argument("--subscribers", type=int, default=8)
    parser.add_argument("--processes", type=int, default=8, help="of the subscribers")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dir", default=None, help="where the homes are made; put it on the disk to be measured")
    parser.add_argument("--peer", action="append", default=[], help="another system's benchmark, run in the same run")
    a = parser.parse_args()

    def peers() -> list[Any]:
        found = []
        for command in a.peer:
            done = subprocess.run(shlex.split(command), stdout=subprocess.PIPE, text=True)
            if done.returncode or not done.stdout:
                raise SystemExit(f"{command!r} ended with {done.returncode} and printed nothing to compare with")
            found.append(json.loads(done.stdout.splitlines()[-1]))
        return found

    out: dict[str, Any] = {"bench": "channels", "count": a.count, "subscribers": a.subscribers}
    out |= {"subscriber_processes": a.processes, "window": a.window, "cores": os.cpu_count()}
    if a.peer:
        out["peers_before"] = peers()
    out["load"] = os.getloadavg()[0]
    runs = [run(a) | {"verify_us": verify_us()} for _ in range(a.runs)]
    if a.peer:
        out["peers_after"] = peers()
    out["runs"] = runs
    out["result"] = {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}
    print(json.dumps(out, indent=2))
    print(table(out["result"], out.get("peers_before", []) + out.get("peers_after", [])), file=sys.stderr)


if __name__ == "__main__":
    main()
