"""Posts for home servers: each is given what we wrote into channels that it follows for us, and what came elsewhere.

A server is no subscriber. It is told which channels we are in, keeps their posts for its users, and says which of them
it follows now. Our own posts go there at once. Others' follow a little later, each node's a little differently: their
author, or somebody nearer, has mostly given them by then, and the server has handed them to us too. What came from a
server never goes back to it. How a server is asked what it lacks is the link's affair (docs/home-server.md).
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Set as AbstractSet

from quicprochat.core.courier import DEFERRED_MS, IN_FLIGHT_BYTES, RETRY_LAST_MS, Lane
from quicprochat.core.events import Effect, PostTaken, SendInterest
from quicprochat.core.gate import Verdict
from quicprochat.core.ids import ChannelId, EnvelopeId, PeerKey
from quicprochat.core.link import INTEREST_MAX, Result
from quicprochat.core.store import Held, MeshStore
from quicprochat.core.time import Instant

BATCH = 256
IN_FLIGHT = 256
"""Posts handed to one server and not yet answered; the rest of its window is left to messages."""
PATIENCE_MS, SPREAD_MS = 500, 2_000
"""How long somebody else may give a server a post first: at least, and how much longer at most (guesses)."""
HAS_MAX = 4_096
"""Posts of which it is remembered that a server has them."""


class _Server:
    """What one server follows for us, and how far it has come; kept while its link is down.

    ``own`` and ``others`` are serials of our store up to which our posts, and those of others, were handed over.
    """

    __slots__ = ("again", "again_at", "again_ms", "busy", "due", "epoch", "flying", "follows", "has", "others", "own",
                 "resume", "told")  # fmt: skip

    def __init__(self, epoch: bytes) -> None:
        self.epoch = epoch
        self.told: tuple[ChannelId, ...] | None = None
        self.follows: frozenset[ChannelId] = frozenset()
        self.own: dict[ChannelId, int] = {}
        self.others: dict[ChannelId, int] = {}
        self.busy: set[ChannelId] = set()
        self.due: dict[ChannelId, Instant] = {}
        self.flying: dict[EnvelopeId, ChannelId] = {}
        self.again: dict[EnvelopeId, ChannelId] = {}
        self.again_at: Instant | None = None
        self.resume = False
        """True when ``again`` is to be offered as soon as there is room."""
        self.again_ms = DEFERRED_MS
        self.has: dict[EnvelopeId, None] = {}

    def unlink(self) -> None:
        """The link is gone: what was under way is offered again on the next."""
        self.again |= self.flying
        self.flying.clear()
        self.due.clear()
        self.told, self.follows, self.again_at, self.resume = None, frozenset(), None, False


class Uplink:
    """The servers that keep posts for us: one, or two while we move."""

    def __init__(self, me: PeerKey) -> None:
        self._me = int.from_bytes(me[:4], "big")
        self._servers: dict[PeerKey, _Server] = {}

    def link_up(self, peer: PeerKey, epoch: bytes) -> None:
        """A server is there. With another epoch than before it may have forgotten what it had."""
        server = self._servers.get(peer)
        if server is not None:
            server.unlink()
        if server is None or server.epoch != epoch:
            self._servers[peer] = _Server(epoch)

    def link_down(self, peer: PeerKey) -> None:
        """A server is gone."""
        if (server := self._servers.get(peer)) is not None:
            server.unlink()

    def follows(self, peer: PeerKey, channels: Collection[ChannelId]) -> None:
        """A server says which channels it follows for us, all of them."""
        server = self._servers[peer]
        server.follows = frozenset(channels)
        server.busy |= server.follows
        server.resume = bool(server.again)

    def news(self, channel: ChannelId) -> None:
        """There is a post that was not there before."""
        for server in self._servers.values():
            if channel in server.follows:
                server.busy.add(channel)

    def has(self, peer: PeerKey, id: EnvelopeId) -> None:
        """A server has handed us a post that we had already."""
        if (server := self._servers.get(peer)) is not None:
            server.has[id] = None
            if len(server.has) > HAS_MAX:
                del server.has[next(iter(server.has))]

    # --- handing over

    def fill(
        self, tx: MeshStore, lane: Lane, joined: AbstractSet[ChannelId], now: Instant, out: list[Effect]
    ) -> None:  # fmt: skip
        """Tell a server which channels we are in if that has changed, and hand it posts as far as its window goes."""
        server = self._servers[lane.peer]
        if not lane.window:
            return
        wanted = tuple(sorted(joined)[:INTEREST_MAX])
        if server.told != wanted and (wanted or server.told):
            out.append(SendInterest(lane.link, wanted))
            server.told = wanted
        # What is due now waits for room from here on, and no longer for a moment.
        if server.again_at is not None and server.again_at <= now:
            server.again_at, server.resume = None, True
        for id in [id for id, at in server.due.items() if at <= now]:
            del server.due[id]
            server.busy.add(id)
        if server.resume and not self._hand_again(tx, lane, server, now, out):
            return
        for id in sorted(server.busy & server.follows & joined):
            if not (
                self._hand_own(tx, lane, server, id, now, out) and self._hand_others(tx, lane, server, id, now, out)
            ):
                return
            server.busy.discard(id)

    def _hand_again(self, tx: MeshStore, lane: Lane, server: _Server, now: Instant, out: list[Effect]) -> bool:
        for id, channel in tuple(server.again.items()):
            if not _room(lane, server):
                return False
            del server.again[id]
            held = tx.held(id)
            if held is not None and channel in server.follows:
                _launch(lane, server, held, now, out)
        server.resume = False
        return True

    @staticmethod
    def _hand_own(
        tx: MeshStore, lane: Lane, server: _Server, id: ChannelId, now: Instant, out: list[Effect]
    ) -> bool:  # fmt: skip
        while found := tx.waiting(id, server.own.get(id, 0), BATCH):
            for held in found:
                if held.own and not _room(lane, server):
                    return False
                server.own[id] = held.serial
                if held.own:
                    _launch(lane, server, held, now, out)
            if len(found) < BATCH:
                break
        return True

    def _hand_others(
        self, tx: MeshStore, lane: Lane, server: _Server, id: ChannelId, now: Instant, out: list[Effect]
    ) -> bool:  # fmt: skip
        while found := tx.waiting(id, server.others.get(id, 0), BATCH):
            for held in found:
                lacks = not held.own and held.via != lane.peer and held.id not in server.has
                if lacks and (at := self._patient_until(held)) > now:
                    server.due[id] = at
                    return True
                if lacks and not _room(lane, server):
                    return False
                server.others[id] = held.serial
                if lacks:
                    _launch(lane, server, held, now, out)
            if len(found) < BATCH:
                break
        return True

    def _patient_until(self, held: Held) -> Instant:
        """Return when we give a server somebody else's post: other nodes at another moment, so mostly one gives it."""
        apart = (int.from_bytes(held.id[:4], "big") ^ self._me) % SPREAD_MS
        return Instant(held.stored_at + PATIENCE_MS + apart)

    def answered(self, peer: PeerKey, result: Result, now: Instant, out: list[Effect]) -> bool:
        """Take a server's answer to a post; False when it is about something else."""
        server = self._servers[peer]
        channel = server.flying.pop(result.id, None)
        if channel is None:
            return False
        if result.verdict in (Verdict.STORED, Verdict.DUPLICATE):
            server.again_ms = DEFERRED_MS
            out.append(PostTaken(result.id, peer))
        elif result.verdict is Verdict.DEFERRED:
            server.again[result.id] = channel
            if server.again_at is None:
                server.again_at = Instant(now + server.again_ms)
                server.again_ms = min(2 * server.again_ms, RETRY_LAST_MS)
        return True

    def deadline(self) -> Instant | None:
        """Return when :meth:`fill` has something to do again, if nothing happens before."""
        times = [at for server in self._servers.values() for at in server.due.values()]
        times += [server.again_at for server in self._servers.values() if server.again_at is not None]
        return min(times, default=None)


def _room(lane: Lane, server: _Server) -> bool:
    if len(server.flying) >= IN_FLIGHT:
        # Some may have left the window, and then nobody waits for their answer any more.
        server.flying = {id: of for id, of in server.flying.items() if id in lane.flying}
    return len(server.flying) < IN_FLIGHT and lane.room() and lane.flying_bytes < IN_FLIGHT_BYTES // 2


def _launch(lane: Lane, server: _Server, held: Held, now: Instant, out: list[Effect]) -> None:
    if held.expires_at > now and held.id not in server.flying:
        server.flying[held.id] = ChannelId(held.dst)
        lane.launch(held, now, out)
