"""When a server forgets users who do not come: only for days on which they could have come."""

from __future__ import annotations

import pytest

from quicprochat.core.memory import MemoryStore
from quicprochat.core.time import DAY_MS, HOUR_MS, Instant, Now
from quicprochat.server.upkeep import PRESENT_KEY, USERS_BATCH, Upkeep

PATIENCE_MS = 90 * DAY_MS


class Server:
    """A server's life in hours."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.at = Instant(5)
        self.asked: list[int] = []
        self.start()

    def start(self) -> None:
        def forget(_: Now, limit: int) -> int:
            self.asked.append(limit)
            return 0

        self.upkeep = Upkeep(forget, PATIENCE_MS)
        self.upkeep.start(self.store, Now(self.at))

    def live(self, days: int) -> None:
        for _ in range(24 * days):
            self.at = Instant(self.at + HOUR_MS)
            self.upkeep.step((), self.store, Now(self.at))

    def forgets(self) -> bool:
        """Say whether users were forgotten in the last hour; invites are, every hour."""
        self.asked.clear()
        self.at = Instant(self.at + HOUR_MS)
        self.upkeep.step((), self.store, Now(self.at))
        (limit,) = self.asked
        return limit == USERS_BATCH


def test_users_are_forgotten_once_the_server_was_there_for_long_enough() -> None:
    server = Server()
    server.live(89)
    assert not server.forgets()
    server.live(1)
    assert server.forgets()


def test_restarts_and_short_outages_change_nothing() -> None:
    server = Server()
    for _ in range(45):
        server.live(2)
        server.at = Instant(server.at + 20 * HOUR_MS)
        server.start()
    assert server.forgets()


@pytest.mark.parametrize("restarted", [True, False])
def test_after_a_gap_everybody_has_the_whole_time_again(restarted: bool) -> None:
    server = Server()
    server.live(100)
    server.at = Instant(server.at + 365 * DAY_MS)
    if restarted:
        server.start()
    assert not server.forgets()
    server.live(89)
    assert not server.forgets()
    server.live(1)
    assert server.forgets()


@pytest.mark.parametrize("damaged", [b"", b"x", b"1", b"1 2 3", b"\xff \xff"])
def test_a_damaged_note_forgets_nobody(damaged: bytes) -> None:
    server = Server()
    server.live(100)
    server.store.set_value(PRESENT_KEY, damaged)
    server.start()
    assert not server.forgets()
