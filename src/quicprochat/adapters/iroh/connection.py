"""A connection to one peer, and its one two-way stream."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import iroh
from iroh import IrohError

from quicprochat.adapters.iroh.addresses import SocketAddress, parse
from quicprochat.adapters.iroh.faults import in_time, short, translate
from quicprochat.core.errors import LocalError, QuicprochatError, UnavailableError

if TYPE_CHECKING:
    from quicprochat.adapters.iroh.endpoint import Endpoint

READ_BYTES: Final = 262_144
"""The most that one read returns."""

_FIRST_READ_BYTES: Final = 16_384
"""What a read asks for on a quiet stream: the binding sets so much memory aside per link while it waits."""

REASON_BYTES: Final = 256
"""The longest closing reason sent; it shares one packet with all else."""

STRAY_STREAM: Final = 0x7102
"""The code on the wire when a peer opens a second stream; the link protocol's own codes are lower."""


ENOUGH_PACKETS = 50
"""Fewer say nothing about how many get lost."""


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
            raise UnavailableError(f"the stream from {short(self._connection.peer)} broke off within a read")
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
            raise UnavailableError(f"the stream to {short(self._connection.peer)} broke off within a write")
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
        self._counted = (0, 0)
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
        pair = await in_time(timeout_s, self._raw.open_bi if self.dialled else self._raw.accept_bi)
        if pair is None:
            raise UnavailableError(f"{short(self.peer)} opened no stream within {timeout_s:g} s")
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
        return parse(path.remote_addr) if path is not None and path.is_ip else None

    def relayed(self) -> bool:
        """Say whether a relay carries the packets now."""
        path = self._path()
        return path is not None and bool(path.is_relay)

    def rtt_ms(self) -> float | None:
        """Return QUIC's smoothed round trip on the path in use, in whole milliseconds: 0 on a fast one."""
        path = self._path()
        return None if path is None else float(path.rtt_ms)

    def packets_in(self) -> int:
        """Return how many packets have come from the peer on the path in use: it grows with every acknowledgement too.

        So it shows within 5 s, without a byte of ours, whether the peer's machine is there; not whether its
        program still thinks. Other paths do not count: iroh keeps a relayed one alive beside a direct one that is dead.
        """
        path = self._path()
        return 0 if path is None else int(path.stats.udp_rx_datagrams)

    def lost(self) -> float:
        """Return the share of packets sent since this was asked last that got lost; 0 when too few were sent to say."""
        path = self._path()
        if path is None:
            return 0.0
        sent, lost = int(path.stats.udp_tx_datagrams), int(path.stats.lost_packets)
        before, self._counted = self._counted, (sent, lost)
        sent, lost = sent - before[0], lost - before[1]
        return min(1.0, max(0, lost) / sent) if sent >= ENOUGH_PACKETS else 0.0

    def _path(self) -> iroh.PathSnapshot | None:
        paths = self._raw.paths() if self._raw is not None else []
        return next((path for path in paths if path.is_selected), paths[0] if paths else None)

    def _failed(self, error: IrohError) -> QuicprochatError:
        """Explain a failed operation: by the end of the connection, if that is why it failed."""
        if self._our_reason is None and (self._raw is not None and self._raw.close_reason() is None):
            return translate(error, f"the stream to {short(self.peer)} failed", self.peer)
        return self._ended()

    def _ended(self) -> UnavailableError:
        reason = self._our_reason
        if reason is None and self._over.done():
            reason = self._over.result()
        if reason is None and self._raw is not None:
            reason = self._raw.close_reason()
        return UnavailableError(f"the connection to {short(self.peer)} is closed: {reason or 'gone'}")

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
