"""What a federated home server remembers beside its users: the outbox for other domains, and what those answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from quicprochat.core.following import FollowStore
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.store import Held, Usage
from quicprochat.core.time import Instant


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A row of the outbox: which domain an envelope of the store is for. The envelope itself is ``held``.

    ``user`` is who brought it. ``due_at`` is when it may be offered, None once the destination refused it for good;
    ``verdict`` and ``reason`` are the destination's last answer, None before the first. ``serial`` is the order of
    arrival (0 before storing).
    """

    id: EnvelopeId
    origin: str
    destination: str
    user: PeerKey
    kind: int
    size: int
    expires_at: Instant
    due_at: Instant | None
    tries: int = 0
    verdict: int | None = None
    reason: int = 0
    serial: int = 0

    @property
    def set_aside(self) -> bool:
        """True when it is offered again only if a person or its author asks for that."""
        return self.due_at is None


@dataclass(frozen=True, slots=True)
class Parcel:
    """A row of the outbox and its envelope."""

    row: Outgoing
    held: Held


@dataclass(frozen=True, slots=True)
class Report:
    """What a domain answered to an envelope, for its author's device."""

    author: PeerKey
    id: EnvelopeId
    domain: str
    verdict: int
    reason: int
    made_at: Instant
    serial: int = 0


class FederationStore(FollowStore, Protocol):
    """Same rules as for ``MeshStore``: writing inside a transaction only. ``release`` drops the outbox row as well."""

    def put_outgoing(self, row: Outgoing) -> Outgoing:
        """Keep a row, and return it with its serial; one that is there under this id becomes due at the new row's time
        instead, set aside or not, and has its serial if that is in memory."""
        ...

    def outgoing(self, id: EnvelopeId) -> Outgoing | None:
        """Return the row of an envelope."""
        ...

    def due_outgoing(
        self, destination: str, now: Instant, limit: int, after: tuple[int, int] = (-1, 0)
    ) -> Sequence[Outgoing]:
        """Return rows for a domain that may be offered, those that are due longest first; ``after`` is when the last
        one that was returned before was due, and its serial."""
        ...

    def next_due(self, destination: str) -> Instant | None:
        """Return when something for a domain may be offered, None when nothing waits for that."""
        ...

    def answer_outgoing(
        self, id: EnvelopeId, due_at: Instant | None, tries: int, verdict: int | None, reason: int
    ) -> None:
        """Note what became of an offer, and when the next may be made (None: set aside)."""
        ...

    def wake_outgoing(self, destination: str, now: Instant, *, set_aside: bool) -> int:
        """Let everything for a domain be due at once, also what was set aside if asked to; return how many rows."""
        ...

    def drop_outgoing(self, id: EnvelopeId) -> None:
        """Forget a row; its envelope stays."""
        ...

    def expired_outgoing(self, now: Instant, limit: int) -> Sequence[EnvelopeId]:
        """Return ids of rows whose time is over."""
        ...

    def outgoing_rows(self, destination: str, after: int, limit: int) -> Sequence[Outgoing]:
        """Return a domain's rows with a serial above ``after``, in order of arrival."""
        ...

    def outgoing_usage(self, destination: str, user: PeerKey | None = None) -> Usage:
        """Return what waits for a domain, receipts apart: all of it, or one user's; cheap."""
        ...

    def outgoing_domains(self) -> Mapping[str, int]:
        """Return the domains that something waits for, and how many rows each has; cheap."""
        ...

    def outgoing_set_aside(self, destination: str) -> int:
        """Return how many rows of a domain are set aside."""
        ...

    def held_many(self, ids: Sequence[EnvelopeId]) -> Mapping[EnvelopeId, Held]:
        """Return those of these envelopes that are held."""
        ...

    def forget_ids(self, ids: Sequence[EnvelopeId]) -> None:
        """Forget that envelopes were seen: they may come in again."""
        ...

    def put_correspondent(self, author: PeerKey, domain: str, expires_at: Instant, limit: int) -> None:
        """Note from which domain an author's mail came; beyond ``limit`` authors the one that ends first goes."""
        ...

    def correspondent(self, author: PeerKey, now: Instant) -> str:
        """Return from which domain an author's mail came, empty where that is not known (any more)."""
        ...

    def drop_correspondents(self, now: Instant, limit: int) -> int:
        """Forget authors whose time is over; return how many."""
        ...

    def put_reports(self, reports: Sequence[Report], per_author: int, limit: int) -> None:
        """Keep reports; beyond ``per_author`` the author's oldest go, beyond ``limit`` the oldest of all."""
        ...

    def reports(self, author: PeerKey, after: int, limit: int) -> Sequence[Report]:
        """Return reports for an author behind a serial, oldest first."""
        ...

    def drop_reports(self, author: PeerKey, up_to: int) -> None:
        """Forget an author's reports up to a serial."""
        ...

    def drop_old_reports(self, made_before: Instant, limit: int) -> int:
        """Forget reports made before a moment; return how many."""
        ...

    def report_count(self) -> int:
        """Return how many reports wait; cheap."""
        ...
