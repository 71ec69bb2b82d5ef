"""The channel face of a node: joining, leaving and posting. What others post comes through the journal, as messages do.

One topic names one channel here: whoever types a topic must not have to think which of two is meant, least of all
when one of them is open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace

from quicprochat.adapters.passphrase import stretch
from quicprochat.core.channel import (
    PASSPHRASE_SALT_BYTES,
    SECRET_BYTES,
    Access,
    BroadcastChannel,
    Member,
    Post,
    Subscription,
    check_topic,
    encode_post,
    near_topic,
    open_secret,
)
from quicprochat.core.charter import may_write
from quicprochat.core.crypto import Crypto, Entropy
from quicprochat.core.errors import LocalError
from quicprochat.core.events import Leaving, PostAccepted, PostTaken, PostWritten, Subscribed, Unsubscribed
from quicprochat.core.export import passphrase_bytes
from quicprochat.core.gate import Reason
from quicprochat.core.ids import UID_BYTES, ChannelId, EnvelopeId, PeerKey, Uid
from quicprochat.core.invite import Invite, check_channel_passphrase, passphrase_secret
from quicprochat.core.link import INTEREST_MAX
from quicprochat.core.store import MeshStore, Scope
from quicprochat.core.time import Instant
from quicprochat.p2p.driver import Driver
from quicprochat.p2p.views import ChannelView, Posted

JOINED, LEFT, REMOVED = "joined", "left", "removed"
NEW_KEY = "new"
"""In place of a key: make one."""
FAREWELL_S = 2.0
"""How long leaving waits until a neighbour has heard of it."""
RECENT_MAX = 4_096
"""Posts of which it is known which neighbours have them."""


class Channels:
    """The channels of one node."""

    def __init__(
        self,
        driver: Driver,
        crypto: Crypto,
        entropy: Entropy,
        me: PeerKey,
        unreadable: Callable[[ChannelId], tuple[EnvelopeId, ...]],
    ) -> None:
        """``unreadable`` returns posts of a channel that came and for which we have no key."""
        self._driver = driver
        self._me = me
        self._unreadable = unreadable
        self._crypto = crypto
        self._entropy = entropy
        self._joining = asyncio.Lock()
        self._known: dict[ChannelId, Subscription] = {}
        self._accepting: dict[Uid, asyncio.Future[PostAccepted]] = {}
        self._posted: dict[Uid, EnvelopeId] = {}
        self._farewells: dict[Uid, int] = {}
        self._taken: dict[EnvelopeId, set[PeerKey]] = {}
        self._taking = asyncio.Event()

    # --- what the node reports

    def load(self, subscriptions: Iterable[Subscription]) -> None:
        """These are the channels now."""
        self._known = {s.channel.id: s for s in subscriptions}

    def accepted(self, answer: PostAccepted) -> None:
        """A post is kept, or is not."""
        if answer.uid in self._farewells:
            self._farewells[answer.uid] = answer.neighbours
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
        near = near_topic(topic, (channel.topic for channel in self.joined()))
        hint = f"did you mean {near}?" if near else "those you are in: qpc mesh channels"
        raise LocalError(f"you are in no channel {topic}; {hint}", code="not_found")

    async def subscribe(
        self,
        topic: str,
        key: str | bytes | None = None,
        *,
        invite: str = "",
        passphrase: str | None = None,
        announce: bool = False,
    ) -> BroadcastChannel:
        """Join a channel, which thereby exists; what is there already is joined once. Raises: LocalError.

        With nothing more it is the channel of this topic that we are in, open or private; where there is none, an open
        one: whoever knows the topic reads it and writes into it. A key is 32 bytes, 64 hexadecimal digits, or "new",
        which makes one that is ours. An invite is what a member gave us, and may need the ``passphrase``; a passphrase
        alone makes a channel that it opens. ``announce`` makes one in which only we, and whom we list, write.
        """
        topic = check_topic(topic)
        if (key is not None) + bool(invite) + (passphrase is not None and not invite) + (
            announce and key != NEW_KEY
        ) > 1:
            raise LocalError("a channel comes from a key, an invite, or a passphrase: give one of them")
        made = announce or key == NEW_KEY or (passphrase is not None and not invite)
        given = key is not None or bool(invite) or made
        self._refuse_another(topic, made=made)
        channel = await self._wanted(topic, key, invite, passphrase, announce=announce)
        async with self._joining:
            self._refuse_another(topic, made=made)
            for one in self.joined():
                if one.topic == topic and not given:
                    return one
                if one.id == channel.id:
                    return await self._learn(one, channel)
                if one.topic == topic:
                    other = ", without a key" if one.kind is Access.OPEN else ", with another key"
                    raise _exists(one, other)
            if len(self.joined()) >= INTEREST_MAX:
                raise LocalError(f"you are in {INTEREST_MAX} channels, and that is the most; leave one", code="full")
            await self._driver.settle([Subscribed(channel)])
        return self._known[channel.id].channel

    def _refuse_another(self, topic: str, *, made: bool) -> None:
        """Refuse to make a channel of a topic that there is already, before anything costly is done."""
        for one in self.joined() if made else ():
            if one.topic == topic:
                raise _exists(one, " already")

    async def _learn(self, one: BroadcastChannel, told: BroadcastChannel) -> BroadcastChannel:
        """Take over what an invite to a channel that we are in says more than we know. Raises: LocalError."""
        if one.topic != told.topic:
            raise LocalError(
                f"that is the key of the channel {one.topic}, which you are in; to call it {told.topic}, leave that one"
                f" first: qpc mesh unsubscribe {one.topic}",
                code="exists",
            )
        if one.owner and told.owner and one.owner != told.owner:
            raise LocalError(
                f"this invite names another owner of {one.topic} than the one you know ({one.owner.hex()[:16]}): who"
                " gave it to you has been deceived, or deceives you",
                code="untrusted",
            )
        if (told.owner and not one.owner) or told.epoch > one.epoch:
            await self._driver.settle([Subscribed(told)])
        return self._known[one.id].channel

    async def _wanted(
        self, topic: str, key: str | bytes | None, invite: str, passphrase: str | None, *, announce: bool
    ) -> BroadcastChannel:
        if invite:
            return await self._invited(topic, Invite.parse(invite), passphrase)
        if passphrase is not None:
            salt = self._entropy(PASSPHRASE_SALT_BYTES)
            secret = await self._stretched(check_channel_passphrase(passphrase), salt)
            channel = BroadcastChannel.private(secret, topic, self._me, announce=announce)
            return replace(channel, salt=salt)
        if key == NEW_KEY or announce:
            return BroadcastChannel.private(self._entropy(SECRET_BYTES), topic, self._me, announce=announce)
        if key is None:
            return BroadcastChannel.open(topic, self._crypto)
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

    async def _invited(self, topic: str, invite: Invite, passphrase: str | None) -> BroadcastChannel:
        secret = b""
        if invite.salt:
            if passphrase is None:
                raise LocalError("this invite needs the channel's passphrase as well: add --passphrase")
            secret = await self._stretched(passphrase_bytes(passphrase), invite.salt)
        elif passphrase is not None:
            raise LocalError("this invite needs no passphrase; leave --passphrase out")
        return replace(invite.channel(secret), topic=topic)

    async def _stretched(self, passphrase: bytes, salt: bytes) -> bytes:
        return await asyncio.to_thread(passphrase_secret, passphrase, salt, stretch, self._crypto)

    def invite(self, topic: str) -> Invite:
        """Return the invite to a channel that we are in. Raises: LocalError, also for an open one, which needs none."""
        return Invite.of(self.find(topic))

    def subscription(self, topic: str) -> Subscription:
        """Return all that is known of a channel that we are in. Raises: LocalError as :meth:`find` does."""
        return self._known[self.find(topic).id]

    def muted(self, id: bytes) -> bool:
        """Say whether the owner wants to hear nothing of a channel."""
        known = self._known.get(ChannelId(id))
        return known is not None and known.muted

    async def unsubscribe(self, topic: str) -> BroadcastChannel:
        """Leave a channel: its key and the posts kept for others go, the inbox keeps what came. Raises: LocalError.

        Who is linked and in a private one is told first; whoever is not will miss it.
        """
        channel = self.find(topic)
        if channel.owner:
            uid = Uid(self._entropy(UID_BYTES))
            self._farewells[uid] = 0
            await self._driver.settle([Leaving(channel.id, uid)])
            if self._farewells.pop(uid):
                await self.reached(uid, FAREWELL_S)
        await self._driver.settle([Unsubscribed(channel.id)])
        return channel

    async def broadcast(self, topic: str, text: str, *, emergency: bool = False) -> Posted:
        """Post into a channel that we are in; when this returns, the post survives a power cut. Raises: LocalError."""
        if not text.strip():
            raise LocalError("there is no text to post")
        channel, uid = self.find(topic), Uid(self._entropy(UID_BYTES))
        if not may_write(self._known[channel.id], self._me):
            raise LocalError(
                f"{channel.topic} is an announcement channel, and its owner ({channel.owner.hex()[:16]}) does not list"
                " you among those who write there; nothing was posted",
                code="policy",
            )
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
            return [self._view(channel, store, now) for channel in self.joined()]

        return await self._driver.call(read)

    def _view(self, channel: BroadcastChannel, store: MeshStore, now: Instant) -> ChannelView:
        return ChannelView(
            channel,
            posts=sum(store.usage(scope, channel.id).count for scope in (Scope.OWN_POSTS, Scope.POSTS)),
            unread=store.unread_posts(channel.id),
            members=sum(standing(member, self._me) == JOINED for member in listed(store, channel, self._me)),
            gaps=sum(gap.may_close(now) for known in store.heard_in(channel.id) for gap in known.gaps),
            muted=self.muted(channel.id),
            unreadable=sum(1 for id in self._unreadable(channel.id) if store.held(id) is not None),
        )


def listed(store: MeshStore, channel: BroadcastChannel, me: PeerKey) -> tuple[Member, ...]:
    """Return who is known to be, or to have been, in a channel; its owner and ourselves are, unless we heard more."""
    found = {member.peer: member for member in store.members(channel.id)}
    for peer in (me, *((PeerKey(channel.owner),) if channel.owner else ())):
        found.setdefault(peer, Member(channel.id, peer))
    return tuple(found.values())


def standing(member: Member, me: PeerKey) -> str:
    """Return "joined", "left", or "removed" (by a rotation of ours)."""
    if member.removed:
        return REMOVED
    return JOINED if member.present or member.peer == me else LEFT


def _exists(one: BroadcastChannel, other: str) -> LocalError:
    return LocalError(
        f"{one.topic} is {_an(one.kind)} channel you are in{other}; leave that one first: "
        f"qpc mesh unsubscribe {one.topic}",
        code="exists",
    )


def _an(kind: Access) -> str:
    return f"{'a' if kind is Access.PRIVATE else 'an'} {kind.value}"
