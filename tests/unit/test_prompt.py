"""The prompt on an emulated terminal: what it shows, what it sends, and that nobody else steers the terminal."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import stat
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.unit.talking import ADA, BOB, EVE, STATUS, Talk, message, peer, post, receipt, talking

from quicprochat.client.prompt import terminal
from quicprochat.core.errors import LocalError, StoreError


def run(work: Callable[[Talk], Coroutine[Any, Any, None]], tmp_path: Path, **more: Any) -> None:
    async def inside() -> None:
        async with talking(tmp_path, **more) as talk:
            await work(talk)

    asyncio.run(inside())


# --- questions


def found(**more: Any) -> dict[str, Any]:
    return {
        "server": "192.0.2.1:7000", "domain": "village.example", "fingerprint": "ab" * 32,
        "spoken": " ".join(["abab"] * 16), "known": False, **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "goes"), [("yes", True), ("Y", True), ("no", False), ("", False), ("yes sir", False)]
)
def test_the_first_use_of_a_found_server_asks(tmp_path: Path, answer: str, goes: bool) -> None:
    async def work(talk: Talk) -> None:
        talk.home.answers = {"announced": found(), "server": {"server": "192.0.2.1:7000", "domain": "",
                             "standing": "connected", "fingerprint": "", "trouble": ""}}  # fmt: skip
        await talk.enter("/server village.example")
        await talk.shows("yes/no>")
        assert talk.emulator.shown.count("abab abab abab abab") == 4
        asked = [args for command, args in talk.home.asked if command == "server"]
        assert asked == []
        await talk.enter(answer)
        await talk.shows("7000: connected" if goes else "was not confirmed")
        asked = [args for command, args in talk.home.asked if command == "server"]
        assert asked == ([{"server": "village.example", "trust": "ab" * 32}] if goes else [])

    run(work, tmp_path)


def test_a_line_typed_before_the_question_does_not_answer_it(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        talk.home.answers = {"announced": found()}
        talk.home.answering.clear()
        await talk.enter("/server village.example")
        await talk.enter("yes")
        talk.home.answering.set()
        await talk.shows("yes/no>")
        await talk.enter("no")
        await talk.shows("was not confirmed")
        await talk.shows("this line goes to nobody")  # what the yes became
        assert not [args for command, args in talk.home.asked if command == "server"]

    run(work, tmp_path)


@pytest.mark.parametrize(("answer", "goes"), [("y", True), ("", False)])
def test_a_channel_that_is_none_of_ours_is_asked_about(tmp_path: Path, answer: str, goes: bool) -> None:
    async def work(talk: Talk) -> None:
        talk.home.answers["subscribe"] = {"channel": "c9" * 32, "topic": "vilage", "kind": "open"}
        await talk.enter("/join #vilage")
        await talk.shows("yes/no>")
        assert "You are in no channel vilage; did you mean village?" in talk.emulator.shown
        assert "Whoever knows or guesses its name reads and writes there." in talk.emulator.shown
        assert not [args for command, args in talk.home.asked if command == "subscribe"]
        await talk.enter(answer)
        await talk.shows("in #vilage (open)" if goes else "nothing was joined")
        asked = [args for command, args in talk.home.asked if command == "subscribe"]
        assert asked == ([{"topic": "vilage"}] if goes else [])

    run(work, tmp_path)


@pytest.mark.parametrize("line", ["/join village", "/join new --key new", "/join theirs --invite qpci1x"])
def test_a_channel_of_ours_and_a_private_one_are_not_asked_about(tmp_path: Path, line: str) -> None:
    async def work(talk: Talk) -> None:
        talk.home.answers["subscribe"] = {"channel": "c9" * 32, "topic": line.split()[1], "kind": "open"}
        await talk.enter(line)
        await talk.shows(f"in #{line.split()[1]} (open)")

    run(work, tmp_path)


def test_a_line_that_means_nothing_stands_above_what_is_said_of_it(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        await talk.enter("/sned ada hello")
        await talk.shows("did you mean /send?")
        rows = talk.emulator.rows
        assert rows[[row.startswith("There is no command") for row in rows].index(True) - 1] == "> /sned ada hello"
        await talk.enter("/query nobody")
        await talk.shows("no peer is called 'nobody'")
        rows = talk.emulator.rows
        assert rows[[row.startswith("no peer is called") for row in rows].index(True) - 1] == "> /query nobody"

    run(work, tmp_path)


@pytest.mark.parametrize(("line", "known"), [("/server village.example", True), ("/server box.example:7000", False)])
def test_a_known_server_and_a_typed_address_are_not_asked_about(tmp_path: Path, line: str, known: bool) -> None:
    async def work(talk: Talk) -> None:
        talk.home.answers = {"announced": found(known=known), "server": {"server": "x:1", "domain": "",
                             "standing": "connected", "fingerprint": "", "trouble": ""}}  # fmt: skip
        await talk.enter(line)
        await talk.shows("x:1: connected")

    run(work, tmp_path)


# --- incoming


def test_what_arrives_stands_above_the_line_being_typed(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        talk.emulator.type("half a sen")
        await talk.shows("> half a sen")
        talk.home.arrive(message("hello there"), post("who is at the well?", "village"))
        await talk.shows("#village ada: who is at the well?")
        talk.emulator.type("tence")
        await talk.shows("> half a sentence")
        rows = talk.emulator.rows
        assert "--:-- ada: hello there" in rows
        line = rows.index("> half a sentence")
        assert rows.index("--:-- ada: hello there") < line
        assert rows[line + 1].startswith(" Me | 1 link")
        assert (talk.emulator.screen.cursor.y, talk.emulator.screen.cursor.x) == (line, len("> half a sentence"))

    run(work, tmp_path)


def test_a_line_counts_as_read_only_once_the_terminal_took_it(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        asyncio.get_running_loop().remove_reader(talk.emulator.master)  # the terminal takes nothing more
        talk.home.arrive(*(message("x" * 400) for _ in range(2_000)))
        await talk.until(lambda: talk.loop.screen.behind >= 300, "a full queue")
        assert len(talk.home.listening.read) < 600
        assert not talk.home.listening.lines.empty()
        asyncio.get_running_loop().add_reader(talk.emulator.master, talk.emulator.take)
        await talk.until(lambda: len(talk.home.listening.read) == 2_000, "the rest")
        assert talk.home.listening.read == list(range(1, 2_001))
        await talk.until(lambda: talk.emulator.plain.count("ada: x") == 2_000, "every line")

    run(work, tmp_path)


def test_nothing_is_read_before_the_system_took_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, open_gate = terminal._write, threading.Event()
    open_gate.set()

    def gated(fd: int, data: memoryview) -> int:
        open_gate.wait(20)
        return write(fd, data)

    monkeypatch.setattr(terminal, "_write", gated)

    async def work(talk: Talk) -> None:
        await talk.until(lambda: not talk.loop.screen._terminal._under_way, "the first screen")
        open_gate.clear()
        talk.home.arrive(message("one"), message("two"))
        await talk.until(lambda: talk.loop.screen._terminal._under_way, "the write")
        await asyncio.sleep(0.1)  # more than two batches would have been shown by now
        assert talk.home.listening.read == []
        open_gate.set()
        await talk.until(lambda: talk.home.listening.read == [1, 2], "both to be read")

    run(work, tmp_path)


def test_requests_stand_apart_and_say_what_to_do(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        talk.home.arrive(
            message("let me in", sender=EVE, name="", request=True),
            message("please", sender=EVE, name="ada", request=True),
        )
        await talk.shows("calls itself ada")
        shown = talk.emulator.shown
        assert f"request from {EVE[:16]}: let me in" in shown
        assert f"request from {EVE[:16]} (calls itself ada): please" in shown
        assert shown.count("/accept eeeeeeee --name <name>") == 1
        assert shown.count("/block eeeeeeee") == 1

    run(work, tmp_path)


def test_no_text_can_pass_for_another_line(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        padding = " " * (80 - len("--:-- ada: ") - 1)
        talk.home.arrive(
            message("hello\n12:00 bob: I owe you"),
            message(f"a{padding}12:00 bob: and you me"),
            message(f"{'ab' * 40}12:00 bob: and all of us"),
            message("end"),
        )
        await talk.shows("ada: end")
        for row in talk.emulator.rows:
            assert not row.startswith("12:00"), talk.emulator.shown
        assert "and you me" in talk.emulator.shown
        assert "and all of us" in talk.emulator.shown

    run(work, tmp_path)


def test_a_new_day_is_told(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        talk.home.arrive(
            message("one", received_at="2026-03-01T12:00:00.000Z"),
            message("two", received_at="2026-03-01T12:01:00.000Z"),
            message("three", received_at="2026-03-02T12:00:00.000Z"),
        )
        await talk.shows("ada: three")
        rows = talk.emulator.rows
        assert sum(row.startswith("--- Sunday, 2026-03-01") for row in rows) == 1
        assert sum(row.startswith("--- Monday, 2026-03-02") for row in rows) == 1

    run(work, tmp_path)


# --- fuzz

# What terminals obey: titles, the clipboard, the cursor, modes, character sets, reports, printing; and what hides.
SEQUENCES = (
    "\x1b]0;title\x07", "\x1b]2;title\x1b\\", "\x1b]52;c;aGk=\x07", "\x1b[2J", "\x1b[1;1H", "\x1b[?1049h", "\x1b[?25l",
    "\x1b[?2004l", "\x1b[31m", "\x1bP+q544e\x1b\\", "\x1b[6n", "\x1b[c", "\x1bc", "\x1b(0", "\x0e", "\x9b31m",
    "\x9d0;t\x9c", "\x90q\x9c", "\x1b_G\x1b\\", "\x1b^pm\x1b\\", "\x1b[5i", "\x07", "\x08" * 9, "\r", "\r\n", "\x7f",
    "\x1b[20h", "\x1b[4h",
    "\u202e", "\u2066", "\u200b", "\u200d", "\ufeff", "\U000e0041", "\u0301" * 40, "\u115f", "\u3164", "\u2028", "\x85",
    "\ud800", "日本", "👩‍👩‍👧", "שלום", "ﷺ", "\U0001f1e9\U0001f1ea", "~[201~", "\x1b[200~", "\x1b[?7l", "\x1b[100T",
)  # fmt: skip


def fuzzed(chance: random.Random) -> str:
    parts = []
    for _ in range(chance.randrange(1, 8)):
        kind = chance.randrange(4)
        if kind == 0:
            parts.append(chance.choice(SEQUENCES))
        elif kind == 1:
            parts.append("".join(chr(chance.randrange(0x100)) for _ in range(chance.randrange(12))))
        elif kind == 2:
            parts.append("".join(chr(chance.randrange(0x110000)) for _ in range(chance.randrange(6))))
        else:
            parts.append("word " * chance.randrange(12))
    if chance.randrange(2_000) == 0:
        parts.append(chance.choice(SEQUENCES) * 2_000)
    return "".join(parts)


def fuzzed_line(chance: random.Random, number: int) -> dict[str, Any]:
    text = fuzzed(chance)
    kind = number % 8
    if kind == 0:
        return post(text, fuzzed(chance), name=fuzzed(chance))
    if kind == 1:
        return message(text, sender=EVE, name=fuzzed(chance), request=True)
    if kind == 2:
        return {**receipt("77" * 16, fuzzed(chance), fuzzed(chance)), "name": fuzzed(chance)}
    if kind == 3:
        return message(text, protection=fuzzed(chance), name=fuzzed(chance))
    if kind == 4:
        return {"event": fuzzed(chance), "text": text, "from": ADA, "name": "ada", "received_at": None}
    return message(text)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "iso8859-1"])
def test_ten_thousand_fuzzed_texts_steer_nothing(tmp_path: Path, encoding: str) -> None:
    count = 10_000 if encoding == "utf-8" else 1_000

    async def work(talk: Talk) -> None:
        chance = random.Random(7)
        emulator = talk.emulator
        emulator.type("typed")
        await talk.shows("> typed")
        modes, title = set(emulator.screen.mode), emulator.screen.title
        talk.home.arrive(*(fuzzed_line(chance, n) for n in range(count)), message("the end"))
        for alarm in range(10):
            text = fuzzed(chance)
            talk.home.watching.lines.put_nowait(
                {**STATUS, "links": alarm, "name": text, "alarms": [{"code": "x", "text": text, "peer": None}]}
            )
        talk.home.watching.lines.put_nowait(STATUS)
        await talk.until(lambda: len(talk.home.listening.read) == count + 1, "all lines")
        await talk.until(lambda: "ada: the end" in emulator.shown and " Me | 1 link" in emulator.shown, "the end")
        emulator.type(" on")
        await talk.shows("> typed on")
        assert emulator.screen.mode == modes
        assert emulator.screen.title == title == ""
        line = emulator.rows.index("> typed on")
        assert (emulator.screen.cursor.y, emulator.screen.cursor.x) == (line, len("> typed on"))
        if encoding != "utf-8":
            emulator.raw[:] = emulator.raw.decode(encoding).encode()
        assert emulator.strange == []

    run(work, tmp_path, encoding=encoding)


# --- pasting


def test_a_pasted_block_is_one_message_and_nothing_of_it_is_carried_out(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        await talk.enter("/query ada")
        await talk.shows("[ada]")
        block = "\n".join(["a list:", "/quit", "/block ada", *(f"line {n}" for n in range(47))])
        talk.emulator.type(f"\x1b[200~{block}\x1b[201~")
        await talk.shows("50 lines: Enter sends them as one message")
        assert talk.home.said() == []
        talk.emulator.type("\r")
        await talk.until(talk.home.said, "the message")
        assert talk.home.said() == [(ADA, block)]
        assert not any(command == "block" for command, _ in talk.home.asked)
        await talk.shows("    | line 46  (queued)")

    run(work, tmp_path)


def test_a_terminal_that_does_not_mark_pastes_is_understood(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        await talk.enter("/query ada")
        await talk.shows("[ada]")
        talk.emulator.type("one\r/quit\rthree\r")
        await talk.shows("3 lines: Enter sends them as one message")
        assert talk.loop.screen.input.text == "one\n/quit\nthree"
        talk.emulator.type("\x03")
        await talk.until(lambda: not talk.loop.screen.input.text, "an empty line")
        assert talk.home.said() == []

    run(work, tmp_path)


def test_a_pasted_block_is_no_command(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        talk.emulator.type("\x1b[200~/block ada\n/block bob\x1b[201~")
        await talk.shows("2 lines")
        talk.emulator.type("\r")
        await talk.shows("a command has one line, and this has 2; nothing was done")
        assert not any(command == "block" for command, _ in talk.home.asked)

    run(work, tmp_path)


def test_a_block_too_long_for_a_message_is_not_taken(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        talk.emulator.type("kept")
        await talk.shows("> kept")
        await asyncio.to_thread(talk.emulator.type, "\x1b[200~" + "x" * 140_000 + "\x1b[201~")
        await talk.shows("too long for one message")
        assert talk.loop.screen.input.text == "kept"

    run(work, tmp_path)


# --- conversations and states


def test_plain_lines_go_to_the_current_conversation_and_never_to_nobody(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        await talk.enter("hello?")
        await talk.shows("this line goes to nobody")
        await talk.enter('/msg "Bob B." psst')
        await talk.shows("-> Bob B.: psst")
        assert "no conversation" in talk.emulator.shown
        await talk.enter("/query ada")
        await talk.shows("to ada")
        await talk.enter("//is a slash")
        await talk.enter("good morning")
        await talk.shows("-> ada: good morning")
        await talk.enter("/query")
        await talk.shows("no conversation")
        await talk.enter("into the void")
        await talk.until(lambda: talk.emulator.shown.count("goes to nobody") == 2)
        assert talk.home.said() == [(BOB, "psst"), (ADA, "/is a slash"), (ADA, "good morning")]

    run(work, tmp_path)


def test_what_becomes_of_a_message_is_told(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        await talk.enter("/query ada")
        await talk.enter("first")
        await talk.shows("-> ada: first  (queued)")
        id = f"{1:032x}"
        await talk.until(
            lambda: "(queued)" in talk.emulator.plain and not talk.loop._transcript.live(80), "the moment to be over"
        )
        talk.home.arrive(receipt(id, "relayed"))
        await talk.shows('on its way to ada, another node has a copy: "first"')
        talk.home.arrive(receipt(id, "expired", "nobody confirmed"))
        await talk.shows('expired: ada did not confirm it in time; it may have arrived: "first"')
        talk.home.arrive(receipt(id, "delivered"))
        await talk.shows('delivered to ada: "first"')
        talk.home.arrive(receipt("77" * 16, "failed", "refused"))
        await talk.shows("failed: ada has not got it (refused): an earlier message")
        talk.home.answers["trace"] = {"text": f"said\x1b]0;x\x07 in {'another ' * 9}sitting"}
        talk.home.arrive(receipt("78" * 16, "delivered"))
        await talk.shows('delivered to ada: "said]0;x in another another another anot…"')

    run(work, tmp_path)


def test_what_could_not_be_sent_is_not_lost(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        await talk.enter("/query ada")
        await talk.shows("[ada]")
        talk.home.refusal = LocalError("the outbox is full", code="full")
        talk.emulator.type("a long thought\r")
        await talk.shows("the outbox is full")
        await talk.shows("[ada] a long thought")
        assert not talk.loop._transcript.live(80)
        talk.home.refusal = None
        talk.emulator.type("\r")
        await talk.shows("-> ada: a long thought  (queued)")
        kept = [json.loads(row) for row in (tmp_path / "history").read_text().splitlines()]
        assert kept == ["/query ada", "a long thought"]

    run(work, tmp_path)


def test_a_refused_line_comes_back_whole_and_is_never_glued_to_the_next(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        await talk.enter("/query ada")
        await talk.shows("[ada]")
        talk.home.refusal = LocalError("the outbox is full", code="full")
        put_back = '/msg "Bob B."  two  words'
        await talk.enter(put_back)
        await talk.until(lambda: talk.loop.screen.input.text == put_back, "the whole line")
        talk.emulator.type("typed blindly")
        await talk.until(lambda: talk.loop.screen.input.text == "typed blindly", "the new text alone")
        talk.emulator.type("\x03")
        await talk.enter(put_back)
        await talk.until(lambda: talk.loop.screen.input.text == put_back, "the whole line")
        talk.emulator.type("\x1b[D!")  # a moved cursor takes the line up
        await talk.until(lambda: talk.loop.screen.input.text == '/msg "Bob B."  two  word!s', "the line with a change")
        talk.home.refusal = None
        talk.emulator.type("\r")
        await talk.until(talk.home.said, "the message")
        await talk.until(lambda: talk.home.said()[-1] == (BOB, "two  word!s"), "the message, changed")

    run(work, tmp_path)


def test_a_refused_line_does_not_come_back_where_it_would_mean_something_else(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        await talk.enter("/query ada")
        await talk.shows("[ada]")
        talk.home.refusal = LocalError("the outbox is full", code="full")
        talk.home.answering.clear()
        await talk.enter("for ada alone")
        await talk.enter('/query "Bob B."')
        talk.home.answering.set()
        await talk.shows("[Bob B.]")
        await talk.shows("the outbox is full")
        assert talk.loop.screen.input.text == ""
        talk.home.answering.clear()
        await talk.enter("for Bob")
        talk.emulator.type("half a")
        await talk.shows("[Bob B.] half a")
        talk.home.answering.set()
        await talk.until(lambda: talk.emulator.shown.count("the outbox is full") == 2, "the second refusal")
        assert talk.loop.screen.input.text == "half a"

    run(work, tmp_path)


def test_a_quick_delivery_changes_the_line_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quicprochat.client.prompt.transcript.GRACE_S", 60)

    async def work(talk: Talk) -> None:
        await talk.enter("/query ada")
        await talk.enter("quick")
        await talk.shows("-> ada: quick  (queued)")
        assert talk.loop._transcript.live(80)
        talk.home.arrive(receipt(f"{1:032x}", "delivered"))
        await talk.shows("-> ada: quick  (delivered)")
        assert "(queued)" not in talk.emulator.shown
        assert talk.emulator.shown.count("quick") == 1
        assert not talk.loop._transcript.live(80)
        await talk.until(lambda: talk.home.listening.read == [1], "the receipt to be read")

    run(work, tmp_path)


def test_a_receipt_may_come_before_the_answer(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        await talk.enter("/query ada")
        await talk.shows("[ada]")
        talk.home.answering.clear()
        await talk.enter("swift")
        await talk.shows("-> ada: swift  (...)")
        talk.home.arrive(receipt(f"{1:032x}", "delivered"))
        await talk.until(lambda: talk.loop._transcript._parked, "the receipt")
        talk.home.answering.set()
        await talk.shows("-> ada: swift  (delivered)")
        assert talk.emulator.shown.count("swift") == 1

    run(work, tmp_path)


def test_plain_lines_go_to_the_current_channel(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        talk.home.answers["subscribe"] = {"channel": "c0" * 32, "topic": "village", "kind": "open"}
        talk.home.answers["broadcast"] = {"id": "99" * 16, "channel": "c0" * 32, "kind": "open", "subscribers": 3}
        await talk.enter("/join village")
        await talk.shows("in #village (open)")
        await talk.enter("--who is   at the well?")
        await talk.shows("-> #village (open): --who is   at the well?")
        await talk.shows("    | (posted, 3 linked nodes take it)")
        assert ("broadcast", {"topic": "village", "text": "--who is   at the well?"}) in talk.home.asked
        own = {**post("--who is   at the well?", "village"), "id": "99" * 16}
        theirs = {**post("me", "c0" * 32), "topic": "village", "kind": "open"}
        talk.home.arrive(own, theirs)
        await talk.shows("#village (open) ada: me")
        assert talk.emulator.shown.count("at the well") == 1
        await talk.until(lambda: talk.home.listening.read == [1, 2], "all to be read")
        await talk.enter("/part")
        await talk.shows("no conversation")
        private = {**post("shh", "c1" * 32), "topic": "well\x1b]0;x\x07", "kind": "private"}
        talk.home.arrive(private)
        await talk.shows("#well]0;x ada: shh")
        await talk.until(lambda: talk.home.listening.read == [1, 2, 3], "all to be read")

    run(work, tmp_path)


VILLAGE: dict[str, Any] = {"channel": "c0" * 32, "topic": "village", "kind": "open"}
WELL: dict[str, Any] = {"channel": "c1" * 32, "topic": "well", "kind": "private"}


def said(text: str, where: dict[str, Any], **more: Any) -> dict[str, Any]:
    return post(text, **{**where, **more})


def test_posts_of_other_channels_are_counted_and_stay_unread_until_one_goes_there(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        home = talk.home
        home.answers["subscribe"] = {**VILLAGE, "unread": 0}
        await talk.enter("/join village")
        await talk.shows("in #village (open)")
        home.arrive(said("one", WELL), said("two", VILLAGE), message("psst"), said("three", WELL))
        await talk.shows("#village (open) ada: two")
        await talk.shows("ada: psst")
        await talk.shows("posts in #well are counted below; to read them: /join well")
        await talk.until(lambda: home.listening.left == [1, 4], "two posts to stay unread")
        assert home.listening.read == [2, 3]
        home.watching.lines.put_nowait({**STATUS, "unread": 3, "unread_posts": [{**WELL, "unread": 2}]})
        await talk.shows("1 unread | #well 2 | in #village (open)")
        assert talk.emulator.shown.count("are counted below") == 1

        home.answers |= {"subscribe": {**WELL, "unread": 2}, "read": {}}
        home.past = [said("one", WELL, cursor=1), {**GAP, **WELL}, said("three", WELL, cursor=4)]
        await talk.enter("/join well")
        await talk.shows("#well ada: one")
        await talk.shows("posts 4 to 6 of ada are missing and may still come")
        await talk.shows("#well ada: three")
        assert ("history", {"topic": "well", "unread": True, "count": 100}) in home.asked
        await talk.until(lambda: ("read", {"cursors": [1, 4]}) in home.asked, "what was shown to be read")
        # What is on the screen already, in either way, is not shown again.
        home.listening.lines.put_nowait(said("three", WELL, cursor=4))
        await talk.until(lambda: 4 in home.listening.read, "the second copy")
        assert talk.emulator.shown.count("three") == 1

    run(work, tmp_path)


GAP = {"event": "gap", "from": ADA, "name": "ada", "first": 4, "last": 6, "open": True}


def test_what_was_shown_as_it_came_is_not_shown_again_to_who_goes_there(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        home = talk.home
        home.arrive(said("just now", WELL))
        await talk.shows("#well ada: just now")
        # Its word that it was read may be under way yet.
        home.answers |= {"subscribe": {**WELL, "unread": 2}, "read": {}}
        home.past = [said("just now", WELL, cursor=1), said("before", WELL, cursor=7)]
        await talk.enter("/join well")
        await talk.shows("#well ada: before")
        assert talk.emulator.shown.count("just now") == 1
        await talk.enter("/history")
        await talk.until(lambda: talk.emulator.shown.count("just now") == 2, "all of it, when it is asked for")

    run(work, tmp_path)


def test_an_emergency_is_shown_wherever_one_is(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        talk.home.answers["subscribe"] = {**VILLAGE, "unread": 0}
        await talk.enter("/join village")
        await talk.shows("in #village (open)")
        talk.home.arrive(said("the dam breaks", WELL, emergency=True))
        await talk.shows("the dam breaks")
        assert talk.home.listening.left == []

    run(work, tmp_path)


def test_history_means_the_current_channel_and_is_read_once_shown(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        home = talk.home
        home.answers |= {"subscribe": {**VILLAGE, "unread": 0}, "read": {}}
        await talk.enter("/history")
        await talk.shows("<topic> is missing")
        await talk.enter("/join village")
        await talk.enter("/history")
        await talk.shows("no posts there")
        home.past = [said("hers", VILLAGE, cursor=7), said("mine", VILLAGE, cursor=8, own=True)]
        await talk.enter("/history --count 2")
        await talk.shows("#village (open) ada: hers")
        await talk.shows("-> #village (open): mine")
        await talk.enter("/history well")
        asked = [args for command, args in home.asked if command == "history"]
        await talk.until(lambda: len([1 for command, _ in home.asked if command == "history"]) == 3)
        asked = [args for command, args in home.asked if command == "history"]
        assert asked == [{"topic": "village"}, {"topic": "village", "count": 2}, {"topic": "well"}]
        assert ("read", {"cursors": [7]}) in home.asked

    run(work, tmp_path)


def test_a_channel_that_was_left_is_no_place_to_talk(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        talk.home.answers |= {"subscribe": {**VILLAGE, "unread": 0}, "unsubscribe": VILLAGE}
        await talk.enter("/join village")
        await talk.shows("in #village (open)")
        talk.home.channels = []
        await talk.enter("/unsubscribe village")
        await talk.shows("no conversation")
        await talk.enter("meant for the village")
        await talk.shows("this line goes to nobody")
        assert "village" not in talk.loop._known.topics

    run(work, tmp_path)


def test_going_back_to_a_private_channel_shows_its_key_only_when_asked(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        secret = "5e" * 32
        talk.home.answers["subscribe"] = {"channel": "c0" * 32, "topic": "board", "kind": "private", "key": secret}
        await talk.enter("/join board")
        await talk.shows("in #board")
        await talk.shows("to let somebody in: /invite board")
        assert secret not in talk.emulator.shown
        await talk.enter("/subscribe board")
        await talk.shows(secret)
        await talk.shows("whoever has this key reads and writes here")

    run(work, tmp_path)


@pytest.mark.parametrize("line", ["/join board", "/join two words", "/query nobody", "/q nobody hello"])
def test_after_a_change_of_conversation_that_failed_no_line_goes_to_the_old_one(tmp_path: Path, line: str) -> None:
    async def work(talk: Talk) -> None:
        await talk.enter("/query ada")
        await talk.shows("to ada")
        await talk.enter(line)  # nothing answers subscribe here
        await talk.enter("meant for somebody else")
        await talk.shows("this line goes to nobody")
        assert "ada was left" in talk.emulator.shown
        assert talk.home.said() == []

    run(work, tmp_path)


def test_a_message_that_failed_leaves_the_conversation_as_it_is(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        await talk.enter("/query ada")
        await talk.enter("/msg nobody hello")
        await talk.shows("no peer is called 'nobody'")
        await talk.shows("to ada")
        await talk.enter("/query nobody hello")
        await talk.shows("no conversation")

    run(work, tmp_path)


def test_a_new_name_is_taken_at_once(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        await talk.enter("/query ada")
        await talk.enter("before")
        await talk.shows("-> ada: before")
        talk.home.people[0] = {**talk.home.people[0], "name": "countess"}
        await talk.enter(f"/accept {ADA[:8]} --name countess")
        await talk.shows("[countess]")
        await talk.shows("to countess")
        await talk.enter("after")
        await talk.shows("-> countess: after")
        await talk.until(lambda: not talk.loop._transcript.live(80), "both lines to be in the history")
        talk.home.arrive(receipt(f"{1:032x}", "delivered"))
        await talk.shows('delivered to countess: "before"')
        talk.emulator.type("/msg coun\t")
        await talk.until(lambda: talk.loop.screen.input.text == "/msg countess ", "the new name")

    run(work, tmp_path)


def test_what_another_process_changes_is_known_at_once(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        known = talk.loop._known
        await talk.until(lambda: set(known.topics) == {"village", "well", "board"}, "the channels")
        talk.home.people.append(peer("cc" * 32, "carla"))
        talk.home.channels = [{"channel": "c5" * 32, "topic": "garden", "kind": "open"}]
        talk.home.watching.lines.put_nowait({**STATUS, "changes": 1})
        await talk.until(lambda: "carla" in known.names and set(known.topics) == {"garden"}, "what is new")

    run(work, tmp_path)


def test_a_channel_left_by_another_process_is_no_place_to_talk(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        talk.home.answers["subscribe"] = {**VILLAGE, "unread": 0}
        await talk.enter("/join village")
        await talk.shows("in #village (open)")
        talk.home.channels = []
        talk.home.watching.lines.put_nowait({**STATUS, "changes": 1})
        await talk.shows("another program left #village (open); plain lines go to nobody now")
        await talk.enter("meant for the village")
        await talk.shows("this line goes to nobody")

    run(work, tmp_path)


def test_the_status_line_says_who_is_away(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        await talk.enter('/query "Bob B."')
        await talk.shows("to Bob B. (away)")
        talk.home.people[1] = {**talk.home.people[1], "linked": True}
        talk.home.watching.lines.put_nowait({**STATUS, "links": 2})
        await talk.until(lambda: "(away)" not in talk.emulator.shown, "Bob to be linked")
        assert "to Bob B." in talk.emulator.shown

    run(work, tmp_path)


def test_somebody_near_is_told_once(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        talk.home.people[2] = {**talk.home.people[2], "announced": True}
        for links in (2, 3):
            talk.home.people_asked.clear()
            talk.home.watching.lines.put_nowait({**STATUS, "links": links})
            await talk.until(lambda: talk.home.people_asked, "the peers")
        await talk.shows("eeeeeeee --name eve")
        assert talk.emulator.shown.count('calls itself "Eve"') == 1

    run(work, tmp_path)


def test_what_was_typed_before_leaving_is_sent(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        await talk.enter("/query ada")
        await talk.shows("[ada]")
        talk.home.answering.clear()
        await talk.enter("one last thing")
        await talk.enter("and another")
        talk.emulator.type("\x04")
        await talk.until(lambda: talk.loop._typed.qsize() == 2, "the end to be asked for")
        talk.home.answering.set()
        await talk.until(talk.task.done, "the end")
        assert talk.home.said() == [(ADA, "one last thing"), (ADA, "and another")]
        assert "-> ada: and another  (queued)" in talk.emulator.shown

    run(work, tmp_path)


def test_habits_stand_for_commands(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        await talk.enter("/nick Anna")
        await talk.until(lambda: ("identity", {"name": "Anna"}) in talk.home.asked)
        await talk.shows("you call yourself Me now")
        assert "public key" not in talk.emulator.shown
        await talk.enter("/whois ada")
        await talk.shows("11111 22222")
        await talk.shows("then: /verify ada --confirm")
        await talk.enter("/accept eeeeeeee")
        await talk.shows("compare digits: /verify")
        await talk.enter("/who")
        await talk.shows("Bob B.")
        await talk.enter("/qery ada")
        await talk.shows("did you mean /query?")
        await talk.enter("/help query")
        await talk.shows("/query [<peer> [<text>]]")
        await talk.enter("/whois nobody")
        await talk.shows("no peer is called 'nobody'; see: /peers")
        await talk.enter("/quit")
        await talk.until(talk.task.done, "the end")

    run(work, tmp_path)


def test_a_command_under_way_can_be_stopped(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        talk.home.answering.clear()
        await talk.enter("/whois ada")
        await talk.shows("Ctrl-C stops it")
        talk.emulator.type("\x03")
        await talk.until(lambda: "Ctrl-C stops it" not in talk.emulator.shown)
        talk.emulator.type("\x03")
        await talk.shows("to leave: /quit")
        assert not talk.task.done()

    run(work, tmp_path)


# --- completion, history


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("/que", "/query "),
        ("/mesh pee", "/mesh peers "),
        ("/send --wa", "/send --wait "),
        ("/identity ex", "/identity export "),
        ("/send --wait del", "/send --wait delivered "),
        ("/query ad", "/query ada "),
        ("/mesh send bo", '/mesh send "Bob B." '),
        ("/block eve", f"/block {EVE[:16]} "),
        ("/mesh subscribe vil", "/mesh subscribe village "),
        ("/inbox --peer ad", "/inbox --peer ada "),
        ("/help quer", "/help query "),
    ],
)
def test_tab_completes(tmp_path: Path, typed: str, wanted: str) -> None:
    async def work(talk: Talk) -> None:
        talk.home.arrive(post("x", "village"))
        await talk.shows("#village")
        await talk.until(lambda: talk.loop._known.names, "the peers")
        talk.emulator.type(typed)
        await talk.until(lambda: talk.loop.screen.input.text == typed)
        talk.emulator.type("\t")
        await talk.until(lambda: talk.loop.screen.input.text == wanted, wanted)

    run(work, tmp_path)


def test_a_name_at_a_domain_is_that_domains_word_and_is_said_to_be(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        vouched = {"vouched_by": "node2.mesh.local", "vouched_for": "11111 22222"}
        talk.home.people.append({**peer("cc" * 32, "carol@node2.mesh.local", contact=False), **vouched})
        await talk.enter("/msg carol@node2.mesh.local hello")
        await talk.shows("vouched for by node2.mesh.local only")
        await talk.shows("11111 22222")
        await talk.until(lambda: talk.home.said() == [("cc" * 32, "hello")])
        await talk.until(lambda: "carol@node2.mesh.local" in talk.loop._known.served)

    run(work, tmp_path)


def test_tab_names_what_can_be_traced_and_withdrawn(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        await talk.enter("/msg ada the well is dry")
        await talk.shows("(queued)")
        await talk.enter("/msg ada and so am I")
        await talk.until(lambda: len(talk.loop._known.messages) == 2, "both messages")
        talk.emulator.type("/cancel \t")
        await talk.shows("to ada: the well is dry")
        assert "to ada: and so am I" in talk.emulator.shown
        talk.emulator.type("\t\r")
        await talk.until(lambda: talk.loop.screen.input.text == f"/cancel {2:032x} ", "the newest")

    run(work, tmp_path)


def test_tab_shows_a_menu_and_leaves_texts_alone(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        talk.emulator.type("/s\t")
        await talk.shows("/send")
        await talk.shows("/store")
        talk.emulator.type("\x03")
        await talk.until(lambda: "/store" not in talk.emulator.shown, "the menu to go")
        talk.emulator.type("/msg ada ad\t\t!")
        await talk.shows("/msg ada ad!")

    run(work, tmp_path)


def test_history_is_kept_searched_and_free_of_secrets_and_slips(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        await talk.enter("/query ada")
        await talk.enter("where is the well?")
        await talk.shows("-> ada: where is the well?")
        await talk.enter("/nosuch thing")
        await talk.shows("There is no command")
        await talk.enter(f"/add {'cd' * 32}")
        await talk.enter("/msg ada the passphrase is swordfish")
        await talk.shows("swordfish")
        talk.emulator.type("\x12well")  # Ctrl-R
        await talk.shows("[ada] where is the well?")
        talk.emulator.type("\r")  # takes the line that was found
        await talk.until(lambda: talk.loop.screen.input.text == "where is the well?", "the line")
        talk.emulator.type("\r")
        await talk.until(lambda: len(talk.home.said()) == 3, "the message")

    run(work, tmp_path)
    path = tmp_path / "history"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    kept = [json.loads(row) for row in path.read_text().splitlines()]
    assert kept[:2] == ["/query ada", "where is the well?"]
    assert not any(word in line for line in kept for word in ("nosuch", "cdcd", "swordfish"))

    async def again(talk: Talk) -> None:
        talk.emulator.type("\x1b[A")
        await talk.until(lambda: talk.loop.screen.input.text == kept[-1], kept[-1])

    run(again, tmp_path)


@pytest.mark.parametrize(
    "line",
    ["/join family --key {}", "/join --key {} family", "/mesh subscribe family --key={}", "/subscribe f --key {}"],
)
def test_a_channels_key_enters_no_history(tmp_path: Path, line: str) -> None:
    """Also a short one, which is refused: it is half of what somebody else has."""

    async def work(talk: Talk) -> None:
        talk.home.answers["subscribe"] = {"channel": "c0" * 32, "topic": "family", "kind": "private"}
        await talk.enter("/peers")
        for key in ("c0" * 32, "C0FFEE"):
            await talk.enter(line.format(key))
        await talk.until(lambda: len([one for one in talk.home.asked if one[0] == "subscribe"]) == 2, "both")
        await talk.enter("/peers")
        box = talk.loop.screen.input
        while not box.text:  # what was typed before is loaded in its own time
            talk.emulator.type("\x1b[A")
            await asyncio.sleep(0.01)
        assert box.text == "/peers"
        assert not any("c0" in kept.lower() for kept in talk.loop._history.get_strings())

    run(work, tmp_path)
    assert "c0" not in (tmp_path / "history").read_text().lower()


# --- the terminal


def test_a_resized_terminal_is_drawn_anew(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        talk.emulator.type("a line being typed")
        await talk.shows("> a line being typed")
        for rows, columns in ((10, 40), (24, 132), (3, 20), (1, 1), (24, 80)):
            talk.emulator.resize(rows, columns)
            os.kill(os.getpid(), signal.SIGWINCH)  # the kernel tells whom the terminal controls, and that is not us
            talk.home.arrive(message(f"at {columns} columns"))
            await talk.until(lambda: talk.home.listening.read, "the line")
            talk.home.listening.read.clear()
        await talk.shows("> a line being typed")
        await talk.until(lambda: talk.emulator.bars[-1:] == [80], "a status line of the new width")

    run(work, tmp_path)


@pytest.mark.parametrize("early", [True, False])
def test_a_failed_node_ends_it_with_the_reason(tmp_path: Path, early: bool) -> None:
    async def inside() -> None:
        async with talking(tmp_path, ready=not early) as talk:
            talk.home.listening.lines.put_nowait(StoreError("the disk does not answer any more"))
            await talk.until(lambda: talk.task.done(), "the end")

    with pytest.raises(StoreError, match="the disk does not answer"):
        asyncio.run(inside())


def test_the_end_of_input_ends_it(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        talk.emulator.type("\x04")
        await talk.until(talk.task.done, "the end")
        assert talk.emulator.screen.cursor.hidden is False
        assert "Me | 1 link" not in talk.emulator.shown

    run(work, tmp_path)


def test_an_ascii_terminal_gets_ascii(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        talk.home.arrive(message("Grüße, “Jürgen” → 日本… 5 €"))
        await talk.shows('ada: Gruesse, "Juergen" -> ??... 5 EUR')
        await talk.enter("/msg ada schön")
        await talk.shows("-> ada: schoen")
        assert max(talk.emulator.raw) < 0x80
        assert [text for _, text in talk.home.said()] == ["schön"]

    run(work, tmp_path, encoding="ascii")


@pytest.mark.parametrize(("encoding", "drawn"), [("utf-8", "\u2588"), ("ascii", "##")])
def test_a_code_is_drawn_with_what_the_terminal_has(tmp_path: Path, encoding: str, drawn: str) -> None:
    """Whatever standard output was opened with: a person in a C locale gets a code, not question marks."""

    async def work(talk: Talk) -> None:
        talk.emulator.resize(60, 120)
        os.kill(os.getpid(), signal.SIGWINCH)
        await talk.enter("/verify ada --qr")
        await talk.shows(8 * drawn)
        assert "????" not in talk.emulator.shown

    run(work, tmp_path, encoding=encoding)


def test_without_colours_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    async def work(talk: Talk) -> None:
        talk.home.arrive(message("plain"))
        await talk.shows("ada: plain")
        raw = talk.emulator.raw
        assert not any(
            f"\x1b[0;{n}m".encode() in raw or f";{n}m".encode() in raw for n in (*range(30, 38), *range(90, 98))
        )

    run(work, tmp_path)


def test_logs_and_alarms_do_not_break_the_line(tmp_path: Path) -> None:
    async def work(talk: Talk) -> None:
        import sys

        talk.emulator.type("typing")
        await talk.shows("> typing")
        print("qpc: the disk is almost full\x1b]0;x\x07", file=sys.stderr)
        talk.home.watching.lines.put_nowait(
            {**STATUS, "disk_low": True, "alarms": [{"code": "clone", "text": "in use elsewhere", "peer": None}]}
        )
        await talk.shows("in use elsewhere")
        await talk.shows("qpc: the disk is almost full]0;x")
        assert "> typing" in talk.emulator.rows
        assert talk.emulator.strange == []

    run(work, tmp_path)
