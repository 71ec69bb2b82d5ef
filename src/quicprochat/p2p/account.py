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
from quicprochat.core.homes import domain_name
from quicprochat.core.ids import PeerKey
from quicprochat.core.network import Network, host_is_local
from quicprochat.core.store import MeshStore
from quicprochat.core.time import Instant
from quicprochat.p2p.driver import Driver
from quicprochat.p2p.farewell import Farewells
from quicprochat.p2p.links import Links
from quicprochat.p2p.views import RouteView, ServerStanding

if TYPE_CHECKING:
    from quicprochat.p2p.home_link import HomeLink, Visit
    from quicprochat.p2p.last_visit import LastVisit

log = logging.getLogger("quicprochat.server")

SERVER_KEY = "server"
PIN_PREFIX = "server.pin."
DOMAIN_KEY = "server.domain"
"""Where we live: our server's domain, as it said when we were last connected."""
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
    """Owns the one :class:`HomeLink`. ``wanted`` says whom to look up; ``news`` is called when the standing changes.

    ``moved_home`` is called when :attr:`domain` has changed.
    """

    def __init__(
        self,
        seed: bytes,
        driver: Driver,
        links: Links,
        own_record: Callable[[], tuple[bytes, int]],
        wanted: Callable[[], Iterable[PeerKey]],
        news: Callable[[], None],
        moved_home: Callable[[], None],
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
        self._moved_home = moved_home
        self._jitter = jitter
        self._server = ""
        self._announced: bytes | None = None
        self._left = ""
        """The server that we go from, while another one is picked."""
        self.domain = ""
        """Where we live; kept while our server is away, and until another one that we chose has let us in."""
        self._changed = asyncio.Event()
        self._moved = asyncio.Event()
        self._link: HomeLink | None = None
        self._reachable: dict[PeerKey, tuple[Instant, int]] = {}
        """Since when, and over how many hops."""
        self._looking: asyncio.Task[None] | None = None
        self._farewells = Farewells(driver, self._make_last_visit)
        self._leaving: asyncio.Task[None] | None = None

    def load(self, tx: MeshStore, wanted: str) -> None:
        """Take up the server of this run: ``wanted``, or the one that was noted. Raises: LocalError.

        A noted one that is too far away in this run stays noted, and is not visited.
        """
        if wanted:
            permit_server(check_server(wanted), self._network)
        self._server = check_server(wanted) if wanted else (tx.value(SERVER_KEY) or b"").decode()
        self.domain = domain_name((tx.value(DOMAIN_KEY) or b"").decode()) if self._server else ""

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
        """Return the link to our server, or to one that we left, if that is its number."""
        return self._link if self._link is not None and self._link.id == id else self._farewells.link(id)

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
        views = []
        for key in others:
            since, hops = self._reachable[key]
            views.append(RouteView(key, server, metric, hops, (now - since) / 1_000, "server"))
        return views

    async def find(self, key: PeerKey, domain: str = "") -> bool:
        """Let the node learn a peer's record from the server of its domain, or from ours; say whether one has it.

        ``domain`` is where a person says that the peer lives, "" for what is known of that.
        """
        home = domain if domain != self.domain else ""
        for place in dict.fromkeys((home or await self._home_of(key), "")):
            try:
                if await self._ask(key, place):
                    return True
            except (QuicprochatError, TimeoutError) as error:
                log.debug("no record of %s: %s", key.hex()[:8], error)
        return False

    async def _home_of(self, key: PeerKey) -> str:
        home = await self._driver.read(lambda tx: tx.home(key))
        return home.domain if home is not None and home.domain != self.domain else ""

    async def _ask(self, key: PeerKey, domain: str) -> bool:
        """Raises: QuicprochatError, TimeoutError."""
        link = self._link
        if link is None or not link.connected or not await link.find_record(key, domain):
            return False
        hops = 3 if domain not in ("", link.domain) else 2
        self._reachable.setdefault(key, (self._driver.now().at, hops))
        return True

    # --- what a person decides

    async def use(self, server: str, *, trust: bytes | None = None) -> None:
        """Make ``host:port`` the home server, "" none; ``trust`` is the fingerprint to accept instead of a known one.

        Raises: LocalError when that is no server, or one that the network mode keeps us from.
        """
        server = check_server(server) if server else ""
        permit_server(server, self._network)

        def note(tx: MeshStore) -> None:
            self._choose(tx, self._server, server)
            if trust is not None:
                tx.set_value(PIN_PREFIX + server, trust)

        await self._driver.call(note)
        if server != self._server or trust is not None or self._announced is not None:
            self._turn_to(server)
            if not server:
                self._live_at("")
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
        self._left = before = self._server
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

    def _choose(self, tx: MeshStore, old: str, new: str) -> None:
        """Make the choice durable; the server that we leave is visited for a while, if we ever were there."""
        tx.set_value(SERVER_KEY, new.encode())
        known = old if tx.value(PIN_PREFIX + old) is not None else ""
        self._farewells.note(tx, known, new, self._driver.now().at)
        if not new:
            tx.set_value(DOMAIN_KEY, b"")

    def _turn_to(self, server: str, announced: bytes | None = None) -> None:
        self._server, self._announced, self._link = server, announced, None
        self._changed.set()

    async def find_name(self, name: str, domain: str) -> PeerKey:
        """Return whose name this is at a domain, by way of our server.

        Raises: QuicprochatError with the server's ``code``; UnavailableError, without one.
        """
        if not self._server:
            raise UnavailableError("there is no home server to ask; choose one: qpc server HOST:PORT")
        if self._link is None:
            raise UnavailableError("there is no connection to the home server; see: qpc server")
        try:
            return await self._link.find_name(name, domain)
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
            tasks = [task for task in (running, changed, self._looking, self._leaving) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._looking = self._leaving = self._link = None
            self._reachable.clear()
            self._tell()

    async def _make(self) -> HomeLink:
        from quicprochat.p2p.home_link import HomeLink

        visit = await self._plan(self._server)
        return HomeLink(visit, self._links, self._own_record, self._standing_changed, self._jitter)

    async def _make_last_visit(self, server: str) -> LastVisit:
        from quicprochat.p2p.last_visit import LastVisit

        return LastVisit(await self._plan(server), self._links, self._own_record, lambda: None, self._jitter)

    async def _plan(self, server: str) -> Visit:
        from quicprochat.adapters import quic
        from quicprochat.p2p.home_link import Visit

        announced, left = self._announced if server == self._server else None, self._left
        pin = await self.pin(server)

        async def keep_pin(fingerprint: bytes) -> None:
            def note(tx: MeshStore) -> None:
                tx.set_value(PIN_PREFIX + server, fingerprint)
                if announced is not None:
                    self._choose(tx, left, server)

            log.warning("first visit to %s: its fingerprint is %s", server, fingerprint.hex())
            await self._driver.call(note)

        credentials = quic.Credentials(*quic.self_signed(self._seed, "quicprochat", 1))
        return Visit(
            *split_server(server), credentials, pin, keep_pin, announced, lambda: permit_server(server, self._network)
        )

    def _standing_changed(self) -> None:
        if self.connected and self._link is not None:
            self._live_at(self._link.domain)
            if self._looking is not None:
                self._looking.cancel()
            self._looking = asyncio.create_task(self._settle_in())
            if self._leaving is None or self._leaving.done():
                self._leaving = asyncio.create_task(self._farewells.run())
        self._tell()

    def _live_at(self, domain: str) -> None:
        """Our home is at this domain from now on; everybody hears of it by our record and our messages."""
        if domain != self.domain:
            self.domain = domain
            self._moved_home()

    def _tell(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()
        self._news()

    async def _settle_in(self) -> None:
        """Note where we live, and look contacts up: those of other domains last, and of what is away nobody more."""
        domain = self.domain.encode()
        try:
            await self._driver.call(lambda tx: tx.set_value(DOMAIN_KEY, domain))
            homes = [(await self._home_of(key), key) for key in list(self._wanted())[:LOOKUPS_MAX]]
        except QuicprochatError:
            return  # the driver's end says why
        away: set[str] = set()
        for home, key in sorted(homes, key=lambda pair: bool(pair[0])):
            try:
                if home not in away:
                    await self._ask(key, home)
            except (QuicprochatError, TimeoutError) as error:
                log.debug("no record of %s: %s", key.hex()[:8], error)
                away.add(home)
        self._news()
