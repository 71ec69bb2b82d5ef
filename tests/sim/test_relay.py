"""Several hops: what is for somebody out of reach goes from node to node, and its receipt comes back."""

from __future__ import annotations

from itertools import pairwise

from tests.sim.truth import Witness, everything_arrived
from tests.sim.ways import omniscient

from quicprochat.core.events import Tick
from quicprochat.core.link import FrameType
from quicprochat.core.receipt import State
from quicprochat.core.store import Scope
from quicprochat.core.time import MINUTE_MS
from quicprochat.sim.peer import Peer
from quicprochat.sim.world import Cable, World

SECOND = 1_000


def line(world: World, *names: str) -> list[Peer]:
    """Peers in a row, switched on, each with a cable to the next."""
    peers = [world.peer(name) for name in names]
    omniscient(*peers)
    for peer in peers:
        peer.start()
    for one, other in pairwise(peers):
        Cable(one, other).plug()
    world.run(SECOND)
    return peers


def test_a_message_goes_through_strangers_and_its_receipt_comes_back() -> None:
    world = World(1)
    witness = Witness(world)
    a, b, c, d, e = line(world, "a", "b", "c", "d", "e")
    uid = a.write(e.key, "hello")
    world.run(3 * SECOND)
    everything_arrived(a, e)
    [got] = e.inbox()
    assert (got.text, got.hops) == ("hello", 3)
    assert [(event.state, event.carrier) for event in a.store.trace(uid)] == [
        ("relayed", b.key.hex()),
        ("delivered", b.key.hex()),
    ]
    witness.check_at_rest()
    assert [peer.store.usage(Scope.CARRIED).count for peer in (b, c, d)] == [0, 0, 0]
    assert [peer.store.usage(Scope.RECEIPTS).count for peer in (b, c, d)] == [0, 0, 0]
    assert [peer.inbox() for peer in (b, c, d)] == [[], [], []]


def test_a_thousand_messages_pass_in_order_and_each_crosses_each_link_once() -> None:
    world = World(2)
    a, b, c = line(world, "a", "b", "c")
    c.decide(contacts=[a.key])
    for number in range(1_000):
        a.write(c.key, f"message {number}")
    world.run(MINUTE_MS)
    everything_arrived(a, c)
    assert [one.text for one in c.inbox()] == [f"message {number}" for number in range(1_000)]
    assert b.store.counters()["passed_on"] == 1_000
    assert "duplicates" not in c.store.counters()


def test_what_has_no_way_yet_goes_when_there_is_one() -> None:
    world = World(3)
    a, b, c = line(world, "a", "b", "c")
    [_, far] = b.cables
    far.pull()
    uid = a.write(c.key, "are you there?")
    world.run(MINUTE_MS)
    sent = a.store.sent(uid)
    assert sent is not None
    assert sent.state is State.QUEUED
    far.plug()
    world.run(SECOND)
    a.post(Tick())
    world.run(MINUTE_MS)
    everything_arrived(a, c)


def test_it_costs_one_envelope_and_one_answer_each_hop_and_the_receipt() -> None:
    world = World(4)
    a, b, c = line(world, "a", "b", "c")
    world.run(MINUTE_MS)
    world.frames.clear()
    a.write(c.key, "hello")
    world.run(MINUTE_MS)
    everything_arrived(a, c)
    assert world.frames == {FrameType.ENVELOPE: 4, FrameType.RESULTS: 2}
