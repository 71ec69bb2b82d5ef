"""The home's socket: who answers at it, what it bears, and what happens to calls when the owner goes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.integration.qpc import Person, befriend, finish, read_line

from quicprochat import __version__
from quicprochat.client.errors import CallError, Moved, Vanished
from quicprochat.client.server import CALLS_MAX, WINDOW, Server
from quicprochat.client.session import Session
from quicprochat.client.settings import Settings
from quicprochat.client.socket import LINE_MAX_BYTES, NAME, Hello, SocketCall, reachable
from quicprochat.core.errors import LocalError, UnavailableError
from quicprochat.core.ids import PeerKey, Uid
from quicprochat.core.store import Line, LineKind, MeshStore
from quicprochat.core.time import WallTime
from quicprochat.p2p import Options, P2pNode

PATIENCE_S = 20


@pytest.fixture
def people(tmp_path: Path) -> Iterator[tuple[Person, Person]]:
    found = Person(tmp_path / "a"), Person(tmp_path / "b")
    yield found
    for person in found:
        person.end()


def in_a_loop(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await work()

    asyncio.run(bounded())


class Owner:
    """A node without links, in this process, that answers at its home's socket."""

    def __init__(self, home: Path, *, version: str = __version__, ephemeral: bool = True) -> None:
        self.node = P2pNode(Options(home, ephemeral=ephemeral), network=False)
        self.server = Server(self.node, Hello(version, networked=False, stays=True), lambda: None)

    async def __aenter__(self) -> Owner:
        await self.node.start()
        await self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.close()
        await self.node.close()

    async def receive(self, *texts: str) -> None:
        """Let messages arrive, as the gate would put them into the inbox."""
        for text in texts:
            line = Line(LineKind.MESSAGE, PeerKey(bytes(32)), Uid(os.urandom(16)), WallTime(0), text=text)
            cursor = await self.node._runtime.call(lambda store, line=line: store.deliver(line))  # type: ignore[misc]
            assert cursor is not None
            self.node._runtime.feed.take(replace(line, cursor=cursor))


async def call(home: Path, command: str, args: dict[str, Any]) -> SocketCall:
    found = await SocketCall.connect(home)
    assert found is not None
    await found.ask(command, args)
    return found


async def answer(home: Path, command: str, **args: Any) -> Any:
    found = await call(home, command, args)
    try:
        return await found.next()
    finally:
        await found.close()


class Raw:
    """A caller that sends whatever bytes it likes."""

    def __init__(self, home: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(str(home / NAME))
        self.file = self.socket.makefile("rb")
        assert "hello" in json.loads(self.file.readline())

    def say(self, data: bytes) -> None:
        with suppress(BrokenPipeError):  # the owner may hang up in the midst of nonsense
            self.socket.sendall(data)

    def hear(self) -> Any:
        line = self.file.readline()
        return json.loads(line) if line else None

    def close(self) -> None:
        self.file.close()
        self.socket.close()


# --- where it is


@pytest.mark.parametrize(("length", "options"), [(100, ()), (400, ()), (2_000, ("--ephemeral",))])
def test_it_works_however_long_the_path_of_the_home_is(tmp_path: Path, length: int, options: tuple[str, ...]) -> None:
    home = tmp_path
    while len(str(home)) < length:
        home = home / ("x" * min(200, max(1, length - len(str(home)) - 1)))
    person = Person(home)
    try:
        person.up(*options)
        assert person.ask("store")["messages"] == 0
        assert person.run("daemon").code == 3
        assert person.down().code == 0
        assert not (home / NAME).exists()
    finally:
        person.end()


def test_without_proc_a_long_path_is_reached_through_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / ("x" * 120)
    home.mkdir()
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: not str(path).startswith("/proc") and exists(path))
    with reachable(home) as address, socket.socket(socket.AF_UNIX) as listener:
        assert len(address) < 108
        assert "/proc" not in address
        listener.bind(address)
    assert stat.S_ISSOCK((home / NAME).stat().st_mode)
    assert not os.path.lexists(Path(address).parent)


def test_only_its_user_may_connect(tmp_path: Path) -> None:
    async def work() -> None:
        async with Owner(tmp_path / "a"):
            assert stat.S_IMODE((tmp_path / "a" / NAME).stat().st_mode) == 0o600

    in_a_loop(work)


def test_the_socket_of_a_killed_owner_is_replaced(people: tuple[Person, Person]) -> None:
    person, _ = people
    person.up()
    person.down(signal.SIGKILL)
    assert (person.home / NAME).exists()
    assert person.ask("store")["messages"] == 0
    person.up()
    assert person.ask("store")["messages"] == 0


def test_a_file_that_is_no_socket_is_no_owner(tmp_path: Path) -> None:
    async def work() -> None:
        home = tmp_path / "a"
        home.mkdir(mode=0o700)
        (home / NAME).write_text("not a socket")
        async with Owner(home):
            assert (await answer(home, "store"))["messages"] == 0

    in_a_loop(work)


# --- what it bears


def test_nonsense_is_answered_and_hurts_nobody(tmp_path: Path) -> None:
    home = tmp_path / "a"
    cases = [
        (b"not json\n", "protocol"),
        (b"[]\n", "protocol"),
        (b'{"command": 5}\n', "usage"),
        (b'{"command": "store", "args": []}\n', "usage"),
        (b'{"command": "nonsense"}\n', "unsupported"),
        (b'{"command": "send", "args": {"peer": 7, "text": "x"}}\n', "usage"),
        (b'{"command": "send", "args": {"peer": "x"}}\n', "usage"),
        (b'{"command": "inbox", "args": {"since": -1}}\n', "usage"),
        (b'{"command": "listen", "args": {"timeout": true}}\n', "usage"),
        (b"x" * (LINE_MAX_BYTES + 2) + b"\n", "protocol"),
        (b"[" * 100_000 + b"\n", "protocol"),
    ]

    def talk() -> None:
        for data, code in cases:
            raw = Raw(home)
            raw.say(data)
            assert raw.hear()["error"]["code"] == code, data[:60]
            raw.close()
        raw = Raw(home)
        raw.say(b'{"command": "listen"}\n{"write": 1}\n')
        assert raw.hear()["error"]["code"] == "protocol"
        raw.close()
        raw = Raw(home)
        raw.say(b'{"command": "store"')  # and away
        raw.close()

    async def work() -> None:
        async with Owner(home):
            await asyncio.to_thread(talk)
            assert (await answer(home, "store"))["messages"] == 0

    in_a_loop(work)


def test_calls_are_bounded_and_a_caller_that_goes_away_frees_its_place(tmp_path: Path) -> None:
    async def work() -> None:
        home = tmp_path / "a"
        async with Owner(home):
            calls = [await call(home, "peers", {"scan": 600}) for _ in range(CALLS_MAX)]
            with pytest.raises(CallError) as refused:
                await answer(home, "store")
            assert refused.value.code == "busy"
            for one in calls:
                await one.close()
            while True:  # they are gone as soon as the owner has heard of it
                with suppress(CallError):
                    assert await answer(home, "store")
                    return

    in_a_loop(work)


# --- reading


def test_only_what_was_written_out_counts_as_read(tmp_path: Path) -> None:
    async def work() -> None:
        home = tmp_path / "a"
        async with Owner(home) as owner:
            await owner.receive("one", "two", "three")
            reader = await call(home, "listen", {"count": 3})
            lines = [await reader.next() for _ in range(3)]
            assert [line["text"] for line in lines if line] == ["one", "two", "three"]
            assert lines[1]
            reader.written(lines[1]["cursor"])
            await reader.close()
            again = await call(home, "listen", {"count": 1})
            line = await again.next()
            assert line
            assert line["text"] == "three"
            again.written(line["cursor"])
            assert await again.next() is None  # said only once the line is marked
            assert (await answer(home, "store"))["unread"] == 0
            await again.close()

    in_a_loop(work)


def test_a_line_that_was_kept_back_stays_unread_whatever_is_said_of_later_ones(tmp_path: Path) -> None:
    async def work() -> None:
        home = tmp_path / "a"
        async with Owner(home) as owner:
            await owner.receive(*"1234")
            reader = await call(home, "listen", {"count": 4})
            lines = [await reader.next() for _ in range(4)]
            cursors = [line["cursor"] for line in lines if line]
            reader.kept(cursors[1])
            reader.kept(999)
            reader.kept(cursors[3])
            reader.written(cursors[2])
            assert await reader.next() is None  # nothing is waited for any more
            await reader.close()
            assert [line.text for line in await owner.node._runtime.call(unread)] == ["2", "4"]

    in_a_loop(work)


def unread(store: MeshStore) -> Sequence[Line]:
    return store.journal(after=0, limit=10, unread=True)


def test_lines_kept_back_take_no_room_of_those_that_follow(tmp_path: Path) -> None:
    async def work() -> None:
        home = tmp_path / "a"
        async with Owner(home) as owner:
            await owner.receive(*map(str, range(WINDOW + 10)))
            listener = await call(home, "listen", {})
            for _ in range(WINDOW + 10):
                line = await listener.next()
                assert line
                listener.kept(line["cursor"])
            await listener.close()

    in_a_loop(work)


def test_the_next_owner_tells_again_what_was_kept_back(tmp_path: Path) -> None:
    async def work() -> None:
        home = tmp_path / "a"
        session = Session(Settings(home), stays=True, network=False)
        async with Owner(home, ephemeral=False) as owner:
            await owner.receive("1", "2", "3")
            await session.open()
            lines = session.stream("listen", {})
            first, second, third = [await anext(lines) for _ in range(3)]
            lines.written(first)
            lines.kept(second)
            lines.written(third)
        # This process is the next owner.
        assert (await anext(lines))["text"] == "2"
        await lines.__aexit__(None, None, None)
        await session.close()

    in_a_loop(work)


def test_an_owner_of_another_version_is_told_only_words_it_knows(tmp_path: Path) -> None:
    async def work() -> None:
        home = tmp_path / "a"
        session = Session(Settings(home), stays=True, network=False)
        async with Owner(home, version="0.0.1") as owner:
            await owner.receive("1")
            await session.open()
            async with session.stream("listen", {"count": 1}) as lines:
                lines.kept(await anext(lines))
                assert [line async for line in lines] == []
            assert list(await owner.node._runtime.call(unread)) == []
        await session.close()

    in_a_loop(work)


def test_two_listeners_both_get_what_comes(tmp_path: Path) -> None:
    async def work() -> None:
        home = tmp_path / "a"
        async with Owner(home) as owner:
            await owner.receive("before")
            first, second = await call(home, "listen", {}), await call(home, "listen", {})
            for listener in (first, second):
                line = await listener.next()
                assert line
                assert line["text"] == "before"
                listener.written(line["cursor"])
            await owner.receive("now")
            for listener in (first, second):
                line = await listener.next()
                assert line
                assert line["text"] == "now"
                listener.written(line["cursor"])
                assert (await answer(home, "store")) is not None
            await first.close()
            await second.close()

    in_a_loop(work)


def test_a_listener_that_says_nothing_is_not_sent_everything(tmp_path: Path) -> None:
    async def work() -> None:
        home = tmp_path / "a"
        async with Owner(home) as owner:
            await owner.receive(*map(str, range(WINDOW + 10)))
            listener = await call(home, "listen", {})
            for _ in range(WINDOW):
                line = await listener.next()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await listener.next()
            assert line
            listener.written(line["cursor"])
            line = await listener.next()
            assert line
            assert line["text"] == str(WINDOW)
            await listener.close()

    in_a_loop(work)


# --- owners that go


def test_calls_that_wait_are_sent_on_and_short_ones_are_finished(tmp_path: Path) -> None:
    async def work() -> None:
        home = tmp_path / "a"
        async with Owner(home):
            listener = await call(home, "listen", {})
            renaming = await call(home, "identity", {"name": "ann"})
            await asyncio.sleep(0.05)  # not waited for: either it is under way now, or it never begins
        with suppress(Moved):
            renamed = await renaming.next()
            assert renamed
            assert renamed["name"] == "ann"
        await renaming.close()
        with pytest.raises(Moved) as moved:
            await listener.next()
        assert not isinstance(moved.value, Vanished)
        await listener.close()

    in_a_loop(work)


def test_a_listener_outlives_the_daemon_it_began_on(people: tuple[Person, Person]) -> None:
    a, b = people
    befriend(a, b)
    a.up()
    b.up()
    listener = b.start("listen", "--json", "--count", "3")
    assert a.ask("send", "bob", "one", "--wait", "delivered")["state"] == "delivered"
    assert json.loads(read_line(listener))["text"] == "one"
    assert b.down().code == 0
    # Now the listener itself owns the home, and is the node that the second message reaches.
    assert a.ask("send", "bob", "two", "--wait", "delivered")["state"] == "delivered"
    assert json.loads(read_line(listener))["text"] == "two"
    assert b.ask("store")["delivered"] == 2
    a.ask("send", "bob", "three", "--wait", "delivered")
    done = finish(listener)
    assert (done.code, [line["text"] for line in done.lines]) == (0, ["three"])
    assert b.ask("store")["unread"] == 0


def test_of_many_calls_at_once_one_owns_the_home_and_all_are_answered(people: tuple[Person, Person]) -> None:
    person, _ = people
    assert person.ask("identity")
    calls = [person.start("store", "--json") for _ in range(5)]
    assert [finish(one).json["messages"] for one in calls] == [0] * 5


def test_a_change_is_not_repeated_when_its_owner_vanishes(tmp_path: Path) -> None:
    """An owner that takes a request and dies leaves the caller not knowing; asking again could send twice."""

    async def work() -> None:
        home = tmp_path / "a"
        home.mkdir(mode=0o700)

        async def owner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b'{"hello": {"version": "0", "networked": true, "stays": true}}\n')
            if await reader.readline():
                server.close()
                (home / NAME).unlink()
            writer.close()

        server = await asyncio.start_unix_server(owner, home / NAME)
        session = Session(Settings(home), stays=False, network=False)
        await session.open()
        with pytest.raises(Exception, match="not known"):
            await session.ask("send", {"peer": "x", "text": "y"})
        assert (await session.ask("store", {}))["messages"] == 0  # what only reads goes on, on a node of our own
        assert session.node is not None
        await session.close()

    in_a_loop(work)


def test_a_process_that_holds_the_home_without_answering_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quicprochat.client.session.TAKE_OVER_S", 0.1)

    async def work() -> None:
        node = P2pNode(Options(tmp_path / "a", ephemeral=True), network=False)
        async with node:
            session = Session(Settings(tmp_path / "a"), stays=False, network=False)
            with pytest.raises(LocalError) as refused:
                await session.open()
            assert refused.value.code == "owned"

    in_a_loop(work)


def test_an_owner_that_says_nothing_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quicprochat.client.socket.HELLO_S", 0.1)

    async def work() -> None:
        hung_up = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert await reader.read() == b""
            writer.close()
            hung_up.set()

        server = await asyncio.start_unix_server(silent, tmp_path / NAME)
        with pytest.raises(UnavailableError, match="does not answer"):
            await SocketCall.connect(tmp_path)
        await hung_up.wait()
        server.close()

    in_a_loop(work)
