"""Channels among linked peers, while links flap and machines die: each post in each subscriber's journal, once."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import partial
from itertools import combinations

import pytest
from tests.sim.test_two_people import clock
from tests.sim.truth import talk

from quicprochat.core.channel import BroadcastChannel, open_post
from quicprochat.core.envelope import Kind, MeshEnvelope
from quicprochat.core.events import Journaled, PostAccepted
from quicprochat.core.gate import Reason
from quicprochat.core.ids import ChannelId, EnvelopeId, PeerKey, Uid
from quicprochat.core.link import FrameType
from quicprochat.core.store import LineKind
from quicprochat.core.time import HOUR_MS, MINUTE_MS
from quicprochat.sim.clock import Clock
from quicprochat.sim.peer import Doom, Peer
from quicprochat.sim.world import Cable, Link, World

SEEDS = 600
SOAK_SEEDS = 10_000
CHUNK = 100
STORM_MS = 10 * MINUTE_MS
FAMILY = BroadcastChannel.private(b"\x07" * 32, "family")
VILLAGE = BroadcastChannel.private(b"\x08" * 32, "village")
SECRETS = {channel.id: channel.secret for channel in (FAMILY, VILLAGE)}


class Ear:
    """Hears every post on every link, and checks what must hold of them at any moment."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.numbers: dict[tuple[PeerKey, ChannelId, int], EnvelopeId] = {}
        self.uids: dict[EnvelopeId, Uid] = {}
        self.sent: Counter[tuple[PeerKey, PeerKey, EnvelopeId]] = Counter()
        world.tap = self._hear

    def _hear(self, link: Link, kind: FrameType, body: bytes) -> None:
        if kind is not FrameType.ENVELOPE:
            return
        envelope = MeshEnvelope.decode(body)
        if envelope.kind != Kind.CHANNEL:
            assert envelope.kind != Kind.RECEIPT, "there are no messages here, so nobody has anything to receipt"
            return
        post = open_post(envelope, SECRETS[ChannelId(envelope.dst)], self.world.crypto)
        assert post is not None
        known = self.numbers.setdefault((envelope.src, ChannelId(envelope.dst), post.seq), envelope.id)
        assert known == envelope.id, "one number was given to two posts"
        self.uids[envelope.id] = post.uid
        self.sent[link.peer.key, link.far.peer.key, envelope.id] += 1


def posts_of(peer: Peer) -> set[tuple[ChannelId, Uid]]:
    """What a peer was told is safe, and where it still lies."""
    safe = {effect.uid for effect in peer.told if isinstance(effect, PostAccepted) and effect.reason is Reason.NONE}
    found = set()
    for channel in (FAMILY, VILLAGE):
        for held in peer.store.waiting(channel.id, 0, 10_000):
            if held.own:
                post = open_post(MeshEnvelope.decode(held.wire), channel.secret, peer.world.crypto)
                assert post is not None
                found.add((channel.id, post.uid))
    assert safe <= {uid for _, uid in found}, f"a post of {peer.name} was said to be safe, and is gone"
    return found


def check_journals(people: list[Peer], members: dict[Peer, set[BroadcastChannel]]) -> None:
    """Every post of everybody is in every other member's journal, once, and in nobody else's."""
    for reader in people:
        lines = Counter((ChannelId(line.channel), line.peer, line.uid) for line in reader.inbox())
        assert not lines or max(lines.values()) == 1, f"{reader.name} has a post twice"
        ids = {channel.id for channel in members[reader]}
        wanted = {
            (channel, author.key, uid)
            for author in people
            if author is not reader
            for channel, uid in posts_of(author)
            if channel in ids
        }
        assert set(lines) == wanted, f"{reader.name} lacks {len(wanted - set(lines))} posts"
        told = Counter(e.line.uid for e in reader.told if isinstance(e, Journaled) and e.line.kind is LineKind.POST)
        assert not told or max(told.values()) == 1, "told twice"


def play(seed: int) -> World:
    """Three people, all linked; a storm, then peace."""
    world = World(seed)
    rng = world.rng
    people = [world.peer(name, clock(world)) for name in ("one", "two", "three")]
    cables = [
        Cable(one, other, latency_ms=rng.randrange(1, 800), jitter_ms=rng.randrange(200),
              bytes_per_s=rng.choice((5_000, 10_000_000)), notice_ms=rng.choice((0, 10_000)))
        for one, other in combinations(people, 2)
    ]  # fmt: skip
    Ear(world)
    members: dict[Peer, set[BroadcastChannel]] = defaultdict(set)

    def join(peer: Peer, channel: BroadcastChannel) -> None:
        if peer.node is not None:
            peer.subscribe(channel)

    def post(peer: Peer, number: int) -> None:
        if peer.node is not None:
            peer.broadcast(rng.choice((FAMILY, VILLAGE)).id, f"post {number}")

    def switch_on(peer: Peer) -> None:
        if peer.node is None:
            peer.start(rebooted=rng.random() < 0.3)

    def die(peer: Peer, how: Doom | None) -> None:
        if peer.node is not None and how is None:
            peer.crash()
        elif peer.node is not None:
            peer.doom = how

    for peer in people:
        peer.start()
        for channel in (FAMILY, VILLAGE):
            if rng.random() < 0.8:
                members[peer].add(channel)
                world.after(rng.randrange(STORM_MS // 4), partial(join, peer, channel))
    for number in range(rng.randrange(1, 80)):
        world.after(rng.randrange(STORM_MS), partial(post, rng.choice(people), number))
    for _ in range(rng.randrange(12)):
        cable, at = rng.choice(cables), rng.randrange(STORM_MS)
        world.after(at, cable.plug)
        world.after(at + rng.randrange(1, 90_000), cable.pull)
    for _ in range(rng.randrange(10)):
        peer, at = rng.choice(people), rng.randrange(STORM_MS)
        world.after(at, partial(die, peer, rng.choice((None, *Doom))))
        world.after(at + rng.randrange(60_000), partial(switch_on, peer))
    world.run(STORM_MS + 2 * MINUTE_MS)
    for peer in people:
        peer.doom = None
        switch_on(peer)
        for channel in members[peer]:
            join(peer, channel)  # the first time may have died with the machine
    for cable in cables:
        cable.plug()
    world.run(30 * MINUTE_MS)
    check_journals(people, members)
    frames = talk(world)
    world.run(2 * HOUR_MS)
    assert talk(world) == frames, "they go on talking although everything is said"
    return world


def play_all(seeds: range) -> None:
    for seed in seeds:
        try:
            play(seed)
        except BaseException as error:
            error.add_note(f"in the story of seed {seed}: tests.sim.test_channels.play({seed})")
            raise


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_every_post_reaches_every_linked_subscriber_once(first: int) -> None:
    play_all(range(first, first + CHUNK))


@pytest.mark.soak
@pytest.mark.parametrize("first", range(SEEDS, SOAK_SEEDS, CHUNK))
def test_every_post_reaches_every_linked_subscriber_once_for_long(first: int) -> None:
    play_all(range(first, first + CHUNK))


def test_the_storms_are_storms() -> None:
    """Otherwise the tests above would prove little."""
    worlds = [play(seed) for seed in range(20)]
    assert sum(len(peer.inbox()) for world in worlds for peer in world.peers) > 400
    crashes = [what for world in worlds for _, _, what in world.trace if what == "crashes"]
    assert len(crashes) > 40


def test_without_faults_each_post_costs_one_envelope_for_each_subscriber() -> None:
    world = World(1)
    people = [world.peer(f"peer {n}", Clock()) for n in range(4)]
    ear = Ear(world)
    for one, other in combinations(people, 2):
        Cable(one, other).plug()
    for peer in people:
        peer.start()
    for peer in people[:3]:
        peer.subscribe(FAMILY)
    world.run(MINUTE_MS)
    for number in range(50):
        people[0].broadcast(FAMILY.id, str(number))
        world.run(100)
    world.run(MINUTE_MS)
    assert [[line.text for line in peer.inbox()] for peer in people] == [
        [], *([[str(n) for n in range(50)]] * 2), []
    ]  # fmt: skip
    assert world.frames[FrameType.ENVELOPE] == 100
    assert set(ear.sent.values()) == {1}
    assert world.frames[FrameType.INTEREST] == 9


def test_a_link_that_flaps_repeats_nothing_that_was_answered() -> None:
    world = World(3)
    one, other = world.peer("one"), world.peer("other")
    ear = Ear(world)
    cable = Cable(one, other)
    for peer in (one, other):
        peer.start()
        peer.subscribe(FAMILY)
    world.run(1_000)
    for number in range(1_000):
        one.broadcast(FAMILY.id, str(number))
    cable.plug()
    world.run(5 * MINUTE_MS)
    assert len(other.inbox()) == 1_000
    sent = world.frames[FrameType.ENVELOPE]
    for _ in range(20):
        cable.pull()
        world.run(5_000)
        cable.plug()
        world.run(5_000)
    assert world.frames[FrameType.ENVELOPE] == sent
    assert [line.text for line in other.inbox()] == [str(number) for number in range(1_000)]
    assert set(ear.sent.values()) == {1}
