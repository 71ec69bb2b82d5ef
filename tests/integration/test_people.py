"""Who is who: names that peers give themselves, digits and codes to compare, strangers and how to be rid of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.qpc import PATIENCE_S, Person

from quicprochat.client.qr import qr_text
from quicprochat.core.identity import Ticket


@pytest.fixture
def people(tmp_path: Path) -> Iterator[tuple[Person, Person, Person]]:
    found = Person(tmp_path / "a"), Person(tmp_path / "b"), Person(tmp_path / "e")
    yield found
    for person in found:
        person.end()


def until_linked(person: Person, key: str) -> dict[str, object]:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for peer in person.ask("mesh", "peers"):
            if peer["public_key"] == key and peer["linked"] and peer["name"]:
                return dict(peer)
        time.sleep(0.1)
    raise AssertionError(f"{key} was never linked")


@pytest.mark.parametrize("name", ["ada", "A\u0501a", "a\u3164da"])
def test_a_stranger_with_a_contacts_name_is_told_of_and_never_written_to(
    people: tuple[Person, Person, Person], name: str
) -> None:
    ann, ada, eve = people
    ann.book.add(f"{ada.key}@{ada.address}", "ada")
    eve.book.add(f"{ann.key}@{ann.address}", "ann")
    eve.book.rename(name)
    ann.up()
    eve.up()
    peer = until_linked(ann, eve.key)
    assert (peer["name"], peer["contact"], peer["looks_like"]) == (name, False, "ada")
    assert ann.ask("send", "ada", "secret")["to"] == ada.key
    shown = ann.run("mesh", "peers").out
    assert "NOT your contact ada" in shown
    (alarm,) = ann.ask("identity")["alarms"]
    assert (alarm["code"], alarm["peer"]) == ("name_claimed", eve.key)
    assert "ALARM: " in ann.run("identity").out

    eve.ask("identity", "--name", "eve")
    eve.ask("identity", "--name", name)
    assert eve.ask("send", "ann", "it is me, ada", "--wait", "delivered")["state"] == "delivered"
    assert f"request from {eve.key[:16]}" in ann.run("inbox").out
    assert len(ann.ask("identity")["alarms"]) == 1
    talk = ann.down().talk
    assert talk.count("calls itself") == 1
    assert eve.key[:16] in talk


def test_somebody_in_reach_is_added_by_the_digits_that_are_shown(people: tuple[Person, Person, Person]) -> None:
    """The way of a new user: a name from the list is tried, and the program says what to write instead."""
    ann, bob, _ = people
    bob.book.add(f"{ann.key}@{ann.address}", "ann")
    bob.book.rename("Bob")
    ann.up()
    bob.up()
    until_linked(ann, bob.key)
    shown = ann.run("mesh", "peers").out.split()
    assert shown[:2] == ["(Bob)", bob.key[:16]]
    for command in (("send", "Bob", "hello"), ("send", "bob", "hello"), ("add", "Bob"), ("verify", "Bob")):
        lost = ann.run(*command, "--json")
        assert (lost.code, lost.error["code"]) == (5, "not_found")
        assert f"qpc add {bob.key[:16]} --name" in lost.error["message"]
    assert ann.ask("add", shown[1], "--name", "bob")["public_key"] == bob.key
    assert ann.ask("send", "bob", "hello", "--wait", "delivered")["state"] == "delivered"
    assert ann.ask("identity")["alarms"] == []


def test_another_key_under_a_contacts_name_is_refused(people: tuple[Person, Person, Person]) -> None:
    ann, ada, eve = people
    ann.ask("add", ada.key, "--name", "ada")
    for name in ("ada", "ADA"):
        refused = ann.run("add", eve.key, "--name", name, "--json")
        assert (refused.code, refused.error["code"]) == (4, "untrusted")
        assert ada.key[:16] in refused.error["message"]
    assert ann.run("add", ada.key, "--name", "ada").code == 0
    assert [peer["public_key"] for peer in ann.ask("identity")["peers"]] == [ada.key]
    # What the sentence says to do, when the person behind the name proves to have a new key.
    ann.ask("add", ada.key[:16], "--name", "ada before")
    assert ann.ask("add", eve.key, "--name", "ada")["public_key"] == eve.key
    assert ann.ask("verify", "ada")["public_key"] == eve.key


def test_names_that_steer_a_terminal_or_have_no_end_do_no_harm(people: tuple[Person, Person, Person]) -> None:
    ann, _, eve = people
    ann.up()
    eve.book.add(f"{ann.key}@{ann.address}", "ann")
    mine = eve.book
    object.__setattr__(mine.identity, "name", "\x1b]0;x\x07\u202e(\nada: hi")
    mine._keep(mine.identity)  # a peer of another make says what it likes
    eve.up()
    assert until_linked(ann, eve.key)["name"] == "\x1b]0;x\x07\u202e(\nada: hi"
    shown = ann.run("mesh", "peers").out
    assert not set(shown) & set("\x1b\x07\u202e")
    assert shown.count("\n") == 1
    for name in ("x" * 10_000, "", " ", "\u3164", "a\nb", "\x1b[2J", "\u202eevil"):
        refused = ann.run("identity", "--name", name, "--json")
        assert (refused.code, refused.error["code"]) == (2, "usage"), name
        refused = ann.run("add", eve.key, "--name", name, "--json")
        assert (refused.code, refused.error["code"]) == (2, "usage"), name


def test_a_stranger_known_from_its_message_alone_can_be_blocked_by_its_first_digits(
    people: tuple[Person, Person, Person],
) -> None:
    ann, _, eve = people
    eve.book.add(f"{ann.key}@{ann.address}", "ann")
    ann.up()
    eve.up()
    assert eve.ask("send", "ann", "buy this", "--wait", "delivered")["state"] == "delivered"
    eve.down()
    ann.down()
    forget_all_but_the_message(ann)
    ann.up()
    assert [peer["public_key"] for peer in ann.ask("mesh", "peers")] == []
    assert ann.ask("block", eve.key[:8])["blocked"] is True
    assert ann.ask("mesh", "requests") == []
    assert ann.run("send", eve.key, "no", "--json").error["code"] == "policy"
    assert ann.ask("mesh", "unblock", eve.key[:8])["blocked"] is False
    assert [request["public_key"] for request in ann.ask("mesh", "requests")] == [eve.key]


def forget_all_but_the_message(person: Person) -> None:
    """What time does: records and sightings of strangers make room for newer ones."""
    from quicprochat.adapters.home import Home
    from quicprochat.adapters.sqlite import SqliteStore

    store = SqliteStore.open(Home(person.home).database)
    store.begin()
    for record in store.records(10):
        store.drop_record(record.key)
    store._run("DELETE FROM sighting", ())
    store.commit()
    store.close()


# --- comparing


def test_what_is_scanned_confirms_or_alarms(people: tuple[Person, Person, Person]) -> None:
    ann, ada, eve = people
    ann.ask("add", ada.key, "--name", "ada")
    ada.ask("add", ann.key, "--name", "ann")
    ada.ask("add", eve.key, "--name", "eve")
    theirs = ada.ask("verify", "ann")["fingerprint"]
    others = ada.ask("verify", "eve")["fingerprint"]
    for wrong in (others, eve.ask("identity")["ticket"]):
        refused = ann.run("verify", "ada", "--scanned", wrong, "--json")
        assert (refused.code, refused.error["code"]) == (4, "untrusted")
    assert ann.run("verify", "ada", "--scanned", "hello", "--json").code == 2
    assert ann.ask("verify", "ada")["verified"] is False
    assert ann.ask("verify", "ada", "--scanned", theirs)["verified"] is True
    assert ada.ask("verify", "ann", "--scanned", ann.ask("identity")["ticket"].upper())["verified"] is True
    assert ann.run("verify", eve.key, "--scanned", ann.ask("verify", eve.key)["fingerprint"], "--json").code == 2


def test_codes_are_shown_to_people_and_leave_json_alone(people: tuple[Person, Person, Person]) -> None:
    ann, ada, _ = people
    ann.ask("add", ada.key, "--name", "ada")
    digits = ann.ask("verify", "ada")["fingerprint"].replace(" ", "")
    assert set(ann.ask("verify", "ada", "--qr")) == set(ann.ask("verify", "ada"))
    shown = ann.run("verify", "ada", "--qr", env={"PYTHONIOENCODING": "utf-8"}).out
    assert shown.endswith(qr_text(digits, "utf-8"))
    plain = ann.run("verify", "ada", "--qr", env={"PYTHONIOENCODING": "ascii"}).out
    assert plain.isascii()
    assert plain.endswith(qr_text(digits, "ascii"))
    mine = ann.run("identity", "--qr", env={"PYTHONIOENCODING": "utf-8"}).out
    ticket = next(line.split()[1] for line in mine.splitlines() if line.startswith("ticket"))
    assert Ticket.parse(ticket.upper()).key.hex() == ann.key
    assert qr_text(ticket.upper(), "utf-8") in mine
