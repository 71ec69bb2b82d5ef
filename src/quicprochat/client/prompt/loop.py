"""The prompt's three tasks: what arrives, what the node's state is, and what is typed; and the screen they share."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from dataclasses import replace
from typing import Any, TextIO, assert_never

from prompt_toolkit.output import ColorDepth

from quicprochat import __version__
from quicprochat.client.errors import OK, CallError, code_of
from quicprochat.client.grammar import Request
from quicprochat.client.output import display_line, empty, place, plural
from quicprochat.client.perform import Performer, need_mesh, vouching
from quicprochat.client.prompt import render
from quicprochat.client.prompt.above import talk_above
from quicprochat.client.prompt.completion import Known, LineCompleter
from quicprochat.client.prompt.history import NAME, HomeHistory
from quicprochat.client.prompt.near import Near
from quicprochat.client.prompt.screen import Screen
from quicprochat.client.prompt.status import status_line
from quicprochat.client.prompt.terminal import Terminal, standard_encoding
from quicprochat.client.prompt.transcript import Transcript
from quicprochat.client.prompt.words import (
    Conversation,
    Help,
    Join,
    Kind,
    Leave,
    Meaning,
    Post,
    Quit,
    Run,
    Say,
    is_yes,
    leaves,
    moves,
    quoted,
    understand,
)
from quicprochat.client.session import Session
from quicprochat.client.settings import Settings
from quicprochat.client.stdio import STDOUT
from quicprochat.core.errors import LocalError, QuicprochatError, StoreError

Json = dict[str, Any]

LEAVE_S = 5.0
"""How long what was typed last may take once the terminal has gone."""
LINES_WAITING_MAX = 64
"""Typed lines that wait for a command under way."""
PEERS_EVERY_S = 1.0
MANY_PEERS_EVERY_S = 30.0
"""At most so often the list of peers is asked for when links come and go, by how hard the node has to look."""
MANY_PEERS = 200
UNREAD_SHOWN = 100
"""Unread posts of a channel that are shown to who goes there, the newest."""
ECHO_CHARS = 200
"""Of a typed line that is shown again."""
ANSWER = "yes/no> "
NOBODY = (
    "Nobody is in your address book yet. /identity shows your ticket for others; theirs you take in with:"
    " /add <ticket> --name <name>"
)
CHANGES_PEERS = frozenset({"add", "accept", "block", "unblock", "trust", "untrust", "verify", "identity"})


def _name_of(peer: Json) -> str:
    named = peer["contact"] and peer["name"]
    return display_line(peer["name"], 64) if named else str(peer["public_key"][:16])


async def prompt(settings: Settings) -> int:
    """Talk until ``/quit``, the end of input, or the terminal's. Raises: QuicprochatError."""
    async with Session(settings, stays=True, network=True) as session:
        loop = Loop(session, settings, Terminal(STDOUT, standard_encoding()), sys.stdin)
        await loop.run()
        await loop.finish()
    return OK


class Loop:
    """One prompt on one session."""

    def __init__(self, session: Session, settings: Settings, terminal: Terminal, stdin: TextIO) -> None:
        self._session = session
        self._known = Known()
        self._transcript = Transcript(session, self._known, self._here)
        self._history = HomeHistory(None if settings.ephemeral else settings.home / NAME)
        self._current: Conversation | None = None
        self._status: Json | None = None
        self._alarms: list[Json] = []
        self._typed: asyncio.Queue[str] = asyncio.Queue()
        self._busy = ""
        self._working: asyncio.Task[None] | None = None
        self._ask_peers, self._changed = asyncio.Event(), asyncio.Event()
        self._near = Near()
        self._asked: asyncio.Future[str] | None = None
        self._linked: set[str] | None = None
        self.screen = Screen(
            terminal,
            stdin,
            completer=LineCompleter(self._known),
            history=self._history,
            accept=self._accept,
            interrupt=self._interrupt,
            prompt=self._prompt,
            live=self._transcript.live,
            status=lambda behind, block, width: status_line(
                self._status, self._current, behind, block, self._busy, width, away=self._away()
            ),
            color_depth=ColorDepth.DEPTH_1_BIT if os.environ.get("NO_COLOR") else None,
            term=os.environ.get("TERM"),
        )
        self._transcript.screen = self.screen
        self.performer = Performer(session, self.screen, as_json=False, confirm=self._ask)

    async def run(self) -> None:
        """Run until the person leaves. Raises: QuicprochatError that ended the session."""
        with talk_above(self.screen):
            await self._greet()
            drawing = asyncio.create_task(self.screen.run())
            others = [
                asyncio.create_task(work)
                for work in (self._transcript.listen(), self._watch(), self._work(), self._peers())
            ]
            try:
                await asyncio.wait((drawing, *others), return_when=asyncio.FIRST_COMPLETED)
                with suppress(TimeoutError):  # what was typed before the terminal hung up
                    async with asyncio.timeout(LEAVE_S if drawing.done() else 0):
                        await self._typed.join()
            finally:
                self.screen.leave()
                await asyncio.wait((drawing,))
                working = [self._working] if self._working is not None else []
                self._transcript.end()
                ending = (*others, *working)
                for task in ending:
                    task.cancel()
                await asyncio.wait(ending)
        drawing.result()
        for task in others:
            if not task.cancelled():
                task.result()  # raises what ended it: without news, there is no point in going on

    async def finish(self) -> None:
        """Stay a little for what was sent and is not delivered yet, where its node ends with the prompt."""
        with suppress(QuicprochatError):  # it comes again then
            await self._transcript.note_read()
        for id in self._transcript.open():
            self.performer.follow(id)
        await self.performer.finish()

    async def _greet(self) -> None:
        me = await self._session.ask("identity", {})
        name = display_line(me["name"], 64)
        text = f"qpc {__version__}: you are {name or me['public_key'][:16]}. /help shows the commands, /quit leaves."
        self._note(text, "")
        if not name:
            self._note("Choose what you are called: /nick <name>")
        if not me["peers"]:
            self._note(NOBODY)

    def _note(self, text: str, style: str = "class:note") -> None:
        self.screen.show(render.note(text, self.screen.width, style))

    # --- the node's state

    async def _watch(self) -> None:
        try:
            async with self._session.stream("watch", {}) as news:
                async for status in news:
                    before, self._status = self._status, status
                    if before is None or before.get("changes") != status.get("changes"):
                        self._changed.set()
                        self._ask_peers.set()
                    elif before["links"] != status["links"]:
                        self._ask_peers.set()
                    self._tell_alarms(status)
                    self.screen.refresh()
        except QuicprochatError as error:
            if code_of(error) != "unsupported":
                raise
        await asyncio.Event().wait()  # an owner of an older version has no news of this kind

    def _tell_alarms(self, status: Json) -> None:
        """Show what the owner of the home must be told; a node of our own says it in its log."""
        alarms = status["alarms"]
        if self._session.node is None:
            for alarm in alarms:
                if alarm not in self._alarms:
                    self._note(alarm["text"], "class:trouble")
        self._alarms = alarms

    async def _peers(self) -> None:
        with suppress(LocalError, CallError):  # an owner of an older version has no such list
            for waiting in await self._session.ask_all("outbox", {}):
                if waiting["id"] not in self._known.messages:
                    self._known.sent(waiting["id"], render.peer_name(waiting, "to"), waiting["text"])
        while True:
            await self._ask_peers.wait()
            self._ask_peers.clear()
            self._changed.clear()
            count = await self._learn_peers()
            await self._learn_channels()
            await asyncio.sleep(PEERS_EVERY_S)
            if count >= MANY_PEERS:
                with suppress(TimeoutError):  # what the person did is not waited with
                    await asyncio.wait_for(self._changed.wait(), MANY_PEERS_EVERY_S)

    async def _learn_peers(self) -> int:
        """Ask who is known, and take names, links and news from it; return how many there are."""
        peers = await self._session.ask_all("peers", {})
        self._known.learn_peers(peers)
        self._linked = {peer["public_key"] for peer in peers if peer["linked"]}
        for peer in peers:
            self._rename_current(peer)
        for sentence in self._near.news(peers):
            self._note(sentence)
        self.screen.refresh()
        return len(peers)

    def _rename_current(self, peer: Json) -> None:
        current = self._current
        if current is None or current.kind is not Kind.PEER or current.target != peer["public_key"]:
            return
        name = _name_of(peer)
        if name != current.name:
            self._transcript.rename(current.name, name)
            self._current = replace(current, name=name)

    async def _learn_channels(self) -> None:
        """Ask which channels we are in: another process of the same home may have joined or left some."""
        current, working = self._current, self._working
        found = {render.topic(item): item for item in await self._session.ask_all("channels", {})}
        self._known.learn_topics(found)
        if current is None or current.kind is not Kind.CHANNEL or self._current is not current:
            return
        if current.target in found:
            self._current = replace(current, name=place(found[current.target]))
        elif working is None and self._working is None:
            self._current = None
            self._note(f"another program left {current.name}; plain lines go to nobody now")
        self.screen.refresh()

    def _away(self) -> bool:
        current = self._current
        if self._linked is None or current is None or current.kind is not Kind.PEER:
            return False
        return current.target not in self._linked

    # --- what is typed

    async def _ask(self, question: str) -> bool:
        """Show a question; the next line is its answer, and not one that was typed before it could be read."""
        shown = asyncio.Event()
        self.screen.show(render.talk(question, self.screen.width), shown.set)
        await shown.wait()
        self._asked = asyncio.get_running_loop().create_future()
        try:
            self.screen.refresh()
            return is_yes(await self._asked)
        finally:
            self._asked = None
            self.screen.refresh()

    def _prompt(self) -> str:
        if self._asked is not None:
            return ANSWER
        return f"[{self._current.name}] " if self._current is not None else "> "

    def _accept(self, line: str) -> None:
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(line)
            if line.strip() != "/quit":
                return
        if self._typed.qsize() >= LINES_WAITING_MAX:
            self._note("too many lines wait for the command under way; this one was dropped", "class:trouble")
            return
        self._typed.put_nowait(line)

    def _interrupt(self) -> bool:
        if self._working is None:
            return False
        self._working.cancel()
        return True

    async def _work(self) -> None:
        while True:
            line = await self._typed.get()
            working = self._working = asyncio.create_task(self._carry_out(line))
            await asyncio.wait((working,))
            self._working, self._busy = None, ""
            self._typed.task_done()
            self.screen.refresh()
            if not working.cancelled():
                working.result()

    async def _carry_out(self, line: str) -> None:
        before, meaning = self._current, None
        try:
            meaning = understand(line, self._current, self.screen.width - 1)
            if meaning is None:
                return
            if await self._do(meaning, line) and not isinstance(meaning, Quit):
                self._history.keep(line)
        except StoreError:
            raise
        except QuicprochatError as error:
            back = self._put_back(line, meaning, before)
            if meaning is None or (isinstance(meaning, Say) and not back):
                self._echo(line)
            self._note(str(error), "class:trouble")
            self._not_moved(line, before)
        except asyncio.CancelledError:
            self._not_moved(line, before)
            raise

    def _put_back(self, line: str, meaning: Meaning | None, before: Conversation | None) -> bool:
        """Put a line with a text that was refused back as it was typed, unless it would mean something else now.

        Returns: whether it is back.
        """
        text = meaning.text if isinstance(meaning, Say) else isinstance(meaning, Post)
        plain = not line.startswith("/") or line.startswith("//")
        back = bool(text) and self._typed.empty() and not (plain and self._current != before)
        if back:
            self.screen.put_back(line)
        return back

    def _not_moved(self, line: str, before: Conversation | None) -> None:
        """Leave the conversation that a line was to change and did not: the next line is not meant for it."""
        if before is not None and self._current is before and moves(line):
            self._current = None
            self._note(f"you are in no conversation now; {before.name} was left, so that no line goes there by mistake")

    async def _do(self, meaning: Meaning, line: str) -> bool:
        """Do it; say whether it worked."""
        match meaning:
            case Quit():
                self._transcript.settle()
                self.screen.leave()
            case Help():
                await self.screen.write(meaning.text)
            case Leave():
                self._part()
            case Say():
                await self._talk_to(meaning)
            case Join():
                self._echo(line)
                await self._join(meaning)
            case Post():
                await self._post(meaning.request)
            case Run():
                return await self._run(meaning.request, line) == OK
            case _:
                assert_never(meaning)
        return True

    async def _talk_to(self, meaning: Say) -> None:
        current = self._current
        if current is not None and current.kind is Kind.PEER and meaning.to == current.target:
            await self._transcript.say(current.target, current.name, meaning.text)
            return
        peer = await self._session.ask("verify", {"peer": meaning.to})
        key = peer["public_key"]
        name = _name_of(peer)
        if words := vouching(peer, key):
            self._note(words)
        if "@" in meaning.to:
            self._known.lives(meaning.to)
        if meaning.moves:
            self._current = Conversation(Kind.PEER, key, name)
        if meaning.text:
            await self._transcript.say(key, name, meaning.text)

    async def _join(self, meaning: Join) -> None:
        need_mesh(meaning.request)
        joined = await self.performer.join(meaning.request)
        topic = joined["topic"]
        self._known.topic(topic)
        self._current = Conversation(Kind.CHANNEL, topic, place(joined))
        if unread := joined.get("unread", 0):
            shown = await self._transcript.history({"topic": topic, "unread": True, "count": UNREAD_SHOWN})
            if unread > UNREAD_SHOWN and shown:
                more = plural(unread - UNREAD_SHOWN, "unread post")
                self._note(f"{more} before these; to read them too: /history --count {unread}")

    def _here(self) -> str | None:
        current = self._current
        return current.target if current is not None and current.kind is Kind.CHANNEL else None

    def _part(self) -> None:
        current, self._current = self._current, None
        if current is not None and current.kind is Kind.CHANNEL:
            again = f"/unsubscribe {quoted(display_line(current.target, 64))}"
            self._note(f"what is posted in {current.name} still comes; to leave the channel for good: {again}")

    async def _post(self, request: Request) -> None:
        need_mesh(request)
        posted = await self._session.ask("broadcast", request.args)
        self._transcript.posted(posted, str(request.args.get("topic", "")), str(request.args.get("text", "")))

    def _echo(self, line: str) -> None:
        """Show what was typed above what came of it."""
        shown = display_line(line if len(line) <= ECHO_CHARS else f"{line[:ECHO_CHARS]}…")
        self.screen.show(render.talk(f"{self._prompt()}{shown}", self.screen.width, "class:typed"))

    async def _run(self, request: Request, line: str) -> int:
        need_mesh(request)
        self._busy = display_line(line.split("\n", 1)[0], 24)
        self._echo(line)
        if request.command == "history":
            if not await self._transcript.history(request.args):
                self._note(empty("history"))
            return OK
        code = await self.performer.perform(request)
        if request.command in CHANGES_PEERS:
            await self._learn_peers()  # at once: the next line may name whom this one named
        if leaves(request, self._current):
            self._current = None
        if request.command in ("subscribe", "unsubscribe"):
            await self._learn_channels()
        return code
