"""Who becomes a user of a home server, and by which name; what is kept of records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.conformance.rows import Step, held, key

from quicprochat.adapters.crypto import Ed25519Signer, SodiumCrypto
from quicprochat.adapters.sqlite import ServerStore
from quicprochat.adapters.system import entropy
from quicprochat.core.errors import LocalError
from quicprochat.core.ids import PeerKey
from quicprochat.core.record import PeerRecord, sign_record
from quicprochat.core.time import DAY_MS, WALL_FLOOR, Instant, Now, WallTime
from quicprochat.server import members as module
from quicprochat.server.directory import find_name, find_record, publish, read_record
from quicprochat.server.members import IDLE_MS, SEEN_EVERY_MS, Members, Registration, Rules, invite_hash, new_invite

ADA, BOB, EVE = key("ada"), key("bob"), key("eve")
CRYPTO = SodiumCrypto(entropy)
SIGNER = Ed25519Signer(bytes(32))
DAYS = 86_400


def now(at: int = 0) -> Now:
    return Now(Instant(1_000_000 + at), WallTime(WALL_FLOOR + at), trusted=True)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ServerStore]:
    opened = ServerStore.open(tmp_path / "server.db")
    yield opened
    opened.close()


def welcome(members: Members, store: ServerStore, who: PeerKey, at: int = 0) -> bool:
    with Step(store):
        return members.welcome(store, who, now(at))


def register(members: Members, store: ServerStore, who: PeerKey, name: str, invite: str = "", at: int = 0) -> str:
    with Step(store):
        return members.register(store, who, name, invite, now(at))


def invite(members: Members, store: ServerStore, code: str, lifetime: int = DAY_MS) -> None:
    with Step(store):
        members.invite(store, code, Instant(now().at + lifetime), now())


# --- becoming a user


def test_in_an_open_server_connecting_is_enough(store: ServerStore) -> None:
    members = Members(Rules())
    assert not members.local(store, ADA)
    assert welcome(members, store, ADA)
    assert members.local(store, ADA)


def test_an_open_server_that_is_full_keeps_its_users_and_says_why(store: ServerStore) -> None:
    members = Members(Rules(users_max=1))
    assert welcome(members, store, ADA)
    assert not welcome(members, store, BOB)
    assert welcome(members, store, ADA)
    refusal = members.refusal(BOB)
    assert refusal is not None
    assert refusal[0] == "full"


def test_by_invite_one_key_becomes_a_user_once(store: ServerStore) -> None:
    members = Members(Rules(Registration.INVITE))
    assert not welcome(members, store, ADA)
    assert members.refusal(ADA) is None
    with pytest.raises(LocalError, match="by invite only"):
        register(members, store, ADA, "ada")
    invite(members, store, "ABCD-EFGH-IJKL-MNOP")
    with pytest.raises(LocalError, match="used already, is too old, or was mistyped"):
        register(members, store, ADA, "", "ABCD-EFGH-IJKL-MNOQ")
    assert register(members, store, ADA, "", "abcd efgh 1jkl mn0p") == ""
    assert members.local(store, ADA)
    with pytest.raises(LocalError, match="used already"):
        register(members, store, BOB, "", "ABCD-EFGH-IJKL-MNOP")
    assert not members.local(store, BOB)


def test_an_invite_expires(store: ServerStore) -> None:
    members = Members(Rules(Registration.INVITE))
    invite(members, store, "CODE", lifetime=10)
    with pytest.raises(LocalError, match="too old"):
        register(members, store, ADA, "", "CODE", at=10)
    assert register(members, store, ADA, "", "CODE", at=9) == ""


def test_an_invite_is_not_spent_on_a_name_that_is_refused(store: ServerStore) -> None:
    members = Members(Rules(Registration.INVITE))
    invite(members, store, "CODE")
    for name in ("admin", "x"):
        with pytest.raises(LocalError):
            register(members, store, ADA, name, "CODE")
    assert store.user_count() == 0
    assert register(members, store, ADA, "Ada", "CODE") == "ada"


def test_invites_are_stored_as_hashes_and_bounded(store: ServerStore, monkeypatch: pytest.MonkeyPatch) -> None:
    members = Members(Rules(Registration.INVITE))
    code = new_invite(lambda count: bytes(range(count)))
    assert code == "AAAQ-EAYE-AUDA-OCAJ"
    invite(members, store, code)
    rows = store._db.execute("SELECT hash FROM invite").fetchall()
    assert rows == [(invite_hash(code),)]
    assert code.encode() not in invite_hash(code)
    monkeypatch.setattr(module, "INVITES_MAX", 1)
    with pytest.raises(LocalError, match="invites are open"):
        invite(members, store, "ANOTHER")


def test_a_list_makes_users_and_unmakes_them(store: ServerStore) -> None:
    members = Members(Rules(Registration.LIST, listed=frozenset({ADA})))
    assert members.local(store, ADA), "mail for a listed key is taken before it was ever here"
    assert welcome(members, store, ADA)
    assert not welcome(members, store, BOB)
    refusal = members.refusal(BOB)
    assert refusal is not None
    assert refusal[0] == "policy"
    invite(members, store, "CODE")
    with pytest.raises(LocalError, match="operator's list"):
        register(members, store, BOB, "bob", "CODE")
    assert register(members, store, ADA, "ada") == "ada"
    members.rules = replace(members.rules, listed=frozenset())
    assert not members.local(store, ADA)
    assert not welcome(members, store, ADA)


def test_a_listed_key_may_have_a_name_before_its_first_visit_is_noted(store: ServerStore) -> None:
    members = Members(Rules(Registration.LIST, listed=frozenset({ADA})))
    assert register(members, store, ADA, "ada") == "ada"
    assert find_name(store, "ada") == ADA


def test_users_stay_when_registration_closes(store: ServerStore) -> None:
    members = Members(Rules())
    welcome(members, store, ADA)
    members.rules = Rules(Registration.INVITE)
    assert welcome(members, store, ADA)
    assert not welcome(members, store, BOB)


@pytest.mark.parametrize("registration", list(Registration))
def test_a_blocked_key_is_nobody(store: ServerStore, registration: Registration) -> None:
    welcome(Members(Rules()), store, ADA)
    members = Members(Rules(registration, listed=frozenset({ADA}), blocked=frozenset({ADA})))
    assert not members.local(store, ADA)
    assert not welcome(members, store, ADA)
    invite(members, store, "CODE")
    with pytest.raises(LocalError, match="blocked this key"):
        register(members, store, ADA, "ada", "CODE")


# --- names


def test_a_name_is_bound_to_the_key_that_came_first(store: ServerStore) -> None:
    members = Members(Rules())
    for one in (ADA, BOB):
        welcome(members, store, one)
    assert register(members, store, ADA, "Ada") == "ada"
    assert register(members, store, ADA, "ada") == "ada"
    for name in ("ada", "ADA"):
        with pytest.raises(LocalError, match="belongs to another key"):
            register(members, store, BOB, name)
    with pytest.raises(LocalError, match="looks like one"):
        register(members, store, BOB, "аԁа")  # noqa: RUF001 - Cyrillic
    with pytest.raises(LocalError, match="names do not change"):
        register(members, store, ADA, "ada2")
    assert find_name(store, "Ada") == ADA
    for unknown in ("bob", "", "a b", "x" * 10_000):
        with pytest.raises(LocalError, match="nobody has this name") as error:
            find_name(store, unknown)
        assert error.value.code == "not_found"


def test_a_user_needs_a_name_to_register(store: ServerStore) -> None:
    members = Members(Rules())
    welcome(members, store, ADA)
    with pytest.raises(LocalError, match="a name is missing"):
        register(members, store, ADA, "", "CODE")


# --- leaving


def test_a_visit_is_noted_no_finer_than_it_says(store: ServerStore) -> None:
    members = Members(Rules())
    welcome(members, store, ADA, at=0)
    welcome(members, store, ADA, at=SEEN_EVERY_MS - 1)
    with Step(store):
        members.leave(store, ADA, now(SEEN_EVERY_MS - 1))
        members.leave(store, BOB, now())
    user = store.user(ADA)
    assert user is not None
    assert user.last_seen == WALL_FLOOR
    assert store.user(BOB) is None
    with Step(store):
        members.leave(store, ADA, now(SEEN_EVERY_MS))
    user = store.user(ADA)
    assert user is not None
    assert user.last_seen == WALL_FLOOR + SEEN_EVERY_MS


def test_a_removed_user_leaves_nothing(store: ServerStore) -> None:
    members = Members(Rules())
    welcome(members, store, ADA)
    register(members, store, ADA, "ada")
    with Step(store):
        for n in range(3):
            store.hold(held(str(n), dst="ada"))
        store.hold(held("7", dst="bob"))
        assert members.remove(store, ADA) == 3
    assert not members.local(store, ADA)
    assert store.waiting(ADA, 0, 10) == []
    assert len(store.waiting(BOB, 0, 10)) == 1
    assert store.user_named("ada") is None
    with pytest.raises(LocalError, match="no user here"), Step(store):
        members.remove(store, ADA)


def test_who_never_comes_back_is_forgotten_unless_named_or_here(store: ServerStore) -> None:
    members = Members(Rules())
    for one in (ADA, BOB, EVE):
        welcome(members, store, one)
    register(members, store, ADA, "ada")
    invite(members, store, "CODE")
    with Step(store):
        assert members.forget_idle(store, now(IDLE_MS), {BOB}, 10) == 0
        assert members.forget_idle(store, now(IDLE_MS + 1), {BOB}, 10) == 2
        assert members.forget_idle(store, now(IDLE_MS + 1), {BOB}, 10) == 0
    assert [members.local(store, one) for one in (ADA, BOB, EVE)] == [True, True, False]
    assert store._db.execute("SELECT count(*) FROM invite").get == 0, "old invites went too"


# --- records


def record(seq: int, *, created_ms: int = 0, lifetime_s: int = DAYS, name: str = "") -> bytes:
    return sign_record(PeerRecord(SIGNER.key, 1, seq, created_ms, lifetime_s, name=name), SIGNER)


def put(store: ServerStore, data: bytes, age_ms: int = 0, at: int = 0) -> bool:
    with Step(store):
        return publish(store, read_record(data, SIGNER.key, CRYPTO), age_ms, now(at))


def test_a_record_comes_back_with_its_age(store: ServerStore) -> None:
    assert find_record(store, SIGNER.key, now(), CRYPTO) == (b"", 0)
    assert put(store, record(1), age_ms=500)
    assert find_record(store, SIGNER.key, now(40), CRYPTO) == (record(1), 540)
    assert not put(store, record(1), age_ms=100, at=40)
    assert find_record(store, SIGNER.key, now(40), CRYPTO) == (record(1), 540), "no younger by being told again"


def test_the_newest_record_stays(store: ServerStore) -> None:
    assert put(store, record(2))
    for data in (record(1), record(2, name="another")):
        assert not put(store, data)
        assert find_record(store, SIGNER.key, now(), CRYPTO)[0] == record(2)
    assert put(store, record(3))
    assert find_record(store, SIGNER.key, now(), CRYPTO)[0] == record(3)


def test_a_record_that_is_not_the_publishers_own_is_refused() -> None:
    with pytest.raises(LocalError, match="by its owner only"):
        read_record(record(1), ADA, CRYPTO)
    for data in (b"", b"x" * 3_000, record(1)[:-1] + b"\x00"):
        with pytest.raises(LocalError, match="no peer record"):
            read_record(data, SIGNER.key, CRYPTO)


def test_a_record_that_is_too_old_is_neither_taken_nor_given(store: ServerStore) -> None:
    assert not put(store, record(1), age_ms=DAY_MS)
    assert not put(store, record(1, created_ms=WALL_FLOOR), at=DAY_MS)
    assert put(store, record(1), age_ms=DAY_MS - 1)
    assert find_record(store, SIGNER.key, now(), CRYPTO)[1] == DAY_MS - 1
    assert find_record(store, SIGNER.key, now(1), CRYPTO) == (b"", 0)
