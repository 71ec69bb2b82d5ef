"""Carriers in one process, with what a node does around them: a store that is a dict, and links that are lists."""

from __future__ import annotations

from hashlib import sha256

from quicprochat.core.carry import Carry, CarryLimits
from quicprochat.core.entries import entry_of
from quicprochat.core.envelope import Kind
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.shelf import Parcel
from quicprochat.core.time import Instant
from quicprochat.sim.crypto import SimEntropy

LATER = Instant(10**9)
ROOM = 1 << 40


def key(name: str) -> PeerKey:
    return PeerKey(sha256(name.encode()).digest())


def parcel(
    name: str, src: str = "author", dst: str = "reader", via: str = "", *, kind: int = Kind.MESSAGE, size: int = 775,
    created: int = 1_000, kept: bool = False, expires_at: Instant = LATER,
) -> Parcel:  # fmt: skip
    id = EnvelopeId(sha256(b"envelope " + name.encode()).digest())
    return Parcel(entry_of(created, id), kind, key(src), key(dst), size, key(via or src), expires_at, kept)


class Carrier:
    """One node: what comes in is held, unless it is for this node."""

    def __init__(self, name: str, limits: CarryLimits | None = None, *, lasting: bool = False) -> None:
        self.name = name
        self.key = key(name)
        self.carry = Carry(self.key, SimEntropy(name.encode()), limits or CarryLimits(), lasting=lasting)
        self.came: list[EnvelopeId] = []
        """Every envelope that came over a link, in order."""
        self.bytes_sent = 0
        self.said: list[int] = []
        """The kinds of frames it sent, in order; 0 for an envelope."""

    def hold(self, one: Parcel, now: int = 0) -> list[EnvelopeId]:
        return self.carry.hold(one, Instant(now))

    def take_in(self, one: Parcel, via: PeerKey, now: Instant) -> None:
        self.came.append(one.id)
        if one.dst == self.key:
            self.carry.seen(one.entry, one.id, one.expires_at, now)
        else:
            self.carry.hold(Parcel(one.entry, one.kind, one.src, one.dst, one.size, via, one.expires_at), now)


class Net:
    """Carriers by key, and the parcels of the world."""

    def __init__(self, *carriers: Carrier) -> None:
        self.carriers = {carrier.key: carrier for carrier in carriers}
        self.parcels: dict[EnvelopeId, Parcel] = {}
        self.links: set[tuple[PeerKey, PeerKey]] = set()

    def write(self, carrier: Carrier, one: Parcel, now: int = 0) -> EnvelopeId:
        self.parcels[one.id] = one
        carrier.hold(one, now)
        return one.id

    def link(self, one: Carrier, other: Carrier, now: int = 0) -> None:
        self.links |= {(one.key, other.key), (other.key, one.key)}
        one.carry.link_up(other.key, Instant(now))
        other.carry.link_up(one.key, Instant(now))

    def cut(self, one: Carrier, other: Carrier, now: int = 0) -> None:
        self.links -= {(one.key, other.key), (other.key, one.key)}
        one.carry.link_down(other.key, Instant(now))
        other.carry.link_down(one.key, Instant(now))

    def settle(self, now: int = 0, envelopes: int = 10**9) -> int:
        """Let everything happen; at most so many envelopes are handed over. Returns how many were."""
        at, handed, busy = Instant(now), 0, True
        while busy:
            busy = False
            for carrier in self.carriers.values():
                for say in carrier.carry.poll(at):
                    busy = True
                    carrier.bytes_sent += len(say.body) + 5
                    carrier.said.append(say.kind)
                    if (carrier.key, say.peer) in self.links:
                        self.carriers[say.peer].carry.received(carrier.key, say.kind, say.body, at)
                for peer in [peer for one, peer in sorted(self.links) if one == carrier.key]:
                    while handed < envelopes and (next := carrier.carry.take(peer, 775, at)):
                        busy = True
                        for id in next:
                            handed += 1
                            carrier.said.append(0)
                            self.carriers[peer].take_in(self.parcels[id], carrier.key, at)
        return handed
