"""What owners and members say: the bytes, and whose word counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.conformance.vectors import Case, each

from quicprochat.core.channel import BroadcastChannel, Post, Subscription
from quicprochat.core.charter import (
    NUMBER_MAX,
    POSTERS_MAX,
    TYPE_CHARTER,
    TYPE_WORD,
    Charter,
    Word,
    fits,
    may_write,
)
from quicprochat.core.errors import WireError
from quicprochat.core.ids import ChannelId, PeerKey, Uid
from quicprochat.core.rotation import ChannelKey

OWNER, POSTER, OTHER = (PeerKey(bytes([n]) * 32) for n in (1, 2, 3))
NEWS = Subscription(BroadcastChannel.private(b"s" * 32, "news", OWNER, announce=True), charter=1, posters=(POSTER,))
FAMILY = Subscription(BroadcastChannel.private(b"f" * 32, "family", OWNER))


def post(type: int = 1, body: bytes = b"") -> Post:
    return Post(Uid(bytes(16)), 0, "hi" if type == 1 else "", type=type, body=body)


def test_everybody_writes_into_a_private_channel_and_the_listed_into_an_announcement_channel() -> None:
    assert all(may_write(FAMILY, author) for author in (OWNER, POSTER, OTHER))
    assert [may_write(NEWS, author) for author in (OWNER, POSTER, OTHER)] == [True, True, False]
    assert [may_write(replace(NEWS, posters=()), author) for author in (OWNER, POSTER)] == [True, False]


def test_words_are_taken_from_everybody_and_charters_from_the_owner() -> None:
    word, charter = post(TYPE_WORD, Word(True, 1).encode()), post(TYPE_CHARTER, Charter(2).encode())
    assert all(fits(NEWS, author, word) for author in (OWNER, POSTER, OTHER))
    assert [fits(NEWS, author, charter) for author in (OWNER, POSTER, OTHER)] == [True, False, False]
    nobody = replace(FAMILY, channel=replace(FAMILY.channel, owner=b""))
    assert not fits(nobody, OTHER, charter), "a channel without a known owner has no charter"


@pytest.mark.parametrize("type", [TYPE_WORD, TYPE_CHARTER])
def test_what_is_not_in_order_fits_nowhere(type: int) -> None:
    assert not fits(NEWS, OWNER, post(type, b"nonsense"))


def test_a_post_of_a_later_version_is_taken_from_who_may_write() -> None:
    assert [fits(NEWS, author, post(200, b"?")) for author in (OWNER, POSTER, OTHER)] == [True, True, False]


def test_as_many_posters_as_allowed_fit_and_no_more() -> None:
    keys = tuple(PeerKey(n.to_bytes(32, "big")) for n in range(POSTERS_MAX + 1))
    full = Charter(NUMBER_MAX, keys[:-1])
    assert Charter.decode(full.encode()) == full
    with pytest.raises(AssertionError):
        Charter(1, keys).encode()


@each("charters")
def test_the_vectors_are_charters(case: Case) -> None:
    found = Charter.decode(case["body"])
    assert (found.version, list(found.posters)) == (case["version"], case["posters"])
    assert found.encode() == case["body"]


@each("charters_refused")
def test_the_vectors_that_are_no_charters_are_refused(case: Case) -> None:
    with pytest.raises(WireError):
        Charter.decode(case["body"])


@each("words")
def test_the_vectors_are_words(case: Case) -> None:
    found = Word.decode(case["body"])
    assert (found.joined, found.number) == (case["joined"], case["number"])
    assert found.encode() == case["body"]


@each("words_refused")
def test_the_vectors_that_are_no_words_are_refused(case: Case) -> None:
    with pytest.raises(WireError):
        Word.decode(case["body"])


@each("channel_keys")
def test_the_vectors_are_channel_keys(case: Case) -> None:
    key = ChannelKey(ChannelId(case["id"]), case["epoch"], case["secret"])
    assert ChannelKey.decode(case["body"]) == key
    assert key.encode() == case["body"]
    assert case["secret"].hex() not in repr(key) + key.reference
    for wrong in (case["body"][:-1], case["body"] + b"!", b""):
        with pytest.raises(WireError):
            ChannelKey.decode(wrong)
