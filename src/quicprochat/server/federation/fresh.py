"""What has just come for a domain goes to it from memory; the outbox is read for everything else.

While the outbox was read to its end, whatever is put into it is handed here too, in the same order. What does not fit
is read from the outbox later, and so is everything after a failure, or when something that was put off is due again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from quicprochat.core.federation import Parcel
from quicprochat.core.time import Instant
from quicprochat.server.federation.rules import BATCH_BYTES, FRESH_BYTES, FRESH_MAX, PUT_OFF_FIRST_MS

Place = tuple[int, int]
"""A row's place in the order of the outbox: when it was due, and its serial."""
START: Place = (-1, 0)
NEVER = Instant(1 << 62)


class Fresh:
    """One domain's. ``upto`` is the place of the last row that was taken, or read."""

    def __init__(self) -> None:
        self.upto = START
        self._parcels: deque[Parcel] = deque()
        self._bytes = 0
        self._complete = False
        self._missed = False
        self._good_until = Instant(0)

    def complete(self, now: Instant) -> bool:
        """Say whether the outbox has nothing that may be offered but what is here, and was not taken yet."""
        return self._complete and now < self._good_until

    def over(self, now: Instant) -> bool:
        """Say whether something else in the outbox may be due."""
        return self._complete and now >= self._good_until

    def waits(self, now: Instant) -> bool:
        """Say whether there is something to take."""
        return bool(self._parcels) and self.complete(now)

    def restart(self, now: Instant) -> None:
        """The outbox is to be read from its beginning."""
        self.upto = START
        self._forget()
        self._good_until = Instant(now + PUT_OFF_FIRST_MS)

    def good_until(self, at: Instant | None) -> None:
        """Nothing is under way, and the outbox has nothing that is due before this moment, None for never."""
        self._good_until = NEVER if at is None else at

    def put_off(self, until: Instant) -> None:
        """Something was put off, or woken: then the outbox is to be read again."""
        self._good_until = min(self._good_until, until)

    def add(self, parcels: Sequence[Parcel]) -> None:
        """Take what was put into the outbox."""
        for parcel in parcels:
            if not self._complete:
                self._missed = True
                return
            if _place(parcel) <= self.upto:
                continue  # it was read before we were told of it
            self._parcels.append(parcel)
            self._bytes += len(parcel.held.wire)
            if len(self._parcels) > FRESH_MAX or self._bytes > FRESH_BYTES:
                self._forget()

    def take(self, limit: int, now: Instant) -> list[Parcel]:
        """Return what is next for one call."""
        batch: list[Parcel] = []
        size = 0
        while self._parcels and len(batch) < limit:
            parcel = self._parcels[0]
            size += len(parcel.held.wire)
            if batch and size > BATCH_BYTES:
                break
            self._parcels.popleft()
            self._bytes -= len(parcel.held.wire)
            self.upto = _place(parcel)
            if parcel.held.expires_at > now:  # else its row is swept away
                batch.append(parcel)
        return batch

    def reading(self) -> None:
        """The outbox is being read behind ``upto``."""
        self._missed = False

    def read(self, parcels: Sequence[Parcel]) -> None:
        """This was found there; nothing is its end, unless something came meanwhile."""
        if parcels:
            self.upto = _place(parcels[-1])
        else:
            self._complete = not self._missed

    def _forget(self) -> None:
        self._parcels.clear()
        self._bytes = 0
        self._complete, self._missed = False, True


def _place(parcel: Parcel) -> Place:
    return parcel.row.due_at or 0, parcel.row.serial
