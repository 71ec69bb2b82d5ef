"""A link to a home server: it takes what is for others and reachable no better way, and keeps it for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from quicprochat.core.courier import BATCH, Lane
from quicprochat.core.envelope import Kind
from quicprochat.core.events import Effect, LinkId, SendEnvelope
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.outbox import Outbox
from quicprochat.core.store import Held, MeshStore
from quicprochat.core.time import Instant


class Taken:
    """What one server has answered for good in one of its epochs, and under which domain it was offered.

    This need not be offered to it again, unless its recipient is found to live elsewhere. Servers forget when they are
    restored from a backup, and say so by another epoch: then everything is offered anew. Held in memory only; after a
    restart of ours the server answers the same once more.
    """

    __slots__ = ("domains", "epoch")

    def __init__(self) -> None:
        self.epoch = b""
        self.domains: dict[EnvelopeId, str] = {}

    def begin(self, epoch: bytes, tx: MeshStore) -> None:
        """A link to the server is up; what we no longer hold ourselves needs no remembering."""
        known = self.domains if epoch == self.epoch else {}
        self.domains = {id: domain for id, domain in known.items() if tx.held(id) is not None}
        self.epoch = epoch


class CarrierLane(Lane):
    """The traffic to a server: our own envelopes for whom there is no ``better`` way, as a link or a good route."""

    __slots__ = ("_asked", "_better", "_moved", "_stale", "_taken")

    def __init__(
        self, link: LinkId, peer: PeerKey, window: int, now: Instant, taken: Taken, better: Callable[[Held], bool]
    ) -> None:
        super().__init__(link, peer, window, now)
        self._taken = taken
        self._better = better
        self._asked: dict[EnvelopeId, str] = {}
        self._moved: dict[PeerKey, int] = {}
        self._stale: set[EnvelopeId] = set()

    def fill(self, tx: MeshStore, outbox: Outbox, now: Instant, out: list[Effect]) -> None:
        """Hand over what has no better way, as far as the window goes; receipts too, until they are answered."""
        self._fill_moved(tx, outbox, now, out)
        homes: dict[bytes, str] = {}
        while self.backlog and self.room():
            found = tx.own(self.after, BATCH)
            self.backlog = len(found) == BATCH
            for held in found:
                if not self.room():
                    self.backlog = True
                    return
                self.after = held.serial
                if held.kind == Kind.CHANNEL or held.id in self.flying or self._better(held):
                    continue  # posts go from subscriber to subscriber
                if held.dst not in homes:
                    homes[held.dst] = _domain(tx, held.dst)
                self._hand_at(held, homes[held.dst], outbox, now, out)

    def _hand_at(self, held: Held, domain: str, outbox: Outbox, now: Instant, out: list[Effect]) -> None:
        """Hand an envelope over for a domain, unless the server has it for that one or it is about to change."""
        if self._taken.domains.get(held.id) == domain:
            return
        if not outbox.withheld(held.id) and not outbox.upgrading(PeerKey(held.dst)):
            self._asked[held.id] = domain
            self.launch(held, now, out)

    def offer(self, held: Held, now: Instant) -> SendEnvelope:
        """Return what hands an envelope over, with the domain that was last heard of its recipient."""
        return SendEnvelope(self.link, held.to_send(now), self._asked.get(held.id, ""))

    # --- recipients who live elsewhere than was thought

    def moved(self, peers: Iterable[PeerKey]) -> None:
        """Offer anew what waits for these: only that, since any stranger's message can say that he moved."""
        for peer in peers:
            self._moved[peer] = 0
            self.backlog = True

    def _fill_moved(self, tx: MeshStore, outbox: Outbox, now: Instant, out: list[Effect]) -> None:
        for peer in sorted(self._moved):
            domain = _domain(tx, peer)
            while found := tx.waiting(peer, self._moved[peer], BATCH):
                for held in found:
                    if not self.room():
                        return
                    self._moved[peer] = held.serial
                    if held.id in self.flying:
                        self._stale.add(held.id)
                    elif held.own and not self._better(held):
                        self._hand_at(held, domain, outbox, now, out)
            del self._moved[peer]

    def answered(self, id: EnvelopeId, now: Instant) -> None:
        """The server, or a receipt, has answered for an envelope."""
        super().answered(id, now)
        self._asked.pop(id, None)
        if id in self._stale:
            self._stale.remove(id)
            self.look_again()
        elif self._moved:
            self.backlog = True

    def took(self, id: EnvelopeId) -> bool:
        """The server has answered for good; False: under a domain that is no longer the recipient's.

        To be told before :meth:`answered`.
        """
        if id not in self._stale:
            self._taken.domains[id] = self._asked.get(id, "")
        return id not in self._stale


def _domain(tx: MeshStore, dst: bytes) -> str:
    home = tx.home(PeerKey(dst))
    return home.domain if home is not None else ""
