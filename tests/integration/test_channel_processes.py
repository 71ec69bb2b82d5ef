"""Channels across two domains as their operators and users run them: every program in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.home_server import Server
from tests.integration.qpc import Person, free_port, read_line

NORTH, SOUTH = "north.mesh.local", "south.mesh.local"
PATIENCE_S = 30.0


def servers(place: Path, *, both: bool = True) -> tuple[Server, Server]:
    """Two domains' servers, set up by the operator's commands; only north names the other for channels, or both do."""
    ports = {NORTH: free_port(), SOUTH: free_port()}
    made = {domain: Server(place / domain) for domain in ports}
    done = made[NORTH].run("ca", "init", str(place / "federation"))
    assert done.code == 0, done.talk
    for domain, other in ((NORTH, SOUTH), (SOUTH, NORTH)):
        server = made[domain]
        issue = ("cert", "issue", "--ca", str(place / "federation"), "--domain", domain, "--out", str(server.home))
        assert server.run(*issue).code == 0
        server.home.chmod(0o700)
        shared = f'federation_channels = ["{other}"]\n' if both or domain == NORTH else ""
        (server.home / "qpc-server.toml").write_text(
            f'federation_enabled = true\nfederation_domain = "{domain}"\n'
            f'federation_listen = "127.0.0.1:{ports[domain]}"\n'
            'federation_cert = "cert.der"\nfederation_key = "key.der"\nfederation_ca = "ca.der"\n'
            f'{shared}\n[federation_peers]\n"{other}" = "127.0.0.1:{ports[other]}"\n'
        )
        server.listen = f"127.0.0.1:{free_port()}"
    return made[NORTH], made[SOUTH]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Whatever a test puts in here is ended."""
    found: dict[str, Any] = {}
    yield found
    for one in found.values():
        one.end()


def until(look: Any, what: str) -> Any:
    """Ask again until there is an answer that counts."""
    give_up = time.monotonic() + PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < give_up, what
        time.sleep(0.1)
    return found


def next_post(listener: subprocess.Popen[bytes]) -> dict[str, Any]:
    while True:
        line: dict[str, Any] = json.loads(read_line(listener))
        if line["event"] == "post":
            return line


@pytest.mark.timeout(180)
def test_a_post_crosses_two_domains_and_waits_for_one_that_was_killed(tmp_path: Path, place: dict[str, Any]) -> None:
    north, south = servers(tmp_path)
    place |= {"north": north, "south": south}
    checked = north.ask("config", "check")
    assert checked["options"]["federation_channels"] == {"value": [SOUTH], "source": "file"}
    for server in (north, south):
        server.up()
    ada, bob = Person(tmp_path / "ada"), Person(tmp_path / "bob")
    place |= {"ada": ada, "bob": bob}
    for person, server in ((ada, north), (bob, south)):
        person.up("--server", str(server.address), "--no-discovery")
        person.ask("mesh", "subscribe", "roof")

    def shared(server: Server) -> bool:
        (peer,) = server.ask("federation", "status")["peers"]
        return bool(peer["channels"]["followed_there"])

    for server in (north, south):
        until(lambda server=server: shared(server), "nobody told what is followed")
    listener = bob.start("listen", "--json")
    ada.ask("mesh", "broadcast", "roof", "who has a ladder?")
    post = next_post(listener)
    assert (post["text"], post["from"], post["topic"]) == ("who has a ladder?", ada.key, "roof")

    south.down(signal.SIGKILL)
    ada.ask("mesh", "broadcast", "roof", "it is found")
    until(lambda: north.ask("status")["channels"]["posts"] == 2, "the own server takes it")
    north.down(signal.SIGKILL)
    for server in (north, south):
        server.up()
    assert next_post(listener)["text"] == "it is found"
    status = until(lambda: (now := south.ask("status"))["channels"]["posts"] == 2 and now, "both are there")
    assert status["channels"]["followed"] == 1
    assert "2 posts kept" in south.run("status").out
    assert "channels: 1 followed there, 1 here" in north.run("federation", "status").out
    for server in (north, south):
        assert b"roof" not in b"".join(file.read_bytes() for file in server.home.glob("server.db*"))
        assert server.down().code == 0


@pytest.mark.timeout(180)
def test_what_one_of_two_does_not_name_is_not_shared_and_a_reload_mends_it(
    tmp_path: Path, place: dict[str, Any]
) -> None:
    north, south = servers(tmp_path, both=False)
    place |= {"north": north, "south": south}
    for server in (north, south):
        server.up()

    def peer(server: Server) -> dict[str, Any]:
        (found,) = server.ask("federation", "status")["peers"]
        return dict(found["channels"])

    until(lambda: f"{SOUTH} shares no channels with {NORTH}" in peer(north)["trouble"], "north is told why")
    assert not peer(south)["shared"]
    config = south.home / "qpc-server.toml"
    config.write_text(f'federation_channels = ["{NORTH}"]\n' + config.read_text())
    south.signal(signal.SIGHUP)
    until(lambda: peer(south)["shared"] and peer(south)["followed_here"] == 0, "south tells north")
    until(lambda: peer(north)["followed_here"] == 0 and not peer(north)["trouble"], "north tells south")


@pytest.mark.timeout(180)
def test_a_node_on_the_mesh_and_at_a_server_hands_posts_from_one_to_the_other(
    tmp_path: Path, place: dict[str, Any]
) -> None:
    server = Server(tmp_path / "server")
    place["server"] = server
    server.up()
    ada, bob, carol = (Person(tmp_path / name) for name in ("ada", "bob", "carol"))
    place |= {"ada": ada, "bob": bob, "carol": carol}
    carol.book.add(f"{bob.key}@{bob.address}", "bob")
    bob.book.add(f"{carol.key}@{carol.address}", "carol")
    carol.up("--no-discovery")
    for person in (ada, bob):
        person.up("--no-discovery", "--server", str(server.address))
    for person in (ada, bob, carol):
        person.ask("mesh", "subscribe", "roof")
    until(lambda: server.ask("status")["channels"]["follows"] == 2, "two follow")
    listener = ada.start("listen", "--json")
    carol.ask("mesh", "broadcast", "roof", "seen from the hill")
    post = next_post(listener)
    assert (post["text"], post["from"], post["hops"]) == ("seen from the hill", carol.key, 2)
    assert server.ask("status")["channels"]["posts"] == 1
    listener = carol.start("listen", "--json")
    ada.ask("mesh", "broadcast", "roof", "read in the village")
    post = next_post(listener)
    assert (post["text"], post["from"], post["hops"]) == ("read in the village", ada.key, 2)
    until(lambda: server.ask("status")["channels"]["posts"] == 2, "both are kept, and nothing twice")
    assert "duplicate" not in server.ask("status")["totals"], "what came from the server does not go back"
