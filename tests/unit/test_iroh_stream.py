"""The iroh adapter's connections and streams over real sockets."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace

import pytest

iroh = pytest.importorskip("iroh", reason="needs the extra [mesh]")

from tests.unit.iroh_pairs import (  # noqa: E402
    SOON_S,
    endpoint,
    foreign,
    linked,
    read_all,
    run,
    soon,
    streamed,
    target,
)
from tests.unit.iroh_pairs import quick_close as quick_close  # noqa: E402  (pytest takes it from here)

from quicprochat.adapters.iroh import ALPN, Connection, connection, fastcall  # noqa: E402
from quicprochat.core.errors import LocalError, UnavailableError  # noqa: E402


@pytest.mark.parametrize("size", [1, 300, 65_536, 1_000_003, 5_000_000])
def test_bytes_arrive_unchanged_both_ways(size: int) -> None:
    async def scenario() -> None:
        data = os.urandom(size)
        async with streamed() as pair:
            for source, sink in ((pair.there, pair.here), (pair.here, pair.there)):
                writing = asyncio.create_task(source.write(data))
                assert await read_all(sink, size) == data
                await writing

    run(scenario)


def test_writes_for_which_there_is_room_take_no_detour_through_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with streamed() as pair:
            detours: list[int] = []
            settle = fastcall._Poll._settle

            def detour(poll: fastcall._Poll, code: int) -> None:
                detours.append(code)
                settle(poll, code)

            monkeypatch.setattr(fastcall._Poll, "_settle", detour)
            for _ in range(20):
                await pair.there.write(b"now")
            assert len(detours) < 20
            assert await read_all(pair.here, 60) == 20 * b"now"

    run(scenario)


def test_who_reads_or_writes_what_can_be_at_once_lets_others_have_their_turn() -> None:
    """Else a peer that sends without end would keep the loop from everybody else."""

    async def scenario() -> None:
        async with streamed() as pair:
            for _ in range(100):
                turned = asyncio.Event()
                asyncio.get_running_loop().call_soon(turned.set)
                await pair.here.write(b"at once")
                assert turned.is_set()
            await pair.there.write(bytes(1_000_000))
            left = 1_000_000
            while left:
                turned = asyncio.Event()
                asyncio.get_running_loop().call_soon(turned.set)
                left -= len(await pair.here.read())
                assert turned.is_set()

    run(scenario)


def test_only_packets_on_the_path_in_use_are_signs_of_life() -> None:
    """A relayed path is kept alive beside a direct one that is dead, which must not hide that."""

    async def scenario() -> None:
        async with linked() as pair:
            raw = pair.out._raw
            assert raw is not None

            def path(*, selected: bool, packets: int) -> SimpleNamespace:
                return SimpleNamespace(is_selected=selected, stats=SimpleNamespace(udp_rx_datagrams=packets))

            paths = [path(selected=False, packets=900), path(selected=True, packets=7)]
            pair.out._raw = SimpleNamespace(paths=lambda: paths)
            try:
                assert pair.out.packets_in() == 7
                paths[0].stats.udp_rx_datagrams += 1
                assert pair.out.packets_in() == 7
                paths[1].stats.udp_rx_datagrams += 1
                assert pair.out.packets_in() == 8
            finally:
                pair.out._raw = raw

    run(scenario)


def test_packets_from_the_peer_are_counted() -> None:
    async def scenario() -> None:
        async with streamed() as pair:
            before = pair.out.packets_in()
            await pair.here.write(b"x")
            await soon(pair.there.read())
            assert pair.out.packets_in() > before > 0

    run(scenario)


def test_reads_return_no_more_than_their_bound() -> None:
    async def scenario() -> None:
        async with streamed() as pair:
            writing = asyncio.create_task(pair.there.write(bytes(4_000_000)))
            left, largest = 4_000_000, 0
            while left:
                size = len(await soon(pair.here.read()))
                largest, left = max(largest, size), left - size
            await writing
            assert connection._FIRST_READ_BYTES < largest <= connection.READ_BYTES

    run(scenario)


def test_writes_of_several_tasks_do_not_mix() -> None:
    async def scenario() -> None:
        async with streamed() as pair:
            parts = [bytes([n]) * 300_000 for n in range(8)]
            writing = asyncio.gather(*(pair.there.write(part) for part in parts))
            assert await read_all(pair.here, 8 * 300_000) == b"".join(parts)
            await writing

    run(scenario)


def test_finish_is_seen_as_the_end_and_may_be_repeated() -> None:
    async def scenario() -> None:
        async with streamed() as pair:
            await pair.there.write(b"last words")
            await pair.there.finish()
            await pair.there.finish()
            assert await read_all(pair.here, 10) == b"last words"
            assert await soon(pair.here.read()) == b""
            assert await soon(pair.here.read()) == b""
            await pair.here.write(b"still heard")
            assert await read_all(pair.there, 11) == b"still heard"
            with pytest.raises(UnavailableError):
                await pair.there.write(b"too late")

    run(scenario)


def test_nothing_is_read_after_a_cancelled_read() -> None:
    async def scenario() -> None:
        async with streamed() as pair:
            reading = asyncio.create_task(pair.here.read())
            await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            await pair.there.write(b"x")
            with pytest.raises(UnavailableError, match="broke off within a read"):
                await pair.here.read()

    run(scenario)


def test_stream_takes_nothing_after_a_cancelled_write() -> None:
    async def scenario() -> None:
        async with streamed() as pair:
            writing = asyncio.create_task(pair.there.write(bytes(8_000_000)))
            assert await soon(pair.here.read())
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
            with pytest.raises(UnavailableError, match="broke off within a write"):
                await pair.there.write(b"x")

    run(scenario)


@pytest.mark.parametrize("by_dialler", [True, False])
def test_close_ends_pending_reads_and_writes_on_both_sides(by_dialler: bool) -> None:
    async def scenario() -> None:
        async with streamed() as pair:
            full = [asyncio.create_task(stream.write(bytes(9_000_000))) for stream in (pair.there, pair.here)]
            await read_all(pair.there, 1)
            await read_all(pair.here, 1)
            closer: Connection = pair.out if by_dialler else pair.into
            closer.close(7, "because")
            closer.close(8, "a second reason does not count")
            assert await soon(closer.closed()) == "because"
            other: Connection = pair.into if by_dialler else pair.out
            assert await soon(other.closed()) == "closed by peer: because (code 7)"
            for writing in full:
                with pytest.raises(UnavailableError, match="because"):
                    await soon(writing)

    run(scenario)


@pytest.mark.parametrize("by_dialler", [True, False])
def test_close_ends_a_read_of_a_quiet_stream(by_dialler: bool) -> None:
    async def scenario() -> None:
        async with streamed() as pair:
            reads = [asyncio.create_task(stream.read()) for stream in (pair.there, pair.here)]
            await asyncio.sleep(0)
            (pair.out if by_dialler else pair.into).close(0, "")
            for reading in reads:
                with pytest.raises(UnavailableError, match="is closed"):
                    await soon(reading)

    run(scenario)


def test_misuse_of_a_stream_is_told() -> None:
    async def scenario() -> None:
        async with streamed() as pair:
            reading = asyncio.create_task(pair.here.read())
            await asyncio.sleep(0)  # lets it begin
            with pytest.raises(LocalError, match="another task"):
                await pair.here.read()
            with pytest.raises(LocalError, match="one stream"):
                await pair.out.stream(SOON_S)
            with pytest.raises(LocalError):
                pair.out.close(-1, "")
            await pair.there.write(b"x")
            assert await soon(reading) == b"x"

    run(scenario)


def test_silent_dialler_costs_the_acceptor_only_its_patience() -> None:
    async def scenario() -> None:
        async with linked() as pair:
            with pytest.raises(UnavailableError, match="opened no stream"):
                await pair.into.stream(0.05)

    run(scenario)


@pytest.mark.parametrize("way", ["uni", "bi"])
def test_second_stream_ends_the_connection(way: str) -> None:
    async def scenario() -> None:
        raw = await foreign()
        async with endpoint() as mine:
            connection = await raw.connect(target(mine), ALPN)
            first = await connection.open_bi()
            await first.send().write_all(b"x")
            into = await soon(mine.accept())
            await into.stream(SOON_S)
            stray = await connection.open_uni() if way == "uni" else (await connection.open_bi()).send()
            await stray.write_all(b"x")
            assert "only one stream" in await soon(connection.closed())
            assert "only one stream" in await soon(into.closed())
        del connection, first, stray
        await raw.close()

    run(scenario)
