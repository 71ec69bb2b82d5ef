"""The examples, run as their readers run them, over links on loopback."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.qpc import ROOT, Person, environment, finish, free_port, read_line

BOT = ROOT / "examples" / "echo_bot.py"
SEND = ROOT / "examples" / "send_once.py"


def example(path: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "error", str(path), *arguments]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.fixture
def bot(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = example(BOT, str(tmp_path / "bot"), "--bind", f"127.0.0.1:{free_port()}")
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def test_what_is_sent_once_is_answered_by_the_bot(bot: subprocess.Popen[bytes], tmp_path: Path) -> None:
    word, ticket = read_line(bot).split()
    assert word == "ticket"
    person = Person(tmp_path / "me")
    sent = finish(example(SEND, str(person.home), ticket, "hello", "--bind", person.address))
    assert (sent.code, sent.out, sent.talk) == (0, "delivered\n", "")
    lines = person.lines("listen", "--count", "1", "--timeout", "20")
    assert [line["text"] for line in lines if line["event"] == "message"] == ["you said: hello"]
    bot.send_signal(signal.SIGINT)
    done = finish(bot)
    assert (done.code, done.talk) == (0, "")


def test_what_is_sent_to_nobody_there_waits(tmp_path: Path) -> None:
    person, away = Person(tmp_path / "me"), Person(tmp_path / "away")
    ticket = away.ask("identity")["ticket"]
    done = finish(example(SEND, str(person.home), ticket, "hello", "--bind", person.address, "--timeout", "0.2"))
    assert (done.code, done.out) == (6, "queued\n")
    assert person.ask("store")["messages"] == 1


def test_what_goes_wrong_is_said_in_a_sentence(tmp_path: Path) -> None:
    done = finish(example(SEND, str(tmp_path / "me"), "qpc1wrong", "hello", "--bind", f"127.0.0.1:{free_port()}"))
    assert (done.code, done.out) == (3, "")
    assert "ticket" in done.talk
