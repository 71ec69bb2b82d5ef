"""Channels shared with one other domain: each tells the other what its users follow, and posts of that are relayed.

The window is the outbox: a post rests there for our own users anyway, and how far a domain has answered for it is one
number for each channel. What our users bring goes there at once. What other domains bring (and what waited for long) is
first offered by id, a little later, because its own domain has mostly brought it by then.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field

from quicprochat.adapters.rpc import Problem
from quicprochat.core.errors import QuicprochatError, StoreError
from quicprochat.core.following import FollowStore
from quicprochat.core.gate import Reason, Verdict
from quicprochat.core.ids import ChannelId, EnvelopeId, PeerKey
from quicprochat.core.store import Held
from quicprochat.core.time import Instant
from quicprochat.p2p.driver import Driver
from quicprochat.server.channels import EXPECTED_MS
from quicprochat.server.federation.client import FederationClient
from quicprochat.server.federation.courier import OF_THE_BATCH, pause_s
from quicprochat.server.federation.rules import (
    BATCH_BYTES,
    INTERESTS_MAX,
    OFFERED_MAX,
    POST_PATIENCE_MS,
    PUT_OFF_FIRST_MS,
    PUT_OFF_LAST_MS,
    RETRY_LAST_S,
)
from quicprochat.server.queue import Outcome

log = logging.getLogger("quicprochat.server.federation")


def interest_digest(channels: Iterable[ChannelId]) -> bytes:
    """Return what two servers compare to see whether one still knows what the other's users follow."""
    return hashlib.sha256(b"quicprochat-server/1/interest\x00" + b"".join(sorted(channels))).digest()


def own_interest(store: FollowStore) -> frozenset[ChannelId]:
    """Return what we tell other domains that our users follow."""
    followed = store.followed()
    return frozenset(followed if len(followed) <= INTERESTS_MAX else sorted(followed)[:INTERESTS_MAX])


@dataclass(slots=True)
class _Progress:
    """How far a domain has come in one channel. All up to ``position`` were offered, but for the ``waiting``."""

    position: int
    waiting: dict[int, tuple[EnvelopeId, Instant]] = field(default_factory=dict)
    """By serial, and when its turn is."""
    put_off_ms: int = PUT_OFF_FIRST_MS

    @property
    def answered(self) -> int:
        """The serial up to which the domain has answered for everything."""
        return min(self.waiting) - 1 if self.waiting else self.position


class PostCourier:
    """Lives as long as the operator shares channels with the domain, so one that is down keeps nobody else waiting.

    ``via`` is the domain as one that brings posts, ``abroad`` says of others whether they are domains.
    """

    def __init__(
        self,
        domain: str,
        via: PeerKey,
        abroad: Callable[[bytes], bool],
        driver: Driver,
        store: FollowStore,
        client: FederationClient,
        traffic: Counter[str],
    ) -> None:
        self.domain = domain
        self.trouble = ""
        """Why the last attempt failed."""
        self.told: frozenset[ChannelId] | None = None
        """What the domain knows that our users follow; None while that is not sure."""
        self._via = via
        self._abroad = abroad
        self._driver = driver
        self._store = store
        self._client = client
        self._traffic = traffic
        self._news = asyncio.Event()
        self._contact = asyncio.Event()
        self._progress: dict[ChannelId, _Progress] = {}
        self._fresh: set[ChannelId] = set(store.interests(domain))
        self._singly = 0
        """So many posts go alone, because one among them makes calls fail."""
        self._backlog = store.newest_serial()
        """What is not newer may have come to the domain another way, while it was not reached."""
        self._failures = 0

    # --- what happens

    def posted(self, channels: Collection[ChannelId]) -> None:
        """There are new posts in these channels."""
        if wanted := self._store.interests(self.domain).keys() & set(channels):
            self._fresh |= wanted
            self._news.set()

    def follows_changed(self) -> None:
        """Our users follow other channels than before."""
        self._fresh |= self._store.interests(self.domain).keys()
        self._news.set()

    def interest_changed(self, gone: Iterable[ChannelId] = ()) -> None:
        """The domain's users follow other channels than before; when one comes back, all of its window is offered."""
        for channel in gone:
            self._progress.pop(channel, None)
        self._fresh |= self._store.interests(self.domain).keys()
        self._contact.set()
        self._news.set()

    def contact(self) -> None:
        """The domain seems to be reachable: try now."""
        self._contact.set()
        self._news.set()

    def entered(self) -> None:
        """There is a new connection: the domain may know something else than we think."""
        self.told = None
        self._news.set()

    def start_anew(self) -> None:
        """The domain has forgotten what it had, and the store says so now."""
        self._progress.clear()
        self.interest_changed()

    # --- its life

    async def run(self) -> None:
        """Tell and relay until cancelled. Raises: StoreError."""
        while True:
            self._news.clear()
            self._contact.clear()
            try:
                await self._tell()
                await self._relay()
                self._failures, self.trouble = 0, ""
            except StoreError:
                raise
            except QuicprochatError as error:
                await self._rest(error)
                self._backlog = await self._driver.read(lambda _: self._store.newest_serial())
                continue
            await self._until_due()

    async def _until_due(self) -> None:
        now = self._driver.now().at
        due = min((at for one in self._progress.values() for _, at in one.waiting.values()), default=None)
        with suppress(TimeoutError):
            async with asyncio.timeout(None if due is None else max(0, due - now) / 1_000 + 0.001):
                await self._news.wait()
        now = self._driver.now().at
        self._fresh |= {id for id, one in self._progress.items() if any(at <= now for _, at in one.waiting.values())}

    async def _rest(self, error: QuicprochatError) -> None:
        """Pause after a failure; a sign that the domain is reachable ends the pause."""
        if str(error) != self.trouble:
            log.info("channels are not shared with %s for now: %s", self.domain, error)
        self.trouble = str(error)
        self._failures += 1
        # What is on its way to nobody knows where is offered again, by id.
        self._fresh |= self._progress.keys()
        self._progress.clear()
        refused = isinstance(error, Problem) and error.code not in OF_THE_BATCH
        with suppress(TimeoutError):
            async with asyncio.timeout(RETRY_LAST_S if refused else pause_s(self._failures)):
                await self._contact.wait()

    # --- what our users follow

    async def _tell(self) -> None:
        own = await self._driver.read(lambda _: own_interest(self._store))
        if self.told == own:
            return
        before, self.told = self.told, None
        added, removed = (own - before, before - own) if before is not None else (frozenset(), frozenset())
        digest = interest_digest(own)
        known = await self._client.tell_interest(self.domain, sorted(added), sorted(removed), whole=False)
        if known != digest:
            known = await self._client.tell_interest(self.domain, sorted(own), (), whole=True)
        if known != digest:
            log.warning("%s does not take in what our users follow", self.domain)
        self.told = own

    # --- posts

    async def _relay(self) -> None:
        while self._fresh:
            channel = min(self._fresh)
            if channel not in self._store.interests(self.domain) or channel not in self._store.followed():
                self._fresh.discard(channel)
                self._progress.pop(channel, None)
            elif not await self._relay_some(channel):
                self._fresh.discard(channel)

    async def _relay_some(self, channel: ChannelId) -> bool:
        """Relay what is next in a channel; False when nothing was left to look at."""
        progress = self._progress.get(channel)
        if progress is None:
            progress = self._progress[channel] = _Progress(self._store.interests(self.domain)[channel])
        now = self._driver.now().at
        posts = await self._driver.read(lambda tx: self._next(progress, channel, now, tx.held))
        if not posts.found and not posts.looked:
            await self._note(channel, progress)
            return False
        wanted, later = await self._wanted(posts.ask)
        for held in posts.found:
            if held.id in later:
                progress.waiting[held.serial] = held.id, Instant(now + EXPECTED_MS)
        batch = [held for held in posts.found if held.id not in posts.ask or held.id in wanted]
        await self._hand_over(progress, batch)
        progress.position = max(progress.position, posts.upto)
        await self._note(channel, progress)
        return True

    def _next(
        self, progress: _Progress, channel: ChannelId, now: Instant, held: Callable[[EnvelopeId], Held | None]
    ) -> _Next:  # fmt: skip
        """Return what is to be offered now: what waited until now, else the next of the window."""
        found, size = _Next(progress.position), 1 if self._singly else OFFERED_MAX
        for serial, (id, at) in sorted(progress.waiting.items()):
            if at <= now and len(found.found) < size and found.bytes < BATCH_BYTES:
                del progress.waiting[serial]
                found.looked = True
                if (one := held(id)) is not None:
                    found.add(one, ask=True)
        if found.looked:
            return found
        for one in self._store.waiting(channel, progress.position, size):
            if found.found and found.bytes + len(one.wire) > BATCH_BYTES:
                break
            found.looked, found.upto = True, one.serial
            if one.via == self._via or one.expires_at <= now:
                continue
            abroad = self._abroad(one.via)
            if abroad and now - one.stored_at < POST_PATIENCE_MS:
                progress.waiting[one.serial] = one.id, Instant(one.stored_at + POST_PATIENCE_MS)
            else:
                found.add(one, ask=abroad or one.serial <= self._backlog)
        return found

    async def _wanted(self, ids: AbstractSet[EnvelopeId]) -> tuple[AbstractSet[EnvelopeId], AbstractSet[EnvelopeId]]:
        """Return which posts the domain wants now, and which it may want later."""
        if not ids:
            return frozenset(), frozenset()
        self._traffic["posts_offered"] += len(ids)
        lacking, later = await self._client.offer_posts(self.domain, sorted(ids))
        return frozenset(lacking), frozenset(later)

    async def _hand_over(self, progress: _Progress, batch: Sequence[Held]) -> None:
        if not batch:
            return
        now = self._driver.now().at
        try:
            outcomes = await self._client.relay_enqueue(self.domain, [held.to_send(now) for held in batch])
        except Problem as problem:
            if problem.code not in OF_THE_BATCH:
                raise
            if len(batch) > 1:
                self._singly = OFFERED_MAX  # one of them is to blame: the others pass it
                raise
            outcomes = [Outcome(Verdict.REFUSED, Reason.UNSUPPORTED)]
        self._singly = max(0, self._singly - 1)
        for held, outcome in zip(batch, outcomes, strict=True):
            self._traffic[f"posts_{outcome.verdict.name.lower()}"] += 1
            if outcome.verdict is Verdict.DEFERRED and outcome.reason is not Reason.UNKNOWN:
                progress.waiting[held.serial] = held.id, Instant(now + progress.put_off_ms)
        if any(serial in progress.waiting for serial in (held.serial for held in batch)):
            progress.put_off_ms = min(PUT_OFF_LAST_MS, 2 * progress.put_off_ms)
        else:
            progress.put_off_ms = PUT_OFF_FIRST_MS

    async def _note(self, channel: ChannelId, progress: _Progress) -> None:
        """Keep how far the domain has come; what is in between is offered again, by id, after a restart."""
        answered = progress.answered
        if self._progress.get(channel) is not progress:
            return  # what it is about was forgotten meanwhile
        if answered > self._store.interests(self.domain).get(channel, answered):
            await self._driver.call(lambda _: self._store.come(self.domain, channel, answered))


@dataclass(slots=True)
class _Next:
    """What is to be offered: ``ask`` first, by id; everything up to ``upto`` was looked at."""

    upto: int
    looked: bool = False
    found: list[Held] = field(default_factory=list)
    ask: set[EnvelopeId] = field(default_factory=set)
    bytes: int = 0

    def add(self, held: Held, *, ask: bool) -> None:
        self.found.append(held)
        self.bytes += len(held.wire)
        if ask:
            self.ask.add(held.id)
