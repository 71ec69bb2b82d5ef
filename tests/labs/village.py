"""A village in a lab: a machine with a home server for its domain, and somebody who lives there."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.integration.home_server import PROGRAM as SERVER_PROGRAM
from tests.integration.qpc import environment
from tests.labs.machine import PATIENCE_S, Machine, until
from tests.labs.router import address

from quicprochat.adapters.system import utc_now
from quicprochat.client.socket import reachable
from quicprochat.server import control
from quicprochat.server.certificates import init_authority, issue

WITHOUT_LINKS = (
    "import importlib.util as u; f = u.find_spec; "
    "u.find_spec = lambda name, *a: None if name == 'iroh' else f(name, *a); "
)
"""As in an installation that has servers only: what arrives came through them."""


def clock_off(years: int) -> str:
    """What a program runs first on a machine whose clock is wrong."""
    return (
        "import datetime as d, time as t, types; from quicprochat.adapters import system as s; "
        f"off = d.timedelta(days={years * 365}); s.utc_now = lambda: d.datetime.now(d.UTC) + off; "
        "ahead = int(off.total_seconds()) * 10**9; "
        "vars(s)['time'] = types.SimpleNamespace(**vars(t) | {'time_ns': lambda: t.time_ns() + ahead}); "
    )


def authority(place: Path) -> Path:
    """Make an authority; return its directory."""
    init_authority(place, utc_now())
    return place


class Village:
    """``person`` lives where the server is; ``number`` says at which address, see :func:`router.address`."""

    def __init__(self, number: int, namespace: str, place: Path, domain: str, ca: Path) -> None:
        self.number = number
        self.domain = domain
        self.home = place / domain
        self.person = Machine(namespace, place / f"somebody of {domain}")
        self.person.prelude = WITHOUT_LINKS
        self.key = ""
        """The person's, once settled."""
        self._log = place / f"{domain}.log"
        self._server: subprocess.Popen[str] | None = None
        issue(ca, domain, self.home, 397, utc_now())

    @property
    def where(self) -> str:
        return f"{address(self.number)}:7001"

    def peers(self, *others: Village) -> None:
        """Write the configuration: federation with these."""
        lines = [f'"{other.domain}" = "{other.where}"' for other in others]
        names = {"domain": self.domain, "cert": "cert.der", "key": "key.der", "ca": "ca.der"}
        (self.home / "qpc-server.toml").write_text(
            "federation_enabled = true\n"
            + "".join(f'federation_{key} = "{value}"\n' for key, value in names.items())
            + "\n[federation_peers]\n" + "\n".join(lines) + "\n"
        )  # fmt: skip

    def up(self, prelude: str = "") -> None:
        """Start the server."""
        program = [sys.executable, "-W", "error", "-c", prelude + SERVER_PROGRAM, "--home", str(self.home)]
        with self._log.open("a") as log:
            self._server = subprocess.Popen(
                self.person.command(*program, "--no-discovery", "--listen", f"{address(self.number)}:7000"),
                stdout=subprocess.PIPE, stderr=log, text=True, env=environment(),
            )  # fmt: skip
        assert self._server.stdout is not None
        assert self._server.stdout.readline().startswith("ready"), self.log

    def kill(self) -> None:
        """kill -9."""
        assert self._server is not None
        self._server.kill()
        self._server.communicate()
        self._server = None

    def reload(self) -> None:
        assert self._server is not None
        self._server.send_signal(signal.SIGHUP)

    def down(self) -> None:
        """Stop server and node, which must have met no fault."""
        self.person.stop()
        if self._server is not None:
            self._server.terminate()
            self._server.communicate(timeout=PATIENCE_S)
            code, self._server = self._server.returncode, None
            assert code == 0, self.log
        assert "Traceback" not in self.log, self.log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def ask(self, *words: str) -> Any:
        """Ask what the operator may ask; return the answer."""
        items = list(control.ask(self.home, " ".join(words), {}))
        return items if words[-1] == "outbox" else items[0]

    def peer(self, other: Village) -> dict[str, Any]:
        """Return how another domain stands here."""
        peers = self.ask("federation", "status")["peers"]
        return dict(next(one for one in peers if one["domain"] == other.domain))

    def settle(self, name: str) -> None:
        """Let somebody live here, under this name."""
        self.person.start("--no-discovery", "--server", f"{address(self.number)}:7000")
        until(lambda: self.call("server")[0]["connected"])
        (taken,) = self.call("register", name=name)
        assert taken["domain"] == self.domain
        self.key = taken["public_key"]

    def call(self, command: str, **args: Any) -> list[dict[str, Any]]:
        """Ask the node of the person here, at its home's socket; return what it answers."""
        with reachable(self.person.home) as where, socket.socket(socket.AF_UNIX) as line:
            line.connect(where)
            line.sendall(json.dumps({"command": command, "args": args}).encode() + b"\n")
            with line.makefile() as heard:
                assert "hello" in json.loads(heard.readline())
                items: list[dict[str, Any]] = []
                for frame in map(json.loads, heard):
                    if "item" not in frame:
                        assert frame == {"end": True}, frame
                        return items
                    items.append(frame["item"])
        raise AssertionError("the node has hung up")

    def send(self, to: str, text: str) -> dict[str, Any]:
        """Let the person here send a message; return how it stands once the server has it."""
        (sent,) = self.call("send", peer=to, text=text)
        (sent,) = self.call("wait", id=sent["id"], until="relayed", timeout=PATIENCE_S)
        return sent

    def trace(self, id: str) -> dict[str, Any]:
        """Return what happened to a message of the person here."""
        (found,) = self.call("trace", id=id)
        return found

    def write(self, to: str, *texts: str) -> None:
        """Let the person here send messages."""
        for text in texts:
            self.call("send", peer=to, text=text)

    def got(self) -> list[str]:
        """Return the texts that came, in the order of the alphabet."""
        return sorted(line["text"] for line in self.call("inbox"))

    def unconfirmed(self) -> int:
        """Return how many messages of the person here nobody has confirmed."""
        return len(self.call("outbox"))
