"""The window of a channel: it slides, and nobody's posts push out those of the others."""

from __future__ import annotations

import pytest
from tests.conformance.rows import Step, held_post, key

from quicprochat.core.ids import ChannelId
from quicprochat.core.memory import MemoryStore
from quicprochat.core.store import Fate, Held, MeshStore, Scope
from quicprochat.core.time import Instant
from quicprochat.core.window import PostLimits, after_release, clear, release, slide

NOW = Instant(5_000)
NEWS = ChannelId(bytes(key("news")))


@pytest.fixture
def store() -> MeshStore:
    return MemoryStore(durable=True)


def put(store: MeshStore, limits: PostLimits, *items: Held) -> None:
    with Step(store) as tx:
        for item in items:
            tx.hold(item)
            if item.via:
                tx.remember(item.id, Fate.HELD, Instant(9_000))
            slide(tx, item, limits, NOW)


def names(store: MeshStore, *items: Held) -> list[int]:
    """Which of the items are still there."""
    return [n for n, item in enumerate(items) if store.held(item.id) is not None]


def test_the_newest_posts_of_our_own_are_kept(store: MeshStore) -> None:
    mine = [held_post(f"m{n}", src="me", via="") for n in range(5)]
    theirs = held_post("t")
    put(store, PostLimits(own=3, others=2), theirs, *mine)
    assert names(store, *mine) == [2, 3, 4]
    assert names(store, theirs) == [0], "ours pushed out theirs"
    assert store.fate(mine[0].id) is None


def test_others_posts_never_push_out_our_own(store: MeshStore) -> None:
    mine = [held_post(f"m{n}", src="me", via="") for n in range(3)]
    theirs = [held_post(f"t{n}", src="bob" if n % 2 else "cat") for n in range(9)]
    put(store, PostLimits(own=3, others=4, share=1), *mine, *theirs)
    assert names(store, *mine) == [0, 1, 2]
    assert names(store, *theirs) == [5, 6, 7, 8]
    assert store.fate(theirs[0].id) is Fate.GONE


def test_an_author_beyond_its_share_pushes_out_its_own(store: MeshStore) -> None:
    quiet = [held_post(f"q{n}", src="ann") for n in range(2)]
    loud = [held_post(f"l{n}", src="bob") for n in range(20)]
    put(store, PostLimits(others=8, share=0.25), *quiet, *loud)
    assert names(store, *quiet) == [0, 1]
    assert names(store, *loud) == [18, 19]


def test_bytes_count_like_posts(store: MeshStore) -> None:
    big = [held_post(f"b{n}", src="bob", size=1_000) for n in range(4)]
    small = held_post("s", src="ann", size=10)
    put(store, PostLimits(others_bytes=2 * len(big[0].wire), share=1), small, *big)
    assert names(store, *big) == [2, 3]
    assert names(store, small) == []


def test_an_authors_share_is_counted_in_bytes_too(store: MeshStore) -> None:
    big = [held_post(f"b{n}", src="bob", size=1_000) for n in range(3)]
    quiet = held_post("q", src="ann", size=1_000)
    put(store, PostLimits(others_bytes=4 * len(quiet.wire), share=0.25), quiet, *big)
    assert names(store, quiet, *big) == [0, 3]


def test_all_channels_together_are_bounded(store: MeshStore) -> None:
    here = [held_post(f"h{n}", size=1_000) for n in range(3)]
    there = [held_post(f"t{n}", channel="other", size=1_000) for n in range(3)]
    put(store, PostLimits(all_bytes=4 * len(here[0].wire), share=1), *here, *there)
    assert names(store, *here) == [0, 1, 2], "another channel is not emptied for a newcomer"
    assert names(store, *there) == [2]
    assert store.usage(Scope.POSTS).bytes <= 4 * len(here[0].wire)


def test_what_expired_or_was_left_is_remembered_as_gone(store: MeshStore) -> None:
    items = [held_post(f"h{n}") for n in range(300)]
    other = held_post("t", channel="other")
    mine = held_post("m", src="me", via="")
    put(store, PostLimits(share=1), *items, other, mine)
    with Step(store) as tx:
        release(tx, items[0].id, NOW)
    assert names(store, *items)[0] == 1
    with Step(store) as tx:
        clear(tx, NEWS, NOW)
    assert names(store, *items, mine) == []
    assert names(store, other) == [0]
    assert {store.fate(item.id) for item in items} == {Fate.GONE}
    with Step(store) as tx:
        assert tx.forget(Instant(after_release(NOW) - 1), 1_000) == 1, "the one that is still held"
        assert tx.forget(after_release(NOW), 1_000) == 300


def test_totals_that_count_what_is_not_there_end_no_loop(store: MeshStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after damage: the row is gone, the total has not noticed."""
    monkeypatch.setattr(store, "oldest", lambda *_: [])
    put(store, PostLimits(own=0, others=0), held_post("a"), held_post("b", src="me", via=""))
    assert names(store, held_post("a"), held_post("b", src="me", via="")) == [0, 1]
