"""An identity leaves one home and comes to another: what comes along, what stays, and what is never written over."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from quicprochat.adapters.crypto import Ed25519Signer, SodiumCrypto
from quicprochat.adapters.exportfile import read_export, write_export
from quicprochat.adapters.home import Home
from quicprochat.adapters.sqlite import SqliteStore
from quicprochat.adapters.system import entropy
from quicprochat.core.card import PREKEY_KEEP_MS, OwnCard, record_version
from quicprochat.core.channel import BroadcastChannel, Earlier, Member, Subscription
from quicprochat.core.errors import LocalError, UnavailableError
from quicprochat.core.events import Alarm, Effect
from quicprochat.core.export import COST_MIN, EXPORT_MAX_BYTES, Contents
from quicprochat.core.ids import EnvelopeId, Uid
from quicprochat.core.memory import MemoryStore
from quicprochat.core.posts import last_number, set_last_number
from quicprochat.core.receipt import State
from quicprochat.core.record import PeerRecord, sign_record
from quicprochat.core.seal import TYPE_KEY, Protection
from quicprochat.core.store import Line, LineKind, Sent, Sighting, StoredPrekey, StoredRecord
from quicprochat.core.time import DAY_MS, WALL_FLOOR, Instant, Now, WallTime
from quicprochat.p2p.book import AddressBook
from quicprochat.p2p.moving import gather, import_identity, pack

WORD = "correct horse battery"
CRYPTO = SodiumCrypto(entropy)
ADA, EVE = Ed25519Signer(b"1" * 32), Ed25519Signer(b"2" * 32)
CLUB, OLD, SILENT = (BroadcastChannel.private((t.encode() * 11)[:32], t) for t in ("club", "old", "mute"))
NEWS = BroadcastChannel.open("news", CRYPTO)
HEAD = EnvelopeId(b"h" * 32)
WALL = WallTime(WALL_FLOOR + DAY_MS)


def book(home: Path) -> AddressBook:
    return AddressBook(Home(home).identity, CRYPTO, entropy)


def record_of(signer: Ed25519Signer, at: Instant) -> StoredRecord:
    signed = sign_record(PeerRecord(signer.key, 2, 7, name="x"), signer)
    return StoredRecord(signer.key, 2, 7, signed, 1_000, at)


def old_home(home: Path, now: Now) -> tuple[AddressBook, Contents]:
    """A home that is in use: a name, a contact, prekeys of all ages, records."""
    mine = book(home)
    mine.rename("Ann")
    mine.add(ADA.key.hex(), "ada")
    store = MemoryStore(durable=True)
    store.begin()
    for age in (0, DAY_MS, PREKEY_KEEP_MS - 1, PREKEY_KEEP_MS, 2 * PREKEY_KEEP_MS):
        secret = bytes([age % 251]) * 32
        store.put_prekey(StoredPrekey(secret[:8], secret, Instant(now.at - age)))
    store.put_record(record_of(ADA, Instant(now.at - 500)))
    store.put_record(record_of(EVE, now.at))
    for channel, left, number in ((CLUB, False, 41), (NEWS, False, 0), (OLD, True, 3), (SILENT, True, 0)):
        store.put_channel(Subscription(replace(channel, secret=b"") if left else channel, (HEAD,), left))
        if number:
            set_last_number(store, channel.id, number)
    store.set_value("record.version", (9).to_bytes(8, "big") + (4).to_bytes(8, "big"))
    store.commit()
    return mine, gather(mine.identity, store, now)


def test_contacts_and_all_that_messages_under_way_need_come_along(tmp_path: Path) -> None:
    mine, contents = old_home(tmp_path / "old", Now(Instant(10 * PREKEY_KEEP_MS)))
    assert len(contents.prekeys) == 3
    assert [item.data for item in contents.records] == [record_of(ADA, Instant(0)).data]
    done = import_identity(tmp_path / "new", pack(contents, WORD, COST_MIN), WORD)
    assert done.identity == mine.identity == book(tmp_path / "new").identity
    assert done.prekeys == 3
    store = SqliteStore.open(Home(tmp_path / "new").database)
    secrets = [prekey.secret for prekey in store.prekeys()]
    ages = [-prekey.made_at for prekey in store.prekeys()]
    record = store.record(ADA.key)
    version = record_version(store)
    store.close()
    assert secrets == [bytes([age % 251]) * 32 for age in (0, DAY_MS, PREKEY_KEEP_MS - 1)]
    assert [round(age / DAY_MS) for age in ages] == [0, 1, round(PREKEY_KEEP_MS / DAY_MS)]
    assert record is not None
    assert record.data == record_of(ADA, Instant(0)).data
    assert record.age_ms == 1_500
    assert version == (10, 0)
    with pytest.raises(LocalError, match="in use"):
        import_identity(tmp_path / "new", pack(contents, WORD, COST_MIN), WORD)


def test_channels_come_along_and_no_number_of_a_post_is_given_twice(tmp_path: Path) -> None:
    _, contents = old_home(tmp_path / "old", Now(Instant(10 * PREKEY_KEEP_MS)))
    import_identity(tmp_path / "new", pack(contents, WORD, COST_MIN), WORD)
    store = SqliteStore.open(Home(tmp_path / "new").database)
    try:
        found = {s.channel.topic: (s, last_number(store, s.channel.id)) for s in store.channels()}
    finally:
        store.close()
    assert found == {
        "club": (Subscription(CLUB, (HEAD,)), 41),
        "news": (Subscription(NEWS, (HEAD,)), 0),
        "old": (Subscription(replace(OLD, secret=b""), (HEAD,), left=True), 3),
    }


def test_an_owners_channel_moves_with_its_secrets_and_members_and_without_letters(tmp_path: Path) -> None:
    now = Now(Instant(10 * PREKEY_KEEP_MS))
    mine, _ = old_home(tmp_path / "old", now)
    store = SqliteStore.open(Home(tmp_path / "old").database)
    town = replace(BroadcastChannel.private(b"o" * 32, "town", mine.identity.key, announce=True), epoch=2)
    earlier = Earlier(1, Instant(now.at + DAY_MS), b"e" * 32)
    owned = Subscription(town, earlier=(earlier,), charter=3, posters=(ADA.key,), said=4, muted=True)
    letters = {state: bytes([n]) * 16 for n, state in enumerate((State.QUEUED, State.DELIVERED))}
    store.begin()
    store.put_channel(owned)
    for state, uid in letters.items():
        sent = Sent(
            Uid(uid), ADA.key, "", WALL, now.at, 9, state, Protection.PREKEY, EnvelopeId(uid * 2), type=TYPE_KEY
        )  # fmt: skip
        store.put_sent(sent)
    known = Member(town.id, ADA.key, epoch=2, letter=letters[State.DELIVERED])
    lacks = Member(town.id, EVE.key, epoch=2, letter=letters[State.QUEUED])
    for member in (known, lacks):
        store.put_member(member)
    store.commit()
    contents = gather(mine.identity, store, now)
    store.close()
    import_identity(tmp_path / "new", pack(contents, WORD, COST_MIN), WORD)
    store = SqliteStore.open(Home(tmp_path / "new").database)
    try:
        (found,) = [s for s in store.channels() if s.channel.topic == "town"]
        members = {member.peer: member for member in store.members(town.id)}
    finally:
        store.close()
    (kept,) = found.earlier
    assert (kept.epoch, kept.secret) == (1, earlier.secret)
    assert 0 < kept.until < 2 * DAY_MS, "by the clock of the new home"
    assert replace(found, earlier=owned.earlier) == owned
    assert members == {ADA.key: replace(known, letter=b""), EVE.key: replace(lacks, letter=b"", epoch=0)}


def test_a_file_that_lay_for_weeks_brings_no_keys_that_are_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, contents = old_home(tmp_path / "old", Now(Instant(10 * PREKEY_KEEP_MS), WALL, trusted=True))
    assert contents.wall == WALL
    monkeypatch.setattr("quicprochat.adapters.system.kernel_synchronised", lambda: True)
    monkeypatch.setattr("time.time_ns", lambda: (WALL + 2 * DAY_MS) * 1_000_000)
    assert import_identity(tmp_path / "new", pack(contents, WORD, COST_MIN), WORD).prekeys == 2
    monkeypatch.setattr("time.time_ns", lambda: (WALL + 40 * DAY_MS) * 1_000_000)
    assert import_identity(tmp_path / "later", pack(contents, WORD, COST_MIN), WORD).prekeys == 0


def exported(tmp_path: Path) -> bytes:
    return pack(old_home(tmp_path / "old", Now(Instant(PREKEY_KEEP_MS)))[1], WORD, COST_MIN)


def add_line(store: SqliteStore) -> None:
    store.deliver(Line(LineKind.MESSAGE, ADA.key, Uid(bytes(16)), WALL, "hello"))


def add_sighting(store: SqliteStore) -> None:
    store.see(Sighting(ADA.key, WALL, Instant(1), ""))


def add_channel(store: SqliteStore) -> None:
    store.put_channel(Subscription(NEWS))


@pytest.mark.parametrize("use", [add_line, add_sighting, add_channel])
def test_a_home_with_messages_or_links_is_left_alone(tmp_path: Path, use: Callable[[SqliteStore], None]) -> None:
    before = book(tmp_path / "new").identity
    store = SqliteStore.open(Home(tmp_path / "new").database)
    store.begin()
    use(store)
    store.commit()
    store.close()
    with pytest.raises(LocalError, match="in use") as caught:
        import_identity(tmp_path / "new", exported(tmp_path), WORD)
    assert caught.value.code == "exists"
    assert book(tmp_path / "new").identity == before


@pytest.mark.parametrize("named", [True, False])
def test_a_home_with_a_name_or_a_contact_is_left_alone(tmp_path: Path, named: bool) -> None:
    mine = book(tmp_path / "new")
    if named:
        mine.rename("Zoe")
    else:
        mine.add(EVE.key.hex(), "eve")
    with pytest.raises(LocalError, match="in use"):
        import_identity(tmp_path / "new", exported(tmp_path), WORD)
    assert book(tmp_path / "new").identity == mine.identity


def test_an_unused_identity_gives_way_with_its_prekeys(tmp_path: Path) -> None:
    book(tmp_path / "new")
    store = SqliteStore.open(Home(tmp_path / "new").database)
    store.begin()
    store.put_prekey(StoredPrekey(b"unused!!", b"u" * 32, Instant(0)))
    store.commit()
    store.close()
    done = import_identity(tmp_path / "new", exported(tmp_path), WORD)
    assert book(tmp_path / "new").identity == done.identity
    store = SqliteStore.open(Home(tmp_path / "new").database)
    assert b"u" * 32 not in [prekey.secret for prekey in store.prekeys()]
    store.close()


def test_a_wrong_passphrase_changes_nothing(tmp_path: Path) -> None:
    before = book(tmp_path / "new").identity
    with pytest.raises(LocalError, match="wrong"):
        import_identity(tmp_path / "new", exported(tmp_path), "another one")
    assert book(tmp_path / "new").identity == before
    assert not Home(tmp_path / "new").database.exists()


def test_a_home_that_a_process_owns_is_refused(tmp_path: Path) -> None:
    owner = Home(tmp_path / "new")
    owner.own()
    try:
        with pytest.raises(LocalError) as caught:
            import_identity(tmp_path / "new", exported(tmp_path), WORD)
        assert caught.value.code == "owned"
    finally:
        owner.disown()


# --- noticing the old copy


def alarms(effects: list[Effect]) -> list[str]:
    return [effect.code for effect in effects if isinstance(effect, Alarm)]


@pytest.mark.parametrize("moved", [True, False])
def test_where_an_identity_moved_to_its_first_foreign_record_is_an_alarm(tmp_path: Path, moved: bool) -> None:
    store = MemoryStore(durable=True)
    if moved:
        import_identity(tmp_path / "new", exported(tmp_path), WORD)
        signer = book(tmp_path / "new").signer
    else:
        signer = EVE
    out: list[Effect] = []
    card = OwnCard(signer, CRYPTO)
    now = Now(Instant(5))
    kept = SqliteStore.open(Home(tmp_path / "new").database) if moved else store
    kept.begin()
    card.start(kept, now, out)
    card.publish(kept, PeerRecord(signer.key, 0, 0, name="Ann"), now, out)
    ours = card.record
    older = PeerRecord(signer.key, 9, 2**40)
    if moved:
        assert not card.heard(PeerRecord(signer.key, *older.version, signed=sign_record(older, signer)), out)
    assert alarms(out) == []  # what the old home said before it was stopped is no news
    copy = PeerRecord(signer.key, ours.epoch, ours.seq + 1)
    copy = PeerRecord(signer.key, *copy.version, signed=sign_record(copy, signer))
    assert card.heard(copy, out)
    assert alarms(out) == (["identity_cloned"] if moved else [])
    assert card.publish(kept, PeerRecord(signer.key, 0, 0, name="Ann"), now, out)
    assert card.record.version > copy.version
    again = PeerRecord(signer.key, copy.epoch, card.record.seq + 1)
    assert not card.heard(PeerRecord(signer.key, *again.version, signed=sign_record(again, signer)), out)
    assert alarms(out)[-1] == "identity_cloned"
    assert not card.publish(kept, PeerRecord(signer.key, 0, 0, name="Anna"), now, out)
    kept.commit()
    kept.close()


# --- the file


def test_the_file_is_for_its_user_alone_and_nothing_else_is_left(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        write_export(tmp_path / "x", b"data")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert read_export(tmp_path / "x") == b"data"


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "directory").mkdir()
    for name in ("file", "link", "dangling", "directory"):
        with pytest.raises(LocalError) as caught:
            write_export(tmp_path / name, b"data")
        assert caught.value.code == "exists"
    assert (tmp_path / "file").read_bytes() == b"precious"
    assert not (tmp_path / "nowhere").exists()


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnavailableError, match="cannot be made"):
        write_export(tmp_path / "nowhere" / "x", b"data")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("quicprochat.adapters.exportfile.os.fsync", full)
    with pytest.raises(UnavailableError, match="No space left"):
        write_export(tmp_path / "x", b"data")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    for name, code in (("pipe", "usage"), ("directory", "usage"), ("nothing", "not_found")):
        with pytest.raises(LocalError) as caught:
            read_export(tmp_path / name)
        assert caught.value.code == code
    with open(tmp_path / "endless", "wb") as file:
        file.truncate(EXPORT_MAX_BYTES * 16)
    assert len(read_export(tmp_path / "endless")) == EXPORT_MAX_BYTES + 1
