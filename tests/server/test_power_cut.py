"""The power goes at the home server: what it said yes to is there after the disk was mounted again. Needs root.

As for a node (``tests/durability/test_power_cut.py``): the file system drops what was not synced, its journal included.
The clients live where nobody cuts anything. The same server with ``synchronous=NORMAL`` must lose, which shows that
these cuts find a loss.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.durability.disks import loop_disk
from tests.durability.harness import free_port, seeded
from tests.server.attacked import Attacked, run
from tests.server.load import Load

LIMITS = {"carried_bytes": 4 << 30, "share": 1.0, "per_pair": 10**6, "per_recipient": 10**6}
BUSY = 50
"""Envelopes that a run has promised before the power goes."""


def cut_again_and_again(base: Path, kind: str, cuts: int, *, synchronous: str = "FULL", moment_s: float = 1.0) -> Load:
    """Cut the power so many times under load; return what the clients were told and got in the end."""
    dice = seeded(f"the server's power {kind} {synchronous}")
    made: list[Load] = []

    async def scenario() -> None:
        with loop_disk(base, kind) as disk:
            server = Attacked(
                disk.place / "home", prefix=disk.prefix, port=free_port(), limits=LIMITS, synchronous=synchronous
            )
            load = Load(server)
            made.append(load)
            try:
                for _ in range(cuts):
                    async with load.online():
                        await load.more(BUSY)
                        await asyncio.sleep(dice.uniform(0, moment_s))  # not waiting for anything: the random moment
                        server.freeze()
                        disk.cut()
                        server.kill()
                        disk.power_up()
                    server.start()
                await load.drained()
                assert server.end()[0] == 0
            finally:
                server.kill()

    run(scenario, seconds=30 + 20 * cuts)
    assert len(made[0].told.stored) > BUSY * cuts
    return made[0]


def test_power_cuts_under_load_lose_and_repeat_nothing(tmp_path: Path) -> None:
    load = cut_again_and_again(tmp_path, "ext4", 2, moment_s=0.3)
    print(load.compare())


@pytest.mark.soak
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_many_power_cuts_lose_and_repeat_nothing(tmp_path: Path, kind: str) -> None:
    load = cut_again_and_again(tmp_path, kind, 20)
    print(f"20 cuts of the server's {kind}: {load.compare()}")


@pytest.mark.soak
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_server_that_does_not_sync_loses(tmp_path: Path, kind: str) -> None:
    told = cut_again_and_again(tmp_path, kind, 6, synchronous="NORMAL").told
    lost = told.stored - told.taken.keys()
    print(f"{kind}, synchronous=NORMAL: {len(lost)} of {len(told.stored)} lost, {len(told.again)} came again")
    assert lost or told.again, "the control lost nothing: these power cuts prove nothing"
