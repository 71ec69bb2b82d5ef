"""Every command, run against a node: a request's arguments in, JSON objects out.

The same functions answer the home's socket, a call that runs a node of its own, and the prompt.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

from quicprochat.client.passphrase import TYPED
from quicprochat.client.shapes import (
    Json,
    channel_object,
    exported_object,
    gap_object,
    identity_object,
    imported_object,
    line_object,
    member_object,
    outbox_object,
    peer_object,
    posted_object,
    posters_object,
    reachability_object,
    rfc3339,
    rotation_object,
    route_object,
    sent_object,
    server_object,
    standing_object,
    status_object,
    store_object,
    trace_object,
)
from quicprochat.client.socket import READ_MAX
from quicprochat.console.when import moment
from quicprochat.core.channel import Access
from quicprochat.core.envelope import TTL_DEFAULT_S
from quicprochat.core.errors import LocalError, QuicprochatError, UnavailableError
from quicprochat.core.identity import KEY_PREFIX_MIN, fingerprint, parse_key
from quicprochat.core.ids import PeerKey
from quicprochat.core.receipt import State
from quicprochat.core.store import Line, LineKind
from quicprochat.core.time import WallTime
from quicprochat.p2p import P2pNode
from quicprochat.p2p.announced import spoken
from quicprochat.p2p.channels import NEW_KEY
from quicprochat.p2p.history import Missing

PAGE = 256
"""Lines of the inbox read in one transaction: bounds how long a long inbox holds up everybody else."""

OUTBOX_MAX = 1_000
"""Messages that ``outbox`` lists; the newest."""
EXPORT_PART_BYTES = 1 << 20
"""Of an exported identity in one line of the socket."""
HISTORY_SHOWN = 100
"""Posts that ``history`` shows where nobody says how many."""
WATCH_EVERY_S = 0.25
"""At most so often the state is told to one watcher."""

Answer = AsyncGenerator[Json, None]


class Args:
    """The arguments of a request, which may come from any program of the same user. Raises: LocalError."""

    def __init__(self, values: object) -> None:
        if not isinstance(values, dict):
            raise LocalError("the arguments of a request are an object")
        self._values: dict[str, Any] = values

    def text(self, key: str) -> str:
        """Return a text that must be there."""
        value = self.optional(key)
        if value is None:
            raise LocalError(f"the request lacks {key!r}")
        return value

    def optional(self, key: str) -> str | None:
        """Return a text, or None."""
        value = self._values.get(key)
        if value is not None and not isinstance(value, str):
            raise LocalError(f"{key!r} is a text")
        return value

    def number(self, key: str, default: int) -> int:
        """Return a whole number that is not negative."""
        value = self._values.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
            raise LocalError(f"{key!r} is a whole number")
        return value

    def seconds(self, key: str) -> float | None:
        """Return a duration, or None."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e9:
            raise LocalError(f"{key!r} is a number of seconds")
        return float(value)

    def numbers(self, key: str, most: int) -> list[int]:
        """Return a list of at most so many whole numbers; an empty one where there is none."""
        found = self._values.get(key, [])
        if not isinstance(found, list) or len(found) > most:
            raise LocalError(f"{key!r} is a list of at most {most}")
        return [Args({key: value}).number(key, 0) for value in found]

    def beginning(self, key: str, now: WallTime) -> tuple[int, WallTime | None]:
        """Return after which cursor, or from which moment on; a cursor is a number, a moment a text."""
        value = self._values.get(key)
        if not isinstance(value, str):
            return self.number(key, 0), None
        since = moment(value, now)
        if since is None:
            raise LocalError(f"{value[:40]!r} is neither a cursor nor a time")
        return 0, since

    def flag(self, key: str) -> bool:
        """Return a switch."""
        return self._values.get(key) is True


def answer(node: P2pNode, command: str, values: object) -> Answer:
    """Start a command. Raises: LocalError when there is none of this name, or its arguments are wrong."""
    handler = HANDLERS.get(command)
    if handler is None:
        raise LocalError(f"the node that owns this home knows no command {command!r}", code="unsupported")
    return handler(node, Args(values))


# --- ourselves


async def identity(node: P2pNode, args: Args) -> Answer:
    """Show who we are; with a name, first change what we call ourselves."""
    if args.optional("action") is not None:
        raise LocalError(
            "an identity is moved from the shell, where a passphrase can be asked for: qpc identity --help"
        )
    name = args.optional("name")
    if name is not None:
        await node.rename(name)
    contacts = [peer for peer in await node.peers() if peer.contact]
    yield identity_object(
        node.key, node.name, node.fingerprint(), str(node.ticket()), node.addresses(), contacts, node.alarms
    )


async def export(node: P2pNode, args: Args) -> Answer:
    """Give our identity away, sealed with a passphrase; no command of its own, but a part of identity."""
    data = await node.export(args.text("passphrase"))
    for start in range(0, len(data), EXPORT_PART_BYTES):
        yield {"data": base64.b64encode(data[start : start + EXPORT_PART_BYTES]).decode("ascii")}


async def store(node: P2pNode, args: Args) -> Answer:
    """Show what the store holds."""
    yield store_object(await node.store_view())


async def route(node: P2pNode, args: Args) -> Answer:
    """List the ways to other peers."""
    for found in node.routes():
        yield route_object(found, node.contact(found.destination))


async def doctor(node: P2pNode, args: Args) -> Answer:
    """Show what the node knows of reaching others; a part of the command, which looks at the machine as well."""
    yield reachability_object(await node.reachability(args.seconds("timeout") or 0.0))


# --- people


async def peers(node: P2pNode, args: Args) -> Answer:
    """List peers and announced servers, perhaps after giving them some time to be found."""
    scan = args.seconds("scan")
    if scan:
        await asyncio.sleep(scan)
    for peer in await node.peers():
        yield peer_object(peer)
    for found in node.servers():
        yield server_object(found)


async def server(node: P2pNode, args: Args) -> Answer:
    """Choose the home server, or show how we stand with it."""
    wanted, trust = args.optional("server"), args.optional("trust")
    found = node.server()
    if args.flag("off"):
        found = await node.use_server("")
    elif wanted is not None or trust is not None:
        found = await node.use_server(wanted or found.server, trust=_fingerprint(trust))
    if found.standing == "untrusted" and isinstance(found.trouble, QuicprochatError):
        raise found.trouble
    yield standing_object(found)


async def register(node: P2pNode, args: Args) -> Answer:
    """Become a user of the home server, or take a name there."""
    name, invite = args.optional("name") or "", args.optional("invite") or ""
    if not name and not invite:
        raise LocalError("a name or an invitation is needed; write: qpc register NAME, or qpc register --invite CODE")
    name, domain = await node.register(name, invite)
    yield {"name": name, "domain": domain, "public_key": node.key.hex()}


async def announced(node: P2pNode, args: Args) -> Answer:
    """Show the announced server that is meant, for a person to decide; no command of its own, but a part of server."""
    found = await node.find_server(args.text("server"))
    yield {
        "server": found.server, "domain": found.domain, "fingerprint": found.fingerprint.hex(),
        "spoken": spoken(found.fingerprint), "known": found.known,
    }  # fmt: skip


def _fingerprint(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        digits = bytes.fromhex(text)
    except ValueError:
        digits = b""
    if len(digits) != 32:
        raise LocalError("a server's fingerprint has 64 hexadecimal digits; its operator's qpc-server status shows it")
    return digits


async def add(node: P2pNode, args: Args) -> Answer:
    """Add a contact."""
    yield peer_object(await node.add(args.text("contact"), args.optional("name")))


async def verify(node: P2pNode, args: Args) -> Answer:
    """Show the digits of two keys, or note that they were compared."""
    scanned = args.optional("scanned") or ""
    peer, digits = await node.verify(args.text("peer"), confirmed=args.flag("confirm"), scanned=scanned)
    yield {**peer_object(peer), "fingerprint": digits, **_vouched(node, args.text("peer"), peer.key)}


async def block(node: P2pNode, args: Args) -> Answer:
    """Refuse a peer."""
    yield peer_object(await node.block(args.text("peer")))


async def unblock(node: P2pNode, args: Args) -> Answer:
    """Refuse a peer no longer."""
    yield peer_object(await node.block(args.text("peer"), blocked=False))


async def requests(node: P2pNode, args: Args) -> Answer:
    """List strangers whose messages are not accepted yet."""
    names = {peer.key: peer.name for peer in await node.peers()}
    for key, (count, last) in (await _requests(node)).items():
        contact = node.contact(key)
        if contact is not None and contact.blocked:
            continue
        yield {
            "public_key": key.hex(),
            "name": names.get(key, ""),
            "messages": count,
            "received_at": rfc3339(last.at),
        }


async def accept(node: P2pNode, args: Args) -> Answer:
    """Make a contact of a stranger who wrote."""
    wanted = args.text("peer")
    found = [key for key in await _requests(node) if key.hex().startswith(wanted.lower())]
    one = len(wanted) >= KEY_PREFIX_MIN and len(found) == 1
    key = found[0] if one else await node.resolve(wanted)
    yield peer_object(await node.add(key.hex(), args.optional("name")))


async def _requests(node: P2pNode) -> dict[PeerKey, tuple[int, Line]]:
    """Return the authors of requests, how many each wrote, and the last."""
    found: dict[PeerKey, tuple[int, Line]] = {}
    async for line in _pages(node, 0, None):
        if line.request:
            found[line.peer] = (found[line.peer][0] + 1 if line.peer in found else 1, line)
    return found


# --- messages


async def send(node: P2pNode, args: Args) -> Answer:
    """Put a message into the outbox."""
    ttl = args.number("ttl", TTL_DEFAULT_S)
    text = args.text("text")
    sent = await node.send(args.text("peer"), text, ttl_s=ttl, require_fs=args.flag("require_fs"))
    yield {**sent_object(sent), **_vouched(node, args.text("peer"), sent.to)}


def _vouched(node: P2pNode, peer: str, key: PeerKey) -> Json:
    """Return whose word alone it is that a name means this key, and the key's own digits; nothing where it is ours."""
    name, at, domain = peer.rpartition("@")
    if not at or parse_key(name) is not None or node.contact(key) is not None:
        return {}
    return {"vouched_by": domain, "vouched_for": fingerprint(key)}


async def wait(node: P2pNode, args: Args) -> Answer:
    """Return a message as it is once it is in a state, or after a time; no command of its own, but a part of send."""
    uid = await node.find_sent(args.text("id"))
    until = State.RELAYED if args.optional("until") == State.RELAYED.value else State.DELIVERED
    with suppress(TimeoutError):
        await node.wait(uid, until, args.seconds("timeout"))
    yield sent_object(await node.sent(uid))


async def outbox(node: P2pNode, args: Args) -> Answer:
    """List our messages that wait to be confirmed."""
    for sent in await node.outbox(limit=OUTBOX_MAX):
        yield outbox_object(sent, node.contact(sent.to))


async def cancel(node: P2pNode, args: Args) -> Answer:
    """Stop offering a message."""
    yield sent_object(await node.cancel(await node.find_sent(args.text("id"))))


async def trace(node: P2pNode, args: Args) -> Answer:
    """Show what happened to a message."""
    server = node.server()

    def name(carrier: str) -> str:
        if carrier and carrier == server.fingerprint:
            return f"your home server {server.domain or server.server}"
        key = parse_key(carrier)
        contact = node.contact(key) if key is not None else None
        return contact.name if contact is not None else ""

    yield trace_object(await node.trace(await node.find_sent(args.text("id"))), name)


async def inbox(node: P2pNode, args: Args) -> Answer:
    """Show received messages."""
    peer = args.optional("peer")
    key = await node.resolve(peer) if peer is not None else None
    async for line in _pages(node, args.number("since", 0), key):
        yield _line(node, line)


def _line(node: P2pNode, line: Line) -> Json:
    return line_object(line, node.key, node.contact(line.peer), node.channel(line.channel))


async def _pages(node: P2pNode, after: int, peer: PeerKey | None) -> AsyncGenerator[Line, None]:
    while page := await node.inbox(after=after, peer=peer, limit=PAGE):
        for line in page:
            yield line
        after = page[-1].cursor


async def watch(node: P2pNode, args: Args) -> Answer:
    """Show the node's state, then again whenever it changed; no command of its own, but the prompt's status line."""
    shown: Json | None = None
    while not node.stopping:
        status = await node.status()
        if (now := status_object(status)) != shown:
            yield now
            shown = now
        await node.news(status)
        await asyncio.sleep(WATCH_EVERY_S)
    await node.failed()
    raise UnavailableError("the node has stopped")


async def listen(node: P2pNode, args: Args) -> Answer:
    """Show what is unread, then what comes; whoever asked says which lines were written out.

    ``after`` is the last line that was written out already, for an owner that ended before it could note that;
    ``kept`` are those before it that were not.
    """
    left, timeout, written = args.number("count", 0), args.seconds("timeout"), args.number("after", 0)
    kept = frozenset(args.numbers("kept", READ_MAX))
    counting = left > 0
    async with aclosing(node.listen(timeout)) as lines:
        async for line in lines:
            if line.cursor <= written and line.cursor not in kept:
                await node.read((line.cursor,))
                continue
            left -= line.kind is not LineKind.RECEIPT
            yield _line(node, line)
            if counting and not left:
                return
    if node.stopping:
        await node.failed()
        raise UnavailableError("the node has stopped")
    if counting:
        raise LocalError(f"{left} of the messages did not come in time", code="timeout")


async def bundle(node: P2pNode, args: Args) -> Answer:
    """Write what waits into a file, or take such a file in."""
    file, peer = Path(args.text("file")), args.optional("for")
    if not file.is_absolute():
        raise LocalError("the file of a bundle is named with its whole path")
    if args.text("action") == "export":
        yield exported_object(await node.write_bundle(file, await node.resolve(peer) if peer is not None else None))
    elif peer is not None:
        raise LocalError("--for belongs to bundle export: an import takes all that is in the file")
    else:
        yield imported_object(await node.read_bundle(file))


# --- channels


async def subscribe(node: P2pNode, args: Args) -> Answer:
    """Join a channel, or go to the one we are in; the key is shown where it was made here, or nothing was given."""
    topic, key, invite = args.text("topic"), args.optional("key"), args.optional("invite")
    if args.flag("passphrase") or invite == TYPED:
        raise LocalError(f"this is asked for in the shell, where it can be typed unseen: qpc mesh subscribe {topic} …")
    if invite == "":
        raise LocalError("the invite is empty")
    passphrase, announce = args.optional("passphrase"), args.flag("announce")
    channel = await node.subscribe(topic, key, invite=invite or "", passphrase=passphrase, announce=announce)
    views = {view.channel.id: view for view in await node.channel_views()}
    shown = key in (None, NEW_KEY) and not invite and passphrase is None
    yield {
        **channel_object(channel, views.get(channel.id)),
        **({"key": channel.secret.hex()} if channel.kind is Access.PRIVATE and shown else {}),
    }


async def invite(node: P2pNode, args: Args) -> Answer:
    """Show the invite to a channel."""
    found = node.invite(args.text("topic"))
    yield {
        "channel": found.id.hex(), "topic": found.topic, "kind": found.kind.value, "invite": str(found),
        "passphrase": bool(found.salt), "owner": found.owner.hex() or None,
    }  # fmt: skip


async def members(node: P2pNode, args: Args) -> Answer:
    """List who is in a channel."""
    for view in await node.members(args.text("topic")):
        yield member_object(view, node.name if view.me else _called(node, view.key))


async def posters(node: P2pNode, args: Args) -> Answer:
    """List who posts into an announcement channel, perhaps after changing that."""
    action, peer = args.optional("action"), args.optional("peer")
    if action not in (None, "add", "remove") or (action is None) != (peer is None):
        raise LocalError("write: qpc mesh posters <topic> add <peer>, or remove <peer>, or only the topic")
    peers = [await _member(node, args.text("topic"), peer)] if peer is not None else []
    added, removed = (peers, []) if action == "add" else ([], peers)
    view = await node.posters(args.text("topic"), added, removed)
    yield posters_object(view, lambda key: node.name if key == node.key else _called(node, key))


async def rotate(node: P2pNode, args: Args) -> Answer:
    """Give a channel of ours a new key."""
    without = args.optional("without")
    left_out = [await _member(node, args.text("topic"), without)] if without is not None else []
    yield rotation_object(await node.rotate(args.text("topic"), left_out), lambda key: _called(node, key))


async def mute(node: P2pNode, args: Args) -> Answer:
    """Hear of a channel no more."""
    found = await node.mute(args.text("topic"))
    yield {**channel_object(found.channel), "muted": found.muted}


async def unmute(node: P2pNode, args: Args) -> Answer:
    """Hear of a channel again."""
    found = await node.mute(args.text("topic"), muted=False)
    yield {**channel_object(found.channel), "muted": found.muted}


async def _member(node: P2pNode, topic: str, peer: str) -> PeerKey:
    """Return whom a person means: a member by the first digits of its key, or any peer as elsewhere."""
    if len(peer) >= KEY_PREFIX_MIN:
        found = [m.key for m in await node.members(topic) if m.key.hex().startswith(peer.lower())]
        if len(found) == 1:
            return found[0]
    return await node.resolve(peer)


def _called(node: P2pNode, key: PeerKey) -> str:
    contact = node.contact(key)
    return contact.name if contact is not None else ""


async def unsubscribe(node: P2pNode, args: Args) -> Answer:
    """Leave a channel."""
    channel = await node.unsubscribe(args.text("topic"))
    yield {**channel_object(channel), "owned": channel.owner == node.key}


async def channels(node: P2pNode, args: Args) -> Answer:
    """List the channels we are in."""
    for view in await node.channel_views():
        yield channel_object(view.channel, view)


async def history(node: P2pNode, args: Args) -> Answer:
    """Show a channel's posts in the order of cause, and what is missing; ``read`` is told what was written out."""
    topic, count = args.text("topic"), args.number("count", 0) or None
    after, since = args.beginning("since", node.wall())
    if count is None and after == 0 and since is None:
        count = HISTORY_SHOWN
    lines = node.history(topic, after=after, since=since, unread=args.flag("unread"), count=count)
    async with aclosing(lines):
        async for line in lines:
            if isinstance(line, Missing):
                yield gap_object(line, node.contact(line.author), node.channel(line.channel))
            else:
                yield _line(node, line)


async def read(node: P2pNode, args: Args) -> Answer:
    """Note lines as written out; no command of its own, but a part of history."""
    await node.read(args.numbers("cursors", READ_MAX))
    yield {}


async def broadcast(node: P2pNode, args: Args) -> Answer:
    """Post into a channel."""
    yield posted_object(await node.broadcast(args.text("topic"), args.text("text")))


async def reached(node: P2pNode, args: Args) -> Answer:
    """Return how many neighbours have a post, once one has it or after a time; no command, but a part of broadcast."""
    yield {"reached": await node.reached(await node.find_sent(args.text("id")), args.seconds("timeout"))}


HANDLERS: dict[str, Callable[[P2pNode, Args], Answer]] = {
    command.__name__: command
    for command in (
        identity, export, store, route, peers, server, announced, add, verify, block, unblock, requests, accept, send,
        wait, outbox, cancel, trace, bundle, inbox, listen, subscribe, invite, members, posters, rotate, mute,
        unmute, unsubscribe, channels, broadcast, reached, watch, register, doctor, history, read,
    )
}  # fmt: skip
