"""Posts and home servers, as the node sees it: what we wrote goes there at once, what others wrote if need be."""

from __future__ import annotations

from tests.unit.people import T0, WINDOW, Person, at, envelopes, interests, people

from quicprochat.core.channel import BroadcastChannel
from quicprochat.core.courier import DEFERRED_MS
from quicprochat.core.events import (
    Effect,
    InterestArrived,
    LinkDown,
    LinkId,
    LinkUp,
    PostTaken,
    ResultsArrived,
    SendEnvelope,
    Tick,
)
from quicprochat.core.gate import Reason, Verdict
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.link import Result
from quicprochat.core.uplink import PATIENCE_MS, SPREAD_MS

SERVER = PeerKey(b"s" * 32)
TO_SERVER, BOB = LinkId(7), 1
EPOCH = b"e" * 16
FAMILY = BroadcastChannel.private(b"\x07" * 32, "family")
VILLAGE = BroadcastChannel.private(b"\x08" * 32, "village")
PATIENT = T0 + PATIENCE_MS + SPREAD_MS


def server_up(person: Person, epoch: bytes = EPOCH, window: int = WINDOW) -> tuple[Effect, ...]:
    return person.step(LinkUp(TO_SERVER, SERVER, window, None, epoch, carrier=True))


def followed(person: Person, *channels: BroadcastChannel) -> tuple[Effect, ...]:
    return person.step(InterestArrived(TO_SERVER, tuple(channel.id for channel in channels)))


def handed(out: tuple[Effect, ...]) -> list[EnvelopeId]:
    """Return the posts that go to the server."""
    return [one.id for one in envelopes(tuple(e for e in out if isinstance(e, SendEnvelope) and e.link == TO_SERVER))]


def answer(person: Person, id: EnvelopeId, verdict: Verdict, reason: Reason = Reason.NONE) -> tuple[Effect, ...]:
    return person.step(ResultsArrived(TO_SERVER, (Result(id, verdict, reason),)))


def post_id(person: Person, out: tuple[Effect, ...]) -> EnvelopeId:
    (id,) = [held.id for held in person.store.waiting(FAMILY.id, 0, 10) if held.own][-1:]
    return id


def two() -> tuple[Person, Person]:
    """Alice is in a channel and linked to Bob, who is in it too."""
    alice, bob = people("alice", "bob")
    for one in (alice, bob):
        one.join(FAMILY)
    alice.meet(BOB, bob)
    return alice, bob


def test_the_server_is_told_what_we_are_in_and_again_when_that_changes() -> None:
    alice, _ = two()
    assert interests(server_up(alice)) == [(TO_SERVER, (FAMILY.id,))]
    assert interests(alice.step(Tick())) == []
    told = dict(interests(alice.join(VILLAGE)))
    assert told[TO_SERVER] == tuple(sorted((FAMILY.id, VILLAGE.id)))
    assert dict(interests(alice.leave(VILLAGE)))[TO_SERVER] == (FAMILY.id,)
    assert dict(interests(alice.leave(FAMILY)))[TO_SERVER] == ()


def test_who_is_in_no_channel_tells_nothing() -> None:
    (alice,) = people("alice")
    assert interests(server_up(alice)) == []


def test_our_posts_go_to_the_server_once_it_follows_and_at_once_from_then_on() -> None:
    alice, _ = two()
    alice.join(VILLAGE)
    before = post_id(alice, alice.write_post(FAMILY))
    assert handed(server_up(alice)) == []
    assert handed(followed(alice, FAMILY)) == [before]
    out = alice.write_post(FAMILY)
    assert handed(out) == [post_id(alice, out)]
    assert handed(alice.write_post(VILLAGE)) == [], "the server does not follow that one"
    out = answer(alice, before, Verdict.STORED)
    assert [one for one in out if isinstance(one, PostTaken)] == [PostTaken(before, SERVER)]


def test_a_link_that_flaps_repeats_nothing_and_a_server_that_forgot_is_given_all() -> None:
    alice, _ = two()
    server_up(alice)
    followed(alice, FAMILY)
    first, second = (post_id(alice, alice.write_post(FAMILY)) for _ in range(2))
    answer(alice, first, Verdict.STORED)
    alice.step(LinkDown(TO_SERVER))
    server_up(alice)
    assert handed(followed(alice, FAMILY)) == [second], "it was on its way"
    answer(alice, second, Verdict.DUPLICATE)
    alice.step(LinkDown(TO_SERVER))
    server_up(alice, b"f" * 16)
    assert handed(followed(alice, FAMILY)) == [first, second]


def test_a_neighbours_post_goes_to_the_server_if_nobody_else_brings_it_there_first() -> None:
    alice, bob = two()
    server_up(alice)
    followed(alice, FAMILY)
    post = bob.posted(FAMILY, "hi")
    assert handed(alice.step(alice.arrived(BOB, post))) == []
    assert alice.node.next_deadline() <= PATIENT
    out = alice.step(Tick(), now=at(PATIENT))
    assert handed(out) == [post.id]
    assert [e.wire[2] for e in out if isinstance(e, SendEnvelope)] == [3]
    answer(alice, post.id, Verdict.STORED)
    assert handed(alice.step(Tick(), now=at(PATIENT + 60_000))) == []


def test_what_waits_for_its_turn_holds_up_nothing_of_ours() -> None:
    alice, bob = two()
    server_up(alice)
    followed(alice, FAMILY)
    alice.step(alice.arrived(BOB, bob.posted(FAMILY, "hi")))
    out = alice.write_post(FAMILY)
    assert handed(out) == [post_id(alice, out)]


def test_what_the_server_has_handed_us_too_never_goes_there() -> None:
    alice, bob = two()
    server_up(alice)
    followed(alice, FAMILY)
    both, served = bob.posted(FAMILY, "hi"), bob.posted(FAMILY, "hello")
    alice.step(alice.arrived(BOB, both))
    alice.step(alice.arrived(TO_SERVER, both), alice.arrived(TO_SERVER, served))
    assert handed(alice.step(Tick(), now=at(PATIENT))) == []


def test_what_the_server_put_off_is_offered_again_later_and_what_it_refused_never() -> None:
    alice, _ = two()
    server_up(alice)
    followed(alice, FAMILY)
    first, second = (post_id(alice, alice.write_post(FAMILY)) for _ in range(2))
    answer(alice, first, Verdict.DEFERRED, Reason.FULL)
    answer(alice, second, Verdict.REFUSED, Reason.EXPIRED)
    assert handed(alice.step(Tick(), now=at(T0 + DEFERRED_MS - 1))) == []
    assert handed(alice.step(Tick(), now=at(T0 + DEFERRED_MS))) == [first]


def test_a_server_that_we_only_visit_is_told_and_given_nothing() -> None:
    alice, _ = two()
    assert interests(server_up(alice, window=0)) == []
    alice.write_post(FAMILY)
    assert handed(followed(alice, FAMILY)) == []


def test_what_the_server_brings_is_no_neighbours_interest() -> None:
    alice, _ = two()
    server_up(alice)
    followed(alice, FAMILY, VILLAGE)
    alice.step(LinkDown(TO_SERVER))
    assert handed(alice.write_post(FAMILY)) == [], "it is gone"


def test_what_is_due_while_there_is_no_room_waits_for_room_and_for_no_moment() -> None:
    alice, bob = two()
    server_up(alice, window=1)
    followed(alice, FAMILY)
    first, second = (post_id(alice, alice.write_post(FAMILY)) for _ in range(2))
    assert handed(answer(alice, first, Verdict.DEFERRED, Reason.FULL)) == [second]
    alice.step(alice.arrived(BOB, bob.posted(FAMILY, "hi")))
    late = max(PATIENT, T0 + DEFERRED_MS)
    assert first not in handed(alice.step(Tick(), now=at(late)))
    assert alice.node.next_deadline() > late, "or it would step again and again until there is room"
    assert handed(answer(alice, second, Verdict.STORED)) == [first]
