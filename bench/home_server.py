"""A home server and its clients in two processes: what it takes, what it hands out, and how soon.

Every envelope is verified and synced (synchronous=FULL) before it is answered. Beside it, in the same run, the
ceiling: the same calls with pycapnp over TCP and nothing behind them. Envelopes of 300-byte texts (775 bytes) are made
before the clock runs.

    python -m bench.home_server [--count 20000] [--runs 3] [--peer CMD] [--filled N] [--sessions N]

``--peer`` runs another system's benchmark (any command that prints one line of JSON with ``bench``, ``window`` and
``result``) before and after ours, and prints a table of both to standard error. Most peers neither sync nor verify.
``--filled`` measures one server with N envelopes waiting and one with none; ``--sessions`` the memory of N idle
sessions.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bench import home_table
from bench.home_parts import Correspondence, fill, hollow_session, rss_kb, session

from quicprochat.adapters import quic, rpc
from quicprochat.adapters.crypto import SodiumCrypto
from quicprochat.adapters.sqlite.store import SqliteStore
from quicprochat.adapters.system import entropy
from quicprochat.core.envelope import MeshEnvelope
from quicprochat.core.gate import Checked, Policy, Reject, Verdict, admit, check
from quicprochat.core.time import Instant, Now, WallTime
from quicprochat.server.home_server import ALPN

BATCH = 64
BATCHES_IN_FLIGHT = 8
CALLS_IN_FLIGHT = 64


@asynccontextmanager
async def server(*arguments: str) -> AsyncIterator[tuple[int, int, float]]:
    """Start a server; give its port, its process id, and how long it took."""
    command = [sys.executable, "-m", "bench.home_parts", *arguments]
    if profile := os.environ.get("BENCH_PROFILE_SERVER"):
        command[1:2] = ["-m", "cProfile", "-o", profile, "-m"]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = await asyncio.to_thread(process.stdout.readline)
        if not line:
            raise SystemExit("the server ended early")
        yield json.loads(line)["port"], process.pid, time.perf_counter() - began
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.to_thread(process.wait, 30)
    finally:
        process.kill()
        process.wait()


async def in_flight(limit: int, calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Make calls, so many at a time; return the answers."""
    room = asyncio.Semaphore(limit)

    async def one(make: Callable[[], Any]) -> Any:
        async with room:
            return await rpc.Remote.ask(make(), "benching")

    return await asyncio.gather(*(one(make) for make in calls))


async def put_batches(to: Any, wires: list[bytes]) -> float:
    """Return envelopes a second, all of them answered."""
    parts = [wires[at : at + BATCH] for at in range(0, len(wires), BATCH)]
    began = time.perf_counter()
    answers = await in_flight(BATCHES_IN_FLIGHT, [partial(to.batchEnqueue, envelopes=part) for part in parts])
    spent = time.perf_counter() - began
    assert all(outcome.verdict == Verdict.STORED for answer in answers for outcome in answer.outcomes)
    return len(wires) / spent


async def put_singly(to: Any, wires: list[bytes]) -> float:
    """Return envelopes a second, each a call of its own."""
    began = time.perf_counter()
    answers = await in_flight(CALLS_IN_FLIGHT, [partial(to.enqueue, envelope=wire) for wire in wires])
    spent = time.perf_counter() - began
    assert all(answer.outcome.verdict == Verdict.STORED for answer in answers)
    return len(wires) / spent


Keep = Callable[[list[bytes]], Awaitable[Sequence[bytes]]]
"""Takes envelopes and returns the ids that need not come again."""


class Inbox(rpc.home.Receiver.Server):  # type: ignore[misc]
    """Confirms what it gets, after ``keep`` has done with it."""

    def __init__(self, want: int, keep: Keep) -> None:
        self.all_here = asyncio.Event()
        self.came: asyncio.Queue[float] = asyncio.Queue()
        self._want = want
        self._keep = keep

    async def deliver_context(self, context: Any) -> None:
        ids = await self._keep([bytes(one.envelope) for one in context.params.deliveries])
        context.results.ids = list(ids)
        self._want -= len(ids)
        self.came.put_nowait(time.perf_counter())
        if self._want <= 0:
            self.all_here.set()


async def only_confirm(wires: list[bytes]) -> Sequence[bytes]:
    return [MeshEnvelope.decode(wire).id for wire in wires]


class FullClient:
    """Opens, verifies and stores, as a node does with its own mail: the checks in a thread beside the loop."""

    def __init__(self, home: Path, people: Correspondence) -> None:
        self._store = SqliteStore.open(home / "client.db")
        self._people = people
        self._crypto = SodiumCrypto(entropy)
        self._checks = ThreadPoolExecutor(1, "check")
        self._policy = Policy(people.to, contacts=frozenset([people.signer.key]))

    def _check(self, wires: list[bytes]) -> list[Checked | Reject]:
        return [check(wire, self._people.to, self._people.keys, self._crypto) for wire in wires]

    async def keep(self, wires: list[bytes]) -> Sequence[bytes]:
        found = await asyncio.get_running_loop().run_in_executor(self._checks, self._check, wires)
        now = Now(Instant(10_000), WallTime(0), trusted=False)
        ids: list[bytes] = []
        self._store.begin()
        for checked in found:
            assert isinstance(checked, Checked)
            assert checked.opened is not None
            assert admit(self._store, checked, self._people.signer.key, self._policy, now).verdict is Verdict.STORED
            ids.append(checked.envelope.id)
        self._store.commit()
        return ids

    def close(self) -> None:
        self._checks.shutdown()
        self._store.close()


async def drain(port: int, people: Correspondence, count: int, keep: Keep) -> float:
    """Return pushes a second, until the queue is empty."""
    async with session(port, people.reader) as (_, reader):
        inbox = Inbox(count, keep)
        began = time.perf_counter()
        await rpc.Remote.ask(reader.subscribe(receiver=inbox), "subscribing")
        await inbox.all_here.wait()
        while len((await rpc.Remote.ask(reader.fetch(after=0, limit=1), "fetching")).deliveries):
            await asyncio.sleep(0.001)
        return count / (time.perf_counter() - began)


async def push_delays(port: int, people: Correspondence, wires: list[bytes]) -> list[float]:
    """Return milliseconds from the call to the recipient's hands, one at a time."""
    async with session(port, people.author) as (_, author), session(port, people.reader) as (_, reader):
        inbox = Inbox(len(wires), only_confirm)
        await rpc.Remote.ask(reader.subscribe(receiver=inbox), "subscribing")
        delays = deque[float]()
        for wire in wires:
            began = time.perf_counter()
            call = asyncio.ensure_future(rpc.Remote.ask(author.enqueue(envelope=wire), "sending"))
            delays.append((await inbox.came.get() - began) * 1_000)
            await call
        return sorted(delays)


async def measure(a: argparse.Namespace) -> dict[str, float]:
    """One run of everything."""
    people = Correspondence()
    wires = [one.wire() for one in people.copies(2 * a.count)]
    letters = [one.wire() for one in people.letters(a.count // 4)]
    some = [one.wire() for one in people.copies(a.latency)]
    out: dict[str, float] = {"envelope_bytes": len(wires[0])}
    with tempfile.TemporaryDirectory(dir=a.dir) as base:
        async with server("hollow") as (port, _, _), hollow_session(port) as ceiling:
            out["ceiling_batches_s"] = await put_batches(ceiling, wires[: a.count])
            out["ceiling_single_s"] = await put_singly(ceiling, wires[: a.count])
        async with server("home", f"{base}/home", "100") as (port, pid, _):
            async with session(port, people.reader):
                pass  # from now on the reader is known
            out["push_p50_ms"] = statistics.median(delays := await push_delays(port, people, some))
            out["push_p99_ms"] = delays[int(0.99 * len(delays))]
            async with session(port, people.author) as (_, author):
                out["batches_s"] = await put_batches(author, wires[: a.count])
                out["single_s"] = await put_singly(author, wires[a.count :])
            out["drain_confirm_s"] = await drain(port, people, 2 * a.count, only_confirm)
            async with session(port, people.author) as (_, author):
                await put_batches(author, letters)
            client = FullClient(Path(base), people)
            out["drain_full_s"] = await drain(port, people, len(letters), client.keep)
            client.close()
            out["server_rss_mb"] = rss_kb(pid) / 1_024
    return out


async def filled(a: argparse.Namespace) -> dict[str, float]:
    """How a server with very much waiting compares with an empty one."""
    out: dict[str, float] = {}
    for count in (0, a.filled):
        people = Correspondence()
        wires = [one.wire() for one in people.copies(a.latency * 10)]
        with tempfile.TemporaryDirectory(dir=a.dir) as base:
            if count:
                await asyncio.to_thread(fill, Path(base) / "home", count)
            name = "filled" if count else "empty"
            async with server("home", f"{base}/home", "100") as (port, pid, started):
                async with session(port, people.reader):
                    pass
                async with session(port, people.author) as (_, author):
                    delays = []
                    for wire in wires:
                        began = time.perf_counter()
                        await rpc.Remote.ask(author.enqueue(envelope=wire), "sending")
                        delays.append((time.perf_counter() - began) * 1_000)
                delays.sort()
                out[f"{name}_start_s"] = started
                out[f"{name}_enqueue_p50_ms"] = statistics.median(delays)
                out[f"{name}_enqueue_p99_ms"] = delays[int(0.99 * len(delays))]
                out[f"{name}_rss_mb"] = rss_kb(pid) / 1_024
    return out


async def sessions(a: argparse.Namespace) -> dict[str, Any]:
    """What idle sessions cost, and what the next one hears."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, a.sessions + 200)), hard))
    with tempfile.TemporaryDirectory(dir=a.dir) as base:
        async with server("home", f"{base}/home", str(a.sessions)) as (port, pid, _), AsyncExitStack() as stack:
            before, began = rss_kb(pid), time.perf_counter()
            opened = []
            for start in range(0, a.sessions, 50):
                some = [session(port, os.urandom(32)) for _ in range(start, min(start + 50, a.sessions))]
                for connection, _ in await asyncio.gather(*map(stack.enter_async_context, some)):
                    opened.append(connection)
                if start % 500 == 0:
                    for connection in opened:
                        connection.keep_alive()
            spent = time.perf_counter() - began
            out = {
                "sessions": len(opened),
                "kb_each": (rss_kb(pid) - before) / len(opened),
                "rss_mb": rss_kb(pid) / 1_024,
                "opened_s": len(opened) / spent,
            }
            return {**out, "the_next_hears": await turned_away(port)}


async def turned_away(port: int) -> str:
    """Connect to a full server; return what it says."""
    credentials = quic.Credentials(*quic.self_signed(os.urandom(32), "bench", 1))
    connection = await quic.connect(("127.0.0.1", port), ALPN, credentials, quic.anybody, 10)
    return await connection.ended()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--latency", type=int, default=300, help="messages sent one at a time")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--filled", type=int, default=0, metavar="N")
    parser.add_argument("--sessions", type=int, default=0, metavar="N")
    parser.add_argument("--dir", default=None, help="where the homes are made; put it on the disk to be measured")
    parser.add_argument("--peer", help="another system's benchmark, run in the same run")
    a = parser.parse_args()

    def peer() -> Any:
        done = subprocess.run(shlex.split(a.peer), stdout=subprocess.PIPE, text=True)
        if done.returncode or not done.stdout:
            raise SystemExit(f"{a.peer!r} ended with {done.returncode} and printed nothing to compare with")
        return json.loads(done.stdout.splitlines()[-1])

    def within(work: Callable[[argparse.Namespace], Coroutine[Any, Any, Any]]) -> Any:
        async def whole() -> Any:
            async with rpc.running():
                return await work(a)

        return asyncio.run(whole())

    out: dict[str, Any] = {"bench": "home_server", "count": a.count, "cores": os.cpu_count()}
    if a.filled:
        out["filled"] = within(filled)
    elif a.sessions:
        out["sessions"] = within(sessions)
    else:
        if a.peer:
            out["peer_before"] = peer()
        runs = [within(measure) for _ in range(a.runs)]
        if a.peer:
            out["peer_after"] = peer()
        out["runs"] = runs
        out["result"] = {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}
    print(json.dumps(out, indent=2))
    if "peer_after" in out:
        peers = (out["peer_before"], out["peer_after"])
        calls = (BATCHES_IN_FLIGHT, CALLS_IN_FLIGHT)
        print(home_table.text(home_table.rows(out["result"], calls, BATCH, peers)), file=sys.stderr)


if __name__ == "__main__":
    main()
