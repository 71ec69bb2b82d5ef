"""Two people, a way between them that comes and goes, and machines that die at the worst moments."""

from __future__ import annotations

from functools import partial

import pytest
from tests.sim.truth import Witness, everything_arrived, talk

from quicprochat.core.link import FrameType
from quicprochat.core.time import DAY_MS, HOUR_MS, MINUTE_MS
from quicprochat.sim.clock import SHOWS_1970, SHOWS_2100, Clock
from quicprochat.sim.peer import Doom, Peer
from quicprochat.sim.world import Cable, World

SEEDS = 400
SOAK_SEEDS = 20_000
CHUNK = 50
STORM_MS = 10 * MINUTE_MS


def clock(world: World) -> Clock:
    """One of the clocks one meets."""
    kind = world.rng.randrange(6)
    if kind == 0:
        return Clock(skew_ms=SHOWS_1970, synchronised=False)
    if kind == 1:
        return Clock(skew_ms=SHOWS_2100)
    if kind == 2:
        return Clock(skew_ms=world.rng.choice((-1, 1)) * 365 * DAY_MS)  # wrong, and sure of itself
    if kind == 3:
        return Clock(skew_ms=world.rng.randrange(-5 * MINUTE_MS, 5 * MINUTE_MS))
    return Clock()


def storm(world: World, cable: Cable) -> None:
    """Let both write while the way flaps, clocks jump, and machines die and come back."""
    rng = world.rng

    def switch_on(peer: Peer, rebooted: bool) -> None:
        if peer.node is None:
            peer.start(rebooted=rebooted)

    def die(peer: Peer) -> None:
        if peer.node is not None:
            peer.crash()

    def doom(peer: Peer, where: Doom) -> None:
        if peer.node is not None:
            peer.doom = where

    def write(peer: Peer, to: Peer, number: int) -> None:
        if peer.node is not None:
            peer.write(to.key, f"message {number}")

    def jump(peer: Peer) -> None:
        if peer.clock.synchronised:
            peer.clock.skew_ms += rng.randrange(-5 * MINUTE_MS, 5 * MINUTE_MS)
        else:
            peer.clock.skew_ms += rng.randrange(-365 * DAY_MS, 365 * DAY_MS)

    one, other = cable.ends
    for number in range(rng.randrange(1, 25)):
        author, reader = rng.choice(((one, other), (other, one)))
        world.after(rng.randrange(STORM_MS), partial(write, author, reader, number))
    for _ in range(rng.randrange(12)):
        world.after(at := rng.randrange(STORM_MS), cable.plug)
        world.after(at + rng.randrange(1, 90_000), cable.pull)
    for _ in range(rng.randrange(8)):
        peer, at = rng.choice(cable.ends), rng.randrange(STORM_MS)
        how = partial(die, peer) if rng.random() < 0.2 else partial(doom, peer, rng.choice(list(Doom)))
        world.after(at, how)
        world.after(at + rng.randrange(60_000), partial(switch_on, peer, rng.random() < 0.3))
    for _ in range(rng.randrange(3)):
        world.after(rng.randrange(STORM_MS), partial(jump, rng.choice(cable.ends)))


def heal(world: World, cable: Cable) -> None:
    """Take all faults away."""
    for peer in cable.ends:
        peer.doom = None
        if peer.node is None:
            peer.start()
    cable.plug()


def play(seed: int) -> World:
    """One story with a good end."""
    world = World(seed)
    one, other = world.peer("one", clock(world)), world.peer("other", clock(world))
    cable = Cable(
        one,
        other,
        latency_ms=world.rng.randrange(1, 800),
        jitter_ms=world.rng.randrange(200),
        bytes_per_s=world.rng.choice((2_000, 100_000, 10_000_000)),
        notice_ms=world.rng.choice((0, 10_000)),
    )
    witness = Witness(world)
    one.start()
    other.start()
    storm(world, cable)
    world.run(STORM_MS // 2)
    heal(world, cable)
    world.run(STORM_MS // 2 + 2 * MINUTE_MS)
    heal(world, cable)
    world.run(30 * MINUTE_MS)
    one.write(other.key, "is all well again?")
    other.write(one.key, "is all well again?")
    world.run(MINUTE_MS)
    witness.check_at_rest()
    everything_arrived(one, other)
    everything_arrived(other, one)
    frames = talk(world)
    world.run(HOUR_MS)
    assert talk(world) == frames, "they go on talking although everything is said"
    return world


def play_all(seeds: range) -> None:
    for seed in seeds:
        try:
            play(seed)
        except BaseException as error:
            error.add_note(
                f"in the story of seed {seed}: python -c 'from tests.sim.test_two_people import *; play({seed})'"
            )
            raise


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_every_accepted_message_arrives_once_and_is_known_to(first: int) -> None:
    play_all(range(first, first + CHUNK))


@pytest.mark.soak
@pytest.mark.parametrize("first", range(SEEDS, SOAK_SEEDS, CHUNK))
def test_every_accepted_message_arrives_once_and_is_known_to_for_long(first: int) -> None:
    play_all(range(first, first + CHUNK))


def test_without_faults_each_message_costs_two_envelopes() -> None:
    world = World(1)
    one, other = world.peer("one"), world.peer("other")
    one.start()
    other.start()
    Cable(one, other).plug()
    world.run(1_000)
    for number in range(50):
        one.write(other.key, f"message {number}")
        world.run(200)
    world.run(DAY_MS // 3)
    everything_arrived(one, other)
    assert (talk(world), world.frames[FrameType.HELLO], world.frames[FrameType.ENVELOPE]) == (102, 2, 100)
