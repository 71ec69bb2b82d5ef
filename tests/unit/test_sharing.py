"""Posts of channels a node is not in: kept unread within bounds, fairly, and read when the node comes in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.people import T0, Person, Taker, at, channel_frames, envelopes, interests, kinds, people

from quicprochat.adapters.sqlite import SqliteStore
from quicprochat.core.asking import ASK_MS
from quicprochat.core.channel import BroadcastChannel
from quicprochat.core.encounter import encode_offer
from quicprochat.core.events import FrameArrived, InterestArrived, LinkId, Tick
from quicprochat.core.gate import Limits
from quicprochat.core.ids import ChannelId, EnvelopeId
from quicprochat.core.link import EVERY_CHANNEL, ChannelFrame, FrameType
from quicprochat.core.store import Scope
from quicprochat.core.window import PostLimits

FAMILY = BroadcastChannel.private(b"\x07" * 32, "family")
VILLAGE = BroadcastChannel.private(b"\x08" * 32, "village")
BOB, CAROL = 1, 2


def willing(*names: str, limits: Limits | None = None) -> list[Person]:
    """People of whom the first is willing, and linked to the others, who are too."""
    first, *others = people(*names, limits=limits)
    first.policy = replace(first.policy, stays=True)
    first.start(at(T0))
    for link, other in enumerate(others, 1):
        first.meet(link, other)
        first.step(InterestArrived(LinkId(link), (EVERY_CHANNEL,)))
    return [first, *others]


def offered(alice: Person, link: int, *ids: EnvelopeId, channel: ChannelId = FAMILY.id) -> FrameArrived:
    """A neighbour says that it has posts."""
    frame = ChannelFrame(channel, 1, FrameType.OFFER, encode_offer(ids))
    return FrameArrived(LinkId(link), FrameType.CHANNEL, frame.encode())


def asked(out: tuple[object, ...], link: int) -> list[bytes]:
    """What a neighbour is told it is wanted of."""
    frames = [ChannelFrame.decode(body) for body in channel_frames(out, link)]  # type: ignore[arg-type]
    return [frame.body for frame in frames if frame.kind == FrameType.WANT]


def test_a_willing_node_tells_one_word_whatever_it_subscribes_to() -> None:
    alice, bob = people("alice", "bob")
    alice.policy = replace(alice.policy, stays=True)
    alice.start(at(T0))
    assert interests(alice.meet(BOB, bob)) == [(BOB, (EVERY_CHANNEL,))]
    assert interests(alice.join(FAMILY)) == []


def test_what_is_kept_unread_is_read_once_when_its_channel_is_joined() -> None:
    alice, _, carol = willing("alice", "bob", "carol")
    posts = [carol.posted(FAMILY, str(n), seq=n + 1) for n in range(3)]
    alice.step(*(alice.arrived(BOB, post) for post in posts))
    assert alice.inbox() == []
    out = alice.join(FAMILY)
    assert kinds(out).count("Journaled") == 3
    assert [line.text for line in alice.inbox()] == ["0", "1", "2"]
    alice.join(FAMILY)
    assert len(alice.inbox()) == 3


def test_posts_of_others_channels_are_bounded_and_the_heaviest_link_makes_room() -> None:
    limits = Limits(posts=PostLimits(foreign=20, share=1))
    alice, _, carol, *crowd = willing("alice", "bob", "carol", *(f"made up {n}" for n in range(30)), limits=limits)
    alice.join(VILLAGE)
    mine = [carol.posted(VILLAGE) for _ in range(5)]
    quiet = [carol.posted(FAMILY) for _ in range(5)]
    alice.step(*(alice.arrived(CAROL, post) for post in mine + quiet))
    for one in crowd:
        alice.step(alice.arrived(BOB, one.posted(FAMILY)))
    assert alice.store.usage(Scope.POSTS, FAMILY.id).count == 20
    assert all(alice.store.held(post.id) is not None for post in mine + quiet)


def test_made_up_channels_make_room_for_each_other_and_links_stay_usable() -> None:
    limits = Limits(posts=PostLimits(foreign_channels=10))
    alice, _, carol = willing("alice", "bob", "carol", limits=limits)
    real = carol.posted(FAMILY)
    alice.step(alice.arrived(CAROL, real))
    for n in range(50):
        out = alice.step(offered(alice, BOB, EnvelopeId(bytes([n]) * 32), channel=ChannelId(bytes([n + 1]) * 32)))
        assert "CloseLink" not in kinds(out)
    assert alice.store.held(real.id) is not None
    again = alice.step(offered(alice, BOB, EnvelopeId(b"!" * 32), channel=ChannelId(bytes([1]) * 32)))
    assert (kinds(again), asked(again, BOB)) == ([], []), "a channel that made room is not talked about any more"


def test_a_neighbour_that_claims_to_have_a_post_and_brings_none_is_given_up() -> None:
    alice, _, carol = willing("alice", "bob", "carol")
    post = carol.posted(FAMILY, "late")
    assert len(asked(alice.step(offered(alice, BOB, post.id)), BOB)) == 1
    waiting = asked(alice.step(offered(alice, CAROL, post.id)), CAROL)
    assert all(body[4:6] != b"\0\1" or body[6] & 0x80 for body in waiting), "one is asked at a time"
    out = alice.step(Tick(), now=at(T0 + ASK_MS))
    assert len(asked(out, CAROL)) == 1
    alice.step(alice.arrived(CAROL, post))
    assert alice.store.held(post.id) is not None


def test_an_offer_of_what_nobody_may_number_ends_the_link() -> None:
    alice, _ = willing("alice", "bob")
    frame = ChannelFrame(FAMILY.id, 1, FrameType.WANT, bytes(4) + b"\0\1" + bytes(4))
    out = alice.step(FrameArrived(LinkId(BOB), FrameType.CHANNEL, frame.encode()))
    assert "CloseLink" in kinds(out)


def test_a_frame_from_before_our_last_word_means_nothing() -> None:
    alice, bob = people("alice", "bob")
    alice.join(FAMILY)
    alice.meet(BOB, bob)
    alice.hears(BOB, FAMILY)
    old = offered(alice, BOB, EnvelopeId(b"x" * 32))
    alice.leave(FAMILY)
    alice.join(FAMILY)
    assert asked(alice.step(old), BOB) == []
    new = replace(ChannelFrame.decode(old.body), interests=3).encode()
    assert len(asked(alice.step(FrameArrived(LinkId(BOB), FrameType.CHANNEL, new)), BOB)) == 1


@pytest.mark.parametrize("on_disk", [False, True])
def test_what_is_kept_for_others_outlives_a_restart_and_is_offered_then(tmp_path: Path, on_disk: bool) -> None:
    alice, bob, carol = willing("alice", "bob", "carol")
    if on_disk:
        alice.store = SqliteStore.open(tmp_path / "mesh.db")  # type: ignore[assignment]
        alice.start(at(T0))
        alice.meet(CAROL, carol)
    posts = [carol.posted(FAMILY, str(n)) for n in range(3)]
    alice.step(*(alice.arrived(CAROL, post) for post in posts))
    if on_disk:
        alice.store.close()
        alice.store = SqliteStore.open(tmp_path / "mesh.db")  # type: ignore[assignment]
    alice.start(at(T0 + 60_000))
    alice.meet(BOB, bob)
    out = Taker(alice, BOB).take(alice.hears(BOB, FAMILY))
    assert [post.id for post in envelopes(out)] == [post.id for post in posts]
    assert {(post.hop, post.age_ms) for post in envelopes(out)} == {(1, 60_000)}
    out = alice.step(offered(alice, BOB, posts[0].id))
    assert all(body[4:6] == b"\0\0" for body in asked(out, BOB)), "what was seen is not asked for again"
    alice.store.close()
