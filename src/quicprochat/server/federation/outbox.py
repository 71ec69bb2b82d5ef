"""The outbox: which envelope is for which domain, within what bounds, and what follows from a domain's answer.

An envelope for another domain rests in the same store as any other, under the same gate; a row beside it says where it
goes. Everything here runs inside a transaction of the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from quicprochat.core.envelope import HEADER_BYTES, Kind, MeshEnvelope
from quicprochat.core.federation import FederationStore, Outgoing, Parcel, Report
from quicprochat.core.gate import Reason, Verdict
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.store import Held
from quicprochat.core.time import Instant
from quicprochat.server.federation.routing import Destination, resolve_destination
from quicprochat.server.federation.rules import (
    CORRESPONDENT_MS,
    CORRESPONDENTS_MAX,
    POISON_TRIES,
    PUT_OFF_FIRST_MS,
    PUT_OFF_LAST_MS,
    REPORT_MS,
    REPORTS_MAX,
    REPORTS_PER_AUTHOR,
    UNKNOWN_FIRST_MS,
    UNKNOWN_LAST_MS,
    FederationRules,
)
from quicprochat.server.queue import Outcome

MOVED_MAX = 4_096
"""More are not remembered; of the oldest, answers have long come."""
RENEW_MS = CORRESPONDENT_MS // 15
"""Where an author's mail came from is written again only when it is so old, or has changed."""


class Outbox:
    """``local`` says who is a user here, ``home`` which domain a key's own record names, ``is_peer`` which domains
    the operator has listed."""

    def __init__(
        self,
        store: FederationStore,
        domain: str,
        rules: Callable[[], FederationRules],
        is_peer: Callable[[str], bool],
        local: Callable[[PeerKey], bool],
        home: Callable[[PeerKey], str],
        now: Callable[[], Instant],
    ) -> None:
        self.domain = domain
        self._store = store
        self._rules = rules
        self._now = now
        self._home = home
        self.is_peer = is_peer
        self.local = local
        self._noted: dict[PeerKey, tuple[str, Instant]] = {}  # what was written of correspondents in this run
        self._moved: dict[EnvelopeId, str] = {}
        """Where envelopes go that were for another domain before, whose answer may still be on its way."""

    # --- what routing asks (routing.View)

    def came_from(self, key: PeerKey) -> str:
        return self._store.correspondent(key, self._now())

    def published(self, key: PeerKey) -> str:
        return self._home(key)

    def resolve(self, recipient: PeerKey, hint: str) -> Destination:
        """Say where an envelope goes."""
        return resolve_destination(recipient, hint, self)

    def next_due(self, domain: str) -> Instant | None:
        """Return when something for a domain may be offered."""
        return self._store.next_due(domain)

    # --- in

    def full(self, user: PeerKey, domain: str, envelope: MeshEnvelope) -> bool:
        """Say whether a domain's outbox, or this user's part of it, has no room for one more.

        Receipts have a quota of their own, in the gate.
        """
        if envelope.kind == Kind.RECEIPT:
            return False
        rules, size = self._rules(), HEADER_BYTES + len(envelope.payload)
        everybody, mine = self._store.outgoing_usage(domain), self._store.outgoing_usage(domain, user)
        return (
            everybody.count >= rules.outbox_messages
            or everybody.bytes + size > rules.outbox_bytes
            or mine.count >= rules.user_messages
            or mine.bytes + size > rules.user_bytes
        )

    def row(self, id: EnvelopeId) -> Outgoing | None:
        """Return the row of an envelope that may come again; asked before it is let in, for :meth:`put`."""
        return self._store.outgoing(id)

    def put(self, held: Held, user: PeerKey, domain: str, known: Outgoing | None, now: Instant) -> Parcel | None:
        """Say which domain an envelope of the store is for; return what is to be sent now.

        ``known`` was its row before it was let in: of two copies the gate keeps the better one, and what was known of
        the other goes with it. One that was set aside is offered again: its author wants that.
        """
        fresh = Outgoing(held.id, self.domain, domain, user, held.kind, len(held.wire), held.expires_at, now)
        # Another domain than before: its recipient has moved, or somebody else brought it first with a wrong hint.
        moved = known is not None and known.destination != domain and user in (known.user, held.src)
        if known is None or moved:
            if moved:
                self._store.drop_outgoing(held.id)
                self._note_move(held.id, domain)
            return Parcel(self._store.put_outgoing(fresh), held)
        kept = replace(known, size=fresh.size, expires_at=fresh.expires_at)
        self._store.drop_outgoing(held.id)
        if not known.set_aside:
            self._store.put_outgoing(kept)
            return None
        return Parcel(self._store.put_outgoing(replace(kept, due_at=fresh.due_at)), held)

    def _note_move(self, id: EnvelopeId, domain: str) -> None:
        if len(self._moved) >= MOVED_MAX:
            del self._moved[next(iter(self._moved))]
        self._moved[id] = domain

    def arrived(self, author: PeerKey, domain: str, now: Instant) -> None:
        """Note that a domain brought an author's mail: answers go there."""
        noted = self._noted.get(author)
        if noted is not None and noted[0] == domain and now < noted[1]:
            return
        if len(self._noted) >= CORRESPONDENTS_MAX:
            self._noted.clear()
        self._noted[author] = domain, Instant(now + RENEW_MS)
        expires = Instant(now + CORRESPONDENT_MS)
        self._store.put_correspondent(author, domain, expires, CORRESPONDENTS_MAX)

    # --- out

    def due(self, domain: str, limit: int, after: tuple[int, int]) -> tuple[list[Parcel], list[EnvelopeId]]:
        """Return what may be offered now, and ids of rows whose envelope is not there any more, or too old.

        ``after``: see ``FederationStore.due_outgoing``.
        """
        now = self._now()
        found: list[Parcel] = []
        orphans: list[EnvelopeId] = []
        rows = self._store.due_outgoing(domain, now, limit, after)
        envelopes = self._store.held_many([row.id for row in rows]) if rows else {}
        for row in rows:
            held = envelopes.get(row.id)
            if held is None or held.expires_at <= now:
                orphans.append(row.id)
            else:
                found.append(Parcel(row, held))
        return found, orphans

    def drop(self, ids: Sequence[EnvelopeId]) -> None:
        """Forget rows without an envelope, and envelopes whose time is over."""
        for id in ids:
            held = self._store.held(id)
            if held is None:
                self._store.drop_outgoing(id)
            elif held.expires_at <= self._now():
                self._store.release(id)
                self._store.count("expired")

    def answered(self, parcels: Sequence[Parcel], outcomes: Sequence[Outcome]) -> set[PeerKey]:
        """Follow a domain's answers; return the authors for whom there is something to tell."""
        now = self._now()
        answers = [
            (parcel, outcome)
            for parcel, outcome in zip(parcels, outcomes, strict=True)
            if self._moved.get(parcel.row.id, parcel.row.destination) == parcel.row.destination
        ]
        there = [parcel.row.id for parcel, outcome in answers if outcome.verdict in (Verdict.STORED, Verdict.DUPLICATE)]
        self._store.release_many(there)
        # The other server remembers them now. Should that server forget (an old backup), their authors offer them
        # again, and they must not be taken for duplicates here.
        self._store.forget_ids(there)
        # Meanwhile a receipt may have come for it, or its time may be over: then only the report is news.
        reports = [
            Report(parcel.held.src, parcel.held.id, parcel.row.destination, outcome.verdict, outcome.reason, now)
            for parcel, outcome in answers
            if self._answer(parcel, outcome, now) and self._is_told(parcel.held)
        ]
        if reports:
            self._store.put_reports(reports, REPORTS_PER_AUTHOR, REPORTS_MAX)
        return {report.author for report in reports}

    def failed_alone(self, parcel: Parcel, *, poison: bool) -> set[PeerKey]:
        """One envelope, alone in its call, got no answer; let others go first. ``poison``: the fault is its own."""
        row = parcel.row
        if poison and row.tries + 1 >= POISON_TRIES:
            return self.answered([parcel], [Outcome(Verdict.REFUSED, Reason.UNSUPPORTED)])
        # The answer before is kept: this was none. Failures of the path alone never set anything aside.
        due = Instant(self._now() + PUT_OFF_FIRST_MS)
        self._store.answer_outgoing(row.id, due, row.tries + poison, row.verdict, row.reason)
        return set()

    def _answer(self, parcel: Parcel, outcome: Outcome, now: Instant) -> bool:
        """Write down an answer that leaves the envelope here; return whether any answer is news."""
        row, store = parcel.row, self._store
        match outcome.verdict:
            case Verdict.STORED | Verdict.DUPLICATE:
                return True
            case Verdict.REFUSED:
                store.answer_outgoing(row.id, None, row.tries + 1, outcome.verdict, outcome.reason)
            case Verdict.DEFERRED:
                due = Instant(now + _pause_ms(outcome.reason, row.tries))
                store.answer_outgoing(row.id, due, row.tries + 1, outcome.verdict, outcome.reason)
        return (row.verdict, row.reason) != (outcome.verdict, outcome.reason)

    def _is_told(self, held: Held) -> bool:
        """Say whether an envelope's author hears of answers."""
        return held.kind != Kind.RECEIPT and self.local(held.src)

    # --- upkeep

    def sweep(self, limit: int) -> bool:
        """Forget what is over; return whether there is more."""
        now = self._now()
        ids = self._store.expired_outgoing(now, limit)
        self.drop(ids)
        for id in ids:
            self._store.drop_outgoing(id)
        authors = self._store.drop_correspondents(now, limit)
        reports = self._store.drop_old_reports(Instant(now - REPORT_MS), limit)
        return limit in (len(ids), authors, reports)


def _pause_ms(reason: Reason, tries: int) -> int:
    first, last = (
        (UNKNOWN_FIRST_MS, UNKNOWN_LAST_MS) if reason is Reason.UNKNOWN else (PUT_OFF_FIRST_MS, PUT_OFF_LAST_MS)
    )
    return min(last, first << min(tries, 16))
