"""Other domains' servers that forget what they stored: then our users must offer it again."""

from __future__ import annotations

import hashlib
import logging

from quicprochat.core.store import MeshStore
from quicprochat.core.time import Instant
from quicprochat.p2p.driver import Driver
from quicprochat.server.federation.rules import EPOCH_BYTES, FORGOT_EVERY_MS

log = logging.getLogger("quicprochat.server.federation")

EPOCH_KEY, FORGETTINGS_KEY = "federation.epoch.", "federation.forgettings"


class Forgettings:
    """Counts, for good, how often a domain's epoch has changed.

    We keep no copy of what was passed on. The authors do (rule: no transfer of custody), and offer it again when the
    epoch that their own server tells them changes; so ours does when another domain's has.
    """

    def __init__(self, driver: Driver, store: MeshStore, epoch: bytes) -> None:
        self._driver = driver
        self._epoch = epoch
        self._at: dict[str, Instant] = {}  # by domain, of which there are as many as the operator has listed
        self._count = int.from_bytes(store.value(FORGETTINGS_KEY) or b"", "big")

    @property
    def told_epoch(self) -> bytes:
        """The epoch that our users are told."""
        if not self._count:
            return self._epoch
        return hashlib.sha256(self._epoch + self._count.to_bytes(8, "big")).digest()[:EPOCH_BYTES]

    async def entered(self, domain: str, epoch: bytes) -> bool:
        """Compare a domain's epoch with the one it had before; say whether that domain has forgotten something."""
        key, now = EPOCH_KEY + domain, self._driver.now().at
        known = await self._driver.read(lambda tx: tx.value(key))
        if known == epoch:
            return False
        if known is not None:
            if now - self._at.get(domain, Instant(-FORGOT_EVERY_MS)) < FORGOT_EVERY_MS:
                return False
            self._at[domain] = now
            self._count += 1
            log.info("%s has forgotten messages (a restored backup?); our users will offer theirs again", domain)
        count = self._count.to_bytes(8, "big")

        def keep(tx: MeshStore) -> None:
            tx.set_value(key, epoch)
            tx.set_value(FORGETTINGS_KEY, count)

        await self._driver.call(keep)
        return known is not None
