"""The list of peers: what it is made of, and what it costs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from quicprochat.adapters.crypto import Ed25519Signer, SodiumCrypto
from quicprochat.core.ids import Label
from quicprochat.core.record import PeerRecord, sign_record
from quicprochat.core.store import MeshStore, Sighting, StoredRecord
from quicprochat.core.time import Instant, WallTime
from quicprochat.p2p.node import P2pNode
from quicprochat.p2p.options import Options

STRANGERS = [Ed25519Signer(bytes([n]) * 32) for n in range(1, 9)]


def keep_records(store: MeshStore) -> None:
    for n, signer in enumerate(STRANGERS):
        data = sign_record(PeerRecord(signer.key, 1, 1, name=f"peer {n}"), signer)
        assert store.put_record(StoredRecord(signer.key, 1, 1, data, 0, Instant(5)))


def test_the_list_and_the_search_read_thousands_of_records_and_verify_none_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4,096 signatures are a third of a second in which no message is taken."""

    async def play() -> None:
        async with P2pNode(Options(tmp_path), network=False) as node:
            await node._runtime.driver.call(keep_records)
            checked: list[bytes] = []

            def verify(crypto: SodiumCrypto, key: bytes, label: Label, message: bytes, signature: bytes) -> bool:
                checked.append(key)
                return True

            monkeypatch.setattr(SodiumCrypto, "verify", verify)
            views = await node.peers()
            assert [(view.key, view.name) for view in views] == [(s.key, f"peer {n}") for n, s in enumerate(STRANGERS)]
            assert await node.resolve(STRANGERS[0].key.hex()[:16]) == STRANGERS[0].key
            await node._runtime.people.learn_known()
            assert checked == []

    asyncio.run(play())


def test_a_linked_peer_is_seen_at_this_moment_and_another_when_its_last_link_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, gone = (signer.key for signer in STRANGERS[:2])

    def keep_sightings(store: MeshStore) -> None:
        for key in (here, gone):
            store.see(Sighting(key, WallTime(77), Instant(5), ""))

    async def play() -> None:
        async with P2pNode(Options(tmp_path), network=False) as node:
            await node._runtime.driver.call(keep_sightings)
            monkeypatch.setattr(node._runtime.links, "linked", lambda: frozenset({here}))
            before = node._runtime.driver.now().wall
            seen = {view.key: view.last_seen for view in await node.peers()}
            assert before <= seen[here] <= node._runtime.driver.now().wall
            assert seen[gone] == 77

    asyncio.run(play())
