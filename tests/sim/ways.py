"""Routes that see the whole world at once: the best that any routing could know, and lies where a test wants them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quicprochat.core.ids import PeerKey
from quicprochat.core.time import Instant
from quicprochat.sim.peer import Peer


class Omniscient:
    """One peer's next hops over the cables that are plugged, a hop costing its cable's round trip."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.bad: set[tuple[PeerKey, PeerKey]] = set()
        self._told: dict[PeerKey, Sequence[PeerKey]] = {}

    def next_hops(self, destination: PeerKey) -> Sequence[PeerKey]:
        """Return every neighbour through which the destination can be reached."""
        costs = self._costs(destination)
        if self.peer.key not in costs:
            return ()
        ways = []
        for cable in self.peer.cables:
            far = cable.ends[0] if cable.ends[1] is self.peer else cable.ends[1]
            cost = costs.get(far.key)
            if cable.links and cost is not None:
                ways.append((far.key, cost + 2 * cable.latency_ms))
        return [hop for hop, cost in sorted(ways, key=lambda way: ((destination, way[0]) in self.bad, way[1], way[0]))]

    def _costs(self, destination: PeerKey) -> dict[PeerKey, int]:
        peers = {peer.key: peer for peer in self.peer.world.peers}
        costs, todo = {destination: 0}, [destination]
        while todo:
            here = peers[todo.pop(0)]
            for cable in here.cables:
                for far in cable.ends:
                    cost = costs[here.key] + 2 * cable.latency_ms
                    if cable.links and cost < costs.get(far.key, 1 << 60):
                        costs[far.key] = cost
                        todo.append(far.key)
        return costs

    def changed(self) -> Iterable[PeerKey]:
        """Return whose ways are other ones than before; the node must take a step to ask."""
        found = {peer.key: self.next_hops(peer.key) for peer in self.peer.world.peers}
        changed = [key for key, ways in found.items() if ways != self._told.get(key, ())]
        self._told = found
        return changed

    def judge(
        self, neighbour: PeerKey, destination: PeerKey, arrived: bool, now: Instant, since: Instant | None = None
    ) -> None:
        """Put a next hop that was of no use behind the others."""
        (self.bad.discard if arrived else self.bad.add)((destination, neighbour))


def omniscient(*peers: Peer) -> None:
    """Give peers routes."""
    for peer in peers:
        peer.hops = Omniscient(peer)
