"""Clocks at 1970, at 2100 and jumping, under load, and restarts on the same boot, another one, and after an outage.

The machine's clocks are replaced beneath the real SystemClock (worker.Machine); the node runs as it is.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import pytest
from tests.durability.harness import Pair, Worker, compare, pair, seeded, until

from quicprochat.core.time import DAY_MS, HOUR_MS, WALL_FLOOR

RIGHT = WALL_FLOOR + 400 * DAY_MS
"""What the right clock says in these tests, whenever they run."""
YEAR_MS = 365 * DAY_MS
WALLS = {"1970": 0, "2100": 4_102_444_800_000, "right": RIGHT, "a year behind": RIGHT - YEAR_MS,
         "a year ahead": RIGHT + YEAR_MS, "an hour ahead": RIGHT + HOUR_MS}  # fmt: skip


def saying(wall: str, *, synchronised: bool = True) -> dict[str, Any]:
    """A machine whose wall clock says this now."""
    return {"wall": WALLS[wall] - time.time_ns() // 1_000_000, "synchronised": synchronised}


def more_arrive(recipient: Worker, count: int = 60) -> None:
    """Wait until so many more messages were delivered."""
    before = recipient.ask("view")["delivered"]
    until(lambda: recipient.ask("view")["delivered"] >= before + count)


WRONG = [
    (saying_author, saying_recipient)
    for saying_author, saying_recipient in itertools.product(WALLS, WALLS)
    if "right" in (saying_author, saying_recipient) and saying_author != saying_recipient
] + [("1970", "2100"), ("2100", "1970")]


def test_clocks_that_are_wrong_and_jump_under_load_lose_and_expire_nothing(tmp_path: Path) -> None:
    dice = seeded("jumps")
    with pair(tmp_path) as both:
        recipient = both.start("recipient", machine=saying("1970")).ready()
        author = both.start("author", machine=saying("right")).ready()
        author.ask("send")
        for one, other in dice.sample(WRONG, len(WRONG)):
            author.ask("clock", **saying(one, synchronised=dice.random() < 0.7))
            recipient.ask("clock", **saying(other, synchronised=dice.random() < 0.7))
            more_arrive(recipient)
        assert author.ask("view")["expired"] == 0
        both.finish()
        compare(both)


def jump_after_restart(both: Pair, jumps: list[dict[str, Any]], **machine: Any) -> None:
    """Run once with the right clock, restart on the same boot, and let the author's clock jump while mail waits."""
    author = both.start("author", machine=saying("right")).ready()
    author.ask("send_one", ttl_s=HOUR_MS // 1_000)
    both.end("author")
    author = both.start("author", machine={**saying("right"), **machine}).ready()
    before = author.ask("view")["at"]
    for jump in jumps:
        author.ask("clock", **jump)
        author.ask("send_one", ttl_s=HOUR_MS // 1_000)
    view = author.ask("view")
    assert view["expired"] == 0, "what waits expired early"
    assert view["at"] - before < HOUR_MS
    both.finish()
    compare(both)


def test_clock_without_trust_that_jumps_after_a_restart_expires_nothing(tmp_path: Path) -> None:
    with pair(tmp_path) as both:
        jump_after_restart(both, [saying(wall, synchronised=False) for wall in WALLS])


def test_trusted_clock_that_jumps_within_one_boot_expires_nothing(tmp_path: Path) -> None:
    """A wrong time server: what a boot has measured itself needs no wall clock, so there is no outage to make up."""
    with pair(tmp_path) as both:
        jump_after_restart(both, [saying("a year ahead")])


def test_clock_set_by_hand_right_after_it_was_trusted_expires_nothing(tmp_path: Path) -> None:
    """Setting the clock takes the kernel's trust away."""
    with pair(tmp_path) as both:
        jump_after_restart(both, [saying("a year ahead", synchronised=False)])


def test_clock_set_back_by_hand_before_a_reboot_expires_nothing(tmp_path: Path) -> None:
    """A wrong wall clock must not be stored as a trusted one: the next boot would take the difference for an outage."""
    with pair(tmp_path) as both:
        author = both.start("author", network=False, machine=saying("right")).ready()
        author.ask("clock", **saying("a year behind", synchronised=False))
        author.ask("send_one", ttl_s=HOUR_MS // 1_000)
        both.end("author")
        author = both.start("author", machine={**saying("right"), "boot": "another"}).ready()
        assert author.ask("view")["expired"] == 0, "what waits expired early"
        both.finish()
        compare(both)


# --- restarts


class Outage:
    """An author who is offline, wrote two messages, and comes back on some boot at some time."""

    def __init__(self, both: Pair, end: str, **machine: Any) -> None:
        self.both = both
        author = both.start("author", network=False, machine=machine).ready()
        self.at = author.ask("view")["at"]  # stored with the next write
        self.short = author.ask("send_one", ttl_s=1_800)["uid"]
        self.long = author.ask("send_one", ttl_s=7_200)["uid"]
        if end == "killed":
            both.kill("author")
        else:
            both.end("author")

    def back(self, **machine: Any) -> Worker:
        self.author = self.both.start("author", network=False, machine=machine).ready()
        return self.author

    def states(self) -> tuple[str, str]:
        self.author.ask("view")  # a step: what is over expires before this is answered
        return self.author.ask("state", uid=self.short)["state"], self.author.ask("state", uid=self.long)["state"]

    def lived(self) -> int:
        """How much later it is on the life clock than before the outage."""
        lived: int = self.author.ask("view")["at"] - self.at
        return lived


ENDS = ["ended", "killed"]
NEARLY_MS = 60_000


@pytest.mark.parametrize("end", ENDS)
def test_outage_within_one_boot_counts(tmp_path: Path, end: str) -> None:
    with pair(tmp_path) as both:
        outage = Outage(both, end, **saying("1970", synchronised=False))
        outage.back(**saying("2100", synchronised=False), since_boot=HOUR_MS)
        assert outage.states() == ("expired", "queued")
        assert HOUR_MS <= outage.lived() < HOUR_MS + NEARLY_MS


@pytest.mark.parametrize("end", ENDS)
def test_outage_that_nobody_measured_counts_as_nothing(tmp_path: Path, end: str) -> None:
    with pair(tmp_path) as both:
        outage = Outage(both, end, **saying("right"))
        outage.back(**saying("2100", synchronised=False), boot="another", since_boot=30 * DAY_MS)
        assert outage.states() == ("queued", "queued")
        assert 0 <= outage.lived() < NEARLY_MS


@pytest.mark.parametrize("end", ENDS)
def test_outage_that_a_trusted_clock_proves_counts(tmp_path: Path, end: str) -> None:
    with pair(tmp_path) as both:
        outage = Outage(both, end, **saying("right"))
        outage.back(**saying("an hour ahead"), boot="another", since_boot=-HOUR_MS)
        assert outage.states() == ("expired", "queued")
        assert HOUR_MS - NEARLY_MS < outage.lived() < HOUR_MS + NEARLY_MS


def test_outage_is_made_up_when_the_clock_is_trusted_at_last(tmp_path: Path) -> None:
    with pair(tmp_path) as both:
        outage = Outage(both, "killed", **saying("right"))
        author = outage.back(**saying("1970", synchronised=False), boot="another")
        assert outage.states() == ("queued", "queued")
        author.ask("clock", **saying("an hour ahead"))
        assert outage.states() == ("expired", "queued")


def test_life_clock_never_goes_back_over_many_kills(tmp_path: Path) -> None:
    dice = seeded("boots")
    with pair(tmp_path) as both:
        last = 0
        for n in range(6):
            wall = saying(dice.choice(list(WALLS)), synchronised=False)
            author = both.start("author", network=False, machine={**wall, "boot": f"boot-{n // 2}"}).ready()
            at = author.ask("view")["at"]
            assert at >= last
            author.ask("send_one")
            last = at
            both.kill("author")
