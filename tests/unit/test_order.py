"""The rules of the house at one node: what goes first, what waits, what is let go of."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.people import T0, Person, at, envelopes, people

from quicprochat.core.channel import BroadcastChannel
from quicprochat.core.envelope import FLAG_EMERGENCY, Header, make
from quicprochat.core.events import Effect, PolicyChanged, PostWritten, SendResults
from quicprochat.core.gate import Verdict
from quicprochat.core.ids import ChannelId, EnvelopeId, PeerKey
from quicprochat.core.interest import NOBODY, PAUSES_MAX, Reader
from quicprochat.core.posts import IN_FLIGHT
from quicprochat.core.time import DAY_MS, HOUR_MS, Instant
from quicprochat.core.window import NEWCOMER_HOPS

FAMILY = BroadcastChannel.private(b"\x07" * 32, "family")
BOB, CAROL = 1, 2


def verdicts(out: tuple[Effect, ...]) -> list[Verdict]:
    return [result.verdict for effect in out if isinstance(effect, SendResults) for result in effect.results]


def trusting(person: Person, *trusted: Person) -> None:
    person.step(PolicyChanged(frozenset(), frozenset(), False, frozenset(one.key for one in trusted)))


def test_our_own_emergency_goes_before_all_that_waits_for_a_neighbour() -> None:
    alice, bob = people("alice", "bob")
    alice.join(FAMILY)
    alice.meet(BOB, bob)
    alice.hears(BOB, FAMILY)
    sent = [post for _ in range(IN_FLIGHT + 10) for post in envelopes(alice.write_post(FAMILY))]
    assert len(sent) == IN_FLIGHT
    out = alice.step(PostWritten(FAMILY.id, alice.uid(), "the dyke breaks", emergency=True))
    assert [(post.flags, post.emergency) for post in envelopes(out)] == [(FLAG_EMERGENCY, True)]


def test_a_window_that_is_full_is_not_overrun_by_an_emergency() -> None:
    alice, bob = people("alice", "bob")
    alice.join(FAMILY)
    alice.meet(BOB, bob, window=3)
    alice.hears(BOB, FAMILY)
    for _ in range(3):
        alice.write_post(FAMILY)
    out = alice.step(PostWritten(FAMILY.id, alice.uid(), "the dyke breaks", emergency=True))
    assert envelopes(out) == []


def test_the_flag_of_another_kind_of_envelope_is_no_emergency() -> None:
    alice, bob = people("alice", "bob")
    message = alice.envelope(bob.key, flags=FLAG_EMERGENCY)
    assert not message.emergency
    bob.meet(BOB, alice)
    trusting(bob, alice)
    assert verdicts(bob.step(bob.arrived(BOB, message))) == [Verdict.REFUSED]


def test_who_clears_or_sets_the_flag_on_the_way_breaks_the_post() -> None:
    alice, bob, mallory = people("alice", "bob", "mallory")
    bob.join(FAMILY)
    bob.meet(BOB, mallory)
    trusting(bob, alice, mallory)
    good = alice.posted(FAMILY)
    set_by_mallory = make(replace(Header.of(good), src=mallory.key, flags=FLAG_EMERGENCY), good.payload, mallory.signer)
    assert verdicts(bob.step(bob.arrived(BOB, set_by_mallory))) == [Verdict.REFUSED]
    assert bob.inbox() == []


def test_a_held_back_post_wakes_the_node_when_its_hour_is_over() -> None:
    rita, alice, bob = people("rita", "alice", "bob")
    rita.policy = replace(rita.policy, stays=True)
    rita.start(at(T0))
    rita.meet(BOB, bob)
    rita.step(rita.arrived(BOB, alice.posted(FAMILY, hop=NEWCOMER_HOPS)))
    assert rita.node._posts.deadline() == T0 + HOUR_MS
    near = alice.posted(FAMILY, hop=NEWCOMER_HOPS - 1)
    rita.step(rita.arrived(BOB, near))
    assert not rita.node._posts._order.holds_back(near.id)


def test_a_post_replayed_with_a_new_age_is_a_duplicate_while_any_copy_can_live_and_to_who_read_it_for_ever() -> None:
    alice, bob, rita, mallory = people("alice", "bob", "rita", "mallory")
    rita.policy = replace(rita.policy, stays=True)
    rita.start(at(T0))
    bob.join(FAMILY)
    post = alice.posted(FAMILY)
    for person in (bob, rita):
        person.meet(BOB, mallory)
        assert verdicts(person.step(person.arrived(BOB, post))) == [Verdict.STORED]
    old = replace(post, age_ms=post.ttl_ms)
    for day in (8, 20, 40):
        for person in (bob, rita):
            person.step(now=at(T0 + day * DAY_MS))
            person.step(now=at(T0 + day * DAY_MS + HOUR_MS))
            assert person.store.held(post.id) is None
        assert verdicts(bob.step(bob.arrived(BOB, post))) == [Verdict.DUPLICATE]
        assert verdicts(rita.step(rita.arrived(BOB, old))) == [Verdict.REFUSED]
        if day < 28:
            assert verdicts(rita.step(rita.arrived(BOB, post))) == [Verdict.DUPLICATE]
    assert len(bob.inbox()) == 1


def key(name: str) -> PeerKey:
    return PeerKey(name.encode().ljust(32, b"."))


def test_an_authors_posts_that_were_put_off_hold_up_no_other_authors() -> None:
    reader, channel = Reader(key("bob"), Instant(0), fresh=True), ChannelId(b"c" * 32)
    loud, quiet = (channel, key("loud")), (channel, key("quiet"))
    pause = reader.pause(loud)
    pause.ids[EnvelopeId(b"1" * 32)] = loud
    pause.begin(Instant(0))
    assert (reader.paused(loud), reader.paused(quiet)) == (True, False)
    reader.resume(Instant(pause.ms))
    assert reader.push == {EnvelopeId(b"1" * 32): loud}
    assert not reader.paused(loud)


def test_pauses_are_bounded_and_beyond_the_bound_a_channel_waits_as_one() -> None:
    reader, channel = Reader(key("bob"), Instant(0), fresh=True), ChannelId(b"c" * 32)
    for number in range(2 * PAUSES_MAX):
        reader.pause((channel, key(f"made up {number}"))).begin(Instant(0))
    assert len(reader.pauses) <= PAUSES_MAX + 1
    assert (channel, NOBODY) in reader.pauses
    assert reader.paused((channel, key("anybody")))
    assert not reader.paused((ChannelId(b"d" * 32), key("anybody")))
    reader.forget(channel)
    assert reader.pauses == {}
