"""Two servers of a federation: one that serves whoever its check accepts, and foreign ones that call it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from cryptography import x509
from tests.unit.authorities import (
    NOW,
    authority,
    leaf,
)
from tests.unit.quic_pairs import LOOPBACK, SOON_S, Taker, bare, until

from quicprochat.adapters import quic
from quicprochat.adapters.quic import FEDERATION_ALPN, Trust, UntrustedError
from quicprochat.core.errors import UnavailableError

CERTIFICATE_REQUIRED, ACCESS_DENIED, DECRYPT_ERROR, NO_ALPN, EXPIRED = 0x174, 0x131, 0x133, 0x178, 0x12D

LOOPBACK_RTT_S = 0.01
"""What aioquic assumes is ten times as long, and a closed connection stays for nine times that."""

CA = authority()
SAME_NAME = authority()
PINNED = authority("authority of pinned.net")
OLD = authority("old authority", start=-300, days=-10)
SUBORDINATE = authority("subordinate", under=CA)
PEER = leaf("x.net", CA)

TRUST = Trust(
    domain="b.net",
    domains=frozenset({"a.net", "pinned.net", "old.net"}),
    ca=CA.certificate,
    cas={"pinned.net": PINNED.certificate, "old.net": OLD.certificate},
    now=lambda: NOW,
)
HERE = leaf("b.net", CA)
THERE = leaf("a.net", CA)


def as_client(domain: str) -> Trust:
    """The same trust, of a server that calls ``domain``."""
    return replace(TRUST, domain="c.net", domains=TRUST.domains | {domain})


@dataclass
class Serving:
    """A server on its port, and what it was brought to do."""

    listener: quic.Listener
    accepted: list[quic.Connection] = field(default_factory=list)
    calls: list[bytes] = field(default_factory=list)
    why: list[str] = field(default_factory=list)


@asynccontextmanager
async def serving(
    trust: Callable[[], Trust] = lambda: TRUST, shown: quic.Credentials = HERE, check: quic.Check | None = None
) -> AsyncIterator[Serving]:
    """Serve whoever is accepted: each first word on a stream is a call."""
    tasks: list[asyncio.Task[None]] = []

    async def serve(connection: quic.Connection) -> None:
        try:
            stream = await connection.stream(SOON_S)
        except UnavailableError:
            return
        taker = Taker()
        stream.set_protocol(taker)
        stream.resume_reading()
        await until(lambda: bool(taker.got) or connection.over)
        if taker.got:
            made.calls.append(bytes(taker.got))

    def accept(connection: quic.Connection) -> None:
        made.accepted.append(connection)
        tasks.append(asyncio.create_task(serve(connection)))

    def refuse(error: UntrustedError) -> None:
        made.why.append(str(error))

    checks = {FEDERATION_ALPN: check or quic.federated(trust)}
    listener = await quic.listen(LOOPBACK, shown, checks, accept, limit=10, distrusted=refuse)
    listener._configuration.initial_rtt = LOOPBACK_RTT_S
    made = Serving(listener)
    try:
        yield made
    finally:
        await listener.close()
        await asyncio.gather(*tasks)


@asynccontextmanager
async def calling(
    to: quic.Listener, shown: quic.Credentials | None, chain: Sequence[x509.Certificate] = (), **settings: Any
) -> AsyncIterator[Any]:
    """A client of aioquic's own that trusts everybody, and says its word without waiting for anything."""
    settings = {"alpn_protocols": [FEDERATION_ALPN], "initial_rtt": LOOPBACK_RTT_S, **settings}
    if shown is not None:
        settings |= {"certificate": shown.certificate, "private_key": shown.key, "certificate_chain": list(chain)}
    made = QuicConnection(configuration=QuicConfiguration(is_client=True, verify_mode=ssl.CERT_NONE, **settings))
    async with bare(to, made) as client:
        client.connect(to.address)
        made.send_stream_data(0, b"call")
        client.transmit()
        yield client
