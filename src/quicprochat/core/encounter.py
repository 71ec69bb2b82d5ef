"""One link between two carriers: what each has offered, asked for and is about to hand over.

    OFFER = count 2 (1..1024) | count * envelope id 32           numbered from 0 in each direction of a link
    WANT  = dealt 4 | count 2 (0..1024) | count * number 4       ``dealt``: so many of your offers are dealt with

A number with LATER set says of an offer that another neighbour was asked: keep it, and do not hand it over. Of what is
dealt with and not named, the neighbour has got it.

What a node lacks it asks for, from one neighbour at a time; so nothing comes twice, though several have it. An offerer
goes on when its offers are dealt with: a broken encounter wastes little, and the most useful is always next.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Container, Sequence
from heapq import heapify, heappop, heappush

from quicprochat.core.acquaintance import Acquaintance
from quicprochat.core.errors import WireError
from quicprochat.core.ids import ID_BYTES, EnvelopeId, PeerKey
from quicprochat.core.reconcile import Reconciler
from quicprochat.core.time import Instant
from quicprochat.core.wire import Reader

Rank = tuple[float, ...]
"""How useful it is to hand something over: the lowest first."""

OFFER_MAX = 1_024
"""Ids in one frame."""
LATER = 1 << 31
"""In a number: not from you, for now."""
AHEAD = 256
"""Offers that are not dealt with yet, at most; a link begins with few and goes up with what it has shown to carry."""
AHEAD_FIRST, LASTING_FIRST = 1, 8
"""With so many an encounter begins, and a link that lasts."""
HANDING_LOW, HANDING_LOW_FIRST = 32, 1
"""Offers go on while fewer than this wait to be handed over: few at first, since the next may be more useful."""
ASK_MAX = 128
"""Envelopes asked for over one link that have not come."""
HANDED_MAX = 3
"""How often an offer is handed over, to whoever says again and again that it wants it."""
NUMBERS_MAX = 65_536
"""Offers in one direction of a link: what they make a node remember. The next link goes on."""


class Giving:
    """What goes from us to the neighbour: queued, then offered, then wanted, then handed over."""

    __slots__ = ("_dealt", "_first", "_handed", "_numbers", "_queue", "_queued", "_wanted", "_wished", "carried")

    def __init__(self, first: int) -> None:
        self._first = first
        self._queue: list[tuple[Rank, EnvelopeId]] = []
        self._queued: set[EnvelopeId] = set()
        self._numbers: list[EnvelopeId] = []
        self._dealt = 0
        self._wanted: list[tuple[Rank, EnvelopeId]] = []
        self._wished: set[EnvelopeId] = set()
        """What was wanted at any time: whether it arrived nobody says here."""
        self._handed: Counter[EnvelopeId] = Counter()
        """How often each was handed over since it was offered last."""
        self.carried = 0
        """Envelopes that crossed the link, either way, and are known to have."""

    def queue(self, rank: Rank, id: EnvelopeId) -> None:
        """Let something be offered in its turn, once."""
        if id not in self._queued:
            self._queued.add(id)
            heappush(self._queue, (rank, id))

    def again(self) -> None:
        """A new reconciliation begins: what the neighbour then still lacks may be offered once more."""
        self._queued = {id for _, id in self._queue}
        self._queued.update(id for _, id in self._wanted)

    def offers(self, held: Container[EnvelopeId]) -> list[EnvelopeId]:
        """Return the most useful of what is queued and still held, as many as may be offered now, and number them."""
        ids: list[EnvelopeId] = []
        proven = self._dealt + self.carried
        if len(self._wanted) < max(HANDING_LOW_FIRST, min(HANDING_LOW, proven // 4)):
            room = min(self._dealt + max(self._first, min(proven, AHEAD)), NUMBERS_MAX) - len(self._numbers)
            while self._queue and len(ids) < room:
                if (id := heappop(self._queue)[1]) in held:
                    ids.append(id)
        self._numbers.extend(ids)
        for id in ids:
            self._handed.pop(id, None)
        return ids

    def sounded(self, most: int) -> bool:
        """Say whether the neighbour has got what it wanted of all that was queued, or has dealt with so many offers."""
        return self._dealt >= most or (not (self._queue or self._wanted) and self._dealt == len(self._numbers))

    @property
    def spent(self) -> bool:
        """Say whether something is to be offered and all numbers are used up."""
        return len(self._numbers) >= NUMBERS_MAX and bool(self._queue)

    def pending(self) -> set[EnvelopeId]:
        """Return what was queued or offered on this link, whether it was answered or not."""
        return self._queued.union(self._numbers)

    def answered(self, want: Want) -> tuple[list[EnvelopeId], list[EnvelopeId]]:
        """The neighbour has dealt with offers; return what it wants, and what it has got.

        Raises: WireError for what was never offered.
        """
        if not self._dealt <= want.dealt <= len(self._numbers):
            raise WireError("a neighbour that deals with offers nobody made")
        named = {number & ~LATER for number in want.numbers}
        if any(number >= len(self._numbers) for number in named):
            raise WireError("a neighbour that wants what nobody offered")
        self._wished.update(self._numbers[number] for number in named)
        dealt = {number: self._numbers[number] for number in range(self._dealt, want.dealt)}
        got = [id for number, id in dealt.items() if number not in named and id not in self._wished]
        self._dealt = want.dealt
        if later := {self._numbers[number & ~LATER] for number in want.numbers if number & LATER}:
            self._handed.subtract(id for _, id in self._wanted if id in later)
            self._wanted = [pair for pair in self._wanted if pair[1] not in later]
            heapify(self._wanted)
        return [self._numbers[number] for number in want.numbers if not number & LATER], got

    def want(self, rank: Rank, id: EnvelopeId) -> None:
        """Let something be handed over in its turn, unless it was often enough."""
        if len(self._wanted) < OFFER_MAX and self._handed[id] < HANDED_MAX:
            self._handed[id] += 1
            heappush(self._wanted, (rank, id))

    def next(self) -> EnvelopeId | None:
        """Return what to hand over next."""
        return self._wanted[0][1] if self._wanted else None

    def took(self) -> None:
        """That one is on its way."""
        heappop(self._wanted)


class Taking:
    """What the neighbour has for us: offered, then asked for, until it came."""

    __slots__ = ("_count", "_dealt", "_later", "_offered", "_open", "_spare", "_told", "asked", "heard_at", "late")

    def __init__(self) -> None:
        self._offered: dict[EnvelopeId, int] = {}
        """Numbers of what was decided on and is not here."""
        self._count = 0
        self._open: deque[tuple[int, EnvelopeId]] = deque()
        self._spare: deque[EnvelopeId] = deque()
        self._dealt = 0
        self._told = 0
        self.asked: dict[EnvelopeId, None] = {}
        self._later: list[int] = []
        """What the neighbour is to be told that another was asked for."""
        self.heard_at = Instant(0)
        """When something asked for came last, or was asked for first."""
        self.late = False
        """Whether it was given up, and has brought nothing since."""

    def __len__(self) -> int:
        """How many offers are remembered."""
        return len(self._offered) + len(self._open)

    def __contains__(self, id: EnvelopeId) -> bool:
        return id in self._offered

    def offered(self, ids: Sequence[EnvelopeId]) -> None:
        """The neighbour offers something. Raises: WireError when it does not wait for answers."""
        if self._count + len(ids) > min(self._told + AHEAD, NUMBERS_MAX):
            raise WireError("a neighbour that offers more and more and waits for no answer")
        self._open.extend(enumerate(ids, self._count))
        self._count += len(ids)

    def put_off(self, id: EnvelopeId) -> None:
        """Tell the neighbour that another was asked for this."""
        if (number := self._offered.get(id)) is not None:
            self._later.append(number)

    def settled(self, id: EnvelopeId) -> None:
        """This is here: its offer need not be remembered."""
        self._offered.pop(id, None)

    def again(self, id: EnvelopeId) -> None:
        """Another neighbour that was asked did not bring this."""
        self._spare.append(id)

    def undecided(self) -> EnvelopeId | None:
        """Return what to decide on next; None when there is nothing, or enough is asked for."""
        if len(self.asked) >= ASK_MAX:
            return None
        while self._spare:
            if (id := self._spare.popleft()) in self._offered:
                return id
        if not self._open:
            return None
        self._dealt += 1
        number, id = self._open.popleft()
        self._offered[id] = number
        return id

    def want(self, ids: Sequence[EnvelopeId]) -> Want | None:
        """Return what to say after deciding, None for nothing new."""
        if not ids and not self._later and self._dealt == self._told:
            return None
        self._told = self._dealt
        later, self._later = self._later, []
        return Want(self._dealt, tuple([self._offered[id] for id in ids] + [LATER | number for number in later]))


class Encounter:
    """One link; nothing of it outlives the link."""

    __slots__ = (
        "again_at", "begun_at", "giving", "greeted", "known", "peer", "reconciler", "speaks", "taking", "unsure",
        "young",
    )  # fmt: skip

    def __init__(self, peer: PeerKey, known: Acquaintance, again_at: Instant, first: int = AHEAD_FIRST) -> None:
        self.peer = peer
        self.known = known
        self.giving = Giving(first)
        self.taking = Taking()
        self.speaks = False
        """True once the neighbour sent a frame of carrying: it may do without."""
        self.greeted = False
        """Whether we sent one, so that it knows the same of us."""
        self.reconciler: Reconciler | None = None
        self.young: list[EnvelopeId] | None = None
        """What came in since the comparing began: that it ends well says nothing of these."""
        self.unsure = False
        """Whether the neighbour may lack more than was queued, so that comparing is due when that is dealt with."""
        self.begun_at: Instant | None = None
        """When a reconciliation began last."""
        self.again_at: Instant | None = again_at
        """When the next is due, since links may live for weeks; None for a neighbour that does not speak."""


class Want:
    """The answer to offers."""

    __slots__ = ("dealt", "numbers")

    def __init__(self, dealt: int, numbers: tuple[int, ...]) -> None:
        self.dealt, self.numbers = dealt, numbers

    def encode(self) -> bytes:
        """Return the body of a WANT frame."""
        numbers = b"".join(number.to_bytes(4, "big") for number in self.numbers)
        return self.dealt.to_bytes(4, "big") + len(self.numbers).to_bytes(2, "big") + numbers

    @classmethod
    def decode(cls, body: bytes) -> Want:
        """Read a WANT frame. Raises: WireError."""
        reader = Reader(body, "an answer to offers")
        dealt = reader.uint(4)
        if (count := reader.uint(2)) > OFFER_MAX:
            raise WireError(f"an answer that wants {count} envelopes; {OFFER_MAX} are allowed")
        numbers = tuple(reader.uint(4) for _ in range(count))
        reader.end()
        return cls(dealt, numbers)


def encode_offer(ids: Sequence[EnvelopeId]) -> bytes:
    """Return the body of an OFFER frame."""
    assert 0 < len(ids) <= OFFER_MAX
    return len(ids).to_bytes(2, "big") + b"".join(ids)


def decode_offer(body: bytes) -> tuple[EnvelopeId, ...]:
    """Read an OFFER frame. Raises: WireError."""
    reader = Reader(body, "an offer")
    if not 0 < (count := reader.uint(2)) <= OFFER_MAX:
        raise WireError(f"an offer of {count} envelopes; 1 to {OFFER_MAX} are allowed")
    ids = tuple(EnvelopeId(reader.take(ID_BYTES)) for _ in range(count))
    reader.end()
    return ids
