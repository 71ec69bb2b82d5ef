"""Which relay to be reachable through, and at which addresses peers outside a NAT see us: decisions without I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from quicprochat.core.address import Address
from quicprochat.core.ids import PeerKey
from quicprochat.core.time import MINUTE_MS, Instant

RELAYS_MAX = 8
"""Relays that are known at once; what contacts and the local network name beyond that is passed over."""
FAILURES_MAX = 2
"""Unanswered probes in a row that make a relay dead."""
COMEBACK = 3
"""Answers in a row that make a dead relay good again: one that comes and goes must not take us with it."""
WITNESSES_MAX = 16
OUTSIDE_MAX = 4
"""Addresses that we tell peers because others say so: bounds what one liar makes our peers send to a third place."""
WITNESS_MS = 10 * MINUTE_MS
"""How long a witness's word holds after its link has gone."""


class Source(IntEnum):
    """Who named a relay; the lowest is preferred."""

    OWNER = 0
    CONTACT = 1
    SERVER = 2
    """A home server on the local network announces it."""


@dataclass(slots=True)
class _Relay:
    url: str
    sources: set[tuple[Source, bytes]]
    failures: int = 0
    needed: int = 1
    """Answers that are still to come before it counts as alive."""

    @property
    def alive(self) -> bool:
        return not self.needed

    @property
    def rank(self) -> tuple[int, str]:
        return min(source for source, _ in self.sources), self.url


class Relays:
    """The relays we know, and the one we are at."""

    def __init__(self) -> None:
        self._known: dict[str, _Relay] = {}
        self.home = ""
        """The relay to be reachable through; "" for none."""

    def name(self, url: str, source: Source, who: bytes = b"") -> None:
        """Somebody names a relay; ``who`` names no other at the same time."""
        for relay in tuple(self._known.values()):
            if (source, who) in relay.sources and relay.url != url:
                self._unname(relay, (source, who))
        if not url:
            return
        found = self._known.get(url)
        if found is not None:
            found.sources.add((source, who))
        elif self._room(source):
            self._known[url] = _Relay(url, {(source, who)})

    def known(self) -> Sequence[str]:
        """Return all, the preferred first."""
        return [relay.url for relay in sorted(self._known.values(), key=lambda r: r.rank)]

    def alive(self) -> Sequence[str]:
        """Return those that answer, the preferred first."""
        return [url for url in self.known() if self._known[url].alive]

    def owned(self, url: str) -> bool:
        """Say whether the owner named a relay."""
        relay = self._known.get(url)
        return relay is not None and relay.rank[0] == Source.OWNER

    def probed(self, url: str, *, answered: bool) -> None:
        """Note whether a relay answered."""
        relay = self._known.get(url)
        if relay is not None:
            if answered:
                relay.failures, relay.needed = 0, max(0, relay.needed - 1)
                return
            relay.failures += 1
            if relay.failures >= FAILURES_MAX:
                relay.needed = COMEBACK

    def doubted(self, url: str) -> bool:
        """Say whether a relay that was alive has just failed to answer: ask again at once."""
        relay = self._known.get(url)
        return relay is not None and relay.alive and relay.failures > 0

    def choose(self) -> bool:
        """Choose the home relay; return whether that is another than before.

        The preferred one that answers. While none does, the owner's choice stays: it may be a matter of seconds.
        """
        alive = self.alive()
        owners = [url for url in self.known() if self._known[url].rank[0] == Source.OWNER]
        home = alive[0] if alive else owners[0] if owners else ""
        changed, self.home = home != self.home, home
        return changed

    def _room(self, source: Source) -> bool:
        """Make room for one more, if need be at the cost of what is less preferred, or as much and does not answer."""
        if len(self._known) < RELAYS_MAX or source is Source.OWNER:
            return True
        worst = max(self._known.values(), key=lambda r: (r.rank[0], not r.alive))
        if worst.rank[0] < source or (worst.rank[0] == source and worst.alive):
            return False
        del self._known[worst.url]
        return True

    def _unname(self, relay: _Relay, source: tuple[Source, bytes]) -> None:
        relay.sources.discard(source)
        if not relay.sources:
            del self._known[relay.url]


class Outside:
    """At which addresses witnesses say that they see us."""

    def __init__(self) -> None:
        self._seen: dict[PeerKey, tuple[Address, Instant | None]] = {}  # oldest first; since when the link is gone

    def witness(self, peer: PeerKey, address: Address) -> None:
        """A trusted peer says where it sees us; what it said before is forgotten."""
        self._seen.pop(peer, None)
        self._seen[peer] = (address, None)
        if len(self._seen) > WITNESSES_MAX:
            del self._seen[next(iter(self._seen))]

    def lost(self, peer: PeerKey, now: Instant) -> None:
        """The link to a witness has gone."""
        if peer in self._seen:
            self._seen[peer] = (self._seen[peer][0], now)

    def clear(self) -> None:
        """Our own network has changed: what was seen is history."""
        self._seen.clear()

    def witnesses(self) -> list[tuple[PeerKey, Address]]:
        """Return where the witnesses that are linked now see us."""
        return [(peer, address) for peer, (address, gone) in self._seen.items() if gone is None]

    def addresses(self, own: Sequence[Address], now: Instant) -> list[Address]:
        """Return the addresses to tell peers, the newest first, without our ``own``."""
        for peer, (_, gone) in tuple(self._seen.items()):
            if gone is not None and now - gone >= WITNESS_MS:
                del self._seen[peer]
        found = dict.fromkeys(address for address, _ in reversed(self._seen.values()) if address not in own)
        return list(found)[:OUTSIDE_MAX]
