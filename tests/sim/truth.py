"""What must be true of a world at any moment, and what besides once everything is healed and quiet."""

from __future__ import annotations

from collections import Counter

from quicprochat.core.envelope import Kind, MeshEnvelope
from quicprochat.core.events import Accepted, Journaled, StateChanged
from quicprochat.core.gate import Reason
from quicprochat.core.ids import EnvelopeId, PeerKey, Uid
from quicprochat.core.link import FOR_NODE, FrameType
from quicprochat.core.receipt import OPEN_STATES, Receipt, State, Status
from quicprochat.core.store import LineKind, Scope, Sent
from quicprochat.sim.peer import Peer
from quicprochat.sim.world import Link, World


def talk(world: World) -> int:
    """Return how many frames were sent so far; those of routing and carrying apart, which look after themselves."""
    return world.frames.total() - sum(world.frames[kind] for kind in FOR_NODE)


class Witness:
    """Listens on every link, and so knows who acknowledged what."""

    def __init__(self, world: World, *, liars: frozenset[PeerKey] = frozenset()) -> None:
        self.world = world
        self.liars = liars
        self.acknowledged: set[tuple[PeerKey, EnvelopeId]] = set()
        self.envelopes: list[bytes] = []
        world.tap = self._hear

    def _hear(self, link: Link, kind: FrameType, body: bytes) -> None:
        if kind is not FrameType.ENVELOPE or link.peer.key in self.liars:
            return
        self.envelopes.append(body)
        envelope = MeshEnvelope.decode(body)
        if envelope.kind == Kind.RECEIPT and envelope.src == link.peer.key:
            receipt = Receipt.decode(envelope.payload)
            if receipt.status in (Status.DELIVERED, Status.DELIVERED_VOLATILE):
                self.acknowledged.update((link.peer.key, id) for id in receipt.ids)

    def check(self) -> None:
        """Check what holds at every moment; waits for a commit that is under way."""
        while any(peer.busy for peer in self.world.peers):
            self.world.run(1)
        inboxes = {peer.key: Counter((line.peer, line.uid) for line in peer.inbox()) for peer in self.world.peers}
        for peer in self.world.peers:
            told = [(effect.uid, effect.reason) for effect in peer.told if isinstance(effect, Accepted)]
            accepted = {uid for uid, reason in told if reason is Reason.NONE}
            for uid in peer.written:
                self._check_message(peer, uid, uid in accepted, inboxes)
            self._check_told(peer)
        for key, id in sorted(self.acknowledged):
            author, sent = self._author(id)
            assert inboxes[key][author.key, sent.uid] == 1, f"{id.hex()[:8]} was acknowledged and is not in the inbox"

    def _author(self, id: EnvelopeId) -> tuple[Peer, Sent]:
        for peer in self.world.peers:
            sent = peer.store.sent_of(id)
            if sent is not None:
                return peer, sent
        raise AssertionError(f"{id.hex()[:8]} was acknowledged and nobody sent it")

    def _check_message(
        self, peer: Peer, uid: Uid, accepted: bool, inboxes: dict[PeerKey, Counter[tuple[PeerKey, Uid]]]
    ) -> None:
        sent = peer.store.sent(uid)
        copies = sum(inbox[peer.key, uid] for inbox in inboxes.values())
        if sent is None:
            assert not accepted, f"{peer.name} was told that a message is safe, and it is gone"
            assert not copies, "a message left before it was safe"
            return
        assert copies <= 1, f"{peer.name}'s message is in an inbox {copies} times"
        assert copies == inboxes[sent.to][peer.key, uid], "a message is in the wrong inbox"
        states = [event.state for event in peer.store.trace(uid) if event.state in {s.value for s in State}]
        assert (states or ["queued"])[-1] == sent.state.value, "state and trace differ"
        assert "delivered" not in states[:-1], "a proof was taken back"
        if sent.state is State.DELIVERED:
            assert copies == 1, "said to be delivered, and is not"
        if sent.state in OPEN_STATES:
            assert peer.store.held(sent.envelope_id) is not None, "an open message is not kept"

    def _check_told(self, peer: Peer) -> None:
        for effect in peer.told:
            match effect:
                case Journaled(line):
                    kept = peer.store.journal(after=line.cursor - 1, limit=1)
                    assert [(one.cursor, one.uid, one.state) for one in kept] == [(line.cursor, line.uid, line.state)]
                case StateChanged(uid, _, State.DELIVERED, _):
                    assert peer.store.sent(uid).state is State.DELIVERED  # type: ignore[union-attr]

    def check_at_rest(self) -> None:
        """Check besides that every message came to its end, and that nothing is left lying about."""
        self.check()
        for peer in self.world.peers:
            for uid in peer.written:
                sent = peer.store.sent(uid)
                assert sent is None or sent.state not in OPEN_STATES, f"{peer.name}: {sent.state} at the end"
            assert peer.store.usage(Scope.OWN).count == 0, "something is left in the outbox"
            lines = peer.store.journal(after=0, limit=1 << 30)
            receipts = [line.uid for line in lines if line.kind is LineKind.RECEIPT and line.state == "delivered"]
            assert len(receipts) == len(set(receipts)), "delivered was told twice"


def everything_arrived(peer: Peer, to: Peer) -> None:
    """Check that each message from one to another is in the inbox, and known to be."""
    got = {line.uid: line.text for line in to.inbox() if line.peer == peer.key}
    for uid in peer.written:
        sent = peer.store.sent(uid)
        if sent is not None and sent.to == to.key:
            assert got.get(uid) == sent.text, f"a message of {peer.name} is not in {to.name}'s inbox"
            assert sent.state is State.DELIVERED, f"{peer.name}: {sent.state} for a message that arrived"
