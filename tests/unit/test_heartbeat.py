"""Two heartbeats at the ends of one path; what one of them does alone is in test_link_frames.py."""

from __future__ import annotations

from collections import Counter

import pytest

from quicprochat.core.link import Beat, Heartbeat
from quicprochat.core.time import Instant


class Path:
    """Two ends with a way of ``delay_ms`` between them; QUIC acknowledges every packet that arrives."""

    def __init__(self, *, delay_ms: int, counts: bool = True) -> None:
        self.delay_ms = delay_ms
        self.ends = [Heartbeat(Instant(0), first=first, counts=counts) for first in (True, False)]
        self.counts = counts
        self.packets = [0, 0]
        self.said: Counter[Beat] = Counter()
        self.dead_at: dict[int, int] = {}
        self.cut_at = self.hung_at = 10**9
        self._coming: list[tuple[int, int, str]] = []

    def run(self, until: int) -> None:
        for now in range(until):
            self._arrive(now)
            for side, end in enumerate(self.ends):
                if side in self.dead_at or now < end.deadline() or self._hangs(side, now):
                    continue
                match end.beat(Instant(now), self.packets[side] if self.counts else 0):
                    case Beat.DEAD:
                        self.dead_at[side] = now
                    case None:
                        pass
                    case beat:
                        self.said[beat] += 1
                        self._send(now, 1 - side, beat.value)

    def _hangs(self, side: int, now: int) -> bool:
        return side == 1 and now >= self.hung_at

    def _send(self, now: int, to: int, what: str) -> None:
        if now < self.cut_at:
            self._coming.append((now + self.delay_ms, to, what))

    def _arrive(self, now: int) -> None:
        here = [one for one in self._coming if one[0] <= now]
        self._coming = [one for one in self._coming if one[0] > now]
        for _, side, what in here:
            if now >= self.cut_at:
                continue
            self.packets[side] += 1
            if what != "ack":
                self._send(now, 1 - side, "ack")
                if not self._hangs(side, now):
                    self.ends[side].heard(Instant(now))
                    if what == "ping":
                        self._send(now, 1 - side, "pong")


@pytest.mark.parametrize("delay_ms", [1, 100, 1_000, 1_400])
@pytest.mark.parametrize("counts", [True, False])
def test_a_quiet_path_stays_alive_for_little(delay_ms: int, counts: bool) -> None:
    path = Path(delay_ms=delay_ms, counts=counts)
    path.run(100_000)
    assert path.dead_at == {}
    assert sum(path.said.values()) <= 2 * 100_000 // 4_000


@pytest.mark.parametrize("cut_at", [0, 1, 3_999, 4_500, 20_050, 31_234])
def test_both_ends_notice_a_cut_within_ten_seconds(cut_at: int) -> None:
    path = Path(delay_ms=50)
    path.cut_at = cut_at
    path.run(cut_at + 12_000)
    assert set(path.dead_at) == {0, 1}
    assert all(cut_at < at <= cut_at + 10_000 for at in path.dead_at.values()), path.dead_at


@pytest.mark.parametrize("counts", [True, False])
def test_a_hung_program_is_noticed_behind_a_transport_that_lives(counts: bool) -> None:
    path = Path(delay_ms=50, counts=counts)
    path.hung_at = 30_000
    path.run(100_000)
    assert 30_000 < path.dead_at[0] <= 30_000 + (65_000 if counts else 10_000)
