"""How large a datagram may be on a path (RFC 8899), found by packets that carry nothing.

Every connection begins with 1,200 bytes, which any path must carry. Each packet costs aioquic the same whatever it
holds, so where much is sent larger ones are tried, one after the other; only what the other end acknowledged is used.
Nothing is tried on a connection that sends little: it would gain nothing, and on a slow link the trial costs.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from aioquic import tls
from aioquic.quic.congestion.base import register_congestion_control
from aioquic.quic.congestion.reno import RenoCongestionControl
from aioquic.quic.connection import NetworkAddress, QuicConnection
from aioquic.quic.packet import QuicFrameType, QuicPacketType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder, QuicSentPacket

BASE = 1_200
"""Bytes of a datagram that every path of QUIC takes (RFC 9000 §14)."""
LADDER = (1_452, 8_952)
"""What is tried: Ethernet and its jumbo frames, less the headers of IPv6 and UDP. The loopback takes both."""
MUCH = 4
"""So many datagrams at once are worth a trial."""
TRIALS = 3
"""Trials of one size that come to nothing before it is given up: a packet may also be lost by chance."""
AGAIN_S = 600.0
"""After so long a size that was given up is tried again (RFC 8899 §5.1.1)."""
LOST_MAX = 8
"""Large packets lost in a row, none acknowledged between them: the path has become narrower."""
TIMEOUTS_MAX = 2
"""Timeouts in a row without any acknowledgement, for the same conclusion: what is sent meanwhile is large too."""
CONGESTION = "reno-by-path"


class Congestion(RenoCongestionControl):
    """Reno that knows trials, whose loss says nothing of congestion, and counts large packets that are lost."""

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self.lost = 0
        """Large packets lost since one was acknowledged."""

    def resize(self, size: int) -> None:
        """Count in datagrams of this size from now on."""
        self._max_datagram_size = size
        self.lost = 0

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        super().on_packet_acked(now=now, packet=packet)
        if packet.sent_bytes > BASE:
            self.lost = 0

    def on_packets_expired(self, *, packets: Iterable[QuicSentPacket]) -> None:
        packets = list(packets)
        self._count(packets)
        super().on_packets_expired(packets=packets)

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        packets = list(packets)
        self._count(packets)
        super().on_packets_expired(packets=[one for one in packets if one.sent_bytes > self._max_datagram_size])
        if sent := [one for one in packets if one.sent_bytes <= self._max_datagram_size]:
            super().on_packets_lost(now=now, packets=sent)

    def _count(self, packets: Iterable[QuicSentPacket]) -> None:
        self.lost += sum(BASE < one.sent_bytes <= self._max_datagram_size for one in packets)


register_congestion_control(CONGESTION, Congestion)


class PathSize:
    """Finds the size for one connection, whose congestion control must be ``CONGESTION``."""

    def __init__(self, quic: QuicConnection) -> None:
        self._quic = quic
        self._step = 0  # of the ladder; what is tried next
        self._trials = 0
        self._under_way = False
        self._not_before = 0.0
        self._to: NetworkAddress | None = None

    @property
    def size(self) -> int:
        """Bytes of the largest datagram that is sent now."""
        return self._quic._max_datagram_size

    def look(self, to: NetworkAddress, now: float) -> None:
        """Note that datagrams were sent; go back to the smallest size when this path, or a new one, asks for it."""
        if to != self._to:
            if self._to is not None:
                self._fall_back(now)
            self._to = to
        elif self.size > BASE and (self._congestion.lost >= LOST_MAX or self._quic._loss._pto_count >= TIMEOUTS_MAX):
            self._fall_back(now + AGAIN_S)

    def due(self, sent: int, now: float) -> bool:
        """Say whether to try a larger size now, after so many datagrams were sent at once."""
        return (
            sent >= MUCH
            and not self._under_way
            and self._step < len(LADDER)
            and now >= self._not_before
            and self._quic._handshake_confirmed
        )

    def trial(self, now: float) -> list[tuple[bytes, NetworkAddress]]:
        """Return a datagram of the next size, for sending unfragmented; nothing when there is no room for it."""
        quic, size = self._quic, LADDER[self._step]
        if quic._loss.congestion_window - quic._loss.bytes_in_flight < size:
            return []
        assert quic._version is not None
        builder = QuicPacketBuilder(
            host_cid=quic.host_cid, is_client=quic._is_client, max_datagram_size=size,
            packet_number=quic._packet_number, peer_cid=quic._peer_cid.cid, spin_bit=quic._spin_bit,
            version=quic._version,
        )  # fmt: skip
        builder.start_packet(QuicPacketType.ONE_RTT, quic._cryptos[tls.Epoch.ONE_RTT])
        builder.start_frame(QuicFrameType.PING, handler=self._answered, handler_args=(size,))
        builder._datagram_needs_padding = True
        self._under_way = True
        path = quic._network_paths[0]
        return quic._flush_builder(builder=builder, network_path=path, peer_cid=quic._peer_cid.cid, now=now)

    def too_large(self, now: float) -> None:
        """The system says that our own interface does not take it."""
        self._give_up(now)

    @property
    def _congestion(self) -> Congestion:
        congestion = self._quic._loss._cc
        assert isinstance(congestion, Congestion)
        return congestion

    def _answered(self, delivery: QuicDeliveryState, size: int) -> None:
        if not self._under_way or size != LADDER[self._step]:
            return  # of a path that was left meanwhile
        self._under_way = False
        if delivery is QuicDeliveryState.ACKED:
            self._resize(size)
            self._step, self._trials = self._step + 1, 0
            return
        self._trials += 1
        if self._trials >= TRIALS:
            self._give_up(self._quic._loss._time_of_last_sent_ack_eliciting_packet)

    def _give_up(self, now: float) -> None:
        self._trials, self._not_before = 0, now + AGAIN_S

    def _fall_back(self, not_before: float) -> None:
        self._step = self._trials = 0
        self._under_way = False
        self._not_before = not_before
        self._resize(BASE)

    def _resize(self, size: int) -> None:
        # The pacer goes on counting packets of the smallest size: it charges each for a whole one, however short it is,
        # and a window of few large ones would make an answer of some bytes wait for most of a round trip.
        self._quic._max_datagram_size = size
        self._congestion.resize(size)


# Linux's numbers; Python has no names for them.
_OPTIONS = ((socket.IPPROTO_IP, 10), (socket.IPPROTO_IPV6, 23))
_AS_KERNEL_KNOWS, _WHOLE = 1, 3

CAN_TRY = sys.platform == "linux"
"""Elsewhere datagrams stay small: there is no telling the system to send one in one piece."""


@contextmanager
def whole(sending: socket.socket) -> Iterator[None]:
    """Send within this in one piece or not at all: an answer must not mean that a datagram came in parts."""
    _set(sending, _WHOLE)
    try:
        yield
    finally:
        _set(sending, _AS_KERNEL_KNOWS)


def _set(sending: socket.socket, mode: int) -> None:
    for level, option in _OPTIONS:
        with suppress(OSError):  # of the other family
            sending.setsockopt(level, option, mode)
