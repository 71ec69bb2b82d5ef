"""A contact trace played with the carrying of ``core``: every node is the code that runs in a real one.

What is simulated is the world around it: links that come and go with the contacts, take no time, and carry so many
bytes in each interval; a gate that everything honest passes; recipients that sign receipts. Signatures are left out,
their bytes are not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from quicprochat.core.carry import Carry, CarryLimits
from quicprochat.core.entries import Entry, entry_of
from quicprochat.core.envelope import HEADER_BYTES, Kind
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.receipt import Receipt, Status
from quicprochat.core.shelf import Parcel
from quicprochat.core.time import Instant
from quicprochat.sim.contacts import INTERVAL_S, Pair, Trace, Written, by_time
from quicprochat.sim.crypto import SimEntropy
from quicprochat.sim.outcome import Outcome

FRAME_BYTES = 5
MESSAGE_BYTES = 775
"""A text of 300 bytes, sealed."""
RESULT_BYTES = 34
WITHOUT_LIMIT = 1 << 40


@dataclass(frozen=True, slots=True)
class Mail:
    """An envelope: a message (``number``), or the receipt for one."""

    id: EnvelopeId
    entry: Entry
    kind: Kind
    src: PeerKey
    dst: PeerKey
    size: int
    number: int
    expires_at: Instant

    def parcel(self, via: PeerKey, *, own: bool = False) -> Parcel:
        """Return what a node that holds it tells carrying."""
        return Parcel(self.entry, self.kind, self.src, self.dst, self.size, via, self.expires_at, own)


class Node:
    """A carrier, and around it what a real node does with its store and its gate."""

    __slots__ = ("carry", "gone", "key", "links", "world")

    def __init__(self, world: Carriers, key: PeerKey, limits: CarryLimits) -> None:
        self.world = world
        self.key = key
        self.carry = Carry(key, SimEntropy(key), limits)
        self.links: dict[PeerKey, Link] = {}

    def write(self, mail: Mail, now: Instant) -> None:
        """Put something of our own into the outbox."""
        self.carry.hold(mail.parcel(self.key, own=True), now)

    def take_in(self, mail: Mail, via: PeerKey, now: Instant) -> None:
        """An envelope came over a link."""
        carry = self.carry
        if mail.kind is Kind.RECEIPT:
            self.world.outcome.control_bytes += mail.size
            for id in carry.cured([self.world.messages[mail.number].id], mail.src, via, mail.expires_at):
                carry.release(id)
        else:
            self.world.handed_over(mail, self)
        if mail.dst == self.key:
            carry.seen(mail.entry, mail.id, mail.expires_at, now, settled=mail.kind is Kind.MESSAGE)
            if mail.kind is Kind.MESSAGE:
                self.write(self.world.receipt(mail), now)
        elif carry.is_cured(mail.id, mail.dst):
            carry.seen(mail.entry, mail.id, mail.expires_at, now, settled=True)
        else:
            carry.hold(mail.parcel(via), now)


class Link:
    """One contact of two nodes while it lasts, and what its bandwidth leaves of this interval."""

    __slots__ = ("left", "queues")

    def __init__(self, one: Node, other: Node, budget: int) -> None:
        self.left = budget
        self.queues: dict[PeerKey, deque[tuple[int, bytes]]] = {one.key: deque(), other.key: deque()}


class Carriers:
    """All nodes of a trace."""

    def __init__(
        self, trace: Trace, messages: Sequence[Written], ttl_s: int, *, bytes_per_s: int | None, store: int | None
    ) -> None:
        """``bytes_per_s`` bounds a contact, both directions together; ``store`` strangers' messages in a node."""
        self.trace = trace
        self.ttl_s = ttl_s
        self.outcome = Outcome(messages, ttl_s)
        self.budget = WITHOUT_LIMIT if bytes_per_s is None else bytes_per_s * INTERVAL_S
        limits = CarryLimits(1 << 50, 1 << 40 if store is None else store)
        self.nodes = [Node(self, PeerKey(sha256(b"node %d" % id).digest()), limits) for id in trace.ids]
        self._by_key = {node.key: node for node in self.nodes}
        self._queue = by_time(messages)
        self.messages = {one.number: self._message(one) for one in messages}
        self.receipts: dict[int, Mail] = {}
        self.mail: dict[EnvelopeId, Mail] = {mail.id: mail for mail in self.messages.values()}
        self._holders: dict[int, list[Node]] = {one.number: [] for one in messages}
        self._links: dict[Pair, Link] = {}
        self._busy: dict[Node, None] = {}
        self._inbox: dict[Node, list[tuple[PeerKey, int, bytes]]] = {}
        self._now = 0

    def _instant(self, at: int) -> Instant:
        return Instant((at - self.trace.begin) * 1_000)

    def _message(self, one: Written) -> Mail:
        id = EnvelopeId(sha256(b"message %d" % one.number).digest())
        created = self._instant(one.created)
        return Mail(
            id, entry_of(created + 1, id), Kind.MESSAGE, self.nodes[one.src].key, self.nodes[one.dst].key,
            MESSAGE_BYTES, one.number, Instant(created + self.ttl_s * 1_000),
        )  # fmt: skip

    def receipt(self, mail: Mail) -> Mail:
        """Return the receipt for a message that has arrived."""
        id = EnvelopeId(sha256(b"receipt" + mail.id).digest())
        size = HEADER_BYTES + len(Receipt(Status.DELIVERED, (mail.id,)).encode())
        created = self._instant(self._now)
        made = Mail(id, entry_of(created + 1, id), Kind.RECEIPT, mail.dst, mail.src, size, mail.number, mail.expires_at)
        self.mail[id] = self.receipts[mail.number] = made
        return made

    def handed_over(self, mail: Mail, node: Node) -> None:
        """A message crossed a link; count it, and whether that was of use."""
        holders = self._holders[mail.number]
        if node in holders:
            self.outcome.duplicates += 1
        holders.append(node)
        self.outcome.copied((mail.number,))
        if mail.dst == node.key:
            self.outcome.arrived(mail.number, self._now)

    def run(self, progress: Callable[[float], None] = lambda part: None) -> Outcome:
        """Play the trace from its first contact to its last."""
        written = deque(self._queue)
        ending = deque(self._queue)
        last = self.trace.begin
        for place, interval in enumerate(self.trace.intervals):
            self._now = interval.start
            if interval.start != last + INTERVAL_S:
                self._unlink(set())
            while written and written[0].created < interval.start:
                self._write(written.popleft())
            while ending and ending[0].created + self.ttl_s < interval.start:
                self._expire(ending.popleft().number)
            self._unlink(set(interval.pairs))
            for link in self._links.values():
                link.left = self.budget
            for pair in self._links:
                for at in pair:
                    self._busy[self.nodes[at]] = None
            for pair in interval.pairs:
                self._link(pair)
            self._settle()
            while written and written[0].created < interval.start + INTERVAL_S:
                self._now = written[0].created
                self._write(written.popleft())
                self._settle()
            last = interval.start
            progress(place / len(self.trace.intervals))
        return self.outcome

    def _write(self, one: Written) -> None:
        node = self.nodes[one.src]
        node.write(self.messages[one.number], self._instant(one.created))
        self._holders[one.number].append(node)
        self._busy[node] = None

    def _expire(self, number: int) -> None:
        for mail in (self.messages[number], self.receipts.get(number)):
            if mail is not None:
                for node in self.nodes:
                    node.carry.release(mail.id)
        self._holders[number] = []

    def _link(self, pair: Pair) -> None:
        if pair in self._links:
            return
        one, other = self.nodes[pair[0]], self.nodes[pair[1]]
        self._links[pair] = link = Link(one, other, self.budget)
        for node, peer in ((one, other), (other, one)):
            node.links[peer.key] = link
            node.carry.link_up(peer.key, self._instant(self._now))
            self._busy[node] = None

    def _unlink(self, staying: set[Pair]) -> None:
        for pair in [pair for pair in self._links if pair not in staying]:
            del self._links[pair]
            one, other = self.nodes[pair[0]], self.nodes[pair[1]]
            for node, peer in ((one, other), (other, one)):
                del node.links[peer.key]
                node.carry.link_down(peer.key, self._instant(self._now))

    def _settle(self) -> None:
        """Let everything happen that can at this moment."""
        now = self._instant(self._now)
        for node in self._busy:
            deadline = node.carry.deadline()
            if deadline is not None and deadline <= now:
                node.carry.tick(now)
        while self._busy:
            node = next(iter(self._busy))
            del self._busy[node]
            for peer, kind, body in self._inbox.pop(node, ()):
                if kind == 0:
                    node.take_in(self.mail[EnvelopeId(body)], peer, now)
                else:
                    node.carry.received(peer, kind, body, now)
            self._send(node, now)

    def _send(self, node: Node, now: Instant) -> None:
        while self._send_once(node, now):
            pass

    def _send_once(self, node: Node, now: Instant) -> bool:
        """Send what is to be said and handed over; say whether there may be more to say after that."""
        handed = False
        for say in node.carry.poll(now):
            node.links[say.peer].queues[node.key].append((say.kind, say.body))
        for peer, link in node.links.items():
            queue = link.queues[node.key]
            while queue and len(queue[0][1]) + FRAME_BYTES <= link.left:
                kind, body = queue.popleft()
                self._deliver(node, peer, link, len(body) + FRAME_BYTES, kind, body)
                self.outcome.control_bytes += len(body) + FRAME_BYTES
            if not queue:
                room = link.left
                for id in node.carry.take(peer, room - FRAME_BYTES - RESULT_BYTES, now):
                    mail = self.mail[id]
                    self._deliver(node, peer, link, mail.size + FRAME_BYTES + RESULT_BYTES, 0, id)
                    self.outcome.control_bytes += FRAME_BYTES + RESULT_BYTES
                    handed = True
        return handed

    def _deliver(self, node: Node, peer: PeerKey, link: Link, size: int, kind: int, body: bytes) -> None:
        link.left -= size
        target = self._by_key[peer]
        self._inbox.setdefault(target, []).append((node.key, kind, body))
        self._busy[target] = None
