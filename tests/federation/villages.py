"""Home servers of several domains in one process, over real QUIC with real certificates, and people at them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.durability.harness import free_port
from tests.server.attacked import Caller, calling
from tests.server.attacked import run as run
from tests.server.attacked import soon as soon
from tests.server.attacked import until as until
from tests.unit import authorities

from quicprochat.adapters import quic, rpc
from quicprochat.core.address import Address
from quicprochat.core.envelope import Header, Kind, MeshEnvelope, make
from quicprochat.core.errors import LocalError, QuicprochatError
from quicprochat.core.gate import Limits, Reason, Verdict
from quicprochat.core.receipt import Receipt, Status
from quicprochat.server.channels import ChannelRules
from quicprochat.server.federation import FederationClient, FederationOptions, FederationRules
from quicprochat.server.federation.peer import Entrance
from quicprochat.server.home_server import HomeServer, ServerOptions
from quicprochat.server.queue import Outcome
from quicprochat.server.trust import Loaded

NORTH, SOUTH, EAST = "north.mesh.local", "south.mesh.local", "east.mesh.local"
STORED, DUPLICATE = (Verdict.STORED, Reason.NONE), (Verdict.DUPLICATE, Reason.NONE)
UNKNOWN, FULL = (Verdict.DEFERRED, Reason.UNKNOWN), (Verdict.DEFERRED, Reason.FULL)
AUTHORITY = authorities.authority()
ROOMY = Limits(carried_bytes=4 << 30, share=1.0, per_pair=10**6, per_recipient=10**6)


NOBODY: Mapping[str, frozenset[str]] = {}
EVERYBODY: Mapping[str, frozenset[str]] = dict.fromkeys((NORTH, SOUTH, EAST), frozenset({NORTH, SOUTH, EAST}))
"""With whom each domain shares channels."""


class Villages:
    """Domains that know of each other; each has a server that may be up or down."""

    def __init__(
        self, place: Path, *domains: str, limits: Limits = ROOMY, channels: ChannelRules | None = None,
        sharing: Mapping[str, frozenset[str]] = NOBODY, **rules: Any,
    ) -> None:  # fmt: skip
        self.place = place
        self.ports = {domain: free_port() for domain in domains}
        self.limits = limits
        self.channels = channels or ChannelRules()
        self.rules = FederationRules(**rules)
        self.sharing = sharing
        self.up: dict[str, HomeServer] = {}

    def federation(self, domain: str, peers: Mapping[str, str] | None = None) -> FederationOptions:
        """What the operator of a domain has decided; without ``peers`` it exchanges messages with all others."""
        if peers is None:
            peers = {other: f"127.0.0.1:{port}" for other, port in self.ports.items() if other != domain}
        loaded = Loaded(authorities.leaf(domain, AUTHORITY), trusting(domain, *peers))
        shared = self.sharing.get(domain, frozenset()) & frozenset(peers)
        return FederationOptions(domain, Address("127.0.0.1", self.ports[domain]), loaded, peers, self.rules, shared)

    def options(self, domain: str, federation: FederationOptions | None = None) -> ServerOptions:
        return ServerOptions(
            self.place / domain, Address("127.0.0.1", 0), domain, self.limits, disk_reserve_bytes=1 << 20,
            federation=federation or self.federation(domain), channels=self.channels,
        )  # fmt: skip

    async def start(self, domain: str, federation: FederationOptions | None = None) -> HomeServer:
        server = HomeServer(self.options(domain, federation))
        await server.start()
        self.up[domain] = server
        return server

    async def stop(self, domain: str) -> None:
        await self.up.pop(domain).close()

    async def change(self, domain: str, federation: FederationOptions) -> None:
        server = self.up[domain]
        await server.reload(replace(server.options, federation=federation))

    @asynccontextmanager
    async def person(self, domain: str, seed: bytes | None = None) -> AsyncIterator[Person]:
        """Somebody connected to a domain's server."""
        server = self.up[domain]
        where: Any = SimpleNamespace(
            address=(server.address.ip, server.address.port), fingerprint=server.fingerprint
        )  # fmt: skip
        seed = seed or os.urandom(32)
        async with calling(where, seed) as caller:
            yield Person(caller, domain, seed)


def trusting(domain: str, *domains: str, cas: Mapping[str, Any] | None = None) -> quic.Trust:
    return quic.Trust(
        domain, frozenset(domains), AUTHORITY.certificate, cas or {}, lambda: authorities.NOW
    )  # fmt: skip


@asynccontextmanager
async def villages(place: Path, *domains: str, up: int | None = None, **rules: Any) -> AsyncIterator[Villages]:
    """The first ``up`` of them up, or all; whatever is up in the end is closed."""
    found = Villages(place, *domains, **rules)
    try:
        for domain in domains[:up]:
            await found.start(domain)
        yield found
    finally:
        for domain in tuple(found.up):
            await found.stop(domain)


class Receiver(rpc.Capability, rpc.home.Receiver.Server):  # type: ignore[misc]
    """Takes what is pushed, and confirms it."""

    def __init__(self) -> None:
        self.envelopes: list[MeshEnvelope] = []
        self.reports: list[tuple[bytes, str, Verdict, Reason]] = []
        self.posts: list[MeshEnvelope] = []
        self.serials: list[int] = []
        self.reading = asyncio.Event()
        self.reading.set()

    async def handle_bring(self, params: Any, results: Any) -> None:
        self.posts += [MeshEnvelope.decode(bytes(one.envelope)) for one in params.posts]
        self.serials += [one.serial for one in params.posts]
        await self.reading.wait()

    async def handle_deliver(self, params: Any, results: Any) -> None:
        found = [MeshEnvelope.decode(bytes(one.envelope)) for one in params.deliveries]
        self.envelopes += found
        results.ids = [one.id for one in found]

    async def handle_report(self, params: Any, results: Any) -> None:
        self.reports += [
            (bytes(one.id), str(one.domain), Verdict(one.outcome.verdict), Reason(one.outcome.reason))
            for one in params.reports
        ]

    deliver_context = rpc.method(handle_deliver)
    report_context = rpc.method(handle_report)
    bring_context = rpc.method(handle_bring)


class OldReceiver(rpc.Capability, rpc.home.Receiver.Server):  # type: ignore[misc]
    """One from before there were reports."""

    async def handle_deliver(self, params: Any, results: Any) -> None:
        results.ids = []

    deliver_context = rpc.method(handle_deliver)


class Person:
    """A caller at a domain's server."""

    def __init__(self, caller: Caller, domain: str, seed: bytes) -> None:
        self.caller = caller
        self.domain = domain
        self.seed = seed
        self.key = caller.key
        self.receiver = Receiver()

    def letter(self, to: bytes, payload: bytes = b"sealed", **header: Any) -> MeshEnvelope:
        return self.caller.envelope(to, payload, **header)

    def receipt(self, to: bytes, *ids: Any) -> MeshEnvelope:
        payload = Receipt(Status.DELIVERED, tuple(ids)).encode()
        return make(Header(Kind.RECEIPT, self.key, to, os.urandom(16)), payload, self.caller.signer)

    def post(self, channel: bytes, payload: bytes = b"sealed", **header: Any) -> MeshEnvelope:
        """Make a post; servers never look into it."""
        made = Header(Kind.CHANNEL, self.key, channel, os.urandom(16), **header)
        return make(made, payload, self.caller.signer)

    async def follow(self, *channels: bytes) -> None:
        await soon(rpc.Remote.ask(self.caller.session.follow(channels=list(channels)), "following"))

    async def listed(self, channel: bytes, after: int = 0, limit: int = 1_024) -> list[tuple[int, bytes]]:
        call = self.caller.session.listPosts(channel=channel, after=after, limit=limit)
        return [(one.serial, bytes(one.id)) for one in (await soon(rpc.Remote.ask(call, "listing"))).posts]

    async def posts(self, *ids: bytes) -> list[MeshEnvelope]:
        answer = await soon(rpc.Remote.ask(self.caller.session.fetchPosts(ids=list(ids)), "fetching"))
        return [MeshEnvelope.decode(bytes(one.envelope)) for one in answer.deliveries]

    async def lacking(self, *ids: bytes) -> list[bytes]:
        answer = await soon(rpc.Remote.ask(self.caller.session.lackingPosts(ids=list(ids)), "asking"))
        return [bytes(one) for one in answer.ids]

    async def put(self, *envelopes: MeshEnvelope | bytes, domain: str = "") -> list[tuple[Verdict, Reason]]:
        wires = [one if isinstance(one, bytes) else one.wire() for one in envelopes]
        call = self.caller.session.batchEnqueue(envelopes=wires, domain=domain)
        answer = await soon(rpc.Remote.ask(call, "sending"))
        return [(Verdict(one.verdict), Reason(one.reason)) for one in answer.outcomes]

    async def fetch(self) -> list[MeshEnvelope]:
        return await self.caller.fetch()

    async def got(self, count: int = 1) -> list[MeshEnvelope]:
        """Wait until so many envelopes wait here; return them."""

        async def wait() -> list[MeshEnvelope]:
            while len(found := await self.fetch()) < count:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
            return found

        found: list[MeshEnvelope] = await soon(wait())
        return found

    async def listen(self, receiver: Any = None) -> None:
        call = self.caller.session.subscribe(receiver=receiver or self.receiver)
        await soon(rpc.Remote.ask(call, "subscribing"))

    async def publish(self, record: bytes) -> None:
        await soon(rpc.Remote.ask(self.caller.session.publish(record=record, ageMs=0), "publishing"))


def scene(
    place: Path, *domains: str, seconds: float = 50.0, **rules: Any
) -> Callable[[Callable[[Villages], Coroutine[Any, Any, None]]], None]:
    """Run a scenario with servers of these domains."""

    def play(scenario: Callable[[Villages], Coroutine[Any, Any, None]]) -> None:
        async def whole() -> None:
            async with villages(place, *domains, **rules) as found:
                await scenario(found)

        run(whole, seconds)

    return play


@asynccontextmanager
async def stranger(them: Villages, origin: str, to: str, credentials: Any = None) -> AsyncIterator[FederationClient]:
    """Somebody with a certificate for a domain, who calls another's server and says what he likes."""
    shown = credentials or authorities.leaf(origin, AUTHORITY)
    check = quic.federated(lambda: trusting(origin, to), to)

    async def dial(domain: str) -> quic.Connection:
        return await quic.connect(("127.0.0.1", them.ports[to]), quic.FEDERATION_ALPN, shown, check, 10)

    client = FederationClient(origin, dial)
    try:
        yield client
    finally:
        await client.close()


class Desk:
    """What a made-up server of a domain does with what it gets."""

    epoch = bytes(16)

    def __init__(self, domain: str) -> None:
        self.domain = domain
        self.batches: list[list[bytes]] = []
        self.waiting = asyncio.Event()

    async def deposit(self, origin: str, envelopes: list[bytes]) -> list[Outcome]:
        self.batches.append(envelopes)
        return await self.answer(envelopes)

    async def answer(self, envelopes: list[bytes]) -> list[Outcome]:
        return [Outcome(Verdict.STORED) for _ in envelopes]

    async def take_interest(
        self, origin: str, added: frozenset[Any], removed: frozenset[Any], *, whole: bool
    ) -> bytes:  # fmt: skip
        raise LocalError("no channels are shared", code="policy")

    async def lacking_posts(self, origin: str, ids: list[Any]) -> Any:
        raise LocalError("no channels are shared", code="policy")

    async def own_record(self, key: Any) -> tuple[bytes, int]:
        return b"", 0

    async def own_name(self, name: str) -> Any:
        raise LocalError("nobody", code="not_found")

    @property
    def got(self) -> list[bytes]:
        return [one for batch in self.batches for one in batch]


@asynccontextmanager
async def pretending(them: Villages, desk: Desk) -> AsyncIterator[list[quic.Connection]]:
    """A server for a domain that is none of ours; yields the connections it accepted."""
    accepted: list[quic.Connection] = []
    tasks: list[asyncio.Task[None]] = []

    async def serve(connection: quic.Connection) -> None:
        served = rpc.Served(64, lambda reason: connection.end(1, reason))
        with suppress(QuicprochatError):
            await served.run(await connection.stream(10), Entrance(desk, connection.peer.decode(), served))
        connection.end(0, "goodbye")

    def take(connection: quic.Connection) -> None:
        accepted.append(connection)
        tasks.append(asyncio.create_task(serve(connection)))

    others = [domain for domain in them.ports if domain != desk.domain]
    listener = await quic.listen(
        ("127.0.0.1", them.ports[desk.domain]), authorities.leaf(desk.domain, AUTHORITY),
        {quic.FEDERATION_ALPN: quic.federated(lambda: trusting(desk.domain, *others))}, take, limit=100,
    )  # fmt: skip
    try:
        yield accepted
    finally:
        await listener.close()
        await asyncio.gather(*tasks)
