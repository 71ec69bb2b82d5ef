"""Finding peers on the local network: announce, listen, and dial who was found; addresses are hints, never trust.

mDNS says what anybody on the link wants it to say. So nothing of it is believed: a peer is who proves its key in the
handshake. And nothing of it makes us send packets where they have no business: only addresses on a link of our own
are dialled, a few for each peer, a few dials a second.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from quicprochat.adapters.interfaces import interfaces
from quicprochat.adapters.mdns import Mdns
from quicprochat.core.address import Address
from quicprochat.core.announcement import Announcement, Found, Role
from quicprochat.core.bucket import TokenBucket
from quicprochat.core.errors import QuicprochatError, UnavailableError
from quicprochat.core.ids import PeerKey
from quicprochat.core.network import Interface
from quicprochat.core.reach import Source
from quicprochat.p2p.candidates import Candidate, Candidates
from quicprochat.p2p.links import Links
from quicprochat.p2p.views import ServerView

log = logging.getLogger("quicprochat.discovery")

NAME_DIGITS = 16
"""Digits of the key in our instance's name: enough to be the only one, and nothing a person chose."""
DIALS = 16
"""Dials under way to peers that were found."""
DIAL_BURST, DIAL_PER_S = 16, 8
"""A flood of made-up peers makes us send so many first packets, and only to our own links."""
SERVERS_MAX = 64
POLL_S = 5.0
"""How often the machine's interfaces are looked at."""
LOOK_S = 1.0
"""How soon a lost link to a peer that is still announced is noticed."""
REST_S = 60.0
"""How long discovery rests after a fault of its own."""
RETRIES = 3
"""A new interface may refuse its address for a second or two (IPv6 looks for duplicates first)."""


def usable(found: Sequence[Interface], bind: Address | None) -> tuple[Interface, ...]:
    """Return the interfaces to use for a node bound there: those its packets can take."""
    ip = ipaddress.ip_address(bind.ip) if bind is not None else None
    if ip is None or ip.is_unspecified:
        return tuple(i for i in found if not i.loopback)
    if ip.is_loopback:
        return tuple(i for i in found if i.loopback)
    return tuple(i for i in found if i.ip == str(ip))


def on_link(address: Address, where: Sequence[Interface]) -> bool:
    """Say whether an address may be dialled because a stranger says so: another machine's, on a link of ours."""
    ip = ipaddress.ip_address(address.ip)
    if not address.port or ip.is_unspecified or ip.is_multicast or ip.is_link_local:
        return False
    for interface in where:
        network = interface.network
        if ip.version != network.version or interface.link_local or not interface.prefix or ip not in network:
            continue
        ends = (network.network_address, network.broadcast_address)
        if network.version == 6 or network.prefixlen >= 31 or ip not in ends:
            return True
    return False


class Discovery:
    """Runs discovery for one node. ``own`` returns where we can be dialled; ``quiet`` listens and announces nothing."""

    def __init__(
        self, links: Links, own: Callable[[], tuple[Address, ...]], jitter: Callable[[], float], *,
        bind: Address | None, quiet: bool,
    ) -> None:  # fmt: skip
        self._links = links
        self._own = own
        self._bind = bind
        self._quiet = quiet
        self._mdns = Mdns(self)
        self._where: tuple[Interface, ...] = ()
        self._open_for: object = None
        self._tries = 0
        self._said = ""
        self._servers: dict[str, ServerView] = {}
        self._candidates = Candidates(links.key, self._mdns.forget, jitter, patient=not quiet)
        self._budget = TokenBucket(DIAL_BURST, DIAL_PER_S, links.instant())
        self._dialling = 0
        self._moved = asyncio.Event()
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Discover until cancelled. Raises nothing of its own: without multicast it waits for some."""
        while True:
            try:
                await self._run()
            except Exception as error:  # a root of tasks: links must not end with discovery
                log.error("discovery ended by a fault of this program; please report it", exc_info=error)
                await asyncio.sleep(REST_S)

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch())
                group.create_task(self._mdns.run())
                group.create_task(self._dial_all(group))
        finally:
            await self._mdns.close()

    def awake(self) -> None:
        """The machine has slept: ask who is there."""
        self._mdns.browse()

    def network_changed(self) -> None:
        """Our addresses have changed: announce them, and ask who is there."""
        self._moved.set()

    def found(self) -> dict[PeerKey, Candidate]:
        """Return the peers announced now."""
        return {candidate.key: candidate for candidate in self._candidates.all()}

    def servers(self) -> list[ServerView]:
        """Return the home servers announced now."""
        return sorted(self._servers.values(), key=lambda view: (view.server, view.domain))

    # --- Listener

    def heard(self, found: Found) -> bool:
        """Take note of an announcement."""
        announcement, key = found.announcement, found.announcement.key
        if announcement.role is Role.SERVER:
            return self._heard_server(found)
        here = tuple(address for address in found.addresses if on_link(address, self._where))
        if key is None or key == self._links.key or not here:
            return False
        if self._candidates.get(key) is None:
            log.debug("%s is announced at %s", key.hex()[:8], here[0])
        wanted = self._links.wants(key)
        self._candidates.heard(found.name, key, here, announcement.domain, self._links.instant(), wanted=wanted)
        self._wake.set()
        return True

    def _heard_server(self, found: Found) -> bool:
        a = found.announcement
        here = next((address for address in found.addresses if on_link(address, self._where)), None)
        if here is not None and self._links.reach is not None:
            url = f"http://{Address(here.ip, a.relay)}" if a.relay else ""
            self._links.reach.named(url, Source.SERVER, found.name.encode())
        self._servers.pop(found.name, None)
        self._servers[found.name] = ServerView(a.server or str(found.addresses[0]), a.domain, a.key, a.fp.hex())
        if len(self._servers) > SERVERS_MAX:
            oldest = next(iter(self._servers))
            del self._servers[oldest]
            self._mdns.forget(oldest)
        return True

    def gone(self, name: str) -> None:
        """An instance is not announced any more; a link to it, if there is one, speaks for itself."""
        if name in self._servers and self._links.reach is not None:
            self._links.reach.named("", Source.SERVER, name.encode())
        self._servers.pop(name, None)
        self._candidates.gone(name)

    def settled(self, name: str) -> bool:
        """Say whether an instance need not answer: it is linked."""
        candidate = self._candidates.named(name)
        return candidate is not None and candidate.key in self._links.linked()

    # --- the network

    async def _watch(self) -> None:
        """Look at the interfaces; announce and ask anew where they changed."""
        while True:
            self._moved.clear()
            self._where = usable(interfaces(), self._bind)
            wanted = (self._where, () if self._quiet else self._addresses())
            if wanted != self._open_for:
                self._open_for, self._tries = wanted, RETRIES
            if self._tries:
                await self._open(wanted[1])
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._moved.wait()

    def _addresses(self) -> tuple[Address, ...]:
        """Return what to announce, IPv4 first: its port is the one that counts where the families differ."""
        return tuple(sorted(self._own(), key=lambda a: (":" in a.ip, ipaddress.ip_address(a.ip).packed)))

    async def _open(self, addresses: tuple[Address, ...]) -> None:
        self._tries -= 1
        try:
            if await self._mdns.open(self._where):
                self._tries = 0
            key = self._links.key
            if not self._quiet:
                await self._mdns.announce(key.hex()[:NAME_DIGITS], Announcement(Role.NODE, key), addresses)
            said = "announcing ourselves on the local network" if not self._quiet else "listening on the local network"
        except UnavailableError as error:
            said = f"{error}: nobody is found on the local network until that changes"
        if said != self._said:
            self._said = said
            log.info("%s", said)

    # --- dialling

    async def _dial_all(self, group: asyncio.TaskGroup) -> None:
        while True:
            self._wake.clear()
            now, linked = self._links.instant(), self._links.linked()
            self._candidates.linked(linked, now)
            pause = LOOK_S if self._candidates.all() else None
            while self._dialling < DIALS:
                if wait := self._budget.wait_ms(now):
                    pause = min(wait / 1_000, LOOK_S)
                    break
                candidate = self._candidates.due(now, linked, self._links.wants)
                if candidate is None:
                    at = self._candidates.next_at(linked)
                    pause = pause if at is None else min(LOOK_S, max(0.02, (at - now) / 1_000))
                    break
                self._budget.take(now)
                self._dialling += 1
                candidate.under_way = True
                group.create_task(self._attempt(candidate))
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _attempt(self, candidate: Candidate) -> None:
        met, addresses = False, candidate.addresses
        try:
            met = await self._links.meet(candidate.key, addresses)
        except QuicprochatError as error:
            log.debug("dialling %s: %s", candidate.key.hex()[:8], error)
        finally:
            self._dialling -= 1
            candidate.under_way = False
            if not met and addresses == candidate.addresses:  # else there is news to try at once
                wanted = self._links.wants(candidate.key)
                self._candidates.failed(candidate, self._links.instant(), wanted=wanted)
            self._wake.set()
