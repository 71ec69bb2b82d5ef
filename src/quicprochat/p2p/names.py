"""Names at home servers: ``name@domain`` is that domain's word for a key, and no more than its word.

Our own server is asked, and asks the domain's where it is another. The first key that a name stood for is kept: a
server that says another one later, or somebody in its place, is not believed until a person decides.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from quicprochat.core.errors import LocalError, QuicprochatError, UnavailableError
from quicprochat.core.homes import domain_name
from quicprochat.core.identity import fingerprint, parse_key
from quicprochat.core.ids import PeerKey
from quicprochat.core.local_name import local_name
from quicprochat.core.store import MeshStore
from quicprochat.p2p.account import Account
from quicprochat.p2p.driver import Driver

PIN_PREFIX = "name.pin."
UNREACHABLE = "unavailable"


def split_place(text: str) -> tuple[str, str]:
    """Return the two sides of ``name@domain`` or ``key@domain``, the domain in its one form. Raises: LocalError."""
    name, _, place = text.rpartition("@")
    domain = domain_name(place)
    if not domain:
        raise LocalError(f"{place[:64]!r} is no domain; write name@domain or key@domain, as in ada@village.example")
    return name, domain


class Names:
    """Looks names up by way of the home server we are connected to, and remembers what they stood for."""

    def __init__(self, driver: Driver, account: Account, settled: Callable[[], Awaitable[object]]) -> None:
        """``settled`` waits until the home server was reached, or could not be: a node that has just begun may ask."""
        self._driver = driver
        self._account = account
        self._settled = settled

    async def resolve(self, text: str) -> tuple[PeerKey, str]:
        """Return the key of ``name@domain`` or ``key@domain``, and the domain.

        Where the domain can't be asked now, a name that was asked for before stands for what it stood for then.
        Raises: LocalError, with code ``not_found``, ``policy`` when our server has nothing to do with the domain, or
        ``untrusted`` when the name stood for another key before; UnavailableError when nobody could be asked.
        """
        name, domain = split_place(text)
        if (key := parse_key(name)) is not None:
            return key, domain
        kept = f"{local_name(name)}@{domain}"
        pin = await self._driver.read(lambda tx: tx.value(PIN_PREFIX + kept))
        try:
            await self._settled()
            found = await self._account.find_name(local_name(name), domain)
        except QuicprochatError as error:
            if pin is not None and _nobody_answered(error):
                return PeerKey(pin), domain
            raise _explained(error, kept, domain) from error
        if pin is None:

            def keep(tx: MeshStore) -> None:
                tx.set_value(PIN_PREFIX + kept, found)

            await self._driver.call(keep)
        elif found != pin:
            raise LocalError(
                f"{kept} was the key {fingerprint(PeerKey(pin))} and is {fingerprint(found)} now: somebody else may "
                f"have taken the name. Nothing was sent; write to the key itself: {found.hex()}@{domain}",
                code="untrusted",
            )
        return found, domain


def _nobody_answered(error: QuicprochatError) -> bool:
    return getattr(error, "code", UNREACHABLE) == UNREACHABLE


def _explained(error: QuicprochatError, kept: str, domain: str) -> QuicprochatError:
    """Return what a person is told, with what to do."""
    code = getattr(error, "code", UNREACHABLE)
    if code == "not_found":
        return LocalError(f"{kept}: {error}", code=code)
    if _nobody_answered(error):
        return UnavailableError(
            f"only {domain} knows its names, and it could not be asked ({error}). Nothing was sent; try again later, "
            f"or write to the person's key, which can wait here: <key>@{domain}"
        )
    return LocalError(f"{domain} could not be asked for {kept}: {error}", code=code)
