"""Routes of one node: which neighbour a message for a peer is handed to. Babel (RFC 8966) over links that lose nothing.

Each node announces itself, signed and numbered; neighbours pass that on with the metric of their own way. A way is
taken only if it is feasible (``route_table``), so among honest nodes no loop exists at any moment. A new neighbour is
told everything once, and changes after that: what is lost or new at once, other changes 0.2 s later, an announcement
that merely is newer some time later. Whoever has no feasible way left asks the origin for a newer announcement.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from itertools import islice

from quicprochat.core.bucket import TokenBucket
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
    HASH_BYTES,
    INFINITY,
    ITEMS_MAX,
    REQUEST,
    REQUEST_HOPS,
    REQUESTS_MAX,
    SEQNO_MAX,
    UNDEFINED,
    UPDATE,
    Announcement,
    Request,
    announce,
    decode_digest,
    decode_requests,
    decode_update,
    digest_of,
    encode_digest,
    encode_requests,
    encode_update,
    open_announcement,
)
from quicprochat.core.route_judge import FORGIVE_MS
from quicprochat.core.route_table import DESTINATIONS_MAX, SELF, Neighbour, Opened, Table
from quicprochat.core.route_wants import Wants
from quicprochat.core.store import MeshStore
from quicprochat.core.time import HOUR_MS, SECOND_MS, Instant

PACE_MS = 20
"""Urgent words leave at once, and then not more often than this: a storm of them is one frame."""
GATHER_MS = 200
LAZY_MS = 2 * SECOND_MS
"""A newer announcement of an unchanged way waits so long for others; whoever waits for it gets it at once."""
HUNGRY_MS = 5 * SECOND_MS
"""A way that would be better and is not feasible: after so long a newer announcement is asked for."""
RESIGN_MS = HOUR_MS
REFRESH_MS = 300 * SECOND_MS
AGAIN_MS = 60 * SECOND_MS
BUMPS, BUMPS_PER_S = 5, 0.5
"""Announcements that requests may make us sign."""
NEIGHBOURS_MAX = 1_024
AWAY_MAX = 64
"""Neighbours whose last words are kept, so that a link that comes back need not repeat them."""
ASKED_MAX = 3

_EPOCH_KEY = "route.epoch"
_EPOCH_BITS = 32

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
        self._signer = signer
        self._table = Table(
            signer.key, opened or partial(open_announcement, crypto=crypto), destinations_max, Instant(0)
        )
        self._wants = Wants()
        self._epoch = self._count = 0
        self._kept_epoch = 0
        self._record_hash = bytes(HASH_BYTES)
        self._flags = 0
        self._jumped = self.cloned = False
        self.leaf = False
        """True: only we ourselves are announced, for we pass nothing on."""
        self._bumps = TokenBucket(BUMPS, BUMPS_PER_S, Instant(0))
        self._flaps: dict[PeerKey, Flaps] = {}
        self._asks: dict[PeerKey, list[Request]] = {}
        self._greet: dict[PeerKey, bool] = {}
        self._held_down: list[Neighbour] = []
        self._replies: list[tuple[PeerKey, bytes]] = []
        self._resign_at = self._refresh_at = self._forgive_at = Instant(0)
        self._paced_until = Instant(0)
        self._soon_at: Instant | None = None
        self._lazy_at: Instant | None = None
        self._hungry_at: Instant | None = None
        self._bump_at: Instant | None = None
        self.faults = 0

    # --- ourselves

    def start(self, tx: MeshStore, now: Instant) -> None:
        """Take a sequence number above all that were ever announced: each run has an epoch of its own."""
        stored = tx.value(_EPOCH_KEY)
        self._epoch = int.from_bytes(stored, "big") + 1 if stored else 1
        self.keep(tx)
        self._bumps = TokenBucket(BUMPS, BUMPS_PER_S, now)
        spread = int.from_bytes(self._signer.key[:4], "big")
        self._resign_at = Instant(now + 1 + spread % RESIGN_MS)
        self._refresh_at = Instant(now + REFRESH_MS // 2 + spread % (REFRESH_MS // 2))
        self._forgive_at = Instant(now + FORGIVE_MS)
        self._sign(urgent=True)

    def keep(self, tx: MeshStore) -> None:
        """Write down what must outlive a crash; to be called in the transaction before frames of :meth:`due` leave."""
        if self._epoch != self._kept_epoch:
            tx.set_value(_EPOCH_KEY, self._epoch.to_bytes(4, "big"))
            self._kept_epoch = self._epoch

    @property
    def seqno(self) -> int:
        """The number of our last announcement."""
        return self._epoch << _EPOCH_BITS | self._count

    def announce(self, record_hash: bytes, flags: int, now: Instant) -> None:
        """Say another record hash (8 bytes) from now on, or other flags."""
        if (record_hash, flags) != (self._record_hash, self._flags):
            self._record_hash, self._flags = record_hash, flags
            self._count += 1
            self._sign(urgent=False)
            self._after(now)

    def _sign(self, *, urgent: bool) -> None:
        if self.cloned:
            return
        own = announce(self._signer, self.seqno, self._record_hash, self._flags)
        table = self._table
        table.newest[SELF] = table.current[SELF] = own
        (table.urgent if urgent else table.lazy)[SELF] = None

    def _bump(self, now: Instant) -> None:
        """Somebody waits for a newer announcement of ours."""
        if wait := self._bumps.wait_ms(now):
            self._bump_at = Instant(now + wait)
            return
        self._bumps.take(now)
        self._bump_at = None
        self._count += 1
        self._sign(urgent=True)

    def _heard_own(self, wire: bytes, neighbour: Neighbour, now: Instant) -> None:
        """An announcement of ours came back. A newer one than our last: this home was restored, or copied.

        We go past it once; the second time a copy of us must be alive, and we fall silent.
        """
        own = neighbour.said[SELF] = Announcement(wire)
        if own.seqno <= self.seqno or self.cloned or not neighbour.proofs.take(now):
            return
        other = self._table.opened(wire)
        if other is None:
            return
        if self._jumped or other.seqno >> _EPOCH_BITS >= (SEQNO_MAX >> _EPOCH_BITS) - 1:
            self.cloned = True
            return
        self._jumped = True
        self._epoch, self._count = (other.seqno >> _EPOCH_BITS) + 1, 0
        self._sign(urgent=True)

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
        resumed = len(digest) == DIGEST_BYTES and digest == self._told_digest(one)
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
        self._flaps.setdefault(neighbour, Flaps(now)).down(now)
        if len(self._flaps) > NEIGHBOURS_MAX:
            del self._flaps[next(iter(self._flaps))]
        self._asks.pop(neighbour, None)
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
        return digest_of(
            (id, one.promised[number], announcement)
            for id, number in enumerate(one.ids)
            if number != UNDEFINED
            and one.promised[number] != INFINITY
            and (announcement := one.said[number]) is not None
        )

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
                self._requested(one, request, now)
        elif kind == DIGEST:
            self._compared(one, decode_digest(body), now)
        elif body == bytes([AGAIN]):
            self._repeated(one, now)
        else:
            return Fault.MALFORMED
        return None

    def _updated(self, one: Neighbour, body: bytes, now: Instant) -> Fault | None:
        update = decode_update(body)
        table = self._table
        if not (update.first or one.heard or one.ids):
            # It takes up what we said to hold of it, and we do not any more.
            self._ask_again(one, now)
        fault = None
        before: list[int] = []
        if update.first:
            before = [number for number, best in enumerate(table.best) if best is one]
            one.forget_promises()
        touched: list[int] = []
        for id, wire in update.new:
            if not self._defined(one, id, wire, touched, now):
                fault = Fault.FORGED
        ids, promised, said = one.ids, one.promised, one.said
        for id, tail in update.renewed:
            number = ids[id] if id < len(ids) else UNDEFINED
            if number == UNDEFINED:
                continue
            if number == SELF:
                self._heard_own(table.keys[SELF] + tail, one, now)
                continue
            announcement = table.newest[number]
            if announcement is None or announcement.wire[32:] != tail:
                announcement = table.renewed(number, table.keys[number] + tail, one, now)
            if announcement is None:
                fault = Fault.FORGED
            else:
                said[number] = announcement
                touched.append(number)
        best, distances, step, usable = table.best, table.distance, one.step, one.usable
        known = len(ids)
        for item in update.paths:
            id = item >> DISTANCE_BITS
            if id >= known or (number := ids[id]) == UNDEFINED:
                continue
            found = item & INFINITY
            if promised[number] == found:
                continue
            promised[number] = found
            if usable and (best[number] is one or found + step < distances[number]):
                table.offer(number, one)
        if usable:
            for number in touched:
                table.offer(number, one)
            for lost in before:
                if promised[lost] == INFINITY:
                    table.choose(lost)
        if not one.heard:
            one.heard = True
            if now >= one.held_until:
                self._use(one)
            else:
                self._held_down.append(one)
        if self._wants:
            self._meet({*touched, *(ids[id] for item in update.paths if (id := item >> DISTANCE_BITS) < known)})
        return fault

    def _defined(self, one: Neighbour, id: int, wire: bytes, touched: list[int], now: Instant) -> bool:
        """A neighbour gives a destination its number; say whether the announcement is right."""
        table = self._table
        if id == UNDEFINED:
            return False
        if wire[:32] == self._signer.key:
            one.define(id, SELF)
            self._heard_own(wire, one, now)
            return True
        number, announcement = table.learn(wire, one, now)
        if announcement is None:
            return False
        old = one.ids[id] if id < len(one.ids) else UNDEFINED
        if old != number:
            one.define(id, number)
            if old != UNDEFINED and one.promised[old] != INFINITY:
                one.promised[old] = INFINITY
                if one.usable:
                    table.offer(old, one)
        if number != UNDEFINED:
            one.said[number] = announcement
            if one.promised[number] != INFINITY:
                touched.append(number)
            newest = table.newest[number]
            if newest is not None and announcement.seqno < newest.seqno and announcement.key == one.key:
                self._remind(one, number, newest)
        return True

    def _remind(self, one: Neighbour, number: int, newest: Announcement) -> None:
        """A neighbour announces itself with a number it has passed before: show it, so that it can go on from there."""
        item = [number.to_bytes(2, "big"), newest.wire]
        self._replies.append((one.key, encode_update(item, (), [number << DISTANCE_BITS | INFINITY])))
        one.shown[number] = newest

    def _compared(self, one: Neighbour, digest: bytes, now: Instant) -> None:
        """The neighbour says what we should hold of it."""
        if digest != (self.held(one.key) or digest_of(())) and not one.refused and now >= one.again_at:
            self._ask_again(one, now)

    def _ask_again(self, one: Neighbour, now: Instant) -> None:
        one.again_at = Instant(now + AGAIN_MS)
        self._replies.append((one.key, bytes([AGAIN])))

    def _repeated(self, one: Neighbour, now: Instant) -> None:
        """The neighbour wants to hear everything again, what cannot be reached included."""
        if now >= one.checked_at:
            one.checked_at = Instant(now + AGAIN_MS // 2)
            one.forget_told()
            for number in range(len(self._table.keys)):
                one.told[number] = INFINITY - 1
            self._greet.setdefault(one.key, False)

    # --- requests

    def _requested(self, one: Neighbour, request: Request, now: Instant) -> None:
        """A neighbour asks for a newer announcement: give it, or ask on. Source: RFC 8966 §3.8.1.2."""
        table = self._table
        number = table.index.get(request.key)
        if number is None or not one.requests.take(now):
            return
        current = table.current[number]
        if number == SELF:
            if request.seqno > self.seqno and self._bump_at is None:
                self._bump(now)
            return
        best = table.best[number]
        if best is not None and best is not one and current is not None and current.seqno >= request.seqno:
            table.urgent[number] = None
            return
        if request.hops <= 1 or not self._wants.pass_on(number, request.seqno, one.key, now):
            return
        onward = best if best is not None and best is not one else self._nearest(number, one)
        if onward is not None:
            self._asks.setdefault(onward.key, []).append(Request(request.key, request.seqno, request.hops - 1))

    def _nearest(self, number: int, but: Neighbour) -> Neighbour | None:
        """Return the neighbour that promises the shortest way, feasible or not."""
        table = self._table
        found = [(d, n.key, n) for n in table.usable if n is not but and (d := table.through(number, n)) != INFINITY]
        return min(found)[2] if found else None

    def _ask(self, number: int, seqno: int) -> None:
        """Ask the neighbours that promise the shortest ways, feasible or not."""
        table = self._table
        found = [(d, n.key) for n in table.usable if (d := table.through(number, n)) != INFINITY]
        for _, key in sorted(found)[:ASKED_MAX]:
            self._asks.setdefault(key, []).append(Request(table.keys[number], seqno, REQUEST_HOPS))

    def _meet(self, numbers: Iterable[int]) -> None:
        table = self._table
        for number in numbers:
            if number != UNDEFINED and table.best[number] is not None:
                current = table.current[number]
                if current is not None and self._wants.met(number, current.seqno):
                    table.urgent[number] = None

    # --- what goes out

    def _after(self, now: Instant) -> None:
        """Something happened: ask for what is starved, and set the times at which others are told."""
        table = self._table
        if table.starved:
            for number in table.starved:
                if table.best[number] is None:
                    seqno = table.floor_seqno[number] + 1
                    if self._wants.ask(number, seqno, now):
                        self._ask(number, seqno)
            table.starved.clear()
        if table.soon and self._soon_at is None:
            self._soon_at = Instant(now + GATHER_MS)
        if table.lazy and self._lazy_at is None:
            self._lazy_at = Instant(now + LAZY_MS)
        if table.hungry and self._hungry_at is None:
            self._hungry_at = Instant(now + HUNGRY_MS)

    def deadline(self) -> Instant | None:
        """Return when :meth:`due` has something to say, if nothing happens before; 0 for at once."""
        table = self._table
        if self._asks or self._greet or self._replies:
            return Instant(0)
        times = [self._resign_at, self._refresh_at, self._forgive_at, self._soon_at, self._lazy_at, self._hungry_at]
        times += [self._bump_at, self._wants.deadline(), *(one.held_until for one in self._held_down)]
        if table.urgent:
            times.append(self._paced_until)
        return min(at for at in times if at is not None)

    def due(self, now: Instant) -> list[RouteFrame]:
        """Return the frames to send now, in this order for each neighbour."""
        self._timers(now)
        table, out = self._table, []
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
        greeted = self._greet
        self._greet = {}
        if numbers and table.links:
            self._sink(numbers)
            listed = list(numbers)
            for one in table.links.values():
                if one.key not in greeted:
                    out += self._told(one, listed)
        for key, first in greeted.items():
            everything = range(len(table.keys))
            self._sink(everything)
            out += self._told(table.links[key], everything, greeting=True, first=first)
        out += [(key, FrameType.ROUTE, body) for key, body in self._replies if key in table.links]
        self._replies.clear()
        for key, requests in self._asks.items():
            rest = iter(requests)
            while batch := list(islice(rest, REQUESTS_MAX)):
                out.append((key, FrameType.ROUTE, encode_requests(batch)))
        self._asks.clear()
        return out

    def _sink(self, numbers: Iterable[int]) -> None:
        table = self._table
        for number in numbers:
            current = table.current[number]
            if table.best[number] is not None and current is not None:
                table.sink(number, table.distance[number], current)

    def _told(
        self, one: Neighbour, numbers: Sequence[int], *, greeting: bool = False, first: bool = False
    ) -> list[RouteFrame]:
        """Return what this neighbour does not know yet of these destinations; when greeting, at least one frame."""
        frames: list[RouteFrame] = []
        for start in range(0, len(numbers), ITEMS_MAX):
            new, renewed, paths = self._news(one, numbers[start : start + ITEMS_MAX])
            if new or renewed or paths or greeting:
                frames.append((one.key, FrameType.ROUTE, encode_update(new, renewed, paths, first=first)))
                first = greeting = False
        return frames

    def _news(self, one: Neighbour, numbers: Sequence[int]) -> tuple[list[bytes], list[bytes], list[int]]:
        """Return the three parts of an UPDATE, and count them as told. A way by this neighbour is no way for it."""
        table = self._table
        best, distances, current, told, shown = table.best, table.distance, table.current, one.told, one.shown
        new: list[bytes] = []
        renewed: list[bytes] = []
        paths: list[int] = []
        for number in numbers:
            by = best[number]
            if by is None or by is one or (self.leaf and number != SELF):
                if told[number] != INFINITY:
                    told[number] = INFINITY
                    paths.append(number << DISTANCE_BITS | INFINITY)
                continue
            announcement = current[number]
            if (before := shown[number]) is not announcement and announcement is not None:
                if before is None:
                    new += (number.to_bytes(2, "big"), announcement.wire)
                else:
                    renewed += (number.to_bytes(2, "big"), announcement.wire[32:])
                shown[number] = announcement
            if told[number] != (distance := distances[number]):
                told[number] = distance
                paths.append(number << DISTANCE_BITS | distance)
        return new, renewed, paths

    def _told_digest(self, one: Neighbour) -> bytes:
        return digest_of(
            (number, told, announcement)
            for number, told in enumerate(one.told)
            if told != INFINITY and (announcement := one.shown[number]) is not None
        )

    def _timers(self, now: Instant) -> None:
        table = self._table
        table.now = now
        for one in [one for one in self._held_down if now >= one.held_until]:
            self._held_down.remove(one)
            self._use(one)
        if now >= self._resign_at:
            self._resign_at = Instant(now + RESIGN_MS)
            self._count += 1
            self._sign(urgent=False)
        if self._bump_at is not None and now >= self._bump_at:
            self._bump(now)
        if now >= self._refresh_at:
            self._refresh_at = Instant(now + REFRESH_MS)
            for one in table.links.values():
                if one.key not in self._greet:
                    self._replies.append((one.key, encode_digest(self._told_digest(one))))
        if now >= self._forgive_at:
            self._forgive_at = Instant(now + FORGIVE_MS // 4)
            for one in list(table.usable):
                if one.judge and one.judge.forgive(now):
                    self._reconsider(one)
        if self._hungry_at is not None and now >= self._hungry_at:
            self._hungry_at = None
            hungry, table.hungry = table.hungry, {}
            for number in hungry:
                table.choose(number)
            self._ask_better(table.hungry, now)
            table.hungry = {}
        for number, seqno in self._wants.again(now):
            table.choose(number)
            if table.best[number] is None or number in table.hungry:
                self._ask(number, seqno)
            else:
                self._wants.forget(number)
            table.hungry.pop(number, None)
        self._after(now)

    def _ask_better(self, numbers: Iterable[int], now: Instant) -> None:
        """Ask for an announcement under which better ways become feasible."""
        for number in numbers:
            seqno = self._table.floor_seqno[number] + 1
            if self._wants.ask(number, seqno, now):
                self._ask(number, seqno)

    # --- what others of this node ask

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

    def changed(self) -> set[PeerKey]:
        """Return the destinations whose next hop appeared, changed or went since the last call."""
        moved, self._table.moved = self._table.moved, set()
        return moved

    def judge(self, neighbour: PeerKey, destination: PeerKey, arrived: bool, now: Instant) -> None:
        """A receipt came for what this neighbour was handed, or none in the time it should have taken."""
        table = self._table
        one, number = table.links.get(neighbour), table.index.get(destination)
        if one is None or number is None or number == SELF:
            return
        table.now = now
        wide = one.judge.wide
        one.judge.judge(number, now, arrived=arrived)
        if one.usable:
            if one.judge.wide != wide:
                self._reconsider(one)
            elif one.promised[number] != INFINITY:
                table.choose(number)
        if not arrived:
            self._ask_better(list(table.hungry), now)
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
