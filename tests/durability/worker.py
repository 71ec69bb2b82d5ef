"""One person of a durability test: a P2pNode in a process of its own, to be killed at any moment.

Whatever the node acknowledges is written to the log of facts, on a disk that nobody cuts, before anything else
happens with it. Commands come as lines of JSON on standard input, answers go as lines of JSON to standard output;
a process whose harness is gone ends.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.durability.mortal import Executioner, MortalDisk, die

from quicprochat.adapters import system
from quicprochat.adapters.iroh import endpoint
from quicprochat.adapters.sqlite.store import SqliteStore
from quicprochat.core.address import Address
from quicprochat.core.envelope import TTL_DEFAULT_S
from quicprochat.core.errors import LocalError, QuicprochatError
from quicprochat.core.events import Effect
from quicprochat.core.ids import PeerKey, Uid
from quicprochat.core.receipt import State
from quicprochat.core.store import LineKind, MeshStore
from quicprochat.p2p import runtime
from quicprochat.p2p.node import P2pNode
from quicprochat.p2p.options import Options
from quicprochat.p2p.runtime import Runtime

WAITING_MAX = 240
"""Messages under way at most: enough that every kill meets some, few enough that the end is soon reached."""
LANES = 48
WAIT_EVERY = 16
READ_BATCH = 64
FILLER = "The quick brown fox jumps over the lazy dog. " * 7


class Facts:
    """The log: a line is on the disk when :meth:`note` returns."""

    def __init__(self, path: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_DSYNC | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)
        os.write(self._file, b"\n")  # ends a line that a kill cut short

    def note(self, kind: str, uid: Uid | None = None, detail: str = "-") -> None:
        os.write(self._file, f"{kind} {uid.hex() if uid else '-'} {detail}\n".encode())


class Machine:
    """The clocks of a machine, under the real SystemClock: ``wall`` and ``since_boot`` are offsets in milliseconds."""

    def __init__(self, boot: str = "this-boot", wall: int = 0, since_boot: int = 0, synchronised: bool = True) -> None:
        self.set(wall, since_boot, synchronised)
        real = system._since_boot_ms
        system.boot_id = boot.encode
        system._since_boot_ms = lambda: real() + self.since_boot
        system.kernel_synchronised = lambda: self.synchronised
        jumping = {**vars(time), "time_ns": lambda: time.time_ns() + self.wall * 1_000_000}
        vars(system)["time"] = SimpleNamespace(**jumping)

    def set(self, wall: int, since_boot: int = 0, synchronised: bool = True) -> None:
        self.wall, self.since_boot, self.synchronised = wall, since_boot, synchronised


class MortalRuntime(Runtime):
    """It may die between two effects, or in the middle of a write."""

    _executioner: Executioner
    _vfs: MortalDisk | None = None

    def _open_store(self) -> MeshStore:
        return SqliteStore.open(self.home.database, vfs="mortal") if self._vfs else super()._open_store()

    def _release(self, effect: Effect) -> None:
        name = type(effect).__name__
        self._executioner.at(f"before:{name}")
        super()._release(effect)
        self._executioner.at(f"after:{name}")


class MortalNode(P2pNode):
    """A node that the executioner may stop anywhere."""

    made_of = MortalRuntime

    def __init__(self, options: Options, executioner: Executioner, *, mortal_disk: bool, network: bool) -> None:
        super().__init__(options, network=network, probe=executioner.point)
        assert isinstance(self._runtime, MortalRuntime)
        self._runtime._executioner = executioner
        self._runtime._vfs = MortalDisk(executioner) if mortal_disk else None


class Person:
    """Sends, reads, and notes what is acknowledged."""

    def __init__(
        self, node: P2pNode, facts: Facts, friend: PeerKey, say: Callable[..., None], waiting_max: int
    ) -> None:
        self._node = node
        self._facts = facts
        self._friend = friend
        self._say = say
        self._sending = False
        self._waiting = 0
        self._waiting_max = waiting_max
        self._moved = asyncio.Event()
        self._run = time.time_ns()
        self._numbers = itertools.count()
        self._lanes: list[asyncio.Task[None]] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, QuicprochatError):
            self._say(event="crashed", text=repr(error))

    # --- noting

    async def watch(self) -> None:
        """Note every line of the journal that is shown; a line counts as read some lines later."""
        cursors: list[int] = []
        async for line in self._node.listen():
            if line.kind is LineKind.MESSAGE:
                self._facts.note("shown", line.uid, f"{line.cursor}:{line.text.split(' ', 1)[0]}")
            else:
                self._facts.note(line.state, line.uid, line.reason or "-")
                self._waiting -= 1
                self._moved.set()
            cursors.append(line.cursor)
            if len(cursors) == READ_BATCH:
                await self._node.read(cursors)
                cursors.clear()

    async def _wait(self, uid: Uid) -> None:
        sent = await self._node.wait(uid, State.DELIVERED)
        self._facts.note(sent.state.value, uid, sent.reason or "-")

    async def _send(self, **how: Any) -> Uid:
        number = next(self._numbers)
        label = f"{self._run}.{number}"
        sent = await self._node.send(self._friend, f"{label} {FILLER}"[: 40 + number * 37 % 260], **how)
        self._facts.note("acked", sent.uid, label)
        return sent.uid

    async def _lane(self) -> None:
        count = 0
        while self._sending:
            if self._waiting >= self._waiting_max:
                self._moved.clear()
                await self._moved.wait()
                continue
            self._waiting += 1
            try:
                uid = await self._send()
            except LocalError as error:
                self._sending = False
                self._facts.note("refused", None, error.code)
                self._say(event="refused", code=error.code, text=str(error))
                return
            except QuicprochatError:
                return  # the node has ended, and says so itself
            count += 1
            if count % WAIT_EVERY == 0:
                self.spawn(self._wait(uid))

    # --- commands

    async def send(self, lanes: int = LANES) -> dict[str, Any]:
        self._waiting = (await self._node.store_view()).messages
        self._sending = True
        self._lanes = [self.spawn(self._lane()) for _ in range(lanes)]
        return {}

    async def stop(self) -> dict[str, Any]:
        self._sending = False
        self._moved.set()
        await asyncio.gather(*self._lanes)
        return {}

    async def send_one(self, ttl_s: int = TTL_DEFAULT_S) -> dict[str, Any]:
        try:
            return {"uid": (await self._send(ttl_s=ttl_s)).hex()}
        except LocalError as error:
            return {"code": error.code, "text": str(error)}

    async def state(self, uid: str) -> dict[str, Any]:
        return {"state": (await self._node.sent(Uid(bytes.fromhex(uid)))).state.value}

    async def drained(self) -> dict[str, Any]:
        """Wait until nothing is waiting in the store; polls, because nothing tells of a released receipt."""
        while (await self._node.store_view()).messages:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        return {}

    async def view(self) -> dict[str, Any]:
        view = await self._node.store_view()
        return {
            "messages": view.messages, "expired": view.expired, "delivered": view.delivered,
            "at": self._node._runtime.driver.now().at, "trusted": self._node._runtime.driver.now().trusted,
        }  # fmt: skip


async def read_commands() -> AsyncIterator[dict[str, Any]]:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield json.loads(line)


def say(**event: Any) -> None:
    print(json.dumps(event), flush=True)


async def serve(node: P2pNode, person: Person, machine: Machine | None) -> None:
    """Do as told until told to end; commands run beside each other, each answered when it is done."""

    async def answer(number: int, work: Any) -> None:
        say(event="answer", number=number, **await work)

    async for command in read_commands():
        number, do = command.pop("number"), command.pop("do")
        if do == "end":
            await person.stop()
            return
        if do == "clock":
            assert machine is not None
            machine.set(**command)
            await node.settled()
            say(event="answer", number=number)
        else:
            person.spawn(answer(number, getattr(person, do)(**command)))
    die()


async def main(spec: dict[str, Any]) -> int:
    facts = Facts(spec["log"])
    machine = Machine(**spec["machine"]) if "machine" in spec else None
    vars(endpoint)["CLOSE_S"] = 0.2  # no waiting for dials to those who are dead
    runtime.DISK_CHECK_S = spec.get("disk_check_s", runtime.DISK_CHECK_S)
    executioner = Executioner(*spec.get("kill", ("", 0)))
    options = Options(Path(spec["home"]), bind=Address("127.0.0.1", spec["port"]))
    node = MortalNode(
        options, executioner, mortal_disk=spec.get("mortal_disk", False), network=spec.get("network", True)
    )
    try:
        await node.start()
    except QuicprochatError as error:
        say(event="failed", kind=type(error).__name__, text=str(error))
        return 4
    facts.note("started")
    say(event="ready")
    person = Person(node, facts, PeerKey(bytes.fromhex(spec["friend"])), say, spec.get("waiting_max", WAITING_MAX))
    person.spawn(person.watch())
    failed = asyncio.create_task(node.failed())
    served = asyncio.create_task(serve(node, person, machine))
    await asyncio.wait([failed, served], return_when=asyncio.FIRST_COMPLETED)
    if failed.done():
        facts.note("ended")
        reason = failed.exception()
        say(event="failed", kind=type(reason).__name__, text=str(reason))
        served.cancel()
        await person.stop()  # whoever waits for room would wait for ever
    await node.close()
    failed.cancel()
    await asyncio.gather(*person._tasks, failed, served, return_exceptions=True)
    return 3 if failed.done() and not failed.cancelled() and failed.exception() else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(json.loads(sys.argv[1]))))
