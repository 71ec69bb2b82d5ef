"""The home server's capabilities for Cap'n Proto: an entrance that knows who called, and that key's session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from quicprochat.adapters import rpc
from quicprochat.adapters.rpc import Capability, Problem, home, method
from quicprochat.core.envelope import ENVELOPE_MAX_BYTES
from quicprochat.core.ids import ID_BYTES, EnvelopeId, PeerKey
from quicprochat.server.push import Pusher, bounded
from quicprochat.server.queue import Delivery, Outcome, Queue

VERSION = 1
ENVELOPES_MAX = 256
"""Envelopes in one call."""
IDS_MAX = 1_024
FETCH_MAX = 256
SERIAL_MAX = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Info:
    """What a server says of itself."""

    version: str
    domain: str
    epoch: bytes
    per_recipient: int


class Client:
    """One connection of one key: its calls, and its receiver if it gave one."""

    def __init__(self, key: PeerKey, queue: Queue, info: Info, served: rpc.Served) -> None:
        self.key = key
        self.queue = queue
        self.info = info
        self.served = served
        self.pusher: Pusher | None = None
        self.fetching = asyncio.Lock()
        """One answer of many bytes at a time."""
        self._pushing: asyncio.Task[None] | None = None
        self._receiver: Receiver | None = None
        self.failed: Callable[[BaseException], None] = lambda _: None

    def subscribe(self, receiver: Receiver) -> None:
        """Push to this receiver from now on."""
        self._stop_pushing()
        self._receiver = receiver
        self.pusher = Pusher(self.queue, self.key, receiver.deliver, self.served.room)
        self._pushing = asyncio.create_task(self.pusher.run())
        self._pushing.add_done_callback(self._pushed)

    def close(self) -> None:
        """Stop pushing; the connection is gone."""
        self._stop_pushing()

    def _stop_pushing(self) -> None:
        if self._pushing is not None:
            self._pushing.cancel()
        if self._receiver is not None:
            self._receiver.drop()
        self._pushing = self.pusher = self._receiver = None

    def _pushed(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failed(error)


class Entrance(Capability, home.Entrance.Server):  # type: ignore[misc]
    """All that a new connection can reach."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._entered = False

    async def handle_enter(self, params: Any, results: Any) -> None:
        """Open the session of the key that TLS proved; once, since a client could keep any number."""
        if params.version != VERSION:
            raise Problem(
                f"this server speaks version {VERSION} and the client {params.version}; update the older", "unsupported"
            )
        if self._entered:
            raise Problem("this connection has its session already", "usage")
        self._entered = True
        info = self.client.info
        results.session = Session(self.client)
        results.info = {
            "version": info.version, "domain": info.domain, "epoch": info.epoch,
            "perRecipient": info.per_recipient, "batchMax": ENVELOPES_MAX, "inFlightMax": self.client.served.max,
        }  # fmt: skip

    enter_context = method(handle_enter)


class Session(Capability, home.Session.Server):  # type: ignore[misc]
    """What one user may do; every argument is bounded before it is read."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def handle_enqueue(self, params: Any, results: Any) -> None:
        """Take one envelope; the answer leaves once it is durable."""
        (outcome,) = await self.client.queue.put(self.client.key, [_envelope(params.envelope)])
        results.outcome = _told(outcome)

    async def handle_batch_enqueue(self, params: Any, results: Any) -> None:
        """Take many envelopes in one commit, with an answer for each."""
        count = len(params.envelopes)
        if not 0 < count <= ENVELOPES_MAX:
            raise Problem(f"a batch has 1 to {ENVELOPES_MAX} envelopes, and this one {count}", "usage")
        outcomes = await self.client.queue.put(self.client.key, [_envelope(one) for one in params.envelopes])
        told = results.init("outcomes", count)
        for n, outcome in enumerate(outcomes):
            told[n].verdict, told[n].reason = int(outcome.verdict), int(outcome.reason)

    async def handle_fetch(self, params: Any, results: Any) -> None:
        """Return what waits for this user behind a serial; it stays in the queue until acknowledged."""
        limit, after = min(max(1, params.limit), FETCH_MAX), min(params.after, SERIAL_MAX)
        async with self.client.fetching:
            await self.client.served.room()
            found = await self.client.queue.waiting(self.client.key, after, limit)
            _deliveries(bounded(found), results)

    async def handle_acknowledge(self, params: Any, results: Any) -> None:
        """Let go of envelopes that this user's device has made durable."""
        await self.client.queue.done(self.client.key, _ids(params.ids))

    async def handle_subscribe(self, params: Any, results: Any) -> None:
        """Push what waits and what comes."""
        self.client.subscribe(Receiver(params.receiver))

    enqueue_context = method(handle_enqueue)
    batchEnqueue_context = method(handle_batch_enqueue)
    fetch_context = method(handle_fetch)
    acknowledge_context = method(handle_acknowledge)
    subscribe_context = method(handle_subscribe)


class Receiver:
    """The capability that a client passed for being pushed to."""

    def __init__(self, capability: Any) -> None:
        self._capability = capability

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[EnvelopeId]:
        """Hand a batch to the client; return the ids that need not come again. Raises: UnavailableError, Problem."""
        with rpc.reading("pushing"):
            request = self._capability.deliver_request()
            _deliveries(batch, request)
            answer = await rpc.Remote.ask(request.send(), "pushing")
            return _ids(answer.ids)

    def drop(self) -> None:
        """Let go of the capability now, here, and not when the garbage collector finds it."""
        self._capability = None


def _envelope(data: Any) -> bytes:
    """Return an envelope's bytes; of one that is too long nothing, and the gate refuses that item alone."""
    return b"" if len(data) > ENVELOPE_MAX_BYTES else bytes(data)


def _ids(ids: Any) -> list[EnvelopeId]:
    if len(ids) > IDS_MAX:
        raise Problem(f"a list has at most {IDS_MAX} ids", "usage")
    found = [bytes(id) for id in ids if len(id) == ID_BYTES]
    if len(found) != len(ids):
        raise Problem(f"an envelope id has {ID_BYTES} bytes", "usage")
    return [EnvelopeId(id) for id in found]


def _told(outcome: Outcome) -> dict[str, int]:
    return {"verdict": int(outcome.verdict), "reason": int(outcome.reason)}


def _deliveries(batch: Sequence[Delivery], into: Any) -> None:
    told = into.init("deliveries", len(batch))
    for n, delivery in enumerate(batch):
        told[n].serial, told[n].envelope = delivery.serial, delivery.wire
