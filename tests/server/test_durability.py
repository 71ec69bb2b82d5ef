"""kill -9 of the home server at any moment, and disks that fail: nothing it said yes to is missing or comes back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.durability.disks import loop_disk, small_disk
from tests.durability.harness import free_port, seeded
from tests.server.attacked import Attacked, Caller, calling, run, serves, soon
from tests.server.load import Load

from quicprochat.adapters import rpc
from quicprochat.core.errors import UnavailableError
from quicprochat.core.gate import Verdict

MIB = 1 << 20
ROOMY = {"carried_bytes": 4 << 30, "share": 1.0, "per_pair": 10**6, "per_recipient": 10**6}
MOMENT_S = (0.02, 0.5)
MOMENTS = [(point, nth) for point in ("GATHERED", "STEPPED", "COMMITTED", "RELEASED") for nth in (4, 60)]
ACCESSES = [("log:before-write", 150), ("log:half-write", 250), ("log:sync", 20)]


def kill_again_and_again(home: Path, kills: int) -> None:
    dice = seeded("kill the server")

    async def scenario() -> None:
        server = Attacked(home, port=free_port(), limits=ROOMY)
        load = Load(server)
        try:
            for _ in range(kills):
                async with load.online():
                    await asyncio.sleep(dice.uniform(*MOMENT_S))  # not waiting for anything: the random moment
                    server.kill()
                if dice.random() < 0.2:
                    server.start(wait=False)
                    await asyncio.sleep(dice.uniform(0.2, 0.6))
                    server.kill()
                server.start()
            await load.drained()
            counts = load.compare()
            print(f"{kills} kills: {counts}")
            assert counts["stored"] > 20 * kills, "hardly anything was sent: the kills met nobody at work"
            assert server.end()[0] == 0
        finally:
            server.kill()

    run(scenario, seconds=60 + 4 * kills)


def test_killed_at_random_moments_loses_and_repeats_nothing(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path / "home", 10)


@pytest.mark.soak
@pytest.mark.timeout(1_200)
def test_killed_two_hundred_times_loses_and_repeats_nothing(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path / "home", 200)


@pytest.mark.parametrize("pushed", [False, True], ids=["fetched", "pushed"])
def test_killed_between_receive_commit_acknowledge_and_push(tmp_path: Path, pushed: bool) -> None:
    """What is pushed and confirmed is let go of in a commit too, and each of these moments comes for both."""

    async def scenario() -> None:
        server = Attacked(tmp_path / "home", port=free_port(), limits=ROOMY)
        load = Load(server, pushed=pushed)
        try:
            for kill in MOMENTS + ([] if pushed else ACCESSES):
                server.kill()
                server.start(kill=kill)
                async with load.online():
                    assert await asyncio.to_thread(server.killed), f"{kill} did not come"
            server.start()
            await load.drained()
            print(load.compare())
        finally:
            server.kill()

    run(scenario, seconds=120)


# ------------------------------------------------------------------------------------------------ disks


async def fill_until_it_ends(server: Attacked, author: Caller, key: bytes) -> set[bytes]:
    """Send until the server is gone; return the ids that it said yes to."""
    stored: set[bytes] = set()

    async def fill() -> None:
        while True:
            batch = [author.envelope(key, bytes(2_000)) for _ in range(20)]
            answers = await author.put(*[one.wire() for one in batch])
            assert {verdict for verdict, _ in answers} == {Verdict.STORED}
            stored.update(one.id for one in batch)

    with pytest.raises((UnavailableError, rpc.Problem)) as caught:
        await fill()
    assert "/" not in str(caught.value), "an answer tells where the database lies"
    return stored


def test_disk_that_fills_up_ends_the_server_and_loses_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        with small_disk(tmp_path, 64 * MIB) as disk:
            server = Attacked(disk.place / "home", prefix=disk.prefix, limits=ROOMY, disk_reserve_bytes=0)
            try:
                seed = bytes(31) + b"r"
                key = Caller.of(seed).key
                async with calling(server, seed):
                    pass
                async with calling(server) as author:
                    await serves(server)
                    disk.fill(leave=2 * MIB)
                    stored = await soon(fill_until_it_ends(server, author, key))
                said = server.heard()
                assert said["failed"] == "StoreFullError"
                assert server.wait() == 3
                disk.make_room()
                server.kill()
                server.start()
                assert await everything(server, seed) >= stored
                await serves(server)
            finally:
                server.kill()

    run(scenario)


def test_disk_that_turns_read_only_ends_the_server_loudly(tmp_path: Path) -> None:
    async def scenario() -> None:
        with loop_disk(tmp_path, "ext4", "errors=remount-ro") as disk:
            server = Attacked(disk.place / "home", prefix=disk.prefix, limits=ROOMY)
            try:
                async with calling(server) as author:
                    await serves(server)
                    disk.break_down()
                    await soon(fill_until_it_ends(server, author, author.key))
                assert server.heard()["failed"] == "StoreError"
                assert server.wait() == 3
            finally:
                server.kill()

    run(scenario)


async def everything(server: Attacked, seed: bytes) -> set[bytes]:
    """Return the ids of all that waits for somebody."""
    found: set[bytes] = set()
    after = 0
    async with calling(server, seed) as reader:
        while True:
            answer = await soon(rpc.Remote.ask(reader.session.fetch(after=after, limit=256), "fetching"))
            if not len(answer.deliveries):
                return found
            found |= {Caller.id_of(bytes(one.envelope)) for one in answer.deliveries}
            after = answer.deliveries[-1].serial
