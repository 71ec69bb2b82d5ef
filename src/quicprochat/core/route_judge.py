"""Receipts judge next hops. What a neighbour says of its routes is a hint; that messages arrive over it is not.

A neighbour that promises and does not deliver is made dearer: first for the destination that was not reached, and,
when that happens with several, for all. It is no punishment and never told as such; time and arrivals forgive.

A cut is nobody's fault. When a neighbour says that it lost its way, or the link to it goes down, that explains what it
was handed before and what it was blamed for a moment ago, since a receipt may be missed before the cut is noticed. A
liar can say so, too: one such excuse for a destination is taken until something arrives, or for ``FORGIVE_MS``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from quicprochat.core.time import MINUTE_MS, Instant

_T = TypeVar("_T")

PAIRS_MAX = 256
FORGIVE_MS = 10 * MINUTE_MS
PRICES = (0, 1 << 12, 1 << 18, 1 << 24)
"""Added to the metric after so many failures in a row; the second is more than most paths cost, the last than any."""
NOTICE_MS = 30_000
"""A cut is known everywhere so long after it (guess): links are seen to be dead within 10 s, and words take some."""
ANY = -1
"""In place of a destination: the link itself went down."""
WIDE_MIN = 4
"""So many destinations not reached, and more than reached: the neighbour is bad for all."""
WIDE_PRICE = 1 << 20


@dataclass(slots=True)
class _Excuse:
    at: Instant
    """What was handed over until then is explained."""
    used: bool = False


class Judge:
    """What became of messages handed to one neighbour."""

    __slots__ = ("_arrived", "_excuses", "_failed", "wide")

    def __init__(self) -> None:
        self._excuses: dict[int, _Excuse] = {}
        self._failed: dict[int, tuple[int, Instant]] = {}
        self._arrived: dict[int, Instant] = {}
        self.wide = 0
        """The price for every destination."""

    def judge(self, destination: int, now: Instant, *, arrived: bool, since: Instant | None = None) -> None:
        """Note that a message arrived, or that no receipt came in the time it should take for one handed ``since``."""
        if arrived:
            self._failed.pop(destination, None)
            self._arrived.pop(destination, None)
            self._arrived[destination] = now
            self._excuses.pop(destination, None)
            self._excuses.pop(ANY, None)
            _bound(self._arrived)
        elif since is None or not self._excused(destination, since, now):
            failures = self._failed.pop(destination, (0, now))[0] + 1
            self._arrived.pop(destination, None)
            self._failed[destination] = (failures, now)
            _bound(self._failed)
        self._weigh()

    def _excused(self, destination: int, since: Instant, now: Instant) -> bool:
        for reason in (destination, ANY):
            excuse = self._excuses.get(reason)
            if excuse is not None and since <= excuse.at and now < excuse.at + FORGIVE_MS:
                excuse.used = True
                return True
        return False

    def lost_way(self, destination: int, now: Instant) -> None:
        """The neighbour says that its way there is gone or longer; ``ANY``: the link to it went down."""
        known = self._excuses.get(destination)
        if known is not None and known.used and now < known.at + FORGIVE_MS:
            return
        self._excuses.pop(destination, None)
        excuse = self._excuses[destination] = _Excuse(now)
        _bound(self._excuses)
        blamed = list(self._failed) if destination == ANY else [destination] if destination in self._failed else []
        for one in blamed:
            if now < self._failed[one][1] + NOTICE_MS:
                del self._failed[one]
                excuse.used = True
        if blamed:
            self._weigh()

    def renewed(self, destination: int, now: Instant) -> None:
        """A newer announcement came this way: one failure of a while ago was perhaps a cut that nobody noticed."""
        if self._failed.get(destination, (0, now))[0] == 1 and now >= self._failed[destination][1] + NOTICE_MS:
            known = self._excuses.get(destination)
            if known is None or not known.used or now >= known.at + FORGIVE_MS:
                del self._failed[destination]
                self._excuses[destination] = _Excuse(now, used=True)
                _bound(self._excuses)
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
        self._excuses.pop(destination, None)

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


def _bound(found: dict[int, _T]) -> None:
    if len(found) > PAIRS_MAX:
        del found[next(iter(found))]
