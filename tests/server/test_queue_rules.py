"""What the home server answers to envelopes that are not as they should be, and whose mail is whose."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.server.attacked import Attacked, Caller, attacked, calling, run, serves, soon, until, vanish

from quicprochat.adapters import rpc
from quicprochat.core.envelope import ENVELOPE_MAX_BYTES, Header, Kind, make
from quicprochat.core.gate import Reason, Verdict
from quicprochat.core.receipt import Receipt, Status

STORED = (Verdict.STORED, Reason.NONE)
DUPLICATE = (Verdict.DUPLICATE, Reason.NONE)
FULL = (Verdict.DEFERRED, Reason.FULL)
UNKNOWN = (Verdict.DEFERRED, Reason.UNKNOWN)
REFUSED = (Verdict.REFUSED, Reason.UNSUPPORTED)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def met(work: Any, home: Path, people: int = 2, **settings: Any) -> None:
    """Run with a server and so many clients."""

    async def scenario() -> None:
        with attacked(home, **settings) as server:
            async with AsyncExitStack() as stack:
                callers = [await stack.enter_async_context(calling(server)) for _ in range(people)]
                await work(server, *callers)
            await serves(server)

    run(scenario)


class Inbox(rpc.home.Receiver.Server):  # type: ignore[misc]
    """A receiver that notes what is pushed and confirms it, or does not."""

    def __init__(self, *, confirm: bool = True) -> None:
        self.got: list[bytes] = []
        self._confirm = confirm

    async def deliver_context(self, context: Any) -> None:
        wires = [bytes(one.envelope) for one in context.params.deliveries]
        self.got += wires
        context.results.ids = [Caller.id_of(wire) for wire in wires] if self._confirm else []


async def subscribe(caller: Caller, **how: Any) -> Inbox:
    inbox = Inbox(**how)
    await soon(rpc.Remote.ask(caller.session.subscribe(receiver=inbox), "subscribing"))
    return inbox


def test_unknown_recipient_is_put_off_and_gets_it_when_it_comes(home: Path) -> None:
    async def work(server: Attacked, author: Caller) -> None:
        seed = os.urandom(32)
        stranger = Caller.of(seed)
        envelope = author.envelope(stranger.key)
        assert await author.put(envelope.wire()) == [UNKNOWN]
        async with calling(server, seed) as comer:
            assert await comer.fetch() == []
            assert await author.put(envelope.wire()) == [STORED]
            assert [one.id for one in await comer.fetch()] == [envelope.id]

    met(work, home, 1)


def test_each_item_of_a_batch_has_its_own_answer(home: Path) -> None:
    async def work(_: Attacked, author: Caller, reader: Caller) -> None:
        good = [author.envelope(reader.key) for _ in range(3)]
        altered = bytearray(author.envelope(reader.key).wire())
        altered[-70] ^= 1
        forged = replace(author.envelope(reader.key), signature=bytes(64))
        answers = await author.put(
            good[0].wire(), b"", b"\0" * 300, bytes(altered), forged.wire(), bytes(ENVELOPE_MAX_BYTES + 1),
            good[1].wire(), good[0].wire(), author.envelope(os.urandom(32)).wire(),
            replace(author.envelope(reader.key, ttl_s=60), age_ms=60_000).wire(),
            replace(author.envelope(reader.key, max_hops=2), hop=2).wire(), good[2].wire(),
        )  # fmt: skip
        assert answers == [
            STORED, REFUSED, REFUSED, REFUSED, REFUSED, REFUSED, STORED, DUPLICATE, UNKNOWN,
            (Verdict.REFUSED, Reason.EXPIRED), (Verdict.REFUSED, Reason.HOPS), STORED,
        ]  # fmt: skip
        assert [one.id for one in await reader.fetch()] == [one.id for one in good]

    met(work, home)


def test_what_was_fetched_and_acknowledged_cannot_be_replayed(home: Path) -> None:
    async def work(server: Attacked, author: Caller, reader: Caller) -> None:
        envelope = author.envelope(reader.key)
        assert await author.put(envelope.wire()) == [STORED]
        await reader.acknowledge(envelope.id)
        for _ in range(2):
            assert await author.put(envelope.wire(), replace(envelope, age_ms=5).wire()) == [DUPLICATE] * 2
        assert await reader.fetch() == []
        assert server.look()["clients"] == 2

    met(work, home)


def test_acknowledging_what_is_not_ones_own_changes_nothing(home: Path) -> None:
    async def work(_: Attacked, author: Caller, reader: Caller, thief: Caller) -> None:
        envelope = author.envelope(reader.key)
        assert await author.put(envelope.wire()) == [STORED]
        await thief.acknowledge(envelope.id, os.urandom(32))
        await author.acknowledge(envelope.id)
        cure = Receipt(Status.DELIVERED, (envelope.id,)).encode()
        forged = make(Header(Kind.RECEIPT, thief.key, author.key, os.urandom(16)), cure, thief.signer)
        assert await thief.put(forged.wire()) == [STORED]  # a receipt of the wrong one cures nothing
        assert await thief.fetch() == []
        assert [one.id for one in await reader.fetch()] == [envelope.id]
        true = make(Header(Kind.RECEIPT, reader.key, author.key, os.urandom(16)), cure, reader.signer)
        assert await reader.put(true.wire()) == [STORED]
        assert await reader.fetch() == []

    met(work, home, 3)


@pytest.mark.parametrize("ids", [[b"short"], [bytes(33)], [bytes(32)] * 1_025])
def test_ids_that_are_none_are_a_problem(home: Path, ids: list[bytes]) -> None:
    async def work(_: Attacked, author: Caller) -> None:
        with pytest.raises(rpc.Problem) as caught:
            await author.acknowledge(*ids)
        assert caught.value.code == "usage"

    met(work, home, 1)


@pytest.mark.parametrize("count", [0, 257])
def test_batch_of_another_size_is_a_problem(home: Path, count: int) -> None:
    async def work(_: Attacked, author: Caller) -> None:
        with pytest.raises(rpc.Problem, match="1 to 256"):
            await author.put(*[b"x"] * count)

    met(work, home, 1)


def test_full_recipient_is_put_off_until_it_has_taken_some(home: Path) -> None:
    async def work(_: Attacked, one: Caller, other: Caller, reader: Caller) -> None:
        mine = [one.envelope(reader.key) for _ in range(3)]
        assert await one.put(*[envelope.wire() for envelope in mine]) == [STORED] * 3
        more = other.envelope(reader.key)
        assert await other.put(more.wire()) == [FULL]
        assert await other.put(other.envelope(one.key).wire()) == [STORED]
        await reader.acknowledge(mine[0].id)
        assert await other.put(more.wire()) == [STORED]

    met(work, home, 3, limits={"per_recipient": 3})


def test_author_and_link_have_their_share(home: Path) -> None:
    """The link is the key of the connection: whoever brings other people's mail is bounded like an author."""

    async def work(_: Attacked, bearer: Caller, reader: Caller, other: Caller) -> None:
        size = len(bearer.envelope(reader.key, bytes(400)).wire())
        assert 4 * size < 0.25 * 10_000 < 5 * size
        strangers = [Caller.of(os.urandom(32)).envelope(reader.key, bytes(400)) for _ in range(5)]
        answers = await bearer.put(*[one.wire() for one in strangers])
        assert answers == [STORED] * 4 + [FULL]
        assert await bearer.put(bearer.envelope(other.key, bytes(400)).wire()) == [FULL]
        assert await other.put(strangers[4].wire()) == [STORED]  # another link
        own = [other.envelope(bearer.key, bytes(400)) for _ in range(4)]
        assert (await other.put(*[one.wire() for one in own]))[-1] == FULL

    met(work, home, 3, limits={"carried_bytes": 10_000, "share": 0.25})


def test_pair_has_its_share(home: Path) -> None:
    async def work(_: Attacked, author: Caller, reader: Caller) -> None:
        assert await author.put(*[author.envelope(reader.key).wire() for _ in range(3)]) == [STORED, STORED, FULL]
        assert await author.put(author.envelope(author.key).wire()) == [STORED]

    met(work, home, limits={"per_pair": 2})


def test_two_connections_of_one_key_are_both_pushed_to(home: Path) -> None:
    async def scenario() -> None:
        seed = os.urandom(32)
        with attacked(home) as server:
            async with calling(server, seed) as phone, calling(server, seed) as laptop, calling(server) as author:
                inboxes = [await subscribe(one, confirm=False) for one in (phone, laptop)]
                envelope = author.envelope(phone.key)
                assert await author.put(envelope.wire()) == [STORED]
                await until(lambda: all(len(inbox.got) == 1 for inbox in inboxes))
                assert [one.id for one in await laptop.fetch()] == [envelope.id]
                await phone.acknowledge(envelope.id)
                assert await laptop.fetch() == []

    run(scenario)


def test_second_receiver_replaces_the_first(home: Path) -> None:
    async def work(_: Attacked, author: Caller, reader: Caller) -> None:
        first = await subscribe(reader)
        one, other = author.envelope(reader.key), author.envelope(reader.key)
        assert await author.put(one.wire()) == [STORED]
        await until(lambda: len(first.got) == 1)
        await emptied(reader)
        second = await subscribe(reader)
        assert await author.put(other.wire()) == [STORED]
        await until(lambda: len(second.got) == 1)
        assert [Caller.id_of(wire) for wire in first.got + second.got] == [one.id, other.id]
        await emptied(reader)

    met(work, home)


async def emptied(reader: Caller) -> None:
    async with asyncio.timeout(10):
        while await reader.fetch():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.02)


def test_what_waits_is_pushed_at_once_and_what_was_not_confirmed_again(home: Path) -> None:
    async def scenario() -> None:
        seed = os.urandom(32)
        with attacked(home) as server:
            async with calling(server) as author:
                async with calling(server, seed) as reader:
                    wires = [author.envelope(reader.key).wire() for _ in range(100)]
                    assert set(await author.put(*wires)) == {STORED}
                    inbox = await subscribe(reader, confirm=False)
                    await until(lambda: len(inbox.got) == 100)
                async with calling(server, seed) as reader:
                    inbox = await subscribe(reader)
                    await until(lambda: len(inbox.got) == 100)
                    assert len(set(map(Caller.id_of, inbox.got))) == 100
                    await emptied(reader)
                async with calling(server, seed) as reader:
                    assert (await subscribe(reader)).got == []
                    assert await reader.fetch() == []

    run(scenario)


def test_push_under_way_when_the_client_vanishes_is_not_lost(home: Path) -> None:
    async def scenario() -> None:
        seed = os.urandom(32)
        with attacked(home, patience={"IDLE_S": 1.0}) as server:
            async with calling(server, seed) as reader, calling(server) as author:
                await subscribe(reader)
                vanish(reader.connection)
                envelope = author.envelope(reader.key)
                assert await author.put(envelope.wire()) == [STORED]
                await until(lambda: server.look()["clients"] <= 1)
            async with calling(server, seed) as reader:
                assert [one.id for one in await reader.fetch()] == [envelope.id]

    run(scenario)


def test_client_of_another_version_is_told(home: Path) -> None:
    async def scenario() -> None:
        with attacked(home) as server:
            async with calling(server, enter=False) as caller:
                with pytest.raises(rpc.Problem, match="update the older"):
                    await rpc.Remote.ask(caller.remote.bootstrap.enter(version=99), "entering")
                await caller.enter()
                with pytest.raises(rpc.Problem, match="has its session already"):
                    await caller.enter()

    run(scenario)


def test_no_answer_tells_of_the_servers_insides(home: Path) -> None:
    async def work(_: Attacked, author: Caller) -> None:
        told = []
        for call in (
            author.session.enqueue(envelope=bytes(10)),
            author.session.batchEnqueue(envelopes=[]),
            author.session.acknowledge(ids=[b""]),
            author.session.publish(record=b"x", ageMs=1),
            author.session.findRecord(key=b"x"),
        ):
            answer = await soon(call)
            told.append(f"{answer.problem.code}: {answer.problem.message}")
        text = "\n".join(told)
        assert "/" not in text
        assert "Traceback" not in text
        assert ".py" not in text

    met(work, home, 1)
