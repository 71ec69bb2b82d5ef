"""Handing what waits to the neighbours it is for: one window per link, oldest first, again when nothing answers."""

from __future__ import annotations

from quicprochat.core.bucket import TokenBucket
from quicprochat.core.envelope import Kind
from quicprochat.core.events import Effect, LinkId, SendEnvelope
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.outbox import Outbox
from quicprochat.core.store import Held, MeshStore
from quicprochat.core.time import HOUR_MS, Instant

IN_FLIGHT_BYTES = 512 * 1024
"""Bytes handed over and not yet answered, per link; the rest waits in the store, not in memory."""
RECEIPT_BYTES_PER_S = 64 * 1024
"""Receipts are never answered, so no window bounds them: IN_FLIGHT_BYTES at once, then at this pace (guess)."""
PASSED_BURST, PASSED_BYTES_PER_S = 1 << 20, 512 * 1024
"""The same for receipts that are passed on, which those of many recipients share (guess)."""
RETRY_FIRST_MS = 15_000
RETRY_LAST_MS = 300_000
DEFERRED_MS = 30_000
DEFERRED_LAST_MS = HOUR_MS
"""How long to wait before offering again what a neighbour had no room for: at first, and after many times in vain."""
BATCH = 256


class Lane:
    """The traffic of one link, from us to the neighbour.

    ``after`` is the serial up to which the store was looked through; ``backlog`` says that there may be more above.
    Receipts may have been left behind, from ``receipts_from`` on, for ``receipts_at``.
    """

    __slots__ = (
        "after",
        "again_at",
        "backlog",
        "deferred_at",
        "deferred_ms",
        "flying",
        "flying_bytes",
        "link",
        "pace",
        "passed",
        "peer",
        "progress_at",
        "receipts_at",
        "receipts_from",
        "retry_ms",
        "window",
    )

    def __init__(self, link: LinkId, peer: PeerKey, window: int, now: Instant) -> None:
        self.link = link
        self.peer = peer
        self.window = window
        self.flying: dict[EnvelopeId, int] = {}
        self.flying_bytes = 0
        self.after = 0
        self.backlog = True
        self.progress_at = now
        self.retry_ms = RETRY_FIRST_MS
        self.again_at: Instant | None = None
        self.deferred_at = now
        self.deferred_ms = DEFERRED_MS
        self.pace = TokenBucket(IN_FLIGHT_BYTES, RECEIPT_BYTES_PER_S, now)
        self.passed = TokenBucket(PASSED_BURST, PASSED_BYTES_PER_S, now)
        self.receipts_from = 0
        self.receipts_at: Instant | None = None

    def room(self) -> bool:
        """Say whether one more envelope may be handed over now."""
        return len(self.flying) < self.window and self.flying_bytes < IN_FLIGHT_BYTES

    def pace_passed(self, now: Instant, size: int) -> bool:
        """Say whether a receipt of so many bytes, on its way to somebody else, may be handed over; count it if so."""
        return self.passed.take(now, size)

    def hand(self, held: Held, now: Instant, out: list[Effect]) -> None:
        """Hand over the next of what waits for this neighbour, and wait for its answer."""
        self.after = max(self.after, held.serial)
        self.launch(held, now, out)

    def launch(self, held: Held, now: Instant, out: list[Effect]) -> None:
        """Hand over an envelope and wait for its answer."""
        if not self.flying:
            self.progress_at = now
        if held.id not in self.flying:
            self.flying[held.id] = len(held.wire)
            self.flying_bytes += len(held.wire)
        out.append(self.offer(held, now))

    def offer(self, held: Held, now: Instant) -> SendEnvelope:
        """Return what hands an envelope over at this moment."""
        return SendEnvelope(self.link, held.to_send(now), onward=not held.own)

    def answered(self, id: EnvelopeId, now: Instant) -> None:
        """The neighbour, or a receipt, has answered for an envelope."""
        size = self.flying.pop(id, None)
        if size is not None:
            self.flying_bytes -= size
            self.progress_at = now
            self.retry_ms = RETRY_FIRST_MS

    def deferred(self, now: Instant) -> None:
        """The neighbour has no room: look again later, and each time later than the last.

        When it took everything for a while, it has room again, and the waiting begins anew.
        """
        if self.again_at is not None:
            return
        if now > self.deferred_at + 2 * self.deferred_ms:
            self.deferred_ms = DEFERRED_MS
        self.deferred_at = now
        self.again_at = Instant(now + self.deferred_ms)
        self.deferred_ms = min(2 * self.deferred_ms, DEFERRED_LAST_MS)

    def fill(self, tx: MeshStore, outbox: Outbox, now: Instant, out: list[Effect]) -> None:
        """Hand over what waits for this neighbour, as far as the window goes."""
        while self.backlog and self.room():
            found = tx.waiting(self.peer, self.after, BATCH)
            self.backlog = len(found) == BATCH
            for held in found:
                if not self.room():
                    self.backlog = True
                    return
                self.after = held.serial
                if held.id in self.flying or outbox.withheld(held.id):
                    continue
                if held.kind == Kind.RECEIPT:
                    self._receipt(tx, held, now, out)
                else:
                    self.hand(held, now, out)

    def _receipt(self, tx: MeshStore, held: Held, now: Instant, out: list[Effect]) -> bool:
        """Hand over a receipt and let go of it, for it is made again when the message comes again.

        False: it is left behind, for others are already or the pace wants it; messages pass it.
        """
        if self.receipts_at is not None:
            return False
        if not self.pace.take(now, len(held.wire)):
            self.receipts_from = held.serial
            self.receipts_at = Instant(now + self.pace.wait_ms(now, IN_FLIGHT_BYTES // 2))
            return False
        out.append(self.offer(held, now))
        tx.release(held.id)
        return True

    def _receipts_again(self, tx: MeshStore, now: Instant, out: list[Effect]) -> None:
        """Go on with the receipts that were left behind."""
        self.receipts_at = None
        found = tx.waiting(self.peer, self.receipts_from - 1, BATCH)
        for held in found:
            if held.kind == Kind.RECEIPT and not self._receipt(tx, held, now, out):
                return
        if len(found) == BATCH:
            self.receipts_from, self.receipts_at = found[-1].serial + 1, now

    def look_again(self) -> None:
        """Look through the store from the beginning."""
        self.after = 0
        self.backlog = True

    def deadline(self) -> Instant | None:
        """Return when :meth:`retry` is due."""
        times = [at for at in (self.again_at, self.receipts_at) if at is not None]
        if self.flying:
            times.append(Instant(self.progress_at + self.retry_ms))
        return min(times, default=None)

    def retry(self, tx: MeshStore, now: Instant, out: list[Effect]) -> None:
        """Offer again what nobody answered in time, ever more slowly while nothing is answered at all."""
        if self.again_at is not None and now >= self.again_at:
            self.again_at = None
            self.look_again()
        if self.receipts_at is not None and now >= self.receipts_at:
            self._receipts_again(tx, now, out)
        if not self.flying or now < self.progress_at + self.retry_ms:
            return
        self.progress_at = now
        self.retry_ms = min(2 * self.retry_ms, RETRY_LAST_MS)
        for id in list(self.flying):
            held = tx.held(id)
            if held is None:
                self.flying_bytes -= self.flying.pop(id)
            else:
                out.append(self.offer(held, now))
