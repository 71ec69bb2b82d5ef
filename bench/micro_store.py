"""What the store costs per message, beside one bare table in the same library, in the same run.

    python -m bench.micro_store [--messages N] [--dir DIR] [--filled N] [--memory] [--profile PHASE]

prints one JSON object. Times are microseconds per message: ``steps`` is the time in the store's methods, ``commit``
that of the commit with its fsync, both the median over all transactions of that size; ``cpu`` is what both together
took of the processor, the mean over all, and hardly minds other load. ``filled`` puts that many ids into the dedup
table first, as an old node has.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import hashlib
import json
import os
import pstats
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import apsw

from quicprochat.adapters.sqlite import SqliteStore
from quicprochat.core.envelope import Header, MeshEnvelope, make
from quicprochat.core.ids import Label, PeerKey, Uid
from quicprochat.core.memory import MemoryStore
from quicprochat.core.receipt import State
from quicprochat.core.seal import Protection
from quicprochat.core.store import Fate, Held, Line, LineKind, MeshStore, Sent, TraceEvent
from quicprochat.core.time import DAY_MS, Instant, WallTime

SIZES = (1, 16, 64, 256)
TEXT = "A message of ordinary length, as people write them when they tell each other where to meet. " * 3
PAYLOAD_BYTES = 568
"""What 300 bytes of text make, padded and sealed."""


class _NoSigner:
    key = PeerKey(b"s" * 32)

    def sign(self, label: Label, message: bytes) -> bytes:
        return hashlib.sha512(message).digest()


class Message:
    """Everything one message needs, made before the clock runs."""

    __slots__ = ("envelope", "held", "line", "note", "sent", "trace", "uid")

    def __init__(self, rng: random.Random, number: int, peers: list[PeerKey]) -> None:
        peer = peers[number % len(peers)]
        header = Header(1, _NoSigner.key, peer, rng.randbytes(16))
        envelope: MeshEnvelope = make(header, rng.randbytes(PAYLOAD_BYTES), _NoSigner())
        now, wall = Instant(1_000_000 + number), WallTime(1_800_000_000_000 + number)
        expires = Instant(now + 7 * DAY_MS)
        self.uid = Uid(rng.randbytes(16))
        self.envelope = envelope
        self.held = Held(envelope.id, 1, envelope.src, envelope.dst, b"", envelope.wire(), now, expires)
        self.sent = Sent(
            self.uid, peer, TEXT, wall, expires, 7 * 86_400, State.QUEUED, Protection.PREKEY, envelope.id
        )  # fmt: skip
        self.trace = TraceEvent(wall, "delivered", peer.hex())
        self.note = Line(LineKind.RECEIPT, peer, self.uid, wall, state="delivered")
        self.line = Line(LineKind.MESSAGE, peer, self.uid, wall, TEXT, 2, Protection.PREKEY.value, domain="example.org")


def send(store: MeshStore, message: Message) -> None:
    """The sender's rows when a message is written."""
    store.hold(message.held)
    store.remember(message.envelope.id, Fate.HELD, Instant(message.held.stored_at + 15 * DAY_MS))
    store.put_sent(message.sent)


def confirm(store: MeshStore, message: Message) -> None:
    """The sender's rows when its receipt comes."""
    sent = store.sent_of(message.envelope.id)
    assert sent is not None
    store.set_state(sent.uid, State.DELIVERED, "")
    store.release(message.envelope.id)
    store.remember(message.envelope.id, Fate.GONE, Instant(message.held.stored_at + 16 * DAY_MS))
    store.add_trace(sent.uid, message.trace)
    store.note(message.note)


def receive(store: MeshStore, message: Message) -> None:
    """The recipient's rows."""
    assert store.fate(message.envelope.id) is None
    assert store.deliver(message.line) is not None
    store.remember(message.envelope.id, Fate.DELIVERED, None)


def carry(store: MeshStore, message: Message) -> None:
    """A carrier's rows: somebody else's mail."""
    assert store.fate(message.envelope.id) is None
    store.hold(replace(message.held, via=b"v" * 32))
    store.remember(message.envelope.id, Fate.HELD, Instant(message.held.stored_at + 15 * DAY_MS))


def read_back(store: MeshStore, message: Message) -> None:
    """A carried envelope on its way out: read, checked, let go."""
    assert store.held(message.envelope.id) is not None
    store.release(message.envelope.id)


PHASES: dict[str, Callable[[MeshStore, Message], None]] = {
    "send": send, "confirm": confirm, "receive": receive, "carry": carry, "read_back": read_back,
}  # fmt: skip


class Bare:
    """The raw limit: one table, one prepared INSERT, the same transaction sizes and settings."""

    def __init__(self, path: Path) -> None:
        self.db = apsw.Connection(str(path))
        self.sql = self.db.cursor()
        for pragma in ("locking_mode=exclusive", "journal_mode=wal", "synchronous=full"):
            self.db.execute(f"PRAGMA {pragma}")
        self.db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, data BLOB)")

    def begin(self) -> None:
        self.sql.execute("BEGIN IMMEDIATE")

    def insert(self, data: bytes) -> None:
        self.sql.execute("INSERT INTO t VALUES (NULL, ?)", (data,))

    def commit(self) -> None:
        self.sql.execute("COMMIT")

    def close(self) -> None:
        self.db.close()


def measure(
    begin: Callable[[], None], commit: Callable[[], None], act: Callable[[Any], None], items: list[Any], size: int
) -> dict[str, float]:
    clock = time.perf_counter
    steps, commits = [], []
    whole, cpu = clock(), time.thread_time()
    for first in range(0, len(items) - size + 1, size):
        batch = items[first : first + size]
        start = clock()
        begin()
        for item in batch:
            act(item)
        middle = clock()
        commit()
        end = clock()
        steps.append((middle - start) / size)
        commits.append((end - middle) / size)
    whole, cpu = clock() - whole, time.thread_time() - cpu
    return {
        "steps_us": round(statistics.median(steps) * 1e6, 2),
        "commit_us": round(statistics.median(commits) * 1e6, 2),
        "cpu_us": round(cpu / (len(steps) * size) * 1e6, 2),
        "per_second": round(len(steps) * size / whole),
    }


@contextmanager
def profiled(name: str, wanted: str | None) -> Iterator[None]:
    if name != wanted:
        yield
        return
    with cProfile.Profile() as profile:
        yield
    pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(16)


def run(directory: Path, messages: int, filled: int, memory: bool, profile: str | None) -> dict[str, Any]:
    results: dict[str, Any] = {"messages": messages, "filled": filled, "sizes": {}}
    rng = random.Random(5)
    peers = [PeerKey(rng.randbytes(32)) for _ in range(20)]
    for size in SIZES:
        count = max(size * 8, min(messages, size * 200)) // size * size
        made = [Message(rng, number, peers) for number in range(count)]
        row: dict[str, Any] = {}
        bare = Bare(directory / f"bare{size}.db")
        wires = [message.held.wire for message in made]
        gc.disable()
        row["raw"] = measure(bare.begin, bare.commit, bare.insert, wires, size)
        bare.close()
        store: MeshStore = MemoryStore(durable=True) if memory else SqliteStore.open(directory / f"store{size}.db")
        fill(store, filled, rng)
        for name, phase in PHASES.items():
            if name in ("receive", "carry"):
                made = [Message(rng, number, peers) for number in range(count)]
            with profiled(f"{name}{size}", profile):
                row[name] = measure(store.begin, store.commit, partial(phase, store), made, size)
        start = time.perf_counter()
        store.close()
        row["close_ms"] = round((time.perf_counter() - start) * 1e3, 1)
        gc.enable()
        results["sizes"][str(size)] = row
    return results


def fill(store: MeshStore, ids: int, rng: random.Random) -> None:
    for first in range(0, ids, 20_000):
        store.begin()
        for number in range(first, min(ids, first + 20_000)):
            store.remember(rng.randbytes(32), Fate.GONE, Instant(number))  # type: ignore[arg-type]
        store.commit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--messages", type=int, default=6_400)
    parser.add_argument("--filled", type=int, default=0)
    parser.add_argument(
        "--dir", type=Path, help="where the files lie while measuring (default: the temporary directory)"
    )
    parser.add_argument("--memory", action="store_true", help="measure MemoryStore instead")
    parser.add_argument("--profile", metavar="PHASE", help="profile one phase and size to stderr, for instance send64")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(dir=options.dir, prefix="qpc-bench-"))
    try:
        results = run(directory, options.messages, options.filled, options.memory, options.profile)
    finally:
        shutil.rmtree(directory)
    print(
        json.dumps(
            {"bench": "micro_store", "sqlite": apsw.sqlite_lib_version(), "cpus": os.cpu_count(), **results}, indent=1
        )
    )


if __name__ == "__main__":
    main()
