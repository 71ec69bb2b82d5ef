"""A plain prompt: lines from standard input are commands, what arrives is printed as it comes.

Works with and without a terminal. Without one, or at the end of input, the exit code is that of the first command that
failed.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

from quicprochat import __version__
from quicprochat.client.errors import OK
from quicprochat.client.grammar import Request, parse_line
from quicprochat.client.help import help_text
from quicprochat.client.output import display
from quicprochat.client.perform import Performer, complain, need_mesh, say
from quicprochat.client.session import Session
from quicprochat.client.settings import Settings
from quicprochat.client.stdio import STDIN, STDOUT, Lines, Output
from quicprochat.core.errors import LocalError, QuicprochatError, StoreError

PROMPT = "> "


class Screen:
    """Standard output with a prompt at its end while we wait for the person; a pipe gets none."""

    def __init__(self) -> None:
        self._out = Output()
        self.terminal = os.isatty(STDIN) and os.isatty(STDOUT)
        self._clear = "\r" if os.environ.get("TERM", "dumb") == "dumb" else "\r\x1b[K"
        self._prompting = False

    @property
    def encoding(self) -> str:
        """What the reader understands."""
        return self._out.encoding

    async def write(self, text: str) -> None:
        if self._prompting:
            text = f"{self._clear}{text}{PROMPT}"
        await self._out.write(text)

    async def prompt(self) -> None:
        """Show the prompt until :meth:`typed`."""
        if self.terminal:
            self._prompting = True
            await self._out.write(PROMPT)

    def typed(self) -> None:
        """A line was typed, and the terminal stands at the beginning of the next."""
        self._prompting = False


async def repl(settings: Settings) -> int:
    """Read and carry out lines until ``/quit`` or the end of input. Raises: QuicprochatError."""
    screen = Screen()
    async with Session(settings, stays=True, network=True) as session:
        performer = Performer(session, screen, as_json=settings.json)
        if screen.terminal:
            me = await session.ask("identity", {})
            name = display(me["name"]) or me["public_key"][:16]
            say(f"qpc {__version__}: you are {name}. /help shows the commands, /quit leaves.")
        incoming = asyncio.create_task(performer.stream("listen", {}))
        try:
            return await _converse(screen, performer, incoming, settings)
        except BrokenPipeError:
            return OK
        finally:
            incoming.cancel()
            with suppress(asyncio.CancelledError, QuicprochatError, BrokenPipeError):
                await incoming


async def _converse(screen: Screen, performer: Performer, incoming: asyncio.Task[None], settings: Settings) -> int:
    worst = OK
    lines = Lines()
    while True:
        await screen.prompt()
        line = asyncio.ensure_future(anext(lines))
        await asyncio.wait((line, incoming), return_when=asyncio.FIRST_COMPLETED)
        if not line.done():
            line.cancel()
            incoming.result()  # raises what ended it: without news, there is no point in going on
            break
        screen.typed()
        try:
            request = parse_line(line.result())
            if request is not None and request.command == "quit":
                break
            code = OK if request is None else await _carry_out(request, screen, performer)
        except StopAsyncIteration:
            break
        except StoreError:
            raise
        except QuicprochatError as error:
            code = complain(error, as_json=settings.json)
        worst = worst or code
    await performer.finish()
    return OK if screen.terminal else worst


async def _carry_out(request: Request, screen: Screen, performer: Performer) -> int:
    if request.command == "help":
        await screen.write(help_text(request.args["about"], slash=True))
        return OK
    need_mesh(request)
    if request.command == "listen":
        raise LocalError("what arrives is shown here anyway; older messages: /inbox")
    if request.command == "send" and not request.args.get("text", "").strip():
        raise LocalError("there is no text to send; write: /send <peer> <text>")
    return await performer.perform(request)
