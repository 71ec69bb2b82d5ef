"""A UDP socket in the event loop that takes many datagrams at a time.

asyncio's own takes one for each turn of the loop and answers each; here all that wait, up to a bound, are taken in one
turn and answered together. What does not fit into the kernel's buffer is dropped, as a network would: asyncio's own
would gather it without limit, and QUIC sends it again.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

from quicprochat.adapters.quic.mtu import whole

READS_MAX = 32
"""Datagrams in one turn: about 3 ms of work, so that nobody else waits long."""
DATAGRAM_BYTES = 65_536


class Datagrams(asyncio.DatagramTransport):
    """Owns a bound, non-blocking socket and hands what comes to a protocol."""

    def __init__(self, loop: asyncio.AbstractEventLoop, bound: socket.socket, to: asyncio.DatagramProtocol) -> None:
        super().__init__()
        self._loop = loop
        self._socket = bound
        self._to = to
        self._closing = False
        to.connection_made(self)
        loop.add_reader(bound, self._readable)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._socket.getsockname() if name == "sockname" else default

    def sendto(self, data: Any, addr: Any = None) -> None:
        if self._closing:
            return
        try:
            self._socket.sendto(data, addr)
        except OSError as error:  # BlockingIOError too: no room, or no way there at the moment
            self._to.error_received(error)

    def send_whole(self, data: bytes, addr: Any) -> bool:
        """Send in one piece; return False where our own interface is too narrow for that."""
        if self._closing:
            return True
        try:
            with whole(self._socket):
                self._socket.sendto(data, addr)
        except OSError as error:
            return error.errno != errno.EMSGSIZE
        return True

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._loop.call_soon(self._to.connection_lost, None)

    abort = close

    def _readable(self) -> None:
        for _ in range(READS_MAX):
            if self._closing:
                return
            try:
                data, sender = self._socket.recvfrom(DATAGRAM_BYTES)
            except BlockingIOError:
                return
            except OSError as error:  # somebody's port is unreachable; says nothing of the others
                self._to.error_received(error)
                continue
            self._to.datagram_received(data, sender)
