"""What makes room: chosen as described, in time that does not grow with what is held."""

from __future__ import annotations

from hashlib import sha256
from time import process_time

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.carriers import parcel

from quicprochat.core.heaviest import Heaviest
from quicprochat.core.shelf import Shelf

CHANGES = st.lists(st.tuples(st.integers(0, 4), st.integers(-30, 30)), max_size=300)


@given(CHANGES)
def test_the_heaviest_is_what_a_look_at_all_would_find(changes: list[tuple[int, int]]) -> None:
    heaviest, weights = Heaviest[int](), dict[int, int]()
    for key, by in changes:
        by = max(by, -weights.get(key, 0))
        if by == 0:
            continue
        heaviest.add(key, by)
        weights[key] = weights.get(key, 0) + by
        if not weights[key]:
            del weights[key]
        top = heaviest.top()
        assert (None if top is None else weights[top]) == max(weights.values(), default=None)
        assert bool(heaviest) == bool(weights)


def test_of_the_heaviest_link_the_heaviest_author_gives_and_of_that_the_oldest() -> None:
    shelf = Shelf(1 << 30, 0)
    for name, src, via, size in (
        ("a", "ann", "north", 300), ("b", "bob", "south", 250), ("c", "cat", "south", 260), ("d", "cat", "south", 270),
    ):  # fmt: skip
        shelf.put(parcel(name, src=src, via=via, size=size))
    order = []
    while (victim := shelf.victim(lambda one: ())) is not None:
        order.append(victim.id)
        shelf.pop(victim.id)
    # South weighs 780, then 520 (ann: 300), then 250 and so less than north.
    assert order == [parcel(name).id for name in "cdab"]
    assert not shelf.over


def us_per_victim(held: int, *, authors: int, links: int) -> float:
    """Return what it takes to put one more and let one go, in microseconds."""
    turns = 2_000
    parcels = [parcel(str(n), src=f"author {n % authors}", via=f"link {n % links}") for n in range(held + turns)]
    shelf = Shelf(1 << 40, held)
    for each in parcels[:held]:
        shelf.put(each)
    assert shelf.victim(lambda one: (sha256(one.id).digest()[0],)) is not None
    began = process_time()
    for each in parcels[held:]:
        shelf.put(each)
        victim = shelf.victim(lambda one: (one.handed,))
        assert victim is not None
        shelf.pop(victim.id)
    return (process_time() - began) / turns * 1e6


def test_making_room_does_not_take_longer_with_more_held() -> None:
    """16 times as much: linear time would be 16 times as long."""
    for authors, links in ((1, 1), (10**9, 1), (10**9, 10**9)):
        small = min(us_per_victim(500, authors=authors, links=links) for _ in range(3))
        large = min(us_per_victim(8_000, authors=authors, links=links) for _ in range(3))
        assert large < 4 * small, (authors, links, small, large)
