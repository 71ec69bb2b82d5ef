"""Any frame of carrying is a WireError or writes these very bytes again, and whoever hears it goes on within bounds."""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha256

from fuzz.common import instrumented, run

with instrumented():
    from quicprochat.core.carry import Carry
    from quicprochat.core.encounter import Want, decode_offer, encode_offer
    from quicprochat.core.entries import entry_of
    from quicprochat.core.envelope import Kind
    from quicprochat.core.errors import WireError
    from quicprochat.core.ids import EnvelopeId, PeerKey
    from quicprochat.core.reconcile import Ranges
    from quicprochat.core.shelf import Parcel
    from quicprochat.core.time import Instant

ME, LOWER, HIGHER = (PeerKey(bytes([n]) * 32) for n in (5, 1, 9))
NOW = Instant(0)


def parcels() -> list[Parcel]:
    ids = [EnvelopeId(sha256(bytes([n])).digest()) for n in range(40)]
    return [
        Parcel(entry_of(n, id), Kind.MESSAGE, LOWER, bytes([n % 3]) * 32, 300, ME, Instant(10**9))
        for n, id in enumerate(ids)
    ]


PARCELS = parcels()


def zeros(count: int) -> bytes:
    return bytes(count)


def one_input(data: bytes) -> None:
    """The first byte cuts the rest into two frames; the type of each is its own first byte."""
    for body in (data, data[1:]):
        with suppress(WireError):
            assert Ranges.decode(body).encode() == body
        with suppress(WireError):
            assert Want.decode(body).encode() == body
        with suppress(WireError):
            assert encode_offer(decode_offer(body)) == body
    cut = 1 + (data[0] if data else 0)
    frames = [(0x84 + frame[0] % 3, frame[1:]) for frame in (data[1:cut], data[cut:]) if frame]
    for peer in (LOWER, HIGHER):
        carry = Carry(ME, zeros)
        for parcel in PARCELS:
            carry.hold(parcel, NOW)
        carry.link_up(peer, NOW)
        with suppress(WireError):
            for kind, body in frames:
                carry.received(peer, kind, body, NOW)
                assert sum(len(say.body) for say in carry.poll(NOW)) < 200_000
        handed = carry.take(peer, 10**6, NOW)
        assert len(handed) == len(set(handed)) <= len(PARCELS)
        carry.link_down(peer, NOW)
        assert carry.poll(NOW) == []


if __name__ == "__main__":
    run(one_input)
