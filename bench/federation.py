"""Two villages' home servers, and people at them: how fast and how soon mail gets from one domain into the other.

Servers and people are processes of their own; servers prove themselves by real certificates. What is answered is
verified and synced (synchronous=FULL), at each server and at both people.

    python -m bench.federation [servers people waiting beside] [--runs 3] [--count N] [--peer CMD]

``servers``: envelopes made beforehand go to the first server in batches of 64; the clock stops when the second has
stored all. ``people``: nodes that seal, send, open, store and confirm; all four processes share two cores. ``waiting``:
what waited for a domain that was down for long leaves when it is back, beside single messages to a third domain.
``beside``: such messages while one domain is down and its mail piles up, while it is up and mail flows, and in
between.
``--peer`` runs another system's benchmark (any command that prints one line of JSON with ``bench`` and ``result``)
before and after ours, and prints a table of both to standard error.
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
import time
from functools import partial
from typing import Any

from bench import federation_table
from bench.federation_others import beside, waiting
from bench.federation_parts import processor
from bench.federation_villages import HERE, THERE, Author, villages
from bench.home_parts import Correspondence, session
from bench.home_server import BATCH, BATCHES_IN_FLIGHT, in_flight
from bench.limits import verify_us

from quicprochat.adapters import rpc
from quicprochat.core.gate import Verdict

CORES = 2

Result = dict[str, float]


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
        for domain in (THERE, HERE):  # whoever greets is known there already
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


PARTS = {"servers": servers, "people": people, "waiting": waiting, "beside": beside}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all of them without any")
    parser.add_argument("--count", type=int, default=20_000, help="envelopes from server to server")
    parser.add_argument("--messages", type=int, default=5_000, help="messages from person to person")
    parser.add_argument("--window", type=int, default=512, help="messages on their way at once")
    parser.add_argument("--latency", type=int, default=300, help="messages sent one at a time")
    parser.add_argument("--waiting", type=int, default=100_000, help="envelopes that wait for the domain that was down")
    parser.add_argument("--probe", type=float, default=15.0, help="seconds of single messages before and after that")
    parser.add_argument("--load", type=int, default=500, help="envelopes a second to the domain that is down, or busy")
    parser.add_argument("--profile", metavar="DIR", help="write a profile (cProfile) of each process there")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dir", default=None, help="where the homes are made; put it on the disk to be measured")
    parser.add_argument("--peer", help="another system's benchmark, run in the same run")
    a = parser.parse_args()
    if unknown := set(a.parts) - PARTS.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    if a.profile:
        os.environ["BENCH_PROFILE_DIR"] = a.profile  # read by each process that is started
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
        return found | {"verify_us": verify_us()}

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
