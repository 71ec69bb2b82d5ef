"""The author's side: what became of the messages this node sent. Only here are states set.

All transitions stand in ``core.receipt.MAY_BECOME``. What carriers report becomes a line in the trace; a proof by
the recipient, or our own decision, becomes a state.
"""

from __future__ import annotations

from collections.abc import Sequence

from quicprochat.core.bundle import BY_HAND
from quicprochat.core.events import Effect, Journaled, Report, Reseal, StateChanged
from quicprochat.core.gate import Reason, Verdict
from quicprochat.core.homes import domain_name
from quicprochat.core.ids import EnvelopeId, PeerKey, Uid
from quicprochat.core.link import Result
from quicprochat.core.receipt import MAY_BECOME, OPEN_STATES, Receipt, State, Status
from quicprochat.core.rotation import recalled
from quicprochat.core.seal import TYPE_KEY, TYPE_TEXT, Prekey, Protection
from quicprochat.core.store import Held, Line, LineKind, MeshStore, Sent, TraceEvent
from quicprochat.core.time import Now

SEALS_MAX = 4
"""A recipient that cannot open the same message sealed four times will not open the fifth."""
UPGRADE_BATCH = 256
TRACE_MAX = 64
"""Rows in one message's trace: a neighbour that answers ever anew must not fill the disk."""
STATES_MAX = 3
"""Rows that stay free for changes of state: relayed, an end, and a late delivery."""
REPORTS_MAX = 16
"""Rows in one message's trace for what a home server says of other domains: it may name as many as it likes."""

DIRECT, HERE, BUNDLE = "direct", "here", "bundle"
"""The carriers of what went over a link to the recipient itself, of what we did, and of what goes, or came, in a file.
Others are a key, or a domain."""
NO_DOMAINS = frozenset({DIRECT, HERE, BUNDLE})
STORED = "stored"
"""In the trace: this domain's server has it, when somebody else had it already."""
REFUSED = "refused"
"""In the trace, and first in the reason of an open state: ``refused:<reason>:<by whom>``, refused for good."""

DEFINITIVE = frozenset({Reason.UNSUPPORTED, Reason.HOPS})
"""Refusals by the recipient that no waiting will change."""


class Outbox:
    """Follows each sent message from queued to an end; holds no message itself, the store does."""

    def __init__(self) -> None:
        self.claim_time = True
        """False once a neighbour proved our wall clock wrong: messages then say nothing about when they were made."""
        self._resealing: dict[Uid, EnvelopeId] = {}
        self._upgrading: dict[PeerKey, tuple[Prekey, set[Uid]]] = {}

    def withheld(self, id: EnvelopeId) -> bool:
        """Say whether an envelope must not leave, because its message is being sealed better."""
        return id in self._resealing.values() if self._resealing else False

    def become(
        self, tx: MeshStore, sent: Sent, state: State, reason: str, carrier: str, now: Now, out: list[Effect]
    ) -> bool:
        """Move a message into a state if it may; write the state, the trace and the journal together."""
        if state not in MAY_BECOME[sent.state]:
            return False
        tx.set_state(sent.uid, state, reason)
        tx.add_trace(sent.uid, TraceEvent(now.wall, state.value, carrier))
        out.append(StateChanged(sent.uid, sent.to, state, reason))
        if sent.type == TYPE_TEXT:  # of a channel's key nobody is told line by line
            line = Line(LineKind.RECEIPT, sent.to, sent.uid, now.wall, state=state.value, reason=reason)
            out.append(Journaled(_with_cursor(line, tx.note(line))))
        if state not in OPEN_STATES:
            self._let_go(tx, sent)
        return True

    def _let_go(self, tx: MeshStore, sent: Sent) -> None:
        tx.release(sent.envelope_id)
        if sent.seals > 1:
            for id in tx.envelopes_of(sent.uid):
                tx.release(id)
        self._resealing.pop(sent.uid, None)

    # --- what others say

    def receipt(
        self, tx: MeshStore, receipt: Receipt, author: PeerKey, via: PeerKey, now: Now, out: list[Effect]
    ) -> None:
        """Apply a verified receipt; ids that are not messages of ours to that very author are ignored and counted."""
        carrier = DIRECT if via == author else BUNDLE if via == BY_HAND else via.hex()
        for id in receipt.ids:
            sent = tx.sent_of(id)
            if sent is None or sent.to != author:
                tx.count("receipts_ignored")
            elif receipt.status is Status.DELIVERED:
                self.become(tx, sent, State.DELIVERED, "", carrier, now, out)
            elif receipt.status is Status.DELIVERED_VOLATILE:
                self.become(tx, sent, State.DELIVERED, "volatile", carrier, now, out)
            elif receipt.status is Status.REFUSED:
                self.become(tx, sent, State.FAILED, "refused", carrier, now, out)
            elif id == sent.envelope_id and sent.state in OPEN_STATES:
                self._unopenable(tx, sent, carrier, now, out)

    def _unopenable(self, tx: MeshStore, sent: Sent, carrier: str, now: Now, out: list[Effect]) -> None:
        self._report(tx, sent, "unopenable", carrier, now)
        if sent.seals >= SEALS_MAX and sent.uid not in self._resealing:
            self.become(tx, sent, State.FAILED, "unopenable", carrier, now, out)

    def result(
        self,
        tx: MeshStore,
        result: Result,
        held: Held,
        peer: PeerKey,
        now: Now,
        out: list[Effect],
        *,
        server: bool = False,
    ) -> Sent | None:
        """Apply a neighbour's answer about one of our own envelopes; return the message if it must be sealed again.

        ``server``: the neighbour is our home server; what it refuses for good it won't be asked again.
        """
        sent = tx.sent_of(held.id)
        if sent is None or sent.state not in OPEN_STATES:
            return None
        at_recipient = peer == sent.to
        carrier = DIRECT if at_recipient else peer.hex()
        if result.verdict in (Verdict.STORED, Verdict.DUPLICATE):
            if not at_recipient:
                self.become(tx, sent, State.RELAYED, "", carrier, now, out)
            return None
        self._report(tx, sent, _word(result.verdict, result.reason), carrier, now)
        if result.verdict is Verdict.REFUSED and at_recipient and result.reason in DEFINITIVE:
            self.become(tx, sent, State.FAILED, result.reason.name.lower(), carrier, now, out)
        if result.verdict is Verdict.REFUSED and result.reason is Reason.CLOCK and sent.seals < SEALS_MAX:
            self.claim_time = False
            return sent
        if result.verdict is Verdict.REFUSED and server and sent.state is State.QUEUED:
            self._explain(tx, sent, f"{_word(result.verdict, result.reason)}:{carrier}", out)
        return None

    def copied(self, tx: MeshStore, id: EnvelopeId, now: Now) -> None:
        """The owner has a copy in a file: it is on no other node yet, so the state stays what it is."""
        sent = tx.sent_of(id)
        if sent is not None and sent.state in OPEN_STATES:
            self._report(tx, sent, "copied", BUNDLE, now)

    def reported(self, tx: MeshStore, report: Report, now: Now, out: list[Effect]) -> None:
        """Our home server says what another domain's server made of an envelope.

        Of ours only, and never more than a word: delivered is what the recipient signs for. The first server that has
        a copy makes the message relayed; a refusal farther on doesn't take that back, but is given as the reason.
        """
        sent, domain = tx.sent_of(report.id), domain_name(report.domain)
        if sent is None or not domain or domain in NO_DOMAINS:
            tx.count("reports_ignored")
            return
        if _reports(tx.trace(sent.uid)) >= REPORTS_MAX:
            return
        current = sent.state in OPEN_STATES and sent.envelope_id == report.id
        if report.verdict in (Verdict.STORED, Verdict.DUPLICATE):
            if self.become(tx, sent, State.RELAYED, "", domain, now, out):
                return
            self._report(tx, sent, STORED, domain, now)
            if current and sent.reason.startswith(f"{REFUSED}:"):
                self._explain(tx, sent, "", out)
            return
        word = _word(report.verdict, report.reason)
        self._report(tx, sent, word, domain, now)
        if current and report.verdict is Verdict.REFUSED:
            self._explain(tx, sent, f"{word}:{domain}", out)

    def _explain(self, tx: MeshStore, sent: Sent, reason: str, out: list[Effect]) -> None:
        """Say why a message is still in the state that it is in."""
        if reason != sent.reason:
            tx.set_state(sent.uid, sent.state, reason)
            out.append(StateChanged(sent.uid, sent.to, sent.state, reason))

    def _report(self, tx: MeshStore, sent: Sent, word: str, carrier: str, now: Now) -> None:
        """Note in the trace what somebody said of a message; the first time only, since the same is said many times."""
        trace = tx.trace(sent.uid)
        if len(trace) >= TRACE_MAX - STATES_MAX or any((e.state, e.carrier) == (word, carrier) for e in trace):
            return
        tx.add_trace(sent.uid, TraceEvent(now.wall, word, carrier))

    # --- our own decisions

    def expire(self, tx: MeshStore, held: Held, now: Now, out: list[Effect]) -> None:
        """An envelope's time is over; its message, if this was the current sealing, is expired: nobody confirmed it."""
        tx.count("expired")
        sent = tx.sent_of(held.id) if held.own else None
        if (
            sent is None
            or sent.envelope_id != held.id
            or not self.become(tx, sent, State.EXPIRED, "nobody confirmed", "", now, out)
        ):
            tx.release(held.id)

    def withdraw(self, tx: MeshStore, uid: Uid, now: Now, out: list[Effect]) -> None:
        """The owner does not want it sent any more; copies that left already may still arrive."""
        sent = tx.sent(uid)
        if sent is not None:
            self.become(tx, sent, State.CANCELLED, "", "", now, out)

    def seal_again(self, tx: MeshStore, sent: Sent, prekey: Prekey | None, now: Now, out: list[Effect]) -> None:
        """Ask the edge to seal a message again; until it answers, the old sealing stays here."""
        weaker = prekey is None and (sent.require_fs or sent.protection is Protection.PREKEY)
        if sent.uid in self._resealing or weaker:
            return
        body = b""
        if sent.type == TYPE_KEY:
            key = recalled(tx, sent.text)
            if key is None:
                self.become(tx, sent, State.CANCELLED, "the channel was left", HERE, now, out)
                return
            body = key.encode()
        self._resealing[sent.uid] = sent.envelope_id
        age = max(0, sent.ttl_s * 1_000 - max(1, sent.expires_at - now.at))
        again = Reseal(sent.uid, sent.to, sent.text, sent.ttl_s, age, prekey, self.claim_time, sent.type, body)
        out.append(again)

    def upgrade(self, tx: MeshStore, peer: PeerKey, prekey: Prekey, now: Now, out: list[Effect]) -> None:
        """A prekey of the peer is known now: what waits sealed to the identity key is sealed to it instead."""
        if peer in self._upgrading:
            return
        asked = set()
        for sent in tx.queued_with(peer, Protection.IDENTITY, UPGRADE_BATCH):
            self.seal_again(tx, sent, prekey, now, out)
            asked.add(sent.uid)
        if asked:
            self._upgrading[peer] = (prekey, asked)

    def upgrading(self, peer: PeerKey) -> bool:
        """Say whether messages to a peer are being sealed better; until that is done none may leave."""
        return peer in self._upgrading

    def upgrade_on(self, tx: MeshStore, peer: PeerKey, now: Now, out: list[Effect]) -> bool:
        """Go on with the next batch once the last is answered; False when there is nothing left to do."""
        prekey, asked = self._upgrading.get(peer, (None, set()))
        if any(uid in self._resealing for uid in asked):
            return True
        self.give_up(peer)
        if prekey is not None:
            self.upgrade(tx, peer, prekey, now, out)
        return peer in self._upgrading

    def give_up(self, peer: PeerKey) -> None:
        """Leave what is not sealed better yet as it is: it could not be."""
        self._upgrading.pop(peer, None)

    def seal_answered(self, uid: Uid) -> None:
        """The edge has sealed again, or could not."""
        self._resealing.pop(uid, None)


def _word(verdict: Verdict, reason: Reason) -> str:
    return f"{REFUSED if verdict is Verdict.REFUSED else 'deferred'}:{reason.name.lower()}"


def _reports(trace: Sequence[TraceEvent]) -> int:
    """Return how many rows are what a home server said of other domains."""
    return sum(1 for event in trace if domain_name(event.carrier) and event.carrier not in NO_DOMAINS)


def _with_cursor(line: Line, cursor: int) -> Line:
    return Line(line.kind, line.peer, line.uid, line.at, state=line.state, reason=line.reason, cursor=cursor)
