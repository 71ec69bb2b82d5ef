"""Carrying, wired to the store and the links: what has no way is offered to whoever is met, and theirs is taken.

``core.carry`` decides; here its answers become frames and envelopes, and what the node does becomes its knowledge.
"""

from __future__ import annotations

from collections.abc import Iterable

from quicprochat.core.carry import Carry, CarryLimits
from quicprochat.core.courier import BATCH, IN_FLIGHT_BYTES
from quicprochat.core.crypto import Entropy
from quicprochat.core.entries import entry_of
from quicprochat.core.envelope import Kind, MeshEnvelope
from quicprochat.core.errors import WireError
from quicprochat.core.events import CloseLink, Effect, FrameArrived, SendEnvelope, SendFrame
from quicprochat.core.gate import Policy
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.link import Goodbye
from quicprochat.core.neighbours import Neighbour, Neighbours
from quicprochat.core.outbox import Outbox
from quicprochat.core.policy import Carry as Whose
from quicprochat.core.receipt import Receipt, Status
from quicprochat.core.shelf import Parcel
from quicprochat.core.store import Fate, Held, MeshStore
from quicprochat.core.time import Instant, Now
from quicprochat.core.window import after_release


class Carrying:
    """One node's pockets."""

    def __init__(self, me: PeerKey, entropy: Entropy, neighbours: Neighbours, outbox: Outbox, policy: Policy) -> None:
        self._neighbours = neighbours
        self._outbox = outbox
        self._whose = policy.carry
        self._tx: MeshStore | None = None
        # The store bounds what is kept, and more exactly: this is above what it allows.
        limits = CarryLimits(2 * policy.limits.carried_bytes)
        self._carry = Carry(me, entropy, limits, self._known)

    def decide(self, policy: Policy) -> None:
        """The owner's decisions changed."""
        self._whose = policy.carry
        self._carry.contacts = frozenset(policy.contacts)

    def start(self, tx: MeshStore, now: Now) -> None:
        """Take up what the store holds: nothing has a way yet."""
        for dst in tx.destinations():
            after = 0
            while found := tx.waiting(dst, after, BATCH):
                for held in found:
                    self.keep(tx, held, now)
                after = found[-1].serial

    def _known(self, id: EnvelopeId) -> bool:
        """Say whether an offered envelope is not wanted: known here, or this node takes nobody's mail."""
        assert self._tx is not None
        if self._whose is Whose.NO:
            # What is for ourselves is handed to us without asking.
            return True
        return self._tx.fate(id) is not None or self._tx.held(id) is not None or self._tx.sent_of(id) is not None

    # --- what the node has

    def keep(self, tx: MeshStore, held: Held, now: Now) -> None:
        """Something is held that has no way: whoever is met may take it."""
        if held.kind == Kind.CHANNEL:
            return
        created_ms = int.from_bytes(held.wire[68:76], "big")
        parcel = Parcel(
            entry_of(created_ms, held.id), held.kind, held.src, held.dst, len(held.wire), PeerKey(held.via),
            held.expires_at, kept=held.own,
        )  # fmt: skip
        for id in self._carry.hold(parcel, now.at):
            tx.release(id)
            tx.remember(id, Fate.PASSED, after_release(now.at))

    def release(self, ids: Iterable[EnvelopeId]) -> None:
        """These are not held any more."""
        for id in ids:
            self._carry.release(id)

    def expects(self, id: EnvelopeId) -> bool:
        """Say whether somebody was asked for an envelope."""
        return self._carry.expects(id)

    def dealt_with(self, envelope: MeshEnvelope, now: Now, *, settled: bool) -> None:
        """Something that was asked for is here and is not kept: delivered, known, or refused.

        ``settled``: its recipient has signed for it, and so its receipt speaks for both.
        """
        expires_at = Instant(now.at + max(0, envelope.ttl_ms - envelope.age_ms))
        entry = entry_of(envelope.created_ms, envelope.id)
        self._carry.seen(entry, envelope.id, expires_at, now.at, settled=settled)

    def put_off(self, id: EnvelopeId, now: Now) -> None:
        """Something that was asked for is here, and there is no room for it now."""
        self._carry.unwelcome(id, now.at)

    def cured(self, envelope: MeshEnvelope, receipt: Receipt, via: PeerKey, now: Now) -> None:
        """A receipt came by: what it names needs carrying no more, nor what it names that comes later."""
        if receipt.status is Status.DELIVERED:
            until = Instant(now.at + max(0, envelope.ttl_ms - envelope.age_ms))
            self._carry.cured(receipt.ids, envelope.src, via, until)

    def is_cured(self, envelope: MeshEnvelope) -> bool:
        """Say whether the recipient of an envelope has confirmed it before it came."""
        return envelope.kind != Kind.RECEIPT and self._carry.is_cured(envelope.id, envelope.dst)

    # --- links

    def link_up(self, peer: PeerKey, now: Now) -> None:
        """A neighbour is met."""
        self._carry.link_up(peer, now.at)

    def link_down(self, peer: PeerKey, now: Now) -> None:
        """A neighbour is gone."""
        self._carry.link_down(peer, now.at)

    def heard(self, event: FrameArrived, from_: Neighbour, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        """A frame of carrying came."""
        self._tx = tx
        try:
            self._carry.received(from_.peer, event.kind, event.body, now.at)
        except WireError as error:
            out.append(CloseLink(event.link, Goodbye.PROTOCOL, str(error)))

    def deadline(self) -> Instant | None:
        """Return when :meth:`flush` has something to do."""
        return self._carry.deadline()

    def flush(self, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        """Say what is to be said, and hand over what is wanted, as far as the windows go."""
        self._tx = tx
        at = self._carry.deadline()
        if at is not None and now.at >= at:
            self._carry.tick(now.at)
        for say in self._carry.poll(now.at):
            neighbour = self._neighbours.find(say.peer)
            if neighbour is not None:  # it may have gone in this very step
                out.append(SendFrame(neighbour.lane.link, say.kind, say.body))
        for neighbour in self._neighbours:
            while neighbour.lane.room() and self._hand(neighbour, tx, now, out):
                pass

    def _hand(self, to: Neighbour, tx: MeshStore, now: Now, out: list[Effect]) -> bool:
        """Hand over some of what a neighbour wants; say whether there may be more."""
        ids = self._carry.take(to.peer, IN_FLIGHT_BYTES - to.lane.flying_bytes, now.at)
        for id in ids:
            held = tx.held(id)
            if held is None:
                self._carry.release(id)
            elif held.dst == to.peer or self._outbox.withheld(id) or id in to.lane.flying:
                continue  # what is for the neighbour itself, its lane hands over
            elif held.kind == Kind.RECEIPT:
                out.append(SendEnvelope(to.lane.link, held.to_send(now.at)))
            else:
                to.lane.launch(held, now.at, out)
        return bool(ids)
