"""``qpc doctor`` as one calls it: beside a daemon, without one, without the extra, and on what is broken."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.integration.qpc import NO_EXTRA, PROGRAM, Person, befriend, run
from tests.labs.machine import until

NAMES = [
    "installation", "disk", "node", "interfaces", "ipv6", "multicast", "mdns", "relay", "server", "nat", "clock",
    "buffers", "underlay",
]  # fmt: skip
BOUND_S = 15.0
"""It takes up to 5 s where the machine is idle; tests run on busy ones."""


def examined(person: Person, *options: str, code: int = 0, program: str = PROGRAM) -> dict[str, dict[str, str]]:
    began = time.monotonic()
    steps: list[dict[str, Any]] = person.ask("doctor", *options, code=code, program=program)["steps"]
    assert time.monotonic() - began < BOUND_S
    assert [step["name"] for step in steps] == NAMES
    assert all(step.keys() == {"name", "state", "text", "advice"} for step in steps)
    assert {step["state"] for step in steps} <= {"ok", "warn", "fail"}
    assert any(step["state"] == "fail" for step in steps) is (code == 3)
    return {step["name"]: step for step in steps}


def test_without_a_daemon_and_with_one(tmp_path: Path) -> None:
    ada, bob = Person(tmp_path / "ada"), Person(tmp_path / "bob")
    try:
        befriend(ada, bob)
        steps = examined(ada)
        assert steps["node"]["state"] == "warn"
        assert ada.address.partition(":")[2] in steps["node"]["text"]
        assert steps["multicast"]["text"].startswith("not tried")
        bob.up()
        ada.up()
        until(lambda: examined(ada)["node"]["text"].endswith("with 1 link"))
        (route,) = ada.ask("mesh", "route")
        assert route["underlay"] is None
        steps = examined(ada)
        assert (steps["node"]["state"], steps["server"]["state"]) == ("ok", "ok")
        assert "write-ahead" not in steps["disk"]["text"]
        assert steps["nat"]["text"].startswith("none towards 1 contact: seen at ")
        lines = ada.run("doctor").out.splitlines()
        assert [line.split()[1].rstrip(":") for line in lines] == NAMES
    finally:
        ada.end()
        bob.end()


def test_a_relay_that_is_silent_fails_and_one_that_may_not_be_asked_does_not_start(tmp_path: Path) -> None:
    ada = Person(tmp_path / "ada")
    steps = examined(ada, "--relay", "http://127.0.0.1:9", code=3)
    assert (steps["relay"]["state"], steps["relay"]["text"]) == ("fail", "http://127.0.0.1:9 is silent")
    steps = examined(ada, "--relay", "http://relay.example:7002", "--network", "lan", code=3)
    assert "network mode is lan" in steps["node"]["text"]
    assert steps["relay"]["text"] == "http://relay.example:7002 is not asked (network lan)"


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    ada = Person(tmp_path / "ada")
    steps = examined(ada, program=NO_EXTRA)
    assert steps["installation"]["state"] == "warn"
    assert "[mesh]" in steps["installation"]["advice"]


def test_a_home_that_cannot_be_one_and_a_damaged_database_are_steps_that_failed(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("x")
    done = run("doctor", "--home", str(place))
    assert done.code == 3
    assert "fail  node: " in done.out
    assert "fail  disk: " in done.out
    assert "is not a directory" in done.out
    ada = Person(tmp_path / "ada")
    assert ada.run("store").code == 0
    (tmp_path / "ada" / "mesh.db").write_bytes(b"x" * 8_192)
    assert examined(ada, code=3)["node"]["state"] == "fail"


def test_at_the_prompt_it_is_for_the_shell(tmp_path: Path) -> None:
    done = Person(tmp_path / "ada").run(data=b"/doctor\n")
    assert "this is for the shell: qpc doctor" in done.talk
