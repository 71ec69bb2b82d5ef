"""A node's parts: how they are put together, run and closed, and who carries out which effect."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar, assert_never

from quicprochat.adapters.crypto import SodiumCrypto
from quicprochat.adapters.home import Home
from quicprochat.adapters.sqlite.ballast import BALLAST_BYTES
from quicprochat.adapters.sqlite.store import SqliteStore
from quicprochat.adapters.system import SystemClock, entropy, jitter
from quicprochat.adapters.underlay import Underlay
from quicprochat.core.address import Address
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
from quicprochat.core.ids import PeerKey
from quicprochat.core.link import Hello, frame
from quicprochat.core.memory import MemoryStore
from quicprochat.core.node import Node
from quicprochat.core.policy import Policy
from quicprochat.core.store import MeshStore
from quicprochat.p2p.account import Account
from quicprochat.p2p.book import AddressBook
from quicprochat.p2p.bundles import Bundles
from quicprochat.p2p.candidates import Candidate
from quicprochat.p2p.channels import Channels
from quicprochat.p2p.claims import Claims
from quicprochat.p2p.driver import CLOCK_KEY, Driver, Point
from quicprochat.p2p.edge import Edge
from quicprochat.p2p.feed import Feed
from quicprochat.p2p.link import PeerLink
from quicprochat.p2p.links import Links, Transport
from quicprochat.p2p.membership import Membership
from quicprochat.p2p.names import Names
from quicprochat.p2p.options import Options
from quicprochat.p2p.outgoing import Outgoing
from quicprochat.p2p.people import People
from quicprochat.p2p.reach import Reach, check_relay
from quicprochat.p2p.views import ServerStanding
from quicprochat.p2p.wake import watch_sleep

if TYPE_CHECKING:
    from quicprochat.adapters.iroh import Endpoint
    from quicprochat.p2p.discovery import Discovery
    from quicprochat.p2p.home_link import HomeLink

log = logging.getLogger("quicprochat")
T = TypeVar("T")

SESSION_BYTES = 16
EPOCH_KEY = "epoch"
PORT_KEY = "p2p.port"
DISK_CHECK_S = 10.0
BIND_S, BIND_PAUSE_S = 2.0, 0.1
"""How long a port that is taken is tried again: who has just left the home can still have it for a moment."""
ALARMS_MAX = 100


class Runtime:
    """What a running node is made of, its life, and where its effects go. Its parts are there once it has started.

    ``probe`` is told of each point of a turn. Errors are those of :class:`P2pNode`.
    """

    def __init__(self, options: Options, *, network: bool, probe: Callable[[Point], None] | None) -> None:
        self.options = options
        self.network = network
        self.home = Home(options.home)
        self.stop = asyncio.Event()
        self.endpoint: Any = None
        self.discovery: Discovery | None = None
        self.reach: Reach | None = None
        self.underlay = Underlay()
        self.disk_low = False
        self.changes = 0
        """How often the address book or our channels have changed."""
        self.alarms: list[Alarm] = []
        self._probe = probe
        self._session = entropy(SESSION_BYTES)
        self._epoch = bytes(SESSION_BYTES)
        self._main: asyncio.Task[None] | None = None

    # --- life

    async def start(self) -> None:
        """Take the home and begin. Raises: LocalError, UnavailableError; then nothing is held."""
        async with AsyncExitStack() as undo:
            self.home.own()
            undo.callback(self.home.disown)
            self.crypto = SodiumCrypto(entropy)
            self.book = AddressBook(self.home.identity, self.crypto, entropy)
            self.store = self._open_store()
            undo.callback(self.store.close)
            self._assemble()
            undo.callback(self.driver.close)
            undo.push_async_callback(self._close_endpoint)
            await self.driver.start()
            await self._open_network()
            undo.pop_all()
        self._main = asyncio.create_task(self._run())
        try:
            await self.call(self._prepare)
            if self.network:
                await self.driver.settle([self.self_changed()])
                await self.people.learn_known()
        except BaseException:
            await self.close()
            raise

    def _assemble(self) -> None:
        """Make the parts, each of those before it."""
        signer, identity, options = self.book.signer, self.book.identity, self.options
        self.clock = SystemClock(self.store.value(CLOCK_KEY))
        self.disk_low = self._make_room()
        self.policy = Policy(
            identity.key, identity.known(), identity.blocked(), options.limits, self.disk_low, options.carry,
            stays=options.stays,
            trusted=identity.trusted(),
        )  # fmt: skip
        self.node = Node(signer, self.crypto, entropy, self.policy)
        self.edge = Edge(signer, signer.exchange_private(), self.crypto, entropy)
        self.driver = Driver(self.node, self.store, self.clock, self._release, self._probe)
        self.channels = Channels(self.driver, self.crypto, entropy, identity.key, self.node.unreadable)
        self.feed = Feed(self.driver, self.store.newest_line())
        self.book.changed = self._changed
        self.links = Links(self.book, self.edge, self.crypto, self.driver, self._hello, jitter, self.feed.tell)
        self.links.underlay = self.underlay.hint
        self.account = Account(
            identity.seed, self.driver, self.links, self._own_record, self.whom_to_look_up, self.feed.tell,
            self._moved_home, jitter, self.options.network,
        )  # fmt: skip
        claims = Claims(self.book, self.links.instant, self._alarm)
        self.links.named = claims.heard
        self.people = People(
            self.book, self.driver, self.links, claims, self.announced, self.policy_changed,
            self.options.limits.requests, Names(self.driver, self.account, self.server_settled),
        )  # fmt: skip
        self.bundles = Bundles(self.driver, self.links)
        self.outgoing = Outgoing(self.book, self.driver, self.links, self.edge, self.account.find, self.node)
        self.membership = Membership(
            self.channels, self.driver, identity.key, entropy, self.outgoing.key_letter
        )  # fmt: skip

    def _open_store(self) -> MeshStore:
        if self.options.ephemeral:
            return MemoryStore()
        return SqliteStore.open(self.home.database)

    def _make_room(self) -> bool:
        """Say whether the disk is almost full; then the store's reserve is given up, so that deleting works."""
        store = self.store
        if not isinstance(store, SqliteStore) or not store.disk_low(self.options.disk_reserve_bytes):
            return False
        log.warning("the disk is almost full: no new messages are taken")
        if store.disk_low(BALLAST_BYTES) and (freed := store.make_room()):
            log.warning("%d bytes of reserve are given up, so that messages can leave", freed)
        return True

    async def _open_network(self) -> None:
        if not self.network or find_spec("iroh") is None:
            return
        from quicprochat.adapters import iroh  # the extra: everything else works without it
        from quicprochat.adapters.relay.probe import answers

        check_relay(self.options.relay, self.options.network)
        self.endpoint = await self._bind(iroh.Endpoint.bind)
        self.links.reach = self.reach = Reach(
            self.endpoint, self.options.network, self.options.relay, self.links.instant, self.links.relayed,
            self._reach_changed, answers,
        )  # fmt: skip
        self.endpoint.on_address_change(self._addresses_changed)
        if self.options.discovery:
            from quicprochat.p2p.discovery import Discovery  # a tenth of a second to load

            self.discovery = Discovery(
                self.links, self.addresses, jitter, bind=self.options.bind, quiet=self.options.quiet
            )

    async def _bind(self, endpoint: Callable[..., Awaitable[Endpoint]]) -> Endpoint:
        bind, stored = self.options.bind, self.store.value(PORT_KEY)
        at = partial(endpoint, self.book.identity.seed, relay_url=self.options.relay or None)
        if bind is None:
            if stored:
                with suppress(UnavailableError):  # taken by now: any other serves as well, and records tell the peers
                    return await at(bind=("0.0.0.0", int(stored)))
            return await at(bind=None)
        clock = asyncio.get_running_loop().time
        until = clock() + BIND_S
        while True:
            try:
                return await at(bind=(bind.ip, bind.port))
            except UnavailableError as error:
                if not error.retryable or clock() >= until:
                    raise
            await asyncio.sleep(BIND_PAUSE_S)

    async def _close_endpoint(self) -> None:
        if self.endpoint is not None:
            await self.endpoint.close()
            self.endpoint = None

    def _prepare(self, store: MeshStore) -> None:
        epoch = store.value(EPOCH_KEY)
        if epoch is None:
            epoch = entropy(SESSION_BYTES)
            store.set_value(EPOCH_KEY, epoch)
        self._epoch = epoch
        self.account.load(store, self.options.server)
        self.edge.domain = self.account.domain
        addresses = self.addresses()
        if self.options.bind is None and addresses:
            store.set_value(PORT_KEY, str(addresses[0].port).encode("ascii"))

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                driver = group.create_task(self.driver.run())
                others: list[asyncio.Task[None]] = [group.create_task(self._watch_disk())]
                if self.endpoint is not None:
                    transport: Transport = self.endpoint
                    others.append(group.create_task(self.links.run(transport)))
                    others.append(group.create_task(self.underlay.run()))
                if self.reach is not None:
                    others.append(group.create_task(self.reach.run()))
                if self.network:
                    others.append(group.create_task(watch_sleep(self.links.instant, self._awake)))
                    others.append(group.create_task(self.account.run()))
                if self.discovery is not None:
                    others.append(group.create_task(self.discovery.run()))
                await self.stop.wait()
                for task in others:
                    task.cancel()
                await asyncio.wait(others)
                self.driver.finish()
                await driver
        finally:
            self.stop.set()
            self.feed.stop()
            self.outgoing.stop()

    async def close(self) -> None:
        """Close the links, finish what is under way, and let go of the home. Any number of calls is one."""
        self.stop.set()
        if self._main is None:
            return  # it has not started, or could not
        self.feed.stop()
        await asyncio.wait([self._main])
        self._main.exception()
        await self._close_endpoint()
        self.driver.close()
        self.home.disown()

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
        while isinstance(self.store, SqliteStore):
            low = self.store.disk_low(self.options.disk_reserve_bytes)
            if low != self.disk_low:
                self.disk_low = low
                log.warning("the disk is %s", "almost full: no new messages are taken" if low else "roomy again")
                self.policy_changed()
            await asyncio.sleep(DISK_CHECK_S)

    # --- effects

    def _release(self, effect: Effect) -> None:
        match effect:
            case SendEnvelope() if (home := self.account.link(effect.link)) is not None:
                home.send_envelope(effect.wire, effect.domain)
            case SendEnvelope():
                if (neighbour := self.links.link(effect.link)) is not None:
                    neighbour.send_envelope(effect.wire)
            case SendResults():
                if (link := self._link(effect.link)) is not None:
                    link.send_results(effect.results)
            case SendRecord():
                if (link := self._link(effect.link)) is not None:
                    link.send_record(effect.record, effect.age_ms)
            case Journaled():
                self.feed.take(effect.line)
            case StateChanged():
                self.outgoing.changed(effect)
            case Accepted():
                self.outgoing.accepted(effect)
                if effect.sent is not None:
                    self.feed.tell()
            case SendFrame():
                if (peer := self.links.link(effect.link)) is not None:
                    peer.send(frame(effect.kind, effect.body))
            case CloseLink() if (home := self.account.link(effect.link)) is not None:
                home.end(effect.code, effect.reason)
            case CloseLink():
                self.links.close_link(effect.link, effect.code, effect.reason, effect.ban_ms)
            case Reseal():
                self.outgoing.reseal(effect)
            case PrekeysChanged():
                self.edge.load_prekeys(self.store.prekeys)
            case SendInterest():
                if (link := self._link(effect.link)) is not None:
                    link.send_interest(effect.channels)
            case ChannelsChanged():
                self.edge.load_channels(effect.subscriptions)
                self.channels.load(effect.subscriptions)
                self._changed()
            case PostAccepted():
                self.channels.accepted(effect)
            case PostTaken():
                self.channels.taken(effect)
            case BundleTaken():
                self.bundles.taken(effect)
            case RecordMade():
                pass
            case Alarm():
                self._alarm(effect)
            case _:
                assert_never(effect)

    def _changed(self) -> None:
        """The address book or our channels are not as they were."""
        self.changes += 1
        self.feed.tell()

    def _alarm(self, alarm: Alarm) -> None:
        """Tell the person: in the log at once, and in :attr:`alarms`, which keeps the last ones."""
        log.error("%s", alarm.text)
        self.alarms.append(alarm)
        del self.alarms[:-ALARMS_MAX]
        self.feed.tell()

    def _link(self, id: LinkId) -> PeerLink | HomeLink | None:
        return self.links.link(id) or self.account.link(id)

    # --- our own face

    def _own_record(self) -> tuple[bytes, int]:
        return self.node.record.signed, max(0, self.driver.now().at - self.node.record_made_at)

    def _hello(self, peer: PeerKey) -> Hello:
        return Hello(self._session, self._epoch, *self._own_record(), routes=self.node.routes_held(peer))

    def whom_to_look_up(self) -> list[PeerKey]:
        return [key for key, contact in self.book.identity.contacts.items() if contact.name and not contact.blocked]

    def self_changed(self) -> SelfChanged:
        return SelfChanged(self.book.identity.name, self.account.domain, self.relay(), self.addresses())

    def _moved_home(self) -> None:
        self.edge.domain = self.account.domain
        self.driver.post(self.self_changed())

    def relay(self) -> str:
        return self.reach.relay if self.reach is not None else ""

    def _reach_changed(self) -> None:
        """We are reachable elsewhere: peers are told, and those whom we could not reach are tried from there."""
        self.driver.post(self.self_changed())
        self.links.dialler.hurry()

    def _awake(self) -> None:
        """The machine has slept: whoever was linked is dialled anew as soon as its link is seen to be dead."""
        self.links.dialler.hurry()
        self.account.hurry()
        if self.discovery is not None:
            self.discovery.awake()

    def _addresses_changed(self, _: object) -> None:
        if self.reach is not None:
            self.reach.network_changed()
        self.driver.post(self.self_changed())
        self.links.dialler.hurry()
        self.account.hurry()
        if self.discovery is not None:
            self.discovery.network_changed()

    def addresses(self) -> tuple[Address, ...]:
        """Return where we can be dialled."""
        if self.endpoint is None:
            return ()
        return tuple(Address(ip, port) for ip, port in self.endpoint.addresses())

    def announced(self) -> dict[PeerKey, Candidate]:
        """Return who announces itself on the local network."""
        return self.discovery.found() if self.discovery is not None else {}

    def policy_changed(self) -> None:
        """Tell the node whom its owner knows, blocks and trusts now, and how the disk is."""
        identity = self.book.identity
        self.driver.post(PolicyChanged(identity.known(), identity.blocked(), self.disk_low, identity.trusted()))

    async def server_settled(self) -> ServerStanding:
        """Wait until the home server was reached, or could not be; without a network nobody tries."""
        return await self.account.settled() if self.network else self.account.standing()

    async def call(self, work: Callable[[MeshStore], T]) -> T:
        """Do something with the store in a turn of its own."""
        return await self.driver.call(work)
