"""The one stream of a connection: bytes, windows, backpressure, its ends, and peers that want more than one."""

from __future__ import annotations

import asyncio
import gc
import os
from typing import Any

import pytest
from aioquic.quic.rangeset import RangeSet
from tests.unit.quic_pairs import SOON_S, Taker, dial, ids, listening, run, soon, streamed, until

from quicprochat.adapters.quic import endpoint, flow, stream
from quicprochat.adapters.quic.stream import StreamTransport
from quicprochat.core.errors import UnavailableError


@pytest.mark.parametrize("size", [1, 1_200, 300_000, 3_000_000])
def test_bytes_arrive_unchanged_both_ways(size: int) -> None:
    async def scenario() -> None:
        data = os.urandom(size)
        async with streamed() as pair:
            for source, sink in ((pair.there, pair.taker_here), (pair.here, pair.taker_there)):
                for at in range(0, size, 10_000):
                    source.write(data[at : at + 10_000])
                await until(lambda sink=sink: len(sink.got) == size)  # type: ignore[misc]
                assert sink.got == data

    run(scenario)


@pytest.fixture
def most_unread(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The most that any stream held unread, as a list of one."""
    most = [0]
    honest = StreamTransport.arrived

    def note(self: StreamTransport, data: bytes, *, end: bool) -> None:
        most[0] = max(most[0], self.unread + len(data))
        honest(self, data, end=end)

    monkeypatch.setattr(StreamTransport, "arrived", note)
    return most


def test_reader_that_pauses_holds_a_window_and_no_more(most_unread: list[int]) -> None:
    async def scenario() -> None:
        async with streamed() as pair:
            pair.here.pause_reading()
            for _ in range(60):
                pair.there.write(bytes(100_000))
            await until(lambda: pair.here.unread > flow.STREAM_WINDOW * 0.99)
            for _ in range(20):  # the peer asks for room, and gets none
                pair.out.keep_alive()
                await asyncio.sleep(0.01)
            assert most_unread[0] <= flow.STREAM_WINDOW
            assert pair.taker_here.got == b""
            pair.here.resume_reading()
            await until(lambda: len(pair.taker_here.got) == 6_000_000)
            assert most_unread[0] <= flow.STREAM_WINDOW

    run(scenario)


def test_writer_is_paused_and_goes_on() -> None:
    async def scenario() -> None:
        async with streamed() as pair:
            pair.here.pause_reading()
            written = 0
            while "pause" not in pair.taker_there.told:
                pair.there.write(bytes(10_000))
                written += 10_000
                await asyncio.sleep(0)
            assert written <= flow.STREAM_WINDOW + stream.SEND_HIGH + 10_000
            pair.here.resume_reading()
            await until(lambda: pair.taker_there.told == ["pause", "resume"])
            await until(lambda: len(pair.taker_here.got) == written)

    run(scenario)


def test_server_does_not_hear_a_client_that_takes_no_answers() -> None:
    async def scenario() -> None:
        async with streamed() as pair:
            pair.there.pause_reading()
            for _ in range(20):
                pair.here.write(bytes(100_000))
            assert pair.taker_here.told == ["pause"]
            pair.there.write(b"another call")
            await until(lambda: pair.here.unread == len(b"another call"))
            assert pair.taker_here.got == b""
            pair.there.resume_reading()
            await until(lambda: pair.taker_here.got == b"another call")
            assert pair.taker_here.told == ["pause", "resume"]

    run(scenario)


def test_client_hears_a_server_that_takes_no_calls() -> None:
    """Or the two would wait for each other."""

    async def scenario() -> None:
        async with streamed() as pair:
            pair.here.pause_reading()
            for _ in range(20):
                pair.there.write(bytes(100_000))
            assert pair.taker_there.told == ["pause"]
            pair.here.write(b"an answer")
            await until(lambda: pair.taker_there.got == b"an answer")

    run(scenario)


@pytest.mark.parametrize("how", ["eof", "close"])
def test_end_comes_after_the_last_byte(how: str) -> None:
    async def scenario() -> None:
        async with streamed() as pair:
            pair.here.pause_reading()
            pair.there.write(bytes(50_000))
            pair.there.write_eof() if how == "eof" else pair.there.close()
            await until(lambda: pair.here.unread == 50_000)
            assert not pair.taker_here.lost.done()
            pair.here.resume_reading()
            await soon(pair.taker_here.lost)
            assert len(pair.taker_here.got) == 50_000

    run(scenario)


def test_half_closed_stream_still_brings_answers() -> None:
    async def scenario() -> None:
        async with streamed() as pair:
            pair.here.pause_reading()  # the end is not delivered while nobody reads
            pair.there.write_eof()
            pair.here.write(b"answer")
            await until(lambda: pair.taker_there.got == b"answer")
            assert pair.taker_here.told == []

    run(scenario)


def test_stream_that_is_reset_is_lost_at_once() -> None:
    async def scenario() -> None:
        async with streamed() as pair:
            pair.here.pause_reading()
            pair.there.write(bytes(1_000))
            await until(lambda: pair.here.unread == 1_000)
            pair.there.abort()
            assert isinstance(await soon(pair.taker_here.lost), ConnectionResetError)
            assert pair.taker_here.got == b""
            pair.here.write(b"into the void")
            pair.here.write_eof()
            pair.here.close()
            await asyncio.sleep(0)
            assert pair.taker_here.told == ["lost"]

    run(scenario)


def test_reader_that_comes_after_the_end_is_told() -> None:
    async def scenario() -> None:
        async with listening() as (listener, accepted):
            out = await dial(listener)
            there = await out.stream(SOON_S)
            there.set_protocol(Taker())
            there.write(b"x")
            await until(lambda: bool(accepted))
            here = await accepted[0].stream(SOON_S)
            there.abort()
            await until(here.is_closing)
            late = Taker()
            here.set_protocol(late)
            assert isinstance(await soon(late.lost), ConnectionResetError)

    run(scenario)


def test_end_of_the_connection_ends_the_stream_on_both_sides() -> None:
    async def scenario() -> None:
        async with streamed() as pair:
            pair.into.end(0x77, "that is enough")
            assert not pair.taker_here.lost.done()  # not within the call
            await soon(pair.taker_here.lost)
            await soon(pair.taker_there.lost)
            assert await soon(pair.out.ended()) == "that is enough"
            pair.here.resume_reading()
            assert pair.taker_here.told == ["lost"]

    run(scenario)


def test_nothing_is_delivered_after_the_connection_was_ended() -> None:
    async def scenario() -> None:
        async with streamed() as pair:
            pair.here.pause_reading()
            pair.there.write(b"calls")
            await until(lambda: pair.here.unread == 5)
            pair.into.end(0x77, "that is enough")
            pair.here.resume_reading()
            await soon(pair.taker_here.lost)
            assert pair.taker_here.got == b""

    run(scenario)


def test_client_that_opens_no_stream_is_not_waited_for() -> None:
    async def scenario() -> None:
        async with listening() as (listener, accepted):
            await dial(listener)
            await until(lambda: bool(accepted))
            with pytest.raises(UnavailableError, match="opened no stream"):
                await accepted[0].stream(0.05)

    run(scenario)


@pytest.mark.parametrize("id", [2, 4, 400], ids=["uni", "second", "hundredth"])
def test_another_stream_ends_the_connection(id: int) -> None:
    async def scenario() -> None:
        async with streamed() as pair:
            quic = pair.out._quic
            quic._remote_max_streams_bidi = quic._remote_max_streams_uni = 1_000
            quic._remote_max_stream_data_uni = 100
            quic.send_stream_data(id, b"more")
            pair.out.transmit()
            assert "Too many streams" in await soon(pair.out.ended())
            await until(lambda: pair.into.over)

    run(scenario)


def test_stream_after_the_first_ends_the_connection() -> None:
    """aioquic itself would allow it: a finished stream makes room for another."""

    async def scenario() -> None:
        async with streamed() as pair:
            pair.there.close()
            await soon(pair.taker_here.lost)
            pair.into._quic.send_stream_data(0, b"", end_stream=True)
            pair.into.transmit()
            await until(lambda: 0 not in pair.into._quic._streams)
            pair.out._quic._remote_max_streams_bidi = 2
            pair.out._quic.send_stream_data(4, b"more")
            pair.out.transmit()
            assert await soon(pair.out.ended()) == "a connection has one stream"

    run(scenario)


def test_crumbs_end_the_connection() -> None:
    """Every second byte: aioquic would walk through all gaps for each frame, and a window holds 250,000."""

    async def scenario() -> None:
        async with streamed() as pair:
            pair.there.write(bytes(100_000))
            pair.there._flush()
            sender = pair.out._quic._streams[0].sender
            start = sender._buffer_start + 1
            crumbs = [range(at, at + 1) for at in range(start, start + 1_600, 2)]
            sender._pending = RangeSet(crumbs)
            gaps = []
            while not pair.out.over and not pair.into.over:
                pair.out.transmit()
                held = pair.into._quic._streams.get(0)
                gaps.append(len(held.receiver._ranges) if held else 0)
                sender._pending = sender._pending if len(sender._pending) else RangeSet(crumbs)
                sender.buffer_is_empty = False
                await asyncio.sleep(0.001)
            assert await soon(pair.out.ended()) == "too many fragments"
            assert flow.FRAGMENTS * 0.9 < max(gaps) <= flow.FRAGMENTS + 200

    run(scenario)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "IDLE_S", 0.6)


@pytest.mark.usefixtures("impatient")
def test_idle_connection_ends_and_one_kept_alive_does_not() -> None:
    async def scenario() -> None:
        async with streamed() as pair:
            for _ in range(20):
                await asyncio.sleep(0.1)  # longer than the timeout altogether
                pair.out.keep_alive()
            assert not pair.out.over
            assert not pair.into.over
            assert "dle" in await soon(pair.into.ended())
            await soon(pair.taker_here.lost)
            await soon(pair.out.ended())
            pair.out.keep_alive()  # of one that is over: nothing happens

    run(scenario)


@pytest.mark.usefixtures("impatient")
def test_client_that_vanishes_is_noticed() -> None:
    async def scenario() -> None:
        async with streamed() as pair:
            pair.out._transport.abort()
            pair.here.write(bytes(10_000))
            await soon(pair.taker_here.lost)
            assert pair.listener.connections == frozenset()
            assert ids(pair.listener) == {}

    run(scenario)


def test_whatever_aioquic_stumbles_over_costs_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with streamed() as pair:

            def stumble(*_: Any) -> None:
                raise IndexError("a bug")

            monkeypatch.setattr(pair.into._quic, "_payload_received", stumble)
            pair.there.write(b"x")
            await soon(pair.taker_here.lost)
            assert await soon(pair.out.ended()) == "this could not be processed"
            await dial(pair.listener)

    run(scenario)


def test_whoever_stops_waiting_for_a_sign_of_life_leaves_nothing_behind() -> None:
    complaints: list[dict[str, Any]] = []

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        async with streamed() as pair:
            await soon(pair.out.answered())
            assert not pair.out.over
            waiting = asyncio.create_task(pair.out.answered())
            await asyncio.sleep(0)  # it has asked, and hears nothing before the loop reads
            waiting.cancel()
            await asyncio.wait((waiting,))
            pair.out.end(0, "enough")
            await soon(pair.out.answered())
            assert pair.out._pings == {}

    run(scenario)
    gc.collect()
    assert complaints == []
