"""A neighbour that speaks the link protocol by hand, to say what no node would say."""

from __future__ import annotations

import os
from types import TracebackType

from quicprochat.adapters.crypto import Ed25519Signer
from quicprochat.adapters.iroh import Connection, Endpoint, Stream
from quicprochat.core.envelope import Header, Kind, MeshEnvelope, make
from quicprochat.core.errors import UnavailableError
from quicprochat.core.link import FrameParser, FrameType, Hello, frame
from quicprochat.core.record import PeerRecord, sign_record
from quicprochat.p2p import P2pNode


class Attacker:
    """Links to a node as a peer with a key of its own."""

    def __init__(self) -> None:
        self.seed = os.urandom(32)
        self.signer = Ed25519Signer(self.seed)
        self._parser = FrameParser()
        self._frames: list[tuple[int, bytes]] = []

    async def __aenter__(self) -> Attacker:
        self.endpoint = await Endpoint.bind(self.seed, bind=("127.0.0.1", 0), relay_url=None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.endpoint.close()

    async def dial(self, node: P2pNode) -> None:
        """Connect and open the stream; nothing is said yet."""
        addresses = [(a.ip, a.port) for a in node.addresses()]
        self.connection: Connection = await self.endpoint.connect(node.key, addresses, None, 5)
        self.stream: Stream = await self.connection.stream(5)

    async def link(self, node: P2pNode) -> None:
        """Connect and say hello properly."""
        await self.dial(node)
        await self.say(FrameType.HELLO, self.hello().encode())
        while (await self.hear())[0] != FrameType.HELLO:
            pass

    def hello(self) -> Hello:
        record = PeerRecord(self.signer.key, 1, 1)
        return Hello(os.urandom(16), os.urandom(16), sign_record(record, self.signer))

    async def say(self, kind: FrameType, body: bytes = b"") -> None:
        await self.stream.write(frame(kind, body))

    async def hear(self) -> tuple[int, bytes]:
        """Return the next frame. Raises: UnavailableError at the end of the link."""
        while not self._frames:
            data = await self.stream.read()
            if not data:
                raise UnavailableError("the link ended")
            self._frames.extend(self._parser.feed(data))
        return self._frames.pop(0)

    def envelope(self, to: bytes, payload: bytes = b"not sealed at all") -> MeshEnvelope:
        """A properly signed envelope whose inside nobody can open."""
        return make(Header(Kind.MESSAGE, self.signer.key, to, os.urandom(16)), payload, self.signer)

    def forged(self, to: bytes) -> bytes:
        """An envelope whose signature is not its author's."""
        wire = bytearray(self.envelope(to).wire())
        wire[150] ^= 1
        return bytes(wire)
