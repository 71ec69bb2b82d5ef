"""Reconciliation: both sides learn exactly what the other lacks, cheaply, and whatever the other side says."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quicprochat.core.entries import COARSE_MS, Entry, EntrySet, entry_of, id_of
from quicprochat.core.errors import WireError
from quicprochat.core.ids import EnvelopeId
from quicprochat.core.reconcile import (
    REPLY_MAX_BYTES,
    STEPS_MAX,
    Mode,
    Range,
    Ranges,
    Reconciler,
)
from quicprochat.core.time import Instant

NEVER = Instant(10**15)
SALT = bytes(range(16))
FRAME_BYTES = 5
YEAR_2026 = 1_780_000_000_000


def an_entry(number: int, created_ms: int) -> Entry:
    return entry_of(created_ms, EnvelopeId(sha256(b"%d" % number).digest()))


def entries(count: int) -> list[Entry]:
    """Messages written a minute after each other."""
    return [an_entry(number, YEAR_2026 + 60_000 * number) for number in range(count)]


def set_of(some: list[Entry] | set[Entry]) -> EntrySet:
    made = EntrySet()
    for entry in some:
        made.add(entry, NEVER)
    return made


@dataclass
class Talk:
    """What one reconciliation came to."""

    lacking: tuple[set[Entry], set[Entry]] = field(default_factory=lambda: (set(), set()))
    """What the beginner found the other lacks, and what the other found the beginner lacks."""
    sizes: list[int] = field(default_factory=list)
    all_done: bool = False

    @property
    def bytes(self) -> int:
        return sum(self.sizes) + FRAME_BYTES * len(self.sizes)

    @property
    def round_trips(self) -> float:
        return len(self.sizes) / 2


def reconcile(mine: EntrySet, theirs: EntrySet) -> Talk:
    talk, sides = Talk(), (Reconciler(mine, SALT), Reconciler(theirs, SALT))
    frame: Ranges | None = sides[0].begin(SALT)
    turn = 1
    while frame is not None:
        body = frame.encode()
        talk.sizes.append(len(body))
        found = sides[turn].heard(Ranges.decode(body))
        talk.lacking[turn].update(found.lacking)
        frame, turn = found.reply, 1 - turn
    talk.all_done = sides[0].done and sides[1].done
    return talk


def exact(mine: set[Entry], theirs: set[Entry]) -> Talk:
    talk = reconcile(set_of(mine), set_of(theirs))
    assert talk.lacking == (mine - theirs, theirs - mine)
    assert talk.all_done
    return talk


ALL = entries(10_020)


def test_equal_sets_cost_one_digest() -> None:
    talk = exact(set(ALL), set(ALL))
    assert talk.bytes <= 45
    assert len(talk.sizes) == 2


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (ALL, ALL[:-20]),
        (ALL[:-20], ALL),
        (ALL[:-10], ALL[:-20] + ALL[-10:]),
        (ALL[:-20] + ALL[-20::2], ALL[:-20] + ALL[-19::2]),
    ],
)
def test_twenty_recent_differences_among_ten_thousand_take_two_kilobytes(
    mine: list[Entry], theirs: list[Entry]
) -> None:
    talk = exact(set(mine), set(theirs))
    assert talk.bytes <= 2_000
    assert talk.round_trips <= 4


@pytest.mark.parametrize("clock", [True, False])
def test_twenty_scattered_differences_take_ten_kilobytes(clock: bool) -> None:
    everything = ALL if clock else [entry_of(0, id_of(entry)) for entry in ALL]
    for seed in range(5):
        gone = random.Random(seed).sample(everything, 20)
        for mine, theirs in (
            (everything, set(everything) - set(gone)),
            (set(everything) - set(gone[:10]), set(everything) - set(gone[10:])),
        ):
            talk = exact(set(mine), set(theirs))
            assert talk.bytes <= 10_000
            assert talk.round_trips <= 4


def test_one_side_without_anything_is_told_so_in_three_frames() -> None:
    assert exact(set(ALL), set()).bytes <= 80
    assert exact(set(), set(ALL)).bytes <= 800
    assert exact(set(), set()).bytes <= 45


NUMBERS = st.integers(0, 400)


@settings(max_examples=150, deadline=None)
@given(st.sets(NUMBERS, max_size=200), st.sets(NUMBERS, max_size=200), st.sampled_from([1, 3, 400]))
def test_any_two_sets_learn_what_the_other_lacks(one: set[int], other: set[int], spread: int) -> None:
    """Also where many were written in the same millisecond, as without clocks."""
    exact({an_entry(n, n // spread) for n in one}, {an_entry(n, n // spread) for n in other})


def test_clocks_that_show_1970_or_2100_or_nonsense_make_no_difference() -> None:
    odd = [an_entry(n, created) for n, created in enumerate((0, 1, YEAR_2026, 4_102_444_800_000, 2**64 - 1))]
    exact(set(odd[::2]), set(odd[1::2]))
    exact(set(odd), set())


def test_very_different_sets_end_within_bounds_and_say_only_what_is_true() -> None:
    many = entries(40_000)
    talk = reconcile(set_of(many[::2]), set_of(many[1::2]))
    assert talk.all_done
    assert len(talk.sizes) <= STEPS_MAX
    assert max(talk.sizes) <= 4 * REPLY_MAX_BYTES
    assert talk.lacking[0] <= set(many[::2])
    assert talk.lacking[1] <= set(many[1::2])
    assert many[-2] in talk.lacking[0], "what is recent is found first"


def test_a_set_that_grows_meanwhile_does_no_harm() -> None:
    mine, theirs = set_of(ALL[:500]), set_of(ALL[:480])
    one, other = Reconciler(mine, SALT), Reconciler(theirs, SALT)
    found = other.heard(one.begin(SALT))
    mine.add(ALL[600], NEVER)
    theirs.add(ALL[700], NEVER)
    lacking, sides = set[Entry](), (one, other)
    turn = 0
    while found.reply is not None:
        found = sides[turn].heard(found.reply)
        lacking |= set(found.lacking) if turn == 0 else set()
        turn = 1 - turn
    assert one.done
    assert other.done
    assert set(ALL[480:500]) <= lacking


def test_another_salt_gives_other_fingerprints_and_names() -> None:
    """Otherwise somebody could make envelopes beforehand that hide another."""
    some = set_of(ALL[:5])
    frames = []
    for salt in (SALT, bytes(16)):
        whole = Range(b"", Mode.FINGERPRINT, b"notthat!")
        answer = Reconciler(some, salt).heard(Ranges(0, (whole,), salt)).reply
        assert answer is not None
        frames.append((Reconciler(some, salt).begin(salt).ranges[0].fingerprint, answer.ranges[0].names))
    assert frames[0][0] != frames[1][0]
    assert not set(frames[0][1]) & set(frames[1][1])


# --- bad input


def test_a_frame_out_of_turn_is_an_error() -> None:
    some = set_of(ALL[:100])
    for step in (1, 2, 5):
        with pytest.raises(WireError, match="step"):
            Reconciler(some, SALT).heard(Ranges(step, (Range(b"", Mode.FINGERPRINT, bytes(8)),)))
    side = Reconciler(some, SALT)
    side.heard(Reconciler(some, SALT).begin(SALT))
    assert side.done
    with pytest.raises(WireError, match="step"):
        side.heard(Ranges(2, ()))


def test_a_peer_that_never_agrees_is_heard_out_only_so_often() -> None:
    side = Reconciler(set_of(ALL[:100]), SALT)
    step = 0
    while not side.done:
        side.heard(Ranges(step, (Range(b"", Mode.FINGERPRINT, bytes(8)),), SALT if step == 0 else b""))
        step += 2
    assert step <= STEPS_MAX


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "cut short"),
        (b"\x00" + SALT, "cut short"),
        (bytes([STEPS_MAX]) + bytes(2), "step"),
        (b"\x01\xff\xff", "ranges"),
        (b"\x01\x00\x01", "fewer"),
        (b"\x01\x00\x01\x40\x00" + bytes(7), "cut short"),
        (b"\x01\x00\x01\x40\x00" + bytes(9), "after its end"),
        (b"\x01\x00\x01\x80\x00\xff\xff" + bytes(80), "cut short"),
        (b"\x01\x00\x01\x01\x00", "does not fit"),
        (b"\x01\x00\x01\x00\x29" + bytes(41), "does not fit"),
        (b"\x01\x00\x02\x00\x01\x05\x00\x01\x04", "ascend"),
        (b"\x01\x00\x02\x00\x01\x05\x00\x01\x05", "ascend"),
        (b"\x01\x00\x02\x00\x02\x05\x00\x00\x02\x05\x01", "ascend"),
        (b"\x01\x00\x02\x00\x00\x00\x01\x05", "fewer"),
    ],
)
def test_a_frame_that_is_not_one_is_a_wire_error(body: bytes, word: str) -> None:
    with pytest.raises(WireError, match=word):
        Ranges.decode(body)


# --- the set


def test_entries_leave_when_they_expire_and_not_before() -> None:
    some = EntrySet()
    some.add(ALL[0], Instant(COARSE_MS))
    some.add(ALL[1], Instant(COARSE_MS + 1))
    assert some.next_end() == COARSE_MS
    some.expire(Instant(COARSE_MS - 1))
    assert len(some) == 2
    some.expire(Instant(COARSE_MS))
    assert id_of(ALL[0]) not in some
    assert id_of(ALL[1]) in some
    assert some.next_end() == 2 * COARSE_MS


def test_a_full_set_lets_go_of_what_ends_first() -> None:
    some = EntrySet(limit=3)
    for number, end in enumerate((9, 1, 5, 7)):
        some.add(ALL[number], Instant(end * COARSE_MS))
    assert [id_of(entry) in some for entry in ALL[:4]] == [True, False, True, True]
    assert len(some) == 3


def test_the_digest_over_all_follows_every_change() -> None:
    some = set_of(ALL[:3])
    seen = {some.digest(0, 3)}
    some.add(ALL[5], Instant(COARSE_MS))
    seen.add(some.digest(0, 4))
    some.expire(Instant(COARSE_MS))
    assert some.digest(0, 3) in seen
    assert len(seen) == 2
    assert not some.add(ALL[0], NEVER)


@settings(max_examples=100, deadline=None)
@given(st.lists(NUMBERS, unique=True, max_size=200), st.data())
def test_a_range_hashes_alike_however_it_came_about(numbers: list[int], data: st.DataObject) -> None:
    """Hashes of blocks that were kept are those of a set made at once; and one that lacks an entry differs."""
    grown = EntrySet()
    for number in numbers:
        grown.add(an_entry(number, number), NEVER)
        grown.digest(0, len(grown))
    made = set_of([an_entry(number, number) for number in sorted(numbers)])
    start = data.draw(st.integers(0, len(numbers)))
    end = data.draw(st.integers(start, len(numbers)))
    other = data.draw(st.integers(0, len(numbers)))
    assert grown.digest(start, end) == made.digest(start, end) == set_of(made.slice(0, end)).digest(start, end)
    if (start, end) != (other, end) and start < end:
        assert made.digest(other, end) != made.digest(start, end)
