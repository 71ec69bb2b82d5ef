"""What the adapter uses of aioquic's insides is what it was when it was read. A change here means: read again.

Then run the other tests of the adapter, and put the new digest here.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from aioquic import tls
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import QuicServer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.congestion.reno import RenoCongestionControl
from aioquic.quic.connection import CRYPTO_BUFFER_SIZE, QuicConnection
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketPacer, QuicPacketRecovery, QuicPacketSpace
from aioquic.quic.retry import QuicRetryTokenHandler
from aioquic.quic.stream import QuicStream, QuicStreamReceiver, QuicStreamSender

from quicprochat.adapters.quic import flow

READ: dict[Callable[..., Any], str] = {
    tls.Context._server_handle_hello: "ce53cc7baafe259b",
    tls.Context._server_handle_certificate: "8300245453e1b8ee",
    tls.Context._server_handle_certificate_verify: "54a8dfacdbb96066",
    tls.Context._server_expect_finished: "1e4b06ad90fb8da6",
    tls.Context._server_handle_finished: "6333c1d300ad9c6a",
    tls.Context._client_handle_encrypted_extensions: "c91f9f8227520c38",
    tls.Context._client_handle_certificate_request: "c8a85bf6aeccdc18",
    tls.Context._client_handle_certificate: "01c4c79fe49cc12c",
    tls.Context._client_handle_certificate_verify: "9e49d3f18f0be6f2",
    tls.Context._client_handle_finished: "4b7a3ac83d777857",
    tls.Context._check_certificate_verify_signature: "68c355898f7e639f",
    tls.Context._set_peer_certificate: "beec9ba2af2e1e68",
    tls.Context.handle_message: "6a388255ca3f2fca",
    QuicConnection._initialize: "6a41681e541c05d7",
    QuicConnection._handle_crypto_frame: "e77f8695d9acaf8e",
    QuicConnection._handle_stream_frame: "8c79348a854e307d",
    QuicConnection._get_or_create_stream: "aee09c84cd0da114",
    QuicConnection._write_stream_limits: "398d4a898f7c580f",
    QuicConnection._write_connection_limits: "02c42c5455ae1a31",
    QuicConnection._serialize_transport_parameters: "be651f3ddfcd3f39",
    QuicConnection._flush_builder: "ac4bd66d7c3892df",
    QuicConnection.datagrams_to_send: "f4eb22c8add260fe",
    QuicPacketBuilder.start_packet: "63a59deba3617ddc",
    QuicPacketBuilder.start_frame: "53af20167bc2f0e0",
    QuicPacketBuilder._end_packet: "585948d0382505b3",
    QuicPacketPacer.update_rate: "ec763995d3603cb4",
    QuicPacketRecovery._on_packets_lost: "77a0ba7595137455",
    QuicPacketRecovery.reschedule_data: "a012ca1263fb6af0",
    RenoCongestionControl.on_packet_acked: "91f90091e236e854",
    RenoCongestionControl.on_packets_expired: "158b2c5ceb1e1d42",
    RenoCongestionControl.on_packets_lost: "dd75bdd28da27dbe",
    QuicStreamReceiver.handle_frame: "c54bce9f11e6f2de",
    QuicStreamSender.write: "77d188425093015b",
    QuicStreamSender.on_data_delivery: "675e1c2812ea3744",
    QuicServer.datagram_received: "4440e39aaa1eeeb5",
    QuicServer._connection_id_issued: "c971cc2375672b83",
    QuicServer._connection_id_retired: "81a083c95aadc7a8",
    QuicServer._connection_terminated: "c97eb4c322136b30",
    QuicConnectionProtocol.datagram_received: "525c2fd4dddfbcbd",
    QuicConnectionProtocol._process_events: "b597fcfc85d5cfd8",
    QuicConnectionProtocol._handle_timer: "118ba0df51f70374",
    QuicConnectionProtocol.transmit: "31b06ca7f4e21d2e",
    QuicRetryTokenHandler.validate_token: "26238b6be7cbdf0b",
}


def digest(function: Callable[..., Any]) -> str:
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]


def test_aioquic_is_the_version_that_was_read() -> None:
    assert importlib.metadata.version("aioquic") == "1.7.2"


@pytest.mark.parametrize("function", READ, ids=lambda function: str(function.__qualname__))
def test_code_that_safety_rests_on_is_the_code_that_was_read(function: Callable[..., Any]) -> None:
    assert digest(function) == READ[function]


def test_private_fields_are_there() -> None:
    quic = QuicConnection(configuration=QuicConfiguration(is_client=True))
    quic.connect(("127.0.0.1", 9), now=0.0)
    assert {"used", "value", "sent", "frame_type"} <= vars(quic._local_max_data).keys()
    assert quic._local_max_streams_bidi.value == quic._local_max_streams_uni.value == 128
    assert quic._streams == {}
    assert len(quic._crypto_streams) == 3
    assert quic._is_client
    assert quic._close_pending is False
    assert quic._session_ticket_fetcher is None
    assert quic._session_ticket_handler is None
    assert {"_timer", "_timer_at", "_transmit_task", "_transport", "_quic", "_loop"} <= set(
        QuicConnectionProtocol.__init__.__code__.co_names
    )
    assert quic._retry_source_connection_id is None
    assert quic._max_datagram_size == 1_200
    assert quic._ack_delay == 0.001
    assert {"_cc", "_pto_count", "_time_of_last_sent_ack_eliciting_packet"} <= vars(quic._loss).keys()
    assert {"_cryptos", "_peer_cid", "_spin_bit", "_network_paths", "_handshake_confirmed"} <= vars(quic).keys()
    assert [len(id.cid) for id in quic._host_cids] == [8]
    context = quic.tls
    assert context._request_client_certificate is False
    assert context._peer_certificate is None
    assert context._peer_certificate_chain == []
    assert context._receive_buffer == b""
    assert not hasattr(context, "identity")
    assert not hasattr(context, "check")


def test_private_fields_of_streams_are_there() -> None:
    stream = QuicStream(0, 10, 10)
    assert (stream.max_stream_data_local, stream.max_stream_data_local_sent) == (10, 10)
    assert (stream.receiver._buffer_start, len(stream.receiver._buffer), len(stream.receiver._ranges)) == (0, 0, 0)
    stream.sender.write(b"abc")
    assert (stream.sender._buffer_start, stream.sender._buffer_stop) == (0, 3)


def test_what_aioquic_bounds_itself_is_still_bounded() -> None:
    space = QuicPacketSpace()
    for number in range(0, 10_000, 2):
        space.received_packets.add(number)
    assert len(space.received_packets._received) < 1_000
    assert CRYPTO_BUFFER_SIZE <= flow.HANDSHAKE_BYTES
