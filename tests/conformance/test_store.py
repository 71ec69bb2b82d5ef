"""What every MeshStore must do: the one in memory and the one on disk, by the same words."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.rows import (
    WALL,
    Step,
    channel_id,
    envelope,
    held,
    held_post,
    key,
    lives,
    member,
    message,
    numbers,
    owned,
    placed,
    post,
    receipt,
    sent,
    subscription,
    texts,
    uid,
    usage,
)

from quicprochat.adapters.sqlite import SqliteStore
from quicprochat.core.channel import Access
from quicprochat.core.envelope import Kind
from quicprochat.core.gaps import AUTHORS_MAX
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.memory import MemoryStore
from quicprochat.core.receipt import State
from quicprochat.core.seal import TYPE_KEY, Protection
from quicprochat.core.store import (
    HOMES_MAX,
    KNOWN_AUTHORS_MAX,
    SIGHTINGS_MAX,
    Author,
    Fate,
    HomeSource,
    LineKind,
    MeshStore,
    Scope,
    Sighting,
    StoredPrekey,
    StoredRecord,
    TraceEvent,
    Usage,
)
from quicprochat.core.time import Instant, WallTime

U64_MAX = 2**64 - 1


def at(moment: int) -> Instant:
    return Instant(moment)


class Home:
    """One place a store lives in: ``again`` is the store as the next start of the program finds it."""

    def __init__(self, make: Callable[[], MeshStore], *, keep: bool) -> None:
        self._make = make
        self._keep = keep
        self.store = make()

    def again(self) -> MeshStore:
        self.store.close()
        if not self._keep:
            self.store = self._make()
        return self.store

    def now_and_again(self) -> Iterator[MeshStore]:
        yield self.store
        yield self.again()


@pytest.fixture(params=["memory", "sqlite"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    if request.param == "memory":
        found = Home(lambda: MemoryStore(durable=True), keep=True)
    else:
        found = Home(lambda: SqliteStore.open(tmp_path / "store.db", ballast_bytes=0), keep=False)
    yield found
    found.store.close()


def dirty(store: MeshStore) -> bool:
    return store.dirty


@pytest.fixture
def store(home: Home) -> MeshStore:
    return home.store


def test_it_says_that_it_survives_a_restart(store: MeshStore) -> None:
    assert store.volatile is False
    assert MemoryStore().volatile is True


# --- transactions


def test_a_new_store_is_empty(store: MeshStore) -> None:
    assert store.value("x") is None
    assert store.counters() == {}
    assert store.fate(envelope("a").id) is None
    assert store.held(envelope("a").id) is None
    assert store.next_expiry() is None
    assert store.usage(Scope.OWN) == Usage()
    assert store.recipients() == 0
    assert store.sent(uid("a")) is None
    assert store.sent_of(envelope("a").id) is None
    assert list(store.trace(uid("a"))) == []
    assert list(store.journal(after=0, limit=10)) == []
    assert store.unread() == 0
    assert list(store.records(10)) == []
    assert list(store.sightings(10)) == []
    assert list(store.homes(10)) == []
    assert store.home(key("ann")) is None
    assert list(store.prekeys()) == []
    assert list(store.channels()) == []
    assert store.channel(channel_id("news")) is None
    assert store.unread_posts(channel_id("news")) == 0
    assert store.unread_channels() == {}
    assert list(store.places(channel_id("news"), limit=5)) == []
    assert list(store.lines([1])) == []
    assert store.heard(channel_id("news"), key("ann")) is None
    assert list(store.heard_in(channel_id("news"))) == []
    assert list(store.oldest(key("news"), None, 5)) == []
    assert list(store.destinations()) == []
    assert list(store.crowding(key("cat"), key("bob"), 5)) == []
    assert store.heaviest(Scope.LINK) is None


def test_only_a_write_makes_it_dirty(store: MeshStore) -> None:
    store.begin()
    assert not dirty(store)
    store.fate(envelope("a").id)
    store.usage(Scope.OWN)
    assert not dirty(store)
    store.set_value("x", b"1")
    assert dirty(store)
    store.commit()
    assert not dirty(store)


def test_a_transaction_reads_what_it_wrote(store: MeshStore) -> None:
    store.begin()
    store.hold(held("a"))
    store.remember(held("a").id, Fate.HELD, at(5))
    assert store.held(held("a").id) is not None
    assert store.fate(held("a").id) is Fate.HELD
    assert store.usage(Scope.OWN) == usage(held("a"))
    store.rollback()


def test_a_commit_may_run_in_another_thread(home: Home) -> None:
    async def write() -> None:
        for number in range(20):
            home.store.begin()
            home.store.set_value("n", b"%d" % number)
            home.store.hold(held(f"m{number}"))
            await asyncio.to_thread(home.store.commit)
            assert home.store.value("n") == b"%d" % number

    asyncio.run(write())
    assert len(home.again().waiting(key("ann"), 0, 100)) == 20


def write_everything(store: MeshStore) -> None:
    store.set_value("x", b"1")
    store.count("c", 2)
    store.remember(envelope("a").id, Fate.HELD, at(5_000))
    store.remember(envelope("b").id, Fate.DELIVERED, None)
    store.hold(held("a"))
    store.hold(held("b", src="bob", via="bob"))
    store.hold(held("c", src="bob", via="cat", kind=Kind.RECEIPT))
    store.put_sent(sent("a"))
    store.put_sent(sent("d", to="bob", protection=Protection.IDENTITY))
    store.resealed(uid("d"), envelope("d2").id, Protection.PREKEY)
    store.set_state(uid("a"), State.RELAYED, "")
    store.add_trace(uid("a"), TraceEvent(WALL, "relayed", "bob"))
    store.deliver(message("m"))
    store.deliver(message("r", author="dan", request=True))
    store.note(receipt("a"))
    store.put_record(StoredRecord(key("ann"), 1, 2, b"record", 3, at(4)))
    store.see(Sighting(key("ann"), WALL, at(7), "192.0.2.1:7000"))
    store.put_home(lives("ann"))
    store.put_author(Author(key("ann"), at(3), at(4), key("bob")))
    store.put_prekey(StoredPrekey(b"12345678", b"s" * 32, at(9)))
    store.put_channel(subscription("news"))
    store.put_channel(subscription("old", left=True))
    store.put_member(member("ann"))
    store.put_member(member("bob", said=2))
    store.hold(held_post("p"))
    store.deliver(placed("p"))
    store.note(placed("o", own=True))
    store.put_heard(channel_id("news"), numbers("ann"))
    store.put_heard(channel_id("old"), numbers("bob"))


def change_everything(store: MeshStore) -> None:
    store.set_value("x", b"2")
    store.set_value("y", b"2")
    store.count("c")
    store.count("e")
    store.remember(envelope("a").id, Fate.GONE, at(7_000))
    store.remember(envelope("z").id, Fate.GONE, at(7_000))
    store.forget(at(8_000), 10)
    store.release(held("a").id)
    store.release(held("b").id)
    store.hold(held("z", src="bob", dst="dan", via="bob"))
    store.put_sent(sent("z"))
    store.set_state(uid("a"), State.DELIVERED, "x")
    store.resealed(uid("a"), envelope("a2").id, Protection.IDENTITY)
    store.add_trace(uid("a"), TraceEvent(WALL, "delivered", ""))
    store.deliver(message("z"))
    store.note(receipt("z"))
    store.mark_read([1, 2, 3])
    store.accept(key("dan"))
    store.put_record(StoredRecord(key("ann"), 2, 0, b"newer", 0, at(40)))
    store.put_record(StoredRecord(key("bob"), 2, 0, b"other", 0, at(40)))
    store.see(Sighting(key("ann"), WALL, at(70), ""))
    store.put_home(lives("ann", "c.example"))
    store.put_home(lives("bob"))
    store.put_author(Author(key("ann"), at(3), at(40), key("bob")))
    store.put_author(Author(key("dan"), at(30), at(40), key("ann")))
    store.drop_prekeys(at(100))
    store.put_prekey(StoredPrekey(b"87654321", b"t" * 32, at(90)))
    store.put_channel(subscription("news", heads=0, left=True))
    store.put_channel(subscription("more", kind=Access.OPEN))
    store.put_member(member("bob", present=False, said=3))
    store.put_member(member("bob", channel="old"))
    store.drop_members(channel_id("old"))
    store.release(held_post("p").id)
    store.hold(held_post("q", src="me", via=""))
    store.deliver(placed("q", 2, "p"))
    store.note(placed("r", 2, "q", own=True))
    store.put_heard(channel_id("news"), numbers("ann", seen=(1, 5), at=9))
    store.put_heard(channel_id("news"), numbers("bob"))
    store.forget_heard(channel_id("old"))


def everything(store: MeshStore) -> dict[str, object]:
    """All that can be asked of the rows above."""
    names = "abcdzmr"
    scopes = [(scope, b"") for scope in Scope] + [
        (scope, one) for scope in Scope for one in (key("ann"), key("bob"), key("dan"), key("bob") + key("ann"))
    ]
    return {
        "values": [store.value(name) for name in "xyz"],
        "authors": [store.author(key(name)) for name in ("ann", "bob", "dan")],
        "counters": store.counters(),
        "fates": [store.fate(envelope(name).id) for name in names],
        "held": [store.held(held(name).id) for name in names],
        "waiting": [list(store.waiting(key(name), 0, 100)) for name in ("ann", "bob", "dan")],
        "own": list(store.own(0, 100)),
        "expired": list(store.expired(at(10_000), 100)),
        "next": store.next_expiry(),
        "usage": [store.usage(*scope) for scope in scopes],
        "recipients": store.recipients(),
        "sent": [store.sent(uid(name)) for name in names],
        "sent_of": [store.sent_of(envelope(name).id) for name in ("a", "a2", "d", "d2", "z")],
        "open": [list(store.queued_with(key("ann"), protection, 10)) for protection in Protection],
        "envelopes": [list(store.envelopes_of(uid(name))) for name in names],
        "trace": [list(store.trace(uid(name))) for name in names],
        "journal": list(store.journal(after=0, limit=100)),
        "unread": store.unread(),
        "records": list(store.records(10)),
        "sightings": list(store.sightings(10)),
        "homes": [*store.homes(10), store.home(key("ann"))],
        "prekeys": list(store.prekeys()),
        "channels": list(store.channels()),
        "members": list(store.members(channel_id("news"))),
        "unread posts": store.unread_posts(channel_id("news")),
        "places": list(store.places(channel_id("news"), limit=10)),
        "lines": list(store.lines(range(1, 10))),
        "heard": [list(store.heard_in(channel_id(name))) for name in ("news", "old")],
        "oldest": list(store.oldest(key("news"), None, 10)),
        "posts": [store.usage(Scope.POSTS, name) for name in (b"", key("news"), key("bob") + key("news"))],
    }


def test_rollback_leaves_no_trace(store: MeshStore) -> None:
    with Step(store):
        write_everything(store)
    before = everything(store)
    store.begin()
    change_everything(store)
    assert dirty(store)
    store.rollback()
    assert not dirty(store)
    assert everything(store) == before


def test_a_restart_finds_what_was_committed_and_nothing_else(home: Home) -> None:
    with Step(home.store):
        write_everything(home.store)
    before = everything(home.store)
    assert everything(home.again()) == before
    home.store.begin()
    change_everything(home.store)
    assert everything(home.again()) == before


def test_the_next_transaction_works_after_a_rollback(store: MeshStore) -> None:
    store.begin()
    change = held("a")
    store.hold(change)
    store.rollback()
    with Step(store):
        store.hold(change)
    assert store.usage(Scope.OWN) == usage(change)


# --- values and counters


def test_values_are_replaced(home: Home) -> None:
    with Step(home.store) as tx:
        tx.set_value("x", b"")
        tx.set_value("x", b"\x00\xff")
    assert home.again().value("x") == b"\x00\xff"


def test_counters_add_up_over_transactions_and_restarts(home: Home) -> None:
    for _ in range(3):
        with Step(home.store) as tx:
            tx.count("a")
            tx.count("a", 4)
            tx.count("b", 2)
            tx.set_value("a real write", b"carries them")
    assert home.store.counters() == {"a": 15, "b": 6}
    assert home.again().counters() == {"a": 15, "b": 6}


# --- dedup


def test_a_fate_is_replaced_by_a_later_one(store: MeshStore) -> None:
    id = envelope("a").id
    with Step(store) as tx:
        tx.remember(id, Fate.HELD, at(10))
        tx.remember(id, Fate.GONE, at(20))
    assert store.fate(id) is Fate.GONE
    with Step(store) as tx:
        assert tx.forget(at(15), 10) == 0
        assert tx.forget(at(20), 10) == 1
    assert store.fate(id) is None


def test_what_was_delivered_to_me_is_never_forgotten(store: MeshStore) -> None:
    id = envelope("a").id
    with Step(store) as tx:
        tx.remember(id, Fate.HELD, at(10))
        tx.remember(id, Fate.DELIVERED, None)
        assert tx.forget(at(2**60), 10) == 0
    assert store.fate(id) is Fate.DELIVERED


def test_forgetting_goes_oldest_first_and_keeps_to_its_limit(store: MeshStore) -> None:
    ids = [EnvelopeId(bytes([number]) * 32) for number in range(5)]
    with Step(store) as tx:
        for number, id in enumerate(ids):
            tx.remember(id, Fate.GONE, at(50 - number))
    with Step(store) as tx:
        assert tx.forget(at(100), 2) == 2
    assert [store.fate(id) for id in ids] == [Fate.GONE, Fate.GONE, Fate.GONE, None, None]
    with Step(store) as tx:
        assert tx.forget(at(49), 10) == 2
    assert store.fate(ids[0]) is Fate.GONE


def test_ids_that_one_neighbour_brings_never_push_out_those_of_another(home: Home) -> None:
    quiet = [EnvelopeId(bytes([1, number]) * 16) for number in range(10)]
    flood = [EnvelopeId(bytes([2, number]) * 16) for number in range(100)]
    with Step(home.store) as tx:
        for number, (id, via) in enumerate([*((id, b"q" * 32) for id in quiet), *((id, b"f" * 32) for id in flood)]):
            tx.remember(id, Fate.HELD, at(9_000), via)
            # Whoever lets go of it later need not say who brought it.
            tx.remember(id, Fate.GONE, at(100 + number))
    with Step(home.store) as tx:
        assert tx.forget_passed(110, 50) == 0
        assert tx.forget_passed(40, 30) == 30
    with Step(home.store) as tx:
        assert tx.forget_passed(30, 1_000) == 50
    for store in home.now_and_again():
        assert all(store.fate(id) is Fate.GONE for id in quiet)
        assert [n for n, id in enumerate(flood) if store.fate(id) is not None] == list(range(80, 100))


def test_of_too_many_ids_that_were_passed_on_the_longest_gone_are_forgotten(home: Home) -> None:
    ids = [EnvelopeId(bytes([number]) * 32) for number in range(7)]
    with Step(home.store) as tx:
        for number, id in enumerate(ids[:5]):
            tx.remember(id, Fate.GONE if number % 2 else Fate.PASSED, at(50 - number))
        tx.remember(ids[5], Fate.HELD, at(1))
        tx.remember(ids[6], Fate.DELIVERED, None)
    for store in home.now_and_again():
        with Step(store) as tx:
            assert tx.forget_passed(5, 10) == 0
            assert tx.forget_passed(0, 1) == 1
    with Step(home.store) as tx:
        assert tx.forget_passed(2, 10) == 1
        assert tx.forget_passed(2, 10) == 0
    assert [home.store.fate(id) for id in ids] == [
        Fate.PASSED, Fate.GONE, None, None, None, Fate.HELD, Fate.DELIVERED,
    ]  # fmt: skip


# --- held envelopes


def test_a_held_envelope_comes_back_as_it_was(home: Home) -> None:
    mine = held("a", size=100_000)
    theirs = held("b", src="bob", via="cat", kind=77, at=5, expires=6)
    with Step(home.store) as tx:
        serials = [tx.hold(mine), tx.hold(theirs)]
    assert 0 < serials[0] < serials[1]
    for store in home.now_and_again():
        assert store.held(mine.id) == replace(mine, serial=serials[0])
        assert store.held(theirs.id) == replace(theirs, serial=serials[1])
        found = store.held(mine.id)
        assert found is not None
        assert found.own
        assert found.to_send(at(3_000))[-100_000:] == mine.wire[-100_000:]


def test_what_waits_for_a_destination_comes_in_order_of_arrival(store: MeshStore) -> None:
    items = [held(f"m{number}", dst="ann" if number % 2 else "bob") for number in range(10)]
    with Step(store) as tx:
        serials = {tx.hold(item): item.id for item in items}
    waiting = store.waiting(key("ann"), 0, 100)
    assert [item.id for item in waiting] == [item.id for item in items if item.dst == key("ann")]
    assert all(serials[item.serial] == item.id for item in waiting)
    assert [h.serial for h in store.waiting(key("ann"), waiting[1].serial, 2)] == [h.serial for h in waiting[2:4]]
    assert list(store.waiting(key("ann"), waiting[-1].serial, 2)) == []
    assert list(store.waiting(key("nobody"), 0, 2)) == []


def test_our_own_envelopes_come_in_order_whoever_they_are_to(store: MeshStore) -> None:
    mine = [held(f"m{number}", dst="ann" if number % 2 else "bob") for number in range(4)]
    with Step(store) as tx:
        serials = []
        for number, item in enumerate(mine):
            serials.append(tx.hold(item))
            tx.hold(held(f"t{number}", src="cat", via="cat"))
    assert [item.id for item in store.own(0, 100)] == [item.id for item in mine]
    assert [item.serial for item in store.own(serials[0], 2)] == serials[1:3]
    with Step(store) as tx:
        tx.release(mine[1].id)
    assert [item.id for item in store.own(0, 100)] == [mine[0].id, mine[2].id, mine[3].id]
    assert list(store.own(serials[-1], 100)) == []


def test_serials_are_not_used_again(store: MeshStore) -> None:
    with Step(store) as tx:
        first = tx.hold(held("a"))
        tx.release(held("a").id)
    with Step(store) as tx:
        assert tx.hold(held("a")) > first


def test_release_of_what_is_not_held_does_nothing(store: MeshStore) -> None:
    with Step(store) as tx:
        tx.release(held("a").id)
        tx.hold(held("a"))
        tx.release(held("a").id)
        tx.release(held("a").id)
    assert store.held(held("a").id) is None
    assert store.usage(Scope.OWN) == Usage()


def test_many_are_released_at_once(store: MeshStore) -> None:
    with Step(store) as tx:
        for n in range(100):
            tx.hold(held(str(n)))
    ids = [held(str(n)).id for n in range(100)]
    with Step(store) as tx:
        tx.hold(held("new"))
        tx.release_many([*ids[:40], ids[0], held("nobody's").id, held("new").id])
        tx.release_many([])
        tx.release_many(ids[40:42])
    assert [id for id in ids if store.held(id) is not None] == ids[42:]
    assert store.usage(Scope.OWN).count == 58


def test_looking_ahead_changes_no_answer(store: MeshStore) -> None:
    ids = [held(str(n)).id for n in range(10)]
    with Step(store) as tx:
        tx.hold(held("0"))
        tx.remember(ids[1], Fate.GONE, None)
    with Step(store) as tx:
        tx.foresee(ids)
        assert [tx.held(id) is not None for id in ids] == [True] + 9 * [False]
        assert [tx.fate(id) for id in ids] == [Fate.HELD, Fate.GONE] + 8 * [None]
        tx.hold(held("2"))
        tx.remember(ids[3], Fate.HELD, None)
        assert (tx.held(ids[2]) is not None, tx.fate(ids[3])) == (True, Fate.HELD)
    store.begin()
    store.foresee(ids)
    store.hold(held("4"))
    store.remember(ids[4], Fate.HELD, None)
    store.rollback()
    assert (store.held(ids[4]), store.fate(ids[4])) == (None, None)


def test_looking_ahead_for_what_is_in_the_inbox_changes_no_answer(store: MeshStore) -> None:
    names = [str(n) for n in range(8)]
    pairs = [(message(name).peer, message(name).uid) for name in names]
    with Step(store) as tx:
        tx.deliver(message("0"))
    with Step(store) as tx:
        tx.deliver(message("1"))
        tx.foresee([], [*pairs, *pairs])
        assert [tx.delivered(*pair) for pair in pairs] == 2 * [True] + 6 * [False]
        assert tx.deliver(message("0")) is None
        assert tx.deliver(message("2")) is not None
        assert tx.deliver(message("2")) is None
    store.begin()
    store.foresee([], pairs)
    store.deliver(message("3"))
    store.rollback()
    assert [store.delivered(*pair) for pair in pairs] == 3 * [True] + 5 * [False]


def test_more_rows_than_are_written_together_are_all_written(home: Home) -> None:
    names = [str(n) for n in range(150)]
    with Step(home.store) as tx:
        for name in names:
            tx.hold(held(name))
            tx.remember(held(name).id, Fate.HELD, None)
        assert tx.held(held(names[-1]).id) is not None, "what was not written yet is read all the same"
    home.again()
    assert all(home.store.held(held(name).id) is not None for name in names)
    assert all(home.store.fate(held(name).id) is Fate.HELD for name in names)


def test_expiry_comes_by_time(store: MeshStore) -> None:
    with Step(store) as tx:
        for name, expires in (("a", 300), ("b", 100), ("c", 200), ("d", 100)):
            tx.hold(held(name, expires=expires))
    ids = [held(name).id for name in "bdca"]
    assert store.next_expiry() == 100
    assert list(store.expired(at(99), 10)) == []
    assert [h.id for h in store.expired(at(200), 10)] == ids[:3]
    assert [h.id for h in store.expired(at(900), 2)] == ids[:2]
    with Step(store) as tx:
        for id in ids[:2]:
            tx.release(id)
    assert store.next_expiry() == 200
    store.begin()
    store.release(ids[2])
    assert store.next_expiry() in (200, 300), "never too late, and exact after the commit"
    store.rollback()
    assert store.next_expiry() == 200


def test_quotas_count_by_everything_that_a_flood_could_come_from(home: Home) -> None:
    mine = held("a", size=40)
    one = held("b", src="bob", dst="ann", via="cat", size=50)
    two = held("c", src="bob", dst="dan", via="cat", size=60)
    three = held("d", src="eve", dst="ann", via="bob", size=70)
    news = held("e", src="bob", dst="ann", via="cat", kind=Kind.RECEIPT, size=80)
    with Step(home.store) as tx:
        for item in (mine, one, two, three, news):
            tx.hold(item)
    for store in home.now_and_again():
        assert store.usage(Scope.OWN) == usage(mine)
        assert store.usage(Scope.CARRIED) == usage(one, two, three)
        assert store.usage(Scope.RECEIPTS) == store.usage(Scope.RECEIPTS, key("cat")) == usage(news)
        assert store.usage(Scope.RECEIPTS, key("bob")) == Usage()
        assert store.usage(Scope.RECIPIENT, key("ann")) == usage(one, three)
        assert store.usage(Scope.ORIGIN, key("bob")) == usage(one, two)
        assert store.usage(Scope.LINK, key("cat")) == usage(one, two)
        assert store.usage(Scope.PAIR, key("bob") + key("dan")) == usage(two)
        assert store.usage(Scope.LINK_ORIGIN, key("cat") + key("bob")) == usage(one, two)
        assert store.usage(Scope.LINK_RECIPIENT, key("cat") + key("ann")) == usage(one)
        assert store.recipients() == 2
    with Step(home.store) as tx:
        for item in (mine, one, two, three, news):
            tx.release(item.id)
    assert {home.store.usage(scope, name) for scope in Scope for name in (b"", key("ann"), key("bob"))} == {Usage()}


def test_the_heaviest_is_found_whatever_came_and_went(home: Home) -> None:
    """Asked in between, so that what is remembered of an earlier answer must follow."""
    small, big = held("a", src="bob", via="cat", size=50), held("b", src="eve", via="dan", size=500)
    more = [held(f"c{n}", src=f"bob {n}", via="cat", size=200) for n in range(4)]
    receipt = held("d", src="ann", via="fay", kind=Kind.RECEIPT, size=5_000)
    assert home.store.heaviest(Scope.LINK) is None
    with Step(home.store) as tx:
        for item in (small, big, receipt):
            tx.hold(item)
    for store in home.now_and_again():
        assert store.heaviest(Scope.LINK) == (key("dan"), usage(big))
        assert store.heaviest(Scope.LINK_ORIGIN, key("cat")) == (key("cat") + key("bob"), usage(small))
        assert store.heaviest(Scope.LINK_ORIGIN, key("fay")) is None
    with Step(home.store) as tx:
        for item in more:
            tx.hold(item)
    assert home.store.heaviest(Scope.LINK) == (key("cat"), usage(small, *more))
    with Step(home.store) as tx:
        for item in more:
            tx.release(item.id)
        assert tx.heaviest(Scope.LINK) == (key("dan"), usage(big))
    home.store.begin()
    home.store.release(big.id)
    assert home.store.heaviest(Scope.LINK) == (key("cat"), usage(small))
    home.store.rollback()
    for store in home.now_and_again():
        assert store.heaviest(Scope.LINK) == (key("dan"), usage(big))


def test_one_authors_mail_over_one_link_is_found_oldest_first(home: Home) -> None:
    wanted = [held(f"a{n}", src="bob", via="cat", dst=f"to {n % 2}") for n in range(3)]
    others = [held("b", src="bob", via="dan"), held("c", src="eve", via="cat"), held("d", src="cat")]
    apart = [held("e", src="bob", via="cat", kind=Kind.RECEIPT), held_post("f", src="bob", via="cat")]
    with Step(home.store) as tx:
        for item in (*others, wanted[2], *apart, wanted[0], wanted[1]):
            tx.hold(item)
    for store in home.now_and_again():
        found = [item.id for item in store.crowding(key("cat"), key("bob"), 2)]
        assert found == [wanted[2].id, wanted[0].id]
        assert len(store.crowding(key("cat"), key("bob"), 9)) == 3


def test_destinations_are_those_for_which_something_is_held(home: Home) -> None:
    with Step(home.store) as tx:
        for item in (held("a"), held("b"), held("c", dst="zoe", via="cat"), held("d", dst="gone")):
            tx.hold(item)
        tx.release(held("d", dst="gone").id)
    for store in home.now_and_again():
        assert list(store.destinations()) == sorted([key("ann"), key("zoe")])


# --- sent messages


def test_a_sent_message_comes_back_as_it_was(home: Home) -> None:
    items = [
        sent("a", text=""),
        sent("b", text="\x00 zero, \u202e direction, \U0001f600 beyond, line\nfeed", protection=Protection.IDENTITY),
        replace(sent("c", text="x" * 65_536), require_fs=True, seals=3, reason="policy", state=State.FAILED),
    ]
    with Step(home.store) as tx:
        for item in items:
            tx.put_sent(item)
    for store in home.now_and_again():
        for item in items:
            assert store.sent(item.uid) == item
            assert store.sent_of(item.envelope_id) == item
            assert list(store.envelopes_of(item.uid)) == [item.envelope_id]


def test_a_message_sealed_again_is_found_by_every_envelope(home: Home) -> None:
    ids = [envelope(f"seal {number}").id for number in range(4)]
    with Step(home.store) as tx:
        tx.put_sent(sent("a", id=ids[0], protection=Protection.IDENTITY))
        for id in ids[1:]:
            tx.resealed(uid("a"), id, Protection.PREKEY)
    for store in home.now_and_again():
        expected = replace(sent("a", id=ids[3]), seals=4)
        assert [store.sent_of(id) for id in ids] == [expected] * 4
        assert list(store.envelopes_of(uid("a"))) == ids


def test_open_messages_are_the_newest_in_their_order(store: MeshStore) -> None:
    states = (State.QUEUED, State.RELAYED, State.DELIVERED, State.QUEUED, State.CANCELLED, State.EXPIRED, State.FAILED)
    with Step(store) as tx:
        for name, state in zip("abcdefg", states, strict=True):
            tx.put_sent(sent(name, to="ann" if name != "b" else "bob", state=state))
    assert [item.uid for item in store.open_sent(10)] == [uid("a"), uid("b"), uid("d")]
    assert [item.uid for item in store.open_sent(2)] == [uid("b"), uid("d")]
    with Step(store) as tx:
        tx.set_state(uid("b"), State.DELIVERED, "")
    assert [item.uid for item in store.open_sent(2)] == [uid("a"), uid("d")]
    assert list(store.open_sent(0)) == []


def test_queued_messages_to_a_peer_come_oldest_first(store: MeshStore) -> None:
    with Step(store) as tx:
        for name, to, protection, state in (
            ("a", "ann", Protection.IDENTITY, State.QUEUED),
            ("b", "ann", Protection.PREKEY, State.QUEUED),
            ("c", "bob", Protection.IDENTITY, State.QUEUED),
            ("d", "ann", Protection.IDENTITY, State.DELIVERED),
            ("e", "ann", Protection.IDENTITY, State.RELAYED),
            ("f", "ann", Protection.IDENTITY, State.QUEUED),
            ("g", "ann", Protection.IDENTITY, State.QUEUED),
        ):
            tx.put_sent(sent(name, to=to, protection=protection, state=state))
    found = store.queued_with(key("ann"), Protection.IDENTITY, 10)
    assert [item.uid for item in found] == [uid("a"), uid("f"), uid("g")]
    assert [item.uid for item in store.queued_with(key("ann"), Protection.IDENTITY, 2)] == [uid("a"), uid("f")]
    with Step(store) as tx:
        tx.set_state(uid("a"), State.EXPIRED, "nobody confirmed it")
        tx.set_state(uid("d"), State.QUEUED, "")
    found = store.queued_with(key("ann"), Protection.IDENTITY, 10)
    assert [item.uid for item in found] == [uid("d"), uid("f"), uid("g")]
    changed = store.sent(uid("a"))
    assert changed is not None
    assert (changed.state, changed.reason) == (State.EXPIRED, "nobody confirmed it")


def test_traces_are_kept_apart_and_in_order(home: Home) -> None:
    events = [TraceEvent(WallTime(WALL - number), f"state {number}", "carrier") for number in range(5)]
    with Step(home.store) as tx:
        tx.put_sent(sent("a"))
        tx.put_sent(sent("b"))
        for event in events:
            tx.add_trace(uid("a"), event)
        tx.add_trace(uid("b"), events[3])
    for store in home.now_and_again():
        assert list(store.trace(uid("a"))) == events
        assert list(store.trace(uid("b"))) == [events[3]]


# --- journal


def test_a_message_is_delivered_once_by_author_and_uid(home: Home) -> None:
    with Step(home.store) as tx:
        cursor = tx.deliver(message("a"))
        assert cursor is not None
        assert tx.deliver(message("a", text="other words")) is None
        assert tx.deliver(message("a", author="bob")) is not None
    store = home.again()
    assert store.delivered(key("ann"), uid("a"))
    assert store.delivered(key("bob"), uid("a"))
    assert not store.delivered(key("bob"), uid("b"))
    assert not store.delivered(key("cat"), uid("a"))
    with Step(store) as tx:
        assert tx.deliver(message("a")) is None
    assert [line.cursor for line in store.journal(after=0, limit=1)] == [cursor]


def test_what_was_rolled_back_was_not_delivered(store: MeshStore) -> None:
    store.begin()
    store.deliver(message("a"))
    assert store.delivered(key("ann"), uid("a"))
    store.rollback()
    assert not store.delivered(key("ann"), uid("a"))


def test_lines_come_back_as_they_were(home: Home) -> None:
    lines = [
        message("a", text=""),
        message("b", text="\x00 zero, \u202e direction, \U0001f600 beyond, line\nfeed", domain="example.org"),
        message("c", text="x" * 65_536, request=True),
        receipt("d", state="failed", reason="too many hops"),
        replace(receipt("e"), at=WallTime(0)),
        replace(message("f"), sent_at=WallTime(WALL - 90_000)),
        replace(post("g"), sent_at=WallTime(-1)),
        replace(post("h"), emergency=True),
    ]
    with Step(home.store) as tx:
        cursors = [tx.note(x) if x.kind is LineKind.RECEIPT else tx.deliver(x) for x in lines]
    expected = [replace(line, cursor=cursor or 0) for line, cursor in zip(lines, cursors, strict=True)]
    assert list(home.store.journal(after=0, limit=10)) == expected
    assert list(home.again().journal(after=0, limit=10)) == expected


def test_the_journal_is_read_by_cursor_and_sieved(store: MeshStore) -> None:
    with Step(store) as tx:
        tx.deliver(message("1", text="1"))
        tx.note(replace(receipt("2"), text="2"))
        tx.deliver(message("3", text="3", author="bob"))
        tx.deliver(message("4", text="4"))
        tx.note(replace(receipt("5", to="bob"), text="5"))
        tx.deliver(message("6", text="6", author="bob", request=True))
    cursors = [line.cursor for line in store.journal(after=0, limit=10)]
    assert cursors == sorted(set(cursors))
    assert min(cursors) > 0
    with Step(store) as tx:
        tx.mark_read([cursors[0], cursors[4], 999])
        tx.mark_read([])
    assert texts(store.journal(after=0, limit=10)) == list("123456")
    assert texts(store.journal(after=cursors[1], limit=2)) == list("34")
    assert texts(store.journal(after=0, limit=10, unread=True)) == list("2346")
    assert texts(store.journal(after=0, limit=10, messages=True)) == list("1346")
    assert texts(store.journal(after=0, limit=10, peer=key("bob"))) == list("356")
    assert texts(store.journal(after=0, limit=10, messages=True, peer=key("bob"))) == list("36")
    assert texts(store.journal(after=cursors[2], limit=10, messages=True, peer=key("bob"))) == list("6")
    assert texts(store.journal(after=0, limit=2, messages=True, unread=True)) == list("34")
    assert texts(store.journal(after=0, limit=2, messages=True, unread=True, peer=key("ann"))) == list("4")
    assert [line.read for line in store.journal(after=0, limit=10)] == [True, False, False, False, True, False]
    assert store.unread() == 3


def test_cursors_grow_over_restarts(home: Home) -> None:
    seen = [0]
    for number in range(4):
        with Step(home.store) as tx:
            cursor = tx.note(receipt(f"n{number}"))
        assert cursor > seen[-1]
        seen.append(cursor)
        home.store.begin()
        home.store.note(receipt("never"))
        home.store.rollback()
        home.again()


def test_requests_count_until_they_are_accepted(home: Home) -> None:
    one, two = message("a", author="dan", text="ä" * 10, request=True), message("b", author="dan", request=True)
    other = message("c", author="eve", request=True)
    with Step(home.store) as tx:
        for line in (one, two, other, message("d", author="dan")):
            tx.deliver(line)
        tx.deliver(one)
    for store in home.now_and_again():
        assert store.usage(Scope.REQUESTS) == usage(one, two, other)
        assert store.usage(Scope.REQUESTS, key("dan")) == usage(one, two)
        assert one.size == 20
        assert store.requesters(10) == sorted((key("dan"), key("eve")))
        assert store.requesters(1) == sorted((key("dan"), key("eve")))[:1]
    with Step(home.store) as tx:
        assert tx.accept(key("dan")) == 2
        assert tx.accept(key("dan")) == 0
    for store in home.now_and_again():
        assert store.usage(Scope.REQUESTS) == usage(other)
        assert store.requesters(10) == [key("eve")]
        assert store.usage(Scope.REQUESTS, key("dan")) == Usage()
        assert [line.request for line in store.journal(after=0, limit=10)] == [False, False, True, False]


# --- channels


def test_a_subscription_comes_back_as_it_was_and_is_replaced(home: Home) -> None:
    items = [
        subscription("a"), subscription("b", heads=0, kind=Access.OPEN),
        subscription("\x00 \u202e \U0001f600", heads=4), subscription("d", left=True), owned("e"),
        owned("f", earlier=(), posters=(), charter=0, muted=False), replace(subscription("g"), muted=True),
    ]  # fmt: skip
    with Step(home.store) as tx:
        for item in items:
            tx.put_channel(replace(item, heads=()))
        for item in items:
            tx.put_channel(item)
    for store in home.now_and_again():
        assert list(store.channels()) == sorted(items, key=lambda s: s.channel.id)
        assert [store.channel(item.channel.id) for item in items] == items


def test_a_member_is_kept_by_channel_and_key_and_replaced(home: Home) -> None:
    full = member("bob", present=False, said=2**40, removed=True, epoch=2**32 - 1, letter=uid("letter"))
    with Step(home.store) as tx:
        for one in (member("ann"), member("bob"), member("ann", channel="club", said=3), full):
            tx.put_member(one)
    for store in home.now_and_again():
        assert list(store.members(channel_id("news"))) == sorted((member("ann"), full), key=lambda m: m.peer)
        assert list(store.members(channel_id("club"))) == [member("ann", channel="club", said=3)]
        assert store.member(channel_id("news"), key("bob")) == full
        assert store.member(channel_id("club"), key("bob")) is None
    with Step(home.store) as tx:
        tx.drop_members(channel_id("news"))
    for store in home.now_and_again():
        assert list(store.members(channel_id("news"))) == []
        assert len(store.members(channel_id("club"))) == 1


def test_a_sent_message_keeps_what_it_carries(home: Home) -> None:
    letter = replace(sent("k"), type=TYPE_KEY, text="of a channel")
    with Step(home.store) as tx:
        tx.put_sent(letter)
    for store in home.now_and_again():
        assert store.sent(letter.uid) == letter


def test_a_post_is_delivered_once_by_author_and_uid_whatever_its_channel(home: Home) -> None:
    with Step(home.store) as tx:
        cursor = tx.deliver(post("a"))
        assert cursor is not None
        assert tx.deliver(post("a", channel="other", text="other words")) is None
        assert tx.deliver(post("a", author="bob")) is not None
    for store in home.now_and_again():
        assert store.journal(after=0, limit=1) == [replace(post("a"), cursor=cursor)]


def test_posts_are_received_and_unread_like_messages(home: Home) -> None:
    with Step(home.store) as tx:
        tx.deliver(message("1", text="1"))
        tx.deliver(post("2", text="2"))
        tx.note(receipt("3"))
        last = tx.deliver(post("4", channel="other", author="bob", text="4"))
        tx.deliver(post("5", author="bob", text="5"))
        assert last is not None
        tx.mark_read([last])
    for store in home.now_and_again():
        assert texts(store.journal(after=0, limit=10, messages=True)) == list("1245")
        assert texts(store.journal(after=0, limit=10, messages=True, peer=key("bob"))) == list("45")
        assert store.unread() == 3
        assert [store.unread_posts(channel_id(name)) for name in ("news", "other")] == [2, 0]


# --- history


def test_posts_and_our_own_stand_in_their_channels_history_as_they_arrived(home: Home) -> None:
    lines = [
        placed("1", 7, "x", "y"), placed("2", own=True), placed("3", 2**64 - 1, author="bob"), placed("4"), post("5"),
        placed("6", channel="other"),
    ]  # fmt: skip
    with Step(home.store) as tx:
        tx.deliver(message("m"))
        kept = [
            replace(line, cursor=tx.note(line) if line.kind is LineKind.OWN_POST else tx.deliver(line) or 0)
            for line in lines
        ]
        tx.note(receipt("r"))
    cursors = [line.cursor for line in kept]
    for store in home.now_and_again():
        places = store.places(channel_id("news"), limit=10)
        assert list(places) == [line.place for line in kept[:5]]
        assert [place.cursor for place in places] == cursors[:5]
        assert list(store.places(channel_id("other"), limit=10)) == [kept[5].place]
        # The newest of them, as they arrived.
        assert [place.cursor for place in store.places(channel_id("news"), limit=2)] == cursors[3:5]
        assert [place.cursor for place in store.places(channel_id("news"), after=cursors[2], limit=9)] == cursors[3:5]
        assert list(store.lines([cursors[4], cursors[0], 999, cursors[1]])) == [kept[4], kept[0], kept[1]]


def test_history_is_sieved_by_the_time_of_arrival_and_by_what_is_unread(home: Home) -> None:
    with Step(home.store) as tx:
        for n in range(5):
            line = placed(str(n), n, own=n == 3)
            line = replace(line, at=WallTime(1_000 * n))
            _ = tx.note(line) if n == 3 else tx.deliver(line)
        tx.mark_read([1])
    for store in home.now_and_again():

        def seen(store: MeshStore = store, **sieve: Any) -> list[int]:
            return [place.seq for place in store.places(channel_id("news"), limit=10, **sieve)]

        assert seen() == [0, 1, 2, 3, 4]
        assert seen(since=WallTime(2_000)) == [2, 3, 4]
        assert seen(since=WallTime(2_001), after=4) == [4]
        assert seen(unread=True) == [1, 2, 4]


def test_a_post_of_ours_is_no_news_for_readers(home: Home) -> None:
    with Step(home.store) as tx:
        tx.deliver(placed("1"))
        tx.note(placed("2", own=True))
        tx.deliver(placed("3", channel="other"))
        tx.deliver(placed("4", channel="other"))
    for store in home.now_and_again():
        for messages, unread in ((False, False), (True, False), (False, True), (True, True)):
            assert texts(store.journal(after=0, limit=10, messages=messages, unread=unread)) == ["1", "3", "4"]
        assert list(store.journal(after=0, limit=10, peer=key("me"))) == []
        assert (store.unread(), store.newest_line()) == (3, 4)
        assert store.unread_channels() == {channel_id("news"): 1, channel_id("other"): 2}
        assert not store.delivered(key("me"), uid("2"))


def test_the_numbers_of_authors_come_back_as_they_were(home: Home) -> None:
    news, other = channel_id("news"), channel_id("other")
    ann, bob = numbers("ann", seen=(1, 4, 9), at=5), numbers("bob", seen=(3, 2**64 - 1), at=6)
    with Step(home.store) as tx:
        tx.put_heard(news, numbers("ann"))
        tx.put_heard(news, ann)
        tx.put_heard(news, bob)
        tx.put_heard(other, numbers("cat"))
    for store in home.now_and_again():
        assert list(store.heard_in(news)) == sorted((ann, bob), key=lambda heard: heard.author)
        assert (store.heard(news, key("ann")), store.heard(other, key("ann"))) == (ann, None)
    with Step(home.store) as tx:
        tx.forget_heard(news)
        tx.forget_heard(channel_id("never"))
    for store in home.now_and_again():
        assert list(store.heard_in(news)) == []
        assert list(store.heard_in(other)) == [numbers("cat")]


def test_of_too_many_authors_the_one_not_heard_for_longest_is_forgotten(home: Home) -> None:
    news = channel_id("news")
    authors = [PeerKey(n.to_bytes(32, "big")) for n in range(AUTHORS_MAX + 2)]
    with Step(home.store) as tx:
        for moment, author in enumerate(authors[:AUTHORS_MAX], 1):
            tx.put_heard(news, replace(numbers("ann", at=moment), author=author))
        tx.put_heard(news, replace(numbers("ann", at=5_000), author=authors[0]))
        # The newest stays, however old it says it is.
        for moment, author in ((6_000, authors[-2]), (0, authors[-1])):
            tx.put_heard(news, replace(numbers("ann", at=moment), author=author))
        tx.put_heard(channel_id("other"), numbers("cat"))
    for store in home.now_and_again():
        assert {heard.author for heard in store.heard_in(news)} == {authors[0], *authors[3:]}
        assert len(store.heard_in(channel_id("other"))) == 1


def test_posts_count_by_channel_and_author_and_never_as_mail(home: Home) -> None:
    mine = held_post("a", src="me", via="", size=40)
    one, two = held_post("b", size=50), held_post("c", src="cat", size=60)
    other = held_post("d", channel="other", size=70)
    with Step(home.store) as tx:
        for item in (mine, one, two, other):
            tx.hold(item)
        tx.hold(held("e"))
    for store in home.now_and_again():
        assert store.usage(Scope.OWN_POSTS, key("news")) == usage(mine)
        assert store.usage(Scope.POSTS) == usage(one, two, other)
        assert store.usage(Scope.POSTS, key("news")) == usage(one, two)
        assert store.usage(Scope.POSTS, key("cat") + key("news")) == usage(two)
        assert store.usage(Scope.OWN) == usage(held("e"))
        assert store.usage(Scope.CARRIED) == Usage()
        assert store.recipients() == 1


def test_the_oldest_posts_are_right_while_posts_come_and_go(store: MeshStore) -> None:
    rng, kept, count = random.Random(4), list[tuple[str, EnvelopeId]](), 0
    for _ in range(60):
        with Step(store) as tx:
            for _ in range(rng.randrange(8)):
                author = rng.choice(("bob", "eve"))
                post = held_post(f"p{count}", src=author, via="cat")
                tx.hold(post)
                kept.append((author, post.id))
                count += 1
            for _ in range(rng.randrange(6)):
                whose = rng.choice(("bob", "eve", ""))
                mine = [id for by, id in kept if whose in (by, "")]
                limit = rng.choice((1, 3, 90))
                found = list(tx.oldest(key("news"), key(whose) if whose else None, limit))
                assert found == mine[:limit]
                gone = rng.choice(found[:1] or [None]) if rng.random() < 0.8 else rng.choice(mine or [None])
                if gone is not None:
                    tx.release(gone)
                    kept = [(by, id) for by, id in kept if id != gone]
    assert count > 100


def test_the_oldest_posts_of_an_author_or_of_others_are_found(store: MeshStore) -> None:
    items = [held_post(f"m{n}", src=("me", "bob", "cat")[n % 3], via="" if n % 3 == 0 else "dan") for n in range(9)]
    with Step(store) as tx:
        for item in items:
            tx.hold(item)
        tx.hold(held_post("elsewhere", channel="other"))
    ids = [item.id for item in items]
    assert list(store.oldest(key("news"), key("bob"), 2)) == ids[1:7:3]
    assert list(store.oldest(key("news"), key("me"), 9)) == ids[0::3]
    assert list(store.oldest(key("news"), None, 3)) == [ids[1], ids[2], ids[4]]
    assert list(store.oldest(key("news"), key("eve"), 3)) == []


# --- peers


def test_records_are_replaced_and_listed_by_arrival(home: Home) -> None:
    newest = StoredRecord(key("cat"), U64_MAX, U64_MAX, b"x" * 900, U64_MAX, at(30))
    with Step(home.store) as tx:
        tx.put_record(StoredRecord(key("ann"), 1, 1, b"old", 0, at(5)))
        tx.put_record(StoredRecord(key("bob"), 2**63, 2**63 - 1, b"bob", 9, at(20)))
        tx.put_record(StoredRecord(key("ann"), 1, 2, b"new", 0, at(10)))
        tx.put_record(newest)
    for store in home.now_and_again():
        assert store.record(key("cat")) == newest
        assert [record.data for record in store.records(10)] == [newest.data, b"bob", b"new"]
        assert len(store.records(2)) == 2
        assert store.record(key("dan")) is None
    with Step(home.store) as tx:
        tx.drop_record(key("cat"))
        tx.drop_record(key("nobody"))
    assert home.store.record(key("cat")) is None


@pytest.mark.parametrize(
    ("kept", "offered"),
    [
        ((1, 9), (1, 8)),
        ((2, 0), (1, 9)),
        ((1, 9), (1, 9)),
        ((1, 2**63), (1, 2**63 - 1)),
        ((2**63, 0), (2**63 - 1, U64_MAX)),
        ((U64_MAX, 0), (0, U64_MAX)),
    ],
)
def test_no_older_record_takes_the_place_of_a_newer(
    home: Home, kept: tuple[int, int], offered: tuple[int, int]
) -> None:
    newer, older = (StoredRecord(key("ann"), *version, b"%d %d" % version, 0, at(5)) for version in (kept, offered))
    with Step(home.store) as tx:
        assert tx.put_record(newer)
    store = home.again()
    store.begin()
    assert not store.put_record(replace(older, data=b"older", stored_at=at(9)))
    assert not dirty(store)
    store.commit()
    assert store.record(key("ann")) == newer
    with Step(store) as tx:
        tx.drop_record(key("ann"))
        assert tx.put_record(older), "what was dropped is forgotten"
    assert store.record(key("ann")) == older


def test_sightings_are_replaced_and_listed_by_time(home: Home) -> None:
    with Step(home.store) as tx:
        tx.see(Sighting(key("ann"), WALL, at(5), "192.0.2.1:1"))
        tx.see(Sighting(key("bob"), WallTime(0), at(9), ""))
        tx.see(Sighting(key("ann"), WALL, at(10), "[2001:db8::1]:7"))
    for store in home.now_and_again():
        assert list(store.sightings(10)) == [
            Sighting(key("ann"), WALL, at(10), "[2001:db8::1]:7"),
            Sighting(key("bob"), WallTime(0), at(9), ""),
        ]
        assert [s.key for s in store.sightings(1)] == [key("ann")]


@pytest.mark.parametrize("friends", [0, 3, SIGHTINGS_MAX, SIGHTINGS_MAX + 1])
def test_of_too_many_sightings_the_oldest_that_is_no_contact_goes_first(home: Home, friends: int) -> None:
    """Anybody in reach may link by himself, under as many keys as he likes."""
    names = [f"peer {n}" for n in range(SIGHTINGS_MAX + 1)]
    contacts = frozenset(key(name) for name in names[:friends])
    with Step(home.store) as tx:
        for n, name in enumerate(names):
            tx.see(Sighting(key(name), WALL, at(n), ""), contacts)
    gone = names[friends] if friends < SIGHTINGS_MAX else names[0]
    expected = [key(name) for name in reversed(names) if name != gone]
    for store in home.now_and_again():
        assert [s.key for s in store.sightings(SIGHTINGS_MAX + 1)] == expected
    with Step(home.store) as tx:
        tx.see(Sighting(key(names[-2]), WALL, at(SIGHTINGS_MAX + 1), ""), contacts)
    assert len(home.store.sightings(SIGHTINGS_MAX + 1)) == SIGHTINGS_MAX, "one seen again pushes nobody out"


def test_a_peer_seen_just_now_is_not_the_one_that_goes(home: Home) -> None:
    """Also when everybody else is a contact, and when its moment is no later than theirs."""
    contacts = frozenset(key(f"peer {n}") for n in range(SIGHTINGS_MAX))
    with Step(home.store) as tx:
        for contact in contacts:
            tx.see(Sighting(contact, WALL, at(7), ""), contacts)
        tx.see(Sighting(key("new"), WALL, at(6), ""), contacts)
    kept = {s.key for s in home.store.sightings(SIGHTINGS_MAX + 1)}
    assert kept == contacts - {min(contacts)} | {key("new")}


def test_where_a_peer_lives_comes_back_as_it_was_and_is_replaced(home: Home) -> None:
    first = lives("ann", "a.example", source=HomeSource.PERSON, version=(U64_MAX, U64_MAX), at=-5)
    with Step(home.store) as store:
        store.put_home(first)
        store.put_home(lives("bob", at=9))
    for store in home.now_and_again():
        assert store.home(key("ann")) == first
        assert store.home(key("cat")) is None
        assert list(store.homes(10)) == [lives("bob", at=9), first]
        assert list(store.homes(1)) == [lives("bob", at=9)]
    with Step(home.store) as store:
        store.put_home(lives("ann", "new.example"))
    for store in home.now_and_again():
        assert store.home(key("ann")) == lives("ann", "new.example")


@pytest.mark.parametrize("friends", [0, 2])
def test_of_too_many_homes_the_one_said_longest_ago_goes_and_what_our_person_said_stays(
    home: Home, friends: int
) -> None:
    contacts = frozenset(key(f"peer {n}") for n in range(friends))
    typed = lives("typed", source=HomeSource.PERSON, at=-1)
    with Step(home.store) as store:
        store.put_home(typed)
        for n in range(HOMES_MAX - 1):
            store.put_home(lives(f"peer {n}", at=n), contacts)
    with Step(home.store) as store:
        store.put_home(lives("one more", at=-9), contacts)
    for store in home.now_and_again():
        kept = {found.key for found in store.homes(2 * HOMES_MAX)}
        assert len(kept) == HOMES_MAX
        assert key(f"peer {friends}") not in kept
        assert contacts | {typed.key, key("one more")} < kept


def test_authors_of_the_neighbour_that_brought_most_are_forgotten_first_and_the_longest_silent_of_them(
    home: Home,
) -> None:
    few = [Author(key(f"few {n}"), at(n), at(0), key("ann")) for n in range(10)]
    with Step(home.store) as store:
        for author in few:
            store.put_author(author)
        for n in range(KNOWN_AUTHORS_MAX - 10):
            store.put_author(Author(key(f"made up {n}"), at(n), at(1_000 + n), key("mallory")))
        store.put_author(Author(key("made up 0"), at(0), at(999_999), key("mallory")))
        store.put_author(Author(key("new"), at(0), at(0), key("mallory")))
        store.put_author(Author(key("newer"), at(0), at(0), key("ann")))
    for store in home.now_and_again():
        assert [store.author(author.key) for author in few] == few
        assert store.author(key("made up 0")) == Author(key("made up 0"), at(0), at(999_999), key("mallory"))
        assert [store.author(key(f"made up {n}")) is None for n in (1, 2, 3)] == [True, False, False]
        assert store.author(key("newer")) is not None
        assert store.author(key("new")) is None, "it was of the same neighbour, and heard longest ago"


def test_what_is_held_longest_of_one_link_is_found_and_links_are_counted_by_channel(home: Home) -> None:
    posts = [held_post(f"p{n}", src=f"author {n}", via="ann" if n % 3 else "bob") for n in range(9)]
    with Step(home.store) as store:
        for post in posts:
            store.hold(post)
        store.hold(held_post("elsewhere", channel="garden", src="x", via="ann", size=9_000))
        store.hold(held_post("ours", src="me", via=""))
    for store in home.now_and_again():
        assert list(store.oldest(key("news"), None, 9, key("bob"))) == [posts[n].id for n in (0, 3, 6)]
        assert list(store.oldest(key("news"), None, 2, key("ann"))) == [posts[n].id for n in (1, 2)]
        assert list(store.oldest(key("news"), key("author 1"), 2, key("bob"))) == []
        assert store.usage(Scope.LINK_POSTS, key("news") + key("bob")).count == 3
        found = store.heaviest(Scope.LINK_POSTS, key("news"))
        assert found is not None
        assert (found[0], found[1].count) == (key("news") + key("ann"), 6)
    with Step(home.store) as store:
        for n in (1, 2, 4, 5):
            store.release(posts[n].id)
    found = home.store.heaviest(Scope.LINK_POSTS, key("news"))
    assert found is not None
    assert found[0] == key("news") + key("bob")


def test_old_prekeys_are_dropped(home: Home) -> None:
    keys = [StoredPrekey(bytes([number]) * 8, bytes([number]) * 32, at(number)) for number in range(5)]
    with Step(home.store) as tx:
        for prekey in keys:
            tx.put_prekey(prekey)
    assert list(home.store.prekeys()) == keys[::-1]
    with Step(home.store) as tx:
        assert tx.drop_prekeys(at(0)) == 0
        assert tx.drop_prekeys(at(3)) == 3
    assert list(home.store.prekeys()) == keys[:2:-1]
    assert list(home.again().prekeys()) == keys[:2:-1]
