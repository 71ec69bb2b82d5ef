"""The power goes: nothing acknowledged is missing after the disk was mounted again. Needs root.

The file systems' own shutdown call drops what was not synced, journal included; the process is stopped just before,
because nobody acknowledges anything after the power went. That this harness can see a loss is shown by the same store
with ``synchronous=NORMAL``, which must lose.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.durability.disks import LoopDisk, loop_disk
from tests.durability.harness import (
    WORKER,
    Pair,
    compare,
    compare_dead,
    facts,
    pair,
    read_store,
    seeded,
    until,
    worker_env,
)

from quicprochat.adapters.crypto import SodiumCrypto
from quicprochat.adapters.system import entropy
from quicprochat.p2p.book import AddressBook

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

WRITER = WORKER.with_name("writer.py")
CUTS = 6
TRIES = 5
"""A run that happens to be cut right after a checkpoint loses nothing, whatever the setting."""


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
@pytest.mark.parametrize("role", ["author", "recipient"])
def test_power_cuts_during_sending_lose_and_repeat_nothing(tmp_path: Path, kind: str, role: str) -> None:
    dice = seeded(f"power {kind} {role}")
    with loop_disk(tmp_path, kind) as disk, pair(tmp_path, disk, role) as both:
        for _ in range(CUTS):
            wait_until_busy(both)
            time.sleep(dice.uniform(0, 1))  # not waiting for anything: this is the random moment
            both.workers[role].freeze()
            disk.cut()
            both.kill(role)
            disk.power_up()
            compare_dead(both, role)
        both.finish()
        counts = compare(both)
    print(f"{CUTS} cuts of the {role}'s {kind}: {dict(counts)}")
    assert counts["acked"] > 50 * CUTS


def wait_until_busy(both: Pair) -> None:
    """Start who does not run, and wait until messages arrive again."""
    for role in ("recipient", "author"):
        if role not in both.workers:
            both.start(role).ready()
            if role == "author":
                both.workers[role].ask("send")
    recipient = both.workers["recipient"]
    before = recipient.ask("view")["delivered"]
    until(lambda: recipient.ask("view")["delivered"] > before + 50)


@pytest.mark.parametrize("role", ["author", "recipient"])
def test_node_that_lives_to_see_its_disk_fail_ends(tmp_path: Path, role: str) -> None:
    """What was acknowledged before the cut is there; of what was under way then, the kernel itself says nothing true:
    a sync that meets the cut may report success (seen with a bare file, on both file systems)."""
    with loop_disk(tmp_path, "ext4") as disk, pair(tmp_path, disk, role) as both:
        wait_until_busy(both)
        told, shown = facts(both.author), facts(both.recipient)
        disk.cut()
        assert both.workers[role].expect("failed")["kind"] == "StoreError"
        assert both.ended(role) == 3
        disk.power_up()
        sent, inbox = read_store(both.owner(role))
        if role == "author":
            assert told["acked"].keys() <= sent.keys()
        else:
            assert told["delivered"].keys() | shown["shown"].keys() <= {line.uid.hex() for line in inbox}
        assert facts(both.author).after_end == 0


def cut_a_writer(disk: LoopDisk, log: Path, dice: random.Random, *arguments: str) -> list[str]:
    """Let writer.py work until the power goes; return the words that it logged."""
    process = subprocess.Popen(
        [*disk.prefix, sys.executable, str(WRITER), *arguments], env=worker_env(), stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: log.exists() and log.stat().st_size > 500)
        time.sleep(dice.uniform(0, 1))  # the random moment
        process.send_signal(signal.SIGSTOP)
        disk.cut()
    finally:
        process.kill()
        process.wait()
    disk.power_up()
    words = log.read_text().split()
    log.unlink()
    return words


def cut_a_store(disk: LoopDisk, log: Path, dice: random.Random, synchronous: str) -> tuple[int, int]:
    """Return how many of how many acknowledged messages a cut cost."""
    file = str(disk.place / f"{dice.randrange(10**9)}.db")
    acknowledged = cut_a_writer(disk, log, dice, "write", file, str(log), synchronous)
    found = subprocess.run(
        [*disk.prefix, sys.executable, str(WRITER), "read", file], env=worker_env(), check=True, capture_output=True,
        text=True,
    ).stdout.split()  # fmt: skip
    return len(set(acknowledged) - set(found)), len(acknowledged)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_store_that_does_not_sync_loses_and_the_real_one_does_not(tmp_path: Path, kind: str) -> None:
    dice = seeded(f"control {kind}")
    with loop_disk(tmp_path, kind) as disk:
        for synchronous in ("FULL", "NORMAL"):
            runs = [cut_a_store(disk, tmp_path / "log", dice, synchronous) for _ in range(TRIES)]
            lost, of = (sum(numbers) for numbers in zip(*runs, strict=True))
            print(f"{kind}, synchronous={synchronous}: {lost} of {of} acknowledged messages lost in {TRIES} cuts")
            if synchronous == "FULL":
                assert lost == 0
            else:
                assert lost > 0, "the control lost nothing: these power cuts prove nothing"


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_power_cuts_while_the_identity_is_saved_leave_the_newest_one(tmp_path: Path, kind: str) -> None:
    dice = seeded(f"identity {kind}")
    with loop_disk(tmp_path, kind) as disk:
        key = b""
        for _ in range(CUTS):
            saved = cut_a_writer(
                disk, tmp_path / "log", dice, "rename", str(disk.place / "id.json"), str(tmp_path / "log")
            )
            identity = AddressBook(disk.outside / "id.json", SodiumCrypto(entropy), entropy).identity
            assert int(identity.name) in (int(saved[-1]), int(saved[-1]) + 1)
            assert key in (b"", identity.key)
            key = identity.key
