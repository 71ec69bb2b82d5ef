"""Members at the node: who says what of a channel, whose word counts, and who gets the new key."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.people import (
    T0,
    Person,
    accepted_posts,
    at,
    envelopes,
    kinds,
    let_in,
    people,
    receipts,
    refused,
)

from quicprochat.core.channel import (
    EARLIER_KEEP_MS,
    EARLIER_MAX,
    BroadcastChannel,
    Earlier,
    Member,
    Post,
    Subscription,
    open_with,
    post_epoch,
    told,
)
from quicprochat.core.charter import TYPE_CHARTER, TYPE_WORD, Charter, Word
from quicprochat.core.envelope import MeshEnvelope
from quicprochat.core.events import (
    Effect,
    Leaving,
    Muted,
    PostersChanged,
    Reseal,
    Resealed,
    Rotated,
    Tick,
)
from quicprochat.core.gate import Reason
from quicprochat.core.ids import ChannelId, PeerKey
from quicprochat.core.members import CHARTER_AGAIN_MS, MEMBERS_MAX
from quicprochat.core.posts import POST_TTL_S
from quicprochat.core.receipt import Receipt, State, Status
from quicprochat.core.rotation import ChannelKey
from quicprochat.core.seal import TYPE_KEY, Protection
from quicprochat.core.store import Fate, LineKind
from quicprochat.core.time import DAY_MS, Instant

BOB, CAROL = 1, 2
Three = tuple[Person, Person, Person]


@pytest.fixture
def three() -> Three:
    """Alice owns channels; Bob and Carol are members. Alice is linked to both; the posts go by hand."""
    alice, bob, carol = people("alice", "bob", "carol")
    alice.meet(BOB, bob)
    alice.meet(CAROL, carol)
    bob.meet(BOB, alice)
    carol.meet(CAROL, alice)
    return alice, bob, carol


def family(owner: Person) -> BroadcastChannel:
    return BroadcastChannel.private(b"\x07" * 32, "family", owner.key)


def news(owner: Person) -> BroadcastChannel:
    return BroadcastChannel.private(b"\x08" * 32, "news", owner.key, announce=True)


def known(person: Person, channel: BroadcastChannel) -> Subscription:
    found = person.store.channel(channel.id)
    assert found is not None
    return found


def kept(person: Person, channel: BroadcastChannel) -> list[MeshEnvelope]:
    """The posts in a person's window, in their order."""
    return [MeshEnvelope.decode(held.wire) for held in person.store.waiting(channel.id, 0, 10_000)]


def read(person: Person, channel: BroadcastChannel) -> list[Post]:
    found = [open_with(post, known(person, channel).secrets, person.crypto) for post in kept(person, channel)]
    return [post for post in found if post is not None]


def hand(to: Person, link: int, *posts: MeshEnvelope) -> tuple[Effect, ...]:
    return to.step(*(to.arrived(link, post) for post in posts))


def members(person: Person, channel: BroadcastChannel) -> dict[str, Member]:
    names = {p.key: p.name for p in people("alice", "bob", "carol", "dave")}
    return {names[member.peer]: member for member in person.store.members(channel.id)}


def charter_of(owner: Person, channel: BroadcastChannel, version: int, *posters: Person) -> MeshEnvelope:
    body = Charter(version, tuple(sorted(p.key for p in posters))).encode()
    return owner.posted(channel, type=TYPE_CHARTER, body=body, seq=0)


def word_of(person: Person, channel: BroadcastChannel, number: int, *, joined: bool, epoch: int = 0) -> MeshEnvelope:
    secret = None if not epoch else bytes([epoch]) * 32
    return person.posted(channel, type=TYPE_WORD, body=Word(joined, number).encode(), seq=0, epoch=epoch, secret=secret)


def rotate(
    alice: Person, channel: BroadcastChannel, epoch: int, *to: Person, without: tuple[Person, ...] = ()
) -> tuple[Effect, ...]:
    key = ChannelKey(channel.id, epoch, bytes([epoch]) * 32)
    letters = [alice.written(person.key, prekey=person.prekey, key=key, ttl_s=14 * 86_400) for person in to]
    told = tuple((person.key, letter.uid) for person, letter in zip(to, letters, strict=True))
    return alice.step(Rotated(channel.id, epoch, key.secret, told, tuple(p.key for p in without)), *letters)


# --- words


def test_who_joins_says_so_and_who_comes_back_says_so_again(three: Three) -> None:
    alice, bob, _ = three
    channel = family(alice)
    bob.join(channel)
    (joined,) = kept(bob, channel)
    bob.leave(channel)
    bob.join(channel)
    (again,) = kept(bob, channel)
    assert [Word.decode(read(bob, channel)[0].body), known(bob, channel).said] == [Word(True, 2), 2]
    assert joined.id != again.id
    assert [post.seq for post in read(bob, channel)] == [0], "no number of a text is used up"
    assert kept(bob, channel) == [again], "joining once more what one is in says nothing"
    bob.join(channel)
    assert kept(bob, channel) == [again]


def test_an_owner_that_is_known_stays_whatever_an_invite_says(three: Three) -> None:
    alice, bob, carol = three
    channel = family(alice)
    bob.join(replace(channel, owner=b""))
    bob.join(channel)
    assert known(bob, channel).channel.owner == alice.key
    bob.join(replace(channel, owner=carol.key, epoch=3, secret=b"\x03" * 32))
    assert known(bob, channel).channel.owner == alice.key


def test_nothing_is_said_where_no_owner_is_known(three: Three) -> None:
    _, bob, _ = three
    for channel in (BroadcastChannel.private(b"\x09" * 32, "x"), BroadcastChannel.open("village", bob.crypto)):
        bob.join(channel)
        assert kept(bob, channel) == []


def test_members_are_those_that_said_so_and_those_that_wrote(three: Three) -> None:
    alice, bob, carol = three
    channel = family(alice)
    alice.join(channel)
    out = hand(alice, BOB, word_of(bob, channel, 1, joined=True))
    assert "Journaled" not in kinds(out)
    assert alice.inbox() == []
    hand(alice, CAROL, carol.posted(channel))
    assert {name: member.present for name, member in members(alice, channel).items()} == {"bob": True, "carol": True}


def test_of_words_the_last_one_counts_in_whatever_order_they_come(three: Three) -> None:
    alice, bob, _ = three
    channel = family(alice)
    alice.join(channel)
    first, left, back = (word_of(bob, channel, n, joined=n != 2) for n in (1, 2, 3))
    hand(alice, BOB, left, first)
    assert not members(alice, channel)["bob"].present
    hand(alice, BOB, bob.posted(channel, "written before I left"))
    assert not members(alice, channel)["bob"].present
    hand(alice, BOB, back, left)
    assert members(alice, channel)["bob"].present


def test_a_word_that_is_none_is_refused_and_forgotten(three: Three) -> None:
    alice, bob, _ = three
    channel = family(alice)
    alice.join(channel)
    wrong = bob.posted(channel, type=TYPE_WORD, body=b"\x01", seq=0)
    assert let_in(alice, wrong, bob) == refused(Reason.UNLISTED)
    assert alice.store.fate(wrong.id) is None
    assert members(alice, channel) == {}


def test_members_that_somebody_makes_up_are_bounded(three: Three) -> None:
    alice, bob, carol = three
    channel = family(alice)
    alice.join(channel)
    alice.store.begin()
    for n in range(MEMBERS_MAX):
        alice.store.put_member(Member(channel.id, made_up(carol, n)))
    alice.store.commit()
    hand(alice, BOB, word_of(bob, channel, 1, joined=True))
    assert len(alice.store.members(channel.id)) == MEMBERS_MAX
    assert alice.store.member(channel.id, bob.key) is None


def made_up(person: Person, n: int) -> PeerKey:
    return PeerKey(n.to_bytes(4, "big") + person.key[4:])


def test_leaving_is_said_before_the_key_goes(three: Three) -> None:
    alice, bob, _ = three
    channel = family(alice)
    alice.join(channel)
    bob.join(channel)
    uid = bob.uid()
    (accepted,) = accepted_posts(bob.step(Leaving(channel.id, uid)))
    assert (accepted.uid, accepted.reason) == (uid, Reason.NONE)
    hand(alice, BOB, *kept(bob, channel))
    assert not members(alice, channel)["bob"].present
    hand(bob, BOB, *kept(alice, channel))
    assert set(members(bob, channel)) == {"alice"}
    bob.leave(channel)
    assert members(bob, channel) == {}
    assert known(bob, channel).secrets[0][1] == b""


# --- announcement channels


def test_a_post_of_somebody_who_is_not_listed_is_refused_until_the_charter_comes(three: Three) -> None:
    alice, bob, carol = three
    channel = news(alice)
    carol.join(channel)
    said = bob.posted(channel, "bread is ready")
    hand(carol, CAROL, said)
    assert carol.inbox() == []
    assert carol.store.fate(said.id) is None, "it may be taken later"
    assert said.id not in {post.id for post in kept(carol, channel)}, "nor is it handed on"
    assert let_in(carol, said, alice) == refused(Reason.UNLISTED)
    hand(carol, CAROL, charter_of(alice, channel, 1, bob), said)
    assert [line.text for line in carol.inbox()] == ["bread is ready"]


def test_the_owner_writes_without_a_charter(three: Three) -> None:
    alice, _, carol = three
    carol.join(news(alice))
    hand(carol, CAROL, alice.posted(news(alice), "hello"))
    assert [(line.text, line.protection) for line in carol.inbox()] == [("hello", "announcement")]


def test_a_charter_of_somebody_else_or_an_older_one_changes_nothing(three: Three) -> None:
    alice, bob, carol = three
    channel = news(alice)
    carol.join(channel)
    hand(carol, CAROL, charter_of(bob, channel, 9, bob))
    assert (known(carol, channel).charter, known(carol, channel).posters) == (0, ())
    hand(carol, CAROL, charter_of(alice, channel, 3, bob), charter_of(alice, channel, 2, carol))
    assert known(carol, channel).posters == (bob.key,)
    hand(carol, CAROL, charter_of(alice, channel, 3, carol))
    assert known(carol, channel).posters == (bob.key,), "a version is given once"
    hand(carol, CAROL, charter_of(alice, channel, 4))
    assert known(carol, channel).posters == ()
    assert let_in(carol, bob.posted(channel), alice) == refused(Reason.UNLISTED)


def test_an_old_charter_is_not_taken_for_a_new_one_by_who_comes_back(three: Three) -> None:
    alice, bob, carol = three
    channel = news(alice)
    carol.join(channel)
    old = charter_of(alice, channel, 1, bob)
    hand(carol, CAROL, charter_of(alice, channel, 2))
    carol.leave(channel)
    carol.join(channel)
    hand(carol, CAROL, old)
    assert (known(carol, channel).charter, known(carol, channel).posters) == (2, ())


def test_who_is_not_listed_cannot_post(three: Three) -> None:
    alice, bob, _ = three
    channel = news(alice)
    bob.join(channel)
    assert [a.reason for a in accepted_posts(bob.write_post(channel))] == [Reason.POLICY]
    hand(bob, BOB, charter_of(alice, channel, 1, bob))
    assert [a.reason for a in accepted_posts(bob.write_post(channel))] == [Reason.NONE]


def test_only_the_owner_lists_posters(three: Three) -> None:
    alice, bob, carol = three
    channel = news(alice)
    for person in (alice, bob):
        person.join(channel)
        person.step(PostersChanged(channel.id, (carol.key,)))
    assert known(alice, channel).posters == (carol.key,)
    assert known(bob, channel).posters == ()
    hand(bob, BOB, *kept(alice, channel))
    assert (known(bob, channel).charter, known(bob, channel).posters) == (1, (carol.key,))
    assert bob.inbox() == []


def test_a_charter_is_posted_again_before_it_dies(three: Three) -> None:
    alice, bob, _ = three
    channel = news(alice)
    alice.join(channel)
    alice.step(PostersChanged(channel.id, (bob.key,)))

    def charters() -> int:
        return sum(post.type == TYPE_CHARTER for post in read(alice, channel))

    life = POST_TTL_S * 1_000
    alice.step(Tick(), now=at(T0 + life - CHARTER_AGAIN_MS))
    assert charters() == 1
    alice.step(Tick(), now=at(T0 + life - CHARTER_AGAIN_MS + 120_000))
    assert charters() == 2
    alice.step(Tick(), now=at(T0 + life - CHARTER_AGAIN_MS + 240_000))
    assert charters() == 2
    assert known(alice, channel).charter == 1, "it is the same charter"


# --- rotation


def test_a_new_key_goes_to_the_members_and_opens_what_is_posted_then(three: Three) -> None:
    alice, bob, carol = three
    channel = family(alice)
    for person in three:
        person.join(channel)
    out = rotate(alice, channel, 1, bob, without=(carol,))
    (letter,) = [e for e in envelopes(out) if e.dst == bob.key]
    assert not [e for e in envelopes(out) if e.dst == carol.key]
    before = alice.posted(channel, "before")
    hand(bob, BOB, before)
    out = hand(bob, BOB, letter)
    assert [r.status for r in receipts(out)] == [Status.DELIVERED]
    assert "Journaled" not in kinds(out)
    assert [line.text for line in bob.inbox()] == ["before"], "the key is shown to nobody"
    assert bob.store.fate(letter.id) is Fate.DELIVERED
    assert known(bob, channel).secrets == ((1, b"\x01" * 32), (0, channel.secret))
    alice.write_post(channel, "without carol")
    after = kept(alice, channel)[-1]
    assert post_epoch(after) == 1
    for person, texts in ((bob, ["before", "without carol"]), (carol, [])):
        hand(person, CAROL if person is carol else BOB, after)
        assert [line.text for line in person.inbox()] == texts
    assert carol.node.unreadable(channel.id) == (after.id,)
    assert alice.node.unreadable(channel.id) == ()
    # And the other way: what bob posts now, carol cannot read either.
    bob.write_post(channel, "yes")
    assert post_epoch(kept(bob, channel)[-1]) == 1
    # Old posts are still read.
    hand(bob, BOB, carol.posted(channel, "I do not know yet"))
    assert bob.inbox()[-1].text == "I do not know yet"


def test_the_owner_knows_who_has_the_key(three: Three) -> None:
    alice, bob, carol = three
    channel = family(alice)
    for person in three:
        person.join(channel)
    hand(alice, BOB, word_of(bob, channel, 1, joined=True))
    hand(alice, CAROL, word_of(carol, channel, 1, joined=True))
    out = rotate(alice, channel, 1, bob, without=(carol,))
    found = members(alice, channel)
    assert (found["bob"].epoch, found["carol"].epoch, found["carol"].removed) == (1, 0, True)
    assert alice.store.sent(found["bob"].letter).state is State.QUEUED  # type: ignore[arg-type, union-attr]
    (letter,) = [e for e in envelopes(out) if e.dst == bob.key]
    (receipt,) = [e for e in envelopes(hand(bob, BOB, letter)) if e.dst == alice.key]
    out = hand(alice, BOB, receipt)
    assert alice.store.sent(found["bob"].letter).state is State.DELIVERED  # type: ignore[arg-type, union-attr]
    assert "StateChanged" in kinds(out)
    assert "Journaled" not in kinds(out), "nobody is told line by line"
    assert [line for line in alice.store.journal(after=0, limit=10) if line.kind is LineKind.RECEIPT] == []


@pytest.mark.parametrize("who", ["a member", "a stranger", "no owner known", "left"])
def test_a_key_counts_only_from_the_owner(three: Three, who: str) -> None:
    alice, bob, carol = three
    channel = family(alice)
    bob.join(channel if who != "no owner known" else replace(channel, owner=b""))
    if who == "left":
        bob.leave(channel)
    author = alice if who in ("no owner known", "left") else carol
    if who == "a stranger":
        author = Person(alice.crypto, "dave")
        bob.meet(3, author)
    before = known(bob, channel)
    key = ChannelKey(channel.id, 1, b"\x01" * 32)
    letter = author.envelope(bob.key, prekey=bob.prekey, key=key)
    out = hand(bob, BOB, letter)
    assert [r.status for r in receipts(out)] in ([Status.REFUSED], [])
    assert known(bob, channel) == before
    assert bob.store.fate(letter.id) is None, "nothing is remembered: anybody can make such messages"
    assert bob.store.counters()["keys_refused"] == 1


def test_a_key_of_a_channel_that_is_unknown_is_refused_and_answered_within_bounds(three: Three) -> None:
    alice, bob, _ = three
    key = ChannelKey(ChannelId(b"?" * 32), 1, b"\x01" * 32)
    answers: list[Receipt] = []
    for _ in range(1_000):
        answers += receipts(hand(bob, BOB, alice.envelope(bob.key, prekey=bob.prekey, key=key)))
    assert 0 < len(answers) < 500
    assert {r.status for r in answers} == {Status.REFUSED}


def test_keys_that_come_in_the_wrong_order_both_open_and_the_newest_is_written_with(three: Three) -> None:
    alice, bob, _ = three
    channel = family(alice)
    bob.join(channel)
    one, two = (ChannelKey(channel.id, n, bytes([n]) * 32) for n in (1, 2))
    for key in (two, one, one):
        hand(bob, BOB, alice.envelope(bob.key, prekey=bob.prekey, key=key))
    assert [epoch for epoch, _ in known(bob, channel).secrets] == [2, 1, 0]
    for epoch in (1, 2):
        hand(bob, BOB, alice.posted(channel, f"under {epoch}", secret=bytes([epoch]) * 32, epoch=epoch))
    assert [line.text for line in bob.inbox()] == ["under 1", "under 2"]
    bob.write_post(channel)
    assert post_epoch(kept(bob, channel)[-1]) == 2


def test_two_secrets_of_one_epoch_are_both_tried(three: Three) -> None:
    """An owner whose home was restored from a backup gives a number twice."""
    alice, bob, _ = three
    channel = family(alice)
    bob.join(channel)
    for n in (1, 2):
        key = ChannelKey(channel.id, 1, bytes([n]) * 32)
        hand(bob, BOB, alice.envelope(bob.key, prekey=bob.prekey, key=key))
    for n in (1, 2):
        hand(bob, BOB, alice.posted(channel, str(n), secret=bytes([n]) * 32, epoch=1))
    assert [line.text for line in bob.inbox()] == ["1", "2"]


def test_old_secrets_are_kept_while_their_posts_may_live_and_not_longer(three: Three) -> None:
    alice, bob, _ = three
    channel = family(alice)
    bob.join(channel)
    hand(bob, BOB, alice.envelope(bob.key, prekey=bob.prekey, key=ChannelKey(channel.id, 1, b"\x01" * 32)))
    bob.step(Tick(), now=at(T0 + EARLIER_KEEP_MS - 1))
    assert len(known(bob, channel).secrets) == 2
    out = bob.step(Tick(), now=at(T0 + EARLIER_KEEP_MS + DAY_MS))
    assert known(bob, channel).secrets == ((1, b"\x01" * 32),)
    assert "ChannelsChanged" in kinds(out)
    assert set(bob.secrets[channel.id]) == {(1, b"\x01" * 32)}


def test_a_secret_that_is_let_go_is_scrubbed(three: Three, monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob, _ = three
    channel = family(alice)
    bob.join(channel)
    hand(bob, BOB, alice.envelope(bob.key, prekey=bob.prekey, key=ChannelKey(channel.id, 1, b"\x01" * 32)))
    scrubbed: list[bool] = []
    monkeypatch.setattr(bob.store, "put_channel", lambda subscription, *, scrub=False: scrubbed.append(scrub))
    bob.step(Tick(), now=at(T0 + EARLIER_KEEP_MS + DAY_MS))
    assert scrubbed == [True]


def test_an_owner_that_rotates_all_the_time_fills_no_memory() -> None:
    subscription = Subscription(BroadcastChannel.private(b"\x07" * 32, "family", b"o" * 32))
    for epoch in range(1, 100):
        subscription = told(subscription, epoch, epoch.to_bytes(32, "big"), Instant(epoch))
    assert len(subscription.earlier) == EARLIER_MAX
    assert subscription.earlier[0] == Earlier(98, Instant(99 + EARLIER_KEEP_MS), (98).to_bytes(32, "big"))


def test_only_the_owner_rotates_and_never_back(three: Three) -> None:
    alice, bob, _ = three
    channel = family(alice)
    alice.join(channel)
    bob.join(channel)
    bob.step(Rotated(channel.id, 1, b"\x01" * 32))
    assert known(bob, channel).secrets == ((0, channel.secret),)
    rotate(alice, channel, 2)
    rotate(alice, channel, 1)
    assert [epoch for epoch, _ in known(alice, channel).secrets] == [2, 0]


def test_who_comes_back_by_the_new_key_is_a_member_again_and_an_old_key_brings_nobody_back(three: Three) -> None:
    alice, bob, _ = three
    channel = family(alice)
    alice.join(channel)
    hand(alice, BOB, word_of(bob, channel, 1, joined=True))
    rotate(alice, channel, 1, without=(bob,))
    hand(alice, BOB, word_of(bob, channel, 2, joined=True), bob.posted(channel, "still here"))
    assert members(alice, channel)["bob"].removed
    hand(alice, BOB, word_of(bob, channel, 3, joined=True, epoch=1))
    found = members(alice, channel)["bob"]
    assert (found.removed, found.epoch, found.letter) == (False, 1, b"")


def test_after_a_rotation_the_charter_stands_under_the_new_key(three: Three) -> None:
    alice, bob, carol = three
    channel = news(alice)
    alice.join(channel)
    alice.step(PostersChanged(channel.id, (bob.key,)))
    rotate(alice, channel, 1)
    newer = kept(alice, channel)[-1]
    assert post_epoch(newer) == 1
    carol.join(replace(channel, secret=b"\x01" * 32, epoch=1))
    hand(carol, CAROL, newer)
    assert known(carol, channel).posters == (bob.key,)


def test_what_waited_for_a_key_is_read_after_the_list_and_only_of_who_is_on_it(three: Three) -> None:
    alice, bob, carol = three
    channel, secret = news(alice), b"\x01" * 32
    dave = Person(alice.crypto, "dave")
    carol.join(channel)
    charter = Charter(1, (bob.key,)).encode()
    posts = [
        bob.posted(channel, "bread", secret=secret, epoch=1),
        dave.posted(channel, "spam", secret=secret, epoch=1),
        alice.posted(channel, type=TYPE_CHARTER, body=charter, seq=0, secret=secret, epoch=1),
    ]
    hand(carol, CAROL, *posts)
    assert set(carol.node.unreadable(channel.id)) == {post.id for post in posts}
    letter = alice.envelope(carol.key, prekey=carol.prekey, key=ChannelKey(channel.id, 1, secret))
    out = hand(carol, CAROL, letter)
    assert [line.text for line in carol.inbox()] == ["bread"]
    assert kinds(out).count("Journaled") == 1
    assert carol.node.unreadable(channel.id) == ()
    assert posts[1].id not in {post.id for post in kept(carol, channel)}, "nor is it handed on any more"
    assert set(members(carol, channel)) >= {"bob"}


def test_a_letter_that_waits_is_sealed_again_with_its_key_and_the_outbox_holds_no_secret(three: Three) -> None:
    alice, _, _ = three
    channel = family(alice)
    alice.join(channel)
    secret = b"\x01" * 32
    key = ChannelKey(channel.id, 1, secret)
    dave = Person(alice.crypto, "dave")
    letter = alice.written(dave.key, key=key)
    alice.step(Rotated(channel.id, 1, secret, ((dave.key, letter.uid),)), letter)
    sent = alice.store.sent(letter.uid)
    assert sent is not None
    assert (sent.type, secret.hex() in sent.text) == (TYPE_KEY, False)
    (again,) = [e for e in alice.meet(3, dave) if isinstance(e, Reseal)]
    assert (again.type, again.body) == (TYPE_KEY, key.encode())
    better = alice.envelope(dave.key, prekey=dave.prekey, uid=letter.uid, key=key)
    (handed,) = envelopes(alice.step(Resealed(letter.uid, better, Protection.PREKEY)))
    assert handed.id == better.id


def test_a_letter_of_a_channel_that_was_left_is_not_sealed_again(three: Three) -> None:
    alice, _, _ = three
    channel = family(alice)
    alice.join(channel)
    dave = Person(alice.crypto, "dave")
    key = ChannelKey(channel.id, 1, b"\x01" * 32)
    letter = alice.written(dave.key, key=key)
    alice.step(Rotated(channel.id, 1, key.secret, ((dave.key, letter.uid),)), letter)
    alice.leave(channel)
    out = alice.meet(3, dave)
    assert not [e for e in out if isinstance(e, Reseal)]
    assert alice.state(letter.uid) is State.CANCELLED


# --- mute


def test_posts_of_a_muted_channel_come_as_read_ones(three: Three) -> None:
    alice, bob, _ = three
    channel = family(alice)
    bob.join(channel)
    bob.step(Muted(channel.id, muted=True))
    hand(bob, BOB, alice.posted(channel, "psst"))
    assert [(line.text, line.read) for line in bob.inbox()] == [("psst", True)]
    assert bob.store.unread() == 0
    bob.step(Muted(channel.id, muted=False))
    hand(bob, BOB, alice.posted(channel, "hello"))
    assert bob.store.unread() == 1
