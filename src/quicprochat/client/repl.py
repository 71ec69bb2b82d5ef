"""A plain prompt: lines from standard input are read as at the drawn one, what arrives is printed as it comes.

Works with and without a terminal. Without one, or at the end of input, the exit code is that of the first command that
failed.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from functools import partial

from quicprochat import __version__
from quicprochat.client.errors import OK
from quicprochat.client.grammar import Request
from quicprochat.client.output import display, display_line, place
from quicprochat.client.perform import Performer, complain, need_mesh, say
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
    understand,
)
from quicprochat.client.session import Session
from quicprochat.client.settings import Settings
from quicprochat.client.stdio import STDIN, STDOUT, Lines, Output
from quicprochat.console.text import help_columns
from quicprochat.core.errors import QuicprochatError, StoreError

PROMPT = "> "
ANSWER = "yes/no> "


class Screen:
    """Standard output with ``ready`` at its end while we wait for the person; a pipe gets none."""

    def __init__(self) -> None:
        self._out = Output()
        self.terminal = os.isatty(STDIN) and os.isatty(STDOUT)
        self._clear = "\r" if os.environ.get("TERM", "dumb") == "dumb" else "\r\x1b[K"
        self._prompting = False
        self.ready = PROMPT

    @property
    def encoding(self) -> str:
        """What the reader understands."""
        return self._out.encoding

    async def write(self, text: str, *, headline: str = "", ring: bool = False) -> None:
        text = self._out.above(headline, ring=ring) + text
        if self._prompting:
            text = f"{self._clear}{text}{self.ready}"
        await self._out.write(text)

    async def prompt(self) -> None:
        """Show the prompt until :meth:`typed`."""
        if self.terminal:
            self._prompting = True
            await self._out.write(self.ready)

    def typed(self) -> None:
        """A line was typed, and the terminal stands at the beginning of the next."""
        self._prompting = False


async def repl(settings: Settings) -> int:
    """Read and carry out lines until ``/quit`` or the end of input. Raises: QuicprochatError."""
    screen = Screen()
    async with Session(settings, stays=True, network=True) as session:
        lines = Lines()
        # A script's next line is no answer: only a person at a terminal is asked.
        ask = partial(_ask, screen, lines) if screen.terminal and not settings.json else None
        performer = Performer(session, screen, as_json=settings.json, confirm=ask)
        if screen.terminal:
            me = await session.ask("identity", {})
            name = display(me["name"]) or me["public_key"][:16]
            say(f"qpc {__version__}: you are {name}. /help shows the commands, /quit leaves.")
        incoming = asyncio.create_task(performer.stream("listen", {}))
        try:
            return await _Talk(session, screen, performer, settings).converse(lines, incoming)
        except BrokenPipeError:
            return OK
        finally:
            incoming.cancel()
            with suppress(asyncio.CancelledError, QuicprochatError, BrokenPipeError):
                await incoming


async def _ask(screen: Screen, lines: Lines, question: str) -> bool:
    """Show a question, and take the next line for its answer; the end of input is a no."""
    before, screen.ready = screen.ready, ANSWER
    try:
        await screen.write(f"{question}\n")
        await screen.prompt()
        return is_yes(await anext(lines, ""))
    finally:
        screen.typed()
        screen.ready = before


class _Talk:
    """What is typed, and whom plain lines go to."""

    def __init__(self, session: Session, screen: Screen, performer: Performer, settings: Settings) -> None:
        self._session = session
        self._screen = screen
        self._performer = performer
        self._json = settings.json
        self._current: Conversation | None = None

    async def converse(self, lines: Lines, incoming: asyncio.Task[None]) -> int:
        """Read and carry out lines until the end; return the exit code. Raises: QuicprochatError."""
        worst = OK
        while True:
            await self._screen.prompt()
            line = asyncio.ensure_future(anext(lines))
            await asyncio.wait((line, incoming), return_when=asyncio.FIRST_COMPLETED)
            if not line.done():
                line.cancel()
                incoming.result()  # raises what ended it: without news, there is no point in going on
                break
            self._screen.typed()
            try:
                code = await self._carry_out(line.result())
            except StopAsyncIteration:
                break
            if code is None:
                break
            worst = worst or code
        await self._performer.finish()
        return OK if self._screen.terminal else worst

    async def _carry_out(self, line: str) -> int | None:
        """Do what a line means; return its exit code, None when it ends the prompt. Raises: StoreError."""
        command = line.lstrip()
        line = command if command.startswith("/") else line
        before = self._current
        try:
            meaning = understand(line, before, help_columns())
            if isinstance(meaning, Quit):
                return None
            return OK if meaning is None else await self._do(meaning)
        except StoreError:
            raise
        except QuicprochatError as error:
            code = complain(error, as_json=self._json)
            if before is not None and self._current is before and moves(line):
                self._move(None)  # the next line is not meant for it
            return code

    async def _do(self, meaning: Meaning) -> int:
        match meaning:
            case Help():
                await self._screen.write(meaning.text)
            case Leave():
                self._move(None)
            case Join():
                need_mesh(meaning.request)
                joined = await self._performer.join(meaning.request)
                self._move(Conversation(Kind.CHANNEL, joined["topic"], place(joined)))
            case Say():
                return await self._say(meaning)
            case Post() | Run():
                need_mesh(meaning.request)
                code = await self._performer.perform(meaning.request)
                if leaves(meaning.request, self._current):
                    self._move(None)
                return code
        return OK

    async def _say(self, meaning: Say) -> int:
        if meaning.moves:
            peer = await self._session.ask("verify", {"peer": meaning.to})
            name = display_line(peer["name"], 64) if peer["contact"] and peer["name"] else peer["public_key"][:16]
            self._move(Conversation(Kind.PEER, peer["public_key"], name))
        if not meaning.text:
            return OK
        return await self._performer.perform(Request("send", {"peer": meaning.to, "text": meaning.text}))

    def _move(self, to: Conversation | None) -> None:
        if not self._json and (to is not None or self._current is not None):
            say(f"plain lines go to {to.name} now" if to is not None else "plain lines go to nobody now")
        self._current = to
        self._screen.ready = f"[{to.name}] " if to is not None else PROMPT
