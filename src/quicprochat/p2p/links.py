"""The links of a node: accepting, dialling, one link per peer, and what stands between a link and the node."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from quicprochat.core.address import Address
from quicprochat.core.bucket import TokenBucket
from quicprochat.core.crypto import Crypto
from quicprochat.core.errors import RemoteError, UnavailableError, WireError
from quicprochat.core.events import Event, LinkDown, LinkId, LinkMeasured, LinkUp, RecordArrived
from quicprochat.core.gate import Checked, Reject, check
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.link import Goodbye, Hello, keep_new
from quicprochat.core.reach import Source
from quicprochat.core.record import PeerRecord, open_record
from quicprochat.core.store import Fate, MeshStore
from quicprochat.core.time import Instant
from quicprochat.core.underlay import Hint, counted_rtt_ms
from quicprochat.p2p.book import AddressBook
from quicprochat.p2p.dialler import Dialler, Target
from quicprochat.p2p.driver import Driver
from quicprochat.p2p.edge import Edge
from quicprochat.p2p.link import CHECK_INLINE, ByteStream, PeerLink
from quicprochat.p2p.reach import Reach

log = logging.getLogger("quicprochat.link")

LINKS_MAX = 512
STRANGERS_MAX = 256
"""Links to peers who are no contacts; contacts always find room beside them."""
STRANGERS_BURST, STRANGERS_PER_S = 8_000, 2_000
"""Envelopes of neighbours who are no contacts that are verified, of all of them together: half a small core (guess).
One of them alone gets ``link.STRANGER_PER_S``."""
CARDS_MAX = 4_096
"""Records kept at hand for sealing; the store has the others."""
DIAL_S = 5.0
MEET_S = 2.0
"""A dial on the local network: who is there answers within milliseconds."""
MEET_MAX = 64
"""Strangers dialled because discovery heard of them: in a crowd, a part of it links the rest (guess)."""
STREAM_S = 5.0
MEASURE_S = 15.0
"""What a link costs is looked at so often; costs are smoothed over eight looks."""


class Connection(Protocol):
    """What the links need of a transport's connection; ``peer`` is proved by the transport."""

    @property
    def peer(self) -> bytes:
        """The key at the other end."""
        ...

    @property
    def dialled(self) -> bool:
        """True when we opened it."""
        ...

    async def stream(self, timeout_s: float) -> ByteStream:
        """Return the one stream."""
        ...

    def close(self, code: int, reason: str) -> None:
        """End it."""
        ...

    def remote_address(self) -> tuple[str, int] | None:
        """Return where the peer is."""
        ...

    def relayed(self) -> bool:
        """Say whether a relay carries it."""
        ...

    def rtt_ms(self) -> float | None:
        """Return the round trip."""
        ...

    def packets_in(self) -> int:
        """Return how many packets were received on it."""
        ...

    def lost(self) -> float:
        """Return the share of packets that got lost since this was asked last."""
        ...


class Transport(Protocol):
    """What the links need of a transport."""

    async def connect(
        self, key: bytes, addresses: list[tuple[str, int]], relay_url: str | None, timeout_s: float
    ) -> Connection:
        """Dial a peer."""
        ...

    async def accept(self) -> Connection | None:
        """Return the next inbound connection, None after the end."""
        ...


@dataclass(slots=True)
class _Entry:
    link: PeerLink
    connection: Connection
    since: Instant
    ready: asyncio.Future[bool] | None = None


class Links:
    """All links of a node, by peer."""

    def __init__(
        self, book: AddressBook, edge: Edge, crypto: Crypto, driver: Driver, hello: Callable[[PeerKey], Hello],
        jitter: Callable[[], float], news: Callable[[], None],
    ) -> None:  # fmt: skip
        self.key = book.identity.key
        self._book = book
        self._edge = edge
        self._crypto = crypto
        self._driver = driver
        self._hello = hello
        self._news = news
        self._ids = itertools.count(1)
        self._by_peer: dict[PeerKey, _Entry] = {}
        self._by_id: dict[LinkId, _Entry] = {}
        self._bans: dict[PeerKey, Instant] = {}
        self._wanted: set[PeerKey] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._checks = ThreadPoolExecutor(1, "check")
        self._transport: Transport | None = None
        self._strangers_bucket = TokenBucket(STRANGERS_BURST, STRANGERS_PER_S, self.instant())
        self.cards: dict[PeerKey, PeerRecord] = {}
        """The newest verified records of peers met in this run."""
        self.named: Callable[[PeerKey, str], None] = lambda key, name: None
        """Told what a peer calls itself, with every record that is news."""
        self.underlay: Callable[[str], Hint | None] = lambda ip: None
        """What the mesh underneath thinks of the way to an address."""
        self.reach: Reach | None = None
        """Which addresses and relays may be used, and what peers say of ours; None takes all and asks nobody."""
        self.dialler = Dialler(self._dial, self.instant, jitter)

    # --- what the node and its callers ask

    def link(self, id: LinkId) -> PeerLink | None:
        """Return a link by its number, None when it is gone."""
        entry = self._by_id.get(id)
        return entry.link if entry else None

    def linked(self) -> frozenset[PeerKey]:
        """Return the peers with a link."""
        return frozenset(self._by_peer)

    def describe(self, peer: PeerKey) -> tuple[Connection, Instant] | None:
        """Return a peer's connection and since when it is there."""
        entry = self._by_peer.get(peer)
        return (entry.connection, entry.since) if entry else None

    def close_link(self, id: LinkId, code: Goodbye, reason: str, ban_ms: int) -> None:
        """End a link; ``ban_ms`` also refuses the peer for a while."""
        entry = self._by_id.get(id)
        if entry is None:
            return
        if ban_ms:
            now = self.instant()
            self._bans = {peer: until for peer, until in self._bans.items() if until > now}
            self._bans[entry.link.peer] = Instant(now + ban_ms)
        entry.link.end(code, reason)

    # --- life

    async def run(self, transport: Transport) -> None:
        """Accept and dial until cancelled. Raises: StoreError."""
        self._transport = transport
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.dialler.run())
                group.create_task(self._measure())
                while (connection := await transport.accept()) is not None:
                    self._spawn(self._serve(connection))
                raise UnavailableError("the mesh endpoint has closed", retryable=False)
        finally:
            for entry in tuple(self._by_id.values()):
                entry.link.end(Goodbye.LEAVING, "goodbye")
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._checks.shutdown(wait=True)

    async def _measure(self) -> None:
        """Tell the node what its links cost, now and then."""
        while True:
            await asyncio.sleep(MEASURE_S)
            measured = [
                LinkMeasured(entry.link.id, rtt_ms, entry.connection.lost(), entry.connection.relayed())
                for entry in self._by_peer.values()
                if (rtt_ms := self.counted(entry.connection)) is not None
            ]
            if measured:
                self._driver.post(*measured)

    def counted(self, connection: Connection) -> float | None:
        """Return the round trip that a link is counted with: the underlay may know better than a few packets tell."""
        rtt_ms, where = connection.rtt_ms(), connection.remote_address()
        if rtt_ms is None or where is None:
            return rtt_ms
        return counted_rtt_ms(rtt_ms, self.underlay(where[0]))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A fault of ours that one peer's bytes brought out must not take the other links with it.
            log.error("a link ended by a fault of this program; please report it", exc_info=error)

    async def _dial(self, target: Target) -> bool:
        if self._banned(target.key) or target.key in self._book.identity.blocked():
            return False
        relays = [target.relay] if self.reach is None else self.reach.relays(target.relay)
        relay = relays[target.attempts % len(relays)] if relays else None
        return await self._connect(target.key, target.addresses, relay or None, DIAL_S)

    async def meet(self, key: PeerKey, addresses: tuple[Address, ...]) -> bool:
        """Dial a peer, perhaps a stranger, where it was announced on the local network; return whether it is linked.

        Raises: LocalError, UnavailableError.
        """
        if key in self._by_peer:
            return True
        if self._transport is None or self._banned(key) or key in self._book.identity.blocked():
            return False
        if not self.wants(key) and self._strangers() >= MEET_MAX:
            return False
        return await self._connect(key, addresses, None, MEET_S)

    async def _connect(self, key: PeerKey, where: tuple[Address, ...], relay: str | None, timeout_s: float) -> bool:
        assert self._transport is not None
        if self.reach is not None:
            where = tuple(address for address in where if self.reach.allows(address))
        connection = await self._transport.connect(key, [(a.ip, a.port) for a in where], relay, timeout_s)
        ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._spawn(self._serve(connection, ready))
        return await ready

    async def _serve(self, connection: Connection, ready: asyncio.Future[bool] | None = None) -> None:
        peer = PeerKey(connection.peer)
        link: PeerLink | None = None
        try:
            if not self._welcome(peer):
                connection.close(Goodbye.BUSY, "no room")
                return
            stream = await connection.stream(STREAM_S)
            id = self.next_link_id()
            link = PeerLink(id, peer, stream, connection, self, dialled=connection.dialled)
            self._by_id[id] = _Entry(link, connection, self.instant(), ready)
            await link.run()
            log.debug("link %d to %s ended: %s", id, peer.hex()[:8], link.gone)
        except (UnavailableError, RemoteError) as error:
            # A failed store also ends here; the driver's own task reports it.
            log.debug("no link to %s: %s", peer.hex()[:8], error)
            connection.close(Goodbye.PROTOCOL, "no link came about")
        finally:
            if ready is not None and not ready.done():
                ready.set_result(False)
            if link is not None:
                self._gone(link)

    def _welcome(self, peer: PeerKey) -> bool:
        if self._banned(peer) or peer in self._book.identity.blocked() or len(self._by_id) >= LINKS_MAX:
            return False
        return self.trusted(peer) or self._strangers() < STRANGERS_MAX

    def _strangers(self) -> int:
        return sum(1 for entry in self._by_id.values() if not self.trusted(entry.link.peer))

    def _banned(self, peer: PeerKey) -> bool:
        return self._bans.get(peer, Instant(0)) > self.instant()

    def _gone(self, link: PeerLink) -> None:
        self._by_id.pop(link.id, None)
        entry = self._by_peer.get(link.peer)
        if entry is not None and entry.link is link:
            del self._by_peer[link.peer]
            self.dialler.lost(link.peer)
            if self.reach is not None:
                self.reach.lost(link.peer)
            self._news()
        if link.ready:
            self._driver.post(LinkDown(link.id))

    # --- LinkOwner

    def instant(self) -> Instant:
        """Return this moment on the life clock."""
        return self._driver.now().at

    def own_hello(self, peer: PeerKey) -> Hello:
        """Return what this node says to a peer first."""
        return self._hello(peer)

    def trusted(self, peer: PeerKey) -> bool:
        """Say whether the peer is a contact."""
        contact = self._book.contact(peer)
        return contact is not None and bool(contact.name) and not contact.blocked

    def link_ready(self, link: PeerLink, hello: Hello) -> bool:
        """Take a link in after its hello, unless an older one to the same peer stays."""
        record = self.open_record(hello.record)
        if record.key != link.peer:
            raise WireError("a hello with somebody else's record")
        old = self._by_peer.get(link.peer)
        if old is not None:
            lower = self.key < link.peer
            keep = keep_new(
                same_session=old.link.session == hello.session,
                new_by_lower=link.dialled == lower,
                old_by_lower=old.link.dialled == lower,
            )
            if not keep:
                return False
            old.link.end(Goodbye.DUPLICATE, "a newer link took over")
        entry = self._by_id[link.id]
        entry.since = self.instant()
        self._by_peer[link.peer] = entry
        connection = entry.connection
        remote = connection.remote_address()
        address = Address(*remote) if remote else None
        self._driver.post(
            RecordArrived(link.id, record, hello.record_age_ms),
            LinkUp(
                link.id, link.peer, hello.window, address, hello.store_epoch, rtt_ms=self.counted(connection) or 0,
                relayed=connection.relayed(), routes=hello.routes,
            ),
        )  # fmt: skip
        if entry.ready is not None and not entry.ready.done():
            entry.ready.set_result(True)
        log.debug("%s is linked", link.peer.hex()[:8])
        self.dialler.linked(link.peer)
        self.learn(record, address if link.dialled else None)
        self._news()
        return True

    def observed(self, link: PeerLink, address: Address) -> None:
        """Believe a contact that says where it sees us; nobody else."""
        if self.reach is not None and self.trusted(link.peer):
            self.reach.observed(link.peer, address)
            self._news()

    def relayed(self) -> bool:
        """Say whether a link depends on a relay."""
        return any(entry.connection.relayed() for entry in self._by_peer.values())

    def want(self, peer: PeerKey) -> bool:
        """Dial a peer although it is no contact, because we have mail for it; return whether that is new."""
        if peer in self._wanted:
            return False
        self._wanted.add(peer)
        return True

    def wants(self, peer: PeerKey) -> bool:
        """Say whether the peer is a contact, or somebody we have mail for."""
        return self.trusted(peer) or peer in self._wanted

    def learn(self, record: PeerRecord, worked: Address | None = None) -> None:
        """Dial this peer, from now on, where its record says; first where it was just reached.

        Only contacts, and those we have mail for: a stranger's record must not make us send packets where it likes.
        """
        if not self.wants(record.key):
            return
        contact = self._book.contact(record.key)
        noted = contact.addresses if contact else ()
        addresses = tuple(dict.fromkeys((*((worked,) if worked else ()), *record.addresses, *noted)))
        relay = record.relay or (contact.relay if contact else "")
        if self.reach is not None and self.trusted(record.key):
            self.reach.named(relay, Source.CONTACT, record.key)
        self.dialler.know(record.key, addresses, relay, contact=self.trusted(record.key))

    def strangers_owe(self, count: int) -> int:
        """Count envelopes that a stranger brings; return for how many milliseconds all strangers have had theirs."""
        return self._strangers_bucket.owe(self.instant(), count)

    async def check_all(self, envelopes: list[bytes]) -> list[Checked | Reject]:
        """Run the gate's first half over received envelopes."""
        keys, key, crypto, channels = self._edge.keys, self.key, self._crypto, self._edge.channels
        if len(envelopes) <= CHECK_INLINE:
            return [check(data, key, keys, crypto, channels) for data in envelopes]

        def work() -> list[Checked | Reject]:
            return [check(data, key, keys, crypto, channels) for data in envelopes]

        return await asyncio.get_running_loop().run_in_executor(self._checks, work)

    def open_record(self, data: bytes) -> PeerRecord:
        """Verify a record and remember it, if it is the newest, for sealing. Raises: WireError."""
        record = open_record(data, self._crypto)
        known = self.cards.get(record.key)
        if known is None or record.version > known.version:
            self.cards[record.key] = record
            self.named(record.key, record.name)
            if len(self.cards) > CARDS_MAX:
                del self.cards[next(key for key in self.cards if key not in self._by_peer)]
            self.learn(record)
        return record

    def next_link_id(self) -> LinkId:
        """Return a number that no other link has."""
        return LinkId(next(self._ids))

    async def unseen(self, ids: Sequence[EnvelopeId]) -> list[EnvelopeId]:
        """Return which of these envelopes were never here."""
        return await self._driver.read(lambda tx: [id for id in ids if _unseen(tx, id)])

    async def noted(self, key: str) -> bytes | None:
        """Return a small value of the store."""
        return await self._driver.read(lambda tx: tx.value(key))

    async def note(self, key: str, data: bytes) -> None:
        """Keep a small value in the store."""
        await self._driver.call(lambda tx: tx.set_value(key, data))

    def post(self, event: Event) -> None:
        """Give an event to the node."""
        self._driver.post(event)

    def settle(self, events: list[Event]) -> asyncio.Future[None]:
        """Give events to the node; the future is done when they are durable. Raises: StoreError."""
        return self._driver.settle(events)


def _unseen(tx: MeshStore, id: EnvelopeId) -> bool:
    """Say whether an envelope was never here; a post that gave way before we could read it counts as that."""
    return tx.fate(id) in (None, Fate.PASSED) and tx.held(id) is None
