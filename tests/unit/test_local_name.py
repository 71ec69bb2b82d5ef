"""What a name at a home server may be."""

# ruff: noqa: RUF001
from __future__ import annotations

import pytest

from quicprochat.core.errors import LocalError
from quicprochat.core.local_name import NAME_MAX_CHARS, RESERVED, local_name


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("bob", "bob"),
        ("Bob", "bob"),
        ("BOB", "bob"),
        ("ｂｏｂ", "bob"),
        ("Straße", "strasse"),
        ("Jürgen", "jürgen"),
        ("Ju\u0308rgen", "jürgen"),
        ("anna-lena", "anna-lena"),
        ("a.b_c-1", "a.b_c-1"),
        ("маша", "маша"),
        ("山田たろう", "山田たろう"),
        ("deadbee", "deadbee"),
        ("x" * NAME_MAX_CHARS, "x" * NAME_MAX_CHARS),
    ],
)
def test_a_name_is_kept_in_one_form(written: str, kept: str) -> None:
    assert local_name(written) == kept
    assert local_name(kept) == kept


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("", "2 to 32"),
        ("x", "2 to 32"),
        ("x" * (NAME_MAX_CHARS + 1), "2 to 32"),
        ("\ufdfa" * 10, "2 to 32"),  # one character that NFKC makes eighteen
        ("字" * 22, "64 bytes"),
        ("x" * 200, "at most 32"),
        ("a b", "letters and digits"),
        ("a@b", "letters and digits"),
        ("a/b", "letters and digits"),
        ("a\x1b[2Jb", "letters and digits"),
        ("a\u200bb", "letters and digits"),
        ("a\u202eb", "letters and digits"),
        ("a\ud800b", "letters and digits"),
        ("a--b", "letters and digits"),
        (".ab", "letters and digits"),
        ("ab-", "letters and digits"),
        ("\u0301ab", "letters and digits"),
        ("💥💥", "letters and digits"),
        ("pаypal", "one alphabet"),  # the second letter is Cyrillic
        ("bobβ", "one alphabet"),
        ("deadbeef", "beginning of a key"),
        ("12345678", "beginning of a key"),
        ("f" * 32, "beginning of a key"),
        ("admin", "reserved"),
        ("Adm1n", "reserved"),
        ("ROOT", "reserved"),
        ("r00t", "reserved"),
        ("ѕуѕтем", "reserved"),  # every letter Cyrillic
    ],
)
def test_what_is_no_name_is_refused_in_a_sentence(written: str, why: str) -> None:
    with pytest.raises(LocalError, match=why):
        local_name(written)


def test_reserved_names_would_be_names_otherwise() -> None:
    """A word in the list that no rule lets through would be there for nothing."""
    for name in RESERVED:
        with pytest.raises(LocalError, match="reserved"):
            local_name(name)
