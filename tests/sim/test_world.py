"""The simulated world itself: the same seed gives the same world, and its faults are the faults it says."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from tests.sim.test_two_people import play

from quicprochat.core.ids import Label
from quicprochat.core.link import FrameType
from quicprochat.core.time import SECOND_MS
from quicprochat.sim.crypto import SimCrypto
from quicprochat.sim.peer import Doom, Peer
from quicprochat.sim.world import Cable, World

ROOT = Path(__file__).resolve().parents[2]


def pair(**how: int) -> tuple[World, Peer, Peer, Cable]:
    world = World(1)
    a, b = world.peer("one"), world.peer("other")
    a.start()
    b.start()
    cable = Cable(a, b, **how)
    cable.plug()
    world.run(10 * SECOND_MS)
    return world, a, b, cable


def test_the_same_seed_gives_the_same_trace() -> None:
    assert play(5).trace == play(5).trace
    assert play(5).trace != play(6).trace


def test_the_trace_does_not_depend_on_the_order_of_sets() -> None:
    program = "from tests.sim.test_two_people import play; import hashlib; print(hashlib.sha256("
    program += "repr([play(seed).trace for seed in range(10)]).encode()).hexdigest())"
    path = os.pathsep.join((str(ROOT), str(ROOT / "src")))
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_what_is_on_the_way_is_lost_when_the_way_breaks() -> None:
    world, a, b, cable = pair(latency_ms=100)
    a.write(b.key, "hi")
    world.run(50)
    sent = world.frames[FrameType.ENVELOPE]
    cable.pull()
    world.run(SECOND_MS)
    assert sent == 1
    assert b.inbox() == []


def test_frames_arrive_in_order_and_no_faster_than_the_line() -> None:
    world, a, b, _ = pair(latency_ms=10, jitter_ms=5_000, bytes_per_s=1_000)
    for number in range(20):
        a.write(b.key, str(number))
    began = world.now
    world.run(60 * SECOND_MS)
    assert [line.text for line in b.inbox()] == [str(number) for number in range(20)]
    arrivals = [at for at, who, what in world.trace if who == "other" and at > began and what.startswith("receives")]
    assert len(arrivals) == 20
    assert all(later - earlier >= 500 for earlier, later in pairwise(arrivals))


def test_two_ends_notice_a_break_each_in_its_own_time() -> None:
    world, a, b, cable = pair(notice_ms=10_000)
    cable.pull()
    noticed: dict[str, int] = {}
    for _ in range(11):
        for peer in (a, b):
            if not peer.links:
                noticed.setdefault(peer.name, world.now)
        world.run(SECOND_MS)
    assert len(set(noticed.values())) == 2


DOOMS = [(Doom.BEFORE_COMMIT, 0), (Doom.PASSED_ON, 0), (Doom.AFTER_COMMIT, 1), (Doom.DURING_RELEASE, 1)]


@pytest.mark.parametrize(("doom", "kept"), DOOMS)
def test_a_crash_takes_what_was_not_committed_and_says_nothing_of_the_rest(doom: Doom, kept: int) -> None:
    world, a, b, _ = pair()
    told = len(a.told)
    a.doom = doom
    uid = a.write(b.key, "hi")
    world.run(SECOND_MS)
    assert a.node is None
    assert (a.store.sent(uid) is not None) == bool(kept)
    if doom is not Doom.DURING_RELEASE:
        assert (len(a.told), world.frames[FrameType.ENVELOPE]) == (told, 0)


def test_a_crash_during_the_release_lets_some_effects_out() -> None:
    seen = set()
    for seed in range(20):
        world = World(seed)
        a, b = world.peer("one"), world.peer("other")
        a.start()
        b.start()
        Cable(a, b).plug()
        world.run(SECOND_MS)
        a.doom = Doom.DURING_RELEASE
        a.write(b.key, "hi")
        world.run(SECOND_MS)
        seen.add((len(a.told), len(b.inbox())))
    assert seen == {(0, 0), (1, 0), (1, 1)}


def test_only_the_owner_of_a_seed_signs_for_its_key() -> None:
    crypto = SimCrypto(b"")
    alice, bob = crypto.signer(b"alice"), crypto.signer(b"bob")
    signature = alice.sign(Label.RECORD, b"words")
    assert crypto.verify(alice.key, Label.RECORD, b"words", signature)
    assert not crypto.verify(bob.key, Label.RECORD, b"words", signature)
    assert not crypto.verify(alice.key, Label.ENVELOPE, b"words", signature)
    assert not crypto.verify(alice.key, Label.RECORD, b"other words", signature)
    assert not crypto.verify(bytes(32), Label.RECORD, b"words", signature)
    assert (crypto.valid_key(alice.key), crypto.valid_key(bytes(32))) == (True, False)
    assert (crypto.tally.signs, crypto.tally.verifies) == (1, 5)


def test_only_the_right_key_opens_what_was_sealed() -> None:
    crypto = SimCrypto(b"")
    secret, private = crypto.new_prekey()
    _, other = crypto.new_prekey()
    sealed = crypto.seal(private.public, b"info", b"words")
    assert b"words" not in sealed
    assert len(sealed) == 32 + 5 + 16
    assert crypto.open(crypto.load_prekey(secret), b"info", sealed) == b"words"
    assert crypto.open(other, b"info", sealed) is None
    assert crypto.open(private, b"other", sealed) is None
    assert crypto.open(private, b"info", sealed[:-1] + b"\0") is None
    assert crypto.open(private, b"info", b"") is None
    assert (crypto.tally.seals, crypto.tally.opens) == (1, 5)
    alice = crypto.signer(b"alice")
    to_identity = crypto.seal(crypto.exchange_key(alice.key), b"", b"words")
    assert crypto.open(alice.exchange_private(), b"", to_identity) == b"words"


def test_one_time_keys_and_derivation_fit_together() -> None:
    crypto = SimCrypto(b"")
    key = crypto.hkdf(b"secret", b"salt", b"info", 64)
    assert len(key) == 64
    assert key != crypto.hkdf(b"secret", b"salt", b"other", 64)
    sealed = crypto.aead_seal(key[:32], b"words", b"aad")
    assert crypto.aead_open(key[:32], sealed, b"aad") == b"words"
    assert crypto.aead_open(key[:32], sealed, b"other") is None
    assert crypto.aead_open(key[32:], sealed, b"aad") is None
    assert crypto.aead_open(key[:32], b"", b"aad") is None


def test_a_message_costs_what_the_design_says() -> None:
    """Author: two signatures, a seal, a check of the record and of the receipt. Reader: the rest."""
    world, a, b, _ = pair()
    tally = world.crypto.tally
    before = (tally.signs, tally.verifies, tally.seals, tally.opens)
    a.write(b.key, "hi")
    world.run(SECOND_MS)
    after = (tally.signs, tally.verifies, tally.seals, tally.opens)
    assert len(b.inbox()) == 1
    assert tuple(y - x for x, y in zip(before, after, strict=True)) == (3, 4, 1, 1)
