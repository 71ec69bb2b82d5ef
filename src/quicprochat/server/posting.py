"""Handing posts to those who follow their channels: what is listed and fetched, and what is pushed as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Protocol

from quicprochat.core.following import FollowStore
from quicprochat.core.ids import ChannelId, EnvelopeId, PeerKey
from quicprochat.core.store import Held
from quicprochat.p2p.driver import Driver
from quicprochat.server.channels import Channels, Lacking
from quicprochat.server.push import BATCH, IN_FLIGHT, bounded
from quicprochat.server.queue import Delivery

Positions = dict[ChannelId, int]
"""The channels that one connection follows, and for each the serial up to which everything was handed over."""
Bring = Callable[[Sequence[Delivery]], Awaitable[None]]
"""Hand a batch to the client. Raises: UnavailableError."""


class Reader(Protocol):
    """A connection whose client follows channels."""

    key: PeerKey
    following: Positions
    closed: bool

    def posted(self, channel: ChannelId) -> None:
        """There is something new in a channel."""
        ...


class PostDesk:
    """What sessions may do with channels. ``changed`` is told when the server follows others than before."""

    def __init__(
        self, driver: Driver, store: FollowStore, channels: Channels, changed: Callable[[], None] = lambda: None
    ) -> None:
        self._driver = driver
        self._store = store
        self._channels = channels
        self._changed = changed
        self._readers: dict[ChannelId, dict[Reader, None]] = {}

    async def follow(self, reader: Reader, channels: Collection[ChannelId]) -> int:
        """Hand this reader what comes in these channels from now on; return the serial of what came last before.

        Raises: LocalError; StoreError.
        """
        wanted = frozenset(channels)

        def work(_: object) -> tuple[bool, int]:
            return self._channels.follow(reader.key, wanted), self._store.newest_serial()

        changed, newest = await self._driver.call(work)
        if changed:
            self._changed()
        if reader.closed:
            return newest
        for channel in reader.following.keys() - wanted:
            self._part(reader, channel)
        for channel in sorted(wanted - reader.following.keys()):
            reader.following[channel] = newest
            self._readers.setdefault(channel, {})[reader] = None
            reader.posted(channel)  # something may have come since that commit
        return newest

    def leave(self, reader: Reader) -> None:
        """A connection is gone; its user still follows what it did."""
        for channel in tuple(reader.following):
            self._part(reader, channel)

    def _part(self, reader: Reader, channel: ChannelId) -> None:
        del reader.following[channel]
        others = self._readers.get(channel, {})
        others.pop(reader, None)
        if not others:
            self._readers.pop(channel, None)

    def posted(self, channels: Iterable[ChannelId]) -> None:
        """Posts have come into these channels, and are durable."""
        for channel in channels:
            for reader in self._readers.get(channel, ()):
                reader.posted(channel)

    async def listed(self, channel: ChannelId, after: int, limit: int) -> Sequence[tuple[int, EnvelopeId]]:
        """Return serials and ids of a channel's posts behind a serial."""
        return await self._driver.read(lambda _: self._store.post_ids(channel, after, limit))

    async def fetch(self, reader: Reader, ids: Collection[EnvelopeId]) -> list[Delivery]:
        """Return posts of channels that a reader follows; what is not here, or too much, is left out."""
        held = await self._driver.read(lambda tx: [one for id in ids if (one := tx.held(id)) is not None])
        found = self._deliveries([one for one in held if one.dst in reader.following])
        return bounded(found)

    async def lacking(self, asks: PeerKey, ids: Sequence[EnvelopeId]) -> Lacking:
        """Return which of these posts were never seen here, and which somebody else is about to bring."""
        return await self._driver.read(lambda _: self._channels.lacking(asks, ids, self._driver.now().at))

    async def behind(self, channel: ChannelId, after: int, limit: int) -> Sequence[Held]:
        """Return a channel's posts behind a serial."""
        return await self._driver.read(lambda tx: tx.waiting(channel, after, limit))

    def _deliveries(self, posts: Iterable[Held]) -> list[Delivery]:
        now = self._driver.now().at
        return [Delivery(one.serial, one.id, one.to_send(now)) for one in posts if one.expires_at > now]

    def outgoing(self, reader: Reader, posts: Iterable[Held]) -> list[Delivery]:
        """Return what to push of these: nothing that this user brought itself."""
        return self._deliveries(one for one in posts if one.via != reader.key)


class PostPusher:
    """Pushes to one connection, few batches at a time; the window keeps the rest. :meth:`run` lives as long as it."""

    def __init__(self, desk: PostDesk, reader: Reader, bring: Bring, room: Callable[[], Awaitable[None]]) -> None:
        self._desk = desk
        self._reader = reader
        self._bring = bring
        self._taken = room
        self._fresh: dict[ChannelId, None] = dict.fromkeys(reader.following)
        self._news = asyncio.Event()
        self._news.set()
        self._room = asyncio.Semaphore(IN_FLIGHT)

    def news(self, channel: ChannelId) -> None:
        """Look again: something came."""
        self._fresh[channel] = None
        self._news.set()

    async def run(self) -> None:
        """Push until cancelled. Raises: UnavailableError when the client is gone; StoreError."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._news.wait()
                self._news.clear()
                while self._fresh:
                    channel = next(iter(self._fresh))
                    del self._fresh[channel]
                    await self._push(channel, partial(self._launch, group))

    async def _push(self, channel: ChannelId, launch: Callable[[Sequence[Delivery]], Awaitable[None]]) -> None:
        following, limit = self._reader.following, BATCH
        while (after := following.get(channel)) is not None:
            posts = await self._desk.behind(channel, after, limit)
            if not posts or channel not in following:
                return
            found = self._desk.outgoing(self._reader, posts)
            batch = bounded(found)
            # Long posts are not read sixty-four at a time to send one.
            limit = len(batch) if len(batch) < len(found) else min(BATCH, 2 * limit)
            following[channel] = batch[-1].serial if len(batch) < len(found) else posts[-1].serial
            if batch:
                await launch(batch)

    async def _launch(self, group: asyncio.TaskGroup, batch: Sequence[Delivery]) -> None:
        await self._taken()
        await self._room.acquire()
        group.create_task(self._hand_over(batch))

    async def _hand_over(self, batch: Sequence[Delivery]) -> None:
        try:
            await self._bring(batch)
        finally:
            self._room.release()
