"""Range-based set reconciliation (A. Meyer, "Range-Based Set Reconciliation", 2022): what does each side lack?

Both sides sort their entries alike (``entries.py``). A frame cuts that order into ranges and says of each a
fingerprint, or, when it has few entries, their short names. Whoever gets a fingerprint that is not its own answers with
finer ranges; whoever gets a list knows what the other lacks and answers which names it lacks itself. So equal sets cost
one fingerprint, and a difference costs the logarithm of what is around it.

    RANGES = step 1 | salt 16 (only when step is 0) | count 2 | count * range
    range  = mode 2 bits, shared 6 bits | more 1 | suffix | content
    content: SAME empty | FINGERPRINT 8 | LIST count 2, count * 8 | LACK count 2, count * 8

A range reaches from the end of the one before up to its bound: ``shared`` bytes of the bound before it and then the
suffix; the bound without a byte is the end of everything. What no range reaches is settled. Fingerprints and names are
hashes under a salt that the first frame brings, so nobody else can make envelopes beforehand that collide.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import NamedTuple

from quicprochat.core.entries import ENTRY_BYTES, Entry, EntrySet
from quicprochat.core.errors import WireError
from quicprochat.core.ids import Label, domain
from quicprochat.core.wire import Reader

SALT_BYTES = 16
NAME_BYTES = 8
"""Two of 10,000 entries share a name under one salt with a chance of 1 in 10^11; then one waits for the next link."""
LIST_MAX = 24
"""Ranges of so few entries are listed; more are cut further."""
PARTS, PARTS_WIDE = 6, 32
WIDE = 512
"""A wide range is cut into many parts at once, which saves a round trip; a narrow one into few, which saves bytes."""
REPLY_MAX_BYTES = 16 * 1024
"""Beyond that the older ranges are repeated unanswered: a short encounter should begin to hand over soon."""
STEPS_MAX = 32
"""Frames in one reconciliation; what differs then still, the next link finds."""
RANGES_MAX = 8_192
RANGE_BYTES = 16
"""What a range takes at most times: its bound, cut short, and a fingerprint."""

_EVERYTHING = b""


class Mode(IntEnum):
    """What a range says."""

    SAME = 0
    FINGERPRINT = 1
    LIST = 2
    LACK = 3
    """Names that a LIST had and the sender of this has not."""


_MODES = tuple(Mode)


class Range(NamedTuple):
    """The entries below ``upper`` that no range before took; ``upper`` empty means all that are left."""

    upper: bytes
    mode: Mode
    fingerprint: bytes = b""
    names: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Ranges:
    """One frame of a reconciliation."""

    step: int
    ranges: tuple[Range, ...]
    salt: bytes = b""

    @property
    def asks(self) -> bool:
        """Say whether this frame wants an answer; one that does not is the last."""
        return any(part.mode in (Mode.FINGERPRINT, Mode.LIST) for part in self.ranges)

    def encode(self) -> bytes:
        """Return the body of a RANGES frame."""
        out = [bytes([self.step]), self.salt, len(self.ranges).to_bytes(2, "big")]
        before = _EVERYTHING
        for upper, mode, fingerprint, names in self.ranges:
            shared = _shared(before, upper)
            out.append(bytes((mode << 6 | shared, len(upper) - shared)) + upper[shared:] + fingerprint)
            if mode >= Mode.LIST:
                out.append(len(names).to_bytes(2, "big") + b"".join(names))
            before = upper
        return b"".join(out)

    @classmethod
    def decode(cls, body: bytes) -> Ranges:
        """Read a RANGES frame. Raises: WireError."""
        reader = Reader(body, "a reconciliation")
        if (step := reader.uint(1)) >= STEPS_MAX:
            raise WireError(f"step {step} of a reconciliation; {STEPS_MAX} are allowed")
        salt = b"" if step else reader.take(SALT_BYTES)
        if (count := reader.uint(2)) > RANGES_MAX:
            raise WireError(f"a reconciliation with {count} ranges; {RANGES_MAX} are allowed")
        return cls(step, _read_ranges(reader.rest(), count), salt)


def _read_ranges(data: bytes, count: int) -> tuple[Range, ...]:
    """Read all ranges of a frame. By hand and not with a Reader: most of a reconciliation's time goes by here."""
    ranges: list[Range] = []
    at, before = 0, _EVERYTHING
    for _ in range(count):
        if at + 2 > len(data) or (ranges and not before):
            raise WireError("a reconciliation with fewer ranges than it says")
        mode, shared, end = _MODES[data[at] >> 6], data[at] & 0x3F, at + 2 + data[at + 1]
        upper = before[:shared] + data[at + 2 : end]
        if shared > len(before) or len(upper) != shared + end - at - 2 or len(upper) > ENTRY_BYTES:
            raise WireError("a reconciliation with a bound that does not fit")
        # Ascending, and no byte written anew that the bound before has in this place.
        if (shared or upper) and (upper <= before or before[shared : shared + 1] == upper[shared : shared + 1] != b""):
            raise WireError("a reconciliation whose bounds do not ascend")
        at, before = end, upper
        if mode is Mode.FINGERPRINT:
            at += NAME_BYTES
            ranges.append(Range(upper, mode, data[end:at]))
        elif mode is Mode.SAME:
            ranges.append(Range(upper, mode))
        else:
            first = end + 2
            at = first + NAME_BYTES * int.from_bytes(data[end:first], "big")
            names = tuple([data[name : name + NAME_BYTES] for name in range(first, at, NAME_BYTES)])
            ranges.append(Range(upper, mode, names=names))
        if at > len(data):
            raise WireError("a reconciliation that is cut short")
    if at != len(data):
        raise WireError(f"a reconciliation has {len(data) - at} bytes after its end")
    return tuple(ranges)


def _shared(one: bytes, other: bytes) -> int:
    """Return how many bytes two bounds begin with together."""
    size = min(len(one), len(other))
    differ = int.from_bytes(one[:size], "big") ^ int.from_bytes(other[:size], "big")
    return size - (differ.bit_length() + 7) // 8


@dataclass(frozen=True, slots=True)
class Found:
    """What a frame led to: the frame to send back, None when there is nothing to say, and what the other side lacks."""

    reply: Ranges | None
    lacking: tuple[Entry, ...] = ()
    complete: bool = False
    """Nothing is open any more: what the other side was not found to lack it has."""


class Reconciler:
    """One side of one reconciliation; the set may grow meanwhile, which at worst leaves something for the next.

    What it costs a node is bounded: STEPS_MAX frames, each one pass over the set, since ranges ascend.
    """

    __slots__ = ("_entries", "_names", "_prints", "_step", "done", "ours")

    def __init__(self, entries: EntrySet, salt: bytes) -> None:
        self._entries = entries
        self._prints = hashlib.sha256(domain(Label.RANGE) + salt)
        self._names = hashlib.sha256(domain(Label.SHORT) + salt)
        self._step = 0
        self.done = False
        self.ours = False
        """Whether we began."""

    def begin(self, salt: bytes) -> Ranges:
        """Return the first frame: one fingerprint over everything."""
        self._step = 1
        self.ours = True
        return Ranges(0, (Range(_EVERYTHING, Mode.FINGERPRINT, self._fingerprint(0, len(self._entries))),), salt)

    def heard(self, frame: Ranges) -> Found:
        """Answer a frame of the other side. Raises: WireError for one out of turn."""
        if self.done or frame.step != self._step:
            raise WireError(f"step {frame.step} of a reconciliation where {self._step} is due")
        answer: list[Range] = []
        lacking: list[Entry] = []
        room = REPLY_MAX_BYTES
        end = len(self._entries)
        # From the end, so that what is recent is found first when not all fits.
        for place in range(len(frame.ranges) - 1, -1, -1):
            part = frame.ranges[place]
            if part.mode is Mode.SAME:
                answer.append(Range(part.upper, Mode.SAME))
                continue
            start = self._entries.index(frame.ranges[place - 1].upper) if place else 0
            if part.upper:
                end = self._entries.index(part.upper)
            if part.mode is Mode.FINGERPRINT:
                room -= self._finer(part, start, end, answer, room=room > 0)
            else:
                room -= self._compare(part, self._entries.slice(start, end), answer, lacking)
        self._step = frame.step + 2
        reply = None
        if frame.asks and frame.step + 1 < STEPS_MAX:
            reply = Ranges(frame.step + 1, _joined(answer))
        self.done = reply is None or not reply.asks or self._step >= STEPS_MAX
        # Whoever sends a LACK last knows nothing more to come; the other side hears it.
        complete = self.done and not (frame.asks and reply is None)
        return Found(reply, tuple(lacking), complete)

    def _finer(self, part: Range, start: int, end: int, answer: list[Range], *, room: bool) -> int:
        """Answer a fingerprint; return about how many bytes that takes."""
        fingerprint = self._fingerprint(start, end)
        if fingerprint == part.fingerprint:
            answer.append(Range(part.upper, Mode.SAME))
        elif not room:
            answer.append(Range(part.upper, Mode.FINGERPRINT, fingerprint))
        else:
            ranges = self._cut(part.upper, start, end)
            answer.extend(reversed(ranges))
            return sum(RANGE_BYTES + NAME_BYTES * len(one.names) for one in ranges)
        return 0

    def _compare(self, part: Range, mine: list[Entry], answer: list[Range], lacking: list[Entry]) -> int:
        """Compare a list of names with what we have; return about how many bytes the answer takes."""
        named = {self._name(entry): entry for entry in mine} if part.names else {}
        unknown: list[bytes] = []
        if part.mode is Mode.LACK:
            lacking.extend(named[name] for name in dict.fromkeys(part.names) if name in named)
        elif not part.names:
            lacking.extend(mine)
        else:
            unknown = [name for name in dict.fromkeys(part.names) if named.pop(name, None) is None]
            lacking.extend(named.values())
        answer.append(Range(part.upper, Mode.LACK if unknown else Mode.SAME, names=tuple(unknown)))
        return RANGE_BYTES + NAME_BYTES * len(unknown)

    def _cut(self, upper: bytes, start: int, end: int) -> list[Range]:
        """Return a range that differs in parts, or as a list when it has few entries."""
        count = end - start
        if count <= LIST_MAX:
            return [Range(upper, Mode.LIST, names=tuple(map(self._name, self._entries.slice(start, end))))]
        parts = PARTS_WIDE if count > WIDE else PARTS
        places = [start + count * part // parts for part in range(parts + 1)]
        if not upper:
            # What people wrote lately is what differs most, so the last part is cut finer and finer.
            while end - places[-2] > LIST_MAX:
                places.insert(-1, (places[-2] + end + 1) // 2)
        ranges = []
        for first, after in pairwise(places):
            bound = upper if after == end else _between(self._entries[after - 1], self._entries[after])
            ranges.append(Range(bound, Mode.FINGERPRINT, self._fingerprint(first, after)))
        return ranges

    def _fingerprint(self, start: int, end: int) -> bytes:
        digest = self._prints.copy()
        digest.update(self._entries.digest(start, end))
        return digest.digest()[:NAME_BYTES]

    def _name(self, entry: Entry) -> bytes:
        digest = self._names.copy()
        digest.update(entry)
        return digest.digest()[:NAME_BYTES]


def _between(one: Entry, next: Entry) -> bytes:
    """Return the shortest bound that stands above one entry and not above the next."""
    return next[: 1 + _shared(one, next)]


def _joined(backwards: Sequence[Range]) -> tuple[Range, ...]:
    """Return the ranges in order, settled neighbours as one, and without settled ones at the end."""
    out: list[Range] = []
    for part in reversed(backwards):
        if part.mode is Mode.SAME and out and out[-1].mode is Mode.SAME:
            out[-1] = part
        else:
            out.append(part)
    if out and out[-1].mode is Mode.SAME:
        out.pop()
    return tuple(out)
