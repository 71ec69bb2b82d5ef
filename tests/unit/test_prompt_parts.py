"""The parts of the prompt that need no terminal: what a line means, what is kept, what the status line says."""

from __future__ import annotations

import asyncio
import json
import os
import select
import stat
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text.utils import fragment_list_to_text
from prompt_toolkit.utils import get_cwidth
from tests.unit.talking import ADA, STATUS, Talk, message, peer, receipt, talking

from quicprochat.client.grammar import Request
from quicprochat.client.prompt import fits, history, render
from quicprochat.client.prompt.completion import HEARD_MAX, Known, LineCompleter
from quicprochat.client.prompt.history import ENTRIES_MAX, FILE_MAX_BYTES, HomeHistory, secret
from quicprochat.client.prompt.near import TOLD_MAX, Near
from quicprochat.client.prompt.status import status_line
from quicprochat.client.prompt.terminal import Terminal, encoding_of
from quicprochat.client.prompt.words import Conversation, Help, Kind, Leave, Post, Quit, Run, Say, names, understand
from quicprochat.core.errors import LocalError

ADA_TALK = Conversation(Kind.PEER, ADA, "ada")

# --- words


@pytest.mark.parametrize(
    ("line", "current", "meaning"),
    [
        ("", None, None),
        ("  \n ", ADA_TALK, None),
        ("hello", ADA_TALK, Say(ADA, "hello")),
        ("  indented /quit", ADA_TALK, Say(ADA, "  indented /quit")),
        ("//etc/passwd", ADA_TALK, Say(ADA, "/etc/passwd")),
        ("/msg bob  two  words ", None, Say("bob", "two  words")),
        ('/msg "Bob B." hi', None, Say("Bob B.", "hi")),
        ("/query bob", None, Say("bob", "", moves=True)),
        ("/q bob and hello", ADA_TALK, Say("bob", "and hello", moves=True)),
        ("/query", ADA_TALK, Leave()),
        ("/close", ADA_TALK, Leave()),
        ("/quit", None, Quit()),
        ("/exit", None, Quit()),
        ("/send bob hi", None, Say("bob", "hi")),
        ("/mesh send bob hi", None, Say("bob", "hi")),
        ("/send --ttl 60 bob hi", None, Run(Request("send", {"peer": "bob", "text": "hi", "ttl": 60}))),
        ("/msg bob first\n/quit", None, Say("bob", "first\n/quit")),
        ('/mesh send bob "two words"', None, Say("bob", "two words")),
        ('/mesh send bob "one" and "two"', None, Say("bob", '"one" and "two"')),
        ('/msg bob "as it is"', None, Say("bob", '"as it is"')),
        (
            '/mesh broadcast x "bread is ready"',
            None,
            Run(Request("broadcast", {"topic": "x", "text": "bread is ready"}, mesh=True)),
        ),
        (
            "/broadcast x fire --emergency",
            None,
            Run(Request("broadcast", {"topic": "x", "text": "fire", "emergency": True}, mesh=True)),
        ),
        (
            "to alarm all: /broadcast x fire --emergency",
            Conversation(Kind.CHANNEL, "garden", "#garden"),
            Post(
                Request("broadcast", {"topic": "garden", "text": "to alarm all: /broadcast x fire --emergency"}, True)
            ),
        ),
        ("/trust bob", None, Run(Request("trust", {"peer": "bob"}, mesh=True))),
        ("/peers --scan 2", None, Run(Request("peers", {"scan": 2.0}, mesh=True))),
        ("/who", None, Run(Request("peers", {}, mesh=True))),
        ("/accept abcdef01 --name eve", None, Run(Request("accept", {"peer": "abcdef01", "name": "eve"}, mesh=True))),
        ("/whois", ADA_TALK, Run(Request("verify", {"peer": ADA}))),
        ("/whois bob --confirm", None, Run(Request("verify", {"peer": "bob", "confirm": True}))),
        ("/names", None, Run(Request("peers", {}, mesh=True))),
        (
            "/names",
            Conversation(Kind.CHANNEL, "garden", "#garden"),
            Run(Request("members", {"topic": "garden"}, mesh=True)),
        ),
        ('/nick "Ann of the Well"', None, Run(Request("identity", {"name": "Ann of the Well"}))),
        ('/nick ""', None, Run(Request("identity", {"name": ""}))),
        ("/nick  Ann of the Well ", None, Run(Request("identity", {"name": "Ann of the Well"}))),
    ],
)
def test_what_a_line_means(line: str, current: Conversation | None, meaning: object) -> None:
    assert understand(line, current) == meaning


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("hello", "goes to nobody"),
        ("/", "no command"),
        ("/sned bob hi", "did you mean /send?"),
        ("/mesh pers", "did you mean /peers?"),
        ("/whos", "did you mean /who"),
        ("/etc/passwd is broken", "begin it with //"),
        ("/msg", "write: /msg"),
        ("/msg bob", "/query bob"),
        ("/send bob", "no text"),
        ("/nick", "write: /nick"),
        ("/whois", "Write: /whois <peer>"),
        ("/block a\n/block b", "one line"),
        ("/listen", "/inbox"),
        ("/daemon", "a node already"),
        ("/help nonsense", "no command"),
    ],
)
def test_what_means_nothing_says_what_to_do(line: str, said: str) -> None:
    with pytest.raises(LocalError) as refused:
        understand(line, None)
    assert said in str(refused.value)


def test_how_a_command_is_written_is_said_as_it_was_typed() -> None:
    for line, said in (("/rotate", "write: /rotate <topic>"), ("/mesh rotate", "write: /mesh rotate <topic>")):
        with pytest.raises(LocalError, match=said):
            understand(line, None)


@pytest.mark.parametrize("name", names())
def test_there_is_help_on_every_word(name: str) -> None:
    meaning = understand(f"/help {name}", None)
    assert isinstance(meaning, Help)
    assert name in meaning.text


# --- looks


def test_rows_fit_and_lose_nothing() -> None:
    for text in ("a" * 500, "word " * 90, "日本語" * 60, "mixed 日本 text " * 20, "e\u0301" * 200, ""):
        for width in (1, 20, 33, 80, 200):
            rows = "".join(part[1] for part in render.set_in(text, 12, width)).split("\n")[:-1]
            assert all(get_cwidth(row) <= max(width, render.NARROWEST) for row in rows[1:]), (text, width)
            assert "".join(row.removeprefix(render.BAR) for row in rows).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize("width", [1, 7, 20, 40, 80, 300])
def test_the_status_line_has_the_width_of_the_terminal(width: int) -> None:
    for status in (None, STATUS, {**STATUS, "name": "日本" * 30, "waiting": 12, "unread": 3, "disk_low": True}):
        for current in (None, ADA_TALK, Conversation(Kind.CHANNEL, "x", "#" + "語" * 40)):
            for block, busy in ((1, ""), (50, ""), (1, "/whois somebody")):
                line = status_line(status, current, 7, block, busy, width)
                assert sum(get_cwidth(part[1]) for part in line) in (width, width - 1), line


@pytest.mark.parametrize(
    ("line", "args"),
    [
        ("/history", {"topic": "two words"}),
        ("/mesh history", {"topic": "two words"}),
        ("/history --since 2d --count 3", {"topic": "two words", "since": "2d", "count": 3}),
        ("/history --count 3 bakery", {"topic": "bakery", "count": 3}),
        ("/mesh history bakery", {"topic": "bakery"}),
    ],
)
def test_in_a_channel_history_is_its_own_unless_another_is_named(line: str, args: dict[str, object]) -> None:
    here = Conversation(Kind.CHANNEL, "two words", "#two words")
    assert understand(line, here) == Run(Request("history", args, mesh=True))
    if args["topic"] == "bakery":
        assert understand(line, None) == understand(line, here)
    else:
        with pytest.raises(LocalError, match="<topic> is missing"):
            understand(line, None)


@pytest.mark.parametrize("command", ["members", "invite", "mute", "unmute"])
def test_in_a_channel_these_mean_it_unless_another_is_named(command: str) -> None:
    here = Conversation(Kind.CHANNEL, "village", "#village")
    for start in ("/", "/mesh "):
        assert understand(f"{start}{command}", here) == Run(Request(command, {"topic": "village"}, mesh=True))
        assert understand(f"{start}{command} well", here) == Run(Request(command, {"topic": "well"}, mesh=True))
        for elsewhere in (None, Conversation(Kind.PEER, "bob", "bob")):
            with pytest.raises(LocalError, match="<topic> is missing"):
                understand(f"{start}{command}", elsewhere)
    with pytest.raises(LocalError, match="'two' is too much"):
        understand(f"/{command} one two", here)


@pytest.mark.parametrize("line", ["/unsubscribe", "/rotate", "/posters"])
def test_what_cannot_be_undone_names_its_channel(line: str) -> None:
    with pytest.raises(LocalError, match="<topic> is missing"):
        understand(line, Conversation(Kind.CHANNEL, "village", "#village"))


def test_what_is_wrong_with_a_history_is_said_in_a_channel_too() -> None:
    here = Conversation(Kind.CHANNEL, "village", "#village")
    with pytest.raises(LocalError, match="'soon' is neither a cursor nor a time"):
        understand("/history --since soon", here)
    with pytest.raises(LocalError, match="'two' is too much"):
        understand("/history one two", here)
    assert isinstance(understand("/history --help", here), Help)
    assert understand("/mesh channels", here) == Run(Request("channels", {}, mesh=True))


def test_topics_are_offered_wherever_one_is_asked_for() -> None:
    known = Known()
    known.topic("village")
    for line in ("/history vi", "/mesh history --count 3 vi", "/join vi", "/broadcast vi", "/unsubscribe vi"):
        offered = LineCompleter(known).get_completions(Document(line), CompleteEvent())
        assert [found.text for found in offered] == ["village "], line
    known.learn_topics(())
    assert not list(LineCompleter(known).get_completions(Document("/join vi"), CompleteEvent()))


def test_the_status_line_counts_what_is_unread_in_other_channels() -> None:
    def line(current: Conversation | None, unread: int, **counts: int) -> str:
        found = [{"topic": topic, "channel": "c0" * 32, "kind": "open", "unread": n} for topic, n in counts.items()]
        status = {**STATUS, "unread": unread, "unread_posts": found}
        return "".join(part[1] for part in status_line(status, current, 0, 1, "", 200))

    here = Conversation(Kind.CHANNEL, "a", "#a (open)")
    assert "| #b (open) 3 | in #a (open)" in line(here, 3, b=3)
    # What is unread here, or came from a person, is no other channel's.
    assert "| 4 unread | #b (open) 3 |" in line(here, 7, a=2, b=3)
    assert "| #a (open) 2 | #b (open) 3 | no conversation" in line(None, 5, a=2, b=3)
    assert "| #b (open) 1 | #c (open) 1 | #d (open) 1 | 5 elsewhere |" in line(here, 8, b=1, c=1, d=1, e=2, f=3)
    assert "\x1b" not in line(here, 1, **{"b\x1b]0;x\x07": 1})


def test_the_status_line_tells_what_there_is_to_know() -> None:
    def line(**more: Any) -> str:
        return "".join(part[1] for part in status_line({**STATUS, **more}, ADA_TALK, 0, 1, "", 80))

    assert line().startswith(" Me | 1 link | to ada ")
    assert " Me | 3 links | 2 waiting | 5 unread | to ada " in line(links=3, waiting=2, unread=5)
    assert "no network" in line(networked=False)
    assert "disk is almost full" in line(disk_low=True)


@pytest.mark.parametrize(
    ("state", "reason", "said"),
    [
        ("delivered", "", "delivered to ada"),
        ("delivered", "volatile", "in memory only"),
        ("expired", "nobody confirmed", "it may have arrived"),
        ("failed", "refused", "failed: ada has not got it (refused)"),
        ("cancelled", "", "a copy that had left may still reach ada"),
        ("relayed", "", "another node has a copy"),
    ],
)
def test_states_are_told_truthfully(state: str, reason: str, said: str) -> None:
    assert said in render.sentence("ada", state, reason)


def test_what_is_said_for_the_shell_is_said_for_the_prompt() -> None:
    text = "see: qpc mesh peers, or qpc add; a node runs with qpc daemon; qpc help"
    assert render.note(text, 200)[0][1] == "see: /peers, or /add; a node runs with qpc daemon; /help\n"
    elsewhere = "this is asked for in the shell: qpc mesh subscribe club"
    assert render.note(elsewhere, 200)[0][1] == f"{elsewhere}\n"


# --- history


def test_history_is_bounded_and_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history"
    kept = HomeHistory(path)
    for n in range(ENTRIES_MAX + 50):
        kept.keep(f"line {n}\nof two")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = list(HomeHistory(path).load_history_strings())
    assert len(found) == ENTRIES_MAX
    assert found[0] == f"line {ENTRIES_MAX + 49}\nof two"
    monkeypatch.setattr(history, "FILE_MAX_BYTES", 10_000)
    kept.keep("one more")
    assert path.stat().st_size < 10_000
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert next(iter(HomeHistory(path).load_history_strings())) == "one more"
    kept.keep("x" * FILE_MAX_BYTES)
    assert path.stat().st_size < 10_000


@pytest.mark.parametrize("rubbish", [b"", b"\xff\xfe\n[1]\n{}\n\n", b'"good"\nnonsense\n', b"[" * 100_000])
def test_a_damaged_history_is_no_obstacle(tmp_path: Path, rubbish: bytes) -> None:
    path = tmp_path / "history"
    path.write_bytes(rubbish)
    assert set(HomeHistory(path).load_history_strings()) <= {"good"}


def test_history_follows_no_link_and_needs_no_disk(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text('"secret"\n')
    (tmp_path / "history").symlink_to(other)
    kept = HomeHistory(tmp_path / "history")
    kept.keep("line")
    assert list(kept.load_history_strings()) == []
    assert other.read_text() == '"secret"\n'
    os.mkfifo(tmp_path / "fifo")
    assert list(HomeHistory(tmp_path / "fifo").load_history_strings()) == []
    HomeHistory(None).keep("line")


@pytest.mark.parametrize(
    "line",
    [
        " /msg bob kept out by a space", "/mesh subscribe x --key 00ff", "/mesh subscribe x --invite abc",
        f"/add {'ab' * 32}", "/add qpc1i2opc2kpmdwtpwbhrhjyuparj67n7st4hbo6f75rxhxoygk25mxqaaiep4", "my password is x",
        "/identity export --passphrase x",
    ],
)  # fmt: skip
def test_secrets_are_kept_nowhere(tmp_path: Path, line: str) -> None:
    assert secret(line)
    kept = HomeHistory(tmp_path / "history")
    kept.append_string(line)
    kept.keep(line)
    assert kept.get_strings() == []
    assert not (tmp_path / "history").exists()


# --- the rest


def test_a_crowd_near_takes_few_lines() -> None:
    def stranger(n: int, **more: object) -> dict[str, object]:
        return {**peer(f"{n:08x}" * 8, f"N{n}", contact=False), "announced": True, **more}

    near = Near()
    told = near.news([stranger(n) for n in range(1, 50)])
    assert len(told) == TOLD_MAX + 1
    assert told[0] == 'somebody who calls itself "N1" (00000001…) is near: /peers shows who; /add 00000001 --name n1'
    assert near.news([stranger(n) for n in range(100)]) == []
    for passed_over in ({"contact": True}, {"blocked": True}, {"looks_like": "ada"}, {"announced": False}):
        assert Near().news([stranger(1, **passed_over)]) == []
    assert Near().news([stranger(1, name="a; b\n")])[0].endswith("--name <name>")


def test_what_is_known_for_completion_is_bounded() -> None:
    known = Known()
    for n in range(HEARD_MAX + 10):
        known.wrote({**message("x", sender=f"{n:064x}", name="x\x1b]0;t\x07"), "request": True, "channel": str(n)})
    assert len(known.keys) == len(known.topics) == HEARD_MAX
    assert not any("\x1b" in note for note in known.keys.values())


def test_names_at_domains_are_completed_from_what_meant_somebody_and_from_known_domains() -> None:
    known = Known()
    known.learn_peers([
        {**peer(ADA, "ada"), "domain": "node2.mesh.local"},
        {**peer("cc" * 32, "eve", contact=False), "domain": "x; /quit\x1b.example"},
    ])  # fmt: skip
    known.lives("bob@node1.mesh.local")

    def offered(line: str) -> list[str]:
        return [c.text for c in LineCompleter(known).get_completions(Document(line), CompleteEvent())]

    assert offered("/send bob") == ["bob@node1.mesh.local "]
    assert offered("/send bob@") == ["bob@node1.mesh.local ", "bob@node2.mesh.local "]
    assert offered("/send carol@node2") == ["carol@node2.mesh.local "]
    assert offered("/send carol@x") == []
    assert offered("/send ada") == ["ada "]


def test_the_terminals_encoding() -> None:
    assert encoding_of({}, "utf-8") == "utf-8"
    assert encoding_of({"LANG": "C"}, "utf-8") == "ascii"
    assert encoding_of({"LANG": "de_DE.UTF-8", "LC_ALL": "POSIX"}, "utf-8") == "ascii"
    assert encoding_of({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, "ascii") == "utf-8"
    assert encoding_of({"LANG": "de_DE.ISO-8859-1@euro"}, "utf-8") == "iso8859-1"
    assert encoding_of({"LANG": "de_DE.nonsense"}, "utf-8") == "utf-8"
    assert encoding_of({"LANG": "C", "PYTHONIOENCODING": "utf-8"}, "utf-8") == "utf-8"


def test_without_a_terminal_the_prompt_does_not_fit() -> None:
    assert not fits({"TERM": "dumb"})
    assert not fits({})


def test_a_stalled_terminal_loses_no_line_and_is_drawn_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quicprochat.client.prompt.terminal.BACKLOG_MAX_CHARS", 3_000)

    async def work(talk: Talk) -> None:
        running = asyncio.get_running_loop()
        running.remove_reader(talk.emulator.master)
        talk.home.arrive(*(message(f"line {n} {'x' * 1_000}") for n in range(50)))
        await talk.until(lambda: talk.loop.screen._terminal._under_way, "a full terminal")
        for n in range(200):
            talk.home.watching.lines.put_nowait({**STATUS, "links": 1_000_000 + n})
            await talk.until(lambda n=n: (talk.loop._status or STATUS)["links"] == 1_000_000 + n)  # type: ignore[misc]
            talk.loop.screen._app._redraw()
        talk.home.watching.lines.put_nowait(STATUS)
        running.add_reader(talk.emulator.master, talk.emulator.take)
        await talk.until(lambda: len(talk.home.listening.read) == 50, "all lines")
        await talk.until(lambda: all(f"line {n} " in talk.emulator.plain for n in range(50)), "every line")
        talk.emulator.type("typed")
        await talk.shows("> typed")
        await talk.shows(" Me | 1 link")
        assert len(talk.emulator.bars) == 1

    async def inside() -> None:
        async with talking(tmp_path) as talk:
            await work(talk)

    asyncio.run(inside())


def test_redraws_are_skipped_where_the_terminal_is_full_and_lines_are_not() -> None:
    async def inside() -> None:
        reading, writing = os.pipe()
        terminal = Terminal(writing, "utf-8")
        drawn_anew = asyncio.Event()
        terminal.caught_up = drawn_anew.set
        for text in ("a" * 200_000, "b" * 200_000):
            terminal.write(text)
            terminal.flush()
        with terminal.gathered():
            terminal.write("c" * 200_000)
            terminal.flush()
        wanted = b"a" * 200_000 + b"c" * 200_000
        found = b""
        while len(found) < len(wanted) and (await asyncio.to_thread(select.select, [reading], [], [], 5))[0]:
            found += os.read(reading, 65_536)
        assert found == wanted
        await asyncio.wait_for(terminal.drained(), 10)
        await asyncio.wait_for(drawn_anew.wait(), 10)
        terminal.close()
        os.close(reading)
        os.close(writing)

    asyncio.run(inside())


def test_a_terminal_that_hangs_up_is_noticed() -> None:
    async def inside() -> None:
        reading, writing = os.pipe()
        gone = asyncio.Event()
        terminal = Terminal(writing, "utf-8", gone.set)
        os.close(reading)
        terminal.write("text")
        terminal.flush()
        await asyncio.wait_for(gone.wait(), 10)
        await asyncio.wait_for(terminal.drained(), 10)
        assert terminal.hung_up
        terminal.close()
        os.close(writing)

    asyncio.run(inside())


def test_a_paste_cannot_carry_its_own_end(tmp_path: Path) -> None:
    async def inside() -> None:
        async with talking(tmp_path) as talk:
            talk.emulator.type("\x1b[200~harmless\x1b[201~ text\r/block ada\r\x1b[201~")
            await talk.until(lambda: "/block ada" in talk.loop.screen.input.text, "the block")
            await talk.shows("lines: Enter sends them as one message")
            assert not any(command == "block" for command, _ in talk.home.asked)

    asyncio.run(inside())


def test_receipts_of_elsewhere_are_told_while_sending(tmp_path: Path) -> None:
    async def inside() -> None:
        async with talking(tmp_path) as talk:
            await talk.enter("/query ada")
            await talk.shows("[ada]")
            talk.home.answering.clear()
            await talk.enter("under way")
            talk.home.arrive(receipt("77" * 16, "delivered"))
            await talk.until(lambda: talk.loop._transcript._parked, "the receipt")
            talk.home.answering.set()
            await talk.shows("delivered to ada: an earlier message")
            await talk.until(lambda: talk.home.listening.read == [1], "the receipt to be read")
            assert json.dumps(talk.home.said()) == json.dumps([(ADA, "under way")])

    asyncio.run(inside())


def test_rows_of_ours_end_at_spaces_and_leave_what_is_to_be_copied() -> None:
    key = "ab" * 32
    text = f"bakery            open          1 post, 0 unread\nkey: {key}\nshort"
    shown = fragment_list_to_text(render.talk(text, 40))
    assert shown == f"bakery            open          1 post,\n    0 unread\nkey: {key}\nshort\n"
    hint = fragment_list_to_text(render.hint_for_request({"from": ADA}, 40)).splitlines()
    assert len(hint) > 1
    assert all(row.startswith(render.BAR) for row in hint)
    rows = fragment_list_to_text(render.note("some words " * 20, 40))
    assert {len(row) > 30 for row in rows.splitlines()[:-1]} == {True}
