"""The most that any router could do on a contact trace: earliest arrival, by flooding without limits or delay.

In each interval a message reaches the whole connected component of whoever has it. Sets of messages are bits of
integers, so that a component's union is one operation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quicprochat.sim.contacts import INTERVAL_S, Interval, Trace, Written, by_time
from quicprochat.sim.outcome import Outcome


def components(interval: Interval) -> Iterator[list[int]]:
    """Return the groups of nodes that are connected in an interval."""
    root: dict[int, int] = {}

    def find(node: int) -> int:
        while root[node] != node:
            root[node] = root[root[node]]
            node = root[node]
        return node

    for one, other in interval.pairs:
        root.setdefault(one, one)
        root.setdefault(other, other)
        root[find(one)] = find(other)
    groups: dict[int, list[int]] = {}
    for node in root:
        groups.setdefault(find(node), []).append(node)
    return iter(groups.values())


def oracle(trace: Trace, messages: Sequence[Written], ttl_s: int) -> Outcome:
    """Return when each message arrives at the earliest, and how many transfers flooding makes until then."""
    outcome = Outcome(messages, ttl_s)
    queue = by_time(messages)
    has = [0] * len(trace.ids)
    for_node = [0] * len(trace.ids)
    for message in messages:
        for_node[message.dst] |= 1 << message.number
    alive, after = 0, 0
    ends = iter(queue)
    ending = next(ends, None)
    for interval in trace.intervals:
        while after < len(queue) and queue[after].created < interval.start + INTERVAL_S:
            has[queue[after].src] |= 1 << queue[after].number
            alive |= 1 << queue[after].number
            after += 1
        while ending is not None and ending.created + ttl_s < interval.start:
            alive &= ~(1 << ending.number)
            ending = next(ends, None)
        for group in components(interval):
            together = 0
            for node in group:
                together |= has[node]
            together &= alive
            if not together:
                continue
            for node in group:
                new = together & ~has[node]
                if not new:
                    continue
                has[node] |= new
                outcome.copied(_bits(new))
            for node in group:
                for number in _bits(together & for_node[node]):
                    outcome.arrived(number, interval.start)
                    alive &= ~(1 << number)
    return outcome


def _bits(number: int) -> Iterator[int]:
    while number:
        low = number & -number
        yield low.bit_length() - 1
        number ^= low
