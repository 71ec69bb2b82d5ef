"""Reading what a neighbour says of its routes into the table."""

from __future__ import annotations

from dataclasses import dataclass, field

from quicprochat.core.route_frames import (
    AGAIN,
    DISTANCE_BITS,
    INFINITY,
    UNDEFINED,
    Announcement,
    Update,
    encode_update,
    hops_of,
)
from quicprochat.core.route_own import Own
from quicprochat.core.route_table import SELF, Neighbour, Table
from quicprochat.core.time import SECOND_MS, Instant

AGAIN_MS = 60 * SECOND_MS
"""A neighbour is asked for its whole table at most so often."""


@dataclass(slots=True)
class Heard:
    """What came of an UPDATE."""

    forged: bool = False
    """An announcement in it was not signed by its origin, or has an impossible number."""
    renewed: list[int] = field(default_factory=list)
    """Destinations with another announcement than before."""


class Hearing:
    """Takes UPDATEs; ``replies`` are frames that must go back."""

    def __init__(self, table: Table, own: Own) -> None:
        self._table = table
        self._own = own
        self.replies: list[tuple[Neighbour, bytes]] = []

    def update(self, one: Neighbour, update: Update, now: Instant) -> Heard:
        """Take in one UPDATE, as a whole. What does not verify, or names an id that was never defined, is left out."""
        table, heard = self._table, Heard()
        touched = heard.renewed
        if not (update.first or one.heard or one.ids):
            # It takes up what we said to hold of it, and we do not any more.
            self.ask_again(one, now)
        before: list[int] = []
        if update.first:
            before = [number for number, best in enumerate(table.best) if best is one]
            one.forget_promises()
        for id, wire in update.new:
            if not self._defined(one, id, wire, touched, now):
                heard.forged = True
        ids, promised, said = one.ids, one.promised, one.said
        for id, tail in update.renewed:
            number = ids[id] if id < len(ids) else UNDEFINED
            if number == UNDEFINED:
                continue
            if number == SELF:
                self._own.heard(table.keys[SELF] + tail, one, now)
                continue
            announcement = table.newest[number]
            if announcement is None or announcement.wire[32:] != tail:
                announcement = table.renewed(number, table.keys[number] + tail, one, now)
            if announcement is None:
                heard.forged = True
            else:
                said[number] = announcement
                touched.append(number)
                if one.judge:
                    one.judge.renewed(number, now)
        best, distances, step, usable = table.best, table.distance, one.step, one.usable
        known = len(ids)
        for item in update.paths:
            id = item >> DISTANCE_BITS
            if id >= known or (number := ids[id]) == UNDEFINED:
                continue
            found = item & INFINITY
            if (was := promised[number]) == found:
                continue
            promised[number] = found
            if was != INFINITY and hops_of(found) > hops_of(was):
                one.judge.lost_way(number, now)
            if usable and (best[number] is one or found + step < distances[number]):
                table.offer(number, one)
        if usable:
            for number in touched:
                table.offer(number, one)
            for lost in before:
                if promised[lost] == INFINITY:
                    table.choose(lost)
        return heard

    def ask_again(self, one: Neighbour, now: Instant) -> None:
        """Ask a neighbour for its whole table, unless that was done a moment ago."""
        if now >= one.again_at:
            one.again_at = Instant(now + AGAIN_MS)
            self.replies.append((one, bytes([AGAIN])))

    def _defined(self, one: Neighbour, id: int, wire: bytes, touched: list[int], now: Instant) -> bool:
        """A neighbour gives a destination its number; say whether the announcement is right."""
        table = self._table
        if id == UNDEFINED:
            return False
        if wire[:32] == self._own.key:
            one.define(id, SELF)
            self._own.heard(wire, one, now)
            return True
        number, announcement = table.learn(wire, one, now)
        if announcement is None:
            return False
        old = one.ids[id] if id < len(one.ids) else UNDEFINED
        if old != number:
            one.define(id, number)
            if old != UNDEFINED and one.promised[old] != INFINITY:
                one.promised[old] = INFINITY
                if one.usable:
                    table.offer(old, one)
        if number != UNDEFINED:
            one.said[number] = announcement
            if one.promised[number] != INFINITY:
                touched.append(number)
            newest = table.newest[number]
            if newest is not None and announcement.seqno < newest.seqno and announcement.key == one.key:
                self._remind(one, number, newest)
        return True

    def _remind(self, one: Neighbour, number: int, newest: Announcement) -> None:
        """A neighbour announces itself with a number it has passed before: show it, so that it can go on from there."""
        item = [number.to_bytes(2, "big"), newest.wire]
        self.replies.append((one, encode_update(item, (), [number << DISTANCE_BITS | INFINITY])))
        one.shown[number] = newest
