"""Receive windows that follow what was consumed (RFC 9000 §4.1).

aioquic 1.7.2 doubles a window whenever half of it was received, read or not: a reader that pauses gathers 18 MB. Here
the window slides over what the application took, so a connection holds no more than ``STREAM_WINDOW`` bytes unread.
What windows do not bound is looked at after each datagram.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioquic import tls
from aioquic.quic.connection import (
    CONNECTION_LIMIT_FRAME_CAPACITY,
    MAX_STREAM_DATA_FRAME_CAPACITY,
    QuicConnection,
)
from aioquic.quic.packet import QuicFrameType

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioquic.quic.packet_builder import QuicPacketBuilder
    from aioquic.quic.stream import QuicStream

STREAM_WINDOW = 512 * 1024
"""Unread bytes of the one stream: some 600 envelopes, and 10 MB/s over a path of 50 ms."""
CONNECTION_WINDOW = STREAM_WINDOW + 64 * 1024
"""Of all streams together: what a peer sends on a stream that is refused counts too."""
FRAGMENTS = 512
"""Gaps in what was received. aioquic walks through all of them for each frame, and windows allow 250,000; packets of a
usual size, every second of them lost, make 220."""
HANDSHAKE_BYTES = 32 * 1024
"""TLS messages not yet complete, in order or not. aioquic keeps 16 MiB of each connection, and copies them for each
packet; a certificate chain has a few thousand bytes."""


def slide(quic: QuicConnection, unread: Callable[[int], int]) -> None:
    """Replace the windows of a connection; ``unread`` tells how many bytes of a stream still wait for their reader."""

    def write_stream_limits(builder: QuicPacketBuilder, space: object, stream: QuicStream) -> None:
        assert stream.stream_id is not None
        if stream.max_stream_data_local:
            target = stream.receiver._buffer_start - unread(stream.stream_id) + STREAM_WINDOW
            if target - stream.max_stream_data_local >= STREAM_WINDOW // 2:
                stream.max_stream_data_local = target
        if stream.max_stream_data_local_sent != stream.max_stream_data_local:
            frame = builder.start_frame(
                QuicFrameType.MAX_STREAM_DATA,
                capacity=MAX_STREAM_DATA_FRAME_CAPACITY,
                handler=quic._on_max_stream_data_delivery,
                handler_args=(stream,),
            )
            frame.push_uint_var(stream.stream_id)
            frame.push_uint_var(stream.max_stream_data_local)
            stream.max_stream_data_local_sent = stream.max_stream_data_local

    def write_connection_limits(builder: QuicPacketBuilder, space: object) -> None:
        data = quic._local_max_data
        target = data.used - sum(map(unread, tuple(quic._streams))) + CONNECTION_WINDOW
        if target - data.value >= CONNECTION_WINDOW // 2:
            data.value = target
        # The limits of streams never grow: a connection has one, and the others are refused.
        if data.value != data.sent:
            frame = builder.start_frame(
                data.frame_type,
                capacity=CONNECTION_LIMIT_FRAME_CAPACITY,
                handler=quic._on_connection_limit_delivery,
                handler_args=(data,),
            )
            frame.push_uint_var(data.value)
            data.sent = data.value

    quic._write_stream_limits = write_stream_limits  # type: ignore[method-assign]
    quic._write_connection_limits = write_connection_limits  # type: ignore[method-assign]


def due(quic: QuicConnection, stream_id: int, unread: int) -> bool:
    """Say whether the peer should be told of a new window now, since no packet of its own may make us."""
    stream = quic._streams.get(stream_id)
    if stream is None:
        return False
    target = stream.receiver._buffer_start - unread + STREAM_WINDOW
    return bool(target - stream.max_stream_data_local >= STREAM_WINDOW // 2)


def excessive(quic: QuicConnection) -> bool:
    """Say whether the peer made aioquic keep what no honest one does; cheap, asked after each datagram."""
    for crypto in quic._crypto_streams.values():
        received = crypto.receiver
        if len(received._ranges) > FRAGMENTS or len(received._buffer) > HANDSHAKE_BYTES:
            return True
    for stream in quic._streams.values():
        if len(stream.receiver._ranges) > FRAGMENTS:
            return True
    context: tls.Context | None = getattr(quic, "tls", None)
    return context is not None and len(context._receive_buffer) > HANDSHAKE_BYTES
