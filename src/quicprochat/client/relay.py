"""``qpc relay``: a relay for iroh nodes that cannot reach each other directly, run until it is stopped."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import suppress
from pathlib import Path

from quicprochat.adapters.relay.server import Relay
from quicprochat.adapters.system import entropy
from quicprochat.client.grammar import Request
from quicprochat.client.settings import bind_address
from quicprochat.client.stdio import Output
from quicprochat.console.files import read_keys
from quicprochat.core.address import Address
from quicprochat.core.errors import QuicprochatError
from quicprochat.core.ids import PeerKey

log = logging.getLogger("quicprochat.relay")

LISTEN = "[::]:7002"
REPORT_S = 60.0


class Allowed:
    """Who may use the relay: the keys in a file, or everybody where there is no file."""

    def __init__(self, file: str | None) -> None:
        self._file = Path(file).expanduser() if file else None
        self._keys: frozenset[PeerKey] = frozenset()
        self.read()

    def read(self) -> None:
        """Read the file, again. Raises: LocalError, UnavailableError."""
        self._keys = read_keys(self._file)

    async def refusal(self, key: bytes) -> str:
        """Say why a key may not use the relay; empty if it may."""
        return (
            "" if self._file is None or key in self._keys else "this relay has a list of keys, and yours is not on it"
        )


async def relay(request: Request) -> int:
    """Relay until cancelled. Raises: QuicprochatError."""
    listen, allow = request.args.get("listen", LISTEN), request.args.get("allow")
    address = bind_address(listen, "--listen")
    allowed = Allowed(allow)
    serving = Relay(entropy, allowed.refusal)
    ip, port = await serving.listen(address.ip, address.port)
    reload = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload.set)
    reporting = asyncio.create_task(_report(serving))
    try:
        with suppress(BrokenPipeError):
            await Output().write(f"ready {Address(ip, port)}\n")
        while True:
            await reload.wait()
            reload.clear()
            try:
                allowed.read()
            except QuicprochatError as error:
                log.error("not read again, the list stays as it was: %s", error)
            else:
                await serving.review()
                log.warning("the list of keys was read again")
    finally:
        reporting.cancel()
        await serving.close()


async def _report(serving: Relay) -> None:
    """Say at -v how much is carried, never for whom."""
    last = serving.status()
    while True:
        await asyncio.sleep(REPORT_S)
        if (now := serving.status()) != last:
            log.info("%s", now)
            last = now
