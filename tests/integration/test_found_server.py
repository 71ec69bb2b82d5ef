"""A home server found on the local network, as its users meet it: over the loopback of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.integration.home_server import Server
from tests.integration.qpc import PROGRAM, Person
from tests.integration.test_prompt import NO_PROMPT_TOOLKIT, Sitting

from quicprochat.p2p.announced import spoken

FOUND = {"QPC_NO_DISCOVERY": "0"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "s")
    made.up("--discovery", "--domain", "village.example")
    yield made
    made.end()


@pytest.fixture
def ada(tmp_path: Path) -> Iterator[Person]:
    made = Person(tmp_path / "ada")
    yield made
    made.end()


def test_a_single_command_is_told_what_to_type(server: Server, ada: Person) -> None:
    digits = server.fingerprint.hex()
    done = ada.run("--json", "server", "village.example", env=FOUND)
    refused = done.error
    assert (done.code, refused["code"]) == (4, "untrusted")
    assert spoken(server.fingerprint) in refused["message"]
    assert f"qpc server village.example --trust {digits}" in refused["message"]
    assert ada.ask("server")["server"] == ""
    assert ada.run("mesh", "server", digits[:8], "--trust", "00" * 32, env=FOUND).code == 4
    there = ada.ask("mesh", "server", digits[:8], "--trust", spoken(server.fingerprint), env=FOUND)
    assert (there["connected"], there["fingerprint"]) == (True, digits)
    assert ada.ask("server")["server"] == there["server"]


@pytest.mark.parametrize("program", [PROGRAM, NO_PROMPT_TOOLKIT], ids=["prompt", "plain prompt"])
def test_the_prompt_asks_and_takes_no_for_an_answer(server: Server, ada: Person, program: str) -> None:
    at = Sitting(ada, TERM="dumb" if program is NO_PROMPT_TOOLKIT else "xterm-256color", program=program, **FOUND)
    row = spoken(server.fingerprint)[:19]
    at.until(lambda: any(row.startswith("> ") or row == ">" for row in at.emulator.rows), "the prompt")
    for times, (answer, outcome) in enumerate((("no", "was not confirmed"), ("yes", ": connected")), 1):
        at.enter("/mesh server village.example")
        at.until(partial(shown, at, row, times), row)
        at.until(lambda: at.emulator.rows[at.emulator.screen.cursor.y].startswith("yes/no>"), "the question")
        at.enter(answer)
        at.shows(outcome)
        at.until(lambda: at.emulator.rows[at.emulator.screen.cursor.y].startswith(">"), "the prompt")
    at.enter("/quit")
    assert at.end() == 0
    assert ada.ask("server")["fingerprint"] in ("", server.fingerprint.hex())


def shown(at: Sitting, row: str, times: int) -> bool:
    return at.emulator.shown.count(row) >= times


def test_a_script_is_not_asked(server: Server, ada: Person) -> None:
    done = ada.run(data=b"/server village.example\nyes\n", env=FOUND)
    assert done.code == 4
    assert "--trust" in done.talk
    assert "yes/no" not in done.out + done.talk
