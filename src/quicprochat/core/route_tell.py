"""What a neighbour does not know yet of our routes, as frames; and the digests that compare what was told and held."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quicprochat.core.route_frames import (
    DISTANCE_BITS,
    INFINITY,
    ITEMS_MAX,
    UNDEFINED,
    digest_of,
    encode_update,
)
from quicprochat.core.route_table import SELF, Neighbour, Table


def sink(table: Table, numbers: Iterable[int]) -> None:
    """These destinations are about to be told: lower their feasibility distances to what is said."""
    for number in numbers:
        current = table.current[number]
        if table.best[number] is not None and current is not None:
            table.sink(number, table.distance[number], current)


def updates(
    table: Table, one: Neighbour, numbers: Sequence[int], *, greeting: bool = False, first: bool = False
) -> list[bytes]:
    """Return what this neighbour does not know yet of these destinations; when greeting, at least one frame."""
    frames: list[bytes] = []
    for start in range(0, len(numbers), ITEMS_MAX):
        new, renewed, paths = _news(table, one, numbers[start : start + ITEMS_MAX])
        if new or renewed or paths or greeting:
            frames.append(encode_update(new, renewed, paths, first=first))
            first = greeting = False
    return frames


def _news(table: Table, one: Neighbour, numbers: Sequence[int]) -> tuple[list[bytes], list[bytes], list[int]]:
    """Return the three parts of an UPDATE, and count them as told. A way by this neighbour is no way for it."""
    best, distances, current, told, shown = table.best, table.distance, table.current, one.told, one.shown
    new: list[bytes] = []
    renewed: list[bytes] = []
    paths: list[int] = []
    for number in numbers:
        by = best[number]
        if by is None or by is one or (table.leaf and number != SELF):
            if told[number] != INFINITY:
                told[number] = INFINITY
                paths.append(number << DISTANCE_BITS | INFINITY)
            continue
        announcement = current[number]
        if (before := shown[number]) is not announcement and announcement is not None:
            if before is None:
                new += (number.to_bytes(2, "big"), announcement.wire)
            else:
                renewed += (number.to_bytes(2, "big"), announcement.wire[32:])
            shown[number] = announcement
        if told[number] != (distance := distances[number]):
            told[number] = distance
            paths.append(number << DISTANCE_BITS | distance)
    return new, renewed, paths


def told_digest(one: Neighbour) -> bytes:
    """Return the digest of what we told a neighbour."""
    return digest_of(
        (number, told, announcement)
        for number, told in enumerate(one.told)
        if told != INFINITY and (announcement := one.shown[number]) is not None
    )


def held_digest(one: Neighbour) -> bytes:
    """Return the digest of what a neighbour told us, under its own numbers."""
    return digest_of(
        (id, one.promised[number], announcement)
        for id, number in enumerate(one.ids)
        if number != UNDEFINED and one.promised[number] != INFINITY and (announcement := one.said[number]) is not None
    )
