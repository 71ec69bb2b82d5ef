"""Channels at our home server: what we follow there, posts on their way to it, and what it has for us.

Coming back we ask which ids are new since we were last there, and fetch only what we lack; what comes while we are
connected is brought to us. How far we have come is kept for the one server that is home, by its key and store epoch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from quicprochat.adapters import rpc
from quicprochat.core.envelope import ENVELOPE_MAX_BYTES, MeshEnvelope
from quicprochat.core.errors import RemoteError, UnavailableError
from quicprochat.core.events import Event, InterestArrived, LinkId, ResultsArrived
from quicprochat.core.gate import Checked, Reason, Verdict
from quicprochat.core.ids import ID_BYTES, ChannelId, EnvelopeId
from quicprochat.core.link import Result

log = logging.getLogger("quicprochat.server")

CURSORS_KEY = "server.posts"
SERIAL_BYTES = 8
BATCH, BATCH_BYTES = 64, 512 * 1024
"""Posts handed over in one call."""
LISTED = 1_024
PAGES_MAX = 64
"""Pages of one channel's list in one go: a window has one, and a server may not keep us reading for ever."""
FETCHED = 64
BROUGHT_MAX = 256
"""Posts a server may bring, or send, in one call."""
PUT_OFF_S, PUT_OFF_LAST_S = 5.0, 300.0
"""When to ask again for what our own gate has put off."""
REFUSED_S = 60.0
"""When to tell a server again what we follow, if it had no room for that."""
NOTE_EVERY_S = 30.0


class Owner(Protocol):
    """What this asks of the node."""

    def settle(self, events: list[Event]) -> asyncio.Future[None]:
        """Give events to the node; the future is done when they are durable and their effects are out."""
        ...

    def post(self, event: Event) -> None:
        """Give an event to the node."""
        ...

    async def unseen(self, ids: Sequence[EnvelopeId]) -> list[EnvelopeId]:
        """Return which of these envelopes were never here."""
        ...

    async def noted(self, key: str) -> bytes | None:
        """Return a small value that the node remembers."""
        ...

    async def note(self, key: str, data: bytes) -> None:
        """Let the node remember a small value."""
        ...


@dataclass(frozen=True, slots=True)
class Told:
    """A post as a server handed it over."""

    serial: int
    wire: bytes


Judge = Callable[[list[bytes]], Awaitable[list[tuple[Checked | None, bool]]]]
"""Give envelopes to the node: what each is, None for what it rejected, and whether it need not come again."""


class HomePosts:
    """One connection's; :meth:`run` lives as long."""

    def __init__(self, link: LinkId, session: Any, place: bytes, owner: Owner, judge: Judge) -> None:
        """``place`` names the server and its store: its fingerprint and epoch."""
        self._link = link
        self._session = session
        self._place = place
        self._owner = owner
        self._judge = judge
        self._wanted: tuple[ChannelId, ...] = ()
        self._told = asyncio.Event()
        self._following: frozenset[ChannelId] = frozenset()
        self._cursors: dict[ChannelId, int] = {}
        self._written = b""
        self._out: list[bytes] = []
        self._wake = asyncio.Event()
        self._behind: dict[ChannelId, None] = {}
        self._open: set[ChannelId] = set()
        """Channels of whose window we may lack something; their cursors stay until that is sure."""
        self._up_to: dict[ChannelId, int] = {}
        """What came later is brought to us, and need not be fetched; until the window was looked through once."""
        self._look = asyncio.Event()
        self._put_off: dict[ChannelId, float] = {}
        self._asking: set[ChannelId] = set()
        self._order = asyncio.Lock()

    # --- what the node says

    def interest(self, channels: tuple[ChannelId, ...]) -> None:
        """The node is in these channels."""
        self._wanted = channels
        self._told.set()

    def send(self, wire: bytes) -> None:
        """Hand a post over; the answer comes as a result."""
        self._out.append(wire)
        self._wake.set()

    # --- life

    async def run(self) -> None:
        """Follow, hand over and fetch until cancelled. Raises: QuicprochatError when the connection is of no use."""
        await self._told.wait()
        self._take_up(await self._owner.noted(CURSORS_KEY) or b"")
        if not await self._follow():
            return
        async with asyncio.TaskGroup() as group:
            for work in (self._follow_on(), self._hand_on(), self._catch_up_on(), self._note_on()):
                group.create_task(work)

    def _take_up(self, known: bytes) -> None:
        if not known.startswith(self._place):
            return  # another server's, or one that has forgotten
        size = ID_BYTES + SERIAL_BYTES
        for at in range(len(self._place), len(known) - size + 1, size):
            serial = int.from_bytes(known[at + ID_BYTES : at + size], "big")
            self._cursors[ChannelId(known[at : at + ID_BYTES])] = serial
        self._written = known

    async def _note(self) -> None:
        cursors = sorted((id, at) for id, at in self._cursors.items() if id in self._following)
        data = self._place + b"".join(id + at.to_bytes(SERIAL_BYTES, "big") for id, at in cursors)
        if data != self._written:
            self._written = data
            await self._owner.note(CURSORS_KEY, data)

    async def _note_on(self) -> None:
        while True:
            await asyncio.sleep(NOTE_EVERY_S)
            await self._note()

    # --- following

    async def _follow(self) -> bool:
        """Tell the server what we follow; False when it keeps no posts at all."""
        self._told.clear()
        wanted = self._wanted
        try:
            answer = await rpc.Remote.ask(self._session.follow(list(wanted)), "following channels")
        except rpc.Problem as problem:
            if problem.code == "unsupported":
                return False
            log.warning("the home server keeps no posts for us: %s", problem)
            asyncio.get_running_loop().call_later(REFUSED_S, self._told.set)
            return True
        except UnavailableError as error:
            if error.retryable:
                raise
            return False  # a server from before there were channels
        with rpc.reading("following channels"):
            up_to = int(answer.upTo)
        fresh = frozenset(wanted) - self._following
        self._following = frozenset(wanted)
        self._owner.post(InterestArrived(self._link, wanted))
        for channel in sorted(fresh):
            self._up_to[channel] = up_to
            self._fall_behind(channel)
        return True

    async def _follow_on(self) -> None:
        while True:
            await self._told.wait()
            await self._follow()

    # --- from us

    async def _hand_on(self) -> None:
        """One batch after the other, so that an author's posts keep their order."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._out:
                size, count = 0, 0
                while count < min(BATCH, len(self._out)) and (not count or size + len(self._out[count]) <= BATCH_BYTES):
                    size += len(self._out[count])
                    count += 1
                batch, self._out = self._out[:count], self._out[count:]
                await self._offer({MeshEnvelope.decode(wire).id: wire for wire in batch})

    async def _offer(self, posts: dict[EnvelopeId, bytes]) -> None:
        """Hand posts over; of several, and of what others wrote, only those that the server has never seen."""
        results: list[Result] = []
        if len(posts) > 1 or any(MeshEnvelope.decode(wire).hop for wire in posts.values()):
            answer = await rpc.Remote.ask(self._session.lackingPosts(list(posts)), "offering posts")
            with rpc.reading("offering posts"):
                lacking, later = ({bytes(id) for id in ids} for ids in (answer.ids, answer.later))
            results = [
                Result(id, Verdict.DEFERRED if id in later else Verdict.DUPLICATE) for id in posts if id not in lacking
            ]
            posts = {id: wire for id, wire in posts.items() if id in lacking}
        if posts:
            answer = await rpc.Remote.ask(self._session.batchEnqueue(list(posts.values()), ""), "handing posts over")
            with rpc.reading("handing posts over"):
                told = [read_outcome(one) for one in answer.outcomes]
            if len(told) != len(posts):
                raise RemoteError("the server gave not one answer for each post")
            results += [Result(id, *one) for id, one in zip(posts, told, strict=True)]
        await self._owner.settle([ResultsArrived(self._link, tuple(results))])

    # --- to us

    async def bring(self, posts: Sequence[Told]) -> None:
        """The server brings what has just come; done once it is durable, or put off."""
        async with self._order:
            for told, (checked, settled) in zip(posts, await self._judge([one.wire for one in posts]), strict=True):
                if checked is None:
                    continue
                channel = ChannelId(checked.envelope.dst)
                if not settled:
                    self._ask_later(channel)
                elif channel in self._following and channel not in self._open:
                    self._cursors[channel] = max(told.serial, self._cursors.get(channel, 0))

    def _fall_behind(self, channel: ChannelId) -> None:
        self._asking.discard(channel)
        self._open.add(channel)
        self._behind[channel] = None
        self._look.set()

    def _ask_later(self, channel: ChannelId) -> None:
        """Our own gate has put something off: look for it again after a while, each time longer."""
        self._open.add(channel)
        if channel in self._asking:
            return
        self._asking.add(channel)
        pause = self._put_off[channel] = min(PUT_OFF_LAST_S, 2 * self._put_off.get(channel, PUT_OFF_S / 2))
        asyncio.get_running_loop().call_later(pause, self._fall_behind, channel)

    async def _catch_up_on(self) -> None:
        while True:
            await self._look.wait()
            self._look.clear()
            while self._behind:
                channel = next(iter(self._behind))
                del self._behind[channel]
                await self._catch_up(channel)
            await self._note()

    async def _catch_up(self, channel: ChannelId) -> None:
        """Fetch what we lack of a channel's window, a page of ids at a time."""
        for _ in range(PAGES_MAX):
            if channel not in self._following:
                break
            after = self._cursors.get(channel, 0)
            page = await self._list(channel, after)
            if (up_to := self._up_to.get(channel)) is not None:
                page = [(serial, id) for serial, id in page if serial <= up_to]
            if not page:
                self._put_off.pop(channel, None)
                break
            lacking = await self._owner.unseen([id for _, id in page])
            whole = True
            while lacking:
                lacking, settled = await self._fetch(lacking)
                whole &= settled
            if not whole:
                self._up_to.pop(channel, None)
                self._ask_later(channel)
                return
            self._cursors[channel] = page[-1][0]
        self._up_to.pop(channel, None)
        if channel not in self._asking:
            self._open.discard(channel)

    async def _list(self, channel: ChannelId, after: int) -> list[tuple[int, EnvelopeId]]:
        answer = await rpc.Remote.ask(self._session.listPosts(channel, after, LISTED), "listing posts")
        with rpc.reading("listing posts"):
            if len(answer.posts) > LISTED or any(len(one.id) != ID_BYTES for one in answer.posts):
                raise RemoteError("a list of posts that is none")
            found = [(int(one.serial), EnvelopeId(bytes(one.id))) for one in answer.posts]
        if any(serial <= before for (serial, _), before in zip(found, (after, *(at for at, _ in found)), strict=False)):
            raise RemoteError("the server lists the same again and again")
        return found

    async def _fetch(self, lacking: list[EnvelopeId]) -> tuple[list[EnvelopeId], bool]:
        """Fetch some posts and give them to the node; return what is left to fetch, and whether all were taken."""
        asked, rest = lacking[:FETCHED], lacking[FETCHED:]
        answer = await rpc.Remote.ask(self._session.fetchPosts(asked), "fetching posts")
        with rpc.reading("fetching posts"):
            posts = read_posts(answer.deliveries)
        if not posts:
            return rest, True  # they have left the window
        async with self._order:
            judged = await self._judge([one.wire for one in posts])
        ids = {checked.envelope.id for checked, _ in judged if checked is not None}
        last = max((n for n, id in enumerate(asked) if id in ids), default=None)
        if last is None:
            raise RemoteError("the server sends other posts than it was asked for")
        return asked[last + 1 :] + rest, all(settled for _, settled in judged)


async def follow_nothing(session: Any) -> None:
    """Let a server keep no posts for us any more. Raises: UnavailableError when the connection is gone."""
    try:
        await rpc.Remote.ask(session.follow([]), "following channels")
    except rpc.Problem as problem:
        log.debug("a server that we left: %s", problem)
    except UnavailableError as error:
        if error.retryable:
            raise


def read_outcome(told: Any) -> tuple[Verdict, Reason]:
    """Read a server's answer for one envelope; a word of a later version means no, for now."""
    verdict, reason = int(told.verdict), int(told.reason)
    return (
        Verdict(verdict) if verdict in Verdict._value2member_map_ else Verdict.DEFERRED,
        Reason(reason) if reason in Reason._value2member_map_ else Reason.NONE,
    )


def read_posts(told: Any) -> list[Told]:
    """Read posts that a server hands over. Raises: RemoteError."""
    if len(told) > BROUGHT_MAX:
        raise RemoteError("too many posts in one call")
    if any(len(one.envelope) > ENVELOPE_MAX_BYTES for one in told):
        raise RemoteError("a post that is too long")
    return [Told(int(one.serial), bytes(one.envelope)) for one in told]
