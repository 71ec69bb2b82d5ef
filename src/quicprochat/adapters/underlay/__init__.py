"""The mesh underneath, where its local interface can be read: what its metrics say of the ways to our neighbours."""

from __future__ import annotations

import asyncio
import logging

from quicprochat.adapters.underlay import batman
from quicprochat.adapters.underlay.babel import VIA as BABEL
from quicprochat.adapters.underlay.babel import read_babel
from quicprochat.adapters.underlay.kernel import neighbours
from quicprochat.core.errors import UnavailableError
from quicprochat.core.underlay import Hint, Way, Ways

log = logging.getLogger("quicprochat.underlay")

EVERY_S = 10.0
"""How often it is read; Babel's own hellos go out every 4 s."""
PATIENCE_S = 2.0


class Underlay:
    """Reads Babel and batman-adv again and again. Where neither can be read, it knows nothing, and nothing changes."""

    def __init__(self) -> None:
        self._ways = Ways()
        self.found: tuple[str, ...] = ()
        """Which of them could be read last."""

    def hint(self, ip: str) -> Hint | None:
        """Return what the way to an address costs, None where the underlay does not know it."""
        return self._ways.find(ip)

    def __len__(self) -> int:
        return len(self._ways)

    async def run(self) -> None:
        """Keep reading until cancelled."""
        while True:
            await self.read()
            await asyncio.sleep(EVERY_S)

    async def read(self) -> None:
        """Read once. What cannot be read any more is forgotten: an old metric is worse than none."""
        ways: list[Way] = []
        found = []
        try:
            ways += await read_babel(PATIENCE_S)
            found.append(BABEL)
        except UnavailableError as error:
            log.debug("%s", error)
        if batman.present():
            try:
                ways += await batman.read_batman(neighbours(), PATIENCE_S)
                found.append(batman.VIA)
            except (UnavailableError, TimeoutError) as error:
                log.debug("batman-adv: %s", error)
        self._ways, self.found = Ways(ways), tuple(found)
