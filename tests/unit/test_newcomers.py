"""How far the posts of new authors go, and since when an author is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.conformance.rows import Step, held_post, key

from quicprochat.core import newcomers
from quicprochat.core.envelope import HEADER_BYTES, TRANSIT, TRANSIT_OFFSET
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.memory import MemoryStore
from quicprochat.core.newcomers import KNOWN_AFTER_MS, Later, Recent, goes_on_at, heard, known_from
from quicprochat.core.policy import Policy
from quicprochat.core.store import Author, Held, MeshStore
from quicprochat.core.time import HOUR_MS, Instant
from quicprochat.core.window import NEWCOMER_HOPS

ANN, BOB, ME = key("ann"), key("bob"), key("me")
NOW = Instant(50 * HOUR_MS)
POLICY = Policy(ME)


@pytest.fixture
def store() -> MeshStore:
    return MemoryStore(durable=True)


def brought(hop: int, src: str = "ann", via: str = "bob") -> Held:
    """A post that came with so many hops."""
    held = held_post("p", src=src, via=via)
    wire = held.wire[:TRANSIT_OFFSET] + TRANSIT.pack(hop, 0) + held.wire[HEADER_BYTES:]
    return replace(held, wire=wire)


def test_a_newcomers_post_makes_eight_hops_and_waits_an_hour_for_the_ninth(store: MeshStore) -> None:
    with Step(store) as tx:
        heard(tx, ANN, BOB, NOW)
        assert goes_on_at(tx, brought(NEWCOMER_HOPS - 1), POLICY, NOW) == NOW
        assert goes_on_at(tx, brought(NEWCOMER_HOPS), POLICY, NOW) == NOW + KNOWN_AFTER_MS
        later = Instant(NOW + KNOWN_AFTER_MS)
        assert goes_on_at(tx, brought(NEWCOMER_HOPS), POLICY, Instant(later - 1)) == later
        assert goes_on_at(tx, brought(30), POLICY, later) == later


def test_contacts_and_ourselves_are_known_from_the_first_moment(store: MeshStore) -> None:
    assert known_from(store, ME, POLICY, NOW) == NOW
    assert known_from(store, ANN, replace(POLICY, contacts=frozenset({ANN})), NOW) == NOW
    assert goes_on_at(store, brought(30), replace(POLICY, contacts=frozenset({ANN})), NOW) == NOW
    assert goes_on_at(store, brought(30, src="me", via=""), POLICY, NOW) == NOW


def test_nobody_becomes_known_by_what_a_carrier_says_of_age(store: MeshStore) -> None:
    held = brought(NEWCOMER_HOPS)
    old = held.wire[:TRANSIT_OFFSET] + TRANSIT.pack(NEWCOMER_HOPS, 9 * HOUR_MS) + held.wire[HEADER_BYTES:]
    assert goes_on_at(store, replace(held, wire=old), POLICY, NOW) == NOW + KNOWN_AFTER_MS


def test_that_an_author_is_heard_is_written_once_an_hour_and_since_stays(store: MeshStore) -> None:
    first = Author(ANN, NOW, NOW, BOB)
    with Step(store) as tx:
        for minutes in range(60):
            heard(tx, ANN, key("cat"), Instant(NOW + minutes)) if minutes else heard(tx, ANN, BOB, NOW)
            assert tx.author(ANN) == first
        heard(tx, ANN, key("cat"), Instant(NOW + HOUR_MS))
        assert tx.author(ANN) == Author(ANN, NOW, Instant(NOW + HOUR_MS), BOB)


def test_authors_of_late_are_asked_for_once_and_few_are_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted(MemoryStore):
        asked = 0

        def author(self, key: PeerKey) -> Author | None:
            self.asked += 1
            return super().author(key)

    monkeypatch.setattr(newcomers, "RECENT_MAX", 10)
    store, recent = Counted(durable=True), Recent()
    with Step(store) as tx:
        heard(recent.of(tx), ANN, BOB, NOW)
        for _ in range(5):
            heard(recent.of(tx), ANN, BOB, NOW)
            assert known_from(recent.of(tx), ANN, POLICY, NOW) == NOW + KNOWN_AFTER_MS
        assert store.asked == 1
        for n in range(100):
            heard(recent.of(tx), key(f"author {n}"), BOB, NOW)
        assert len(recent._recent) == 10
        assert recent.author(ANN) == store.author(ANN) == Author(ANN, NOW, NOW, BOB)


def test_what_waits_comes_in_the_order_of_its_moments_once() -> None:
    later, (a, b, c) = Later(), (EnvelopeId(bytes([n]) * 32) for n in range(3))
    for id, at in ((a, 30), (b, 10), (c, 20)):
        later.add(id, Instant(at))
    assert (later.deadline(), len(later), a in later) == (10, 3, True)
    assert later.due(Instant(9)) == []
    assert later.due(Instant(20)) == [b, c]
    assert later.due(Instant(20)) == []
    later.add(a, Instant(5))
    assert later.due(Instant(99)) == [a]
    assert later.deadline() is None


def test_what_waits_and_is_dropped_or_taken_does_not_come_and_leaves_nothing() -> None:
    later, ids = Later(), [EnvelopeId(b"%032d" % n) for n in range(1_000)]
    for _ in range(10):
        for n, id in enumerate(ids):
            later.add(id, Instant(n))
            later.drop(id)
    assert (later.due(Instant(9_999)), later.deadline(), len(later)) == ([], None, 0)
    for n, id in enumerate(ids[:3]):
        later.add(id, Instant(9 - n))
    assert later.everything() == ids[2::-1]
    assert len(later) == 0
    assert len(later._order) <= 64
