"""Two people on one cable, with nothing but the commands of the README."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.labs.veth import needs_root, sh, two_machines

QPC = str(Path(sys.executable).with_name("qpc"))
pytestmark = [pytest.mark.lab, needs_root]


class Machine:
    """One namespace, one home, and a daemon that may be running."""

    def __init__(self, name: str, home: Path) -> None:
        self.name = name
        self.home = home
        self._daemon: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = ["ip", "netns", "exec", self.name, QPC, "daemon", "--home", str(self.home)]
        self._daemon = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._daemon.stdout is not None
        assert self._daemon.stdout.readline().startswith("ready")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int | None:
        if self._daemon is None:
            return None
        self._daemon.send_signal(how)
        code = self._daemon.wait(10)
        assert self._daemon.stdout is not None
        self._daemon.stdout.close()
        self._daemon = None
        return code

    def qpc(self, *command: str) -> Any:
        """Run a command on this machine and return its JSON answer."""
        return json.loads(self._run(*command))

    def inbox(self) -> list[str]:
        """Return the texts in this machine's inbox."""
        return [json.loads(line)["text"] for line in self._run("inbox").splitlines()]

    def _run(self, *command: str) -> str:
        return sh("ip", "netns", "exec", self.name, QPC, "mesh", *command, "--json", "--home", str(self.home))


@pytest.fixture
def people(tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    with two_machines() as names:
        found = Machine(names[0], tmp_path / "a"), Machine(names[1], tmp_path / "b")
        try:
            yield found
        finally:
            for machine in found:
                machine.stop()


def test_two_people_write_to_each_other_and_nothing_is_lost_while_one_is_away(
    people: tuple[Machine, Machine],
) -> None:
    a, b = people
    a.start()
    b.start()
    added = a.qpc("add", b.qpc("identity")["ticket"], "--name", "bob")
    assert added["name"] == "bob"
    a_key = a.qpc("identity")["public_key"]

    there = a.qpc("send", "bob", "are you there?", "--wait", "delivered", "--timeout", "10")
    assert (there["state"], there["protection"]) == ("delivered", "forward-secret")
    back = b.qpc("send", a_key, "yes", "--wait", "delivered", "--timeout", "10")
    assert back["state"] == "delivered"
    assert b.inbox() == ["are you there?"]
    assert a.inbox() == ["yes"]
    (route,) = a.qpc("route")
    assert (route["destination"], route["hops"], route["via"]) == (b.qpc("identity")["public_key"], 1, "direct")

    assert b.stop() == 0
    waiting = a.qpc("send", "bob", "for later")
    assert waiting["state"] == "queued"
    assert a.qpc("store")["messages"] == 1

    b.start()
    returned = time.monotonic()
    trace = a.qpc("trace", waiting["id"])
    while trace["state"] != "delivered":
        assert time.monotonic() - returned < 10, "not delivered 10 s after the recipient came back"
        trace = a.qpc("trace", waiting["id"])
    took = time.monotonic() - returned
    assert took < 3, f"delivered {took:.1f} s after the recipient came back"
    assert trace["events"][0]["state"] == "queued"
    assert trace["events"][-1]["state"] == "delivered"
    assert b.inbox() == ["are you there?", "for later"]
    assert a.qpc("store")["messages"] == 0


def test_a_recipient_killed_without_warning_gets_what_was_sent_meanwhile_once(
    people: tuple[Machine, Machine],
) -> None:
    a, b = people
    a.start()
    b.start()
    a.qpc("add", b.qpc("identity")["ticket"], "--name", "bob")
    assert a.qpc("send", "bob", "one", "--wait", "delivered", "--timeout", "10")["state"] == "delivered"
    b.stop(signal.SIGKILL)
    two = a.qpc("send", "bob", "two")
    assert two["state"] == "queued"
    b.start()
    done = a.qpc("send", "bob", "three", "--wait", "delivered", "--timeout", "20")
    assert done["state"] == "delivered"
    assert a.qpc("trace", two["id"])["state"] == "delivered"
    assert b.inbox() == ["one", "two", "three"]


def test_the_one_who_was_added_can_be_the_one_who_comes_back(people: tuple[Machine, Machine]) -> None:
    a, b = people
    a.start()
    b.start()
    a.qpc("add", b.qpc("identity")["ticket"], "--name", "bob")
    a_key = a.qpc("identity")["public_key"]
    assert b.qpc("send", a_key, "hello", "--wait", "delivered", "--timeout", "10")["state"] == "delivered"
    assert a.stop() == 0
    later = b.qpc("send", a_key, "later")
    assert later["state"] == "queued"
    a.start()
    done = b.qpc("send", a_key, "now", "--wait", "delivered", "--timeout", "10")
    assert done["state"] == "delivered"
    assert a.inbox() == ["hello", "later", "now"]
