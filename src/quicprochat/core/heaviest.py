"""Which of many weighs most, while weights change: in time that grows with the logarithm of how many there are."""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

SLACK = 64


class Heaviest(Generic[K]):
    """Weights by key. Each change leaves an entry in a heap; those out of date go when they come to the top."""

    __slots__ = ("_heap", "_since", "_turn", "_weights")

    def __init__(self) -> None:
        self._weights: dict[K, int] = {}
        self._since: dict[K, int] = {}
        """A number for each key; of equal weights the one that is here longest is the heaviest."""
        self._turn = 0
        self._heap: list[tuple[int, int, K]] = []

    def __bool__(self) -> bool:
        return bool(self._weights)

    def add(self, key: K, weight: int) -> None:
        """Change a weight by so much; what weighs nothing is gone."""
        now = self._weights.get(key, 0) + weight
        if now <= 0:
            del self._weights[key], self._since[key]
            return
        if key not in self._since:
            self._turn += 1
            self._since[key] = self._turn
        self._weights[key] = now
        heappush(self._heap, (-now, self._since[key], key))
        if len(self._heap) > 2 * len(self._weights) + SLACK:
            self._heap = [(-weight, self._since[key], key) for key, weight in self._weights.items()]
            heapify(self._heap)

    def top(self) -> K | None:
        """Return what weighs most."""
        while self._heap:
            weight, since, key = self._heap[0]
            if self._weights.get(key) == -weight and self._since[key] == since:
                return key
            heappop(self._heap)
        return None
