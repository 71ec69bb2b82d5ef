"""One neighbour floods a node with envelopes that do not verify; an honest one writes messages meanwhile.

Prints how fast the flood was cut off, what the honest neighbour's messages took before, during and after it, and how
many of its messages were lost (none may be).

    python -m bench.flood [--count 300]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.integration.attacker import Attacker

from quicprochat.core.address import Address
from quicprochat.core.errors import UnavailableError
from quicprochat.core.link import FrameType, frame
from quicprochat.core.receipt import State
from quicprochat.p2p import Options, P2pNode

BATCH = 64


async def attack(ticket: str) -> None:
    """Send bad envelopes as fast as the link takes them; say when the link is cut."""
    from quicprochat.core.identity import Ticket

    target = Ticket.parse(ticket)
    async with Attacker() as attacker:
        connection = await attacker.endpoint.connect(target.key, [(a.ip, a.port) for a in target.addresses], None, 5)
        stream = await connection.stream(5)
        await stream.write(frame(FrameType.HELLO, attacker.hello().encode()))
        bad = frame(FrameType.ENVELOPE, attacker.forged(target.key)) * BATCH
        start, sent = time.perf_counter(), 0
        try:
            while time.perf_counter() - start < 20:
                await stream.write(bad)
                sent += BATCH
        except UnavailableError:
            pass
        print(json.dumps({"cut_off_s": time.perf_counter() - start, "sent": sent}), flush=True)


async def serve(home: str, friend: str) -> None:
    async with P2pNode(Options(Path(home), bind=Address("127.0.0.1", 47201))) as node:
        await node.add(friend, "honest")
        print(json.dumps({"ticket": str(node.ticket())}), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        print(json.dumps({"delivered": (await node.store_view()).delivered}), flush=True)


async def measure(base: str, count: int) -> dict[str, object]:
    async with P2pNode(Options(Path(base, "honest"), bind=Address("127.0.0.1", 47202))) as node:
        victim = subprocess.Popen(
            [sys.executable, "-m", "bench.flood", "--serve", f"{base}/victim", "--friend", node.key.hex()],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert victim.stdout is not None
        assert victim.stdin is not None
        ticket = json.loads(victim.stdout.readline())["ticket"]
        peer = await node.add(ticket, "victim")
        await node.wait_linked(peer.key, 10)

        async def talk(until: asyncio.Task[int] | None = None) -> list[float]:
            took: list[float] = []
            while len(took) < count or (until is not None and not until.done()):
                start = time.perf_counter()
                sent = await node.send(peer.key, "x" * 300)
                await node.wait(sent.uid, State.DELIVERED, 30)
                took.append((time.perf_counter() - start) * 1e3)
            return took

        quiet = await talk()
        flood = subprocess.Popen(
            [sys.executable, "-m", "bench.flood", "--attack", ticket], stdout=subprocess.PIPE, text=True
        )
        during = await talk(asyncio.create_task(asyncio.to_thread(flood.wait)))
        assert flood.stdout is not None
        report = json.loads(flood.stdout.readline())
        victim.stdin.write("\n")
        victim.stdin.flush()
        delivered = json.loads(victim.stdout.readline())["delivered"]
        victim.wait(10)
    return {
        "bench": "flood",
        "quiet_ms": summary(quiet),
        "during_ms": summary(during),
        "honest_sent": len(quiet) + len(during),
        "honest_lost": len(quiet) + len(during) - delivered,
        **report,
    }


def summary(took: list[float]) -> dict[str, float]:
    took = sorted(took)
    return {
        "p50": round(statistics.median(took), 2),
        "p99": round(took[int(0.99 * len(took))], 2),
        "max": round(took[-1], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--friend", help=argparse.SUPPRESS)
    parser.add_argument("--attack", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.serve:
        return asyncio.run(serve(a.serve, a.friend))
    if a.attack:
        return asyncio.run(attack(a.attack))
    with tempfile.TemporaryDirectory() as base:
        os.mkdir(f"{base}/victim", 0o700)
        print(json.dumps(asyncio.run(measure(base, a.count)), indent=2))
    return None


if __name__ == "__main__":
    main()
