"""Passing on: what is for somebody several links away goes to a next hop, and to another one where nothing comes of it.

Nobody takes a message over from its author. A relay keeps its copy until the next hop has stored one, and then only
the id; the author keeps the message until the recipient's receipt, and offers it again when none comes in time. A copy
that comes again, late, is therefore a cry for another way: whoever passed it on tries its next best next hop.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Protocol, TypeVar

from quicprochat.core.envelope import Kind, MeshEnvelope
from quicprochat.core.events import Effect
from quicprochat.core.gate import Policy, Verdict, again
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.link import Result
from quicprochat.core.neighbours import Neighbour, Neighbours
from quicprochat.core.outbox import Outbox
from quicprochat.core.store import Fate, Held, MeshStore
from quicprochat.core.time import Instant, Now
from quicprochat.core.window import after_release

_K = TypeVar("_K")
_V = TypeVar("_V")

OTHERS_MAX = 3
"""Other next hops that are tried for an envelope before the first is tried again, and carriers are asked as well."""
PATIENCE_FIRST_MS = 5_000
"""A receipt is not missed before this, however short the way seems (guess)."""
PATIENCE_LAST_MS = 300_000
SLOW_MS = 60_000
"""Receipts are not taken to be slower than this only because none come."""
PAUSE_FIRST_MS, PAUSE_LAST_MS = 2_000, 300_000
"""How long a destination's mail waits when its next hops have no room: at first, and after many times in vain."""
PASSED_MAX = 65_536
"""Others' envelopes of which it is remembered to whom they were passed; beyond that, the oldest is forgotten."""
ESTIMATES_MAX = 4_096
SURE_MS = 12_000
"""A link over which nothing gets any more is noticed within this (docs/protocol.md §9)."""
UNSURE_BYTES = 1 << 20
SHARE = 32
"""Envelopes for one destination that are passed on before it is another's turn."""


class NextHops(Protocol):
    """What passing on asks of routing; ``core.route.Routes`` is it."""

    def next_hops(self, destination: PeerKey) -> Sequence[PeerKey]:
        """Return the neighbours through which a destination can be reached, the best first."""
        ...

    def changed(self) -> Iterable[PeerKey]:
        """Return whose ways are other ones than when this was asked last."""
        ...

    def judge(
        self, neighbour: PeerKey, destination: PeerKey, arrived: bool, now: Instant, since: Instant | None = None
    ) -> None:
        """Learn what became of something that a next hop had taken: a receipt came, or none came in time.

        ``since`` is when it was handed over.
        """
        ...


class _Pass:
    """What became of one envelope: ``hop`` has it, or nobody; ``due`` is when to ask anew, while it is held here."""

    __slots__ = ("at", "dst", "due", "hop", "rounds", "stored", "tried", "via")

    def __init__(self, held: Held) -> None:
        self.dst = PeerKey(held.dst)
        self.via = held.via
        self.hop: PeerKey | None = None
        self.tried: tuple[PeerKey, ...] = ()
        self.at = Instant(0)
        self.stored = False
        self.due: Instant | None = None
        self.rounds = 0


@dataclass(slots=True)
class _Pause:
    until: Instant
    serial: int
    """From this one on it was put off."""
    ms: int = PAUSE_FIRST_MS


class Forward:
    """What is under way to whom. All of it may be forgotten: what is held is then offered once more."""

    def __init__(self, routes: NextHops, neighbours: Neighbours, outbox: Outbox) -> None:
        self._routes = routes
        self._neighbours = neighbours
        self._outbox = outbox
        self._ready: dict[PeerKey, int] = {}
        """Destinations in turn, with the serial up to which the store was looked through."""
        self._stranded: set[PeerKey] = set()
        """Destinations for which something is held that no next hop was found for."""
        self._pauses: dict[PeerKey, _Pause] = {}
        self._passes: dict[EnvelopeId, _Pass] = {}
        self._passed: dict[EnvelopeId, _Pass] = {}
        """Others' envelopes that a next hop has stored and that are held no more."""
        self._due: list[tuple[Instant, EnvelopeId]] = []
        self._paused_until: Instant | None = None
        self._estimates: dict[PeerKey, int] = {}
        self._unsure: dict[EnvelopeId, tuple[Instant, PeerKey, int]] = {}
        """Receipts that were handed on a moment ago: when, to whom, their bytes."""
        self._unsure_bytes = 0
        self._said: dict[PeerKey, tuple[PeerKey, Instant]] = {}
        """To which next hop the last receipt for an author went, and when."""
        self._found: dict[PeerKey, tuple[Neighbour, ...]] = {}
        """Next hops that were looked up since routes, links or judgements last changed."""
        self.gave_up = False
        """True once something of ours was given up on; whoever reads it sets it back."""
        self.left: list[Held] = []
        """What is held and found no next hop; whoever reads it empties it. So with ``gone``, what is held no more."""
        self.gone: list[EnvelopeId] = []

    def start(self, tx: MeshStore) -> None:
        """Take up what the store holds."""
        self._ready = {PeerKey(dst): 0 for dst in tx.destinations()}

    # --- what there is to pass on

    def look_up_again(self) -> None:
        """Routes or links may be other ones than when next hops were looked up."""
        self._found.clear()

    def reaches(self, dst: bytes) -> bool:
        """Say whether a neighbour knows a way to somebody who is none himself."""
        return bool(self._ways(PeerKey(dst)))

    def serves(self, held: Held) -> bool:
        """Say whether an envelope has a way that it has not been tried on in vain."""
        known = self._passes.get(held.id)
        return (known is None or not known.rounds) and self.reaches(held.dst)

    def under_way(self, id: EnvelopeId) -> bool:
        """Say whether a next hop has an envelope or is getting it, and is still trusted with it."""
        known = self._passes.get(id)
        return known is not None and known.hop is not None and not known.rounds

    def look(self, dst: bytes, after: int = 0) -> None:
        """There may be something to pass on to a destination, above a serial: a route came, or what was awaited."""
        key = PeerKey(dst)
        self._ready[key] = min(after, self._ready.get(key, after))

    def offer(self, tx: MeshStore, held: Held, now: Now, out: list[Effect], back: Neighbour | None = None) -> None:
        """Pass on what is new in the store, unless it has to wait for its turn; a receipt best the way ``back``."""
        dst = PeerKey(held.dst)
        if dst in self._ready or dst in self._neighbours or self._paused(dst, now.at):
            return
        found = back or self._choose(held, ())
        if found is None:
            self._leave(held)
        elif not self._hand(tx, held, found, now, out):
            self._ready[dst] = held.serial - 1

    def fill(self, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        """Pass on what waits, destinations in turn, as far as the windows of their next hops go."""
        for dst in self._routes.changed():
            if dst in self._stranded:
                self._stranded.discard(dst)
                self.look(dst)
        progress = True
        while progress and self._ready:
            progress = False
            for dst in list(self._ready):
                if dst in self._neighbours or self._paused(dst, now.at):
                    del self._ready[dst]
                elif not self.reaches(dst) or any(neighbour.lane.room() for neighbour in self._ways(dst)):
                    progress |= self._turn(dst, tx, now, out)

    def _turn(self, dst: PeerKey, tx: MeshStore, now: Now, out: list[Effect]) -> bool:
        """Pass on one share; return whether there may be more for which there is room."""
        after = self._ready.pop(dst)
        found = tx.waiting(dst, after, SHARE)
        for held in found:
            if held.id not in self._passes and held.id not in self._unsure and not self._withheld(held):
                chosen = self._choose(held, ())
                if chosen is None:
                    self._leave(held)
                elif not self._hand(tx, held, chosen, now, out):
                    self._ready[dst] = after
                    return False
            after = held.serial
        if len(found) == SHARE:
            self._ready[dst] = after  # at the end: now it is another's turn
            return True
        return False

    def _leave(self, held: Held) -> None:
        self._stranded.add(PeerKey(held.dst))
        self.left.append(held)

    def _withheld(self, held: Held) -> bool:
        return held.own and (self._outbox.withheld(held.id) or self._outbox.upgrading(PeerKey(held.dst)))

    def _ways(self, dst: PeerKey) -> tuple[Neighbour, ...]:
        found = self._found.get(dst)
        if found is None:
            hops = map(self._mesh, self._routes.next_hops(dst))
            found = self._found[dst] = tuple(hop for hop in hops if hop is not None)
        return found

    def _judge(self, hop: PeerKey, dst: PeerKey, since: Instant, now: Instant, *, arrived: bool) -> None:
        self._routes.judge(hop, dst, arrived, now, since)
        self._found.clear()

    def _choose(self, held: Held, tried: tuple[PeerKey, ...]) -> Neighbour | None:
        """Return the best next hop that was not tried: never the one it came from, nor its author."""
        for neighbour in self._ways(PeerKey(held.dst)):
            if neighbour.peer not in tried and neighbour.peer not in (held.via, held.src):
                return neighbour
        return None

    def _hand(self, tx: MeshStore, held: Held, to: Neighbour, now: Now, out: list[Effect]) -> bool:
        """Hand an envelope to a next hop; False when it must wait."""
        if held.kind == Kind.RECEIPT:
            if not to.lane.pace_passed(now.at, len(held.wire)):
                self._pause(PeerKey(held.dst), held.serial, now.at)
                return True
            out.append(to.lane.offer(held, now.at))
            # Nobody answers it; but until the link has lived on for a while, it may have led nowhere any more.
            self._unsure[held.id] = (now.at, to.peer, len(held.wire))
            self._unsure_bytes += len(held.wire)
            return True
        if not to.lane.room():
            return False
        known = self._passes.get(held.id) or self._passed.pop(held.id, None) or _Pass(held)
        self._passes[held.id] = known
        known.hop, known.at, known.stored, known.due = to.peer, now.at, False, None
        known.tried = (*known.tried, to.peer)
        to.lane.launch(held, now.at, out)
        return True

    def _sure(self, tx: MeshStore, now: Now) -> None:
        """Let go of receipts that went over links which have lived on, and of the oldest where there are many."""
        for id, (at, _, size) in list(self._unsure.items()):
            if now.at < at + SURE_MS and self._unsure_bytes <= UNSURE_BYTES:
                return
            del self._unsure[id]
            self._unsure_bytes -= size
            if (held := tx.held(id)) is not None:
                self._let_go(tx, held, now)

    def _let_go(self, tx: MeshStore, held: Held, now: Now) -> None:
        tx.release(held.id)
        self.gone.append(held.id)
        if not held.own:
            tx.remember(held.id, Fate.GONE, after_release(now.at))

    def came_from(self, ids: Iterable[EnvelopeId]) -> Neighbour | None:
        """Return who handed us what a receipt is for: the way on which the message came is one that works."""
        for id in ids:
            known = self._passes.get(id) or self._passed.get(id)
            if known is not None:
                return self._mesh(known.via)
        return None

    def _mesh(self, peer: bytes) -> Neighbour | None:
        """Return a neighbour that is no server."""
        neighbour = self._neighbours.find(peer)
        return None if neighbour is None or neighbour.address is None else neighbour

    def way_back(self, author: PeerKey, via: PeerKey, *, again: bool, now: Now) -> Neighbour | None:
        """Return where a receipt of ours for an author goes: best to ``via``, who brought the message.

        ``again``: an earlier receipt did not arrive, so that way it is, whatever routing says.
        """
        last, since = self._said.pop(author, (via, now.at)) if again else (via, now.at)
        if last != via:
            self._judge(last, author, since, now.at, arrived=False)
        ways = self._ways(author)
        back = self._mesh(via)
        to = back if back is not None and (again or back in ways) else next(iter(ways), None)
        if to is not None:
            self._said.pop(author, None)
            self._said[author] = (to.peer, now.at)
            _bound(self._said, ESTIMATES_MAX)
        return to

    # --- what became of it

    def answered(self, tx: MeshStore, result: Result, held: Held, peer: PeerKey, now: Now, out: list[Effect]) -> None:
        """A next hop answered for an envelope that is held here."""
        known = self._passes.get(held.id)
        if known is None or known.hop != peer:
            return
        if result.verdict in (Verdict.STORED, Verdict.DUPLICATE):
            self._resume(known.dst, now)
            if held.own:
                known.stored = True
                self._ask_anew(held.id, known, self._patience(known), now.at)
                return
            self._passed_on(tx, held.id, known, now)
            return
        if (found := self._choose(held, known.tried)) is not None and self._hand(tx, held, found, now, out):
            return
        known.hop = None
        if result.verdict is Verdict.DEFERRED:
            del self._passes[held.id]
            self._pause(known.dst, held.serial, now.at)
        else:
            self._give_up(held, known)
            self._ask_anew(held.id, known, PATIENCE_LAST_MS, now.at)

    def arrived(self, tx: MeshStore, held: Held, now: Now) -> None:
        """The recipient, a neighbour, has taken what was held for him; his receipt may still get lost."""
        known = _Pass(held)
        known.hop, known.at = known.dst, now.at
        self._passed_on(tx, held.id, known, now)

    def stored(self, tx: MeshStore, result: Result, peer: PeerKey, now: Now) -> bool:
        """Let go of others' mail that a next hop has stored; False: it is something else, to be looked at closely.

        What nearly always happens to what a relay holds, and so without reading it again.
        """
        known = self._passes.get(result.id)
        if known is None or known.hop != peer or not known.via:
            return False
        if result.verdict not in (Verdict.STORED, Verdict.DUPLICATE):
            return False
        self._resume(known.dst, now)
        self._passed_on(tx, result.id, known, now)
        return True

    def _resume(self, dst: PeerKey, now: Now) -> None:
        if (pause := self._pauses.get(dst)) is not None and now.at >= pause.until:
            del self._pauses[dst]

    def _passed_on(self, tx: MeshStore, id: EnvelopeId, known: _Pass, now: Now) -> None:
        tx.count("passed_on")
        tx.release(id)
        tx.remember(id, Fate.PASSED, after_release(now.at))
        self.gone.append(id)
        self._passes.pop(id, None)
        self._passed.pop(id, None)
        self._remember(id, known)

    def _remember(self, id: EnvelopeId, known: _Pass) -> None:
        self._passed[id] = known
        _bound(self._passed, PASSED_MAX)

    def _give_up(self, held: Held, known: _Pass) -> None:
        self.left.append(held)
        known.rounds += 1
        known.tried = ()
        self.gave_up = True
        # Perhaps receipts are only slow: then a way that is in order must not look like one that is not.
        self._learn(known.dst, min(SLOW_MS, self._patience(known)))

    def receipted(self, ids: Iterable[EnvelopeId], signer: PeerKey, via: PeerKey, now: Now) -> None:
        """A recipient's receipt for envelopes is here. It came the way they went: that next hop has kept its word."""
        kept = False
        for id in ids:
            known = self._passes.get(id) or self._passed.get(id)
            if known is None or known.dst != signer:
                continue
            if known.hop == via:
                kept = True
                if len(known.tried) == 1 and not known.rounds:
                    # Else nobody knows for which copy the receipt is (Karn's rule).
                    self._learn(known.dst, now.at - known.at)
            self._settled(id, known, now)
        if kept:
            self._judge(via, signer, now.at, now.at, arrived=True)

    def _settled(self, id: EnvelopeId, known: _Pass, now: Now) -> None:
        """No next hop owes us anything for an envelope; a copy that comes again late says that the receipt got lost."""
        self._passes.pop(id, None)
        self._passed.pop(id, None)
        if known.via:
            known.hop, known.tried, known.at = None, (), now.at
            self._remember(id, known)

    def repeated(
        self, tx: MeshStore, envelope: MeshEnvelope, via: PeerKey, policy: Policy, now: Now, out: list[Effect]
    ) -> None:
        """What was passed on comes again: after so long no receipt has reached its author, so another way is due.

        Its author waits for twice the expected time; who passed it on acts after once that time, or would be asleep.
        """
        recipient = self._neighbours.find(envelope.dst)
        if recipient is None and not self.reaches(envelope.dst):
            return
        known = self._passed.get(envelope.id)
        if known is not None and now.at < known.at + self._patience(known) // 2:
            return
        held = again(tx, envelope, via, policy, now)
        if held is None:
            return
        if recipient is not None:
            self._passed.pop(envelope.id, None)
            recipient.lane.backlog = True
            return
        tried: tuple[PeerKey, ...] = ()
        if known is not None:
            known.via = held.via  # its receipt goes to who asked last
            if known.hop is not None:
                self._judge(known.hop, known.dst, known.at, now.at, arrived=False)
            if len(known.tried) > OTHERS_MAX:
                known.tried = ()
            tried = known.tried
        found = self._choose(held, tried)
        if found is None and tried:
            assert known is not None
            known.tried = ()
            found = self._choose(held, ())
        if found is not None and not self._hand(tx, held, found, now, out):
            self.look(held.dst, held.serial - 1)

    def link_down(self, neighbour: Neighbour, tx: MeshStore) -> None:
        """What was under way over a link has to go another way, and so has what was for its other end."""
        for id in neighbour.lane.flying:
            held = tx.held(id)
            if held is None:
                continue
            known = self._passes.get(id)
            if known is not None and known.hop == neighbour.peer:
                del self._passes[id]
            self.look(held.dst, held.serial - 1)
        for id in [id for id, (_, hop, _) in self._unsure.items() if hop == neighbour.peer]:
            self._unsure_bytes -= self._unsure.pop(id)[2]
            if (held := tx.held(id)) is not None:
                self.look(held.dst, held.serial - 1)
        self.look(neighbour.peer)

    # --- time

    def _paused(self, dst: PeerKey, now: Instant) -> bool:
        pause = self._pauses.get(dst)
        return pause is not None and now < pause.until

    def _pause(self, dst: PeerKey, serial: int, now: Instant) -> None:
        pause = self._pauses.get(dst)
        if pause is None:
            pause = self._pauses[dst] = _Pause(Instant(now + PAUSE_FIRST_MS), serial)
        elif now < pause.until:
            pause.serial = min(pause.serial, serial)
            return
        else:
            pause.ms = min(2 * pause.ms, PAUSE_LAST_MS)
            pause.until, pause.serial = Instant(now + pause.ms), serial
        self._ready.pop(dst, None)
        if self._paused_until is None or pause.until < self._paused_until:
            self._paused_until = pause.until

    def _ask_anew(self, id: EnvelopeId, known: _Pass, after_ms: int, now: Instant) -> None:
        known.due = Instant(now + min(PATIENCE_LAST_MS, after_ms << min(known.rounds, 8)))
        heappush(self._due, (known.due, id))

    def _patience(self, known: _Pass) -> int:
        """Return twice the time in which a receipt can be expected."""
        return min(PATIENCE_LAST_MS, max(PATIENCE_FIRST_MS, 2 * self._estimates.get(known.dst, 0)))

    def _learn(self, dst: PeerKey, took_ms: int) -> None:
        """Remember how long receipts from a destination take: at once when it grows, slowly when it shrinks."""
        known = self._estimates.pop(dst, 0)
        self._estimates[dst] = max(took_ms, known - (known >> 3) + (took_ms >> 3))
        _bound(self._estimates, ESTIMATES_MAX)

    def deadline(self) -> Instant | None:
        """Return when :meth:`timers` has something to do."""
        times = [] if self._paused_until is None else [self._paused_until]
        if self._due:
            times.append(self._due[0][0])
        if self._unsure:
            times.append(Instant(next(iter(self._unsure.values()))[0] + SURE_MS))
        return min(times, default=None)

    def timers(self, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        """Take up again what has waited long enough."""
        self._sure(tx, now)
        if self._paused_until is not None and now.at >= self._paused_until:
            for dst, pause in self._pauses.items():
                if now.at >= pause.until and pause.serial:
                    self.look(dst, pause.serial - 1)
                    pause.serial = 0
            self._paused_until = min((p.until for p in self._pauses.values() if p.serial), default=None)
        while self._due and self._due[0][0] <= now.at:
            at, id = heappop(self._due)
            known = self._passes.get(id)
            if known is None or known.due != at:
                continue
            held = tx.held(id)
            if held is None or known.dst in self._neighbours:
                del self._passes[id]
                continue
            self._retry(tx, held, known, now, out)

    def _retry(self, tx: MeshStore, held: Held, known: _Pass, now: Now, out: list[Effect]) -> None:
        """No receipt came in time: another next hop, then, more and more slowly, all of them again."""
        if known.stored and known.hop is not None:
            self._judge(known.hop, known.dst, known.at, now.at, arrived=False)
        found = self._choose(held, known.tried) if len(known.tried) <= OTHERS_MAX else None
        if found is None:
            self._give_up(held, known)
            found = self._choose(held, ())
        known.hop = None
        if found is None or self._withheld(held) or not self._hand(tx, held, found, now, out):
            self._ask_anew(held.id, known, PATIENCE_FIRST_MS, now.at)


def _bound(table: dict[_K, _V], most: int) -> None:
    """Forget what was put in longest ago, where there is too much."""
    if len(table) > most:
        del table[next(iter(table))]
