"""Any frames from two neighbours leave routes that cost something and lead to one, and are told in frames we read."""

from __future__ import annotations

from fuzz.common import instrumented, run

with instrumented():
    from quicprochat.core.ids import Label
    from quicprochat.core.memory import MemoryStore
    from quicprochat.core.route import Routes
    from quicprochat.core.route_frames import (
        AGAIN,
        DIGEST,
        REQUEST,
        UPDATE,
        decode_requests,
        decode_update,
        encode_update,
    )
    from quicprochat.core.time import Instant
    from quicprochat.sim.crypto import SimCrypto

FRAMES_MAX = 32


class Gullible(SimCrypto):
    """Believes every signature, so that what stands behind one is reached too."""

    def verify(self, key: bytes, label: Label, message: bytes, signature: bytes) -> bool:
        return True

    def valid_key(self, key: bytes) -> bool:
        return True


def one_input(data: bytes) -> None:
    """Frames are a byte (neighbour, and how much time passes), two bytes of length, and the body."""
    crypto = Gullible(b"fuzz")
    routes = Routes(crypto.signer(b"me"), crypto, destinations_max=16)
    neighbours = [crypto.signer(b"n%d" % n).key for n in range(3)]
    now = 0
    routes.start(MemoryStore(), Instant(now))
    for key in neighbours:
        routes.link_up(key, 10, b"", Instant(now))
        assert routes.received(key, encode_update((), (), (), first=True), Instant(now)) is None
    for _ in range(FRAMES_MAX):
        if len(data) < 3:
            break
        head, length = data[0], int.from_bytes(data[1:3], "big")
        body, data = data[3 : 3 + length], data[3 + length :]
        now += (head >> 2) ** 3
        routes.received(neighbours[head % 2], body, Instant(now))
        for key, _, said in routes.due(Instant(now)):
            assert key in neighbours
            if said[0] == UPDATE:
                decode_update(said)
            elif said[0] == REQUEST:
                decode_requests(said)
            else:
                assert said[0] in (DIGEST, AGAIN)
        deadline = routes.deadline()
        assert deadline is not None
        for view in routes.table():
            assert view.metric >= 10
            assert routes.next_hops(view.destination)[0] == view.next_hop
        assert len(routes.table()) < 16


if __name__ == "__main__":
    run(one_input)
