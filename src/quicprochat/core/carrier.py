"""A link to a home server: it takes what is for others and reachable no better way, and keeps it for them."""

from __future__ import annotations

from collections.abc import Callable

from quicprochat.core.courier import BATCH, Lane
from quicprochat.core.envelope import Kind
from quicprochat.core.events import Effect, LinkId
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.outbox import Outbox
from quicprochat.core.store import Held, MeshStore
from quicprochat.core.time import Instant


class Taken:
    """What one server has answered for good in one of its epochs: this need not be offered to it again.

    Servers forget when they are restored from a backup, and say so by another epoch: then everything is offered anew.
    Held in memory only; after a restart of ours the server answers the same once more.
    """

    __slots__ = ("epoch", "ids")

    def __init__(self) -> None:
        self.epoch = b""
        self.ids: set[EnvelopeId] = set()

    def begin(self, epoch: bytes, tx: MeshStore) -> None:
        """A link to the server is up; what we no longer hold ourselves needs no remembering."""
        self.ids = {id for id in self.ids if tx.held(id) is not None} if epoch == self.epoch else set()
        self.epoch = epoch


class CarrierLane(Lane):
    """The traffic to a server: our own envelopes for whom there is no ``better`` way, as a link or a good route."""

    __slots__ = ("_better", "_taken")

    def __init__(
        self, link: LinkId, peer: PeerKey, window: int, now: Instant, taken: Taken, better: Callable[[Held], bool]
    ) -> None:
        super().__init__(link, peer, window, now)
        self._taken = taken
        self._better = better

    def fill(self, tx: MeshStore, outbox: Outbox, now: Instant, out: list[Effect]) -> None:
        """Hand over what has no better way, as far as the window goes; receipts too, until they are answered."""
        while self.backlog and self.room():
            found = tx.own(self.after, BATCH)
            self.backlog = len(found) == BATCH
            for held in found:
                if not self.room():
                    self.backlog = True
                    return
                self.after = held.serial
                if held.kind == Kind.CHANNEL or self._better(held):
                    continue  # posts go from subscriber to subscriber
                if held.id in self.flying or held.id in self._taken.ids:
                    continue
                if not outbox.withheld(held.id) and not outbox.upgrading(PeerKey(held.dst)):
                    self.hand(held, now, out)

    def took(self, id: EnvelopeId) -> None:
        """The server has answered for good."""
        self._taken.ids.add(id)
