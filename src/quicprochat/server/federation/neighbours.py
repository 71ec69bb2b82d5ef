"""Servers of other domains that announce themselves on the local network: a hint where they are, and nothing more."""

from __future__ import annotations

from typing import Protocol

from quicprochat.core.announcement import Found, Role
from quicprochat.core.time import SECOND_MS, Instant
from quicprochat.server.federation.routing import plain

FOLLOWED_MAX = 256
HINT_EVERY_MS = 30 * SECOND_MS
"""Anybody on the link can announce anything: so often at most a domain's announcement makes us dial."""


class Known(Protocol):
    """What is asked of the exchange."""

    def is_peer(self, domain: str) -> bool:
        """Say whether the operator has listed a domain."""
        ...

    def announced(self, domain: str, ip: str) -> None:
        """A server of a listed domain may be there."""
        ...

    def now(self) -> Instant:
        """Return this moment on the life clock."""
        ...


class Neighbours:
    """The listener of an :class:`~quicprochat.adapters.mdns.Mdns`."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._followed: set[str] = set()
        self._hinted: dict[str, Instant] = {}  # by domain, of which there are as many as the operator has listed

    def heard(self, found: Found) -> bool:
        said = found.announcement
        domain = plain(said.domain)
        if said.role is not Role.SERVER or not found.addresses or not self._known.is_peer(domain):
            return False
        now = self._known.now()
        if domain not in self._hinted or now - self._hinted[domain] >= HINT_EVERY_MS:
            self._hinted[domain] = now
            self._known.announced(domain, found.addresses[0].ip)
        if len(self._followed) >= FOLLOWED_MAX:
            return False
        self._followed.add(found.name)
        return True

    def gone(self, name: str) -> None:
        self._followed.discard(name)

    def settled(self, name: str) -> bool:
        return True
