"""The processes of bench/home_server.py: the home server, and the same calls over TCP with nothing behind them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import capnp

from quicprochat.adapters import quic, rpc
from quicprochat.adapters.crypto import Ed25519Signer, SodiumCrypto, X25519Private
from quicprochat.adapters.sqlite import ServerStore
from quicprochat.adapters.system import entropy
from quicprochat.core.address import Address
from quicprochat.core.envelope import Header, Kind, MeshEnvelope, make
from quicprochat.core.gate import Limits
from quicprochat.core.ids import Label, PeerKey, Uid
from quicprochat.core.seal import Letter, Prekey, seal
from quicprochat.core.store import Fate, Held
from quicprochat.core.time import DAY_MS, Instant, WallTime
from quicprochat.server.home_server import ALPN, HomeServer, ServerOptions

TEXT = ("The quick brown fox jumps over the lazy dog. " * 7)[:300]
ROOMY = Limits(carried_bytes=1 << 40, share=1.0, per_pair=10**9, per_recipient=10**9)
WAIT_S = 60.0


def say(**event: Any) -> None:
    print(json.dumps(event), flush=True)


def rss_kb(pid: int | str = "self") -> int:
    """Return a process's resident memory."""
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0])


async def home_server(home: str, connections: int) -> None:
    """Serve until standard input ends."""
    options = ServerOptions(
        Path(home), Address("127.0.0.1", 0), limits=ROOMY, connections=connections, disk_reserve_bytes=0
    )
    async with rpc.running(), HomeServer(options) as server:
        say(port=server.address.port, fingerprint=server.fingerprint.hex())
        await asyncio.to_thread(sys.stdin.read)


class Hollow(rpc.home.Session.Server):  # type: ignore[misc]
    """Says yes to everything."""

    async def enqueue_context(self, context: Any) -> None:
        context.results.outcome = {"verdict": 0, "reason": 0}

    async def batchEnqueue_context(self, context: Any) -> None:
        context.results.outcomes = [{"verdict": 0, "reason": 0}] * len(context.params.envelopes)


async def hollow_server() -> None:
    """The ceiling: pycapnp over TCP, without QUIC, signatures, or a store."""

    async def serve(stream: Any) -> None:
        await capnp.TwoPartyServer(stream, bootstrap=Hollow()).on_disconnect()

    async with rpc.running():
        server = await capnp.AsyncIoStream.create_server(serve, "127.0.0.1", 0)
        say(port=server.sockets[0].getsockname()[1])
        await asyncio.to_thread(sys.stdin.read)
        server.close()


@asynccontextmanager
async def hollow_session(port: int) -> AsyncIterator[Any]:
    stream = await capnp.AsyncIoStream.create_connection("127.0.0.1", port)
    client = capnp.TwoPartyClient(stream)
    try:
        yield client.bootstrap().cast_as(rpc.home.Session)
    finally:
        client.close()


@asynccontextmanager
async def session(port: int, seed: bytes) -> AsyncIterator[tuple[quic.Connection, Any]]:
    """A client's connection and its session."""
    credentials = quic.Credentials(*quic.self_signed(seed, "bench", 1))
    connection = await quic.connect(("127.0.0.1", port), ALPN, credentials, quic.anybody, WAIT_S)
    remote = rpc.Remote(await connection.stream(WAIT_S), rpc.home.Entrance)
    running = asyncio.create_task(remote.run())
    try:
        entered = await rpc.Remote.ask(remote.bootstrap.enter(version=1), "entering")
        yield connection, entered.session
    finally:
        await connection.leave()
        await running


class Correspondence:
    """Two people, and letters from one to the other, sealed and signed beforehand."""

    def __init__(self) -> None:
        self.author, self.reader = os.urandom(32), os.urandom(32)
        self.signer = Ed25519Signer(self.author)
        self.to = Ed25519Signer(self.reader).key
        self.private = X25519Private(os.urandom(32))
        self.keys = {Prekey(self.private.public).id: self.private}
        self._crypto = SodiumCrypto(entropy)

    def letters(self, count: int) -> list[MeshEnvelope]:
        """Make true letters of 300 bytes."""
        return [self._letter() for _ in range(count)]

    def _letter(self) -> MeshEnvelope:
        header = Header(Kind.MESSAGE, self.signer.key, self.to, os.urandom(16))
        letter = Letter(self.signer.key, Uid(os.urandom(16)), TEXT)
        return make(header, seal(header, Prekey(self.private.public), letter, self._crypto, self.signer), self.signer)

    def copies(self, count: int) -> list[MeshEnvelope]:
        """Make envelopes of the same size that only the server can look at: sealing is not what is measured."""
        payload = self._letter().payload
        return [
            make(Header(Kind.MESSAGE, self.signer.key, self.to, os.urandom(16)), payload, self.signer)
            for _ in range(count)
        ]


class _NoSigner:
    """Signatures are not looked at again once an envelope is in the store."""

    key = PeerKey(b"s" * 32)

    def sign(self, label: Label, message: bytes) -> bytes:
        return hashlib.sha512(message).digest()


def fill(home: Path, count: int, recipients: int = 2_000) -> None:
    """Make a server's database with so many envelopes waiting."""
    home.mkdir(mode=0o700, exist_ok=True)
    store = ServerStore.open(home / "server.db", synchronous="NORMAL")
    signer, payload = _NoSigner(), os.urandom(568)
    keys = [PeerKey(os.urandom(32)) for _ in range(recipients)]
    expires = Instant(7 * DAY_MS)
    store.begin()
    for key in keys:
        store.see_user(key, Instant(0), WallTime(0))
    for n in range(count):
        envelope = make(Header(Kind.MESSAGE, signer.key, keys[n % recipients], os.urandom(16)), payload, signer)
        store.hold(
            Held(envelope.id, Kind.MESSAGE, signer.key, keys[n % recipients], keys[n % 7], envelope.wire(),
                 Instant(1), expires)
        )  # fmt: skip
        store.remember(envelope.id, Fate.HELD, Instant(30 * DAY_MS))
        if n % 5_000 == 0:
            store.commit()
            store.begin()
    store.commit()
    store.close()


if __name__ == "__main__":
    if sys.argv[1] == "hollow":
        asyncio.run(hollow_server())
    else:
        asyncio.run(home_server(sys.argv[2], int(sys.argv[3])))
