"""The channel face of a node: joining, leaving and posting. What others post comes through the journal, as messages do.

One topic names one channel here: whoever types a topic must not have to think which of two is meant, least of all
when one of them is open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from quicprochat.core.channel import (
    SECRET_BYTES,
    Access,
    BroadcastChannel,
    Post,
    Subscription,
    check_topic,
    encode_post,
    open_secret,
)
from quicprochat.core.crypto import Crypto, Entropy
from quicprochat.core.errors import LocalError
from quicprochat.core.events import PostAccepted, PostTaken, PostWritten, Subscribed, Unsubscribed
from quicprochat.core.gate import Reason
from quicprochat.core.ids import UID_BYTES, ChannelId, EnvelopeId, PeerKey, Uid
from quicprochat.core.link import INTEREST_MAX
from quicprochat.core.store import MeshStore, Scope
from quicprochat.core.time import Instant
from quicprochat.p2p.driver import Driver
from quicprochat.p2p.views import ChannelView, Posted

NEW_KEY = "new"
"""In place of a key: make one."""
RECENT_MAX = 4_096
"""Posts of which it is known which neighbours have them."""


class Channels:
    """The channels of one node."""

    def __init__(self, driver: Driver, crypto: Crypto, entropy: Entropy) -> None:
        self._driver = driver
        self._crypto = crypto
        self._entropy = entropy
        self._joining = asyncio.Lock()
        self._known: dict[ChannelId, Subscription] = {}
        self._accepting: dict[Uid, asyncio.Future[PostAccepted]] = {}
        self._posted: dict[Uid, EnvelopeId] = {}
        self._taken: dict[EnvelopeId, set[PeerKey]] = {}
        self._taking = asyncio.Event()

    # --- what the node reports

    def load(self, subscriptions: Iterable[Subscription]) -> None:
        """These are the channels now."""
        self._known = {s.channel.id: s for s in subscriptions}

    def accepted(self, answer: PostAccepted) -> None:
        """A post is kept, or is not."""
        if answer.id is not None:
            self._posted[answer.uid] = answer.id
            self._taken[answer.id] = set()
            if len(self._posted) > RECENT_MAX:
                self._taken.pop(self._posted.pop(next(iter(self._posted))), None)
        waiting = self._accepting.pop(answer.uid, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def taken(self, by: PostTaken) -> None:
        """A neighbour has a post."""
        if by.id in self._taken:
            self._taken[by.id].add(by.peer)
            self._taking.set()
            self._taking = asyncio.Event()

    # --- the owner

    def joined(self) -> tuple[BroadcastChannel, ...]:
        """Return the channels we are in, by topic."""
        found = [s.channel for s in self._known.values() if not s.left]
        return tuple(sorted(found, key=lambda channel: channel.topic))

    def named(self, id: bytes) -> BroadcastChannel | None:
        """Return the channel of an id, also one that was left (its secret is gone); None when it was never ours."""
        found = self._known.get(ChannelId(id))
        return found.channel if found is not None else None

    def find(self, topic: str) -> BroadcastChannel:
        """Return the channel of a topic that we are in. Raises: LocalError, with code ``not_found`` when there is none.

        Nothing is joined on the way: a private channel's topic with a typo in it would make an open one, and what was
        meant for a few would go to everybody.
        """
        topic = check_topic(topic)
        for channel in self.joined():
            if channel.topic == topic:
                return channel
        raise LocalError(f"you are in no channel {topic}; join it first: qpc mesh subscribe {topic}", code="not_found")

    async def subscribe(self, topic: str, key: str | bytes | None = None) -> BroadcastChannel:
        """Join a channel, which thereby exists; what is there already is joined once. Raises: LocalError.

        Without a key it is the channel of this topic that we are in, open or private; where there is none, an open one:
        whoever knows the topic reads it and writes into it. A key is 32 bytes, 64 hexadecimal digits, or "new", which
        makes one: whoever is given it is a member.
        """
        channel = self._wanted(check_topic(topic), key)
        async with self._joining:
            for one in self.joined():
                if one.topic == channel.topic and (key is None or one.id == channel.id):
                    return one
                if one.topic == channel.topic:
                    other = "without a key" if one.kind is Access.OPEN else "with another key"
                    raise LocalError(
                        f"{topic} is {_an(one.kind)} channel you are in, {other}; leave that one first: "
                        f"qpc mesh unsubscribe {topic}",
                        code="exists",
                    )
                if one.id == channel.id:
                    raise LocalError(f"that is the key of the channel {one.topic}, which you are in", code="exists")
            if len(self.joined()) >= INTEREST_MAX:
                raise LocalError(f"you are in {INTEREST_MAX} channels, and that is the most; leave one", code="full")
            await self._driver.settle([Subscribed(channel)])
        return channel

    def _wanted(self, topic: str, key: str | bytes | None) -> BroadcastChannel:
        if key is None:
            return BroadcastChannel.open(topic, self._crypto)
        if key == NEW_KEY:
            return BroadcastChannel.private(self._entropy(SECRET_BYTES), topic)
        try:
            secret = bytes.fromhex(key) if isinstance(key, str) else key
        except ValueError:
            secret = b""
        if len(secret) != SECRET_BYTES or (isinstance(key, str) and len(key) != 2 * SECRET_BYTES):
            raise LocalError(f"a channel's key has {2 * SECRET_BYTES} hexadecimal digits; {NEW_KEY!r} makes one")
        if secret == open_secret(topic, self._crypto):
            raise LocalError(
                "that key is no secret: everybody can compute it from the topic; leave it out, or make one"
            )
        return BroadcastChannel.private(secret, topic)

    async def unsubscribe(self, topic: str) -> BroadcastChannel:
        """Leave a channel: its key and the posts kept for others go, the inbox keeps what came. Raises: LocalError."""
        channel = self.find(topic)
        await self._driver.settle([Unsubscribed(channel.id)])
        return channel

    async def broadcast(self, topic: str, text: str, *, emergency: bool = False) -> Posted:
        """Post into a channel that we are in; when this returns, the post survives a power cut. Raises: LocalError."""
        if not text.strip():
            raise LocalError("there is no text to post")
        channel, uid = self.find(topic), Uid(self._entropy(UID_BYTES))
        encode_post(Post(uid, 0, text))  # refuses what is too long, or no text
        accepting: asyncio.Future[PostAccepted] = asyncio.get_running_loop().create_future()
        self._accepting[uid] = accepting
        try:
            await self._driver.settle([PostWritten(channel.id, uid, text, emergency)])
        finally:
            self._accepting.pop(uid, None)
        answer = accepting.result()
        if answer.reason is Reason.DISK:
            raise LocalError("the disk is almost full; make room, then post again", code="full")
        if answer.id is None:
            raise LocalError(f"you have just left the channel {topic}", code="not_found")
        return Posted(uid, answer.id, channel, answer.neighbours, emergency)

    async def reached(self, uid: Uid, timeout_s: float | None = None) -> int:
        """Wait until a neighbour has a post of this run, for so long at most; return how many have it."""
        id = self._posted.get(uid)
        if id is None:
            raise LocalError(f"no post {uid.hex()} was written by this node since it started", code="not_found")
        try:
            async with asyncio.timeout(timeout_s):
                while not self._taken.get(id, ()):
                    await self._taking.wait()
        except TimeoutError:
            pass
        return len(self._taken.get(id, ()))

    async def views(self) -> list[ChannelView]:
        """Return the channels we are in, with how many posts are kept of each, how many unread, and what is missing."""
        now = self._driver.now().at

        def read(store: MeshStore) -> list[ChannelView]:
            return [_view(store, channel, now) for channel in self.joined()]

        return await self._driver.call(read)


def _view(store: MeshStore, channel: BroadcastChannel, now: Instant) -> ChannelView:
    heard = store.heard_in(channel.id)
    return ChannelView(
        channel,
        posts=sum(store.usage(scope, channel.id).count for scope in (Scope.OWN_POSTS, Scope.POSTS)),
        unread=store.unread_posts(channel.id),
        members=1 + len(heard),
        gaps=sum(gap.may_close(now) for known in heard for gap in known.gaps),
    )


def _an(kind: Access) -> str:
    return "an open" if kind is Access.OPEN else "a private"
