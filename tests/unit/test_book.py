"""Whom a text means: contacts by name, others by key, and nobody by the name it gave itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from quicprochat.adapters.crypto import Ed25519Signer, SodiumCrypto
from quicprochat.adapters.system import entropy
from quicprochat.core.errors import LocalError
from quicprochat.core.identity import Contact, Ticket
from quicprochat.core.ids import PeerKey
from quicprochat.p2p.book import AddressBook

ADA, BOB, EVE = (Ed25519Signer(bytes([n]) * 32).key for n in (1, 2, 3))


@pytest.fixture
def book(tmp_path: Path) -> AddressBook:
    tmp_path.chmod(0o700)
    made = AddressBook(tmp_path / "identity.json", SodiumCrypto(entropy), entropy)
    made.add(ADA.hex(), "ada")
    return made


def refused(book: AddressBook, text: str, heard: tuple[PeerKey, ...] = (), **claims: PeerKey) -> LocalError:
    with pytest.raises(LocalError) as caught:
        book.resolve(text, heard, {key: name for name, key in claims.items()})
    return caught.value


@pytest.mark.parametrize("text", ["ada", "Ada", "ADA", "\u0430d\u0430", ADA.hex(), ADA.hex().upper(), ADA.hex()[:8]])
def test_a_contact_is_meant_however_it_is_written(book: AddressBook, text: str) -> None:
    assert book.resolve(text, ()) == ADA


def test_the_exact_name_goes_before_one_that_looks_like_it(book: AddressBook) -> None:
    older = {**book.identity.contacts, BOB: Contact(BOB, "Ada")}  # from before such a name was refused
    book.identity = replace(book.identity, contacts=older)
    assert (book.resolve("ada", ()), book.resolve("Ada", ())) == (ADA, BOB)
    assert refused(book, "ADA").code == "ambiguous"


def test_a_name_that_is_the_beginning_of_anothers_key_goes_first_and_its_look_is_ambiguous(book: AddressBook) -> None:
    digits = EVE.hex()[:8]
    assert any(digit.isalpha() for digit in digits)
    book.add(BOB.hex(), digits)
    assert book.resolve(digits, [EVE]) == BOB
    assert refused(book, digits.upper(), (EVE,)).code == "ambiguous"


def test_what_a_stranger_calls_itself_means_nobody(book: AddressBook) -> None:
    said = refused(book, "eve", (EVE,), eve=EVE)
    assert said.code == "not_found"
    assert EVE.hex()[:16] in str(said)
    assert book.resolve("ada", [EVE], {EVE: "ada"}) == ADA
    assert "2 strangers" in str(refused(book, "eve", (EVE, BOB), eve=EVE, EVE=BOB))
    assert "qpc mesh add" in str(refused(book, "nobody", (EVE,), eve=EVE))


def test_a_ticket_in_capitals_is_a_ticket(book: AddressBook) -> None:
    assert book.add(str(Ticket(BOB)).upper(), "bob").key == BOB


def test_another_key_under_a_contacts_name_is_refused_and_nothing_changes(book: AddressBook) -> None:
    for name in ("ada", "ADA", "\u0430da"):
        with pytest.raises(LocalError) as caught:
            book.add(EVE.hex(), name)
        assert caught.value.code == "untrusted"
    assert book.contact(EVE) is None
    assert book.resolve("ada", ()) == ADA


def test_too_few_digits_of_a_key_that_is_known_are_said_to_be_too_few(book: AddressBook) -> None:
    said = refused(book, EVE.hex()[:4], (EVE,))
    assert (said.code, str(said)) == ("not_found", f"write 8 digits of the key or more, not {EVE.hex()[:4]!r}")
    assert "no peer is called" in str(refused(book, EVE.hex()[:4], ()))


def test_a_name_with_a_slip_in_it_is_answered_with_the_one_that_is_near(book: AddressBook) -> None:
    assert str(refused(book, "adda", ())) == "no peer is called 'adda'; did you mean ada? All: qpc mesh peers"
    assert "a stranger with the key" in str(refused(book, "adda", (EVE,), adda=EVE)), "that is what was written"
    assert "did you mean" not in str(refused(book, "somebody", ()))
