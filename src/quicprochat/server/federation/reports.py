"""Telling an author's device what other domains answered; the store keeps what was not told yet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from quicprochat.core.federation import FederationStore, Report
from quicprochat.core.ids import PeerKey
from quicprochat.p2p.driver import Driver
from quicprochat.server.federation.rules import REPORTS_BATCH

Tell = Callable[[Sequence[Report]], Awaitable[bool]]
"""Hand reports to a device; return whether it need not be told again: it knows, or knows nothing of reports.

Raises: UnavailableError."""


class Reporter:
    """One connected device. :meth:`run` lives as long as its connection."""

    def __init__(self, driver: Driver, store: FederationStore, author: PeerKey, tell: Tell) -> None:
        self._driver = driver
        self._store = store
        self._author = author
        self._tell = tell
        self._news = asyncio.Event()
        self._news.set()
        self._told = self._dropped = 0
        """Serials up to which the device was told, and up to which reports are forgotten."""
        self._dropping = False

    def news(self) -> None:
        """Look again: there is something to tell."""
        self._news.set()

    async def run(self) -> None:
        """Tell, one batch at a time, until cancelled, or until the device says no: then its next connection is told.

        Raises, in a group: UnavailableError when the device is gone; StoreError.
        """
        async with asyncio.TaskGroup() as group:
            while True:
                await self._news.wait()
                self._news.clear()
                while found := await self._driver.read(
                    lambda _: self._store.reports(self._author, self._told, REPORTS_BATCH)
                ):
                    if not await self._tell(found):
                        return
                    self._told = found[-1].serial
                    if not self._dropping:
                        self._dropping = True
                        group.create_task(self._drop())

    async def _drop(self) -> None:
        """Forget what was told, while more is told."""
        while self._dropped < self._told:
            # Should we die before, the device is told again.
            await self._driver.call_unhurried(lambda _: self._drop_told())
        self._dropping = False

    def _drop_told(self) -> None:
        self._dropped = self._told
        self._store.drop_reports(self._author, self._told)
