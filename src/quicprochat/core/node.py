"""The node: everything a peer does, as one pure step. Events in, one transaction, effects out.

``step`` writes into the transaction it is given and returns what must be done once that is durable: acknowledgements,
receipts and news never run ahead of the disk; others' mail on its way through may (``events.leaves_early``). Plaintext
enters opened by the gate and leaves as a request to seal; carried envelopes pass through unread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import assert_never

from quicprochat.core.answers import Answers
from quicprochat.core.bundle import BY_HAND
from quicprochat.core.card import OwnCard
from quicprochat.core.carrier import CarrierLane, Taken
from quicprochat.core.carrying import Carrying
from quicprochat.core.courier import Lane
from quicprochat.core.crypto import Crypto, Entropy, Signer
from quicprochat.core.envelope import Kind, MeshEnvelope
from quicprochat.core.errors import WireError
from quicprochat.core.events import (
    Accepted,
    BundleArrived,
    BundleTaken,
    CloseLink,
    CopiedByHand,
    Effect,
    EnvelopeArrived,
    EnvelopeRejected,
    Event,
    FrameArrived,
    HomeNamed,
    InterestArrived,
    Journaled,
    Leaving,
    LinkDown,
    LinkId,
    LinkMeasured,
    LinkUp,
    Muted,
    PolicyChanged,
    PostersChanged,
    PostWritten,
    RecordArrived,
    ReportsArrived,
    Resealed,
    ResealFailed,
    ResultsArrived,
    Rotated,
    SelfChanged,
    SendFrame,
    SendRecord,
    Subscribed,
    Tick,
    Unsubscribed,
    Withdrawn,
    Written,
)
from quicprochat.core.forward import Forward, NextHops
from quicprochat.core.gate import Admission, Checked, Reason, Verdict, admit, submit
from quicprochat.core.homes import Homes
from quicprochat.core.ids import ChannelId, EnvelopeId, PeerKey
from quicprochat.core.link import FrameType, Goodbye, Result
from quicprochat.core.members import Members
from quicprochat.core.neighbours import Neighbour, Neighbours
from quicprochat.core.outbox import Outbox
from quicprochat.core.patience import Patience
from quicprochat.core.policy import Carry, Policy
from quicprochat.core.posts import Posts
from quicprochat.core.receipt import OPEN_STATES, Receipt, State, Status
from quicprochat.core.record import PeerRecord
from quicprochat.core.records import Records
from quicprochat.core.route import Routes, RouteView
from quicprochat.core.route_cost import link_cost
from quicprochat.core.route_frames import HASH_BYTES
from quicprochat.core.seal import TYPE_KEY, Protection
from quicprochat.core.store import Fate, Held, MeshStore, Sent, Sighting
from quicprochat.core.time import MINUTE_MS, Instant, Now
from quicprochat.core.uplink import Uplink
from quicprochat.core.window import after_release

SWEEP_MS = MINUTE_MS
SWEEP_BATCH = 512
SEEN_MAX = 500_000
"""Ids of others' mail that are remembered after it was passed on or let go (guess).

Beyond it those are forgotten that came over the neighbour of whom there are most, the longest gone first."""
SEEN_VOLATILE_MAX = 100_000
"""The same for a store that keeps all in memory, where an id takes some 600 bytes."""
PASSED_BATCH = 4_096
"""So many ids are forgotten at once, and looked after at the latest when so many more may have come."""


class Node:
    """One peer's protocol state. Durable things live in the store; what is here is rebuilt by links and time."""

    def __init__(
        self, signer: Signer, crypto: Crypto, entropy: Entropy, policy: Policy, hops: NextHops | None = None
    ) -> None:
        """``hops`` takes the place of routing, for tests that know the world."""
        self._signer = signer
        self._crypto = crypto
        self._entropy = entropy
        self._policy = policy
        self._card = OwnCard(signer, crypto)
        self._wanted = PeerRecord(signer.key, 0, 0)
        self._outbox = Outbox()
        self._homes = Homes()
        self._uplink = Uplink(signer.key)
        self._neighbours = Neighbours()
        self._routes = Routes(signer, crypto)
        self._routed = hops is None
        self._posts = Posts(signer, crypto, entropy, self._routes if self._routed else None, policy)
        self._posts.wrote = self._uplink.news
        self._members = Members(signer.key, self._posts)
        self._forward = Forward(hops or self._routes, self._neighbours, self._outbox)
        self._carrying = Carrying(signer.key, entropy, self._neighbours, self._outbox, policy)
        self._servers: dict[PeerKey, Taken] = {}
        self._records = Records(crypto, self._homes)
        self._patience = Patience()
        self._sweep_at = Instant(0)
        self._unswept = 0
        self._next_expiry: Instant | None = None
        # Gathered during one step, done at its end.
        self._to_upgrade: set[PeerKey] = set()
        self._answers = Answers(signer, entropy, self._neighbours, self._forward)

    @property
    def record(self) -> PeerRecord:
        """Our own newest record; ``signed`` is empty before the first SelfChanged."""
        return self._card.record

    @property
    def record_made_at(self) -> Instant:
        """When :attr:`record` was signed."""
        return self._card.made_at

    @property
    def claim_time(self) -> bool:
        """Whether our wall clock may be mentioned in messages; False once it was proved wrong."""
        return self._outbox.claim_time

    def routes(self, now: Now) -> list[RouteView]:
        """Return the routes there are."""
        return self._routes.table(now.at)

    def unreadable(self, channel: ChannelId) -> tuple[EnvelopeId, ...]:
        """Return posts of a channel that came and for which we have no key; some may have left the window since."""
        return self._posts.unreadable(channel)

    def routes_held(self, peer: PeerKey) -> bytes:
        """Return what a hello says to a peer of its routes that we still know."""
        return self._routes.held(peer)

    def start(self, tx: MeshStore, now: Now) -> tuple[Effect, ...]:
        """Take up what the store remembers; to be called once, inside a transaction, before the first step."""
        out: list[Effect] = []
        self._card.start(tx, now, out)
        self._posts.start(tx, self._policy, now.at, out)
        self._records.start(tx)
        self._forward.start(tx)
        self._routes.start(tx, now.at)
        self._carrying.start(tx, now)
        self._apply_policy()
        self._sweep_at = now.at
        self._next_expiry = tx.next_expiry()
        return tuple(out)

    def next_deadline(self) -> Instant:
        """Return when a Tick is due at the latest."""
        times = [self._card.deadline(), self._sweep_at]
        maybe = (
            self._next_expiry, self._records.deadline(), self._posts.deadline(), self._uplink.deadline(),
            self._forward.deadline(),
            self._routes.deadline() if self._routed else None, self._carrying.deadline() if self._routed else None,
        )  # fmt: skip
        times += [at for at in maybe if at is not None]
        times += [at for n in self._neighbours if (at := n.lane.deadline()) is not None]
        return min(times)

    def step(self, events: Sequence[Event], tx: MeshStore, now: Now) -> tuple[Effect, ...]:
        """Apply events in order, then do what time and the events made due. Raises: StoreError only."""
        out: list[Effect] = []
        self._forward.look_up_again()
        came = [event.checked for event in events if isinstance(event, EnvelopeArrived)]
        tx.foresee([one.envelope.id for one in came], [uid for one in came if (uid := one.uid) is not None])
        for event in _oldest_first(events):
            self._apply(event, tx, now, out)
            if not isinstance(event, EnvelopeArrived | ResultsArrived):
                self._forward.look_up_again()
        self._upgrade_on(tx, now, out)
        self._timers(tx, now, out)
        if self._answers.flush_receipts(self.record.signed, tx, self._policy, now, out):
            self._carry()
        self._follow_moved()
        self._tell_routes(tx, now, out)
        self._hand_over(tx, now, out)
        self._answers.flush_results(out)
        self._records.flush(self._neighbours.links, tx, self._policy, now, out)
        self._next_expiry = tx.next_expiry()
        return tuple(out)

    def _tell_routes(self, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        if not self._routed:
            return
        frames = self._routes.due(now.at)
        self._forward.look_up_again()
        self._routes.keep(tx)
        for peer, kind, body in frames:
            if (neighbour := self._neighbours.find(peer)) is not None:
                out.append(SendFrame(neighbour.lane.link, kind, body))

    def _hand_over(self, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        """Fill the lanes: to whom the mail is for, along routes, and what has neither, to servers."""
        if self._forward.gave_up:
            self._forward.gave_up = False
            self._carry_again()
        servers = []
        for neighbour in self._neighbours:
            if isinstance(neighbour.lane, CarrierLane):
                servers.append(neighbour)
            else:
                self._fill(neighbour, tx, now, out)
        self._forward.fill(tx, now, out)
        self._carry_on(tx, now, out)
        for server in servers:
            self._fill(server, tx, now, out)
        self._posts.flush(self._neighbours, tx, now.at, out)

    def _carry_on(self, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        """Offer whoever is met what has no way, and hand over what was asked for."""
        for held in self._forward.left:
            self._carrying.keep(tx, held, now)
        self._carrying.release(self._forward.gone)
        self._forward.left.clear()
        self._forward.gone.clear()
        if self._routed:
            self._carrying.flush(tx, now, out)

    def _fill(self, neighbour: Neighbour, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        server = isinstance(neighbour.lane, CarrierLane)
        if not server:
            self._posts.rush(tx, neighbour.lane, now.at, out)
        if neighbour.lane.backlog and not self._outbox.upgrading(neighbour.peer):
            neighbour.lane.fill(tx, self._outbox, now.at, out)
        if server:
            self._uplink.fill(tx, neighbour.lane, self._posts.joined, now.at, out)
        else:
            self._posts.fill(tx, neighbour.lane, now.at, out)

    def _apply(self, event: Event, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        match event:
            case EnvelopeArrived():
                self._arrived(event, tx, now, out)
            case Written():
                self._written(event, tx, now, out)
            case ResultsArrived():
                self._answered(event, tx, now, out)
            case ReportsArrived():
                self._reported(event, tx, now, out)
            case RecordArrived():
                self._record(event, tx, now, out)
            case HomeNamed():
                self._homes.named(tx, event.key, event.domain, now.at, self._policy.contacts)
            case LinkUp():
                self._link_up(event, tx, now, out)
            case LinkDown():
                self._link_down(event, tx, now)
            case EnvelopeRejected():
                self._rejected(event, tx, now, out)
            case Resealed():
                self._resealed(event, tx, now)
            case ResealFailed():
                self._reseal_failed(event, tx)
            case Withdrawn():
                self._outbox.withdraw(tx, event.uid, now, out)
                self._carrying.release(tx.envelopes_of(event.uid))
            case PolicyChanged():
                self._policy_changed(event, tx, now, out)
            case SelfChanged():
                self._wanted = replace(
                    self._wanted,
                    name=event.name,
                    domain=event.domain,
                    relay=event.relay,
                    addresses=event.addresses,
                )
                self._publish(tx, now, out)
            case InterestArrived():
                neighbour = self._neighbours.at(event.link)
                if neighbour is not None and isinstance(neighbour.lane, CarrierLane):
                    self._uplink.follows(neighbour.peer, event.channels)
                elif neighbour is not None:
                    self._posts.interest(neighbour.peer, event.channels, now.at)
            case PostWritten():
                self._posts.write(event, tx, self._policy, now, out)
            case Subscribed():
                self._members.join(tx, event.channel, self._policy, now, out)
            case Unsubscribed():
                self._posts.leave(tx, event.channel, now, out)
                self._members.left(tx, event.channel)
            case Leaving():
                self._members.leaving(event, tx, self._policy, now, out)
            case Muted():
                self._members.mute(event, tx, out)
            case PostersChanged():
                self._members.posters(event, tx, self._policy, now, out)
            case Rotated():
                self._members.rotated(event, tx, self._policy, now, out)
            case LinkMeasured():
                if (neighbour := self._neighbours.at(event.link)) is not None:
                    self._routes.cost(neighbour.peer, event.rtt_ms, event.loss, now.at, relayed=event.relayed)
            case BundleArrived():
                self._bundle(event, tx, now, out)
            case CopiedByHand():
                for id in event.ids:
                    self._outbox.copied(tx, id, now)
            case FrameArrived():
                self._frame(event, tx, now, out)
            case Tick():
                pass
            case _:
                assert_never(event)

    def _frame(self, event: FrameArrived, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        neighbour = self._neighbours.at(event.link)
        if neighbour is None:
            return
        if event.kind is FrameType.CHANNEL:
            try:
                self._posts.heard(neighbour.peer, event.body, tx, now.at)
            except WireError as error:
                out.append(CloseLink(event.link, Goodbye.PROTOCOL, str(error)))
            return
        if not self._routed:
            return
        if event.kind is not FrameType.ROUTE:
            self._carrying.heard(event, neighbour, tx, now, out)
            return
        if self._routes.received(neighbour.peer, event.body, now.at) is not None:
            # No honest node says such a thing, or passes it on.
            self._rejected(EnvelopeRejected(event.link), tx, now, out)

    # --- links

    def _link_up(self, event: LinkUp, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        if event.peer in self._policy.blocked:
            out.append(CloseLink(event.link, Goodbye.BUSY, "no room"))
            return
        address = None if event.carrier else str(event.address or "")
        neighbour = Neighbour(event.peer, self._lane(event, tx, now), address, now.at)
        old = self._neighbours.add(neighbour)
        if old is not None:
            self._records.link_down(old.lane.link)
            self._forward.link_down(old, tx)
        if event.carrier:
            self._uplink.link_up(event.peer, event.store_epoch)
            return
        self._posts.link_up(event.peer, event.store_epoch, now.at)
        cost = link_cost(event.rtt_ms, relayed=event.relayed)
        self._routes.link_up(event.peer, cost, event.routes, now.at)
        self._carrying.link_up(event.peer, now)
        self._records.link_up(event.link, event.peer, self._neighbours.peers, tx, self._policy, now)
        self._see(neighbour, tx, now)

    def _see(self, neighbour: Neighbour, tx: MeshStore, now: Now) -> None:
        """Note that a peer is there, or was until now: a link's beginning and its end."""
        if neighbour.address is not None:
            tx.see(Sighting(neighbour.peer, now.wall, now.at, neighbour.address), self._policy.contacts)

    def _lane(self, event: LinkUp, tx: MeshStore, now: Now) -> Lane:
        if not event.carrier:
            return Lane(event.link, event.peer, event.window, now.at)
        taken = self._servers.setdefault(event.peer, Taken())
        taken.begin(event.store_epoch, tx)
        return CarrierLane(event.link, event.peer, event.window, now.at, taken, self._has_better_way)

    def _has_better_way(self, held: Held) -> bool:
        """Say whether a server need not be asked to take something."""
        return held.dst in self._neighbours or self._forward.serves(held)

    def _carry_again(self) -> None:
        """Something was passed over, for it had the direct way or was being sealed better."""
        for neighbour in self._neighbours:
            if isinstance(neighbour.lane, CarrierLane):
                neighbour.lane.look_again()

    def _carry(self) -> None:
        """Something of ours waits for somebody who is not linked: a server may have a way."""
        for neighbour in self._neighbours:
            if isinstance(neighbour.lane, CarrierLane):
                neighbour.lane.backlog = True

    def _follow_moved(self) -> None:
        """What waits for peers whose home is another one now is offered to servers for that one."""
        moved = self._homes.take_moved()
        for neighbour in self._neighbours if moved else ():
            if isinstance(neighbour.lane, CarrierLane):
                neighbour.lane.moved(moved)

    def _link_down(self, event: LinkDown, tx: MeshStore, now: Now) -> None:
        self._drop(event.link, tx, now)
        self._carry_again()

    def _drop(self, link: LinkId, tx: MeshStore, now: Now) -> None:
        """A link is gone, or is none to us any more."""
        self._records.link_down(link)
        self._answers.drop(link)
        neighbour = self._neighbours.drop(link)
        if neighbour is not None:
            self._posts.link_down(neighbour.peer, now.at)
            self._uplink.link_down(neighbour.peer)
            self._forward.link_down(neighbour, tx)
            self._routes.link_down(neighbour.peer, now.at)
            self._carrying.link_down(neighbour.peer, now)
            self._see(neighbour, tx, now)

    def _rejected(self, event: EnvelopeRejected, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        tx.count("rejected")
        neighbour = self._neighbours.at(event.link)
        if neighbour is None:
            return
        ban = self._patience.tried(neighbour.peer, now.at)
        if ban:
            self._drop(event.link, tx, now)
            out.append(CloseLink(event.link, Goodbye.ABUSE, "too many envelopes that do not verify", ban))

    def _policy_changed(self, event: PolicyChanged, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        self._policy = replace(
            self._policy, contacts=event.contacts, blocked=event.blocked, disk_low=event.disk_low, trusted=event.trusted
        )
        self._posts.decide(tx, self._policy, now.at)
        self._apply_policy()
        for peer in sorted(event.blocked & self._neighbours.peers):
            neighbour = self._neighbours.find(peer)
            assert neighbour is not None
            self._drop(neighbour.lane.link, tx, now)
            out.append(CloseLink(neighbour.lane.link, Goodbye.BUSY, "no room"))

    def _apply_policy(self) -> None:
        self._routes.pin(self._policy.contacts)
        self._carrying.decide(self._policy)
        self._routes.lead_on(willing=self._policy.carry is not Carry.NO)

    # --- what comes in

    def _arrived(self, event: EnvelopeArrived, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        neighbour = self._neighbours.at(event.link)
        if neighbour is None:
            # Its link is gone: unanswered, so the neighbour still has it and will offer it again.
            return
        checked, via = event.checked, neighbour.peer
        admission = self._take(checked, via, event.link, tx, now, out)
        answered_by_receipt = via == checked.envelope.src and admission.status is not None
        if checked.receipt is None and not answered_by_receipt:
            self._answers.result(event.link, Result(checked.envelope.id, admission.verdict, admission.reason))

    def _bundle(self, event: BundleArrived, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        results = []
        for checked in event.checked:
            admission = self._take(checked, BY_HAND, None, tx, now, out)
            results.append(Result(checked.envelope.id, admission.verdict, admission.reason))
        out.append(BundleTaken(event.ref, tuple(results)))

    def _take(
        self, checked: Checked, via: PeerKey, link: LinkId | None, tx: MeshStore, now: Now, out: list[Effect]
    ) -> Admission:
        """Let an envelope in, whatever way it came, and do what follows from that."""
        envelope, receipt = checked.envelope, checked.receipt
        self._unswept += 1
        if envelope.kind == Kind.CHANNEL:
            admission = self._posts.admit(tx, checked, via, self._policy, now, out)
            if admission.verdict is Verdict.STORED:
                self._uplink.news(ChannelId(envelope.dst))
            elif admission.verdict is Verdict.DUPLICATE:
                self._uplink.has(via, envelope.id)
        else:
            onward = self._neighbours.find(envelope.dst)
            passing = onward is not None or self._forward.reaches(envelope.dst)
            # What nobody asked for comes from somebody who waits for the receipt: it got lost, and another is due.
            if self._carrying.is_cured(envelope) and (self._carrying.expects(envelope.id) or not passing):
                admission = Admission(Verdict.DUPLICATE)
            else:
                admission = admit(tx, checked, via, self._policy, now, passing=passing)
            if self._carrying.expects(envelope.id):
                self._brought(envelope, admission, now)
            if admission.verdict is Verdict.DUPLICATE and receipt is None and envelope.dst != self._policy.me:
                self._forward.repeated(tx, envelope, via, self._policy, now, out)
            elif onward is not None:
                onward.lane.backlog = True
            elif admission.held is not None:
                back = self._forward.came_from(receipt.ids) if receipt is not None else None
                self._forward.offer(tx, admission.held, now, out, back)
        letter = checked.opened.letter if checked.opened is not None else None
        if letter is not None and letter.type == TYPE_KEY and admission.verdict is Verdict.STORED:
            self._members.letter(letter, tx, self._policy, now, out)
        if admission.line is not None:
            out.append(Journaled(admission.line))
            if envelope.kind == Kind.MESSAGE:
                home, age = admission.line.domain, envelope.age_ms
                self._homes.lettered(tx, envelope.src, home, age, now.at, self._policy.contacts)
        if admission.status is not None:
            repeated = admission.verdict is Verdict.DUPLICATE or admission.status in (Status.UNOPENABLE, Status.REFUSED)
            if repeated and link is not None:
                self._answers.repeat(envelope.src, envelope.id, admission.status, link)
            else:
                self._answers.receipt(envelope.src, envelope.id, admission.status, via, again=repeated)
        if receipt is not None and admission.verdict is Verdict.STORED:
            self._receipt(envelope, receipt, via, tx, now, out)
            if checked.record is not None:
                self._record(RecordArrived(None, checked.record, envelope.age_ms), tx, now, out)
                self._reseal_unopened(receipt, checked.record, tx, now, out)
        return admission

    def _brought(self, envelope: MeshEnvelope, admission: Admission, now: Now) -> None:
        """Something is here that a neighbour was asked for."""
        if admission.verdict is Verdict.DEFERRED:
            self._carrying.put_off(envelope.id, now)
        elif admission.held is None:
            settled = admission.status is Status.DELIVERED or self._carrying.is_cured(envelope)
            self._carrying.dealt_with(envelope, now, settled=settled)

    def _receipt(
        self, envelope: MeshEnvelope, receipt: Receipt, via: PeerKey, tx: MeshStore, now: Now, out: list[Effect]
    ) -> None:
        author = envelope.src
        self._carrying.cured(envelope, receipt, via, now)
        if envelope.dst != self._policy.me:
            self._cure(author, receipt, via, tx, now)
            return
        self._outbox.receipt(tx, receipt, author, via, now, out)
        self._forward.receipted(receipt.ids, author, via, now)
        lanes = [n.lane for n in (self._neighbours.find(author), self._neighbours.find(via)) if n is not None]
        for lane in lanes:
            for id in receipt.ids:
                lane.answered(id, now.at)

    def _cure(self, author: PeerKey, receipt: Receipt, via: PeerKey, tx: MeshStore, now: Now) -> None:
        """Let go of carried copies that their recipient, and nobody else, says have arrived."""
        if receipt.status is not Status.DELIVERED:
            return
        self._forward.receipted(receipt.ids, author, via, now)
        for id in receipt.ids:
            held = tx.held(id)
            if held is not None and not held.own and held.dst == author:
                tx.count("passed_on")
                tx.release(id)
                # Not gone for good: when the receipt gets lost on its way, the copy that comes again asks for another.
                tx.remember(id, Fate.PASSED, after_release(now.at))

    def _reseal_unopened(
        self, receipt: Receipt, record: PeerRecord, tx: MeshStore, now: Now, out: list[Effect]
    ) -> None:
        if receipt.status is not Status.UNOPENABLE or not record.prekeys:
            return
        for id in receipt.ids:
            sent = tx.sent_of(id)
            if sent is None or sent.to != record.key or sent.state not in OPEN_STATES:
                continue
            if sent.envelope_id == id:
                self._outbox.seal_again(tx, sent, record.prekeys[0], now, out)

    def _answered(self, event: ResultsArrived, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        neighbour = self._neighbours.at(event.link)
        if neighbour is None:
            return
        lane = neighbour.lane
        for result in event.results:
            if result.id not in lane.flying:
                continue
            if isinstance(lane, CarrierLane) and self._uplink.answered(neighbour.peer, result, now.at, out):
                lane.answered(result.id, now.at)
                continue
            if self._forward.stored(tx, result, neighbour.peer, now):
                lane.answered(result.id, now.at)
                continue
            held = tx.held(result.id)
            final = result.verdict is not Verdict.DEFERRED
            if final and held is not None and isinstance(lane, CarrierLane):
                final = lane.took(result.id)
            lane.answered(result.id, now.at)
            if not isinstance(lane, CarrierLane) and self._posts.answered(neighbour.peer, result, now.at, out):
                continue
            if held is None:
                continue
            to_next_hop = held.dst != neighbour.peer and not isinstance(lane, CarrierLane)
            if to_next_hop:
                self._forward.answered(tx, result, held, neighbour.peer, now, out)
            elif result.verdict is Verdict.DEFERRED:
                lane.deferred(now.at)
            elif isinstance(lane, CarrierLane) and held.own and held.kind == Kind.RECEIPT:
                if final:
                    tx.release(result.id)  # made again when the message comes again
                continue
            if held.own:
                server = isinstance(lane, CarrierLane)
                sent = self._outbox.result(tx, result, held, neighbour.peer, now, out, server=server)
                if sent is not None:
                    self._outbox.seal_again(tx, sent, self._records.prekey_of(sent.to, tx, now), now, out)
            elif held.dst == neighbour.peer and result.verdict is not Verdict.DEFERRED:
                self._forward.arrived(tx, held, now)

    def _reported(self, event: ReportsArrived, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        neighbour = self._neighbours.at(event.link)
        if neighbour is None or not isinstance(neighbour.lane, CarrierLane):
            return
        for report in event.reports:
            self._outbox.reported(tx, report, now, out)

    def _record(self, event: RecordArrived, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        record = event.record
        if record.key == self._policy.me:
            if self._card.heard(record, out):
                self._publish(tx, now, out)
        elif self._records.heard(event, self._neighbours, tx, self._policy, now, out):
            neighbour = self._neighbours.at(event.link) if event.link is not None else None
            self._posts.met(tx, record.key, neighbour.peer if neighbour is not None else BY_HAND, now.at)
            if record.prekeys:
                self._outbox.upgrade(tx, record.key, record.prekeys[0], now, out)

    # --- what goes out

    def _written(self, event: Written, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        envelope = event.envelope
        held = submit(tx, envelope, self._policy, now)
        if isinstance(held, Reason):
            out.append(Accepted(event.uid, held))
            return
        to = PeerKey(envelope.dst)
        sent = Sent(
            event.uid, to, event.text, now.wall, held.expires_at, envelope.ttl_s, State.QUEUED, event.protection,
            envelope.id, event.require_fs, type=event.type,
        )  # fmt: skip
        tx.put_sent(sent)
        out.append(Accepted(event.uid, Reason.NONE, sent))
        prekey = self._records.prekey_of(to, tx, now) if event.protection is Protection.IDENTITY else None
        if prekey is not None:
            # The record came while the message was being sealed.
            self._outbox.upgrade(tx, to, prekey, now, out)
        neighbour = self._neighbours.find(to)
        if neighbour is not None:
            if prekey is not None or neighbour.lane.backlog or not neighbour.lane.room():
                neighbour.lane.backlog = True
            else:
                neighbour.lane.hand(held, now.at, out)
        else:
            if prekey is None:
                self._forward.offer(tx, held, now, out)
            self._carry()

    def _resealed(self, event: Resealed, tx: MeshStore, now: Now) -> None:
        self._outbox.seal_answered(event.uid)
        sent = tx.sent(event.uid)
        if sent is None:
            return
        # Also for a message that ended meanwhile: its recipient's others wait for this answer.
        self._to_upgrade.add(sent.to)
        if sent.state not in OPEN_STATES:
            return
        # The old sealing makes room first, so that a full outbox cannot keep a better one out.
        old = tx.held(sent.envelope_id)
        tx.release(sent.envelope_id)
        self._carrying.release((sent.envelope_id,))
        # It takes the room of what it replaces, so a disk that is almost full is no reason against it.
        if isinstance(submit(tx, event.envelope, replace(self._policy, disk_low=False), now), Reason):
            if old is not None:
                tx.hold(old)
            self._outbox.give_up(sent.to)
        else:
            tx.resealed(event.uid, event.envelope.id, event.protection)
        neighbour = self._neighbours.find(sent.to)
        if neighbour is not None:
            neighbour.lane.answered(sent.envelope_id, now.at)
            neighbour.lane.backlog = True
        else:
            self._forward.look(sent.to)
            self._carry()

    def _upgrade_on(self, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        """Ask for the next batch where all of the last one were sealed better; hand over once all are."""
        for peer in sorted(self._to_upgrade):
            if self._outbox.upgrade_on(tx, peer, now, out):
                continue
            self._look_again(peer)
        self._to_upgrade.clear()

    def _reseal_failed(self, event: ResealFailed, tx: MeshStore) -> None:
        self._outbox.seal_answered(event.uid)
        sent = tx.sent(event.uid)
        if sent is not None:
            self._outbox.give_up(sent.to)
            self._look_again(sent.to)

    def _look_again(self, peer: PeerKey) -> None:
        """Something for a peer was passed over while it was being sealed."""
        neighbour = self._neighbours.find(peer)
        if neighbour is not None:
            neighbour.lane.look_again()
        else:
            self._forward.look(peer)
            self._carry_again()

    def _publish(self, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        if self._card.publish(tx, self._wanted, now, out):
            out.extend(SendRecord(link, self.record.signed, 0) for link in self._neighbours.links)
            self._routes.announce(hashlib.sha256(self.record.signed).digest()[:HASH_BYTES], 0, now.at)

    # --- time

    def _timers(self, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        if now.at >= self._card.deadline():
            self._card.rotate(tx, now, out)
            self._publish(tx, now, out)
        if self._next_expiry is not None and now.at >= self._next_expiry:
            for held in tx.expired(now.at, SWEEP_BATCH):
                if held.kind == Kind.CHANNEL:
                    self._posts.expire(tx, held, now.at)
                    continue
                self._outbox.expire(tx, held, now, out)
                self._carrying.release((held.id,))
                if not held.own:
                    tx.remember(held.id, Fate.GONE, after_release(now.at))
        if now.at >= self._sweep_at or self._unswept >= PASSED_BATCH:
            self._unswept = 0
            more = tx.forget(now.at, SWEEP_BATCH) == SWEEP_BATCH
            keep = SEEN_VOLATILE_MAX if tx.volatile else SEEN_MAX
            more |= tx.forget_passed(keep, PASSED_BATCH) == PASSED_BATCH
            self._sweep_at = Instant(now.at + (1_000 if more else SWEEP_MS))
            self._members.sweep(tx, self._policy, now, out)
        for neighbour in self._neighbours:
            at = neighbour.lane.deadline()
            if at is not None and now.at >= at:
                neighbour.lane.retry(tx, now.at, out)
        self._forward.timers(tx, now, out)


def _oldest_first(events: Iterable[Event]) -> Iterator[Event]:
    """Return events with posts that came together in the order in which they were written, as far as ages tell.

    What one neighbour brings keeps its order: an author's ages differ by less than the time that sending takes.
    """
    for posts, run in groupby(events, _is_post):
        if not posts:
            yield from run
            continue
        ages: dict[LinkId, int] = {}
        aged: list[tuple[int, Event]] = []
        for event in run:
            assert isinstance(event, EnvelopeArrived)
            age = event.checked.envelope.age_ms
            ages[event.link] = age = min(age, ages.get(event.link, age))
            aged.append((age, event))
        yield from (event for _, event in sorted(aged, key=lambda pair: -pair[0]))


def _is_post(event: Event) -> bool:
    return isinstance(event, EnvelopeArrived) and event.checked.envelope.kind == Kind.CHANNEL
