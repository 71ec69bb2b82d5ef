"""The home server of this node: which one, how we stand with it, and who can be reached through it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from quicprochat.adapters.interfaces import interfaces
from quicprochat.core.address import check_server, split_server
from quicprochat.core.errors import LocalError, QuicprochatError, UnavailableError
from quicprochat.core.events import LinkId
from quicprochat.core.ids import PeerKey
from quicprochat.core.network import Network, host_is_local
from quicprochat.core.store import MeshStore
from quicprochat.core.time import Instant
from quicprochat.p2p.driver import Driver
from quicprochat.p2p.links import Links
from quicprochat.p2p.views import RouteView, ServerStanding

if TYPE_CHECKING:
    from quicprochat.p2p.home_link import HomeLink

log = logging.getLogger("quicprochat.server")

SERVER_KEY = "server"
PIN_PREFIX = "server.pin."
LOOKUPS_MAX = 256
"""Contacts that are looked up when a connection begins; others when something is written to them."""


def permit_server(server: str, network: Network) -> None:
    """Refuse a server that is farther away than the owner lets the node reach; a name is, for it takes DNS.

    Raises: LocalError with code ``policy``: the same words are right in another mode, and nobody was tried.
    """
    if network is Network.LAN and server and not host_is_local(split_server(server)[0], interfaces()):
        raise LocalError(
            f"the server {server} is not an address in a local network, and the network mode is lan; "
            "use: --network community",
            code="policy",
        )


class Account:
    """Owns the one :class:`HomeLink`. ``wanted`` says whom to look up; ``news`` is called when the standing changes."""

    def __init__(
        self,
        seed: bytes,
        driver: Driver,
        links: Links,
        own_record: Callable[[], tuple[bytes, int]],
        wanted: Callable[[], Iterable[PeerKey]],
        news: Callable[[], None],
        jitter: Callable[[], float],
        network: Network = Network.COMMUNITY,
    ) -> None:
        self._seed = seed
        self._network = network
        self._driver = driver
        self._links = links
        self._own_record = own_record
        self._wanted = wanted
        self._news = news
        self._jitter = jitter
        self._server = ""
        self._announced: bytes | None = None
        self._changed = asyncio.Event()
        self._moved = asyncio.Event()
        self._link: HomeLink | None = None
        self._reachable: dict[PeerKey, Instant] = {}
        self._looking: asyncio.Task[None] | None = None

    def load(self, tx: MeshStore, wanted: str) -> None:
        """Take up the server of this run: ``wanted``, or the one that was noted. Raises: LocalError.

        A noted one that is too far away in this run stays noted, and is not visited.
        """
        if wanted:
            permit_server(check_server(wanted), self._network)
        self._server = check_server(wanted) if wanted else (tx.value(SERVER_KEY) or b"").decode()

    # --- what others ask

    @property
    def server(self) -> str:
        """The server's host:port, "" for none."""
        return self._server

    @property
    def connected(self) -> bool:
        """True while the server takes and brings envelopes."""
        return self._link is not None and self._link.connected

    def link(self, id: LinkId) -> HomeLink | None:
        """Return the link to the server if that is its number."""
        return self._link if self._link is not None and self._link.id == id else None

    async def settled(self) -> ServerStanding:
        """Wait until the server was reached, or could not be; return how we stand then."""
        while (now := self.standing()).standing == "connecting" or (self._server and self._link is None):
            await self._moved.wait()
        return now

    def standing(self) -> ServerStanding:
        """Return how we stand with the server."""
        link = self._link
        if link is None:
            return ServerStanding(self._server, "none", "", "", None)
        digits = link.fingerprint.hex() if link.fingerprint else ""
        return ServerStanding(self._server, link.standing.value, digits, link.domain, link.trouble)

    def routes(self, linked: Iterable[PeerKey]) -> list[RouteView]:
        """Return whom the server reaches for us, those left out who are linked directly."""
        link = self._link
        if link is None or not link.connected or link.fingerprint is None:
            return []
        now, server = self._driver.now().at, PeerKey(link.fingerprint)
        others = sorted(self._reachable.keys() - set(linked))
        metric = max(1, round(2 * link.rtt_ms))
        return [RouteView(key, server, metric, 2, (now - self._reachable[key]) / 1_000, "server") for key in others]

    async def find(self, key: PeerKey) -> bool:
        """Let the node learn a peer's record from the server, if that has one; say whether it does."""
        link = self._link
        if link is None or not link.connected:
            return False
        try:
            found = await link.find_record(key)
        except (QuicprochatError, TimeoutError) as error:
            log.debug("no record of %s: %s", key.hex()[:8], error)
            return False
        if found:
            self._reachable.setdefault(key, self._driver.now().at)
        return found

    # --- what a person decides

    async def use(self, server: str, *, trust: bytes | None = None) -> None:
        """Make ``host:port`` the home server, "" none; ``trust`` is the fingerprint to accept instead of a known one.

        Raises: LocalError when that is no server, or one that the network mode keeps us from.
        """
        server = check_server(server) if server else ""
        permit_server(server, self._network)

        def note(tx: MeshStore) -> None:
            tx.set_value(SERVER_KEY, server.encode())
            if trust is not None:
                tx.set_value(PIN_PREFIX + server, trust)

        await self._driver.call(note)
        if server != self._server or trust is not None or self._announced is not None:
            self._turn_to(server)
        elif self._link is not None:
            self._link.hurry()

    async def pin(self, server: str) -> bytes | None:
        """Return the fingerprint under which a server is known here."""
        return await self._driver.read(lambda tx: tx.value(PIN_PREFIX + server))

    async def pick(self, server: str, fingerprint: bytes) -> None:
        """Make an announced server the home server, if who answers there has the fingerprint that a person confirmed.

        Nothing is remembered of it otherwise, and the server from before is home again: an announcement is anybody's
        word, also on the address of a server that is somebody else's.
        Raises: UntrustedError, UnavailableError, LocalError when the network mode keeps us from it.
        """
        permit_server(server, self._network)
        before = self._server
        self._turn_to(server, fingerprint)
        link: HomeLink | None = None
        try:
            await self.settled()
            link = self._link if self._announced is fingerprint else None
        finally:
            if self._announced is fingerprint:
                self._announced = None
                if link is None or link.fingerprint is None:
                    self._turn_to(before)
        if link is None:
            raise UnavailableError("another home server was chosen meanwhile")
        if link.fingerprint is None:
            raise link.trouble or UnavailableError(f"{server} could not be reached; nothing is remembered of it")

    def _turn_to(self, server: str, announced: bytes | None = None) -> None:
        self._server, self._announced, self._link = server, announced, None
        self._changed.set()

    async def find_name(self, name: str) -> PeerKey:
        """Return whose name this is at the server. Raises: LocalError with the server's code; UnavailableError."""
        if self._link is None:
            raise UnavailableError("there is no connection to the home server; see: qpc server")
        try:
            return await self._link.find_name(name)
        except TimeoutError:
            raise UnavailableError("the home server did not answer in time") from None

    async def register(self, name: str, invite: str) -> tuple[str, str]:
        """Become a user of the server, or bind a name to our key there; return the name and the domain.

        Raises: LocalError, with the server's reason; UnavailableError.
        """
        if self._link is None:
            raise LocalError("there is no home server; choose one: qpc server HOST:PORT", code="not_found")
        try:
            return await self._link.register(name, invite)
        except TimeoutError:
            raise UnavailableError("the home server did not answer in time") from None

    def hurry(self) -> None:
        """Try again at once: the network has changed."""
        if self._link is not None:
            self._link.hurry()

    # --- life

    async def run(self) -> None:
        """Stay connected to whichever server is chosen, until cancelled. Raises: StoreError."""
        while not self._server:
            await self._wait_for_change()
        from quicprochat.adapters import rpc  # Cap'n Proto and QUIC: a fifth of a second that most calls do without

        async with rpc.running():
            while True:
                self._changed.clear()
                await self._stay()

    async def _wait_for_change(self) -> None:
        await self._changed.wait()
        self._changed.clear()

    async def _stay(self) -> None:
        """Run the link to the chosen server until another is chosen."""
        if not self._server:
            await self._wait_for_change()
            return
        self._link = await self._make()
        running = asyncio.create_task(self._link.run())
        changed = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait((running, changed), return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
        finally:
            tasks = [task for task in (running, changed, self._looking) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._looking = self._link = None
            self._reachable.clear()
            self._tell()

    async def _make(self) -> HomeLink:
        from quicprochat.adapters import quic
        from quicprochat.p2p.home_link import HomeLink, Visit

        server, announced = self._server, self._announced
        pin = await self.pin(server)

        async def keep_pin(fingerprint: bytes) -> None:
            def note(tx: MeshStore) -> None:
                tx.set_value(PIN_PREFIX + server, fingerprint)
                if announced is not None:
                    tx.set_value(SERVER_KEY, server.encode())

            log.warning("first visit to %s: its fingerprint is %s", server, fingerprint.hex())
            await self._driver.call(note)

        credentials = quic.Credentials(*quic.self_signed(self._seed, "quicprochat", 1))
        visit = Visit(
            *split_server(server), credentials, pin, keep_pin, announced, lambda: permit_server(server, self._network)
        )
        return HomeLink(visit, self._links, self._own_record, self._standing_changed, self._jitter)

    def _standing_changed(self) -> None:
        if self.connected and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._look_up())
        self._tell()

    def _tell(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()
        self._news()

    async def _look_up(self) -> None:
        for key in list(self._wanted())[:LOOKUPS_MAX]:
            await self.find(key)
        self._news()
