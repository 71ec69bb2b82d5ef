"""How much nonsense is borne from a peer: counted by peer, not by link; a new connection buys no new patience."""

from __future__ import annotations

from collections import deque

from quicprochat.core.ids import PeerKey
from quicprochat.core.time import HOUR_MS, MINUTE_MS, Instant

BAD_MAX = 20
BAD_WINDOW_MS = MINUTE_MS
BAN_FIRST_MS = 10 * MINUTE_MS
BAN_LAST_MS = 24 * HOUR_MS
BANS_MAX = 4_096
"""Peers that are remembered for what they did; of more, the one longest ago is forgotten."""


class Patience:
    """Counts envelopes that do not verify; each ban of a peer is twice as long as its last."""

    def __init__(self) -> None:
        self._bans: dict[PeerKey, int] = {}
        self._bad: dict[PeerKey, deque[Instant]] = {}

    def tried(self, peer: PeerKey, now: Instant) -> int:
        """Count one more; return for how many milliseconds its peer is to be banned, 0 while that is not called for."""
        bad = self._bad.pop(peer, None) or deque(maxlen=BAD_MAX)
        self._bad[peer] = bad
        if len(self._bad) > BANS_MAX:
            del self._bad[next(iter(self._bad))]
        bad.append(now)
        if len(bad) < BAD_MAX or bad[0] < now - BAD_WINDOW_MS:
            return 0
        del self._bad[peer]
        last = self._bans.pop(peer, 0)
        ban = self._bans[peer] = min(2 * last, BAN_LAST_MS) if last else BAN_FIRST_MS
        if len(self._bans) > BANS_MAX:
            del self._bans[next(iter(self._bans))]
        return ban
