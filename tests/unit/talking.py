"""A prompt in this process, on an emulated terminal, with a home whose answers are written by the test."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.unit.emulator import Emulator

from quicprochat.client.errors import CallError
from quicprochat.client.prompt.loop import Loop
from quicprochat.client.prompt.terminal import Terminal
from quicprochat.client.settings import Settings
from quicprochat.client.socket import Hello
from quicprochat.core.errors import LocalError

Json = dict[str, Any]

ME, ADA, BOB, EVE = "aa" * 32, "ad" * 32, "b0" * 32, "ee" * 32
PATIENCE_S = 20.0
STATUS: Json = {
    "public_key": ME, "name": "Me", "networked": True, "links": 1, "waiting": 0, "unread": 0, "disk_low": False,
    "alarms": [],
}  # fmt: skip


def peer(key: str, name: str, *, contact: bool = True, linked: bool = False) -> Json:
    return {
        "public_key": key, "name": name, "contact": contact, "linked": linked, "verified": False, "blocked": False,
        "addresses": [], "last_seen": None, "domain": "", "server": "", "role": "node",
    }  # fmt: skip


def message(text: str, *, sender: str = ADA, name: str = "ada", **more: Any) -> Json:
    return {
        "event": "message", "cursor": 0, "id": "00" * 16, "from": sender, "name": name, "to": ME, "channel": None,
        "text": text, "hops": 0, "received_at": None, "protection": "forward-secret", "request": False, **more,
    }  # fmt: skip


def post(text: str, channel: str, *, name: str = "ada", **more: Any) -> Json:
    return message(text, name=name, event="post", channel=channel, **{"own": False, **more})


def receipt(id: str, state: str, reason: str = "") -> Json:
    return {
        "event": "receipt", "cursor": 0, "id": id, "to": ADA, "name": "ada", "state": state, "reason": reason,
        "received_at": None,
    }  # fmt: skip


class Stream:
    """A stream of the test's."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[Json | Exception] = asyncio.Queue()
        self.read: list[int] = []
        self.left: list[int] = []

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Json:
        line = await self.lines.get()
        if isinstance(line, Exception):
            raise line
        return line

    def written(self, line: Json) -> None:
        self.read.append(line["cursor"])

    def kept(self, line: Json) -> None:
        self.left.append(line["cursor"])


class Home:
    """Stands for a session; remembers what was asked of it."""

    def __init__(self) -> None:
        self.node = None
        self.hello = Hello("0", networked=True, stays=True)
        self.loses_messages = False
        self.leave = asyncio.Event()
        self.listening, self.watching, self.other = Stream(), Stream(), Stream()
        self.asked: list[tuple[str, Json]] = []
        self.people = [peer(ADA, "ada", linked=True), peer(BOB, "Bob B."), peer(EVE, "Eve", contact=False)]
        self.outbox: list[Json] = []
        self.channels: list[Json] = [
            {"channel": id * 32, "topic": topic, "kind": kind}
            for id, topic, kind in (("c0", "village", "open"), ("c1", "well", "private"), ("c2", "board", "private"))
        ]
        self.past: list[Json] = []
        self.people_asked: list[Json] = []
        self.state = "queued"
        self.refusal: LocalError | None = None
        self.answers: dict[str, Json] = {}
        self.answering = asyncio.Event()
        self.answering.set()
        self._cursor = 0
        self._sent = 0
        self.watching.lines.put_nowait(STATUS)

    def arrive(self, *lines: Json) -> None:
        for line in lines:
            self._cursor += 1
            self.listening.lines.put_nowait({**line, "cursor": self._cursor})

    def stream(self, command: str, args: Json) -> Stream:
        return {"listen": self.listening, "watch": self.watching}.get(command, self.other)

    async def ask(self, command: str, args: Json) -> Json:
        self.asked.append((command, args))
        await self.answering.wait()
        match command:
            case "identity":
                return {"name": "Me", "public_key": ME, "peers": self.people, "fingerprint": "1", "addresses": [],
                        "ticket": "qpc1x"}  # fmt: skip
            case "verify" | "add" | "accept" | "block":
                wanted = args.get("peer", "")
                for found in self.people:
                    if wanted == found["name"] or found["public_key"].startswith(wanted):
                        return {**found, "fingerprint": "11111 22222"}
                raise LocalError(f"no peer is called {wanted!r}; see: qpc mesh peers", code="not_found")
            case "send" if self.refusal is not None:
                raise self.refusal
            case "send":
                self._sent += 1
                id = f"{self._sent:032x}"
                return {"id": id, "to": args["peer"], "state": self.state, "reason": "", "protection": "forward-secret"}
            case _ if command in self.answers:
                return self.answers[command]
            case _:
                raise CallError(f"the test has no answer to {command}", "internal")

    async def ask_all(self, command: str, args: Json) -> list[Json]:
        if command == "peers":
            self.people_asked.append(args)
        if command == "history":
            self.asked.append((command, args))
        lists = {"peers": self.people, "outbox": self.outbox, "history": self.past, "channels": self.channels}
        return lists.get(command, [])

    def said(self) -> list[tuple[str, str]]:
        """Return whom messages were sent to, and their texts."""
        return [(args["peer"], args["text"]) for command, args in self.asked if command == "send"]


class Talk:
    """The prompt under test."""

    def __init__(self, home: Home, loop: Loop, emulator: Emulator) -> None:
        self.home = home
        self.loop = loop
        self.emulator = emulator
        self.task = asyncio.create_task(loop.run())

    async def until(self, condition: Callable[[], object], what: str = "") -> None:
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while not condition():
            if self.task.done() and not self.task.cancelled() and self.task.exception() is not None:
                self.task.result()
            assert asyncio.get_running_loop().time() < deadline, f"{what} did not come:\n{self.emulator.shown}"
            await asyncio.sleep(0.005)

    async def shows(self, text: str) -> None:
        await self.until(lambda: text in self.emulator.shown, repr(text))

    async def enter(self, line: str) -> None:
        """Type a line and Enter, once the line is there."""
        self.emulator.type(line)
        await self.until(lambda: self.loop.screen.input.text == line, line)
        self.emulator.type("\r")
        box = self.loop.screen.input
        await self.until(lambda: not box.text or box.selection_state is not None, line)  # perhaps it was put back


@asynccontextmanager
async def talking(tmp_path: Path, *, encoding: str = "utf-8", ready: bool = True) -> AsyncIterator[Talk]:
    """Run a prompt; it ends with the block. ``ready`` waits until it is drawn."""
    emulator = Emulator()
    running = asyncio.get_running_loop()
    running.add_reader(emulator.master, emulator.take)
    stdin = os.fdopen(os.dup(emulator.slave), "r")
    home = Home()
    loop = Loop(home, Settings(tmp_path), Terminal(emulator.slave, encoding), stdin)  # type: ignore[arg-type]
    talk = Talk(home, loop, emulator)
    try:
        if ready:
            await talk.shows("1 link")
        yield talk
    finally:
        loop.screen.leave()
        await asyncio.wait((talk.task,))
        running.remove_reader(emulator.master)
        stdin.close()
        emulator.close()
    if not talk.task.cancelled():
        talk.task.result()
