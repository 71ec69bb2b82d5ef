"""How many envelopes one relay process passes on each second, verified and stored; and how fast a chain of relays is.

``one``: a raw neighbour hands over envelopes signed beforehand, another, which announces a destination behind it,
takes and answers them; so what is measured is the relay alone: checking, storing with synchronous=FULL, passing on.
With ``--late 50`` the second answers after so many milliseconds: each envelope is then on the relay's disk before it is
let go of, while of what is answered at once only the id gets there.

``chain``: five whole nodes in a row; the first writes to the last, each message is sealed, stored by all and receipted.

    python -m bench.relay one [--count 40000] [--late MS]
    python -m bench.relay chain [--count 6000] [--latency 200] [--relays 3]

Beside ``chain``, the same with LXMF: ``rns_lxmf.py chain``. Compare ratios, not numbers: machines are noisy.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.hidden import Hidden
from bench.limits import verify_us
from bench.two_people import TEXT, hear, nudge, say
from tests.integration.attacker import Attacker

from quicprochat.adapters.crypto import Ed25519Signer, SodiumCrypto
from quicprochat.adapters.system import entropy
from quicprochat.core.address import Address
from quicprochat.core.envelope import Header, Kind, make
from quicprochat.core.gate import Verdict
from quicprochat.core.identity import Ticket
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.link import FrameType, Result, decode_results, encode_results, frame
from quicprochat.core.memory import MemoryStore
from quicprochat.core.receipt import State
from quicprochat.core.route import Routes
from quicprochat.core.time import Instant
from quicprochat.p2p import Options, P2pNode

WINDOW = 1_024
BATCH = 64
PAYLOAD_BYTES = 568
"""What a text of 300 bytes makes, sealed."""


def options(home: str) -> Options:
    return Options(Path(home), bind=Address("127.0.0.1", 0))


# --- one relay


async def relay(home: str, friends: list[str]) -> None:
    """Be the relay; what it used is said at the end."""
    async with P2pNode(options(home)) as node:
        for friend in friends:
            await node.add(friend)
        say(ticket=str(node.ticket()))
        await asyncio.to_thread(sys.stdin.readline)
        before = resource.getrusage(resource.RUSAGE_SELF)
        await asyncio.to_thread(sys.stdin.readline)
        after = resource.getrusage(resource.RUSAGE_SELF)
        view = await node.store_view()
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        say(cpu=used, left=view.messages, passed_on=view.passed_on, rss=after.ru_maxrss / 1024)


async def announce(sink: Attacker, node: PeerKey, destination: Ed25519Signer) -> None:
    """Let the sink say that the destination is behind it, as a node would."""
    crypto, now = SodiumCrypto(entropy), Instant(1_000)
    here, there = Routes(sink.signer, crypto), Routes(destination, crypto)
    for routes in (here, there):
        store = MemoryStore()
        store.begin()
        routes.start(store, now)
    here.link_up(destination.key, 1, b"", now)
    there.link_up(sink.signer.key, 1, b"", now)
    for _, _, body in there.due(now):
        here.received(destination.key, body, now)
    here.link_up(node, 1, b"", now)
    for peer, kind, body in here.due(now):
        if peer == node:
            await sink.say(kind, body)


async def feed(source: Attacker, frames: list[bytes], stored: asyncio.Event) -> None:
    """Hand everything over, never more at once than the window allows."""
    given = answered = 0
    while answered < len(frames):
        while given < len(frames) and given - answered <= WINDOW - BATCH:
            await source.stream.write(b"".join(frames[given : given + BATCH]))
            given = min(len(frames), given + BATCH)
        kind, body = await source.hear()
        if kind == FrameType.PING:
            await source.say(FrameType.PONG)
        elif kind == FrameType.RESULTS:
            results = decode_results(body)
            assert all(r.verdict is Verdict.STORED for r in results), results[0]
            answered += len(results)
    stored.set()


async def drain(sink: Attacker, count: int, late_s: float) -> set[EnvelopeId]:
    """Take everything, and answer it so much later."""
    seen: set[EnvelopeId] = set()
    pending: list[Result] = []
    answers: set[asyncio.Task[None]] = set()

    async def answer(results: list[Result]) -> None:
        await asyncio.sleep(late_s)
        await sink.stream.write(frame(FrameType.RESULTS, encode_results(results)))

    while len(seen) < count:
        kind, body = await sink.hear()
        if kind == FrameType.PING:
            await sink.say(FrameType.PONG)
        elif kind == FrameType.ENVELOPE:
            id = IDS[body[:134]]
            assert id not in seen, "passed on twice"
            assert body[198] == 1, "the hop was not counted"
            seen.add(id)
            pending.append(Result(id, Verdict.STORED))
            if len(pending) == BATCH or not sink._frames:
                answers.add(task := asyncio.create_task(answer(pending)))
                task.add_done_callback(answers.discard)
                pending = []
    await asyncio.gather(*answers)
    return seen


IDS: dict[bytes, EnvelopeId] = {}


async def one(count: int, late_ms: int) -> dict[str, Any]:
    destination, author = Ed25519Signer(os.urandom(32)), Ed25519Signer(os.urandom(32))
    frames = []
    for _ in range(count):
        payload = os.urandom(PAYLOAD_BYTES)
        envelope = make(Header(Kind.MESSAGE, author.key, destination.key, os.urandom(16)), payload, author)
        wire = envelope.wire()
        IDS[wire[:134]] = envelope.id
        frames.append(frame(FrameType.ENVELOPE, wire))
    with tempfile.TemporaryDirectory() as base:
        async with Attacker() as source, Attacker() as sink:
            keys = [source.signer.key.hex(), sink.signer.key.hex()]
            command = [sys.executable, "-m", "bench.relay", "--role", "relay", f"{base}/relay", *keys]
            if profile := os.environ.get("BENCH_PROFILE"):
                command[1:2] = ["-m", "cProfile", "-o", profile, "-m"]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            target = Ticket.parse(await asyncio.to_thread(lambda: hear(process)["ticket"]))
            for neighbour in (source, sink):
                at = [(a.ip, a.port) for a in target.addresses if a.ip == "127.0.0.1"] or [
                    (a.ip, a.port) for a in target.addresses
                ]
                neighbour.connection = await neighbour.endpoint.connect(target.key, at, None, 5)
                neighbour.stream = await neighbour.connection.stream(5)
                await neighbour.say(FrameType.HELLO, neighbour.hello().encode())
                while (await neighbour.hear())[0] != FrameType.HELLO:
                    pass
            await announce(sink, target.key, destination)
            await asyncio.sleep(1)
            nudge(process)
            await asyncio.sleep(0.2)
            start, stored = time.perf_counter(), asyncio.Event()
            async with asyncio.timeout(240):
                feeding = asyncio.create_task(feed(source, frames, stored))
                await drain(sink, count, late_ms / 1_000)
                took = time.perf_counter() - start
                await feeding
            await asyncio.sleep(1)
            nudge(process)
            used = await asyncio.to_thread(hear, process)
            process.wait(20)
    return {"envelopes": count, "per_s": round(count / took), "cpu_us_each": round(used["cpu"] / count * 1e6), **used}


# --- a chain


async def link(home: str, index: int, last: int, following: str, count: int, latency: int, window: int) -> None:
    """Be one node of the chain: the last one reads, the first one writes, the others do nothing by hand."""
    async with (node := Hidden(options(home))):
        if following:
            peer = await node.add(following, "next")
            await node.wait_linked(peer.key, 20)
        say(where=node.where(), key=node.key.hex())
        began = time.process_time()
        if index == last:
            await node.add(json.loads(await asyncio.to_thread(sys.stdin.readline))["author"], "author")
            delays: list[int] = []
            async for line in node.listen():
                delays.append(time.monotonic_ns() - int(line.text.split(" ", 1)[0]))
                if len(delays) == latency:
                    break
            say(delays=delays)
        elif index == 0:
            to = PeerKey(bytes.fromhex(json.loads(await asyncio.to_thread(sys.stdin.readline))["to"]))
            while not any(view.destination == to for view in node.routes()):
                await asyncio.sleep(0.05)
            await asyncio.sleep(1)  # for the record, so that the first message is not sealed twice
            for _ in range(latency):
                sent = await node.send(to, f"{time.monotonic_ns()} {TEXT}"[:300])
                await node.wait(sent.uid, State.DELIVERED, 20)
            room = asyncio.Semaphore(window)

            async def send() -> None:
                async with room:
                    sent = await node.send(to, f"0 {TEXT}"[:300])
                    await node.wait(sent.uid, State.DELIVERED, 120)

            start = time.perf_counter()
            await asyncio.gather(*(send() for _ in range(count)))
            say(seconds=time.perf_counter() - start)
        await asyncio.to_thread(sys.stdin.readline)
        say(cpu=time.process_time() - began, passed_on=(await node.store_view()).passed_on)


def profiling(index: int) -> list[str]:
    """Return what runs the node of that number under the profiler, if BENCH_PROFILE_n names a file for it."""
    profile = os.environ.get(f"BENCH_PROFILE_{index}")
    return ["-m", "cProfile", "-o", profile] if profile else []


def chain(count: int, latency: int, relays: int, window: int) -> dict[str, Any]:
    last = relays + 1
    with tempfile.TemporaryDirectory() as base:
        processes: dict[int, subprocess.Popen[str]] = {}
        said: dict[int, dict[str, Any]] = {}
        for index in range(last, -1, -1):
            following = said[index + 1]["where"] if index < last else ""
            args = map(str, (f"{base}/{index}", index, last, following, count, latency, window))
            processes[index] = subprocess.Popen(
                [sys.executable, *profiling(index), "-m", "bench.relay", "--role", "link", *args],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            said[index] = hear(processes[index])
        for index, word in ((last, {"author": said[0]["key"]}), (0, {"to": said[last]["key"]})):
            pipe = processes[index].stdin
            assert pipe is not None
            pipe.write(json.dumps(word) + "\n")
            pipe.flush()
        delays = sorted(delay / 1e6 for delay in hear(processes[last])["delays"])
        seconds = hear(processes[0])["seconds"]
        used = {}
        for index, process in processes.items():
            nudge(process)
            used[index] = hear(process)
            process.wait(20)
    return {
        "relays": relays, "messages": count, "per_s": round(count / seconds),
        "p50_ms": round(statistics.median(delays), 2), "p99_ms": round(delays[int(len(delays) * 0.99)], 2),
        "passed_on": [used[index]["passed_on"] for index in range(1, last)],
        "cpu_us_each": [round(used[index]["cpu"] / (count + latency) * 1e6) for index in range(last + 1)],
    }  # fmt: skip


def main() -> None:
    if sys.argv[1:2] == ["--role"]:
        role, home, *rest = sys.argv[2:]
        if role == "relay":
            asyncio.run(relay(home, rest))
        else:
            index, last, following, *numbers = rest
            asyncio.run(link(home, int(index), int(last), following, *map(int, numbers)))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("one", "chain"))
    parser.add_argument("--count", type=int)
    parser.add_argument("--late", type=int, default=0, metavar="MS")
    parser.add_argument("--latency", type=int, default=200)
    parser.add_argument("--relays", type=int, default=3)
    parser.add_argument("--window", type=int, default=512)
    given = parser.parse_args()
    if given.what == "one":
        found = asyncio.run(one(given.count or 40_000, given.late))
    else:
        found = chain(given.count or 6_000, given.latency, given.relays, given.window)
    print(json.dumps({**found, "load": os.getloadavg()[0], "verify_us": round(verify_us(), 1)}))


if __name__ == "__main__":
    main()
