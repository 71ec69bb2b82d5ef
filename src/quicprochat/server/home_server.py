"""HomeServer: owns a home, listens, and serves each client that proved its key."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from quicprochat import __version__
from quicprochat.adapters import quic, rpc
from quicprochat.adapters.crypto import Ed25519Signer, SodiumCrypto
from quicprochat.adapters.home import Home
from quicprochat.adapters.sqlite.ballast import BALLAST_BYTES
from quicprochat.adapters.sqlite.store import SqliteStore
from quicprochat.adapters.system import SystemClock, entropy
from quicprochat.core.address import Address
from quicprochat.core.errors import QuicprochatError, StoreError
from quicprochat.core.gate import Limits, Policy
from quicprochat.core.ids import PeerKey
from quicprochat.core.store import MeshStore
from quicprochat.p2p.driver import CLOCK_KEY, Driver
from quicprochat.server.queue import Queue
from quicprochat.server.session import Client, Entrance, Info
from quicprochat.server.upkeep import Upkeep

log = logging.getLogger("quicprochat.server")

ALPN = "capnp"
SEED_KEY = "server.seed"
EPOCH_KEY = "server.epoch"
USER_PREFIX = "user."
EPOCH_BYTES = 16
STREAM_S = 10.0
"""How long a client that proved its key may take to say its first word."""
CALLS_MAX = 128
"""Calls of one connection in flight; a client is told, and one more ends its connection."""
TOO_MUCH = 0x12
STOPPED = 0x13


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What an operator decides."""

    home: Path
    listen: Address
    domain: str = ""
    limits: Limits = field(default_factory=lambda: Limits(carried_bytes=4 << 30, share=0.05))
    connections: int = 10_000
    disk_reserve_bytes: int = 256 << 20


class HomeServer:
    """Use as ``async with HomeServer(options) as server: await server.failed()``, inside ``rpc.running()``.

    Raises: LocalError, UnavailableError on entering; StoreError ends it, see :meth:`failed`.
    """

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._home = Home(options.home)
        self._clients: defaultdict[PeerKey, set[Client]] = defaultdict(set)
        self._users: set[PeerKey] = set()  # those of the database that were asked for in this run
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
        self._home.own()
        try:
            self._store = SqliteStore.open(self._home.path / "server.db")
        except BaseException:
            self._home.disown()
            raise
        self._failed = asyncio.get_running_loop().create_future()
        clock = SystemClock(self._store.value(CLOCK_KEY))
        self._driver = Driver(Upkeep(), self._store, clock, lambda _: None)
        crypto = SodiumCrypto(entropy)
        try:
            await self._driver.start()
            self._running = asyncio.create_task(self._driver.run())
            self._running.add_done_callback(self._stopped)
            seed, self.epoch = await self._driver.call(_keys)
            self._signer = Ed25519Signer(seed)
            self._policy = Policy(self._signer.key, limits=self._options.limits, disk_low=self._disk_low())
            self._queue = Queue(self._driver, lambda: self._policy, crypto, self._is_local, self._arrived)
            credentials = quic.Credentials(*quic.self_signed(seed, "quicprochat home server", 1))
            self.fingerprint = quic.fingerprint(credentials.certificate)
            listen = self._options.listen
            self._listener = await quic.listen(
                (listen.ip, listen.port), credentials, {ALPN: quic.key_holder}, self._accepted,
                limit=self._options.connections,
            )  # fmt: skip
        except BaseException:
            await self._end_driver()
            raise

    @property
    def address(self) -> Address:
        """Where it listens."""
        return Address(*self._listener.address)

    async def failed(self) -> None:
        """Wait until the server stops. Raises: StoreError, if the store made it stop."""
        await asyncio.shield(self._failed)

    async def close(self) -> None:
        """Say goodbye to every client, finish what is under way, and let go of the home."""
        await self._listener.close()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._queue.close()
        await self._end_driver()

    async def _end_driver(self) -> None:
        self._driver.finish()
        if hasattr(self, "_running"):
            await asyncio.wait([self._running])
        self._driver.close()
        self._home.disown()

    def _stopped(self, running: asyncio.Task[None]) -> None:
        if self._failed.done():
            return
        if not running.cancelled() and (error := running.exception()) is not None:
            self._failed.set_exception(error)
            self._failed.exception()
        else:
            self._failed.set_result(None)

    def _disk_low(self) -> bool:
        low = self._store.disk_low(self._options.disk_reserve_bytes)
        if low and self._store.disk_low(BALLAST_BYTES):
            self._store.make_room()
        return low

    # --- clients

    def _is_local(self, tx: MeshStore, key: PeerKey) -> bool:
        if key not in self._users and tx.value(USER_PREFIX + key.hex()) is not None:
            self._users.add(key)
        return key in self._users

    def _arrived(self, recipients: Iterable[PeerKey]) -> None:
        for key in recipients:
            for client in self._clients.get(key, ()):
                if client.pusher is not None:
                    client.pusher.news()

    def _accepted(self, connection: quic.Connection) -> None:
        task = asyncio.create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: quic.Connection) -> None:
        key = PeerKey(connection.peer)
        served = rpc.Served(CALLS_MAX, lambda reason: connection.end(TOO_MUCH, reason))
        info = Info(__version__, self._options.domain, self.epoch, self._options.limits.per_recipient)
        client = Client(key, self._queue, info, served)
        client.failed = lambda error: self._push_failed(connection, error)
        self._clients[key].add(client)
        try:
            await self._welcome(key)
            await served.run(await connection.stream(STREAM_S), Entrance(client))
        except QuicprochatError as error:
            log.debug("a client is gone: %s", error)
        finally:
            connection.end(STOPPED, "goodbye")
            client.close()
            self._clients[key].discard(client)
            if not self._clients[key]:
                del self._clients[key]

    async def _welcome(self, key: PeerKey) -> None:
        """Connecting makes a key a local user: from now on it can be written to here."""

        def enter(tx: MeshStore) -> None:
            if not self._is_local(tx, key):
                tx.set_value(USER_PREFIX + key.hex(), b"1")

        await self._driver.call(enter)
        self._users.add(key)

    def _push_failed(self, connection: quic.Connection, error: BaseException) -> None:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if not isinstance(error, QuicprochatError) or isinstance(error, StoreError):
            log.error("pushing ended by a fault of this program; please report it", exc_info=error)
        connection.end(STOPPED, "what was pushed was not answered")


def _keys(tx: MeshStore) -> tuple[bytes, bytes]:
    """Return the server's seed and epoch, made on the first start."""
    seed, epoch = tx.value(SEED_KEY), tx.value(EPOCH_KEY)
    if seed is None or epoch is None:
        seed, epoch = entropy(32), entropy(EPOCH_BYTES)
        tx.set_value(SEED_KEY, seed)
        tx.set_value(EPOCH_KEY, epoch)
    return seed, epoch
