"""What is remembered of neighbours: what they said they have, within bounds."""

from __future__ import annotations

from hashlib import sha256

from tests.unit.carriers import key

from quicprochat.core.acquaintance import IDS_MAX, NEIGHBOURS_MAX, Acquaintance, Acquaintances
from quicprochat.core.ids import EnvelopeId


def ids(word: str, count: int) -> set[EnvelopeId]:
    return {EnvelopeId(sha256(f"{word} {n}".encode()).digest()) for n in range(count)}


def test_what_was_said_is_remembered_until_comparing_shows_otherwise() -> None:
    known, held = Acquaintance(), ids("held", 10)
    assert known.perhaps_lacking(held, 10) == held
    assert known.perhaps_lacking(held, 9) is None
    said = ids("held", 4)
    known.has(said, held)
    assert known.perhaps_lacking(held, 9) == held - said
    one = next(iter(said))
    known.lacks(one)
    assert one not in known
    assert known.perhaps_lacking(held, 9) == held - said | {one}


def test_who_says_that_it_has_everything_takes_a_bounded_place() -> None:
    known, held = Acquaintance(), ids("held", 10)
    known.has(held, held)
    known.has(ids("made up", IDS_MAX), held)
    assert known.perhaps_lacking(held, 0) == set(), "what we hold is kept, what does not matter goes"
    many = ids("many", IDS_MAX + 1)
    known.has(many, many)
    assert not any(id in known for id in many)


def test_of_too_many_neighbours_the_one_met_longest_ago_is_forgotten() -> None:
    all, held = Acquaintances(), ids("held", 1)
    for n in range(NEIGHBOURS_MAX):
        all.meet(key(str(n))).has(held, held)
    all.meet(key("0"))
    all.meet(key("new"))
    assert all.meet(key("0")).perhaps_lacking(held, 1) == set()
    assert all.meet(key("1")).perhaps_lacking(held, 1) == held
