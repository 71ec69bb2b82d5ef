"""Names at a home server: ``name@domain`` is that server's word for a key, and no more than its word.

The first key that a name stood for is kept: a server that says another one later, or somebody in its place, is not
believed until a person decides.
"""

from __future__ import annotations

from quicprochat.core.errors import LocalError, UnavailableError
from quicprochat.core.identity import fingerprint, parse_key
from quicprochat.core.ids import PeerKey
from quicprochat.core.local_name import local_name
from quicprochat.core.store import MeshStore
from quicprochat.p2p.account import Account
from quicprochat.p2p.driver import Driver

PIN_PREFIX = "name.pin."


class Names:
    """Looks names up at the home server we are connected to, and remembers what they stood for."""

    def __init__(self, driver: Driver, account: Account) -> None:
        self._driver = driver
        self._account = account

    async def resolve(self, text: str) -> PeerKey:
        """Return the key of ``name@domain`` or ``key@domain``.

        Raises: LocalError, with code ``not_found``, or ``untrusted`` when the name stood for another key before;
        UnavailableError when the domain's server cannot be asked and never was.
        """
        name, _, domain = text.rpartition("@")
        if (key := parse_key(name)) is not None:
            return key
        kept = f"{local_name(name)}@{domain.lower()}"
        pin = await self._driver.read(lambda tx: tx.value(PIN_PREFIX + kept))
        standing = self._account.standing()
        if standing.standing != "connected" or standing.domain.lower() != domain.lower():
            if pin is not None:
                return PeerKey(pin)
            raise UnavailableError(
                f"only the home server of {domain} knows its names, and this node is not connected to it; see: "
                "qpc server, or use a key"
            )
        found = await self._account.find_name(local_name(name))
        if pin is None:

            def keep(tx: MeshStore) -> None:
                tx.set_value(PIN_PREFIX + kept, found)

            await self._driver.call(keep)
        elif found != pin:
            raise LocalError(
                f"{kept} was the key {fingerprint(PeerKey(pin))} and is {fingerprint(found)} now: somebody else may "
                f"have taken the name. Nothing was sent; write to the key itself: {found.hex()}",
                code="untrusted",
            )
        return found
