"""Servers that our person has left for another one: visited now and then until nothing waits for us there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from quicprochat.core.envelope import TTL_MAX_S
from quicprochat.core.errors import QuicprochatError, StoreError
from quicprochat.core.events import LinkId
from quicprochat.core.store import MeshStore
from quicprochat.core.time import HOUR_MS, Instant
from quicprochat.p2p.driver import Driver

if TYPE_CHECKING:
    from quicprochat.p2p.last_visit import LastVisit

log = logging.getLogger("quicprochat.server")

LEFT_KEY = "server.left"
LEFT_MAX = 4
"""Servers that are visited still; whoever changes more often has seen the oldest often enough."""
VISIT_EVERY_S = 3_600.0
AT_LEAST_MS = 24 * HOUR_MS
"""So long at least, empty or not: our new record spreads meanwhile, and people still write to the old place (guess)."""
AT_MOST_MS = TTL_MAX_S * 1_000 + AT_LEAST_MS
"""No message lives longer."""


class Farewells:
    """Keeps, in the store, which servers were left and when. ``make`` prepares a visit to one."""

    def __init__(self, driver: Driver, make: Callable[[str], Awaitable[LastVisit]]) -> None:
        self._driver = driver
        self._make = make
        self._visit: LastVisit | None = None

    def link(self, id: LinkId) -> LastVisit | None:
        """Return the visit under way if that is its number."""
        return self._visit if self._visit is not None and self._visit.id == id else None

    @staticmethod
    def note(tx: MeshStore, old: str, new: str, now: Instant) -> None:
        """Our person goes from one server to another; with no other there is nobody to live with, and no farewell."""
        left = _left(tx)
        left.pop(new, None)
        if old and new and old != new:
            left.pop(old, None)
            left[old] = now
        _keep(tx, left if new else {})

    async def run(self) -> None:
        """Visit each until nothing waits there any more, until cancelled. Raises: StoreError."""
        while left := await self._driver.read(_left):
            for server, since in left.items():
                if await self._done(server, self._driver.now().at - since):
                    await self._driver.call(lambda tx, server=server: _drop(tx, server))  # type: ignore[misc]
            await asyncio.sleep(VISIT_EVERY_S)

    async def _done(self, server: str, away_ms: int) -> bool:
        """Visit a server; return whether we need not come again. Raises: StoreError."""
        empty = False
        try:
            self._visit = await self._make(server)
            empty = await self._visit.once()
        except StoreError:
            raise
        except QuicprochatError as error:
            log.info("the server that we left, %s: %s", server, error)
        finally:
            self._visit = None
        return (empty and away_ms >= AT_LEAST_MS) or away_ms >= AT_MOST_MS


def _left(tx: MeshStore) -> dict[str, Instant]:
    """Return the servers that were left, and when, the longest ago first."""
    rows = [row.rpartition(" ") for row in (tx.value(LEFT_KEY) or b"").decode().splitlines()]
    return {server: Instant(int(since)) for server, _, since in rows}


def _keep(tx: MeshStore, left: dict[str, Instant]) -> None:
    rows = [f"{server} {since}" for server, since in left.items()][-LEFT_MAX:]
    tx.set_value(LEFT_KEY, "\n".join(rows).encode())


def _drop(tx: MeshStore, server: str) -> None:
    left = _left(tx)
    left.pop(server, None)
    _keep(tx, left)
