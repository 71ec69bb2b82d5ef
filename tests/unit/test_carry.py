"""Carrying: everybody gets what it lacks, once, the most useful first; and what a bad neighbour can do to that."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import pytest
from tests.unit.carriers import LATER, ROOM, Carrier, Net, key, parcel

from quicprochat.core.asking import ASK_MS
from quicprochat.core.carry import AGAIN_MS, DIRECT_MAX, FOREMOST, CarryLimits, Say
from quicprochat.core.encounter import AHEAD, Giving, Want, encode_offer
from quicprochat.core.envelope import Kind
from quicprochat.core.errors import WireError
from quicprochat.core.ids import EnvelopeId
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
    foremost = FOREMOST * (32 + 7 + 11)
    assert one.bytes_sent + other.bytes_sent <= foremost + 45, "equal sets cost one digest, after what is most useful"


def test_the_most_useful_crosses_before_anything_is_compared() -> None:
    """Else an encounter that carries a thousand bytes would carry nothing but the comparing."""
    one, other = Carrier("one"), Carrier("other")
    net = Net(one, other)
    mine = [net.write(one, parcel(f"mine {n}")) for n in range(100)]
    theirs = [net.write(other, parcel(f"theirs {n}")) for n in range(100)]
    urgent = net.write(one, parcel("own", src="one"))
    net.link(one, other)
    net.settle()
    assert other.came[0] == urgent
    first = one.said.index(FrameType.RANGES)
    assert one.said[:first].count(0) == FOREMOST, "and comparing comes when that is dealt with"
    assert sorted(other.came) == sorted([urgent, *mine])
    assert sorted(one.came) == sorted(theirs)


def test_comparing_begins_once_also_where_the_foremost_cross_late() -> None:
    """A neighbour that has no room lets them wait for longer than until comparing begins anew; then it begins."""
    one, other = sorted((Carrier("one"), Carrier("other")), key=lambda carrier: carrier.key)
    net = Net(one, other)
    for n in range(50):
        net.write(one, parcel(str(n)))
    net.link(one, other)
    net.settle(envelopes=0)
    for carrier in (one, other):
        carrier.carry.tick(Instant(AGAIN_MS))
    net.settle(AGAIN_MS, envelopes=0)
    net.settle(AGAIN_MS + 60_000)
    assert len(other.came) == 50, "and nobody broke the link for comparing too soon"


def test_comparing_does_not_wait_for_a_neighbour_that_is_always_offered_something_new() -> None:
    giving, ids = Giving(1), [parcel(str(n)).id for n in range(4 * DIRECT_MAX)]
    for id in ids:
        giving.queue((0,), id)
    for dealt in range(DIRECT_MAX):
        assert not giving.sounded(DIRECT_MAX)
        giving.offers(ids)
        giving.answered(Want(dealt + 1, ()))
    assert giving.sounded(DIRECT_MAX)


def test_links_that_last_are_compared_at_once() -> None:
    one, other = Carrier("one", lasting=True), Carrier("other", lasting=True)
    net = Net(one, other)
    for n in range(100):
        net.write(one, parcel(str(n)))
    net.link(one, other)
    net.settle()
    assert one.said[0] == FrameType.RANGES
    assert len(other.came) == 100


def test_a_link_that_has_carried_much_is_offered_as_much_at_once() -> None:
    """Over one that loses packets each round of offers is dear."""

    def rounds(carried: int) -> int:
        one, other = Carrier("one", lasting=True), Carrier("other", lasting=True)
        net = Net(one, other)
        net.link(one, other)
        net.settle()
        for n in range(carried):
            one.carry.carried(other.key, parcel(f"handed unasked {n}").id)
        for n in range(40):
            net.write(one, parcel(str(n)))
        net.settle()
        assert len(other.came) == 40
        return one.said.count(FrameType.OFFER)

    assert rounds(0) == 4, "8, and as many as were dealt with: 8, 16 and the rest"
    assert rounds(40) == 1


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
    """For the peer itself, our own, contacts', and then whatever fewest others got from here, a cure or not."""
    order = [
        parcel("for the peer", dst="other"),
        parcel("our own", src="one"),
        parcel("a contact's", src="friend"),
        parcel("a stranger's"),
        parcel("cure", kind=Kind.RECEIPT),
        parcel("a stranger's, which two others got"),
    ]
    order[4].handed, order[5].handed = 1, 2
    net, one, other = met()
    one.carry.contacts = frozenset({key("friend")})
    for each in reversed(order):
        net.write(one, each)
    net.cut(one, other)
    net.link(one, other)
    net.settle()
    assert other.came == [each.id for each in order]


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
    assert len(one.carry.take(other.key, 1_999, AT)) == 1
    assert one.carry.take(other.key, 999, AT) == []


def test_what_expired_is_not_handed_over() -> None:
    net, one, other = met(parcel("old", expires_at=Instant(5)), parcel("new"))
    came = []
    for _ in range(2):
        net.settle(envelopes=0)
        came += one.carry.take(other.key, ROOM, Instant(5))
    assert came == [parcel("new").id]


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
        min(carrier, fresh, key=lambda each: each.key).carry.tick(Instant(AGAIN_MS))
        net.settle(AGAIN_MS)
        net.cut(carrier, fresh)
        cost[signer] = carrier.bytes_sent + fresh.bytes_sent
    assert cost["reader"] <= 42 + 22, "equal sets, and a greeting"
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
    assert [say.kind for say in one.carry.poll(AT)] == [FrameType.OFFER]
    for at in range(0, 10 * AGAIN_MS, ASK_MS):
        one.carry.tick(Instant(at))
        assert one.carry.poll(Instant(at)) == []
    assert one.carry.take(key(silent), ROOM, AT) == []


def test_a_neighbour_that_claims_to_have_everything_gets_nothing_and_others_do() -> None:
    one, honest = Carrier("one"), Carrier("honest")
    net = Net(one, honest)
    net.write(one, parcel("mail"))
    for _ in range(2):
        one.carry.link_up(key("liar"), AT)
        one.carry.poll(AT)
        one.carry.received(key("liar"), FrameType.WANT, Want(0, ()).encode(), AT)
        one.carry.poll(AT)
        with suppress(WireError):
            one.carry.received(key("liar"), FrameType.WANT, Want(1, ()).encode(), AT)
        assert one.carry.take(key("liar"), ROOM, AT) == []
    net.link(one, honest)
    net.settle()
    assert honest.came == [parcel("mail").id]


def test_what_a_neighbour_said_it_has_is_not_offered_to_it_again() -> None:
    """In neither direction, and nothing is compared: each side only says that it is there."""
    net, one, other = met(*(parcel(str(n)) for n in range(20)))
    net.settle()
    cost = []
    for _ in range(3):
        net.cut(one, other)
        one.bytes_sent = other.bytes_sent = 0
        net.link(one, other)
        net.settle()
        cost.append(one.bytes_sent + other.bytes_sent)
    hello = 2 * (5 + 6)
    assert cost[0] > cost[1], "what was handed over is offered once more: it may not have arrived"
    assert cost[1:] == [hello, hello]


def test_what_was_lost_on_its_way_is_offered_again() -> None:
    net, one, other = met(parcel("mail"))
    net.settle(envelopes=0)
    assert one.carry.take(other.key, ROOM, AT) == [parcel("mail").id]
    net.cut(one, other)
    net.link(one, other)
    net.settle()
    assert other.came == [parcel("mail").id]


def test_when_something_was_handed_over_more_is_to_be_said_at_once() -> None:
    """Else the next offers would wait until something else happens."""
    net, one, other = met(*(parcel(str(n)) for n in range(20)))
    net.settle(envelopes=0)
    assert one.carry.take(other.key, ROOM, AT)
    assert one.carry.deadline() == Instant(0)
    assert [say.kind for say in one.carry.poll(AT)] == [FrameType.OFFER]
    later = one.carry.deadline()
    assert later is not None
    assert later > AT


def test_who_was_not_asked_since_another_was_offers_again_at_the_next_encounter() -> None:
    """That a neighbour waits for somebody else does not say that it has the envelope."""
    one, slow, quick = Carrier("one"), Carrier("slow"), Carrier("quick")
    net = Net(one, slow, quick)
    for carrier in (slow, quick):
        net.write(carrier, parcel("mail"))
    net.link(one, slow)
    net.settle(envelopes=0)
    net.link(one, quick)
    net.settle(envelopes=0)
    for carrier in (quick, slow):
        net.cut(one, carrier)
    net.link(one, quick)
    net.settle()
    assert one.came == [parcel("mail").id]


def test_who_is_given_up_is_told_and_does_not_bring_what_another_brought() -> None:
    one, slow, quick = Carrier("one"), Carrier("slow"), Carrier("quick")
    net = Net(one, slow, quick)
    for carrier in (slow, quick):
        net.write(carrier, parcel("mail"))
    net.link(one, slow)
    net.settle(envelopes=0)
    net.link(one, quick)
    net.settle(envelopes=0)
    one.carry.tick(Instant(ASK_MS))
    net.settle(ASK_MS)
    assert one.came == [parcel("mail").id]
    assert slow.carry.take(one.key, ROOM, AT) == []


def test_who_alone_has_it_may_bring_it_late() -> None:
    net, _, other = met(parcel("mail"))
    net.settle(envelopes=0)
    other.carry.tick(Instant(ASK_MS))
    net.settle(ASK_MS)
    assert other.came == [parcel("mail").id]


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


def test_a_reconciliation_that_nobody_began_ends_the_link() -> None:
    with pytest.raises(WireError, match="nobody began"):
        said_to(Carrier("one"), (FrameType.RANGES, Ranges(1, ()).encode()))


def test_when_both_begin_at_once_one_reconciliation_is_led_to_its_end() -> None:
    one, other = Carrier("one", lasting=True), Carrier("other", lasting=True)
    net = Net(one, other)
    mine, theirs = ([net.write(who, parcel(f"{who.name} {n}")) for n in range(100)] for who in (one, other))
    net.link(one, other)
    first = [carrier.carry.poll(AT) for carrier in (one, other)]
    assert [[say.kind for say in says] for says in first] == [[FrameType.RANGES]] * 2
    for carrier, peer, says in ((one, other, first[0]), (other, one, first[1])):
        peer.carry.received(carrier.key, says[0].kind, says[0].body, AT)
    net.settle()
    assert sorted(other.came) == sorted(mine)
    assert sorted(one.came) == sorted(theirs)


def test_where_one_side_has_little_and_the_other_much_both_are_served() -> None:
    """Only the side with much begins to compare, whichever key is lower."""
    for names in (("one", "other"), ("other", "one")):
        rich, poor = map(Carrier, names)
        net = Net(rich, poor)
        ids = [net.write(rich, parcel(f"rich {n}")) for n in range(100)]
        id = net.write(poor, parcel("poor"))
        net.link(rich, poor)
        net.settle()
        assert sorted(poor.came) == sorted(ids)
        assert rich.came == [id]


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


def test_what_comes_in_while_two_compare_is_not_taken_for_known() -> None:
    one, other = Carrier("one"), Carrier("other")
    many = [parcel(str(n)) for n in range(40)]  # so many that they compare
    for carrier in (one, other):
        for each in many:
            carrier.hold(each)
    one.carry.link_up(other.key, AT)
    other.carry.link_up(one.key, AT)
    late = parcel("late")
    said = [*one.carry.poll(AT)]
    one.carry.hold(late, AT, offer=False)  # a post, which is offered a little later
    turn, to, by = said, other, one
    while turn:
        for say in turn:
            to.carry.received(by.key, say.kind, say.body, AT)
        turn, to, by = to.carry.poll(AT), by, to
    assert not one.carry.known_to(other.key, late.id)
    assert one.carry.known_to(other.key, many[0].id), "and the comparing came to its end"
