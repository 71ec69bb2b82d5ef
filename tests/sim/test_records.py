"""Peer records spread from link to link, each version once, whatever shape the network has."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, pairwise

import pytest

from quicprochat.core.link import FrameType, decode_record
from quicprochat.core.record import open_record
from quicprochat.core.seal import Protection
from quicprochat.core.time import MINUTE_MS
from quicprochat.sim.peer import Peer
from quicprochat.sim.world import Cable, Link, World


def start(world: World, *names: str) -> list[Peer]:
    found = [world.peer(name) for name in names]
    for peer in found:
        peer.start()
    return found


def knows(peer: Peer, other: Peer) -> bool:
    return peer.store.record(other.key) is not None


@pytest.mark.parametrize("first", ["the far link", "the near link"])
def test_on_a_line_the_ends_learn_of_each_other_and_can_seal_to_prekeys(first: str) -> None:
    world = World(1)
    a, b, c = start(world, "a", "b", "c")
    near, far = Cable(a, b), Cable(b, c)
    order = (far, near) if first == "the far link" else (near, far)
    for cable in order:
        cable.plug()
        world.run(1_000)
    assert knows(a, c)
    assert knows(c, a)
    uid = a.write(c.key, "to the other end")
    world.run(1_000)
    sent = a.store.sent(uid)
    assert sent is not None
    assert sent.protection is Protection.PREKEY
    # And it opens there, when they meet at last.
    Cable(a, c).plug()
    world.run(5_000)
    assert [line.text for line in c.inbox()] == ["to the other end"]


def test_a_new_version_reaches_everybody_and_crosses_each_link_at_most_once_each_way() -> None:
    world = World(2)
    peers = start(world, *"abcdef")
    for one, other in combinations(peers, 2):  # everybody linked with everybody: all the loops there can be
        Cable(one, other).plug()
    world.run(MINUTE_MS)
    crossed: Counter[tuple[str, str, str, tuple[int, int]]] = Counter()

    def tap(link: Link, kind: FrameType, body: bytes) -> None:
        if kind is FrameType.RECORD:
            record = open_record(decode_record(body)[1], world.crypto)
            crossed[link.peer.name, link.far.peer.name, record.name, record.version] += 1

    world.tap = tap
    a = peers[0]
    old = a.record
    assert old is not None
    a.crash()
    a.start()  # a new run signs a new record
    world.run(MINUTE_MS)
    assert a.record is not None
    assert a.record.version > old.version
    for peer in peers[1:]:
        stored = peer.store.record(a.key)
        assert stored is not None
        assert (stored.epoch, stored.seq) == a.record.version
    assert set(crossed.values()) == {1}


def test_along_a_chain_of_twenty_a_record_arrives_with_its_age() -> None:
    world = World(3)
    peers = start(world, *(f"peer {n}" for n in range(20)))
    for one, other in pairwise(peers):
        Cable(one, other).plug()
    world.run(MINUTE_MS)
    stored = peers[-1].store.record(peers[0].key)
    assert stored is not None
    age = stored.age_ms + peers[-1].moment().at - stored.stored_at
    assert MINUTE_MS - 1_000 <= age <= MINUTE_MS
