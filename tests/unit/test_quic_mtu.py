"""The size of datagrams: found where much is sent, never more than the path takes, and given up when it narrows."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aioquic import tls
from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicSentPacket
from tests.unit.quic_pairs import run, streamed, until

from quicprochat.adapters.quic import mtu
from quicprochat.adapters.quic.datagrams import Datagrams

pytestmark = pytest.mark.skipif(not mtu.CAN_TRY, reason="datagrams stay small on this system")

MUCH = 400_000


class Path:
    """What lies between two ends: datagrams over ``width`` bytes are lost without a word."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
        self.width = width
        self.swallowed = 0
        self.trials: list[int] = []
        send, send_whole = Datagrams.sendto, Datagrams.send_whole

        def sendto(transport: Datagrams, data: Any, addr: Any = None) -> None:
            if len(data) > self.width:
                self.swallowed += 1
            else:
                send(transport, data, addr)

        def whole(transport: Datagrams, data: bytes, addr: Any) -> bool:
            self.trials.append(len(data))
            return len(data) > self.width or send_whole(transport, data, addr)

        monkeypatch.setattr(Datagrams, "sendto", sendto)
        monkeypatch.setattr(Datagrams, "send_whole", whole)


async def pass_on(pair: SimpleNamespace, size: int = MUCH) -> None:
    """Send bytes from one end to the other, and see that they are the same."""
    data = os.urandom(size)
    pair.taker_here.got.clear()
    pair.there.write(data)
    await until(lambda: len(pair.taker_here.got) == size)
    assert pair.taker_here.got == data


async def pass_on_until(pair: SimpleNamespace, condition: Callable[[], bool]) -> None:
    for _ in range(50):
        if condition():
            return
        await pass_on(pair)
    raise AssertionError("this did not come about")


def test_much_travels_in_large_datagrams_and_little_tries_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        path = Path(monkeypatch, 65_536)
        async with streamed() as pair:
            for _ in range(5):
                await pass_on(pair, 1_000)
            assert (pair.out._size.size, path.trials) == (mtu.BASE, [])
            await pass_on_until(pair, lambda: pair.out._size.size == mtu.LADDER[-1])
            assert path.trials == list(mtu.LADDER)
            assert pair.into._size.size == mtu.BASE  # which answered with little

    run(scenario)


def test_narrow_path_is_not_tried_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        path = Path(monkeypatch, 1_500)
        async with streamed() as pair:
            await pass_on_until(pair, lambda: len(path.trials) == 1 + mtu.TRIALS)
            for _ in range(5):
                await pass_on(pair)
            assert path.trials == [1_452] + mtu.TRIALS * [8_952]
            assert (pair.out._size.size, path.swallowed) == (1_452, 0)

    run(scenario)


def test_path_that_narrows_is_noticed_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        path = Path(monkeypatch, 65_536)
        async with streamed() as pair:
            await pass_on_until(pair, lambda: pair.out._size.size == mtu.LADDER[-1])
            path.width = 1_300
            await pass_on(pair)
            assert path.swallowed
            assert pair.out._size.size == mtu.BASE
            swallowed = path.swallowed
            await pass_on(pair)
            assert path.swallowed == swallowed

    run(scenario)


def test_interface_of_ours_that_is_too_narrow_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        tried = []

        def whole(_: Datagrams, data: bytes, addr: Any) -> bool:
            tried.append(len(data))
            return False

        monkeypatch.setattr(Datagrams, "send_whole", whole)
        async with streamed() as pair:
            for _ in range(5):
                await pass_on(pair)
            assert (pair.out._size.size, tried) == (mtu.BASE, [1_452])

    run(scenario)


def test_another_path_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        Path(monkeypatch, 65_536)
        async with streamed() as pair:
            await pass_on_until(pair, lambda: pair.out._size.size == mtu.LADDER[-1])
            pair.out._size.look(("192.0.2.1", 1), 0.0)
            assert pair.out._size.size == mtu.BASE

    run(scenario)


def packet(number: int, size: int) -> QuicSentPacket:
    return QuicSentPacket(
        epoch=tls.Epoch.ONE_RTT, in_flight=True, is_ack_eliciting=True, is_crypto_packet=False, packet_number=number,
        packet_type=QuicPacketType.ONE_RTT, sent_time=1.0, sent_bytes=size,
    )  # fmt: skip


def test_lost_trial_is_no_sign_of_congestion_and_a_lost_packet_is() -> None:
    congestion = mtu.Congestion(max_datagram_size=mtu.BASE)
    window = congestion.congestion_window
    trial, usual = packet(1, 8_952), packet(2, 1_200)
    for one in (trial, usual):
        congestion.on_packet_sent(packet=one)
    congestion.on_packets_lost(now=2.0, packets=iter([trial]))
    assert (congestion.congestion_window, congestion.bytes_in_flight, congestion.lost) == (window, 1_200, 0)
    congestion.on_packets_lost(now=2.0, packets=iter([usual]))
    assert congestion.congestion_window < window
    assert congestion.bytes_in_flight == 0


def test_trial_leaves_in_one_piece_and_others_as_the_system_likes() -> None:
    sending = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    usual = sending.getsockopt(socket.IPPROTO_IP, 10)
    with mtu.whole(sending):
        assert sending.getsockopt(socket.IPPROTO_IP, 10) == 3  # IP_PMTUDISC_PROBE
    assert sending.getsockopt(socket.IPPROTO_IP, 10) == usual
    sending.close()
