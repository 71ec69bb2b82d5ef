"""What the operator sees of other domains, and can do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.federation.villages import EAST, NORTH, SOUTH, STORED, Villages, scene, stranger, until

from quicprochat.core.address import Address
from quicprochat.core.announcement import Announcement, Found, Role
from quicprochat.core.errors import LocalError
from quicprochat.core.time import Instant
from quicprochat.server.cli import parse
from quicprochat.server.federation import exchange, neighbours
from quicprochat.server.federation.neighbours import Neighbours
from quicprochat.server.metrics import exposition
from quicprochat.server.operate import Operator, figures
from quicprochat.server.show import answer


async def told(server: Any, command: str, **args: Any) -> list[dict[str, Any]]:
    return [item async for item in Operator(server).perform(command, args)]


def test_operator_sees_what_waits_and_why_and_can_poke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "CONNECT_S", 0.5)

    async def scenario(them: Villages) -> None:
        north = them.up[NORTH]
        async with them.person(NORTH) as ada:
            letters = [ada.letter(os.urandom(32)) for _ in range(2)]
            assert await ada.put(*letters, domain=SOUTH) == [STORED] * 2
            await until(lambda: north.exchange is not None and north.exchange.couriers[SOUTH].retry_at is not None)
            (now,) = await told(north, "federation status")
            east, south = now["peers"]
            assert (east["domain"], east["messages"], east["failures"]) == (EAST, 0, 0)
            assert (south["messages"], south["rows"], south["connected"]) == (2, 2, False)
            assert south["failures"] > 0
            assert "did not answer" in south["trouble"] or "closed" in south["trouble"]
            shown = answer(("federation", "status"), [now], as_json=False)
            assert "2 messages waiting" in shown
            assert "next attempt in" in shown
            assert f"not reached: {SOUTH}" in answer(("status",), await told(north, "status"), as_json=False)
            rows = await told(north, "federation outbox")
            assert [one["id"] for one in rows] == [one.id.hex() for one in letters]
            assert {(one["origin"], one["destination"], one["user"]) for one in rows} == {(NORTH, SOUTH, ada.key.hex())}
            assert answer(("federation", "outbox"), rows, as_json=False).count("not answered yet") == 2
            text = exposition(figures(north))
            assert f'qpc_server_federation_waiting_messages{{domain="{SOUTH}"}} 2' in text
            assert f'qpc_server_federation_sent_total{{domain="{SOUTH}",answer="stored"}} 0' in text
            assert "qpc_server_federation_certificate_days 90" in text
            with pytest.raises(LocalError) as caught:
                await told(north, "federation poke", domain="nobody.example")
            assert caught.value.code == "not_found"
            await them.start(SOUTH)
            (poked,) = await told(north, "federation poke", domain=SOUTH)
            assert poked["domain"] == SOUTH
            await until(lambda: north.exchange is not None and north.exchange.traffic[SOUTH]["out_deferred"] >= 2)
            rows = await told(north, "federation outbox")
            assert {(one["answer"], one["reason"]) for one in rows} == {("deferred", "unknown")}
            assert len(await told(north, "federation poke")) == 2

    scene(tmp_path, NORTH, EAST, SOUTH, up=2)(scenario)


def test_rows_of_a_domain_off_the_list_are_seen(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        north = them.up[NORTH]
        async with them.person(NORTH) as ada:
            assert await ada.put(ada.letter(os.urandom(32)), domain=SOUTH) == [STORED]
        await them.change(NORTH, them.federation(NORTH, {}))
        (now,) = await told(north, "federation status")
        (south,) = now["peers"]
        assert (south["listed"], south["messages"]) == (False, 1)
        assert len(await told(north, "federation outbox")) == 1

    scene(tmp_path, NORTH, SOUTH, up=1)(scenario)


def test_contact_ends_a_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quicprochat.server.federation.courier.RETRY_FIRST_S", 200.0)

    async def scenario(them: Villages) -> None:
        north = them.up[NORTH]
        assert north.exchange is not None
        courier = north.exchange.couriers[SOUTH]
        async with them.person(NORTH) as ada:
            assert await ada.put(ada.letter(os.urandom(32)), domain=SOUTH) == [STORED]
            await until(lambda: courier.retry_at is not None)
            assert courier.failures == 1
            async with stranger(them, SOUTH, NORTH) as south:
                await south.reach(NORTH)
                await until(lambda: courier.failures == 2)
            await until(lambda: courier.retry_at is not None)
            north.exchange.announced(SOUTH, "127.0.0.1")
            await until(lambda: courier.failures == 3)
            # The server itself, when it starts, is a contact too: nobody waits for 200 s.
            await until(lambda: courier.retry_at is not None)
            await them.start(SOUTH)
            await until(lambda: courier.failures == 0)

    monkeypatch.setattr(exchange, "CONNECT_S", 0.3)
    scene(tmp_path, NORTH, SOUTH, up=1)(scenario)


def test_announced_address_is_tried_after_the_listed_one_and_makes_no_new_peer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(them: Villages) -> None:
        peers = {SOUTH: f"127.0.0.2:{them.ports[SOUTH]}"}
        north = await them.start(NORTH, them.federation(NORTH, peers))
        assert north.exchange is not None
        async with them.person(NORTH) as ada, them.person(SOUTH) as bob:
            letter = ada.letter(bob.key)
            assert await ada.put(letter, domain=SOUTH) == [STORED]
            await until(lambda: north.exchange is not None and north.exchange.couriers[SOUTH].failures > 0)
            north.exchange.announced("made-up.example", "127.0.0.1")
            assert north.exchange.found("made-up.example") == ""
            north.exchange.announced(SOUTH, "127.0.0.1")
            assert [one.id for one in await bob.got()] == [letter.id]

    monkeypatch.setattr(exchange, "CONNECT_S", 0.5)
    scene(tmp_path, SOUTH, NORTH, up=1)(scenario)


class Known:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.at = 0
        self.told: list[tuple[str, str]] = []

    def is_peer(self, domain: str) -> bool:
        return domain == SOUTH

    def announced(self, domain: str, ip: str) -> None:
        self.told.append((domain, ip))

    def now(self) -> Instant:
        return Instant(self.at)


def found(domain: str = SOUTH, role: Role = Role.SERVER, name: str = "x", ip: str = "192.0.2.9") -> Found:
    return Found(name, Announcement(role, None, f"{ip}:7000", domain), (Address(ip, 7000),))


def test_announcement_is_a_hint_for_listed_domains_now_and_then() -> None:
    known = Known()
    them = Neighbours(known)
    assert not them.heard(found("made-up.example"))
    assert not them.heard(found(role=Role.NODE))
    assert known.told == []
    assert them.heard(found(SOUTH.upper()))
    for n in range(100):
        assert them.heard(found(ip=f"192.0.2.{n}"))
    assert known.told == [(SOUTH, "192.0.2.9")]
    known.at = neighbours.HINT_EVERY_MS
    them.heard(found(ip="192.0.2.77"))
    assert known.told[1:] == [(SOUTH, "192.0.2.77")]


def test_announcements_that_are_followed_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "FOLLOWED_MAX", 2)
    them = Neighbours(Known())
    assert [them.heard(found(name=name)) for name in "abc"] == [True, True, False]
    them.gone("a")
    assert them.heard(found(name="c"))


@pytest.mark.parametrize(
    ("words", "args"), [("federation poke", ()), ("federation poke south.example", ("south.example",))]
)
def test_poke_takes_a_domain_or_none(words: str, args: tuple[str, ...]) -> None:
    assert parse(words.split()).args == args


def test_poke_takes_no_two_domains() -> None:
    with pytest.raises(LocalError, match=r"write: qpc-server federation poke \[DOMAIN\]"):
        parse(["federation", "poke", "a.example", "b.example"])


def test_server_without_federation_says_so(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        from quicprochat.server.home_server import HomeServer, ServerOptions

        async with HomeServer(ServerOptions(tmp_path / "plain", Address("127.0.0.1", 0))) as server:
            with pytest.raises(LocalError, match="does not federate"):
                await told(server, "federation status")
            assert "federation" not in exposition(figures(server))
            assert "federation" not in answer(("status",), await told(server, "status"), as_json=False)

    scene(tmp_path)(scenario)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"connected": True, "connections_in": 1}, "connected;"),
        ({"connections_in": 1}, "not connected, nothing to send; it has called us;"),
        ({"rows": 1}, "not connected;"),
        ({"connecting": True}, "being called;"),
        ({"trouble": "it is away", "retry_in_s": 61}, "not reached, next attempt in 1 min 1 s;"),
        ({"trouble": "it is away"}, "not reached;"),
        ({"trouble": "it is away", "connecting": True, "connections_in": 2}, "being called; it has called us;"),
        ({"trouble": "not in the list", "listed": False}, "not listed;"),
    ],
)
def test_how_a_domain_is_reached_is_said_in_words(how: dict[str, Any], said: str) -> None:
    peer = {
        "domain": SOUTH, "listed": True, "address": "192.0.2.2:7001", "announced_at": "", "connected": False,
        "connecting": False, "connections_in": 0, "rows": 0, "messages": 0, "trouble": "", "retry_in_s": None,
        "sent": {"stored": 3}, "received": {"stored": 4}, "channels": {"shared": False}, **how,
    }  # fmt: skip
    line, *why = answer(("federation", "poke"), [peer], as_json=False).splitlines()
    assert line == f"{SOUTH} at 192.0.2.2:7001: {said} 0 messages waiting, sent 3, received 4"
    assert [one.strip() for one in why] == ([peer["trouble"]] if peer["trouble"] else [])


def test_a_domain_that_is_down_at_the_start_is_said_so_though_nothing_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "CONNECT_S", 0.3)

    async def scenario(them: Villages) -> None:
        north = them.up[NORTH].exchange
        assert north is not None
        courier = north.couriers[SOUTH]
        await until(lambda: "did not answer" in courier.trouble)
        (now,) = await told(them.up[NORTH], "status")
        assert f"not reached: {SOUTH}" in answer(("status",), [now], as_json=False)
        await them.start(SOUTH)
        await north.client.reach(SOUTH)
        assert courier.trouble == ""

    scene(tmp_path, NORTH, SOUTH, up=1)(scenario)
