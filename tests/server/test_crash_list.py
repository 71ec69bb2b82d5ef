"""Every known way to crash or fill a process that serves pycapnp over QUIC, tried on one that must go on serving.

The server runs in a process of its own; each test ends with an honest client, and with a server that stops in order
and has said nothing on its error output.
"""

from __future__ import annotations

import asyncio
import os
import random
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from fuzz.words import ENTRANCE, bootstrap, call, enter, finish, protocol, session_call, subscribe
from tests.server.attacked import (
    Attacked,
    Raw,
    attacked,
    calling,
    connected,
    raw,
    run,
    serves,
    soon,
    until,
    vanish,
)
from tests.unit.quic_pairs import Forger

from quicprochat.adapters import quic, rpc
from quicprochat.core.gate import Reason, Verdict

GROWTH_KB = 24_000
"""More than any attack here may cost, and far less than it would without its guard."""
HELLO = bootstrap(0) + enter(1)
ENDINGS: dict[str, Callable[[Raw], None]] = {
    "fin": lambda one: one.transport.write_eof(),
    "close": lambda one: one.transport.close(),
    "reset": lambda one: one.transport.abort(),
    "goodbye": lambda one: one.connection.end(0, "bye"),
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@asynccontextmanager
async def unharmed(server: Attacked, *, growth_kb: int = GROWTH_KB) -> AsyncIterator[None]:
    """Whatever happens within costs little, leaves nothing behind, and honest clients are served."""
    await serves(server)
    await until(lambda: server.look()["clients"] == 0)
    before = server.look(collect=True)
    yield
    await serves(server)
    await until(lambda: server.look()["clients"] == 0)
    after = server.look(collect=True)
    assert after["memory_kb"] - before["memory_kb"] < growth_kb
    assert after["tasks"] <= before["tasks"]


async def answered(one: Raw, question: int) -> None:
    """Wait until a question has its answer, or the connection its end."""

    def done() -> bool:
        return one.transport.is_closing() or any(
            message.which() == "return" and getattr(message, "return").answerId == question
            for message in one.messages()
        )

    await until(done)


@pytest.mark.parametrize("ending", ENDINGS)
def test_end_at_every_point_of_a_conversation(home: Path, ending: str) -> None:
    conversation = HELLO + session_call(2, "fetch", limit=1) + session_call(3, "enqueue", envelope=b"x")

    async def scenario() -> None:
        with attacked(home) as server:
            async with unharmed(server):
                for cut in [0, 1, 7, 8, 9, *range(15, len(conversation), 23), len(conversation)]:
                    async with raw(server) as one:
                        await one.write(conversation[:cut])
                        ENDINGS[ending](one)
                        await asyncio.sleep(0)

    run(scenario)


@pytest.mark.parametrize("ending", ENDINGS)
def test_end_with_calls_under_way_and_answers_unread(home: Path, ending: str) -> None:
    calls = b"".join(session_call(n, "fetch", limit=1) for n in range(2, 100))

    async def scenario() -> None:
        with attacked(home) as server:
            async with unharmed(server):
                for pause in (True, False) * 4:
                    async with raw(server) as one:
                        if pause:
                            one.transport.pause_reading()
                        await one.write(HELLO + calls)
                        ENDINGS[ending](one)
                        server.look(collect=True)

    run(scenario)


def test_client_that_vanishes_is_let_go_of(home: Path) -> None:
    async def scenario() -> None:
        with attacked(home, patience={"IDLE_S": 1.0}) as server:
            async with unharmed(server):
                for say in (b"", HELLO, HELLO + session_call(2, "fetch")):
                    async with raw(server) as one:
                        await one.write(say)
                        await until(lambda: server.look()["clients"] == 1)
                        vanish(one.connection)
                        await until(lambda: server.look()["clients"] == 0)

    run(scenario)


def test_connection_that_says_nothing_is_given_up(home: Path) -> None:
    async def scenario() -> None:
        with attacked(home, stream_s=0.3) as server:
            async with connected(server) as one:
                await soon(one.ended())
            await serves(server)

    run(scenario)


# ------------------------------------------------------------------------------------------------ calls


def test_thousands_of_calls_at_once_harm_nobody_else(home: Path) -> None:
    """Where they come in faster than they are answered, the connection ends; and no call is answered wrongly."""

    async def scenario() -> None:
        with attacked(home) as server:
            async with unharmed(server), calling(server) as honest, raw(server) as one:
                many = b"".join(session_call(n, "enqueue", envelope=bytes(100)) for n in range(2, 4_000))
                await one.write(HELLO + many)
                assert await honest.fetch() == []
                await answered(one, 3_999)
                if one.transport.is_closing():
                    assert await soon(one.connection.ended()) == "too many calls at once"
                else:
                    assert len(one.messages()) == 4_000
                assert await honest.fetch() == []

    run(scenario)


@pytest.mark.parametrize("kind", ["bootstrap", "unknown method", "unknown interface"])
def test_questions_that_are_never_finished_are_counted(home: Path, kind: str) -> None:
    """Each would stay in the server's memory; a refused call costs 4 kB."""

    def question(n: int) -> bytes:
        match kind:
            case "bootstrap":
                return bootstrap(n)
            case "unknown method":
                return call(n, 0, (), ENTRANCE, 77)
            case _:
                return call(n, 0, (), 0xABCDEF, 0)

    async def scenario() -> None:
        with attacked(home) as server:
            async with unharmed(server), raw(server) as one:
                await one.write(HELLO)
                for n in range(2, 20_000):
                    if not await one.write(question(n)):
                        break
                    if n % 50 == 0:
                        await asyncio.sleep(0.01)
                assert await soon(one.connection.ended()) == "too many calls at once"

    run(scenario)


def test_sessions_are_given_once(home: Path) -> None:
    """Finished, but not released: the client would keep any number of them."""

    async def scenario() -> None:
        with attacked(home) as server:
            async with unharmed(server, growth_kb=8_000), raw(server) as one:
                await one.write(HELLO)
                keep = protocol.Message.new_message()
                keep.init("finish").releaseResultCaps = False
                for start in range(2, 3_000, 50):
                    await one.write(b"".join(enter(n) for n in range(start, start + 50)))
                    await answered(one, start + 49)
                    one.wild.got.clear()
                    for keep.finish.questionId in range(start, start + 50):
                        await one.write(bytes(keep.to_bytes()))
                        keep.clear_write_flag()
                assert not one.transport.is_closing()

    run(scenario)


def test_cancelled_calls_cost_nothing(home: Path) -> None:
    async def scenario() -> None:
        with attacked(home) as server:
            async with unharmed(server), raw(server) as one:
                await one.write(HELLO)
                for n in range(2, 6_000):
                    await one.write(session_call(n, "fetch", limit=1) + finish(n))
                last = 6_000
                await one.write(session_call(last, "fetch", limit=1))
                await answered(one, last)
                assert not one.transport.is_closing()

    run(scenario)


def test_capabilities_dropped_and_released_in_any_order(home: Path) -> None:
    def release(id: int, count: int = 1) -> bytes:
        message = protocol.Message.new_message()
        made = message.init("release")
        made.id, made.referenceCount = id, count
        return bytes(message.to_bytes())

    async def scenario() -> None:
        with attacked(home) as server:
            async with unharmed(server):
                calls = b"".join(session_call(n, "fetch", limit=1) for n in range(2, 50))
                for words in (
                    [HELLO, calls, finish(1), finish(0)],
                    [HELLO, finish(0), calls, release(0), release(1)],
                    [HELLO, release(0, 1_000_000)],
                    [HELLO, release(77)],
                    [HELLO, finish(1), session_call(2, "fetch")],
                    [finish(5), HELLO],
                    [bootstrap(0), bootstrap(0)],
                    [session_call(2, "fetch"), HELLO],
                ):
                    async with raw(server) as one:
                        for word in words:
                            await one.write(word)
                        await asyncio.sleep(0.02)
                        server.look(collect=True)

    run(scenario)


# ------------------------------------------------------------------------------------------------ bombs


def batch() -> bytes:
    return session_call(2, "batchEnqueue", envelopes=[b"envelope"])


def patched(data: bytes, low: int | None, high: int) -> bytes:
    """Replace the pointer to the list of one envelope."""
    for at in range(8, len(data), 8):
        first, second = struct.unpack_from("<II", data, at)
        if first & 3 == 1 and second == 1 << 3 | 6:
            return data[:at] + struct.pack("<II", first if low is None else low, high) + data[at + 8 :]
    raise AssertionError("no such pointer")


def nested(depth: int) -> bytes:
    """A refusal of a refusal of a refusal."""
    words = [struct.pack("<IHH", 0, 1, 1)]
    for _ in range(depth):
        words += [bytes(8), struct.pack("<IHH", 0, 1, 1)]
    body = b"".join(words) + bytes(16)
    return struct.pack("<II", 0, len(body) // 8) + body


def segments(count: int, words: int = 0) -> bytes:
    table = struct.pack("<I", count - 1) + struct.pack("<I", words) * min(count, 4_000)
    return table + bytes(-len(table) % 8)


BOMBS: dict[str, Callable[[], bytes]] = {
    "a list of 500 million nothings": lambda: patched(batch(), None, 0x1FFFFFFF << 3),
    "a list of 500 million structs of nothing": lambda: patched(batch(), None, 7),
    "a list of bits": lambda: patched(batch(), None, 0x1FFFFFFF << 3 | 1),
    "a list beyond the message": lambda: patched(batch(), 0x7FFFFFF1, 300 << 3 | 6),
    "a list that contains itself": lambda: patched(batch(), 0xFFFFFFFD, 1 << 3 | 6),
    "a far pointer to itself": lambda: patched(batch(), 2, 0),
    "a far pointer into nowhere": lambda: patched(batch(), 2, 400),
    "a double far pointer": lambda: patched(batch(), 6, 0),
    "a capability instead of a list": lambda: patched(batch(), 3, 0x7FFFFFFF),
    "a thousand refusals in each other": lambda: nested(1_000),
    "a hundred thousand refusals in each other": lambda: nested(100_000),
    "a table of four billion segments": lambda: b"\xff" * 8,
    "a table of 60,000 segments": lambda: segments(60_000),
    "a table of 511 segments of 1 MB": lambda: segments(511, 1 << 17),
    "a message of 64 MB": lambda: struct.pack("<II", 0, 8 << 20) + bytes(1 << 20),
    "a message of 32 GB": lambda: b"\0\0\0\0\xff\xff\xff\xff",
    "a message of nothing": lambda: bytes(8),
    "a thousand messages of nothing": lambda: bytes(8_000),
    "too many envelopes": lambda: session_call(2, "batchEnqueue", envelopes=[b""] * 100_000),
    "too many ids": lambda: session_call(2, "acknowledge", ids=[b""] * 100_000),
    "too many channels": lambda: session_call(2, "follow", channels=[b""] * 100_000),
    "too many posts": lambda: session_call(2, "fetchPosts", ids=[b""] * 100_000),
    "the highest serial of a channel": lambda: session_call(2, "listPosts", channel=bytes(32), after=(1 << 64) - 1),
    "the highest serial": lambda: session_call(2, "fetch", after=(1 << 64) - 1, limit=65_535),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bomb_is_refused_in_little_time_and_memory(home: Path, bomb: str) -> None:
    async def scenario() -> None:
        data = BOMBS[bomb]()
        with attacked(home) as server:
            async with unharmed(server):
                began = time.monotonic()
                for _ in range(3):
                    async with raw(server) as one:
                        await one.write(HELLO + data)
                        await one.write(session_call(3, "fetch", limit=1))
                        await answered(one, 3)
                assert time.monotonic() - began < 10

    run(scenario)


def test_message_that_stays_incomplete_costs_only_what_came(home: Path) -> None:
    async def scenario() -> None:
        with attacked(home) as server:
            async with unharmed(server):
                before = server.look()["memory_kb"]
                async with AsyncExitStack() as stack:
                    for _ in range(20):
                        one = await stack.enter_async_context(raw(server))
                        await one.write(HELLO + struct.pack("<II", 0, 250_000) + bytes(1_000))
                    await serves(server)
                    assert server.look()["memory_kb"] - before < 20 * 600

    run(scenario)


def test_noise_and_bent_conversations(home: Path) -> None:
    dice = random.Random("bent")
    conversation = HELLO + batch() + session_call(3, "acknowledge", ids=[bytes(32)]) + session_call(4, "fetch")

    async def scenario() -> None:
        with attacked(home) as server:
            async with unharmed(server):
                for n in range(120):
                    bent = bytearray(conversation)
                    for _ in range(dice.randint(1, 6)):
                        bent[dice.randrange(len(bent))] = dice.choice([0, 1, 255, dice.randrange(256)])
                    async with raw(server) as one:
                        await one.write(bytes(bent) if n % 4 else HELLO + os.urandom(400))
                        await asyncio.sleep(0)

    run(scenario)


# --------------------------------------------------------------------------------------------- slowness


def test_byte_by_byte_is_understood_and_holds_nobody_up(home: Path) -> None:
    async def scenario() -> None:
        with attacked(home) as server:
            async with unharmed(server), raw(server) as one:
                for n, byte in enumerate(HELLO):
                    await one.write(bytes([byte]))
                    await asyncio.sleep(0.004)
                    if n == len(HELLO) // 2:
                        await serves(server)
                await answered(one, 1)
                assert len(one.messages()) == 2

    run(scenario)


def test_many_who_drip_hold_nobody_up_and_cost_no_more_than_they_sent(home: Path) -> None:
    """Each says a byte now and then, of a call that never becomes whole; an hour of it is these few hundred bytes."""
    words = HELLO + session_call(2, "batchEnqueue", envelopes=[bytes(60_000)])[:-8]

    async def scenario() -> None:
        with attacked(home) as server:
            async with unharmed(server), AsyncExitStack() as stack:
                drips = [await stack.enter_async_context(raw(server)) for _ in range(40)]
                for one in drips[:20]:
                    await one.write(HELLO)
                before = server.look()["memory_kb"]
                for n in range(300):
                    for one in drips:
                        start = len(HELLO) if one in drips[:20] else 0
                        await one.write(words[start + n : start + n + 1])
                    if n % 100 == 50:
                        await serves(server)
                assert not any(one.transport.is_closing() for one in drips)
                assert server.look()["memory_kb"] - before < 40 * 200

    run(scenario)


def test_flood_of_forged_first_packets(home: Path) -> None:
    async def scenario() -> None:
        with attacked(home, patience={"HANDSHAKE_S": 1.0}) as server:
            async with unharmed(server, growth_kb=40_000):  # 64 to 128 handshakes under way
                forger = Forger(server.address)
                for _ in range(15):
                    for _ in range(100):
                        forger.initial()
                    await serves(server)
                    seen = server.look()
                    assert seen["shaking"] <= 129
                    assert seen["ids"] < 2 * 129 + 100, "what is over holds nothing"
                forger.close()
                await until(lambda: server.look()["shaking"] == 0)

    run(scenario)


@pytest.mark.parametrize("deaf", ["to answers", "to everything"])
def test_client_that_never_takes_its_pushes(home: Path, deaf: str) -> None:
    async def scenario() -> None:
        with attacked(home) as server:
            seed = os.urandom(32)
            async with calling(server, seed) as victim:
                key = victim.key
            async with unharmed(server, growth_kb=48_000):
                async with calling(server) as author, raw(server, seed) as one:
                    await one.write(HELLO)
                    await answered(one, 1)
                    if deaf == "to everything":
                        one.transport.pause_reading()
                    await one.write(subscribe())
                    for _ in range(100):
                        wire = author.envelope(key, os.urandom(60_000)).wire()
                        assert (await author.put(wire))[0][0] is Verdict.STORED
                    if deaf == "to answers":
                        await until(lambda: len(one.wild.got) > 60_000)
                        assert len(one.wild.got) < 500_000
                    one.transport.pause_reading()
                    await one.write(b"".join(session_call(n, "fetch", limit=256) for n in range(20, 120)))
                    await serves(server)
                async with calling(server, seed) as victim:  # nothing of it was lost
                    found, after = set(), 0
                    while True:
                        answer = await rpc.Remote.ask(victim.session.fetch(after=after, limit=256), "fetching")
                        if not len(answer.deliveries):
                            break
                        found |= {bytes(one.envelope)[-64:] for one in answer.deliveries}
                        after = answer.deliveries[-1].serial
                    assert len(found) == 100

    run(scenario)


def test_receiver_that_is_none_is_found_out_when_something_is_pushed(home: Path) -> None:
    async def scenario() -> None:
        with attacked(home) as server:
            async with unharmed(server):
                for _ in range(5):
                    seed = os.urandom(32)
                    async with calling(server) as author, raw(server, seed) as one:
                        await one.write(HELLO + session_call(9, "subscribe"))
                        await answered(one, 9)
                        key = quic.key_holder(quic.self_signed(seed, "x", 1)[0], ())
                        assert await author.put(author.envelope(key).wire()) == [(Verdict.STORED, Reason.NONE)]
                        assert await soon(one.connection.ended()) == "what was pushed was not answered"

    run(scenario)
