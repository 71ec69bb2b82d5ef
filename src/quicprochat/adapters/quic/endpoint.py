"""UDP ports that speak QUIC: a server's, and one for each connection that a client opens."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aioquic._buffer import Buffer
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import QuicServer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicPacketType, pull_quic_header
from aioquic.quic.retry import QuicRetryTokenHandler
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from quicprochat.adapters.quic.connection import Connection
from quicprochat.adapters.quic.datagrams import Datagrams
from quicprochat.adapters.quic.flow import CONNECTION_WINDOW, STREAM_WINDOW
from quicprochat.adapters.quic.mtu import CONGESTION
from quicprochat.adapters.quic.tls import Check, UntrustedError, refusal_of
from quicprochat.core.errors import LocalError, UnavailableError

log = logging.getLogger("quicprochat.quic")

IDLE_S = 60.0
"""A connection on which nothing came for so long is over; a client asks for a sign of life several times as often."""
HANDSHAKES = 256
"""Handshakes under way: one more ends the oldest. From half of it on, addresses must be confirmed first."""
HANDSHAKE_S = 10.0
RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024
"""What the kernel holds while Python is busy; it gives less where its own limit is lower."""
CID_BYTES = 8

BUSY = 0x11
"""The code with which a full server ends a new connection."""
LEAVING = 0x10


@dataclass(frozen=True, slots=True)
class Credentials:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: PrivateKeyTypes


def _configuration(credentials: Credentials, alpns: list[str], *, client: bool) -> QuicConfiguration:
    return QuicConfiguration(
        is_client=client,
        alpn_protocols=alpns,
        certificate=credentials.certificate,
        private_key=credentials.key,
        connection_id_length=CID_BYTES,
        idle_timeout=IDLE_S,
        congestion_control_algorithm=CONGESTION,
        max_data=CONNECTION_WINDOW,
        max_stream_data=STREAM_WINDOW,
        verify_mode=ssl.CERT_NONE,  # the check in the TLS context decides, and without one nobody is trusted
    )


class _Port(QuicServer):
    """aioquic's demultiplexer with bounds."""

    def __init__(self, owner: Listener, configuration: QuicConfiguration) -> None:
        super().__init__(configuration=configuration, create_protocol=owner._made)
        self._tokens = QuicRetryTokenHandler()
        self._owner = owner

    def datagram_received(self, data: bytes | str, addr: Any) -> None:
        assert isinstance(data, bytes)
        # Without tickets there is no resumption, so every token is one of our own confirmations.
        confirm = len(self._owner._shaking) >= HANDSHAKES // 2 or _has_token(data)
        self._retry = self._tokens if confirm else None  # type: ignore[assignment]
        try:
            super().datagram_received(data, addr)
        except Exception:
            self._owner.refused += 1
            log.debug("a datagram could not be read", exc_info=True)

    def _connection_terminated(self, protocol: QuicConnectionProtocol) -> None:
        # aioquic's own walks through the ids of all connections: with thousands of them, a flood would win.
        quic = protocol._quic
        known = [quic.original_destination_connection_id, quic._retry_source_connection_id]
        known += [id.cid for id in quic._host_cids]
        for cid in known:
            if cid is not None and self._protocols.get(cid) is protocol:
                del self._protocols[cid]


def _has_token(data: bytes) -> bool:
    if len(data) < 1200 or not data[0] & 0x80:
        return False
    try:
        header = pull_quic_header(Buffer(data=data[:1200]), host_cid_length=CID_BYTES)
    except ValueError:
        return False
    return header.packet_type is QuicPacketType.INITIAL and bool(header.token)


class Listener:
    """A server's port. Made by :func:`listen`, ended by :meth:`close`."""

    def __init__(
        self,
        configuration: QuicConfiguration,
        checks: Mapping[str, Check],
        accepted: Callable[[Connection], None],
        distrusted: Callable[[UntrustedError], None] | None,
        limit: int,
    ) -> None:
        self.refused = 0
        """Handshakes that came to nothing, and connections turned away because there was no room."""
        self._configuration = configuration
        self._checks = checks
        self._accepted = accepted
        self._distrusted = distrusted
        self._limit = limit
        self._shaking: dict[Connection, asyncio.TimerHandle] = {}  # oldest first
        self._live: set[Connection] = set()
        self._port: _Port | None = None
        self._transport: asyncio.DatagramTransport | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        assert self._transport is not None
        host, port, *_ = self._transport.get_extra_info("sockname")
        return host, port

    @property
    def connections(self) -> frozenset[Connection]:
        """The connections whose other end has proved who it is."""
        return frozenset(self._live)

    def renew(self, credentials: Credentials) -> None:
        """Show another certificate from now on, after a change of what a check trusts too.

        Whoever is connected stays so. Handshakes under way begin anew: a check may have passed them by what was before.
        """
        # aioquic reads both when a connection begins, so a handshake never has one of the old and one of the new.
        self._configuration.certificate = credentials.certificate
        self._configuration.private_key = credentials.key
        for connection in tuple(self._shaking):
            self._drop(connection, "the server's certificates have changed; try again")

    async def close(self, reason: str = "the server is stopping") -> None:
        """End every connection, tell the other ends, and free the port."""
        if self._transport is None:
            return
        for connection in (*self._shaking, *self._live):
            connection.end(LEAVING, reason)
        await asyncio.sleep(0)
        self._transport.close()
        for connection in (*self._shaking, *self._live):
            connection._finish(reason)
        self._transport = None

    def _made(self, quic: QuicConnection, **_: object) -> Connection:
        connection = Connection(quic, self._checks, self._ready, self._ended)
        while len(self._shaking) >= HANDSHAKES:
            self._drop(next(iter(self._shaking)))
        timer = asyncio.get_running_loop().call_later(HANDSHAKE_S, self._drop, connection)
        self._shaking[connection] = timer
        return connection

    def _drop(self, connection: Connection, reason: str = "the handshake took too long") -> None:
        """End a handshake, and free at once what it holds: a flood would fill the memory with what is over.

        So there is no closing period (RFC 9000, section 10.2); who did not hear of the end gives up by itself.
        """
        self.refused += 1
        self._shaking.pop(connection).cancel()
        connection.end(LEAVING, reason)
        connection._finish(reason)
        if self._port is not None:
            self._port._connection_terminated(connection)
        vars(connection._quic).clear()  # it is in many cycles, and old enough not to be collected soon

    def _ready(self, connection: Connection) -> None:
        timer = self._shaking.pop(connection, None)
        if timer is None:
            return
        timer.cancel()
        if len(self._live) >= self._limit:
            self.refused += 1
            connection.end(BUSY, "the server has no room for another connection; try again later")
            return
        self._live.add(connection)
        self._accepted(connection)

    def _ended(self, connection: Connection) -> None:
        self._live.discard(connection)
        timer = self._shaking.pop(connection, None)
        if timer is not None:
            timer.cancel()
            self.refused += 1
            refusal = refusal_of(connection._quic)
            if refusal is not None and self._distrusted is not None:
                self._distrusted(refusal)


async def listen(
    address: tuple[str, int],
    credentials: Credentials,
    checks: Mapping[str, Check],
    accepted: Callable[[Connection], None],
    *,
    limit: int,
    distrusted: Callable[[UntrustedError], None] | None = None,
) -> Listener:
    """Open a port; ``accepted`` is told of each connection that passed the check of its ALPN.

    ``distrusted`` is told why one did not; anybody can make it be called as often as packets come.

    Raises: UnavailableError when the port is taken or the address is not ours; LocalError.
    """
    configuration = _configuration(credentials, list(checks), client=False)
    listener = Listener(configuration, checks, accepted, distrusted, limit)
    bound = _socket(address)
    loop = asyncio.get_running_loop()
    listener._port = _Port(listener, configuration)
    listener._transport = Datagrams(loop, bound, listener._port)
    return listener


async def connect(
    address: tuple[str, int], alpn: str, credentials: Credentials, check: Check, timeout_s: float
) -> Connection:
    """Open a connection to a server that passes the check.

    Raises: UntrustedError; UnavailableError when nobody answers in time. Then nothing is left open.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(*address, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise UnavailableError(f"no address is known for {address[0]}: {error.strerror}") from error
    family, _, _, _, target = found[0]
    done: asyncio.Future[None] = loop.create_future()

    def settle(_: Connection) -> None:
        if not done.done():
            done.set_result(None)

    quic = QuicConnection(configuration=_configuration(credentials, [alpn], client=True))
    ours = socket.socket(family, socket.SOCK_DGRAM)
    _enlarge(ours)
    ours.setblocking(False)
    ours.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 0))
    connection = Connection(quic, {alpn: check}, settle, settle)
    transport = Datagrams(loop, ours, connection)
    connection._over.add_done_callback(lambda _: transport.close())
    try:
        connection.connect(target)
        async with asyncio.timeout(timeout_s):
            await done
    except TimeoutError:
        connection.end(LEAVING, "the server did not answer in time")
        connection._finish("the server did not answer in time")
        raise UnavailableError(f"{address[0]}:{address[1]} did not answer within {timeout_s:g} s") from None
    except BaseException:
        connection._finish("given up")
        raise
    if connection.over:
        raise connection.failure(f"cannot connect to {address[0]}:{address[1]}")
    return connection


def _socket(address: tuple[str, int]) -> socket.socket:
    """Bind a UDP socket; ``::`` takes IPv4 as well."""
    host, port = address
    where = f"UDP [{host}]:{port}" if ":" in host else f"UDP {host}:{port}"
    try:
        family, _, _, _, target = socket.getaddrinfo(
            host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICHOST
        )[0]
    except OSError:
        raise LocalError(f"{host!r} is not an IP address to listen on") from None
    made = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        _enlarge(made)
        made.setblocking(False)
        made.bind(target)
    except OSError as error:
        made.close()
        raise UnavailableError(f"cannot listen on {where}: {error.strerror}; another program may have it") from error
    return made


def _enlarge(made: socket.socket) -> None:
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
