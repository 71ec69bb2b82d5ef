"""What the adapter knows of pycapnp, and the doorkeeper that reads messages before it."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import importlib.metadata
import os
import re
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path
from typing import Any

import capnp
import pytest

from quicprochat.adapters import rpc
from quicprochat.adapters.rpc import doorkeeper
from quicprochat.adapters.rpc.doorkeeper import Doorkeeper, Head, RefusedError, Scanner

PACKAGE = Path(capnp.__file__).parent
SOURCE = (PACKAGE / "lib" / "capnp.pyx").read_text("utf-8")
protocol: Any = capnp.load(str(PACKAGE / "rpc.capnp"), imports=[str(PACKAGE.parent)])


# ------------------------------------------------------------------------------------------------ pycapnp


def test_pycapnp_is_the_version_that_was_read() -> None:
    assert importlib.metadata.version("pycapnp") == "2.2.4"


@pytest.mark.parametrize(
    ("begin", "end", "read"),
    [
        ("cdef class _PyAsyncIoStreamProtocol", "cdef class _Schema:", "f171e0afa86e748e"),
        ("    def _connect(callback):", "    @staticmethod", "314670cc9c55b237"),
        ("cdef api Promise[void]* call_server_method", "cdef extern", "2d461a640c89c4c4"),
        ("async def kj_loop():", "async def run(coro)", "7bc1dd5fb0e5865f"),
        ("cdef class TwoPartyServer:", "cdef class _AsyncIoStream:", "04826921c6e3e69f"),
    ],
)
def test_code_that_safety_rests_on_is_the_code_that_was_read(begin: str, end: str, read: str) -> None:
    text = SOURCE[SOURCE.index(begin) :]
    assert hashlib.sha256(text[: text.index(end)].encode()).hexdigest()[:16] == read


def test_stream_is_made_for_a_transport_of_our_own() -> None:
    used = set(re.findall(r"self\.transport\.(\w+)\(", SOURCE)) | {"can_write_eof"}
    ours = set(vars(doorkeeper.Outward))
    assert used <= ours


def test_every_method_of_the_schema_takes_and_returns_what_the_wrapping_needs() -> None:
    for name in ("Entrance", "Session", "Receiver"):
        methods = getattr(rpc.home, name).schema.methods
        assert all("problem" in one.result_type.fields for one in methods.values())


def test_garbage_is_collected_by_the_loop_alone() -> None:
    async def scenario() -> None:
        assert gc.isenabled()
        async with rpc.running():
            assert not gc.isenabled()
        assert gc.isenabled()

    asyncio.run(scenario())


class Link:
    """One of a ring: no count of references comes to nothing in it."""

    def __init__(self) -> None:
        self.me = self


def test_much_that_lived_for_a_while_is_collected_long_before_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a flood of connections; in its turn it would lie about for a minute."""
    monkeypatch.setattr(rpc.glue, "COLLECT_S", 0.01)

    async def scenario() -> None:
        async with rpc.running(), asyncio.timeout(30):
            rings = [Link() for _ in range(len(gc.get_objects()))]
            last = weakref.ref(rings[-1])
            young = gc.get_stats()[1]["collections"]
            while gc.get_stats()[1]["collections"] == young:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            rings.clear()
            while last() is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    asyncio.run(scenario())


def test_capability_in_a_cycle_dies_in_the_loops_thread() -> None:
    """In another one it kills the process; and Python collects wherever somebody allocates."""
    program = """
        import asyncio, gc, socket, threading
        from quicprochat.adapters import rpc
        rpc.glue.COLLECT_S = 0.01
        died = []
        class Server(rpc.home.Receiver.Server):
            def __del__(self):
                died.append(threading.get_ident())
        def allocate():
            kept = [[n] for n in range(200_000)]
        async def main():
            async with rpc.running():
                cycle = [rpc.home.Receiver._new_client(Server())]
                cycle.append(cycle)
                del cycle
                while not died:
                    await asyncio.to_thread(allocate)
            assert set(died) == {threading.get_ident()}, died
        asyncio.run(main())
        """
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# ------------------------------------------------------------------------------------------------ Scanner


def said(which: str, **fields: Any) -> bytes:
    message = protocol.Message.new_message()
    made = message.init(which)
    for name, value in fields.items():
        setattr(made, name, value)
    return bytes(message.to_bytes())


KINDS = {
    "call": (doorkeeper.CALL, {"questionId": 7, "methodId": 0xFFFF}),
    "return": (doorkeeper.RETURN, {"answerId": 7}),
    "finish": (doorkeeper.FINISH, {"questionId": 7}),
    "bootstrap": (doorkeeper.BOOTSTRAP, {"questionId": 7}),
}


@pytest.mark.parametrize("which", KINDS)
def test_heads_are_what_capnp_writes(which: str) -> None:
    kind, fields = KINDS[which]
    data = said(which, **fields)
    assert Scanner().feed(data) == [Head(kind, 7, len(data) - 8, final=False)]


def test_answer_says_whether_a_finish_follows() -> None:
    last = said("return", answerId=9, noFinishNeeded=True)
    assert [(head.question, head.final) for head in Scanner().feed(last)] == [(9, True)]
    released = said("return", answerId=9, releaseParamCaps=False)
    assert [(head.question, head.final) for head in Scanner().feed(released)] == [(9, False)]


def test_messages_are_found_however_they_are_cut() -> None:
    stream = b"".join([said("bootstrap", questionId=0), said("resolve", promiseId=3), said("finish", questionId=1)] * 3)
    whole = Scanner().feed(stream)
    assert [head.kind for head in whole] == [8, 5, 4] * 3
    for step in (1, 3, 7, 8, 31, 64):
        scanner = Scanner()
        found = [head for at in range(0, len(stream), step) for head in scanner.feed(stream[at : at + step])]
        assert found == whole


def table(*words: int) -> bytes:
    sizes = b"".join(n.to_bytes(4, "little") for n in (len(words) - 1, *words))
    return sizes + bytes(-len(sizes) % 8)


FINISH = said("finish", questionId=7)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xff\xff\xff\xff", "segments"),
        ((512).to_bytes(4, "little"), "segments"),
        (table(doorkeeper.MESSAGE_WORDS + 1), "too large"),
        (table(*[1 << 20] * 500), "too large"),
        (table(8 << 20), "too large"),
        (table(0), "none"),
        (table(3, 1_000), "none"),
        (FINISH[:8] + b"\x04" + FINISH[9:], "strangely"),  # the root stands elsewhere
        (FINISH[:8] + b"\x02\0\0\0\0\0\0\0" + FINISH[16:], "strangely"),  # a far pointer
        (FINISH[:24] + b"\x04" + FINISH[25:], "strangely"),
        (FINISH[:24] + bytes(8) + FINISH[32:], "strangely"),
        (FINISH[:8] + b"\x01" + FINISH[9:], "strangely"),  # a list
    ],
)
def test_what_nobody_writes_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(RefusedError, match=why):
        Scanner().feed(data + bytes(100))


# --------------------------------------------------------------------------------------------- Doorkeeper


class Line(asyncio.Transport):
    """A transport that notes what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = True
        self.sent = b""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def write(self, data: Any) -> None:
        self.sent += data

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return False


class Inner(asyncio.BufferedProtocol):
    """In pycapnp's place."""

    def __init__(self) -> None:
        self.got = b""
        self._buffer = bytearray(100_000)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.resume_reading()

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.got += self._buffer[:nbytes]


class Kept:
    def __init__(self, questions: int = 3) -> None:
        self.line, self.inner, self.why = Line(), Inner(), list[str]()
        self.keeper = Doorkeeper(self.line, questions, self.why.append)
        self.keeper.begin(self.inner)

    def hear(self, *messages: bytes) -> None:
        for data in messages:
            for at in range(0, len(data), 90_000):
                piece = data[at : at + 90_000]
                self.keeper.get_buffer(-1)[: len(piece)] = piece
                self.keeper.buffer_updated(len(piece))

    def say(self, *messages: bytes) -> None:
        for data in messages:
            self.inner.transport.write(data)


def kept(work: Any) -> None:
    async def scenario() -> None:
        await work(Kept())

    asyncio.run(scenario())


def test_one_question_too_many_is_not_delivered() -> None:
    async def work(kept: Kept) -> None:
        kept.hear(*[said("call", questionId=n) for n in range(3)])
        before = kept.inner.got
        kept.hear(said("call", questionId=3), said("finish", questionId=0))
        assert kept.inner.got == before
        assert kept.why == ["too many calls at once"]

    kept(work)


def test_finished_and_answered_questions_make_room() -> None:
    async def work(kept: Kept) -> None:
        for n in range(100):
            kept.hear(said("call", questionId=n))
            if n % 2:
                kept.say(said("return", answerId=n))
                kept.hear(said("finish", questionId=n))
            else:
                kept.say(said("return", answerId=n, noFinishNeeded=True))
        assert (kept.why, kept.keeper.unanswered) == ([], 0)

    kept(work)


def test_answer_that_needs_a_finish_leaves_its_question_open() -> None:
    async def work(kept: Kept) -> None:
        for n in range(3):
            kept.hear(said("call", questionId=n))
            kept.say(said("return", answerId=n))
        assert kept.keeper.unanswered == 0
        kept.hear(said("bootstrap", questionId=9))
        assert kept.why == ["too many calls at once"]

    kept(work)


def test_calls_of_many_bytes_are_not_read_before_others_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(kept: Kept) -> None:
        size = len(said("call", questionId=0)) - 8
        monkeypatch.setattr(doorkeeper, "UNANSWERED_BYTES", 2 * size)

        def next_read() -> bool:
            kept.inner.transport.pause_reading()
            kept.inner.transport.resume_reading()
            return kept.line.reading

        kept.hear(said("call", questionId=1))
        assert next_read()
        kept.hear(said("call", questionId=2))
        assert not next_read()
        kept.say(said("return", answerId=1))
        await asyncio.sleep(0)
        assert not kept.line.reading  # a little less is not enough: it would stop and go
        kept.say(said("return", answerId=2))
        await asyncio.sleep(0)
        assert kept.line.reading

    kept(work)


def test_own_answers_may_be_of_any_size() -> None:
    async def work(kept: Kept) -> None:
        message = protocol.Message.new_message()
        answer = message.init("return")
        answer.answerId = 1
        answer.init("results").content = rpc.home.Delivery.new_message(envelope=os.urandom(5_000_000))
        data = bytes(message.to_bytes())
        kept.hear(said("call", questionId=1))
        kept.say(data, said("return", answerId=2))
        assert kept.keeper.unanswered == 0
        assert len(kept.line.sent) > 5_000_000

    kept(work)


def test_room_tells_whether_the_peer_takes_what_is_written() -> None:
    async def work(kept: Kept) -> None:
        assert kept.keeper.room.is_set()
        kept.keeper.pause_writing()
        assert not kept.keeper.room.is_set()
        kept.keeper.resume_writing()
        assert kept.keeper.room.is_set()
        kept.keeper.pause_writing()
        kept.keeper.connection_lost(None)
        assert kept.keeper.room.is_set()  # or whoever waits would do so for ever

    kept(work)
