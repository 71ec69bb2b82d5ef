"""One node's routing table: what each neighbour promises for each destination, and the way that is taken.

A destination is a number here, our own for a key; everything about it stands in arrays under that number, so that an
update costs a few steps. A way is *feasible* if the neighbour's promise is better than the best one we ever gave
ourselves under the same sequence number: then no loop can form, whatever is still under way (RFC 8966 §3.5.1).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from quicprochat.core.bucket import TokenBucket
from quicprochat.core.envelope import HOPS_MAX
from quicprochat.core.ids import PeerKey
from quicprochat.core.route_cost import Smooth
from quicprochat.core.route_frames import INFINITY, METRIC_MAX, UNDEFINED, Announcement, hops_of, metric_of
from quicprochat.core.route_judge import Judge
from quicprochat.core.time import Instant

DESTINATIONS_MAX = 4_096
"""Destinations a node knows; more, and the neighbour that brought most of them pays."""
PROOFS_BURST, PROOFS_PER_S = 8_192, 64
"""Signatures verified for one link: a table at once, and then what joining and signing anew take (guess)."""
CROWDING = 64
"""A destination for which another must be pushed out costs as much as so many signatures."""
REQUESTS_BURST, REQUESTS_PER_S = 4_096, 64
"""Requests taken from one neighbour: all destinations at once, when a bridge falls, and then few (guess)."""
CHUNK = 64
SELF = 0
"""Our own number for ourselves."""

Opened = Callable[[bytes], Announcement | None]
"""Checks an announcement's bytes."""


class Neighbour:
    """A peer one link away: what it promised us, what we told it, and what its link costs.

    ``promised`` and ``said`` are its distance and its announcement of each of our destinations, ``told`` and ``shown``
    those we told it; ``ids`` maps its numbers to ours. ``usable`` says whether its promises count.
    """

    __slots__ = (
        "again_at", "checked_at", "heard", "held_until", "ids", "judge", "key", "promised", "proofs", "refused",
        "requests", "said", "shown", "smooth", "step", "told", "up", "usable",
    )  # fmt: skip

    def __init__(self, key: PeerKey, cost: int, room: int, now: Instant) -> None:
        self.key = key
        self.smooth = Smooth(cost)
        self.step = 0
        self.price()
        self.judge = Judge()
        self.proofs = TokenBucket(PROOFS_BURST, PROOFS_PER_S, now)
        self.requests = TokenBucket(REQUESTS_BURST, REQUESTS_PER_S, now)
        self.up = self.heard = self.usable = self.refused = False
        self.held_until = now
        self.again_at = self.checked_at = now
        self.ids = array("H")
        self.promised = array("Q", [INFINITY]) * room
        self.told = array("Q", [INFINITY]) * room
        self.said: list[Announcement | None] = [None] * room
        self.shown: list[Announcement | None] = [None] * room

    def price(self) -> None:
        """Take over the link's cost."""
        self.step = self.smooth.cost << 16 | 1

    def grow(self) -> None:
        """Make room for more destinations."""
        for column in (self.promised, self.told):
            column.extend([INFINITY] * CHUNK)
        for row in (self.said, self.shown):
            row.extend([None] * CHUNK)

    def forget_promises(self) -> None:
        """Its ids and promises begin anew."""
        self.ids = array("H")
        self.promised = array("Q", [INFINITY]) * len(self.promised)
        self.said = [None] * len(self.said)
        self.refused = False

    def forget_told(self) -> None:
        """It knows nothing of us any more."""
        self.told = array("Q", [INFINITY]) * len(self.told)
        self.shown = [None] * len(self.shown)

    def define(self, id: int, destination: int) -> None:
        """Its number ``id`` means our ``destination``, UNDEFINED for one that we do not keep."""
        if id >= len(self.ids):
            self.ids.extend([UNDEFINED] * (id + 1 - len(self.ids)))
        self.ids[id] = destination


@dataclass(frozen=True, slots=True)
class Way:
    """A route as people are shown it."""

    destination: PeerKey
    next_hop: PeerKey
    metric: int
    hops: int
    since: Instant


class Table:
    """All destinations and all neighbours. ``urgent``, ``soon`` and ``lazy`` collect what neighbours must be told.

    ``starved`` collects destinations that are promised, and not feasibly; ``hungry`` those with a better way that is
    not feasible; ``moved`` those whose next hop appeared or changed.
    """

    def __init__(self, me: PeerKey, opened: Opened, limit: int, now: Instant) -> None:
        self.opened = opened
        self.limit = min(limit, UNDEFINED)
        self.pinned: frozenset[PeerKey] = frozenset()
        self.leaf = False
        """True: only we ourselves are told to others, for we pass nothing on."""
        self.links: dict[PeerKey, Neighbour] = {}
        self.away: dict[PeerKey, Neighbour] = {}
        self.usable: list[Neighbour] = []
        self.conflicts = 0
        self.room = CHUNK
        own = Neighbour(me, 1, CHUNK, now)
        self.now = now
        self.keys = [me]
        self.index = {me: SELF}
        self.newest: list[Announcement | None] = [None]
        self.current: list[Announcement | None] = [None]
        """Announcement and distance of the way that is taken, as others are told them."""
        self.best: list[Neighbour | None] = [own]
        self.distance = array("Q", [0])
        self.floor = array("Q", [INFINITY])
        """Feasibility distances, under the sequence numbers in ``floor_seqno`` (RFC 8966 §3.2.5)."""
        self.floor_seqno = array("Q", [0])
        self.since = array("q", [now])
        self.sponsor: list[Neighbour] = [own]
        """Who brought the destination; a table that is full is cleared at the cost of whoever brought most."""
        self.urgent: dict[int, None] = {}
        self.soon: dict[int, None] = {}
        self.lazy: dict[int, None] = {}
        self.starved: dict[int, None] = {}
        self.hungry: dict[int, None] = {}
        self.moved: set[PeerKey] = set()

    # --- destinations

    def learn(self, wire: bytes, neighbour: Neighbour, now: Instant) -> tuple[int, Announcement | None]:
        """Return the number and announcement of a destination that a neighbour names whole.

        UNDEFINED where it is not kept, None where its origin did not sign it.
        """
        known = self.index.get(PeerKey(wire[:32]))
        if known is not None:
            return known, self.renewed(known, wire, neighbour, now)
        if not neighbour.proofs.take(now, 1 if len(self.keys) < self.limit else CROWDING):
            neighbour.refused = True
            return UNDEFINED, self.newest[SELF]
        announcement = self.opened(wire)
        if announcement is None:
            return UNDEFINED, None
        number = self._number(neighbour)
        if number == UNDEFINED:
            neighbour.refused = True
            return UNDEFINED, announcement
        self.index[announcement.key] = number
        self.keys[number] = announcement.key
        self.newest[number] = announcement
        self.sponsor[number] = neighbour
        return number, announcement

    def renewed(self, number: int, wire: bytes, neighbour: Neighbour, now: Instant) -> Announcement | None:
        """Return the announcement of these bytes for a destination we know; verified if they are new to us."""
        newest = self.newest[number]
        if newest is not None and newest.wire == wire:
            return newest
        used = self.current[number]
        if used is not None and used.wire == wire:
            return used
        if not neighbour.proofs.take(now):
            neighbour.refused = True
            return newest
        announcement = self.opened(wire)
        if announcement is None or newest is None:
            if announcement is not None:
                self.newest[number] = announcement
            return announcement
        if announcement.seqno == newest.seqno:
            self.conflicts += 1
            return newest
        if announcement.seqno > newest.seqno:
            self.newest[number] = announcement
        return announcement

    def _number(self, neighbour: Neighbour) -> int:
        """Return a free number, for which another destination may have to go; UNDEFINED if this neighbour must wait."""
        count = len(self.keys)
        if count < self.limit:
            if count == self.room:
                self.room += CHUNK
                for one in (*self.links.values(), *self.away.values()):
                    one.grow()
            self.keys.append(self.keys[SELF])
            self.newest.append(None)
            self.current.append(None)
            self.best.append(None)
            self.distance.append(INFINITY)
            self.floor.append(INFINITY)
            self.floor_seqno.append(0)
            self.since.append(0)
            self.sponsor.append(neighbour)
            return count
        victim = self._victim(neighbour)
        if victim != UNDEFINED:
            self._clear(victim)
        return victim

    def _victim(self, neighbour: Neighbour) -> int:
        kept = self.pinned | self.links.keys()
        free = [n for n in range(1, len(self.keys)) if self.keys[n] not in kept]
        gone = [n for n in free if self.best[n] is None]
        if gone:
            return min(gone, key=self.since.__getitem__)
        shares: dict[PeerKey, int] = {}
        for n in free:
            shares[self.sponsor[n].key] = shares.get(self.sponsor[n].key, 0) + 1
        largest = max(shares, key=lambda key: (shares[key], key), default=neighbour.key)
        if shares.get(neighbour.key, 0) + 1 >= shares.get(largest, 0):
            return UNDEFINED
        return max((n for n in free if self.sponsor[n].key == largest), key=self.since.__getitem__)

    def _clear(self, number: int) -> None:
        """Forget a destination. What neighbours were told of it is corrected when the number is told next."""
        self.take(number, None, INFINITY)
        self.urgent[number] = None
        self.moved.add(self.keys[number])
        del self.index[self.keys[number]]
        for one in (*self.links.values(), *self.away.values()):
            one.promised[number] = INFINITY
            one.said[number] = one.shown[number] = None
            one.judge.forget(number)
            if number in one.ids:
                one.refused = True
                one.ids = array("H", (UNDEFINED if id == number else id for id in one.ids))
        self.newest[number] = self.current[number] = None
        self.floor[number], self.floor_seqno[number] = INFINITY, 0
        for marks in (self.starved, self.hungry):
            marks.pop(number, None)

    # --- choosing

    def feasible(self, number: int, neighbour: Neighbour) -> bool:
        """Say whether taking this way can never form a loop. Source: RFC 8966 §3.5.1."""
        announcement = neighbour.said[number]
        assert announcement is not None
        seqno, floor = announcement.seqno, self.floor_seqno[number]
        return seqno > floor or (seqno == floor and neighbour.promised[number] < self.floor[number])

    def through(self, number: int, neighbour: Neighbour) -> int:
        """Return the distance of a destination by way of a neighbour; INFINITY if there is none."""
        promised = neighbour.promised[number]
        if promised == INFINITY:
            return INFINITY
        found = promised + neighbour.step
        if neighbour.judge:
            found += neighbour.judge.price(number) << 16
        return found if found >> 16 <= METRIC_MAX and found & 0xFFFF <= HOPS_MAX else INFINITY

    def offer(self, number: int, neighbour: Neighbour) -> None:
        """A neighbour's promise changed: take it if it is better, look for another if it was the way and is worse."""
        best = self.best[number]
        found = self.through(number, neighbour)
        if best is neighbour:
            if found <= self.distance[number] and found != INFINITY and self.feasible(number, neighbour):
                self.take(number, neighbour, found)
            else:
                self.choose(number)
        elif found < self.distance[number]:
            if self.feasible(number, neighbour):
                self.take(number, neighbour, found)
            elif best is None:
                self.starved[number] = None
            else:
                self.hungry[number] = None

    def choose(self, number: int) -> None:
        """Look at all neighbours and take the best feasible way, or none."""
        if number == SELF:
            return
        best: Neighbour | None = None
        nearest = wanted = INFINITY
        for neighbour in self.usable:
            if neighbour.promised[number] != INFINITY and (found := self.through(number, neighbour)) < nearest:
                if self.feasible(number, neighbour):
                    best, nearest = neighbour, found
                elif found < wanted:
                    wanted = found
        self.take(number, best, nearest)
        if best is None and wanted != INFINITY:
            self.starved[number] = None
        elif wanted < nearest:
            self.hungry[number] = None

    def take(self, number: int, neighbour: Neighbour | None, found: int) -> None:
        """Make a way the one that is used and told, and note how soon others must hear of it."""
        before, shown = self.distance[number], self.current[number]
        announcement = shown if neighbour is None else neighbour.said[number]
        turned = False
        if self.best[number] is not neighbour:
            # Who was the way was kept from hearing of it, and may need it now.
            turned = True
            self.best[number] = neighbour
            self.moved.add(self.keys[number])
            self.since[number] = self.now
        self.distance[number] = found
        self.current[number] = announcement
        if (before == INFINITY) != (found == INFINITY):
            self.urgent[number] = None
        elif turned or before != found:
            self.soon[number] = None
        elif announcement is not shown:
            self.lazy[number] = None

    def sink(self, number: int, found: int, announcement: Announcement) -> None:
        """This distance is about to be told: from now on only better promises are feasible (RFC 8966 §3.7.3)."""
        seqno = announcement.seqno
        if seqno > self.floor_seqno[number]:
            self.floor_seqno[number], self.floor[number] = seqno, found
        elif seqno == self.floor_seqno[number] and found < self.floor[number]:
            self.floor[number] = found

    # --- reading

    def ways(self, number: int) -> list[tuple[int, Neighbour]]:
        """Return all feasible ways, best first."""
        found = [
            (distance, neighbour)
            for neighbour in self.usable
            if (distance := self.through(number, neighbour)) != INFINITY and self.feasible(number, neighbour)
        ]
        best = self.best[number]
        found.sort(key=lambda way: (way[0], way[1] is not best, way[1].key))
        return found

    def views(self) -> Iterator[Way]:
        """Yield the way to each destination that has one."""
        for number in range(1, len(self.keys)):
            best, found = self.best[number], self.distance[number]
            if best is not None:
                since = Instant(self.since[number])
                yield Way(self.keys[number], best.key, metric_of(found), hops_of(found), since)
