"""The relay, over real sockets, with clients that keep its protocol and clients that do not."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from blake3 import blake3
from nacl.signing import SigningKey
from tests.unit.quic_pairs import run, soon, until
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from quicprochat.adapters.relay.frames import FRAME_MAX_BYTES, PROTOCOLS, Frame, authenticated, challenge
from quicprochat.adapters.relay.server import PER_KEY, WAITING_PER_HOST, Relay, RelayLimits, RelayStatus
from quicprochat.core.errors import UnavailableError

V2, V1 = PROTOCOLS
CONTEXT = "iroh-relay handshake v1 challenge signature"
ADA, BOB, EVE = (SigningKey(bytes([n]) * 32) for n in (1, 2, 3))


def nonces() -> Callable[[int], bytes]:
    """Challenges that differ, and can be foretold."""
    made = iter(range(1_000_000))
    return lambda count: hashlib.sha256(b"%d" % next(made)).digest()[:count]


def key(of: SigningKey) -> bytes:
    return bytes(of.verify_key)


def answer(nonce: bytes, who: SigningKey, *, claim: SigningKey | None = None) -> bytes:
    signature = who.sign(blake3(nonce, derive_key_context=CONTEXT).digest()).signature
    return bytes([Frame.AUTH]) + key(claim or who) + bytes([64]) + signature


def datagram(to: SigningKey, data: bytes) -> bytes:
    return bytes([Frame.SEND]) + key(to) + b"\0" + data


CLIENTS: list[ClientConnection] = []
"""Everyone a scenario has opened; closed with its relay."""


@asynccontextmanager
async def relaying(
    limits: RelayLimits | None = None, refusal: Callable[[bytes], str] = lambda _: ""
) -> AsyncIterator[tuple[Relay, int]]:
    async def refuse(who: bytes) -> str:
        return refusal(who)

    relay = Relay(nonces(), refuse, limits)
    _, port = await relay.listen("127.0.0.1", 0)
    try:
        yield relay, port
    finally:
        await relay.close()
        while CLIENTS:
            client = CLIENTS.pop()
            client.transport.resume_reading()
            client.transport.abort()
            await client.wait_closed()


async def opened(port: int, *protocols: str) -> ClientConnection:
    offered = [Subprotocol(name) for name in protocols or PROTOCOLS]
    url = f"ws://127.0.0.1:{port}/relay"
    CLIENTS.append(await connect(url, subprotocols=offered, compression=None, ping_interval=None))
    return CLIENTS[-1]


async def received(client: ClientConnection) -> bytes:
    frame = await soon(client.recv())
    assert isinstance(frame, bytes)
    return frame


async def joined(port: int, who: SigningKey, *protocols: str) -> ClientConnection:
    client = await opened(port, *protocols)
    nonce = (await received(client))[1:]
    await client.send(answer(nonce, who))
    assert await received(client) == bytes([Frame.CONFIRM])
    return client


async def ended(client: ClientConnection) -> None:
    with suppress(ConnectionClosed):
        while True:
            await received(client)  # fails if nothing comes, the end included


async def asked(port: int, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Ask by HTTP, and read to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    writer.write(f"GET {path} HTTP/1.1\r\nHost: relay\r\n{lines}\r\n".encode())
    head, _, body = (await soon(reader.read())).partition(b"\r\n\r\n")
    writer.close()
    status, *rest = head.decode().split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in rest), body


# --- what it is for


@pytest.mark.parametrize("protocols", [(V2,), (V1,), (V1, V2)])
def test_datagrams_go_to_their_key_with_the_senders(protocols: tuple[str, ...]) -> None:
    async def scenario() -> None:
        async with relaying() as (relay, port):
            ada, bob = await joined(port, ADA, *protocols), await joined(port, BOB, *protocols)
            assert ada.subprotocol == protocols[-1] if len(protocols) == 1 else V2
            await ada.send(datagram(BOB, b"hello"))
            assert await received(bob) == bytes([Frame.DELIVER]) + key(ADA) + b"\0hello"
            many = bytes([Frame.SEND_MANY]) + key(ADA) + b"\0" + (3).to_bytes(2, "big") + b"abcdef"
            await bob.send(many)
            assert await received(ada) == bytes([Frame.DELIVER_MANY]) + key(BOB) + many[33:]
            assert relay.status() == RelayStatus(2, 0, 2, len(datagram(BOB, b"hello")) + len(many), 0, 0, 0)

    run(scenario)


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
def test_a_small_frame_does_not_wait_for_the_acknowledgement_of_the_one_before(ip: str) -> None:
    """With Nagle's algorithm a lone message over a relay took 20 ms longer: so long a client's TCP puts that off."""

    async def scenario() -> None:
        relay = Relay(nonces(), lambda _: asyncio.sleep(0, ""))
        _, port = await relay.listen(ip, 0)
        _, writer = await asyncio.open_connection(ip, port)
        while not relay._sessions:  # noqa: ASYNC110 - nothing tells of a connection that has said nothing
            await asyncio.sleep(0.01)
        (session,) = relay._sessions
        ours = session._transport.get_extra_info("socket")
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        writer.close()
        await relay.close()

    asyncio.run(scenario())


def test_a_datagram_for_nobody_is_dropped_and_counted() -> None:
    async def scenario() -> None:
        async with relaying() as (relay, port):
            ada = await joined(port, ADA)
            await ada.send(datagram(EVE, b"?"))
            await until(lambda: relay.status().unknown == 1)
            assert relay.status().frames == 0

    run(scenario)


def test_a_ping_is_answered_with_its_token() -> None:
    async def scenario() -> None:
        async with relaying() as (_, port):
            ada = await joined(port, ADA)
            await ada.send(bytes([Frame.PING]) + b"12345678")
            assert await received(ada) == bytes([Frame.PONG]) + b"12345678"

    run(scenario)


def test_whoever_is_silent_is_asked_and_then_let_go() -> None:
    async def scenario() -> None:
        async with relaying(RelayLimits(ping_s=0.2, silence_s=2.5)) as (relay, port):
            ada, bob = await joined(port, ADA), await joined(port, BOB)
            ping = await received(ada)
            assert ping[0] == Frame.PING
            await until(lambda: relay.status().clients == 0)
            await ended(ada)
            await ended(bob)

    run(scenario)


def test_an_answer_to_the_ping_keeps_the_connection() -> None:
    async def scenario() -> None:
        async with relaying(RelayLimits(ping_s=0.2, silence_s=2.5)) as (relay, port):
            ada, bob = await joined(port, ADA), await joined(port, BOB)

            async def answers() -> None:
                while True:
                    ping = await received(ada)
                    await ada.send(bytes([Frame.PONG]) + ping[1:])

            answering = asyncio.create_task(answers())
            await ended(bob)
            assert relay.status().clients == 1
            answering.cancel()

    run(scenario)


def test_those_it_wrote_to_hear_that_a_key_has_left() -> None:
    async def scenario() -> None:
        async with relaying() as (_, port):
            ada, bob, eve = [await joined(port, who) for who in (ADA, BOB, EVE)]
            await ada.send(datagram(BOB, b"x"))
            await received(bob)
            await ada.close()
            assert await received(bob) == bytes([Frame.GONE]) + key(ADA)
            await bob.send(datagram(EVE, b"nothing came before this"))
            assert (await received(eve))[0] == Frame.DELIVER

    run(scenario)


@pytest.mark.parametrize(("protocol", "word"), [(V2, Frame.STATUS), (V1, Frame.HEALTH)])
def test_the_newest_connection_of_a_key_wins(protocol: str, word: Frame) -> None:
    async def scenario() -> None:
        async with relaying() as (_, port):
            bob = await joined(port, BOB)
            old, new = await joined(port, ADA, protocol), await joined(port, ADA, protocol)
            assert (await received(old))[0] == word
            await bob.send(datagram(ADA, b"to the newer"))
            assert (await received(new))[-5:] == b"newer"
            await new.close()
            await until_sent(bob, old, datagram(ADA, b"to who is left"))

    run(scenario)


async def until_sent(sender: ClientConnection, to: ClientConnection, frame: bytes) -> None:
    """Send until it arrives: the relay may not have seen yet that another connection ended."""
    arrived = asyncio.create_task(received(to))
    while not arrived.done():
        await sender.send(frame)
        await asyncio.wait([arrived], timeout=0.05)
    assert arrived.result()[0] == Frame.DELIVER


def test_one_key_has_only_so_many_connections() -> None:
    async def scenario() -> None:
        async with relaying() as (relay, port):
            clients = [await joined(port, ADA) for _ in range(PER_KEY + 1)]
            await ended(clients[0])
            assert relay.status().clients == 1

    run(scenario)


def test_clients_are_told_that_the_relay_stops() -> None:
    async def scenario() -> None:
        async with relaying() as (relay, port):
            ada = await joined(port, ADA)
            stopping = asyncio.create_task(relay.close())
            notice = await received(ada)
            assert notice[0] == Frame.RESTARTING
            assert len(notice) == 9
            await ended(ada)
            await soon(stopping)

    run(scenario)


def test_http_questions_are_answered() -> None:
    async def scenario() -> None:
        async with relaying() as (_, port):
            status, headers, body = await asked(port, "/ping")
            assert (status, body, headers["Access-Control-Allow-Origin"]) == (200, b"pong\n", "*")
            status, headers, _ = await asked(port, "/generate_204", X_Iroh_Challenge="abc-1")
            assert (status, headers["X-Iroh-Response"]) == (204, "response abc-1")
            assert "X-Iroh-Response" not in (await asked(port, "/generate_204", X_Iroh_Challenge="x" * 65))[1]
            assert (await asked(port, "/"))[0] == 200
            assert (await asked(port, "/secret"))[0] == 404
            assert (await asked(port, "/relay"))[0] == 426

    run(scenario)


def test_a_port_that_is_taken_is_an_error_that_says_so() -> None:
    async def scenario() -> None:
        async with relaying() as (relay, port):
            with pytest.raises(UnavailableError, match="another program has it"):
                await relay.listen("127.0.0.1", port)

    run(scenario)


# --- who does not keep to it


def test_only_the_key_itself_can_answer_its_challenge() -> None:
    async def scenario() -> None:
        async with relaying() as (relay, port):
            old = challenge(b"")  # what was answered once is no answer to another challenge
            first = await opened(port)
            old = answer((await received(first))[1:], ADA)
            for make in (
                lambda nonce: answer(nonce, EVE, claim=ADA),
                lambda nonce: old,
                lambda nonce: answer(nonce, ADA)[:-1],
                lambda nonce: answer(nonce, ADA) + b"\0",
                lambda nonce: datagram(BOB, b"who needs keys"),
                lambda nonce: bytes([Frame.AUTH]),
            ):
                client = await opened(port)
                await client.send(make((await received(client))[1:]))
                denied = await received(client)
                assert denied[0] == Frame.DENY
                assert denied[1] == len(denied) - 2
                await ended(client)
            assert relay.status().refused == 6
            assert relay.status().clients == 0

    run(scenario)


def test_a_key_of_small_order_signs_nothing() -> None:
    nonce, anything = bytes(16), bytes([1]) + bytes(31)
    assert authenticated(bytes([Frame.AUTH]) + anything + bytes([64]) + anything + bytes(32), nonce) is None


def test_who_is_not_admitted_hears_why() -> None:
    async def scenario() -> None:
        async with relaying(refusal=lambda who: "" if who == key(ADA) else "not on the list") as (relay, port):
            await joined(port, ADA)
            client = await opened(port)
            await client.send(answer((await received(client))[1:], EVE))
            assert await received(client) == bytes([Frame.DENY, 15]) + b"not on the list"
            assert relay.status().clients == 1

    run(scenario)


def test_who_is_no_longer_admitted_is_sent_away() -> None:
    async def scenario() -> None:
        banned: set[bytes] = set()
        async with relaying(refusal=lambda who: "blocked" if who in banned else "") as (relay, port):
            ada = await joined(port, ADA)
            await joined(port, BOB)
            banned.add(key(ADA))
            await relay.review()
            await ended(ada)
            assert relay.status().clients == 1

    run(scenario)


def test_a_full_relay_says_so_and_still_takes_who_is_there() -> None:
    async def scenario() -> None:
        async with relaying(RelayLimits(clients=1)) as (_, port):
            await joined(port, ADA)
            client = await opened(port)
            await client.send(answer((await received(client))[1:], BOB))
            assert b"full" in await received(client)
            await joined(port, ADA)

    run(scenario)


def test_an_unknown_version_is_refused() -> None:
    async def scenario() -> None:
        async with relaying() as (_, port):
            with pytest.raises(InvalidStatus):
                await opened(port, "iroh-relay-v9")

    run(scenario)


@pytest.mark.parametrize(
    "frame", [datagram(BOB, bytes(FRAME_MAX_BYTES)), "text", b""], ids=["too long", "text", "empty"]
)
def test_what_is_no_frame_ends_the_connection(frame: bytes | str) -> None:
    async def scenario() -> None:
        async with relaying() as (_, port):
            ada, bob = await joined(port, ADA), await joined(port, BOB)
            await ada.send(frame)
            await ended(ada)
            await bob.send(bytes([Frame.PING]) + bytes(8))
            assert (await received(bob))[0] == Frame.PONG

    run(scenario)


def test_unknown_frames_are_passed_over() -> None:
    async def scenario() -> None:
        async with relaying() as (_, port):
            ada = await joined(port, ADA)
            for kind in (*range(4), *range(6, 9), 11, 12, 13, 14, 200, 255):
                await ada.send(bytes([kind]) + bytes(40))
            await ada.send(bytes([Frame.SEND]) + key(BOB)[:31])
            await ada.send(bytes([Frame.PING]) + bytes(8))
            assert await received(ada) == bytes([Frame.PONG]) + bytes(8)

    run(scenario)


def test_who_never_reads_costs_a_bounded_queue_and_nobody_else() -> None:
    async def scenario() -> None:
        async with relaying(RelayLimits(queue_bytes=256 << 10)) as (relay, port):
            ada, bob = await joined(port, ADA), await joined(port, BOB)
            deaf = await joined(port, EVE)
            deaf.transport.pause_reading()
            while not relay.status().dropped:
                await ada.send(datagram(EVE, bytes(60_000)))
            (session,) = relay._clients[key(EVE)]
            assert session._transport.get_write_buffer_size() <= (256 << 10) + 100
            await ada.send(datagram(BOB, b"still here"))
            assert (await received(bob)).endswith(b"still here")

    run(scenario)


def test_a_flood_is_read_at_its_senders_rate_and_others_do_not_wait() -> None:
    async def scenario() -> None:
        async with relaying(RelayLimits(bytes_per_s=200_000)) as (relay, port):
            eve, ada, bob = [await joined(port, who) for who in (EVE, ADA, BOB)]

            async def flood() -> None:
                while True:
                    await eve.send(datagram(ADA, bytes(10_000)))

            flooding = asyncio.create_task(flood())
            (session,) = relay._clients[key(EVE)]
            await until(lambda: not session._transport.is_reading())
            passed = relay.status().bytes
            await ada.send(datagram(BOB, b"not slowed"))
            assert (await received(bob)).endswith(b"not slowed")
            assert relay.status().bytes - passed < 300_000
            flooding.cancel()

    run(scenario)


def test_a_thousand_half_open_connections_keep_nobody_out() -> None:
    async def scenario() -> None:
        async with relaying() as (relay, port):
            idle = []
            for _ in range(1_000):
                one = socket.socket()
                one.setblocking(False)
                await asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", port))
                idle.append(one)
            await until(lambda: relay.status().connecting <= WAITING_PER_HOST)
            ada, bob = await joined(port, ADA), await joined(port, BOB)
            await ada.send(datagram(BOB, b"through"))
            assert (await received(bob)).endswith(b"through")
            for one in idle:
                one.close()

    run(scenario)


def test_a_handshake_that_takes_too_long_ends() -> None:
    async def scenario() -> None:
        async with relaying(RelayLimits(handshake_s=0.5)) as (relay, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /relay HTTP/1.1\r\n")
            silent = await opened(port)
            await ended(silent)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await soon(reader.readexactly(1))
            writer.close()
            assert relay.status().connecting == 0

    run(scenario)


@pytest.mark.parametrize("data", [b"\r\n" * 100, b"GET / HTTP/9\r\n\r\n", bytes(4_096), b"GET " + b"a" * 100_000])
def test_what_is_no_http_ends_the_connection(data: bytes) -> None:
    async def scenario() -> None:
        async with relaying() as (relay, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(data)
            writer.write_eof()
            with pytest.raises(asyncio.IncompleteReadError):
                await soon(reader.readexactly(1_000_000))
            writer.close()
            await until(lambda: relay.status().connecting == 0)

    run(scenario)
