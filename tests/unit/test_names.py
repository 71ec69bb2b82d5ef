"""Which names a person takes for each other."""

# ruff: noqa: RUF001
from __future__ import annotations

import pytest

from quicprochat.core.names import look_alike, skeleton

ALIKE = [
    ("ada", "Ada"),
    ("ada", "ADA"),
    ("ada", "аdа"),  # Cyrillic
    ("ada", "αda"),  # Greek
    ("ada", "ａｄａ"),  # full width
    ("ada", "𝐚𝐝𝐚"),
    ("ada", "a\u200bda"),
    ("ada", "\u202eada\u202c"),
    ("ada", "ada\u3164"),
    ("ada", " a d\u00a0a"),
    ("ada", "a\ufe0fda"),
    ("ada", "a\U000e0041da"),
    ("ada", "a\ud800da"),
    ("Jürgen", "Ju\u0308rgen"),
    ("straße", "STRASSE"),
    ("Ida", "lda"),
    ("Al", "A1"),
    ("Bob", "B0b"),
    ("ВЕТА", "BETA"),
    ("МОСТ", "MOCT"),
    ("ﬁn", "fin"),
]
APART = [("ada", "adam"), ("Jürgen", "Jurgen"), ("bob", "bod"), ("名前", "名"), ("מיכל", "מיכ"), ("ada", "")]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_what_looks_the_same_is_the_same(one: str, other: str) -> None:
    assert look_alike(one, other)
    assert look_alike(other, one)


@pytest.mark.parametrize(("one", "other"), APART)
def test_what_a_reader_can_tell_apart_is_not(one: str, other: str) -> None:
    assert not look_alike(one, other)


@pytest.mark.parametrize("name", ["", " ", "\u200b", "\u3164", "\x1b\x07", "\u2800\ufeff"])
def test_a_name_that_shows_nothing_is_like_no_other(name: str) -> None:
    assert skeleton(name) == ""
    assert not look_alike(name, name)


def test_beginnings_of_keys_stay_apart() -> None:
    """Contacts without a name of their own are called by these digits."""
    digits = "0123456789abcdef"
    assert len({skeleton(digit) for digit in digits}) == len(digits)
