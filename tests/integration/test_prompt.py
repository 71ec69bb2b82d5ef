"""The prompt as its users start it: the program on a pseudo terminal that controls it, and somebody who reads along."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.qpc import NO_EXTRA, PATIENCE_S, PROGRAM, Person, befriend, finish, run
from tests.unit.emulator import Emulator

NO_PROMPT_TOOLKIT = f"import sys; sys.modules['prompt_toolkit'] = None; sys.modules['rich'] = None; {PROGRAM}"


class Sitting:
    """A person at a terminal."""

    def __init__(self, person: Person, *options: str, program: str = PROGRAM, **environment: str) -> None:
        self.emulator = Emulator()
        self.before = termios.tcgetattr(self.emulator.master)
        self.process = person.start(
            *options,
            program=program,
            stdin=self.emulator.slave,
            stdout=self.emulator.slave,
            stderr=self.emulator.slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={"TERM": "xterm-256color", **environment},
        )
        os.close(self.emulator.slave)

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            left = deadline - time.monotonic()
            assert left > 0, f"{what} did not come:\n{self.emulator.shown}"
            if select.select([self.emulator.master], [], [], min(left, 0.1))[0] and not self.emulator.take():
                assert condition(), f"{what} did not come before the end:\n{self.emulator.shown}"

    def shows(self, text: str) -> None:
        self.until(lambda: text in self.emulator.shown, repr(text))

    def enter(self, line: str) -> None:
        self.emulator.type(line)
        self.until(lambda: any(row.endswith(line) for row in self.emulator.rows), line)
        self.emulator.type("\r")

    def end(self) -> int:
        """Read to the end of the program's output; return its exit code."""
        self.until(lambda: not self.emulator.take(), "the end")
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def people(tmp_path: Path) -> Iterator[tuple[Person, Person]]:
    found = Person(tmp_path / "a"), Person(tmp_path / "b")
    yield found
    for person in found:
        person.end()


def test_two_people_talk(people: tuple[Person, Person]) -> None:
    a, b = people
    befriend(a, b)
    ann, bob = Sitting(a), Sitting(b)
    ann.shows("1 link")
    ann.enter("/query bob")
    ann.shows("to bob")
    ann.enter("hello bob")
    ann.shows("-> bob: hello bob  (delivered)")
    bob.shows("alice: hello bob")
    bob.emulator.type("half a li")
    bob.shows("> half a li")
    ann.enter("and another")
    bob.shows("alice: and another")
    bob.shows("> half a li")
    bob.emulator.type("\x15\x04")
    assert bob.end() == 0
    ann.shows("0 links")
    ann.enter("are you there?")
    ann.shows("-> bob: are you there?  (queued)")
    ann.shows("1 waiting")
    b.up()
    ann.shows('delivered to bob: "are you there?"')
    ann.until(lambda: "waiting" not in ann.emulator.shown, "an empty outbox")
    ann.emulator.type("/quit\r")
    assert ann.end() == 0
    assert ann.emulator.strange == []
    assert [line["text"] for line in b.lines("inbox")] == ["hello bob", "and another", "are you there?"]
    history = a.home / "history"
    assert history.stat().st_mode & 0o777 == 0o600
    assert [json.loads(row) for row in history.read_text().splitlines()][:2] == ["/query bob", "hello bob"]


def test_beside_a_daemon_and_after_it(people: tuple[Person, Person]) -> None:
    a, b = people
    befriend(a, b)
    a.up()
    b.up()
    ann = Sitting(a)
    ann.shows("1 link")
    b.ask("send", "alice", "are you there?", "--wait", "delivered")
    ann.shows("bob: are you there?")
    ann.enter("/msg bob yes")
    ann.shows("-> bob: yes  (delivered)")
    a.down()
    b.ask("send", "alice", "still there?", "--wait", "delivered")
    ann.shows("bob: still there?")
    ann.enter("/msg bob still")
    ann.shows("-> bob: still  (delivered)")
    ann.emulator.type("\x04")
    assert ann.end() == 0


def test_a_closed_terminal_ends_it_and_loses_nothing(people: tuple[Person, Person]) -> None:
    a, b = people
    befriend(a, b)
    b.up()
    ann = Sitting(a)
    ann.shows("1 link")
    b.ask("send", "alice", "seen", "--wait", "delivered")
    ann.shows("bob: seen")
    until_nothing_unread(a)
    os.close(ann.emulator.master)
    assert ann.process.wait(PATIENCE_S) in (0, 130)
    a.up()
    b.ask("send", "alice", "not seen yet", "--wait", "delivered")
    assert [line["text"] for line in a.run("listen", "--count", "1", "--json").lines] == ["not seen yet"]


def until_nothing_unread(person: Person) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while person.ask("store")["unread"]:
        assert time.monotonic() < deadline


def test_what_the_terminal_did_not_take_comes_again(people: tuple[Person, Person]) -> None:
    a, b = people
    befriend(a, b)
    a.up()
    b.up()
    texts = [letter * 50_000 for letter in "vwxyz"]
    for text in texts:
        a.ask("send", "bob", "-", "--wait", "delivered", data=text.encode())
    bob = Sitting(b)  # nobody reads this terminal: it takes a few kilobytes
    deadline = time.monotonic() + PATIENCE_S
    while not select.select([bob.emulator.master], [], [], 0.1)[0]:
        assert time.monotonic() < deadline
    bob.process.send_signal(signal.SIGKILL)
    bob.process.wait()
    again = b.run("listen", "--count", "5", "--timeout", "10", "--json")
    assert [line["text"] for line in again.lines] == texts


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_and_the_terminal_is_as_before(people: tuple[Person, Person], how: signal.Signals) -> None:
    a, _ = people
    ann = Sitting(a)
    ann.shows("0 links")
    ann.process.send_signal(how)
    assert ann.end() == 130
    assert termios.tcgetattr(ann.emulator.master) == ann.before
    assert ann.emulator.raw.rfind(b"\x1b[?2004l") > ann.emulator.raw.rfind(b"\x1b[?2004h")
    assert not ann.emulator.screen.cursor.hidden


def test_a_resized_terminal_is_drawn_anew(people: tuple[Person, Person]) -> None:
    a, _ = people
    ann = Sitting(a)
    ann.shows("0 links")
    ann.emulator.type("some words")
    ann.shows("> some words")
    for rows, columns in ((12, 50), (30, 110), (24, 80)):
        ann.emulator.resize(rows, columns)
        ann.until(lambda columns=columns: ann.emulator.bars[-1:] == [columns], "a status line of the new width")  # type: ignore[misc]
        ann.until(lambda: "> some words" in ann.emulator.rows, "the line")
    ann.emulator.type("\x15\x04")
    assert ann.end() == 0


def test_a_pasted_block_waits_for_enter(people: tuple[Person, Person]) -> None:
    a, b = people
    befriend(a, b)
    b.up()
    ann = Sitting(a)
    ann.shows("1 link")
    ann.enter("/query bob")
    ann.shows("to bob")
    block = "\n".join(f"line {n}" for n in range(50))
    ann.emulator.type(f"\x1b[200~{block}\x1b[201~")
    ann.shows("50 lines: Enter sends them as one message")
    assert b.lines("inbox") == []
    ann.emulator.type("\r")
    ann.shows("    | line 49  (delivered)")
    assert [line["text"] for line in b.lines("inbox")] == [block]
    ann.emulator.type("\x04")
    assert ann.end() == 0


def test_terminals_that_are_not_utf8_or_have_no_colours(people: tuple[Person, Person]) -> None:
    a, b = people
    befriend(a, b)
    b.up()
    ann = Sitting(a, LC_ALL="C", NO_COLOR="1")
    ann.shows("1 link")
    b.ask("send", "alice", "schöne Grüße 日本", "--wait", "delivered")
    ann.shows("bob: schoene Gruesse ??")
    ann.emulator.type("\x04")
    assert ann.end() == 0
    assert max(ann.emulator.raw) < 0x80
    assert b"\x1b[0;32" not in ann.emulator.raw


def test_a_dumb_terminal_gets_the_plain_prompt(people: tuple[Person, Person]) -> None:
    a, _ = people
    ann = Sitting(a, TERM="dumb", program=NO_PROMPT_TOOLKIT)
    ann.until(lambda: ">" in ann.emulator.rows, "the prompt")
    ann.emulator.type("/store\r")
    ann.shows("waiting here")
    ann.emulator.type("/quit\r")
    assert ann.end() == 0
    assert b"\x1b" not in ann.emulator.raw


def test_a_home_that_cannot_be_used_is_said_before_the_prompt(people: tuple[Person, Person]) -> None:
    a, _ = people
    a.home.mkdir(mode=0o755)
    ann = Sitting(a)
    ann.shows("chmod 700")
    assert ann.end() == 3


def test_without_the_extra_there_is_a_prompt_too(people: tuple[Person, Person]) -> None:
    a, _ = people
    ann = Sitting(a, program=NO_EXTRA)
    ann.shows("no network")
    ann.enter("/mesh peers")
    ann.shows("'.[mesh]'")
    ann.emulator.type("\x04")
    assert ann.end() == 0


def test_the_prompt_is_there_within_a_second(people: tuple[Person, Person]) -> None:
    a, _ = people
    took = []
    for _ in range(3):
        begun = time.monotonic()
        ann = Sitting(a)
        ann.shows("\n>")
        took.append(time.monotonic() - begun)
        ann.emulator.type("\x04")
        assert ann.end() == 0
        ann.emulator.close()
    assert min(took) < 1


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("store", "--json"), ("inbox",)])
def test_one_shot_calls_load_nothing_of_the_prompt(people: tuple[Person, Person], arguments: tuple[str, ...]) -> None:
    a, _ = people
    assert run(*arguments, "--home", str(a.home), program=NO_PROMPT_TOOLKIT).code == 0


def test_the_status_is_told_through_the_socket(people: tuple[Person, Person]) -> None:
    """What the status line shows, as any program of the same user can have it."""
    import socket

    a, b = people
    befriend(a, b)
    a.up()
    found: list[dict[str, Any]] = []
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE_S)
        connection.connect(str(a.home / "qpc.sock"))
        connection.sendall(b'{"command": "watch", "args": {}}\n')
        answers = connection.makefile("r")

        def until(condition: Callable[[dict[str, Any]], bool]) -> None:
            while not found or not condition(found[-1]):
                frame = json.loads(answers.readline())
                if "item" in frame:
                    found.append(frame["item"])

        until(lambda status: status["links"] == 0)
        assert found[-1]["public_key"] == a.key
        a.ask("send", "bob", "for later")
        until(lambda status: status["waiting"] == 1)
        b.up()
        until(lambda status: status["links"] == 1 and status["waiting"] == 0)
        b.ask("send", "alice", "hi", "--wait", "delivered")
        until(lambda status: status["unread"] > 0)
        a.run("listen", "--count", "1", "--json")
        until(lambda status: status["unread"] == 0)
        a.ask("identity", "--name", "Ann")
        b.down()
        until(lambda status: status["links"] == 0 and status["name"] == "Ann")
    assert len(found) < 40


def test_the_plain_prompt_serves_pipes(people: tuple[Person, Person]) -> None:
    a, _ = people
    done = finish(a.start("--json", stdin=subprocess.PIPE, program=NO_PROMPT_TOOLKIT), b"/store\n")
    assert (done.code, len(done.lines)) == (0, 1)


def test_channels_at_the_plain_prompt(people: tuple[Person, Person]) -> None:
    a, _ = people
    lines = b"/subscribe village\n/join #village\nit rains\n/history\n/unsubscribe village\nnobody hears this\n"
    done = finish(a.start(stdin=subprocess.PIPE, program=NO_PROMPT_TOOLKIT), lines)
    assert "plain lines go to #village (open) now" in done.talk
    assert "#village (open) you: it rains" in done.out
    assert "plain lines go to nobody now" in done.talk
    assert "this line goes to nobody" in done.talk
    assert (done.code, a.ask("mesh", "channels")) == (2, [])


def test_a_script_that_joins_a_channel_it_is_not_in_opens_none(people: tuple[Person, Person]) -> None:
    a, _ = people
    a.ask("mesh", "subscribe", "village", "--key", "new")
    done = finish(a.start(stdin=subprocess.PIPE, program=NO_PROMPT_TOOLKIT), b"/join vilage\nthe code is 1234\n")
    assert "you are in no channel vilage; did you mean village? To join or open one, write: qpc mesh subsc" in done.talk
    assert "this line goes to nobody" in done.talk
    assert (done.code, [channel["topic"] for channel in a.ask("mesh", "channels")]) == (5, ["village"])


def test_what_another_process_does_is_known_at_the_prompt(people: tuple[Person, Person]) -> None:
    a, b = people
    ann = Sitting(a)
    ann.shows("0 links")
    a.ask("add", b.key, "--name", "Robert")
    a.ask("mesh", "subscribe", "swap-shop")
    ann.emulator.type("/msg Rob")
    ann.until(lambda: complete(ann, "/msg Robert "), "the new contact")
    ann.emulator.type("\x15/join sw")
    ann.until(lambda: complete(ann, "/join swap-shop "), "the new channel")
    ann.emulator.type("\r")
    ann.shows("in #swap-shop (open)")
    a.ask("mesh", "unsubscribe", "swap-shop")
    ann.shows("another program left #swap-shop (open); plain lines go to nobody now")
    ann.shows("no conversation")
    ann.emulator.type("/quit\r")
    assert ann.end() == 0


def complete(sitting: Sitting, wanted: str) -> bool:
    """Press Tab, and say whether the line is now as wanted."""
    row = sitting.emulator.rows[sitting.emulator.screen.cursor.y]
    if row != f"> {wanted.rstrip()}":
        sitting.emulator.type("\t")
    return row == f"> {wanted.rstrip()}"


def test_two_channels_at_one_prompt(people: tuple[Person, Person]) -> None:
    a, b = people
    befriend(a, b)
    a.up()
    b.up()
    for person in people:
        person.ask("mesh", "subscribe", "village")
        person.ask("mesh", "subscribe", "bakery")
    ann = Sitting(a)
    ann.shows("1 link")
    ann.enter("/join village")
    ann.shows("\n[#village (open)]")
    ann.shows("in #village (open)")
    b.ask("mesh", "broadcast", "bakery", "the bread is ready")  # Ann's node has it now, or as soon as it subscribes
    ann.shows("#bakery (open) 1 | in #village (open)")
    b.ask("mesh", "broadcast", "village", "who has a ladder?")
    ann.shows("#village (open) bob: who has a ladder?")
    ann.enter("I do")
    ann.shows("-> #village (open): I do")
    ann.until(lambda: {c["topic"]: c["unread"] for c in a.ask("mesh", "channels")} == {"village": 0, "bakery": 1}, "1")
    assert "the bread" not in ann.emulator.shown

    # What was counted is still unread for whoever owns the home next: here, this prompt.
    a.down()
    ann.shows("#bakery (open) 1 | in #village (open)")
    ann.enter("/join bakery")
    ann.shows("#bakery (open) bob: the bread is ready")
    ann.until(lambda: "#bakery (open) 1" not in ann.emulator.shown, "all read")
    until_nothing_unread(a)
    ann.enter("/history village")
    ann.until(lambda: ann.emulator.shown.count("who has a ladder?") == 2, "the history of the village")
    ann.until(lambda: ann.emulator.shown.count("-> #village (open): I do") == 2, "our own post in it")
    assert ann.emulator.shown.count("the bread is ready") == 1
    ann.emulator.type("/quit\r")
    assert ann.end() == 0
    assert ann.emulator.strange == []
