"""The queue: envelopes come in through the gate, and wait until their recipient's device has them.

Everything here is a promise: what is answered STORED survives a power cut, because the answer leaves after the commit.
One commit serves every call that came while the last one ran.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from quicprochat.core.crypto import Crypto
from quicprochat.core.gate import Checked, Policy, Reason, Reject, Verdict, admit
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.receipt import Status
from quicprochat.core.store import Held, MeshStore
from quicprochat.core.time import Now
from quicprochat.p2p.driver import Driver
from quicprochat.server.checker import Checker
from quicprochat.server.meter import Meter

log = logging.getLogger("quicprochat.server.queue")


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


class Queue:
    """``local`` says who may be written to here, asked inside a transaction; ``arrived`` is told of recipients with
    something new."""

    def __init__(
        self,
        driver: Driver,
        policy: Callable[[], Policy],
        crypto: Crypto,
        local: Callable[[PeerKey], bool],
        arrived: Callable[[Iterable[PeerKey]], None],
        meter: Meter,
    ) -> None:
        self._driver = driver
        self._policy = policy
        self._local = local
        self._arrived = arrived
        self._meter = meter
        self._checker = Checker(crypto)

    def close(self) -> None:
        """Let go of the thread that checks; nothing may be under way."""
        self._checker.close()

    async def put(self, via: PeerKey, envelopes: Sequence[bytes]) -> list[Outcome]:
        """Take envelopes from a client; return one answer each, once they are durable. Raises: StoreError."""
        checked = await self._checker.check(self._policy().me, envelopes)
        outcomes = await self._driver.call(lambda tx: self._admit(tx, via, checked))
        fresh = {
            PeerKey(one.envelope.dst)
            for one, outcome in zip(checked, outcomes, strict=True)
            if isinstance(one, Checked) and outcome.verdict is Verdict.STORED
        }
        if fresh:
            self._arrived(fresh)
        if log.isEnabledFor(logging.DEBUG):
            _tell(via, checked, outcomes)
        for what, count in Counter(map(_what_became, checked, outcomes)).items():
            self._meter.count(what, count)
        return outcomes

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
            for id in ids:
                tx.release(id)
            tx.count("handed_over", len(ids))

        await self._driver.call(release)
        self._meter.count("handed_over", len(ids))

    def _admit(self, tx: MeshStore, via: PeerKey, checked: Sequence[Checked | Reject]) -> list[Outcome]:
        now, policy = self._driver.now(), self._policy()
        return [self._admit_one(tx, via, one, policy, now) for one in checked]

    def _admit_one(self, tx: MeshStore, via: PeerKey, one: Checked | Reject, policy: Policy, now: Now) -> Outcome:
        if isinstance(one, Reject):
            tx.count("rejected")
            return Outcome(Verdict.REFUSED, Reason.UNSUPPORTED)
        if not self._local(PeerKey(one.envelope.dst)):
            return Outcome(Verdict.DEFERRED, Reason.UNKNOWN)
        admission = admit(tx, one, via, policy, now)
        if admission.verdict is Verdict.STORED:
            _cure(tx, one)
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
