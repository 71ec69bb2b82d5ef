"""Carrying: what comparing two big sets costs, and the memory of thousands of nodes that carry.

python -m bench.carrying [--nodes N] [--messages N]

Nodes and messages are those of one simulator process, where the nodes share the ids and keys.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from hashlib import sha256

from quicprochat.core.carry import Carry
from quicprochat.core.entries import Entry, EntrySet, entry_of
from quicprochat.core.envelope import Kind
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.reconcile import Ranges, Reconciler
from quicprochat.core.shelf import Parcel
from quicprochat.core.time import Instant
from quicprochat.sim.crypto import SimEntropy

END = Instant(10**12)
ENTRIES = 10_000
DIFFERENT = 20
SALT = bytes(16)
FRAME_BYTES = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--messages", type=int, default=1_000, help="of others, in each node's store")
    args = parser.parse_args()
    every = [_entry(number) for number in range(ENTRIES)]
    scattered = set(every[:: ENTRIES // DIFFERENT])
    report = {
        "equal": _compared(every, every),
        "recent": _compared(every, every[:-DIFFERENT]),
        "scattered": _compared(every, [entry for entry in every if entry not in scattered]),
        "memory": _memory(args.nodes, args.messages),
    }
    print(json.dumps({"carrying": report}))


def _entry(number: int) -> Entry:
    return entry_of(1_780_000_000_000 + 60_000 * number, EnvelopeId(sha256(b"%d" % number).digest()))


def _compared(mine: list[Entry], theirs: list[Entry]) -> dict[str, float]:
    """Return bytes with frame headers, round trips, and milliseconds of both sides together."""
    sets = EntrySet(), EntrySet()
    for held, entries in zip(sets, (mine, theirs), strict=True):
        for entry in entries:
            held.add(entry, END)
    began = time.perf_counter()
    sides = [Reconciler(held, SALT) for held in sets]
    frame: Ranges | None = sides[0].begin(SALT)
    frames = size = 0
    while frame is not None:
        body = frame.encode()
        frames += 1
        size += len(body) + FRAME_BYTES
        frame = sides[frames % 2].heard(Ranges.decode(body)).reply
    return {"bytes": size, "round_trips": frames / 2, "ms": round((time.perf_counter() - began) * 1_000, 2)}


def _memory(nodes: int, messages: int) -> dict[str, float]:
    keys = [PeerKey(sha256(b"node %d" % number).digest()) for number in range(nodes)]
    mail = [(_entry(number), keys[number % nodes], keys[(number * 7 + 1) % nodes]) for number in range(messages)]
    began, carriers = time.perf_counter(), []
    for number, key in enumerate(keys):
        carriers.append(carry := Carry(key, SimEntropy(key)))
        via = keys[number - 1]
        for entry, src, dst in mail:
            carry.hold(Parcel(entry, Kind.MESSAGE, src, dst, 775, via, END), Instant(0))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1_024
    seconds = time.perf_counter() - began
    return {"nodes": len(carriers), "messages_in_each": messages, "peak_gib": round(peak / 2**30, 2),
            "us_per_message_held": round(seconds / nodes / messages * 1e6, 2)}  # fmt: skip


if __name__ == "__main__":
    main()
