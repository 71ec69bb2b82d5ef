"""Who follows which channel, in the server's file: kept, counted, and read anew after damage and undone steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from tests.conformance.rows import Step, key

from quicprochat.adapters.sqlite import ServerStore
from quicprochat.core.envelope import Header, Kind, make
from quicprochat.core.ids import ChannelId, EnvelopeId, PeerKey
from quicprochat.core.store import Fate, Held
from quicprochat.core.time import Instant, WallTime
from quicprochat.sim.crypto import SimCrypto

ADA, BOB = key("ada"), key("bob")
ROOF, SWAP, HILL = (ChannelId(bytes([n]) * 32) for n in (1, 2, 3))
NORTH, SOUTH = "north.example", "south.example"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "server.db"


@pytest.fixture
def store(path: Path) -> Iterator[ServerStore]:
    opened = ServerStore.open(path)
    yield opened
    opened.close()


def again(store: ServerStore, path: Path) -> ServerStore:
    store.close()
    return ServerStore.open(path)


def post(number: int, channel: ChannelId, via: PeerKey, size: int = 100) -> Held:
    signer = SimCrypto(b"posts").signer(b"author".ljust(32))
    made = make(Header(Kind.CHANNEL, signer.key, channel, number.to_bytes(16, "big")), bytes(size), signer)
    return Held(made.id, Kind.CHANNEL, made.src, channel, via, made.wire(), Instant(1), Instant(10**9))


def test_a_list_replaces_the_one_before_and_outlives_the_store(store: ServerStore, path: Path) -> None:
    with Step(store):
        store.follow(ADA, [ROOF, SWAP])
        store.follow(BOB, [ROOF])
    assert store.followed() == {ROOF: 2, SWAP: 1}
    with Step(store):
        store.follow(ADA, [ROOF, HILL])
    store = again(store, path)
    assert store.followed_by(ADA) == {ROOF, HILL}
    assert store.followed_by(BOB) == {ROOF}
    assert store.followed() == {ROOF: 2, HILL: 1}
    assert store.follow_count() == 3
    with Step(store):
        store.follow(ADA, ())
        store.follow(BOB, ())
    assert store.follow_count() == 0
    assert not store.followed()
    store.close()


def test_who_goes_follows_nothing_and_who_was_long_away_is_found(store: ServerStore) -> None:
    with Step(store):
        store.see_user(ADA, Instant(5), WallTime(5))
        store.see_user(BOB, Instant(9), WallTime(9))
        store.follow(ADA, [ROOF])
        store.follow(BOB, [ROOF, SWAP])
    assert list(store.idle_followers(Instant(6), 10)) == [ADA]
    assert set(store.idle_followers(Instant(10), 10)) == {ADA, BOB}
    assert len(store.idle_followers(Instant(10), 1)) == 1
    with Step(store):
        store.drop_user(BOB)
    assert store.followed() == {ROOF: 1}
    assert list(store.idle_followers(Instant(10), 10)) == [ADA]


def test_windows_are_counted_by_who_brought_them_also_after_a_restart(store: ServerStore, path: Path) -> None:
    posts = [post(n, ROOF, ADA if n else BOB) for n in range(4)] + [post(9, SWAP, BOB, 10_000)]
    with Step(store):
        serials = [store.hold(one) for one in posts]
        # Read within the step that wrote it.
        assert [id for _, id in store.post_ids(ROOF, 0, 10)] == [one.id for one in posts[:4]]
        assert list(store.brought(ROOF, ADA, 2)) == [one.id for one in posts[1:3]]
    store = again(store, path)
    assert store.newest_serial() == serials[-1]
    assert list(store.post_ids(ROOF, serials[0], 2)) == [(serials[n], posts[n].id) for n in (1, 2)]
    assert store.windows() == {ROOF, SWAP}
    assert store.widest() == SWAP
    assert store.crowds(ROOF) == ADA
    with Step(store):
        for one in posts[1:]:
            store.release(one.id)
    assert store.windows() == {ROOF}
    assert (store.widest(), store.crowds(ROOF), store.crowds(SWAP)) == (ROOF, BOB, None)
    store.close()


def test_what_other_domains_follow_is_kept_with_how_far_they_have_come(store: ServerStore, path: Path) -> None:
    with Step(store):
        store.take_interest(NORTH, [ROOF, SWAP])
        store.take_interest(SOUTH, [ROOF])
        store.come(NORTH, ROOF, 7)
        store.come(NORTH, HILL, 7)  # which it does not follow
    with Step(store):
        store.take_interest(NORTH, [ROOF])
    store = again(store, path)
    assert store.interests(NORTH) == {ROOF: 7, SWAP: 0}
    assert store.interested() == {NORTH, SOUTH}
    with Step(store):
        store.lose_interest(NORTH, [ROOF, HILL])
        store.take_interest(NORTH, [ROOF])
        store.lose_interest(SOUTH, [ROOF])
    assert store.interests(NORTH) == {ROOF: 0, SWAP: 0}
    assert store.interested() == {NORTH}
    store.close()


def test_a_step_that_is_undone_changes_nothing(store: ServerStore) -> None:
    with Step(store):
        store.follow(ADA, [ROOF])
        store.take_interest(NORTH, [ROOF])
    store.begin()
    store.follow(ADA, [SWAP])
    store.lose_interest(NORTH, [ROOF])
    store.hold(post(1, ROOF, ADA))
    store.rollback()
    assert store.followed() == {ROOF: 1}
    assert store.interests(NORTH) == {ROOF: 0}
    assert not store.windows()


def test_damaged_rows_are_nobodys_and_mended_when_the_user_says_it_again(store: ServerStore, path: Path) -> None:
    with Step(store):
        store.follow(ADA, [ROOF, SWAP])
        store.take_interest(NORTH, [ROOF, SWAP])
    store.close()
    db = apsw.Connection(str(path))
    db.execute("UPDATE follow SET checksum = x'00' WHERE channel = ?", (ROOF,))
    db.execute("UPDATE interest SET checksum = x'00' WHERE channel = ?", (ROOF,))
    db.close()
    store = ServerStore.open(path)
    assert store.followed_by(ADA) == {SWAP}
    assert store.interests(NORTH) == {SWAP: 0}
    with Step(store):
        store.follow(ADA, [ROOF, SWAP])
        store.take_interest(NORTH, [ROOF, SWAP])
    store = again(store, path)
    assert store.followed_by(ADA) == {ROOF, SWAP}
    assert store.followed() == {ROOF: 1, SWAP: 1}
    assert store.interests(NORTH) == {ROOF: 0, SWAP: 0}
    store.close()


def test_an_id_that_is_forgotten_may_come_again(store: ServerStore) -> None:
    one = post(1, ROOF, ADA)
    with Step(store):
        store.hold(one)
        store.remember(one.id, Fate.HELD, Instant(10**9))
    with Step(store):
        store.release(one.id)
        store.forget_ids([one.id])
        assert store.fate(EnvelopeId(one.id)) is None
    assert store.fate(one.id) is None
