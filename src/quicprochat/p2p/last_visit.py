"""One visit to a server that we left: our new record goes there, and what waits for us comes along.

It need not keep posts for us any more: those we get where we live now."""

from __future__ import annotations

import asyncio
from typing import Any

from quicprochat.adapters import quic, rpc
from quicprochat.core.envelope import ENVELOPE_MAX_BYTES
from quicprochat.core.errors import RemoteError, UnavailableError
from quicprochat.core.events import LinkDown, LinkUp
from quicprochat.core.ids import PeerKey
from quicprochat.p2p.home_link import DELIVERED_MAX, HomeLink
from quicprochat.p2p.home_posts import follow_nothing

FETCH = 64
VISIT_S = 600.0
"""A server that answers ever more slowly must not keep us from the others."""
NOTHING_OFFERED = 0
"""The window of the link: what we send goes by way of the server we live at."""


class LastVisit(HomeLink):
    """A home link that hands nothing over, and ends when it has fetched everything."""

    async def once(self) -> bool:
        """Come and go; return whether nothing waits there any more. Raises: QuicprochatError."""
        self._left_behind = 0
        try:
            async with asyncio.timeout(VISIT_S):
                await self._visit()
        except TimeoutError:
            raise UnavailableError(f"not done within {VISIT_S:g} s") from None
        return self._left_behind == 0

    async def _wait_for_admission(self, connection: quic.Connection, registration: str) -> None:
        raise UnavailableError("we are no user there any more", retryable=False)

    async def _work(self, connection: quic.Connection, session: Any, epoch: bytes) -> None:
        self.id = self._owner.next_link_id()
        self._results = {}
        up = LinkUp(self.id, PeerKey(connection.peer), NOTHING_OFFERED, None, epoch, carrier=True)
        await self._owner.settle([up])
        try:
            await rpc.Remote.ask(session.publish(*self._own_record()), "publishing our record")
            await follow_nothing(session)
            await self._fetch(session)
        finally:
            self._owner.post(LinkDown(self.id))

    async def _fetch(self, session: Any) -> None:
        after = 0
        while True:
            answer = await rpc.Remote.ask(session.fetch(after, FETCH), "fetching")
            with rpc.reading("fetching"):
                if len(answer.deliveries) > DELIVERED_MAX:
                    raise RemoteError("too many envelopes in one answer", peer=self.fingerprint)
                if any(len(told.envelope) > ENVELOPE_MAX_BYTES for told in answer.deliveries):
                    raise RemoteError("an envelope that is too long", peer=self.fingerprint)
                found = [(int(told.serial), bytes(told.envelope)) for told in answer.deliveries]
            if not found:
                return
            ids = await self._take_in([wire for _, wire in found])
            if ids:
                await rpc.Remote.ask(session.acknowledge(ids), "acknowledging")
            self._left_behind += len(found) - len(ids)
            if found[-1][0] <= after:
                raise RemoteError("the server answers the same again and again", peer=self.fingerprint)
            after = found[-1][0]
