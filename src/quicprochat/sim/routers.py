"""Routers to compare with: PRoPHET, binary spray-and-wait, direct delivery, and plain flooding.

One pass over each interval's pairs in the file's order, both ways; a message is no longer copied once it has arrived.
They know for free what the other side has and when to stop: what crosses a link is messages alone, as in most
published comparisons. With ``pays`` they send, when two nodes meet, what their papers say they send: a summary vector
with 8 bytes for each message held, and PRoPHET's table with 9 for each peer in it. That a message has arrived they
still know for free, and what changes while a contact lasts. With a limit on strangers' messages the oldest makes room;
a node's own do not count.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from quicprochat.core.likely import AGING_MS, GAMMA, P_INIT
from quicprochat.sim.contacts import INTERVAL_S, Pair, Trace, Written, by_time
from quicprochat.sim.outcome import Outcome

BETA = 0.25
TOLD_LEAST = 1 / 255
"""Values below are not told."""
MESSAGE_BYTES = 775
SPRAY_COPIES = 8
NAME_BYTES = 8
"""An id in a summary vector, or a peer in PRoPHET's table."""
FRAME_BYTES = 5


class Router:
    """Decides whether ``giver`` copies a message to ``taker``."""

    def met(self, one: int, other: int, at: int) -> None:
        """Two nodes are in contact in this interval."""

    def table_bytes(self, node: int) -> int:
        """Return what a node tells of itself when it meets another, in bytes."""
        return 0

    def copies(self, message: Written, giver: int, taker: int) -> bool:
        """Say whether to copy."""
        raise NotImplementedError

    def copied(self, message: Written, giver: int, taker: int) -> None:
        """It was copied."""


class Epidemic(Router):
    """Copies whatever the other lacks."""

    def copies(self, message: Written, giver: int, taker: int) -> bool:
        """Say yes."""
        return True


class Direct(Router):
    """Copies only to the recipient."""

    def copies(self, message: Written, giver: int, taker: int) -> bool:
        """Say whether the recipient is there."""
        return taker == message.dst


class Spray(Router):
    """Binary spray-and-wait: half of one's copies to whoever has none; the last one only to the recipient."""

    def __init__(self, copies: int = SPRAY_COPIES) -> None:
        self._first = copies
        self._left: dict[tuple[int, int], int] = {}

    def _tokens(self, message: Written, node: int) -> int:
        return self._left.get((message.number, node), self._first if node == message.src else 1)

    def copies(self, message: Written, giver: int, taker: int) -> bool:
        """Say whether there is a copy to spare."""
        return taker == message.dst or self._tokens(message, giver) > 1

    def copied(self, message: Written, giver: int, taker: int) -> None:
        """Share the copies."""
        tokens = self._tokens(message, giver)
        self._left[message.number, giver] = tokens - tokens // 2
        self._left[message.number, taker] = tokens // 2


class Prophet(Router):
    """PRoPHET: copies to whoever is likelier to meet the recipient."""

    def __init__(self, nodes: int) -> None:
        self._p = [[0.0] * nodes for _ in range(nodes)]
        self._at = [0] * nodes

    def _age(self, node: int, at: int) -> None:
        if at > self._at[node]:
            fade = GAMMA ** ((at - self._at[node]) * 1_000 / AGING_MS)
            self._p[node] = [value * fade for value in self._p[node]]
        self._at[node] = at

    def met(self, one: int, other: int, at: int) -> None:
        """Raise both nodes' values: for each other, and through each other."""
        for node in (one, other):
            self._age(node, at)
        for node, peer in ((one, other), (other, one)):
            mine = self._p[node]
            mine[peer] += (1 - mine[peer]) * P_INIT
        before = self._p[one].copy()
        for node, peer, theirs in ((one, other, self._p[other]), (other, one, before)):
            mine = self._p[node]
            through = mine[peer] * BETA
            self._p[node] = [p + (1 - p) * through * q for p, q in zip(mine, theirs, strict=True)]
            self._p[node][node] = 0.0

    def table_bytes(self, node: int) -> int:
        """Return the size of the node's table, without what rounds to nothing."""
        return FRAME_BYTES + (NAME_BYTES + 1) * sum(value >= TOLD_LEAST for value in self._p[node])

    def copies(self, message: Written, giver: int, taker: int) -> bool:
        """Compare the two."""
        return taker == message.dst or self._p[taker][message.dst] > self._p[giver][message.dst]


def play(
    trace: Trace, messages: Sequence[Written], ttl_s: int, router: Router, *,
    bytes_per_s: int | None = None, store: int | None = None, pays: bool = False,
    progress: Callable[[float], None] = lambda part: None,
) -> Outcome:  # fmt: skip
    """Play a trace with a comparison router."""
    outcome = Outcome(messages, ttl_s)
    queue = by_time(messages)
    has: list[OrderedDict[int, Written]] = [OrderedDict() for _ in trace.ids]
    strangers = [0] * len(trace.ids)
    after = 0
    owed: dict[Pair, int] = {}
    for place, interval in enumerate(trace.intervals):
        consecutive = place > 0 and interval.start == trace.intervals[place - 1].start + INTERVAL_S
        before = set(trace.intervals[place - 1].pairs) if consecutive else set()
        while after < len(queue) and queue[after].created < interval.start + INTERVAL_S:
            has[queue[after].src][queue[after].number] = queue[after]
            after += 1
        for one, other in interval.pairs:
            router.met(one, other, interval.start)
            if pays and (one, other) not in before:
                owed[one, other] = sum(
                    FRAME_BYTES + NAME_BYTES * len(has[node]) + router.table_bytes(node) for node in (one, other)
                )
                outcome.control_bytes += owed[one, other]
            left = None
            if bytes_per_s is not None:
                # What the vectors take of one interval the messages do not have, and the next pays the rest.
                paid = min(owed.get((one, other), 0), bytes_per_s * INTERVAL_S)
                owed[one, other] = owed.get((one, other), 0) - paid
                left = (bytes_per_s * INTERVAL_S - paid) // MESSAGE_BYTES
            for giver, taker in ((one, other), (other, one)):
                mine, theirs = has[giver], has[taker]
                gone = []
                for number, message in mine.items():
                    if number in outcome.delays or message.created + ttl_s < interval.start:
                        gone.append(number)
                    elif number not in theirs and left != 0 and router.copies(message, giver, taker):
                        router.copied(message, giver, taker)
                        outcome.copied((number,))
                        left = None if left is None else left - 1
                        if taker == message.dst:
                            outcome.arrived(number, interval.start)
                            gone.append(number)
                            continue
                        theirs[number] = message
                        if store is not None and message.src != taker:
                            strangers[taker] += 1
                            _make_room(theirs, taker, strangers, store)
                for number in gone:
                    message = mine.pop(number)
                    strangers[giver] -= message.src != giver
        progress(place / len(trace.intervals))
    return outcome


def _make_room(held: OrderedDict[int, Written], node: int, strangers: list[int], store: int) -> None:
    if strangers[node] > store:
        oldest = next(number for number, message in held.items() if message.src != node)
        del held[oldest]
        strangers[node] -= 1
