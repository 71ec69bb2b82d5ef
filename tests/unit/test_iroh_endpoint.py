"""The iroh adapter's endpoint over real sockets: binding, dialling, accepting."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from types import SimpleNamespace

import pytest
from nacl.signing import SigningKey

iroh = pytest.importorskip("iroh", reason="needs the extra [mesh]")

from tests.unit.iroh_pairs import (  # noqa: E402
    LOOPBACK,
    SOON_S,
    endpoint,
    foreign,
    linked,
    read_all,
    run,
    slow_dial,
    soon,
    streamed,
    target,
)
from tests.unit.iroh_pairs import quick_close as quick_close  # noqa: E402  (pytest takes it from here)

from quicprochat.adapters.iroh import Endpoint  # noqa: E402
from quicprochat.adapters.iroh import endpoint as adapter  # noqa: E402
from quicprochat.adapters.iroh.addresses import parse  # noqa: E402
from quicprochat.core.errors import LocalError, UnavailableError  # noqa: E402

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
            monkeypatch.setattr(adapter, "unique_local", lambda: ["fd00::2"])
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
            where = [parse(text) for text in raw.addr().direct_addresses()]
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
