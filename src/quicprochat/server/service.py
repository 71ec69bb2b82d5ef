"""What a home server does for one key beyond its queue: say what it is, register, keep and find records and names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from quicprochat import __version__
from quicprochat.core.crypto import Crypto
from quicprochat.core.errors import LocalError
from quicprochat.core.federation import FederationStore
from quicprochat.core.ids import PeerKey
from quicprochat.core.users import UserStore
from quicprochat.p2p.driver import Driver
from quicprochat.server import directory
from quicprochat.server.federation.exchange import Exchange
from quicprochat.server.federation.reports import Reporter, Tell
from quicprochat.server.federation.routing import plain
from quicprochat.server.members import Members
from quicprochat.server.meter import Meter
from quicprochat.server.session import Info

T = TypeVar("T")


class HomeService:
    """The ``Service`` of all sessions; ``registered`` is told of a key that became a user, or got a name."""

    def __init__(
        self,
        driver: Driver,
        store: FederationStore,
        members: Members,
        crypto: Crypto,
        meter: Meter,
        domain: str,
        epoch: bytes,
        per_recipient: Callable[[], int],
        registered: Callable[[PeerKey], None],
        exchange: Exchange | None = None,
    ) -> None:
        self._driver = driver
        self._store = store
        self._members = members
        self._crypto = crypto
        self._meter = meter
        self._domain = domain
        self._epoch = epoch
        self._per_recipient = per_recipient
        self._registered = registered
        self._exchange = exchange

    async def within(self, work: Callable[[UserStore], T]) -> T:
        """Run work inside the next transaction, and return its result once that is durable."""
        return await self._driver.call(lambda _: work(self._store))

    async def look(self, work: Callable[[UserStore], T]) -> T:
        """Run work that only reads."""
        return await self._driver.read(lambda _: work(self._store))

    async def info(self, key: PeerKey) -> Info:
        admitted, user = await self.look(lambda tx: (self._members.local(tx, key), tx.user(key)))
        return Info(
            __version__, self._domain, self._told_epoch(), self._per_recipient(),
            self._members.rules.registration.value, admitted, user.name if user else "",
        )  # fmt: skip

    def refusal(self, key: PeerKey) -> tuple[str, str] | None:
        return self._members.refusal(key)

    async def publish(self, key: PeerKey, record: bytes, age_ms: int) -> None:
        read = directory.read_record(record, key, self._crypto)
        if await self.within(lambda tx: directory.publish(tx, read, age_ms, self._driver.now())):
            self._meter.count("published")

    async def find_record(self, key: PeerKey, domain: str = "") -> tuple[bytes, int]:
        if abroad := self._abroad(domain):
            return await abroad.look_ups.find_record(domain, key)
        return await self.look(lambda tx: directory.find_record(tx, key, self._driver.now(), self._crypto))

    async def find_name(self, name: str, domain: str = "") -> PeerKey:
        if abroad := self._abroad(domain):
            return await abroad.look_ups.find_name(domain, name)
        return await self.look(lambda tx: directory.find_name(tx, name))

    def _told_epoch(self) -> bytes:
        return self._exchange.forgettings.told_epoch if self._exchange is not None else self._epoch

    def _abroad(self, domain: str) -> Exchange | None:
        """Return who asks a domain that is not ours. Raises: LocalError where nobody can."""
        if not domain or plain(domain) == self._domain:
            return None
        if self._exchange is None:
            raise LocalError("this server exchanges no messages with other domains", code="policy")
        return self._exchange

    def reporter(self, key: PeerKey, tell: Tell) -> Reporter | None:
        return Reporter(self._driver, self._store, key, tell) if self._exchange is not None else None

    async def register(self, key: PeerKey, name: str, invite: str) -> str:
        try:
            kept = await self.within(lambda tx: self._members.register(tx, key, name, invite, self._driver.now()))
        except LocalError:
            self._meter.count("refused.registration")
            raise
        self._meter.count("registered")
        self._registered(key)
        return kept
