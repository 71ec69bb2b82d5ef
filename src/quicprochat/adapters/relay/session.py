"""One TCP connection to the relay: HTTP, then a WebSocket, then a proven key, then datagrams."""

from __future__ import annotations

import asyncio
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING

from websockets.frames import CloseCode, Opcode
from websockets.frames import Frame as Message
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from quicprochat.adapters.relay import frames
from quicprochat.adapters.relay.frames import Frame

if TYPE_CHECKING:
    from quicprochat.adapters.relay.server import Relay

BURST_S = 1.0
"""A client may be so far ahead of its rate before the relay stops reading from it."""
CAPTIVE_MAX_CHARS = 64
CORRESPONDENTS_MAX = 1_024
"""Keys that are told when this one leaves."""


class Stage(Enum):
    """How far a connection is."""

    HTTP = "http"
    CHALLENGED = "challenged"
    PROVED = "proved"
    OPEN = "open"


class Session(asyncio.Protocol):
    """Everything about one connection; ``key`` is empty until it is proven."""

    def __init__(self, relay: Relay, nonce: bytes) -> None:
        self.stage = Stage.HTTP
        self.key = b""
        self.host = ""
        self.since = self.heard = relay.time()
        self.correspondents: dict[bytes, None] = {}  # oldest first
        self._relay = relay
        self._nonce = nonce
        self._websocket = ServerProtocol(
            subprotocols=[Subprotocol(name) for name in frames.PROTOCOLS], max_size=frames.FRAME_MAX_BYTES
        )
        self._transport: asyncio.Transport
        self._said = 0
        """Bytes since the last flush."""
        self._paid_until = 0.0
        self._pinged = False

    # --- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.host = str((transport.get_extra_info("peername") or ("",))[0])
        self._relay.opened(self)

    def data_received(self, data: bytes) -> None:
        self._websocket.receive_data(data)
        for event in self._websocket.events_received():
            if isinstance(event, Request):
                self._requested(event)
            elif isinstance(event, Message):
                self._message(event)
        self.flush()
        self._pace(len(data))

    def eof_received(self) -> None:
        self._websocket.receive_eof()
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._relay.closed(self)

    # --- what the relay does with it

    @property
    def protocol(self) -> str:
        """The version that the client speaks."""
        return str(self._websocket.subprotocol)

    @property
    def over(self) -> bool:
        """Whether the connection has ended, or is about to."""
        return self._transport.is_closing()

    def send(self, frame: bytes) -> bool:
        """Send a frame at the end of this turn; False, and nothing sent, where this client does not read."""
        queued = self._said + self._transport.get_write_buffer_size()
        if queued and queued + len(frame) > self._relay.limits.queue_bytes:
            return False
        if self._websocket.state is State.OPEN:
            self._websocket.send_binary(frame)
            self._said += len(frame)
            self._relay.touched(self)
        return True

    def flush(self) -> None:
        """Give what was said to the socket, and end the connection if that was the end."""
        said = self._websocket.data_to_send()
        self._said = 0
        if any(said):
            self._transport.write(b"".join(said))
        if self._websocket.close_expected() or (said and not said[-1]):
            self._transport.close()

    def end(self, code: CloseCode = CloseCode.GOING_AWAY, reason: str = "") -> None:
        """Say goodbye; what is queued still leaves, if the client reads it soon."""
        if self._websocket.state is State.OPEN:
            self._websocket.send_close(code, reason)
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def check(self, now: float) -> None:
        """End what takes too long or is gone; ask whoever was silent for a while."""
        limits = self._relay.limits
        if self._transport.is_closing():
            # Whoever does not read does not see the end either.
            self.abort()
        elif self.stage is not Stage.OPEN:
            if now - self.since >= limits.handshake_s:
                self.abort()
        elif now - self.heard >= limits.silence_s:
            self.abort()
        elif now - self.heard >= limits.ping_s and not self._pinged:
            self._pinged = self.send(bytes([Frame.PING]) + self._relay.entropy(frames.TOKEN_BYTES))

    # --- HTTP

    def _requested(self, request: Request) -> None:
        path = request.path.partition("?")[0]
        websocket = self._websocket
        if path == "/relay":
            response = websocket.accept(request)
            websocket.send_response(response)
            if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
                self.stage = Stage.CHALLENGED
                websocket.send_binary(frames.challenge(self._nonce))
            return
        if path == "/ping":
            response = websocket.reject(HTTPStatus.OK, "pong\n")
            response.headers["Access-Control-Allow-Origin"] = "*"
        elif path == "/generate_204":
            # Somebody in between who answers everything with a log-in page would not know what to say.
            asked = request.headers.get_all("X-Iroh-Challenge")
            response = websocket.reject(HTTPStatus.NO_CONTENT, "")
            if len(asked) == 1 and len(asked[0]) <= CAPTIVE_MAX_CHARS and asked[0].isascii() and asked[0].isprintable():
                response.headers["X-Iroh-Response"] = f"response {asked[0]}"
        elif path == "/":
            response = websocket.reject(HTTPStatus.OK, "This is a relay of a quicprochat community.\n")
        else:
            response = websocket.reject(HTTPStatus.NOT_FOUND, "Not found.\n")
        websocket.send_response(response)

    # --- frames

    def _message(self, message: Message) -> None:
        if message.opcode in (Opcode.PING, Opcode.PONG, Opcode.CLOSE):
            self._heard()
            return
        if message.opcode is not Opcode.BINARY or not message.fin or not message.data:
            self._websocket.fail(CloseCode.UNSUPPORTED_DATA, "one binary message is one frame")
            return
        frame = bytes(message.data)
        if self.stage is Stage.OPEN:
            self._heard()
            self._frame(frame)
        elif self.stage is Stage.CHALLENGED:
            self._answered(frame)

    def _heard(self) -> None:
        self.heard, self._pinged = self._relay.time(), False

    def _answered(self, frame: bytes) -> None:
        key = frames.authenticated(frame, self._nonce)
        if key is None:
            self.deny("the challenge was not answered by the key")
            return
        self.key, self.stage = key, Stage.PROVED
        self._transport.pause_reading()
        self._relay.proved(self)

    def admit(self) -> None:
        """Take datagrams from now on."""
        self.stage = Stage.OPEN
        self._websocket.send_binary(bytes([Frame.CONFIRM]))
        self.flush()
        self._go_on()

    def deny(self, reason: str) -> None:
        """Say why this key has nothing to do here, and end the connection."""
        self._relay.refused()
        self._websocket.send_binary(frames.deny(reason))
        self._websocket.send_close(CloseCode.POLICY_VIOLATION, "refused")
        self.flush()

    def _frame(self, frame: bytes) -> None:
        to = frames.destination(frame)
        if to:
            self.correspondents.pop(to, None)
            self.correspondents[to] = None
            if len(self.correspondents) > CORRESPONDENTS_MAX:
                del self.correspondents[next(iter(self.correspondents))]
            self._relay.forward(self, to, frame)
        elif frame[0] == Frame.PING and len(frame) == 1 + frames.TOKEN_BYTES:
            self.send(bytes([Frame.PONG]) + frame[1:])
        # Others, of later versions too, need no answer.

    # --- the rate

    def _pace(self, count: int) -> None:
        """Stop reading for a while from a client that is ahead of its rate; TCP makes it wait."""
        now = self._relay.time()
        self._paid_until = max(self._paid_until, now) + count / self._relay.limits.bytes_per_s
        ahead = self._paid_until - now - BURST_S
        if ahead > 0 and self.stage is Stage.OPEN and not self._transport.is_closing():
            self._transport.pause_reading()
            self._relay.later(ahead, self._go_on)

    def _go_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()
