"""The home server as its operator starts it, and a client that speaks to it without any node behind."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.integration.qpc import Done, finish, read_line, run, start

from quicprochat.adapters import quic, rpc
from quicprochat.adapters.crypto import Ed25519Signer
from quicprochat.core.address import Address
from quicprochat.core.envelope import Header, Kind, make
from quicprochat.core.ids import PeerKey

PROGRAM = "import sys; from quicprochat.server.cli import main; sys.exit(main())"


class Server:
    """A home, perhaps with a server running on it."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        self.options = options
        self.listen = "127.0.0.1:0"
        self.process: subprocess.Popen[bytes] | None = None
        self.talk = home.with_name(home.name + ".talk")
        self.address = Address("127.0.0.1", 1)
        self.fingerprint = b""

    def up(self, *options: str, **more: Any) -> None:
        """Start it, and wait until it is ready."""
        with self.talk.open("wb") as talk:
            self.process = start(
                "--home", str(self.home), "--listen", self.listen, "--no-discovery", *self.options, *options,
                stderr=talk, **{"program": PROGRAM, **more},
            )  # fmt: skip
        word, address, fingerprint = (read_line(self.process).split() or [self.said()] * 3)[:3]
        assert word == "ready", self.said()
        self.address, self.fingerprint = Address.parse(address), bytes.fromhex(fingerprint)

    def down(self, how: signal.Signals = signal.SIGTERM) -> Done:
        """Stop it, and return how it ended."""
        assert self.process is not None
        self.process.send_signal(how)
        done = finish(self.process)
        self.process = None
        return Done(done.code, done.out.encode(), self.said().encode())

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def said(self) -> str:
        """Return what it told on standard error so far."""
        return self.talk.read_text()

    def run(self, *arguments: str, **more: Any) -> Done:
        """Run a command in words for people."""
        return run("--home", str(self.home), *arguments, program=PROGRAM, **more)

    def ask(self, *arguments: str, code: int = 0) -> Any:
        """Run a command and return its JSON answer, or its error."""
        done = self.run("--json", *arguments)
        assert done.code == code, (done.code, done.out, done.talk)
        return done.json if not code else done.error

    def end(self) -> None:
        """Whatever happened, leave nothing running."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()


class Visitor:
    """Somebody with a key."""

    def __init__(self, name: str) -> None:
        self.seed = hashlib.sha256(name.encode()).digest()
        self.signer = Ed25519Signer(self.seed)
        self.key: PeerKey = self.signer.key

    def envelope(self, to: Visitor, number: int, size: int = 300) -> bytes:
        """Return an envelope that nobody has seen; the server cannot tell that nothing is sealed in it."""
        nonce = hashlib.sha256(self.seed + number.to_bytes(8, "big")).digest()[:16]
        return make(Header(Kind.MESSAGE, self.key, to.key, nonce), bytes(size), self.signer).wire()

    @asynccontextmanager
    async def session(self, server: Server) -> AsyncIterator[Call]:
        """Be connected; needs ``rpc.running()``. Raises: Problem, when the server lets nobody in."""
        credentials = quic.Credentials(*quic.self_signed(self.seed, "a visitor", 1))
        where = (server.address.ip, server.address.port)
        connection = await quic.connect(where, "capnp", credentials, quic.pinned(server.fingerprint), 10)
        remote = rpc.Remote(await connection.stream(10), rpc.home.Entrance)
        running = asyncio.create_task(remote.run())
        call = Call()
        try:
            answer = await rpc.Remote.ask(remote.bootstrap.enter(1), "entering")
            call.info, call.session = answer.info, answer.session
            del answer
            yield call
        finally:
            call.info = call.session = None
            del remote
            connection.end(0, "goodbye")
            await running
            await connection.ended()


class Call:
    """A session, for calls in the schema's words: ``await call("register", "bob", "")``."""

    info: Any
    session: Any

    async def __call__(self, method: str, *arguments: Any) -> Any:
        """Raises: Problem, UnavailableError."""
        return await rpc.Remote.ask(getattr(self.session, method)(*arguments), method)

    async def put(self, *envelopes: bytes) -> list[tuple[int, int]]:
        """Enqueue; return verdicts and reasons."""
        answer = await self("batchEnqueue", list(envelopes))
        return [(outcome.verdict, outcome.reason) for outcome in answer.outcomes]
