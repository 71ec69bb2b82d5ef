"""Saying on the local network that a home server is here (mDNS); whoever hears it still has to see its key."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from quicprochat.adapters.interfaces import interfaces
from quicprochat.adapters.mdns import Listener, Mdns
from quicprochat.core.address import Address
from quicprochat.core.announcement import Announcement, Found, Role
from quicprochat.core.errors import QuicprochatError
from quicprochat.core.network import Interface

log = logging.getLogger("quicprochat.server.announce")

POLL_S = 5.0
"""How often the machine's interfaces are looked at."""
REST_S = 60.0
"""How long announcing rests after a fault of its own."""
RETRIES = 3
"""A new interface may refuse its address for a second or two (IPv6 looks for duplicates first)."""
NAME_DIGITS = 16


class Multicast(Protocol):
    """What is used of :class:`~quicprochat.adapters.mdns.Mdns`."""

    async def open(self, where: Sequence[Interface]) -> bool:
        """Use these interfaces; return whether all of them work. Raises: UnavailableError."""
        ...

    async def announce(self, name: str, announcement: Announcement, addresses: Sequence[Address]) -> None:
        """Say from now on that we are here."""
        ...

    async def run(self) -> None:
        """Ask who else is there, until cancelled."""
        ...

    async def close(self) -> None:
        """Stop, and say goodbye."""
        ...


class _Deaf:
    """A server wants to know of nobody."""

    def heard(self, found: Found) -> bool:
        return False

    def gone(self, name: str) -> None:
        pass

    def settled(self, name: str) -> bool:
        return True


def reachable_at(found: Sequence[Interface], listen: Address) -> tuple[Interface, ...]:
    """Return the interfaces over which others reach a server that listens there; addresses of one link only are none.

    Only one that listens on the loopback alone is announced there.
    """
    ip = ipaddress.ip_address(listen.ip)
    if not ip.is_unspecified:
        return tuple(i for i in found if i.ip == str(ip))
    four_only = ip.version == 4
    return tuple(i for i in found if not i.loopback and not i.link_local and not (four_only and ":" in i.ip))


class Announcer:
    """Announces one server for as long as :meth:`run` runs.

    ``listen`` is where it listens; ``named`` is the ``host:port`` that clients are told, else its first address;
    ``relay`` the port of its relay, 0 for none. ``neighbours`` hears of others, if there is anybody who wants to.
    """

    def __init__(
        self,
        listen: Address,
        named: str,
        domain: str,
        fingerprint: bytes,
        relay: int = 0,
        multicast: Multicast | None = None,
        look: Callable[[], Sequence[Interface]] = interfaces,
        neighbours: Listener | None = None,
    ) -> None:
        self._listen = listen
        self._named = named
        self._domain = domain
        self._fingerprint = fingerprint
        self._relay = relay
        self._multicast = multicast or Mdns(neighbours or _Deaf())
        self._listening = neighbours is not None
        self._look = look
        self._said = ""

    async def run(self) -> None:
        """Announce until cancelled, on the interfaces there are at any time. Raises nothing of its own."""
        while True:
            try:
                await self._run()
            except Exception as error:  # a root of tasks: nobody is served worse for want of an announcement
                log.error("announcing ended by a fault of this program; please report it", exc_info=error)
                await asyncio.sleep(REST_S)

    async def _run(self) -> None:
        known: tuple[Interface, ...] | None = None
        tries = 0
        asking = asyncio.create_task(self._multicast.run()) if self._listening else None
        try:
            while True:
                where = reachable_at(self._look(), self._listen)
                if where != known:
                    known, tries = where, RETRIES
                if tries:
                    tries = 0 if await self._announce(where) else tries - 1
                await asyncio.sleep(POLL_S)
        finally:
            if asking is not None:
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
            await self._multicast.close()

    async def _announce(self, where: Sequence[Interface]) -> bool:
        """Announce on these interfaces; return whether all of them work."""
        addresses = [Address(i.ip, self._listen.port) for i in sorted(where, key=lambda i: (":" in i.ip, i))]
        server = self._named or (str(addresses[0]) if addresses else "")
        complete = False
        try:
            if addresses:
                complete = await self._multicast.open(where)
                announcement = Announcement(Role.SERVER, None, server, self._domain, self._fingerprint, self._relay)
                await self._multicast.announce(self._fingerprint.hex()[:NAME_DIGITS], announcement, addresses)
                said = f"announced on the local network as {server}"
            else:
                await self._multicast.close()
                said = "not announced: no network"
        except QuicprochatError as error:
            said = f"not announced: {error}"
        if said != self._said:
            self._said = said
            log.info("%s", said)
        return complete
