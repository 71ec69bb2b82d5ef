"""Several hops: what is for somebody out of reach goes from node to node, and its receipt comes back."""

from __future__ import annotations

from itertools import pairwise

from tests.sim.truth import Witness, everything_arrived
from tests.sim.ways import omniscient

from quicprochat.core.envelope import Header, Kind, MeshEnvelope, make
from quicprochat.core.events import EnvelopeArrived, Tick
from quicprochat.core.gate import Checked, Limits, Verdict, check
from quicprochat.core.link import FrameType, Result, encode_results
from quicprochat.core.receipt import Receipt, State, Status
from quicprochat.core.store import Scope
from quicprochat.core.time import MINUTE_MS
from quicprochat.sim.clock import Clock
from quicprochat.sim.peer import Peer
from quicprochat.sim.world import Cable, Link, World

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
    world.run(MINUTE_MS)
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
    a, _, c = line(world, "a", "b", "c")
    world.run(MINUTE_MS)
    world.frames.clear()
    a.write(c.key, "hello")
    world.run(MINUTE_MS)
    everything_arrived(a, c)
    assert world.frames == {FrameType.ENVELOPE: 4, FrameType.RESULTS: 2}


# --- what goes wrong


class BlackHole(Peer):
    """Says that it stored what it is given for others, and drops it."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name, Clock(), Limits())
        self.swallowed = 0
        world.peers.append(self)

    def receive(self, link: Link, kind: int, body: bytes) -> None:
        if kind == FrameType.ENVELOPE and (envelope := MeshEnvelope.decode(body)).dst != self.key:
            self.swallowed += 1
            if envelope.kind != Kind.RECEIPT:
                link.send(FrameType.RESULTS, encode_results([Result(envelope.id, Verdict.STORED)]))
            return
        super().receive(link, kind, body)


def three_ways(world: World) -> tuple[Peer, BlackHole, Peer]:
    """Two people and three nodes between them; one has the best metric and drops everything."""
    a, z, bad = world.peer("a"), world.peer("z"), BlackHole(world, "bad")
    middle = [bad, world.peer("good"), world.peer("better")]
    omniscient(a, z, *middle)
    for peer in (a, z, *middle):
        peer.start()
    for peer in middle:
        latency_ms = 1 if peer is bad else 20
        Cable(a, peer, latency_ms=latency_ms).plug()
        Cable(peer, z, latency_ms=latency_ms).plug()
    world.run(SECOND)
    return a, bad, z


def test_a_black_hole_with_the_best_metric_costs_time_and_no_messages() -> None:
    world = World(5)
    a, bad, z = three_ways(world)
    z.decide(contacts=[a.key])
    for number in range(100):
        a.write(z.key, f"message {number}")
        world.run(SECOND)
    world.run(MINUTE_MS)
    everything_arrived(a, z)
    assert 0 < bad.swallowed < 20, "it is tried, and then avoided"


def test_a_black_hole_further_on_is_passed_by_who_passed_on_to_it() -> None:
    world = World(6)
    a, bad, z = three_ways(world)
    author = world.peer("author")
    omniscient(author)
    author.start()
    Cable(author, a).plug()
    world.run(SECOND)
    z.decide(contacts=[author.key])
    for number in range(100):
        author.write(z.key, f"message {number}")
        world.run(SECOND)
    world.run(5 * MINUTE_MS)
    everything_arrived(author, z)
    assert 0 < bad.swallowed < 20


def test_a_cut_in_the_middle_of_a_stream_loses_nothing() -> None:
    """Both ways round a ring; the shorter one is cut while a hundred are under way, and a node on the other dies."""
    world = World(7)
    a, b, z = (world.peer(name) for name in ("a", "b", "z"))
    c, d = world.peer("c"), world.peer("d")
    omniscient(a, b, z, c, d)
    for peer in world.peers:
        peer.start()
    for one, other in ((a, b), (b, z), (a, c), (c, d), (d, z)):
        Cable(one, other, notice_ms=5_000, bytes_per_s=20_000).plug()
    world.run(SECOND)
    z.decide(contacts=[a.key])
    for number in range(100):
        a.write(z.key, f"message {number}")
    world.run(SECOND)
    b.cables[1].pull()
    world.run(3 * SECOND)
    c.crash()
    world.run(3 * SECOND)
    c.start()
    world.run(10 * MINUTE_MS)
    everything_arrived(a, z)
    assert len(z.inbox()) == 100


def test_a_forged_receipt_lets_nobody_drop_or_believe_anything() -> None:
    """Only who a message is for can say that it arrived."""
    world = World(8)
    a, b, c = line(world, "a", "b", "c")
    forger = world.peer("forger")
    forger.start()
    Cable(forger, b).plug()
    b.cables[1].pull()
    world.run(MINUTE_MS)
    uid = a.write(c.key, "hello")
    world.run(SECOND)
    sent = a.store.sent(uid)
    assert sent is not None
    wire = a.store.held(sent.envelope_id)
    assert wire is not None
    checked = check(wire.to_send(a.moment().at), b.key, {}, world.crypto)
    assert isinstance(checked, Checked)
    b.post(EnvelopeArrived(next(link.id for link in b.links if link.far.peer is a), checked))
    world.run(SECOND)
    assert b.store.held(sent.envelope_id) is not None, "it waits at b for c to be there"
    payload = Receipt(Status.DELIVERED, (sent.envelope_id,)).encode()
    for to in (a.key, forger.key, b.key):
        header = Header(Kind.RECEIPT, forger.key, to, forger.entropy(16))
        forger.links[0].send(FrameType.ENVELOPE, make(header, payload, forger.signer).wire())
    world.run(SECOND)
    assert b.store.held(sent.envelope_id) is not None
    sent = a.store.sent(uid)
    assert sent is not None
    assert sent.state is not State.DELIVERED
    b.cables[1].plug()
    world.run(MINUTE_MS)
    everything_arrived(a, c)
