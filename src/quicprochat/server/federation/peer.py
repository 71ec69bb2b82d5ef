"""What another domain's server may ask of us: capabilities that know which domain TLS has proved."""

from __future__ import annotations

from typing import Any, Protocol

from quicprochat import __version__
from quicprochat.adapters import rpc
from quicprochat.adapters.rpc import Capability, Problem, federation, method
from quicprochat.core.domain import DOMAIN_MAX_CHARS
from quicprochat.core.envelope import ENVELOPE_MAX_BYTES
from quicprochat.core.ids import ID_BYTES, KEY_BYTES, ChannelId, EnvelopeId, PeerKey
from quicprochat.server.channels import Lacking
from quicprochat.server.federation.rules import ENVELOPES_MAX, IDS_MAX, INTERESTS_MAX, VERSION
from quicprochat.server.queue import Outcome
from quicprochat.server.session import TEXT_MAX_CHARS


class Desk(Protocol):
    """What a peer's calls come down to."""

    @property
    def domain(self) -> str:
        """Our own domain."""
        ...

    @property
    def epoch(self) -> bytes:
        """The epoch of our store."""
        ...

    async def deposit(self, origin: str, envelopes: list[bytes]) -> list[Outcome]:
        """Take envelopes for our users, when it is this domain's turn."""
        ...

    async def take_interest(
        self, origin: str, added: frozenset[ChannelId], removed: frozenset[ChannelId], *, whole: bool
    ) -> bytes:
        """Note what a domain's users follow; return a digest of it. Raises: LocalError when no channels are shared."""
        ...

    async def lacking_posts(self, origin: str, ids: list[EnvelopeId]) -> Lacking:
        """Return which posts were never seen here, and which somebody else is about to bring.

        Raises: LocalError when no channels are shared.
        """
        ...

    async def own_record(self, key: PeerKey) -> tuple[bytes, int]:
        """Return the record that a user here has published, and its age in milliseconds."""
        ...

    async def own_name(self, name: str) -> PeerKey:
        """Return whose name this is here. Raises: LocalError."""
        ...


class Entrance(Capability, federation.Entrance.Server):  # type: ignore[misc]
    """All that a new connection can reach."""

    def __init__(self, desk: Desk, origin: str, served: rpc.Served) -> None:
        self._desk = desk
        self._origin = origin
        self._served = served
        self._entered = False

    async def handle_enter(self, params: Any, results: Any) -> None:
        """Give the domain its capability; once, since a peer could keep any number."""
        if params.version != VERSION:
            raise Problem(
                f"{self._desk.domain} speaks version {VERSION} between servers and {self._origin} {params.version};"
                " update the older",
                "unsupported",
            )
        if self._entered:
            raise Problem("this connection has entered already", "usage")
        self._entered = True
        results.info = {
            "version": __version__, "domain": self._desk.domain, "epoch": self._desk.epoch,
            "batchMax": ENVELOPES_MAX, "inFlightMax": self._served.max,
        }  # fmt: skip
        results.peer = Peer(self._desk, self._origin)

    enter_context = method(handle_enter)


class Peer(Capability, federation.Peer.Server):  # type: ignore[misc]
    """What one domain may do; every argument is bounded before it is read."""

    def __init__(self, desk: Desk, origin: str) -> None:
        self._desk = desk
        self._origin = origin

    async def handle_relay(self, params: Any, results: Any) -> None:
        """Take envelopes for our users in one commit, with an answer for each."""
        self._from_them(params)
        self._for_us(params)
        count = len(params.envelopes)
        if not 0 < count <= ENVELOPES_MAX:
            raise Problem(f"a batch has 1 to {ENVELOPES_MAX} envelopes, and this one {count}", "usage")
        # Of one that is too long nothing is read, and the gate refuses that item alone.
        envelopes = [b"" if len(one) > ENVELOPE_MAX_BYTES else bytes(one) for one in params.envelopes]
        outcomes = await self._desk.deposit(self._origin, envelopes)
        told = results.init("outcomes", count)
        for n, outcome in enumerate(outcomes):
            told[n].verdict, told[n].reason = int(outcome.verdict), int(outcome.reason)

    async def handle_find_record(self, params: Any, results: Any) -> None:
        """Return the newest record of a user here."""
        self._for_us(params)
        if len(params.key) != KEY_BYTES:
            raise Problem(f"a key has {KEY_BYTES} bytes", "usage")
        results.record, results.ageMs = await self._desk.own_record(PeerKey(bytes(params.key)))

    async def handle_find_name(self, params: Any, results: Any) -> None:
        """Say whose name this is here."""
        self._for_us(params)
        results.key = await self._desk.own_name(text(params, "name", TEXT_MAX_CHARS))

    async def handle_tell_interest(self, params: Any, results: Any) -> None:
        """Note what the origin's users follow."""
        self._from_them(params)
        self._for_us(params)
        if len(params.added) + len(params.removed) > INTERESTS_MAX:
            raise Problem(f"a domain follows at most {INTERESTS_MAX} channels here", "full")
        added, removed = _ids(params.added), _ids(params.removed)
        results.digest = await self._desk.take_interest(
            self._origin, frozenset(map(ChannelId, added)), frozenset(map(ChannelId, removed)), whole=params.whole
        )

    async def handle_offer_posts(self, params: Any, results: Any) -> None:
        """Say which posts were never seen here."""
        self._from_them(params)
        self._for_us(params)
        if len(params.ids) > IDS_MAX:
            raise Problem(f"a list has at most {IDS_MAX} ids", "usage")
        ids = [EnvelopeId(id) for id in _ids(params.ids)]
        results.ids, results.later = await self._desk.lacking_posts(self._origin, ids)

    relay_context = method(handle_relay)
    findRecord_context = method(handle_find_record)
    findName_context = method(handle_find_name)
    tellInterest_context = method(handle_tell_interest)
    offerPosts_context = method(handle_offer_posts)

    def _from_them(self, params: Any) -> None:
        """Refuse whoever speaks for somebody else. Raises: Problem."""
        origin = _domain(params, "origin")
        if origin != self._origin:
            raise Problem(f"{self._origin} speaks for itself alone, and not for {origin}", "policy")

    def _for_us(self, params: Any) -> None:
        """Refuse what is meant for somebody else: nothing is passed on for third parties. Raises: Problem."""
        destination = _domain(params, "destination")
        if destination != self._desk.domain:
            raise Problem(f"this is the server of {self._desk.domain}, and not of {destination}", "policy")


def _ids(told: Any) -> list[bytes]:
    if any(len(id) != ID_BYTES for id in told):
        raise Problem(f"an id has {ID_BYTES} bytes", "usage")
    return [bytes(id) for id in told]


def _domain(params: Any, name: str) -> str:
    return text(params, name, DOMAIN_MAX_CHARS)


def text(params: Any, name: str, chars_max: int) -> str:
    """Return a text of a call. Raises: Problem."""
    # pycapnp makes a string of it before its size can be seen; a whole message is bounded.
    try:
        found = str(getattr(params, name))
    except UnicodeDecodeError:
        raise Problem(f"the {name} is not valid UTF-8", "usage") from None
    if len(found) > chars_max:
        raise Problem(f"a {name} is not so long", "too_long")
    return found
