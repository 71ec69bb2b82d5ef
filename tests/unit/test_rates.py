"""Buckets for posts: whoever floods waits, and nobody else does."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from quicprochat.core import rates
from quicprochat.core.ids import PeerKey
from quicprochat.core.rates import Arrival, RateLimits, Rates, Standing
from quicprochat.core.time import Instant

START = Instant(1_000_000)
LIMITS = RateLimits()


def key(name: str) -> PeerKey:
    return PeerKey(name.encode().ljust(32, b"."))


def post(author: str = "ann", channel: str = "news", via: str = "bob", **more: object) -> Arrival:
    return Arrival(key(author), key(channel), key(via), 100, **more)  # type: ignore[arg-type]


class House:
    """Buckets, and posts that come; each that has room is new."""

    def __init__(self, limits: RateLimits = LIMITS) -> None:
        self.rates, self.limits = Rates(), limits

    def comes(self, arrival: Arrival, now: Instant = START, *, new: bool = True) -> Standing:
        toll = self.rates.judge(arrival, self.limits, now)
        toll.pay(now, new=new)
        return toll.standing

    def taken(self, arrival: Arrival, count: int, now: Instant = START) -> int:
        """How many of so many are taken."""
        return sum(self.comes(arrival, now) is not Standing.OVER for _ in range(count))


def test_a_member_that_floods_waits_and_others_do_not() -> None:
    house = House()
    assert house.taken(post("loud"), 5_000) == 1_000
    assert house.taken(post("loud"), 5_000, Instant(START + 60_000)) == 60
    assert house.taken(post("ann"), 100) == 100
    assert house.taken(post("loud", "other channel", "other link"), 10, Instant(START + 60_000)) == 0


def test_authors_made_up_by_the_thousand_by_one_neighbour_share_a_bucket() -> None:
    house = House()
    made_up = (post(f"fake {n}", known=False) for n in range(10_000))
    assert sum(house.comes(arrival) is not Standing.OVER for arrival in made_up) == 1_000
    assert house.comes(post("ann")) is Standing.ORDINARY
    assert house.comes(post("new and honest", via="cat", known=False)) is Standing.ORDINARY
    assert house.comes(post("new and honest", "garden", known=False)) is Standing.ORDINARY
    later = Instant(START + 10_000)
    made_up = (post(f"more {n}", known=False) for n in range(1_000))
    assert sum(house.comes(arrival, later) is not Standing.OVER for arrival in made_up) == 20


def test_over_many_channels_a_neighbour_has_one_bucket_and_others_have_theirs() -> None:
    house = House()
    flood = (post(f"fake {n}", f"channel {n % 100}", known=False) for n in range(10_000))
    assert sum(house.comes(arrival) is not Standing.OVER for arrival in flood) == 4_000
    assert house.comes(post("new and honest", via="cat", known=False)) is Standing.ORDINARY


def test_one_channel_flooded_by_many_over_many_links_leaves_other_channels_alone() -> None:
    house = House()
    flood = (post(f"member {n % 20}", "square", f"link {n % 10}") for n in range(20_000))
    assert sum(house.comes(arrival) is Standing.ORDINARY for arrival in flood) == 4_000
    assert house.comes(post("member 0", "garden", "link 0")) is Standing.ORDINARY


def test_an_author_that_is_known_and_quiet_passes_where_a_channel_is_flooded() -> None:
    house = House()
    for n in range(20_000):
        house.comes(post(f"member {n % 20}", "square", f"link {n % 10}"))
    assert [house.comes(post("ann", "square")) for _ in range(17)] == [Standing.QUIET] * 16 + [Standing.OVER]
    assert house.comes(post("member 3", "square")) is Standing.OVER
    assert house.comes(post("stranger", "square", known=False)) is Standing.OVER


def test_keys_that_were_made_up_long_ago_cannot_all_be_quiet() -> None:
    house = House()
    house.taken(post("loud", "square", "cat"), 1_000)
    for n in range(4_000):
        house.comes(post(f"loud {n % 10}", "square", "dan"))
    flood = Counter(house.comes(post(f"aged {n}", "square")) for n in range(5_000))
    assert flood[Standing.QUIET] == 256
    assert house.comes(post("ann", "square", "cat")) is Standing.QUIET


def test_an_emergency_of_a_trusted_author_passes_whatever_is_flooded() -> None:
    house = House()
    house.taken(post("loud"), 5_000)
    assert house.comes(post("loud", emergency=True)) is Standing.EMERGENCY
    assert house.comes(post("loud")) is Standing.OVER


def test_too_many_emergencies_are_ordinary_posts() -> None:
    house = House()
    standings = Counter(house.comes(post(emergency=True)) for _ in range(2_000))
    assert standings == {Standing.EMERGENCY: 16, Standing.ORDINARY: 1_000, Standing.OVER: 984}
    assert house.comes(post(emergency=True), Instant(START + 60_001)) is Standing.EMERGENCY
    assert house.comes(post("fire brigade", emergency=True)) is Standing.EMERGENCY


def test_a_long_post_costs_more() -> None:
    house = House()
    long = replace(post(), size=131_072)
    assert house.taken(long, 1_000) == 1_000 // 33


def test_what_is_refused_costs_the_neighbour_and_nobody_whose_name_is_on_it() -> None:
    house = House()
    assert sum(house.comes(post("ann"), new=False) is not Standing.OVER for _ in range(6_000)) == 4_256
    assert house.comes(post("ann", "news", "cat")) is Standing.ORDINARY


def test_buckets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "BUCKETS_MAX", 10)
    house = House()
    for n in range(1_000):
        house.comes(post(f"author {n}", f"channel {n}", f"link {n}", known=False, emergency=bool(n % 2)))
    tables = [table for name, table in vars(house.rates).items() if isinstance(table, dict)]
    assert len(tables) == 6
    assert max(map(len, tables)) == 10
