"""What a server does, counted since its start and over the last minute. Numbers only: no keys, nobody's doings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from quicprochat.core.time import MINUTE_MS, SECOND_MS, Instant

SLOTS = MINUTE_MS // SECOND_MS


class Meter:
    """Counters with a memory of one minute, a second fine. ``now`` is the life clock."""

    def __init__(self, now: Callable[[], Instant]) -> None:
        self._now = now
        self._totals: Counter[str] = Counter()
        self._slots: list[Counter[str]] = [Counter() for _ in range(SLOTS)]
        self._second = now() // SECOND_MS

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter."""
        self._turn()
        self._totals[name] += by
        self._slots[self._second % SLOTS][name] += by

    def totals(self) -> dict[str, int]:
        """Return every counter since the start."""
        return dict(self._totals)

    def last_minute(self) -> dict[str, int]:
        """Return every counter that grew within the last minute, and by how much."""
        self._turn()
        return dict(sum(self._slots, Counter[str]()))

    def _turn(self) -> None:
        """Empty the seconds that have gone by since the last look."""
        second = self._now() // SECOND_MS
        for past in range(max(self._second, second - SLOTS) + 1, second + 1):
            self._slots[past % SLOTS].clear()
        self._second = max(self._second, second)
