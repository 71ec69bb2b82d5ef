"""The first moments of a link, when what waited is sealed better: whatever happens in between, nothing is stuck."""

from __future__ import annotations

from functools import partial

import pytest
from tests.sim.test_two_people import heal
from tests.sim.truth import Witness

from quicprochat.core.receipt import State
from quicprochat.core.seal import Protection
from quicprochat.core.time import HOUR_MS, MINUTE_MS
from quicprochat.sim.peer import Doom, Peer
from quicprochat.sim.world import Cable, World

SEEDS = 300
MOMENTS_MS = 200
"""From the first frame to the first receipt, with room to spare."""


def happen(world: World, one: Peer, other: Peer, cable: Cable) -> None:
    """Something, at some moment."""
    rng = world.rng
    peer = rng.choice((one, other))
    if peer.node is None:
        peer.start(rebooted=rng.random() < 0.5)
        return
    match rng.randrange(8):
        case 0 | 1 | 2 if peer.written:
            peer.cancel(rng.choice(peer.written))
        case 3:
            peer.write((other if peer is one else one).key, "one more")
        case 4:
            cable.pull()
            cable.plug()
        case 5:
            peer.doom = rng.choice(list(Doom))
        case 6:
            peer.crash()
        case _:
            peer.decide(disk_low=rng.random() < 0.5)


def meet(seed: int) -> None:
    world = World(seed)
    rng = world.rng
    one, other = world.peer("one"), world.peer("other")
    witness = Witness(world)
    one.start()
    other.start()
    for number in range(rng.randrange(1, 6)):
        one.write(other.key, f"message {number}", ttl_s=rng.choice((1, 3_600)))
    world.run(rng.choice((100, 990)))
    cable = Cable(one, other, latency_ms=5)
    cable.plug()
    for _ in range(rng.randrange(1, 6)):
        world.after(rng.randrange(MOMENTS_MS), partial(happen, world, one, other, cable))
    world.run(MOMENTS_MS)
    for peer in (one, other):
        peer.decide()
    heal(world, cable)
    world.run(10 * MINUTE_MS)
    for peer, friend in ((one, other), (other, one)):
        peer.write(friend.key, "is all well?")
    world.run(HOUR_MS)
    witness.check_at_rest()
    for peer, friend in ((one, other), (other, one)):
        got = {line.uid: line.protection for line in friend.inbox()}
        assert peer.store.sent(peer.written[-1]).state is State.DELIVERED  # type: ignore[union-attr]
        for uid in peer.written:
            sent = peer.store.sent(uid)
            if sent is not None and sent.state not in (State.CANCELLED, State.EXPIRED):
                assert (sent.state, uid in got) == (State.DELIVERED, True)
            assert got.get(uid, Protection.PREKEY.value) == Protection.PREKEY.value, "sent under the weaker key"


@pytest.mark.parametrize("first", range(0, SEEDS, 50))
def test_everything_arrives_well_protected_whatever_happens_while_they_meet(first: int) -> None:
    for seed in range(first, first + 50):
        try:
            meet(seed)
        except BaseException as error:
            error.add_note(
                f"in the story of seed {seed}: python -c 'from tests.sim.test_first_meeting import *; meet({seed})'"
            )
            raise
