"""Worlds in which nodes find their own ways, and where there is none, what walks from one to the other."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from tests.sim.test_relay import BlackHole
from tests.sim.truth import Witness, everything_arrived

from quicprochat.core.link import FrameType
from quicprochat.core.policy import Carry
from quicprochat.core.receipt import State
from quicprochat.core.store import Scope
from quicprochat.core.time import DAY_MS, MINUTE_MS
from quicprochat.sim.clock import SHOWS_1970, SHOWS_2100, Clock
from quicprochat.sim.peer import Doom, Peer
from quicprochat.sim.world import Cable, World

SECOND = 1_000


def on(*peers: Peer) -> None:
    for peer in peers:
        peer.start()


def connect(*pairs: tuple[Peer, Peer]) -> list[Cable]:
    cables = [Cable(one, other) for one, other in pairs]
    for cable in cables:
        cable.plug()
    return cables


def line(world: World, names: str) -> list[Peer]:
    peers = [world.peer(name) for name in names]
    on(*peers)
    connect(*pairwise(peers))
    world.run(3 * SECOND)
    return peers


def test_a_line_of_five_finds_its_way_and_keeps_nothing() -> None:
    world = World(1)
    witness = Witness(world)
    a, b, c, d, e = line(world, "abcde")
    a.write(e.key, "hello")
    e.write(a.key, "hello too")
    world.run(MINUTE_MS)
    everything_arrived(a, e)
    everything_arrived(e, a)
    assert [one.hops for one in e.inbox()] == [3]
    witness.check_at_rest()
    assert [p.store.usage(s).count for p in (b, c, d) for s in (Scope.CARRIED, Scope.RECEIPTS)] == [0] * 6


def test_a_relay_that_dies_with_what_it_passed_on_not_yet_on_its_disk_loses_nothing() -> None:
    ahead = set()
    for seed in range(12):
        world = World(seed)
        witness = Witness(world)
        a, b, c = line(world, "abc")
        uid = a.write(c.key, "hello")
        b.doom = Doom.PASSED_ON
        world.run(SECOND)
        assert b.node is None, "it died when the message came"
        assert b.store.usage(Scope.CARRIED).count == 0, "its disk knows nothing of it"
        sent = a.store.sent(uid)
        assert sent is not None
        assert sent.state is State.QUEUED, "and nobody was told anything"
        ahead.add(len(c.inbox()))
        b.start()
        world.run(MINUTE_MS)
        everything_arrived(a, c)
        assert len(c.inbox()) == 1
        witness.check_at_rest()
    assert ahead == {0, 1}, "what had left before arrives, unless the link is seen to be dead first"


@pytest.mark.parametrize("skew_ms", [SHOWS_1970, SHOWS_2100, -365 * DAY_MS])
def test_a_relay_with_a_wrong_clock_passes_on_all_the_same(skew_ms: int) -> None:
    world = World(2)
    a, e = world.peer("a"), world.peer("e")
    wrong = [world.peer(name, Clock(skew_ms=skew_ms, synchronised=False)) for name in "bcd"]
    on(a, *wrong, e)
    connect(*pairwise([a, *wrong, e]))
    world.run(3 * SECOND)
    a.write(e.key, "hello", ttl_s=600)
    world.run(MINUTE_MS)
    everything_arrived(a, e)


@pytest.mark.parametrize("cut", [0, 1, 2])
@pytest.mark.parametrize("notice_ms", [0, 10_000])
def test_after_a_cut_the_shortest_way_is_used_again_within_seconds(cut: int, notice_ms: int) -> None:
    """Whoever had messages when the way behind it broke is no black hole, also where the cut shows late."""
    for seed in range(4):
        world = World(seed)
        a, b, c, z, x, y, w = (world.peer(name) for name in "abczxyw")
        on(a, b, c, z, x, y, w)
        short = [Cable(one, other, notice_ms=notice_ms) for one, other in pairwise([a, b, c, z])]
        for cable in short:
            cable.plug()
        connect(*pairwise([a, x, y, w, z]))
        z.decide(contacts=[a.key])
        a.decide(contacts=[z.key])
        world.run(5 * SECOND)
        for number in range(200):
            a.write(z.key, f"before and after {number}")
            z.write(a.key, f"and back {number}")
            world.run(100)
            if number == 30:
                short[cut].pull()
        short[cut].plug()
        world.run(15 * SECOND)
        ways = []
        for _ in range(10):
            before = len(z.inbox())
            a.write(z.key, "healed")
            world.run(SECOND)
            ways += [line.hops for line in z.inbox()[before:] if line.text == "healed"]
        assert ways == [2] * 10, f"hops with seed {seed}"
        everything_arrived(a, z)
        everything_arrived(z, a)


def test_three_ways_and_one_that_swallows_everything() -> None:
    world = World(3)
    a, z, bad = world.peer("a"), world.peer("z"), BlackHole(world, "bad")
    middle = [bad, world.peer("good"), world.peer("better")]
    on(a, z, *middle)
    for peer in middle:
        latency_ms = 1 if peer is bad else 20
        Cable(a, peer, latency_ms=latency_ms).plug()
        Cable(peer, z, latency_ms=latency_ms).plug()
    world.run(5 * SECOND)
    z.decide(contacts=[a.key])
    for number in range(100):
        a.write(z.key, f"message {number}")
        world.run(SECOND)
    world.run(2 * MINUTE_MS)
    everything_arrived(a, z)
    assert 0 < bad.swallowed < 20


def test_a_walker_takes_what_a_cut_keeps_apart_and_brings_the_answer() -> None:
    """Two villages; the one link between them breaks, and somebody walks over, and later back."""
    world = World(4)
    witness = Witness(world)
    a, b, c, d, e = line(world, "abcde")
    walker = world.peer("walker")
    on(walker)
    here, there = Cable(walker, b), Cable(walker, d)
    [_, cut] = c.cables
    cut.pull()
    world.run(MINUTE_MS)
    uid = a.write(e.key, "the bridge is gone")
    world.run(MINUTE_MS)
    assert a.store.sent(uid).state is State.RELAYED  # type: ignore[union-attr]
    here.plug()
    world.run(MINUTE_MS)
    here.pull()
    world.run(10 * MINUTE_MS)
    there.plug()
    world.run(MINUTE_MS)
    assert [line.text for line in e.inbox()] == ["the bridge is gone"]
    assert a.store.sent(uid).state is State.RELAYED  # type: ignore[union-attr]
    there.pull()
    world.run(10 * MINUTE_MS)
    here.plug()
    world.run(MINUTE_MS)
    everything_arrived(a, e)
    here.pull()
    cut.plug()
    world.run(10 * MINUTE_MS)
    witness.check_at_rest()
    left = {p.name: p.store.usage(Scope.CARRIED).count for p in world.peers}
    assert left == {p.name: 0 for p in world.peers}, "the receipt cures every copy"


def test_a_receipt_that_went_into_a_dead_link_goes_another_way() -> None:
    """A walker plugs in over there before the link over here is known to be dead, and so promises a way."""
    world = World(6)
    a, b, d, e = (world.peer(name) for name in "abde")
    walker = world.peer("walker")
    on(a, b, d, e, walker)
    connect((a, b), (d, e))
    here, there = Cable(walker, b, notice_ms=9_000), Cable(walker, d)
    uid = a.write(e.key, "by foot")
    here.plug()
    world.run(MINUTE_MS)
    assert walker.store.usage(Scope.CARRIED).count == 1
    world.rng.seed(9)
    here.pull()
    there.plug()
    world.run(3 * SECOND)
    assert [line.text for line in e.inbox()] == ["by foot"]
    assert len(walker.links) == 2, "it still believes in the old link"
    world.run(MINUTE_MS)
    there.pull()
    here.plug()
    world.run(MINUTE_MS)
    assert a.store.sent(uid).state is State.DELIVERED  # type: ignore[union-attr]


def test_nobody_is_sent_through_a_node_that_carries_for_nobody() -> None:
    world = World(7)
    a, no, c = world.peer("a"), world.peer("no"), world.peer("c")
    no.policy = replace(no.policy, carry=Carry.NO)
    on(a, no, c)
    connect((a, no), (no, c))
    world.run(3 * SECOND)
    assert a.node is not None
    assert [way.destination for way in a.node.routes(a.moment())] == [no.key]
    a.write(no.key, "for yourself")
    uid = a.write(c.key, "for another")
    world.run(MINUTE_MS)
    everything_arrived(a, no)
    assert a.store.sent(uid).state is State.QUEUED  # type: ignore[union-attr]
    assert c.inbox() == []


def test_a_ring_passes_on_the_shorter_way_and_hops_end() -> None:
    world = World(5)
    ring = [world.peer(f"{n}") for n in range(6)]
    on(*ring)
    connect(*pairwise(ring), (ring[-1], ring[0]))
    world.run(3 * SECOND)
    ring[0].write(ring[2].key, "two hops")
    ring[0].write(ring[4].key, "two hops")
    world.frames.clear()
    world.run(MINUTE_MS)
    everything_arrived(ring[0], ring[2])
    everything_arrived(ring[0], ring[4])
    assert world.frames[FrameType.ENVELOPE] == 8
