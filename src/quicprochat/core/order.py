"""Order in the house: how many posts are taken of whom, how far newcomers' posts go, and whose emergencies count.

One node's rules for posts in one place: buckets (``rates.py``), since when authors are known (``newcomers.py``), and
what its owner decided: who is a contact, who is blocked, who is trusted with emergencies.
"""

from __future__ import annotations

from collections.abc import Iterable

from quicprochat.core.envelope import MeshEnvelope
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.newcomers import Later, Recent, goes_on_at, heard, known_from
from quicprochat.core.policy import Policy
from quicprochat.core.rates import Arrival, Rates, Toll
from quicprochat.core.store import Held, MeshStore
from quicprochat.core.time import Instant
from quicprochat.core.window import is_urgent


class Order:
    """What a node's owner wants of the posts that come."""

    def __init__(self, policy: Policy) -> None:
        self.decide(policy)
        self._rates = Rates()
        self._authors = Recent()
        self._held_back = Later()

    def decide(self, policy: Policy) -> None:
        """The owner's contacts, block list or trust are these now."""
        self.policy = policy
        self._urgent_of = policy.trusted | {policy.me}

    # --- what comes

    def arrival(self, tx: MeshStore, envelope: MeshEnvelope, via: PeerKey, now: Instant) -> Arrival:
        """Say what the buckets must know of a post that comes."""
        src = envelope.src
        emergency = envelope.emergency and src in self.policy.trusted
        known = known_from(self._authors.of(tx), src, self.policy, now) <= now
        return Arrival(src, envelope.dst, via, len(envelope.payload), known, emergency)

    def judge(self, arrival: Arrival, now: Instant) -> Toll:
        """Say what a post may be taken for now; if it is, it pays."""
        return self._rates.judge(arrival, self.policy.limits.posts, now)

    def took(self, tx: MeshStore, author: PeerKey, via: PeerKey, now: Instant) -> None:
        """A post or a record was taken: who signed it is known an hour after the first."""
        heard(self._authors.of(tx), author, via, now)

    # --- what goes on

    def is_urgent(self, held: Held) -> bool:
        """Say whether a post that is kept goes first, and has room that is reserved; our own emergencies do."""
        return is_urgent(held, self._urgent_of)

    def goes_on(self, tx: MeshStore, held: Held, now: Instant) -> bool:
        """Say whether a post may be handed on already; what may not is held back, and :meth:`due` once it may."""
        at = goes_on_at(self._authors.of(tx), held, self.policy, now)
        if at > now:
            self._held_back.add(held.id, at)
        return at <= now

    def holds_back(self, id: EnvelopeId) -> bool:
        """Say whether a post is held back."""
        return id in self._held_back

    def gone(self, ids: Iterable[EnvelopeId]) -> None:
        """These posts are not kept any more."""
        for id in ids:
            self._held_back.drop(id)

    def due(self, now: Instant) -> list[EnvelopeId]:
        """Take the posts that were held back until now."""
        return self._held_back.due(now)

    def all_held_back(self) -> list[EnvelopeId]:
        """Take all that is held back, because who is known has changed."""
        return self._held_back.everything()

    def deadline(self) -> Instant | None:
        """Return when :meth:`due` has something."""
        return self._held_back.deadline()
