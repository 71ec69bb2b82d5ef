"""What a link costs, so that the best path is the one on which messages arrive soonest and surest.

    cost = (HOP + round trip in ms) / (1 - loss)^2, for a relayed path twice that and RELAYED more

A transmission is tried 1 / (1 - loss)^2 times until packet and acknowledgement both arrive (ETX, De Couto 2003).
Measurements are smoothed, and the cost that others are told changes only when it is clearly another one: a change of
cost is a change of every route over the link.
"""

from __future__ import annotations

from quicprochat.core.time import MINUTE_MS, Instant

HOP = 32
"""What a hop costs beside its time: storing, checking, one more node that can fail (guess)."""
RELAYED = 64
COST_MAX = 0xFFFF
LOSS_MAX = 0.95
SMOOTH = 1 / 8
"""Weight of a new measurement (RFC 6298 §2 smooths round trips so)."""
CLEARLY = 1.25
"""A smoothed cost is told when it is so many times the told one, or the told one so many times it."""

FLAPS_FREE = 3.0
FLAPS_HALF_LIFE_MS = 5 * MINUTE_MS
HOLD_MS = 4_000
HOLD_MAX_MS = 60_000


def link_cost(rtt_ms: float, loss: float = 0.0, *, relayed: bool = False) -> int:
    """Return a link's cost: 1 to COST_MAX; any measurement is taken, however odd."""
    through = 1 - min(max(loss, 0.0), LOSS_MAX)
    cost = (HOP + max(rtt_ms, 0.0)) / (through * through)
    if relayed:
        cost = 2 * cost + RELAYED
    return int(min(max(cost, 1), COST_MAX))


class Smooth:
    """The smoothed measurements of one link, and the cost it is counted with."""

    __slots__ = ("_loss", "_rtt", "cost")

    def __init__(self, cost: int) -> None:
        self.cost = min(max(cost, 1), COST_MAX)
        self._rtt: float | None = None
        self._loss = 0.0

    def measured(self, rtt_ms: float, loss: float, *, relayed: bool) -> bool:
        """Take a measurement; say whether the cost changed by it."""
        rtt_ms, loss = min(max(rtt_ms, 0.0), COST_MAX), min(max(loss, 0.0), 1.0)
        if self._rtt is None:
            self._rtt, self._loss = rtt_ms, loss
        else:
            self._rtt += (rtt_ms - self._rtt) * SMOOTH
            self._loss += (loss - self._loss) * SMOOTH
        cost = link_cost(self._rtt, self._loss, relayed=relayed)
        if self.cost / CLEARLY < cost < self.cost * CLEARLY:
            return False
        self.cost = cost
        return True


class Flaps:
    """How often a link went down of late, and how long its routes are held down when it comes back (RFC 2439)."""

    __slots__ = ("_at", "_count")

    def __init__(self, now: Instant) -> None:
        self._count = 0.0
        self._at = now

    def down(self, now: Instant) -> None:
        """The link went down."""
        self._count = self._now(now) + 1
        self._at = now

    def hold_ms(self, now: Instant) -> int:
        """Return how long to wait before its routes are used and told again; 0 for a link that is steady enough."""
        over = self._now(now) - FLAPS_FREE
        return 0 if over <= 0 else int(min(HOLD_MS * 2 ** min(over, 10.0), HOLD_MAX_MS))

    def _now(self, now: Instant) -> float:
        return float(self._count * 0.5 ** (max(0, now - self._at) / FLAPS_HALF_LIFE_MS))
