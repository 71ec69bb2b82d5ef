"""Which records are sent over which link: bounded, newest first, and never in a circle."""

from __future__ import annotations

import pytest

from quicprochat.core.events import LinkId
from quicprochat.core.ids import PeerKey
from quicprochat.core.spread import BURST, OFFER_MAX, OWNER_MS, PER_S, WAITING_MAX, Spread
from quicprochat.core.time import Instant

ONE, TWO, THREE = LinkId(1), LinkId(2), LinkId(3)
T0 = Instant(1_000)


def key(n: int) -> PeerKey:
    return PeerKey(n.to_bytes(32, "big"))


NEIGHBOURS = {ONE: key(101), TWO: key(102), THREE: key(103)}


@pytest.fixture
def spread() -> Spread:
    made = Spread()
    for link, peer in NEIGHBOURS.items():
        made.link_up(link, peer, (), T0)
    return made


def test_a_new_neighbour_is_offered_so_many_the_first_ones_and_not_its_own() -> None:
    spread = Spread()
    spread.link_up(ONE, key(2), [key(n) for n in (1, 1, 2, *range(3, 100))], T0)
    offered = [owner for _, owner in spread.due(T0)]
    assert offered == [key(1), *(key(n) for n in range(3, OFFER_MAX + 2))]
    assert len(offered) == OFFER_MAX
    assert spread.due(T0) == []


def test_news_go_to_everybody_but_who_brought_them_and_whose_they_are(spread: Spread) -> None:
    spread.news(key(1), ONE, T0)
    assert spread.due(T0) == [(TWO, key(1)), (THREE, key(1))]
    spread.news(NEIGHBOURS[ONE], ONE, T0)
    spread.news(NEIGHBOURS[TWO], ONE, T0)
    assert spread.due(T0) == [
        (TWO, NEIGHBOURS[ONE]), (THREE, NEIGHBOURS[ONE]), (THREE, NEIGHBOURS[TWO])
    ]  # fmt: skip
    spread.news(key(2), None, T0)
    assert spread.due(T0) == [(ONE, key(2)), (TWO, key(2)), (THREE, key(2))]


def test_who_has_shown_it_needs_it_no_more(spread: Spread) -> None:
    spread.news(key(1), ONE, T0)
    spread.shown(key(1), TWO)
    assert spread.due(T0) == [(THREE, key(1))]


def test_a_link_that_is_gone_gets_nothing(spread: Spread) -> None:
    spread.news(key(1), ONE, T0)
    spread.link_down(TWO)
    assert spread.due(T0) == [(THREE, key(1))]
    spread.shown(key(1), TWO)


def test_each_link_has_its_rate(spread: Spread) -> None:
    for n in range(BURST + 3):
        spread.news(key(n), ONE, T0)
    assert len(spread.due(T0)) == 2 * BURST
    at = spread.deadline(T0)
    assert at is not None
    assert T0 < at <= T0 + 1_000 // PER_S + 1
    assert spread.due(at) == [(TWO, key(BURST)), (THREE, key(BURST))]
    assert len(spread.due(Instant(T0 + 60_000))) == 4
    assert spread.deadline(Instant(T0 + 60_000)) is None


def test_what_waits_is_bounded_and_the_newest_stays(spread: Spread) -> None:
    for n in range(BURST + WAITING_MAX + 5):
        spread.news(key(n), ONE, T0)
    later = Instant(T0 + 3_600_000)
    sent = [owner for link, owner in spread.due(later) if link == TWO]
    while more := spread.due(later := Instant(later + 60_000)):
        sent += [owner for link, owner in more if link == TWO]
    assert len(sent) == WAITING_MAX
    assert sent[-1] == key(BURST + WAITING_MAX + 4)


def test_an_owner_that_signs_all_the_time_is_passed_on_now_and_then(spread: Spread) -> None:
    sent = []
    for step in range(0, 6 * OWNER_MS, 500):
        now = Instant(T0 + step)
        spread.news(key(1), ONE, now)
        sent += [(now - T0, link) for link, _ in spread.due(now)]
    assert [at for at, link in sent if link == TWO] == [n * OWNER_MS for n in range(6)]
