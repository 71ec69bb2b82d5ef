"""Who was asked for what: one neighbour at a time, so that nothing comes twice though several have offered it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from quicprochat.core.encounter import Encounter, Want
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.time import SECOND_MS, Instant

ASK_MS = 30 * SECOND_MS
"""A neighbour that brings nothing it was asked for in this time: others that have offered the same are asked."""


class Asking:
    """What is asked for over all links of a node; ``wake`` is told who is to hear something new."""

    __slots__ = ("_encounters", "_has", "_of", "_wake")

    def __init__(
        self,
        encounters: Mapping[PeerKey, Encounter],
        has: Callable[[EnvelopeId], bool],
        wake: Callable[[PeerKey], None],
    ) -> None:
        self._encounters, self._has, self._wake = encounters, has, wake
        self._of: dict[EnvelopeId, PeerKey] = {}

    def came(self, id: EnvelopeId, now: Instant, *, here: bool = True) -> None:
        """Something came, whether it was asked for or not; it is ``here`` unless there was no room for it."""
        peer = self._of.pop(id, None)
        if peer is not None and (encounter := self._encounters.get(peer)) is not None:
            encounter.taking.asked.pop(id, None)
            encounter.taking.heard_at = now
            encounter.taking.late = False
            self._wake(peer)
            for other in self._encounters.values() if here else ():
                other.taking.settled(id)

    def expects(self, id: EnvelopeId) -> bool:
        """Say whether somebody was asked for this and has not brought it yet."""
        return id in self._of

    def decide(self, encounter: Encounter, now: Instant) -> Want | None:
        """Go through what a neighbour has offered; return what to answer, None for nothing new."""
        taking, ids = encounter.taking, []
        while (id := taking.undecided()) is not None:
            if self._has(id):
                taking.settled(id)
                continue
            if (asked := self._of.get(id)) is not None:
                if asked == encounter.peer:
                    continue
                if taking.late or not self._late(asked):
                    taking.put_off(id)
                    continue
                self._take_back(id, self._encounters[asked])
            if not taking.asked:
                taking.heard_at = now
            self._of[id] = encounter.peer
            taking.asked[id] = None
            ids.append(id)
        return taking.want(ids)

    def lost(self, encounter: Encounter) -> None:
        """A link is gone; what was asked for over it is asked for elsewhere."""
        for id in encounter.taking.asked:
            self._ask_another(id, encounter)

    def due(self, encounter: Encounter) -> Instant | None:
        """Return when a neighbour is late."""
        return Instant(encounter.taking.heard_at + ASK_MS) if encounter.taking.asked else None

    def give_up(self, encounter: Encounter, now: Instant) -> None:
        """Ask others for what is late, and tell this one; what nobody else has offered it may still bring."""
        taking = encounter.taking
        taking.late = True
        for id in list(taking.asked):
            if self._ask_another(id, encounter):
                del taking.asked[id]
                taking.put_off(id)
            else:
                self._of[id] = encounter.peer
        taking.heard_at = now
        self._wake(encounter.peer)

    def _ask_another(self, id: EnvelopeId, encounter: Encounter) -> bool:
        """Let another neighbour bring what this one was asked for; say whether one has offered it."""
        del self._of[id]
        others = [other for other in self._encounters.values() if other is not encounter and id in other.taking]
        for other in others:
            other.taking.again(id)
        for other in sorted(others, key=lambda other: other.taking.late):
            self._wake(other.peer)
        return bool(others)

    def _late(self, peer: PeerKey) -> bool:
        """Say whether a neighbour is late with everything since it was given up last."""
        encounter = self._encounters.get(peer)
        return encounter is not None and encounter.taking.late

    def _take_back(self, id: EnvelopeId, encounter: Encounter) -> None:
        """Somebody is there who may bring at once what a late neighbour was asked for."""
        encounter.taking.asked.pop(id, None)
        encounter.taking.put_off(id)
        self._wake(encounter.peer)
