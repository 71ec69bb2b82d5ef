"""Fingerprints, tickets, names, and the identity file's content."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

from quicprochat.adapters.crypto import Ed25519Signer
from quicprochat.core.address import Address
from quicprochat.core.errors import LocalError
from quicprochat.core.identity import (
    CONTACTS_MAX,
    FILE_MAX_BYTES,
    Contact,
    MeshIdentity,
    Ticket,
    check_name,
    fingerprint,
    pair_fingerprint,
    parse_identity,
    parse_key,
    scan_agrees,
)
from quicprochat.core.ids import Label, PeerKey, domain, labelled_hash

SEED = bytes(range(32))
KEY = Ed25519Signer(SEED).key
OTHER, THIRD = (Ed25519Signer(bytes([n]) * 32).key for n in (1, 2))
BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
ADDRESSES = (Address("192.0.2.1", 7_000), Address("2001:db8::1", 7_001))


# --- fingerprints


def test_a_fingerprint_is_six_groups_of_a_labelled_hash() -> None:
    digest = hashlib.sha256(domain(Label.FINGERPRINT) + KEY).digest()
    groups = [int.from_bytes(digest[at : at + 5], "big") % 100_000 for at in range(0, 30, 5)]
    assert fingerprint(KEY) == " ".join(f"{group:05}" for group in groups)
    assert len(fingerprint(KEY)) == 35


def test_two_people_see_the_same_sixty_digits() -> None:
    low, high = sorted((KEY, OTHER))
    assert pair_fingerprint(KEY, OTHER) == pair_fingerprint(OTHER, KEY) == f"{fingerprint(low)} {fingerprint(high)}"
    assert pair_fingerprint(KEY, THIRD) != pair_fingerprint(KEY, OTHER)


# --- tickets


@pytest.mark.parametrize(
    "ticket",
    [
        Ticket(KEY),
        Ticket(KEY, ADDRESSES),
        Ticket(KEY, (), "https://relay.example.org"),
        Ticket(KEY, ADDRESSES * 8, "r" * 255),
    ],
)
def test_a_ticket_reads_back(ticket: Ticket) -> None:
    assert Ticket.parse(str(ticket)) == ticket
    assert str(ticket).startswith("qpc1")
    assert len(str(ticket)) <= 1_000
    assert str(ticket).isalnum()
    assert str(ticket).islower()


def altered(text: str, positions: range) -> list[str]:
    return [text[:at] + c + text[at + 1 :] for at in positions for c in BASE32 + "018-" if c != text[at]]


def test_a_ticket_with_one_character_changed_is_refused() -> None:
    text = str(Ticket(KEY))
    for wrong in altered(text, range(len(text) - 1)):
        with pytest.raises(LocalError, match="damaged"):
            Ticket.parse(wrong)


def test_a_ticket_with_its_last_character_changed_is_refused() -> None:
    text = str(Ticket(KEY))
    for wrong in altered(text, range(len(text) - 1, len(text))):
        with pytest.raises(LocalError, match="damaged"):
            Ticket.parse(wrong)


def test_a_ticket_that_lost_or_gained_a_piece_is_refused() -> None:
    text = str(Ticket(KEY, ADDRESSES))
    swapped = text[:20] + text[21] + text[20] + text[22:]
    for wrong in (*(text[:size] for size in range(len(text))), text + "a", text + " ", " " + text, text * 2, swapped):
        with pytest.raises(LocalError):
            Ticket.parse(wrong)


def test_a_ticket_with_more_in_it_is_refused_though_its_checksum_fits() -> None:
    body = KEY + b"\x00\x00" + b"more"
    whole = body + labelled_hash(Label.TICKET, body)[:4]
    with pytest.raises(LocalError):
        Ticket.parse("qpc1" + base64.b32encode(whole).decode().rstrip("=").lower())


def test_a_ticket_may_be_typed_in_capitals() -> None:
    ticket = Ticket(KEY, ADDRESSES)
    assert Ticket.parse(str(ticket).upper()) == ticket


@pytest.mark.parametrize(
    ("ascii", "letter"), [("s", "\u017f"), ("k", "\u212a"), ("i", "\u0131"), ("k", "\uff4b"), ("s", "\udcff")]
)
def test_letters_that_only_look_right_are_refused(ascii: str, letter: str) -> None:
    """Some of them become ASCII when their case is changed."""
    texts = [text for key in (KEY, OTHER, THIRD) if ascii in (text := str(Ticket(key)))]
    assert texts
    for text in texts:
        with pytest.raises(LocalError, match="damaged"):
            Ticket.parse(text.replace(ascii, letter, 1))


# --- names and keys


def test_a_key_is_64_hexadecimal_digits() -> None:
    assert parse_key(KEY.hex()) == parse_key(KEY.hex().upper()) == KEY
    for text in ("", KEY.hex()[:-1], KEY.hex() + "0", KEY.hex() + "\n", "g" * 64, "\u0661" * 64):
        assert parse_key(text) is None


@pytest.mark.parametrize("name", ["Bob", "Änne", "b o b", "1", "Б", "名前", "n" * 64, "a/b", "x-y", "\u00e9" * 32])
def test_a_name_is_one_visible_line(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", " ", "\u3164", "\u2800\u115f", " Bob", "Bob ",
     "a\nb", "a\tb", "a\x00b", "a\x1b[0mb", "a\u202eb", "a\u200bb", "a@b", "/x", "#x", "-x",
     "qpc1x", KEY.hex(), "n" * 65, "\u00e9" * 33],
)  # fmt: skip
def test_what_could_be_taken_for_something_else_is_no_name(name: str) -> None:
    with pytest.raises(LocalError):
        check_name(name)


def test_half_a_character_is_no_name() -> None:
    with pytest.raises(LocalError):
        check_name("a\udcffb")


# --- the address book


def book(*contacts: Contact) -> MeshIdentity:
    return MeshIdentity(SEED, KEY, "me", {contact.key: contact for contact in contacts})


def test_a_name_belongs_to_one_contact() -> None:
    identity = book(Contact(OTHER, "Bob"))
    for name in ("Bob", "bob", "\u0412\u043eb", "B\u200bob", "\uff22\uff4f\uff42", "B0b"):
        with pytest.raises(LocalError, match="a contact with another key") as caught:
            identity.with_contact(Contact(THIRD, name))
        assert caught.value.code == "untrusted"
        assert OTHER.hex()[:16] in str(caught.value)
    assert identity.with_contact(Contact(OTHER, "BOB")).contacts[OTHER].name == "BOB"
    assert identity.with_contact(Contact(OTHER, "Bob", verified=True)).contacts[OTHER].verified
    nameless = book(Contact(OTHER, blocked=True)).with_contact(Contact(THIRD, blocked=True))
    assert nameless.blocked() == {OTHER, THIRD}


def test_contacts_of_one_look_from_before_can_still_be_blocked() -> None:
    both = book(Contact(OTHER, "Bob"), Contact(THIRD, "bob"))
    assert both.with_contact(Contact(THIRD, "bob", blocked=True)).blocked() == {THIRD}


# --- comparing


def test_what_is_scanned_is_the_digits_of_both_or_of_the_peer_or_its_ticket() -> None:
    pair = pair_fingerprint(KEY, OTHER)
    for scanned in (pair, pair.replace(" ", ""), f"\n{pair}\n", fingerprint(OTHER), str(Ticket(OTHER)).upper()):
        assert scan_agrees(scanned, KEY, OTHER)
        assert not scan_agrees(scanned, KEY, THIRD)
    assert not scan_agrees(fingerprint(KEY), KEY, OTHER)
    assert not scan_agrees(pair.replace(" ", "")[::-1], KEY, OTHER)


@pytest.mark.parametrize("scanned", ["", "hello", "12345", "1" * 59, "1" * 61, "\u0661" * 60, "qpc1x", "x" + "1" * 60])
def test_what_is_no_fingerprint_is_not_compared(scanned: str) -> None:
    with pytest.raises(LocalError) as caught:
        scan_agrees(scanned, KEY, OTHER)
    assert caught.value.code == "usage"


def test_a_full_address_book_says_so_and_still_takes_changes() -> None:
    many = {PeerKey(n.to_bytes(32, "big")): Contact(PeerKey(n.to_bytes(32, "big"))) for n in range(CONTACTS_MAX)}
    identity = MeshIdentity(SEED, KEY, "", many)
    with pytest.raises(LocalError) as caught:
        identity.with_contact(Contact(OTHER))
    assert caught.value.code == "full"
    first = next(iter(many))
    assert identity.with_contact(Contact(first, "Bob")).contacts[first].name == "Bob"


def test_named_contacts_are_known_and_blocked_ones_are_not() -> None:
    identity = book(Contact(OTHER, "Bob"), Contact(THIRD, "Eve", blocked=True), Contact(KEY))
    assert identity.known() == {OTHER}
    assert identity.blocked() == {THIRD}


def test_the_secret_does_not_show() -> None:
    shown = repr(book(Contact(OTHER, "Bob")))
    assert SEED.hex() not in shown
    assert repr(SEED) not in shown


# --- the file


FULL = book(
    Contact(OTHER, "Änne", verified=True, addresses=ADDRESSES, relay="r", trusted=True), Contact(THIRD, blocked=True)
)


def test_the_file_reads_back() -> None:
    seed, key, name, contacts = parse_identity(FULL.to_json())
    assert MeshIdentity(seed, key, name, contacts) == FULL
    assert MeshIdentity(seed, key, name, contacts).to_json() == FULL.to_json()


def test_the_file_has_the_published_fields() -> None:
    document = json.loads(FULL.to_json())
    assert list(document) == ["version", "secret_key", "public_key", "name", "contacts"]
    assert document["secret_key"] == SEED.hex()
    assert list(document["contacts"][0]) == [
        "public_key", "name", "verified", "blocked", "trusted", "addresses", "relay",
    ]  # fmt: skip


def test_a_file_from_before_there_was_trust_trusts_nobody() -> None:
    document = json.loads(FULL.to_json())
    for entry in document["contacts"]:
        del entry["trusted"]
    contacts = parse_identity(json.dumps(document).encode())[3]
    assert not any(contact.trusted for contact in contacts.values())


def test_who_is_blocked_is_not_trusted() -> None:
    identity = book(Contact(OTHER, "Änne", trusted=True), Contact(THIRD, "Bo", blocked=True, trusted=True))
    assert identity.trusted() == {OTHER}


def test_a_file_cut_short_anywhere_is_refused_with_a_sentence() -> None:
    data = FULL.to_json().rstrip()
    for size in range(len(data)):
        with pytest.raises(LocalError):
            parse_identity(data[:size])


def changed(**fields: Any) -> bytes:
    return json.dumps({**json.loads(FULL.to_json()), **fields}).encode()


def contact(**fields: Any) -> bytes:
    entry = {**json.loads(FULL.to_json())["contacts"][0], **fields}
    return changed(contacts=[entry])


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{}", b"[]", b"null", b"1", b'"x"', b"\xff", b"[" * 100_000, b" " * (FILE_MAX_BYTES + 1), b"9" * 10_000,
        changed(version=2), changed(version="1"), changed(version=None), changed(secret_key="00"),
        changed(secret_key=None), changed(secret_key="x" * 64), changed(public_key="00"), changed(public_key=7),
        changed(contacts=None), changed(contacts=7), changed(contacts=[7]), changed(contacts=[None]),
        changed(contacts=[{}]), contact(public_key="00"), contact(name=7), contact(name=None), contact(addresses=None),
        contact(addresses=[7]), contact(addresses=["nowhere"]), contact(trusted=1),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused_with_a_sentence(data: bytes) -> None:
    with pytest.raises(LocalError) as caught:
        parse_identity(data)
    assert len(str(caught.value)) > 10
    assert SEED.hex() not in str(caught.value)


def test_a_file_that_is_too_long_is_refused_though_it_is_whole() -> None:
    whole = FULL.to_json()
    assert parse_identity(whole + b" " * (FILE_MAX_BYTES - len(whole)))[1] == KEY
    with pytest.raises(LocalError, match="more than the"):
        parse_identity(whole + b" " * (FILE_MAX_BYTES - len(whole) + 1))


def test_a_file_with_too_many_contacts_is_refused() -> None:
    entry = json.loads(FULL.to_json())["contacts"][0]
    many = [{**entry, "public_key": f"{n:064x}"} for n in range(CONTACTS_MAX + 1)]
    with pytest.raises(LocalError, match="more than 10000 contacts"):
        parse_identity(changed(contacts=many))


@pytest.mark.parametrize("data", [contact(verified="false"), contact(blocked=0), contact(relay=7), changed(name={})])
def test_a_field_of_another_type_is_refused(data: bytes) -> None:
    with pytest.raises(LocalError):
        parse_identity(data)


@pytest.mark.parametrize("data", [changed(name="\ud800"), contact(name="\ud800"), contact(relay="\ud800")])
def test_what_is_read_can_be_written(data: bytes) -> None:
    try:
        seed, key, name, contacts = parse_identity(data)
    except LocalError:
        return
    assert MeshIdentity(seed, key, name, contacts).to_json()
