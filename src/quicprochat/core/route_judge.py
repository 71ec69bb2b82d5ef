"""Receipts judge next hops. What a neighbour says of its routes is a hint; that messages arrive over it is not.

A neighbour that promises and does not deliver is made dearer: first for the destination that was not reached, and,
when that happens with several, for all. It is no punishment and never told as such; time and arrivals forgive.
"""

from __future__ import annotations

from quicprochat.core.time import MINUTE_MS, Instant

PAIRS_MAX = 256
FORGIVE_MS = 10 * MINUTE_MS
PRICES = (0, 1 << 12, 1 << 18, 1 << 24)
"""Added to the metric after so many failures in a row; the second is more than most paths cost, the last than any."""
WIDE_MIN = 4
"""So many destinations not reached, and more than reached: the neighbour is bad for all."""
WIDE_PRICE = 1 << 20


class Judge:
    """What became of messages handed to one neighbour."""

    __slots__ = ("_arrived", "_failed", "wide")

    def __init__(self) -> None:
        self._failed: dict[int, tuple[int, Instant]] = {}
        self._arrived: dict[int, Instant] = {}
        self.wide = 0
        """The price for every destination."""

    def judge(self, destination: int, now: Instant, *, arrived: bool) -> None:
        """Note that a message arrived, or that no receipt came in the time it should take."""
        if arrived:
            self._failed.pop(destination, None)
            self._arrived.pop(destination, None)
            self._arrived[destination] = now
            _bound(self._arrived)
        else:
            failures = self._failed.pop(destination, (0, now))[0] + 1
            self._arrived.pop(destination, None)
            self._failed[destination] = (failures, now)
            _bound(self._failed)
        self._weigh()

    def price(self, destination: int) -> int:
        """Return what is added to the metric for one destination, ``wide`` included."""
        failures = self._failed.get(destination, (0, 0))[0]
        own = PRICES[min(failures, len(PRICES) - 1)]
        return own if destination in self._arrived else own + self.wide

    def forget(self, destination: int) -> None:
        """The number of a destination means another from now on."""
        self._failed.pop(destination, None)
        self._arrived.pop(destination, None)

    def forgive(self, now: Instant) -> bool:
        """Forget what is long ago; say whether something was."""
        before = len(self._failed) + len(self._arrived)
        self._failed = {d: found for d, found in self._failed.items() if now < found[1] + FORGIVE_MS}
        self._arrived = {d: at for d, at in self._arrived.items() if now < at + FORGIVE_MS}
        self._weigh()
        return len(self._failed) + len(self._arrived) != before

    def _weigh(self) -> None:
        failed = len(self._failed)
        self.wide = WIDE_PRICE if failed >= WIDE_MIN and failed > len(self._arrived) else 0

    def __bool__(self) -> bool:
        return bool(self._failed or self._arrived)


def _bound(found: dict[int, tuple[int, Instant]] | dict[int, Instant]) -> None:
    if len(found) > PAIRS_MAX:
        del found[next(iter(found))]
