"""The home server's capabilities for Cap'n Proto: an entrance that knows who called, and that key's session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from quicprochat.adapters import rpc
from quicprochat.adapters.rpc import Capability, Problem, home, method
from quicprochat.core.domain import DOMAIN_MAX_CHARS
from quicprochat.core.envelope import ENVELOPE_MAX_BYTES
from quicprochat.core.errors import LocalError, UnavailableError
from quicprochat.core.federation import Report
from quicprochat.core.ids import ID_BYTES, KEY_BYTES, ChannelId, EnvelopeId, PeerKey
from quicprochat.core.local_name import NAME_MAX_CHARS
from quicprochat.core.record import RECORD_MAX_BYTES
from quicprochat.server.channels import FOLLOWED_MAX
from quicprochat.server.federation.reports import Reporter, Tell
from quicprochat.server.members import INVITE_MAX_CHARS
from quicprochat.server.posting import Positions, PostDesk, PostPusher
from quicprochat.server.push import Pusher, bounded
from quicprochat.server.queue import Delivery, Outcome, Queue

VERSION = 1
ENVELOPES_MAX = 256
"""Envelopes in one call."""
IDS_MAX = 1_024
FETCH_MAX = 256
TEXT_MAX_CHARS = 4 * max(NAME_MAX_CHARS, INVITE_MAX_CHARS)
SERIAL_MAX = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Info:
    """What a server says of itself, and of the key that asks."""

    version: str
    domain: str
    epoch: bytes
    per_recipient: int
    registration: str
    admitted: bool
    name: str


class Service(Protocol):
    """What a session asks of the server besides its queue; see ``HomeServer``."""

    async def info(self, key: PeerKey) -> Info:
        """Return what to tell a key."""
        ...

    def refusal(self, key: PeerKey) -> tuple[str, str] | None:
        """Return why a key that is no user has nothing to do here: code and sentence; None when it may register."""
        ...

    async def publish(self, key: PeerKey, record: bytes, age_ms: int) -> None:
        """Keep a user's own record, if it is the newest. Raises: LocalError, when it is none or not its own."""
        ...

    async def find_record(self, key: PeerKey, domain: str) -> tuple[bytes, int]:
        """Return a key's record here, or at a domain, and its age in milliseconds; empty when there is none."""
        ...

    async def find_name(self, name: str, domain: str) -> PeerKey:
        """Return whose name this is here, or at a domain. Raises: QuicprochatError."""
        ...

    def reporter(self, key: PeerKey, tell: Tell) -> Reporter | None:
        """Return what tells a device of answers from other domains, None where there are no other domains."""
        ...

    async def register(self, key: PeerKey, name: str, invite: str) -> str:
        """Make a user of a key, or give it a name; return the name as it is kept. Raises: LocalError."""
        ...


class Client:
    """One connection of one key: its calls, and its receiver if it gave one. ``admitted``: the key is a user's.

    ``desk`` is where channels are followed, None where they are not.
    """

    def __init__(
        self, key: PeerKey, queue: Queue, service: Service, served: rpc.Served, desk: PostDesk | None = None
    ) -> None:
        self.key = key
        self.queue = queue
        self.service = service
        self.served = served
        self.admitted = False
        self.pusher: Pusher | None = None
        self.reporter: Reporter | None = None
        self.desk = desk
        self.following: Positions = {}
        self.closed = False
        self.turning = asyncio.Lock()
        """One change of what is followed at a time."""
        self.fetching = asyncio.Lock()
        """One answer of many bytes at a time."""
        self._pushing: asyncio.Task[None] | None = None
        self._receiver: Receiver | None = None
        self._posts: PostPusher | None = None
        self.failed: Callable[[BaseException], None] = lambda _: None

    def user(self) -> PeerKey:
        """Return the user's key. Raises: Problem, when it is no user's."""
        if not self.admitted:
            code, message = self.service.refusal(self.key) or (
                "policy", "this server takes new users by invite only: register with one"
            )  # fmt: skip
            raise Problem(message, code)
        return self.key

    def subscribe(self, receiver: Receiver) -> None:
        """Push to this receiver from now on."""
        self._stop_pushing()
        self._receiver = receiver
        self.pusher = Pusher(self.queue, self.key, receiver.deliver, self.served.room)
        self.reporter = self.service.reporter(self.key, receiver.report)
        if self.desk is not None:
            self._posts = PostPusher(self.desk, self, receiver.bring, self.served.room)
        self._pushing = asyncio.create_task(self._push(self.pusher, self._posts, self.reporter))
        self._pushing.add_done_callback(self._pushed)

    @staticmethod
    async def _push(*them: Pusher | PostPusher | Reporter | None) -> None:
        async with asyncio.TaskGroup() as group:
            for one in them:
                if one is not None:
                    group.create_task(one.run())

    def posted(self, channel: ChannelId) -> None:
        """There is something new in a channel that is followed on this connection."""
        if self._posts is not None:
            self._posts.news(channel)

    def close(self) -> None:
        """Stop pushing; the connection is gone."""
        self.closed = True
        self._stop_pushing()
        if self.desk is not None:
            self.desk.leave(self)

    def _stop_pushing(self) -> None:
        if self._pushing is not None:
            self._pushing.cancel()
        if self._receiver is not None:
            self._receiver.drop()
        self._pushing = self.pusher = self.reporter = self._receiver = self._posts = None

    def _pushed(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failed(error)


class Entrance(Capability, home.Entrance.Server):  # type: ignore[misc]
    """All that a new connection can reach."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._entered = False

    async def handle_enter(self, params: Any, results: Any) -> None:
        """Open the session of the key that TLS proved; once, since a client could keep any number."""
        if params.version != VERSION:
            raise Problem(
                f"this server speaks version {VERSION} and the client {params.version}; update the older", "unsupported"
            )
        refusal = None if self.client.admitted else self.client.service.refusal(self.client.key)
        if refusal is not None:
            raise Problem(refusal[1], refusal[0])
        if self._entered:
            raise Problem("this connection has its session already", "usage")
        self._entered = True
        await _tell_info(self.client, results)
        results.session = Session(self.client)

    enter_context = method(handle_enter)


class Session(Capability, home.Session.Server):  # type: ignore[misc]
    """What one user may do; every argument is bounded before it is read."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def handle_enqueue(self, params: Any, results: Any) -> None:
        """Take one envelope; the answer leaves once it is durable."""
        domain = _text(params, "domain", DOMAIN_MAX_CHARS)
        (outcome,) = await self.client.queue.put(self.client.user(), [_envelope(params.envelope)], domain)
        results.outcome = _told(outcome)

    async def handle_batch_enqueue(self, params: Any, results: Any) -> None:
        """Take many envelopes in one commit, with an answer for each."""
        user = self.client.user()
        count = len(params.envelopes)
        if not 0 < count <= ENVELOPES_MAX:
            raise Problem(f"a batch has 1 to {ENVELOPES_MAX} envelopes, and this one {count}", "usage")
        domain = _text(params, "domain", DOMAIN_MAX_CHARS)
        outcomes = await self.client.queue.put(user, [_envelope(one) for one in params.envelopes], domain)
        told = results.init("outcomes", count)
        for n, outcome in enumerate(outcomes):
            told[n].verdict, told[n].reason = int(outcome.verdict), int(outcome.reason)

    async def handle_fetch(self, params: Any, results: Any) -> None:
        """Return what waits for this user behind a serial; it stays in the queue until acknowledged."""
        user = self.client.user()
        limit, after = min(max(1, params.limit), FETCH_MAX), min(params.after, SERIAL_MAX)
        async with self.client.fetching:
            await self.client.served.room()
            found = await self.client.queue.waiting(user, after, limit)
            _deliveries(bounded(found), results)

    async def handle_acknowledge(self, params: Any, results: Any) -> None:
        """Let go of envelopes that this user's device has made durable."""
        await self.client.queue.done(self.client.user(), _ids(params.ids))

    async def handle_subscribe(self, params: Any, results: Any) -> None:
        """Push what waits and what comes."""
        self.client.user()
        self.client.subscribe(Receiver(params.receiver))

    async def handle_publish(self, params: Any, results: Any) -> None:
        """Keep this user's own record, for whoever looks for it."""
        user = self.client.user()
        if len(params.record) > RECORD_MAX_BYTES:
            raise Problem(f"a peer record has at most {RECORD_MAX_BYTES} bytes", "too_long")
        await self.client.service.publish(user, bytes(params.record), params.ageMs)

    async def handle_find_record(self, params: Any, results: Any) -> None:
        """Return the newest record of a key that is here, or at the domain named, if there is one."""
        self.client.user()
        key, domain = _key(params.key), _text(params, "domain", DOMAIN_MAX_CHARS)
        results.record, results.ageMs = await self.client.service.find_record(key, domain)

    async def handle_register(self, params: Any, results: Any) -> None:
        """Make a user of this key, or bind a name to it, or both."""
        client = self.client
        name, invite = _text(params, "name"), _text(params, "invite")
        results.name = await client.service.register(client.key, name, invite)
        results.domain = (await client.service.info(client.key)).domain

    async def handle_find_name(self, params: Any, results: Any) -> None:
        """Say whose name this is here, or at the domain named."""
        self.client.user()
        name, domain = _text(params, "name"), _text(params, "domain", DOMAIN_MAX_CHARS)
        results.key = await self.client.service.find_name(name, domain)

    async def handle_info(self, params: Any, results: Any) -> None:
        """Say what this server is, and what this key is to it."""
        await _tell_info(self.client, results)

    async def handle_follow(self, params: Any, results: Any) -> None:
        """Keep posts of these channels for this user, and push what comes."""
        self.client.user()
        channels = _channels(params.channels)
        async with self.client.turning:
            results.upTo = await self._desk().follow(self.client, channels)

    async def handle_list_posts(self, params: Any, results: Any) -> None:
        """Say what is kept of a channel that is followed on this connection."""
        self.client.user()
        desk, (channel,) = self._desk(), _channels([params.channel])
        limit, after = min(max(1, params.limit), IDS_MAX), min(params.after, SERIAL_MAX)
        found = await desk.listed(channel, after, limit) if channel in self.client.following else ()
        told = results.init("posts", len(found))
        for n, (serial, id) in enumerate(found):
            told[n].serial, told[n].id = serial, id

    async def handle_fetch_posts(self, params: Any, results: Any) -> None:
        """Return posts of channels that are followed on this connection."""
        self.client.user()
        desk, ids = self._desk(), _ids(params.ids)
        if len(ids) > FETCH_MAX:
            raise Problem(f"{FETCH_MAX} posts are fetched at once, and no more", "usage")
        async with self.client.fetching:
            await self.client.served.room()
            _deliveries(await desk.fetch(self.client, ids), results)

    async def handle_lacking_posts(self, params: Any, results: Any) -> None:
        """Say which posts were never seen here."""
        user = self.client.user()
        results.ids, results.later = await self._desk().lacking(user, _ids(params.ids))

    def _desk(self) -> PostDesk:
        if self.client.desk is None:
            raise Problem("this server keeps no posts", "unsupported")
        return self.client.desk

    enqueue_context = method(handle_enqueue)
    batchEnqueue_context = method(handle_batch_enqueue)
    fetch_context = method(handle_fetch)
    acknowledge_context = method(handle_acknowledge)
    subscribe_context = method(handle_subscribe)
    publish_context = method(handle_publish)
    findRecord_context = method(handle_find_record)
    register_context = method(handle_register)
    findName_context = method(handle_find_name)
    info_context = method(handle_info)
    follow_context = method(handle_follow)
    listPosts_context = method(handle_list_posts)
    fetchPosts_context = method(handle_fetch_posts)
    lackingPosts_context = method(handle_lacking_posts)


async def _tell_info(client: Client, results: Any) -> None:
    info = await client.service.info(client.key)
    results.info = {
        "version": info.version, "domain": info.domain, "epoch": info.epoch, "perRecipient": info.per_recipient,
        "batchMax": ENVELOPES_MAX, "inFlightMax": client.served.max, "registration": info.registration,
        "admitted": info.admitted, "name": info.name,
    }  # fmt: skip


class Receiver:
    """The capability that a client passed for being pushed to."""

    def __init__(self, capability: Any) -> None:
        self._capability = capability

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[EnvelopeId]:
        """Hand a batch to the client; return the ids that need not come again. Raises: UnavailableError, Problem."""
        with rpc.reading("pushing"):
            request = self._capability.deliver_request()
            _deliveries(batch, request)
            answer = await rpc.Remote.ask(request.send(), "pushing")
            return _ids(answer.ids)

    async def bring(self, posts: Sequence[Delivery]) -> None:
        """Hand posts to the client. Raises: UnavailableError, Problem."""
        with rpc.reading("pushing posts"):
            request = self._capability.bring_request()
            _deliveries(posts, request, "posts")
            await rpc.Remote.ask(request.send(), "pushing posts")

    async def report(self, reports: Sequence[Report]) -> bool:
        """Tell the client what other domains answered; return whether it need not be told again.

        Raises: UnavailableError.
        """
        try:
            with rpc.reading("reporting"):
                request = self._capability.report_request()
                told = request.init("reports", len(reports))
                for n, report in enumerate(reports):
                    told[n].id, told[n].domain = report.id, report.domain
                    told[n].outcome = {"verdict": report.verdict, "reason": report.reason}
                await rpc.Remote.ask(request.send(), "reporting")
        except Problem as problem:
            return problem.code == "unsupported"
        except UnavailableError as error:
            if error.retryable:
                raise
            return True  # a client from before there were reports
        return True

    def drop(self) -> None:
        """Let go of the capability now, here, and not when the garbage collector finds it."""
        self._capability = None


def _envelope(data: Any) -> bytes:
    """Return an envelope's bytes; of one that is too long nothing, and the gate refuses that item alone."""
    return b"" if len(data) > ENVELOPE_MAX_BYTES else bytes(data)


def _text(params: Any, name: str, chars_max: int = TEXT_MAX_CHARS) -> str:
    # pycapnp makes a string of it before its size can be seen; a whole message is bounded.
    try:
        text = str(getattr(params, name))
    except UnicodeDecodeError:
        raise Problem(f"the {name} is not valid UTF-8", "usage") from None
    if len(text) > chars_max:
        raise Problem(f"a {name} is not so long", "too_long")
    return text


def _key(data: Any) -> PeerKey:
    if len(data) != KEY_BYTES:
        raise LocalError(f"a key has {KEY_BYTES} bytes")
    return PeerKey(bytes(data))


def _ids(ids: Any) -> list[EnvelopeId]:
    if len(ids) > IDS_MAX:
        raise Problem(f"a list has at most {IDS_MAX} ids", "usage")
    found = [bytes(id) for id in ids if len(id) == ID_BYTES]
    if len(found) != len(ids):
        raise Problem(f"an envelope id has {ID_BYTES} bytes", "usage")
    return [EnvelopeId(id) for id in found]


def _told(outcome: Outcome) -> dict[str, int]:
    return {"verdict": int(outcome.verdict), "reason": int(outcome.reason)}


def _channels(ids: Any) -> frozenset[ChannelId]:
    if len(ids) > FOLLOWED_MAX:
        raise Problem(f"a user follows at most {FOLLOWED_MAX} channels here", "usage")
    if any(len(id) != ID_BYTES for id in ids):
        raise Problem(f"a channel's id has {ID_BYTES} bytes", "usage")
    return frozenset(ChannelId(bytes(id)) for id in ids)


def _deliveries(batch: Sequence[Delivery], into: Any, field: str = "deliveries") -> None:
    told = into.init(field, len(batch))
    for n, delivery in enumerate(batch):
        told[n].serial, told[n].envelope = delivery.serial, delivery.wire
