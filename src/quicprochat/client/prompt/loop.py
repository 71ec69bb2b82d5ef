"""The prompt's three tasks: what arrives, what the node's state is, and what is typed; and the screen they share."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO, assert_never

from prompt_toolkit.output import ColorDepth

from quicprochat import __version__
from quicprochat.adapters.system import SystemClock
from quicprochat.client.catalogue import COMMANDS
from quicprochat.client.errors import OK, CallError, code_of
from quicprochat.client.grammar import Request
from quicprochat.client.output import display_line, plural
from quicprochat.client.perform import Performer, need_mesh
from quicprochat.client.prompt import render
from quicprochat.client.prompt.completion import Known, LineCompleter
from quicprochat.client.prompt.history import NAME, HomeHistory
from quicprochat.client.prompt.screen import Screen
from quicprochat.client.prompt.sent import Outgoing, Sent
from quicprochat.client.prompt.status import status_line
from quicprochat.client.prompt.terminal import Terminal, standard_encoding
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
    quoted,
    understand,
)
from quicprochat.client.session import Session
from quicprochat.client.settings import Settings
from quicprochat.client.shapes import rfc3339
from quicprochat.client.stdio import STDOUT
from quicprochat.core.errors import LocalError, QuicprochatError, StoreError

if TYPE_CHECKING:
    from prompt_toolkit.formatted_text import StyleAndTextTuples as Fragments

Json = dict[str, Any]
Written = Callable[[], None]
"""Called once a line was written out."""

GRACE_S = 0.4
"""How long a line of ours stays in the live rows for its delivery; most links need a tenth of it."""
HURRY = 20
"""With more lines than that on their way to the screen, receipts of other sittings are told without their text."""
LEAVE_S = 5.0
"""How long what was typed last may take once the terminal has gone."""
LINES_WAITING_MAX = 64
"""Typed lines that wait for a command under way."""
PEERS_EVERY_S = 30.0
"""At most so often the list of peers for completion is asked for: a node that heard of thousands has to look hard."""
NOBODY = (
    "Nobody is in your address book yet. /identity shows your ticket for others; theirs you take in with:"
    " /add <ticket> --name <name>"
)
CHANGES_PEERS = frozenset({"add", "accept", "block", "unblock", "verify", "identity"})


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
        self._clock = SystemClock(None)
        self._known = Known()
        self._sent = Sent()
        self._posted: deque[str] = deque(maxlen=LINES_WAITING_MAX)
        self._parked: list[tuple[Json, Written]] = []
        self._history = HomeHistory(None if settings.ephemeral else settings.home / NAME)
        self._current: Conversation | None = None
        self._status: Json | None = None
        self._alarms: list[Json] = []
        self._day = ""
        self._strangers: set[str] = set()
        self._typed: asyncio.Queue[str] = asyncio.Queue()
        self._busy = ""
        self._working: asyncio.Task[None] | None = None
        self._moments: set[asyncio.Task[None]] = set()
        self._ask_peers = asyncio.Event()
        self.screen = Screen(
            terminal,
            stdin,
            completer=LineCompleter(self._known),
            history=self._history,
            accept=self._accept,
            interrupt=self._interrupt,
            prompt=self._prompt,
            live=self._live,
            status=lambda behind, block, width: status_line(
                self._status, self._current, behind, block, self._busy, width
            ),
            color_depth=ColorDepth.DEPTH_1_BIT if os.environ.get("NO_COLOR") else None,
            term=os.environ.get("TERM"),
        )
        self.performer = Performer(session, self.screen, as_json=False)

    async def run(self) -> None:
        """Run until the person leaves. Raises: QuicprochatError that ended the session."""
        with _talk_above(self.screen):
            await self._greet()
            drawing = asyncio.create_task(self.screen.run())
            others = [
                asyncio.create_task(work) for work in (self._listen(), self._watch(), self._work(), self._peers())
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
                ending = (*others, *self._moments, *working)
                for task in ending:
                    task.cancel()
                await asyncio.wait(ending)
        drawing.result()
        for task in others:
            if not task.cancelled():
                task.result()  # raises what ended it: without news, there is no point in going on

    async def finish(self) -> None:
        """Stay a little for what was sent and is not delivered yet, where its node ends with the prompt."""
        for message in self._sent.open():
            self.performer.follow(message.id)
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

    def _now(self) -> str | None:
        return rfc3339(self._clock.now().wall)

    # --- what arrives

    async def _listen(self) -> None:
        async with self._session.stream("listen", {}) as lines:
            async for line in lines:
                await self.screen.room()
                if line["event"] == "receipt":
                    line = await self._with_text(line)
                self._arrived(line, partial(lines.written, line))

    async def _with_text(self, receipt: Json) -> Json:
        """Add to a receipt what was sent, where that was done in another sitting and there is time to look."""
        if self._sent.knows(receipt["id"]) or self._sent.sending() or self.screen.behind > HURRY:
            return receipt
        with suppress(LocalError, CallError):
            return {**receipt, "text": (await self._session.ask("trace", {"id": receipt["id"]})).get("text")}
        return receipt

    def _arrived(self, line: Json, written: Written) -> None:
        if line["event"] == "receipt":
            self._receipt(line, written)
            return
        if line["event"] == "post" and line["id"] in self._posted:
            written()  # it stands on the screen since it was typed
            return
        self._turn_day(line.get("received_at"))
        if "from" in line:
            self._known.wrote(line)
        self.screen.show(render.incoming(line, self.screen.width), written)
        if line.get("request") and line["from"] not in self._strangers:
            if len(self._strangers) >= LINES_WAITING_MAX:
                self._strangers.clear()
            self._strangers.add(line["from"])
            self.screen.show(render.hint_for_request(line, self.screen.width))

    def _turn_day(self, received_at: str | None) -> None:
        date = render.day(received_at)
        if date and date != self._day:
            if self._day or date != render.day(self._now()):
                self.screen.show(render.turn_of_day(date))
            self._day = date

    def _receipt(self, line: Json, written: Written) -> None:
        message = self._sent.receipt(line)
        if message is None:
            if self._sent.sending():
                self._parked.append((line, written))  # the answer to ``send`` may be about to name it
                return
            to = display_line(line["name"], 64) or line["to"][:16]
            self.screen.show(render.changed(to, line.get("text"), line["state"], line["reason"]), written)
        elif not self._sent.is_live(message):
            self.screen.show(render.changed(message.to, message.text, message.state, message.reason), written)
        elif message.settled:
            self._move_up(message, written)
        else:
            self.screen.refresh()
            self.screen.show([], written)

    # --- what is sent

    async def _say(self, to: str, name: str, text: str) -> None:
        message = self._sent.begin(name, text, self._now())
        self.screen.refresh()
        try:
            sent = await self._session.ask("send", {"peer": to, "text": text})
        except BaseException as error:
            self._sent.drop(message)
            if isinstance(error, asyncio.CancelledError):
                self._note("not waited for any more; the message may be in the outbox all the same", "class:trouble")
            else:
                self.screen.put_back(text)
            raise
        self._sent.accepted(message, sent)
        parked, self._parked = self._parked, []
        for line, written in parked:
            self._receipt(line, written)
        if self._sent.is_live(message):
            if message.settled:
                self._move_up(message)
            else:
                moment = asyncio.create_task(self._after_a_moment(message))
                self._moments.add(moment)
                moment.add_done_callback(self._moments.discard)

    async def _after_a_moment(self, message: Outgoing) -> None:
        await asyncio.sleep(GRACE_S)
        self._move_up(message)

    def _move_up(self, message: Outgoing, written: Written | None = None) -> None:
        """Move a line of ours from the live rows into the terminal's history."""
        if self._sent.drop(message):
            self._turn_day(message.at)
            state = render.short(message.state, message.reason)
            self.screen.show(render.outgoing(message.at, message.to, message.text, state, self.screen.width), written)
        elif written is not None:
            written()

    def _live(self, width: int) -> Fragments:
        rows: Fragments = []
        for message in list(self._sent.live())[-3:]:
            state = render.short(message.state, message.reason) if message.state else "..."
            line = f"{render.clock(message.at)} -> {message.to}: {display_line(message.text, width)}"
            rows.append(("class:pending", f"{line[: max(0, width - len(state) - 4)]}  ({state})\n"))
        if rows:
            rows[-1] = (rows[-1][0], rows[-1][1].removesuffix("\n"))
        return rows

    # --- the node's state

    async def _watch(self) -> None:
        try:
            async with self._session.stream("watch", {}) as news:
                async for status in news:
                    before, self._status = self._status, status
                    if before is None or before["links"] != status["links"]:
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
        while True:
            await self._ask_peers.wait()
            self._ask_peers.clear()
            self._known.learn_peers(await self._session.ask_all("peers", {}))
            if "channels" in COMMANDS:
                for found in await self._session.ask_all("channels", {}):
                    self._known.topic(render.topic(found))
            await asyncio.sleep(PEERS_EVERY_S)

    # --- what is typed

    def _prompt(self) -> str:
        return f"[{self._current.name}] " if self._current is not None else "> "

    def _accept(self, line: str) -> None:
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
        try:
            meaning = understand(line, self._current)
            if meaning is None:
                return
            if await self._do(meaning, line) and not isinstance(meaning, Quit):
                self._history.keep(line)
        except StoreError:
            raise
        except QuicprochatError as error:
            self._note(str(error), "class:trouble")

    async def _do(self, meaning: Meaning, line: str) -> bool:
        """Do it; say whether it worked."""
        match meaning:
            case Quit():
                for message in tuple(self._sent.live()):
                    self._move_up(message)
                self.screen.leave()
            case Help():
                await self.screen.write(meaning.text)
            case Leave():
                self._part()
            case Say():
                await self._talk_to(meaning)
            case Join():
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
            await self._say(current.target, current.name, meaning.text)
            return
        peer = await self._session.ask("verify", {"peer": meaning.to})
        key = peer["public_key"]
        name = display_line(peer["name"], 64) if peer["contact"] and peer["name"] else key[:16]
        if meaning.moves:
            self._current = Conversation(Kind.PEER, key, name)
        if meaning.text:
            await self._say(key, name, meaning.text)

    async def _join(self, meaning: Join) -> None:
        need_mesh(meaning.request)
        joined = await self._session.ask("subscribe", meaning.request.args)
        await self.performer.show("subscribe", joined)
        self._known.topic(meaning.topic)
        self._current = Conversation(Kind.CHANNEL, meaning.topic, render.channel({"topic": meaning.topic, **joined}))

    def _part(self) -> None:
        current, self._current = self._current, None
        if current is not None and current.kind is Kind.CHANNEL and "unsubscribe" in COMMANDS:
            again = f"/unsubscribe {quoted(display_line(current.target, 64))}"
            self._note(f"what is posted in {current.name} still comes; to leave the channel for good: {again}")

    async def _post(self, request: Request) -> None:
        need_mesh(request)
        posted = await self._session.ask("broadcast", request.args)
        self._posted.append(posted["id"])
        text = str(request.args.get("text", ""))
        self._turn_day(self._now())
        to = render.channel({"topic": request.args.get("topic", ""), **posted})
        state = "posted"
        if "subscribers" in posted:
            state = f"posted, {plural(posted['subscribers'], 'linked subscriber')}"
        self.screen.show(render.outgoing(self._now(), to, text, state, self.screen.width))

    async def _run(self, request: Request, line: str) -> int:
        need_mesh(request)
        self._busy = display_line(line.split("\n", 1)[0], 24)
        self.screen.show(render.talk(f"{self._prompt()}{display_line(line, 200)}", "class:typed"))
        code = await self.performer.perform(request)
        if request.command in CHANGES_PEERS:
            self._ask_peers.set()
        elif request.command == "subscribe":
            self._known.topic(str(request.args.get("topic", "")))
        return code


class _Above(io.TextIOBase):
    """Standard error while the prompt is drawn: what is said there stands above the input line, not in it."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._screen.show(render.note(line, self._screen.width))
        return len(text)


@contextmanager
def _talk_above(screen: Screen) -> Iterator[None]:
    above = _Above(screen)
    handlers = [h for h in logging.getLogger("quicprochat").handlers if isinstance(h, logging.StreamHandler)]
    before = [handler.setStream(above) for handler in handlers]
    try:
        with contextlib.redirect_stderr(above):
            yield
    finally:
        for handler, stream in zip(handlers, before, strict=True):
            if stream is not None:
                handler.setStream(stream)
