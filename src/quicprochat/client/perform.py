"""Carry out one request and show its answer: data on standard output, talk on standard error.

Used by one-shot calls and by the prompt alike.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any

from quicprochat.client.catalogue import COMMANDS, Shape
from quicprochat.client.errors import OK, CallError
from quicprochat.client.extra import mesh_installed
from quicprochat.client.grammar import Request
from quicprochat.client.output import display_line, empty, fingerprint_rows, headline, human, plural, table
from quicprochat.client.qr import qr_content, qr_text
from quicprochat.client.session import Session
from quicprochat.client.socket import Json
from quicprochat.client.stdio import Writes, terminal_columns
from quicprochat.console.text import complain, say
from quicprochat.core.channel import check_topic, near_topic
from quicprochat.core.errors import LocalError

__all__ = ["Performer", "complain", "need_mesh", "say"]

LINGER_S = 5.0
"""How long a call that runs its own node stays for the delivery of what it sent."""
WAIT_S = 30.0
DELIVERED = "delivered"
RELAYED = "relayed"
OPEN = ("queued", RELAYED)
OPEN_MAX = 1_000
"""Messages of one prompt whose delivery is waited for when it is left; the last ones."""
READ_AT_ONCE = 256
"""Lines of a history that are noted as read in one call."""
LOST = "with --ephemeral nothing outlives the node"
INSTALL = "install the extra: pip install '.[mesh]' in the source directory, or quicprochat[mesh] from where you got it"


def need_mesh(request: Request) -> None:
    """Refuse what needs links in an installation that has none. Raises: LocalError."""
    if request.mesh and request.command not in ("identity", "server") and not mesh_installed():
        raise LocalError(f"this needs the mesh: {INSTALL}", code="unsupported")


Confirm = Callable[[str], Awaitable[bool]]
"""Shows a person a question, and says whether the answer was yes."""


class Performer:
    """Carries out requests on a session; its answers are JSON, or lines for a person.

    ``confirm`` is None where nobody can be asked.
    """

    def __init__(self, session: Session, out: Writes, *, as_json: bool, confirm: Confirm | None = None) -> None:
        self._session = session
        self._confirm = confirm
        self._out = out
        self._json = as_json
        self._open: deque[str] = deque(maxlen=OPEN_MAX)

    async def perform(self, request: Request) -> int:
        """Carry out a request; return its exit code. Raises: QuicprochatError, BrokenPipeError."""
        command = request.command
        if command == "send":
            return await self._send(request)
        if command == "cancel":
            return await self._cancel(request)
        if command == "broadcast":
            return await self._broadcast(request)
        if command == "history":
            await self._history(request)
            return OK
        if command == "server":
            request = await self._confirmed(request)
        if command == "bundle":
            await self.show(command, await self._session.ask(command, {**request.args, "file": _whole(request)}))
            return OK
        shape = COMMANDS[command].shape
        if shape is Shape.STREAM:
            await self.stream(command, request.args)
        elif shape is Shape.LIST:
            await self._list(command, await self._session.ask_all(command, request.args))
        else:
            item = await self._session.ask(command, request.args)
            if command == "identity" and set(request.args) == {"name"} and not self._json:
                await self._out.write(f"you call yourself {display_line(item['name'], 64) or 'nothing'} now\n")
                return OK
            await self.show(command, item)
            if request.args.get("qr") and not self._json:
                await self._out.write(qr_text(qr_content(command, item), self._out.encoding))
            if command in ("add", "accept") and not self._json:
                say(f"to be sure that it is the right person, compare digits: qpc mesh verify {_typed_name(item)}")
            if command == "verify" and not item["verified"] and not self._json:
                say(f"when they are the same on both sides, then: qpc mesh verify {_typed_name(item)} --confirm")
            if command == "subscribe" and not self._json and (words := _after_joining(item, request.args)):
                say(words)
            if command == "unsubscribe" and item.get("owned") and not self._json:
                say("it was yours: until you are in it again, by an invite from a member, nobody can give it a new key")
            if command == "rotate" and not self._json:
                say(f"who has it: qpc mesh members {display_line(item['topic'], 64)}")
            if command == "invite" and not self._json:
                say(_how_to_use(item))
        return OK

    async def _confirmed(self, request: Request) -> Request:
        """Ask at the first use of a server that announces itself; return the request with what was confirmed.

        Raises: CallError when the answer was no.
        """
        wanted = request.args.get("server", "")
        if self._confirm is None or not wanted or ":" in wanted or {"trust", "off"} & request.args.keys():
            return request
        found = await self._session.ask("announced", {"server": wanted})
        if found["known"]:
            return request
        where = display_line(found["server"])
        question = (
            f"{where} announces itself as a home server{_of(found['domain'])}. Its fingerprint:\n"
            f"{fingerprint_rows(found['spoken'])}\n"
            "Anybody on this network can announce anything. Compare this with what the\n"
            "operator reads to you (qpc-server status). Is it the same?"
        )
        if not await self._confirm(question):
            raise CallError(f"{where} was not confirmed; nothing was sent to it, and nothing has changed", "untrusted")
        return replace(request, args={**request.args, "trust": found["fingerprint"]})

    async def _meant(self, topic: str) -> None:
        """Ask before an open channel is joined: a slip of the finger would say to everybody what was meant for few.

        Raises: CallError when the answer was no, or there is nobody to ask.
        """
        ours = [found["topic"] for found in await self._session.ask_all("channels", {})]
        if topic in ours:
            return
        shown, near = display_line(topic, 64), display_line(near_topic(topic, ours), 64)
        missing = f"you are in no channel {shown}" + (f"; did you mean {near}?" if near else "")
        if self._confirm is None:
            also = " " if near else "; "
            raise CallError(f"{missing}{also}To join or open one, write: qpc mesh subscribe {shown}", "not_found")
        question = (
            f"{missing[0].upper()}{missing[1:]}{'' if near else '.'}\n"
            "Join the open one? Whoever knows or guesses its name reads and writes there."
        )
        if not await self._confirm(question):
            raise CallError("nothing was joined; to make a private channel: qpc mesh subscribe <topic> --key new",
                            "not_found")  # fmt: skip

    async def show(self, command: str, item: Json) -> None:
        """Write one object out."""
        if self._json:
            await self._out.write(json.dumps(item) + "\n")
            return
        above = headline(item)
        await self._out.write(human(command, item) + "\n", headline=above, ring=bool(above) and command == "listen")

    async def join(self, request: Request) -> Json:
        """Subscribe, or go back to a channel; return the answer. A key is shown only when it was just made.

        Raises: CallError when the channel is none of ours and nobody said that an open one is meant.
        """
        if request.args.keys() == {"topic"}:
            await self._meant(check_topic(request.args["topic"]))
        item = await self._session.ask("subscribe", request.args)
        hidden = "key" in item and request.args.get("key") != "new" and not self._json
        await self.show("subscribe", {key: value for key, value in item.items() if key != "key" or not hidden})
        if hidden:
            say(f"to let somebody in: qpc mesh invite {display_line(item['topic'], 64)}")
        return item

    async def stream(self, command: str, args: Json) -> None:
        """Write lines out as they come; each counts as read only then."""
        none = True
        async with self._session.stream(command, args) as lines:
            async for line in lines:
                await self.show(command, line)
                lines.written(line)
                none = False
        if none and not self._json and empty(command):
            say(empty(command))

    async def _history(self, request: Request) -> None:
        """Write a channel's history out; what of it was written counts as read, also when that was not all."""
        shown: set[tuple[Any, ...]] = set()
        written: list[int] = []
        try:
            async with self._session.stream("history", request.args) as lines:
                async for line in lines:
                    same = (line["event"], line["from"], line.get("cursor"), line.get("first"))
                    if same in shown:
                        continue  # the home's next owner begins anew
                    await self.show("history", line)
                    shown.add(same)
                    if "cursor" in line and not line["own"]:
                        written.append(line["cursor"])
                    if len(written) >= READ_AT_ONCE:
                        await self._session.ask("read", {"cursors": written})
                        written.clear()
        finally:
            if written:
                await self._session.ask("read", {"cursors": written})
        if not shown and not self._json:
            say(empty("history"))

    async def _list(self, command: str, items: list[Json]) -> None:
        if self._json:
            await self._out.write(json.dumps(items) + "\n")
            return
        if items:
            await self._out.write(table(command, items, terminal_columns()))
        else:
            say(empty(command))
        if command == "route" and not self._session.hello.networked:
            say("no node with links runs on this home; start one with: qpc daemon")

    # --- sending

    async def _send(self, request: Request) -> int:
        args = dict(request.args)
        until, timeout = args.pop("wait", None), args.pop("timeout", WAIT_S)
        sent = await self._session.ask("send", args)
        if words := vouching(sent, sent["to"]):
            say(words)
        sent = {key: value for key, value in sent.items() if not key.startswith("vouched_")}
        try:
            if until is not None:
                if not self._hopeless:
                    sent = await self._wait(sent["id"], until, timeout)
            elif not self._session.hello.stays and self._session.hello.networked:
                sent = await self._linger(sent["id"])
        except asyncio.CancelledError:
            say(f"no longer waiting; the message {sent['id']} is in the outbox")
            raise
        await self.show("send", sent)
        state = sent["state"]
        if state in (DELIVERED, until):
            return OK
        if state not in OPEN:
            raise _not_delivered(sent)
        self._open.append(sent["id"])
        if self._session.loses_messages and not self._session.hello.stays:
            raise CallError(f"not delivered, and lost now: {LOST}", "timeout")
        if until is not None and self._hopeless:
            raise CallError(f"not {until}, and not waited for: {self._when_it_leaves()}", "timeout")
        if until is not None:
            raise CallError(f"not {until} within {timeout:g} s; the message is {state} and offered on", "timeout")
        if state == RELAYED and not self._session.hello.stays:
            say("a server has a copy; that it was delivered is heard when a node runs on this home: qpc daemon")
        elif when := self._when_it_leaves():
            say(when)
        return OK

    async def _cancel(self, request: Request) -> int:
        sent = await self._session.ask("cancel", request.args)
        await self.show("cancel", sent)
        if sent["state"] != "cancelled":
            raise CallError(f"too late: the message is {sent['state']}", "too_late")
        return OK

    async def _broadcast(self, request: Request) -> int:
        if not request.args.get("text", "").strip():
            raise LocalError("there is no text to post")
        posted = await self._session.ask("broadcast", request.args)
        await self.show("broadcast", posted)
        if self._session.hello.stays:
            if not self._session.hello.networked:
                say("kept; the node of this home has no links, so it goes out when one with links runs")
            return OK

        async def reached(timeout_s: float) -> Json:
            return await self._session.ask("reached", {"id": posted["id"], "timeout": timeout_s})

        count = (await self._stay(reached))["reached"] if mesh_installed() else 0
        if count and not self._json:
            say(f"taken by {plural(count, 'other')} so far")
        if not count:
            if self._session.loses_messages:
                raise CallError(f"nobody else has it, and it is lost now: {LOST}", "timeout")
            say("kept; it goes to subscribers that link when a node runs on this home: qpc daemon")
        return OK

    async def _wait(self, id: str, until: str, timeout_s: float) -> Json:
        return await self._session.ask("wait", {"id": id, "until": until, "timeout": timeout_s})

    async def _linger(self, id: str) -> Json:
        return await self._stay(lambda timeout_s: self._wait(id, DELIVERED, timeout_s))

    async def _stay(self, wait: Callable[[float], Coroutine[Any, Any, Json]]) -> Json:
        """Stay for a delivery: not for long, and only until somebody wants to run a node on this home."""
        waiting = asyncio.create_task(wait(LINGER_S))
        leaving = asyncio.create_task(self._session.leave.wait())
        try:
            await asyncio.wait((waiting, leaving), return_when=asyncio.FIRST_COMPLETED)
            return waiting.result() if waiting.done() else await wait(0)
        finally:
            for task in (waiting, leaving):
                task.cancel()
            await asyncio.wait((waiting, leaving))

    @property
    def _hopeless(self) -> bool:
        """True when nothing can leave while we wait: no links in this installation, and no home server is chosen.

        A call that owns the home for a moment only has no say in that.
        """
        owner = self._session.hello
        settled = self._session.node is not None or owner.stays
        return settled and not owner.networked and not mesh_installed()

    def _when_it_leaves(self) -> str:
        owner = self._session.hello
        if not mesh_installed() and not owner.networked:
            return f"kept; it leaves when a node with links runs on this home: {INSTALL}, then qpc daemon"
        if not owner.stays:
            return "kept; it leaves when a node runs on this home: qpc daemon"
        if not owner.networked:
            return "kept; the node of this home has no links, so it leaves when one with links runs"
        return ""

    def follow(self, id: str) -> None:
        """Take a message that was sent elsewhere into what :meth:`finish` waits for."""
        self._open.append(id)

    async def finish(self) -> None:
        """Before a node of ours ends: stay a little for what was sent and not delivered yet."""
        if self._session.node is None or not self._open:
            return
        if self._session.node.networked:
            say(f"waiting up to {LINGER_S:g} s for delivery")
            results = await asyncio.gather(*(self._linger(id) for id in self._open))
            self._open = deque(sent["id"] for sent in results if sent["state"] in OPEN)
        if self._open:
            fate = f"lost: {LOST}" if self._session.loses_messages else "kept until a node runs on this home again"
            say(f"not delivered: {plural(len(self._open), 'message')}, {fate}")


def _after_joining(item: Json, args: Json) -> str:
    topic = display_line(item["topic"], 64)
    if "key" in item and item["kind"] == "private":
        return (
            "whoever has this key reads and writes here; hand it over where nobody else hears it, or better an invite: "
            f"qpc mesh invite {topic}"
        )
    if item["kind"] != "open" and "invite" not in args and "key" not in args:
        return f"to let somebody in: qpc mesh invite {topic}"
    return ""


def _how_to_use(item: Json) -> str:
    how = " --passphrase, and tell them the passphrase by another way" if item["passphrase"] else ""
    topic = display_line(item["topic"], 64)
    return (
        "whoever has it is let in; hand it over where nobody else hears it: "
        f"qpc mesh subscribe {topic} --invite STRING{how}"
    )


def _of(domain: str) -> str:
    return f" of {display_line(domain, 64)}" if domain else ""


def vouching(item: Json, key: str) -> str:
    """Return what to say of a name that is only a domain's word, "" where it is more than that."""
    if not item.get("vouched_by"):
        return ""
    by = display_line(item["vouched_by"], 64)
    return (
        f"vouched for by {by} only, as the key with the digits {item['vouched_for']}; "
        f"to be sure who that is: qpc mesh verify {key[:16]}"
    )


def _typed_name(peer: Json) -> str:
    """Return what names a peer in a command that may be copied: its name where every shell takes it for one word."""
    name = str(peer["name"])
    plain = peer["contact"] and name.isascii() and name.replace("-", "").replace("_", "").isalnum() and name[0] != "-"
    return name if plain else str(peer["public_key"][:16])


def _whole(request: Request) -> str:
    """Return a file's whole path: the node that answers may stand in another directory."""
    return os.path.abspath(os.path.expanduser(str(request.args["file"])))


def _not_delivered(sent: Json) -> CallError:
    match sent["state"]:
        case "expired":
            return CallError("its time is over and nobody confirmed it; it may have arrived all the same", "expired")
        case "cancelled":
            return CallError("the message was cancelled", "cancelled")
        case state:
            return CallError(f"the message {state}: {sent['reason'] or 'no reason given'}", "failed")
