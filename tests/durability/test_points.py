"""Killed at every marked moment between receive, commit and release, on either side.

Moments are the points of the driver's turn, the time before and after each effect (in the middle of what one commit
releases), and every kind of access to the disk (in the middle of a write, and before a sync, also while the log is
copied into the file). After each kill the dead home is looked at as it lies there; at the end both run until nothing
waits.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.durability.harness import Pair, compare, compare_dead, pair

POINTS = ["GATHERED", "STEPPED", "COMMITTED", "RELEASED"]
EFFECTS = {
    "author": ["Accepted", "SendEnvelope", "StateChanged", "Journaled"],
    "recipient": ["SendEnvelope", "Journaled", "RecordMade"],
}
ACCESSES = ["log:before-write", "log:half-write", "log:sync", "file:half-write", "file:sync"]
ROLES = ["author", "recipient"]


def run_until_dead(both: Pair, role: str, moment: str, nth: int) -> None:
    """Let one of them run under load until the moment comes for the n-th time."""
    worker = both.start(role, kill=(moment, nth), mortal_disk=":" in moment and moment.split(":")[0] in ("log", "file"))
    if role == "author":
        worker.tell("send")
    worker.killed()
    del both.workers[role]
    compare_dead(both, role)


def kill_at(base: Path, role: str, moments: list[tuple[str, int]]) -> None:
    other = "recipient" if role == "author" else "author"
    with pair(base) as both:
        worker = both.start(other).ready()
        if other == "author":
            worker.ask("send")
        both.start(role).ready()  # making a new home is no part of the counting
        both.kill(role)
        for moment, nth in moments:
            try:
                run_until_dead(both, role, moment, nth)
            except AssertionError as error:
                raise AssertionError(f"{role}, {moment} for the {nth}th time: {error}") from error
        both.finish()
        counts = compare(both)
    assert counts["acked"] > 10 * len(moments)
    print(f"{len(moments)} kills of the {role}: {dict(counts)}")


@pytest.mark.parametrize("role", ROLES)
def test_killed_at_a_point_of_the_turn(tmp_path: Path, role: str) -> None:
    # Early ones fall into the start, later ones into the load.
    kill_at(tmp_path, role, [(point, nth) for point in POINTS for nth in (2, 30)])


@pytest.mark.parametrize("role", ROLES)
def test_killed_between_two_effects(tmp_path: Path, role: str) -> None:
    kill_at(tmp_path, role, [(f"before:{effect}", 1 if effect == "RecordMade" else 20) for effect in EFFECTS[role]])


@pytest.mark.parametrize("role", ROLES)
def test_killed_in_the_middle_of_a_disk_access(tmp_path: Path, role: str) -> None:
    nth = {"log:before-write": 150, "log:half-write": 250, "log:sync": 12, "file:half-write": 2, "file:sync": 2}
    kill_at(tmp_path, role, [(access, nth[access]) for access in ACCESSES])


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("role", ROLES)
def test_killed_at_every_moment_many_times(tmp_path: Path, role: str) -> None:
    sides = [f"{side}:{effect}" for effect in EFFECTS[role] for side in ("before", "after")]
    moments = [(point, nth) for point in POINTS for nth in range(1, 41, 4)]
    moments += [(side, nth) for side in sides if "RecordMade" not in side for nth in (1, 2, 7, 31, 150)]
    moments += [(access, nth) for access in ACCESSES if access.startswith("log") for nth in (1, 2, 3, 17, 90)]
    moments += [("log:before-write", 1_000), ("log:half-write", 2_000)]
    moments += [(access, nth) for access in ACCESSES if access.startswith("file:h") for nth in (1, 2, 5, 40, 300)]
    moments += [("file:sync", nth) for nth in (1, 2, 3)]
    kill_at(tmp_path, role, moments)
