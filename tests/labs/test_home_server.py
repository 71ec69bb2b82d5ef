"""A community's server on one switch with two people who are never on at the same time."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.qpc import environment
from tests.labs.bridge import machines
from tests.labs.capture import Capture
from tests.labs.machine import PATIENCE_S, Machine, until
from tests.labs.veth import needs_root

pytestmark = [pytest.mark.lab, needs_root, pytest.mark.timeout(120)]

SERVER = "10.97.0.1:7000"
SECRET = "the well behind the mill is clean"
SERVER_PROGRAM = "import sys; from quicprochat.server.cli import main; sys.exit(main())"
WITHOUT_EXTRA = (
    "import importlib.util as u; f = u.find_spec; "
    "u.find_spec = lambda name, *a: None if name == 'iroh' else f(name, *a); "
)
"""As in an installation that has no links."""


class ServerMachine(Machine):
    """The machine with the home server."""

    def serve(self) -> None:
        program = [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", "-c", SERVER_PROGRAM]
        self._server = subprocess.Popen(
            self.command(*program, "--home", str(self.home), "--listen", SERVER),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(QPC_NO_DISCOVERY="0"),
        )  # fmt: skip
        assert self._server.stdout is not None
        word, _, self.fingerprint = self._server.stdout.readline().split()
        assert word == "ready"

    def kill(self) -> None:
        self._server.send_signal(signal.SIGKILL)
        self._server.communicate(timeout=PATIENCE_S)

    def end(self) -> None:
        if self._server.poll() is None:
            self._server.terminate()
            self._server.communicate(timeout=PATIENCE_S)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[tuple[ServerMachine, Machine, Machine]]:
    with machines(3) as names:
        server = ServerMachine(names[0], tmp_path / "server")
        a, b = (Machine(name, tmp_path / name) for name in names[1:])
        server.serve()
        try:
            yield server, a, b
        finally:
            for machine in (a, b):
                machine.stop()
            server.end()


def find_and_connect(a: Machine, server: ServerMachine) -> None:
    """Find the server among the peers, and connect once its fingerprint is confirmed."""
    until(lambda: any(found["server"] == SERVER for found in a.qpc("mesh", "peers")))
    (found,) = [found for found in a.qpc("mesh", "peers") if found["server"] == SERVER]
    assert found["certificate"] == server.fingerprint
    pick = found["certificate"][:16]
    unasked = a.run("mesh", "server", pick)
    assert unasked.returncode == 4
    assert f"--trust {server.fingerprint}" in unasked.stderr
    assert a.qpc("server")["server"] == ""
    assert a.qpc("mesh", "server", pick, "--trust", server.fingerprint)["connected"]


@pytest.mark.parametrize("prelude", ["", WITHOUT_EXTRA], ids=["found on the network", "typed, without the extra"])
def test_message_for_somebody_away_survives_the_servers_death(
    lab: tuple[ServerMachine, Machine, Machine], prelude: str, tmp_path: Path
) -> None:
    server, a, b = lab
    a.prelude = b.prelude = prelude
    capture = Capture(server.name[:-1], tmp_path / "capture")

    b.start("--no-discovery")
    assert b.qpc("server", SERVER)["connected"]
    key = b.key
    b.stop()

    a.start()
    if prelude:
        assert a.qpc("server", SERVER)["connected"]
    else:
        find_and_connect(a, server)
    sent = a.qpc("send", key, SECRET, "--wait", "relayed", "--timeout", "15")
    assert (sent["state"], sent["protection"]) == ("relayed", "forward-secret")
    if not prelude:
        (route,) = a.qpc("mesh", "route")
        assert (route["destination"], route["via"]) == (key, "server")

    server.kill()
    kept = [path.read_bytes() for path in server.home.iterdir() if path.name.startswith("server.db")]
    assert any(bytes.fromhex(key) in data for data in kept), "the database is not where it is looked for"
    assert not any(SECRET.encode() in data for data in kept)
    server.serve()
    b.start("--no-discovery")
    until(lambda: [line["text"] for line in b.inbox()] == [SECRET])
    until(lambda: a.qpc("trace", sent["id"])["state"] == "delivered", 40)
    assert len(b.inbox()) == 1

    seen = capture.end()
    assert b"_quicprochat" in seen, "what is said openly is not seen either"
    assert SECRET.encode() not in seen
    if capture.packets("udp") is not None:
        assert capture.packets('frame contains "_quicprochat"')
        assert capture.packets(f"quic && ip.addr == {SERVER.partition(':')[0]} && udp.port == 7000")
        assert capture.packets(f'frame contains "{SECRET}"') == 0
    for path in server.home.iterdir():
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


def test_changed_server_key_is_exit_code_4(lab: tuple[ServerMachine, Machine, Machine], tmp_path: Path) -> None:
    server, a, _ = lab
    a.start("--no-discovery")
    assert a.qpc("server", SERVER)["connected"]
    server.kill()
    server.home = tmp_path / "impostor"
    server.serve()
    until(lambda: a.run("server", SERVER).returncode == 4)
    assert "has changed" in a.run("server", SERVER).stderr
