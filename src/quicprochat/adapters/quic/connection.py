"""One QUIC connection whose other end has proved who it is, with one two-way stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import cast

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic import events
from aioquic.quic.connection import QuicConnection
from cryptography import x509

from quicprochat.adapters.quic import flow, mtu
from quicprochat.adapters.quic.datagrams import Datagrams
from quicprochat.adapters.quic.stream import StreamTransport
from quicprochat.adapters.quic.tls import Check, authenticate, certificate_of, identity_of, refusal_of
from quicprochat.core.errors import QuicprochatError, UnavailableError

RPC_STREAM = 0
"""The client's first two-way stream; it may open no other, and the server none (RFC 9000 §2.1)."""
REASON_BYTES = 256

TIMER_SLACK_S = 0.000_1

ACK_FULL_S, ACK_SHORT_S = 0.001, 0.008
"""How long an acknowledgement may wait for an answer to ride on. Whoever sends full datagrams may need it to send more;
a short one is a call, whose answer takes a commit. Peers reckon with 25 ms."""

PROTOCOL = 0x15
"""The code for a peer that does what no honest one does."""

log = logging.getLogger("quicprochat.quic")
# aioquic warns of each connection that breaks the protocol, so anybody could fill the log.
logging.getLogger("quic").setLevel(logging.CRITICAL)


class Connection(QuicConnectionProtocol):
    """Made by an endpoint. ``peer`` and ``alpn`` mean something once it is ready."""

    def __init__(
        self,
        quic: QuicConnection,
        checks: Mapping[str, Check],
        ready: Callable[[Connection], None],
        ended: Callable[[Connection], None],
    ) -> None:
        authenticate(quic, checks)
        super().__init__(quic)
        self.peer = b""
        """Who the other end is, as its check said: a key, a fingerprint, or a domain."""
        self.alpn = ""
        self._ready = ready
        self._ended = ended
        self._stream: StreamTransport | None = None
        self._stream_came: asyncio.Future[StreamTransport] = self._loop.create_future()
        self._over: asyncio.Future[str] = self._loop.create_future()
        self._pings: dict[int, asyncio.Future[None]] = {}
        self._our_reason = ""
        quic._local_max_streams_bidi.value = quic._local_max_streams_bidi.sent = 0 if quic._is_client else 1
        quic._local_max_streams_uni.value = quic._local_max_streams_uni.sent = 0
        flow.slide(quic, self._unread)
        self._size = mtu.PathSize(quic)

    # --- for those who use it

    async def stream(self, timeout_s: float) -> StreamTransport:
        """Return the stream: a client opens it, a server gets it with its first bytes. Raises: UnavailableError."""
        if self._quic._is_client and self._stream is None:
            self._attach()
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(self._stream_came)
        except TimeoutError:
            raise UnavailableError(f"the other end opened no stream within {timeout_s:g} s") from None

    def end(self, code: int, reason: str) -> None:
        """Close the connection and tell the other end why; what was not sent yet is lost.

        May be called from within a call that the peer made: its stream ends a little later.
        """
        self._our_reason = self._our_reason or reason
        if self._stream is not None:
            self._stream.halt(ConnectionResetError(reason))
        self.close(code, reason.encode()[:REASON_BYTES].decode("utf-8", "ignore"))

    async def leave(self, reason: str = "") -> None:
        """End it now and free what a client holds, without waiting until the path is quiet."""
        self.end(0, reason)
        await asyncio.sleep(0)
        self._finish(reason or "we have left")

    async def ended(self) -> str:
        """Wait for the end; return why."""
        return await asyncio.shield(self._over)

    @property
    def certificate(self) -> x509.Certificate:
        """What the other end has proved to be its own; for a connection that is ready."""
        certificate = certificate_of(self._quic)
        assert certificate is not None
        return certificate

    @property
    def over(self) -> bool:
        """True once it has ended."""
        return self._over.done()

    def failure(self, what: str) -> QuicprochatError:
        """Return the error for something that this connection's end kept from happening."""
        refusal = refusal_of(self._quic)
        if refusal is not None:
            return refusal
        why = self._over.result() if self._over.done() else "it is closed"
        return UnavailableError(f"{what}: {why}")

    async def answered(self) -> None:
        """Wait until the other end's machine has acknowledged something sent now, or the connection is over."""
        # Not aioquic's ping: asyncio complains of what that one leaves behind when its caller stops waiting.
        heard: asyncio.Future[None] = self._loop.create_future()
        number = id(heard)
        self._pings[number] = heard
        self._quic.send_ping(number)
        self.transmit()
        try:
            await asyncio.wait((heard, self._over), return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._pings[number]

    def keep_alive(self) -> None:
        """Send something that the other end must acknowledge: the idle timeout begins anew on both sides."""
        if not self.over:
            self._quic.send_ping(0)
            self.transmit()

    # --- from aioquic

    def quic_event_received(self, event: events.QuicEvent) -> None:
        match event:
            case events.StreamDataReceived(stream_id=id, data=data, end_stream=end):
                if id != RPC_STREAM:
                    # aioquic lets a peer open another one when the first is finished.
                    self.end(PROTOCOL, "a connection has one stream")
                    return
                if self._stream is None and not self._stream_came.done():
                    self._attach()
                if self._stream is not None:
                    self._stream.arrived(data, end=end)
            case events.StreamReset() | events.StopSendingReceived():
                if self._stream is not None:
                    self._stream.lost(ConnectionResetError("the peer gave the stream up"))
            case events.HandshakeCompleted(alpn_protocol=alpn):
                self.peer, self.alpn = identity_of(self._quic), alpn or ""
                self._ready(self)
            case events.ConnectionTerminated(error_code=code, reason_phrase=reason):
                self._finish(self._our_reason or reason or _explain(code))
            case events.PingAcknowledged(uid=number):
                if (heard := self._pings.get(number)) is not None and not heard.done():
                    heard.set_result(None)
            case _:
                pass

    def datagram_received(self, data: bytes | str, addr: object) -> None:
        quic = self._quic
        quic._ack_delay = ACK_SHORT_S if len(data) < mtu.BASE and quic._handshake_confirmed else ACK_FULL_S
        try:
            quic.receive_datagram(cast(bytes, data), cast(tuple[str, int], addr), now=self._loop.time())
            self._process_events()
            if flow.excessive(self._quic):
                self.end(PROTOCOL, "too many fragments")
        except Exception:
            log.debug("a datagram could not be processed", exc_info=True)
            self.end(PROTOCOL, "this could not be processed")
        if self._stream is not None:
            self._stream.acknowledged()
        if quic._close_pending:
            self.transmit()  # at once: until then aioquic would go on listening to a peer that was refused
        else:
            self._transmit_soon()

    def transmit(self) -> None:
        """Send what there is to send. A later deadline leaves the alarm where it is: it looks again when it rings."""
        if self._transmit_task is not None:
            self._transmit_task.cancel()
            self._transmit_task = None
        if self._over.done():
            return  # the socket may be gone
        assert self._transport is not None
        now = self._loop.time()
        datagrams = self._quic.datagrams_to_send(now=now)
        for data, addr in datagrams:
            self._transport.sendto(data, addr)
        if datagrams:
            self._size.look(datagrams[0][1], now)
            if self._size.due(len(datagrams), now):
                self._try_larger(now)
        self._set_alarm(self._quic.get_timer())

    def _try_larger(self, now: float) -> None:
        if not mtu.CAN_TRY or not isinstance(self._transport, Datagrams):
            return
        for data, addr in self._size.trial(now):
            if not self._transport.send_whole(data, addr):
                self._size.too_large(now)

    def _set_alarm(self, at: float | None) -> None:
        if self._timer is not None and self._timer_at is not None and (at is None or at < self._timer_at):
            self._timer.cancel()
            self._timer = None
        if self._timer is None and at is not None:
            self._timer, self._timer_at = self._loop.call_at(at, self._handle_timer), at

    def _handle_timer(self) -> None:
        self._timer = None
        at, now = self._quic.get_timer(), self._loop.time()
        if at is not None and at > now + TIMER_SLACK_S:
            self._set_alarm(at)
            return
        self._quic.handle_timer(now=max(at or now, now))
        self._process_events()
        self.transmit()

    # --- within

    def _attach(self) -> None:
        self._stream = StreamTransport(self._quic, RPC_STREAM, self._transmit_soon, self.transmit, self._stream_ended)
        self._stream_came.set_result(self._stream)

    def _stream_ended(self, _: StreamTransport) -> None:
        self._stream = None

    def _unread(self, stream_id: int) -> int:
        return self._stream.unread if self._stream is not None and stream_id == RPC_STREAM else 0

    def _finish(self, reason: str) -> None:
        if self._over.done():
            return
        self._over.set_result(reason)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._stream_came.done():
            self._stream_came.set_exception(self.failure("no stream came about"))
            self._stream_came.exception()  # nobody may be waiting for it
        if self._stream is not None:
            self._stream.lost(ConnectionResetError(reason))
        self._ended(self)


def _explain(code: int) -> str:
    if code == 0:
        return "the other end has left"
    if 0x100 <= code < 0x200:
        return f"the handshake failed (TLS alert {code - 0x100})"
    return f"the other end closed it (code {code:#x})"
