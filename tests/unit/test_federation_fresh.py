"""What goes to another domain from memory: each row once, and in the order of the outbox."""

from __future__ import annotations

import pytest

from quicprochat.core.envelope import Kind
from quicprochat.core.federation import Outgoing, Parcel
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.store import Held
from quicprochat.core.time import Instant
from quicprochat.server.federation import fresh as module
from quicprochat.server.federation.fresh import START, Fresh
from quicprochat.server.federation.rules import BATCH_BYTES, PUT_OFF_FIRST_MS

ADA, BEN = PeerKey(b"a" * 32), PeerKey(b"b" * 32)
NOW = Instant(1_000)


def parcel(serial: int, due: int = 1_000, size: int = 10, expires: int = 9_000) -> Parcel:
    id = EnvelopeId(serial.to_bytes(32, "big"))
    held = Held(id, Kind.MESSAGE, ADA, BEN, ADA, bytes(size), NOW, Instant(expires), serial)
    row = Outgoing(id, "n", "s", ADA, Kind.MESSAGE, size, Instant(expires), Instant(due), serial=serial)
    return Parcel(row, held)


def serials(parcels: list[Parcel]) -> list[int]:
    return [one.row.serial for one in parcels]


@pytest.fixture
def fresh() -> Fresh:
    """The outbox was read to its end, which is row 3."""
    made = Fresh()
    made.restart(NOW)
    made.reading()
    made.read([parcel(3)])
    made.reading()
    made.read([])
    return made


def test_what_comes_is_taken_once_and_in_order(fresh: Fresh) -> None:
    fresh.add([parcel(4), parcel(5)])
    fresh.add([parcel(6)])
    assert serials(fresh.take(2, NOW)) == [4, 5]
    assert serials(fresh.take(2, NOW)) == [6]
    assert fresh.take(2, NOW) == []
    assert fresh.upto == (1_000, 6)


def test_what_was_read_already_is_not_taken_again(fresh: Fresh) -> None:
    fresh.add([parcel(3), parcel(4)])
    assert serials(fresh.take(9, NOW)) == [4]


def test_nothing_is_taken_before_the_outbox_was_read_to_its_end() -> None:
    fresh = Fresh()
    fresh.restart(NOW)
    fresh.add([parcel(1)])
    assert not fresh.complete(NOW)
    fresh.reading()
    fresh.read([parcel(1)])
    assert not fresh.complete(NOW)
    assert fresh.upto == (1_000, 1)


def test_what_came_during_the_last_read_makes_another_necessary(fresh: Fresh) -> None:
    fresh.restart(NOW)
    fresh.reading()
    fresh.add([parcel(4)])
    fresh.read([])
    assert not fresh.complete(NOW)
    fresh.reading()
    fresh.read([])
    assert fresh.complete(NOW)


def test_more_than_fits_is_left_to_the_outbox(fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FRESH_MAX", 2)
    fresh.add([parcel(4), parcel(5), parcel(6)])
    assert not fresh.complete(NOW)
    assert fresh.take(9, NOW) == []
    assert fresh.upto == (1_000, 3), "the outbox is read from here"


def test_many_bytes_are_left_to_the_outbox(fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FRESH_BYTES", 50)
    fresh.add([parcel(4, size=40)])
    assert fresh.complete(NOW)
    fresh.add([parcel(5, size=40)])
    assert not fresh.complete(NOW)


def test_one_call_has_a_bounded_size(fresh: Fresh) -> None:
    fresh.add([parcel(4, size=BATCH_BYTES), parcel(5), parcel(6)])
    assert serials(fresh.take(9, NOW)) == [4]
    assert serials(fresh.take(9, NOW)) == [5, 6]


def test_what_expired_meanwhile_is_not_sent(fresh: Fresh) -> None:
    fresh.add([parcel(4, expires=NOW), parcel(5)])
    assert serials(fresh.take(9, NOW)) == [5]


def test_the_outbox_is_read_again_when_something_put_off_is_due(fresh: Fresh) -> None:
    fresh.good_until(None)
    fresh.add([parcel(4)])
    fresh.put_off(Instant(NOW + PUT_OFF_FIRST_MS))
    assert fresh.waits(NOW)
    later = Instant(NOW + PUT_OFF_FIRST_MS)
    assert not fresh.waits(later)
    assert fresh.over(later)
    fresh.restart(later)
    assert not fresh.over(later), "it is being read"
    assert fresh.upto == START
