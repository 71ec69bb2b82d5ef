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
from enum import Enum, auto
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit
from weakref import WeakSet

import iroh
from iroh import IrohError, IrohErrorKind

from quicprochat.core.errors import LocalError, QuicprochatError, RemoteError, UnavailableError

ALPN: Final = b"quicprochat/p2p/1"

READ_BYTES: Final = 262_144
"""The most that one read returns."""

_FIRST_READ_BYTES: Final = 16_384
"""What a read asks for on a quiet stream: the binding sets so much memory aside per link while it waits."""

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

REASON_BYTES: Final = 256
"""The longest closing reason sent; it shares one packet with all else."""

# Codes on the wire when this adapter itself ends a connection; the link protocol keeps below them.
GOODBYE: Final = 0
BUSY: Final = 0x7101
STRAY_STREAM: Final = 0x7102

SocketAddress = tuple[str, int]
T = TypeVar("T")


class Fault(Enum):
    """Who has to act on a failure that iroh reports."""

    CALLER = auto()
    PEER = auto()
    RETRY = auto()
    HOPELESS = auto()


FAULTS: Final[dict[IrohErrorKind, Fault]] = {
    IrohErrorKind.INVALID_INPUT: Fault.CALLER,
    IrohErrorKind.KEY_PARSING: Fault.CALLER,
    IrohErrorKind.TICKET_PARSING: Fault.CALLER,
    IrohErrorKind.ALPN: Fault.PEER,
    IrohErrorKind.CONNECT: Fault.RETRY,
    IrohErrorKind.CONNECTION: Fault.RETRY,
    IrohErrorKind.STREAM: Fault.RETRY,
    IrohErrorKind.DATAGRAM: Fault.RETRY,
    IrohErrorKind.RELAY: Fault.RETRY,
    IrohErrorKind.CLOSED: Fault.RETRY,
    IrohErrorKind.TIMEOUT: Fault.RETRY,
    IrohErrorKind.INTERNAL: Fault.RETRY,  # the binding's word for whatever it has not sorted
    IrohErrorKind.BIND: Fault.HOPELESS,
    IrohErrorKind.CALLBACK: Fault.HOPELESS,  # this adapter registers none
}
"""Every kind of the binding; a test keeps it complete."""

_PLAINER: Final = (
    ("known protocol", "it does not speak quicprochat's mesh protocol"),
    ("UnknownIssuer", "another key answers there"),
)
_SOURCE_LINE = re.compile(r" ?\([^()]*\.rs:\d+:\d+\)")
_OS_ERROR = re.compile(r"os error (\d+)")


def translate(error: IrohError, what: str, peer: bytes | None = None) -> QuicprochatError:
    """Return our error for one of iroh's: ``what`` failed, and why. ``str`` of iroh's own is always empty."""
    why = " ".join(_SOURCE_LINE.sub("", error.message()).replace("\nCaused by:", ":").split())
    why = next((plain for token, plain in _PLAINER if token in why), why)
    return blame(FAULTS.get(error.kind(), Fault.RETRY), f"{what}: {why}", peer)


def blame(fault: Fault, sentence: str, peer: bytes | None = None) -> QuicprochatError:
    """Return the error class that belongs to a fault."""
    match fault:
        case Fault.CALLER:
            return LocalError(sentence)
        case Fault.PEER:
            return RemoteError(sentence, peer=peer)
        case Fault.RETRY:
            return UnavailableError(sentence)
        case Fault.HOPELESS:
            return UnavailableError(sentence, retryable=False)


class Stream:
    """The two-way stream of a connection. One task reads; writes of several tasks follow one another."""

    def __init__(self, pair: iroh.BiStream, connection: Connection) -> None:
        # All three are kept: a stream object that is dropped makes the peer's writes fail.
        self._raw: tuple[iroh.BiStream, iroh.RecvStream, iroh.SendStream] | None = (
            pair,
            pair.recv(),
            pair.send(),
        )
        self._connection = connection
        self._reading = False
        self._read_torn = False
        self._ask = _FIRST_READ_BYTES
        self._finished = False
        self._torn = False

    async def read(self) -> bytes:
        """Return what has arrived, 1 to ``READ_BYTES`` bytes, waiting for some; ``b""`` at the peer's end.

        A read that was cancelled may have taken bytes with it (iroh drops what it has not yet handed over), so
        nothing can be read after it. Raises: UnavailableError when the connection or the stream is gone; LocalError
        when another task is reading.
        """
        if self._reading:
            raise LocalError("another task is reading this stream", code="busy")
        if self._raw is None:
            raise self._connection._ended()
        if self._read_torn:
            raise UnavailableError(f"the stream from {_short(self._connection.peer)} broke off within a read")
        self._reading = True
        try:
            data = await self._raw[1].read(self._ask)
        except asyncio.CancelledError as stop:
            self._read_torn = True
            raise stop.with_traceback(None)  # noqa: B904
        except IrohError as error:
            raise self._connection._failed(error) from error.with_traceback(None)
        finally:
            self._reading = False
        self._ask = min(READ_BYTES, max(_FIRST_READ_BYTES, 4 * len(data)))
        return data

    async def write(self, data: bytes) -> None:
        """Hand all of ``data`` to QUIC, waiting while the peer does not read (about 1.2 MB fit in between).

        A write that was cancelled may have left a part behind, so the stream accepts no more after it.
        Raises: UnavailableError when the connection or the stream is gone.
        """
        if self._raw is None:
            raise self._connection._ended()
        if self._torn:
            raise UnavailableError(f"the stream to {_short(self._connection.peer)} broke off within a write")
        try:
            await self._raw[2].write_all(data)
        except asyncio.CancelledError as stop:
            self._torn = True
            raise stop.with_traceback(None)  # noqa: B904
        except IrohError as error:
            raise self._connection._failed(error) from error.with_traceback(None)

    async def finish(self) -> None:
        """Say that nothing more will be written. What was written still arrives, unless ``close`` is quicker.

        Raises: UnavailableError when the stream is gone.
        """
        if self._finished:
            return
        if self._raw is None:
            raise self._connection._ended()
        try:
            await self._raw[2].finish()
        except IrohError as error:
            raise self._connection._failed(error) from error.with_traceback(None)
        self._finished = True

    def _release(self) -> None:
        self._raw = None


async def _outcome(call: Callable[..., Coroutine[Any, Any, T]], *args: object) -> T | IrohError:
    """Return what a call of the binding returns, or how it failed; without frames that hold its objects."""
    work = call(*args)
    del call
    try:
        return await work
    except IrohError as error:
        return error.with_traceback(None)
    except asyncio.CancelledError as stop:
        raise stop.with_traceback(None)  # noqa: B904


async def _in_time(
    timeout_s: float, call: Callable[..., Coroutine[Any, Any, T]], *args: object
) -> T | IrohError | None:
    """Return the outcome of a call, or None when it took too long."""
    work = _outcome(call, *args)
    del call
    try:
        async with asyncio.timeout(timeout_s):
            return await work
    except TimeoutError:
        return None


class Connection:
    """An authenticated connection: whoever is at the other end holds the secret of ``peer``."""

    def __init__(self, raw: iroh.Connection, *, dialled: bool, endpoint: Endpoint) -> None:
        self.peer: Final[bytes] = raw.remote_id().to_bytes()
        self.dialled: Final = dialled
        self._raw: iroh.Connection | None = raw
        self._endpoint = endpoint
        self._stream: Stream | None = None
        self._stream_asked = False
        self._our_reason: str | None = None
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        endpoint._connections.add(self)
        endpoint._spawn(self._watch(raw))
        endpoint._spawn(self._refuse_uni(raw))
        if dialled:
            endpoint._spawn(self._refuse_bi(raw))

    async def stream(self, timeout_s: float) -> Stream:
        """Return the one long-lived stream: the dialler opens it, the acceptor gets it with its first bytes.

        May be asked for once; when it fails, close the connection.
        Raises: UnavailableError when it does not come about in time.
        """
        if self._stream_asked:
            raise LocalError("a connection has one stream, and it was asked for before", code="busy")
        self._stream_asked = True
        if self._raw is None:
            raise self._ended()
        pair = await _in_time(timeout_s, self._raw.open_bi if self.dialled else self._raw.accept_bi)
        if pair is None:
            raise UnavailableError(f"{_short(self.peer)} opened no stream within {timeout_s:g} s")
        if isinstance(pair, IrohError):
            raise self._failed(pair) from pair
        if self._raw is None:
            raise self._ended()
        if not self.dialled:
            self._endpoint._spawn(self._refuse_bi(self._raw))
        self._stream = Stream(pair, self)
        return self._stream

    def close(self, code: int, reason: str) -> None:
        """End the connection at once and tell the peer: reads and writes fail, bytes not yet sent are lost.

        Does nothing to one that has ended. Raises: LocalError when the code is not in 0 to 2**62 - 1.
        """
        if self._raw is None:
            return
        try:
            self._raw.close(code, reason.encode()[:REASON_BYTES])
        except IrohError as error:
            raise translate(error, "cannot close a connection") from error.with_traceback(None)
        if self._our_reason is None and not self._over.done():
            self._our_reason = reason

    async def closed(self) -> str:
        """Wait for the end; return why: our own reason, or a sentence with the peer's or iroh's."""
        return await asyncio.shield(self._over)

    def remote_address(self) -> SocketAddress | None:
        """Return where packets go now; None while a relay carries them."""
        path = self._path()
        return _parse(path.remote_addr) if path is not None and path.is_ip else None

    def relayed(self) -> bool:
        """Say whether a relay carries the packets now."""
        path = self._path()
        return path is not None and bool(path.is_relay)

    def rtt_ms(self) -> float | None:
        """Return QUIC's smoothed round trip on the path in use, in whole milliseconds: 0 on a fast one."""
        path = self._path()
        return None if path is None else float(path.rtt_ms)

    def packets_in(self) -> int:
        """Return how many packets have come from the peer: it grows with every acknowledgement too.

        So it shows within 5 s, without a byte of ours, whether the peer's machine is there; not whether its
        program still thinks.
        """
        return 0 if self._raw is None else int(self._raw.stats().udp_rx_datagrams)

    def _path(self) -> iroh.PathSnapshot | None:
        paths = self._raw.paths() if self._raw is not None else []
        return next((path for path in paths if path.is_selected), paths[0] if paths else None)

    def _failed(self, error: IrohError) -> QuicprochatError:
        """Explain a failed operation: by the end of the connection, if that is why it failed."""
        if self._our_reason is None and (self._raw is not None and self._raw.close_reason() is None):
            return translate(error, f"the stream to {_short(self.peer)} failed", self.peer)
        return self._ended()

    def _ended(self) -> UnavailableError:
        reason = self._our_reason
        if reason is None and self._over.done():
            reason = self._over.result()
        if reason is None and self._raw is not None:
            reason = self._raw.close_reason()
        return UnavailableError(f"the connection to {_short(self.peer)} is closed: {reason or 'gone'}")

    async def _watch(self, raw: iroh.Connection) -> None:
        reason = "the endpoint was closed"
        try:
            reason = await raw.closed()
        finally:
            if not self._over.done():
                self._over.set_result(self._our_reason or reason)

    async def _refuse_uni(self, raw: iroh.Connection) -> None:
        """End the connection at a stream that nobody would read: iroh holds 1.2 MB for each of 100 such."""
        with suppress(IrohError):
            await raw.accept_uni()
            self.close(STRAY_STREAM, "only one stream is allowed")

    async def _refuse_bi(self, raw: iroh.Connection) -> None:
        with suppress(IrohError):
            await raw.accept_bi()
            self.close(STRAY_STREAM, "only one stream is allowed")

    def _release(self) -> None:
        self._raw = None
        if self._stream is not None:
            self._stream._release()


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
            _check_relay(relay_url)
        attempts = _sockets(bind)
        try:
            relays = iroh.RelayMap.empty()  # with no relay of our own, a peer's can still be dialled
            if relay_url is not None:
                relays.insert(iroh.RelayConfig(url=relay_url, quic_port=None))
            for sockets in attempts:
                builder = iroh.EndpointBuilder()  # type: ignore[no-untyped-call]
                builder.apply_minimal()  # no public relay, no public directory
                builder.secret_key(secret)
                builder.alpns([ALPN])
                builder.relay_mode(iroh.RelayMode.custom(relays))
                for socket in sockets:
                    builder.bind_addr(socket)
                try:
                    return cls(await builder.bind(), bind)
                except IrohError as error:
                    if sockets is attempts[-1]:
                        raise _unbound(error, bind) from error
        except IrohError as error:
            raise translate(error, "cannot start the mesh endpoint") from error
        raise AssertionError("the last attempt returns or raises")

    def addresses(self) -> list[SocketAddress]:
        """Return where peers on our networks may dial us; loopback only if that is all we are bound to.

        iroh leaves out unique local IPv6 addresses where it has others; they are added here (Linux).
        """
        if self._raw is None:
            return []
        found = [_parse(text) for text in self._raw.addr().direct_addresses()]
        for ip, port in map(_parse, self._raw.bound_sockets()):
            if ip == "::":
                found += [(local, port) for local in _unique_local()]
        return [address for address in dict.fromkeys(found) if self._reachable(address[0])]

    def _reachable(self, ip: str) -> bool:
        if self._only is not None:
            return ip == self._only
        return _routable(ip) and not ipaddress.ip_address(ip).is_loopback

    def relay(self) -> str | None:
        """Return the URL of the relay we can be reached through now, if any."""
        return None if self._raw is None else self._raw.addr().relay_url()

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
            _check_relay(relay_url)
        hints = [_format(address) for address in dict.fromkeys(addresses) if _dialable(address)]
        if not hints and relay_url is None:
            raise UnavailableError(f"no address is known for {_short(key)}")
        try:
            target = iroh.EndpointAddr(iroh.EndpointId.from_bytes(key), relay_url, hints)
        except IrohError as error:
            raise translate(error, f"{key.hex()[:64]!r} is no peer's key") from error
        found = await _in_time(timeout_s, self._raw.connect, target, ALPN)
        if found is None:
            raise UnavailableError(f"{_short(key)} did not answer within {timeout_s:g} s")
        if isinstance(found, IrohError):
            raise translate(found, f"cannot connect to {_short(key)}", key) from found
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


def _sockets(bind: SocketAddress | None) -> tuple[tuple[str, ...], ...]:
    """Return the addresses to open, first choice first. For a family not named, iroh opens the wildcard."""
    if bind is None:
        return ((),)
    try:
        ip, port = ipaddress.ip_address(bind[0]), bind[1]
    except ValueError:
        raise LocalError(f"{bind[0]!r} is not an IP address to bind to") from None
    if not 0 <= port <= 65535:
        raise LocalError(f"{port} is not a port")
    wildcard, loopback = ("::", "::1") if ip.version == 4 else ("0.0.0.0", "127.0.0.1")
    wanted = _format((str(ip), port))
    other = _format((wildcard, port) if ip.is_unspecified else (loopback, 0))
    return (wanted, other), (wanted,)  # the second where the other family is absent, or its port taken


def _unbound(error: IrohError, bind: SocketAddress | None) -> UnavailableError:
    """Explain a bind that failed, from the system's error number that only the debug text has."""
    number = _OS_ERROR.search(error.debug_message())
    code = int(number[1]) if number else 0
    where = f"UDP {_format(bind)}" if bind else "a UDP port"
    if code in (errno.EADDRINUSE, 10048):
        return UnavailableError(f"port in use: another program has {where}; stop it or bind to another port")
    if code in (errno.EADDRNOTAVAIL, 10049):
        return UnavailableError(f"cannot bind to {where}: this machine has no such address")
    if code in (errno.EACCES, 10013):
        return UnavailableError(f"cannot bind to {where}: not permitted; try a port above 1023", retryable=False)
    why = _SOURCE_LINE.sub("", error.message()).partition("\n")[0]
    return UnavailableError(f"cannot bind to {where}: {why}", retryable=False)


def _check_relay(url: str) -> None:
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return
    raise LocalError(f"{url[:80]!r} is not a relay URL: write http://host:port")


def _dialable(address: SocketAddress) -> bool:
    """Say whether iroh can dial this; link-local it cannot. Raises: LocalError when it is no IP address."""
    ip, port = address
    try:
        return _routable(ip) and 1 <= port <= 65535
    except ValueError:
        raise LocalError(f"{ip!r} is not an IP address") from None


def _routable(ip: str) -> bool:
    parsed = ipaddress.ip_address(ip)
    return not (parsed.is_unspecified or parsed.is_link_local or parsed.is_multicast)


def _unique_local() -> list[str]:
    """Return this machine's lasting fc00::/7 addresses. Source: /proc/net/if_inet6, flags of if_addr.h."""
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        return []
    temporary, failed, deprecated, tentative = 0x01, 0x08, 0x20, 0x40
    found = []
    for line in lines:
        address, _index, _prefix, _scope, flags, *_name = line.split()
        ip = ipaddress.IPv6Address(int(address, 16))
        bad = int(flags, 16) & (temporary | failed | deprecated | tentative)
        if ip.packed[0] & 0xFE == 0xFC and not bad:
            found.append(str(ip))
    return found


def _parse(text: str) -> SocketAddress:
    """Read ``ip:port`` or ``[ip]:port`` as iroh writes them."""
    host, _, port = text.rpartition(":")
    return host.strip("[]").partition("%")[0], int(port)


def _format(address: SocketAddress) -> str:
    ip, port = address
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _short(key: bytes) -> str:
    return f"peer {key.hex()[:8]}"
