"""Carrying: what to hand to whom when two nodes meet, so that mail gets where no path leads.

Epidemic within the lifetime: whoever meets a node gets what it lacks, because messages are small and everything
cleverer loses some of what is reachable. What one side may lack, and what comes in while the link lives, is offered in
the order of its use, asked for (``asking.py``) and handed over (``encounter.py``). Where that would be many, both sides
compare what they have (``reconcile.py``); what a neighbour once said it has is remembered (``acquaintance.py``).
How much an encounter will carry nobody knows beforehand, so the most useful is said first and a little at a time, and
nothing is compared before the foremost has crossed. Links that last are compared at once.
Receipts travel in the same way and cure: a copy whose recipient has signed for it is let go of
(``cures.py``).

Nothing here reads or keeps an envelope's bytes. The caller judges what comes in at its gate, stores it, and tells:

* :meth:`Carry.hold` what is stored and may be handed on; :meth:`Carry.seen` what is known and not held;
  :meth:`Carry.release` what is no longer held; :meth:`Carry.unwelcome` what came and was put off;
* :meth:`Carry.link_up`, :meth:`Carry.received`, :meth:`Carry.link_down` what happens on links;
* then asks :meth:`Carry.poll` which frames to send, and :meth:`Carry.take` what to hand over next, as far as its
  window allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from heapq import nsmallest

from quicprochat.core.acquaintance import IDS_MAX, Acquaintances
from quicprochat.core.asking import Asking
from quicprochat.core.crypto import Entropy
from quicprochat.core.cures import Cures
from quicprochat.core.encounter import (
    AHEAD_FIRST,
    LASTING_FIRST,
    OFFER_MAX,
    Encounter,
    Rank,
    Want,
    decode_offer,
    encode_offer,
)
from quicprochat.core.entries import Entry, EntrySet
from quicprochat.core.envelope import Kind
from quicprochat.core.errors import WireError
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.likely import Likely
from quicprochat.core.link import FrameType
from quicprochat.core.reconcile import SALT_BYTES, Ranges, Reconciler
from quicprochat.core.shelf import Parcel, Shelf
from quicprochat.core.time import MINUTE_MS, Instant

AGAIN_MS = 10 * MINUTE_MS
"""Reconciling again on a link that lives: 45 bytes when all is well, and whatever was missed is found."""
DIRECT_MAX = 32
"""So few envelopes that a neighbour may lack are offered without comparing."""
FOREMOST = 8
"""Of more, so many are offered before comparing begins: with 1,000 bytes to an encounter, a message or a comparing."""
CANDIDATES = 512
"""Among so many, those that came last, the foremost are looked for."""


@dataclass(frozen=True, slots=True)
class Say:
    """A frame to send to a neighbour."""

    peer: PeerKey
    kind: FrameType
    body: bytes


@dataclass(frozen=True, slots=True)
class CarryLimits:
    """Bounds of strangers' mail."""

    bytes: int = 64 << 20
    count: int = 1 << 20


def nothing_known(id: EnvelopeId) -> bool:
    """Say that an id was never seen: the answer of a node without a longer memory than Carry's own."""
    return False


class Carry:
    """One node's part in carrying."""

    __slots__ = (
        "_acquaintances",
        "_anew",
        "_asking",
        "_cures",
        "_dirty",
        "_encounters",
        "_entries",
        "_entropy",
        "_evicted",
        "_known",
        "_lasting",
        "_likely",
        "_say",
        "_shelf",
        "contacts",
        "idle",
        "me",
    )  # fmt: skip

    def __init__(
        self,
        me: PeerKey,
        entropy: Entropy,
        limits: CarryLimits = CarryLimits(),
        known: Callable[[EnvelopeId], bool] = nothing_known,
        *,
        lasting: bool = False,
    ) -> None:
        """``known`` says whether an id was seen, however long ago; it may read the store.

        ``lasting``: links are those of a network, not encounters, and need not be used as if each moment were the last.
        """
        self.me = me
        self._lasting = lasting
        self.contacts: frozenset[bytes] = frozenset()
        self._anew = False
        self.idle = False
        """True where an empty set is not worth comparing: nobody here asks for what it is about."""
        self._entropy = entropy
        self._known = known
        self._entries = EntrySet()
        self._shelf = Shelf(limits.bytes, limits.count)
        self._cures = Cures()
        self._likely = Likely()
        self._encounters: dict[PeerKey, Encounter] = {}
        self._asking = Asking(self._encounters, self._has, self._wake)
        self._evicted: dict[EnvelopeId, bytes] = {}
        """Recipients of what made room, so that a cure for it can be believed."""
        self._dirty: dict[PeerKey, None] = {}
        self._say: list[Say] = []
        self._acquaintances = Acquaintances()

    def _has(self, id: EnvelopeId) -> bool:
        return id in self._entries or self._known(id)

    def _wake(self, peer: PeerKey) -> None:
        self._dirty[peer] = None

    # --- what the node has

    def hold(self, parcel: Parcel, now: Instant, *, offer: bool = True) -> list[EnvelopeId]:
        """An envelope is in the store and may be handed on; return what must leave the store, at times itself.

        Without ``offer`` the neighbours of this moment are offered it only by :meth:`offer`.
        """
        id = parcel.id
        self._entries.add(parcel.entry, parcel.expires_at)
        self._shelf.put(parcel)
        gone = []
        while self._shelf.over and (victim := self._shelf.victim(lambda one: self._worth(one, now))) is not None:
            self._shelf.pop(victim.id)
            self._evicted[victim.id] = victim.dst
            gone.append(victim.id)
        self._asking.came(id, now)
        for encounter in self._encounters.values():
            if encounter.reconciler is not None:
                encounter.young = encounter.young or []
                if len(encounter.young) <= IDS_MAX:
                    encounter.young.append(id)
        if offer and id in self._shelf:
            for peer in self._encounters:
                if peer != parcel.via:
                    self.offer(peer, id)
        return gone

    def offer(self, peer: PeerKey, id: EnvelopeId) -> None:
        """Let a neighbour be offered what is held, unless it is known to have it."""
        encounter, parcel = self._encounters.get(peer), self._shelf.get(id)
        if encounter is not None and parcel is not None and id not in encounter.known and not _wrote(peer, parcel):
            encounter.giving.queue(self._rank(parcel, encounter), id)
            self._dirty[peer] = None

    def has(self, peer: PeerKey, id: EnvelopeId) -> None:
        """A neighbour has shown that it has an envelope, or does not want it."""
        encounter = self._encounters.get(peer)
        if encounter is not None:
            encounter.known.has((id,), self._shelf.ids())

    def carried(self, peer: PeerKey, id: EnvelopeId) -> None:
        """An envelope has crossed the link, either way: the neighbour has it, and may be offered more at once."""
        self.has(peer, id)
        if (encounter := self._encounters.get(peer)) is not None:
            encounter.giving.carried += 1

    def known_to(self, peer: PeerKey, id: EnvelopeId) -> bool:
        """Say whether a neighbour is known to have an envelope."""
        encounter = self._encounters.get(peer)
        return encounter is not None and id in encounter.known

    def seen(self, entry: Entry, id: EnvelopeId, expires_at: Instant, now: Instant, *, settled: bool = False) -> None:
        """An envelope is known and not held: delivered here, cured, or refused for good.

        ``settled``: its recipient's receipt is here too, or ours is made now; then the receipt stands for both.
        """
        self._entries.add(entry, expires_at)
        if settled:
            self._entries.settle(id)
        self._asking.came(id, now)

    def begin_anew(self) -> None:
        """Forget what was seen and is not held: it is wanted from now on. The next comparing finds it."""
        self._anew = True
        self._entries = EntrySet()
        for id in self._shelf.ids():
            parcel = self._shelf.get(id)
            assert parcel is not None
            self._entries.add(parcel.entry, parcel.expires_at)

    def expects(self, id: EnvelopeId) -> bool:
        """Say whether a neighbour was asked for an envelope and has not brought it yet."""
        return self._asking.expects(id)

    def unwelcome(self, id: EnvelopeId, now: Instant) -> None:
        """An envelope came and there was no room for it: do not wait for it any longer, on this link."""
        self._asking.came(id, now, here=False)

    def release(self, id: EnvelopeId) -> None:
        """An envelope is not held any more; that it was seen stays."""
        self._shelf.pop(id)

    def cured(self, ids: Iterable[EnvelopeId], signer: PeerKey, via: PeerKey, until: Instant) -> list[EnvelopeId]:
        """A receipt says that its signer has these envelopes; return those to let go of.

        Only what was addressed to the signer is believed; what has not been here yet is kept in mind (``until``).
        """
        gone = []
        for id in ids:
            parcel = self._shelf.get(id)
            if parcel is not None:
                if parcel.dst == signer:
                    self._shelf.pop(id)
                    self._entries.settle(id)
                    gone.append(id)
            elif id not in self._entries:
                self._cures.add(id, signer, via, until)
            elif self._evicted.get(id) == signer:
                del self._evicted[id]
                self._entries.settle(id)
        return gone

    def is_cured(self, id: EnvelopeId, recipient: bytes) -> bool:
        """Say whether the recipient of this envelope has signed for it: then it is seen, and not worth holding."""
        return self._cures.known(id, recipient)

    def _worth(self, parcel: Parcel, now: Instant) -> tuple[float, ...]:
        return (-parcel.handed, self._likely.of(parcel.dst, now))

    def _rank(self, parcel: Parcel, encounter: Encounter) -> Rank:
        if parcel.kind == Kind.CHANNEL:
            return (parcel.order,)
        if parcel.dst == encounter.peer:
            group = 0
        elif parcel.src == self.me and parcel.kind != Kind.RECEIPT:
            group = 1
        elif parcel.src in self.contacts or parcel.dst in self.contacts:
            group = 2
        else:
            group = 3
        return (group, parcel.handed)

    # --- links

    def link_up(self, peer: PeerKey, now: Instant, *, fresh: bool = False, speaks: bool = False) -> None:
        """A link came up: what is little is offered at once, and where that is much both sides compare.

        ``fresh``: the neighbour has lost its memory. ``speaks``: both have said already that they carry.
        """
        self.link_down(peer, now)
        self._entries.expire(now)
        if fresh:
            self._acquaintances.forget(peer)
        known = self._acquaintances.meet(peer)
        first = LASTING_FIRST if self._lasting else AHEAD_FIRST
        self._encounters[peer] = encounter = Encounter(peer, known, Instant(now + AGAIN_MS), first)
        encounter.speaks = encounter.greeted = speaks
        self._likely.met(peer, now)
        direct = known.perhaps_lacking(self._shelf.ids(), DIRECT_MAX)
        if (direct is None and self._lasting) or (self._anew and not len(self._entries)):
            # Who holds nothing any more compares, for neighbours do not know that.
            self._begin(encounter, now)
        if direct is None:
            # What is for the peer itself need not wait for what comes of comparing.
            direct = {parcel.id for parcel in self._shelf.addressed_to(peer)}
            if not self._lasting:
                direct |= self._foremost(encounter, now)
                encounter.unsure = True
        for id in direct:
            parcel = self._shelf.get(id)
            if parcel is not None and parcel.expires_at > now and not _wrote(peer, parcel):
                encounter.giving.queue(self._rank(parcel, encounter), id)
        self._dirty[peer] = None

    def _foremost(self, encounter: Encounter, now: Instant) -> set[EnvelopeId]:
        """Return the most useful of what a neighbour may lack."""
        known, rank = encounter.known, self._rank
        found = self._shelf.newest(CANDIDATES)
        open = [(rank(one, encounter), id) for id, one in found if id not in known and one.expires_at > now]
        return {id for _, id in nsmallest(FOREMOST, open)}

    def _begin(self, encounter: Encounter, now: Instant) -> None:
        salt = self._entropy(SALT_BYTES)
        encounter.reconciler = Reconciler(self._entries, salt)
        encounter.begun_at, encounter.again_at = now, Instant(now + AGAIN_MS)
        encounter.greeted, encounter.unsure = True, False
        encounter.giving.again()
        self._say.append(Say(encounter.peer, FrameType.RANGES, encounter.reconciler.begin(salt).encode()))

    def link_down(self, peer: PeerKey, now: Instant) -> None:
        """A link is gone; what was asked for over it is asked for elsewhere."""
        encounter = self._encounters.pop(peer, None)
        if encounter is not None:
            encounter.known.keep(self._shelf.ids())
            self._asking.lost(encounter)
            self._dirty.pop(peer, None)
            self._say = [say for say in self._say if say.peer != peer]

    def linked(self, peer: PeerKey) -> bool:
        """Say whether a link to this neighbour is up."""
        return peer in self._encounters

    def received(self, peer: PeerKey, kind: int, body: bytes, now: Instant) -> list[EnvelopeId]:
        """A frame of carrying came; return what the neighbour wants. Raises: WireError, which ends the link."""
        encounter = self._encounters.get(peer)
        wanted: list[EnvelopeId] = []
        if encounter is None:
            return wanted
        encounter.speaks = True
        self._dirty[peer] = None
        match kind:
            case FrameType.RANGES:
                self._ranges(encounter, Ranges.decode(body), now)
            case FrameType.OFFER:
                encounter.taking.offered(ids := decode_offer(body))
                encounter.known.has(ids, self._shelf.ids())
            case FrameType.WANT:
                wanted, got = encounter.giving.answered(Want.decode(body))
                encounter.known.has(got, self._shelf.ids())
                for id in wanted:
                    if (parcel := self._shelf.get(id)) is not None:
                        encounter.giving.want(self._rank(parcel, encounter), id)
        return wanted

    def _ranges(self, encounter: Encounter, ranges: Ranges, now: Instant) -> None:
        if ranges.step == 0:
            both = encounter.reconciler is not None and encounter.reconciler.ours
            if both and self.me < encounter.peer:
                return
            began = encounter.begun_at
            if began is not None and now < began + AGAIN_MS // 2 and not both:
                raise WireError("a reconciliation begun again too soon")
            encounter.reconciler = Reconciler(self._entries, ranges.salt)
            encounter.begun_at, encounter.again_at = now, Instant(now + AGAIN_MS)
            encounter.greeted = True
            encounter.unsure = False
            encounter.giving.again()
        if encounter.reconciler is None:
            raise WireError("a reconciliation that nobody began")
        found = encounter.reconciler.heard(ranges)
        for entry in found.lacking:
            parcel = self._shelf.get(EnvelopeId(entry[8:]))
            if parcel is not None and parcel.expires_at > now and not _wrote(encounter.peer, parcel):
                encounter.known.lacks(parcel.id)
                encounter.giving.queue(self._rank(parcel, encounter), parcel.id)
        if found.reply is not None:
            self._say.append(Say(encounter.peer, FrameType.RANGES, found.reply.encode()))
        if encounter.reconciler.done:
            encounter.reconciler = None
            young, encounter.young = encounter.young or [], None
            if found.complete and max(len(self._shelf), len(young)) <= IDS_MAX:
                held = self._shelf.ids()
                encounter.known.has(held - encounter.giving.pending().union(young), held)

    # --- what to do next

    def poll(self, now: Instant) -> list[Say]:
        """Return the frames to send, in their order."""
        while self._dirty:
            peer = next(iter(self._dirty))
            del self._dirty[peer]
            encounter = self._encounters[peer]
            if encounter.greeted and not encounter.speaks:
                continue
            want, ids = self._asking.decide(encounter, now), encounter.giving.offers(self._shelf)
            if encounter.unsure and encounter.giving.sounded(DIRECT_MAX):
                self._begin(encounter, now)
            if want is None and not ids and not encounter.greeted:
                want = Want(0, ())
            if want is not None:
                self._say.append(Say(peer, FrameType.WANT, want.encode()))
            if ids:
                self._say.append(Say(peer, FrameType.OFFER, encode_offer(ids)))
            encounter.greeted = True
        out, self._say = self._say, []
        return out

    def open(self, peer: PeerKey) -> int:
        """Return how many offers of a neighbour are remembered."""
        encounter = self._encounters.get(peer)
        return len(encounter.taking) if encounter is not None else 0

    def spent(self) -> list[PeerKey]:
        """Return the neighbours that cannot be offered anything more over the links of this moment."""
        return [peer for peer, encounter in self._encounters.items() if encounter.giving.spent]

    def __len__(self) -> int:
        """Return how many envelopes may be handed on."""
        return len(self._shelf)

    def wanted(self, peer: PeerKey) -> bool:
        """Say whether a neighbour waits for something that it wants."""
        encounter = self._encounters.get(peer)
        return encounter is not None and encounter.giving.next() is not None

    def take(self, peer: PeerKey, room_bytes: int, now: Instant, most: int = OFFER_MAX) -> list[EnvelopeId]:
        """Return what to hand over to a neighbour now, the most useful first, within so many bytes and so many."""
        encounter = self._encounters.get(peer)
        out: list[EnvelopeId] = []
        while encounter is not None and len(out) < most and (id := encounter.giving.next()) is not None:
            parcel = self._shelf.get(id)
            if parcel is not None and parcel.expires_at > now:
                if parcel.size > room_bytes:
                    break
                room_bytes -= parcel.size
                parcel.handed += 1
                out.append(id)
            encounter.giving.took()
            self._dirty[peer] = None  # there may be room for more offers
        return out

    def deadline(self) -> Instant | None:
        """Return when :meth:`tick` has something to do, if nothing happens before; 0 when :meth:`poll` is due."""
        if self._dirty:
            return Instant(0)
        times = [end for end in (self._entries.next_end(),) if end is not None]
        for encounter in self._encounters.values():
            if (late := self._asking.due(encounter)) is not None:
                times.append(late)
            if encounter.again_at is not None and self.me < encounter.peer:
                times.append(encounter.again_at)
        return min(times, default=None)

    def tick(self, now: Instant) -> None:
        """Do what is due: forget what has expired, ask others, look for what was missed."""
        end = self._entries.next_end()
        if end is not None and end <= now:
            self._entries.expire(now)
            self._cures.expire(now)
            self._evicted = {id: dst for id, dst in self._evicted.items() if id in self._entries}
        for encounter in list(self._encounters.values()):
            if (late := self._asking.due(encounter)) is not None and now >= late:
                self._asking.give_up(encounter, now)
            if encounter.again_at is not None and now >= encounter.again_at and self.me < encounter.peer:
                if encounter.speaks and not len(self._entries) and self.idle:
                    encounter.again_at = Instant(now + AGAIN_MS)
                elif encounter.speaks:
                    self._begin(encounter, now)
                else:
                    encounter.again_at = None


def _wrote(peer: PeerKey, parcel: Parcel) -> bool:
    """Say whether a post is of this peer: it knows its own, also those that it keeps no more."""
    return parcel.kind == Kind.CHANNEL and parcel.src == peer
