"""Keeps this node reachable: at a relay that answers, and at the addresses that peers outside a NAT see it at."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Protocol

from quicprochat.adapters.interfaces import interfaces
from quicprochat.core.address import Address
from quicprochat.core.errors import LocalError
from quicprochat.core.ids import PeerKey
from quicprochat.core.network import Interface, Network, is_local, relay_is_allowed, relay_is_local
from quicprochat.core.reach import Outside, Relays, Source
from quicprochat.core.time import Instant
from quicprochat.p2p.views import RelayView

log = logging.getLogger("quicprochat.reach")

PROBE_S = 2.0
"""How long a relay may take to answer."""
URGENT_S = 3.0
"""How often relays are asked while a link depends on one: with two failures, a dead one is left within 7 s."""
CALM_S = 20.0


class RelayedEndpoint(Protocol):
    """What is asked of the endpoint."""

    async def use_relay(self, url: str) -> None:
        """Be reachable through a relay."""
        ...

    async def drop_relay(self, url: str) -> None:
        """Be so no more."""
        ...

    async def add_outside(self, address: tuple[str, int]) -> None:
        """Tell peers an address."""
        ...

    async def drop_outside(self, address: tuple[str, int]) -> None:
        """Tell it no more."""
        ...

    def addresses(self) -> list[tuple[str, int]]:
        """Return where we can be dialled."""
        ...


Probe = Callable[[str, float], Awaitable[bool]]


def check_relay(relay: str, network: Network) -> None:
    """Refuse a relay of the owner's that is farther away than the owner lets the node reach.

    Raises: LocalError with code ``policy``, as for a home server.
    """
    if network is Network.LAN and relay and not relay_is_local(relay, interfaces()):
        raise LocalError(
            f"{relay} is not in a local network, and the network mode is lan; use: --network community", code="policy"
        )


class Reach:
    """``relay`` is the owner's, "" for none; the endpoint was opened with it.

    ``relayed`` says whether a link depends on a relay; ``changed`` is called when what we tell peers has changed.
    """

    def __init__(
        self, endpoint: RelayedEndpoint, network: Network, relay: str, instant: Callable[[], Instant],
        relayed: Callable[[], bool], changed: Callable[[], None], probe: Probe,
    ) -> None:  # fmt: skip
        self._endpoint = endpoint
        self._network = network
        self._instant = instant
        self._relayed = relayed
        self._changed = changed
        self._probe = probe
        self._relays = Relays()
        self._outside = Outside()
        self._told: list[Address] = []
        self._using = ""
        self._asked: frozenset[str] = frozenset()
        self._wake = asyncio.Event()
        self._interfaces: tuple[Interface, ...] = interfaces()
        self._own = self._own_addresses()
        if relay:
            self._relays.name(relay, Source.OWNER)
            self._relays.choose()
            self._using = relay

    # --- what the node asks

    @property
    def relay(self) -> str:
        """The relay we can be reached through; "" for none."""
        return self._relays.home

    def relays(self, own: str) -> list[str]:
        """Return relays to try a peer at that is said to be at ``own``: there first, then where we are, then others.

        Whoever lost its relay is at another of the community's, and its record can't have told us yet.
        """
        wanted = (own if own and self.allows_relay(own, Source.CONTACT) else "", self.relay, *self._relays.alive())
        return list(dict.fromkeys(url for url in wanted if url))

    def known(self) -> tuple[RelayView, ...]:
        """Return the relays that are known, the preferred first."""
        alive = self._relays.alive()
        return tuple(
            RelayView(url, self._relays.owned(url), url in alive, url == self.relay) for url in self._relays.known()
        )

    def seen(self) -> tuple[tuple[PeerKey, Address], ...]:
        """Return where trusted peers that are linked see us."""
        return tuple(self._outside.witnesses())

    def allows(self, address: Address) -> bool:
        """Say whether a peer may be dialled there."""
        return self._network is not Network.LAN or is_local(address.ip, self._interfaces)

    def allows_relay(self, url: str, source: Source) -> bool:
        """Say whether a relay may be used that somebody names."""
        return relay_is_allowed(url, self._network, self._interfaces, owner=source is Source.OWNER)

    # --- what it is told

    def named(self, url: str, source: Source, who: bytes) -> None:
        """A contact's record, or a server on the local network, names a relay; "" takes that back."""
        if url and not self.allows_relay(url, source):
            url = ""
        self._relays.name(url, source, who)
        self._wake.set()

    def observed(self, peer: PeerKey, address: Address) -> None:
        """A trusted peer says where it sees us."""
        log.debug("%s sees us at %s", peer.hex()[:8], address)
        self._outside.witness(peer, address)
        self._wake.set()

    def lost(self, peer: PeerKey) -> None:
        """The link to a peer has gone."""
        self._outside.lost(peer, self._instant())
        self._wake.set()

    def network_changed(self) -> None:
        """Our addresses have changed, perhaps only by what we added to them."""
        if (own := self._own_addresses()) != self._own:
            self._own = own
            self._interfaces = interfaces()
            self._outside.clear()
            self._wake.set()

    # --- life

    async def run(self) -> None:
        """Keep reachable until cancelled."""
        loop = asyncio.get_running_loop()
        ask_at = loop.time()
        while True:
            self._wake.clear()
            known, now = self._relays.known(), loop.time()
            await self._ask(known if now >= ask_at else [url for url in known if url not in self._asked])
            self._asked = frozenset(known)
            if now >= ask_at:
                ask_at = loop.time() + (URGENT_S if self._relayed() or not self._relays.alive() else CALM_S)
            moved = await self._move()
            if await self._tell_outside() or moved:
                self._changed()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.05, ask_at - loop.time())):
                    await self._wake.wait()

    async def _ask(self, urls: Sequence[str]) -> None:
        """Probe relays at once; one that has just failed is asked again."""
        while urls:
            answers = await asyncio.gather(*(self._probe(url, PROBE_S) for url in urls))
            for url, answered in zip(urls, answers, strict=True):
                self._relays.probed(url, answered=answered)
            urls = [url for url in urls if self._relays.doubted(url)]

    async def _move(self) -> bool:
        """Go to the relay that is best now; return whether that is another."""
        if not self._relays.choose() and self._using == self._relays.home:
            return False
        old, self._using = self._using, self._relays.home
        if old:
            await self._endpoint.drop_relay(old)
        if self._using:
            await self._endpoint.use_relay(self._using)
            log.info("reachable through the relay %s", self._using)
        return True

    async def _tell_outside(self) -> bool:
        """Add and drop addresses by what witnesses say; return whether something changed."""
        wanted = self._outside.addresses(self._own_addresses(), self._instant())
        if set(wanted) == set(self._told):
            return False
        for address in self._told:
            if address not in wanted:
                await self._endpoint.drop_outside((address.ip, address.port))
        for address in wanted:
            if address not in self._told:
                await self._endpoint.add_outside((address.ip, address.port))
        log.debug("seen from outside at %s", ", ".join(map(str, wanted)) or "no other address")
        self._told = wanted
        return True

    def _own_addresses(self) -> list[Address]:
        """Return where we can be dialled without anybody having told us."""
        found = (Address(*address) for address in self._endpoint.addresses())
        return [address for address in found if address not in self._told]
