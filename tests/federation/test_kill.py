"""kill -9 of either server at any moment: nothing it said yes to is missing, and nothing comes twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from tests.durability.harness import free_port, seeded
from tests.federation.villages import AUTHORITY, NORTH, SOUTH
from tests.server.attacked import Attacked, run
from tests.server.load import Load
from tests.server.test_durability import ROOMY
from tests.unit import authorities

DER = serialization.Encoding.DER
POINTS = ("GATHERED", "STEPPED", "COMMITTED", "RELEASED")
ACCESSES = [("log:half-write", 100), ("log:sync", 15)]


def certified(place: Path, domain: str) -> str:
    """Write a domain's files."""
    made = authorities.leaf(domain, AUTHORITY)
    place.mkdir()
    key = made.key.private_bytes(DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for name, data in (
        ("cert.der", made.certificate.public_bytes(DER)), ("key.der", key),
        ("ca.der", AUTHORITY.certificate.public_bytes(DER)),
    ):  # fmt: skip
        (place / name).write_bytes(data)
        (place / name).chmod(0o600)
    return str(place)


def two(place: Path) -> tuple[Attacked, Attacked]:
    """The servers of north and south, in processes of their own."""
    ports = {NORTH: free_port(), SOUTH: free_port()}
    made = []
    for domain, other in ((NORTH, SOUTH), (SOUTH, NORTH)):
        federation = {
            "domain": domain, "port": ports[domain], "peers": {other: f"127.0.0.1:{ports[other]}"},
            "certificates": certified(place / f"{domain}.files", domain),
        }  # fmt: skip
        made.append(Attacked(place / domain, port=free_port(), limits=ROOMY, federation=federation))
    return made[0], made[1]


@pytest.mark.timeout(180)
def test_killed_between_receive_commit_and_answer_on_either_side(tmp_path: Path) -> None:
    async def scenario() -> None:
        north, south = two(tmp_path)
        load = Load(north, south, SOUTH)
        try:
            for victim in (north, south):
                for kill in [(point, 6 + 9 * n) for n, point in enumerate(POINTS)] + ACCESSES:
                    victim.kill()
                    victim.start(kill=kill)
                    async with load.online():
                        assert await asyncio.to_thread(victim.killed), f"{kill} did not come"
                victim.start()
            await load.drained()
            counts = load.compare()
            print(counts)
            assert counts["more than once"] <= counts["stored"] // 2
            assert north.end()[0] == south.end()[0] == 0
        finally:
            north.kill()
            south.kill()

    run(scenario, seconds=150)


def kill_again_and_again(place: Path, kills: int) -> None:
    """Kill one of the two at random moments, and start it again."""
    dice = seeded("kill one of two")

    async def scenario() -> None:
        north, south = two(place)
        load = Load(north, south, SOUTH)
        try:
            for _ in range(kills):
                victim = dice.choice((north, south))
                async with load.online():
                    await asyncio.sleep(dice.uniform(0.05, 0.7))  # not waiting for anything: the random moment
                    victim.kill()
                victim.start()
            await load.drained()
            counts = load.compare()
            print(f"{kills} kills: {counts}")
            assert counts["stored"] > 20 * kills, "hardly anything was sent: the kills met nobody at work"
            assert north.end()[0] == south.end()[0] == 0
        finally:
            north.kill()
            south.kill()

    run(scenario, seconds=70 + 4 * kills)


@pytest.mark.timeout(140)
def test_killed_at_random_moments_loses_and_repeats_nothing(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, 10)


@pytest.mark.soak
@pytest.mark.timeout(1_200)
def test_killed_two_hundred_times_loses_and_repeats_nothing(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, 200)
