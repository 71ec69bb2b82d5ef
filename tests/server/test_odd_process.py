"""Handlers that fail, or end the connection they run in, and objects that nobody closed: the process lives on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import quicprochat

PROGRAM = Path(__file__).with_name("odd_process.py")


def tried(what: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), what],
        capture_output=True, text=True, timeout=50, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(quicprochat.__file__).parent.parent)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[-1] == "alive"
    return lines[:-1]


def test_failing_handler_tells_the_peer_nothing_of_itself() -> None:
    told = tried("failing_handler")
    assert len(told) == 3
    assert told[0] == "told: Problem the server failed at this call"
    assert not any(word in line for line in told for word in ("secret", "Traceback", ".py", "File", "site-packages"))


@pytest.mark.parametrize("what", ["ended_within_a_call", "never_closed", "dropped_everywhere"])
def test_process_lives_on(what: str) -> None:
    assert tried(what) == []
