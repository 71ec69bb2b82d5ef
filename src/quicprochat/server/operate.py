"""What the operator may ask a running server; answered through the socket in its home."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from quicprochat import __version__
from quicprochat.adapters.sqlite.ballast import free_bytes
from quicprochat.adapters.system import entropy
from quicprochat.console.local import Json
from quicprochat.console.text import rfc3339
from quicprochat.core.errors import LocalError
from quicprochat.core.ids import KEY_BYTES, PeerKey
from quicprochat.core.store import Scope
from quicprochat.core.time import DAY_MS, Instant, WallTime, plausible
from quicprochat.core.users import User
from quicprochat.server.backup import back_up
from quicprochat.server.federation.exchange import Exchange
from quicprochat.server.federation.figures import domains, federation_figures, peer_figures, row_shown
from quicprochat.server.federation.routing import plain
from quicprochat.server.home_server import HomeServer
from quicprochat.server.members import new_invite

INVITE_DAYS, INVITE_DAYS_MAX = 7, 366
PAGE = 256
"""Users read in one go."""


class Operator:
    """The commands. Each yields the objects of its answer. Raises: QuicprochatError."""

    def __init__(self, server: HomeServer) -> None:
        self._server = server

    def perform(self, command: str, args: Json) -> AsyncIterator[Json]:
        """Carry out a command. Raises: LocalError when there is none of this name."""
        match command:
            case "status":
                return self._status()
            case "users":
                return self._users()
            case "remove":
                return self._remove(_key(args.get("key")))
            case "invite":
                return self._invite(args.get("days", INVITE_DAYS))
            case "backup":
                return self._backup(args.get("file"))
            case "federation status":
                return self._federation()
            case "federation poke":
                return self._poke(args.get("domain", ""))
            case "federation outbox":
                return self._outbox()
            case _:
                raise LocalError(f"there is no command {command[:40]!r}")

    async def _status(self) -> AsyncIterator[Json]:
        yield {**figures(self._server), **await waiting(self._server), **description(self._server)}

    async def _users(self) -> AsyncIterator[Json]:
        users = await self._page(b"")
        while users:
            for user in users:
                yield self._user(user)
            users = await self._page(users[-1].key)

    async def _page(self, after: bytes) -> Sequence[User]:
        return await self._server.service.look(lambda tx: tx.users(after, PAGE))

    async def _remove(self, key: PeerKey) -> AsyncIterator[Json]:
        yield {"public_key": key.hex(), "messages": await self._server.remove(key)}

    async def _invite(self, days: object) -> AsyncIterator[Json]:
        if not isinstance(days, int) or not 1 <= days <= INVITE_DAYS_MAX:
            raise LocalError(f"an invite lives for 1 to {INVITE_DAYS_MAX} days")
        code = new_invite(entropy)
        now = self._server.driver.now()
        expires_at = Instant(now.at + days * DAY_MS)
        await self._server.service.within(lambda tx: self._server.members.invite(tx, code, expires_at, now))
        wall = WallTime(now.wall + days * DAY_MS) if plausible(now.wall) else WallTime(0)
        yield {"invite": code, "expires_at": rfc3339(wall), "days": days}

    async def _backup(self, file: object) -> AsyncIterator[Json]:
        if not isinstance(file, str) or not os.path.isabs(file):
            raise LocalError("a backup needs the absolute path of a file")
        size = await back_up(self._server.driver, self._server.store, Path(file))
        yield {"file": file, "bytes": size}

    def _exchange(self) -> Exchange:
        if self._server.exchange is None:
            raise LocalError("this server does not federate: set federation_enabled, and see docs/federation.md")
        return self._server.exchange

    async def _federation(self) -> AsyncIterator[Json]:
        yield federation_figures(self._exchange())

    async def _poke(self, domain: object) -> AsyncIterator[Json]:
        if not isinstance(domain, str):
            raise LocalError("a domain is written as in example.net")
        exchange = self._exchange()
        for one in [plain(domain)] if domain else list(exchange.options.peers):
            await exchange.poke(one)
            yield peer_figures(exchange, one)

    async def _outbox(self) -> AsyncIterator[Json]:
        exchange = self._exchange()
        for domain in domains(exchange):
            after = 0
            while found := await exchange.rows(after, domain, PAGE):
                for row in found:
                    yield row_shown(row, exchange.now())
                after = found[-1].serial

    def _user(self, user: User) -> Json:
        used = self._server.store.usage(Scope.RECIPIENT, user.key)
        return {
            "public_key": user.key.hex(),
            "name": user.name,
            "first_seen": _seen(user.first_seen),
            "last_seen": _seen(user.last_seen),
            "connected": user.key in self._server.sessions,
            "messages": used.count,
            "bytes": used.bytes,
        }


def _seen(wall: WallTime) -> str | None:
    """Return a moment as it is shown; None for one that was read from a clock that cannot have been right."""
    return rfc3339(wall) if plausible(wall) else None


def _key(text: object) -> PeerKey:
    try:
        key = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise LocalError(
            f"a user is named by its key of {2 * KEY_BYTES} hexadecimal digits; qpc-server users lists them"
        )
    return PeerKey(key)


def description(server: HomeServer) -> Json:
    """Return what a server is."""
    return {
        "version": __version__,
        "address": str(server.address),
        "fingerprint": server.fingerprint.hex(),
        "domain": server.options.domain,
        "epoch": server.epoch.hex(),
        "registration": server.members.rules.registration.value,
    }


def figures(server: HomeServer) -> Json:
    """Return what can be told from memory: asked for often, by whatever watches the server."""
    store, totals = server.store, server.meter.totals()
    mail, receipts, posts = (store.usage(scope) for scope in (Scope.CARRIED, Scope.RECEIPTS, Scope.POSTS))
    return {
        "uptime_s": server.uptime_s,
        "users": store.user_count(),
        "sessions": len(server.sessions),
        "connections": len(server.listener.connections),
        "connections_max": server.options.connections,
        "messages": mail.count,
        "bytes": mail.bytes,
        "bytes_max": server.options.limits.carried_bytes,
        "receipts": receipts.count,
        "channels": {
            "followed": len(store.followed()),
            "follows": store.follow_count(),
            "posts": posts.count,
            "bytes": posts.bytes,
            "bytes_max": server.options.channels.storage,
        },
        "last_minute": {name: by for name, by in sorted(server.meter.last_minute().items()) if "." not in name},
        "totals": {name: by for name, by in sorted(totals.items()) if "." not in name},
        "refused": {**_reasons(totals, "refused"), "handshake": server.listener.refused},
        "deferred": _reasons(totals, "deferred"),
        "disk_free": free_bytes(server.home.path),
        "disk_reserve": server.options.disk_reserve_bytes,
        "disk_low": server.disk_low,
        "relay": server.relay.figures() if server.relay is not None else None,
        "federation": federation_figures(server.exchange) if server.exchange is not None else None,
    }


async def waiting(server: HomeServer) -> Json:
    """Return what needs a look at the whole queue: 0.2 s with a million messages."""

    def look(_: object) -> tuple[int, Instant | None, int]:
        return server.store.recipients(), server.store.first_stored(), server.store.invite_count(now)

    now = server.driver.now().at
    recipients, oldest, invites = await server.driver.aside(look)
    return {
        "recipients": recipients,
        "oldest_s": None if oldest is None else max(0, now - oldest) // 1_000,
        "invites": invites,
    }


def _reasons(totals: dict[str, int], what: str) -> dict[str, int]:
    prefix = what + "."
    return {name.removeprefix(prefix): by for name, by in sorted(totals.items()) if name.startswith(prefix)}
