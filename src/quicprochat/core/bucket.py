"""A token bucket: so many at once, so many per second after that."""

from __future__ import annotations

from quicprochat.core.time import Instant


class TokenBucket:
    """``burst`` tokens to begin with, ``per_s`` new ones each second, never more than ``burst``."""

    __slots__ = ("_at", "_burst", "_per_ms", "_tokens")

    def __init__(self, burst: float, per_s: float, now: Instant) -> None:
        self._burst = burst
        self._per_ms = per_s / 1_000
        self._tokens = burst
        self._at = now

    def take(self, now: Instant, count: float = 1) -> bool:
        """Take tokens if they are there."""
        if not self.has(now, count):
            return False
        self._tokens -= count
        return True

    def has(self, now: Instant, count: float = 1) -> bool:
        """Say whether so many tokens are there."""
        if now != self._at:
            self._fill(now)
        return count <= self._tokens

    def spent(self, now: Instant) -> float:
        """Return how many tokens are missing until it is full."""
        self._fill(now)
        return self._burst - self._tokens

    def wait_ms(self, now: Instant, count: float = 1) -> int:
        """Return how long until so many tokens are there; 0 when they are."""
        self._fill(now)
        missing = count - self._tokens
        return 0 if missing <= 0 else 1 + int(missing / self._per_ms)

    def owe(self, now: Instant, count: float = 1) -> int:
        """Take tokens that may not be there yet; return how long to wait, in milliseconds, until they are.

        Who comes later waits for all who came before: whoever asks for much at a time, and often, gets no more.
        """
        wait = self.wait_ms(now, count)
        self._tokens -= count
        return wait

    def _fill(self, now: Instant) -> None:
        self._tokens = min(self._burst, self._tokens + max(0, now - self._at) * self._per_ms)
        self._at = now
