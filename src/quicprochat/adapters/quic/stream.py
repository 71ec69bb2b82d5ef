"""An asyncio transport over one QUIC stream, for a ``BufferedProtocol`` such as pycapnp's.

pycapnp 2.2.4 follows a null pointer when the end of the stream comes while it reads nothing, so a peer could kill the
process: nothing is delivered while reading is paused, the end comes as ``connection_lost`` after the last byte, and
``eof_received`` is never called.

pycapnp queues answers without limit, so a peer that asks and never reads could fill the memory. A server's stream
delivers nothing while its own writer is paused: who doesn't take answers is not heard. A client's stream always
delivers, which is why the two cannot wait for each other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from aioquic.quic.connection import QuicConnection

from quicprochat.adapters.quic.flow import due

SEND_HIGH, SEND_LOW = 256 * 1024, 64 * 1024
"""Bytes not yet acknowledged by the peer: above the one its writer is asked to pause, below the other to go on."""

ABORTED = 0x14
"""The code of a stream that was given up."""


class StreamTransport(asyncio.Transport):
    """One end of the stream. ``transmit_soon`` makes the connection send with the next turn of the loop, ``transmit``
    at once; ``ended`` is told once of the end."""

    def __init__(
        self,
        quic: QuicConnection,
        id: int,
        transmit_soon: Callable[[], None],
        transmit: Callable[[], None],
        ended: Callable[[StreamTransport], None],
    ) -> None:
        super().__init__()
        self.id = id
        self._answers_first = not quic.configuration.is_client
        self.unread = 0
        """Bytes received that the reader has not taken."""
        self._quic = quic
        self._transmit = transmit_soon
        self._transmit_now = transmit
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._protocol: asyncio.BufferedProtocol | None = None
        self._arrived: deque[memoryview] = deque()
        self._finished = False  # by the peer
        self._reading = True
        self._delivering = False
        self._writes: list[bytes] = []
        self._waiting = 0
        self._flush_soon: asyncio.Handle | None = None
        self._paused = False
        self._closing = False
        self._lost = False
        self._error: Exception | None = None

    # --- asyncio.Transport

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand the stream to its reader; one that comes too late is told so."""
        assert isinstance(protocol, asyncio.BufferedProtocol)
        self._protocol = protocol
        if self._lost:
            self._loop.call_soon(protocol.connection_lost, self._error)

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._reading

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._deliver()

    def can_write_eof(self) -> bool:
        return not self._lost

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing:
            return
        self._writes.append(bytes(data))
        self._waiting += len(data)
        if self._flush_soon is None:
            self._flush_soon = self._loop.call_soon(self._flush_and_transmit)
        if not self._paused and self._unacknowledged() > SEND_HIGH:
            self._paused = True
            self.get_protocol().pause_writing()

    def write_eof(self) -> None:
        if not self._closing and not self._lost:
            self._flush()
            self._send(b"", end=True)

    def close(self) -> None:
        """Send what was written and the end; the peer's bytes are not read any more."""
        if self._closing:
            return
        self._flush()
        self._closing = True
        if not self._lost:
            self._send(b"", end=True)
        self._loop.call_soon(self.lost, None)

    def abort(self) -> None:
        self._closing = True
        if not self._lost:
            self._quic.reset_stream(self.id, ABORTED)
            self._transmit()
        self.lost(ConnectionAbortedError("aborted"))

    # --- what the connection tells

    def arrived(self, data: bytes, *, end: bool) -> None:
        """Take bytes from the peer."""
        if self._lost:
            return
        if data:
            self._arrived.append(memoryview(data))
            self.unread += len(data)
        self._finished = self._finished or end
        self._deliver()

    def acknowledged(self) -> None:
        """Let a paused writer go on when the peer has taken enough."""
        if self._paused and self._unacknowledged() < SEND_LOW:
            self._paused = False
            self.get_protocol().resume_writing()
            self._deliver()

    def halt(self, error: Exception) -> None:
        """Deliver nothing more and end it soon: may be called from within a call that the peer made."""
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self.lost, error)

    def lost(self, error: Exception | None) -> None:
        """End it here: the stream was reset, or the connection is gone. Any number of calls is one."""
        if self._lost:
            return
        self._lost = self._closing = True
        self._error = error
        self._arrived.clear()
        self.unread = 0
        if self._flush_soon is not None:
            self._flush_soon.cancel()
        self._ended(self)
        if self._protocol is not None:
            self._protocol.connection_lost(error)

    # --- within

    def _unacknowledged(self) -> int:
        stream = self._quic._streams.get(self.id)
        return self._waiting + (stream.sender._buffer_stop - stream.sender._buffer_start if stream else 0)

    def _flush(self) -> None:
        if self._flush_soon is not None:
            self._flush_soon.cancel()
            self._flush_soon = None
        if self._writes and not self._lost:
            data = b"".join(self._writes)
            self._writes.clear()
            self._waiting = 0
            self._send(data, end=False)

    def _flush_and_transmit(self) -> None:
        self._flush()
        self._transmit_now()

    def _send(self, data: bytes, *, end: bool) -> None:
        try:
            self._quic.send_stream_data(self.id, data, end_stream=end)
        except (RuntimeError, ValueError):
            return  # the stream was ended already, by us or by a reset
        self._transmit()

    def _open(self) -> bool:
        """Say whether the reader may be given something now."""
        return self._reading and not self._closing and not (self._answers_first and self._paused)

    def _deliver(self) -> None:
        if self._delivering or self._protocol is None:
            return
        self._delivering = True
        try:
            while self._arrived and self._open():
                chunk = self._arrived[0]
                into = memoryview(self._protocol.get_buffer(len(chunk)))
                count = min(len(into), len(chunk))
                into[:count] = chunk[:count]
                if count == len(chunk):
                    self._arrived.popleft()
                else:
                    self._arrived[0] = chunk[count:]
                self.unread -= count
                self._protocol.buffer_updated(count)
        finally:
            self._delivering = False
        if self._lost:
            return
        if self._finished and not self._arrived and self._open():
            self._loop.call_soon(self.lost, ConnectionResetError("the peer ended the stream"))
        if due(self._quic, self.id, self.unread):
            self._transmit()
