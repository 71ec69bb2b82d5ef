"""HomeServer: owns a home, listens, and serves each client that proved its key."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

from quicprochat.adapters import quic, rpc
from quicprochat.adapters.crypto import Ed25519Signer, SodiumCrypto
from quicprochat.adapters.home import Home
from quicprochat.adapters.sqlite import ServerStore
from quicprochat.adapters.sqlite.ballast import BALLAST_BYTES
from quicprochat.adapters.system import SystemClock, entropy
from quicprochat.core.address import Address
from quicprochat.core.errors import QuicprochatError, StoreError
from quicprochat.core.federation import Parcel
from quicprochat.core.gate import Limits, Policy
from quicprochat.core.ids import ChannelId, PeerKey
from quicprochat.core.record import reread_verified
from quicprochat.core.store import MeshStore
from quicprochat.core.time import Now
from quicprochat.p2p.driver import CLOCK_KEY
from quicprochat.server.channels import FOLLOW_MS, ChannelRules, Channels
from quicprochat.server.federation.exchange import Exchange
from quicprochat.server.federation.rules import FederationOptions
from quicprochat.server.members import IDLE_MS, Members, Rules
from quicprochat.server.meter import Meter
from quicprochat.server.posting import PostDesk
from quicprochat.server.queue import Queue
from quicprochat.server.relaying import RelayOptions, ServerRelay
from quicprochat.server.service import HomeService
from quicprochat.server.session import Client, Entrance
from quicprochat.server.turns import ServerDriver
from quicprochat.server.upkeep import Upkeep

log = logging.getLogger("quicprochat.server")

ALPN = "capnp"
DATABASE = "server.db"
SEED_KEY = "server.seed"
EPOCH_KEY = "server.epoch"
EPOCH_BYTES = 16
STREAM_S = 10.0
"""How long a client that proved its key may take to say its first word."""
CALLS_MAX = 128
"""Calls of one connection in flight; a client is told, and one more ends its connection."""
STRANGER_S = 60.0
"""How long a key that is no user may be connected: to read why, or to bring an invite, and not to take up room."""
CONNECTIONS_PER_KEY = 16
"""One more ends the oldest: a device that roams leaves connections behind that end only when they are idle."""
DISK_CHECK_S = 5.0
TOO_MUCH = 0x12
STOPPED = 0x13
TOO_MANY_CONNECTIONS = 0x14
REMOVED = 0x15


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What an operator decides. ``home``, ``listen``, ``domain`` and ``connections`` stay while the server runs."""

    home: Path
    listen: Address
    domain: str = ""
    limits: Limits = field(default_factory=lambda: Limits(carried_bytes=4 << 30, share=0.05))
    connections: int = 10_000
    disk_reserve_bytes: int = 256 << 20
    rules: Rules = field(default_factory=Rules)
    federation: FederationOptions | None = None
    relay: RelayOptions | None = None
    channels: ChannelRules = field(default_factory=ChannelRules)


class HomeServer:
    """Use as ``async with HomeServer(options) as server: await server.failed()``, inside ``rpc.running()``.

    Raises: LocalError, UnavailableError on entering; StoreError ends it, see :meth:`failed`.
    """

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self.home = Home(options.home)
        self.disk_low = False
        self.exchange: Exchange | None = None
        self.relay: ServerRelay | None = None
        self._clients: defaultdict[PeerKey, dict[Client, quic.Connection]] = defaultdict(dict)  # oldest first
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None]

    async def __aenter__(self) -> HomeServer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Take the home, open the queue and the port."""
        self.home.own()
        try:
            self.store = ServerStore.open(self.home.path / DATABASE)
        except BaseException:
            self.home.disown()
            raise
        self._failed = asyncio.get_running_loop().create_future()
        clock = SystemClock(self.store.value(CLOCK_KEY))
        self.members = Members(self.options.rules)
        self.channels = Channels(self.store, self.options.channels)
        upkeep = Upkeep(self._forget_idle, IDLE_MS, self._look_after_channels)
        self.driver = ServerDriver(upkeep, self.store, clock)
        self.meter = Meter(lambda: self.driver.now().at)
        self._started = asyncio.get_running_loop().time()
        crypto = SodiumCrypto(entropy)
        try:
            self._look_at_disk(at_start=True)
            await self.driver.start()
            self._running = asyncio.create_task(self.driver.run())
            self._running.add_done_callback(self._stopped)
            seed, self.epoch = await self.driver.call(_keys)
            self._policy = Policy(Ed25519Signer(seed).key)
            self._set_policy()
            if self.options.federation is not None:
                self.exchange = Exchange(
                    self.options.federation, self, self.driver, self.store, self.meter, crypto, self.epoch
                )  # fmt: skip
            self._queue = Queue(
                self.driver, lambda: self._policy, crypto, self.is_user, self._arrived, self.meter,
                self.exchange.outbox if self.exchange is not None else None, self._outgoing, self.channels,
            )  # fmt: skip
            self.desk = PostDesk(self.driver, self.store, self.channels, self._follows_changed)
            self.channels.hear = self._posted
            self.service = HomeService(
                self.driver, self.store, self.members, crypto, self.meter, self.options.domain, self.epoch,
                lambda: self.options.limits.per_recipient, self._registered, self.exchange,
            )  # fmt: skip
            credentials = quic.Credentials(*quic.self_signed(seed, "quicprochat home server", 1))
            self.fingerprint = quic.fingerprint(credentials.certificate)
            listen = self.options.listen
            self.listener = await quic.listen(
                (listen.ip, listen.port), credentials, {ALPN: quic.key_holder}, self._accepted,
                limit=self.options.connections,
            )  # fmt: skip
            if self.exchange is not None:
                await self.exchange.start(self._queue)
            if self.options.relay is not None:
                self.relay = ServerRelay(self.options.relay, self._may_relay, lambda key: key in self._policy.blocked)
                await self.relay.start()
            self._watching = asyncio.create_task(self._watch_disk())
        except BaseException:
            await self._close_ports()
            await self._end_driver()
            raise

    @property
    def address(self) -> Address:
        """Where it listens."""
        return Address(*self.listener.address)

    @property
    def uptime_s(self) -> int:
        """How long it has run; not by the life clock, which may leap over an outage long after the start."""
        return int(asyncio.get_running_loop().time() - self._started)

    @property
    def sessions(self) -> frozenset[PeerKey]:
        """The keys that are connected."""
        return frozenset(self._clients)

    async def failed(self) -> None:
        """Wait until the server stops. Raises: StoreError, if the store made it stop."""
        await asyncio.shield(self._failed)

    async def reload(self, options: ServerOptions) -> None:
        """Follow changed limits and rules; whoever is no user by the new rules is one no more from now on."""
        self.options = replace(
            self.options, limits=options.limits, disk_reserve_bytes=options.disk_reserve_bytes, rules=options.rules,
            channels=options.channels,
        )  # fmt: skip
        self.channels.rules = options.channels
        self.members.rules = options.rules
        self._set_policy()
        if self.exchange is not None and options.federation is not None:
            await self.exchange.reload(options.federation)
        if self.relay is not None and options.relay is not None:
            await self.relay.follow(options.relay)
        connected = tuple(self._clients)
        users = await self.service.within(lambda tx: {key for key in connected if self.members.local(tx, key)})
        for key in connected:
            self._admit(key, key in users)
            if key not in users and self.members.refusal(key) is not None:
                self._expel(key)

    async def remove(self, key: PeerKey) -> int:
        """Forget a user, and end its connections; return how many envelopes went with it. Raises: LocalError."""
        gone = await self.service.within(lambda tx: self.members.remove(tx, key))
        self._expel(key)
        return gone

    async def close(self) -> None:
        """Say goodbye to every client, finish what is under way, and let go of the home."""
        self._watching.cancel()
        await self._close_ports()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._queue.close()
        await self._end_driver()

    async def _close_ports(self) -> None:
        if self.relay is not None:
            await self.relay.close()
        if self.exchange is not None:
            await self.exchange.close()
        if hasattr(self, "listener"):
            await self.listener.close()

    async def _end_driver(self) -> None:
        self.driver.finish()
        if hasattr(self, "_running"):
            await asyncio.wait([self._running])
        self.driver.close()
        self.home.disown()

    def _stopped(self, running: asyncio.Task[None]) -> None:
        if self._failed.done():
            return
        if not running.cancelled() and (error := running.exception()) is not None:
            self._failed.set_exception(error)
            self._failed.exception()
        else:
            self._failed.set_result(None)

    def _set_policy(self) -> None:
        options = self.options
        self._policy = Policy(
            self._policy.me, limits=options.limits, disk_low=self.disk_low, blocked=options.rules.blocked, keeps=True
        )

    def _forget_idle(self, now: Now, limit: int) -> int:
        return self.members.forget_idle(self.store, now, self._clients, limit)

    def _look_after_channels(self, now: Now, there_ms: int, limit: int) -> bool:
        idle = self.channels.forget_idle(now, self._clients, limit if there_ms >= FOLLOW_MS else 0)
        return limit in (idle, self.channels.sweep(limit))

    async def _may_relay(self, key: PeerKey) -> bool:
        return await self.service.look(lambda tx: self.members.local(tx, key))

    # --- the disk

    def _look_at_disk(self, *, at_start: bool = False) -> bool:
        """Note whether the disk is almost full; return whether that changed."""
        low = self.store.disk_low(self.options.disk_reserve_bytes)
        if low and at_start and self.store.disk_low(BALLAST_BYTES) and (freed := self.store.make_room()):
            log.warning("%d bytes of reserve are given up, so that messages can leave", freed)
        changed, self.disk_low = low != self.disk_low, low
        if changed:
            log.warning("the disk is %s", "almost full: no new messages are taken" if low else "roomy again")
        return changed

    async def _watch_disk(self) -> None:
        with suppress(QuicprochatError):  # the driver's end says why
            while True:
                await asyncio.sleep(DISK_CHECK_S)
                if self._look_at_disk():
                    self._set_policy()
                if self.disk_low and self.store.disk_low(BALLAST_BYTES):
                    await self.driver.aside(lambda _: self.store.make_room())

    # --- other domains (federation.exchange.House)

    def is_user(self, key: PeerKey) -> bool:
        """Say whether a key may be written to here."""
        return self.members.local(self.store, key)

    def home_of(self, key: PeerKey) -> str:
        """Return the home domain in the newest record of a key, or empty."""
        record = self.store.record(key)
        return reread_verified(record).domain if record is not None else ""

    async def own_record(self, key: PeerKey) -> tuple[bytes, int]:
        """Return the record that a user has published here."""
        return await self.service.find_record(key)

    async def own_name(self, name: str) -> PeerKey:
        """Return whose name this is here. Raises: LocalError."""
        return await self.service.find_name(name)

    def reported(self, authors: Iterable[PeerKey]) -> None:
        """Tell the devices of these authors what other domains answered."""
        for key in authors:
            for client in self._clients.get(key, ()):
                if client.reporter is not None:
                    client.reporter.news()

    def _outgoing(self, parcels: Sequence[Parcel]) -> None:
        if self.exchange is not None:
            self.exchange.outgoing(parcels)

    # --- channels

    def _posted(self, channels: Collection[ChannelId]) -> None:
        self.desk.posted(channels)
        if self.exchange is not None:
            self.exchange.posted(channels)

    def _follows_changed(self) -> None:
        if self.exchange is not None:
            self.exchange.follows_changed()

    # --- clients

    def _arrived(self, recipients: Iterable[PeerKey]) -> None:
        for key in recipients:
            for client in self._clients.get(key, ()):
                if client.pusher is not None:
                    client.pusher.news()

    def _registered(self, key: PeerKey) -> None:
        self._admit(key, True)

    def _admit(self, key: PeerKey, admitted: bool) -> None:
        for client in self._clients.get(key, ()):
            client.admitted = admitted

    def _expel(self, key: PeerKey) -> None:
        for connection in self._clients.get(key, {}).values():
            connection.end(REMOVED, "this key is no user of the server any more")

    def _accepted(self, connection: quic.Connection) -> None:
        task = asyncio.create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: quic.Connection) -> None:
        key = PeerKey(connection.peer)
        served = rpc.Served(CALLS_MAX, lambda reason: self._too_much(connection, reason))
        client = Client(key, self._queue, self.service, served, self.desk)
        client.failed = lambda error: self._push_failed(connection, error)
        self._clients[key][client] = connection
        if len(self._clients[key]) > CONNECTIONS_PER_KEY:
            next(iter(self._clients[key].values())).end(TOO_MANY_CONNECTIONS, "this key has connected too often")
        log.debug("%s has connected", key.hex()[:16])
        patience: asyncio.TimerHandle | None = None
        try:
            client.admitted = await self.service.within(lambda tx: self.members.welcome(tx, key, self.driver.now()))
            if not client.admitted:
                if self.members.refusal(key) is not None:
                    self.meter.count("refused.registration")
                patience = asyncio.get_running_loop().call_later(STRANGER_S, self._end_stranger, client, connection)
            await served.run(await connection.stream(STREAM_S), Entrance(client))
        except QuicprochatError as error:
            log.debug("%s is gone: %s", key.hex()[:16], error)
        finally:
            connection.end(STOPPED, "goodbye")
            client.close()
            if patience is not None:
                patience.cancel()
            del self._clients[key][client]
            if not self._clients[key]:
                del self._clients[key]
        with suppress(QuicprochatError):
            await self.service.within(lambda tx: self.members.leave(tx, key, self.driver.now()))

    def _end_stranger(self, client: Client, connection: quic.Connection) -> None:
        if not client.admitted and not connection.over:
            connection.end(REMOVED, "this key is no user of the server")

    def _too_much(self, connection: quic.Connection, reason: str) -> None:
        self.meter.count("refused.calls")
        connection.end(TOO_MUCH, reason)

    def _push_failed(self, connection: quic.Connection, error: BaseException) -> None:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if not isinstance(error, QuicprochatError) or isinstance(error, StoreError):
            log.error("pushing ended by a fault of this program; please report it", exc_info=error)
        connection.end(STOPPED, "what was pushed was not answered")


def _keys(tx: MeshStore) -> tuple[bytes, bytes]:
    """Return the server's seed and epoch, made where there is none: on the first start, and after a restored backup,
    which has no epoch, so that clients notice and offer again what the server may have forgotten."""
    seed, epoch = tx.value(SEED_KEY), tx.value(EPOCH_KEY)
    if seed is None:
        seed = entropy(32)
        tx.set_value(SEED_KEY, seed)
    if epoch is None:
        epoch = entropy(EPOCH_BYTES)
        tx.set_value(EPOCH_KEY, epoch)
    return seed, epoch
