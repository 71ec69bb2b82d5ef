"""kill -9 at any moment, on either side: nothing acknowledged is missing, nothing is in the inbox twice."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.durability.harness import Pair, compare, pair, seeded, until

MOMENT_MS = (10, 1_500)
START_MS = (200, 800)
"""Some are killed once more while they start: about when Python is loaded and the home is taken."""


def kill_again_and_again(base: Path, kills: int) -> None:
    dice = seeded("kill")
    with pair(base) as both:
        both.start("recipient").ready()
        both.start("author").ready().ask("send")
        for n in range(kills):
            victim = ("author", "recipient")[n % 2]
            time.sleep(dice.uniform(*MOMENT_MS) / 1_000)  # not waiting for anything: this is the random moment
            both.kill(victim)
            if dice.random() < 0.2:
                both.start(victim)
                time.sleep(dice.uniform(*START_MS) / 1_000)
                both.kill(victim)
            worker = both.start(victim).ready()
            if victim == "author":
                worker.ask("send")
        both.finish()
        counts = compare(both)
    print(f"{kills} kills: {dict(counts)}")
    assert counts["acked"] > 20 * kills, "hardly anything was sent: the kills met nobody at work"


def test_killed_at_random_moments_loses_and_repeats_nothing(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, 10)


def test_receipts_lost_in_a_crash_are_made_good_at_once(tmp_path: Path) -> None:
    """An author dies with more messages delivered and not receipted than are receipted again in one go."""
    with pair(tmp_path) as both:
        recipient = both.start("recipient").ready()
        author = both.start("author", waiting_max=700, network=False).ready()
        author.ask("send")
        until(lambda: author.ask("view")["messages"] >= 700)
        both.kill("author")
        until(lambda: die_with_the_first_receipt(both) and recipient.ask("view")["delivered"] >= 700)
        author = both.start("author").ready()
        author.ask("drained", seconds=12)  # less than the time after which it would offer them once more
        both.finish()
        compare(both)


def die_with_the_first_receipt(both: Pair) -> bool:
    both.start("author", kill=("before:StateChanged", 1)).killed()
    del both.workers["author"]
    return True


@pytest.mark.soak
@pytest.mark.timeout(700)
def test_killed_two_hundred_times_loses_and_repeats_nothing(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, 200)
