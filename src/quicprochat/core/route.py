"""Routes of one node: which neighbour a message for a peer is handed to. Babel (RFC 8966) over links that lose nothing.

Each node announces itself, signed and numbered (``route_own``); neighbours pass that on with the metric of their own
way. A way is taken only if it is feasible (``route_table``), so among honest nodes no loop exists at any moment. A new
neighbour is told everything once, and changes after that (``route_tell``): what is lost or new at once, other changes
0.2 s later, an announcement that merely is newer some time later. Whoever has no feasible way left asks the origin for
a newer announcement (``route_requests``).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from functools import partial

from quicprochat.core.crypto import Crypto, Signer
from quicprochat.core.errors import WireError
from quicprochat.core.ids import PeerKey
from quicprochat.core.link import FrameType
from quicprochat.core.route_cost import Flaps
from quicprochat.core.route_frames import (
    AGAIN,
    DIGEST,
    DIGEST_BYTES,
    DISTANCE_BITS,
    INFINITY,
    REQUEST,
    UPDATE,
    decode_digest,
    decode_requests,
    decode_update,
    digest_of,
    encode_digest,
    open_announcement,
)
from quicprochat.core.route_hear import AGAIN_MS, Hearing
from quicprochat.core.route_judge import ANY, FORGIVE_MS
from quicprochat.core.route_own import Own
from quicprochat.core.route_requests import Requests
from quicprochat.core.route_table import DESTINATIONS_MAX, SELF, Neighbour, Opened, Table
from quicprochat.core.route_tell import held_digest, sink, told_digest, updates
from quicprochat.core.store import MeshStore
from quicprochat.core.time import SECOND_MS, Instant

PACE_MS = 20
"""Urgent words leave at once, and then not more often than this: a storm of them is one frame."""
GATHER_MS = 200
LAZY_MS = 2 * SECOND_MS
"""A newer announcement of an unchanged way waits so long for others; whoever waits for it gets it at once."""
HUNGRY_MS = 5 * SECOND_MS
"""A way that would be better and is not feasible: after so long a newer announcement is asked for."""
REFRESH_MS = 300 * SECOND_MS
NEIGHBOURS_MAX = 1_024
AWAY_MAX = 64
"""Neighbours whose last words are kept, so that a link that comes back need not repeat them."""

RouteFrame = tuple[PeerKey, FrameType, bytes]


class Fault(Enum):
    """What was wrong with a frame."""

    MALFORMED = "malformed"
    FORGED = "forged"
    """An announcement that its origin did not sign, or whose number is impossible. No honest node passes it on."""


@dataclass(frozen=True, slots=True)
class RouteView:
    """One route, as it is shown."""

    destination: PeerKey
    next_hop: PeerKey
    metric: int
    hops: int
    age_s: float


class Routes:
    """One node's routing. Calls in, frames out by :meth:`due`; no I/O, no clock, no entropy."""

    def __init__(
        self, signer: Signer, crypto: Crypto, *, destinations_max: int = DESTINATIONS_MAX, opened: Opened | None = None
    ) -> None:
        """``opened`` checks an announcement's bytes in place of ``crypto``: a simulator remembers the answers."""
        self._table = Table(
            signer.key, opened or partial(open_announcement, crypto=crypto), destinations_max, Instant(0)
        )
        self._own = Own(signer, self._table)
        self._hearing = Hearing(self._table, self._own)
        self._requests = Requests(self._table, self._own)
        self._flaps: dict[PeerKey, Flaps] = {}
        self._greet: dict[PeerKey, bool] = {}
        self._held_down: list[Neighbour] = []
        self._refresh_at = self._forgive_at = self._paced_until = Instant(0)
        self._soon_at: Instant | None = None
        self._lazy_at: Instant | None = None
        self._hungry_at: Instant | None = None
        self.faults = 0

    # --- ourselves

    def start(self, tx: MeshStore, now: Instant) -> None:
        """Take a sequence number above all that were ever announced: each run has an epoch of its own."""
        self._own.start(tx, now)
        spread = int.from_bytes(self._own.key[:4], "big") % (REFRESH_MS // 2)
        self._refresh_at = Instant(now + REFRESH_MS // 2 + spread)
        self._forgive_at = Instant(now + FORGIVE_MS)

    def keep(self, tx: MeshStore) -> None:
        """Write down what must outlive a crash; to be called in the transaction before frames of :meth:`due` leave."""
        self._own.keep(tx)

    @property
    def seqno(self) -> int:
        """The number of our last announcement."""
        return self._own.seqno

    @property
    def cloned(self) -> bool:
        """Whether a copy of this identity was heard announcing itself; we are silent then."""
        return self._own.cloned

    def announce(self, record_hash: bytes, flags: int, now: Instant) -> None:
        """Say another record hash (8 bytes) from now on, or other flags."""
        self._own.say(record_hash, flags)
        self._after(now)

    # --- links

    def link_up(self, neighbour: PeerKey, cost: int, digest: bytes, now: Instant) -> None:
        """A link is there. ``digest`` is what the neighbour holds of us: its :meth:`held`, from its hello; or empty."""
        table = self._table
        table.now = now
        if neighbour in table.links:
            self.link_down(neighbour, now)
        if len(table.links) >= NEIGHBOURS_MAX:
            return
        one = table.away.pop(neighbour, None) or Neighbour(neighbour, cost, table.room, now)
        one.smooth.cost = max(1, cost)
        one.price()
        flaps = self._flaps.get(neighbour)
        one.held_until = Instant(now + flaps.hold_ms(now) if flaps is not None else now)
        one.up, one.heard, one.usable = True, False, False
        table.links[neighbour] = one
        resumed = len(digest) == DIGEST_BYTES and digest == told_digest(one)
        if resumed:
            # Their ids may not have arrived.
            for number, told in enumerate(one.told):
                if told == INFINITY:
                    one.shown[number] = None
        else:
            one.forget_told()
        self._greet[neighbour] = not resumed

    def link_down(self, neighbour: PeerKey, now: Instant) -> None:
        """A link is gone; what it led to is looked for elsewhere."""
        table = self._table
        table.now = now
        one = table.links.pop(neighbour, None)
        if one is None:
            return
        one.judge.lost_way(ANY, now)
        self._flaps.setdefault(neighbour, Flaps(now)).down(now)
        if len(self._flaps) > NEIGHBOURS_MAX:
            del self._flaps[next(iter(self._flaps))]
        self._requests.link_down(neighbour)
        self._greet.pop(neighbour, None)
        heard, one.up = one.heard, False
        if one.usable:
            self._stop_using(one)
        elif one in self._held_down:
            self._held_down.remove(one)
        if heard:
            table.away[neighbour] = one
            if len(table.away) > AWAY_MAX:
                del table.away[next(iter(table.away))]
        self._after(now)

    def held(self, neighbour: PeerKey) -> bytes:
        """Return what to say in a hello: 8 bytes that stand for what we hold of this neighbour; empty for nothing."""
        one = self._table.links.get(neighbour) or self._table.away.get(neighbour)
        if one is None or one.refused or not one.ids:
            return b""
        return held_digest(one)

    def cost(
        self, neighbour: PeerKey, rtt_ms: float, loss: float, now: Instant, *, relayed: bool = False
    ) -> None:  # fmt: skip
        """Take a measurement of a link: its round trip, the share of packets lost, and whether a relay is between."""
        one = self._table.links.get(neighbour)
        if one is not None and one.smooth.measured(rtt_ms, loss, relayed=relayed):
            self._table.now = now
            one.price()
            self._reconsider(one)
            self._after(now)

    def lead_on(self, *, willing: bool) -> None:
        """Say whether others may reach further nodes through us, from the next links on; we are announced anyway."""
        self._table.leaf = not willing

    def pin(self, peers: Collection[PeerKey]) -> None:
        """Keep these destinations, contacts, when the table is full."""
        self._table.pinned = frozenset(peers)

    def _use(self, one: Neighbour) -> None:
        one.usable = True
        self._table.usable.append(one)
        self._reconsider(one)

    def _stop_using(self, one: Neighbour) -> None:
        one.usable = False
        table = self._table
        table.usable.remove(one)
        for number, best in enumerate(table.best):
            if best is one:
                table.choose(number)

    def _reconsider(self, one: Neighbour) -> None:
        """Everything that this neighbour promises may be better or worse now."""
        if one.usable:
            table = self._table
            for number, promised in enumerate(one.promised):
                if promised != INFINITY:
                    table.offer(number, one)

    # --- what comes in

    def received(self, neighbour: PeerKey, body: bytes, now: Instant) -> Fault | None:
        """Take one routing frame; return what is wrong with it, None if nothing. Never raises."""
        one = self._table.links.get(neighbour)
        if one is None:
            return None
        self._table.now = now
        try:
            fault = self._read(one, body, now)
        except WireError:
            fault = Fault.MALFORMED
        if fault is not None:
            self.faults += 1
        self._after(now)
        return fault

    def _read(self, one: Neighbour, body: bytes, now: Instant) -> Fault | None:
        kind = body[0] if body else 0
        if kind == UPDATE:
            return self._updated(one, body, now)
        if kind == REQUEST:
            for request in decode_requests(body):
                self._requests.requested(one, request, now)
        elif kind == DIGEST:
            if decode_digest(body) != (self.held(one.key) or digest_of(())) and not one.refused:
                self._hearing.ask_again(one, now)
        elif body == bytes([AGAIN]):
            self._repeated(one, now)
        else:
            return Fault.MALFORMED
        return None

    def _updated(self, one: Neighbour, body: bytes, now: Instant) -> Fault | None:
        update = decode_update(body)
        wide = one.judge.wide
        heard = self._hearing.update(one, update, now)
        if one.judge.wide != wide:
            self._reconsider(one)
        if not one.heard:
            one.heard = True
            if now >= one.held_until:
                self._use(one)
            else:
                self._held_down.append(one)
        if self._requests.waiting:
            ids, known = one.ids, len(one.ids)
            news = {ids[id] for item in update.paths if (id := item >> DISTANCE_BITS) < known}
            self._requests.met(news.union(heard.renewed))
        return Fault.FORGED if heard.forged else None

    def _repeated(self, one: Neighbour, now: Instant) -> None:
        """The neighbour wants to hear everything again, what cannot be reached included."""
        if now >= one.checked_at:
            one.checked_at = Instant(now + AGAIN_MS // 2)
            one.forget_told()
            for number in range(len(self._table.keys)):
                one.told[number] = INFINITY - 1
            self._greet.setdefault(one.key, False)

    # --- what goes out

    def _after(self, now: Instant) -> None:
        """Something happened: ask for what is starved, and set the times at which others are told."""
        table = self._table
        if table.starved:
            self._requests.ask([number for number in table.starved if table.best[number] is None], now)
            table.starved.clear()
        if table.soon and self._soon_at is None:
            self._soon_at = Instant(now + GATHER_MS)
        if table.lazy and self._lazy_at is None:
            self._lazy_at = Instant(now + LAZY_MS)
        if table.hungry and self._hungry_at is None:
            self._hungry_at = Instant(now + HUNGRY_MS)

    def deadline(self) -> Instant | None:
        """Return when :meth:`due` has something to say, if nothing happens before; 0 for at once."""
        if self._requests or self._greet or self._hearing.replies:
            return Instant(0)
        times = [self._own.deadline(), self._refresh_at, self._forgive_at, self._requests.deadline()]
        times += [self._soon_at, self._lazy_at, self._hungry_at, *(one.held_until for one in self._held_down)]
        if self._table.urgent:
            times.append(self._paced_until)
        return min(at for at in times if at is not None)

    def due(self, now: Instant) -> list[RouteFrame]:
        """Return the frames to send now, in this order for each neighbour."""
        self._timers(now)
        table = self._table
        out: list[tuple[PeerKey, bytes]] = []
        greeted, self._greet = self._greet, {}
        if (numbers := self._ripe(now)) and table.links:
            sink(table, numbers)
            for one in table.links.values():
                if one.key not in greeted:
                    out += [(one.key, body) for body in updates(table, one, numbers)]
        for key, first in greeted.items():
            everything = range(len(table.keys))
            sink(table, everything)
            out += [(key, body) for body in updates(table, table.links[key], everything, greeting=True, first=first)]
        replies, self._hearing.replies = self._hearing.replies, []
        out += [(one.key, body) for one, body in replies if table.links.get(one.key) is one]
        out += self._requests.frames()
        return [(key, FrameType.ROUTE, body) for key, body in out]

    def _ripe(self, now: Instant) -> list[int]:
        """Return the destinations that neighbours must be told of now."""
        table = self._table
        numbers: dict[int, None] = {}
        if table.urgent and now >= self._paced_until:
            numbers, table.urgent = table.urgent, {}
            self._paced_until = Instant(now + PACE_MS)
        if self._soon_at is not None and now >= self._soon_at:
            numbers = {**numbers, **table.soon}
            table.soon, self._soon_at = {}, None
        if self._lazy_at is not None and now >= self._lazy_at:
            numbers = {**numbers, **table.lazy}
            table.lazy, self._lazy_at = {}, None
        return list(numbers)

    def _timers(self, now: Instant) -> None:
        table = self._table
        table.now = now
        for one in [one for one in self._held_down if now >= one.held_until]:
            self._held_down.remove(one)
            self._use(one)
        self._own.timers(now)
        if now >= self._refresh_at:
            self._refresh_at = Instant(now + REFRESH_MS)
            for one in table.links.values():
                if one.key not in self._greet:
                    self._hearing.replies.append((one, encode_digest(told_digest(one))))
        if now >= self._forgive_at:
            self._forgive_at = Instant(now + FORGIVE_MS // 4)
            for one in table.usable:
                if one.judge and one.judge.forgive(now):
                    self._reconsider(one)
        if self._hungry_at is not None and now >= self._hungry_at:
            self._hungry_at = None
            hungry, table.hungry = table.hungry, {}
            for number in hungry:
                table.choose(number)
            self._requests.ask(table.hungry, now)
            table.hungry = {}
        self._requests.again(now)
        self._after(now)

    # --- what the rest of this node asks

    @property
    def destinations(self) -> int:
        """How many destinations are known, ourselves among them."""
        return len(self._table.index)

    def cost_of(self, neighbour: PeerKey) -> int | None:
        """Return what the link to a neighbour is counted with; None without a link."""
        one = self._table.links.get(neighbour)
        return None if one is None else one.smooth.cost

    def next_hops(self, destination: PeerKey) -> tuple[PeerKey, ...]:
        """Return the neighbours to hand a message for this peer to: feasible ones, best first, at most two."""
        number = self._table.index.get(destination)
        if number is None or number == SELF or self._table.best[number] is None:
            return ()
        return tuple(neighbour.key for _, neighbour in self._table.ways(number)[:2])

    def next_hop(self, destination: PeerKey) -> PeerKey | None:
        """Return the first of :meth:`next_hops`, faster."""
        number = self._table.index.get(destination)
        best = None if number is None or number == SELF else self._table.best[number]
        return None if best is None else best.key

    def awaits(self, neighbour: PeerKey, destination: PeerKey) -> bool:
        """Say whether a neighbour reaches a destination through us, as far as what it tells and does not tell shows.

        By split horizon it tells no way to whom it is told the way. So among honest neighbours whose routes have
        settled exactly one is told so by each; one that leads nobody on tells the same, and is wrongly taken for one.
        """
        one, number = self._table.links.get(neighbour), self._table.index.get(destination)
        if one is None or number is None or one.promised[number] != INFINITY:
            return False
        return number == SELF or (one.heard and self._table.best[number] not in (None, one))

    def since(self, destination: PeerKey) -> Instant | None:
        """Return since when a destination has its next hop; None when it has none."""
        number = self._table.index.get(destination)
        if number is None or self._table.best[number] is None:
            return None
        return Instant(self._table.since[number])

    def changed(self) -> set[PeerKey]:
        """Return the destinations whose next hop appeared, changed or went since the last call."""
        moved, self._table.moved = self._table.moved, set()
        return moved

    def judge(
        self, neighbour: PeerKey, destination: PeerKey, arrived: bool, now: Instant, since: Instant | None = None
    ) -> None:
        """A receipt came for what this neighbour was handed (``since``), or none in the time it should have taken."""
        table = self._table
        one, number = table.links.get(neighbour), table.index.get(destination)
        if one is None or number is None or number == SELF:
            return
        table.now = now
        wide = one.judge.wide
        one.judge.judge(number, now, arrived=arrived, since=since)
        if one.usable:
            if one.judge.wide != wide:
                self._reconsider(one)
            elif one.promised[number] != INFINITY:
                table.choose(number)
        if not arrived:
            self._requests.ask(list(table.hungry), now)
        self._after(now)

    def record_hash(self, destination: PeerKey) -> bytes | None:
        """Return the 8-byte hash of a destination's newest record, as it announces it."""
        number = self._table.index.get(destination)
        newest = None if number is None else self._table.newest[number]
        return None if newest is None else newest.record_hash

    def table(self, now: Instant | None = None) -> list[RouteView]:
        """Return all routes; their age is that at the last call if ``now`` is not given."""
        at = self._table.now if now is None else now
        return [
            RouteView(w.destination, w.next_hop, w.metric, w.hops, max(0, at - w.since) / SECOND_MS)
            for w in self._table.views()
        ]

    @property
    def conflicts(self) -> int:
        """Announcements of one origin with one number and different words: that identity is in use twice."""
        return self._table.conflicts
