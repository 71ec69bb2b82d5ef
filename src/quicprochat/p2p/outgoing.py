"""Messages of our own: into the outbox, and what becomes of them."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from quicprochat.core.envelope import TTL_MAX_S
from quicprochat.core.errors import LocalError, UnavailableError
from quicprochat.core.events import Accepted, HomeNamed, Reseal, ResealFailed, StateChanged, Withdrawn, Written
from quicprochat.core.gate import Reason
from quicprochat.core.ids import UID_BYTES, PeerKey, Uid
from quicprochat.core.node import Node
from quicprochat.core.receipt import OPEN_STATES, State
from quicprochat.core.record import PeerRecord
from quicprochat.core.rotation import ChannelKey
from quicprochat.core.store import Sent
from quicprochat.p2p.book import AddressBook
from quicprochat.p2p.driver import Driver
from quicprochat.p2p.edge import Edge
from quicprochat.p2p.links import Links
from quicprochat.p2p.views import TraceView

log = logging.getLogger("quicprochat")

RECENT_MAX = 4_096
"""Messages whose state is known without asking the store."""

_REFUSALS = {
    Reason.FULL: "the outbox is full of messages that wait for their recipients; cancel some, or wait",
    Reason.DISK: "the disk is almost full; make room, and nothing that waits is lost",
}


class Outgoing:
    """Writes messages and tells how they fare. Its public verbs are those of ``P2pNode``, described there.

    ``find`` looks a peer's record up at the home server; ``node`` says whether our clock may be mentioned.
    """

    def __init__(
        self,
        book: AddressBook,
        driver: Driver,
        links: Links,
        edge: Edge,
        find: Callable[[PeerKey, str], Awaitable[bool]],
        node: Node,
    ) -> None:
        self._book = book
        self._driver = driver
        self._links = links
        self._edge = edge
        self._find = find
        self._node = node
        self._accepting: dict[Uid, asyncio.Future[Accepted]] = {}
        self._stopped = False
        self._watching: defaultdict[Uid, list[asyncio.Future[None]]] = defaultdict(list)
        self._recent: dict[Uid, Sent] = {}

    async def send(self, key: PeerKey, text: str, *, ttl_s: int, require_fs: bool, domain: str = "") -> Sent:
        """Put a message into the outbox; when this returns it survives a power cut.

        ``domain`` is where our person says that the peer lives. Raises: LocalError, StoreError.
        """
        if not text.strip():
            raise LocalError("there is no text to send")
        if key == self._book.identity.key:
            raise LocalError("that is your own key; a message needs somebody else")
        if not 0 < ttl_s <= TTL_MAX_S:
            raise LocalError(f"a message lives 1 to {TTL_MAX_S} seconds ({TTL_MAX_S // 86_400} days), not {ttl_s}")
        if key in self._book.identity.blocked():
            raise LocalError("that peer is blocked; unblock it to write to it", code="policy")
        card = await self._card(key, domain)
        prekey = card.prekeys[0] if card and card.prekeys else None
        if prekey is None and require_fs:
            raise LocalError(
                "no forward-secret key of that peer is known yet; it comes with the first link, or from its home "
                "server; or send without --require-fs",
                code="policy",
            )
        written = self._edge.write(
            key, text, prekey, ttl_s, self._driver.now(), claim_time=self._node.claim_time, require_fs=require_fs
        )
        accepting: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
        self._accepting[written.uid] = accepting
        try:
            # In one transaction: a message that is safe is offered at the right place, whatever happens.
            await self._driver.settle([HomeNamed(key, domain), written] if domain else [written])
        finally:
            self._accepting.pop(written.uid, None)
        answer = accepting.result()
        if answer.sent is None:
            raise LocalError(_REFUSALS[answer.reason], code="full")
        return answer.sent

    async def key_letter(self, member: PeerKey, key: ChannelKey) -> Written:
        """Seal a channel's secret for a member, with what is known of it here; it goes out when it is settled."""
        card = self._links.cards.get(member)
        if card is None:
            stored = await self._driver.call(lambda store: store.record(member))
            card = self._links.open_record(stored.data) if stored is not None else None
        prekey = card.prekeys[0] if card and card.prekeys else None
        return self._edge.write_key(member, key, prekey, self._driver.now(), claim_time=self._node.claim_time)

    async def _card(self, key: PeerKey, domain: str) -> PeerRecord | None:
        """Return a peer's newest record, and see to it that the peer is dialled while we have mail for it."""
        card = self._links.cards.get(key)
        if card is None:
            stored = await self._driver.call(lambda store: store.record(key))
            card = self._links.open_record(stored.data) if stored is not None else None
        if (card is None or not card.prekeys) and await self._find(key, domain):
            card = self._links.cards.get(key, card)
        if key not in self._links.linked() and self._links.want(key) and card is not None:
            self._links.learn(card)
        return card

    async def sent(self, uid: Uid) -> Sent:
        """Return a sent message as it is now. Raises: LocalError with code ``not_found``."""
        found = await self._driver.call(lambda store: store.sent(uid))
        if found is None:
            raise LocalError(f"no message {uid.hex()} was sent from here", code="not_found")
        return found

    async def outbox(self, limit: int) -> list[Sent]:
        """Return our newest messages that nobody has confirmed and that are offered on; newest last."""
        return list(await self._driver.call(lambda store: store.open_sent(limit)))

    async def wait(self, uid: Uid, until: State, timeout_s: float | None = None) -> Sent:
        """Wait until a message is in this state or in one that it cannot leave for it; return it.

        ``until`` is RELAYED or DELIVERED. Raises: TimeoutError; the message goes on waiting all the same.
        """
        async with asyncio.timeout(timeout_s):
            while True:
                # Watched before it is asked for: it may change while the answer is on its way.
                changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._watching[uid].append(changed)
                try:
                    sent = self._recent.get(uid) or await self.sent(uid)
                    if sent.state not in OPEN_STATES or until is State.RELAYED is sent.state:
                        return sent
                    if self._stopped:
                        raise UnavailableError("the node has stopped; the message is kept", retryable=False)
                    await changed
                finally:
                    self._watching[uid].remove(changed)
                    if not self._watching[uid]:
                        del self._watching[uid]

    async def cancel(self, uid: Uid) -> Sent:
        """Stop offering a message; a copy that left before may still arrive. Raises: LocalError."""
        await self.sent(uid)
        await self._driver.settle([Withdrawn(uid)])
        return await self.sent(uid)

    async def trace(self, uid: Uid) -> TraceView:
        """Return what happened to a sent message. Raises: LocalError."""
        sent = await self.sent(uid)
        events, envelopes = await self._driver.call(lambda store: (store.trace(uid), store.envelopes_of(uid)))
        return TraceView(sent, tuple(events), tuple(envelopes))

    # --- effects

    def accepted(self, effect: Accepted) -> None:
        """A message is in the outbox, or was refused."""
        if effect.sent is not None:
            self._remember(effect.sent)
        accepting = self._accepting.pop(effect.uid, None)
        if accepting is not None and not accepting.done():
            accepting.set_result(effect)

    def changed(self, effect: StateChanged) -> None:
        """A message is in another state."""
        if (sent := self._recent.get(effect.uid)) is not None:
            self._recent[effect.uid] = replace(sent, state=effect.state, reason=effect.reason)
        _wake(self._watching.get(effect.uid, ()))

    def reseal(self, effect: Reseal) -> None:
        """A message must be sealed to another key."""
        self._recent.pop(effect.uid, None)  # its protection is about to change
        try:
            self._driver.post(self._edge.reseal(effect, self._driver.now()))
        except LocalError as error:
            log.warning("a waiting message could not be sealed again: %s", error)
            self._driver.post(ResealFailed(effect.uid))

    def stop(self) -> None:
        """The node stops: whoever waits for a message asks the store once more, and hears of it there."""
        self._stopped = True
        self._recent.clear()
        for watchers in self._watching.values():
            _wake(watchers)

    def _remember(self, sent: Sent) -> None:
        """Keep a message at hand while somebody is likely to wait for it."""
        self._recent[sent.uid] = sent
        if len(self._recent) > RECENT_MAX:
            del self._recent[next(iter(self._recent))]


def _wake(watchers: Iterable[asyncio.Future[None]]) -> None:
    for watcher in watchers:
        if not watcher.done():
            watcher.set_result(None)


def uid_of(text: str) -> Uid:
    """Return the uid that 32 hexadecimal digits name. Raises: LocalError."""
    try:
        uid = Uid(bytes.fromhex(text))
    except ValueError:
        uid = Uid(b"")
    if len(uid) != UID_BYTES:
        raise LocalError("a message id has 32 hexadecimal digits; send prints it")
    return uid
