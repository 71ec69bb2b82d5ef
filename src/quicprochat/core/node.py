"""The node: everything a peer does, as one pure step. Events in, one transaction, effects out.

``step`` writes into the transaction it is given and returns what must be done once that is durable: acknowledgements,
receipts and news never run ahead of the disk. Plaintext enters opened by the gate and leaves as a request to seal;
carried envelopes pass through unread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from typing import assert_never

from quicprochat.core.bucket import TokenBucket
from quicprochat.core.card import OwnCard
from quicprochat.core.carrier import CarrierLane, Taken
from quicprochat.core.courier import Lane
from quicprochat.core.crypto import Crypto, Entropy, Signer
from quicprochat.core.envelope import TTL_MAX_S, Header, Kind, make
from quicprochat.core.events import (
    Accepted,
    Alarm,
    CloseLink,
    Effect,
    EnvelopeArrived,
    EnvelopeRejected,
    Event,
    HomeNamed,
    InterestArrived,
    Journaled,
    LinkDown,
    LinkId,
    LinkUp,
    PolicyChanged,
    PostWritten,
    RecordArrived,
    ReportsArrived,
    Resealed,
    ResealFailed,
    ResultsArrived,
    SelfChanged,
    SendEnvelope,
    SendRecord,
    SendResults,
    Subscribed,
    Tick,
    Unsubscribed,
    Withdrawn,
    Written,
)
from quicprochat.core.gate import Policy, Reason, Verdict, admit, submit
from quicprochat.core.homes import Homes
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.link import RESULTS_MAX, Goodbye, Result
from quicprochat.core.outbox import Outbox
from quicprochat.core.patience import Patience
from quicprochat.core.posts import Posts
from quicprochat.core.receipt import OPEN_STATES, RECEIPT_IDS_MAX, Receipt, State, Status
from quicprochat.core.record import RECORD_LIFETIME_S, PeerRecord, open_record
from quicprochat.core.seal import Prekey, Protection
from quicprochat.core.spread import OFFER_MAX, Spread
from quicprochat.core.store import Fate, MeshStore, Scope, Sent, Sighting, StoredRecord
from quicprochat.core.time import MINUTE_MS, Instant, Now
from quicprochat.core.window import after_release
from quicprochat.core.window import expire as expire_post

RECORDS_MAX = 4_096
"""Records of others that are kept; a flood of made-up peers pushes out the oldest who are not contacts."""
ALARM_BURST, ALARM_PER_S = 16, 1 / 600
"""Alarms about records of strangers: anybody can make up peers that contradict themselves. Contacts are not counted."""
REPEAT_BURST, REPEAT_PER_S = 256, 64
"""Receipts (of up to 64 ids) sent again for duplicates that come over one link: repeating must not make us work."""
SWEEP_MS = MINUTE_MS
SWEEP_BATCH = 512


class _Neighbour:
    """What a link is remembered by. ``address`` is the one that worked, "" unknown, None where a server carries."""

    __slots__ = ("address", "lane", "peer", "repeats")

    def __init__(self, peer: PeerKey, lane: Lane, address: str | None, now: Instant) -> None:
        self.peer = peer
        self.lane = lane
        self.address = address
        self.repeats = TokenBucket(REPEAT_BURST, REPEAT_PER_S, now)


class Node:
    """One peer's protocol state. Durable things live in the store; what is here is rebuilt by links and time."""

    def __init__(self, signer: Signer, crypto: Crypto, entropy: Entropy, policy: Policy) -> None:
        self._signer = signer
        self._crypto = crypto
        self._entropy = entropy
        self._policy = policy
        self._card = OwnCard(signer, crypto)
        self._wanted = PeerRecord(signer.key, 0, 0)
        self._outbox = Outbox()
        self._homes = Homes()
        self._posts = Posts(signer, crypto, entropy)
        self._links: dict[LinkId, _Neighbour] = {}
        self._by_peer: dict[PeerKey, _Neighbour] = {}
        self._servers: dict[PeerKey, Taken] = {}
        self._records: dict[PeerKey, tuple[int, int]] = {}
        self._conflicts: set[PeerKey] = set()
        self._alarms = TokenBucket(ALARM_BURST, ALARM_PER_S, Instant(0))
        self._patience = Patience()
        self._spread = Spread()
        self._spread_at: Instant | None = None
        self._sweep_at = Instant(0)
        self._next_expiry: Instant | None = None
        # Gathered during one step, sent at its end.
        self._to_upgrade: set[PeerKey] = set()
        self._receipts: dict[tuple[PeerKey, Status], list[EnvelopeId]] = {}
        self._repeated: dict[tuple[LinkId, PeerKey, Status], list[EnvelopeId]] = {}
        self._results: dict[LinkId, list[Result]] = {}

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

    def start(self, tx: MeshStore, now: Now) -> tuple[Effect, ...]:
        """Take up what the store remembers; to be called once, inside a transaction, before the first step."""
        out: list[Effect] = []
        self._card.start(tx, now, out)
        self._posts.start(tx, out)
        self._records = {r.key: (r.epoch, r.seq) for r in reversed(tx.records(RECORDS_MAX))}
        self._sweep_at = now.at
        self._next_expiry = tx.next_expiry()
        return tuple(out)

    def next_deadline(self) -> Instant:
        """Return when a Tick is due at the latest."""
        times = [self._card.deadline(), self._sweep_at]
        if self._next_expiry is not None:
            times.append(self._next_expiry)
        if self._spread_at is not None:
            times.append(self._spread_at)
        times += [at for n in self._links.values() if (at := n.lane.deadline()) is not None]
        if (at := self._posts.deadline()) is not None:
            times.append(at)
        return min(times)

    def step(self, events: Iterable[Event], tx: MeshStore, now: Now) -> tuple[Effect, ...]:
        """Apply events in order, then do what time and the events made due. Raises: StoreError only."""
        out: list[Effect] = []
        for event in _oldest_first(events):
            self._apply(event, tx, now, out)
        self._upgrade_on(tx, now, out)
        self._timers(tx, now, out)
        self._flush_receipts(tx, now, out)
        self._follow_moved()
        for neighbour in self._links.values():
            if neighbour.lane.backlog and not self._outbox.upgrading(neighbour.peer):
                neighbour.lane.fill(tx, self._outbox, now.at, out)
            self._posts.fill(tx, neighbour.lane, now.at, out)
        self._flush_results(out)
        self._spread_records(tx, now, out)
        self._next_expiry = tx.next_expiry()
        return tuple(out)

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
            case PolicyChanged():
                self._policy_changed(event, out)
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
                if (neighbour := self._links.get(event.link)) is not None:
                    self._posts.interest(neighbour.peer, event.channels)
            case PostWritten():
                self._posts.write(event, tx, self._policy, now, out)
            case Subscribed():
                self._posts.join(tx, event.channel, out)
            case Unsubscribed():
                self._posts.leave(tx, event.channel, now, out)
            case Tick():
                pass
            case _:
                assert_never(event)

    # --- links

    def _link_up(self, event: LinkUp, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        if event.peer in self._policy.blocked:
            out.append(CloseLink(event.link, Goodbye.BUSY, "no room"))
            return
        old = self._by_peer.get(event.peer)
        if old is not None:
            self._links.pop(old.lane.link, None)
            self._spread.link_down(old.lane.link)
        address = None if event.carrier else str(event.address or "")
        neighbour = _Neighbour(event.peer, self._lane(event, tx, now), address, now.at)
        self._links[event.link] = neighbour
        self._by_peer[event.peer] = neighbour
        self._posts.link_up(event.peer, event.store_epoch, now.at)
        if event.carrier:
            return
        owners = [*reversed(self._by_peer), *(record.key for record in tx.records(OFFER_MAX))]
        self._spread.link_up(event.link, event.peer, (o for o in owners if o not in self._policy.blocked), now.at)
        self._see(neighbour, tx, now)

    def _see(self, neighbour: _Neighbour, tx: MeshStore, now: Now) -> None:
        """Note that a peer is there, or was until now: a link's beginning and its end."""
        if neighbour.address is not None:
            tx.see(Sighting(neighbour.peer, now.wall, now.at, neighbour.address), self._policy.contacts)

    def _lane(self, event: LinkUp, tx: MeshStore, now: Now) -> Lane:
        if not event.carrier:
            return Lane(event.link, event.peer, event.window, now.at)
        taken = self._servers.setdefault(event.peer, Taken())
        taken.begin(event.store_epoch, tx)
        return CarrierLane(event.link, event.peer, event.window, now.at, taken, self._by_peer)

    def _carry_again(self) -> None:
        """Something was passed over, for it had the direct way or was being sealed better."""
        for neighbour in self._links.values():
            if isinstance(neighbour.lane, CarrierLane):
                neighbour.lane.look_again()

    def _carry(self) -> None:
        """Something of ours waits for somebody who is not linked: a server may have a way."""
        for neighbour in self._links.values():
            if isinstance(neighbour.lane, CarrierLane):
                neighbour.lane.backlog = True

    def _follow_moved(self) -> None:
        """What waits for peers whose home is another one now is offered to servers for that one."""
        moved = self._homes.take_moved()
        for neighbour in self._links.values() if moved else ():
            if isinstance(neighbour.lane, CarrierLane):
                neighbour.lane.moved(moved)

    def _link_down(self, event: LinkDown, tx: MeshStore, now: Now) -> None:
        self._spread.link_down(event.link)
        neighbour = self._links.pop(event.link, None)
        if neighbour is None:
            return
        if self._by_peer.get(neighbour.peer) is neighbour:
            del self._by_peer[neighbour.peer]
            self._posts.link_down(neighbour.peer)
            self._see(neighbour, tx, now)
        self._results.pop(event.link, None)
        self._carry_again()

    def _rejected(self, event: EnvelopeRejected, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        tx.count("rejected")
        neighbour = self._links.get(event.link)
        if neighbour is None:
            return
        ban = self._patience.tried(neighbour.peer, now.at)
        if ban:
            del self._links[event.link]
            self._by_peer.pop(neighbour.peer, None)
            self._posts.link_down(neighbour.peer)
            self._see(neighbour, tx, now)
            out.append(CloseLink(event.link, Goodbye.ABUSE, "too many envelopes that do not verify", ban))

    def _policy_changed(self, event: PolicyChanged, out: list[Effect]) -> None:
        self._policy = replace(self._policy, contacts=event.contacts, blocked=event.blocked, disk_low=event.disk_low)
        for peer in sorted(event.blocked & self._by_peer.keys()):
            neighbour = self._by_peer.pop(peer)
            del self._links[neighbour.lane.link]
            self._posts.link_down(peer)
            out.append(CloseLink(neighbour.lane.link, Goodbye.BUSY, "no room"))

    # --- what comes in

    def _arrived(self, event: EnvelopeArrived, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        neighbour = self._links.get(event.link)
        if neighbour is None:
            # Its link is gone: unanswered, so the neighbour still has it and will offer it again.
            return
        checked, via = event.checked, neighbour.peer
        envelope, receipt = checked.envelope, checked.receipt
        let_in = self._posts.admit if envelope.kind == Kind.CHANNEL else admit
        admission = let_in(tx, checked, via, self._policy, now)
        onward = self._by_peer.get(PeerKey(envelope.dst))
        if onward is not None:
            onward.lane.backlog = True
        if admission.line is not None:
            out.append(Journaled(admission.line))
            if envelope.kind == Kind.MESSAGE:
                home, age = admission.line.domain, envelope.age_ms
                self._homes.lettered(tx, envelope.src, home, age, now.at, self._policy.contacts)
        if admission.status is not None:
            repeated = admission.verdict is Verdict.DUPLICATE or admission.status is Status.UNOPENABLE
            if repeated:
                self._repeated.setdefault((event.link, envelope.src, admission.status), []).append(envelope.id)
            else:
                self._receipts.setdefault((envelope.src, admission.status), []).append(envelope.id)
        if receipt is not None:
            if admission.verdict is Verdict.STORED:
                self._receipt(checked.envelope.dst, envelope.src, receipt, via, tx, now, out)
                if checked.record is not None:
                    self._record(RecordArrived(None, checked.record, envelope.age_ms), tx, now, out)
                    self._reseal_unopened(receipt, checked.record, tx, now, out)
            return
        answered_by_receipt = via == envelope.src and admission.status is not None
        if not answered_by_receipt:
            self._results.setdefault(event.link, []).append(Result(envelope.id, admission.verdict, admission.reason))

    def _receipt(
        self,
        dst: bytes,
        author: PeerKey,
        receipt: Receipt,
        via: PeerKey,
        tx: MeshStore,
        now: Now,
        out: list[Effect],
    ) -> None:
        if dst != self._policy.me:
            self._cure(author, receipt, tx, now)
            return
        self._outbox.receipt(tx, receipt, author, via, now, out)
        lanes = [n.lane for n in (self._by_peer.get(author), self._by_peer.get(via)) if n is not None]
        for lane in lanes:
            for id in receipt.ids:
                lane.answered(id, now.at)

    def _cure(self, author: PeerKey, receipt: Receipt, tx: MeshStore, now: Now) -> None:
        """Let go of carried copies that their recipient, and nobody else, says have arrived."""
        if receipt.status is not Status.DELIVERED:
            return
        for id in receipt.ids:
            held = tx.held(id)
            if held is not None and not held.own and held.dst == author:
                tx.release(id)
                tx.remember(id, Fate.GONE, after_release(now.at))

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
        neighbour = self._links.get(event.link)
        if neighbour is None:
            return
        lane = neighbour.lane
        for result in event.results:
            if result.id not in lane.flying:
                continue
            held = tx.held(result.id)
            final = result.verdict is not Verdict.DEFERRED
            if final and held is not None and isinstance(lane, CarrierLane):
                final = lane.took(result.id)
            lane.answered(result.id, now.at)
            if self._posts.answered(neighbour.peer, result, now.at, out) or held is None:
                continue
            if result.verdict is Verdict.DEFERRED:
                lane.deferred(now.at)
            elif isinstance(lane, CarrierLane) and held.own and held.kind == Kind.RECEIPT:
                if final:
                    tx.release(result.id)  # made again when the message comes again
                continue
            if held.own:
                server = isinstance(lane, CarrierLane)
                sent = self._outbox.result(tx, result, held, neighbour.peer, now, out, server=server)
                if sent is not None:
                    self._outbox.seal_again(tx, sent, self._prekey_of(sent.to, tx, now), now, out)
            elif held.dst == neighbour.peer and result.verdict is not Verdict.DEFERRED:
                tx.release(result.id)
                tx.remember(result.id, Fate.GONE, after_release(now.at))

    def _reported(self, event: ReportsArrived, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        neighbour = self._links.get(event.link)
        if neighbour is None or not isinstance(neighbour.lane, CarrierLane):
            return
        for report in event.reports:
            self._outbox.reported(tx, report, now, out)

    def _prekey_of(self, peer: PeerKey, tx: MeshStore, now: Now) -> Prekey | None:
        stored = tx.record(peer)
        if stored is None:
            return None
        record = open_record(stored.data, self._crypto)
        if _age(stored, now) >= record.lifetime_s * 1_000:
            return None
        return record.prekeys[0] if record.prekeys else None

    def _record(self, event: RecordArrived, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        record = event.record
        if record.key == self._policy.me:
            if self._card.heard(record, out):
                self._publish(tx, now, out)
            return
        if record.key in self._policy.blocked or event.age_ms >= record.lifetime_s * 1_000:
            return
        known = self._records.get(record.key)
        if known is None and (stored := tx.record(record.key)) is not None:
            # More are kept than were loaded at the start.
            known = self._records[record.key] = stored.version
        if known is not None and record.version <= known:
            stored = tx.record(record.key)
            if stored is not None and record.version == known and stored.data != record.signed:
                self._conflict(record.key, tx, now, out)
                return
            if stored is not None and record.version < known and event.link is not None:
                # Its owner, or a neighbour, is behind: show the newer one.
                out.append(SendRecord(event.link, stored.data, _age(stored, now)))
            if event.link is not None:
                self._spread.shown(record.key, event.link)
            if record.version < known:
                return
        else:
            if known is None:
                self._make_room_for_record(tx)
            tx.put_record(StoredRecord(record.key, *record.version, record.signed, event.age_ms, now.at))
            self._records.pop(record.key, None)
            self._records[record.key] = record.version  # last, as the newest to come
            self._spread.news(record.key, event.link, now.at)
            self._homes.recorded(tx, record, event.age_ms, now.at, self._policy.contacts)
        if record.prekeys:
            self._outbox.upgrade(tx, record.key, record.prekeys[0], now, out)

    def _conflict(self, peer: PeerKey, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        """Raise the alarm that a peer contradicts itself: once in a run, however often it does."""
        tx.count("record_conflicts")
        if peer in self._conflicts or (peer not in self._policy.contacts and not self._alarms.take(now.at)):
            return
        self._conflicts.add(peer)
        out.append(Alarm("record_conflict", "two different records of one peer have the same number", peer))

    def _make_room_for_record(self, tx: MeshStore) -> None:
        if len(self._records) < RECORDS_MAX:
            return
        for old in self._records:
            if old not in self._policy.contacts and old not in self._by_peer:
                tx.drop_record(old)
                del self._records[old]
                return

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
            envelope.id, event.require_fs,
        )  # fmt: skip
        tx.put_sent(sent)
        out.append(Accepted(event.uid, Reason.NONE, sent))
        prekey = self._prekey_of(to, tx, now) if event.protection is Protection.IDENTITY else None
        if prekey is not None:
            # The record came while the message was being sealed.
            self._outbox.upgrade(tx, to, prekey, now, out)
        neighbour = self._by_peer.get(to)
        if neighbour is not None:
            if prekey is not None:
                neighbour.lane.backlog = True
                return
            if neighbour.lane.backlog or not neighbour.lane.room():
                neighbour.lane.backlog = True
            else:
                neighbour.lane.hand(held, now.at, out)
        else:
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
        # It takes the room of what it replaces, so a disk that is almost full is no reason against it.
        if isinstance(submit(tx, event.envelope, replace(self._policy, disk_low=False), now), Reason):
            if old is not None:
                tx.hold(old)
            self._outbox.give_up(sent.to)
        else:
            tx.resealed(event.uid, event.envelope.id, event.protection)
        neighbour = self._by_peer.get(sent.to)
        if neighbour is not None:
            neighbour.lane.answered(sent.envelope_id, now.at)
            neighbour.lane.backlog = True
        else:
            self._carry()

    def _upgrade_on(self, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        """Ask for the next batch where all of the last one were sealed better; hand over once all are."""
        for peer in sorted(self._to_upgrade):
            if self._outbox.upgrade_on(tx, peer, now, out):
                continue
            neighbour = self._by_peer.get(peer)
            if neighbour is not None:
                neighbour.lane.look_again()
            else:
                self._carry_again()
        self._to_upgrade.clear()

    def _reseal_failed(self, event: ResealFailed, tx: MeshStore) -> None:
        self._outbox.seal_answered(event.uid)
        sent = tx.sent(event.uid)
        if sent is not None:
            self._outbox.give_up(sent.to)
        neighbour = self._by_peer.get(sent.to) if sent is not None else None
        # It was passed over while it was being sealed.
        if neighbour is not None:
            neighbour.lane.look_again()
        else:
            self._carry_again()

    def _publish(self, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        if self._card.publish(tx, self._wanted, now, out):
            out.extend(SendRecord(link, self.record.signed, 0) for link in self._links)

    def _spread_records(self, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        for link, owner in self._spread.due(now.at):
            stored = tx.record(owner)
            if stored is None or link not in self._links or owner in self._policy.blocked:
                continue
            if (age_ms := _age(stored, now)) < RECORD_LIFETIME_S * 1_000:
                out.append(SendRecord(link, stored.data, age_ms))
        self._spread_at = self._spread.deadline(now.at)

    # --- time

    def _timers(self, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        if now.at >= self._card.deadline():
            self._card.rotate(tx, now, out)
            self._publish(tx, now, out)
        if self._next_expiry is not None and now.at >= self._next_expiry:
            for held in tx.expired(now.at, SWEEP_BATCH):
                if held.kind == Kind.CHANNEL:
                    expire_post(tx, held, now.at)
                    continue
                self._outbox.expire(tx, held, now, out)
                if not held.own:
                    tx.remember(held.id, Fate.GONE, after_release(now.at))
        if now.at >= self._sweep_at:
            more = tx.forget(now.at, SWEEP_BATCH) == SWEEP_BATCH
            self._sweep_at = Instant(now.at + (1_000 if more else SWEEP_MS))
        for neighbour in self._links.values():
            at = neighbour.lane.deadline()
            if at is not None and now.at >= at:
                neighbour.lane.retry(tx, now.at, out)

    # --- answers gathered during the step

    def _flush_receipts(self, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        for (link, author, status), ids in self._repeated.items():
            neighbour = self._links.get(link)
            for start in range(0, len(ids), RECEIPT_IDS_MAX):
                if neighbour is not None and neighbour.repeats.take(now.at):
                    self._receipts.setdefault((author, status), []).extend(ids[start : start + RECEIPT_IDS_MAX])
        self._repeated.clear()
        for (author, status), ids in self._receipts.items():
            record = self.record.signed if status is Status.UNOPENABLE else b""
            for start in range(0, len(ids), RECEIPT_IDS_MAX):
                payload = Receipt(status, tuple(ids[start : start + RECEIPT_IDS_MAX]), record).encode()
                header = Header(Kind.RECEIPT, self._signer.key, author, self._entropy(16), ttl_s=TTL_MAX_S)
                envelope = make(header, payload, self._signer)
                neighbour = self._by_peer.get(author)
                if neighbour is not None:
                    out.append(SendEnvelope(neighbour.lane.link, envelope.wire()))
                elif tx.usage(Scope.OWN).bytes < self._policy.limits.own_bytes // 2:
                    # Strangers' receipts must leave room for what the owner wants to say.
                    submit(tx, envelope, self._policy, now)
                    self._carry()
        self._receipts.clear()

    def _flush_results(self, out: list[Effect]) -> None:
        for link, results in self._results.items():
            chunks = (results[start : start + RESULTS_MAX] for start in range(0, len(results), RESULTS_MAX))
            out.extend(SendResults(link, tuple(chunk)) for chunk in chunks)
        self._results.clear()


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


def _age(stored: StoredRecord, now: Now) -> int:
    """How long ago a stored record was signed."""
    return stored.age_ms + max(0, now.at - stored.stored_at)
