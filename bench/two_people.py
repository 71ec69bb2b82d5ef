"""Two processes, one link: how fast 300-byte messages get from the author's call into the recipient's inbox.

Every message is sealed, signed, stored with synchronous=FULL on both sides and receipted in batches. Beside it, in the
same run, the limits of the machine: what one core does of the cryptography alone, and what SQLite does of bare synced
rows. Compare ratios, not numbers: machines are noisy.

    python -m bench.two_people [--count 10000] [--window 512] [--latency 300] [--runs 3] [--peer CMD]

``--peer`` runs another system's benchmark (any command that prints one line of JSON) before and after ours.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.limits import crypto_limits, store_limits

TEXT = ("The quick brown fox jumps over the lazy dog. " * 7)[:300]


def options(home: str, ephemeral: bool) -> Any:
    from quicprochat.core.address import Address
    from quicprochat.p2p import Options

    bind = Address(os.environ["BENCH_IP"], int(os.environ["BENCH_PORT"]))
    return Options(Path(home), bind=bind, relay=os.environ.get("BENCH_RELAY", ""), ephemeral=ephemeral)


def say(**event: Any) -> None:
    print(json.dumps(event), flush=True)


async def receive(home: str, friend: str, count: int, latency: int, ephemeral: bool) -> None:
    """Take ``latency`` messages one by one and note the delay of each; then ``count`` as fast as they come."""
    from quicprochat.p2p import P2pNode

    async with P2pNode(options(home, ephemeral)) as node:
        if friend:
            await node.add(friend, "friend")
        say(ticket=str(node.ticket()))
        delays: list[int] = []
        async for line in node.listen():
            delays.append(time.monotonic_ns() - int(line.text.split(" ", 1)[0]))
            say(got=len(delays))
            if len(delays) == latency:
                break
        say(delays=delays, rss=rss())
        before = time.process_time()
        while (await node.store_view()).delivered < latency + count:
            await asyncio.sleep(0.02)
        say(cpu=time.process_time() - before, rss=rss())
        await asyncio.to_thread(sys.stdin.readline)


async def send(home: str, friend: str, count: int, latency: int, window: int, ephemeral: bool) -> None:
    from quicprochat.core.identity import Ticket
    from quicprochat.core.receipt import State
    from quicprochat.p2p import P2pNode

    to = Ticket.parse(friend).key
    async with P2pNode(options(home, ephemeral)) as node:
        await node.add(friend, "friend")
        await node.wait_linked(to, 10)
        say(linked=True)
        for _ in range(latency):
            await asyncio.to_thread(sys.stdin.readline)
            sent = await node.send(to, f"{time.monotonic_ns()} {TEXT}"[:300])
            await node.wait(sent.uid, State.DELIVERED, 10)
        await asyncio.to_thread(sys.stdin.readline)
        room = asyncio.Semaphore(window)
        text = f"0 {TEXT}"[:300]

        async def one() -> None:
            async with room:
                sent = await node.send(to, text)
                await node.wait(sent.uid, State.DELIVERED, 120)

        before, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(one() for _ in range(count)))
        say(seconds=time.perf_counter() - before, cpu=time.process_time() - cpu, rss=rss())


def rss() -> float:
    """Return this process's resident memory in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


@dataclass(frozen=True)
class Place:
    """Where a role runs: its address, and what is written before its command, as in ``ip netns exec NAME``."""

    ip: str = "127.0.0.1"
    before: tuple[str, ...] = ()


def start(role: str, port: int, place: Place, *args: object) -> subprocess.Popen[str]:
    command = [*place.before, sys.executable, "-m", "bench.two_people", "--role", role, *map(str, args)]
    env = {**os.environ, "BENCH_PORT": str(port), "BENCH_IP": place.ip}
    if profile := os.environ.get(f"BENCH_PROFILE_{role.upper()}"):
        command[1:2] = ["-m", "cProfile", "-o", profile, "-m"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)


def hear(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit("a worker ended early")
    return dict(json.loads(line))


def nudge(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def run(a: argparse.Namespace, here: Place = Place(), there: Place = Place()) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=a.dir) as base:
        flags = ["--ephemeral"] if a.ephemeral else []
        common = ["--count", a.count, "--latency", a.latency, "--window", a.window, *flags]
        made = subprocess.run(
            [sys.executable, "-m", "bench.two_people", "--role", "key", "--home", f"{base}/a"],
            capture_output=True,
            text=True,
            check=True,
        )
        rx = start("receive", 47101, there, "--home", f"{base}/b", "--friend", made.stdout.strip(), *common)
        tx = start("send", 47102, here, "--home", f"{base}/a", "--friend", hear(rx)["ticket"], *common)
        try:
            hear(tx)
            for _ in range(a.latency):
                nudge(tx)
                hear(rx)
            report = hear(rx)
            nudge(tx)
            result = hear(tx)
            receiver = hear(rx)
            nudge(rx)
            tx.wait(10)
            rx.wait(10)
        finally:
            for process in (tx, rx):
                process.kill()
                process.wait()
    delays = sorted(d / 1e6 for d in report["delays"][a.latency // 10 :])
    return {
        "messages_s": a.count / result["seconds"],
        "p50_ms": statistics.median(delays),
        "p99_ms": delays[int(0.99 * len(delays))],
        "sender_cpu_us": 1e6 * result["cpu"] / a.count,
        "recipient_cpu_us": 1e6 * receiver["cpu"] / a.count,
        "sender_rss_mb": result["rss"],
        "recipient_rss_mb": receiver["rss"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--window", type=int, default=512, help="messages under way at once")
    parser.add_argument("--latency", type=int, default=300, help="messages sent one at a time")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--ephemeral", action="store_true", help="nothing is stored on disk")
    parser.add_argument("--dir", default=None, help="where the homes are made; put it on the disk to be measured")
    parser.add_argument("--peer", help="another system's benchmark, run in the same run")
    parser.add_argument("--role", help=argparse.SUPPRESS)
    parser.add_argument("--home", help=argparse.SUPPRESS)
    parser.add_argument("--friend", default="", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.role == "receive":
        return asyncio.run(receive(a.home, a.friend, a.count, a.latency, a.ephemeral))
    if a.role == "send":
        return asyncio.run(send(a.home, a.friend, a.count, a.latency, a.window, a.ephemeral))
    if a.role == "key":
        return make_key(a.home)
    out: dict[str, Any] = {"bench": "two_people", "count": a.count, "window": a.window, "ephemeral": a.ephemeral}
    if a.peer:
        out["peer"] = json.loads(subprocess.run(shlex.split(a.peer), capture_output=True, text=True, check=True).stdout)
    out["limits"] = {**crypto_limits(TEXT), **store_limits(a.dir)}
    runs = [run(a) for _ in range(a.runs)]
    out["result"] = {key: round(statistics.median(r[key] for r in runs), 3) for key in runs[0]}
    out["of_crypto_limit"] = round(out["result"]["messages_s"] / out["limits"]["two_process_messages_s"], 3)
    print(json.dumps(out, indent=2))
    return None


def make_key(home: str) -> None:
    """Make an identity in a home and print its key, so that the recipient can know its author beforehand."""
    from quicprochat.adapters.crypto import SodiumCrypto
    from quicprochat.adapters.home import Home
    from quicprochat.adapters.system import entropy
    from quicprochat.p2p.book import AddressBook

    print(AddressBook(Home(Path(home)).identity, SodiumCrypto(entropy), entropy).identity.key.hex())


if __name__ == "__main__":
    main()
