"""Which peer records go to which neighbour, and when, so that nodes learn of peers they cannot meet.

A record is signed by its owner and replaced only by a newer one of the same owner; so spreading needs no trust, and
each version crosses each link once in each direction at most. What this bounds is the amount: so many at once and so
many a second for each link, and an owner that signs anew all the time is passed on only now and then.
"""

from __future__ import annotations

from collections.abc import Iterable

from quicprochat.core.bucket import TokenBucket
from quicprochat.core.events import LinkId
from quicprochat.core.ids import PeerKey
from quicprochat.core.time import Instant

OFFER_MAX = 32
"""Records offered to a neighbour when its link comes up: at most 64 KiB."""
WAITING_MAX = 64
"""Records that wait for their turn on one link; more, and the one that waits longest is left out."""
BURST, PER_S = 32, 4
"""Records sent over one link; half of what a node accepts, which needs room for its neighbour's own record."""
OWNER_MS = 10_000
"""One owner's records are passed on so often; of those between, the last."""
OWNERS_MAX = 1_024


class _Lane:
    __slots__ = ("bucket", "peer", "waiting")

    def __init__(self, peer: PeerKey, now: Instant) -> None:
        self.peer = peer
        self.bucket = TokenBucket(BURST, PER_S, now)
        self.waiting: dict[PeerKey, Instant] = {}


class Spread:
    """Keeps, for each link, whose records wait to be sent over it, and from when on they may be."""

    def __init__(self) -> None:
        self._lanes: dict[LinkId, _Lane] = {}
        self._passed: dict[PeerKey, Instant] = {}

    def link_up(self, link: LinkId, peer: PeerKey, owners: Iterable[PeerKey], now: Instant) -> None:
        """Offer these owners' records to a new neighbour, the most useful first."""
        lane = self._lanes[link] = _Lane(peer, now)
        for owner in dict.fromkeys(owners):
            if len(lane.waiting) == OFFER_MAX:
                break
            if owner != peer:
                lane.waiting[owner] = now

    def link_down(self, link: LinkId) -> None:
        """Forget a link."""
        self._lanes.pop(link, None)

    def news(self, owner: PeerKey, came_by: LinkId | None, now: Instant) -> None:
        """A newer record of this owner is stored: pass it on to everybody but whoever brought it, and its owner."""
        last = self._passed.pop(owner, None)
        due = now if last is None else last if last > now else Instant(max(now, last + OWNER_MS))
        self._passed[owner] = due
        if len(self._passed) > OWNERS_MAX:
            del self._passed[next(iter(self._passed))]
        for link, lane in self._lanes.items():
            if link == came_by:
                lane.waiting.pop(owner, None)
            elif owner != lane.peer:
                lane.waiting.setdefault(owner, due)
                if len(lane.waiting) > WAITING_MAX:
                    del lane.waiting[next(iter(lane.waiting))]

    def shown(self, owner: PeerKey, link: LinkId) -> None:
        """This neighbour has shown the version we have: it needs none."""
        if link in self._lanes:
            self._lanes[link].waiting.pop(owner, None)

    def due(self, now: Instant) -> list[tuple[LinkId, PeerKey]]:
        """Return what may be sent now, and count it as sent."""
        out = []
        for link, lane in self._lanes.items():
            for owner in [owner for owner, at in lane.waiting.items() if at <= now]:
                if not lane.bucket.take(now):
                    break
                del lane.waiting[owner]
                out.append((link, owner))
        return out

    def deadline(self, now: Instant) -> Instant | None:
        """Return when something may be sent."""
        times = [
            max(min(lane.waiting.values()), now + lane.bucket.wait_ms(now))
            for lane in self._lanes.values()
            if lane.waiting
        ]
        return Instant(min(times)) if times else None
