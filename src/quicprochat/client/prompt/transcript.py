"""What is said, by others and by us, on its way to the screen."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from quicprochat.adapters.system import SystemClock
from quicprochat.client.errors import CallError
from quicprochat.client.output import display_line, takers
from quicprochat.client.prompt import render
from quicprochat.client.prompt.completion import Known
from quicprochat.client.prompt.sent import Outgoing, Sent
from quicprochat.client.prompt.words import quoted
from quicprochat.client.session import Session
from quicprochat.client.shapes import rfc3339
from quicprochat.core.errors import LocalError

if TYPE_CHECKING:
    from prompt_toolkit.formatted_text import StyleAndTextTuples as Fragments

    from quicprochat.client.prompt.screen import Screen

Json = dict[str, Any]
Written = Callable[[], None]
"""Called once a line was written out."""

GRACE_S = 0.4
"""How long a line of ours stays in the live rows for its delivery; most links need a tenth of it."""
HURRY = 20
"""With more lines than that on their way to the screen, receipts of other sittings are told without their text."""
STRANGERS_MAX = 64
"""Strangers of whom was said what can be done about them; then it is said again."""
POSTED_MAX = 64
TOLD_MAX = 4_096
"""Posts remembered as shown: they come by two ways, as they arrive and with a history."""
HINTS_MAX = 256
READ_AT_ONCE = 256
LIVE_MAX = 3


class Transcript:
    """The lines of all conversations; shown on ``screen``, which is set once there is one.

    ``here`` is the topic of the channel that plain lines go to, None for none. While there is one, posts of other
    channels stay unread: they are counted, and shown when one goes there.
    """

    screen: Screen

    def __init__(self, session: Session, known: Known, here: Callable[[], str | None] = lambda: None) -> None:
        self._session = session
        self._known = known
        self._here = here
        self._told: dict[int, None] = {}
        self._read: list[int] = []
        self._hinted: set[str] = set()
        self._clock = SystemClock(None)
        self._sent = Sent()
        self._posted: deque[str] = deque(maxlen=POSTED_MAX)
        self._parked: list[tuple[Json, Written]] = []
        self._day = ""
        self._strangers: set[str] = set()
        self._moments: set[asyncio.Task[None]] = set()

    def end(self) -> None:
        """Wait for nothing any more."""
        for moment in self._moments:
            moment.cancel()

    def open(self) -> list[str]:
        """Return the ids of our messages that nobody has confirmed."""
        return [message.id for message in self._sent.open()]

    def rename(self, before: str, name: str) -> None:
        """Call a recipient otherwise in what is told from now on; both names are safe for a terminal."""
        self._sent.rename(before, name)

    def settle(self) -> None:
        """Move what stands in the live rows up, as it is."""
        for message in tuple(self._sent.live()):
            self._move_up(message)

    def _now(self) -> str | None:
        return rfc3339(self._clock.now().wall)

    # --- what arrives

    async def listen(self) -> None:
        """Show what arrives, for as long as there is a node."""
        async with self._session.stream("listen", {}) as lines:
            async for line in lines:
                await self.screen.room()
                if line["event"] == "receipt":
                    line = await self._with_text(line)
                if self._elsewhere(line):
                    lines.kept(line)
                    self._hint(line)
                else:
                    self._arrived(line, partial(lines.written, line))

    def _elsewhere(self, line: Json) -> bool:
        here = self._here()
        if line["event"] != "post" or here is None or line.get("emergency"):
            return False
        return bool(line.get("topic") != here and line["id"] not in self._posted)

    def _hint(self, line: Json) -> None:
        """Say once where posts of a channel are found that are not shown."""
        topic = render.topic(line)
        self._known.wrote(line)
        if topic not in self._hinted:
            if len(self._hinted) >= HINTS_MAX:
                self._hinted.clear()
            self._hinted.add(topic)
            text = f"posts in {render.channel(line)} are counted below; to read them: /join {quoted(topic)}"
            self.screen.show(render.note(text, self.screen.width))

    async def history(self, args: Json) -> int:
        """Show a channel's history, or what of it is unread; return how many posts that were. Raises: QuicprochatError.

        What is written out counts as read.
        """
        posts = 0
        for line in await self._session.ask_all("history", args):
            await self.screen.room()
            if "cursor" not in line:
                self.screen.show(render.incoming(line, self.screen.width))
                continue
            if args.get("unread") and line["cursor"] in self._told:
                continue  # shown, and about to be noted as read
            posts += 1
            self._turn_day(line.get("received_at"))
            self._remember(line["cursor"])
            read = None if line["own"] else partial(self._read.append, line["cursor"])
            self.screen.show(render.incoming(line, self.screen.width), read)
        shown = asyncio.Event()
        self.screen.show([], shown.set)
        await shown.wait()
        await self.note_read()
        return posts

    async def note_read(self) -> None:
        """Note as read what of a history is on the screen by now. Raises: QuicprochatError."""
        while self._read:
            some, self._read[:READ_AT_ONCE] = self._read[:READ_AT_ONCE], []
            await self._session.ask("read", {"cursors": some})

    def _remember(self, cursor: int) -> None:
        self._told[cursor] = None
        if len(self._told) > TOLD_MAX:
            del self._told[next(iter(self._told))]

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
        if line["event"] == "post":
            if line["cursor"] in self._told:
                written()  # a history has shown it
                return
            self._remember(line["cursor"])
        self._turn_day(line.get("received_at"))
        if "from" in line:
            self._known.wrote(line)
        if line["event"] == "post" and line.get("emergency"):
            self.screen.ring()
        self.screen.show(render.incoming(line, self.screen.width), written)
        if line.get("request") and line["from"] not in self._strangers:
            if len(self._strangers) >= STRANGERS_MAX:
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

    async def say(self, to: str, name: str, text: str) -> None:
        """Send a message and show what becomes of it. Raises: QuicprochatError."""
        message = self._sent.begin(name, text, self._now())
        self.screen.refresh()
        try:
            sent = await self._session.ask("send", {"peer": to, "text": text})
        except BaseException as error:
            self._sent.drop(message)
            if isinstance(error, asyncio.CancelledError):
                text = "not waited for any more; the message may be in the outbox all the same"
                self.screen.show(render.note(text, self.screen.width, "class:trouble"))
            raise
        self._sent.accepted(message, sent)
        self._known.sent(message.id, name, text)
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

    def posted(self, answer: Json, topic: str, text: str) -> None:
        """Show a post of ours, which needs no receipt."""
        self._posted.append(answer["id"])
        self._turn_day(self._now())
        state = "posted"
        if "subscribers" in answer:
            state = f"posted, {takers(answer)}"
        to = render.channel({"topic": topic, **answer})
        self.screen.show(render.outgoing(self._now(), to, text, state, self.screen.width))

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

    def live(self, width: int) -> Fragments:
        """Return the live rows."""
        rows: Fragments = []
        for message in list(self._sent.live())[-LIVE_MAX:]:
            state = render.short(message.state, message.reason) if message.state else "..."
            line = f"{render.clock(message.at)} -> {message.to}: {display_line(message.text, width)}"
            rows.append(("class:pending", f"{line[: max(0, width - len(state) - 4)]}  ({state})\n"))
        if rows:
            rows[-1] = (rows[-1][0], rows[-1][1].removesuffix("\n"))
        return rows
