"""The exchange: a home server's dealings with other domains, beside the service for its own users."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from cryptography import x509

from quicprochat.adapters import quic, rpc
from quicprochat.core.address import Address
from quicprochat.core.bucket import TokenBucket
from quicprochat.core.crypto import Crypto
from quicprochat.core.errors import LocalError, QuicprochatError, StoreError, UnavailableError
from quicprochat.core.federation import FederationStore, Outgoing, Parcel
from quicprochat.core.ids import ChannelId, EnvelopeId, PeerKey
from quicprochat.core.time import Instant
from quicprochat.server.channels import Channels, Lacking
from quicprochat.server.federation.client import FederationClient
from quicprochat.server.federation.courier import Courier
from quicprochat.server.federation.forgetting import Forgettings
from quicprochat.server.federation.lookup import LookUps
from quicprochat.server.federation.outbox import Outbox
from quicprochat.server.federation.peer import Entrance
from quicprochat.server.federation.posts import PostCourier, interest_digest
from quicprochat.server.federation.rules import (
    CONNECT_S,
    CONNECTIONS_PER_DOMAIN,
    ENVELOPES_MAX,
    GREETINGS,
    IN_FLIGHT_MAX,
    INTERESTS_MAX,
    STREAM_S,
    FederationOptions,
)
from quicprochat.server.meter import Meter
from quicprochat.server.options import FEDERATION_PORT, PEERS_MAX
from quicprochat.server.queue import Outcome, Queue
from quicprochat.server.trust import RefusalLog, end_distrusted
from quicprochat.server.turns import ServerDriver

log = logging.getLogger("quicprochat.server.federation")

TOO_MUCH = 0x12
STOPPED = 0x13
TOO_MANY_CONNECTIONS = 0x14
SWEEP_BATCH = 256
SWEEP_S = 3_600.0
TRUST_S = 2.0
"""How often it is looked whether those who are connected are still trusted: certificates end, and a connection may have
come about while the list changed."""
BURST_S = 2.0
"""Seconds of a domain's rate that it may spend at once."""
FAULT_REST_S = 60.0
"""How long a courier rests after a fault of its own."""


class House(Protocol):
    """What the exchange asks of the server it belongs to."""

    channels: Channels

    def is_user(self, key: PeerKey) -> bool:
        """Say whether a key is a user here; asked inside a transaction."""
        ...

    def home_of(self, key: PeerKey) -> str:
        """Return the home domain that the newest record of a key names, or empty; asked inside a transaction."""
        ...

    def reported(self, authors: Iterable[PeerKey]) -> None:
        """There are reports for these authors."""
        ...

    async def own_record(self, key: PeerKey) -> tuple[bytes, int]:
        """Return the record that a user here has published, and its age in milliseconds."""
        ...

    async def own_name(self, name: str) -> PeerKey:
        """Return whose name this is here. Raises: LocalError."""
        ...


def via_domain(domain: str) -> PeerKey:
    """Return what stands for a domain where the store notes from whom an envelope came: its quotas go by that."""
    return PeerKey(hashlib.sha256(b"quicprochat-server/1/domain\x00" + domain.encode()).digest())


class Exchange:
    """Made before the queue, which asks its ``outbox``; :meth:`start` comes after it."""

    listener: quic.Listener
    _queue: Queue

    def __init__(
        self,
        options: FederationOptions,
        house: House,
        driver: ServerDriver,
        store: FederationStore,
        meter: Meter,
        crypto: Crypto,
        epoch: bytes,
    ) -> None:
        self.options = options
        self.epoch = epoch
        self._house = house
        self._driver = driver
        self.store = store
        self._meter = meter
        self._found: dict[str, str] = {}  # addresses that were announced on the local network
        self.outbox = Outbox(
            store, options.domain, lambda: self.options.rules, self.is_peer, house.is_user, house.home_of,
            lambda: driver.now().at,
        )  # fmt: skip
        self.forgettings = Forgettings(driver, store, epoch)
        self.client = FederationClient(options.domain, self._dial, self._entered)
        self.look_ups = LookUps(self.client, options.domain, self.is_peer, crypto, lambda: driver.now().at)
        self.traffic: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """By domain, what became of envelopes since the start: ``in_stored``, ``out_deferred`` and so on."""
        self.couriers: dict[str, Courier] = {}
        self.post_couriers: dict[str, PostCourier] = {}
        """One for each domain with which channels are shared."""
        self._posts_at_work: dict[str, asyncio.Task[None]] = {}
        self._vias: dict[bytes, str] = {}
        self._at_work: dict[str, asyncio.Task[None]] = {}
        self._connections: defaultdict[str, dict[quic.Connection, None]] = defaultdict(dict)  # oldest first
        self._rates: dict[str, TokenBucket] = {}
        self._serving: set[asyncio.Task[None]] = set()
        self._tell_refusal = RefusalLog(lambda: driver.now().at)
        self._watching: list[asyncio.Task[None]] = []
        self._greeting: asyncio.Task[None] | None = None

    # --- its life

    async def start(self, queue: Queue) -> None:
        """Open the port, and send what waits. Raises: LocalError, UnavailableError."""
        self._queue = queue
        listen = self.options.listen
        # The check asks for what is trusted at that moment, so it need not be made anew.
        self.listener = await quic.listen(
            (listen.ip, listen.port), self.options.loaded.credentials,
            {quic.FEDERATION_ALPN: quic.federated(lambda: self.options.loaded.trust)}, self._accepted,
            limit=CONNECTIONS_PER_DOMAIN * PEERS_MAX, distrusted=self._refused,
        )  # fmt: skip
        self._employ()
        await self._forget_interests()
        self._watching = [asyncio.create_task(work) for work in (self._sweep(), self._watch())]
        self._greeting = asyncio.create_task(self._greet())

    async def close(self) -> None:
        """Say goodbye, and let what is under way end; what waits stays in the store."""
        at_work = (*self._at_work.values(), *self._posts_at_work.values())
        tasks = [*self._watching, *at_work, *([self._greeting] if self._greeting else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.client.close()
        if hasattr(self, "listener"):
            await self.listener.close()
        if self._serving:
            await asyncio.wait(self._serving)

    async def reload(self, options: FederationOptions) -> None:
        """Follow a changed list of peers, changed addresses, authorities, credentials and rules, at once."""
        before = self.options
        self.options = options = replace(options, domain=before.domain, listen=before.listen)
        self.listener.renew(options.loaded.credentials)
        self._rates.clear()
        self._dismiss()
        self._employ()
        await self._forget_interests()
        for domain, address in before.peers.items():
            listed = domain in options.peers
            if listed and options.peers[domain] != address:
                await self.client.leave(domain, "its address has changed")
                self.contact(domain)
            if not listed or _authority(before, domain) != _authority(options, domain):
                self._found.pop(domain, None)
                self.look_ups.forget(domain)
                self.contact(domain)
        self._expel_distrusted()
        if self._greeting is not None:
            self._greeting.cancel()
        self._greeting = asyncio.create_task(self._greet())

    # --- what the rest of the server asks

    def is_peer(self, domain: str) -> bool:
        """Say whether the operator has listed a domain."""
        return domain in self.options.peers

    @property
    def domain(self) -> str:
        """Our own domain."""
        return self.options.domain

    def outgoing(self, parcels: Sequence[Parcel]) -> None:
        """There is something to send to other domains, which is in the outbox."""
        by_domain: defaultdict[str, list[Parcel]] = defaultdict(list)
        for parcel in parcels:
            by_domain[parcel.row.destination].append(parcel)
        for domain, its in by_domain.items():
            if domain in self.couriers:
                self.couriers[domain].news(its)

    def shares(self, domain: str) -> bool:
        """Say whether the operator shares channels with a domain."""
        return self.is_peer(domain) and domain in self.options.channels

    def posted(self, channels: Collection[ChannelId]) -> None:
        """Posts have come into these channels."""
        for courier in self.post_couriers.values():
            courier.posted(channels)

    def follows_changed(self) -> None:
        """Our users follow other channels than before."""
        for courier in self.post_couriers.values():
            courier.follows_changed()

    def contact(self, domain: str) -> None:
        """A domain may be reachable now."""
        if domain in self.couriers:
            self.couriers[domain].contact()
        if domain in self.post_couriers:
            self.post_couriers[domain].contact()

    async def poke(self, domain: str) -> int:
        """Offer everything for a domain again now, also what was set aside; return how many envelopes that are.

        Raises: LocalError, when it is no peer's.
        """
        if not self.is_peer(domain):
            raise LocalError(f"{domain[:60]!r} is not in [federation_peers]", code="not_found")
        now = self._driver.now().at
        await self._driver.call(lambda _: self.store.wake_outgoing(domain, now, set_aside=True))
        self.contact(domain)
        return self.store.outgoing_domains().get(domain, 0)

    def announced(self, domain: str, ip: str) -> None:
        """A server of a domain was heard of on the local network: a hint where it is, which its certificate must
        confirm, and never a new peer."""
        if not self.is_peer(domain) or domain == self.domain:
            return
        port = self.options.peers[domain].rpartition(":")[2] or str(FEDERATION_PORT)
        where = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
        if self._found.get(domain) != where:
            self._found[domain] = where
            self.contact(domain)

    def found(self, domain: str) -> str:
        """Return where a domain's server was announced on the local network, empty where it was not."""
        return self._found.get(domain, "")

    @property
    def address(self) -> Address:
        """Where it listens."""
        return Address(*self.listener.address)

    def now(self) -> Instant:
        """Return this moment on the life clock."""
        return self._driver.now().at

    async def rows(self, after: int, domain: str, limit: int) -> Sequence[Outgoing]:
        """Return rows of a domain's outbox behind a serial."""
        return await self._driver.read(lambda _: self.store.outgoing_rows(domain, after, limit))

    def connections(self, domain: str) -> int:
        """Return how many connections a domain has opened to us."""
        return len(self._connections.get(domain, ()))

    # --- what other servers ask (peer.Desk)

    async def deposit(self, origin: str, envelopes: list[bytes]) -> list[Outcome]:
        """Take envelopes for our users, when it is this domain's turn. They are never passed on to a third domain."""
        await self._turn(origin, len(envelopes))
        outcomes = await self._queue.deposit(
            via_domain(origin), envelopes, self.options.rules.share,
            lambda author, now: self.outbox.arrived(author, origin, now.at), channels=self.shares(origin),
        )  # fmt: skip
        for what, count in Counter(outcome.verdict.name.lower() for outcome in outcomes).items():
            self.traffic[origin][f"in_{what}"] += count
            if what == "stored":
                self._meter.count("taken_in", count)
        return outcomes

    async def take_interest(
        self, origin: str, added: frozenset[ChannelId], removed: frozenset[ChannelId], *, whole: bool
    ) -> bytes:
        self._check_shared(origin)
        await self._turn(origin, 1 + len(added) + len(removed))

        def work(_: object) -> tuple[bytes, AbstractSet[ChannelId]]:
            known = self.store.interests(origin).keys()
            gone = frozenset(known - added) if whole else removed - added
            if len((known - gone) | added) > INTERESTS_MAX:
                raise LocalError(f"a domain follows at most {INTERESTS_MAX} channels here", code="full")
            self.store.lose_interest(origin, gone)
            self.store.take_interest(origin, added)
            return interest_digest(self.store.interests(origin)), gone

        digest, gone = await self._driver.call(work)
        if origin in self.post_couriers:
            self.post_couriers[origin].interest_changed(gone)
        return digest

    async def lacking_posts(self, origin: str, ids: list[EnvelopeId]) -> Lacking:
        self._check_shared(origin)
        await self._turn(origin, 1)
        asks = via_domain(origin)
        return await self._driver.read(lambda _: self._house.channels.lacking(asks, ids, self._driver.now().at))

    def _check_shared(self, origin: str) -> None:
        if not self.shares(origin):
            raise LocalError(f"{self.domain} shares no channels with {origin}", code="policy")

    async def own_record(self, key: PeerKey) -> tuple[bytes, int]:
        return await self._house.own_record(key)

    async def own_name(self, name: str) -> PeerKey:
        return await self._house.own_name(name)

    async def _turn(self, origin: str, count: int) -> None:
        """Wait until a domain that sends more than its rate may go on; its own calls in flight bound what waits."""
        now, rate = self._driver.now().at, self.options.rules.rate
        bucket = self._rates.setdefault(origin, TokenBucket(max(rate * BURST_S, ENVELOPES_MAX), rate, now))
        while pause := bucket.wait_ms(self._driver.now().at, count):  # noqa: ASYNC110 - time is what it waits for
            await asyncio.sleep(pause / 1_000)
        bucket.take(self._driver.now().at, count)

    # --- connections

    async def _dial(self, domain: str) -> quic.Connection:
        """Open a connection to a domain: where the operator says, else where it was announced."""
        listed, found = self.options.peers.get(domain), self._found.get(domain)
        places = [place for place in (listed, found) if place]
        if not places:
            raise UnavailableError(f"where {domain} is reached is not known; give its address in [federation_peers]")
        check = quic.federated(lambda: self.options.loaded.trust, domain)
        for n, place in enumerate(places):
            host, _, port = place.rpartition(":")
            try:
                address, credentials = (host.strip("[]"), int(port)), self.options.loaded.credentials
                return await quic.connect(address, quic.FEDERATION_ALPN, credentials, check, CONNECT_S)
            except QuicprochatError:
                if n + 1 == len(places):
                    raise
        raise AssertionError("one place was tried at least")

    def _accepted(self, connection: quic.Connection) -> None:
        task = asyncio.create_task(self._serve(connection))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, connection: quic.Connection) -> None:
        origin = connection.peer.decode("ascii")
        mine = self._connections[origin]
        mine[connection] = None
        if len(mine) > CONNECTIONS_PER_DOMAIN:
            oldest = next(iter(mine))
            del mine[oldest]  # it takes a while to end, and the next one too many must not end it again
            oldest.end(TOO_MANY_CONNECTIONS, "this domain has connected too often")
        log.debug("%s has connected", origin)
        self.contact(origin)
        served = rpc.Served(IN_FLIGHT_MAX, lambda reason: self._too_much(connection, reason))
        try:
            await served.run(await connection.stream(STREAM_S), Entrance(self, origin, served))
        except QuicprochatError as error:
            log.debug("%s is gone: %s", origin, error)
        finally:
            connection.end(STOPPED, "goodbye")
            mine.pop(connection, None)
            if not mine and self._connections.get(origin) is mine:
                del self._connections[origin]

    def _too_much(self, connection: quic.Connection, reason: str) -> None:
        self._meter.count("refused.federation_calls")
        connection.end(TOO_MUCH, reason)

    def _refused(self, error: quic.UntrustedError) -> None:
        self._meter.count("refused.federation_certificate")
        self._tell_refusal(error)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(TRUST_S)
            self._expel_distrusted()

    def _expel_distrusted(self) -> None:
        """End the connections, both ways, of those whom we would not let in now."""
        # The listener knows of those too that were accepted a moment ago and are not served yet.
        end_distrusted(self.options.loaded.trust, (*self.listener.connections, *self.client.connections()))

    async def _entered(self, domain: str, epoch: bytes) -> None:
        """We are connected to a domain. A reload may have come between the handshake and now."""
        new = [one for one in self.client.connections() if one.peer == domain.encode("ascii")]
        end_distrusted(self.options.loaded.trust, new)
        if domain in self.couriers:
            self.couriers[domain].reached()
        forgot = await self.forgettings.entered(domain, epoch)
        if (courier := self.post_couriers.get(domain)) is not None:
            courier.entered()
            if forgot:
                await self._driver.call(lambda _: self._restart_interests(domain))
                courier.start_anew()

    def _restart_interests(self, domain: str) -> None:
        for channel in tuple(self.store.interests(domain)):
            self.store.come(domain, channel, 0)

    async def _forget_interests(self) -> None:
        """Whoever channels are shared with no more is owed none; what its users follow it tells anew some day."""
        strange = [domain for domain in self.store.interested() if not self.shares(domain)]

        def work(_: object) -> None:
            for domain in strange:
                self.store.lose_interest(domain, tuple(self.store.interests(domain)))

        if strange:
            await self._driver.call(work)

    async def _greet(self) -> None:
        """Tell every domain that we are here (again): what waits for us there is then sent at once."""
        room = asyncio.Semaphore(GREETINGS)

        async def greet(domain: str) -> None:
            async with room:
                try:
                    await self.client.reach(domain)
                except QuicprochatError as error:
                    log.info("%s cannot be reached yet: %s", domain, error)
                    if domain in self.couriers:
                        self.couriers[domain].unreached(error)

        async with asyncio.TaskGroup() as group:
            for domain, address in self.options.peers.items():
                if address and not self.client.connected(domain):
                    group.create_task(greet(domain))

    # --- couriers

    def _employ(self) -> None:
        for domain in self.options.peers:
            if domain not in self.couriers:
                courier = Courier(
                    domain, self._driver, self.outbox, self.client, self._meter, self._house.reported,
                    self.traffic[domain],
                )  # fmt: skip
                self.couriers[domain] = courier
                self._at_work[domain] = asyncio.create_task(self._work(courier))
        self._vias = {via_domain(domain): domain for domain in self.options.peers}
        for domain in filter(self.shares, self.options.peers):
            if domain not in self.post_couriers:
                posts = PostCourier(
                    domain, via_domain(domain), lambda via: via in self._vias, self._driver, self.store, self.client,
                    self.traffic[domain],
                )  # fmt: skip
                self.post_couriers[domain] = posts
                self._posts_at_work[domain] = asyncio.create_task(self._work(posts))

    def _dismiss(self) -> None:
        for domain in [domain for domain in self.post_couriers if not self.shares(domain)]:
            del self.post_couriers[domain]
            self._posts_at_work.pop(domain).cancel()
        for domain in self.couriers.keys() - self.options.peers.keys():
            del self.couriers[domain]
            self._at_work.pop(domain).cancel()

    async def _work(self, courier: Courier | PostCourier) -> None:
        while True:
            try:
                await courier.run()
            except StoreError:
                return  # the server is ending, and says why
            except QuicprochatError as error:
                log.debug("the courier for %s has stopped: %s", courier.domain, error)
                return
            except Exception as error:  # a root of tasks: one domain's trouble is not the server's
                log.error("the courier for %s met a fault of this program; please report it", courier.domain,
                          exc_info=error)  # fmt: skip
                await asyncio.sleep(FAULT_REST_S)

    async def _sweep(self) -> None:
        with suppress(QuicprochatError):  # the driver's end says why
            while True:
                while await self._driver.call(lambda _: self.outbox.sweep(SWEEP_BATCH)):
                    pass
                await asyncio.sleep(SWEEP_S)


def _authority(options: FederationOptions, domain: str) -> x509.Certificate:
    return options.loaded.trust.authority(domain)
