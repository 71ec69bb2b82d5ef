"""Requests for a newer announcement: who waits for what, who was asked, when to ask again.

A node whose neighbours promise a destination, but none feasibly, asks for an announcement that is one newer than its
feasibility distance; whoever has it answers, whoever has not asks on, and the origin makes it (RFC 8966 §3.8.2.1).
"""

from __future__ import annotations

from quicprochat.core.ids import PeerKey
from quicprochat.core.time import Instant

WANTS_MAX = 4_096
RETRY_MS = 250
TRIES_MAX = 8
"""An origin that sleeps does not answer; after these (1/4, 1/2, 1 ... s) only a new promise makes us ask again."""
PASSED_ON_MS = 8_000


class _Want:
    __slots__ = ("ours", "retry_at", "seqno", "tries", "waiting")

    def __init__(self, seqno: int) -> None:
        self.seqno = seqno
        self.waiting: set[PeerKey] = set()
        self.ours = False
        self.tries = 0
        self.retry_at = Instant(0)


class Wants:
    """What is asked for, by the destination's number."""

    def __init__(self) -> None:
        self._wants: dict[int, _Want] = {}
        self._next: Instant | None = None

    def __bool__(self) -> bool:
        return bool(self._wants)

    def ask(self, number: int, seqno: int, now: Instant) -> bool:
        """We want it ourselves; say whether somebody must be asked, and not only be waited for."""
        want = self._wants.get(number)
        if want is None or want.seqno < seqno:
            want = self._open(number, seqno, want)
        elif want.ours:
            return False
        want.ours = True
        self._schedule(want, now, RETRY_MS)
        return want.tries == 0

    def pass_on(self, number: int, seqno: int, asker: PeerKey, now: Instant) -> bool:
        """A neighbour wants it; say whether to ask on: not when that was done for somebody else a moment ago."""
        want = self._wants.get(number)
        fresh = want is None or want.seqno < seqno
        if want is None or want.seqno < seqno:
            want = self._open(number, seqno, want)
            self._schedule(want, now, PASSED_ON_MS)
        # Asked again by one who waits already: what was asked on before may be lost.
        again = asker in want.waiting
        want.waiting.add(asker)
        return fresh or again

    def _schedule(self, want: _Want, now: Instant, wait_ms: int) -> None:
        want.retry_at = Instant(now + wait_ms)
        self._next = want.retry_at if self._next is None else min(self._next, want.retry_at)

    def _open(self, number: int, seqno: int, old: _Want | None) -> _Want:
        want = self._wants[number] = _Want(seqno)
        if old is not None:
            want.waiting, want.ours = old.waiting, old.ours
        elif len(self._wants) > WANTS_MAX:
            del self._wants[next(iter(self._wants))]
        return want

    def met(self, number: int, seqno: int) -> bool:
        """An announcement of this number is in use: whoever waits is told at once."""
        want = self._wants.get(number)
        if want is None or seqno < want.seqno:
            return False
        del self._wants[number]
        return bool(want.waiting)

    def forget(self, number: int) -> None:
        """Nothing is promised any more."""
        self._wants.pop(number, None)

    def again(self, now: Instant) -> list[tuple[int, int]]:
        """Return (number, seqno) of what must be asked for once more, and give up what nobody answers."""
        out: list[tuple[int, int]] = []
        if self._next is None or now < self._next:
            return out
        self._next = None
        for number, want in list(self._wants.items()):
            if want.retry_at > now:
                self._schedule(want, want.retry_at, 0)
                continue
            want.tries += 1
            if not want.ours or want.tries > TRIES_MAX:
                del self._wants[number]
                continue
            self._schedule(want, now, RETRY_MS << want.tries)
            out.append((number, want.seqno))
        return out

    def deadline(self) -> Instant | None:
        """Return when :meth:`again` has something to do."""
        return self._next
