"""P2pNode: a mesh node on this machine; the library's face, and all that the command line drives."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, assert_never

from quicprochat.adapters.crypto import SodiumCrypto
from quicprochat.adapters.home import Home
from quicprochat.adapters.sqlite.ballast import BALLAST_BYTES
from quicprochat.adapters.sqlite.store import SqliteStore
from quicprochat.adapters.system import SystemClock, entropy, jitter
from quicprochat.core.address import Address
from quicprochat.core.channel import BroadcastChannel
from quicprochat.core.envelope import TTL_DEFAULT_S, TTL_MAX_S
from quicprochat.core.errors import LocalError, UnavailableError
from quicprochat.core.events import (
    Accepted,
    Alarm,
    ChannelsChanged,
    CloseLink,
    Effect,
    Journaled,
    LinkId,
    PolicyChanged,
    PostAccepted,
    PostTaken,
    PrekeysChanged,
    RecordMade,
    Reseal,
    ResealFailed,
    SelfChanged,
    SendEnvelope,
    SendInterest,
    SendRecord,
    SendResults,
    StateChanged,
    Withdrawn,
)
from quicprochat.core.gate import Policy, Reason
from quicprochat.core.identity import Contact, Ticket, fingerprint, pair_fingerprint, scan_agrees
from quicprochat.core.ids import PeerKey, Uid
from quicprochat.core.link import Hello
from quicprochat.core.memory import MemoryStore
from quicprochat.core.node import RECORDS_MAX, Node
from quicprochat.core.receipt import OPEN_STATES, State
from quicprochat.core.record import PeerRecord, reread_verified
from quicprochat.core.store import Line, LineKind, MeshStore, Scope, Sent, Sighting, StoredRecord
from quicprochat.core.time import WallTime
from quicprochat.p2p.account import Account
from quicprochat.p2p.book import AddressBook, looks_whole
from quicprochat.p2p.candidates import Candidate
from quicprochat.p2p.channels import Channels
from quicprochat.p2p.claims import Claims
from quicprochat.p2p.driver import CLOCK_KEY, Driver, Point
from quicprochat.p2p.edge import Edge
from quicprochat.p2p.feed import Feed
from quicprochat.p2p.link import PeerLink
from quicprochat.p2p.links import Links, Transport
from quicprochat.p2p.moving import gather, pack
from quicprochat.p2p.options import Options
from quicprochat.p2p.views import (
    ChannelView,
    PeerView,
    Posted,
    RouteView,
    ServerStanding,
    ServerView,
    Status,
    StoreView,
    TraceView,
)

if TYPE_CHECKING:
    from quicprochat.p2p.discovery import Discovery
    from quicprochat.p2p.home_link import HomeLink

log = logging.getLogger("quicprochat")
T = TypeVar("T")

SESSION_BYTES = 16
EPOCH_KEY = "epoch"
PORT_KEY = "p2p.port"
DISK_CHECK_S = 10.0
ALARMS_MAX = 100
ALARMS_SHOWN = 16
RECENT_MAX = 4_096
"""Messages whose state is known without asking the store."""

_REFUSALS = {
    Reason.FULL: "the outbox is full of messages that wait for their recipients; cancel some, or wait",
    Reason.DISK: "the disk is almost full; make room, and nothing that waits is lost",
}


class P2pNode:
    """Owns a home, keeps links, and sends and receives messages. Use as ``async with P2pNode(options) as node``.

    ``network`` False runs without any network (also the case without the extra ``mesh``): messages are kept. ``probe``
    is told of each point of a turn, for tests that stop the process there.
    Raises: LocalError, UnavailableError on entering; StoreError ends it, see :meth:`failed`.
    """

    def __init__(self, options: Options, *, network: bool = True, probe: Callable[[Point], None] | None = None) -> None:
        self._options = options
        self._probe = probe
        self._network = network
        self._home = Home(options.home)
        self._accepting: dict[Uid, asyncio.Future[Accepted]] = {}
        self._watching: defaultdict[Uid, list[asyncio.Future[None]]] = defaultdict(list)
        self._recent: dict[Uid, Sent] = {}
        self._session = entropy(SESSION_BYTES)
        self._epoch = bytes(SESSION_BYTES)
        self._main: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._endpoint: Any = None
        self._discovery: Discovery | None = None
        self._disk_low = False
        self.alarms: list[Alarm] = []

    # --- life

    async def __aenter__(self) -> P2pNode:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Take the home and begin. Raises: LocalError, UnavailableError; then nothing is held."""
        self._home.own()
        try:
            self._crypto = SodiumCrypto(entropy)
            self._book = AddressBook(self._home.identity, self._crypto, entropy)
            self._store = self._open_store()
        except BaseException:
            self._home.disown()
            raise
        signer = self._book.signer
        identity = self._book.identity
        self._clock = SystemClock(self._store.value(CLOCK_KEY))
        self._disk_low = self._make_room()
        self._policy = Policy(
            identity.key, identity.known(), identity.blocked(), self._options.limits, self._disk_low, carry=False
        )
        self._node = Node(signer, self._crypto, entropy, self._policy)
        self._edge = Edge(signer, signer.exchange_private(), self._crypto, entropy)
        self._driver = Driver(self._node, self._store, self._clock, self._release, self._probe)
        self._channels = Channels(self._driver, self._crypto, entropy)
        self._feed = Feed(self._driver, self._store.newest_line())
        self._links = Links(self._book, self._edge, self._crypto, self._driver, self._hello, jitter, self._feed.tell)
        self._account = Account(
            identity.seed, self._driver, self._links, self._own_record, self._whom_to_look_up, self._feed.tell, jitter
        )
        self._claims = Claims(self._book, self._links.instant, self._alarm)
        self._links.named = self._claims.heard
        try:
            await self._driver.start()
            await self._open_network()
        except BaseException:
            self._driver.close()
            self._home.disown()
            raise
        self._main = asyncio.create_task(self._run())
        try:
            await self._call(self._prepare)
            if self._network:
                await self._driver.settle([self._self_changed()])
                await self._learn_known()
        except BaseException:
            await self.close()
            raise

    def _open_store(self) -> MeshStore:
        if self._options.ephemeral:
            return MemoryStore()
        return SqliteStore.open(self._home.database)

    def _make_room(self) -> bool:
        """Say whether the disk is almost full; then the store's reserve is given up, so that deleting works."""
        store = self._store
        if not isinstance(store, SqliteStore) or not store.disk_low(self._options.disk_reserve_bytes):
            return False
        log.warning("the disk is almost full: no new messages are taken")
        if store.disk_low(BALLAST_BYTES):
            log.warning("%d bytes of reserve are given up, so that messages can leave", store.make_room())
        return True

    async def _open_network(self) -> None:
        if not self._network or find_spec("iroh") is None:
            return
        from quicprochat.adapters.iroh import Endpoint  # the extra: everything else works without it

        stored = self._store.value(PORT_KEY)
        bind = self._options.bind
        relay = self._options.relay or None
        wanted = (bind.ip, bind.port) if bind else ("0.0.0.0", int(stored)) if stored else None
        seed = self._book.identity.seed
        try:
            self._endpoint = await Endpoint.bind(seed, bind=wanted, relay_url=relay)
        except UnavailableError:
            if bind is not None or wanted is None:
                raise
            # Only the port of the last run is taken: any other serves as well, and records tell the peers.
            self._endpoint = await Endpoint.bind(seed, bind=None, relay_url=relay)
        self._endpoint.on_address_change(self._addresses_changed)
        if self._options.discovery:
            from quicprochat.p2p.discovery import Discovery  # a tenth of a second to load

            self._discovery = Discovery(self._links, self.addresses, jitter, bind=bind, quiet=self._options.quiet)

    def _prepare(self, store: MeshStore) -> None:
        epoch = store.value(EPOCH_KEY)
        if epoch is None:
            epoch = entropy(SESSION_BYTES)
            store.set_value(EPOCH_KEY, epoch)
        self._epoch = epoch
        self._account.load(store, self._options.server)
        addresses = self.addresses()
        if self._options.bind is None and addresses:
            store.set_value(PORT_KEY, str(addresses[0].port).encode("ascii"))

    async def _learn_known(self) -> None:
        """Dial contacts, and whoever our own messages wait for; others who want us dial us."""

        def read(store: MeshStore) -> tuple[Sequence[StoredRecord], dict[PeerKey, str], set[PeerKey]]:
            records = store.records(RECORDS_MAX)
            worked = {s.key: s.address for s in store.sightings(RECORDS_MAX)}
            return records, worked, {r.key for r in records if store.waiting(r.key, 0, 1)}

        records, worked, waited_for = await self._call(read)
        for key in waited_for:
            self._links.want(key)
        for stored in records:
            if not self._links.wants(stored.key):
                continue
            address = worked.get(stored.key)
            self._links.learn(reread_verified(stored), Address.parse(address) if address else None)
        for contact in self._book.identity.contacts.values():
            self._dial_contact(contact)

    def _dial_contact(self, contact: Contact) -> None:
        card = self._links.cards.get(contact.key)
        if contact.blocked:
            self._links.dialler.forget(contact.key)
        elif card is not None:
            self._links.learn(card)
        elif contact.name:
            self._links.dialler.know(contact.key, contact.addresses, contact.relay, contact=True)

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                driver = group.create_task(self._driver.run())
                others: list[asyncio.Task[None]] = [group.create_task(self._watch_disk())]
                if self._endpoint is not None:
                    transport: Transport = self._endpoint
                    others.append(group.create_task(self._links.run(transport)))
                if self._network:
                    others.append(group.create_task(self._account.run()))
                if self._discovery is not None:
                    others.append(group.create_task(self._discovery.run()))
                await self._stop.wait()
                for task in others:
                    task.cancel()
                await asyncio.wait(others)
                self._driver.finish()
                await driver
        finally:
            self._stop.set()
            self._feed.stop()
            self._recent.clear()
            for watchers in self._watching.values():
                self._wake(watchers)

    async def close(self) -> None:
        """Close the links, finish what is under way, and let go of the home. Any number of calls is one."""
        self._stop.set()
        self._feed.stop()
        if self._main is not None:
            await asyncio.wait([self._main])
            self._main.exception()
        if self._endpoint is not None:
            await self._endpoint.close()
            self._endpoint = None
        self._driver.close()
        self._home.disown()

    async def failed(self) -> None:
        """Wait until the node stops. Raises: the QuicprochatError that stopped it, if one did."""
        assert self._main is not None
        await asyncio.wait([self._main])
        error = self._main.exception()
        if error is None:
            return
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error

    async def _watch_disk(self) -> None:
        while isinstance(self._store, SqliteStore):
            low = self._store.disk_low(self._options.disk_reserve_bytes)
            if low != self._disk_low:
                self._disk_low = low
                log.warning("the disk is %s", "almost full: no new messages are taken" if low else "roomy again")
                self._policy_changed()
            await asyncio.sleep(DISK_CHECK_S)

    # --- effects

    def _release(self, effect: Effect) -> None:
        match effect:
            case SendEnvelope():
                if (link := self._link(effect.link)) is not None:
                    link.send_envelope(effect.wire)
            case SendResults():
                if (link := self._link(effect.link)) is not None:
                    link.send_results(effect.results)
            case SendRecord():
                if (link := self._link(effect.link)) is not None:
                    link.send_record(effect.record, effect.age_ms)
            case Journaled():
                self._feed.take(effect.line)
            case StateChanged():
                if (sent := self._recent.get(effect.uid)) is not None:
                    self._recent[effect.uid] = replace(sent, state=effect.state, reason=effect.reason)
                self._wake(self._watching.get(effect.uid, ()))
            case Accepted():
                if effect.sent is not None:
                    self._remember(effect.sent)
                    self._feed.tell()
                accepting = self._accepting.pop(effect.uid, None)
                if accepting is not None and not accepting.done():
                    accepting.set_result(effect)
            case CloseLink() if (home := self._account.link(effect.link)) is not None:
                home.end(effect.code, effect.reason)
            case CloseLink():
                self._links.close_link(effect.link, effect.code, effect.reason, effect.ban_ms)
            case Reseal():
                self._reseal(effect)
            case PrekeysChanged():
                self._edge.load_prekeys(self._store.prekeys)
            case SendInterest():
                if (peer := self._links.link(effect.link)) is not None:
                    peer.send_interest(effect.channels)
            case ChannelsChanged():
                self._edge.load_channels(effect.subscriptions)
                self._channels.load(effect.subscriptions)
            case PostAccepted():
                self._channels.accepted(effect)
            case PostTaken():
                self._channels.taken(effect)
            case RecordMade():
                pass
            case Alarm():
                self._alarm(effect)
            case _:
                assert_never(effect)

    def _alarm(self, alarm: Alarm) -> None:
        """Tell the person: in the log at once, and in :attr:`alarms`, which keeps the last ones."""
        log.error("%s", alarm.text)
        self.alarms.append(alarm)
        del self.alarms[:-ALARMS_MAX]
        self._feed.tell()

    def _remember(self, sent: Sent) -> None:
        """Keep a message at hand while somebody is likely to wait for it."""
        self._recent[sent.uid] = sent
        if len(self._recent) > RECENT_MAX:
            del self._recent[next(iter(self._recent))]

    @staticmethod
    def _wake(watchers: Iterable[asyncio.Future[None]]) -> None:
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)

    def _link(self, id: LinkId) -> PeerLink | HomeLink | None:
        return self._links.link(id) or self._account.link(id)

    def _reseal(self, effect: Reseal) -> None:
        self._recent.pop(effect.uid, None)  # its protection is about to change
        try:
            self._driver.post(self._edge.reseal(effect, self._driver.now()))
        except LocalError as error:
            log.warning("a waiting message could not be sealed again: %s", error)
            self._driver.post(ResealFailed(effect.uid))

    # --- our own face

    def _own_record(self) -> tuple[bytes, int]:
        return self._node.record.signed, max(0, self._driver.now().at - self._node.record_made_at)

    def _hello(self) -> Hello:
        return Hello(self._session, self._epoch, *self._own_record())

    def _whom_to_look_up(self) -> list[PeerKey]:
        return [key for key, contact in self._book.identity.contacts.items() if contact.name and not contact.blocked]

    def _self_changed(self) -> SelfChanged:
        return SelfChanged(self._book.identity.name, "", self._relay(), self.addresses())

    def _relay(self) -> str:
        return (self._endpoint.relay() or self._options.relay) if self._endpoint is not None else ""

    def _addresses_changed(self, _: object) -> None:
        self._driver.post(self._self_changed())
        self._links.dialler.hurry()
        self._account.hurry()
        if self._discovery is not None:
            self._discovery.network_changed()

    @property
    def key(self) -> PeerKey:
        """Our public key: who we are."""
        return self._book.identity.key

    @property
    def name(self) -> str:
        """What we call ourselves."""
        return self._book.identity.name

    @property
    def home(self) -> Home:
        """The home this node owns."""
        return self._home

    @property
    def stopping(self) -> bool:
        """True from the moment the node begins to stop."""
        return self._stop.is_set()

    @property
    def networked(self) -> bool:
        """True when messages can leave: links can come about, or a home server is chosen."""
        return self._endpoint is not None or (self._network and bool(self._account.server))

    def linked(self) -> frozenset[PeerKey]:
        """Return the peers with a link at this moment."""
        return self._links.linked()

    async def wait_linked(self, peer: PeerKey, timeout_s: float | None = None) -> None:
        """Wait until a peer is linked. Raises: TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while peer not in self._links.linked():
                if self._stop.is_set():
                    raise UnavailableError("the node has stopped", retryable=False)
                await self._feed.news()

    def addresses(self) -> tuple[Address, ...]:
        """Return where we can be dialled."""
        if self._endpoint is None:
            return ()
        return tuple(Address(ip, port) for ip, port in self._endpoint.addresses())

    def fingerprint(self) -> str:
        """Return our own digits."""
        return fingerprint(self.key)

    def ticket(self) -> Ticket:
        """Return what another person needs to find us."""
        return Ticket(self.key, self.addresses(), self._relay())

    async def export(self, passphrase: str) -> bytes:
        """Return our identity as a file that the passphrase opens, see ``p2p.moving``; no messages are in it.

        Raises: LocalError for a passphrase that is too short, UnavailableError.
        """
        contents = await self._call(lambda store: gather(self._book.identity, store, self._driver.now()))
        return await asyncio.to_thread(pack, contents, passphrase)

    async def rename(self, name: str) -> None:
        """Change what we call ourselves; peers learn it at once. Raises: LocalError."""
        self._book.rename(name)
        await self._driver.settle([self._self_changed()])

    # --- people

    async def resolve(self, peer: str) -> PeerKey:
        """Return the peer that a name, a key or the beginning of a key means. Raises: LocalError."""
        found = self._book.find(peer)
        return found if found is not None else self._book.resolve(peer, await self._heard(), self._claimed())

    def _claimed(self) -> dict[PeerKey, str]:
        """Return what strangers met in this run call themselves."""
        cards = self._links.cards.values()
        return {card.key: card.name for card in cards if card.name and not self._links.trusted(card.key)}

    def contact(self, key: PeerKey) -> Contact | None:
        """Return what our owner noted of a peer."""
        return self._book.contact(key)

    async def _heard(self) -> set[PeerKey]:
        def read(store: MeshStore) -> set[PeerKey]:
            records = {r.key for r in store.records(RECORDS_MAX)}
            met = {s.key for s in store.sightings(RECORDS_MAX)}
            return records | met | set(store.requesters(self._options.limits.requests))

        return await self._call(read) | self._links.linked() | self._announced().keys()

    def _announced(self) -> dict[PeerKey, Candidate]:
        return self._discovery.found() if self._discovery is not None else {}

    def servers(self) -> list[ServerView]:
        """Return the home servers that announce themselves on the local network."""
        return self._discovery.servers() if self._discovery is not None else []

    async def add(self, text: str, name: str | None = None) -> PeerView:
        """Add a contact and dial it: from a ticket, a key, key@ip:port, or the first digits of a known peer's key.

        Raises: LocalError; with code ``untrusted`` when the name is, or looks like, that of a contact with another key.
        """
        if not looks_whole(text):
            text = (await self.resolve(text)).hex()
        contact = self._book.add(text, name)
        for card in self._links.cards.values():
            self._claims.heard(card.key, card.name)
        await self._call(lambda store: store.accept(contact.key))
        self._policy_changed()
        self._dial_contact(contact)
        return await self.peer(contact.key)

    async def verify(self, peer: str, *, confirmed: bool = False, scanned: str = "") -> tuple[PeerView, str]:
        """Return a peer and the digits both sides compare; ``confirmed`` notes that they were equal.

        ``scanned`` is what the peer's screen showed as a QR code; it confirms as well. Raises: LocalError with code
        ``untrusted`` when it is not what this peer must show.
        """
        key = await self.resolve(peer)
        if scanned and not scan_agrees(scanned, self.key, key):
            raise LocalError(
                "what was scanned does not belong to you and this peer: it is another person's screen, or somebody "
                "stands between you; do not trust this key",
                code="untrusted",
            )
        if confirmed or scanned:
            if self._book.contact(key) is None:
                raise LocalError("only a contact can be marked as verified; add it first")
            self._book.change(key, lambda c: replace(c, verified=True))
        return await self.peer(key), pair_fingerprint(self.key, key)

    async def block(self, peer: str, *, blocked: bool = True) -> PeerView:
        """Refuse a peer's links and messages from now on, or no longer. Raises: LocalError."""
        key = await self.resolve(peer)
        if key == self.key:
            raise LocalError("that is your own key")
        contact = self._book.change(key, lambda c: replace(c, blocked=blocked))
        self._policy_changed()
        self._dial_contact(contact)
        return await self.peer(key)

    def _policy_changed(self) -> None:
        identity = self._book.identity
        self._driver.post(PolicyChanged(identity.known(), identity.blocked(), self._disk_low))

    async def peer(self, key: PeerKey) -> PeerView:
        """Return what is known of one peer."""
        found = [view for view in await self.peers({key}) if view.key == key]
        return found[0]

    async def peers(self, also: Iterable[PeerKey] = ()) -> list[PeerView]:
        """Return contacts, and peers that were met, heard of or are announced here; contacts first."""

        def read(store: MeshStore) -> tuple[dict[PeerKey, PeerRecord], dict[PeerKey, Sighting]]:
            records = {r.key: reread_verified(r) for r in store.records(RECORDS_MAX)}
            return records, {s.key: s for s in store.sightings(RECORDS_MAX)}

        records, sightings = await self._call(read)
        linked = self._links.linked()
        contacts = self._book.identity.contacts
        announced = self._announced()
        keys = {*contacts, *records, *sightings, *linked, *announced, *also} - {self.key}
        views = []
        for key in keys:
            contact = contacts.get(key) or Contact(key)
            record = records.get(key)
            seen = sightings.get(key)
            found = announced.get(key)
            heard = (*(found.addresses if found else ()), *(record.addresses if record else ()))
            view = PeerView(
                key, contact.name or (record.name if record else ""), bool(contact.name), contact.verified,
                contact.blocked, key in linked, tuple(dict.fromkeys((*contact.addresses, *heard))),
                record.domain if record else found.domain if found else "", seen.wall if seen else WallTime(0),
                found is not None,
                imitated.name if (imitated := self._claims.imitated(key, record.name if record else "")) else "",
            )  # fmt: skip
            views.append(view)
        return sorted(views, key=lambda v: (not v.contact, not v.linked, v.name, v.key))

    # --- messages

    async def send(self, to: str | PeerKey, text: str, *, ttl_s: int = TTL_DEFAULT_S, require_fs: bool = False) -> Sent:
        """Put a message into the outbox; when this returns it survives a power cut.

        Raises: LocalError (unknown peer, too long, outbox or disk full, no forward-secret key), StoreError.
        """
        key = await self.resolve(to) if isinstance(to, str) else to
        if key == self.key:
            raise LocalError("that is your own key; a message needs somebody else")
        if not 0 < ttl_s <= TTL_MAX_S:
            raise LocalError(f"a message lives 1 to {TTL_MAX_S} seconds; {ttl_s} is outside")
        if key in self._book.identity.blocked():
            raise LocalError("that peer is blocked; unblock it to write to it", code="policy")
        card = await self._card(key)
        prekey = card.prekeys[0] if card and card.prekeys else None
        if prekey is None and require_fs:
            raise LocalError(
                "no forward-secret key of that peer is known yet; it comes with the first link, or send without "
                "--require-fs",
                code="policy",
            )
        written = self._edge.write(
            key, text, prekey, ttl_s, self._driver.now(), claim_time=self._node.claim_time, require_fs=require_fs
        )
        accepting: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
        self._accepting[written.uid] = accepting
        try:
            await self._driver.settle([written])
        finally:
            self._accepting.pop(written.uid, None)
        answer = accepting.result()
        if answer.sent is None:
            raise LocalError(_REFUSALS[answer.reason], code="full")
        return answer.sent

    async def _card(self, key: PeerKey) -> PeerRecord | None:
        """Return a peer's newest record, and see to it that the peer is dialled while we have mail for it."""
        card = self._links.cards.get(key)
        if card is None:
            stored = await self._call(lambda store: store.record(key))
            card = self._links.open_record(stored.data) if stored is not None else None
        if card is None and await self._account.find(key):
            card = self._links.cards.get(key)
        if key not in self._links.linked() and self._links.want(key) and card is not None:
            self._links.learn(card)
        return card

    async def sent(self, uid: Uid) -> Sent:
        """Return a sent message as it is now. Raises: LocalError with code ``not_found``."""
        found = await self._call(lambda store: store.sent(uid))
        if found is None:
            raise LocalError(f"no message {uid.hex()} was sent from here", code="not_found")
        return found

    async def wait(self, uid: Uid, until: State, timeout_s: float | None = None) -> Sent:
        """Wait until a message is in this state or in one that it cannot leave for it; return it.

        ``until`` is RELAYED or DELIVERED. Raises: TimeoutError; the message goes on waiting all the same.
        """
        async with asyncio.timeout(timeout_s):
            while True:
                sent = self._recent.get(uid) or await self.sent(uid)
                if sent.state not in OPEN_STATES or until is State.RELAYED is sent.state:
                    return sent
                changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._watching[uid].append(changed)
                try:
                    await changed
                finally:
                    self._watching[uid].remove(changed)
                    if not self._watching[uid]:
                        del self._watching[uid]

    async def cancel(self, uid: Uid) -> Sent:
        """Stop offering a message; a copy that left before may still arrive. Raises: LocalError."""
        await self.sent(uid)
        await self._driver.settle([Withdrawn(uid)])
        return await self.sent(uid)

    async def find_sent(self, prefix: str) -> Uid:
        """Return the uid that 32 hexadecimal digits name. Raises: LocalError."""
        try:
            uid = Uid(bytes.fromhex(prefix))
        except ValueError:
            uid = Uid(b"")
        if len(uid) != 16:
            raise LocalError("a message id has 32 hexadecimal digits; send prints it")
        return uid

    async def trace(self, uid: Uid) -> TraceView:
        """Return what happened to a sent message. Raises: LocalError."""
        sent = await self.sent(uid)
        events, envelopes = await self._call(lambda store: (store.trace(uid), store.envelopes_of(uid)))
        return TraceView(sent, tuple(events), tuple(envelopes))

    async def inbox(self, *, after: int = 0, peer: PeerKey | None = None, limit: int = 1_000) -> list[Line]:
        """Return received messages and posts with a cursor above ``after``, oldest first."""
        return list(await self._call(lambda store: store.journal(after=after, limit=limit, messages=True, peer=peer)))

    def listen(self, timeout_s: float | None = None) -> AsyncGenerator[Line, None]:
        """Yield journal lines: first those not read yet, then each as it comes, until the time is over.

        A line counts as read only when :meth:`read` was told so. Several may listen at once: each gets every line that
        comes from now on, also when another one has read it. Ends early when the node stops.
        """
        return self._feed.listen(timeout_s)

    async def read(self, cursors: Iterable[int]) -> None:
        """Mark lines as read."""
        wanted = tuple(cursors)
        await self._call(lambda store: store.mark_read(wanted))
        self._feed.tell()

    async def messages(self) -> AsyncIterator[Line]:
        """Yield received messages, unread ones first; each counts as read when the next is asked for.

        Posts are left as they are, for :meth:`posts`.
        """
        async for line in self.listen():
            if line.kind is LineKind.MESSAGE:
                yield line
            if line.kind is not LineKind.POST:
                await self.read((line.cursor,))

    # --- channels

    async def subscribe(self, topic: str, key: str | bytes | None = None) -> BroadcastChannel:
        """Join a channel: an open one, or with a key (32 bytes, 64 digits, "new") a private one. Raises: LocalError."""
        return await self._channels.subscribe(topic, key)

    async def unsubscribe(self, topic: str) -> BroadcastChannel:
        """Leave a channel. Raises: LocalError with code ``not_found``."""
        return await self._channels.unsubscribe(topic)

    async def broadcast(self, topic: str, text: str) -> Posted:
        """Post into a channel that we are in; it goes to all linked subscribers, now and for a week.

        Raises: LocalError (no such channel, too long, disk full), StoreError.
        """
        return await self._channels.broadcast(topic, text)

    async def reached(self, uid: Uid, timeout_s: float | None = None) -> int:
        """Wait, for so long at most, until a neighbour has a post; return how many have it. Raises: LocalError."""
        return await self._channels.reached(uid, timeout_s)

    async def posts(self) -> AsyncIterator[Line]:
        """Yield posts of all channels, unread ones first; each counts as read when the next is asked for."""
        async for line in self.listen():
            if line.kind is LineKind.POST:
                yield line
                await self.read((line.cursor,))

    def channels(self) -> tuple[BroadcastChannel, ...]:
        """Return the channels we are in."""
        return self._channels.joined()

    def channel(self, id: bytes) -> BroadcastChannel | None:
        """Return the channel of a line, also one that was left; None for a line without."""
        return self._channels.named(id)

    async def channel_views(self) -> list[ChannelView]:
        """Return the channels we are in, with what is kept and what is unread."""
        return await self._channels.views()

    # --- views

    def routes(self) -> list[RouteView]:
        """Return the ways to destinations that exist now."""
        now = self._links.instant()
        views = []
        for peer in sorted(self._links.linked()):
            found = self._links.describe(peer)
            if found is not None:
                rtt = found[0].rtt_ms()
                views.append(RouteView(peer, peer, max(1, round(rtt or 1)), 1, (now - found[1]) / 1_000, "direct"))
        return views + self._account.routes(self._links.linked())

    async def use_server(self, server: str, *, trust: bytes | None = None) -> ServerStanding:
        """Make ``host:port`` the home server, "" none; return how we stand with it once it was tried.

        ``trust`` is the fingerprint to accept in place of one pinned before. Raises: LocalError.
        """
        await self._account.use(server, trust=trust)
        return await self._account.settled() if self._network else self._account.standing()

    async def register(self, name: str = "", invite: str = "") -> tuple[str, str]:
        """Become a user of the home server, or bind a name to our key there; return the name and the domain.

        Raises: LocalError, UnavailableError; the server's own reason comes as a QuicprochatError with its ``code``.
        """
        await self._account.settled()
        return await self._account.register(name, invite)

    def server(self) -> ServerStanding:
        """Return how we stand with the home server."""
        return self._account.standing()

    async def status(self) -> Status:
        """Return the node at a glance."""
        told = self._feed.told
        waiting, unread = await self._driver.read(lambda store: (store.usage(Scope.OWN).count, store.unread()))
        return Status(
            self.name, self.key, self.networked, len(self._links.linked()), waiting, unread, self._disk_low,
            tuple(self.alarms[-ALARMS_SHOWN:]), told, self._account.standing().standing,
        )  # fmt: skip

    async def news(self, since: Status) -> None:
        """Wait until something has happened since a status: a line, a link, an alarm, the end."""
        await self._feed.news(since.told)

    async def store_view(self) -> StoreView:
        """Return what the store holds and has done."""

        def read(store: MeshStore) -> StoreView:
            own, carried = store.usage(Scope.OWN), store.usage(Scope.CARRIED)
            receipts, counters = store.usage(Scope.RECEIPTS), store.counters()
            return StoreView(
                own.count + carried.count + receipts.count, own.bytes + carried.bytes + receipts.bytes,
                store.recipients(), self._options.limits.per_recipient, counters.get("expired", 0),
                counters.get("delivered", 0), counters.get("duplicates", 0), store.unread(),
                store.usage(Scope.POSTS).count + sum(
                    store.usage(Scope.OWN_POSTS, channel.id).count for channel in self.channels()
                ),
            )  # fmt: skip

        return await self._call(read)

    async def settled(self) -> None:
        """Wait until everything posted before is durable and its effects are out."""
        await self._driver.settle([])

    async def _call(self, work: Callable[[MeshStore], T]) -> T:
        return await self._driver.call(work)
