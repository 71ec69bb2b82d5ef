"""Which numbers of an author's posts in a channel were seen, and which between them are missing.

Every author numbers its posts in a channel from 1, so what lies between two numbers that came must have been posted.
What lies before the first that came is no gap: it may have left everybody's window before we were there. Nor is what
may come after the last, of which nobody has told us. A number is its author's word, and harms its own count only.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace

from quicprochat.core.envelope import TTL_MAX_S
from quicprochat.core.ids import PeerKey
from quicprochat.core.time import Instant

GAPS_MAX = 64
"""Gaps known of one author in one channel; beyond, the one noticed first is given up. Bounds what a liar can fill."""
AUTHORS_MAX = 1_024
"""Authors in one channel whose numbers are known; beyond, the one not heard for longest is forgotten (a guess)."""
HOPE_MS = TTL_MAX_S * 1_000
"""How long a missing post may still come: it was written before the gap was noticed, and no envelope lives longer."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Numbers ``first`` to ``last`` are missing, both included; ``noticed_at`` by the life clock."""

    first: int
    last: int
    noticed_at: Instant

    def may_close(self, now: Instant) -> bool:
        """Say whether what is missing may still come."""
        return now < self.noticed_at + HOPE_MS


@dataclass(frozen=True, slots=True)
class Heard:
    """Of an author in a channel, the numbers ``lowest`` to ``highest`` came, apart from the ``gaps`` between them.

    ``gaps`` ascend and neither touch nor overlap; ``at`` is when the author was heard last.
    """

    author: PeerKey
    lowest: int
    highest: int
    gaps: tuple[Gap, ...]
    at: Instant

    def gap_before(self, seq: int) -> Gap | None:
        """Return the gap that ends just before a number."""
        n = bisect_left(self.gaps, seq - 1, key=lambda gap: gap.last)
        return self.gaps[n] if n < len(self.gaps) and self.gaps[n].last == seq - 1 else None


def hear(known: Heard | None, author: PeerKey, seq: int, now: Instant) -> Heard:
    """Return what is known of an author after its post of this number came. Numbers begin with 1; 0 says nothing."""
    if known is None or not known.highest:
        return Heard(author, seq, seq, (), now)
    if not seq:
        return replace(known, at=now)
    lowest, highest, gaps = min(seq, known.lowest), max(seq, known.highest), list(known.gaps)
    if seq > known.highest + 1:
        gaps.append(Gap(known.highest + 1, seq - 1, now))
    elif seq < known.lowest - 1:
        gaps.insert(0, Gap(seq + 1, known.lowest - 1, now))
    else:
        n = bisect_left(gaps, seq, key=lambda gap: gap.last)
        if n < len(gaps) and gaps[n].first <= seq:
            gap = gaps[n]
            parts = (replace(gap, last=seq - 1), replace(gap, first=seq + 1))
            gaps[n : n + 1] = [part for part in parts if part.first <= part.last]
    if len(gaps) > GAPS_MAX:
        gaps.remove(min(gaps, key=lambda gap: (gap.noticed_at, gap.first)))
    return Heard(author, lowest, highest, tuple(gaps), now)
