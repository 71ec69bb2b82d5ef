"""The iroh adapter over real endpoints on the loopback interface: two keys, one machine, no relay."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from nacl.signing import SigningKey

iroh = pytest.importorskip("iroh", reason="needs the extra [mesh]")

from quicprochat.adapters.iroh import ALPN, FAST_COPY, Connection, Endpoint, Stream, fastcopy  # noqa: E402
from quicprochat.adapters.iroh import endpoint as adapter  # noqa: E402
from quicprochat.core.errors import LocalError, QuicprochatError, UnavailableError  # noqa: E402

LOOPBACK = ("127.0.0.1", 0)
SOON_S = 5.0
"""Far more than anything here takes on a loaded machine; what hangs fails by this."""


@pytest.fixture(autouse=True)
def _no_waiting_for_dead_dials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "CLOSE_S", 0.2)


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scenario()

    asyncio.run(bounded())


async def soon(awaitable: Awaitable[Any]) -> Any:
    async with asyncio.timeout(SOON_S):
        return await awaitable


@asynccontextmanager
async def endpoint(bind: tuple[str, int] = LOOPBACK, secret: bytes | None = None) -> AsyncIterator[Endpoint]:
    mine = await Endpoint.bind(secret or os.urandom(32), bind=bind, relay_url=None)
    try:
        yield mine
    finally:
        await mine.close()


@asynccontextmanager
async def linked() -> AsyncIterator[SimpleNamespace]:
    """Two endpoints and a connection between them; ``a`` dialled ``b``."""
    async with endpoint() as a, endpoint() as b:
        out = await a.connect(b.key, b.addresses(), None, SOON_S)
        into = await soon(b.accept())
        yield SimpleNamespace(a=a, b=b, out=out, into=into)


@asynccontextmanager
async def streamed() -> AsyncIterator[SimpleNamespace]:
    """The same with the stream of each side; the dialler's greeting is read already."""
    async with linked() as pair:
        there: Stream = await pair.out.stream(SOON_S)
        await there.write(b"hello")
        here: Stream = await pair.into.stream(SOON_S)
        assert await here.read() == b"hello"
        pair.there, pair.here = there, here
        yield pair


async def read_all(stream: Stream, count: int) -> bytes:
    got = b""
    while len(got) < count:
        part = await soon(stream.read())
        assert part
        got += part
    return got


async def foreign(alpn: bytes = ALPN) -> Any:
    """An endpoint of iroh's own, for peers that do what our adapter never does."""
    builder = iroh.EndpointBuilder()
    builder.apply_minimal()
    builder.alpns([alpn])
    builder.relay_mode(iroh.RelayMode.custom(iroh.RelayMap.empty()))
    builder.bind_addr("127.0.0.1:0")
    builder.bind_addr("[::1]:0")
    return await builder.bind()


def target(mine: Endpoint) -> Any:
    hints = [f"{ip}:{port}" for ip, port in mine.addresses()]
    return iroh.EndpointAddr(iroh.EndpointId.from_bytes(mine.key), None, hints)


class Swallower(asyncio.DatagramProtocol):
    """Stands between a dialler and an endpoint, and drops every answer: a handshake that never ends."""

    def __init__(self, to: tuple[str, int]) -> None:
        self.to = to
        self.answered = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        if address == self.to:
            self.answered.set()
        else:
            self.transport.sendto(data, self.to)


@asynccontextmanager
async def slow_dial(dialler: Endpoint, to: Endpoint) -> AsyncIterator[None]:
    """A dial whose handshake the endpoint has begun and will not finish."""
    loop = asyncio.get_running_loop()
    transport, middle = await loop.create_datagram_endpoint(
        lambda: Swallower(to.addresses()[0]), local_addr=("127.0.0.1", 0)
    )
    where = transport.get_extra_info("sockname")
    dial = asyncio.create_task(dialler.connect(to.key, [where], None, 25))
    try:
        await soon(middle.answered.wait())
        yield
    finally:
        dial.cancel()
        await asyncio.gather(dial, return_exceptions=True)
        transport.close()


# ------------------------------------------------------------------------------------------- endpoint


def test_node_key_is_the_ed25519_key_of_the_secret() -> None:
    async def scenario() -> None:
        secret = bytes(range(32))
        async with endpoint(secret=secret) as mine:
            assert mine.key == bytes(SigningKey(secret).verify_key)
            assert mine.relay() is None

    run(scenario)


def test_loopback_endpoint_lists_only_the_address_it_was_given() -> None:
    async def scenario() -> None:
        async with endpoint() as mine:
            [(ip, port)] = mine.addresses()
            assert ip == "127.0.0.1"
            assert port > 0

    run(scenario)


def test_listed_addresses_are_dialable_and_unique(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = ["192.0.2.7:5", "127.0.0.1:5", "0.0.0.0:5", "169.254.1.1:5", "[fe80::1]:5", "[2001:db8::1]:6"]

    async def scenario() -> None:
        async with endpoint() as mine:
            fake = SimpleNamespace(direct_addresses=lambda: listed + listed)
            raw = SimpleNamespace(addr=lambda: fake, bound_sockets=lambda: ["0.0.0.0:5", "[::]:6"])
            monkeypatch.setattr(adapter, "_unique_local", lambda: ["fd00::2"])
            with monkeypatch.context() as patch:
                patch.setattr(mine, "_raw", raw)
                patch.setattr(mine, "_only", None)
                assert mine.addresses() == [("192.0.2.7", 5), ("2001:db8::1", 6), ("fd00::2", 6)]

    run(scenario)


def test_taken_port_is_said_in_one_sentence() -> None:
    async def scenario() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(LOOPBACK)
            with pytest.raises(UnavailableError, match=r"^port in use: another program has UDP 127\.") as caught:
                await Endpoint.bind(os.urandom(32), bind=other.getsockname(), relay_url=None)
        assert "\n" not in str(caught.value)

    run(scenario)


def test_address_of_another_machine_is_refused_with_the_reason() -> None:
    async def scenario() -> None:
        with pytest.raises(UnavailableError, match="this machine has no such address"):
            await Endpoint.bind(os.urandom(32), bind=("203.0.113.7", 0), relay_url=None)

    run(scenario)


@pytest.mark.parametrize(
    ("secret", "bind", "relay_url"),
    [
        (bytes(31), LOOPBACK, None),
        (bytes(32), ("localhost", 0), None),
        (bytes(32), ("127.0.0.1", 65536), None),
        (bytes(32), LOOPBACK, "relay.example"),
        (bytes(32), LOOPBACK, "http://[::1"),
    ],
)
def test_senseless_options_are_our_callers_fault(secret: bytes, bind: tuple[str, int], relay_url: str | None) -> None:
    async def scenario() -> None:
        with pytest.raises(LocalError):
            await Endpoint.bind(secret, bind=bind, relay_url=relay_url)

    run(scenario)


def test_unreachable_relay_does_not_keep_an_endpoint_from_starting() -> None:
    async def scenario() -> None:
        mine = await Endpoint.bind(os.urandom(32), bind=LOOPBACK, relay_url="http://127.0.0.1:9")
        await mine.close()

    run(scenario)


def test_port_is_free_once_closed_whatever_the_caller_still_holds() -> None:
    async def scenario() -> None:
        async with streamed() as pair:
            where = pair.b.addresses()[0]
            reading = asyncio.create_task(pair.here.read())
            writing = asyncio.create_task(pair.here.write(bytes(8_000_000)))
            await read_all(pair.there, 1)  # so the write is under way
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
            await pair.b.close()
            with pytest.raises(UnavailableError) as caught:
                await soon(reading)
            assert caught.value.__cause__ is not None
            async with endpoint(bind=where) as again:
                assert again.addresses() == [where]
            assert pair.into.rtt_ms() is None
            assert pair.into.packets_in() == 0
            assert pair.into.remote_address() is None
            assert pair.b.addresses() == []

    run(scenario)


def test_close_is_idempotent_and_ends_everything_that_waits() -> None:
    async def scenario() -> None:
        async with streamed() as pair:
            waiting = [
                asyncio.create_task(pair.b.accept()),
                asyncio.create_task(pair.b.accept()),
                asyncio.create_task(pair.into.closed()),
            ]
            reading = asyncio.create_task(pair.here.read())
            given_up = asyncio.create_task(pair.there.read())
            await asyncio.sleep(0)  # lets it begin
            given_up.cancel()
            await soon(asyncio.gather(pair.b.close(), pair.b.close()))
            await pair.b.close()
            assert await soon(asyncio.gather(*waiting)) == [None, None, "goodbye"]
            assert await pair.b.accept() is None
            assert "goodbye" in await soon(pair.out.closed())
            with pytest.raises(UnavailableError, match="goodbye"):
                await soon(reading)
            with pytest.raises(UnavailableError, match="endpoint is closed") as caught:
                await pair.b.connect(pair.a.key, pair.a.addresses(), None, SOON_S)
            assert not caught.value.retryable
            for use in (pair.here.read, pair.here.finish, lambda: pair.here.write(b"x")):
                with pytest.raises(UnavailableError):
                    await soon(use())
            await pair.a.close()
            with pytest.raises(UnavailableError):
                await soon(pair.there.read())
            assert asyncio.all_tasks() == {asyncio.current_task()}

    run(scenario)


def test_address_changes_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "ADDRESS_POLL_S", 0.001)

    async def scenario() -> None:
        heard: asyncio.Queue[list[tuple[str, int]]] = asyncio.Queue()
        async with endpoint() as mine:
            now = [("192.0.2.1", 7)]
            monkeypatch.setattr(mine, "addresses", lambda: list(now))
            mine.on_address_change(heard.put_nowait)
            mine.on_address_change(heard.put_nowait)
            await asyncio.sleep(0)  # the first look is the one compared with
            now.append(("192.0.2.2", 7))
            assert await soon(heard.get()) == now
            assert await soon(heard.get()) == now

    run(scenario)


# ----------------------------------------------------------------------------------- dialling, accepting


def test_both_sides_know_whom_they_have() -> None:
    async def scenario() -> None:
        async with linked() as pair:
            assert (pair.out.peer, pair.out.dialled) == (pair.b.key, True)
            assert (pair.into.peer, pair.into.dialled) == (pair.a.key, False)
            for side in (pair.out, pair.into):  # iroh may have moved to a path over the other loopback
                assert ipaddress.ip_address(side.remote_address()[0]).is_loopback
                assert not side.relayed()
            assert 0 <= pair.out.rtt_ms() < 1_000

    run(scenario)


def test_ipv6_loopback_works() -> None:
    async def scenario() -> None:
        async with endpoint(("::1", 0)) as a, endpoint(("::1", 0)) as b:
            [(ip, _)] = b.addresses()
            assert ip == "::1"
            out = await a.connect(b.key, b.addresses(), None, SOON_S)
            assert out.peer == b.key

    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6 loopback")
    run(scenario)


def test_another_key_at_the_address_is_not_taken_for_the_peer() -> None:
    async def scenario() -> None:
        async with endpoint() as a, endpoint() as b:
            other = bytes(SigningKey(bytes(32)).verify_key)
            with pytest.raises(UnavailableError, match="another key answers there"):
                await a.connect(other, b.addresses(), None, SOON_S)

    run(scenario)


def test_peer_of_another_protocol_is_told_apart() -> None:
    async def scenario() -> None:
        raw = await foreign(b"something/else")

        async def answer() -> None:
            incoming = await raw.accept_next()
            with pytest.raises(iroh.IrohError):
                await (await incoming.accept()).connect()

        async with endpoint() as a:
            answering = asyncio.create_task(answer())
            where = [adapter._parse(text) for text in raw.addr().direct_addresses()]
            with pytest.raises(UnavailableError, match="does not speak quicprochat"):
                await a.connect(raw.id().to_bytes(), where, None, SOON_S)
            await answering
        await raw.close()

    run(scenario)


def test_silence_ends_a_dial_in_time() -> None:
    async def scenario() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
            mute.bind(LOOPBACK)
            async with endpoint() as a:
                with pytest.raises(UnavailableError, match=r"did not answer within 0\.05 s") as caught:
                    await a.connect(bytes(SigningKey(bytes(32)).verify_key), [mute.getsockname()], None, 0.05)
                assert caught.value.retryable

    run(scenario)


def test_dials_that_make_no_sense_are_refused_at_once() -> None:
    async def scenario() -> None:
        async with endpoint() as a, endpoint() as b:
            with pytest.raises(LocalError, match="own key"):
                await a.connect(a.key, b.addresses(), None, SOON_S)
            with pytest.raises(LocalError, match="not an IP address"):
                await a.connect(b.key, [("localhost", 7)], None, SOON_S)
            with pytest.raises(LocalError, match="no peer's key"):
                await a.connect(b"short", b.addresses(), None, SOON_S)
            with pytest.raises(LocalError, match="relay URL"):
                await a.connect(b.key, [], "ftp://relay", SOON_S)
            for nowhere in ([], [("fe80::1", 7)], [("0.0.0.0", 7)], [("127.0.0.1", 0)]):
                with pytest.raises(UnavailableError, match="no address is known"):
                    await a.connect(b.key, nowhere, None, SOON_S)

    run(scenario)


def test_failed_handshakes_leave_the_next_one_alone() -> None:
    async def scenario() -> None:
        raw = await foreign()
        async with endpoint() as a, endpoint() as b:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as noise:
                for junk in (b"", b"\0" * 1200, b"\xc0\0\0\0\1" + bytes(1195), os.urandom(1200)):
                    noise.sendto(junk, b.addresses()[0])
            with pytest.raises(iroh.IrohError):
                await raw.connect(target(b), b"something/else")
            out = await a.connect(b.key, b.addresses(), None, SOON_S)
            into = await soon(b.accept())
            assert (into.peer, out.peer) == (a.key, b.key)
            assert b.failed_handshakes == 1
        await raw.close()

    run(scenario)


def test_slow_handshake_delays_nobody() -> None:
    async def scenario() -> None:
        async with endpoint() as slow, endpoint() as a, endpoint() as b, slow_dial(slow, b):
            [stuck] = b._handshakes
            await a.connect(b.key, b.addresses(), None, SOON_S)
            assert (await soon(b.accept())).peer == a.key
            assert not stuck.done()

    run(scenario)


def test_handshake_takes_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "HANDSHAKE_S", 0.05)

    async def scenario() -> None:
        async with endpoint() as slow, endpoint() as b, slow_dial(slow, b):
            if b._handshakes:
                await soon(asyncio.wait(list(b._handshakes)))
            assert b.failed_handshakes == 1

    run(scenario)


def test_handshakes_beyond_the_bound_end_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "HANDSHAKES", 2)

    async def scenario() -> None:
        async with endpoint() as slow, endpoint() as a, endpoint() as b, slow_dial(slow, b):
            [oldest] = b._handshakes
            async with slow_dial(a, b):  # past half of the bound: only told to confirm its address
                await a.connect(b.key, b.addresses(), None, SOON_S)
                assert (await soon(b.accept())).peer == a.key
                assert not oldest.done()
            monkeypatch.setattr(adapter, "HANDSHAKES", 1)
            await a.connect(b.key, b.addresses(), None, SOON_S)
            assert (await soon(b.accept())).peer == a.key
            await soon(asyncio.wait([oldest]))
            assert oldest.cancelled()

    run(scenario)


def test_connections_nobody_takes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "BACKLOG", 1)

    async def scenario() -> None:
        async with endpoint() as a, endpoint() as c, endpoint() as b:
            first = await a.connect(b.key, b.addresses(), None, SOON_S)
            refused = await c.connect(b.key, b.addresses(), None, SOON_S)
            outs = {asyncio.create_task(first.closed()), asyncio.create_task(refused.closed())}
            done, left = await asyncio.wait(outs, timeout=SOON_S, return_when=asyncio.FIRST_COMPLETED)
            assert "too many new connections" in done.pop().result()
            assert len(left) == 1
            assert (await soon(b.accept())).peer in (a.key, c.key)
            left.pop().cancel()

    run(scenario)


# ---------------------------------------------------------------------------------------------- streams


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
            assert adapter._FIRST_READ_BYTES < largest <= adapter.READ_BYTES

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


# ----------------------------------------------------------------------------------------------- errors


def test_every_kind_of_iroh_error_has_a_fault() -> None:
    assert set(adapter.FAULTS) == set(iroh.IrohErrorKind)


@pytest.mark.parametrize("fault", list(adapter.Fault))
def test_every_fault_has_an_error(fault: adapter.Fault) -> None:
    error = adapter.blame(fault, "a sentence", bytes(32))
    assert isinstance(error, QuicprochatError)
    assert str(error) == "a sentence"


def test_translated_error_says_what_iroh_only_says_on_request() -> None:
    with pytest.raises(iroh.IrohError) as caught:
        iroh.EndpointId.from_bytes(b"short")
    assert str(caught.value) == ""  # the reason for translating at all
    error = adapter.translate(caught.value, "no key")
    assert isinstance(error, LocalError)
    assert str(error).startswith("no key: ")
    assert len(str(error)) > len("no key: ")


# --------------------------------------------------------------------------------------------- fastcopy


def test_copying_of_the_pinned_binding_is_repaired() -> None:
    assert FAST_COPY
    assert iroh.iroh_ffi._UniffiRustBufferBuilder.write is fastcopy._write


def known_module() -> SimpleNamespace:
    """The generated module as this repair knows it, in classes of our own."""
    real = iroh.iroh_ffi._UniffiRustBufferBuilder

    class Builder:
        def write(self, value: bytes) -> None: ...

        __init__ = real.__init__
        _reserve = real._reserve
        finalize = real.finalize
        discard = real.discard

    return SimpleNamespace(_UniffiRustBufferBuilder=Builder, _UniffiRustBuffer=iroh.iroh_ffi._UniffiRustBuffer)


def test_module_of_the_known_shape_is_repaired() -> None:
    module = known_module()
    assert fastcopy.install(module)
    assert module._UniffiRustBufferBuilder.write is fastcopy._write


def without_the_name(module: SimpleNamespace) -> None:
    del module._UniffiRustBufferBuilder


def without_the_buffer(module: SimpleNamespace) -> None:
    del module._UniffiRustBuffer


def with_another_signature(module: SimpleNamespace) -> None:
    module._UniffiRustBufferBuilder.write = lambda self, value, offset: None


def with_other_fields(module: SimpleNamespace) -> None:
    module._UniffiRustBuffer = type("_UniffiRustBuffer", (), {"_fields_": fastcopy._FIELDS[:2]})


def with_a_method_less(module: SimpleNamespace) -> None:
    del module._UniffiRustBufferBuilder.discard


def with_other_results(module: SimpleNamespace) -> None:
    module._UniffiRustBufferBuilder.finalize = lambda self: SimpleNamespace(data=b"", len=0, free=lambda: None)


def with_another_failure(module: SimpleNamespace) -> None:
    module._UniffiRustBufferBuilder.__init__ = lambda self: None


@pytest.mark.parametrize(
    "change",
    [
        without_the_name,
        without_the_buffer,
        with_another_signature,
        with_other_fields,
        with_a_method_less,
        with_other_results,
        with_another_failure,
    ],
)
def test_changed_binding_keeps_its_own_copying(change: Callable[[SimpleNamespace], None]) -> None:
    module = known_module()
    builder = module._UniffiRustBufferBuilder
    change(module)
    stock = builder.write
    assert not fastcopy.install(module)
    assert builder.write is stock


# ------------------------------------------------------------------------------------------ process end


@pytest.mark.parametrize("ending", ["await b.close(); await a.close()", "pass", "raise SystemExit(0)"])
def test_process_ends_in_peace(ending: str) -> None:
    program = f"""
        import asyncio, os
        from quicprochat.adapters.iroh import Endpoint
        from quicprochat.core.errors import UnavailableError
        kept = []
        async def waits(work):
            try:
                await work
            except UnavailableError:
                pass
        async def main():
            a = await Endpoint.bind(os.urandom(32), bind=("127.0.0.1", 0), relay_url=None)
            b = await Endpoint.bind(os.urandom(32), bind=("127.0.0.1", 0), relay_url=None)
            a.on_address_change(print)
            out = await a.connect(b.key, b.addresses(), None, 5)
            into = await b.accept()
            there = await out.stream(5)
            await there.write(b"x")
            here = await into.stream(5)
            await here.read()
            kept.extend([a, b, out, into, here, there, asyncio.create_task(waits(here.read()))])
            kept.append(asyncio.create_task(waits(b.accept())))
            await asyncio.sleep(0)
            {ending}
        asyncio.run(main())
        """
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
