"""Domains and their servers over real QUIC: a message gets there once, and what became of it finds its way back."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest
from tests.federation.villages import (
    DUPLICATE,
    EAST,
    FULL,
    NORTH,
    SOUTH,
    STORED,
    UNKNOWN,
    OldReceiver,
    Villages,
    scene,
    soon,
    until,
)
from tests.server.attacked import vanish

from quicprochat.core.errors import UnavailableError
from quicprochat.core.gate import Limits, Reason, Verdict
from quicprochat.core.store import Scope
from quicprochat.server.backup import restore
from quicprochat.server.federation import FederationClient, client
from quicprochat.server.home_server import DATABASE
from quicprochat.server.queue import Outcome


def emptied(them: Villages, *domains: str) -> bool:
    return not any(them.up[domain].store.outgoing_domains() for domain in domains)


def test_message_and_receipt_cross_and_copies_go(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada, them.person(SOUTH) as bob:
            await ada.listen()
            letter = ada.letter(bob.key)
            assert await ada.put(letter, domain=SOUTH) == [STORED]
            (arrived,) = await bob.got()
            assert (arrived.id, arrived.hop) == (letter.id, 2)
            await until(lambda: bool(ada.receiver.reports))
            assert ada.receiver.reports == [(letter.id, SOUTH, Verdict.STORED, Reason.NONE)]
            # No hint: the way back is the way it came (rule 28).
            receipt = bob.receipt(ada.key, letter.id)
            assert await bob.put(receipt) == [STORED]
            assert await bob.fetch() == [], "the receipt lets go of the copy that waits for its author"
            await until(lambda: bool(ada.receiver.envelopes))
            assert [one.id for one in ada.receiver.envelopes] == [receipt.id]
            await until(lambda: emptied(them, NORTH, SOUTH))

    scene(tmp_path, NORTH, SOUTH)(scenario)


def test_what_is_offered_again_is_passed_on_again_and_comes_once(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada, them.person(SOUTH) as bob:
            await ada.listen()
            letter = ada.letter(bob.key)
            for n, verdict in enumerate((Verdict.STORED, Verdict.DUPLICATE), 1):
                # The other server may have come back from an old backup: so it is asked again (rule 4).
                assert await ada.put(letter, domain=SOUTH) == [STORED]
                await until(lambda n=n: len(ada.receiver.reports) == n)  # type: ignore[misc]
                assert ada.receiver.reports[-1] == (letter.id, SOUTH, verdict, Reason.NONE)
            assert [one.id for one in await bob.fetch()] == [letter.id]

    scene(tmp_path, NORTH, SOUTH)(scenario)


def test_message_waits_while_the_other_is_down_and_this_one_starts_anew(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        seed = os.urandom(32)
        async with them.person(SOUTH, seed) as bob:
            key = bob.key
        await them.stop(SOUTH)
        async with them.person(NORTH) as ada:
            letters = [ada.letter(key) for _ in range(3)]
            assert await ada.put(*letters, domain=SOUTH) == [STORED] * 3
        await them.stop(NORTH)
        await them.start(NORTH)
        courier = them.up[NORTH].exchange.couriers[SOUTH]  # type: ignore[union-attr]
        await until(lambda: courier.failures > 0)
        assert them.up[NORTH].store.outgoing_usage(SOUTH).count == 3
        await them.start(SOUTH)
        async with them.person(SOUTH, seed) as bob:
            assert [one.id for one in await bob.got(3)] == [one.id for one in letters]
            await until(lambda: emptied(them, NORTH))
            assert len(await bob.fetch()) == 3
        async with them.person(NORTH, ada.seed) as ada:
            await ada.listen()  # it was not here when the answers came
            await until(lambda: len(ada.receiver.reports) == 3)
            assert {one[0] for one in ada.receiver.reports} == {one.id for one in letters}
            await until(lambda: them.up[NORTH].store.report_count() == 0)

    scene(tmp_path, NORTH, SOUTH)(scenario)


def test_a_domains_late_answer_says_nothing_of_what_goes_elsewhere_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its recipient has moved while the first domain thought about it: it must reach the second."""
    asked, answer = asyncio.Event(), asyncio.Event()
    relay = FederationClient.relay_enqueue

    async def late(self: FederationClient, domain: str, envelopes: list[bytes]) -> list[Outcome]:
        if domain == EAST:
            asked.set()
            await answer.wait()
            return [Outcome(Verdict.STORED) for _ in envelopes]
        return await relay(self, domain, envelopes)

    async def scenario(them: Villages) -> None:
        async with them.person(SOUTH) as bob:
            key = bob.key
        await them.stop(SOUTH)
        async with them.person(NORTH) as ada:
            letter = ada.letter(key)
            assert await ada.put(letter, domain=EAST) == [STORED]
            await soon(asked.wait())
            assert (await ada.put(letter, domain=SOUTH))[0][0] in (Verdict.STORED, Verdict.DUPLICATE)
            answer.set()
            exchange = them.up[NORTH].exchange
            assert exchange is not None
            await until(lambda: not exchange.couriers[EAST]._writing)
            await them.start(SOUTH)
            async with them.person(SOUTH, bob.seed) as bob:
                assert [one.id for one in await bob.got(1)] == [letter.id]

    monkeypatch.setattr(FederationClient, "relay_enqueue", late)
    scene(tmp_path, NORTH, SOUTH, EAST, up=2)(scenario)


def test_domain_restored_from_a_backup_makes_authors_offer_again(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        seed = os.urandom(32)
        async with them.person(NORTH) as ada, them.person(SOUTH, seed) as bob:
            await ada.listen()
            key, before = bob.key, bytes(ada.caller.info.epoch)
        await them.stop(SOUTH)
        backup = (tmp_path / SOUTH / DATABASE).read_bytes()
        await them.start(SOUTH)
        async with them.person(NORTH, ada.seed) as ada:
            assert bytes(ada.caller.info.epoch) == before, "nothing is offered again for a server that only restarts"
            letter = ada.letter(key)
            assert await ada.put(letter, domain=SOUTH) == [STORED]
            await until(lambda: emptied(them, NORTH))
        await them.stop(SOUTH)
        (tmp_path / SOUTH / DATABASE).unlink()
        (tmp_path / "backup").write_bytes(backup)
        restore(tmp_path / SOUTH, tmp_path / "backup")
        exchange = them.up[NORTH].exchange
        assert exchange is not None
        await until(lambda: not exchange.client.connected(SOUTH))
        await them.start(SOUTH)
        await soon(exchange.client.reach(SOUTH))
        for _ in range(2):
            async with them.person(NORTH, ada.seed) as ada:
                assert bytes(ada.caller.info.epoch) != before
                assert await ada.put(letter, domain=SOUTH) == [STORED]
            await until(lambda: emptied(them, NORTH))
            # It stays so when this server starts anew.
            await them.stop(NORTH)
            await them.start(NORTH)
        async with them.person(SOUTH, seed) as bob:
            assert [one.id for one in await bob.got()] == [letter.id]

    scene(tmp_path, NORTH, SOUTH)(scenario)


def test_local_and_remote_items_of_one_batch(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada, them.person(SOUTH) as bob, them.person(NORTH) as ann:
            here, there, nowhere = ada.letter(ann.key), ada.letter(bob.key), ada.letter(os.urandom(32))
            broken = there.wire()[:-1] + b"x"
            # The hint is for those who are not here: it never leads a neighbour's mail away.
            answers = await ada.put(here, there, broken, domain=SOUTH)
            assert answers == [STORED, STORED, (Verdict.REFUSED, Reason.UNSUPPORTED)]
            assert await ada.put(nowhere) == [UNKNOWN]
            assert await ada.put(nowhere, domain=NORTH) == [UNKNOWN]
            assert await ada.put(nowhere, domain="nobody.example") == [UNKNOWN]
            assert [one.id for one in await ann.fetch()] == [here.id]
            assert [one.id for one in await bob.got()] == [there.id]

    scene(tmp_path, NORTH, SOUTH)(scenario)


def test_unknown_user_comes_back_as_a_report_and_gets_it_once_there(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        seed = os.urandom(32)
        async with them.person(EAST, seed) as bob:
            pass
        async with them.person(NORTH) as ada:
            await ada.listen()
            letter = ada.letter(bob.key)
            assert await ada.put(letter, domain=SOUTH) == [STORED]
            await until(lambda: bool(ada.receiver.reports))
            assert ada.receiver.reports == [(letter.id, SOUTH, *UNKNOWN)]
            async with them.person(SOUTH, seed) as bob:
                exchange = them.up[NORTH].exchange
                assert exchange is not None
                await exchange.poke(SOUTH)
                assert [one.id for one in await bob.got()] == [letter.id]
                await until(lambda: len(ada.receiver.reports) == 2)
                assert ada.receiver.reports[1] == (letter.id, SOUTH, *STORED)

    scene(tmp_path, NORTH, SOUTH, EAST)(scenario)


def test_older_client_has_its_reports_dropped_and_goes_on(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada, them.person(SOUTH) as bob:
            await ada.listen(OldReceiver())
            store = them.up[NORTH].store
            assert await ada.put(ada.letter(bob.key), domain=SOUTH) == [STORED]
            await bob.got()
            await until(lambda: emptied(them, NORTH) and store.report_count() == 0)
            assert await ada.put(ada.letter(bob.key), domain=SOUTH) == [STORED]
            await bob.got(2)

    scene(tmp_path, NORTH, SOUTH)(scenario)


def test_one_user_cannot_fill_a_dead_domains_outbox(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada, them.person(NORTH) as ann:
            bob = os.urandom(32)
            letters = [ada.letter(bob) for _ in range(6)]
            assert await ada.put(*letters, domain=SOUTH) == [STORED] * 4 + [FULL] * 2
            # What is there already is no more than it was; receipts have a quota of their own.
            assert await ada.put(letters[0], domain=SOUTH) == [(Verdict.DUPLICATE, Reason.NONE)]
            assert await ada.put(ada.receipt(bob, letters[0].id), domain=SOUTH) == [STORED]
            # To another domain there is room, and for another user, until the domain's own is used up.
            assert await ada.put(ada.letter(bob), domain=EAST) == [STORED]
            assert await ann.put(*[ann.letter(bob) for _ in range(4)], domain=SOUTH) == [STORED] * 2 + [FULL] * 2

    scene(tmp_path, NORTH, SOUTH, EAST, up=1, user_messages=4, outbox_messages=6)(scenario)


def test_a_domain_that_is_down_delays_no_other(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada, them.person(SOUTH) as bob:
            dead = [ada.letter(os.urandom(32)) for _ in range(50)]
            assert await ada.put(*dead, domain=EAST) == [STORED] * 50
            letter = ada.letter(bob.key)
            assert await ada.put(letter, domain=SOUTH) == [STORED]
            assert [one.id for one in await bob.got()] == [letter.id]
            await until(lambda: them.up[NORTH].store.outgoing_domains() == {EAST: 50})

    scene(tmp_path, NORTH, SOUTH, EAST, up=2)(scenario)


def test_three_servers_pointed_at_each_other_pass_nothing_round(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        # Each believes that the recipient lives at the next.
        nobody = os.urandom(32)
        async with them.person(NORTH) as ada, them.person(SOUTH) as bob, them.person(EAST) as eve:
            await ada.listen()
            letter = ada.letter(nobody)
            for person, hint in ((ada, SOUTH), (bob, EAST), (eve, NORTH)):
                assert await person.put(letter, domain=hint) == [STORED]
            await until(lambda: bool(ada.receiver.reports))
            assert ada.receiver.reports == [(letter.id, SOUTH, *UNKNOWN)]
            for domain, next_one in ((NORTH, SOUTH), (SOUTH, EAST), (EAST, NORTH)):
                exchange = them.up[domain].exchange
                assert exchange is not None
                await until(lambda e=exchange, n=next_one: e.traffic[n]["out_deferred"] == 1)  # type: ignore[misc]
                assert dict(them.up[domain].store.outgoing_domains()) == {next_one: 1}

    scene(tmp_path, NORTH, SOUTH, EAST)(scenario)


def test_expired_message_leaves_the_outbox(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada:
            assert await ada.put(ada.letter(os.urandom(32), ttl_s=1), domain=SOUTH) == [STORED]
            server = them.up[NORTH]
            exchange = server.exchange
            assert exchange is not None
            await until(lambda: server.driver.now().at > (server.store.next_expiry() or 0))
            await soon(server.driver.call(lambda _: exchange.outbox.sweep(256)))
            assert emptied(them, NORTH)
            assert server.store.next_expiry() is None

    scene(tmp_path, NORTH, SOUTH, up=1)(scenario)


def test_storage_has_a_part_for_each_domain(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada, them.person(SOUTH) as bob:
            await ada.listen()
            big = [ada.letter(bob.key, bytes(40_000)) for _ in range(3)]
            assert await ada.put(*big, domain=SOUTH) == [STORED] * 3
            await until(lambda: len(ada.receiver.reports) == 3)
            assert {one[2:] for one in ada.receiver.reports} == {STORED, FULL}
            assert them.up[SOUTH].store.usage(Scope.RECIPIENT, bob.key).count == 2
            assert them.up[NORTH].store.outgoing_domains() == {SOUTH: 1}, "what has no room yet waits"

    limits = Limits(carried_bytes=400_000, share=0.9, per_pair=10, per_recipient=10)
    scene(tmp_path, NORTH, SOUTH, limits=limits, share=0.25)(scenario)


def test_author_may_send_it_elsewhere_and_nobody_else(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada, them.person(NORTH) as eve:
            first, second = ada.letter(os.urandom(32)), ada.letter(os.urandom(32))
            assert await ada.put(first, domain=SOUTH) == [STORED]
            assert await eve.put(second, domain=EAST) == [STORED]
            for who in (eve, ada):
                assert await who.put(first, second, domain=EAST if who is eve else SOUTH) == [DUPLICATE] * 2
                assert them.up[NORTH].store.outgoing_domains() == ({SOUTH: 1, EAST: 1} if who is eve else {SOUTH: 2})
            assert await ada.put(first, domain=EAST) == [DUPLICATE]
            assert them.up[NORTH].store.outgoing_domains() == {SOUTH: 1, EAST: 1}

    scene(tmp_path, NORTH, SOUTH, EAST, up=1)(scenario)


def test_federation_port_that_is_taken_leaves_nothing_behind(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", them.ports[NORTH]))
            with pytest.raises(UnavailableError, match="another program may have it"):
                await them.start(NORTH)
        await them.start(NORTH)

    scene(tmp_path, NORTH, SOUTH, up=0)(scenario)


def test_path_that_dies_without_a_word_is_noticed_and_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "SILENCE_S", 0.3)

    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada, them.person(SOUTH) as bob:
            first, second = ada.letter(bob.key), ada.letter(bob.key)
            assert await ada.put(first, domain=SOUTH) == [STORED]
            await bob.got()
            await until(lambda: emptied(them, NORTH))
            north, south = them.up[NORTH].exchange, them.up[SOUTH].exchange
            assert north is not None
            assert south is not None
            for connection in south._connections[NORTH]:
                vanish(connection)  # as if its machine had been switched off
            assert north.client.connected(SOUTH)
            assert await ada.put(second, domain=SOUTH) == [STORED]
            assert [one.id for one in await bob.got(2)] == [first.id, second.id]
            await until(lambda: emptied(them, NORTH))

    scene(tmp_path, NORTH, SOUTH)(scenario)
