"""A server's port under attack: half-open connections, floods from forged addresses, endless handshakes."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time

import pytest
from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicPacketType, pull_quic_header
from tests.unit.quic_pairs import ALPN, CLIENT, Forger, bare, dial, foreign, ids, listening, run, soon, until

from quicprochat.adapters import quic
from quicprochat.adapters.quic import endpoint, flow

FEW = 8


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "HANDSHAKES", FEW)


def kind(datagram: bytes) -> QuicPacketType:
    return pull_quic_header(Buffer(data=datagram), host_cid_length=8).packet_type


async def heard(listener: quic.Listener) -> None:
    """Let the server read everything that waits at its socket."""
    for _ in range(400):
        await asyncio.sleep(0)


def test_full_server_says_so_to_the_next_one() -> None:
    async def scenario() -> None:
        async with listening(limit=2) as (listener, accepted):
            first = await dial(listener)
            await dial(listener)
            third = await dial(listener)
            assert "no room" in await soon(third.ended())
            assert len(accepted) == len(listener.connections) == 2
            assert listener.refused == 1
            first.end(0, "")
            await until(lambda: len(listener.connections) == 1)
            await dial(listener)
            await until(lambda: len(accepted) == 3)

    run(scenario)


@pytest.mark.usefixtures("few")
def test_flood_of_first_packets_holds_no_more_than_its_bound_and_lets_others_in() -> None:
    async def scenario() -> None:
        async with listening() as (listener, accepted):
            forger = Forger(listener.address)
            most = 0
            for turn in range(10):
                for _ in range(20):
                    forger.initial()
                await heard(listener)
                most = max(most, len(listener._shaking))
                if turn in (3, 6, 9):
                    await dial(listener)  # answers a Retry, as a forged address cannot
            kinds = [kind(answer) for answer in forger.answers()]
            forger.close()
            await until(lambda: len(accepted) == 3)
            assert most <= FEW // 2 + 1
            assert kinds.count(QuicPacketType.RETRY) > 100
            assert len(ids(listener)) < 10 * FEW

    run(scenario)


@pytest.mark.usefixtures("few")
def test_oldest_of_many_confirmed_handshakes_gives_way() -> None:
    async def scenario() -> None:
        async with listening() as (listener, accepted):
            forgers = []
            for _ in range(3 * FEW):
                forger = Forger(listener.address)
                made = forger.initial()
                await heard(listener)
                for answer in forger.answers():
                    if kind(answer) is QuicPacketType.RETRY:
                        made.receive_datagram(answer, listener.address, 0.1)
                        forger.send(made, 0.1)
                forgers.append(forger)
            await heard(listener)
            assert len(listener._shaking) == FEW
            assert listener.refused == 2 * FEW
            await dial(listener)
            await until(lambda: len(accepted) == 1)
            for forger in forgers:
                forger.close()

    run(scenario)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("token", [b"x", os.urandom(60)])
def test_forged_token_is_refused(token: bytes) -> None:
    async def scenario() -> None:
        async with listening() as (listener, accepted):
            async with foreign(listener, token=token, certificate=CLIENT.certificate, private_key=CLIENT.key) as client:
                assert (await soon(client.ended))[0] == 0x0B  # INVALID_TOKEN
            assert accepted == []
            assert not listener._shaking

    run(scenario)


def test_slow_handshake_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(endpoint, "HANDSHAKE_S", 0.2)
        async with listening() as (listener, _):
            forger = Forger(listener.address)
            for _ in range(3):
                forger.initial()
            await until(lambda: len(listener._shaking) == 3)
            await until(lambda: not listener._shaking)
            assert listener.refused == 3
            await until(lambda: ids(listener) == {})
            forger.close()

    run(scenario)


async def endless(listener: quic.Listener, message: bytes) -> tuple[int, float]:
    """Begin a handshake with this instead of a ClientHello; return the most the server kept, and the seconds spent."""
    configuration = QuicConfiguration(is_client=True, alpn_protocols=[ALPN], verify_mode=ssl.CERT_NONE)
    attack = QuicConnection(configuration=configuration)
    most = 0
    async with bare(listener, attack) as client:
        client.connect(listener.address, transmit=False)
        sender = attack._crypto_streams[tls.Epoch.INITIAL].sender
        sender.__init__(None, True)  # type: ignore[misc]
        sender.write(message)
        began = time.thread_time()
        client.transmit()
        await until(lambda: bool(listener._shaking))
        (victim,) = listener._shaking
        async with asyncio.timeout(10):
            while victim in listener._shaking and not victim.over:
                held = victim._quic._crypto_streams[tls.Epoch.INITIAL].receiver
                most = max(most, len(victim._quic.tls._receive_buffer), len(held._buffer))
                await asyncio.sleep(0)
                if victim._our_reason:
                    break
        assert victim._our_reason == "too many fragments"
    return most, time.thread_time() - began


def test_tls_message_of_16_mib_is_not_gathered() -> None:
    async def scenario() -> None:
        async with listening() as (listener, _):
            most, seconds = await endless(listener, b"\x01\xff\xff\xff" + bytes(2_000_000))
            assert flow.HANDSHAKE_BYTES * 0.9 < most <= flow.HANDSHAKE_BYTES + 2_000
            assert seconds < 2
            await dial(listener)

    run(scenario)


def test_noise_is_not_answered_and_not_noted(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with listening() as (listener, accepted):
            noise = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            for size in (0, 1, 20, 1_200, 1_500):
                for first in (0x00, 0x40, 0xC0, 0xF0, 0xFF):
                    noise.sendto((bytes([first]) + os.urandom(size))[:size], listener.address)
                    noise.sendto((bytes([first]) + b"\0\0\0\1" + os.urandom(size))[:size], listener.address)
            await heard(listener)
            await dial(listener)
            await until(lambda: len(accepted) == 1)
            noise.close()

    run(scenario)
    assert caplog.text == ""


def test_ended_connections_leave_nothing_behind() -> None:
    async def scenario() -> None:
        async with listening() as (listener, accepted):
            for n in range(5):
                made = await dial(listener)
                await until(lambda n=n: len(accepted) == n + 1)  # type: ignore[misc]
                made.end(0, "")
            await until(lambda: ids(listener) == {})
            assert listener.connections == frozenset()

    run(scenario)


def test_closing_the_port_tells_everybody() -> None:
    async def scenario() -> None:
        async with listening() as (listener, accepted):
            made = [await dial(listener) for _ in range(3)]
            await until(lambda: len(accepted) == 3)
            await listener.close("time for bed")
            assert [await soon(one.ended()) for one in made] == ["time for bed"] * 3
            await listener.close()

    run(scenario)
