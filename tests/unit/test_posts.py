"""Posts at the node: to every neighbour that subscribes, once, in order, and within bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.people import (
    T0,
    Person,
    Taker,
    accepted_posts,
    at,
    by_clock,
    envelopes,
    interests,
    kinds,
    people,
    receipts,
)

from quicprochat.core.channel import BroadcastChannel, Post, open_post
from quicprochat.core.courier import DEFERRED_MS, IN_FLIGHT_BYTES, RETRY_FIRST_MS
from quicprochat.core.envelope import MeshEnvelope
from quicprochat.core.events import (
    Effect,
    EnvelopeRejected,
    LinkDown,
    LinkId,
    LinkUp,
    PostTaken,
    PostWritten,
    ResultsArrived,
    SendResults,
    Tick,
)
from quicprochat.core.gate import Limits, Reason, Verdict
from quicprochat.core.interest import TELL_BURST
from quicprochat.core.link import Result
from quicprochat.core.node import SWEEP_BATCH
from quicprochat.core.patience import BAD_MAX
from quicprochat.core.posts import IN_FLIGHT
from quicprochat.core.store import LineKind, Scope
from quicprochat.core.time import DAY_MS, SECOND_MS
from quicprochat.core.window import PostLimits

FAMILY = BroadcastChannel.private(b"\x07" * 32, "family")
VILLAGE = BroadcastChannel.private(b"\x08" * 32, "village")
BOB, CAROL = 1, 2
WINDOW = 1_024


@pytest.fixture
def three() -> tuple[Person, Person, Person]:
    """Alice is in both channels and linked to Bob and Carol, who have told nothing yet."""
    alice, bob, carol = people("alice", "bob", "carol")
    for channel in (FAMILY, VILLAGE):
        alice.join(channel)
    alice.meet(BOB, bob)
    alice.meet(CAROL, carol)
    return alice, bob, carol


def answer(alice: Person, link: int, *posts: MeshEnvelope, verdict: Verdict = Verdict.STORED,
           reason: Reason = Reason.NONE, now: int | None = None) -> tuple[Effect, ...]:  # fmt: skip
    """A neighbour answers for posts."""
    results = tuple(Result(post.id, verdict, reason) for post in posts)
    return alice.step(ResultsArrived(LinkId(link), results), now=None if now is None else at(now))


def relink(alice: Person, link: int, peer: Person, *, epoch: bytes = b"") -> tuple[Effect, ...]:
    alice.step(LinkDown(LinkId(link)))
    return alice.step(LinkUp(LinkId(link + 10), peer.key, WINDOW, store_epoch=epoch))


def asks(alice: Person, link: int, *channels: BroadcastChannel, now: int | None = None) -> tuple[Effect, ...]:
    """A neighbour tells its channels, and wants all that it is offered of them."""
    return Taker(alice, link).take(alice.hears(link, *channels, now=None if now is None else at(now)))


def read(post: MeshEnvelope, channel: BroadcastChannel, reader: Person) -> Post:
    found = open_post(post, channel.secret, reader.crypto)
    assert found is not None
    return found


def texts(out: tuple[Effect, ...], channel: BroadcastChannel, reader: Person) -> list[str]:
    return [read(post, channel, reader).text for post in envelopes(out)]


# --- interest


def test_a_neighbour_is_told_our_channels_and_every_change() -> None:
    alice, bob = people("alice", "bob")
    assert interests(alice.meet(BOB, bob)) == [], "there is nothing to tell"
    assert interests(alice.join(FAMILY)) == [(BOB, (FAMILY.id,))]
    both = tuple(sorted((FAMILY.id, VILLAGE.id)))
    assert interests(alice.join(VILLAGE)) == [(BOB, both)]
    assert interests(alice.join(VILLAGE)) == [], "nothing has changed"
    assert interests(relink(alice, BOB, bob)) == [(BOB + 10, both)]
    assert interests(alice.leave(FAMILY)) == [(BOB + 10, (VILLAGE.id,))]
    assert interests(alice.leave(VILLAGE)) == [(BOB + 10, ())]
    assert interests(relink(alice, BOB + 10, bob)) == []


def test_channels_outlive_a_restart() -> None:
    alice, bob = people("alice", "bob")
    alice.join(FAMILY)
    alice.join(VILLAGE)
    alice.leave(VILLAGE)
    assert "ChannelsChanged" in kinds(alice.start(at(T0 + 5)))
    assert set(alice.secrets) == {FAMILY.id}
    assert interests(alice.meet(BOB, bob)) == [(BOB, (FAMILY.id,))]
    alice.leave(FAMILY)
    assert alice.secrets == {}
    assert [s.channel.secret for s in alice.store.channels()] == [b"", b""]


def test_of_many_changes_only_the_last_is_told() -> None:
    alice, bob = people("alice", "bob")
    alice.meet(BOB, bob)
    told = []
    for _ in range(50):
        told += interests(alice.join(FAMILY))
        told += interests(alice.leave(FAMILY))
    alice.join(VILLAGE)
    assert len(told) == TELL_BURST
    deadline = alice.node.next_deadline()
    assert T0 < deadline <= T0 + SECOND_MS + 1
    assert interests(alice.step(Tick(), now=at(deadline))) == [(BOB, (VILLAGE.id,))]
    assert interests(alice.step(Tick(), now=at(deadline + 5_000))) == []


# --- handing over


def test_a_post_goes_to_each_neighbour_that_subscribes(three: tuple[Person, Person, Person]) -> None:
    alice, bob, carol = three
    alice.hears(BOB, FAMILY)
    alice.hears(CAROL, VILLAGE)
    out = alice.write_post(FAMILY, "soup is ready")
    (accepted,) = accepted_posts(out)
    (post,) = envelopes(out)
    assert (accepted.reason, accepted.id, accepted.neighbours) == (Reason.NONE, post.id, 1)
    assert (post.src, post.dst, post.hop, post.age_ms, post.created_ms) == (alice.key, FAMILY.id, 0, 0, 0)
    assert post.ttl_ms == 7 * DAY_MS
    assert read(post, FAMILY, bob).text == "soup is ready"
    assert texts(asks(alice, CAROL, FAMILY, VILLAGE), FAMILY, carol) == ["soup is ready"]


def test_a_post_says_nothing_of_the_time_however_sure_the_clock_is(three: tuple[Person, Person, Person]) -> None:
    alice, _, _ = three
    alice.hears(BOB, FAMILY)
    (post,) = envelopes(alice.write_post(FAMILY, now=by_clock(T0 + 5)))
    assert post.created_ms == 0


def test_what_a_neighbour_answered_is_not_repeated_when_its_link_flaps(three: tuple[Person, Person, Person]) -> None:
    alice, bob, _ = three
    alice.hears(BOB, FAMILY)
    posts = [envelopes(alice.write_post(FAMILY, str(n)))[0] for n in range(5)]
    answer(alice, BOB, posts[0], posts[3])
    answer(alice, BOB, posts[1], verdict=Verdict.DUPLICATE)
    answer(alice, BOB, posts[4], verdict=Verdict.REFUSED, reason=Reason.EXPIRED)
    relink(alice, BOB, bob)
    assert texts(asks(alice, BOB + 10, FAMILY), FAMILY, bob) == ["2"]
    out = relink(alice, BOB + 10, bob)
    assert envelopes(out) == [], "nothing is handed over before the neighbour says what it wants"
    assert texts(asks(alice, BOB + 20, FAMILY), FAMILY, bob) == ["2"]
    answer(alice, BOB + 20, posts[2])
    relink(alice, BOB + 20, bob)
    assert envelopes(asks(alice, BOB + 30, FAMILY)) == []


def test_a_neighbour_that_lost_its_store_gets_all_again(three: tuple[Person, Person, Person]) -> None:
    alice, bob, _ = three
    alice.hears(BOB, FAMILY)
    answer(alice, BOB, *envelopes(alice.write_post(FAMILY, "1")))
    relink(alice, BOB, bob)
    assert envelopes(asks(alice, BOB + 10, FAMILY)) == []
    relink(alice, BOB + 10, bob, epoch=b"another store...")
    assert texts(asks(alice, BOB + 20, FAMILY), FAMILY, bob) == ["1"]


def test_a_link_that_takes_over_without_a_word_of_the_old_ones_end_starts_anew(
    three: tuple[Person, Person, Person],
) -> None:
    alice, bob, _ = three
    alice.hears(BOB, FAMILY)
    (post,) = envelopes(alice.write_post(FAMILY, "1"))
    alice.step(LinkUp(LinkId(9), bob.key, WINDOW))
    assert [sent.id for sent in envelopes(asks(alice, 9, FAMILY))] == [post.id]
    alice.step(LinkDown(LinkId(BOB)))
    assert envelopes(alice.write_post(FAMILY, "2")) != [], "the old link's end must not end the new one"


def test_each_taking_is_told_once(three: tuple[Person, Person, Person]) -> None:
    alice, bob, carol = three
    alice.hears(BOB, FAMILY)
    alice.hears(CAROL, FAMILY)
    post = envelopes(alice.write_post(FAMILY))[0]
    assert PostTaken(post.id, bob.key) in answer(alice, BOB, post)
    assert PostTaken(post.id, carol.key) in answer(alice, CAROL, post, verdict=Verdict.DUPLICATE)
    assert "PostTaken" not in kinds(answer(alice, BOB, post)), "an answer that nobody asked for"


def test_a_late_subscriber_gets_the_window_in_order() -> None:
    alice, bob = people("alice", "bob", limits=Limits(posts=PostLimits(own=3)))
    alice.join(FAMILY)
    for n in range(5):
        alice.write_post(FAMILY, str(n))
    alice.start(at(T0 + 10))
    alice.meet(BOB, bob)
    out = alice.step(now=at(T0 + 60_000))
    out += asks(alice, BOB, FAMILY, now=T0 + 60_000)
    assert texts(out, FAMILY, bob) == ["2", "3", "4"]
    assert {post.age_ms for post in envelopes(out)} == {60_000}


def test_a_channel_joined_later_brings_its_older_posts(three: tuple[Person, Person, Person]) -> None:
    alice, bob, _ = three
    alice.write_post(VILLAGE, "old")
    alice.hears(BOB, FAMILY)
    alice.write_post(FAMILY, "new")
    assert texts(asks(alice, BOB, FAMILY, VILLAGE), VILLAGE, bob) == ["old"]


def test_others_posts_are_offered_to_who_subscribes_and_one_hop_older(three: tuple[Person, Person, Person]) -> None:
    alice, _, carol = three
    post = carol.posted(FAMILY, hop=3)
    alice.step(alice.arrived(CAROL, post))
    assert envelopes(asks(alice, CAROL, FAMILY)) == [], "its author has it"
    (handed,) = envelopes(asks(alice, BOB, FAMILY))
    assert (handed.id, handed.hop) == (post.id, 4)


def test_a_post_at_the_end_of_its_hops_is_read_and_not_handed_on(three: tuple[Person, Person, Person]) -> None:
    alice, _, carol = three
    alice.step(alice.arrived(CAROL, carol.posted(FAMILY, "far", hop=32)))
    assert [line.text for line in alice.inbox()] == ["far"]
    assert envelopes(asks(alice, BOB, FAMILY)) == []


def test_expired_posts_leave_and_are_no_expired_messages(three: tuple[Person, Person, Person]) -> None:
    alice, _, carol = three
    alice.write_post(FAMILY, "old")
    alice.step(alice.arrived(CAROL, carol.posted(FAMILY)))
    assert alice.store.usage(Scope.OWN_POSTS, FAMILY.id).count == alice.store.usage(Scope.POSTS).count == 1
    alice.step(Tick(), now=at(T0 + 7 * DAY_MS))
    assert alice.store.usage(Scope.OWN_POSTS, FAMILY.id).count == alice.store.usage(Scope.POSTS).count == 0
    assert "expired" not in alice.store.counters()
    assert envelopes(asks(alice, BOB, FAMILY)) == []


def test_an_expired_post_that_is_not_swept_yet_is_not_handed_over(three: tuple[Person, Person, Person]) -> None:
    alice, _, _ = three
    for _ in range(SWEEP_BATCH + 10):
        alice.write_post(FAMILY)
    assert envelopes(asks(alice, BOB, FAMILY, now=T0 + 7 * DAY_MS)) == []


def test_leaving_forgets_what_was_kept(three: tuple[Person, Person, Person]) -> None:
    alice, bob, _ = three
    alice.hears(BOB, FAMILY, VILLAGE)
    (first,) = envelopes(alice.write_post(FAMILY))
    alice.leave(FAMILY)
    assert alice.store.held(first.id) is None
    answer(alice, BOB, first)
    out = alice.write_post(FAMILY)
    assert [effect.reason for effect in accepted_posts(out)] == [Reason.POLICY]
    assert envelopes(out) == []
    alice.join(FAMILY)
    (back,) = envelopes(alice.write_post(FAMILY, "back"))
    found = read(back, FAMILY, bob)
    assert (found.text, found.parents) == ("back", (first.id,)), "what was read before is known"


def test_leaving_ends_the_wait_after_a_deferral(three: tuple[Person, Person, Person]) -> None:
    alice, bob, _ = three
    alice.hears(BOB, FAMILY)
    answer(alice, BOB, *envelopes(alice.write_post(FAMILY)), verdict=Verdict.DEFERRED)
    alice.leave(FAMILY)
    alice.join(FAMILY)
    assert texts(alice.write_post(FAMILY, "at once"), FAMILY, bob) == ["at once"]


# --- answers that are no


def test_what_was_deferred_is_offered_again_each_time_later(three: tuple[Person, Person, Person]) -> None:
    alice, _, _ = three
    alice.hears(BOB, FAMILY)
    (post,) = envelopes(alice.write_post(FAMILY, "1"))
    now = T0
    for pause in (DEFERRED_MS, 2 * DEFERRED_MS, 4 * DEFERRED_MS):
        answer(alice, BOB, post, verdict=Verdict.DEFERRED, reason=Reason.FULL, now=now)
        assert envelopes(alice.step(Tick(), now=at(now + pause - 1))) == []
        now += pause
        assert alice.node.next_deadline() <= now
        assert [again.id for again in envelopes(alice.step(Tick(), now=at(now)))] == [post.id]
    answer(alice, BOB, post, now=now)
    (other,) = envelopes(alice.write_post(FAMILY, "2"))
    answer(alice, BOB, other, verdict=Verdict.DEFERRED, now=now)
    assert envelopes(alice.step(Tick(), now=at(now + DEFERRED_MS))) != [], "patience is back to its first length"


def test_a_deferral_holds_up_its_channel_and_no_other(three: tuple[Person, Person, Person]) -> None:
    alice, bob, _ = three
    alice.hears(BOB, FAMILY, VILLAGE)
    (post,) = envelopes(alice.write_post(FAMILY, "1"))
    answer(alice, BOB, post, verdict=Verdict.DEFERRED)
    assert envelopes(alice.write_post(FAMILY, "2")) == []
    (other,) = envelopes(alice.write_post(VILLAGE))
    answer(alice, BOB, other)
    assert texts(alice.step(Tick(), now=at(T0 + DEFERRED_MS)), FAMILY, bob) == ["1", "2"]


def test_a_neighbour_that_left_the_channel_is_left_alone_until_it_comes_back(
    three: tuple[Person, Person, Person],
) -> None:
    alice, bob, _ = three
    alice.hears(BOB, FAMILY)
    (post,) = envelopes(alice.write_post(FAMILY, "1"))
    answer(alice, BOB, post, verdict=Verdict.REFUSED, reason=Reason.POLICY)
    assert envelopes(alice.step(Tick(), now=at(T0 + DAY_MS))) == []
    alice.hears(BOB)
    assert envelopes(alice.write_post(FAMILY, "2")) == []
    assert texts(asks(alice, BOB, FAMILY), FAMILY, bob) == ["1", "2"]


def test_what_is_not_answered_is_offered_again(three: tuple[Person, Person, Person]) -> None:
    alice, _, _ = three
    alice.hears(BOB, FAMILY)
    (post,) = envelopes(alice.write_post(FAMILY))
    assert [e.id for e in envelopes(alice.step(Tick(), now=at(T0 + RETRY_FIRST_MS)))] == [post.id]


# --- bounds


def test_posts_under_way_are_bounded_and_leave_room_for_messages(three: tuple[Person, Person, Person]) -> None:
    alice, bob, _ = three
    for n in range(IN_FLIGHT + 50):
        alice.write_post(FAMILY, str(n))
    taker = Taker(alice, BOB)
    first = envelopes(taker.take(alice.hears(BOB, FAMILY)))
    assert len(first) == IN_FLIGHT
    assert len(envelopes(alice.step(alice.written(bob.key, "hi", bob.prekey)))) == 1
    rest = envelopes(taker.take(answer(alice, BOB, *first[:60])))
    assert len(rest) == 50
    assert [read(post, FAMILY, bob).text for post in first + rest] == [str(n) for n in range(IN_FLIGHT + 50)]


def test_long_posts_are_bounded_by_bytes(three: tuple[Person, Person, Person]) -> None:
    alice, _, _ = three
    for _ in range(9):
        alice.write_post(FAMILY, "x" * 60_000)
    sent = envelopes(asks(alice, BOB, FAMILY))
    size = len(sent[0].wire())
    assert len(sent) * size <= IN_FLIGHT_BYTES // 2 < (len(sent) + 1) * size


def test_posts_that_left_the_window_unanswered_do_not_fill_it_for_ever() -> None:
    alice, bob = people("alice", "bob", limits=Limits(posts=PostLimits(own=IN_FLIGHT)))
    alice.join(FAMILY)
    alice.meet(BOB, bob)
    alice.hears(BOB, FAMILY)
    for _ in range(2 * IN_FLIGHT):
        alice.write_post(FAMILY)
    out = alice.step(Tick(), now=at(T0 + RETRY_FIRST_MS))
    out += alice.step(Tick(), now=at(T0 + RETRY_FIRST_MS + 1))
    assert {read(post, FAMILY, bob).seq for post in envelopes(out)} == set(range(IN_FLIGHT + 1, 2 * IN_FLIGHT + 1))


def test_messages_that_wait_go_before_posts() -> None:
    alice, bob = people("alice", "bob")
    alice.join(FAMILY)
    alice.meet(BOB, bob, window=1)
    alice.hears(BOB, FAMILY)
    (first,) = envelopes(alice.step(alice.written(bob.key, "first", bob.prekey)))
    alice.step(alice.written(bob.key, "second", bob.prekey))
    assert envelopes(alice.write_post(FAMILY)) == []
    sent = envelopes(alice.step(alice.arrived(BOB, bob.receipt(alice.key, first.id))))
    assert [e.dst for e in sent] == [bob.key]
    sent = envelopes(alice.step(alice.arrived(BOB, bob.receipt(alice.key, sent[0].id))))
    assert [e.dst for e in sent] == [FAMILY.id]
    assert envelopes(answer(alice, BOB, *sent)) == []


def test_an_author_that_floods_is_deferred_and_the_others_are_heard() -> None:
    limits = Limits(posts=PostLimits(author_burst=3, author_per_s=1))
    alice, bob, carol = people("alice", "bob", "carol", limits=limits)
    alice.join(FAMILY)
    alice.meet(BOB, bob)
    out = alice.step(*(alice.arrived(BOB, bob.posted(FAMILY, str(n))) for n in range(5)))
    assert verdicts(out) == [Verdict.STORED] * 3 + [Verdict.DEFERRED] * 2
    assert reasons(out)[-1] is Reason.FULL
    assert verdicts(alice.step(alice.arrived(BOB, carol.posted(FAMILY)))) == [Verdict.STORED]
    out = alice.step(*(alice.arrived(BOB, bob.posted(FAMILY)) for n in range(5)), now=at(T0 + 2 * SECOND_MS))
    assert verdicts(out) == [Verdict.STORED] * 2 + [Verdict.DEFERRED] * 3
    assert len(alice.inbox()) == 6


def test_repeating_an_authors_old_posts_does_not_use_up_its_patience() -> None:
    limits = Limits(posts=PostLimits(author_burst=2, author_per_s=0.001))
    alice, bob, eve = people("alice", "bob", "eve", limits=limits)
    alice.join(FAMILY)
    alice.meet(BOB, bob)
    alice.meet(CAROL, eve)
    old = bob.posted(FAMILY)
    alice.step(alice.arrived(BOB, old))
    out = alice.step(*(alice.arrived(CAROL, replace(old, hop=1)) for _ in range(50)))
    assert verdicts(out) == [Verdict.DUPLICATE] * 50
    junk = [alice.arrived(CAROL, eve.posted(FAMILY, secret=b"\x01" * 32)) for _ in range(50)]
    assert verdicts(alice.step(*junk)) == [Verdict.REFUSED] * 50
    assert verdicts(alice.step(alice.arrived(BOB, bob.posted(FAMILY)))) == [Verdict.STORED]
    out = alice.step(alice.arrived(BOB, bob.posted(FAMILY)), alice.arrived(BOB, old))
    assert verdicts(out) == [Verdict.DEFERRED, Verdict.DUPLICATE], "what is known is answered as known"


def test_a_link_that_brings_posts_of_many_authors_is_bounded() -> None:
    limits = Limits(posts=PostLimits(link_burst=10, link_per_s=1))
    alice, *others = people("alice", "bob", "carol", *(f"made up {n}" for n in range(15)), limits=limits)
    bob, carol, crowd = others[0], others[1], others[2:]
    alice.join(FAMILY)
    alice.meet(BOB, bob)
    alice.meet(CAROL, carol)
    out = alice.step(*(alice.arrived(BOB, one.posted(FAMILY)) for one in crowd))
    assert verdicts(out).count(Verdict.STORED) == 10
    alice.step(LinkDown(LinkId(BOB)))
    alice.meet(BOB + 10, bob)
    out = alice.step(alice.arrived(BOB + 10, crowd[14].posted(FAMILY)))
    assert verdicts(out) == [Verdict.DEFERRED], "a new link buys no new patience"
    assert verdicts(alice.step(alice.arrived(CAROL, carol.posted(FAMILY)))) == [Verdict.STORED]


def test_a_long_post_counts_for_more() -> None:
    limits = Limits(posts=PostLimits(author_burst=10, author_per_s=0.001, piece_bytes=1_000))
    alice, bob = people("alice", "bob", limits=limits)
    alice.join(FAMILY)
    alice.meet(BOB, bob)
    out = alice.step(*(alice.arrived(BOB, bob.posted(FAMILY, "x" * 3_000)) for _ in range(4)))
    assert verdicts(out) == [Verdict.STORED] * 2 + [Verdict.DEFERRED] * 2


# --- numbers, parents, receipts


def numbers(out: tuple[Effect, ...], channel: BroadcastChannel, reader: Person) -> list[int]:
    return [read(post, channel, reader).seq for post in envelopes(out)]


def test_numbers_go_up_by_one_in_each_channel_and_over_restarts_and_returns(
    three: tuple[Person, Person, Person],
) -> None:
    alice, bob, _ = three
    alice.hears(BOB, FAMILY, VILLAGE)
    assert [numbers(alice.write_post(FAMILY), FAMILY, bob) for _ in range(3)] == [[1], [2], [3]]
    assert numbers(alice.write_post(VILLAGE), VILLAGE, bob) == [1]
    alice.start(at(T0 + 9))
    alice.meet(BOB, bob, record=False)
    alice.hears(BOB, FAMILY)
    assert numbers(alice.write_post(FAMILY), FAMILY, bob)[-1:] == [4]
    alice.leave(FAMILY)
    alice.join(FAMILY)
    assert numbers(alice.write_post(FAMILY), FAMILY, bob) == [5]


def test_a_number_is_given_again_only_where_the_post_never_was(three: tuple[Person, Person, Person]) -> None:
    """A crash before the commit: neither the post nor its number exists."""
    alice, bob, _ = three
    alice.hears(BOB, FAMILY)
    alice.write_post(FAMILY)
    alice.store.begin()
    lost = alice.node.step([PostWritten(FAMILY.id, alice.uid(), "lost")], alice.store, alice.now)
    alice.store.rollback()
    assert numbers(lost, FAMILY, bob) == [2]
    alice.start(at(T0 + 9))
    alice.meet(BOB, bob, record=False)
    assert numbers(asks(alice, BOB, FAMILY), FAMILY, bob) == [1]
    assert numbers(alice.write_post(FAMILY), FAMILY, bob) == [2]


def test_a_refused_post_uses_up_no_number(three: tuple[Person, Person, Person]) -> None:
    alice, bob, _ = three
    alice.hears(BOB, FAMILY)
    alice.decide(disk_low=True)
    assert [effect.reason for effect in accepted_posts(alice.write_post(FAMILY))] == [Reason.DISK]
    alice.decide()
    assert numbers(alice.write_post(FAMILY), FAMILY, bob) == [1]


def test_a_post_names_what_was_read_before_it(three: tuple[Person, Person, Person]) -> None:
    alice, bob, carol = three
    alice.hears(BOB, FAMILY)
    (first,) = envelopes(alice.write_post(FAMILY))
    assert read(first, FAMILY, bob).parents == ()
    others = [carol.posted(FAMILY) for _ in range(5)]
    alice.step(*(alice.arrived(CAROL, post) for post in others))
    (answered,) = envelopes(alice.write_post(FAMILY))
    assert read(answered, FAMILY, bob).parents == tuple(post.id for post in others[-4:])
    alice.start(at(T0 + 9))
    alice.meet(BOB, bob, record=False)
    last = envelopes(alice.hears(BOB, FAMILY) + alice.write_post(FAMILY))[-1]
    assert read(last, FAMILY, bob).parents == (answered.id,)


def test_a_post_of_ours_stands_in_the_history_and_is_no_news(three: tuple[Person, Person, Person]) -> None:
    alice, bob, _ = three
    alice.step(alice.arrived(BOB, bob.posted(FAMILY, "a question")))
    (question,) = alice.inbox()
    (written,) = accepted_posts(alice.write_post(FAMILY, "an answer"))
    (first, own) = alice.store.lines([place.cursor for place in alice.store.places(FAMILY.id, limit=5)])
    assert first == question
    assert (own.kind, own.peer, own.text, own.read) == (LineKind.OWN_POST, alice.key, "an answer", True)
    assert (own.id, own.uid, own.seq, own.parents) == (written.id, written.uid, 1, (question.id,))
    assert alice.inbox() == [question]
    assert alice.store.unread() == 1


def test_posts_are_never_receipted(three: tuple[Person, Person, Person]) -> None:
    alice, _, carol = three
    post = carol.posted(FAMILY)
    out = alice.step(alice.arrived(CAROL, post)) + alice.step(alice.arrived(CAROL, post))
    out += alice.step(alice.arrived(CAROL, carol.posted(FAMILY, secret=b"\x01" * 32)))
    assert receipts(out) == []
    assert verdicts(out) == [Verdict.STORED, Verdict.DUPLICATE, Verdict.REFUSED]
    assert reasons(out)[-1] is Reason.UNOPENABLE


def test_interest_over_a_link_that_is_gone_means_nothing(three: tuple[Person, Person, Person]) -> None:
    alice, _, _ = three
    alice.hears(BOB, FAMILY)
    alice.step(LinkDown(LinkId(BOB)))
    assert accepted_posts(alice.write_post(FAMILY))[0].neighbours == 0
    assert alice.hears(BOB, FAMILY) == ()
    assert envelopes(alice.write_post(FAMILY)) == []


def test_a_neighbour_that_is_banned_counts_no_more(three: tuple[Person, Person, Person]) -> None:
    alice, _, _ = three
    alice.hears(BOB, FAMILY)
    assert "CloseLink" in kinds(alice.step(*[EnvelopeRejected(LinkId(BOB))] * BAD_MAX))
    out = alice.write_post(FAMILY)
    assert (envelopes(out), accepted_posts(out)[0].neighbours) == ([], 0)


def test_a_blocked_neighbour_gets_no_posts(three: tuple[Person, Person, Person]) -> None:
    alice, bob, _ = three
    alice.hears(BOB, FAMILY)
    alice.decide(blocked=(bob,))
    out = alice.write_post(FAMILY)
    assert envelopes(out) == []
    assert accepted_posts(out)[0].neighbours == 0


# --- what a step answers


def results_of(out: tuple[Effect, ...]) -> list[Result]:
    return [result for effect in out if isinstance(effect, SendResults) for result in effect.results]


def verdicts(out: tuple[Effect, ...]) -> list[Verdict]:
    return [result.verdict for result in results_of(out)]


def reasons(out: tuple[Effect, ...]) -> list[Reason]:
    return [result.reason for result in results_of(out)]
