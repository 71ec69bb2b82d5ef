"""Discovery as its users meet it, over the loopback of this machine; and the home server that is only noted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.qpc import PATIENCE_S, Person, befriend, finish, read_line, start

FOUND = {"QPC_NO_DISCOVERY": "0"}


@pytest.fixture
def people(tmp_path: Path) -> Iterator[tuple[Person, Person]]:
    found = Person(tmp_path / "a"), Person(tmp_path / "b")
    yield found
    for person in found:
        person.end()


def up(person: Person, *options: str) -> None:
    """Start a daemon that discovers."""
    person.daemon = start("daemon", *person.common, *options, env=FOUND)
    person.ready = read_line(person.daemon)
    assert person.ready.startswith("ready "), finish(person.daemon).talk


def linked(person: Person, other: Person) -> bool:
    return any(peer["public_key"] == other.key and peer["linked"] for peer in person.ask("mesh", "peers"))


def test_two_homes_on_one_machine_find_each_other_and_a_key_is_enough_to_write(people: tuple[Person, Person]) -> None:
    alice, bob = people
    up(alice)
    up(bob)
    began = time.monotonic()
    while not (linked(alice, bob) and linked(bob, alice)):
        assert time.monotonic() - began < PATIENCE_S
    sent = alice.ask("send", bob.key[:16], "hello", "--wait", "delivered")
    assert sent["state"] == "delivered"
    (line,) = bob.lines("inbox")
    assert (line["text"], line["request"]) == ("hello", True)
    table = alice.run("mesh", "peers").out
    assert bob.key[:16] in table
    assert "linked" in table


def test_one_call_without_a_daemon_finds_a_peer_and_delivers(people: tuple[Person, Person]) -> None:
    alice, bob = people
    up(bob)
    found = alice.ask("mesh", "peers", "--scan", "2", env=FOUND)
    assert bob.key in {peer["public_key"] for peer in found if peer["linked"]}
    sent = alice.ask("send", bob.key, "hello", "--wait", "delivered", "--timeout", "15", env=FOUND)
    assert sent["state"] == "delivered"


def test_mail_for_a_peer_whose_record_a_neighbour_brings_leaves_at_once(tmp_path: Path) -> None:
    alice, bob, carol = (Person(tmp_path / name) for name in ("alice", "bob", "carol"))
    befriend(alice, bob)
    bob.book.add(f"{carol.key}@{carol.address}", "carol")
    try:
        alice.up()
        waiting = alice.ask("send", carol.key, "hello")
        assert waiting["protection"] == "identity-key", "nothing is known of carol"
        bob.up()
        carol.up()
        began = time.monotonic()
        while alice.ask("trace", waiting["id"])["state"] != "delivered":
            assert time.monotonic() - began < PATIENCE_S
        (route,) = [route for route in alice.ask("mesh", "route") if route["destination"] == carol.key]
        assert route["via"] == "direct"
        assert [line["text"] for line in carol.lines("inbox")] == ["hello"]
    finally:
        for person in (alice, bob, carol):
            person.end()


def test_a_home_server_is_noted_and_tried_until_it_answers(people: tuple[Person, Person]) -> None:
    alice, _ = people
    assert alice.ask("server")["server"] == ""
    chosen = alice.ask("mesh", "server", "127.0.0.1:9")
    assert (chosen["server"], chosen["connected"], chosen["standing"]) == ("127.0.0.1:9", False, "unreachable")
    assert "did not answer" in chosen["trouble"]
    wrong = alice.run("--json", "server", "mesh.example.org")
    assert wrong.code == 2
    assert "host:port" in wrong.error["message"]
    assert alice.ask("server")["server"] == "127.0.0.1:9", "what is wrong changes nothing"
    assert alice.ask("server", "--off")["server"] == ""
