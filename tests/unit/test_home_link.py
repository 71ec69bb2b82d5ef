"""A node's session at its home server, against a server of the test's: what goes for which domain, what it may tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from quicprochat.adapters import quic, rpc
from quicprochat.adapters.crypto import Ed25519Signer
from quicprochat.core.envelope import Header, Kind, make
from quicprochat.core.events import Event, LinkId, Report, ReportsArrived, ResultsArrived
from quicprochat.core.gate import Checked, Reason, Reject, Verdict
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.record import PeerRecord
from quicprochat.p2p.home_link import BATCH, REPORTED_MAX, HomeLink, Visit

PATIENCE_S = 20.0
OURS, THEIRS = "node1.mesh.local", "node2.mesh.local"
SIGNER = Ed25519Signer(b"l" * 32)
BOB = PeerKey(b"b" * 32)


def envelope(number: int) -> bytes:
    header = Header(Kind.MESSAGE, SIGNER.key, BOB, number.to_bytes(16, "big"))
    return make(header, bytes(50), SIGNER).wire()


class Owner:
    """Stands for a node; notes what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.changed = asyncio.Event()

    def next_link_id(self) -> LinkId:
        return LinkId(1)

    async def check_all(self, envelopes: list[bytes]) -> list[Checked | Reject]:
        return []

    def open_record(self, data: bytes) -> PeerRecord:
        raise AssertionError

    def settle(self, events: list[Event]) -> asyncio.Future[None]:
        self.events += events
        self.changed.set()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def post(self, event: Event) -> None:
        self.settle([event])

    async def unseen(self, ids: Sequence[EnvelopeId]) -> list[EnvelopeId]:
        return list(ids)

    async def noted(self, key: str) -> bytes | None:
        return None

    async def note(self, key: str, data: bytes) -> None:
        pass

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, kind: type, count: int = 1) -> list[Any]:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.of(kind)) < count:
                self.changed.clear()
                await self.changed.wait()
        return self.of(kind)


@dataclass
class Fake:
    """A home server that knows every domain."""

    batches: list[tuple[str, int]] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    receiver: Any = None
    domain: str = OURS
    hold: asyncio.Event = field(default_factory=asyncio.Event)


class FakeEntrance(rpc.Capability, rpc.home.Entrance.Server):  # type: ignore[misc]
    def __init__(self, fake: Fake) -> None:
        self.fake = fake

    async def handle_enter(self, params: Any, results: Any) -> None:
        results.session = FakeSession(self.fake)
        results.info = {"domain": self.fake.domain, "epoch": bytes(16), "admitted": True}

    enter_context = rpc.method(handle_enter)


class FakeSession(rpc.Capability, rpc.home.Session.Server):  # type: ignore[misc]
    def __init__(self, fake: Fake) -> None:
        self.fake = fake

    async def handle_subscribe(self, params: Any, results: Any) -> None:
        self.fake.receiver = params.receiver

    async def handle_publish(self, params: Any, results: Any) -> None:
        await self.fake.hold.wait()

    async def handle_batchEnqueue(self, params: Any, results: Any) -> None:
        self.fake.batches.append((params.domain, len(params.envelopes)))
        results.init("outcomes", len(params.envelopes))

    async def handle_findName(self, params: Any, results: Any) -> None:
        self.fake.asked.append((params.name, params.domain))
        results.key = BOB

    async def handle_findRecord(self, params: Any, results: Any) -> None:
        self.fake.asked.append((bytes(params.key).hex()[:4], params.domain))

    subscribe_context = rpc.method(handle_subscribe)
    publish_context = rpc.method(handle_publish)
    batchEnqueue_context = rpc.method(handle_batchEnqueue)
    findName_context = rpc.method(handle_findName)
    findRecord_context = rpc.method(handle_findRecord)


@asynccontextmanager
async def linked(fake: Fake) -> AsyncIterator[tuple[HomeLink, Owner]]:
    """A home link that has entered; what it hands over waits until ``fake.hold`` is set."""
    served: list[asyncio.Task[None]] = []

    def accepted(connection: quic.Connection) -> None:
        async def serve() -> None:
            await rpc.Served(10, lambda _: None).run(await connection.stream(5), FakeEntrance(fake))

        served.append(asyncio.create_task(serve()))

    keys = quic.Credentials(*quic.self_signed(b"s" * 32, "server", 1))
    listener = await quic.listen(("127.0.0.1", 0), keys, {"capnp": quic.key_holder}, accepted, limit=4)

    async def keep(_: bytes) -> None:
        pass

    owner = Owner()
    own = quic.Credentials(*quic.self_signed(b"l" * 32, "quicprochat", 1))
    news = asyncio.Event()
    visit = Visit("127.0.0.1", listener.address[1], own, quic.fingerprint(keys.certificate), keep)
    link = HomeLink(visit, owner, lambda: (b"record", 0), news.set, lambda: 0.5)
    running = asyncio.create_task(link.run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not link.connected:
                news.clear()
                await news.wait()
        yield link, owner
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        fake.receiver = None
        await listener.close()
        await asyncio.gather(*served, return_exceptions=True)


def run(work: Any) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(50), rpc.running():
            await work

    asyncio.run(bounded())


def test_each_batch_is_for_one_domain_and_none_waits_behind_all_of_another() -> None:
    async def scenario() -> None:
        fake = Fake()
        async with linked(fake) as (link, owner):
            for number in range(BATCH + 10):
                link.send_envelope(envelope(number), THEIRS)
            link.send_envelope(envelope(1_000), OURS)
            link.send_envelope(envelope(1_001))
            link.send_envelope(envelope(1_002), "third.example")
            fake.hold.set()
            await owner.until(ResultsArrived, 4)
            assert fake.batches == [(THEIRS, BATCH), ("", 2), ("third.example", 1), (THEIRS, 10)]
            ids = [result.id for event in owner.of(ResultsArrived) for result in event.results]
            assert len(set(ids)) == BATCH + 13

    run(scenario())


def test_names_and_records_are_asked_for_at_their_domain() -> None:
    async def scenario() -> None:
        fake = Fake()
        async with linked(fake) as (link, _):
            assert await link.find_name("bob", THEIRS) == BOB
            assert await link.find_name("bob", OURS) == BOB
            assert await link.find_record(BOB, THEIRS) is False
            assert await link.find_record(BOB) is False
            assert fake.asked == [("bob", THEIRS), ("bob", ""), ("6262", THEIRS), ("6262", "")]

    run(scenario())


def test_what_a_server_reports_reaches_the_node_before_it_is_answered() -> None:
    async def scenario() -> None:
        fake = Fake()
        async with linked(fake) as (_, owner):
            told = [
                {"id": b"i" * 32, "domain": THEIRS, "outcome": {"verdict": 3, "reason": 9}},
                {"id": b"j" * 32, "domain": THEIRS, "outcome": {"verdict": 200, "reason": 200}},
            ]
            await rpc.Remote.ask(fake.receiver.report(told), "reporting")
            assert owner.of(ReportsArrived) == [
                ReportsArrived(
                    LinkId(1),
                    (
                        Report(EnvelopeId(b"i" * 32), THEIRS, Verdict.DEFERRED, Reason.UNKNOWN),
                        Report(EnvelopeId(b"j" * 32), THEIRS, Verdict.DEFERRED, Reason.NONE),
                    ),
                )
            ]

    run(scenario())


@pytest.mark.parametrize(
    "told",
    [
        [{"id": b"i" * 32, "domain": THEIRS}] * (REPORTED_MAX + 1),
        [{"id": b"i" * 31, "domain": THEIRS}],
        [{"id": b"i" * 32, "domain": "d" * 256}],
    ],
    ids=["too many", "no id", "endless domain"],
)
def test_reports_are_bounded(told: list[dict[str, Any]]) -> None:
    async def scenario() -> None:
        fake = Fake()
        async with linked(fake) as (_, owner):
            with pytest.raises(rpc.Problem):
                await rpc.Remote.ask(fake.receiver.report(told), "reporting")
            assert owner.of(ReportsArrived) == []

    run(scenario())
