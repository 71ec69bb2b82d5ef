"""With ``--network lan`` a home server outside local networks, or one named by DNS, is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.qpc import Person

from quicprochat.adapters.home import Home
from quicprochat.adapters.sqlite.store import SqliteStore
from quicprochat.client.errors import REFUSED
from quicprochat.core.errors import LocalError
from quicprochat.core.network import Interface, Network
from quicprochat.p2p import account
from quicprochat.p2p.account import SERVER_KEY, permit_server

FAR, NAMED = "198.51.100.7:7000", "village.example:7000"


@pytest.mark.parametrize("server", [FAR, NAMED, "localhost:7000", "[2001:db8::7]:7000", "127.1:7000"])
def test_under_lan_only_local_addresses_are_permitted(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "interfaces", lambda: (Interface(2, "203.0.113.5", 24),))
    with pytest.raises(LocalError, match=r"not an address in a local network.*--network community"):
        permit_server(server, Network.LAN)
    for network in (Network.COMMUNITY, Network.INTERNET):
        permit_server(server, network)


@pytest.mark.parametrize("server", ["10.1.2.3:7000", "[fd00::1]:7000", "203.0.113.9:7000", ""])
def test_local_ones_are(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "interfaces", lambda: (Interface(2, "203.0.113.5", 24),))
    permit_server(server, Network.LAN)


@pytest.mark.parametrize("server", [FAR, NAMED])
def test_choosing_one_is_refused_in_a_sentence_and_nothing_is_noted(tmp_path: Path, server: str) -> None:
    ada = Person(tmp_path / "ada")
    for words in (("server", server, "--network", "lan"), ("store", "--server", server, "--network", "lan")):
        done = ada.run("--json", *words)
        assert done.code == REFUSED
        assert done.error["code"] == "policy"
        assert f"the server {server} is not an address in a local network" in done.error["message"]
    assert ada.ask("server", "--network", "lan")["server"] == ""


def test_a_relay_outside_is_refused_as_a_server_is(tmp_path: Path) -> None:
    words = ("send", "ab" * 32, "x", "--relay", "http://198.51.100.7:7002", "--network", "lan")
    done = Person(tmp_path / "ada").run("--json", *words)
    assert (done.code, done.error["code"]) == (REFUSED, "policy")


def test_a_noted_one_stays_noted_and_is_not_visited(tmp_path: Path) -> None:
    ada = Person(tmp_path / "ada")
    store = SqliteStore.open(Home(tmp_path / "ada").database)
    store.begin()
    store.set_value(SERVER_KEY, FAR.encode())
    store.commit()
    store.close()
    standing = ada.ask("server", "--network", "lan")
    assert (standing["server"], standing["standing"]) == (FAR, "unreachable")
    assert "the network mode is lan" in standing["trouble"]
