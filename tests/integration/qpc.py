"""The program as its users start it: real processes on 127.0.0.1, each person with a home and a port of their own."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from quicprochat.adapters.crypto import SodiumCrypto
from quicprochat.adapters.home import Home
from quicprochat.adapters.system import entropy
from quicprochat.p2p.book import AddressBook

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "import sys; from quicprochat.cli import main; sys.exit(main())"
NO_EXTRA = "import sys; sys.modules['iroh'] = None; from quicprochat.cli import main; sys.exit(main())"
PATIENCE_S = 20.0
"""How long anything may take on a busy machine before a test calls it a failure."""


def environment(**more: str) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("QPC_")}
    # Tests share this machine's loopback: nobody is to be found there who was not meant.
    return {**clean, "PYTHONPATH": str(ROOT / "src"), "QPC_NO_DISCOVERY": "1", **more}


def start(*arguments: str | bytes, program: str = PROGRAM, **more: Any) -> subprocess.Popen[bytes]:
    """Start the program; warnings of ours are errors in it."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-W", "error", "-c", program, *arguments]
    return subprocess.Popen(command, env=environment(**more.pop("env", {})), **{**pipes, **more})


class Done:
    """A finished run: exit code, output, talk."""

    def __init__(self, code: int, out: bytes, talk: bytes) -> None:
        self.code = code
        self.out = out.decode()
        self.talk = talk.decode()
        assert "Traceback" not in self.talk, self.talk
        assert "Exception ignored" not in self.talk, self.talk

    @property
    def json(self) -> Any:
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> dict[str, str]:
        return dict(json.loads(self.talk)["error"])


def finish(process: subprocess.Popen[bytes], data: bytes | None = None) -> Done:
    try:
        out, talk = process.communicate(data, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"still running: {process.args!r}; {process.communicate()!r}") from None
    return Done(process.returncode, out or b"", talk or b"")


def run(*arguments: str | bytes, data: bytes | None = None, program: str = PROGRAM, **more: Any) -> Done:
    if data is not None:
        more["stdin"] = subprocess.PIPE
    return finish(start(*arguments, program=program, **more), data)


def read_line(process: subprocess.Popen[bytes]) -> str:
    """Wait for the next line of a process's output; "" at its end."""
    assert process.stdout is not None
    line = b""
    deadline = time.monotonic() + PATIENCE_S
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([process.stdout], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"no line within {PATIENCE_S} s: {process.args!r}"
        part = os.read(process.stdout.fileno(), 1)
        if not part:
            break
        line += part
    return line.decode()


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Person:
    """Somebody with a home, perhaps with a daemon running."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.address = f"127.0.0.1:{free_port()}"
        self.common = ("--home", str(home), "--bind", self.address)
        self.daemon: subprocess.Popen[bytes] | None = None
        self.ready = ""
        self.others: list[subprocess.Popen[bytes]] = []

    def up(self, *options: str) -> None:
        self.daemon = start("daemon", *self.common, *options)
        self.ready = read_line(self.daemon)
        assert self.ready.startswith("ready "), finish(self.daemon).talk

    def down(self, how: signal.Signals = signal.SIGTERM) -> Done:
        assert self.daemon is not None
        self.daemon.send_signal(how)
        done = finish(self.daemon)
        self.daemon = None
        return done

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[bytes]:
        process = start(*arguments, *self.common, **more)
        self.others.append(process)
        return process

    def run(self, *arguments: str | bytes, data: bytes | None = None, **more: Any) -> Done:
        """Run a command in words for people."""
        return run(*self.common, *arguments, data=data, **more)

    def ask(self, *arguments: str, code: int = 0, **more: Any) -> Any:
        """Run a command and return its JSON answer."""
        done = self.run("--json", *arguments, **more)
        assert done.code == code, (done.code, done.out, done.talk)
        return done.json

    def lines(self, *arguments: str, **more: Any) -> list[Any]:
        """Run a command that answers with one JSON object a line."""
        done = self.run("--json", *arguments, **more)
        assert done.code == 0, (done.code, done.out, done.talk)
        return done.lines

    @property
    def book(self) -> AddressBook:
        """The address book on disk; a running daemon has its own copy of it."""
        return AddressBook(Home(self.home).identity, SodiumCrypto(entropy), entropy)

    @property
    def key(self) -> str:
        return self.book.identity.key.hex()

    def end(self) -> None:
        for process in (*self.others, *([self.daemon] if self.daemon else [])):
            if process.poll() is None:
                process.kill()
            process.communicate()


def befriend(one: Person, other: Person) -> None:
    """Let both have the other in their address book, as "alice" and "bob"; no daemon of theirs may run yet."""
    assert one.daemon is None
    assert other.daemon is None
    one.book.add(f"{other.key}@{other.address}", "bob")
    other.book.add(f"{one.key}@{one.address}", "alice")
