"""Bundles by hand: what waits, copied into a file; and a file taken in, through the same gate as everything."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

from quicprochat.adapters.bundlefile import BundleFile, read_pieces
from quicprochat.core.bundle import COUNT_MAX, BundleReader, BundleWriter
from quicprochat.core.envelope import TTL_MAX_S
from quicprochat.core.errors import LocalError, WireError
from quicprochat.core.events import BundleArrived, BundleTaken, CopiedByHand
from quicprochat.core.gate import Checked, Reject, Verdict
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.link import Result
from quicprochat.core.store import Held, MeshStore
from quicprochat.core.time import Now
from quicprochat.p2p.driver import Driver
from quicprochat.p2p.links import Links
from quicprochat.p2p.views import BundleRead, BundleWritten

PART = 256
"""Envelopes read from the store, or given to the node, at a time: bounds how long others wait."""


class Bundles:
    """Its public verbs are those of ``P2pNode``, described there."""

    def __init__(self, driver: Driver, links: Links) -> None:
        self._driver = driver
        self._links = links
        self._refs = count(1)
        self._waiting: dict[int, asyncio.Future[tuple[Result, ...]]] = {}

    def taken(self, effect: BundleTaken) -> None:
        """The node has judged a part of a bundle."""
        if (waiting := self._waiting.pop(effect.ref, None)) is not None and not waiting.done():
            waiting.set_result(effect.results)

    # --- out

    async def write(self, path: Path, peer: PeerKey | None) -> BundleWritten:
        """Copy what waits into a new file; only what is for one peer, if one is given."""
        file = await asyncio.to_thread(BundleFile, path)
        writer, now = BundleWriter(), self._driver.now()
        try:
            await asyncio.to_thread(file.write, [writer.begin(now)])
            own: list[EnvelopeId] = []
            for dst in [peer] if peer else await self._driver.aside(lambda store: list(store.destinations())):
                own += await self._write_for(dst, file, writer, now)
            await asyncio.to_thread(file.write, [writer.end()])
            size = await asyncio.to_thread(file.finish)
        finally:
            await asyncio.to_thread(file.abandon)
        for start in range(0, len(own), PART):
            await self._driver.settle([CopiedByHand(tuple(own[start : start + PART]))])
        return BundleWritten(path, writer.count, len(own), size)

    async def _write_for(self, dst: bytes, file: BundleFile, writer: BundleWriter, now: Now) -> list[EnvelopeId]:
        own, after = [], 0

        def part(store: MeshStore) -> Sequence[Held]:
            return store.waiting(dst, after, PART)

        while found := await self._driver.aside(part):
            after = found[-1].serial
            alive = [held for held in found if held.expires_at > now.at][: COUNT_MAX - writer.count]
            await asyncio.to_thread(file.write, [writer.add(held.to_send(now.at)) for held in alive])
            own += [held.id for held in alive if held.own]
        return own

    # --- in

    async def read(self, path: Path) -> BundleRead:
        """Take a file's envelopes in, once all of it was read and found whole."""
        written_ms = await asyncio.to_thread(_examine, path)
        now = self._driver.now()
        on_the_way = now.wall - written_ms if now.trusted and 0 < written_ms < now.wall else 0
        envelopes, verdicts = _envelopes(path), Counter[str]()
        reasons: dict[Verdict, Counter[str]] = {Verdict.REFUSED: Counter(), Verdict.DEFERRED: Counter()}
        while part := await asyncio.to_thread(_some, envelopes, path):
            checked = []
            for one in await self._links.check_all(part):
                if isinstance(one, Reject):
                    reasons[Verdict.REFUSED][one.fault.value] += 1
                else:
                    checked.append(_aged(one, on_the_way))
            for result in await self._take(checked):
                verdicts[result.verdict.name] += 1
                if result.verdict in reasons:
                    reasons[result.verdict][result.reason.name.lower()] += 1
            verdicts["ALL"] += len(part)
        return BundleRead(
            path, verdicts["ALL"], verdicts["STORED"], verdicts["DUPLICATE"], dict(reasons[Verdict.REFUSED]),
            dict(reasons[Verdict.DEFERRED]),
        )  # fmt: skip

    async def _take(self, checked: list[Checked]) -> tuple[Result, ...]:
        ref = next(self._refs)
        waiting: asyncio.Future[tuple[Result, ...]] = asyncio.get_running_loop().create_future()
        self._waiting[ref] = waiting
        try:
            await self._driver.settle([BundleArrived(ref, tuple(checked))])
            return await waiting
        finally:
            self._waiting.pop(ref, None)


def _aged(checked: Checked, on_the_way_ms: int) -> Checked:
    """Add the time in the file to an envelope's age; more than the longest life makes no difference."""
    age_ms = min(checked.envelope.age_ms + on_the_way_ms, max(checked.envelope.age_ms, TTL_MAX_S * 1_000))
    return replace(checked, envelope=replace(checked.envelope, age_ms=age_ms))


def _examine(path: Path) -> int:
    """Read all of a file and keep nothing; return when it was written. Raises: LocalError when it is not right."""
    reader = BundleReader()
    try:
        for piece in read_pieces(path):
            for _ in reader.feed(piece):
                pass
        reader.finish()
    except WireError as error:
        raise _wrong(path, error) from error
    return reader.written_ms or 0


def _envelopes(path: Path) -> Iterator[bytes]:
    reader = BundleReader()
    for piece in read_pieces(path):
        yield from reader.feed(piece)
    reader.finish()


def _some(envelopes: Iterator[bytes], path: Path) -> list[bytes]:
    """Return the next of a file's envelopes; it may have changed since it was examined."""
    try:
        return list(islice(envelopes, PART))
    except WireError as error:
        raise _wrong(path, error) from error


def _wrong(path: Path, error: WireError) -> LocalError:
    return LocalError(f"{path} is not taken in: {error}", code="damaged")
