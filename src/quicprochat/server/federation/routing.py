"""Where an envelope goes: to a user here, to another domain's server, or nowhere yet. Pure; asked for each envelope."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from quicprochat.core.gate import Reason
from quicprochat.core.ids import PeerKey


@dataclass(frozen=True, slots=True)
class Local:
    """A user of this server."""


@dataclass(frozen=True, slots=True)
class Remote:
    """Somebody whose mail that domain's server takes."""

    domain: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody knows where to; the answer is "later", because the author keeps the envelope and somebody may come."""

    reason: Reason = Reason.UNKNOWN


Destination = Local | Remote | Unknown


class View(Protocol):
    """What routing needs to know, at one moment."""

    @property
    def domain(self) -> str:
        """Our own domain."""
        ...

    def is_peer(self, domain: str) -> bool:
        """Say whether the operator has listed a domain."""
        ...

    def local(self, key: PeerKey) -> bool:
        """Say whether a key is a user here."""
        ...

    def came_from(self, key: PeerKey) -> str:
        """Return the domain that a key's mail came from, or empty."""
        ...

    def published(self, key: PeerKey) -> str:
        """Return the home domain in the newest record that a key has published here, or empty."""
        ...


def plain(domain: str) -> str:
    """Return a domain as it is compared: lower case, without the dot at its end."""
    return domain.lower().removesuffix(".")


def resolve_destination(recipient: PeerKey, hint: str, view: View) -> Destination:
    """Say where an envelope for ``recipient`` goes; ``hint`` is the domain that its sender names, or empty.

    In this order: a user here, whatever anybody says; the hint, if it is a peer's domain, or our own, of which we know
    that it has no such user; the domain that the recipient's own mail came from, by which receipts find back; the home
    domain in its record. A domain that is not a peer's counts for nothing.
    """
    if view.local(recipient):
        return Local()
    if hint and (named := plain(hint)) == view.domain:
        return Unknown()
    if hint and view.is_peer(named):
        return Remote(named)
    for find in (view.came_from, view.published):
        found = plain(find(recipient))
        if found and found != view.domain and view.is_peer(found):
            return Remote(found)
    return Unknown()
