"""The server's relay: for nodes that cannot reach each other directly, users of this server or anybody."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

from quicprochat.adapters.relay.server import Relay, RelayLimits
from quicprochat.adapters.system import entropy
from quicprochat.console.local import Json
from quicprochat.core.address import Address
from quicprochat.core.ids import PeerKey


class RelayFor(Enum):
    """Whom the relay serves, those that are blocked left out."""

    ANYBODY = "anybody"
    USERS = "users"


@dataclass(frozen=True, slots=True)
class RelayOptions:
    """What an operator decides. ``serves`` may change while the server runs."""

    listen: Address
    serves: RelayFor = RelayFor.ANYBODY
    clients: int = 1_000
    bytes_per_s: int = 10_000_000


class ServerRelay:
    """``user`` says whether a key is a user's, ``blocked`` whether it is blocked."""

    def __init__(
        self, options: RelayOptions, user: Callable[[PeerKey], Awaitable[bool]], blocked: Callable[[PeerKey], bool]
    ) -> None:
        self.options = options
        self.address = options.listen
        self._user = user
        self._blocked = blocked
        limits = RelayLimits(clients=options.clients, bytes_per_s=options.bytes_per_s)
        self._relay = Relay(entropy, self._refusal, limits)

    async def start(self) -> None:
        """Listen. Raises: UnavailableError."""
        self.address = Address(*await self._relay.listen(self.options.listen.ip, self.options.listen.port))

    async def follow(self, options: RelayOptions) -> None:
        """Serve by changed rules; whoever is not served any more is sent away."""
        self.options = options
        await self._relay.review()

    async def close(self) -> None:
        """Tell the clients, and end."""
        await self._relay.close()

    def figures(self) -> Json:
        """Return how it does, for the operator."""
        now = self._relay.status()
        return {
            "address": str(self.address), "clients": now.clients, "clients_max": self.options.clients,
            "frames": now.frames, "bytes": now.bytes, "dropped": now.dropped, "unknown": now.unknown,
            "refused": now.refused,
        }  # fmt: skip

    async def _refusal(self, key: bytes) -> str:
        who = PeerKey(key)
        if self._blocked(who):
            return "this relay does not serve this key"
        if self.options.serves is RelayFor.USERS and not await self._user(who):
            return "this relay serves the users of its server: connect to that first"
        return ""
