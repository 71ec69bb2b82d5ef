"""A home server to be attacked, an honest client to see whether it still serves, and what an attacker needs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from fuzz.words import protocol

import quicprochat
from quicprochat.adapters import quic, rpc
from quicprochat.adapters.crypto import Ed25519Signer
from quicprochat.adapters.quic.stream import StreamTransport
from quicprochat.core.envelope import Header, Kind, MeshEnvelope, make
from quicprochat.core.gate import Reason, Verdict
from quicprochat.core.ids import PeerKey

SERVING = Path(__file__).with_name("serving.py")
SOON_S = 15.0
ALPN = "capnp"


def run(scenario: Callable[[], Coroutine[Any, Any, None]], seconds: float = 50.0) -> None:
    """Run a test inside Cap'n Proto's loop."""

    async def bounded() -> None:
        async with asyncio.timeout(seconds), rpc.running():
            await scenario()

    asyncio.run(bounded())


async def soon(awaitable: Any) -> Any:
    async with asyncio.timeout(SOON_S):
        return await awaitable


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(SOON_S):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.02)


class Attacked:
    """The server's process."""

    def __init__(self, home: Path, prefix: Sequence[str] = (), **settings: Any) -> None:
        self.home = home
        self._prefix = prefix
        self._settings = settings
        self.start()

    def start(self, *, wait: bool = True, **more: Any) -> None:
        """Begin a run; ``more`` settings are for this one only."""
        places = [Path(quicprochat.__file__).parent.parent, Path(__file__).parents[2]]
        settings = {"home": str(self.home), **self._settings, **more}
        self._process = subprocess.Popen(
            [*self._prefix, sys.executable, str(SERVING), json.dumps(settings)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))},
        )  # fmt: skip
        if not wait:
            return
        ready = self.heard()
        self.address = ("127.0.0.1", int(ready["port"]))
        self.fingerprint = bytes.fromhex(ready["fingerprint"])

    def heard(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the server has ended ({self._process.wait(SOON_S)}): {self.errors()}"
        return dict(json.loads(line))

    def errors(self) -> str:
        assert self._process.stderr is not None
        return self._process.stderr.read().decode()[-3_000:]

    def look(self, *, collect: bool = False) -> dict[str, int]:
        """Return its memory and its counts."""
        return self.told("collect" if collect else "look")

    def operator(self, command: str) -> list[dict[str, Any]]:
        """Ask what an operator may ask."""
        return list(self.told(command)["items"])

    def clock(self, **machine: Any) -> int:
        """Set the clocks of its machine; return its life clock."""
        return int(self.told(f"clock {json.dumps(machine)}")["at"])

    def told(self, line: str) -> dict[str, Any]:
        """Give it a command; return its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        return self.heard()

    def freeze(self) -> None:
        """Let it do nothing more, as when the power is gone."""
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._close()

    def end(self) -> tuple[int, str]:
        """Ask for an orderly end; return the exit code and what it complained of."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        code = self._process.wait(SOON_S)
        complaints = self.errors()
        self._close()
        return code, complaints

    def wait(self) -> int:
        """Wait for an end that comes by itself."""
        return self._process.wait(SOON_S)

    def killed(self) -> bool:
        """Wait until it has killed itself."""
        try:
            code = self._process.wait(SOON_S)
        except subprocess.TimeoutExpired:
            return False
        self._close()
        return code == -signal.SIGKILL

    def _close(self) -> None:
        self._process.wait(SOON_S)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()


@contextmanager
def attacked(home: Path, **settings: Any) -> Iterator[Attacked]:
    """A server that must end in order, and have said nothing, after whatever was done to it."""
    server = Attacked(home, **settings)
    try:
        yield server
        code, complaints = server.end()
        assert (code, complaints) == (0, "")
    finally:
        server.kill()


class Caller:
    """A client with a key of its own, as pycapnp makes one."""

    def __init__(self, seed: bytes, connection: Any, remote: Any) -> None:
        self.signer = Ed25519Signer(seed)
        self.key: PeerKey = self.signer.key
        self.connection = connection
        self.remote = remote
        self.session: Any = None
        self.info: Any = None

    @staticmethod
    def of(seed: bytes) -> Caller:
        """Somebody who is not connected."""
        return Caller(seed, None, None)

    @staticmethod
    def id_of(wire: bytes) -> bytes:
        return MeshEnvelope.decode(wire).id

    async def enter(self) -> Caller:
        answer = await soon(rpc.Remote.ask(self.remote.bootstrap.enter(version=1), "entering"))
        self.session, self.info = answer.session, answer.info
        return self

    def envelope(self, to: bytes, payload: bytes = b"sealed", **header: Any) -> MeshEnvelope:
        """Make an envelope; servers never look into its payload."""
        return make(Header(Kind.MESSAGE, self.key, to, os.urandom(16), **header), payload, self.signer)

    async def put(self, *wires: bytes, domain: str = "") -> list[tuple[Verdict, Reason]]:
        call = self.session.batchEnqueue(envelopes=list(wires), domain=domain)
        answer = await soon(rpc.Remote.ask(call, "sending"))
        return [(Verdict(one.verdict), Reason(one.reason)) for one in answer.outcomes]

    async def fetch(self, after: int = 0, limit: int = 256) -> list[MeshEnvelope]:
        answer = await soon(rpc.Remote.ask(self.session.fetch(after=after, limit=limit), "fetching"))
        return [MeshEnvelope.decode(bytes(one.envelope)) for one in answer.deliveries]

    async def acknowledge(self, *ids: bytes) -> None:
        await soon(rpc.Remote.ask(self.session.acknowledge(ids=list(ids)), "acknowledging"))


@asynccontextmanager
async def connected(server: Attacked, seed: bytes | None = None) -> AsyncIterator[quic.Connection]:
    """A connection whose ends have proved who they are, without a stream."""
    credentials = quic.Credentials(*quic.self_signed(seed or os.urandom(32), "a client", 1))
    connection = await quic.connect(server.address, ALPN, credentials, quic.pinned(server.fingerprint), SOON_S)
    try:
        yield connection
    finally:
        await connection.leave()


@asynccontextmanager
async def calling(server: Attacked, seed: bytes | None = None, *, enter: bool = True) -> AsyncIterator[Caller]:
    """An honest client; entered unless told otherwise."""
    seed = seed or os.urandom(32)
    async with connected(server, seed) as connection:
        remote = rpc.Remote(await connection.stream(SOON_S), rpc.home.Entrance)
        ending = asyncio.create_task(remote.run())
        caller = Caller(seed, connection, remote)
        try:
            yield (await caller.enter()) if enter else caller
        finally:
            caller.session = caller.info = None
            await connection.leave()
            await ending


async def serves(server: Attacked) -> None:
    """Assert that an honest client is served: it leaves itself an envelope, gets it and lets go of it."""
    async with calling(server) as caller:
        envelope = caller.envelope(caller.key)
        assert await caller.put(envelope.wire()) == [(Verdict.STORED, Reason.NONE)]
        assert [one.id for one in await caller.fetch()] == [envelope.id]
        await caller.acknowledge(envelope.id)
        assert await caller.fetch() == []


def vanish(connection: quic.Connection) -> None:
    """Let a client neither hear nor say anything any more."""
    vars(connection).update(transmit=lambda: None, datagram_received=lambda data, addr: None)


class Wild(asyncio.BufferedProtocol):
    """The attacker's end of a stream: raw bytes out, and what came back."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.lost = asyncio.get_running_loop().create_future()
        self.room = asyncio.Event()
        self.room.set()
        self._buffer = bytearray(65_536)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.got += self._buffer[:nbytes]

    def pause_writing(self) -> None:
        self.room.clear()

    def resume_writing(self) -> None:
        self.room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(exc)
        self.room.set()


class Raw:
    """A connection that speaks in bytes."""

    def __init__(self, connection: quic.Connection, transport: StreamTransport, wild: Wild) -> None:
        self.connection, self.transport, self.wild = connection, transport, wild

    async def write(self, data: bytes) -> bool:
        """Send as the windows allow; return False once the server has had enough."""
        for at in range(0, len(data), 65_536):
            await self.wild.room.wait()
            if self.transport.is_closing():
                return False
            self.transport.write(data[at : at + 65_536])
        await asyncio.sleep(0)
        return True

    def messages(self) -> list[Any]:
        """Return what the server answered so far."""
        found, at = [], 0
        data = bytes(self.wild.got)
        while at + 8 <= len(data):
            count = 1 + struct.unpack_from("<I", data, at)[0]
            sizes = struct.unpack_from(f"<{count}I", data, at + 4)
            whole = (4 + 4 * count + 7) // 8 * 8 + 8 * sum(sizes)
            if at + whole > len(data):
                break
            with protocol.Message.from_bytes(data[at : at + whole]) as message:
                found.append(message)
            at += whole
        return found

    async def ended(self) -> None:
        """Wait until the server has ended it."""
        await soon(asyncio.wait([self.wild.lost]))


@asynccontextmanager
async def raw(server: Attacked, seed: bytes | None = None) -> AsyncIterator[Raw]:
    async with connected(server, seed) as connection:
        transport = await connection.stream(SOON_S)
        wild = Wild()
        transport.set_protocol(wild)
        yield Raw(connection, transport, wild)
