"""Asking a relay whether it is there: one that answers, and everything else that may listen at its port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.unit.quic_pairs import run
from tests.unit.test_relay import relaying

from quicprochat.adapters.relay.probe import ANSWER_MAX_BYTES, answers

SOON_S, PATIENCE_S = 0.3, 10.0


@asynccontextmanager
async def saying(data: bytes) -> AsyncIterator[int]:
    """A port where everybody hears the same, and nothing else for as long as they wait."""
    writers: list[asyncio.StreamWriter] = []

    def met(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(data)

    server = await asyncio.start_server(met, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await server.wait_closed()


def test_a_relay_answers_and_a_closed_port_does_not() -> None:
    async def scenario() -> None:
        async with relaying() as (_, port):
            assert await answers(f"http://127.0.0.1:{port}", PATIENCE_S)
        assert not await answers(f"http://127.0.0.1:{port}", PATIENCE_S)

    run(scenario)


@pytest.mark.parametrize("status", [b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_any_success_counts(status: bytes) -> None:
    async def scenario() -> None:
        async with saying(status) as port:
            assert await answers(f"http://127.0.0.1:{port}", PATIENCE_S)

    run(scenario)


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 404 Not Found\r\n\r\n", b"SSH-2.0-x\r\n", b"x" * (4 * ANSWER_MAX_BYTES), b""],
    ids=["refusal", "another protocol", "no end of line", "silence"],
)  # fmt: skip
def test_anything_else_is_no_answer_and_takes_bounded_time(data: bytes) -> None:
    async def scenario() -> None:
        async with saying(data) as port:
            async with asyncio.timeout(PATIENCE_S):
                assert not await answers(f"http://127.0.0.1:{port}", SOON_S)

    run(scenario)


def test_what_is_no_address_is_no_answer() -> None:
    async def scenario() -> None:
        for url in ("http://", "http://127.0.0.1:99999", "nonsense"):
            assert not await answers(url, SOON_S)

    run(scenario)
