"""FederationClient: one connection to each domain, opened when somebody has something to say there."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from quicprochat.adapters import quic, rpc
from quicprochat.core.errors import QuicprochatError, UnavailableError
from quicprochat.core.gate import Reason, Verdict
from quicprochat.core.ids import ID_BYTES, KEY_BYTES, ChannelId, EnvelopeId, PeerKey
from quicprochat.core.record import RECORD_MAX_BYTES
from quicprochat.server.channels import Lacking
from quicprochat.server.federation.rules import (
    CALL_S,
    CONNECT_S,
    ENVELOPES_MAX,
    EPOCH_BYTES,
    LOOK_UP_S,
    LOOK_UPS,
    SILENCE_S,
    VERSION,
)
from quicprochat.server.queue import Outcome

log = logging.getLogger("quicprochat.server.federation")

T = TypeVar("T")

Dial = Callable[[str], Awaitable[quic.Connection]]
"""Open a connection whose other end has proved that it is this domain. Raises: QuicprochatError."""

UNANSWERED = 0x20
"""The code for a peer that does not answer."""


LAST_WORD_S = 0.5
"""How long the reason for an end may come after the end."""


class FederationClient:
    """Use inside ``rpc.running()``; ``domain`` is the one we speak for. Every method raises UnavailableError when the
    other server cannot be reached or does not answer in time, ``rpc.Problem`` when it says no, and UntrustedError when
    its certificate does not prove the domain."""

    def __init__(self, domain: str, dial: Dial, entered: Callable[[str, bytes], Awaitable[None]] | None = None) -> None:
        """``entered`` is told the epoch of a domain's server each time we connect."""
        self._domain = domain
        self._dial = dial
        self._entered = entered
        self._links: dict[str, _Link] = {}
        self._failed: dict[str, tuple[float, QuicprochatError]] = {}
        """When connecting to a domain last came to nothing, and why."""
        self._dialling: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._asking: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(LOOK_UPS))

    async def relay_enqueue(self, destination: str, envelopes: Sequence[bytes]) -> list[Outcome]:
        """Hand envelopes for users of a domain to its server, in one call; return an answer for each.

        STORED and DUPLICATE are durable there. At most ``ENVELOPES_MAX``.
        """
        assert 0 < len(envelopes) <= ENVELOPES_MAX

        def read(answer: Any) -> list[Outcome]:
            if len(answer.outcomes) != len(envelopes):
                raise UnavailableError(f"{destination} has not answered for every envelope", retryable=False)
            return [_outcome(one.verdict, one.reason) for one in answer.outcomes]

        return await self._ask(
            destination, CALL_S, read,
            lambda peer: peer.relay(origin=self._domain, destination=destination, envelopes=list(envelopes)),
        )  # fmt: skip

    async def tell_interest(
        self, destination: str, added: Sequence[ChannelId], removed: Sequence[ChannelId], *, whole: bool
    ) -> bytes:
        """Tell a domain what our users follow; return the digest of what it knows of that now."""
        return await self._ask(
            destination, CALL_S, lambda answer: bytes(answer.digest),
            lambda peer: peer.tellInterest(
                origin=self._domain, destination=destination, added=list(added), removed=list(removed), whole=whole
            ),
        )  # fmt: skip

    async def offer_posts(self, destination: str, ids: Sequence[EnvelopeId]) -> Lacking:
        """Return which of these posts a domain has never seen, and which somebody else is about to bring it."""

        def listed(told: Any) -> list[EnvelopeId]:
            if len(told) > len(ids) or any(len(id) != ID_BYTES for id in told):
                raise UnavailableError(f"{destination} wants what it was not offered", retryable=False)
            return [EnvelopeId(bytes(id)) for id in told]

        def read(answer: Any) -> Lacking:
            return listed(answer.ids), listed(answer.later)

        return await self._ask(
            destination, CALL_S, read,
            lambda peer: peer.offerPosts(origin=self._domain, destination=destination, ids=list(ids)),
        )  # fmt: skip

    async def find_record(self, destination: str, key: PeerKey) -> tuple[bytes, int]:
        """Return the record that a domain's server has of a key, and its age in milliseconds; empty for none."""

        def read(answer: Any) -> tuple[bytes, int]:
            if len(answer.record) > RECORD_MAX_BYTES:
                raise UnavailableError(f"{destination} has sent a record that is none", retryable=False)
            return bytes(answer.record), answer.ageMs

        return await self._look_up(destination, read, lambda peer: peer.findRecord(destination, key))

    async def find_name(self, destination: str, name: str) -> PeerKey:
        """Return whose name this is at a domain."""

        def read(answer: Any) -> PeerKey:
            if len(answer.key) != KEY_BYTES:
                raise UnavailableError(f"{destination} has sent a key that is none", retryable=False)
            return PeerKey(bytes(answer.key))

        return await self._look_up(destination, read, lambda peer: peer.findName(destination, name))

    def connected(self, domain: str) -> bool:
        """Say whether a connection to a domain is open."""
        link = self._links.get(domain)
        return link is not None and not link.over

    def dialling(self, domain: str) -> bool:
        """Say whether a connection to a domain is being made."""
        lock = self._dialling.get(domain)
        return lock is not None and lock.locked()

    def connections(self) -> list[quic.Connection]:
        """Return the connections that are open."""
        return [link.connection for link in self._links.values()]

    async def leave(self, domain: str, reason: str) -> None:
        """End the connection to a domain."""
        link = self._links.pop(domain, None)
        if link is not None:
            await link.close(reason)

    async def close(self) -> None:
        """End every connection."""
        await asyncio.gather(*(self.leave(domain, "the server is stopping") for domain in tuple(self._links)))

    async def reach(self, domain: str) -> None:
        """Connect to a domain: it learns that we are here."""
        await self._link(domain)

    async def _look_up(self, domain: str, read: Callable[[Any], T], call: Callable[[Any], Any]) -> T:
        """Ask while somebody waits: connecting counts too."""
        try:
            async with asyncio.timeout(LOOK_UP_S), self._asking[domain]:
                return await self._ask(domain, LOOK_UP_S, read, call)
        except TimeoutError:
            raise UnavailableError(f"{domain} has not answered within {LOOK_UP_S:g} s") from None

    async def _ask(self, domain: str, timeout_s: float, read: Callable[[Any], T], call: Callable[[Any], Any]) -> T:
        link = await self._link(domain)
        with rpc.reading(f"asking {domain}"):
            asked = call(link.peer)

        async def answered() -> T:
            answer = await rpc.Remote.ask(asked, f"asking {domain}")
            with rpc.reading(f"asking {domain}"):
                return read(answer)

        asking = asyncio.create_task(answered())
        try:
            async with asyncio.timeout(timeout_s):
                while not (await asyncio.wait((asking,), timeout=SILENCE_S))[0]:
                    await link.alive()
        except TimeoutError:
            # Whoever takes calls and never answers would keep us waiting again and again.
            link.connection.end(UNANSWERED, "no answer came")
            raise UnavailableError(f"{domain} has not answered in time") from None
        finally:
            asking.cancel()
            await asyncio.wait((asking,))
            _ = asking.cancelled() or asking.exception()  # it may have failed when we gave it up
        return asking.result()

    async def _link(self, domain: str) -> _Link:
        clock = asyncio.get_running_loop().time
        asked = clock()
        async with self._dialling[domain]:
            link = self._links.get(domain)
            if link is not None:
                if not link.over:
                    return link
                await self.leave(domain, "it is over")
            failed = self._failed.pop(domain, None)
            if failed is not None and failed[0] >= asked:
                self._failed[domain] = failed
                raise failed[1]  # somebody else has just tried, while we waited for the outcome
            try:
                link = await _Link.open(await self._dial(domain), domain)
            except QuicprochatError as error:
                self._failed[domain] = clock(), error
                raise
            self._links[domain] = link
            if self._entered is not None:
                await self._entered(domain, link.epoch)
            return link


class _Link:
    """A connection, and the capability that the other server gave us."""

    def __init__(self, connection: quic.Connection, remote: rpc.Remote) -> None:
        self.connection = connection
        self._remote = remote
        self._running = asyncio.create_task(remote.run())
        self.peer: Any = None
        self.epoch = b""

    @classmethod
    async def open(cls, connection: quic.Connection, domain: str) -> _Link:
        link: _Link | None = None
        try:
            if connection.peer != domain.encode("ascii"):
                # The check has to see to it; not an assertion, since those can be switched off.
                raise UnavailableError(f"{domain} was dialled and another domain answered", retryable=False)
            async with asyncio.timeout(CONNECT_S):
                link = cls(connection, rpc.Remote(await connection.stream(CONNECT_S), rpc.federation.Entrance))
                answer = await rpc.Remote.ask(
                    link._remote.bootstrap.enter(version=VERSION), f"entering at {domain}"
                )  # fmt: skip
                with rpc.reading(f"entering at {domain}"):
                    link.peer, epoch = answer.peer, answer.info.epoch
                    if len(epoch) != EPOCH_BYTES:
                        raise UnavailableError(f"{domain} says things of itself that cannot be", retryable=False)
                    link.epoch = bytes(epoch)
        except BaseException as error:
            refused = await _why(connection, domain) if isinstance(error, UnavailableError) else None
            if link is not None:
                await link.close("given up")
            else:
                await connection.leave("given up")
            if isinstance(error, TimeoutError):
                raise UnavailableError(f"{domain} lets nobody in: no answer within {CONNECT_S:g} s") from None
            if refused is not None:
                raise refused from error
            raise
        return link

    @property
    def over(self) -> bool:
        return self.connection.over or self._running.done()

    async def alive(self) -> None:
        """Wait for a sign of life from the other machine: one that was switched off says no goodbye.

        Raises: TimeoutError.
        """
        async with asyncio.timeout(SILENCE_S):
            await self.connection.answered()

    async def close(self, reason: str) -> None:
        self.peer = None
        await self.connection.leave(reason)
        await asyncio.gather(self._running, return_exceptions=True)


async def _why(connection: quic.Connection, domain: str) -> QuicprochatError | None:
    """Return what a connection that broke at once died of: its other end judges us after our handshake is complete."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LAST_WORD_S):
            await connection.ended()
    return connection.failure(f"{domain} lets nobody in") if connection.over else None


def _outcome(verdict: int, reason: int) -> Outcome:
    """Read an answer; a word of a later version means no, for now."""
    try:
        return Outcome(Verdict(verdict), Reason(reason))
    except ValueError:
        known = Verdict(verdict) if verdict in Verdict._value2member_map_ else Verdict.DEFERRED
        return Outcome(known, Reason.UNSUPPORTED)
