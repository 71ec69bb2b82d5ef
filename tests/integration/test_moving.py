"""Moving an identity between two real homes on loopback, with somebody who writes to it meanwhile."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.qpc import PATIENCE_S, PROGRAM, Done, Person, befriend, environment

from quicprochat.adapters.home import Home
from quicprochat.adapters.sqlite import SqliteStore
from quicprochat.core.ids import ChannelId
from quicprochat.core.posts import last_number

WORD = "correct horse battery"


@pytest.fixture
def people(tmp_path: Path) -> Iterator[tuple[Person, Person, Person]]:
    """Alice, her new home, and Bob."""
    found = Person(tmp_path / "old"), Person(tmp_path / "new"), Person(tmp_path / "bob")
    yield found
    for person in found:
        person.end()


def export(person: Person, file: Path) -> Done:
    return person.run("identity", "export", str(file), "--json", env={"QPC_PASSPHRASE": WORD})


def move(old: Person, new: Person, file: Path) -> Done:
    assert export(old, file).code == 0
    done = new.run("identity", "import", str(file), "--old-copy-is-off", "--json", env={"QPC_PASSPHRASE": WORD})
    assert done.code == 0, done.talk
    return done


def until(person: Person, what: str) -> list[dict[str, str]]:
    """Ask a daemon for its alarms until there is one of this kind."""
    deadline = time.monotonic() + 2 * PATIENCE_S
    while time.monotonic() < deadline:
        alarms: list[dict[str, str]] = person.ask("identity")["alarms"]
        if any(alarm["code"] == what for alarm in alarms):
            return alarms
        time.sleep(0.1)
    raise AssertionError(f"no alarm {what!r} at {person.home}")


def test_what_was_sealed_for_the_old_home_opens_in_the_new_one(
    people: tuple[Person, Person, Person], tmp_path: Path
) -> None:
    alice, new, bob = people
    befriend(bob, alice)
    alice.up()
    bob.up()
    assert bob.ask("send", "bob", "hello", "--wait", "delivered")["protection"] == "forward-secret"
    assert alice.down().code == 0
    waiting = bob.ask("send", "bob", "sealed to a key of the old home")
    assert (waiting["state"], waiting["protection"]) == ("queued", "forward-secret")
    moved = move(alice, new, tmp_path / "alice.qpc").json
    assert (moved["public_key"], moved["contacts"], moved["prekeys"]) == (alice.key, 1, 1)

    # Bob has that message under its first sealing until he hears of the new home: only the old prekey opens it.
    new.up()
    line = json.loads(new.run("listen", "--count", "1", "--timeout", "20", "--json").out)
    assert (line["text"], line["name"], line["protection"]) == (
        "sealed to a key of the old home",
        "alice",
        "forward-secret",
    )
    assert bob.ask("trace", waiting["id"])["state"] in ("delivered", "queued")
    assert new.ask("identity")["alarms"] == []
    assert [peer["name"] for peer in new.ask("identity")["peers"]] == ["alice"]
    assert len(bob.ask("trace", waiting["id"])["envelopes"]) == 1
    assert new.ask("send", "alice", "I moved", "--wait", "delivered")["state"] == "delivered"
    (answer,) = [line for line in bob.lines("inbox") if line["text"] == "I moved"]
    assert (answer["from"], answer["name"]) == (moved["public_key"], "bob")


def test_an_old_copy_that_still_runs_is_noticed(people: tuple[Person, Person, Person], tmp_path: Path) -> None:
    alice, new, bob = people
    befriend(bob, alice)
    alice.up()
    bob.up()
    assert bob.ask("send", "bob", "hello", "--wait", "delivered")["state"] == "delivered"
    move(alice, new, tmp_path / "alice.qpc")  # a daemon owns the old home, and goes on running
    new.up()
    (alarm, *_) = until(new, "identity_cloned")
    assert "stop it" in alarm["text"]
    until(alice, "identity_cloned")
    assert "in use elsewhere" in new.down().talk


def test_a_passphrase_comes_from_the_environment_or_the_first_line(
    people: tuple[Person, Person, Person], tmp_path: Path
) -> None:
    alice, new, _ = people
    file = tmp_path / "alice.qpc"
    alice.ask("mesh", "subscribe", "village")
    alice.ask("mesh", "subscribe", "left")
    alice.ask("mesh", "unsubscribe", "left")
    done = alice.run("identity", "export", str(file), data=f"{WORD}\nmore\n".encode())
    assert (done.code, done.out) == (0, f"{file}: your key, your name, 0 contacts and 1 channel; no messages\n")
    assert file.stat().st_mode & 0o777 == 0o600
    assert WORD not in done.out + done.talk
    wrong = new.run("identity", "import", str(file), "--old-copy-is-off", "--json", data=b"something else\n")
    assert (wrong.code, wrong.error["code"]) == (4, "untrusted")
    unsure = new.run("identity", "import", str(file), "--json", data=f"{WORD}\n".encode())
    assert (unsure.code, unsure.error["code"]) == (2, "usage")
    assert "--old-copy-is-off" in unsure.error["message"]
    done = new.run("identity", "import", str(file), "--old-copy-is-off", env={"QPC_PASSPHRASE": WORD})
    assert (done.code, done.talk) == (0, "")
    assert done.out.endswith(" now, with 0 contacts and 1 channel; messages stayed in the old home\n")
    assert new.key == alice.key


def test_channels_and_the_numbers_of_posts_go_on_in_the_new_home(
    people: tuple[Person, Person, Person], tmp_path: Path
) -> None:
    alice, new, bob = people
    befriend(bob, alice)
    made = alice.ask("mesh", "subscribe", "family", "--key", "new")
    alice.ask("mesh", "subscribe", "village")
    bob.ask("mesh", "subscribe", "family", "--key", made["key"])
    for text in ("one", "two"):
        alice.ask("mesh", "broadcast", "family", text)
    move(alice, new, tmp_path / "alice.qpc")
    channels = {channel["topic"]: channel["channel"] for channel in new.ask("mesh", "channels")}
    assert channels == {"family": made["channel"], "village": alice.ask("mesh", "channels")[1]["channel"]}

    new.up()
    bob.up()
    assert new.ask("mesh", "broadcast", "family", "three")["channel"] == made["channel"]
    done = bob.run("mesh", "listen", "--count", "1", "--timeout", "20", "--json")
    assert [(line["text"], line["from"]) for line in done.lines] == [("three", alice.key)]
    assert new.down().code == 0
    store = SqliteStore.open(Home(new.home).database)
    assert last_number(store, ChannelId(bytes.fromhex(made["channel"]))) == 3
    store.close()


def test_what_cannot_be_done_is_said_in_one_sentence(people: tuple[Person, Person, Person], tmp_path: Path) -> None:
    alice, new, _ = people
    file = tmp_path / "alice.qpc"
    assert export(alice, file).code == 0
    alice.up()
    (tmp_path / "text").write_text("hello")
    word = {"QPC_PASSPHRASE": WORD}
    for person, arguments, env, code, error in (
        (alice, ("export", str(file)), word, 2, "exists"),
        (alice, ("export", str(tmp_path / "no" / "x")), word, 3, "unavailable"),
        (alice, ("export", str(tmp_path / "short")), {"QPC_PASSPHRASE": "seven77"}, 2, "usage"),
        (alice, ("export", str(tmp_path / "none")), {}, 2, "usage"),
        (alice, ("export",), word, 2, "usage"),
        (alice, ("give", "x"), word, 2, "usage"),
        (new, ("import", str(tmp_path / "none"), "--old-copy-is-off"), word, 5, "not_found"),
        (new, ("import", str(tmp_path / "text"), "--old-copy-is-off"), word, 2, "usage"),
        (alice, ("import", str(file), "--old-copy-is-off"), word, 3, "owned"),
    ):
        done = person.run("identity", *arguments, "--json", env=env)
        assert (done.code, done.out, done.error["code"]) == (code, "", error), (arguments, done.talk)
    assert not (tmp_path / "short").exists()
    assert not (tmp_path / "none").exists()
    prompt = alice.run("--json", data=b"/identity export x\n")
    assert prompt.code == 2
    assert "from the shell" in prompt.talk


class Typist:
    """Somebody at a terminal."""

    def __init__(self, *arguments: str) -> None:
        self.terminal, theirs = pty.openpty()
        # The first terminal that the leader of a session opens becomes its own: what /dev/tty is then.
        program = f"import os; os.close(os.open(os.ttyname(0), os.O_RDWR)); {PROGRAM}"
        command = [sys.executable, "-W", "error", "-c", program, *arguments]
        self.process = subprocess.Popen(
            command, env=environment(), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        self.seen = ""

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.seen:
            ready, _, _ = select.select([self.terminal], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{text!r} was not shown: {self.seen!r}"
            try:
                self.seen += os.read(self.terminal, 4096).decode()
            except OSError:
                raise AssertionError(f"{text!r} was not shown: {self.seen!r}") from None

    def answer(self, question: str, text: str) -> None:
        self.wait_for(question)
        self.seen = self.seen.replace(question, "", 1)
        os.write(self.terminal, text.encode() + b"\n")

    def end(self) -> int:
        try:
            while part := os.read(self.terminal, 4096):
                self.seen += part.decode()
        except OSError:
            pass
        os.close(self.terminal)
        return self.process.wait(PATIENCE_S)


def test_at_a_terminal_the_passphrase_is_asked_twice_and_never_shown(
    people: tuple[Person, Person, Person], tmp_path: Path
) -> None:
    alice, new, _ = people
    file = str(tmp_path / "alice.qpc")
    typist = Typist(*alice.common, "identity", "export", file)
    typist.answer("Passphrase: ", WORD)
    typist.answer("The same again: ", WORD + "x")
    assert typist.end() == 2
    assert "differ" in typist.seen
    typist = Typist(*alice.common, "identity", "export", file)
    typist.answer("Passphrase: ", WORD)
    typist.answer("The same again: ", WORD)
    assert typist.end() == 0
    assert WORD not in typist.seen
    typist = Typist(*new.common, "identity", "import", file)
    typist.answer("(yes/no) ", "maybe")
    assert typist.end() == 7
    typist = Typist(*new.common, "identity", "import", file)
    typist.answer("(yes/no) ", "yes")
    typist.answer("Passphrase: ", WORD)
    assert typist.end() == 0
    assert WORD not in typist.seen
    assert new.key == alice.key
