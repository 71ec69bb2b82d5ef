"""Posts at the gate: what opens is delivered once, whoever brings it; the rest is refused, and why."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from tests.unit.people import T0, Person, accepted_posts, at, deferred, let_in, people, refused

from quicprochat.core.channel import BroadcastChannel
from quicprochat.core.envelope import HEADER_BYTES, Header, Kind, MeshEnvelope, make
from quicprochat.core.events import EnvelopeArrived, LinkId
from quicprochat.core.gate import Admission, Checked, Fault, Reason, Reject, Verdict, check
from quicprochat.core.history import in_order
from quicprochat.core.ids import EnvelopeId, Uid
from quicprochat.core.store import Fate, LineKind, Scope, Usage
from quicprochat.core.time import DAY_MS, WALL_FLOOR, Instant, Now
from quicprochat.core.window import release

CHANNEL = BroadcastChannel.private(b"\x07" * 32, "family")
OTHER = BroadcastChannel.private(b"\x08" * 32, "others")


@pytest.fixture
def circle() -> tuple[Person, Person, Person]:
    """Alice and Mallory are members, and so is Bob, at whose gate we stand."""
    alice, bob, mallory = people("alice", "bob", "mallory")
    bob.join(CHANNEL)
    return alice, bob, mallory


def enter(bob: Person, envelope: MeshEnvelope, via: Person, **changes: object) -> Admission:
    return let_in(bob, envelope, via, policy=replace(bob.policy, **changes))  # type: ignore[arg-type]


def untouched(bob: Person, envelope: MeshEnvelope) -> bool:
    """Say whether a post left no trace but a count."""
    return (
        bob.inbox() == []
        and bob.store.fate(envelope.id) is None
        and bob.store.held(envelope.id) is None
        and bob.store.usage(Scope.POSTS) == Usage()
    )


def test_a_post_is_delivered_remembered_and_kept(circle: tuple[Person, Person, Person]) -> None:
    alice, bob, mallory = circle
    uid = alice.uid()
    envelope = alice.posted(CHANNEL, "Grüße", uid=uid, hop=2, age_ms=60_000)
    admission = enter(bob, envelope, mallory)
    assert (admission.verdict, admission.reason, admission.status) == (Verdict.STORED, Reason.NONE, None)
    (line,) = bob.inbox()
    assert admission.line == line
    assert (line.kind, line.peer, line.uid, line.text) == (LineKind.POST, alice.key, uid, "Grüße")
    assert (line.channel, line.hops, line.protection, line.request) == (CHANNEL.id, 2, "private", False)
    assert bob.store.fate(envelope.id) is Fate.HELD
    held = bob.store.held(envelope.id)
    assert held is not None
    assert (held.via, held.own, held.expires_at) == (mallory.key, False, T0 + envelope.ttl_ms - 60_000)
    assert bob.store.channel(CHANNEL.id).heads == (envelope.id,)  # type: ignore[union-attr]


def heard(bob: Person, alice: Person) -> list[tuple[int, int]]:
    """Return what is missing of Alice."""
    known = bob.store.heard(CHANNEL.id, alice.key)
    assert known is not None
    return [(gap.first, gap.last) for gap in known.gaps]


def test_a_post_says_where_it_stands_and_what_is_missing_before_it(circle: tuple[Person, Person, Person]) -> None:
    alice, bob, mallory = circle
    first, third = alice.posted(CHANNEL, seq=1), alice.posted(CHANNEL, seq=3, parents=(EnvelopeId(b"p" * 32),))
    for envelope in (first, third):
        enter(bob, envelope, alice)
    one, other = bob.inbox()
    assert (one.id, one.seq, one.parents) == (first.id, 1, ())
    assert (other.id, other.seq, other.parents) == (third.id, 3, (b"p" * 32,))
    assert [place.cursor for place in bob.store.places(CHANNEL.id, limit=5)] == [one.cursor, other.cursor]
    assert heard(bob, alice) == [(2, 2)]
    # Whoever brings it closes the gap; nothing else does.
    enter(bob, mallory.posted(CHANNEL, seq=2), mallory)
    enter(bob, replace(third, hop=1), mallory)
    assert heard(bob, alice) == [(2, 2)]
    enter(bob, alice.posted(CHANNEL, seq=2), mallory)
    assert heard(bob, alice) == []


def test_what_was_not_stored_counts_as_missing(circle: tuple[Person, Person, Person]) -> None:
    alice, bob, _ = circle
    enter(bob, alice.posted(CHANNEL, seq=1), alice)
    assert enter(bob, alice.posted(CHANNEL, seq=2), alice, disk_low=True) == deferred(Reason.DISK)
    assert enter(bob, alice.posted(CHANNEL, seq=2, secret=b"\x09" * 32), alice) == refused(Reason.UNOPENABLE)
    enter(bob, alice.posted(CHANNEL, seq=3), alice)
    assert heard(bob, alice) == [(2, 2)]


def test_an_authors_wild_numbers_are_stored_and_harm_nobody(circle: tuple[Person, Person, Person]) -> None:
    alice, bob, mallory = circle
    enter(bob, mallory.posted(CHANNEL, seq=1), mallory)
    for seq in (2**60, 2**64 - 1, 0, 1, 5):
        assert enter(bob, alice.posted(CHANNEL, seq=seq), alice).verdict is Verdict.STORED
    assert heard(bob, alice) == [(2, 4), (6, 2**60 - 1), (2**60 + 1, 2**64 - 2)]
    assert heard(bob, mallory) == []
    assert len(bob.inbox()) == 6


def test_what_comes_after_its_authors_later_posts_is_no_head(circle: tuple[Person, Person, Person]) -> None:
    alice, bob, mallory = circle
    last = alice.posted(CHANNEL, seq=9)
    enter(bob, last, alice)
    for seq in range(1, 9):
        enter(bob, alice.posted(CHANNEL, seq=seq), alice)
    assert bob.store.channel(CHANNEL.id).heads == (last.id,)  # type: ignore[union-attr]
    new = mallory.posted(CHANNEL, seq=1)
    enter(bob, new, mallory)
    assert bob.store.channel(CHANNEL.id).heads == (last.id, new.id)  # type: ignore[union-attr]


@pytest.mark.parametrize("seed", range(20))
def test_a_conversation_stands_as_it_was_held_in_whatever_order_it_comes(seed: int) -> None:
    alice, bob, carol = people("alice", "bob", "carol")
    for person in (alice, bob, carol):
        person.join(CHANNEL)
    wire: list[MeshEnvelope] = []
    for n in range(10):
        author, reader = (alice, bob) if n % 3 else (bob, alice)
        # Each writes by a clock of its own, and says so to nobody.
        (written,) = accepted_posts(author.write_post(CHANNEL, str(n), at(T0 + (n % 3) * DAY_MS)))
        assert written.id is not None
        held = author.store.held(written.id)
        assert held is not None
        wire.append(MeshEnvelope.decode(held.wire))
        enter(reader, wire[-1], author)
    random.Random(seed).shuffle(wire)
    for envelope in wire:
        enter(carol, envelope, alice)
    order = in_order(carol.store.places(CHANNEL.id, limit=20))
    assert [line.text for line in carol.store.lines([place.cursor for place in order])] == list("0123456789")
    known = carol.store.heard_in(CHANNEL.id)
    assert [len(one.gaps) for one in known] == [0, 0]


def test_who_comes_back_into_a_channel_begins_to_count_anew(circle: tuple[Person, Person, Person]) -> None:
    alice, bob, _ = circle
    enter(bob, alice.posted(CHANNEL, seq=1), alice)
    bob.leave(CHANNEL)
    assert bob.store.heard(CHANNEL.id, alice.key) is None
    bob.join(CHANNEL)
    enter(bob, alice.posted(CHANNEL, seq=50), alice)
    assert heard(bob, alice) == []
    assert len(bob.store.places(CHANNEL.id, limit=5)) == 2


def test_posts_of_channels_that_are_not_ours_are_refused(circle: tuple[Person, Person, Person]) -> None:
    alice, bob, _ = circle
    envelope = alice.posted(OTHER)
    assert enter(bob, envelope, alice) == refused(Reason.POLICY)
    assert untouched(bob, envelope)
    bob.leave(CHANNEL)
    assert enter(bob, alice.posted(CHANNEL), alice) == refused(Reason.POLICY)


def test_a_post_under_another_key_is_refused_as_unopenable(circle: tuple[Person, Person, Person]) -> None:
    alice, bob, _ = circle
    envelope = alice.posted(CHANNEL, secret=b"\x09" * 32)
    assert enter(bob, envelope, alice) == refused(Reason.UNOPENABLE)
    assert untouched(bob, envelope)
    assert bob.store.counters()["unopenable"] == 1


@pytest.mark.parametrize("offset", [36, 67, 68, -1], ids=["commitment", "its end", "ciphertext", "tag"])
def test_an_altered_post_is_refused_though_its_author_signed_it(
    circle: tuple[Person, Person, Person], offset: int
) -> None:
    alice, bob, _ = circle
    good = alice.posted(CHANNEL)
    payload = bytearray(good.payload)
    payload[offset] ^= 1
    bad = make(Header.of(good), bytes(payload), alice.signer)
    assert enter(bob, bad, alice) == refused(Reason.UNOPENABLE)
    assert untouched(bob, bad)
    assert enter(bob, good, alice).verdict is Verdict.STORED


def test_nobody_posts_under_anothers_name(circle: tuple[Person, Person, Person]) -> None:
    alice, bob, mallory = circle
    good = alice.posted(CHANNEL)
    forged = replace(good, signature=mallory.posted(CHANNEL).signature)
    answer = check(forged.wire(), bob.key, bob.keys, bob.crypto, bob.secrets)
    assert isinstance(answer, Reject)
    assert answer.fault is Fault.SIGNATURE
    # Her words under Mallory's own signature: the key was made for her.
    stolen = make(replace(Header.of(good), src=mallory.key), good.payload, mallory.signer)
    assert enter(bob, stolen, mallory) == refused(Reason.UNOPENABLE)
    assert bob.inbox() == []


def test_a_replayed_post_is_a_duplicate(circle: tuple[Person, Person, Person]) -> None:
    alice, bob, mallory = circle
    uid = Uid(b"u" * 16)
    first = alice.posted(CHANNEL, uid=uid)
    enter(bob, first, alice)
    for again in (first, replace(first, hop=3, age_ms=5), alice.posted(CHANNEL, uid=uid)):
        assert enter(bob, again, mallory) == Admission(Verdict.DUPLICATE)
    assert len(bob.inbox()) == 1
    assert bob.store.usage(Scope.POSTS).count == 1
    assert bob.store.counters()["duplicates"] == 3


def test_a_post_replayed_when_its_id_is_forgotten_is_a_duplicate_all_the_same(
    circle: tuple[Person, Person, Person],
) -> None:
    alice, bob, mallory = circle
    post = alice.posted(CHANNEL)
    enter(bob, post, alice)
    bob.store.begin()
    release(bob.store, post.id, Instant(T0))
    assert bob.store.forget(Instant(T0 + 100 * DAY_MS), 10) == 1
    bob.store.commit()
    assert enter(bob, post, mallory) == Admission(Verdict.DUPLICATE)
    assert (len(bob.inbox()), bob.store.held(post.id)) == (1, None)


def test_the_same_uid_in_another_channel_is_a_duplicate(circle: tuple[Person, Person, Person]) -> None:
    alice, bob, _ = circle
    bob.join(OTHER)
    uid = alice.uid()
    assert enter(bob, alice.posted(CHANNEL, uid=uid), alice).verdict is Verdict.STORED
    assert enter(bob, alice.posted(OTHER, uid=uid), alice).verdict is Verdict.DUPLICATE


def test_our_own_post_comes_back_as_a_duplicate(circle: tuple[Person, Person, Person]) -> None:
    _, bob, mallory = circle
    mine = bob.posted(CHANNEL)
    assert enter(bob, mine, mallory) == Admission(Verdict.DUPLICATE)
    assert untouched(bob, mine)


def test_a_post_of_an_epoch_whose_key_is_not_here_yet_is_kept_unread(circle: tuple[Person, Person, Person]) -> None:
    alice, bob, _ = circle
    envelope = alice.posted(CHANNEL, epoch=1)
    assert enter(bob, envelope, alice) == Admission(Verdict.STORED)
    assert bob.inbox() == []
    assert bob.store.held(envelope.id) is not None
    assert enter(bob, envelope, alice) == Admission(Verdict.DUPLICATE)


def test_a_post_that_was_checked_before_we_subscribed_is_read_all_the_same(
    circle: tuple[Person, Person, Person],
) -> None:
    alice, bob, _ = circle
    bob.meet(1, alice)
    post = alice.posted(CHANNEL, "quick")
    checked = check(post.wire(), bob.key, bob.keys, bob.crypto, {})
    assert isinstance(checked, Checked)
    bob.step(EnvelopeArrived(LinkId(1), checked))
    assert [line.text for line in bob.inbox()] == ["quick"]


def test_age_hops_blocks_and_the_disk_count_for_posts_too(circle: tuple[Person, Person, Person]) -> None:
    alice, bob, mallory = circle
    old = alice.posted(CHANNEL, ttl_s=60, age_ms=60_000)
    assert enter(bob, old, alice) == refused(Reason.EXPIRED)
    far = alice.posted(CHANNEL, hop=33)
    assert enter(bob, far, mallory) == refused(Reason.HOPS)
    hers = mallory.posted(CHANNEL)
    assert enter(bob, hers, alice, blocked=frozenset({mallory.key})) == refused(Reason.POLICY)
    post = alice.posted(CHANNEL)
    assert enter(bob, post, alice, disk_low=True) == deferred(Reason.DISK)
    assert untouched(bob, post)


def test_a_post_of_an_unknown_form_is_unsupported(circle: tuple[Person, Person, Person]) -> None:
    alice, bob, _ = circle
    for flags in (2, 3, 128):
        header = Header(Kind.CHANNEL, alice.key, CHANNEL.id, alice.entropy(16), flags=flags)
        assert enter(bob, make(header, b"later", alice.signer), alice) == refused(Reason.UNSUPPORTED)


@pytest.mark.parametrize("size", [0, 4, 67, 68, 83])
def test_a_post_too_short_to_be_one_is_unopenable(circle: tuple[Person, Person, Person], size: int) -> None:
    alice, bob, _ = circle
    good = alice.posted(CHANNEL)
    short = make(Header.of(good), good.wire()[HEADER_BYTES : HEADER_BYTES + size], alice.signer)
    assert enter(bob, short, alice) == refused(Reason.UNOPENABLE)


def test_heads_are_what_nobody_has_answered_yet(circle: tuple[Person, Person, Person]) -> None:
    alice, bob, mallory = circle

    def heads() -> tuple[EnvelopeId, ...]:
        found = bob.store.channel(CHANNEL.id)
        assert found is not None
        return found.heads

    one, two = alice.posted(CHANNEL), mallory.posted(CHANNEL)
    enter(bob, one, alice)
    enter(bob, two, alice)
    assert heads() == (one.id, two.id)
    answer = alice.posted(CHANNEL, parents=(one.id,))
    enter(bob, answer, alice)
    assert heads() == (two.id, answer.id)
    more = [mallory.posted(CHANNEL) for _ in range(4)]
    for post in more:
        enter(bob, post, alice)
    assert heads() == tuple(post.id for post in more)


def test_when_a_post_was_written_is_known_by_its_age_where_our_clock_is_trusted(
    circle: tuple[Person, Person, Person],
) -> None:
    alice, bob, mallory = circle
    for trusted in (True, False):
        let_in(bob, alice.posted(CHANNEL, age_ms=60_000), mallory, now=Now(Instant(T0), WALL_FLOOR, trusted))
    assert [(line.at, line.sent_at) for line in bob.inbox()] == [(WALL_FLOOR, WALL_FLOOR - 60_000), (WALL_FLOOR, 0)]


def test_posts_that_come_together_are_told_oldest_first_and_each_neighbours_in_its_order(
    circle: tuple[Person, Person, Person],
) -> None:
    alice, bob, mallory = circle
    bob.meet(1, alice)
    bob.meet(2, mallory)
    ages = ((1, alice, "a1", 9_000), (1, alice, "a2", 5_000), (1, alice, "a3", 5_001), (2, mallory, "m1", 7_000),
            (2, mallory, "m2", 1_000))  # fmt: skip
    bob.step(*(bob.arrived(link, who.posted(CHANNEL, text, age_ms=age)) for link, who, text, age in ages))
    assert [line.text for line in bob.inbox()] == ["a1", "m1", "a2", "a3", "m2"]
