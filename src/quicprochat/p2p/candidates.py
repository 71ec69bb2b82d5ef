"""Which announced peers are worth a dial, in what order: a table that a flood of made-up ones can neither fill nor
steer.

A candidate has proved nothing. Those who did, by a link, stay as long as they announce themselves; the others share a
small table, and a newcomer takes the place of a random one of them. So that a real peer is found among thousands that
are not, those heard again go first: whoever answers each of our questions is more likely to be there than somebody who
shouted once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from quicprochat.core.address import Address
from quicprochat.core.ids import PeerKey
from quicprochat.core.time import MINUTE_MS, Instant

UNPROVED_MAX = 256
PROVED_MAX = 512
PER_HOST_MAX = 8
"""Unproved candidates at one IP address: one machine must not fill the table with its own."""
INSTANCES_MAX = 4
"""Instances that name one key: one is the peer's own, others may be anybody's."""
ADDRESSES_MAX = 8
"""Addresses dialled for one key."""
HEARD_MAX = 16_384
"""Names remembered, by a number each, to know one that is heard again: 2 MB."""
AGAIN_MS = 700
"""Heard again after less is the same announcement, repeated; after more than ``AGAIN_LAST_MS`` it is a new one."""
AGAIN_LAST_MS = 10 * MINUTE_MS
PAUSE_MS = 1_000
"""How long the side with the higher key leaves the dial to the other."""
FIRST_MS, LAST_MS, WANTED_LAST_MS = 2_000, 120_000, 15_000


@dataclass(slots=True)
class Candidate:
    """A key that was announced, and where."""

    key: PeerKey
    next_at: Instant
    instances: dict[str, tuple[Address, ...]] = field(default_factory=dict)
    domain: str = ""
    again: bool = False
    proved: bool = False
    under_way: bool = False
    delay_ms: int = FIRST_MS

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where to dial: of each instance in turn, the one heard last first."""
        lists = [list(found) for found in reversed(self.instances.values())]
        longest = max(map(len, lists), default=0)
        mixed = [found[n] for n in range(longest) for found in lists if n < len(found)]
        return tuple(dict.fromkeys(mixed))[:ADDRESSES_MAX]


class Candidates:
    """The table. ``patient`` is whether the other side sees us too, and may dial; ``forget`` ends an instance."""

    def __init__(
        self, me: PeerKey, forget: Callable[[str], None], jitter: Callable[[], float], *, patient: bool
    ) -> None:
        self._me = me
        self._forget = forget
        self._jitter = jitter
        self._patient = patient
        self._by_key: dict[PeerKey, Candidate] = {}
        self._by_name: dict[str, PeerKey] = {}
        self._by_host: dict[str, set[PeerKey]] = {}
        self._unproved: list[PeerKey] = []
        self._heard: dict[int, Instant] = {}

    def all(self) -> Collection[Candidate]:
        """Return all candidates."""
        return self._by_key.values()

    def get(self, key: PeerKey) -> Candidate | None:
        """Return one candidate."""
        return self._by_key.get(key)

    def named(self, name: str) -> Candidate | None:
        """Return the candidate an instance stands for."""
        key = self._by_name.get(name)
        return self._by_key.get(key) if key is not None else None

    def heard(
        self, name: str, key: PeerKey, addresses: tuple[Address, ...], domain: str, now: Instant, *, wanted: bool
    ) -> Candidate:
        """Take note of an announcement. ``wanted``: we look for this key, so no stranger takes its place."""
        again = self._again(name, now)
        if self._by_name.get(name, key) != key:
            self.gone(name)
        candidate = self._by_key.get(key)
        if candidate is None:
            candidate = self._make_room_for(key, addresses, now, wanted=wanted)
        elif set(addresses) != set(candidate.instances.get(name, ())):
            candidate.delay_ms, candidate.next_at = FIRST_MS, min(candidate.next_at, self._first(key, now))
        self._unlist(candidate)
        candidate.again |= again
        candidate.domain = domain
        candidate.instances.pop(name, None)
        candidate.instances[name] = addresses
        self._by_name[name] = key
        while len(candidate.instances) > INSTANCES_MAX:
            oldest = next(iter(candidate.instances))
            del candidate.instances[oldest], self._by_name[oldest]
            self._forget(oldest)
        self._list(candidate)
        return candidate

    def gone(self, name: str) -> None:
        """An instance is not announced any more."""
        key = self._by_name.pop(name, None)
        candidate = self._by_key.get(key) if key is not None else None
        if candidate is None:
            return
        self._unlist(candidate)
        candidate.instances.pop(name, None)
        if candidate.instances:
            self._list(candidate)
        else:
            self._remove(candidate.key)

    def linked(self, keys: Collection[PeerKey], now: Instant) -> None:
        """These are linked: they have proved themselves, and are dialled again soon when the link goes."""
        for key in keys:
            candidate = self._by_key.get(key)
            if candidate is None:
                continue
            candidate.delay_ms, candidate.next_at = FIRST_MS, self._first(key, now)
            if not candidate.proved and len(self._by_key) - len(self._unproved) < PROVED_MAX:
                self._unlist(candidate)
                candidate.proved = True
                if key in self._unproved:
                    self._unproved.remove(key)

    def failed(self, candidate: Candidate, now: Instant, *, wanted: bool) -> None:
        """A dial came to nothing."""
        candidate.next_at = Instant(now + int(candidate.delay_ms * (0.8 + 0.4 * self._jitter())))
        candidate.delay_ms = min(2 * candidate.delay_ms, WANTED_LAST_MS if wanted or candidate.proved else LAST_MS)

    def due(self, now: Instant, linked: Collection[PeerKey], wanted: Callable[[PeerKey], bool]) -> Candidate | None:
        """Return whom to dial now: wanted ones first, then those who were linked, then those heard again."""
        best, best_rank = None, (0, 0.0)
        for candidate in self._by_key.values():
            if candidate.next_at > now or candidate.under_way or candidate.key in linked:
                continue
            group = 3 if wanted(candidate.key) else 2 if candidate.proved else 1 if candidate.again else 0
            rank = (group, self._jitter())
            if best is None or rank > best_rank:
                best, best_rank = candidate, rank
        return best

    def next_at(self, linked: Collection[PeerKey]) -> Instant | None:
        """Return when the next one is due."""
        return min((c.next_at for c in self._by_key.values() if not c.under_way and c.key not in linked), default=None)

    # --- room

    def _again(self, name: str, now: Instant) -> bool:
        number = hash(name)
        first = self._heard.setdefault(number, now)
        if now - first > AGAIN_LAST_MS:
            self._heard[number] = now
        if len(self._heard) > HEARD_MAX:
            del self._heard[next(iter(self._heard))]
        return AGAIN_MS <= now - first <= AGAIN_LAST_MS

    def _first(self, key: PeerKey, now: Instant) -> Instant:
        """When to dial first: at once, or after leaving it to the side with the lower key for a moment."""
        return now if not self._patient or self._me < key else Instant(now + PAUSE_MS + int(250 * self._jitter()))

    def _make_room_for(self, key: PeerKey, addresses: tuple[Address, ...], now: Instant, *, wanted: bool) -> Candidate:
        candidate = Candidate(key, self._first(key, now), proved=wanted)
        if not wanted:
            for ip in sorted({a.ip for a in addresses}):
                group = self._by_host.get(ip, set())
                if len(group) >= PER_HOST_MAX:
                    self._evict(sorted(group))
            if len(self._unproved) >= UNPROVED_MAX:
                self._evict(self._unproved)
            self._unproved.append(key)
        self._by_key[key] = candidate
        return candidate

    def _evict(self, keys: list[PeerKey]) -> None:
        """Make one of these make room: not one heard again if there is another."""
        once = [key for key in keys if not self._by_key[key].again] or keys
        self._remove(once[int(len(once) * self._jitter())])

    def _remove(self, key: PeerKey) -> None:
        candidate = self._by_key.pop(key)
        self._unlist(candidate)
        if key in self._unproved:
            self._unproved.remove(key)
        for name in candidate.instances:
            self._by_name.pop(name, None)
            self._forget(name)

    def _list(self, candidate: Candidate) -> None:
        if not candidate.proved:
            for address in candidate.addresses:
                self._by_host.setdefault(address.ip, set()).add(candidate.key)

    def _unlist(self, candidate: Candidate) -> None:
        for address in candidate.addresses:
            group = self._by_host.get(address.ip)
            if group is not None:
                group.discard(candidate.key)
                if not group:
                    del self._by_host[address.ip]
