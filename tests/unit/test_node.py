"""The node: links, abuse, the owner's decisions, and time.

Its answers are in test_node_answers.py, peers' records in test_node_records.py.
"""

from __future__ import annotations

import pytest
from tests.unit.people import T0, WINDOW, Person, at, by_clock, envelopes, kinds, people

from quicprochat.core import patience
from quicprochat.core.address import Address
from quicprochat.core.events import (
    CloseLink,
    Effect,
    EnvelopeRejected,
    LinkDown,
    LinkId,
    LinkUp,
    RecordArrived,
    SendEnvelope,
    SendResults,
    Tick,
)
from quicprochat.core.gate import Reason, Verdict
from quicprochat.core.ids import PeerKey
from quicprochat.core.link import Goodbye, Result
from quicprochat.core.node import SWEEP_BATCH, SWEEP_MS
from quicprochat.core.patience import BAD_MAX, BAD_WINDOW_MS, BAN_FIRST_MS, BAN_LAST_MS
from quicprochat.core.receipt import State
from quicprochat.core.store import SIGHTINGS_MAX, Fate, Scope, Sighting
from quicprochat.core.time import DAY_MS, HOUR_MS, Instant, WallTime

LINK = 1
NO_ROOM = (Goodbye.BUSY, "no room")


@pytest.fixture
def circle() -> list[Person]:
    """Alice is whose node this is; the others are peers."""
    return people("alice", "bob", "mallory")


def flood(alice: Person, count: int, *, link: int = LINK, instant: int = T0) -> tuple[Effect, ...]:
    """So many envelopes that do not verify, in one batch."""
    return alice.step(*[EnvelopeRejected(LinkId(link))] * count, now=at(instant))


def closed(link: int, ban_ms: int) -> tuple[Effect, ...]:
    return (CloseLink(LinkId(link), Goodbye.ABUSE, "too many envelopes that do not verify", ban_ms),)


# --- links


def test_a_link_is_noted_with_the_address_that_worked(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.step(LinkUp(LinkId(LINK), bob.key, WINDOW, Address("10.1.2.3", 7000)), now=at(T0 + 5, 77))
    assert alice.store.sightings(9) == [Sighting(bob.key, WallTime(77), Instant(T0 + 5), "10.1.2.3:7000")]
    alice.step(LinkUp(LinkId(2), bob.key, WINDOW))
    assert alice.store.sightings(9)[0].address == ""


def test_the_end_of_a_link_is_when_a_peer_was_last_seen(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.step(LinkUp(LinkId(LINK), bob.key, WINDOW, Address("10.1.2.3", 7000)), now=at(T0 + 5, 77))
    alice.step(LinkDown(LinkId(LINK)), now=at(T0 + 90, 99))
    assert alice.store.sightings(9) == [Sighting(bob.key, WallTime(99), Instant(T0 + 90), "10.1.2.3:7000")]


def test_a_link_that_is_ended_for_abuse_was_one_until_then(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.step(LinkUp(LinkId(LINK), bob.key, WINDOW), now=at(T0))
    assert flood(alice, BAD_MAX, instant=T0 + 90) != ()
    assert [sighting.at for sighting in alice.store.sightings(9)] == [T0 + 90]


def test_a_link_to_a_carrier_is_no_sighting(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.step(LinkUp(LinkId(LINK), bob.key, WINDOW, carrier=True), LinkDown(LinkId(LINK)))
    assert alice.store.sightings(9) == []


def test_strangers_that_link_push_out_no_contact(circle: list[Person]) -> None:
    alice, bob, mallory = circle
    alice.decide(contacts=(bob,))
    strangers = (PeerKey(n.to_bytes(32, "big")) for n in range(SIGHTINGS_MAX - 1))
    for n, peer in enumerate((bob.key, mallory.key, *strangers)):
        alice.step(LinkUp(LinkId(1 + n), peer, WINDOW), LinkDown(LinkId(1 + n)), now=at(T0 + 5 + n))
    seen = {sighting.key for sighting in alice.store.sightings(SIGHTINGS_MAX + 9)}
    assert len(seen) == SIGHTINGS_MAX
    assert (bob.key in seen, mallory.key in seen) == (True, False)


def test_what_arrives_over_a_link_that_is_gone_is_left_to_be_sent_again(circle: list[Person]) -> None:
    """Unanswered, so the neighbour still has it."""
    alice, bob, _ = circle
    alice.meet(LINK, bob)
    late = alice.arrived(LINK, bob.envelope(alice.key))
    assert alice.step(LinkDown(LinkId(LINK)), late) == ()
    assert alice.inbox() == []
    assert alice.meet(2, bob) == ()


def test_a_link_that_another_took_over_from_says_nothing_more(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob)
    late = alice.arrived(LINK, bob.envelope(alice.key))
    alice.meet(2, bob)
    assert alice.step(late, *[EnvelopeRejected(LinkId(LINK))] * BAD_MAX) == ()
    assert alice.inbox() == []
    assert kinds(alice.step(alice.arrived(2, bob.envelope(alice.key)))) == ["Journaled", "SendEnvelope"]


def test_answers_to_a_link_that_goes_in_the_same_batch_are_dropped(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob)
    unknown = alice.arrived(LINK, bob.envelope(alice.key, kind=3))
    assert alice.step(unknown, LinkDown(LinkId(LINK))) == ()


def test_nothing_goes_to_a_link_that_has_ended(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob)
    alice.step(LinkDown(LinkId(LINK)))
    assert kinds(alice.step(alice.written(bob.key, "hi", bob.prekey))) == ["Accepted"]
    assert alice.meet(2, bob) != ()


def test_the_end_of_an_unknown_link_is_no_news(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob)
    alice.step(LinkDown(LinkId(99)))
    assert kinds(alice.step(alice.written(bob.key, "hi", bob.prekey))) == ["Accepted", "SendEnvelope"]


# --- bad signatures


def test_a_flood_of_bad_signatures_ends_the_link(circle: list[Person]) -> None:
    alice, _, mallory = circle
    alice.meet(LINK, mallory)
    assert flood(alice, BAD_MAX - 1) == ()
    assert flood(alice, 1) == closed(LINK, BAN_FIRST_MS)
    assert alice.store.counters() == {"rejected": BAD_MAX}
    assert alice.step(alice.arrived(LINK, mallory.envelope(alice.key))) == (), "and the link is dead at once"
    assert alice.inbox() == []


def test_nothing_goes_to_who_was_cut_off(circle: list[Person]) -> None:
    alice, _, mallory = circle
    alice.meet(LINK, mallory)
    flood(alice, BAD_MAX)
    assert kinds(alice.step(alice.written(mallory.key, "hi", mallory.prekey))) == ["Accepted"]


def test_a_few_bad_signatures_in_a_long_time_are_forgiven(circle: list[Person]) -> None:
    alice, _, mallory = circle
    alice.meet(LINK, mallory)
    for n in range(3 * BAD_MAX):
        assert flood(alice, 1, instant=T0 + n * (1 + BAD_WINDOW_MS // (BAD_MAX - 1))) == ()


def test_as_many_just_within_the_window_are_not(circle: list[Person]) -> None:
    alice, _, mallory = circle
    alice.meet(LINK, mallory)
    assert flood(alice, BAD_MAX - 1) == ()
    assert flood(alice, 1, instant=T0 + BAD_WINDOW_MS) == closed(LINK, BAN_FIRST_MS)


def test_each_flood_costs_twice_the_ban_of_the_last(circle: list[Person]) -> None:
    alice, bob, mallory = circle
    bans = []
    for link in range(10):
        alice.meet(link, mallory)
        out = flood(alice, BAD_MAX, link=link)
        bans += [effect.ban_ms for effect in out if isinstance(effect, CloseLink)]
    minutes = [ban // 60_000 for ban in bans]
    assert minutes == [10, 20, 40, 80, 160, 320, 640, 1_280, 1_440, 1_440]
    assert bans[-1] == BAN_LAST_MS
    alice.meet(77, bob)
    assert flood(alice, BAD_MAX, link=77) == closed(77, BAN_FIRST_MS), "another peer begins anew"


def test_only_so_many_floods_are_remembered(circle: list[Person], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "BANS_MAX", 2)
    alice, bob, mallory = circle
    for link, peer in enumerate((mallory, bob, Person(alice.crypto, "eve"), bob, mallory)):
        alice.meet(link, peer)
        minutes = BAN_FIRST_MS * (2 if link == 3 else 1)
        assert flood(alice, BAD_MAX, link=link) == closed(link, minutes), "the one longest ago is forgotten"


def test_other_links_do_not_suffer_from_a_flood(circle: list[Person]) -> None:
    alice, bob, mallory = circle
    alice.meet(LINK, mallory)
    alice.meet(2, bob)
    bad = EnvelopeRejected(LinkId(LINK))
    good = [alice.arrived(2, bob.envelope(alice.key)) for _ in range(3)]
    out = alice.step(*[bad] * 15, good[0], *[bad] * 15, good[1], *[bad] * 100, good[2])
    assert [effect for effect in out if isinstance(effect, CloseLink)] == list(closed(LINK, BAN_FIRST_MS))
    assert len(alice.inbox()) == 3
    assert [effect.link for effect in out if isinstance(effect, SendEnvelope)] == [2]


def test_bad_bytes_leave_nothing_in_the_store_but_a_count(circle: list[Person]) -> None:
    alice, _, mallory = circle
    alice.meet(LINK, mallory)
    flood(alice, 5)
    assert alice.store.counters() == {"rejected": 5}
    assert alice.store.recipients() == 0


# --- the owner's decisions


def test_a_blocked_peer_finds_no_room(circle: list[Person]) -> None:
    alice, _, mallory = circle
    alice.decide(blocked=(mallory,))
    assert alice.meet(LINK, mallory, record=False) == (CloseLink(LinkId(LINK), *NO_ROOM),)
    assert alice.store.sightings(9) == []
    assert alice.step(alice.arrived(LINK, mallory.envelope(alice.key))) == ()


def test_blocking_ends_the_link_and_only_that(circle: list[Person]) -> None:
    alice, bob, mallory = circle
    alice.meet(LINK, mallory)
    alice.meet(2, bob)
    assert alice.decide(blocked=(mallory,)) == (CloseLink(LinkId(LINK), *NO_ROOM),)
    assert alice.decide(blocked=(mallory,)) == ()
    assert alice.step(alice.arrived(LINK, mallory.envelope(alice.key))) == ()
    assert kinds(alice.step(alice.arrived(2, bob.envelope(alice.key)))) == ["Journaled", "SendEnvelope"]


def test_what_a_blocked_author_wrote_is_refused_whoever_brings_it(circle: list[Person]) -> None:
    alice, bob, mallory = circle
    alice.meet(2, bob)
    alice.decide(blocked=(mallory,))
    envelope = mallory.envelope(alice.key, hop=1)
    out = alice.step(alice.arrived(2, envelope))
    assert out == (SendResults(LinkId(2), (Result(envelope.id, Verdict.REFUSED, Reason.POLICY),)),)
    assert alice.inbox() == []


def test_who_is_unblocked_is_heard_again(circle: list[Person]) -> None:
    alice, _, mallory = circle
    alice.decide(blocked=(mallory,))
    alice.decide()
    alice.meet(LINK, mallory)
    alice.step(alice.arrived(LINK, mallory.envelope(alice.key)))
    assert len(alice.inbox()) == 1


def test_contacts_are_who_the_owner_says_from_that_moment_on(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob)
    for contacts in ((), (bob,), ()):
        alice.decide(contacts=contacts)
        alice.step(alice.arrived(LINK, bob.envelope(alice.key)))
    assert [line.request for line in alice.inbox()] == [True, False, True]


def test_a_low_disk_takes_nothing_in_and_promises_nothing(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.meet(LINK, bob)
    alice.decide(disk_low=True)
    envelope = bob.envelope(alice.key)
    written = alice.written(bob.key, "hi", bob.prekey)
    arrived, accepted = alice.step(alice.arrived(LINK, envelope)), alice.step(written)
    assert arrived == (SendResults(LinkId(LINK), (Result(envelope.id, Verdict.DEFERRED, Reason.DISK),)),)
    assert [effect.reason for effect in accepted] == [Reason.DISK]  # type: ignore[union-attr]
    alice.decide()
    alice.step(alice.arrived(LINK, envelope))
    assert len(alice.inbox()) == 1


# --- time


def test_a_node_with_nothing_to_do_wakes_once_a_minute(circle: list[Person]) -> None:
    alice, _, _ = circle
    assert alice.node.next_deadline() == T0 + SWEEP_MS
    assert alice.step(Tick(), now=at(T0 + SWEEP_MS)) == ()
    assert alice.node.next_deadline() == T0 + 2 * SWEEP_MS


def test_a_tick_before_its_time_does_nothing(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.step(alice.written(bob.key, ttl_s=60))
    assert alice.step(Tick()) == ()
    assert alice.node.next_deadline() == T0 + 60_000


def test_carried_mail_that_dies_is_let_go_and_remembered_as_gone(circle: list[Person]) -> None:
    alice, bob, mallory = circle
    alice.meet(LINK, bob)
    envelope = bob.envelope(mallory.key, ttl_s=60)
    alice.step(alice.arrived(LINK, envelope))
    assert alice.step(Tick(), now=at(T0 + 60_000)) == ()
    assert alice.store.held(envelope.id) is None
    assert alice.store.fate(envelope.id) is Fate.GONE
    assert alice.store.counters() == {"expired": 1}
    (answer,) = alice.step(alice.arrived(LINK, envelope))
    assert answer == SendResults(LinkId(LINK), (Result(envelope.id, Verdict.DUPLICATE),))
    assert alice.store.held(envelope.id) is None


def test_many_that_expire_at_once_are_let_go_in_portions(circle: list[Person]) -> None:
    alice, bob, _ = circle
    written = [alice.written(bob.key, ttl_s=60) for _ in range(SWEEP_BATCH + 10)]
    alice.step(*written)
    alice.step(Tick(), now=at(T0 + 60_000))
    assert alice.store.usage(Scope.OWN).count == 10
    assert alice.node.next_deadline() <= T0 + 60_000, "and go on at once"
    alice.step(Tick())
    assert {alice.state(one.uid) for one in written} == {State.EXPIRED}
    assert alice.node.next_deadline() > T0 + 60_000


def test_ids_are_forgotten_in_portions_too(circle: list[Person]) -> None:
    alice, bob, _ = circle
    alice.store.begin()
    for n in range(SWEEP_BATCH + 10):
        alice.store.remember(bob.envelope(alice.key).id, Fate.GONE, Instant(T0 + n))
    alice.store.commit()
    alice.step(Tick(), now=at(T0 + HOUR_MS))
    assert alice.node.next_deadline() == T0 + HOUR_MS + 1_000
    alice.step(Tick(), now=at(T0 + HOUR_MS + 1_000))
    assert alice.node.next_deadline() == T0 + HOUR_MS + 1_000 + SWEEP_MS
    alice.store.begin()
    assert alice.store.forget(Instant(T0 + DAY_MS), 999) == 0


def test_a_restart_takes_up_what_waits_and_when_it_dies(circle: list[Person]) -> None:
    alice, bob, _ = circle
    written = alice.written(bob.key, "hi", bob.prekey, ttl_s=60)
    alice.step(written)
    alice.start(at(T0 + 10_000))
    assert alice.node.next_deadline() == T0 + 60_000
    assert envelopes(alice.meet(LINK, bob))[0].id == written.envelope.id


@pytest.mark.parametrize("wall", [-(10**12), 0, 4_102_444_800_000])
def test_no_wall_clock_moves_a_timer(circle: list[Person], wall: int) -> None:
    alice, bob, _ = circle
    written = alice.written(bob.key, ttl_s=60)
    alice.step(written, now=by_clock(T0))
    assert alice.step(Tick(), now=at(T0 + 59_000, wall, trusted=True)) == ()
    alice.step(Tick(), now=at(T0 + 60_000, wall))
    assert alice.state(written.uid) is State.EXPIRED


def test_an_event_may_come_before_the_link_it_names(circle: list[Person]) -> None:
    alice, bob, _ = circle
    assert alice.step(RecordArrived(LinkId(LINK), bob.record, 0)) == ()
    assert alice.store.record(bob.key) is not None
