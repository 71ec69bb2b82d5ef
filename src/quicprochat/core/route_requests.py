"""Requests for newer announcements: asking for what is promised and not feasible, answering and passing on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from quicprochat.core.ids import PeerKey
from quicprochat.core.route_frames import INFINITY, REQUEST_HOPS, REQUESTS_MAX, UNDEFINED, Request, encode_requests
from quicprochat.core.route_own import Own
from quicprochat.core.route_table import SELF, Neighbour, Table
from quicprochat.core.route_wants import Wants
from quicprochat.core.time import Instant

ASKED_MAX = 3
"""Neighbours that are asked for one destination."""


class Requests:
    """What this node asks of its neighbours, for itself and for others."""

    def __init__(self, table: Table, own: Own) -> None:
        self._table = table
        self._own = own
        self._wants = Wants()
        self._asks: dict[PeerKey, list[Request]] = {}

    def __bool__(self) -> bool:
        """Say whether something is to be sent."""
        return bool(self._asks)

    @property
    def waiting(self) -> bool:
        """Whether anything was asked for and has not come."""
        return bool(self._wants)

    def deadline(self) -> Instant | None:
        """Return when :meth:`again` has something to do."""
        return self._wants.deadline()

    def link_down(self, neighbour: PeerKey) -> None:
        """Nothing can be asked of this neighbour any more."""
        self._asks.pop(neighbour, None)

    def frames(self) -> Iterator[tuple[PeerKey, bytes]]:
        """Yield what is to be sent, once."""
        asks, self._asks = self._asks, {}
        for key, requests in asks.items():
            rest = iter(requests)
            while batch := list(islice(rest, REQUESTS_MAX)):
                yield key, encode_requests(batch)

    def requested(self, one: Neighbour, request: Request, now: Instant) -> None:
        """A neighbour asks for a newer announcement: give it, or ask on. Source: RFC 8966 §3.8.1.2."""
        table = self._table
        number = table.index.get(request.key)
        if number is None or not one.requests.take(now):
            return
        current = table.current[number]
        if number == SELF:
            self._own.asked(request.seqno, now)
            return
        best = table.best[number]
        if best is not None and best is not one and current is not None and current.seqno >= request.seqno:
            table.urgent[number] = None
            return
        if request.hops <= 1 or not self._wants.pass_on(number, request.seqno, one.key, now):
            return
        onward = best if best is not None and best is not one else self._nearest(number, one)
        if onward is not None:
            self._asks.setdefault(onward.key, []).append(Request(request.key, request.seqno, request.hops - 1))

    def ask(self, numbers: Iterable[int], now: Instant) -> None:
        """Ask for announcements under which promises that are not feasible become so."""
        for number in numbers:
            seqno = self._table.floor_seqno[number] + 1
            if self._wants.ask(number, seqno, now):
                self._ask(number, seqno)

    def again(self, now: Instant) -> None:
        """Ask once more for what nobody has answered."""
        table = self._table
        for number, seqno in self._wants.again(now):
            table.choose(number)
            if table.best[number] is None or number in table.hungry:
                self._ask(number, seqno)
            else:
                self._wants.forget(number)
            table.hungry.pop(number, None)

    def met(self, numbers: Iterable[int]) -> None:
        """News came of these destinations: what others wait for is told at once."""
        table = self._table
        for number in numbers:
            if number != UNDEFINED and table.best[number] is not None:
                current = table.current[number]
                if current is not None and self._wants.met(number, current.seqno):
                    table.urgent[number] = None

    def _nearest(self, number: int, but: Neighbour) -> Neighbour | None:
        """Return the neighbour that promises the shortest way, feasible or not."""
        table = self._table
        found = [(d, n.key, n) for n in table.usable if n is not but and (d := table.through(number, n)) != INFINITY]
        return min(found)[2] if found else None

    def _ask(self, number: int, seqno: int) -> None:
        """Ask the neighbours that promise the shortest ways, feasible or not."""
        table = self._table
        found = [(d, n.key) for n in table.usable if (d := table.through(number, n)) != INFINITY]
        for _, key in sorted(found)[:ASKED_MAX]:
            self._asks.setdefault(key, []).append(Request(table.keys[number], seqno, REQUEST_HOPS))
