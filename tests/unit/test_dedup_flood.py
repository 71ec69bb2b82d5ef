"""Ids without end from one neighbour: the memory of ids stays bounded, and what others brought is still known."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.people import Person, people

from quicprochat.adapters.sqlite.store import SqliteStore
from quicprochat.core import node
from quicprochat.core.events import Effect, LinkId, ResultsArrived, SendEnvelope, SendResults
from quicprochat.core.gate import Reason, Verdict
from quicprochat.core.ids import EnvelopeId
from quicprochat.core.link import Result
from quicprochat.core.memory import MemoryStore
from quicprochat.core.store import Fate, MeshStore
from quicprochat.core.time import Instant

GOOD, BAD, ON = 1, 2, 3


def answers(out: tuple[Effect, ...]) -> list[Verdict]:
    return [result.verdict for effect in out if isinstance(effect, SendResults) for result in effect.results]


def passes(rita: Person, link: int, envelope: object) -> None:
    """An envelope comes and goes on, and the next hop has it."""
    out = rita.step(rita.arrived(link, envelope))  # type: ignore[arg-type]
    assert answers(out) == [Verdict.STORED]
    id = envelope.id  # type: ignore[attr-defined]
    rita.step(ResultsArrived(LinkId(ON), (Result(id, Verdict.STORED, Reason.NONE),)))


def test_a_flood_of_ids_over_one_link_makes_a_relay_forget_none_of_anothers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "SEEN_MAX", 300)
    monkeypatch.setattr(node, "PASSED_BATCH", 50)
    rita, alice, mallory, bob, zoe = people("rita", "alice", "mallory", "bob", "zoe")
    for link, person in ((GOOD, alice), (BAD, mallory), (ON, bob)):
        rita.meet(link, person)
    rita.hops.lead(zoe, bob)
    good = [alice.envelope(zoe.key) for _ in range(100)]
    for envelope in good:
        passes(rita, GOOD, envelope)
    bad = [mallory.envelope(zoe.key) for _ in range(1_500)]
    for envelope in bad:
        passes(rita, BAD, envelope)
    known = sum(rita.store.fate(envelope.id) is not None for envelope in bad)
    assert 150 <= known <= 300 + 2 * 50, "bounded, without any wait"
    for envelope in good:
        out = rita.step(rita.arrived(GOOD, envelope))
        assert answers(out) == [Verdict.DUPLICATE]
        assert not any(isinstance(effect, SendEnvelope) for effect in out)


def flood(store: MeshStore, ids: int, keep: int, honest: int) -> float:
    """Remember many ids of one neighbour beside few of another; return the longest that one batch took, in s."""
    batch, longest = 4_096, 0.0
    store.begin()
    for number in range(honest):
        store.remember(EnvelopeId(b"h%031d" % number), Fate.HELD, Instant(10**9), b"h" * 32)
        store.remember(EnvelopeId(b"h%031d" % number), Fate.GONE, Instant(10**9))
    store.commit()
    for start in range(0, ids, batch):
        begun = time.perf_counter()
        store.begin()
        for number in range(start, min(ids, start + batch)):
            store.remember(_random(number), Fate.GONE, Instant(10**9 + number), b"f" * 32)
        store.forget_passed(keep, batch)
        store.commit()
        longest = max(longest, time.perf_counter() - begun)
    return longest


def _random(number: int) -> EnvelopeId:
    return EnvelopeId((number * 0x9E3779B97F4A7C15F39CC0605CEDC834 % (1 << 128)).to_bytes(16, "big") * 2)


def in_memory(path: Path) -> MeshStore:
    return MemoryStore(durable=True)


def on_disk(path: Path) -> MeshStore:
    return SqliteStore.open(path, ballast_bytes=0, synchronous="NORMAL")


@pytest.mark.parametrize("make", [in_memory, on_disk])
def test_forty_thousand_ids_against_the_table(make: Callable[[Path], MeshStore], tmp_path: Path) -> None:
    store = make(tmp_path / "store.db")
    flood(store, 40_000, 10_000, honest=2_000)
    assert all(store.fate(EnvelopeId(b"h%031d" % number)) is Fate.GONE for number in range(2_000))
    assert sum(store.fate(_random(number)) is not None for number in range(40_000)) == 8_000
    assert store.fate(_random(39_999)) is Fate.GONE, "the newest are kept"
    store.close()


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("make", "keep"), [(in_memory, node.SEEN_VOLATILE_MAX), (on_disk, node.SEEN_MAX)])
def test_two_million_ids_against_the_table(make: Callable[[Path], MeshStore], keep: int, tmp_path: Path) -> None:
    """Threat 11 of the model. Measured: see docs/adr/0028-order-in-channels.md."""
    path, before = tmp_path / "store.db", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    store, begun = make(path), time.perf_counter()
    longest = flood(store, 2_000_000, keep, honest=keep // 5)
    took = time.perf_counter() - begun
    for number in range(keep // 5):
        assert store.fate(EnvelopeId(b"h%031d" % number)) is Fate.GONE
    assert sum(store.fate(_random(number)) is not None for number in range(2_000_000)) == keep - keep // 5
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    disk_mib = sum(os.path.getsize(file) for file in tmp_path.iterdir()) / (1 << 20)
    print(f"{took:.0f} s, longest batch {longest * 1000:.0f} ms, memory +{grown_mib:.0f} MiB, disk {disk_mib:.0f} MiB")
    assert grown_mib < 200
    assert disk_mib < 200
    store.close()
