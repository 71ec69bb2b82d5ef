"""Peers that do what they should not, or do not answer: what they get, and what it costs others."""

from __future__ import annotations

import asyncio
import gc
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.federation.villages import (
    AUTHORITY,
    DUPLICATE,
    EAST,
    NORTH,
    SOUTH,
    STORED,
    UNKNOWN,
    Desk,
    Villages,
    pretending,
    scene,
    soon,
    stranger,
    trusting,
    until,
)
from tests.unit import authorities

from quicprochat.adapters import quic, rpc
from quicprochat.core.envelope import ENVELOPE_MAX_BYTES
from quicprochat.core.errors import QuicprochatError, UnavailableError
from quicprochat.core.gate import Reason, Verdict
from quicprochat.server.federation import client, courier, exchange, outbox, rules
from quicprochat.server.queue import Outcome
from quicprochat.server.trust import Loaded


def told(outcomes: list[Outcome]) -> list[tuple[Verdict, Reason]]:
    return [(one.verdict, one.reason) for one in outcomes]


async def relay(peer: Any, origin: str, destination: str, envelopes: list[bytes]) -> Any:
    call = peer.relay(origin=origin, destination=destination, envelopes=envelopes)
    return await soon(rpc.Remote.ask(call, "relaying"))


def test_each_item_is_judged_by_itself(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with stranger(them, EAST, NORTH) as east, them.person(NORTH) as ada:
            good = ada.letter(ada.key)
            forged = good.wire()[:140] + bytes(58) + good.wire()[198:]
            items = {
                good.wire(): STORED,
                forged: (Verdict.REFUSED, Reason.UNSUPPORTED),
                b"nonsense": (Verdict.REFUSED, Reason.UNSUPPORTED),
                bytes(ENVELOPE_MAX_BYTES + 1): (Verdict.REFUSED, Reason.UNSUPPORTED),
                replace(ada.letter(ada.key, ttl_s=10), age_ms=10_001).wire(): (Verdict.REFUSED, Reason.EXPIRED),
                replace(ada.letter(ada.key, max_hops=2), hop=2).wire(): (Verdict.REFUSED, Reason.HOPS),
                ada.letter(os.urandom(32)).wire(): UNKNOWN,
            }
            assert told(await east.relay_enqueue(NORTH, list(items))) == list(items.values())
            assert told(await east.relay_enqueue(NORTH, [good.wire()])) == [DUPLICATE]
            assert [one.id for one in await ada.fetch()] == [good.id]

    scene(tmp_path, NORTH, EAST, up=1)(scenario)


def test_nobody_speaks_for_another_domain_or_through_us_to_one(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with stranger(them, EAST, NORTH) as east, them.person(NORTH) as ada, them.person(SOUTH) as bob:
            await east.reach(NORTH)
            peer = east._links[NORTH].peer
            for origin, destination, to in ((SOUTH, NORTH, ada), (EAST, SOUTH, bob), ("", NORTH, ada), (EAST, "", ada)):
                with pytest.raises(rpc.Problem) as caught:
                    await relay(peer, origin, destination, [ada.letter(to.key).wire()])
                assert caught.value.code == "policy"
            for ask in (peer.findName(SOUTH, "bob"), peer.findRecord(destination=SOUTH, key=bob.key)):
                with pytest.raises(rpc.Problem) as caught:
                    await soon(rpc.Remote.ask(ask, "asking"))
                assert caught.value.code == "policy"
            # Mail for a user of a third domain is not passed on, whatever we know of where that user lives.
            assert await ada.put(ada.letter(bob.key), domain=SOUTH) == [STORED]
            await bob.got()
            assert told(await east.relay_enqueue(NORTH, [ada.letter(bob.key).wire()])) == [UNKNOWN]
            await until(lambda: not them.up[NORTH].store.outgoing_domains())
            assert len(await bob.fetch()) == 1
            assert await ada.fetch() == []

    scene(tmp_path, NORTH, SOUTH, EAST, up=2)(scenario)


@pytest.mark.parametrize("count", [0, 257])
def test_batches_are_bounded_before_they_are_read(tmp_path: Path, count: int) -> None:
    async def scenario(them: Villages) -> None:
        async with stranger(them, EAST, NORTH) as east:
            await east.reach(NORTH)
            with pytest.raises(rpc.Problem) as caught:
                await relay(east._links[NORTH].peer, EAST, NORTH, [b"x"] * count)
            assert caught.value.code == "usage"

    scene(tmp_path, NORTH, EAST, up=1)(scenario)


def test_entering_twice_or_with_another_version_is_refused(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with stranger(them, EAST, NORTH) as east:
            await east.reach(NORTH)
            for version, code in ((1, "usage"), (2, "unsupported")):
                bootstrap = east._links[NORTH]._remote.bootstrap
                with pytest.raises(rpc.Problem) as caught:
                    await soon(rpc.Remote.ask(bootstrap.enter(version=version), "entering"))
                assert caught.value.code == code

    scene(tmp_path, NORTH, EAST, up=1)(scenario)


def test_domain_that_is_not_listed_gets_nothing_in(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        made_up = "west.mesh.local"
        async with stranger(them, made_up, NORTH) as west:
            with pytest.raises(QuicprochatError, match="not accepted"):
                await west.relay_enqueue(NORTH, [b"x"])
        # It hears of it before the server has counted it.
        await until(lambda: them.up[NORTH].meter.totals().get("refused.federation_certificate") == 1)
        # Nor does it get anything out.
        async with them.person(NORTH) as ada:
            assert await ada.put(ada.letter(os.urandom(32)), domain=made_up) == [UNKNOWN]

    scene(tmp_path, NORTH, EAST, up=1)(scenario)


def test_wrong_domain_at_a_configured_address_gets_nothing(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        # Where south is said to be, east answers: a good certificate of another domain.
        desk = Desk(EAST)
        async with pretending(them, desk):
            peers = {SOUTH: f"127.0.0.1:{them.ports[EAST]}", EAST: ""}
            server = await them.start(NORTH, them.federation(NORTH, peers))
            async with them.person(NORTH) as ada:
                assert await ada.put(ada.letter(os.urandom(32)), domain=SOUTH) == [STORED]
                assert server.exchange is not None
                mine = server.exchange.couriers[SOUTH]
                await until(lambda: mine.failures > 0)
                assert EAST in mine.trouble
        assert desk.got == []

    scene(tmp_path, NORTH, SOUTH, EAST, up=0)(scenario)


def test_peer_that_never_answers_is_given_up_and_delays_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CALL_S", 0.5)
    monkeypatch.setattr(client, "SILENCE_S", 0.2)

    class Silent(Desk):
        async def answer(self, envelopes: list[bytes]) -> list[Outcome]:
            await asyncio.Event().wait()
            return []

    async def scenario(them: Villages) -> None:
        desk = Silent(SOUTH)
        async with pretending(them, desk) as accepted, them.person(NORTH) as ada, them.person(EAST) as eve:
            await ada.listen()
            letters = [ada.letter(os.urandom(32)) for _ in range(3)]
            assert await ada.put(*letters, domain=SOUTH) == [STORED] * 3
            await until(lambda: len(accepted) > 1 and accepted[0].over)
            mine = them.up[NORTH].exchange.couriers[SOUTH]  # type: ignore[union-attr]
            assert "has not answered in time" in mine.trouble
            letter = ada.letter(eve.key)
            assert await ada.put(letter, domain=EAST) == [STORED]
            assert [one.id for one in await eve.got()] == [letter.id]
            await until(lambda: [one[1] for one in ada.receiver.reports] == [EAST])
            assert them.up[NORTH].store.outgoing_usage(SOUTH).count == 3

    scene(tmp_path, NORTH, EAST, SOUTH, up=2)(scenario)


def test_lost_answer_means_a_duplicate_and_not_a_second_copy(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        south = await them.start(SOUTH)
        assert south.exchange is not None
        deposit = south.exchange.deposit
        lost: list[list[Outcome]] = []

        async def forgetful(origin: str, envelopes: list[bytes]) -> list[Outcome]:
            outcomes = await deposit(origin, envelopes)
            if not lost:
                lost.append(outcomes)
                for mine in south.exchange._connections.values():  # type: ignore[union-attr]
                    for connection in tuple(mine):
                        connection.end(0, "the answer is lost")
            return outcomes

        south.exchange.deposit = forgetful  # type: ignore[method-assign]
        async with them.person(NORTH) as ada, them.person(SOUTH) as bob:
            await ada.listen()
            letter = ada.letter(bob.key)
            assert await ada.put(letter, domain=SOUTH) == [STORED]
            await until(lambda: bool(ada.receiver.reports))
            assert told(lost[0]) == [STORED]
            assert ada.receiver.reports == [(letter.id, SOUTH, *DUPLICATE)]
            assert [one.id for one in await bob.fetch()] == [letter.id]

    scene(tmp_path, NORTH, SOUTH, up=1)(scenario)


def test_poison_is_set_aside_and_blocks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "PUT_OFF_FIRST_MS", 1)
    monkeypatch.setattr(courier, "RETRY_FIRST_S", 0.01)

    class Choosy(Desk):
        poison: set[bytes]

        async def answer(self, envelopes: list[bytes]) -> list[Outcome]:
            if any(one[:134] in self.poison for one in envelopes):
                raise ValueError("a fault of that program")
            return await super().answer(envelopes)

    async def scenario(them: Villages) -> None:
        desk = Choosy(SOUTH)
        async with them.person(NORTH) as ada:
            await ada.listen()
            letters = [ada.letter(os.urandom(32)) for _ in range(40)]
            desk.poison = {letters[3].core}
            assert await ada.put(*letters, domain=SOUTH) == [STORED] * 40
            async with pretending(them, desk):
                await until(lambda: len(ada.receiver.reports) == 40)
                said = {id: (verdict, reason) for id, _, verdict, reason in ada.receiver.reports}
                assert said.pop(letters[3].id) == (Verdict.REFUSED, Reason.UNSUPPORTED)
                assert set(said.values()) == {STORED}
                store = them.up[NORTH].store
                row = store.outgoing(letters[3].id)
                assert row is not None
                assert row.set_aside
                assert store.next_due(SOUTH) is None
                # What is new goes through; what was set aside comes again when its author, or the operator, asks.
                assert await ada.put(ada.letter(os.urandom(32)), domain=SOUTH) == [STORED]
                await until(lambda: len(ada.receiver.reports) == 41)
                desk.poison.clear()
                assert await ada.put(letters[3], domain=SOUTH) == [DUPLICATE]
                await until(lambda: len(ada.receiver.reports) == 42)
                assert ada.receiver.reports[-1] == (letters[3].id, SOUTH, *STORED)

    logging_off(monkeypatch)
    scene(tmp_path, NORTH, SOUTH, up=1)(scenario)


def logging_off(monkeypatch: pytest.MonkeyPatch) -> None:
    import logging

    monkeypatch.setattr(logging.getLogger("quicprochat.rpc"), "disabled", True)


def test_refused_for_good_is_set_aside_and_reported(tmp_path: Path) -> None:
    class Strict(Desk):
        async def answer(self, envelopes: list[bytes]) -> list[Outcome]:
            return [Outcome(Verdict.REFUSED, Reason.POLICY)] * (len(envelopes) - 1) + [Outcome(Verdict.STORED)]

    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada:
            await ada.listen()
            letters = [ada.letter(os.urandom(32)) for _ in range(2)]
            assert await ada.put(*letters, domain=SOUTH) == [STORED] * 2
            async with pretending(them, Strict(SOUTH)):
                await until(lambda: len(ada.receiver.reports) == 2)
            said = {id: (verdict, reason) for id, _, verdict, reason in ada.receiver.reports}
            assert said == {letters[0].id: (Verdict.REFUSED, Reason.POLICY), letters[1].id: STORED}
            assert them.up[NORTH].store.outgoing_domains() == {SOUTH: 1}
            assert them.up[NORTH].store.outgoing_set_aside(SOUTH) == 1

    scene(tmp_path, NORTH, SOUTH, up=1)(scenario)


def test_taken_off_the_list_loses_its_connections_at_once(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada, them.person(SOUTH) as bob:
            assert await ada.put(ada.letter(bob.key), domain=SOUTH) == [STORED]
            assert await bob.put(bob.letter(ada.key), domain=NORTH) == [STORED]
            await ada.got()
            await bob.got()
            north, south = them.up[NORTH].exchange, them.up[SOUTH].exchange
            assert north is not None
            assert south is not None
            await until(lambda: north.connections(SOUTH) > 0 and north.client.connected(SOUTH))
            async with asyncio.timeout(5):
                await them.change(NORTH, them.federation(NORTH, {}))
                await until(
                    lambda: not (north.connections(SOUTH) or north.client.connected(SOUTH) or south.connections(NORTH))
                )
            # Nothing goes in or out any more; what waits stays, and the operator sees it.
            assert await ada.put(ada.letter(bob.key), domain=SOUTH) == [UNKNOWN]
            assert await bob.put(bob.letter(ada.key), domain=NORTH) == [STORED]
            await until(lambda: south.couriers[NORTH].failures > 0)
            assert len(await ada.fetch()) == 1
            # Listed again, what waits comes.
            await them.change(NORTH, them.federation(NORTH))
            await south.poke(NORTH)
            await ada.got(2)

    scene(tmp_path, NORTH, SOUTH)(scenario)


def test_another_authority_for_a_domain_ends_its_connections(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada, them.person(SOUTH) as bob:
            assert await bob.put(bob.letter(ada.key), domain=NORTH) == [STORED]
            await ada.got()
            north = them.up[NORTH].exchange
            assert north is not None
            await until(lambda: north.connections(SOUTH) > 0)
            other = authorities.authority("another")
            before = them.federation(NORTH)
            trust = trusting(NORTH, SOUTH, cas={SOUTH: other.certificate})
            await them.change(NORTH, replace(before, loaded=Loaded(before.loaded.credentials, trust)))
            await until(lambda: north.connections(SOUTH) == 0 and not north.client.connected(SOUTH))
            with pytest.raises(QuicprochatError):
                async with stranger(them, SOUTH, NORTH) as impostor:
                    await impostor.relay_enqueue(NORTH, [b"x"])
            good = authorities.leaf(SOUTH, other)
            async with stranger(them, SOUTH, NORTH, good) as south:
                assert told(await south.relay_enqueue(NORTH, [b"x"])) == [(Verdict.REFUSED, Reason.UNSUPPORTED)]

    scene(tmp_path, NORTH, SOUTH)(scenario)


def test_one_domain_has_few_connections_and_the_newest_stay(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        made = []
        check = quic.federated(lambda: trusting(EAST, NORTH), NORTH)
        shown = authorities.leaf(EAST, AUTHORITY)
        north = them.up[NORTH].exchange
        assert north is not None
        try:
            for n in range(rules.CONNECTIONS_PER_DOMAIN + 2):
                where = ("127.0.0.1", them.ports[NORTH])
                made.append(await quic.connect(where, quic.FEDERATION_ALPN, shown, check, 10))
                await until(lambda n=n: len(made) > n and north.connections(EAST) > 0)  # type: ignore[misc]
            await until(lambda: [one.over for one in made] == [True] * 2 + [False] * rules.CONNECTIONS_PER_DOMAIN)
        finally:
            for one in made:
                await one.leave()

    scene(tmp_path, NORTH, EAST, up=1)(scenario)


def test_more_than_its_rate_waits_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "BURST_S", 0.1)

    async def scenario(them: Villages) -> None:
        async with stranger(them, EAST, NORTH) as east, them.person(NORTH) as ada:
            north = them.up[NORTH]
            began = north.driver.now().at
            batches = [[ada.letter(ada.key).wire() for _ in range(256)] for _ in range(3)]
            answers = await asyncio.gather(*(east.relay_enqueue(NORTH, batch) for batch in batches))
            assert {one for batch in answers for one in told(batch)} == {STORED}
            # The burst is the first batch; the others take their time.
            assert north.driver.now().at - began >= 2 * 256 / 500 * 1_000 * 0.95

    scene(tmp_path, NORTH, EAST, up=1, rate=500)(scenario)


def test_more_calls_than_allowed_end_the_connection(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with stranger(them, EAST, NORTH) as east, them.person(NORTH) as ada:
            await east.reach(NORTH)
            link = east._links[NORTH]
            wire = ada.letter(ada.key).wire()
            calls = [
                asyncio.ensure_future(rpc.Remote.ask(link.peer.relay(EAST, NORTH, [wire] * 64), "flooding"))
                for _ in range(200)
            ]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert any(isinstance(one, UnavailableError) for one in results)
            await until(lambda: link.over)
            assert them.up[NORTH].meter.totals()["refused.federation_calls"] == 1
            assert len(await ada.fetch()) <= 1
            assert told(await east.relay_enqueue(NORTH, [wire]))[0][0] in (Verdict.STORED, Verdict.DUPLICATE)

    scene(tmp_path, NORTH, EAST, up=1)(scenario)


def test_ticket_of_the_client_port_is_worth_nothing(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        # A user's certificate, good at the client port, is none for the federation port.
        mine = quic.Credentials(*quic.self_signed(os.urandom(32), NORTH, 1))
        async with stranger(them, EAST, NORTH, mine) as nobody:
            with pytest.raises(QuicprochatError):
                await nobody.relay_enqueue(NORTH, [b"x"])
        assert them.up[NORTH].exchange.connections(EAST) == 0  # type: ignore[union-attr]

    scene(tmp_path, NORTH, EAST, up=1)(scenario)


def test_batches_that_fail_together_are_all_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else asyncio complains of those that nobody looked at, as of a fault of the program."""
    tried = asyncio.Event()
    complaints: list[dict[str, Any]] = []

    async def fail(self: client.FederationClient, domain: str, envelopes: list[bytes]) -> list[Outcome]:
        await tried.wait()  # so that all that are under way fail in one turn of the loop
        raise UnavailableError("the radio link is down")

    async def scenario(them: Villages) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        exchange = them.up[NORTH].exchange
        assert exchange is not None
        sending = exchange.couriers[SOUTH]
        async with them.person(NORTH) as ada:
            for _ in range(rules.OUT_IN_FLIGHT):
                await ada.put(*(ada.letter(os.urandom(32)) for _ in range(3)), domain=SOUTH)
            tried.set()
            await until(lambda: sending.failures > 0)

    monkeypatch.setattr(client.FederationClient, "relay_enqueue", fail)
    scene(tmp_path, NORTH, SOUTH, up=1)(scenario)
    gc.collect()
    assert complaints == []
