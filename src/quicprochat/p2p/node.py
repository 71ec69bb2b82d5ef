"""P2pNode: a mesh node on this machine; the library's face, and all that the command line drives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing, suppress
from pathlib import Path
from types import TracebackType
from typing import ClassVar

from quicprochat.adapters.home import Home
from quicprochat.core.address import Address
from quicprochat.core.channel import BroadcastChannel, Subscription
from quicprochat.core.envelope import TTL_DEFAULT_S
from quicprochat.core.errors import UnavailableError
from quicprochat.core.events import Alarm
from quicprochat.core.identity import Contact, Ticket, fingerprint
from quicprochat.core.ids import ChannelId, PeerKey, Uid
from quicprochat.core.invite import Invite
from quicprochat.core.receipt import State
from quicprochat.core.route_cost import link_cost
from quicprochat.core.store import Line, LineKind, MeshStore, Scope, Sent
from quicprochat.core.time import WallTime
from quicprochat.p2p import announced
from quicprochat.p2p.driver import Point
from quicprochat.p2p.history import Missing, history
from quicprochat.p2p.moving import gather, pack
from quicprochat.p2p.options import Options
from quicprochat.p2p.outgoing import uid_of
from quicprochat.p2p.runtime import Runtime
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

ALARMS_SHOWN = 16
WITNESSES = 2
"""Who see us from outside tell a NAT that gives each peer another port apart from one that does not."""


class P2pNode:
    """Owns a home, keeps links, and sends and receives messages. Use as ``async with P2pNode(options) as node``.

    ``network`` False runs without any network (also the case without the extra ``mesh``): messages are kept. ``probe``
    is told of each point of a turn, for tests that stop the process there.
    Raises: LocalError, UnavailableError on entering; StoreError ends it, see :meth:`failed`.
    """

    made_of: ClassVar[type[Runtime]] = Runtime
    """What runs underneath; a test may put something else there."""

    def __init__(self, options: Options, *, network: bool = True, probe: Callable[[Point], None] | None = None) -> None:
        self._runtime = self.made_of(options, network=network, probe=probe)

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
        await self._runtime.start()

    async def close(self) -> None:
        """Close the links, finish what is under way, and let go of the home. Any number of calls is one."""
        await self._runtime.close()

    async def failed(self) -> None:
        """Wait until the node stops. Raises: the QuicprochatError that stopped it, if one did."""
        await self._runtime.failed()

    # --- our own face

    @property
    def key(self) -> PeerKey:
        """Our public key: who we are."""
        return self._runtime.book.identity.key

    @property
    def name(self) -> str:
        """What we call ourselves."""
        return self._runtime.book.identity.name

    @property
    def home(self) -> Home:
        """The home this node owns."""
        return self._runtime.home

    @property
    def stopping(self) -> bool:
        """True from the moment the node begins to stop."""
        return self._runtime.stop.is_set()

    @property
    def networked(self) -> bool:
        """True when messages can leave: links can come about, or a home server is chosen."""
        return self._runtime.endpoint is not None or (self._runtime.network and bool(self._runtime.account.server))

    def linked(self) -> frozenset[PeerKey]:
        """Return the peers with a link at this moment."""
        return self._runtime.links.linked()

    async def wait_linked(self, peer: PeerKey, timeout_s: float | None = None) -> None:
        """Wait until a peer is linked. Raises: TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while peer not in self._runtime.links.linked():
                if self._runtime.stop.is_set():
                    raise UnavailableError("the node has stopped", retryable=False)
                await self._runtime.feed.news()

    def addresses(self) -> tuple[Address, ...]:
        """Return where we can be dialled."""
        return self._runtime.addresses()

    @property
    def alarms(self) -> list[Alarm]:
        """What the person should know of, oldest first; only the last ones are kept."""
        return self._runtime.alarms

    def fingerprint(self) -> str:
        """Return our own digits."""
        return fingerprint(self.key)

    def ticket(self) -> Ticket:
        """Return what another person needs to find us."""
        return Ticket(self.key, self.addresses(), self._runtime.relay())

    async def export(self, passphrase: str) -> bytes:
        """Return our identity as a file that the passphrase opens, see ``p2p.moving``; no messages are in it.

        Raises: LocalError for a passphrase that is too short, UnavailableError.
        """
        contents = await self._runtime.call(
            lambda store: gather(self._runtime.book.identity, store, self._runtime.driver.now())
        )
        return await asyncio.to_thread(pack, contents, passphrase)

    async def rename(self, name: str) -> None:
        """Change what we call ourselves; peers learn it at once. Raises: LocalError."""
        self._runtime.book.rename(name)
        await self._runtime.driver.settle([self._runtime.self_changed()])

    # --- people

    async def resolve(self, peer: str) -> PeerKey:
        """Return the peer that a name, a key or the beginning of a key means. Raises: LocalError."""
        return await self._runtime.people.resolve(peer)

    def contact(self, key: PeerKey) -> Contact | None:
        """Return what our owner noted of a peer."""
        return self._runtime.book.contact(key)

    def servers(self) -> list[ServerView]:
        """Return the home servers that announce themselves on the local network."""
        return self._runtime.discovery.servers() if self._runtime.discovery is not None else []

    async def add(self, text: str, name: str | None = None) -> PeerView:
        """Add a contact and dial it: from a ticket, a key, key@ip:port, or the first digits of a known peer's key.

        Raises: LocalError; with code ``untrusted`` when the name is, or looks like, that of a contact with another key.
        """
        return await self._runtime.people.add(text, name)

    async def verify(self, peer: str, *, confirmed: bool = False, scanned: str = "") -> tuple[PeerView, str]:
        """Return a peer and the digits both sides compare; ``confirmed`` notes that they were equal.

        ``scanned`` is what the peer's screen showed as a QR code; it confirms as well. Raises: LocalError with code
        ``untrusted`` when it is not what this peer must show.
        """
        return await self._runtime.people.verify(peer, confirmed=confirmed, scanned=scanned)

    async def block(self, peer: str, *, blocked: bool = True) -> PeerView:
        """Refuse a peer's links and messages from now on, or no longer. Raises: LocalError."""
        return await self._runtime.people.block(peer, blocked=blocked)

    async def trust(self, peer: str, *, trusted: bool = True) -> PeerView:
        """Take what a contact posts as an emergency for one from now on, or no longer. Raises: LocalError."""
        return await self._runtime.people.trust(peer, trusted=trusted)

    async def peer(self, key: PeerKey) -> PeerView:
        """Return what is known of one peer."""
        return await self._runtime.people.peer(key)

    async def peers(self, also: Iterable[PeerKey] = ()) -> list[PeerView]:
        """Return contacts, and peers that were met, heard of or are announced here; contacts first."""
        return await self._runtime.people.peers(also)

    # --- messages

    async def send(self, to: str | PeerKey, text: str, *, ttl_s: int = TTL_DEFAULT_S, require_fs: bool = False) -> Sent:
        """Put a message into the outbox; when this returns it survives a power cut.

        ``to`` may be ``name@domain`` or ``key@domain``: then the peer is thought to live there from now on.
        Raises: LocalError (unknown peer, too long, outbox or disk full, no forward-secret key), StoreError.
        """
        key, domain = await self._runtime.people.locate(to) if isinstance(to, str) else (to, "")
        return await self._runtime.outgoing.send(key, text, ttl_s=ttl_s, require_fs=require_fs, domain=domain)

    async def sent(self, uid: Uid) -> Sent:
        """Return a sent message as it is now. Raises: LocalError with code ``not_found``."""
        return await self._runtime.outgoing.sent(uid)

    async def outbox(self, *, limit: int = 1_000) -> list[Sent]:
        """Return our newest messages that nobody has confirmed and that are offered on; newest last."""
        return await self._runtime.outgoing.outbox(limit)

    async def wait(self, uid: Uid, until: State, timeout_s: float | None = None) -> Sent:
        """Wait until a message is in this state or in one that it cannot leave for it; return it.

        ``until`` is RELAYED or DELIVERED. Raises: TimeoutError; the message goes on waiting all the same.
        """
        return await self._runtime.outgoing.wait(uid, until, timeout_s)

    async def cancel(self, uid: Uid) -> Sent:
        """Stop offering a message; a copy that left before may still arrive. Raises: LocalError."""
        return await self._runtime.outgoing.cancel(uid)

    async def find_sent(self, prefix: str) -> Uid:
        """Return the uid that 32 hexadecimal digits name. Raises: LocalError."""
        return uid_of(prefix)

    async def trace(self, uid: Uid) -> TraceView:
        """Return what happened to a sent message. Raises: LocalError."""
        return await self._runtime.outgoing.trace(uid)

    async def inbox(self, *, after: int = 0, peer: PeerKey | None = None, limit: int = 1_000) -> list[Line]:
        """Return received messages and posts with a cursor above ``after``, oldest first."""
        return list(
            await self._runtime.call(lambda store: store.journal(after=after, limit=limit, messages=True, peer=peer))
        )

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
        async with aclosing(self._runtime.feed.listen(timeout_s)) as lines:
            async for line in lines:
                if not (line.kind is LineKind.POST and line.read and self._runtime.channels.muted(line.channel)):
                    yield line

    async def read(self, cursors: Iterable[int]) -> None:
        """Mark lines as read."""
        wanted = tuple(cursors)
        await self._runtime.call(lambda store: store.mark_read(wanted))
        self._runtime.feed.tell()

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
        return await self._runtime.bundles.write(path, peer)

    async def read_bundle(self, path: Path) -> BundleRead:
        """Take a bundle in, by the same gate as everything. Raises: LocalError when the file is not right."""
        return await self._runtime.bundles.read(path)

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
        return await self._runtime.channels.subscribe(
            topic, key, invite=invite, passphrase=passphrase, announce=announce
        )

    def invite(self, topic: str) -> Invite:
        """Return what lets somebody else into a private channel that we are in. Raises: LocalError."""
        return self._runtime.channels.invite(topic)

    async def members(self, topic: str) -> list[MemberView]:
        """Return who is known to be in a channel; of an open one, who wrote there. Raises: LocalError."""
        return await self._runtime.membership.members(topic)

    async def posters(self, topic: str, add: Iterable[PeerKey] = (), remove: Iterable[PeerKey] = ()) -> PostersView:
        """Return who writes into an announcement channel; its owner may change that. Raises: LocalError."""
        return await self._runtime.membership.posters(topic, add, remove)

    async def rotate(self, topic: str, without: Iterable[PeerKey] = ()) -> RotationView:
        """Give a channel of ours a new secret, and send it to every member but those. Raises: LocalError."""
        return await self._runtime.membership.rotate(topic, without)

    async def mute(self, topic: str, *, muted: bool = True) -> Subscription:
        """Hear of a channel no more, or again. Raises: LocalError."""
        return await self._runtime.membership.mute(topic, muted=muted)

    async def unsubscribe(self, topic: str) -> BroadcastChannel:
        """Leave a channel. Raises: LocalError with code ``not_found``."""
        return await self._runtime.channels.unsubscribe(topic)

    async def broadcast(self, topic: str, text: str, *, emergency: bool = False) -> Posted:
        """Post into a channel that we are in; it goes to all linked subscribers, now and for a week.

        ``emergency``: to those who trust us with emergencies it is shown as one, to others as an ordinary post.
        Raises: LocalError (no such channel, too long, disk full), StoreError.
        """
        return await self._runtime.channels.broadcast(topic, text, emergency=emergency)

    async def reached(self, uid: Uid, timeout_s: float | None = None) -> int:
        """Wait, for so long at most, until a neighbour has a post; return how many have it. Raises: LocalError."""
        return await self._runtime.channels.reached(uid, timeout_s)

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
        channel = self._runtime.channels.find(topic)
        return history(self._runtime.driver, channel.id, after=after, since=since, unread=unread, count=count)

    def channels(self) -> tuple[BroadcastChannel, ...]:
        """Return the channels we are in."""
        return self._runtime.channels.joined()

    def channel(self, id: bytes) -> BroadcastChannel | None:
        """Return the channel of a line, also one that was left; None for a line without."""
        return self._runtime.channels.named(id)

    async def channel_views(self) -> list[ChannelView]:
        """Return the channels we are in, with what is kept and what is unread."""
        return await self._runtime.channels.views()

    # --- views

    def routes(self) -> list[RouteView]:
        """Return the ways to destinations that exist now."""
        now, linked = self._runtime.driver.now(), self._runtime.links.linked()
        views = []
        for peer in sorted(linked):
            found = self._runtime.links.describe(peer)
            if found is not None:
                connection, since = found
                where, relayed = connection.remote_address(), connection.relayed()
                cost = link_cost(self._runtime.links.counted(connection) or 0, relayed=relayed)
                hint = self._runtime.underlay.hint(where[0]) if where is not None else None
                views.append(RouteView(peer, peer, cost, 1, (now.at - since) / 1_000, "direct", relayed, hint))
        views += [
            RouteView(way.destination, way.next_hop, way.metric, way.hops, way.age_s, "mesh")
            for way in sorted(self._runtime.node.routes(now), key=lambda way: (way.metric, way.destination))
            if way.destination not in linked
        ]
        return views + self._runtime.account.routes({view.destination for view in views})

    async def use_server(self, server: str, *, trust: bytes | None = None) -> ServerStanding:
        """Make ``host:port`` the home server, "" none; return how we stand with it once it was tried.

        A text without a colon means one that announces itself, see :meth:`find_server`. ``trust`` is the fingerprint to
        accept: of an announced server for the first time, else in place of one pinned before.
        Raises: LocalError; with code ``untrusted`` for an announced server that nobody has confirmed.
        """
        if server and ":" not in server:
            await announced.pick(server, await self.find_server(server), trust, self._runtime.account)
        else:
            await self._runtime.account.use(server, trust=trust)
        return await self._runtime.server_settled()

    async def find_server(self, text: str) -> announced.Choice:
        """Return the announced server that a domain, or the beginning of a fingerprint, means. Raises: LocalError."""
        return await announced.find(
            text, self.servers if self._runtime.discovery is not None else None, self._runtime.account
        )

    async def register(self, name: str = "", invite: str = "") -> tuple[str, str]:
        """Become a user of the home server, or bind a name to our key there; return the name and the domain.

        Raises: LocalError, UnavailableError; the server's own reason comes as a QuicprochatError with its ``code``.
        """
        await self._runtime.server_settled()
        return await self._runtime.account.register(name, invite)

    def server(self) -> ServerStanding:
        """Return how we stand with the home server."""
        return self._runtime.account.standing()

    async def reachability(self, timeout_s: float = 0.0) -> Reachability:
        """Return what is known of reaching others and being reached.

        A node that has just started knows little: so long at most is waited for its home server, and for two contacts
        that say where they see it.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                if self._runtime.network:
                    await self._runtime.account.settled()
                contacts = len(self._runtime.whom_to_look_up())
                while self._runtime.reach is not None and len(self._runtime.reach.seen()) < min(WITNESSES, contacts):
                    await self._runtime.feed.news()
        reach, discovery = self._runtime.reach, self._runtime.discovery
        return Reachability(
            self._runtime.options.network, self.networked, self.addresses(), len(self._runtime.links.linked()),
            len(discovery.found()) if discovery is not None else None,
            reach.known() if reach is not None else (), reach.seen() if reach is not None else (),
            self._runtime.account.standing(), self._runtime.underlay.found, len(self._runtime.underlay),
        )  # fmt: skip

    async def status(self) -> Status:
        """Return the node at a glance."""
        told = self._runtime.feed.told

        def read(store: MeshStore) -> tuple[int, int, dict[ChannelId, int]]:
            waiting = store.usage(Scope.OWN).count - store.usage(Scope.OWN_RECEIPTS).count
            return waiting, store.unread(), store.unread_channels()

        waiting, unread, posts = await self._runtime.driver.read(read)
        channels = tuple((channel, posts[channel.id]) for channel in self.channels() if channel.id in posts)
        return Status(
            self.name, self.key, self.networked, len(self.linked()), waiting, unread, self._runtime.disk_low,
            tuple(self.alarms[-ALARMS_SHOWN:]), told, self.server().standing, channels,
            self._runtime.changes,
        )  # fmt: skip

    async def news(self, since: Status) -> None:
        """Wait until something has happened since a status: a line, a link, an alarm, the end."""
        await self._runtime.feed.news(since.told)

    async def store_view(self) -> StoreView:
        """Return what the store holds and has done."""

        def read(store: MeshStore) -> StoreView:
            own, carried = store.usage(Scope.OWN), store.usage(Scope.CARRIED)
            receipts, counters = store.usage(Scope.RECEIPTS), store.counters()
            return StoreView(
                own.count + carried.count + receipts.count, own.bytes + carried.bytes + receipts.bytes,
                store.recipients(), self._runtime.options.limits.per_recipient, counters.get("expired", 0),
                counters.get("delivered", 0), counters.get("duplicates", 0), store.unread(),
                store.usage(Scope.POSTS).count + sum(
                    store.usage(Scope.OWN_POSTS, channel.id).count for channel in self.channels()
                ),
                carried.count + receipts.count, carried.bytes + receipts.bytes,
                counters.get("passed_on", 0), counters.get("evicted", 0),
            )  # fmt: skip

        return await self._runtime.call(read)

    def wall(self) -> WallTime:
        """Return what the wall clock says, whether it may be believed or not."""
        return self._runtime.driver.now().wall

    async def settled(self) -> None:
        """Wait until everything posted before is durable and its effects are out."""
        await self._runtime.driver.settle([])
