"""The owner's and the members' face of a channel: who is in it, who writes there, a new secret, quiet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from quicprochat.core.channel import SECRET_BYTES, Access, Member, Subscription
from quicprochat.core.charter import POSTERS_MAX
from quicprochat.core.crypto import Entropy
from quicprochat.core.errors import LocalError
from quicprochat.core.events import Muted, PostersChanged, Rotated, Written
from quicprochat.core.ids import PeerKey, Uid
from quicprochat.core.receipt import State
from quicprochat.core.rotation import EPOCH_LAST, ChannelKey
from quicprochat.core.store import MeshStore
from quicprochat.p2p.channels import JOINED, Channels, listed, standing
from quicprochat.p2p.driver import Driver
from quicprochat.p2p.views import MemberView, PostersView, RotationView

HAS, MISSING = "has", "missing"


class Membership:
    """What ``P2pNode`` offers of members; ``letter`` seals a channel's secret for one of them."""

    def __init__(
        self,
        channels: Channels,
        driver: Driver,
        me: PeerKey,
        entropy: Entropy,
        letter: Callable[[PeerKey, ChannelKey], Awaitable[Written]],
    ) -> None:
        self._channels = channels
        self._driver = driver
        self._me = me
        self._entropy = entropy
        self._letter = letter
        self._changing = asyncio.Lock()

    async def members(self, topic: str) -> list[MemberView]:
        """Return who is known to be, or to have been, in a channel; the owner and ourselves first."""
        known = self._channels.subscription(topic)

        def read(store: MeshStore) -> list[MemberView]:
            views = [self._view(known, member, store) for member in listed(store, known.channel, self._me)]
            return sorted(views, key=lambda view: (not view.owner, not view.me, view.standing != JOINED, view.key))

        return await self._driver.call(read)

    def _view(self, known: Subscription, member: Member, store: MeshStore) -> MemberView:
        peer, me = member.peer, member.peer == self._me
        owner = peer == known.channel.owner
        secret = ""
        if known.channel.owner == self._me:
            secret = HAS if me else _standing_of_key(known, member, store)
        poster = owner or peer in known.posters
        return MemberView(peer, owner, poster, me, standing(member, self._me), secret)

    async def posters(self, topic: str, add: Iterable[PeerKey] = (), remove: Iterable[PeerKey] = ()) -> PostersView:
        """Return who writes into an announcement channel; its owner may change that. Raises: LocalError."""
        added, removed = set(add), set(remove)
        async with self._changing:
            known = self._channels.subscription(topic)
            if known.channel.kind is not Access.ANNOUNCEMENT:
                raise LocalError(
                    f"{topic} is {'an open' if known.channel.kind is Access.OPEN else 'a private'} channel: everybody"
                    " in it writes there; an announcement channel is made with: qpc mesh subscribe <topic> --announce"
                )
            if added or removed:
                self._own(known, "list who writes there")
                wanted = (set(known.posters) | added - {self._me}) - removed
                if len(wanted) > POSTERS_MAX:
                    raise LocalError(f"a channel has at most {POSTERS_MAX} posters beside its owner", code="full")
                if self._me in removed:
                    raise LocalError("you own the channel, so you write there")
                if wanted != set(known.posters):
                    await self._driver.settle([PostersChanged(known.channel.id, tuple(sorted(wanted)))])
                known = self._channels.subscription(topic)
        return PostersView(known.channel, known.charter, known.posters)

    async def rotate(self, topic: str, without: Iterable[PeerKey] = ()) -> RotationView:
        """Give a channel of ours a new secret, and send it to every member but those. Raises: LocalError."""
        left_out = frozenset(without)
        if self._me in left_out:
            raise LocalError("you cannot be left out: you own the channel")
        async with self._changing:
            known = self._channels.subscription(topic)
            if known.channel.kind is Access.OPEN:
                raise LocalError(f"{topic} is an open channel: everybody can compute its key, and a new one too")
            self._own(known, "give it a new key")
            if known.channel.epoch >= EPOCH_LAST:
                raise LocalError(f"the key of {topic} was renewed as often as it can be; make a new channel")
            id = known.channel.id
            members = await self._driver.call(lambda store: store.members(id))
            there = [m.peer for m in members if m.present and not m.removed and m.peer not in {self._me, *left_out}]
            key = ChannelKey(id, known.channel.epoch + 1, self._entropy(SECRET_BYTES))
            letters = [await self._letter(peer, key) for peer in there]
            told = tuple((PeerKey(letter.envelope.dst), letter.uid) for letter in letters)
            # In one step: for whoever is to have the new secret it is in the outbox, whatever happens.
            await self._driver.settle([Rotated(id, key.epoch, key.secret, told, tuple(sorted(left_out))), *letters])
            return RotationView(self._channels.find(topic), len(letters), tuple(sorted(left_out)))

    async def mute(self, topic: str, *, muted: bool) -> Subscription:
        """Hear of a channel no more, or again: posts come as read ones. Raises: LocalError."""
        known = self._channels.subscription(topic)
        await self._driver.settle([Muted(known.channel.id, muted)])
        return self._channels.subscription(topic)

    def _own(self, known: Subscription, what: str) -> None:
        owner = known.channel.owner
        if owner == self._me:
            return
        if not owner:
            raise LocalError(
                f"only the owner of {known.channel.topic} can {what}, and you joined with a bare key, which does not"
                " say who that is; if it is you, make a new channel",
                code="policy",
            )
        raise LocalError(
            f"only its owner can {what}: {known.channel.topic} belongs to {owner.hex()[:16]}", code="policy"
        )


def _standing_of_key(known: Subscription, member: Member, store: MeshStore) -> str:
    if member.epoch < known.channel.epoch:
        return MISSING
    if not member.letter:
        return HAS
    sent = store.sent(Uid(member.letter))
    if sent is None:
        return MISSING  # the outbox was full
    return HAS if sent.state is State.DELIVERED else sent.state.value
