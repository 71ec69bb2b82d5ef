"""Our key on the network: dial peers by key, accept them, and keep one two-way stream with each.

The binding (iroh 1.2.0, made by uniffi) runs QUIC on threads of its own; so acknowledgements and keep-alives
go on even while this process's event loop stands still, and only an answer from the application proves that a
peer lives. Keep-alive (5 s per path, each side), path timeout (15 s) and idle timeout (30 s) cannot be set
here; any packet in either direction puts them off, so a heartbeat of less than 5 s replaces iroh's own on the
path it takes.

iroh's sockets stay open until the last foreign object is dropped, closed or not. So closing an endpoint takes
them away from every connection and stream of it, whoever still holds those; and errors leave here without the
frames of the binding, which would keep such objects alive as long as somebody looks at the error.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import re
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final
from weakref import WeakSet

import iroh
from iroh import IrohError

from quicprochat.adapters.iroh.addresses import (
    SocketAddress,
    check_relay,
    dialable,
    format_address,
    parse,
    routable,
    sockets,
    unique_local,
)
from quicprochat.adapters.iroh.connection import Connection
from quicprochat.adapters.iroh.faults import SOURCE_LINE, in_time, short, translate
from quicprochat.core.errors import LocalError, UnavailableError

ALPN: Final = b"quicprochat/p2p/1"

HANDSHAKES: Final = 64
"""Inbound handshakes in progress; bounds what strangers make us hold before they have proved a key. One more
ends the oldest, so a slow one never holds up another; from half of it on, addresses are confirmed first."""

HANDSHAKE_S: Final = 10.0
"""The longest an inbound handshake may take; a relayed one over a slow link needs about 2 s (guess)."""

BACKLOG: Final = 64
"""Connections waiting for :meth:`Endpoint.accept`; one more is closed at once with ``BUSY``."""

CLOSE_S: Final = 1.0
"""How long closing waits. Milliseconds are enough, but a dial given up unanswered holds iroh, and the port, 3 s."""

ADDRESS_POLL_S: Final = 2.0
"""How often our own addresses are looked at while somebody wants to hear of changes."""

# Codes on the wire when this adapter itself ends a connection; the link protocol keeps below them.
GOODBYE: Final = 0
BUSY: Final = 0x7101

_OS_ERROR = re.compile(r"os error (\d+)")


class Endpoint:
    """One UDP port (and one more for IPv6) under our key. Made by :meth:`bind`, ended by :meth:`close`."""

    def __init__(self, raw: iroh.Endpoint, bind: SocketAddress | None) -> None:
        self.key: Final[bytes] = raw.id().to_bytes()
        self.failed_handshakes = 0
        """Inbound attempts that came to nothing, since the start."""
        self._raw: iroh.Endpoint | None = raw
        ip = ipaddress.ip_address(bind[0]) if bind else None
        self._only = str(ip) if ip is not None and ip.is_loopback else None
        self._tasks: set[asyncio.Task[None]] = set()
        self._handshakes: dict[asyncio.Task[None], None] = {}  # oldest first
        self._connections: WeakSet[Connection] = WeakSet()
        self._ready: asyncio.Queue[Connection | None] = asyncio.Queue()  # None marks the end
        self._listeners: list[Callable[[list[SocketAddress]], None]] = []
        self._closing: asyncio.Task[None] | None = None
        self._spawn(self._accept_all(raw))

    @classmethod
    async def bind(cls, secret: bytes, *, bind: SocketAddress | None, relay_url: str | None) -> Endpoint:
        """Open the port and start accepting.

        ``bind`` None is any free port on every address. With an address, the other IP family gets the same
        port if that is the wildcard, and else only its loopback. A relay need not be reachable yet.
        Raises: UnavailableError when the port is taken or the address is not ours; LocalError.
        """
        if relay_url is not None:
            check_relay(relay_url)
        attempts = sockets(bind)
        try:
            relays = iroh.RelayMap.empty()  # with no relay of our own, a peer's can still be dialled
            if relay_url is not None:
                relays.insert(iroh.RelayConfig(url=relay_url, quic_port=None))
            for addresses in attempts:
                builder = iroh.EndpointBuilder()  # type: ignore[no-untyped-call]
                builder.apply_minimal()  # no public relay, no public directory
                builder.secret_key(secret)
                builder.alpns([ALPN])
                builder.relay_mode(iroh.RelayMode.custom(relays))
                for address in addresses:
                    builder.bind_addr(address)
                try:
                    return cls(await builder.bind(), bind)
                except IrohError as error:
                    if addresses is attempts[-1]:
                        raise unbound(error, bind) from error
        except IrohError as error:
            raise translate(error, "cannot start the mesh endpoint") from error
        raise AssertionError("the last attempt returns or raises")

    def addresses(self) -> list[SocketAddress]:
        """Return where peers on our networks may dial us; loopback only if that is all we are bound to.

        iroh leaves out unique local IPv6 addresses where it has others; they are added here (Linux).
        """
        if self._raw is None:
            return []
        found = [parse(text) for text in self._raw.addr().direct_addresses()]
        for ip, port in map(parse, self._raw.bound_sockets()):
            if ip == "::":
                found += [(local, port) for local in unique_local()]
        return [address for address in dict.fromkeys(found) if self._reachable(address[0])]

    def _reachable(self, ip: str) -> bool:
        if self._only is not None:
            return ip == self._only
        return routable(ip) and not ipaddress.ip_address(ip).is_loopback

    def relay(self) -> str | None:
        """Return the URL of the relay we can be reached through now, if any."""
        return None if self._raw is None else self._raw.addr().relay_url()

    async def use_relay(self, url: str) -> None:
        """Be reachable through this relay; iroh makes it the home relay if there is no other. Raises: LocalError."""
        check_relay(url)
        if self._raw is not None:
            try:
                await self._raw.insert_relay(iroh.RelayConfig(url=url, quic_port=None))
            except IrohError as error:
                raise translate(error, f"cannot use the relay {url}") from error.with_traceback(None)

    async def drop_relay(self, url: str) -> None:
        """Do not use this relay any more. iroh does not leave a dead one by itself."""
        if self._raw is not None:
            with suppress(IrohError):
                await self._raw.remove_relay(url)

    async def add_outside(self, address: SocketAddress) -> None:
        """Tell peers this address too: somebody outside a NAT sees us there."""
        if self._raw is not None:
            with suppress(IrohError):
                await self._raw.add_external_addr(format_address(address))

    async def drop_outside(self, address: SocketAddress) -> None:
        """Tell peers this address no more."""
        if self._raw is not None:
            with suppress(IrohError):
                await self._raw.remove_external_addr(format_address(address))

    async def connect(
        self, key: bytes, addresses: Sequence[SocketAddress], relay_url: str | None, timeout_s: float
    ) -> Connection:
        """Dial a peer at all its addresses and through its relay at once.

        Close an older, silent connection to the same peer first, or this one hangs on its dead path.
        Raises: UnavailableError when nobody with that key answers in time; LocalError when it is no peer.
        """
        if self._raw is None:
            raise UnavailableError("the mesh endpoint is closed", retryable=False)
        if key == self.key:
            raise LocalError("that is this node's own key", code="self")
        if relay_url is not None:
            check_relay(relay_url)
        hints = [format_address(address) for address in dict.fromkeys(addresses) if dialable(address)]
        if not hints and relay_url is None:
            raise UnavailableError(f"no address is known for {short(key)}")
        try:
            target = iroh.EndpointAddr(iroh.EndpointId.from_bytes(key), relay_url, hints)
        except IrohError as error:
            raise translate(error, f"{key.hex()[:64]!r} is no peer's key") from error
        found = await in_time(timeout_s, self._raw.connect, target, ALPN)
        if found is None:
            raise UnavailableError(f"{short(key)} did not answer within {timeout_s:g} s")
        if isinstance(found, IrohError):
            raise translate(found, f"cannot connect to {short(key)}", key) from found
        return Connection(found, dialled=True, endpoint=self)

    async def accept(self) -> Connection | None:
        """Return the next peer that dialled us and proved its key; None once the endpoint is closed."""
        connection = await self._ready.get()
        if connection is None:
            self._ready.put_nowait(None)  # for whoever else waits
        return connection

    def on_address_change(self, callback: Callable[[list[SocketAddress]], None]) -> None:
        """Call back with the new addresses, within ``ADDRESS_POLL_S``, whenever they change.

        Polled: iroh's own watch calls ``loop.call_soon`` from its threads, which asyncio forbids, and a
        handle that outlives the interpreter can abort the process.
        """
        self._listeners.append(callback)
        if len(self._listeners) == 1:
            self._spawn(self._poll_addresses())

    async def close(self) -> None:
        """End every connection, tell the peers, and free the port. Any number of calls is one."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        for connection in tuple(self._connections):
            connection.close(GOODBYE, "goodbye")
        if self._raw is not None:
            with suppress(TimeoutError, IrohError):  # then there is nobody to hear it
                async with asyncio.timeout(CLOSE_S):
                    await self._raw.close()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while not self._ready.empty():
            self._ready.get_nowait()
        self._ready.put_nowait(None)
        for connection in tuple(self._connections):
            connection._release()
        self._raw = None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._handshakes.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            report = {"message": "a task of the iroh adapter failed", "exception": error, "task": task}
            task.get_loop().call_exception_handler(report)

    async def _accept_all(self, raw: iroh.Endpoint) -> None:
        """Take inbound attempts as they come; without this loop every peer's dial would hang."""
        while (incoming := await raw.accept_next()) is not None:
            if len(self._handshakes) >= HANDSHAKES:
                oldest = next(iter(self._handshakes))
                del self._handshakes[oldest]
                oldest.cancel()
            confirm = len(self._handshakes) >= HANDSHAKES // 2
            self._handshakes[self._spawn(self._shake(incoming, confirm=confirm))] = None

    async def _shake(self, incoming: iroh.Incoming, *, confirm: bool) -> None:
        """Take one inbound attempt to its end; nothing that its peer does may reach anybody else."""
        done = False
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                if confirm and not await incoming.remote_addr_validated():
                    done = True
                    await incoming.retry()  # costs its sender a round trip, and a forged address everything
                    return
                found = await (await incoming.accept()).connect()
            if self._closing is not None or self._ready.qsize() >= BACKLOG:
                found.close(BUSY, b"too many new connections")
                return
            self._ready.put_nowait(Connection(found, dialled=False, endpoint=self))
            done = True
        except (TimeoutError, IrohError):
            pass
        finally:
            self.failed_handshakes += not done

    async def _poll_addresses(self) -> None:
        known = self.addresses()
        while True:
            await asyncio.sleep(ADDRESS_POLL_S)
            if (now := self.addresses()) != known:
                known = now
                for callback in tuple(self._listeners):
                    callback(list(now))


def unbound(error: IrohError, bind: SocketAddress | None) -> UnavailableError:
    """Explain a bind that failed, from the system's error number that only the debug text has."""
    number = _OS_ERROR.search(error.debug_message())
    code = int(number[1]) if number else 0
    where = f"UDP {format_address(bind)}" if bind else "a UDP port"
    if code in (errno.EADDRINUSE, 10048):
        return UnavailableError(f"port in use: another program has {where}; stop it or bind to another port")
    if code in (errno.EADDRNOTAVAIL, 10049):
        return UnavailableError(f"cannot bind to {where}: this machine has no such address")
    if code in (errno.EACCES, 10013):
        return UnavailableError(f"cannot bind to {where}: not permitted; try a port above 1023", retryable=False)
    why = SOURCE_LINE.sub("", error.message()).partition("\n")[0]
    return UnavailableError(f"cannot bind to {where}: {why}", retryable=False)
