"""Our session at a home server, as one more link of the node: it takes what is for others and brings what is for us."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from quicprochat.adapters import quic, rpc
from quicprochat.core.envelope import ENVELOPE_MAX_BYTES, Kind, MeshEnvelope
from quicprochat.core.errors import LocalError, QuicprochatError, RemoteError, StoreError, UnavailableError
from quicprochat.core.events import (
    EnvelopeArrived,
    EnvelopeRejected,
    Event,
    LinkDown,
    LinkId,
    LinkUp,
    RecordArrived,
    Report,
    ReportsArrived,
    ResultsArrived,
)
from quicprochat.core.gate import Checked, Reject, Verdict
from quicprochat.core.homes import domain_name
from quicprochat.core.ids import ID_BYTES, KEY_BYTES, ChannelId, EnvelopeId, PeerKey
from quicprochat.core.link import Goodbye, Result
from quicprochat.core.record import PeerRecord
from quicprochat.core.seal import DOMAIN_MAX_BYTES
from quicprochat.p2p.home_posts import HomePosts, Told, read_outcome, read_posts
from quicprochat.p2p.home_posts import Owner as PostsOwner

log = logging.getLogger("quicprochat.server")

ALPN = "capnp"
VERSION = 1
EPOCH_BYTES = 16
CONNECT_S = 5.0
ASK_S = 10.0
LOOK_UP_S = 3.0
"""How long a look-up may hold up a message that is being sent."""
FAR_LOOK_UP_S = 8.0
"""A name of another domain is asked for on behalf of a person who waits, perhaps over a radio link."""
KEEP_ALIVE_S = 10.0
ANSWER_S = 4.0
"""Packets lost on the way are sent again meanwhile, three times or more."""
_KIND_AT = 2
"""Where an envelope has its kind."""
BATCH = 64
BATCHES_IN_FLIGHT = 4
RETRY_FIRST_S, RETRY_LAST_S = 0.5, 60.0
UNTRUSTED_RETRY_S = 600.0
"""A server with another key than before is looked at again only so often: a person has to decide."""
DELIVERED_MAX = 256
"""Envelopes a server may push in one call."""
REPORTED_MAX = 256
"""Reports a server may make in one call."""


class Standing(Enum):
    """How we stand with the server."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    UNREACHABLE = "unreachable"
    UNTRUSTED = "untrusted"
    STRANGER = "stranger"
    """Connected, but the server has not made a user of us yet."""


_HOW_TO_ENTER = {
    "invite": "this server takes new users by invitation: ask for a code, then: qpc register --invite CODE",
    "list": "this server has a list of its users and your key is not on it: give it to the operator (qpc identity)",
}


class HomeOwner(PostsOwner, Protocol):
    """What a home link asks of its node."""

    def next_link_id(self) -> LinkId:
        """Return a number no other link has."""
        ...

    async def check_all(self, envelopes: list[bytes]) -> list[Checked | Reject]:
        """Run the gate's first half."""
        ...

    def open_record(self, data: bytes) -> PeerRecord:
        """Verify a peer record. Raises: WireError."""
        ...


@dataclass(frozen=True, slots=True)
class Visit:
    """Where to go, who we are there, and whom we expect.

    ``pin`` is the server's fingerprint, None before the first visit; ``announced`` is the one that alone may answer at
    the first visit, None for any. ``keep_pin`` makes it durable then, before anything is handed over. ``permit``
    raises LocalError when the server is farther away than the owner lets the node reach, at that moment.
    """

    host: str
    port: int
    credentials: quic.Credentials
    pin: bytes | None
    keep_pin: Callable[[bytes], Awaitable[None]]
    announced: bytes | None = None
    permit: Callable[[], None] = lambda: None

    def check(self, known: bytes | None) -> quic.Check:
        """Return what decides inside the handshake who may answer; ``known`` is the fingerprint of an earlier visit."""
        if known is not None:
            return quic.pinned(known)
        return quic.anybody if self.announced is None else quic.announced(self.announced)


class HomeLink:
    """Stays connected to one server across its restarts and our changes of address.

    ``own_record`` returns our record as signed and its age in milliseconds; ``news`` is called at every change of
    :attr:`standing`.
    """

    def __init__(
        self,
        visit: Visit,
        owner: HomeOwner,
        own_record: Callable[[], tuple[bytes, int]],
        news: Callable[[], None],
        jitter: Callable[[], float],
    ) -> None:
        self.standing = Standing.CONNECTING
        self.trouble: QuicprochatError | None = None
        """Why there is no connection, when there is none."""
        self.fingerprint = visit.pin
        self.domain = ""
        self.rtt_ms = 0.0
        self.id = LinkId(0)
        self._plan = visit
        self._owner = owner
        self._own_record = own_record
        self._news = news
        self._jitter = jitter
        self._hurry = asyncio.Event()
        self._admitted = asyncio.Event()
        self._connection: quic.Connection | None = None
        self._session: Any = None
        self._out: dict[str, list[bytes]] = {}
        self._records: list[tuple[bytes, int]] = []
        self._wake = asyncio.Event()
        self._results: dict[EnvelopeId, Verdict] = {}
        self._posts: HomePosts | None = None

    @property
    def connected(self) -> bool:
        """True while the server takes and brings envelopes."""
        return self.standing is Standing.CONNECTED

    def hurry(self) -> None:
        """Try again at once: the network has changed, or a person asks."""
        self._hurry.set()

    # --- what the node sends

    def send_envelope(self, wire: bytes, domain: str = "") -> None:
        """Offer an envelope for a recipient at a domain, "" where that is not known; the answer comes as a result."""
        if wire[_KIND_AT] == Kind.CHANNEL:
            if self._posts is not None:
                self._posts.send(wire)
            return
        self._out.setdefault("" if domain == self.domain else domain, []).append(wire)
        self._wake.set()

    def send_results(self, results: Sequence[Result]) -> None:
        """Note what the node says of what the server brought."""
        self._results.update((result.id, result.verdict) for result in results)

    def send_record(self, record: bytes, age_ms: int) -> None:
        """Publish a record of ours; of others' the server learns from themselves."""
        if record == self._own_record()[0]:
            self._records.append((record, age_ms))
            self._wake.set()

    def send_interest(self, channels: tuple[ChannelId, ...]) -> None:
        """Let the server follow these channels for us, and no others."""
        if self._posts is not None:
            self._posts.interest(channels)

    def end(self, code: Goodbye, reason: str) -> None:
        """Close the connection; a new one is made after a while."""
        if self._connection is not None:
            self._connection.end(code, reason)

    # --- asking

    async def find_record(self, key: PeerKey, domain: str = "") -> bool:
        """Ask the server, and through it that of another domain, for a peer's newest record; the node learns it.

        Say whether there is one. Raises: rpc.Problem, UnavailableError, TimeoutError.
        """
        if self._session is None:
            return False
        far = "" if domain == self.domain else domain
        async with asyncio.timeout(LOOK_UP_S):
            answer = await rpc.Remote.ask(self._session.findRecord(key, far), "looking up a key")
        with rpc.reading("looking up a key"):
            data, age_ms = bytes(answer.record), int(answer.ageMs)
        if not data:
            return False
        record = self._owner.open_record(data)
        if record.key != key:
            raise RemoteError("the server answered with somebody else's record", peer=self.fingerprint)
        await self._owner.settle([RecordArrived(self.id, record, age_ms)])
        return True

    async def find_name(self, name: str, domain: str = "") -> PeerKey:
        """Ask the server, and through it that of another domain, whose name this is.

        Raises: rpc.Problem, UnavailableError, TimeoutError.
        """
        if self._session is None:
            raise UnavailableError("there is no connection to the home server; see: qpc server")
        far = "" if domain == self.domain else domain
        async with asyncio.timeout(FAR_LOOK_UP_S if far else LOOK_UP_S):
            answer = await rpc.Remote.ask(self._session.findName(name, far), "looking up a name")
        with rpc.reading("looking up a name"):
            key = bytes(answer.key)
        if len(key) != KEY_BYTES:
            raise RemoteError("the server's answer is no key", peer=self.fingerprint)
        return PeerKey(key)

    async def register(self, name: str, invite: str) -> tuple[str, str]:
        """Become a user of the server, or bind a name to our key there, or both; return the name and the domain.

        Raises: rpc.Problem with the server's reason; UnavailableError when there is no connection.
        """
        if self._session is None:
            raise UnavailableError("there is no connection to the home server; see: qpc server")
        async with asyncio.timeout(ASK_S):
            answer = await rpc.Remote.ask(self._session.register(name, invite), "registering")
        with rpc.reading("registering"):
            found = str(answer.name), str(answer.domain)
        self._admitted.set()
        return found

    # --- life

    async def run(self) -> None:
        """Connect, and connect again, until cancelled. Raises: StoreError."""
        pause = RETRY_FIRST_S
        while True:
            self._hurry.clear()
            self._stand(Standing.CONNECTING)
            try:
                await self._visit()
                pause = RETRY_FIRST_S
            except StoreError:
                raise
            except quic.UntrustedError as error:
                self._stand(Standing.UNTRUSTED, error)
                log.error("%s", error)
                pause = UNTRUSTED_RETRY_S
            except QuicprochatError as error:
                self._stand(Standing.UNREACHABLE, error)
                log.info("home server: %s", error)
            try:
                async with asyncio.timeout(pause * (0.5 + self._jitter())):
                    await self._hurry.wait()
                pause = RETRY_FIRST_S
            except TimeoutError:
                pause = min(2 * pause, RETRY_LAST_S)

    def _stand(self, standing: Standing, trouble: QuicprochatError | None = None) -> None:
        self.standing, self.trouble = standing, trouble
        self._news()

    async def _visit(self) -> None:
        """One connection, from its beginning to its end. Raises: QuicprochatError that says why it ended."""
        plan = self._plan
        plan.permit()
        check = plan.check(self.fingerprint)
        connection = await quic.connect((plan.host, plan.port), ALPN, plan.credentials, check, CONNECT_S)
        self._connection = connection
        serving: asyncio.Task[None] | None = None
        try:
            remote = rpc.Remote(await connection.stream(CONNECT_S), rpc.home.Entrance)
            serving = asyncio.create_task(remote.run())
            await self._stay(connection, remote)
        finally:
            self._connection = None
            await connection.leave()
            if serving is not None:
                await asyncio.wait([serving])

    async def _stay(self, connection: quic.Connection, remote: rpc.Remote) -> None:
        clock = asyncio.get_running_loop().time
        asked = clock()
        try:
            async with asyncio.timeout(ASK_S):
                answer = await rpc.Remote.ask(remote.bootstrap.enter(VERSION), "entering")
        except TimeoutError:
            raise UnavailableError("the home server did not answer in time") from None
        self.rtt_ms = (clock() - asked) * 1_000
        with rpc.reading("entering"):
            session, info = answer.session, answer.info
            self.domain, epoch = str(info.domain), bytes(info.epoch)
            admitted, registration = bool(info.admitted), str(info.registration)
        said, self.domain = self.domain, domain_name(self.domain)
        if len(epoch) != EPOCH_BYTES or (said and not self.domain):
            self.domain = ""
            raise RemoteError("the home server says things of itself that cannot be", peer=connection.peer)
        if self.fingerprint is None:
            await self._plan.keep_pin(connection.peer)
            self.fingerprint = connection.peer
        self._session = session
        try:
            if not admitted:
                await self._wait_for_admission(connection, registration)
            await self._work(connection, session, epoch)
        finally:
            self._session = None

    async def _wait_for_admission(self, connection: quic.Connection, registration: str) -> None:
        """Keep the connection for a while, so that the owner can register. Raises: UnavailableError at its end."""
        self._admitted.clear()
        self._stand(
            Standing.STRANGER, LocalError(_HOW_TO_ENTER.get(registration, _HOW_TO_ENTER["list"]), code="policy")
        )
        ended = asyncio.ensure_future(connection.ended())
        admitted = asyncio.ensure_future(self._admitted.wait())
        try:
            await asyncio.wait((ended, admitted), return_when=asyncio.FIRST_COMPLETED)
            if not admitted.done() and self.trouble is not None:
                raise self.trouble
        finally:
            ended.cancel()
            admitted.cancel()

    async def _work(self, connection: quic.Connection, session: Any, epoch: bytes) -> None:
        """Hand over and take in until the connection ends. Raises: QuicprochatError that says why it did."""
        self.id = self._owner.next_link_id()
        self._out, self._records, self._results = {}, [self._own_record()], {}
        self._wake.set()
        server, window = PeerKey(connection.peer), BATCH * BATCHES_IN_FLIGHT
        posts = self._posts = HomePosts(self.id, session, server + epoch, self._owner, self._judge)
        await self._owner.settle([LinkUp(self.id, server, window, None, epoch, carrier=True)])
        try:
            await rpc.Remote.ask(session.subscribe(Receiver(self._take_in, self._hear, posts.bring)), "subscribing")
            self._stand(Standing.CONNECTED)
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._hand_over(session, group)),
                    group.create_task(self._keep_alive(connection)),
                    group.create_task(posts.run()),
                ]
                why = await connection.ended()
                for task in tasks:
                    task.cancel()
            raise UnavailableError(f"the connection to the home server ended: {why}")
        except BaseExceptionGroup as group_error:
            raise _first(group_error) from group_error
        finally:
            self._posts = None
            self._owner.post(LinkDown(self.id))

    async def _keep_alive(self, connection: quic.Connection) -> None:
        """Ask for a sign of life again and again: a server that died, or lost its network, says nothing of it."""
        while True:
            await asyncio.sleep(KEEP_ALIVE_S)
            try:
                async with asyncio.timeout(ANSWER_S):
                    await connection.answered()
            except TimeoutError:
                await connection.leave("the server does not answer any more")

    async def _hand_over(self, session: Any, group: asyncio.TaskGroup) -> None:
        room = asyncio.Semaphore(BATCHES_IN_FLIGHT)
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._records:
                record, age = self._records.pop(0)
                await rpc.Remote.ask(session.publish(record, age), "publishing our record")
            while self._out:
                await room.acquire()
                domain, batch = self._next_batch()
                group.create_task(self._offer(session, domain, batch, room))

    def _next_batch(self) -> tuple[str, list[bytes]]:
        """Take what goes in one call: for one domain, whose rest waits behind the other domains."""
        domain = next(iter(self._out))
        waiting = self._out.pop(domain)
        if rest := waiting[BATCH:]:
            self._out[domain] = rest
        return domain, waiting[:BATCH]

    async def _offer(self, session: Any, domain: str, batch: list[bytes], room: asyncio.Semaphore) -> None:
        try:
            answer = await rpc.Remote.ask(session.batchEnqueue(batch, domain), "handing over")
        finally:
            room.release()
        with rpc.reading("handing over"):
            told = [read_outcome(one) for one in answer.outcomes]
        if len(told) != len(batch):
            raise RemoteError("the server gave not one answer for each envelope", peer=self.fingerprint)
        results = tuple(Result(MeshEnvelope.decode(wire).id, *one) for wire, one in zip(batch, told, strict=True))
        await self._owner.settle([ResultsArrived(self.id, results)])

    async def _take_in(self, envelopes: list[bytes]) -> list[EnvelopeId]:
        """Give what the server brought to the node; return the ids of those that need not come again."""
        judged = await self._judge(envelopes)
        return [one.envelope.id for one, settled in judged if one is not None and settled]

    async def _judge(self, envelopes: list[bytes]) -> list[tuple[Checked | None, bool]]:
        """Give envelopes to the node: what each is, None for what it rejected, and whether it need not come again."""
        checked = await self._owner.check_all(envelopes)
        events: list[Event] = [
            EnvelopeRejected(self.id) if isinstance(one, Reject) else EnvelopeArrived(self.id, one) for one in checked
        ]
        await self._owner.settle(events)
        return [(None, True) if isinstance(one, Reject) else (one, self._settled(one)) for one in checked]

    async def _hear(self, reports: tuple[Report, ...]) -> None:
        """Give what the server told of other domains to the node; done once it is durable."""
        await self._owner.settle([ReportsArrived(self.id, reports)])

    def _settled(self, one: Checked) -> bool:
        # A receipt gets no result of its own: what it told is durable now.
        verdict = self._results.pop(one.envelope.id, None)
        return one.receipt is not None if verdict is None else verdict is not Verdict.DEFERRED


class Receiver(rpc.Capability, rpc.home.Receiver.Server):  # type: ignore[misc]
    """What the server pushes to."""

    def __init__(
        self,
        take_in: Callable[[list[bytes]], Awaitable[list[EnvelopeId]]],
        hear: Callable[[tuple[Report, ...]], Awaitable[None]],
        bring: Callable[[Sequence[Told]], Awaitable[None]],
    ) -> None:
        self._take_in = take_in
        self._hear = hear
        self._bring = bring

    async def handle_deliver(self, params: Any, results: Any) -> None:
        """Take envelopes in; the answer leaves once they are durable."""
        if len(params.deliveries) > DELIVERED_MAX:
            raise RemoteError("too many envelopes in one push")
        if any(len(told.envelope) > ENVELOPE_MAX_BYTES for told in params.deliveries):
            raise RemoteError("an envelope that is too long")
        results.ids = await self._take_in([bytes(told.envelope) for told in params.deliveries])

    deliver_context = rpc.method(handle_deliver)

    async def handle_report(self, params: Any, results: Any) -> None:
        """Hear what became of our envelopes farther on; the answer leaves once that is durable."""
        if len(params.reports) > REPORTED_MAX:
            raise RemoteError("too many reports in one call")
        if any(len(told.id) != ID_BYTES or len(told.domain) > DOMAIN_MAX_BYTES for told in params.reports):
            raise RemoteError("a report that cannot be")
        await self._hear(tuple(_report(told) for told in params.reports))

    report_context = rpc.method(handle_report)

    async def handle_bring(self, params: Any, results: Any) -> None:
        """Take posts in; the answer leaves once they are durable."""
        await self._bring(read_posts(params.posts))

    bring_context = rpc.method(handle_bring)


def _report(told: Any) -> Report:
    return Report(EnvelopeId(bytes(told.id)), str(told.domain), *read_outcome(told.outcome))


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what ended a visit: our own failures before the server's."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = next((e for e in found.exceptions if isinstance(e, StoreError)), found.exceptions[0])
    return found
