"""Contact traces: who was near whom, in intervals of twenty seconds, and the messages people write meanwhile.

One line for each pair and interval, ``t i j`` and whatever follows, separated by blanks; the pair was in contact during
[t - 20, t). Plain or gzip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from pathlib import Path

from quicprochat.console.text import display
from quicprochat.core.errors import LocalError
from quicprochat.sim.files import read

INTERVAL_S = 20

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Interval:
    """Pairs in contact from ``start`` on for twenty seconds, in the file's order."""

    start: int
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class Trace:
    """A contact trace; nodes are numbered in the order of their ids. Times in seconds, as in the file."""

    ids: tuple[int, ...]
    intervals: tuple[Interval, ...]

    @property
    def begin(self) -> int:
        """When the first contact begins."""
        return self.intervals[0].start

    @property
    def end(self) -> int:
        """When the last contact ends."""
        return self.intervals[-1].start + INTERVAL_S

    @property
    def encounters(self) -> int:
        """How many times a link comes up: runs of intervals in which a pair is in contact."""
        count, before, last = 0, frozenset[Pair](), 0
        for interval in self.intervals:
            now = frozenset(interval.pairs)
            count += len(now - before if interval.start == last + INTERVAL_S else now)
            before, last = now, interval.start
        return count


def read_trace(path: Path) -> Trace:
    """Read a trace. Raises: LocalError in one sentence for a file that is not one."""
    return parse_trace(read(path), display(str(path)))


def parse_trace(data: bytes, name: str) -> Trace:
    """Read the text of a trace; ``name`` is what errors call it. Raises: LocalError."""
    rows: list[tuple[int, int, int]] = []
    for number, line in enumerate(data.splitlines(), 1):
        words = line.split(maxsplit=3)
        if not words or words[0].startswith(b"#"):
            continue
        try:
            time, one, other = (int(word) for word in words[:3])
        except ValueError:
            raise LocalError(f"line {number} of {name} is not `t i j`; docs/simulator.md shows the format") from None
        if one == other:
            raise LocalError(f"line {number} of {name} says that {one} met itself")
        rows.append((time, one, other))
    if not rows:
        raise LocalError(f"{name} has no contacts in it")
    ids = tuple(sorted({id for _, one, other in rows for id in (one, other)}))
    place = {id: at for at, id in enumerate(ids)}
    rows.sort(key=lambda row: row[0])
    intervals = []
    for time, group in groupby(rows, key=lambda row: row[0]):
        pairs = dict.fromkeys(_pair(place[one], place[other]) for _, one, other in group)
        intervals.append(Interval(time - INTERVAL_S, tuple(pairs)))
    return Trace(ids, tuple(intervals))


def _pair(one: int, other: int) -> Pair:
    return (one, other) if one < other else (other, one)


@dataclass(frozen=True, slots=True)
class Written:
    """One message: from whom to whom (places in the trace's ids), and when."""

    number: int
    src: int
    dst: int
    created: int


def workload(trace: Trace, count: int, ttl_s: int, seed: str | None = None) -> tuple[Written, ...]:
    """Return the messages to send; without a seed those of the reference workload. Raises: LocalError.

    Message k takes everything from SHA-256 of k in decimal, or of the seed, a slash and k.
    """
    nodes = len(trace.ids)
    span = trace.end - trace.begin - ttl_s
    if span <= 0:
        raise LocalError(
            f"the trace spans {trace.end - trace.begin} s and a message lives {ttl_s} s; give a shorter --ttl"
        )
    out = []
    for number in range(count):
        text = str(number) if seed is None else f"{seed}/{number}"
        draw = sha256(text.encode()).digest()
        src = int.from_bytes(draw[:4], "big") % nodes
        dst = int.from_bytes(draw[4:8], "big") % (nodes - 1)
        created = trace.begin + int.from_bytes(draw[8:16], "big") % span
        out.append(Written(number, src, dst + (dst >= src), created))
    return tuple(out)


def by_time(messages: Sequence[Written]) -> list[Written]:
    """Return messages in the order in which they are written."""
    return sorted(messages, key=lambda one: (one.created, one.number))
