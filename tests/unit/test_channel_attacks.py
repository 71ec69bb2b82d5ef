"""Neighbours that misuse channels: what they can make a node remember, send and lose is bounded."""

from __future__ import annotations

import hashlib
import tracemalloc
from dataclasses import replace

import pytest
from tests.unit.people import (
    T0,
    Person,
    Taker,
    at,
    channel_frames,
    envelopes,
    interests,
    kinds,
    people,
)
from tests.unit.test_sharing import BOB, CAROL, FAMILY, VILLAGE, asked, offered, willing

from quicprochat.core.asking import ASK_MS
from quicprochat.core.carry import AGAIN_MS
from quicprochat.core.encounter import AHEAD, ASK_MAX, HANDED_MAX, Want, encode_offer
from quicprochat.core.events import (
    Effect,
    FrameArrived,
    InterestArrived,
    LinkDown,
    LinkId,
    ResultsArrived,
    SendFrame,
    Tick,
)
from quicprochat.core.gate import Limits, Reason, Verdict
from quicprochat.core.ids import ChannelId, EnvelopeId
from quicprochat.core.interest import COMPARE_BURST, OFFERS_MAX, Reader
from quicprochat.core.link import EVERY_CHANNEL, ChannelFrame, FrameType, Result
from quicprochat.core.reconcile import NAME_BYTES, Mode, Range, Ranges
from quicprochat.core.store import Scope
from quicprochat.core.time import DAY_MS, HOUR_MS
from quicprochat.core.window import PostLimits

OTHER_SECRET = b"\x55" * 32


def made_up(number: int, what: str) -> bytes:
    return hashlib.sha256(f"{what} {number}".encode()).digest()


def ids(first: int, count: int) -> list[EnvelopeId]:
    return [EnvelopeId(made_up(number, "post")) for number in range(first, first + count)]


def channels(count: int) -> list[ChannelId]:
    return [ChannelId(made_up(number, "channel")) for number in range(count)]


def strangers(one: Person, count: int) -> list[Person]:
    """Keys that somebody has just made up; they have no node."""
    return [Person(one.crypto, f"made up {number}", start=False) for number in range(count)]


def says(link: int, kind: int, body: bytes, channel: ChannelId = FAMILY.id, interests: int = 1) -> FrameArrived:
    return FrameArrived(LinkId(link), FrameType.CHANNEL, ChannelFrame(channel, interests, kind, body).encode())


def bytes_out(out: tuple[Effect, ...]) -> int:
    return sum(len(e.body) for e in out if isinstance(e, SendFrame)) + sum(len(e.wire()) for e in envelopes(out))


def subscribers(*names: str, limits: Limits | None = None) -> list[Person]:
    """People of whom the first is in a channel, and linked to the others, who are too."""
    first, *others = people(*names, limits=limits)
    first.join(FAMILY)
    for link, other in enumerate(others, 1):
        first.meet(link, other)
        first.hears(link, FAMILY)
    return [first, *others]


# --- frames


FRAMES = [(kind, body) for kind in range(256) for body in (b"", b"\0", b"\0" * 6, b"\xff" * 64)]


def test_whatever_is_said_of_channels_we_do_not_share_means_nothing_and_leaves_nothing() -> None:
    alice, bob = people("alice", "bob")
    alice.join(FAMILY)
    alice.meet(BOB, bob)
    before = [says(BOB, kind, body) for kind, body in FRAMES]
    assert kinds(alice.step(*before)) == [], "the neighbour has told no channels yet"
    alice.step(InterestArrived(LinkId(BOB), (EVERY_CHANNEL,)))
    tracemalloc.start()
    try:
        for start in range(0, 100_000, 1_000):
            frames = [
                says(BOB, FrameType.OFFER, encode_offer((EnvelopeId(b"x" * 32),)), ChannelId(made_up(n, "channel")))
                for n in range(start, start + 1_000)
            ]
            assert kinds(alice.step(*frames)) == []
        del frames
        assert tracemalloc.get_traced_memory()[0] < 200_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (FrameType.OFFER, b"\0\1" + bytes(31)),
        (FrameType.OFFER, b"\0\1" + bytes(33)),
        (FrameType.OFFER, b"\0\0"),
        (FrameType.OFFER, encode_offer(ids(0, AHEAD + 1))),
        (FrameType.WANT, b"\0\0\0\1\0\0"),
        (FrameType.WANT, b"\0\0\0\0\0\1\0\0\0\0"),
        (FrameType.RANGES, b"\2\0\0"),
        (FrameType.RANGES, b"\x20\0\0"),
        (FrameType.RANGES, b"\0" * 17 + b"\xff\xff"),
    ],
    ids=["short", "long", "nothing", "too many", "never offered", "wants it", "out of turn", "steps", "ranges"],
)
def test_what_no_node_says_about_a_channel_ends_the_link(kind: FrameType, body: bytes) -> None:
    alice, _, _ = subscribers("alice", "bob", "carol")
    out = alice.step(says(BOB, kind, body))
    assert [(effect, link.link) for effect, link in zip(kinds(out), out, strict=True)] == [("CloseLink", BOB)]  # type: ignore[union-attr]


def test_types_that_are_no_business_of_channels_are_skipped() -> None:
    alice, _, _ = subscribers("alice", "bob", "carol")
    known = (FrameType.OFFER, FrameType.WANT, FrameType.RANGES)
    assert kinds(alice.step(*(says(BOB, kind, body) for kind, body in FRAMES if kind not in known))) == []


def test_a_frame_counted_in_the_past_means_nothing() -> None:
    alice, _, _ = subscribers("alice", "bob", "carol")
    for count in range(0x82, 0x100):
        assert kinds(alice.step(says(BOB, FrameType.OFFER, encode_offer(ids(0, 1)), interests=count))) == []


# --- memory


def test_offers_of_what_never_comes_are_bounded_over_all_channels_and_forgotten_with_the_link() -> None:
    alice, _, _ = willing("alice", "bob", "carol")
    tracemalloc.start()
    try:
        closed_at, heard = 0, 0
        for channel in channels(1_000):
            for _ in range(2):
                out = alice.step(offered(alice, BOB, *ids(heard, 192), channel=channel))
                heard += 192
                closed_at = closed_at or ("CloseLink" in kinds(out) and heard)
            if closed_at:
                break
        assert OFFERS_MAX < closed_at <= 2 * OFFERS_MAX + 192
        assert tracemalloc.get_traced_memory()[0] < 30_000_000
        alice.step(LinkDown(LinkId(BOB)))
        assert tracemalloc.get_traced_memory()[0] < 2_000_000
    finally:
        tracemalloc.stop()


def test_offers_of_what_is_here_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quicprochat.core.sharing.OFFERS_MAX", 300)
    alice, _, carol = willing("alice", "bob", "carol")
    posts = [carol.posted(FAMILY) for _ in range(ASK_MAX)]
    alice.step(*(alice.arrived(CAROL, post) for post in posts))
    for channel in channels(20):
        out = alice.step(offered(alice, BOB, *(post.id for post in posts), channel=channel))
        assert "CloseLink" not in kinds(out)
    out = ()
    for channel in channels(20):
        out += alice.step(offered(alice, BOB, *ids(0, ASK_MAX), channel=channel))
    assert "CloseLink" in kinds(out)


def test_made_up_channels_are_not_talked_about_to_others() -> None:
    """The side with the lower key begins to compare once more after a while."""
    higher = [name for name in ("bob", "carol", "dave", "erin", "frank") if lower_than("alice", name)][:2]
    alice, *_ = willing("alice", *higher)
    real = channels(51)[50]
    alice.join(replace(FAMILY, id=real))
    for channel in channels(50):
        for link in (BOB, CAROL):
            alice.step(offered(alice, link, EnvelopeId(channel), channel=channel))
    out = alice.step(Tick(), now=at(T0 + AGAIN_MS))
    frames = [ChannelFrame.decode(body) for body in channel_frames(out, BOB)]
    assert [frame.channel for frame in frames if frame.kind == FrameType.RANGES] == [real]


def lower_than(one: str, other: str) -> bool:
    first, second = people(one, other)
    return first.key < second.key


def test_channels_with_one_made_up_post_do_not_push_out_one_with_many() -> None:
    limits = Limits(posts=PostLimits(foreign_channels=20))
    alice, _, carol = willing("alice", "bob", "carol", limits=limits)
    real = [carol.posted(FAMILY) for _ in range(3)]
    alice.step(*(alice.arrived(BOB, post) for post in real))
    for number, one in enumerate(strangers(alice, 60)):
        channel = replace(FAMILY, id=ChannelId(made_up(number, "channel")))
        alice.step(alice.arrived(BOB, one.posted(channel)))
    assert all(alice.store.held(post.id) is not None for post in real), "all of it came over the same link"


def test_leaving_and_joining_by_the_thousand_leaves_nothing_behind() -> None:
    alice, bob = people("alice", "bob")
    alice.meet(BOB, bob)
    alice.step(InterestArrived(LinkId(BOB), (EVERY_CHANNEL,)))
    tracemalloc.start()
    try:
        for number in range(300):
            channel = replace(VILLAGE, id=ChannelId(made_up(number, "channel")))
            now = at(T0 + number * 2_000)
            alice.step(Tick(), now=now)
            alice.join(channel)
            alice.leave(channel)
            if number == 20:
                settled = tracemalloc.get_traced_memory()[0]
        alice.step(Tick(), now=at(T0 + DAY_MS))
        # What the store keeps of a channel that was left: its topic and heads.
        assert tracemalloc.get_traced_memory()[0] - settled < 279 * 1_000
    finally:
        tracemalloc.stop()


def test_nothing_is_remembered_of_a_channel_whose_posts_are_taken_again() -> None:
    alice, bob = people("alice", "bob")
    reader = Reader(bob.key, alice.now.at, fresh=False)
    source = (FAMILY.id, alice.key)
    reader.pause(source).begin(alice.now.at)
    reader.resumed(source)
    assert reader.paused(source), "not before its time"
    reader.resume(at(T0 + DAY_MS).at)
    reader.resumed(source)
    assert not reader.pauses


def test_a_link_over_which_no_more_can_be_offered_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quicprochat.core.encounter.NUMBERS_MAX", 4)
    alice, _, carol = subscribers("alice", "bob", "carol")
    taker = Taker(alice, BOB)
    for number in range(5):
        out = taker.take(alice.step(alice.arrived(CAROL, carol.posted(FAMILY, age_ms=60_000))))
        assert ("CloseLink" in kinds(out)) == (number == 4)


# --- junk


def test_posts_of_an_epoch_nobody_knows_fill_a_part_of_the_window_and_real_ones_stay() -> None:
    limits = Limits(posts=PostLimits(others=100, unread=25))
    alice, _, carol = subscribers("alice", "bob", "carol", limits=limits)
    real = [author.posted(FAMILY) for author in strangers(alice, 70)]
    alice.step(*(alice.arrived(CAROL, post) for post in real))
    early = carol.posted(FAMILY, "sealed anew", secret=OTHER_SECRET, epoch=1)
    alice.step(alice.arrived(CAROL, early))
    for one in strangers(alice, 300):
        alice.step(alice.arrived(BOB, one.posted(FAMILY, secret=b"\x66" * 32, epoch=9)))
    assert all(alice.store.held(post.id) is not None for post in real)
    assert alice.store.held(early.id) is not None, "the link that brings most of them makes room"
    assert alice.store.usage(Scope.POSTS, FAMILY.id).count == 70 + 25


def test_junk_that_claims_a_known_epoch_is_not_kept() -> None:
    alice, _, _ = subscribers("alice", "bob", "carol")
    for one in strangers(alice, 50):
        alice.step(alice.arrived(BOB, one.posted(FAMILY, secret=OTHER_SECRET)))
    assert alice.store.usage(Scope.POSTS, FAMILY.id).count == 0


def test_an_old_post_sent_again_as_new_is_not_read_twice() -> None:
    alice, _, carol = subscribers("alice", "bob", "carol")
    post = carol.posted(FAMILY, "once")
    alice.step(alice.arrived(CAROL, post))
    later = T0 + 2 * 14 * DAY_MS + 2 * HOUR_MS
    for now in range(T0 + DAY_MS, later + 30 * DAY_MS, DAY_MS):
        alice.step(Tick(), now=at(now))
    assert alice.store.fate(post.id) is None, "the id is forgotten"
    alice.step(alice.arrived(BOB, replace(post, age_ms=0, hop=0)))
    assert [line.text for line in alice.inbox()] == ["once"]
    assert alice.store.held(post.id) is None, "and it goes no further from here"


# --- who takes and does not give


def test_a_neighbour_that_wants_the_same_again_and_again_is_handed_it_a_few_times() -> None:
    alice, _, carol = subscribers("alice", "bob", "carol")
    posts = [carol.posted(FAMILY, "x" * 1_000) for _ in range(8)]
    first = Taker(alice, BOB).take(alice.step(*(alice.arrived(CAROL, post) for post in posts)))
    assert len(envelopes(first)) == len(posts)
    again = 0
    for _ in range(50):
        want = Want(len(posts), tuple(range(len(posts))) * 100)
        again += len(envelopes(alice.step(says(BOB, FrameType.WANT, want.encode()))))
        for post in posts:
            answer(alice, BOB, post.id)
    assert again <= (HANDED_MAX - 1) * len(posts)


def answer(alice: Person, link: int, id: EnvelopeId, verdict: Verdict = Verdict.STORED) -> tuple[Effect, ...]:
    return alice.step(ResultsArrived(LinkId(link), (Result(id, verdict, Reason.NONE),)))


def test_neighbours_that_offer_everything_first_and_bring_nothing_delay_one_time_and_not_again() -> None:
    liars = 5
    alice, *others = subscribers("alice", "carol", *(f"liar {n}" for n in range(liars)))
    carol = others[0]
    taker: dict[EnvelopeId, int] = {}

    def one(text: str, now: int) -> int:
        """A post that all liars offer first, and the one who has it last; return after how long it is here."""
        post = carol.posted(FAMILY, text)
        for link in range(2, liars + 2):
            alice.step(offered(alice, link, post.id), now=at(now))
        out = alice.step(offered(alice, 1, post.id))
        start = now
        while not any(body[4:6] == b"\0\1" and not body[6] & 0x80 for body in asked(out, 1)):
            now += 1_000
            assert now < start + (liars + 1) * ASK_MS, "never asked"
            out = alice.step(Tick(), now=at(now))
        alice.step(alice.arrived(1, post))
        taker[post.id] = now - start
        return now

    now = T0
    for number in range(10):
        now = one(str(number), now)
    delays = list(taker.values())
    assert max(delays) <= ASK_MS
    assert sum(delays) <= liars * ASK_MS
    assert delays[liars:] == [0] * len(delays[liars:]), "who is late is asked last"


def test_telling_the_same_channels_in_turns_costs_little_each_time() -> None:
    alice, _, carol = willing("alice", "bob", "carol")
    everything = channels(200)
    for channel in everything:
        one = replace(FAMILY, id=channel)
        alice.step(alice.arrived(CAROL, carol.posted(one)))
    said = []
    for _ in range(20):
        assert kinds(alice.step(InterestArrived(LinkId(BOB), ()))) == []
        said.append(bytes_out(alice.step(InterestArrived(LinkId(BOB), (EVERY_CHANNEL, *sorted(everything)[:255])))))
    assert max(said) <= 200 * 80, "one offer for each channel"
    assert interests(alice.step(Tick())) == []


def test_comparing_one_channel_after_another_is_bounded_over_a_link() -> None:
    alice, _, _ = willing("alice", "bob", "carol")
    names = tuple(made_up(number, "name")[:NAME_BYTES] for number in range(12_000))
    begin = Ranges(0, (Range(b"", Mode.LIST, names=names),), bytes(16)).encode()
    answered = 0
    for channel in channels(100):
        answered += len(channel_frames(alice.step(says(BOB, FrameType.RANGES, begin, channel)), BOB))
    assert answered == COMPARE_BURST // len(begin)
    last = channels(101)[100]
    out = alice.step(says(BOB, FrameType.RANGES, begin, last), now=at(T0 + 5_000))
    assert len(channel_frames(out, BOB)) == 1, "after a while there is room again"


def test_comparing_begun_again_and_again_ends_the_link() -> None:
    alice, bob, _ = subscribers("alice", "bob", "carol")
    assert bob.key < alice.key, "it is for him to begin"
    begin = Ranges(0, (), bytes(16)).encode()
    first = alice.step(says(BOB, FrameType.RANGES, begin))
    out = alice.step(says(BOB, FrameType.RANGES, begin))
    assert "CloseLink" in kinds(first + out)


# --- leaving and coming back


def test_who_comes_back_keeps_for_others_what_it_had_read_and_let_go_of() -> None:
    alice, _, carol = subscribers("alice", "bob", "carol")
    posts = [carol.posted(FAMILY, str(n), seq=n + 1) for n in range(3)]
    alice.step(*(alice.arrived(CAROL, post) for post in posts))
    alice.leave(FAMILY)
    alice.step(Tick(), now=at(T0 + 5_000))
    assert all(alice.store.held(post.id) is None for post in posts)
    alice.join(FAMILY)
    told = 3
    out = alice.step(says(CAROL, FrameType.OFFER, encode_offer([post.id for post in posts]), interests=told))
    assert len(asked(out, CAROL)) == 1
    alice.step(*(alice.arrived(CAROL, post) for post in posts))
    assert all(alice.store.held(post.id) is not None for post in posts)
    assert [line.text for line in alice.inbox()] == ["0", "1", "2"], "nothing is read twice"
