"""Where peers live: whose word counts, and what no word can do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.people import T0, Person, at, people

from quicprochat.core.envelope import Header, Kind, MeshEnvelope, make
from quicprochat.core.events import HomeNamed, RecordArrived
from quicprochat.core.homes import domain_name
from quicprochat.core.record import PeerRecord, sign_record
from quicprochat.core.seal import Letter, seal
from quicprochat.core.store import HomeSource

LINK = 1


@pytest.fixture
def circle() -> list[Person]:
    return people("ada", "bob")


def record_at(person: Person, domain: str, seq: int, epoch: int = 9) -> PeerRecord:
    record = PeerRecord(person.key, epoch, seq, domain=domain)
    return replace(record, signed=sign_record(record, person.signer))


def hear(ada: Person, bob: Person, domain: str, seq: int, *, age_ms: int = 0) -> None:
    ada.step(RecordArrived(None, record_at(bob, domain, seq), age_ms))


def letter(author: Person, to: Person, domain: str, *, age_ms: int = 0) -> MeshEnvelope:
    header = Header(Kind.MESSAGE, author.key, to.key, author.entropy(16))
    said = Letter(author.key, author.uid(), "hi", domain)
    return replace(make(header, seal(header, None, said, author.crypto, author.signer), author.signer), age_ms=age_ms)


def lives(ada: Person, bob: Person) -> str:
    home = ada.store.home(bob.key)
    return home.domain if home is not None else ""


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Node2.Mesh.Local.", "node2.mesh.local"),
        ("village", "village"),
        ("", ""),
        (".", ""),
        ("a..b", ""),
        ("-a.b", ""),
        ("a b", ""),
        ("127.0.0.1", ""),
        ("127.0.0.1:7000", ""),
        ("\u212aelvin.example", ""),
        ("x\u202e.example", ""),
        ("a" * 64 + ".example", ""),
        (".".join(["abcdefgh"] * 40), ""),
    ],
)
def test_a_domain_has_one_form_and_what_is_none_has_none(text: str, name: str) -> None:
    assert domain_name(text) == name


def test_a_person_a_record_and_a_letter_say_where_a_peer_lives(circle: list[Person]) -> None:
    ada, bob = circle
    assert lives(ada, bob) == ""
    ada.step(HomeNamed(bob.key, "Node2.Mesh.Local"))
    assert lives(ada, bob) == "node2.mesh.local"
    ada, bob = people("ada", "bob")
    hear(ada, bob, "node2.mesh.local", 1)
    assert lives(ada, bob) == "node2.mesh.local"
    ada, bob = people("ada", "bob")
    ada.meet(LINK, bob)
    ada.step(ada.arrived(LINK, letter(bob, ada, "node2.mesh.local")))
    assert lives(ada, bob) == "node2.mesh.local"


def test_moving_home_the_record_with_the_higher_number_wins_in_any_order(circle: list[Person]) -> None:
    ada, bob = circle
    hear(ada, bob, "new.example", 2)
    hear(ada, bob, "old.example", 1)
    assert lives(ada, bob) == "new.example"
    hear(ada, bob, "newest.example", 3, age_ms=5_000)
    assert lives(ada, bob) == "newest.example"


def test_what_a_person_types_overrules_the_record_that_was_known_but_not_a_newer_one(circle: list[Person]) -> None:
    ada, bob = circle
    hear(ada, bob, "old.example", 1)
    ada.step(HomeNamed(bob.key, "typed.example"))
    assert lives(ada, bob) == "typed.example"
    hear(ada, bob, "old.example", 1)
    assert lives(ada, bob) == "typed.example"
    hear(ada, bob, "moved.example", 2, age_ms=60_000)  # signed before that was typed: still the owner's newer word
    assert lives(ada, bob) == "moved.example"


def test_a_record_that_names_no_home_takes_none_away(circle: list[Person]) -> None:
    ada, bob = circle
    ada.step(HomeNamed(bob.key, "typed.example"))
    hear(ada, bob, "", 5)
    assert lives(ada, bob) == "typed.example"


def test_a_letter_counts_from_when_it_was_written(circle: list[Person]) -> None:
    ada, bob = circle
    ada.meet(LINK, bob, record=False)
    ada.step(HomeNamed(bob.key, "typed.example"), now=at(T0 + 10_000))
    ada.step(ada.arrived(LINK, letter(bob, ada, "before.example", age_ms=5_000)), now=at(T0 + 12_000))
    assert lives(ada, bob) == "typed.example"
    ada.step(ada.arrived(LINK, letter(bob, ada, "after.example", age_ms=1_000)), now=at(T0 + 14_000))
    assert lives(ada, bob) == "after.example"


def test_a_message_that_came_before_says_nothing_again(circle: list[Person]) -> None:
    """Whoever kept an old envelope can send it again with a small age."""
    ada, bob = circle
    ada.meet(LINK, bob, record=False)
    old = letter(bob, ada, "old.example")
    ada.step(ada.arrived(LINK, old))
    ada.step(ada.arrived(LINK, letter(bob, ada, "new.example")), now=at(T0 + 1_000))
    ada.step(ada.arrived(LINK, old), now=at(T0 + 2_000))
    assert lives(ada, bob) == "new.example"


def test_what_is_no_domain_is_not_kept(circle: list[Person]) -> None:
    ada, bob = circle
    hear(ada, bob, "no domain", 1)
    ada.step(HomeNamed(bob.key, "127.0.0.1:7000"))
    ada.meet(LINK, bob, record=False)
    ada.step(ada.arrived(LINK, letter(bob, ada, "\x1b[2J.example")))
    assert ada.store.home(bob.key) is None


def test_nobody_says_where_somebody_else_lives(circle: list[Person]) -> None:
    ada, bob = circle
    eve = Person(ada.crypto, "eve")
    ada.step(HomeNamed(bob.key, "true.example"))
    ada.meet(LINK, eve, record=False)
    ada.step(ada.arrived(LINK, letter(eve, ada, "false.example")))
    assert lives(ada, bob) == "true.example"
    assert lives(ada, eve) == "false.example"


def test_who_said_it_and_when_is_kept_over_a_restart(circle: list[Person]) -> None:
    ada, bob = circle
    hear(ada, bob, "node2.mesh.local", 7, age_ms=400)
    ada.start(at(T0 + 1))
    home = ada.store.home(bob.key)
    assert home is not None
    assert (home.source, home.version, home.at) == (HomeSource.RECORD, (9, 7), T0 - 400)
