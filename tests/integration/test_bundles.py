"""Bundles as people use them: three who never meet over a link, and a memory stick between them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.qpc import Person

from quicprochat.core.bundle import BUNDLE_MAX_BYTES


@pytest.fixture
def three(tmp_path: Path) -> Iterator[list[Person]]:
    found = [Person(tmp_path / name) for name in "abc"]
    yield found
    for person in found:
        person.end()


def test_a_message_and_its_receipt_travel_on_a_stick_through_strange_hands(three: list[Person], tmp_path: Path) -> None:
    a, b, c = three
    for person in three:
        person.up()
    c.down()
    a.ask("add", c.key, "--name", "carol")
    sent = a.ask("send", "carol", "by hand")
    there, on, back = (str(tmp_path / name) for name in ("there", "on", "back"))
    made = a.ask("bundle", "export", there)
    assert (made["envelopes"], made["own"], made["file"]) == (1, 1, there)
    assert a.run("bundle", "export", there).code == 2, "nothing is written over"
    trace = a.ask("trace", sent["id"])
    assert trace["state"] == "queued"
    assert [(e["state"], e["carrier"]) for e in trace["events"]] == [("queued", "here"), ("copied", "bundle")]

    taken = b.ask("mesh", "bundle", "import", there)
    assert (taken["envelopes"], taken["stored"], taken["duplicates"], taken["refused"]) == (1, 1, 0, {})
    assert b.ask("bundle", "import", there)["duplicates"] == 1
    assert b.ask("store")["carried"] == 1
    assert b.ask("bundle", "export", on, "--for", c.key)["envelopes"] == 1
    assert b.ask("bundle", "export", on + "2", "--for", a.key)["envelopes"] == 0

    c.up()
    assert c.ask("bundle", "import", on)["stored"] == 1
    [line] = c.lines("inbox")
    assert (line["text"], line["from"], line["hops"]) == ("by hand", a.key, 1)
    assert c.ask("bundle", "import", there)["duplicates"] == 1
    assert len(c.lines("inbox")) == 1
    assert c.ask("bundle", "export", back)["envelopes"] >= 1
    assert a.ask("bundle", "import", back)["stored"] >= 1
    trace = a.ask("trace", sent["id"])
    assert (trace["state"], trace["events"][-1]["carrier"]) == ("delivered", "bundle")
    assert b.ask("bundle", "import", back)["stored"] >= 1
    assert b.ask("store")["carried_bytes"] < 1_000, "the receipt cures the copy and is carried on itself"


def test_files_that_are_no_bundles_are_refused_and_nothing_is_taken(three: list[Person], tmp_path: Path) -> None:
    a, b, _ = three
    a.up()
    a.ask("add", b.key, "--name", "bob")
    for number in range(3):
        a.ask("send", "bob", f"message {number}")
    whole, cut, altered, other = (tmp_path / name for name in ("whole", "cut", "altered", "other"))
    assert a.ask("bundle", "export", str(whole))["envelopes"] == 3
    data = whole.read_bytes()
    cut.write_bytes(data[:-1])
    altered.write_bytes(data[:900] + bytes([data[900] ^ 1]) + data[901:])
    other.write_text("shopping list\n")
    for file, word in ((cut, "cut short"), (altered, "damaged"), (other, "not a bundle")):
        done = b.run("bundle", "import", str(file))
        assert (done.code, done.out) == (7, "")
        assert word in done.talk
        assert done.talk.count("\n") == 1
    enormous = tmp_path / "enormous"
    with enormous.open("wb") as hole:
        hole.truncate(BUNDLE_MAX_BYTES + 1)
    for file, code in ((tmp_path, 2), (tmp_path / "none", 5), (enormous, 2)):
        done = b.run("bundle", "import", str(file))
        assert (done.code, done.out, done.talk.count("\n")) == (code, "", 1)
    assert b.ask("store")["delivered"] == 0
    assert b.run("bundle", "import", str(whole), "--for", "x").code == 2
    assert b.ask("bundle", "import", str(whole))["stored"] == 3
    assert b.ask("store")["delivered"] == 3
