"""A machine in a lab: a network namespace, a home, and a daemon that may be running there."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.integration.qpc import PROGRAM, ROOT, environment
from tests.labs.bridge import sh

from quicprochat.client.grammar import parse
from quicprochat.client.perform import Performer
from quicprochat.client.session import Session

PATIENCE_S = 20.0


class Said:
    """What a command wrote."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    async def write(self, text: str) -> None:
        self.text += text


class Machine:
    """``name`` is the namespace's."""

    def __init__(self, name: str, home: Path) -> None:
        self.name = name
        self.home = home
        self.prelude = ""
        """What ``qpc`` runs first on this machine."""
        self._daemon: subprocess.Popen[str] | None = None

    def command(self, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *words]

    def start(self, *options: str) -> None:
        self.begin(*options)
        self.ready()

    def begin(self, *options: str) -> None:
        """Start the daemon without waiting for it."""
        # zeroconf leaves a socket to the garbage collector where an interface does not take its address yet.
        warnings = ("-W", "error", "-W", "ignore::ResourceWarning")
        qpc = [sys.executable, *warnings, "-c", self.prelude + PROGRAM, "daemon", "--home", str(self.home), *options]
        self._daemon = subprocess.Popen(
            self.command(*qpc), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment(QPC_NO_DISCOVERY="0"),
        )  # fmt: skip

    def ready(self) -> None:
        """Wait until the daemon says that it is up."""
        assert self._daemon is not None
        assert self._daemon.stdout is not None
        assert self._daemon.stdout.readline().startswith("ready")

    def stop(self) -> str:
        """Stop the daemon; return what it said."""
        if self._daemon is None:
            return ""
        self._daemon.terminate()
        _, talk = self._daemon.communicate(timeout=PATIENCE_S)
        code, self._daemon = self._daemon.returncode, None
        assert code == 0, talk
        assert "Traceback" not in talk, talk
        return talk

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command on this machine."""
        program = [sys.executable, "-c", self.prelude + PROGRAM, *words, "--json", "--home", str(self.home)]
        return subprocess.run(self.command(*program), capture_output=True, text=True, env=environment(**variables))

    def qpc(self, *words: str) -> Any:
        """Carry out a command on this machine and return its JSON answer.

        Where a daemon runs, this process asks it through its socket as the command would, which reaches across
        namespaces and saves a third of a second for an interpreter.
        """
        if self._daemon is not None and not self.prelude:
            return json.loads(asyncio.run(self._ask(words)))
        done = self.run(*words)
        assert done.returncode == 0, (words, done.stderr)
        return json.loads(done.stdout)

    async def _ask(self, words: tuple[str, ...]) -> str:
        request, settings = parse([*words, "--json", "--home", str(self.home)], {})
        said = Said()
        async with Session(settings, stays=False, network=False) as session:
            assert session.node is None, "this machine's daemon is gone"
            code = await Performer(session, said, as_json=True).perform(request)
        assert code == 0, (words, said.text)
        return said.text

    def doctor(self, *options: str) -> tuple[int, dict[str, dict[str, str]]]:
        """Return the exit code of ``qpc doctor``, and its steps by name; it may look at the local network."""
        done = self.run("doctor", *options, QPC_NO_DISCOVERY="0")
        return done.returncode, {step["name"]: step for step in json.loads(done.stdout)["steps"]}

    def lines(self, *words: str) -> list[Any]:
        """Carry out a command that answers with lines."""
        if self._daemon is not None and not self.prelude:
            return [json.loads(line) for line in asyncio.run(self._ask(words)).splitlines()]
        done = self.run(*words)
        assert done.returncode == 0, (words, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def inbox(self) -> list[Any]:
        """Return the lines of the inbox."""
        return self.lines("inbox")

    def dns(self, *words: str) -> subprocess.Popen[str]:
        """Start the hand-made mDNS program here."""
        program = [sys.executable, "-m", "tests.labs.dns", *words]
        return subprocess.Popen(self.command(*program), stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment())

    def ip(self, *words: str) -> str:
        return sh("ip", "-n", self.name, *words)

    @property
    def key(self) -> str:
        return str(self.qpc("identity", "--no-discovery")["public_key"])

    def peer(self, key: str) -> dict[str, Any] | None:
        """Return what this machine lists of a peer."""
        return next((peer for peer in self.qpc("mesh", "peers") if peer["public_key"] == key), None)

    def linked(self, key: str) -> bool:
        peer = self.peer(key)
        return peer is not None and peer["linked"]


def until(condition: Callable[[], object], patience_s: float = PATIENCE_S) -> float:
    """Wait for a condition; return how long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < patience_s, f"not within {patience_s} s"
        time.sleep(0.05)
    return time.monotonic() - began
