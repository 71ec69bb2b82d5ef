"""The home server's capabilities for Cap'n Proto: an entrance that knows who called, and that key's session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from quicprochat.adapters import rpc
from quicprochat.adapters.rpc import Problem, home, method
from quicprochat.core.envelope import ENVELOPE_MAX_BYTES
from quicprochat.core.ids import ID_BYTES, KEY_BYTES, EnvelopeId, PeerKey
from quicprochat.core.record import RECORD_MAX_BYTES
from quicprochat.server.push import Pusher
from quicprochat.server.queue import Delivery, Outcome, Queue

VERSION = 1
ENVELOPES_MAX = 256
"""Envelopes in one call."""
IDS_MAX = 1_024
FETCH_MAX = 256


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
        self._pushing: asyncio.Task[None] | None = None
        self.failed: Callable[[BaseException], None] = lambda _: None

    def subscribe(self, deliver: Callable[[Sequence[Delivery]], Any]) -> None:
        """Push to this receiver from now on."""
        self._stop_pushing()
        self.pusher = Pusher(self.queue, self.key, deliver)
        self._pushing = asyncio.create_task(self.pusher.run())
        self._pushing.add_done_callback(self._pushed)

    def close(self) -> None:
        """Stop pushing; the connection is gone."""
        self._stop_pushing()

    def _stop_pushing(self) -> None:
        if self._pushing is not None:
            self._pushing.cancel()
        self._pushing = self.pusher = None

    def _pushed(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failed(error)


class Entrance(home.Entrance.Server):  # type: ignore[misc]
    """All that a new connection can reach."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.served = client.served

    async def handle_enter(self, params: Any, results: Any) -> None:
        """Open the session of the key that TLS proved."""
        if params.version != VERSION:
            raise Problem(
                f"this server speaks version {VERSION} and the client {params.version}; update the older", "unsupported"
            )
        info = self.client.info
        results.session = Session(self.client)
        results.info = {
            "version": info.version, "domain": info.domain, "epoch": info.epoch,
            "perRecipient": info.per_recipient, "batchMax": ENVELOPES_MAX, "inFlightMax": self.served.max,
        }  # fmt: skip

    enter_context = method(handle_enter)


class Session(home.Session.Server):  # type: ignore[misc]
    """What one user may do; every argument is bounded before it is read."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.served = client.served

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
        limit = min(max(1, params.limit), FETCH_MAX)
        found = await self.client.queue.waiting(self.client.key, params.after, limit)
        _deliveries(found, results)

    async def handle_acknowledge(self, params: Any, results: Any) -> None:
        """Let go of envelopes that this user's device has made durable."""
        await self.client.queue.done(self.client.key, _ids(params.ids))

    async def handle_subscribe(self, params: Any, results: Any) -> None:
        """Push what waits and what comes."""
        receiver = params.receiver

        async def deliver(batch: Sequence[Delivery]) -> Sequence[EnvelopeId]:
            request = receiver.deliver_request()
            _deliveries(batch, request)
            answer = await rpc.Remote.ask(request.send(), "pushing")
            return _ids(answer.ids)

        self.client.subscribe(deliver)

    async def handle_publish(self, params: Any, results: Any) -> None:
        """Keep this user's own record; the newest wins."""
        if len(params.record) > RECORD_MAX_BYTES:
            raise Problem(f"a record has at most {RECORD_MAX_BYTES} bytes", "too_long")
        await self.client.queue.publish(self.client.key, bytes(params.record), params.ageMs)

    async def handle_find_record(self, params: Any, results: Any) -> None:
        """Return the newest record of a key, nothing when none is known."""
        if len(params.key) != KEY_BYTES:
            raise Problem(f"a key has {KEY_BYTES} bytes", "usage")
        found = await self.client.queue.record(PeerKey(bytes(params.key)))
        if found is not None:
            results.record, results.ageMs = found

    publish_context = method(handle_publish)
    findRecord_context = method(handle_find_record)
    enqueue_context = method(handle_enqueue)
    batchEnqueue_context = method(handle_batch_enqueue)
    fetch_context = method(handle_fetch)
    acknowledge_context = method(handle_acknowledge)
    subscribe_context = method(handle_subscribe)


def _envelope(data: Any) -> bytes:
    if len(data) > ENVELOPE_MAX_BYTES:
        raise Problem(f"an envelope has at most {ENVELOPE_MAX_BYTES} bytes, and this one {len(data)}", "too_long")
    return bytes(data)


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
