"""Routing under random churn, loss and crashes, in virtual time: never a loop, and in the end every pair delivered."""

from __future__ import annotations

import os

import pytest
from tests.sim.churn import Churn

SEEDS = range(200)
SOAK_SEEDS = range(1_000, 21_000)


def go(seed: int) -> None:
    try:
        Churn(seed).run()
    except Exception as error:
        raise AssertionError(f"seed {seed}: repeat it with tests.sim.churn.Churn({seed}).run()") from error


@pytest.mark.parametrize("block", range(10))
def test_churn_makes_no_loop_and_everybody_is_found_in_the_end(block: int) -> None:
    for seed in SEEDS[block::10]:
        go(seed)


@pytest.mark.parametrize("seed", [1_728, 2_697, 3_761, 3_779, 3_806])
def test_seeds_that_once_failed(seed: int) -> None:
    go(seed)


@pytest.mark.soak
@pytest.mark.timeout(7_200)
def test_twenty_thousand_seeds_of_churn() -> None:
    for seed in SOAK_SEEDS[int(os.environ.get("QPC_SOAK_FROM", "0")) :]:
        go(seed)
