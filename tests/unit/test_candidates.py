"""Whom to dial of those who were announced: neither filled nor steered by made-up ones."""

from __future__ import annotations

import random

import pytest

from quicprochat.core.address import Address
from quicprochat.core.ids import PeerKey
from quicprochat.core.time import Instant
from quicprochat.p2p import candidates as module
from quicprochat.p2p.candidates import (
    ADDRESSES_MAX,
    AGAIN_MS,
    FIRST_MS,
    INSTANCES_MAX,
    LAST_MS,
    PAUSE_MS,
    PER_HOST_MAX,
    UNPROVED_MAX,
    WANTED_LAST_MS,
    Candidate,
    Candidates,
)

ME = PeerKey(b"\x80" * 32)
T0 = Instant(1_000)
NOBODY: frozenset[PeerKey] = frozenset()


def key(n: int) -> PeerKey:
    """A key above ours."""
    return PeerKey(b"\xf0" + n.to_bytes(31, "big"))


def where(n: int) -> tuple[Address, ...]:
    return (Address(f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}", 7_000),)


class Table(Candidates):
    def __init__(self, *, patient: bool = True) -> None:
        self.forgotten: list[str] = []
        super().__init__(ME, self.forgotten.append, random.Random(1).random, patient=patient)

    def hear(self, n: int, now: int = T0, *, wanted: bool = False, at: int | None = None, name: str = "") -> Candidate:
        addresses = where(n if at is None else at)
        return self.heard(name or f"i{n}", key(n), addresses, "", Instant(now), wanted=wanted)

    def next(
        self, now: int = T0, *, linked: frozenset[PeerKey] = NOBODY, wanted: PeerKey | None = None
    ) -> PeerKey | None:
        found = self.due(Instant(now), linked, lambda peer: peer == wanted)
        return found.key if found is not None else None


def unproved(table: Table) -> int:
    return sum(not candidate.proved for candidate in table.all())


def test_the_lower_key_dials_at_once_and_the_higher_after_a_pause() -> None:
    table = Table()
    lower = PeerKey(b"\x01" * 32)
    table.hear(1)
    table.heard("l", lower, where(2), "", T0, wanted=False)
    assert table.next() == key(1)
    assert table.next(linked=frozenset([key(1)])) is None
    at = table.next_at(frozenset([key(1)]))
    assert at is not None
    assert PAUSE_MS <= at - T0 <= PAUSE_MS + 250
    assert table.next(at, linked=frozenset([key(1)])) == lower


def test_who_announces_nothing_is_not_waited_for_by_others_and_so_does_not_wait() -> None:
    table = Table(patient=False)
    lower = PeerKey(b"\x01" * 32)
    table.heard("l", lower, where(2), "", T0, wanted=False)
    assert table.next() == lower


def test_a_flood_of_strangers_stays_in_its_bounds_and_forgets_what_it_evicts() -> None:
    table = Table()
    for n in range(10_000):
        table.hear(n)
    assert len(table.all()) == UNPROVED_MAX
    assert len(table.forgotten) == 10_000 - UNPROVED_MAX
    assert len(set(table.forgotten)) == len(table.forgotten)
    assert len(table._by_name) == UNPROVED_MAX
    assert len(table._by_host) == UNPROVED_MAX


def test_a_newcomer_has_a_place_however_full_the_table_is() -> None:
    table = Table()
    for n in range(1_000):
        table.hear(n)
        assert table.get(key(n)) is not None


def test_one_machine_has_only_so_many_places() -> None:
    table = Table()
    table.hear(5_000)
    for n in range(1_000):
        table.hear(n, at=7)
    assert len(table.all()) == PER_HOST_MAX + 1
    assert table.get(key(5_000)) is not None


def test_what_is_remembered_of_names_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARD_MAX", 50)
    table = Table()
    for n in range(1_000):
        table.hear(n)
    assert len(table._heard) == 50


def test_one_heard_again_goes_before_thousands_heard_once() -> None:
    table = Table()
    table.hear(9_999)
    for n in range(5_000):
        table.hear(n, T0 + n // 10)
    table.hear(9_999, T0 + AGAIN_MS)
    for n in range(5_000, 9_000):
        table.hear(n, T0 + AGAIN_MS + n // 10)
    assert table.get(key(9_999)) is not None, "nor is it evicted by them"
    assert table.next(T0 + 10_000) == key(9_999)


def test_the_same_announcement_repeated_at_once_is_not_heard_again() -> None:
    table = Table()
    for ms in (0, 225, 450):
        assert not table.hear(1, T0 + ms).again
    assert table.hear(1, T0 + AGAIN_MS).again


def test_wanted_ones_go_first_then_those_that_were_linked() -> None:
    table = Table()
    for n in range(50):
        table.hear(n)
        table.hear(n, T0 + AGAIN_MS)
    now = Instant(T0 + AGAIN_MS)
    table.linked([key(7)], now)
    assert table.next(now, wanted=key(9)) == key(9)
    assert table.next(now) == key(7)


def test_who_was_linked_or_is_wanted_stays_in_a_flood() -> None:
    table = Table()
    table.hear(1)
    table.linked([key(1)], T0)
    table.hear(2, wanted=True)
    for n in range(1_000):
        table.hear(10 + n, at=n % 3)
    assert table.get(key(1)) is not None
    assert table.get(key(2)) is not None
    assert unproved(table) <= UNPROVED_MAX


def test_so_many_proved_ones_and_no_more_have_a_lasting_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROVED_MAX", 3)
    table = Table()
    for n in range(10):
        table.hear(n)
    table.linked([key(n) for n in range(10)], T0)
    assert unproved(table) == 7


def test_a_dial_that_fails_is_tried_later_and_later() -> None:
    table = Table()
    candidate, now, pauses = table.hear(1), T0, []
    for _ in range(10):
        table.failed(candidate, now, wanted=False)
        assert table.next(candidate.next_at - 1) is None
        pauses.append(candidate.next_at - now)
        now = candidate.next_at
    assert 0.8 * FIRST_MS <= pauses[0] <= 1.2 * FIRST_MS
    assert 0.8 * LAST_MS <= pauses[-1] <= 1.2 * LAST_MS
    for _ in range(10):
        table.failed(candidate, now, wanted=True)
    assert candidate.next_at - now <= 1.2 * WANTED_LAST_MS


def test_a_new_address_is_tried_at_once() -> None:
    table = Table()
    candidate = table.hear(1)
    for _ in range(5):
        table.failed(candidate, T0, wanted=False)
    table.hear(1, T0 + 1)
    assert table.next(T0 + 1) is None, "the same address is not"
    table.hear(1, T0 + 2, at=99)
    assert table.next(T0 + 2) == key(1)


def test_a_lost_link_is_dialled_again_soon() -> None:
    table = Table()
    candidate = table.hear(1)
    table.failed(candidate, T0, wanted=False)
    table.linked([key(1)], Instant(T0 + 5))
    assert table.next(T0 + 5) == key(1)


def test_several_instances_of_one_key_are_one_candidate_with_a_few_addresses() -> None:
    table = Table()
    for n in range(10):
        name, addresses = f"n{n}", tuple(Address(f"10.0.{n}.{m}", 7_000) for m in range(1, 6))
        table.heard(name, key(1), addresses, "", T0, wanted=True)
    (candidate,) = table.all()
    assert len(candidate.instances) == INSTANCES_MAX
    assert len(candidate.addresses) == ADDRESSES_MAX
    assert {address.ip.split(".")[2] for address in candidate.addresses} == {"6", "7", "8", "9"}, "of each some"
    assert table.forgotten == [f"n{n}" for n in range(6)]


def test_an_instance_that_names_another_key_leaves_the_first() -> None:
    table = Table()
    table.hear(1, name="x")
    table.hear(2, name="x")
    assert [candidate.key for candidate in table.all()] == [key(2)]
    assert table.named("x") is table.get(key(2))
    assert table.forgotten == []


def test_a_goodbye_ends_an_instance_and_the_last_one_the_candidate() -> None:
    table = Table()
    table.hear(1, name="x")
    table.hear(1, name="y", at=2)
    table.gone("x")
    assert [candidate.addresses for candidate in table.all()] == [where(2)]
    table.gone("y")
    table.gone("never there")
    assert not table.all()
    assert not table._by_host
    assert not table._unproved


def test_one_under_way_is_not_dialled_twice() -> None:
    table = Table()
    table.hear(1).under_way = True
    assert table.next() is None
    assert table.next_at(NOBODY) is None
