"""A stranger that calls itself like a contact is told of: once, and not as often as it likes."""

from __future__ import annotations

from pathlib import Path

import pytest

from quicprochat.adapters.crypto import Ed25519Signer, SodiumCrypto
from quicprochat.adapters.system import entropy
from quicprochat.core.events import Alarm
from quicprochat.core.ids import PeerKey
from quicprochat.core.time import MINUTE_MS, Instant
from quicprochat.p2p.book import AddressBook
from quicprochat.p2p.claims import BURST, Claims

ADA, EVE = (Ed25519Signer(bytes([n]) * 32).key for n in (1, 2))


class Watch:
    def __init__(self, home: Path) -> None:
        home.chmod(0o700)
        self.book = AddressBook(home / "identity.json", SodiumCrypto(entropy), entropy)
        self.book.add(ADA.hex(), "ada")
        self.now = Instant(0)
        self.alarms: list[Alarm] = []
        self.claims = Claims(self.book, lambda: self.now, self.alarms.append)


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    return Watch(tmp_path)


def stranger(number: int) -> PeerKey:
    return PeerKey(number.to_bytes(32, "big"))


@pytest.mark.parametrize("name", ["ada", "Ada", "\u0430\u200bda", "\uff41\uff44\uff41", "ada\u202e"])
def test_a_stranger_with_a_contacts_name_raises_one_alarm(watch: Watch, name: str) -> None:
    watch.claims.heard(EVE, name)
    watch.claims.heard(EVE, name)
    (alarm,) = watch.alarms
    assert (alarm.code, alarm.peer) == ("name_claimed", EVE)
    assert EVE.hex()[:16] in alarm.text
    assert '"ada"' in alarm.text
    assert watch.claims.imitated(EVE, name) == watch.book.contact(ADA)


def test_contacts_ourselves_and_other_names_raise_none(watch: Watch) -> None:
    watch.book.rename("me")
    watch.claims.heard(ADA, "ada")
    watch.claims.heard(ADA, "Ada Lovelace")
    watch.claims.heard(watch.book.identity.key, "ada")
    for name in ("eve", "", "\u200b", "x\x1b[2J" * 2_000):
        watch.claims.heard(EVE, name)
    assert watch.alarms == []


def test_a_contact_added_later_is_watched_as_well(watch: Watch) -> None:
    watch.claims.heard(EVE, "bob")
    assert watch.alarms == []
    watch.book.add(Ed25519Signer(b"7" * 32).key.hex(), "bob")
    watch.claims.heard(EVE, "bob")
    assert [alarm.peer for alarm in watch.alarms] == [EVE]


def test_a_flood_of_keys_is_told_of_slowly_and_none_is_forgotten(watch: Watch) -> None:
    for number in range(1_000):
        watch.claims.heard(stranger(number), "ada")
    assert len(watch.alarms) == BURST
    watch.now = Instant(MINUTE_MS + 1)
    watch.claims.heard(stranger(0), "ada")
    watch.claims.heard(stranger(999), "ada")
    watch.claims.heard(stranger(998), "ada")
    assert [alarm.peer for alarm in watch.alarms[BURST:]] == [stranger(999)]


def test_floods_take_no_memory_for_good(watch: Watch) -> None:
    for number in range(3_000):
        watch.now = Instant(watch.now + MINUTE_MS + 1)
        watch.claims.heard(stranger(number), "ada")
    assert len(watch.alarms) == 3_000
    assert len(watch.claims._alarmed) == 1_024
