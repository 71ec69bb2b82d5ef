"""The queue: envelopes come in through the gate, and wait until their recipient's device has them.

Everything here is a promise: what is answered STORED survives a power cut, because the answer leaves after the commit.
One commit serves every call that came while the last one ran.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from quicprochat.core.crypto import Crypto
from quicprochat.core.envelope import Kind, MeshEnvelope
from quicprochat.core.federation import Outgoing, Parcel
from quicprochat.core.gate import Admission, Checked, Policy, Reason, Reject, Verdict, admit
from quicprochat.core.ids import ChannelId, EnvelopeId, PeerKey
from quicprochat.core.receipt import Status
from quicprochat.core.store import Held, MeshStore
from quicprochat.core.time import Instant, Now
from quicprochat.server.checker import Checker
from quicprochat.server.federation.routing import Destination, Local, Remote, Unknown
from quicprochat.server.meter import Meter
from quicprochat.server.turns import ServerDriver

log = logging.getLogger("quicprochat.server.queue")

ANSWER_LATER = 3
"""Turns of the event loop by which an answer follows what goes on: so many it takes from the news to a call."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer for one envelope; see ``gate.Admission``."""

    verdict: Verdict
    reason: Reason = Reason.NONE


@dataclass(frozen=True, slots=True)
class Delivery:
    """An envelope on its way to its recipient's device."""

    serial: int
    id: EnvelopeId
    wire: bytes


class Relay(Protocol):
    """What is asked about recipients who are not here; everything inside a transaction."""

    def resolve(self, recipient: PeerKey, hint: str) -> Destination:
        """Say where an envelope goes."""
        ...

    def full(self, user: PeerKey, domain: str, envelope: MeshEnvelope) -> bool:
        """Say whether there is no room for one more from this user to this domain."""
        ...

    def row(self, id: EnvelopeId) -> Outgoing | None:
        """Return what is known of an envelope before it is let in; for :meth:`put`."""
        ...

    def put(self, held: Held, user: PeerKey, domain: str, known: Outgoing | None, now: Instant) -> Parcel | None:
        """Say which domain an envelope of the store is for; return what is to be sent now."""
        ...


class Board(Protocol):
    """Where posts of channels go; everything inside a transaction but ``posted``."""

    def admit(self, checked: Checked, via: PeerKey, policy: Policy, now: Now) -> Admission:
        """Let in a post that a user brings."""
        ...

    def keep(self, checked: Checked, via: PeerKey, policy: Policy, now: Now) -> Admission:
        """Let in a post that another domain's server brings."""
        ...

    def slide(self, now: Instant) -> None:
        """Let go of what has no more room; called once after a batch."""
        ...

    def posted(self, channels: Collection[ChannelId]) -> None:
        """Posts have come into these channels, and are durable."""
        ...


_Admitted = tuple[Outcome, Parcel | None]
"""The answer for one envelope, and what another domain is to get of it."""


class Queue:
    """``local`` says who may be written to here, asked inside a transaction; ``arrived`` is told of recipients with
    something new. ``relay`` knows about others, and ``outgoing`` is told what is to be sent to other domains. Posts go
    to the ``board``."""

    def __init__(
        self,
        driver: ServerDriver,
        policy: Callable[[], Policy],
        crypto: Crypto,
        local: Callable[[PeerKey], bool],
        arrived: Callable[[Iterable[PeerKey]], None],
        meter: Meter,
        relay: Relay | None = None,
        outgoing: Callable[[Sequence[Parcel]], None] = lambda _: None,
        board: Board | None = None,
    ) -> None:
        self._driver = driver
        self._policy = policy
        self._local = local
        self._arrived = arrived
        self._meter = meter
        self._relay = relay
        self._outgoing = outgoing
        self._board = board
        self._checker = Checker(crypto)
        self._under_way: set[asyncio.Task[list[_Admitted]]] = set()

    def close(self) -> None:
        """Let go of the thread that checks; nothing may be under way."""
        self._checker.close()

    async def put(self, via: PeerKey, envelopes: Sequence[bytes], hint: str = "") -> list[Outcome]:
        """Take envelopes from a client; return one answer each, once they are durable. Raises: StoreError.

        ``hint`` is the domain whose server knows the recipients that are not here, as far as the client knows.
        """
        checked = await self._checker.check(self._policy().me, envelopes)
        admitted = await self._let_in(checked, lambda tx: self._admit(tx, via, checked, hint))
        outcomes = [outcome for outcome, _ in admitted]
        if log.isEnabledFor(logging.DEBUG):
            _tell(via, checked, outcomes)
        for what, count in Counter(map(_what_became, checked, outcomes)).items():
            self._meter.count(what, count)
        await _others_first()
        return outcomes

    async def deposit(
        self, via: PeerKey, envelopes: Sequence[bytes], share: float, came: Callable[[PeerKey, Now], None],
        *, channels: bool = False,
    ) -> list[Outcome]:  # fmt: skip
        """Take envelopes from another domain's server: for users here, and nobody else. Raises: StoreError.

        ``share`` is the part of the storage that one domain may fill; ``came`` is told of authors, in the transaction.
        ``channels``: posts of channels are taken from that domain too.
        """
        checked = await self._checker.check(self._policy().me, envelopes)
        board = self._board if channels else None
        admitted = await self._let_in(checked, lambda tx: self._take_in(tx, via, checked, share, came, board))
        await _others_first()
        return [outcome for outcome, _ in admitted]

    async def _let_in(
        self, checked: Sequence[Checked | Reject], work: Callable[[MeshStore], list[_Admitted]]
    ) -> list[_Admitted]:
        """Commit, and tell of it; also when whoever brought it goes meanwhile, or nobody would know what is kept."""
        task = asyncio.create_task(self._commit_and_tell(checked, work))
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    async def _commit_and_tell(
        self, checked: Sequence[Checked | Reject], work: Callable[[MeshStore], list[_Admitted]]
    ) -> list[_Admitted]:
        admitted = await self._driver.call_for(len(checked), work)
        self._tell_recipients(checked, admitted)
        if parcels := [parcel for _, parcel in admitted if parcel is not None]:
            self._outgoing(parcels)
        return admitted

    def _ended(self, task: asyncio.Task[list[_Admitted]]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits has it; nobody may be waiting any more

    def _tell_recipients(self, checked: Sequence[Checked | Reject], admitted: Sequence[_Admitted]) -> None:
        fresh = [
            one.envelope
            for one, (outcome, parcel) in zip(checked, admitted, strict=True)
            if isinstance(one, Checked) and outcome.verdict is Verdict.STORED and parcel is None
        ]
        if mail := {PeerKey(one.dst) for one in fresh if one.kind != Kind.CHANNEL}:
            self._arrived(mail)
        posts = {ChannelId(one.dst) for one in fresh if one.kind == Kind.CHANNEL}
        if posts and self._board is not None:
            self._board.posted(posts)

    async def waiting(self, recipient: PeerKey, after: int, limit: int) -> list[Delivery]:
        """Return what waits for a recipient behind a serial, oldest first; nothing means that there is no more."""
        now = self._driver.now().at
        while True:
            held = await self._driver.read(partial(_waiting, recipient, after, limit))
            found = [Delivery(h.serial, h.id, h.to_send(now)) for h in held if h.expires_at > now]
            if found or not held:
                return found
            after = held[-1].serial  # all of these are only not swept away yet

    async def done(self, recipient: PeerKey, ids: Sequence[EnvelopeId]) -> None:
        """Let go of envelopes that their recipient has; ids that are not its own change nothing."""
        self._meter.count("handed_over", await self._driver.call(lambda tx: _release(tx, recipient, ids)))

    async def taken(self, ids: Sequence[EnvelopeId]) -> None:
        """Let go of envelopes that were handed to their recipient, and confirmed: nobody asks whose they are."""

        def release(tx: MeshStore) -> None:
            tx.release_many(ids)
            tx.count("handed_over", len(ids))

        # Should we die before, its recipient gets it again, and knows it.
        await self._driver.call_unhurried(release)
        self._meter.count("handed_over", len(ids))

    def _admit(self, tx: MeshStore, via: PeerKey, checked: Sequence[Checked | Reject], hint: str) -> list[_Admitted]:
        now, policy = self._driver.now(), self._policy()
        tx.foresee([one.envelope.id for one in checked if isinstance(one, Checked)])
        admitted = [self._admit_one(tx, via, one, hint, policy, now) for one in checked]
        if self._board is not None:
            self._board.slide(now.at)
        return admitted

    def _admit_one(
        self, tx: MeshStore, via: PeerKey, one: Checked | Reject, hint: str, policy: Policy, now: Now
    ) -> _Admitted:
        if isinstance(one, Reject):
            return _rejected(tx), None
        if one.envelope.kind == Kind.CHANNEL:
            return _posted(None if self._board is None else self._board.admit(one, via, policy, now)), None
        match self._resolve(PeerKey(one.envelope.dst), hint):
            case Local():
                return _outcome(_admitted(tx, one, via, policy, now)), None
            case Remote(domain):
                return self._send_on(tx, one, via, domain, policy, now)
            case Unknown(reason):
                return Outcome(Verdict.DEFERRED, reason), None

    def _resolve(self, recipient: PeerKey, hint: str) -> Destination:
        if self._relay is not None:
            return self._relay.resolve(recipient, hint)
        return Local() if self._local(recipient) else Unknown()

    def _send_on(self, tx: MeshStore, one: Checked, via: PeerKey, domain: str, policy: Policy, now: Now) -> _Admitted:
        """Let an envelope for another domain in by the same gate, and put it into that domain's outbox."""
        assert self._relay is not None
        id = one.envelope.id
        known = self._relay.row(id)
        if known is None and self._relay.full(via, domain, one.envelope) and tx.held(id) is None:
            return Outcome(Verdict.DEFERRED, Reason.FULL), None
        admission = _admitted(tx, one, via, policy, now)
        held = admission.held if admission.verdict is not Verdict.DUPLICATE else tx.held(id)
        parcel = self._relay.put(held, via, domain, known, now.at) if held is not None else None
        return _outcome(admission), parcel

    def _take_in(
        self, tx: MeshStore, via: PeerKey, checked: Sequence[Checked | Reject], share: float,
        came: Callable[[PeerKey, Now], None], board: Board | None,
    ) -> list[_Admitted]:  # fmt: skip
        now, policy = self._driver.now(), self._policy()
        policy = replace(policy, limits=replace(policy.limits, share=share))
        tx.foresee([one.envelope.id for one in checked if isinstance(one, Checked)])
        found: list[_Admitted] = []
        for one in checked:
            if isinstance(one, Reject):
                outcome = _rejected(tx)
            elif one.envelope.kind == Kind.CHANNEL:
                outcome = _posted(None if board is None else board.keep(one, via, policy, now))
            elif not self._local(PeerKey(one.envelope.dst)):
                outcome = Outcome(Verdict.DEFERRED, Reason.UNKNOWN)
            else:
                outcome = _outcome(_admitted(tx, one, via, policy, now))
                if outcome.verdict is Verdict.STORED:
                    came(one.envelope.src, now)
            found.append((outcome, None))
        if board is not None:
            board.slide(now.at)
        return found


async def _others_first() -> None:
    """Let what goes on to somebody leave before the answer to whoever brought it: that one waits for nothing else.

    Whoever is sent a datagram first may well get the processor first.
    """
    for _ in range(ANSWER_LATER):
        await asyncio.sleep(0)


def _rejected(tx: MeshStore) -> Outcome:
    tx.count("rejected")
    return Outcome(Verdict.REFUSED, Reason.UNSUPPORTED)


def _admitted(tx: MeshStore, one: Checked, via: PeerKey, policy: Policy, now: Now) -> Admission:
    admission = admit(tx, one, via, policy, now)
    if admission.verdict is Verdict.STORED:
        _cure(tx, one)
    return admission


def _posted(admission: Admission | None) -> Outcome:
    return Outcome(Verdict.REFUSED, Reason.POLICY) if admission is None else _outcome(admission)


def _outcome(admission: Admission) -> Outcome:
    return Outcome(admission.verdict, admission.reason)


def _tell(via: PeerKey, checked: Sequence[Checked | Reject], outcomes: Sequence[Outcome]) -> None:
    """Log who writes to whom: at debug level, and nowhere else."""
    for one, outcome in zip(checked, outcomes, strict=True):
        to = "nobody" if isinstance(one, Reject) else one.envelope.dst.hex()[:16]
        log.debug("%s brings an envelope to %s: %s", via.hex()[:16], to, _what_became(one, outcome))


def _what_became(checked: Checked | Reject, outcome: Outcome) -> str:
    """Return the name under which the meter counts an envelope."""
    if isinstance(checked, Reject):
        return f"refused.{checked.fault.value}"
    reason = f".{outcome.reason.name.lower()}" if outcome.reason else ""
    return outcome.verdict.name.lower() + reason


def _waiting(recipient: PeerKey, after: int, limit: int, tx: MeshStore) -> Sequence[Held]:
    return tx.waiting(recipient, after, limit)


def _cure(tx: MeshStore, checked: Checked) -> None:
    """A recipient's own word that it has a message lets go of the copy that waits for it here."""
    receipt = checked.receipt
    if receipt is not None and receipt.status is Status.DELIVERED:
        _release(tx, PeerKey(checked.envelope.src), receipt.ids)


def _release(tx: MeshStore, recipient: PeerKey, ids: Iterable[EnvelopeId]) -> int:
    """Let go of a recipient's envelopes; return how many were here."""
    gone = 0
    for id in ids:
        held: Held | None = tx.held(id)
        if held is not None and held.dst == recipient:
            tx.release(id)
            gone += 1
    if gone:
        tx.count("handed_over", gone)
    return gone
