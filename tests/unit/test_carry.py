"""Carrying: everybody gets what it lacks, once, the most useful first; and what a bad neighbour can do to that."""

from __future__ import annotations

from itertools import pairwise

import pytest
from tests.unit.carriers import LATER, ROOM, Carrier, Net, key, parcel

from quicprochat.core.carry import AGAIN_MS, ASK_MS, CarryLimits, Say
from quicprochat.core.encounter import AHEAD, Want, encode_offer
from quicprochat.core.envelope import Kind
from quicprochat.core.errors import WireError
from quicprochat.core.ids import EnvelopeId
from quicprochat.core.likely import encode_likely
from quicprochat.core.link import FrameType
from quicprochat.core.reconcile import Mode, Range, Ranges
from quicprochat.core.shelf import Parcel
from quicprochat.core.time import Instant

AT = Instant(0)


def met(*parcels: Parcel, **limits: int) -> tuple[Net, Carrier, Carrier]:
    """Two carriers, the first with parcels, linked."""
    one, other = Carrier("one"), Carrier("other", CarryLimits(**limits) if limits else None)
    net = Net(one, other)
    for each in parcels:
        net.write(one, each)
    net.link(one, other)
    return net, one, other


def test_who_is_met_gets_what_it_lacks_and_then_nothing() -> None:
    parcels = [parcel(str(n)) for n in range(300)]
    net, one, other = met(*parcels)
    net.settle()
    assert sorted(other.came) == sorted(each.id for each in parcels)
    net.cut(one, other)
    one.bytes_sent = other.bytes_sent = 0
    net.link(one, other)
    net.settle()
    assert len(other.came) == 300
    assert one.bytes_sent + other.bytes_sent <= 45, "equal sets cost one digest"


def test_both_directions_at_once() -> None:
    net, one, other = met(parcel("a"), parcel("b"))
    net.write(other, parcel("b"))
    net.write(other, parcel("c"))
    net.settle()
    assert one.came == [parcel("c").id]
    assert other.came == [parcel("a").id]


def test_what_comes_in_while_links_live_goes_on_and_nothing_comes_twice() -> None:
    everybody = [Carrier(str(n)) for n in range(12)]
    net = Net(*everybody)
    for one in everybody:
        for other in everybody:
            if one.key < other.key:
                net.link(one, other)
    net.settle()
    ids = [net.write(everybody[n % 12], parcel(f"live {n}")) for n in range(40)]
    net.settle()
    for n, carrier in enumerate(everybody):
        assert sorted(carrier.came) == sorted(id for place, id in enumerate(ids) if place % 12 != n)


def test_a_chain_passes_it_on() -> None:
    chain = [Carrier(str(n)) for n in range(6)]
    net = Net(*chain)
    for one, other in pairwise(chain):
        net.link(one, other)
    id = net.write(chain[0], parcel("far", dst="5"))
    net.settle()
    assert [carrier.came for carrier in chain[1:]] == [[id]] * 5


def test_the_most_useful_goes_first() -> None:
    """For the peer itself, our own, contacts', receipts, strangers'."""
    order = [
        parcel("for the peer", dst="other"),
        parcel("our own", src="one"),
        parcel("a contact's", src="friend"),
        parcel("cure", kind=Kind.RECEIPT),
        parcel("a stranger's"),
    ]
    net, one, other = met()
    one.carry.contacts = frozenset({key("friend")})
    for each in reversed(order):
        net.write(one, each)
    net.cut(one, other)
    net.link(one, other)
    net.settle()
    assert other.came == [each.id for each in order]


def test_of_strangers_mail_goes_first_what_the_neighbour_is_likely_to_bring_home() -> None:
    """Once something had to stay behind, neighbours tell each other whom they meet."""
    net, one, other = met()
    net.settle()
    for n in range(6):
        net.write(one, parcel(f"nobody {n}", dst="nobody"))
    net.settle(envelopes=0)
    net.cut(one, other)
    other.carry.link_up(key("friend"), AT)
    other.carry.link_down(key("friend"), AT)
    wished = net.write(one, parcel("for a friend of the other", dst="friend"))
    net.link(one, other)
    net.settle(envelopes=1)
    assert other.came == [wished]


def test_a_broken_encounter_goes_on_where_it_was() -> None:
    parcels = [parcel(str(n)) for n in range(50)]
    net, one, other = met(*parcels)
    for _ in range(10):
        net.settle(envelopes=5)
        net.cut(one, other)
        net.link(one, other)
    net.settle()
    assert len(other.came) == len(set(other.came)) == 50


def test_the_budget_of_an_encounter_is_kept() -> None:
    net, one, other = met(*(parcel(str(n), size=1_000) for n in range(10)))
    net.settle(envelopes=0)
    assert len(one.carry.take(other.key, 3_500, AT)) == 3
    assert one.carry.take(other.key, 999, AT) == []


def test_what_expired_is_not_handed_over() -> None:
    net, one, other = met(parcel("old", expires_at=Instant(5)), parcel("new"))
    net.settle(envelopes=0)
    assert one.carry.take(other.key, ROOM, Instant(5)) == [parcel("new").id]


# --- cures


def test_a_cure_lets_go_of_the_copy_and_keeps_it_from_coming_back() -> None:
    net, one, other = met(parcel("mail"))
    net.settle()
    id = parcel("mail").id
    assert other.carry.cured([id], key("reader"), one.key, LATER) == [id]
    net.cut(one, other)
    net.link(one, other)
    net.settle()
    assert other.came == [id]


def test_a_cure_may_come_before_its_envelope() -> None:
    other = Carrier("other")
    id = parcel("mail").id
    assert other.carry.cured([id], key("reader"), key("one"), LATER) == []
    assert other.carry.is_cured(id, key("reader"))


def test_a_cure_reaches_what_made_room_before() -> None:
    """Otherwise its entry would differ from everybody's until it expires."""
    carrier, fresh = Carrier("carrier", CarryLimits(count=1)), Carrier("fresh")
    carrier.hold(parcel("gone"))
    assert carrier.hold(parcel("stays")) == [parcel("gone").id]
    cost = {}
    for signer in ("mallory", "reader"):
        carrier.carry.cured([parcel("gone").id], key(signer), key("link"), LATER)
        net = Net(carrier, fresh)
        net.parcels[parcel("stays").id] = parcel("stays")
        net.link(carrier, fresh)
        net.settle()
        net.cut(carrier, fresh)
        carrier.bytes_sent = fresh.bytes_sent = 0
        net.link(carrier, fresh)
        net.settle()
        net.cut(carrier, fresh)
        cost[signer] = carrier.bytes_sent + fresh.bytes_sent
    told_whom_they_meet = 2 * (5 + 2 + 9)
    assert cost["reader"] == 42 + told_whom_they_meet, "equal sets"
    assert cost["mallory"] > cost["reader"]


def test_forged_cures_change_nothing() -> None:
    """Somebody signs for what is not addressed to it: the copy stays, and one that comes later is taken."""
    net, one, other = met(parcel("mail"))
    net.settle()
    here, coming = parcel("mail").id, parcel("coming").id
    assert other.carry.cured([here, coming], key("mallory"), one.key, LATER) == []
    assert not other.carry.is_cured(coming, key("reader"))
    third = Carrier("third")
    net.carriers[third.key] = third
    net.link(other, third)
    net.settle()
    assert third.came == [here]


def test_cures_of_one_link_do_not_push_out_those_of_another() -> None:
    other = Carrier("other")
    wanted = parcel("mail").id
    other.carry.cured([wanted], key("reader"), key("honest"), LATER)
    flood = [EnvelopeId(n.to_bytes(32, "big")) for n in range(10_000)]
    other.carry.cured(flood, key("mallory"), key("flooder"), LATER)
    assert other.carry.is_cured(wanted, key("reader"))
    assert sum(other.carry.is_cured(id, key("mallory")) for id in flood) == 4_096


# --- a full store


def test_a_store_filled_over_one_link_leaves_the_others_served() -> None:
    carrier = Carrier("carrier", CarryLimits(count=100))
    for n in range(30):
        assert carrier.hold(parcel(f"honest {n}", src=f"author {n}", via="honest link")) == []
    gone = [id for n in range(1_000) for id in carrier.hold(parcel(f"junk {n}", src=f"name {n}", via="flooder"))]
    assert not set(gone) & {parcel(f"honest {n}").id for n in range(30)}
    assert len(gone) == 930


def test_of_one_link_the_author_with_most_makes_room() -> None:
    carrier = Carrier("carrier", CarryLimits(count=20))
    carrier.hold(parcel("small", src="small", via="link"))
    gone = [id for n in range(100) for id in carrier.hold(parcel(f"big {n}", src="big", via="link"))]
    assert parcel("small").id not in gone
    assert len(gone) == 81


def test_our_own_and_what_was_promised_never_make_room() -> None:
    carrier = Carrier("carrier", CarryLimits(count=2))
    kept = [parcel(f"own {n}", src="carrier", kept=True) for n in range(10)]
    for each in kept:
        assert carrier.hold(each) == []
    gone = [id for n in range(10) for id in carrier.hold(parcel(f"junk {n}", via="flooder"))]
    assert len(gone) == 8
    assert not set(gone) & {each.id for each in kept}


def test_what_made_room_does_not_come_back() -> None:
    net, one, other = met(*(parcel(str(n)) for n in range(10)), bytes=1 << 30, count=3)
    net.settle()
    assert len(other.came) == 10
    net.cut(one, other)
    net.link(one, other)
    net.settle()
    assert len(other.came) == 10


# --- neighbours that do not do their part


def test_a_neighbour_that_never_answers_costs_one_frame() -> None:
    one = Carrier("one")
    for n in range(100):
        one.hold(parcel(str(n)))
    silent = next(name for name in map(str, range(99)) if key(name) > one.key)
    one.carry.link_up(key(silent), AT)
    assert [say.kind for say in one.carry.poll(AT)] == [FrameType.RANGES]
    for at in range(0, 10 * AGAIN_MS, ASK_MS):
        one.carry.tick(Instant(at))
        assert one.carry.poll(Instant(at)) == []
    assert one.carry.take(key(silent), ROOM, AT) == []


def test_a_neighbour_that_claims_to_have_everything_gets_nothing_and_others_do() -> None:
    one, honest = Carrier("one"), Carrier("honest")
    net = Net(one, honest)
    net.write(one, parcel("mail"))
    liar = next(name for name in map(str, range(99)) if key(name) > one.key)
    one.carry.link_up(key(liar), AT)
    one.carry.poll(AT)
    one.carry.received(key(liar), FrameType.RANGES, Ranges(1, ()).encode(), AT)
    assert one.carry.take(key(liar), ROOM, AT) == []
    net.link(one, honest)
    net.settle()
    assert honest.came == [parcel("mail").id]


def test_who_offers_and_does_not_bring_is_given_up_for_another() -> None:
    one, honest = Carrier("one"), Carrier("honest")
    net = Net(one, honest)
    net.write(honest, parcel("mail"))
    one.carry.link_up(key("liar"), AT)
    one.carry.received(key("liar"), FrameType.OFFER, encode_offer([parcel("mail").id]), AT)
    assert FrameType.WANT in [say.kind for say in one.carry.poll(AT) if say.peer == key("liar")]
    net.link(one, honest)
    net.links.add((one.key, key("liar")))
    net.carriers[key("liar")] = Carrier("liar")
    net.settle()
    assert one.came == []
    deadline = one.carry.deadline()
    assert deadline is not None
    assert deadline <= ASK_MS
    one.carry.tick(Instant(ASK_MS))
    net.settle(ASK_MS)
    assert one.came == [parcel("mail").id]


def test_a_lost_link_frees_what_was_asked_for_over_it() -> None:
    one, honest = Carrier("one"), Carrier("honest")
    net = Net(one, honest)
    net.write(honest, parcel("mail"))
    one.carry.link_up(key("liar"), AT)
    one.carry.received(key("liar"), FrameType.OFFER, encode_offer([parcel("mail").id]), AT)
    one.carry.poll(AT)
    one.carry.link_down(key("liar"), AT)
    net.link(one, honest)
    net.settle()
    assert one.came == [parcel("mail").id]


def said_to(one: Carrier, *frames: tuple[FrameType, bytes]) -> list[Say]:
    one.carry.link_up(key("peer"), AT)
    for kind, body in frames:
        one.carry.received(key("peer"), kind, body, AT)
    return one.carry.poll(AT)


def ids(count: int) -> list[EnvelopeId]:
    return [EnvelopeId(n.to_bytes(32, "big")) for n in range(count)]


def test_endless_offers_end_the_link() -> None:
    with pytest.raises(WireError, match="waits for no answer"):
        said_to(Carrier("one"), *[(FrameType.OFFER, encode_offer(ids(AHEAD)))] * 2)


def test_wanting_what_was_not_offered_ends_the_link() -> None:
    for want in (Want(0, (0,)), Want(1, ())):
        with pytest.raises(WireError, match="nobody"):
            said_to(Carrier("one"), (FrameType.WANT, want.encode()))


def test_a_reconciliation_begun_again_and_again_ends_the_link() -> None:
    lower = next(carrier for carrier in map(Carrier, "abcdefgh") if carrier.key > key("peer"))
    begin = (FrameType.RANGES, Ranges(0, (Range(b"", Mode.FINGERPRINT, bytes(8)),), bytes(16)).encode())
    with pytest.raises(WireError, match="too soon"):
        said_to(lower, begin, begin)


def test_a_reconciliation_begun_by_the_wrong_side_or_nobody_ends_the_link() -> None:
    one = next(carrier for carrier in map(Carrier, "abcdefgh") if carrier.key < key("peer"))
    with pytest.raises(WireError, match="wrong side"):
        said_to(one, (FrameType.RANGES, Ranges(0, (), bytes(16)).encode()))
    other = next(carrier for carrier in map(Carrier, "abcdefgh") if carrier.key > key("peer"))
    with pytest.raises(WireError, match="nobody began"):
        said_to(other, (FrameType.RANGES, Ranges(1, ()).encode()))


def test_saying_again_and_again_whom_one_meets_ends_the_link() -> None:
    """Each time would raise what others believe of the teller."""
    likely = (FrameType.LIKELY, encode_likely({bytes(8): 255}))
    said_to(Carrier("one"), likely)
    with pytest.raises(WireError, match="again whom"):
        said_to(Carrier("one"), likely, likely)


def test_a_link_that_lives_is_compared_again() -> None:
    net, one, other = met()
    net.settle()
    first = one if one.key < other.key else other
    first.carry.tick(Instant(AGAIN_MS))
    assert [say.kind for say in first.carry.poll(Instant(AGAIN_MS))] == [FrameType.RANGES]


def test_a_longer_memory_keeps_what_was_seen_from_being_asked_for() -> None:
    net, _, other = met(parcel("forgotten"), parcel("new"))
    other.carry._known = lambda id: id == parcel("forgotten").id
    net.settle()
    assert other.came == [parcel("new").id]
