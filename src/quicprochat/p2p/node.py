"""P2pNode: a mesh node on this machine; the library's face, and all that the command line drives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing, suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, assert_never

from quicprochat.adapters.crypto import SodiumCrypto
from quicprochat.adapters.home import Home
from quicprochat.adapters.sqlite.ballast import BALLAST_BYTES
from quicprochat.adapters.sqlite.store import SqliteStore
from quicprochat.adapters.system import SystemClock, entropy, jitter
from quicprochat.adapters.underlay import Underlay
from quicprochat.core.address import Address
from quicprochat.core.channel import BroadcastChannel, Subscription
from quicprochat.core.envelope import TTL_DEFAULT_S
from quicprochat.core.errors import UnavailableError
from quicprochat.core.events import (
    Accepted,
    Alarm,
    BundleTaken,
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
    SelfChanged,
    SendEnvelope,
    SendFrame,
    SendInterest,
    SendRecord,
    SendResults,
    StateChanged,
)
from quicprochat.core.identity import Contact, Ticket, fingerprint
from quicprochat.core.ids import ChannelId, PeerKey, Uid
from quicprochat.core.invite import Invite
from quicprochat.core.link import Hello, frame
from quicprochat.core.memory import MemoryStore
from quicprochat.core.node import Node
from quicprochat.core.policy import Policy
from quicprochat.core.receipt import State
from quicprochat.core.route_cost import link_cost
from quicprochat.core.store import Line, LineKind, MeshStore, Scope, Sent
from quicprochat.core.time import WallTime
from quicprochat.p2p import announced
from quicprochat.p2p.account import Account
from quicprochat.p2p.book import AddressBook
from quicprochat.p2p.bundles import Bundles
from quicprochat.p2p.candidates import Candidate
from quicprochat.p2p.channels import Channels
from quicprochat.p2p.claims import Claims
from quicprochat.p2p.driver import CLOCK_KEY, Driver, Point
from quicprochat.p2p.edge import Edge
from quicprochat.p2p.feed import Feed
from quicprochat.p2p.history import Missing, history
from quicprochat.p2p.link import PeerLink
from quicprochat.p2p.links import Links, Transport
from quicprochat.p2p.membership import Membership
from quicprochat.p2p.moving import gather, pack
from quicprochat.p2p.names import Names
from quicprochat.p2p.options import Options
from quicprochat.p2p.outgoing import Outgoing, uid_of
from quicprochat.p2p.people import People
from quicprochat.p2p.reach import Reach, check_relay
from quicprochat.p2p.views import (
    BundleRead,
    BundleWritten,
    ChannelView,
    MemberView,
    PeerView,
    Posted,
    PostersView,
    Reachability,
    RotationView,
    RouteView,
    ServerStanding,
    ServerView,
    Status,
    StoreView,
    TraceView,
)
from quicprochat.p2p.wake import watch_sleep

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
WITNESSES = 2
"""Who see us from outside tell a NAT that gives each peer another port apart from one that does not."""


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
        self._session = entropy(SESSION_BYTES)
        self._epoch = bytes(SESSION_BYTES)
        self._main: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._endpoint: Any = None
        self._discovery: Discovery | None = None
        self._reach: Reach | None = None
        self._underlay = Underlay()
        self._disk_low = False
        self._changes = 0
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
        signer, identity, options = self._book.signer, self._book.identity, self._options
        self._clock = SystemClock(self._store.value(CLOCK_KEY))
        self._disk_low = self._make_room()
        self._policy = Policy(
            identity.key, identity.known(), identity.blocked(), options.limits, self._disk_low, options.carry,
            stays=options.stays,
            trusted=identity.trusted(),
        )  # fmt: skip
        self._node = Node(signer, self._crypto, entropy, self._policy)
        self._edge = Edge(signer, signer.exchange_private(), self._crypto, entropy)
        self._driver = Driver(self._node, self._store, self._clock, self._release, self._probe)
        self._channels = Channels(self._driver, self._crypto, entropy, identity.key, self._node.unreadable)
        self._feed = Feed(self._driver, self._store.newest_line())
        self._book.changed = self._changed
        self._links = Links(self._book, self._edge, self._crypto, self._driver, self._hello, jitter, self._feed.tell)
        self._links.underlay = self._underlay.hint
        self._account = Account(
            identity.seed, self._driver, self._links, self._own_record, self._whom_to_look_up, self._feed.tell,
            self._moved_home, jitter, self._options.network,
        )  # fmt: skip
        claims = Claims(self._book, self._links.instant, self._alarm)
        self._links.named = claims.heard
        self._people = People(
            self._book, self._driver, self._links, claims, self._announced, self._policy_changed,
            self._options.limits.requests, Names(self._driver, self._account, self._server_settled),
        )  # fmt: skip
        self._bundles = Bundles(self._driver, self._links)
        self._outgoing = Outgoing(self._book, self._driver, self._links, self._edge, self._account.find, self._node)
        self._membership = Membership(
            self._channels, self._driver, identity.key, entropy, self._outgoing.key_letter
        )  # fmt: skip
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
                await self._people.learn_known()
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
        if store.disk_low(BALLAST_BYTES) and (freed := store.make_room()):
            log.warning("%d bytes of reserve are given up, so that messages can leave", freed)
        return True

    async def _open_network(self) -> None:
        if not self._network or find_spec("iroh") is None:
            return
        from quicprochat.adapters.iroh import Endpoint  # the extra: everything else works without it
        from quicprochat.adapters.relay.probe import answers

        check_relay(self._options.relay, self._options.network)
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
        self._links.reach = self._reach = Reach(
            self._endpoint, self._options.network, self._options.relay, self._links.instant, self._links.relayed,
            self._reach_changed, answers,
        )  # fmt: skip
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
        self._edge.domain = self._account.domain
        addresses = self.addresses()
        if self._options.bind is None and addresses:
            store.set_value(PORT_KEY, str(addresses[0].port).encode("ascii"))

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                driver = group.create_task(self._driver.run())
                others: list[asyncio.Task[None]] = [group.create_task(self._watch_disk())]
                if self._endpoint is not None:
                    transport: Transport = self._endpoint
                    others.append(group.create_task(self._links.run(transport)))
                    others.append(group.create_task(self._underlay.run()))
                if self._reach is not None:
                    others.append(group.create_task(self._reach.run()))
                if self._network:
                    others.append(group.create_task(watch_sleep(self._links.instant, self._awake)))
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
            self._outgoing.stop()

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
            case SendEnvelope() if (home := self._account.link(effect.link)) is not None:
                home.send_envelope(effect.wire, effect.domain)
            case SendEnvelope():
                if (neighbour := self._links.link(effect.link)) is not None:
                    neighbour.send_envelope(effect.wire)
            case SendResults():
                if (link := self._link(effect.link)) is not None:
                    link.send_results(effect.results)
            case SendRecord():
                if (link := self._link(effect.link)) is not None:
                    link.send_record(effect.record, effect.age_ms)
            case Journaled():
                self._feed.take(effect.line)
            case StateChanged():
                self._outgoing.changed(effect)
            case Accepted():
                self._outgoing.accepted(effect)
                if effect.sent is not None:
                    self._feed.tell()
            case SendFrame():
                if (peer := self._links.link(effect.link)) is not None:
                    peer.send(frame(effect.kind, effect.body))
            case CloseLink() if (home := self._account.link(effect.link)) is not None:
                home.end(effect.code, effect.reason)
            case CloseLink():
                self._links.close_link(effect.link, effect.code, effect.reason, effect.ban_ms)
            case Reseal():
                self._outgoing.reseal(effect)
            case PrekeysChanged():
                self._edge.load_prekeys(self._store.prekeys)
            case SendInterest():
                if (link := self._link(effect.link)) is not None:
                    link.send_interest(effect.channels)
            case ChannelsChanged():
                self._edge.load_channels(effect.subscriptions)
                self._channels.load(effect.subscriptions)
                self._changed()
            case PostAccepted():
                self._channels.accepted(effect)
            case PostTaken():
                self._channels.taken(effect)
            case BundleTaken():
                self._bundles.taken(effect)
            case RecordMade():
                pass
            case Alarm():
                self._alarm(effect)
            case _:
                assert_never(effect)

    def _changed(self) -> None:
        """The address book or our channels are not as they were."""
        self._changes += 1
        self._feed.tell()

    def _alarm(self, alarm: Alarm) -> None:
        """Tell the person: in the log at once, and in :attr:`alarms`, which keeps the last ones."""
        log.error("%s", alarm.text)
        self.alarms.append(alarm)
        del self.alarms[:-ALARMS_MAX]
        self._feed.tell()

    def _link(self, id: LinkId) -> PeerLink | HomeLink | None:
        return self._links.link(id) or self._account.link(id)

    # --- our own face

    def _own_record(self) -> tuple[bytes, int]:
        return self._node.record.signed, max(0, self._driver.now().at - self._node.record_made_at)

    def _hello(self, peer: PeerKey) -> Hello:
        return Hello(self._session, self._epoch, *self._own_record(), routes=self._node.routes_held(peer))

    def _whom_to_look_up(self) -> list[PeerKey]:
        return [key for key, contact in self._book.identity.contacts.items() if contact.name and not contact.blocked]

    def _self_changed(self) -> SelfChanged:
        return SelfChanged(self._book.identity.name, self._account.domain, self._relay(), self.addresses())

    def _moved_home(self) -> None:
        self._edge.domain = self._account.domain
        self._driver.post(self._self_changed())

    def _relay(self) -> str:
        return self._reach.relay if self._reach is not None else ""

    def _reach_changed(self) -> None:
        """We are reachable elsewhere: peers are told, and those whom we could not reach are tried from there."""
        self._driver.post(self._self_changed())
        self._links.dialler.hurry()

    def _awake(self) -> None:
        """The machine has slept: whoever was linked is dialled anew as soon as its link is seen to be dead."""
        self._links.dialler.hurry()
        self._account.hurry()
        if self._discovery is not None:
            self._discovery.awake()

    def _addresses_changed(self, _: object) -> None:
        if self._reach is not None:
            self._reach.network_changed()
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
        return await self._people.resolve(peer)

    def contact(self, key: PeerKey) -> Contact | None:
        """Return what our owner noted of a peer."""
        return self._book.contact(key)

    def _announced(self) -> dict[PeerKey, Candidate]:
        return self._discovery.found() if self._discovery is not None else {}

    def servers(self) -> list[ServerView]:
        """Return the home servers that announce themselves on the local network."""
        return self._discovery.servers() if self._discovery is not None else []

    async def add(self, text: str, name: str | None = None) -> PeerView:
        """Add a contact and dial it: from a ticket, a key, key@ip:port, or the first digits of a known peer's key.

        Raises: LocalError; with code ``untrusted`` when the name is, or looks like, that of a contact with another key.
        """
        return await self._people.add(text, name)

    async def verify(self, peer: str, *, confirmed: bool = False, scanned: str = "") -> tuple[PeerView, str]:
        """Return a peer and the digits both sides compare; ``confirmed`` notes that they were equal.

        ``scanned`` is what the peer's screen showed as a QR code; it confirms as well. Raises: LocalError with code
        ``untrusted`` when it is not what this peer must show.
        """
        return await self._people.verify(peer, confirmed=confirmed, scanned=scanned)

    async def block(self, peer: str, *, blocked: bool = True) -> PeerView:
        """Refuse a peer's links and messages from now on, or no longer. Raises: LocalError."""
        return await self._people.block(peer, blocked=blocked)

    async def trust(self, peer: str, *, trusted: bool = True) -> PeerView:
        """Take what a contact posts as an emergency for one from now on, or no longer. Raises: LocalError."""
        return await self._people.trust(peer, trusted=trusted)

    def _policy_changed(self) -> None:
        identity = self._book.identity
        self._driver.post(PolicyChanged(identity.known(), identity.blocked(), self._disk_low, identity.trusted()))

    async def peer(self, key: PeerKey) -> PeerView:
        """Return what is known of one peer."""
        return await self._people.peer(key)

    async def peers(self, also: Iterable[PeerKey] = ()) -> list[PeerView]:
        """Return contacts, and peers that were met, heard of or are announced here; contacts first."""
        return await self._people.peers(also)

    # --- messages

    async def send(self, to: str | PeerKey, text: str, *, ttl_s: int = TTL_DEFAULT_S, require_fs: bool = False) -> Sent:
        """Put a message into the outbox; when this returns it survives a power cut.

        ``to`` may be ``name@domain`` or ``key@domain``: then the peer is thought to live there from now on.
        Raises: LocalError (unknown peer, too long, outbox or disk full, no forward-secret key), StoreError.
        """
        key, domain = await self._people.locate(to) if isinstance(to, str) else (to, "")
        return await self._outgoing.send(key, text, ttl_s=ttl_s, require_fs=require_fs, domain=domain)

    async def sent(self, uid: Uid) -> Sent:
        """Return a sent message as it is now. Raises: LocalError with code ``not_found``."""
        return await self._outgoing.sent(uid)

    async def outbox(self, *, limit: int = 1_000) -> list[Sent]:
        """Return our newest messages that nobody has confirmed and that are offered on; newest last."""
        return await self._outgoing.outbox(limit)

    async def wait(self, uid: Uid, until: State, timeout_s: float | None = None) -> Sent:
        """Wait until a message is in this state or in one that it cannot leave for it; return it.

        ``until`` is RELAYED or DELIVERED. Raises: TimeoutError; the message goes on waiting all the same.
        """
        return await self._outgoing.wait(uid, until, timeout_s)

    async def cancel(self, uid: Uid) -> Sent:
        """Stop offering a message; a copy that left before may still arrive. Raises: LocalError."""
        return await self._outgoing.cancel(uid)

    async def find_sent(self, prefix: str) -> Uid:
        """Return the uid that 32 hexadecimal digits name. Raises: LocalError."""
        return uid_of(prefix)

    async def trace(self, uid: Uid) -> TraceView:
        """Return what happened to a sent message. Raises: LocalError."""
        return await self._outgoing.trace(uid)

    async def inbox(self, *, after: int = 0, peer: PeerKey | None = None, limit: int = 1_000) -> list[Line]:
        """Return received messages and posts with a cursor above ``after``, oldest first."""
        return list(await self._call(lambda store: store.journal(after=after, limit=limit, messages=True, peer=peer)))

    def hides(self, line: Line) -> bool:
        """Say whether a line is not to be shown: a post of an author that was blocked since it came."""
        contact = self.contact(line.peer) if line.kind is LineKind.POST else None
        return contact is not None and contact.blocked

    def listen(self, timeout_s: float | None = None) -> AsyncGenerator[Line, None]:
        """Yield journal lines: first those not read yet, then each as it comes, until the time is over.

        A line counts as read only when :meth:`read` was told so. Several may listen at once: each gets every line that
        comes from now on, also when another one has read it. Posts of a muted channel are left out. Ends early when the
        node stops.
        """
        return self._heard(timeout_s)

    async def _heard(self, timeout_s: float | None) -> AsyncGenerator[Line, None]:
        async with aclosing(self._feed.listen(timeout_s)) as lines:
            async for line in lines:
                if not (line.kind is LineKind.POST and line.read and self._channels.muted(line.channel)):
                    yield line

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

    # --- bundles by hand

    async def write_bundle(self, path: Path, peer: PeerKey | None = None) -> BundleWritten:
        """Copy what waits here for others, or for one peer, into a new file, to be taken there by hand.

        Nothing leaves the outbox by that. Raises: LocalError with code ``exists``, UnavailableError.
        """
        return await self._bundles.write(path, peer)

    async def read_bundle(self, path: Path) -> BundleRead:
        """Take a bundle in, by the same gate as everything. Raises: LocalError when the file is not right."""
        return await self._bundles.read(path)

    # --- channels

    async def subscribe(
        self,
        topic: str,
        key: str | bytes | None = None,
        *,
        invite: str = "",
        passphrase: str | None = None,
        announce: bool = False,
    ) -> BroadcastChannel:
        """Join a channel: an open one; or with a key (32 bytes, 64 digits, "new"), an invite or a passphrase a private
        one; or make one in which only we announce. Raises: LocalError."""
        return await self._channels.subscribe(topic, key, invite=invite, passphrase=passphrase, announce=announce)

    def invite(self, topic: str) -> Invite:
        """Return what lets somebody else into a private channel that we are in. Raises: LocalError."""
        return self._channels.invite(topic)

    async def members(self, topic: str) -> list[MemberView]:
        """Return who is known to be in a channel; of an open one, who wrote there. Raises: LocalError."""
        return await self._membership.members(topic)

    async def posters(self, topic: str, add: Iterable[PeerKey] = (), remove: Iterable[PeerKey] = ()) -> PostersView:
        """Return who writes into an announcement channel; its owner may change that. Raises: LocalError."""
        return await self._membership.posters(topic, add, remove)

    async def rotate(self, topic: str, without: Iterable[PeerKey] = ()) -> RotationView:
        """Give a channel of ours a new secret, and send it to every member but those. Raises: LocalError."""
        return await self._membership.rotate(topic, without)

    async def mute(self, topic: str, *, muted: bool = True) -> Subscription:
        """Hear of a channel no more, or again. Raises: LocalError."""
        return await self._membership.mute(topic, muted=muted)

    async def unsubscribe(self, topic: str) -> BroadcastChannel:
        """Leave a channel. Raises: LocalError with code ``not_found``."""
        return await self._channels.unsubscribe(topic)

    async def broadcast(self, topic: str, text: str, *, emergency: bool = False) -> Posted:
        """Post into a channel that we are in; it goes to all linked subscribers, now and for a week.

        ``emergency``: to those who trust us with emergencies it is shown as one, to others as an ordinary post.
        Raises: LocalError (no such channel, too long, disk full), StoreError.
        """
        return await self._channels.broadcast(topic, text, emergency=emergency)

    async def reached(self, uid: Uid, timeout_s: float | None = None) -> int:
        """Wait, for so long at most, until a neighbour has a post; return how many have it. Raises: LocalError."""
        return await self._channels.reached(uid, timeout_s)

    async def posts(self) -> AsyncIterator[Line]:
        """Yield posts of all channels, unread ones first; each counts as read when the next is asked for."""
        async for line in self.listen():
            if line.kind is LineKind.POST:
                if not self.hides(line):
                    yield line
                await self.read((line.cursor,))

    def history(
        self,
        topic: str,
        *,
        after: int = 0,
        since: WallTime | None = None,
        unread: bool = False,
        count: int | None = None,
    ) -> AsyncGenerator[Line | Missing, None]:
        """Yield the posts of a channel that we are in, ours among them, each after what its author had read before it.

        What is missing of an author stands before the post that shows it. Only those with a cursor above ``after``,
        those that came at ``since`` or later, those that are unread; of these the newest ``count``. A line counts as
        read only when :meth:`read` was told so. Raises: LocalError with code ``not_found``.
        """
        channel = self._channels.find(topic)
        return history(self._driver, channel.id, after=after, since=since, unread=unread, count=count)

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
        now, linked = self._driver.now(), self._links.linked()
        views = []
        for peer in sorted(linked):
            found = self._links.describe(peer)
            if found is not None:
                connection, since = found
                where, relayed = connection.remote_address(), connection.relayed()
                cost = link_cost(self._links.counted(connection) or 0, relayed=relayed)
                hint = self._underlay.hint(where[0]) if where is not None else None
                views.append(RouteView(peer, peer, cost, 1, (now.at - since) / 1_000, "direct", relayed, hint))
        views += [
            RouteView(way.destination, way.next_hop, way.metric, way.hops, way.age_s, "mesh")
            for way in sorted(self._node.routes(now), key=lambda way: (way.metric, way.destination))
            if way.destination not in linked
        ]
        return views + self._account.routes({view.destination for view in views})

    async def use_server(self, server: str, *, trust: bytes | None = None) -> ServerStanding:
        """Make ``host:port`` the home server, "" none; return how we stand with it once it was tried.

        A text without a colon means one that announces itself, see :meth:`find_server`. ``trust`` is the fingerprint to
        accept: of an announced server for the first time, else in place of one pinned before.
        Raises: LocalError; with code ``untrusted`` for an announced server that nobody has confirmed.
        """
        if server and ":" not in server:
            await announced.pick(server, await self.find_server(server), trust, self._account)
        else:
            await self._account.use(server, trust=trust)
        return await self._server_settled()

    async def find_server(self, text: str) -> announced.Choice:
        """Return the announced server that a domain, or the beginning of a fingerprint, means. Raises: LocalError."""
        return await announced.find(text, self.servers if self._discovery is not None else None, self._account)

    async def register(self, name: str = "", invite: str = "") -> tuple[str, str]:
        """Become a user of the home server, or bind a name to our key there; return the name and the domain.

        Raises: LocalError, UnavailableError; the server's own reason comes as a QuicprochatError with its ``code``.
        """
        await self._server_settled()
        return await self._account.register(name, invite)

    async def _server_settled(self) -> ServerStanding:
        """Wait until the home server was reached, or could not be; without a network nobody tries."""
        return await self._account.settled() if self._network else self._account.standing()

    def server(self) -> ServerStanding:
        """Return how we stand with the home server."""
        return self._account.standing()

    async def reachability(self, timeout_s: float = 0.0) -> Reachability:
        """Return what is known of reaching others and being reached.

        A node that has just started knows little: so long at most is waited for its home server, and for two contacts
        that say where they see it.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                if self._network:
                    await self._account.settled()
                contacts = len(self._whom_to_look_up())
                while self._reach is not None and len(self._reach.seen()) < min(WITNESSES, contacts):
                    await self._feed.news()
        reach, discovery = self._reach, self._discovery
        return Reachability(
            self._options.network, self.networked, self.addresses(), len(self._links.linked()),
            len(discovery.found()) if discovery is not None else None,
            reach.known() if reach is not None else (), reach.seen() if reach is not None else (),
            self._account.standing(), self._underlay.found, len(self._underlay),
        )  # fmt: skip

    async def status(self) -> Status:
        """Return the node at a glance."""
        told = self._feed.told

        def read(store: MeshStore) -> tuple[int, int, dict[ChannelId, int]]:
            waiting = store.usage(Scope.OWN).count - store.usage(Scope.OWN_RECEIPTS).count
            return waiting, store.unread(), store.unread_channels()

        waiting, unread, posts = await self._driver.read(read)
        channels = tuple((channel, posts[channel.id]) for channel in self.channels() if channel.id in posts)
        return Status(
            self.name, self.key, self.networked, len(self._links.linked()), waiting, unread, self._disk_low,
            tuple(self.alarms[-ALARMS_SHOWN:]), told, self._account.standing().standing, channels,
            self._changes,
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
                carried.count + receipts.count, carried.bytes + receipts.bytes,
                counters.get("passed_on", 0), counters.get("evicted", 0),
            )  # fmt: skip

        return await self._call(read)

    def wall(self) -> WallTime:
        """Return what the wall clock says, whether it may be believed or not."""
        return self._driver.now().wall

    async def settled(self) -> None:
        """Wait until everything posted before is durable and its effects are out."""
        await self._driver.settle([])

    async def _call(self, work: Callable[[MeshStore], T]) -> T:
        return await self._driver.call(work)
