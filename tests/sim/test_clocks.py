"""Clocks that start in 1970, stand in 2100, jump, or stand still while the machine is off."""

from __future__ import annotations

import pytest
from tests.sim.truth import Witness, everything_arrived

from quicprochat.core.receipt import State
from quicprochat.core.store import Sent
from quicprochat.core.time import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from quicprochat.sim.clock import SHOWS_1970, SHOWS_2100, Clock
from quicprochat.sim.peer import Peer
from quicprochat.sim.world import Cable, World

YEAR_MS = 365 * DAY_MS
CLOCKS = {
    "right": (0, True),
    "right but unsure": (0, False),
    "1970": (SHOWS_1970, False),
    "1970 and sure of it": (SHOWS_1970, True),
    "2100": (SHOWS_2100, False),
    "2100 and sure of it": (SHOWS_2100, True),
    "a year ahead and sure of it": (YEAR_MS, True),
    "a year behind and sure of it": (-YEAR_MS // 2, True),
}


def pair(one: Clock, other: Clock) -> tuple[World, Peer, Peer, Cable]:
    world = World(7)
    a, b = world.peer("one", one), world.peer("other", other)
    a.start()
    b.start()
    return world, a, b, Cable(a, b)


def sent(peer: Peer) -> list[Sent]:
    return [one for uid in peer.written if (one := peer.store.sent(uid)) is not None]


@pytest.mark.parametrize("one", CLOCKS)
@pytest.mark.parametrize("other", CLOCKS)
def test_messages_arrive_whatever_the_clocks_say(one: str, other: str) -> None:
    skews = CLOCKS[one], CLOCKS[other]
    world, a, b, cable = pair(*(Clock(skew_ms=skew, synchronised=sure) for skew, sure in skews))
    witness = Witness(world)
    for number in range(3):
        a.write(b.key, f"{number} before they meet")
        b.write(a.key, f"{number} before they meet")
    cable.plug()
    world.run(MINUTE_MS)
    a.write(b.key, "after")
    b.write(a.key, "after")
    world.run(MINUTE_MS)
    everything_arrived(a, b)
    everything_arrived(b, a)
    witness.check_at_rest()


def test_a_wrong_clock_is_found_out_once_and_then_says_nothing() -> None:
    world, a, b, cable = pair(Clock(skew_ms=YEAR_MS), Clock())
    first = a.write(b.key, "made next year")
    cable.plug()
    world.run(MINUTE_MS)
    second = a.write(b.key, "made at an unknown time")
    world.run(MINUTE_MS)
    everything_arrived(a, b)
    assert [event.state for event in a.store.trace(first)] == ["refused:clock", "delivered"]
    assert [event.state for event in a.store.trace(second)] == ["delivered"]


@pytest.mark.parametrize("jumps", [(HOUR_MS, -2 * HOUR_MS), (YEAR_MS, -60 * YEAR_MS, 200 * YEAR_MS), (-1, 1)])
def test_no_message_dies_early_when_an_unsure_wall_clock_jumps(jumps: tuple[int, ...]) -> None:
    world, a, b, cable = pair(Clock(synchronised=False), Clock(synchronised=False))
    a.write(b.key, "for an hour", ttl_s=3_600)
    for jump in jumps:
        for peer in (a, b):
            peer.clock.skew_ms += jump
        world.run(15 * MINUTE_MS)
    assert [one.state for one in sent(a)] == [State.QUEUED]
    cable.plug()
    world.run(SECOND_MS)
    everything_arrived(a, b)


@pytest.mark.parametrize("jumps", [(YEAR_MS, -2 * YEAR_MS, 3 * YEAR_MS), (HOUR_MS, -2 * HOUR_MS, HOUR_MS)])
def test_no_message_dies_early_when_a_time_server_is_wrong(jumps: tuple[int, ...]) -> None:
    world, a, b, cable = pair(Clock(), Clock())
    a.write(b.key, "for an hour", ttl_s=3_600)
    for jump in jumps:
        world.run(10 * MINUTE_MS)
        a.crash()
        a.clock.skew_ms += jump
        a.start()
    assert [one.state for one in sent(a)] == [State.QUEUED]
    cable.plug()
    world.run(MINUTE_MS)
    everything_arrived(a, b)


@pytest.mark.parametrize("clock", CLOCKS)
def test_what_nobody_confirms_expires_on_time_and_says_so(clock: str) -> None:
    skew, sure = CLOCKS[clock]
    world, a, b, _ = pair(Clock(skew_ms=skew, synchronised=sure), Clock())
    a.write(b.key, "for a minute", ttl_s=60)
    world.run(59 * SECOND_MS)
    assert [(one.state, one.reason) for one in sent(a)] == [(State.QUEUED, "")]
    world.run(2 * SECOND_MS)
    assert [(one.state, one.reason) for one in sent(a)] == [(State.EXPIRED, "nobody confirmed")]
    assert not b.inbox()


def test_an_outage_that_no_clock_measured_takes_no_life_from_a_message() -> None:
    world, a, b, cable = pair(Clock(skew_ms=SHOWS_1970, synchronised=False), Clock())
    a.write(b.key, "for an hour", ttl_s=3_600)
    world.run(30 * MINUTE_MS)
    a.crash()
    world.run(10 * DAY_MS)
    a.start(rebooted=True)
    cable.plug()
    world.run(MINUTE_MS)
    everything_arrived(a, b)


@pytest.mark.parametrize(("clock", "rebooted"), [(Clock(), True), (Clock(synchronised=False), False)])
def test_an_outage_that_a_clock_measured_counts(clock: Clock, rebooted: bool) -> None:
    """The wall clock measures it where it is trusted, else the machine's own clock where that went on running."""
    world, a, b, cable = pair(clock, Clock())
    a.write(b.key, "for an hour", ttl_s=3_600)
    world.run(30 * MINUTE_MS)
    a.crash()
    world.run(40 * MINUTE_MS)
    a.start(rebooted=rebooted)
    cable.plug()
    world.run(MINUTE_MS)
    assert [one.state for one in sent(a)] == [State.EXPIRED]
    assert not b.inbox()


def test_the_life_clock_never_goes_back() -> None:
    world = World(3)
    clock = Clock(synchronised=False)
    committed = -1
    for boot in range(50):
        clock.start(world.now, rebooted=world.rng.random() < 0.5)
        clock.synchronised = world.rng.random() < 0.5
        clock.skew_ms = world.rng.randrange(-YEAR_MS, YEAR_MS)
        assert clock.now(world.now).at >= committed, f"at start {boot}"
        world.run(world.rng.randrange(10 * MINUTE_MS))
        now = clock.now(world.now)
        clock.keep(world.now, now)
        committed = now.at
        world.run(world.rng.randrange(10 * MINUTE_MS))
