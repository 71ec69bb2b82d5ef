"""Whom to dial, and when: known peers without a link, each on a backoff of its own, a few at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from quicprochat.core.address import Address
from quicprochat.core.errors import QuicprochatError
from quicprochat.core.ids import PeerKey
from quicprochat.core.time import Instant

log = logging.getLogger("quicprochat.dial")

AT_ONCE = 4
"""Dials under way: a list of a hundred dead addresses must not delay the one that answers."""
FIRST_MS = 500
CONTACT_LAST_MS = 15_000
OTHER_LAST_MS = 120_000


@dataclass(slots=True)
class Target:
    """A peer that should be linked, and what is known of reaching it."""

    key: PeerKey
    addresses: tuple[Address, ...]
    relay: str
    contact: bool
    next_at: Instant
    delay_ms: int = FIRST_MS
    under_way: bool = False
    attempts: int = 0
    """Since it was last linked, or news came: which relay is tried next."""


class Dialler:
    """Keeps dialling until linked; ``dial`` returns whether a link came of it, and raises nothing of its own."""

    def __init__(
        self, dial: Callable[[Target], Awaitable[bool]], instant: Callable[[], Instant], jitter: Callable[[], float]
    ) -> None:
        self._dial = dial
        self._instant = instant
        self._jitter = jitter
        self._targets: dict[PeerKey, Target] = {}
        self._linked: set[PeerKey] = set()
        self._wake = asyncio.Event()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    def know(self, key: PeerKey, addresses: tuple[Address, ...], relay: str, *, contact: bool) -> None:
        """Learn, or learn anew, where a peer may be reached; news are tried at once."""
        old = self._targets.get(key)
        if old is not None and (set(addresses), relay, contact) == (set(old.addresses), old.relay, old.contact):
            return
        if old is None:
            self._targets[key] = Target(key, addresses, relay, contact, self._instant())
        else:
            old.addresses, old.relay, old.contact = addresses, relay, contact
            self._soon(old)
        self._wake.set()

    def forget(self, key: PeerKey) -> None:
        """Do not dial a peer any more."""
        self._targets.pop(key, None)

    def linked(self, key: PeerKey) -> None:
        """A link to the peer is up."""
        self._linked.add(key)

    def lost(self, key: PeerKey) -> None:
        """The link to the peer is gone; it is dialled again soon."""
        self._linked.discard(key)
        if key in self._targets:
            self._soon(self._targets[key])

    def hurry(self) -> None:
        """Our own network changed, or we woke up: every peer is worth a try now."""
        for target in self._targets.values():
            self._soon(target)

    def _soon(self, target: Target) -> None:
        target.delay_ms, target.attempts = FIRST_MS, 0
        target.next_at = Instant(self._instant() + int(FIRST_MS * self._jitter() / 2))
        self._wake.set()

    async def run(self) -> None:
        """Dial until cancelled."""
        try:
            while True:
                now = self._instant()
                due = [t for t in self._targets.values() if t.key not in self._linked and not t.under_way]
                for target in due:
                    if target.next_at <= now:
                        target.under_way = True
                        task = asyncio.create_task(self._attempt(target))
                        self._tasks.add(task)
                        task.add_done_callback(self._tasks.discard)
                later = [t.next_at for t in due if not t.under_way]
                self._wake.clear()
                try:
                    async with asyncio.timeout(max(0, min(later) - now) / 1_000 if later else None):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        finally:
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _attempt(self, target: Target) -> None:
        try:
            async with self._room:
                ok = target.key in self._linked or await self._dial(target)
        except QuicprochatError as error:
            log.debug("dialling %s: %s", target.key.hex()[:8], error)
            ok = False
        finally:
            target.under_way = False
            target.attempts += 1
            self._wake.set()
        if ok:
            target.delay_ms = FIRST_MS
        last = CONTACT_LAST_MS if target.contact else OTHER_LAST_MS
        target.next_at = Instant(self._instant() + int(target.delay_ms * (0.8 + 0.4 * self._jitter())))
        target.delay_ms = min(2 * target.delay_ms, last)
