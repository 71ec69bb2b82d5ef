"""What the node says of a full disk and of texts that say nothing, and that a start that fails holds nothing."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from quicprochat.adapters.crypto import Ed25519Signer
from quicprochat.adapters.sqlite import SqliteStore
from quicprochat.core.errors import LocalError
from quicprochat.core.store import Scope
from quicprochat.p2p.node import P2pNode
from quicprochat.p2p.options import Options

BOB = Ed25519Signer(b"\x07" * 32).key


@pytest.mark.parametrize(("freed", "said"), [(0, False), (5, True)])
def test_a_reserve_is_given_up_only_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, freed: int, said: bool
) -> None:
    monkeypatch.setattr(SqliteStore, "disk_low", lambda store, reserve: True)
    monkeypatch.setattr(SqliteStore, "make_room", lambda store: freed)

    async def play() -> None:
        async with P2pNode(Options(tmp_path), network=False):
            pass

    with caplog.at_level(logging.WARNING, "quicprochat"):
        asyncio.run(play())
    assert "the disk is almost full" in caplog.text
    assert ("bytes of reserve are given up" in caplog.text) is said


def test_a_start_that_fails_after_the_store_is_open_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []
    close = SqliteStore.close

    def closing(store: SqliteStore) -> None:
        closed.append(store)
        close(store)

    def fails(store: SqliteStore, reserve: int) -> bool:
        raise LocalError("the disk does not answer")

    async def play() -> None:
        with monkeypatch.context() as broken:
            broken.setattr(SqliteStore, "close", closing)
            broken.setattr(SqliteStore, "disk_low", fails)
            with pytest.raises(LocalError, match="does not answer"):
                await P2pNode(Options(tmp_path), network=False).start()
        assert len(closed) == 1
        async with P2pNode(Options(tmp_path), network=False) as again:
            assert again.key

    asyncio.run(play())


@pytest.mark.parametrize("text", ["", " ", "\n\t\u2003"])
def test_a_text_of_nothing_but_space_is_refused(tmp_path: Path, text: str) -> None:
    async def play() -> None:
        async with P2pNode(Options(tmp_path), network=False) as node:
            await node.subscribe("news")
            with pytest.raises(LocalError, match="there is no text to send"):
                await node.send(BOB, text)
            with pytest.raises(LocalError, match="there is no text to post"):
                await node.broadcast("news", text)
            used = await node._runtime.driver.call(lambda store: (store.usage(Scope.OWN), store.usage(Scope.OWN_POSTS)))
            assert [one.count for one in used] == [0, 0]

    asyncio.run(play())
