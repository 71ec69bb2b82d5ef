"""Figures for Prometheus: text over HTTP, on a port of its own (exposition format 0.0.4)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from quicprochat.console.local import Json
from quicprochat.core.address import Address
from quicprochat.core.errors import UnavailableError

log = logging.getLogger("quicprochat.server.metrics")

REQUEST_MAX_BYTES = 8 << 10
REQUEST_S = 5.0
CALLS_MAX = 8
"""More at once are hung up on."""

_GAUGES = (
    ("uptime_seconds", "uptime_s", "Time since the server started."),
    ("users", "users", "Keys that may be written to here."),
    ("sessions", "sessions", "Users that are connected."),
    ("connections", "connections", "Connections whose other end has proved who it is."),
    ("connections_max", "connections_max", "Connections that there may be."),
    ("waiting_messages", "messages", "Messages that wait for their recipients."),
    ("waiting_bytes", "bytes", "Bytes of messages that wait."),
    ("waiting_bytes_max", "bytes_max", "Bytes of messages that may wait."),
    ("waiting_receipts", "receipts", "Receipts that wait."),
    ("disk_free_bytes", "disk_free", "Room on the disk."),
    ("disk_low", "disk_low", "1 when no new messages are taken for want of room."),
)
_CHANNELS = (
    ("channels_followed", "followed", "Channels that users follow."),
    ("channel_follows", "follows", "Pairs of user and channel."),
    ("channel_posts", "posts", "Posts kept for those who follow."),
    ("channel_bytes", "bytes", "Bytes of posts kept."),
    ("channel_bytes_max", "bytes_max", "Bytes of posts that may be kept."),
)
_EVENTS = ("stored", "duplicate", "handed_over", "published", "registered")
"""Counters there from the start, so that a rate of them can be taken."""


def exposition(figures: Json) -> str:
    """Return the figures of ``qpc-server status`` in Prometheus's text format."""
    lines: list[str] = []

    def family(name: str, kind: str, help: str, *samples: tuple[str, int]) -> None:
        lines.extend((f"# HELP qpc_server_{name} {help}", f"# TYPE qpc_server_{name} {kind}"))
        lines.extend(f"qpc_server_{name}{labels} {int(value)}" for labels, value in samples)

    for name, key, help in _GAUGES:
        family(name, "gauge", help, ("", figures[key]))
    for name, key, help in _CHANNELS:
        family(name, "gauge", help, ("", figures["channels"][key]))
    totals = {**dict.fromkeys(_EVENTS, 0), **figures["totals"]}
    family("events_total", "counter", "What was done since the start.", *_labelled("event", totals))
    for what in ("refused", "deferred"):
        help = f"What was {what} since the start, by reason."
        family(f"{what}_total", "counter", help, *_labelled("reason", figures[what]))
    if figures["relay"] is not None:
        _relay(figures["relay"], family)
    if figures["federation"] is not None:
        _federation(figures["federation"], family)
    return "\n".join(lines) + "\n"


_Family = Callable[..., None]


def _relay(now: Json, family: _Family) -> None:
    family("relay_clients", "gauge", "Nodes at the relay.", ("", now["clients"]))
    family("relay_bytes_total", "counter", "Bytes passed on since the start.", ("", now["bytes"]))
    for what in ("dropped", "unknown"):
        family(f"relay_{what}_total", "counter", f"Frames that were not passed on: {what}.", ("", now[what]))
    family("relay_refused_total", "counter", "Connections that were turned away.", ("", now["refused"]))


def _federation(now: Json, family: _Family) -> None:
    """Add the figures of federation; domains are the operator's own list, so there are few, and of safe characters."""
    peers = now["peers"]
    family("federation_certificate_days", "gauge", "Days left of the certificate that other domains are shown.",
           ("", now["certificate_days_left"]))  # fmt: skip
    for name, key, help in _PER_DOMAIN:
        family(name, "gauge", help, *((f'{{domain="{peer["domain"]}"}}', int(peer[key])) for peer in peers))
    for name, key, help in (
        ("federation_sent_total", "sent", "Messages offered to another domain since the start, by its answer."),
        ("federation_received_total", "received", "Messages from another domain since the start, by our answer."),
    ):
        samples = (
            (f'{{domain="{peer["domain"]}",answer="{answer}"}}', count)
            for peer in peers
            for answer, count in peer[key].items()
        )
        family(name, "counter", help, *samples)
    shared = [(peer["domain"], peer["channels"]) for peer in peers if peer["channels"]["shared"]]
    if shared:
        family("federation_channels", "gauge", "Channels that users of another domain follow.",
               *((f'{{domain="{domain}"}}', now["followed_there"]) for domain, now in shared))  # fmt: skip
        family("federation_posts_total", "counter", "Posts relayed to another domain since the start, by its answer.",
               *((f'{{domain="{domain}",answer="{answer}"}}', count)
                 for domain, now in shared for answer, count in now["posts"].items()))  # fmt: skip


_PER_DOMAIN = (
    ("federation_connected", "connected", "1 while a connection that we opened is there."),
    ("federation_waiting_messages", "messages", "Messages that wait for another domain."),
    ("federation_waiting_bytes", "bytes", "Their bytes."),
    ("federation_failures", "failures", "Attempts to reach a domain that failed since the last that did not."),
)


def _labelled(label: str, counts: dict[str, int]) -> list[tuple[str, int]]:
    # The names are ours, of letters and underscores: nothing in them needs quoting.
    return [(f'{{{label}="{name}"}}', count) for name, count in counts.items()]


class Metrics:
    """Answers ``GET /metrics``, and nothing else."""

    def __init__(self, figures: Callable[[], Json]) -> None:
        self._figures = figures
        self._server: asyncio.Server | None = None
        self._calls: set[asyncio.Task[Any]] = set()

    async def start(self, listen: Address) -> Address:
        """Open the port; return where it is. Raises: UnavailableError."""
        try:
            self._server = await asyncio.start_server(self._called, listen.ip, listen.port, limit=REQUEST_MAX_BYTES)
        except OSError as error:
            raise UnavailableError(f"metrics_listen {listen} cannot be opened: {error.strerror}") from error
        return Address(*self._server.sockets[0].getsockname()[:2])

    async def close(self) -> None:
        """Free the port."""
        if self._server is None:
            return
        self._server.close()
        for task in tuple(self._calls):
            task.cancel()
        if self._calls:
            await asyncio.wait(self._calls)

    def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._calls) >= CALLS_MAX:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_S):
                writer.write(self._answer(await reader.readuntil(b"\r\n\r\n")))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            log.debug("a scrape came to nothing: %s", error)
        finally:
            writer.transport.abort()

    def _answer(self, request: bytes) -> bytes:
        method, _, rest = request.partition(b" ")
        path = rest.split(b" ", 1)[0].partition(b"?")[0]
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", "only GET\n")
        if path != b"/metrics":
            return _response("404 Not Found", "the figures are at /metrics\n")
        return _response("200 OK", exposition(self._figures()), body=method == b"GET")


def _response(status: str, text: str, *, body: bool = True) -> bytes:
    data = text.encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
        f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (data if body else b"")
