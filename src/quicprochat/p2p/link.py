"""One link to one neighbour: a reader, a writer and a heartbeat over one QUIC stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

from quicprochat.core.address import Address
from quicprochat.core.bucket import TokenBucket
from quicprochat.core.errors import RemoteError, UnavailableError
from quicprochat.core.events import (
    EnvelopeArrived,
    EnvelopeRejected,
    Event,
    FrameArrived,
    InterestArrived,
    LinkId,
    RecordArrived,
    ResultsArrived,
)
from quicprochat.core.gate import Checked, Reject
from quicprochat.core.ids import ChannelId, PeerKey
from quicprochat.core.link import (
    FOR_NODE,
    IGNORABLE,
    Beat,
    FrameParser,
    FrameType,
    Goodbye,
    Heartbeat,
    Hello,
    Result,
    decode_bye,
    decode_interest,
    decode_observed,
    decode_record,
    decode_results,
    encode_interest,
    encode_record,
    encode_results,
    frame,
)
from quicprochat.core.record import PeerRecord
from quicprochat.core.time import Instant

log = logging.getLogger("quicprochat.link")

HELLO_S = 5.0
WRITE_BYTES = 256 * 1024
OUT_MAX_BYTES = 8 * 1024 * 1024
"""Frames waiting for a neighbour that does not read; more, and the link is closed as too slow."""
CHECK_SLICE = 64
"""Envelopes of a link checked in one go, within some milliseconds; between two slices others get their turn."""
CHECK_INLINE = CHECK_SLICE
"""So few are checked on the spot: a thread costs more than it frees, since after each signature it waits for the
interpreter, and whoever has that waits for it."""
BATCHES_UNDER_WAY = 2
"""Batches of one link in checking or committing; the rest waits in QUIC, and its sender with it."""
UNDER_WAY_BYTES = 256 * 1024
"""Short batches may be more, up to so many bytes together: a disk is slow each time, not for each byte."""
STRANGER_BURST, STRANGER_PER_S = 2_000, 1_000
"""Envelopes of a neighbour who is no contact that are verified: a quarter of a small core at most (guess)."""
RECORD_BURST, RECORD_PER_S = 64, 16
OBSERVED_BURST, OBSERVED_PER_S = 8, 0.2
"""Changes of our address that a neighbour tells us and we look at; it tells one a heartbeat at most."""
INTEREST_BURST, INTEREST_PER_S = 32, 2
"""Changes of interest taken from a neighbour; a node of ours tells fewer (``posts.TELL_BURST``)."""


class ByteStream(Protocol):
    """What a link needs of a transport's stream."""

    async def read(self) -> bytes:
        """Return some bytes, none at the end."""
        ...

    async def write(self, data: bytes) -> None:
        """Write all, waiting while the other end does not read."""
        ...


class LinkConnection(Protocol):
    """What a link needs of a transport's connection."""

    def close(self, code: int, reason: str) -> None:
        """End it."""
        ...

    def packets_in(self) -> int:
        """Return how many packets were received on it."""
        ...

    def remote_address(self) -> tuple[str, int] | None:
        """Return where the peer is; None while a relay carries the packets."""
        ...


class LinkOwner(Protocol):
    """What a link asks of its node."""

    key: PeerKey

    def instant(self) -> Instant:
        """Return this moment."""
        ...

    def own_hello(self, peer: PeerKey) -> Hello:
        """Return what to say to a peer first."""
        ...

    def link_ready(self, link: PeerLink, hello: Hello) -> bool:
        """Take the link in, or refuse it."""
        ...

    def trusted(self, peer: PeerKey) -> bool:
        """Say whether the peer is a contact."""
        ...

    def strangers_owe(self, count: int) -> int:
        """Count envelopes that a stranger brings; return for how many milliseconds all strangers have had theirs."""
        ...

    async def check_all(self, envelopes: list[bytes]) -> list[Checked | Reject]:
        """Run the gate's first half, in a thread when there are many."""
        ...

    def observed(self, link: PeerLink, address: Address) -> None:
        """The neighbour says where it sees us."""
        ...

    def open_record(self, data: bytes) -> PeerRecord:
        """Verify a peer record. Raises: WireError."""
        ...

    def settle(self, events: list[Event]) -> asyncio.Future[None]:
        """Give events to the node; the future is done when they are durable. Raises: StoreError."""
        ...


class PeerLink:
    """Frames in, frames out; what they mean, the node knows."""

    def __init__(
        self,
        id: LinkId,
        peer: PeerKey,
        stream: ByteStream,
        connection: LinkConnection,
        owner: LinkOwner,
        *,
        dialled: bool,
    ) -> None:
        self.id = id
        self.peer = peer
        self.dialled = dialled
        self.session = b""
        self.ready = False
        self.gone = ""
        """Why the link ended, once it has."""
        self._stream = stream
        self._connection = connection
        self._owner = owner
        self._parser = FrameParser()
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._wake = asyncio.Event()
        self._heartbeat = Heartbeat(owner.instant(), first=owner.key < peer)
        now = owner.instant()
        self._envelopes = TokenBucket(STRANGER_BURST, STRANGER_PER_S, now)
        self._records = TokenBucket(RECORD_BURST, RECORD_PER_S, now)
        self._observations = TokenBucket(OBSERVED_BURST, OBSERVED_PER_S, now)
        self._told: tuple[str, int] | None = None
        """Where we said we see the neighbour."""
        self._interests = TokenBucket(INTEREST_BURST, INTEREST_PER_S, now)
        self._batches = 0
        self._batch_bytes = 0
        self._handed = asyncio.Event()
        self._ending: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def send_envelope(self, wire: bytes) -> None:
        """Offer an envelope; the answer comes back as a result."""
        self.send(frame(FrameType.ENVELOPE, wire))

    def send_results(self, results: Sequence[Result]) -> None:
        """Answer what the neighbour offered."""
        self.send(frame(FrameType.RESULTS, encode_results(results)))

    def send_record(self, record: bytes, age_ms: int) -> None:
        """Pass on a record."""
        self.send(frame(FrameType.RECORD, encode_record(record, age_ms)))

    def send_interest(self, channels: Sequence[ChannelId]) -> None:
        """Say which channels this node subscribes to."""
        self.send(frame(FrameType.INTEREST, encode_interest(channels)))

    def send(self, data: bytes) -> None:
        """Queue whole frames; joined with whatever else is waiting, they leave in one write."""
        self._out.append(data)
        self._out_bytes += len(data)
        self._wake.set()
        if self._out_bytes > OUT_MAX_BYTES:
            self.end(Goodbye.SLOW, "you read too slowly")

    def end(self, code: Goodbye, reason: str) -> None:
        """Close the link; the first reason given is the one that counts."""
        if not self._ending.done():
            self.gone = reason
            self._connection.close(code, reason)
            self._ending.set_result(None)

    async def run(self) -> None:
        """Live until the link ends. Raises: StoreError only; everything else is the end of this link alone."""
        tasks: list[asyncio.Task[None]] = []
        try:
            self.send(frame(FrameType.HELLO, self._owner.own_hello(self.peer).encode()))
            tasks = [asyncio.create_task(self._guard(work)) for work in (self._write, self._read, self._beat)]
            await asyncio.wait([self._ending, *tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.end(Goodbye.LEAVING, "goodbye")
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except RemoteError as error:
            self.end(_code(error.code), str(error))
        except UnavailableError as error:
            if not error.retryable:
                raise
            self.end(Goodbye.LEAVING, str(error))

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._out:
                data, self._out, self._out_bytes = b"".join(self._out), [], 0
                for start in range(0, len(data), WRITE_BYTES):
                    await self._stream.write(data[start : start + WRITE_BYTES])

    async def _beat(self) -> None:
        while True:
            pause = self._heartbeat.deadline() - self._owner.instant()
            if pause > 0:
                await asyncio.sleep(pause / 1_000)
            match self._heartbeat.beat(self._owner.instant(), self._connection.packets_in()):
                case Beat.BEAT:
                    self.send(frame(FrameType.BEAT))
                case Beat.PING:
                    self.send(frame(FrameType.PING))
                case Beat.DEAD:
                    self.end(Goodbye.SILENT, "the other end does not answer any more")
                    return
                case None:
                    pass
            self._tell_observed()

    def _tell_observed(self) -> None:
        """Tell the neighbour where we see it: behind a NAT it cannot know."""
        where = self._connection.remote_address()
        if where is not None and where != self._told:
            self._told = where
            self.send(frame(FrameType.OBSERVED, Address(*where).encode()))

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(HELLO_S):
                while not self.ready:
                    await self._read_some()
        except TimeoutError:
            raise RemoteError("no hello in time", code=Goodbye.SLOW) from None
        while True:
            await self._read_some()

    async def _read_some(self) -> None:
        data = await self._stream.read()
        if not data:
            raise UnavailableError("the peer ended the link")
        self._heartbeat.heard(self._owner.instant())
        envelopes: list[bytes] = []
        others: list[Event] = []
        for kind, body in self._parser.feed(data):
            if not self.ready:
                self._hello(kind, body)
            elif kind == FrameType.ENVELOPE:
                envelopes.append(body)
            else:
                self._other(kind, body, others)
        if others:
            await self._hand_over(others, len(data))
        for start in range(0, len(envelopes), CHECK_SLICE):
            if start:
                await asyncio.sleep(0)
            await self._take_in(envelopes[start : start + CHECK_SLICE])

    def _hello(self, kind: int, body: bytes) -> None:
        if kind != FrameType.HELLO:
            raise RemoteError("the first frame was not a hello", code=Goodbye.PROTOCOL)
        hello = Hello.decode(body)
        self.session = hello.session
        if not self._owner.link_ready(self, hello):
            raise RemoteError("another link to this peer is in use", code=Goodbye.DUPLICATE)
        self.ready = True
        self._tell_observed()

    def _other(self, kind: int, body: bytes, out: list[Event]) -> None:
        match kind:
            case FrameType.PING:
                self.send(frame(FrameType.PONG))
            case FrameType.PONG | FrameType.BEAT:
                pass
            case FrameType.RESULTS:
                out.append(ResultsArrived(self.id, decode_results(body)))
            case FrameType.RECORD:
                if self._records.take(self._owner.instant()):
                    age, data = decode_record(body)
                    out.append(RecordArrived(self.id, self._owner.open_record(data), age))
            case FrameType.INTEREST:
                if not self._interests.take(self._owner.instant()):
                    raise RemoteError("too many changes of interest", code=Goodbye.ABUSE)
                out.append(InterestArrived(self.id, decode_interest(body)))
            case FrameType.OBSERVED:
                if self._observations.take(self._owner.instant()):
                    self._owner.observed(self, decode_observed(body))
            case _ if kind in FOR_NODE:
                out.append(FrameArrived(self.id, FrameType(kind), body))
            case FrameType.BYE:
                code, reason = decode_bye(body)
                raise UnavailableError(f"the peer said goodbye ({code}): {reason}")
            case FrameType.HELLO:
                raise RemoteError("a second hello", code=Goodbye.PROTOCOL)
            case _ if kind < IGNORABLE:
                raise RemoteError(f"a frame of unknown type {kind}", code=Goodbye.PROTOCOL)

    async def _take_in(self, envelopes: list[bytes]) -> None:
        if not self._owner.trusted(self.peer):
            wait = max(
                self._envelopes.owe(self._owner.instant(), len(envelopes)), self._owner.strangers_owe(len(envelopes))
            )
            if wait:
                await asyncio.sleep(wait / 1_000)
        checked = await self._owner.check_all(envelopes)
        events: list[Event] = [
            EnvelopeRejected(self.id) if isinstance(one, Reject) else EnvelopeArrived(self.id, one) for one in checked
        ]
        await self._hand_over(events, sum(map(len, envelopes)))

    async def _hand_over(self, events: list[Event], size: int) -> None:
        """Give a batch of so many bytes to the node; go on reading while it commits, but only so far ahead."""
        while self._batches >= BATCHES_UNDER_WAY and self._batch_bytes + size > UNDER_WAY_BYTES:
            self._handed.clear()
            await self._handed.wait()
        self._batches += 1
        self._batch_bytes += size
        self._owner.settle(events).add_done_callback(partial(self._handed_over, size))

    def _handed_over(self, size: int, done: asyncio.Future[None]) -> None:
        self._batches -= 1
        self._batch_bytes -= size
        self._handed.set()
        if not done.cancelled() and done.exception() is not None:
            # The store failed; the driver reports that itself and ends the node.
            self.end(Goodbye.LEAVING, "this node has stopped")


def _code(code: int) -> Goodbye:
    return Goodbye(code) if code in Goodbye._value2member_map_ else Goodbye.PROTOCOL
