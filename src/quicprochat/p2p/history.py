"""What was said in a channel, as it is told: posts in the order of cause, and what is missing where it belongs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from quicprochat.core.gaps import Gap, Heard
from quicprochat.core.history import Place, in_order
from quicprochat.core.ids import ChannelId, PeerKey
from quicprochat.core.store import Line, LineKind, MeshStore
from quicprochat.core.time import WallTime
from quicprochat.p2p.driver import Driver

PAGE = 256
"""Texts read in one transaction: bounds how long a long history holds up everybody else."""
REACH_MAX = 100_000
"""Posts that are put in order at once; a history reaches no further back (a guess: two seconds of a small computer)."""
REACH_MIN = 1_000
"""Posts that are put in order at least, the window of a channel: the last few are then the same however many are asked
for."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Posts of an author that did not come: those numbered ``first`` to ``last``.

    ``open`` says that they may still come; when the last of them has, the gap is gone.
    """

    author: PeerKey
    channel: ChannelId
    first: int
    last: int
    open: bool


async def history(
    driver: Driver,
    channel: ChannelId,
    *,
    after: int = 0,
    since: WallTime | None = None,
    unread: bool = False,
    count: int | None = None,
) -> AsyncGenerator[Line | Missing, None]:
    """Yield the posts of a channel, our own among them, and before a post what is missing of its author there.

    Only those with a cursor above ``after``, those that came at ``since`` or later, those that are unread; of these the
    newest ``count``. Raises: StoreError.
    """
    reach = REACH_MAX if count is None else min(REACH_MAX, max(count, REACH_MIN))

    def read(store: MeshStore) -> tuple[Sequence[Place], Sequence[Heard]]:
        places = store.places(channel, after=after, since=since, unread=unread, limit=reach)
        return places, store.heard_in(channel)

    places, authors = await driver.aside(read)
    order = await asyncio.to_thread(in_order, places)
    if count is not None:
        order = order[max(0, len(order) - count) :]
    heard = {known.author: known for known in authors if known.gaps}
    told: set[tuple[PeerKey, Gap]] = set()
    for start in range(0, len(order), PAGE):
        cursors = [place.cursor for place in order[start : start + PAGE]]
        for line in await driver.read(lambda store, cursors=cursors: store.lines(cursors)):  # type: ignore[misc]
            known = heard.get(line.peer) if line.kind is LineKind.POST else None
            gap = known.gap_before(line.seq) if known is not None else None
            if gap is not None and (line.peer, gap) not in told:
                told.add((line.peer, gap))  # an author may give a number twice
                yield Missing(line.peer, channel, gap.first, gap.last, gap.may_close(driver.now().at))
            yield line
