"""A bounded memory in fair parts: what one neighbour brings makes room for its own, not for what others brought."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate

PART_BYTES = 8


def part_of(via: bytes) -> int:
    """Return the part of a neighbour: its key's first bytes as a signed number, 0 for nobody.

    Two keys share one only if somebody makes 2**64 keys for it.
    """
    return int.from_bytes(via[:PART_BYTES], "big", signed=True)


def level(counts: Mapping[int, int], excess: int) -> dict[int, int]:
    """Return how many each part gives up, so that ``excess`` go in all and the largest parts end up equally large.

    A part that is smaller than what the largest are left with gives up nothing.
    """
    if excess <= 0:
        return {}
    order = sorted(counts.items(), key=lambda part: (-part[1], part[0]))
    sums = list(accumulate(count for _, count in order))
    for many, total in enumerate(sums, 1):
        below = order[many][1] if many < len(order) else 0
        if total - many * below >= excess or many == len(order):
            each, rest = divmod(max(0, total - excess), many)
            kept = (each + (n < rest) for n in range(many))
            cut = {part: count - keep for (part, count), keep in zip(order[:many], kept, strict=True)}
            return {part: less for part, less in cut.items() if less}
    return {}
