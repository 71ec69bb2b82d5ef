"""The command line, as people and scripts use it: every answer here comes out of a process of its own."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.qpc import NO_EXTRA, Person, befriend, environment, finish, free_port, read_line, run

from quicprochat.cli import main
from quicprochat.client.session import Session
from quicprochat.core.errors import StoreError
from quicprochat.core.store import MeshStore

IDENTITY = {"public_key", "fingerprint", "name", "ticket", "peers"}
PEER = {"public_key", "name", "role", "addresses", "server", "domain", "linked"}
SENT = {"id", "to", "state", "reason", "protection"}
LINE = {
    "event",
    "cursor",
    "id",
    "from",
    "name",
    "to",
    "channel",
    "text",
    "hops",
    "received_at",
    "sent_at",
    "protection",
    "request",
}
STORE = {"messages", "bytes", "recipients", "capacity_per_recipient", "expired", "delivered", "duplicates"}
ROUTE = {"destination", "next_hop", "metric", "hops", "age_s", "via"}


@pytest.fixture
def people(tmp_path: Path) -> Iterator[tuple[Person, Person]]:
    found = Person(tmp_path / "a"), Person(tmp_path / "b")
    yield found
    for person in found:
        person.end()


@pytest.fixture
def somebody(people: tuple[Person, Person]) -> Person:
    return people[0]


def until_delivered(person: Person, id: str) -> list[dict[str, object]]:
    """Listen until a message of this person is delivered; return all lines that came."""
    listener = person.start("listen", "--json")
    lines = []
    while True:
        line = json.loads(read_line(listener))
        lines.append(line)
        if (line["event"], line["id"]) == ("receipt", id) and line["state"] == "delivered":
            listener.kill()
            return lines


# --- two people


def test_two_people_write_to_each_other(people: tuple[Person, Person]) -> None:
    a, b = people
    a.up()
    b.up()
    assert a.ready.split() == ["ready", a.key, a.address]
    ticket = b.ask("identity")["ticket"]
    added = a.ask("mesh", "add", ticket, "--name", "bob")
    assert set(added) >= PEER
    assert (added["name"], added["public_key"]) == ("bob", b.key)
    mine = a.ask("mesh", "identity", "--name", "Alice")
    assert set(mine) >= IDENTITY
    assert (mine["name"], mine["public_key"], [peer["name"] for peer in mine["peers"]]) == ("Alice", a.key, ["bob"])
    b.ask("add", mine["ticket"], "--name", "alice")

    sent = a.ask("mesh", "send", "bob", "hello", "there", "--wait", "delivered")
    assert set(sent) >= SENT
    assert (sent["state"], sent["to"], sent["reason"]) == ("delivered", b.key, "")
    assert b.ask("send", "alice", "hello yourself", "--wait", "delivered")["state"] == "delivered"

    (line,) = b.run("listen", "--count", "1", "--json").lines
    assert set(line) >= LINE
    assert (line["event"], line["id"], line["text"]) == ("message", sent["id"], "hello there")
    assert (line["from"], line["name"], line["to"]) == (a.key, "alice", b.key)
    assert (line["channel"], line["hops"], line["request"]) == (None, 0, False)
    assert line["received_at"].endswith("Z")
    assert a.lines("inbox")[0]["text"] == "hello yourself"
    assert b.lines("inbox", "--peer", "alice") == [line]
    assert b.lines("inbox", "--since", str(line["cursor"])) == []

    trace = a.ask("trace", sent["id"])
    assert (trace["id"], trace["state"]) == (sent["id"], "delivered")
    assert [(event["state"], event["carrier"]) for event in trace["events"]] == [
        ("queued", "here"),
        ("delivered", "direct"),
    ]
    assert all(event["at"] for event in trace["events"])
    assert all(len(id) == 64 for id in trace["envelopes"])
    (route,) = a.ask("mesh", "route")
    assert set(route) >= ROUTE
    assert (route["destination"], route["next_hop"], route["hops"], route["via"]) == (b.key, b.key, 1, "direct")
    (peer,) = a.ask("mesh", "peers")
    assert set(peer) >= PEER
    assert (peer["name"], peer["linked"], peer["addresses"]) == ("bob", True, [b.address])
    assert set(b.ask("store")) >= STORE
    assert b.ask("store")["delivered"] == 1


def test_what_is_sent_to_somebody_away_arrives_once_when_they_return(people: tuple[Person, Person]) -> None:
    a, b = people
    befriend(a, b)
    a.up()
    b.up()
    a.ask("send", "bob", "one", "--wait", "delivered")
    assert b.down().code == 0

    waiting = a.ask("mesh", "send", "bob", "for later")
    assert waiting["state"] == "queued"
    assert a.ask("store")["messages"] == 1
    late = a.run("send", "bob", "and this", "--wait", "delivered", "--timeout", "0.2", "--json")
    assert (late.code, late.json["state"], late.error["code"]) == (6, "queued", "timeout")

    b.up()
    back = time.monotonic()
    until_delivered(a, late.json["id"])
    assert time.monotonic() - back < 3
    assert a.ask("trace", waiting["id"])["state"] == "delivered"
    assert a.ask("store")["messages"] == 0
    assert [line["text"] for line in b.lines("inbox")] == ["one", "for later", "and this"]


def test_a_stranger_is_a_request_until_accepted(people: tuple[Person, Person]) -> None:
    a, b = people
    a.book.add(f"{b.key}@{b.address}", "bob")
    a.book.rename("Ann")
    b.up()
    assert a.ask("send", "bob", "do you know me?", "--wait", "delivered")["state"] == "delivered"
    (request,) = b.ask("mesh", "requests")
    assert (request["public_key"], request["name"], request["messages"]) == (a.key, "Ann", 1)
    assert b.lines("inbox")[0]["request"] is True
    assert "request from" in b.run("inbox").out
    accepted = b.ask("mesh", "accept", a.key[:8], "--name", "ann")
    assert (accepted["public_key"], accepted["name"]) == (a.key, "ann")
    assert b.ask("mesh", "requests") == []
    (line,) = b.lines("inbox")
    assert (line["request"], line["name"]) == (False, "ann")


def test_digits_are_the_same_on_both_sides(people: tuple[Person, Person]) -> None:
    a, b = people
    befriend(a, b)
    mine, theirs = a.ask("verify", "bob"), b.ask("mesh", "verify", "alice")
    assert mine["fingerprint"] == theirs["fingerprint"]
    assert a.ask("identity")["fingerprint"] in mine["fingerprint"]
    assert mine["verified"] is False
    assert a.ask("verify", "bob", "--confirm")["verified"] is True
    (peer,) = a.ask("identity")["peers"]
    assert (peer["name"], peer["verified"]) == ("bob", True)


def test_a_contact_is_trusted_with_emergencies_until_it_is_not(people: tuple[Person, Person]) -> None:
    a, b = people
    a.book.add(b.key, "bob")
    assert a.ask("mesh", "trust", "bob")["trusted"] is True
    assert [peer["trusted"] for peer in a.ask("identity")["peers"]] == [True]
    assert [peer["trusted"] for peer in a.ask("mesh", "peers")] == [True]
    assert "trusted" in a.run("mesh", "peers").out
    assert "posts as an emergency is shown to you as one" in a.run("mesh", "trust", "bob").out
    assert a.ask("mesh", "untrust", "bob")["trusted"] is False
    assert "an ordinary post" in a.run("mesh", "untrust", "bob").out
    a.ask("mesh", "trust", "bob")
    a.ask("block", "bob")
    refused = a.run("mesh", "trust", "bob", "--json")
    assert (refused.code, refused.error["code"]) == (7, "policy")
    assert a.ask("unblock", "bob")["trusted"] is False
    stranger = a.run("mesh", "trust", "ab" * 32, "--json")
    assert (stranger.code, stranger.error["code"]) == (2, "usage")
    assert a.run("mesh", "trust", "nobody", "--json").code == 5


def test_a_blocked_peer_cannot_be_written_to(people: tuple[Person, Person]) -> None:
    a, b = people
    befriend(a, b)
    assert a.ask("block", "bob")["blocked"] is True
    refused = a.run("send", "bob", "hi", "--json")
    assert (refused.code, refused.error["code"]) == (7, "policy")
    assert a.ask("mesh", "unblock", "bob")["blocked"] is False


def test_a_cancelled_message_is_not_delivered(people: tuple[Person, Person]) -> None:
    a, b = people
    befriend(a, b)
    a.up()
    sent = a.ask("send", "bob", "oh no")
    assert a.ask("cancel", sent["id"])["state"] == "cancelled"
    again = a.run("cancel", sent["id"], "--json")
    assert (again.code, again.json["state"]) == (0, "cancelled")
    b.up()
    assert a.ask("send", "bob", "better", "--wait", "delivered")["state"] == "delivered"
    assert [line["text"] for line in b.lines("inbox")] == ["better"]


# --- without a daemon


def test_a_call_without_a_daemon_runs_a_node_and_stays_for_delivery(people: tuple[Person, Person]) -> None:
    a, b = people
    befriend(a, b)
    b.up()
    sent = a.run("send", "bob", "quick", "--json")
    assert (sent.code, sent.json["state"], sent.talk) == (0, "delivered", "")


def test_without_a_daemon_and_without_an_answer_a_message_is_kept(people: tuple[Person, Person]) -> None:
    a, b = people
    befriend(a, b)
    begun = time.monotonic()
    sent = a.run("send", "bob", "later", "--json")
    assert (sent.code, sent.json["state"]) == (0, "queued")
    assert "qpc daemon" in sent.talk
    assert 5 <= time.monotonic() - begun < 15
    a.up()
    assert a.ask("store")["messages"] == 1


def test_with_ephemeral_an_undelivered_message_is_said_to_be_lost(people: tuple[Person, Person]) -> None:
    a, b = people
    befriend(a, b)
    sending = a.start("send", "bob", "gone", "--ephemeral", "--json", "--wait", "delivered", "--timeout", "0.1")
    sent = finish(sending)
    assert (sent.code, sent.json["state"]) == (6, "queued")
    assert "lost" in sent.error["message"]


def test_a_daemon_waits_for_a_call_that_owns_the_home(people: tuple[Person, Person]) -> None:
    a, b = people
    befriend(a, b)
    sending = a.start("send", "bob", "wait for me", "--json", "--timeout", "20")
    while not (a.home / "qpc.sock").exists():
        assert sending.poll() is None
    begun = time.monotonic()
    a.up()
    assert time.monotonic() - begun < 5
    sent = finish(sending)
    assert (sent.code, sent.json["state"]) == (0, "queued")
    assert a.ask("store")["messages"] == 1


def test_a_second_daemon_says_that_there_is_one(somebody: Person) -> None:
    somebody.up()
    begun = time.monotonic()
    second = somebody.run("daemon")
    assert second.code == 3
    assert "already" in second.talk
    assert time.monotonic() - begun < 4
    assert somebody.down().code == 0


# --- reading


def test_what_a_killed_reader_did_not_write_out_comes_again(people: tuple[Person, Person]) -> None:
    a, b = people
    befriend(a, b)
    a.up()
    b.up()
    texts = [letter * 50_000 for letter in "xyz"]
    for text in texts:
        a.ask("send", "bob", "-", "--wait", "delivered", data=text.encode())
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    listener = b.start("listen", "--json", stdout=writer)
    os.close(writer)
    while unread_bytes(reader) < 4096:  # then it stands in the midst of writing the first line
        select.select([reader], [], [])
    listener.send_signal(signal.SIGKILL)
    listener.wait()
    os.close(reader)
    again = b.run("listen", "--count", "3", "--timeout", "10", "--json")
    assert [line["text"] for line in again.lines] == texts
    assert b.run("listen", "--timeout", "0", "--json").lines == []


def unread_bytes(pipe: int) -> int:
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), "little")


def test_listening_ends_after_so_many_messages_or_in_time(people: tuple[Person, Person]) -> None:
    a, b = people
    befriend(a, b)
    b.up()
    for text in ("one", "two", "three"):
        a.ask("send", "bob", text, "--wait", "delivered")
    first = b.run("listen", "--count", "2", "--json")
    assert (first.code, [line["text"] for line in first.lines]) == (0, ["one", "two"])
    rest = b.run("listen", "--timeout", "0.1", "--json")
    assert (rest.code, [line["text"] for line in rest.lines]) == (0, ["three"])
    none = b.run("listen", "--count", "1", "--timeout", "0.1", "--json")
    assert (none.code, none.out, none.error["code"]) == (6, "", "timeout")


def test_a_reader_that_stops_reading_ends_the_call_quietly(people: tuple[Person, Person]) -> None:
    a, b = people
    befriend(a, b)
    b.up()
    a.ask("send", "bob", "unseen", "--wait", "delivered")
    reader, writer = os.pipe()
    os.close(reader)
    listener = b.start("listen", "--json", stdout=writer)
    os.close(writer)
    done = finish(listener)
    assert (done.code, done.talk) == (0, "")
    assert b.run("listen", "--count", "1", "--json").lines[0]["text"] == "unseen"


def test_peer_text_cannot_steer_the_terminal(people: tuple[Person, Person]) -> None:
    a, b = people
    befriend(a, b)
    b.up()
    evil = "a\x1b]0;title\x07\u202eb\u200bc\r\nfake: line\x9b31m"
    a.ask("send", "bob", "-", "--wait", "delivered", data=evil.encode())
    shown = b.run("inbox").out
    assert "alice: a]0;titlebc\n    | fake: line31m" in shown
    assert b.lines("inbox")[0]["text"] == evil


# --- signals, errors


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_daemon_stops_in_order(somebody: Person, how: signal.Signals) -> None:
    somebody.up()
    done = somebody.down(how)
    assert (done.code, done.out, done.talk) == (0, "", "")
    assert not (somebody.home / "qpc.sock").exists()


@pytest.mark.parametrize("attached", [True, False])
def test_an_interrupted_call_exits_130(somebody: Person, attached: bool) -> None:
    if attached:
        somebody.up()
    listener = somebody.start("listen", "--json", "-v")
    assert listener.stderr is not None
    while not (somebody.home / "qpc.sock").exists():
        assert listener.poll() is None
    # The node's first words, or the socket's answer, mean that the loop runs and hears signals.
    somebody.ask("store")
    listener.send_signal(signal.SIGINT)
    assert finish(listener).code in ((130,) if not attached else (130, -signal.SIGINT))


def test_what_waits_is_listed_and_can_be_withdrawn(somebody: Person) -> None:
    assert somebody.run("outbox", "--json").out == "[]\n"
    somebody.ask("add", "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "--name", "bob")
    one, two = (somebody.ask("send", "bob", text, program=NO_EXTRA) for text in ("first", "second"))
    waiting = json.loads(somebody.run("mesh", "outbox", "--json").out)
    assert [(item["id"], item["name"], item["state"], item["text"]) for item in waiting] == [
        (one["id"], "bob", "queued", "first"),
        (two["id"], "bob", "queued", "second"),
    ]
    assert set(waiting[0]) == {"id", "to", "name", "state", "reason", "protection", "created_at", "text", "carries"}
    somebody.ask("cancel", one["id"])
    shown = somebody.run("outbox").out
    assert f"{two['id']}  " in shown
    assert "to bob: second" in shown
    assert one["id"] not in shown


def test_errors_are_json_with_the_exit_code(somebody: Person) -> None:
    for arguments, code, word in (
        (("send", "nobody", "hi"), 5, "not_found"),
        (("trace", "00" * 16), 5, "not_found"),
        (("trace", "zz"), 2, "usage"),
        (("sned",), 2, "usage"),
        (("mesh", "register", "x"), 5, "not_found"),
        (("mesh", "broadcast", "x", "hi"), 5, "not_found"),
        (("send", "user@example.net", "hi"), 3, "unavailable"),
        (("add", "qpc1broken"), 2, "usage"),
        (("send",), 2, "usage"),
    ):
        done = somebody.run(*arguments, "--json")
        assert (done.code, done.out, done.error["code"]) == (code, "", word), arguments
        assert done.error["message"]
    done = somebody.run("send", "nobody", "hi")
    assert done.talk.startswith("qpc: no peer is called 'nobody'")


def test_a_text_over_the_limit_is_refused(somebody: Person) -> None:
    done = somebody.run("send", "ab" * 32, "-", "--json", data=b"x" * 65_537)
    assert (done.code, done.error["code"]) == (2, "too_long")


def test_bytes_that_are_no_text_are_refused(somebody: Person) -> None:
    done = somebody.run("send", "ab" * 32, b"\xff\xfe", "--json")
    assert (done.code, done.error["code"]) == (2, "usage")
    done = somebody.run("send", "ab" * 32, "--json", data=b"\xff\xfe")
    assert (done.code, done.error["code"]) == (2, "usage")


def test_a_port_in_use_is_said(somebody: Person) -> None:
    ip, port = somebody.address.split(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((ip, int(port)))
        done = somebody.run("daemon")
    assert (done.code, done.out) == (3, "")
    assert port in done.talk


def test_a_home_that_others_can_read_is_refused(somebody: Person) -> None:
    somebody.home.mkdir(mode=0o755)
    done = somebody.run("identity", "--json")
    assert (done.code, done.error["code"]) == (3, "home")
    assert "chmod 700" in done.error["message"]


def test_a_full_standard_output_is_said(somebody: Person) -> None:
    with open("/dev/full", "wb") as full:
        done = finish(somebody.start("identity", stdout=full))
    assert done.code == 3
    assert "standard output" in done.talk


def test_a_daemon_whose_store_fails_says_so_and_ends(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Session.own
    broken: list[asyncio.Task[None]] = []

    def fail(store: MeshStore) -> None:
        raise StoreError("the disk does not answer any more")

    async def own_and_break(session: Session) -> None:
        await own(session)
        assert session.node is not None
        broken.append(asyncio.create_task(session.node._runtime.call(fail)))

    monkeypatch.setattr(Session, "own", own_and_break)
    assert main(["daemon", "--ephemeral", "--home", str(tmp_path / "a"), "--bind", f"127.0.0.1:{free_port()}"]) == 3
    assert isinstance(broken[0].exception(), StoreError)
    assert capfd.readouterr().err == "qpc: the disk does not answer any more\n"


# --- the prompt


def test_lines_from_a_pipe_are_commands(people: tuple[Person, Person]) -> None:
    a, b = people
    befriend(a, b)
    b.up()
    lines = b'/mesh identity\n/send bob  it\'s "fine"  --wait\n\n/mesh route\nhello\n/quit\n/mesh store\n'
    done = a.run("--json", data=lines)
    first, sent, *rest = done.lines
    assert first["public_key"] == a.key
    assert sent["to"] == b.key
    assert not any("messages" in line for line in rest if isinstance(line, dict))
    assert done.code == 2
    assert "goes to nobody" in done.talk
    assert [line["text"] for line in b.lines("inbox")] == ['it\'s "fine"  --wait']


def test_the_prompt_shows_what_arrives_and_keeps_a_daemon_running(people: tuple[Person, Person]) -> None:
    a, b = people
    befriend(a, b)
    b.up()
    prompt = b.start("--json", stdin=subprocess.PIPE)
    a.ask("send", "bob", "are you there?", "--wait", "delivered")
    assert json.loads(read_line(prompt))["text"] == "are you there?"
    assert finish(prompt, b"/quit\n").code == 0
    assert b.ask("store")["unread"] == 0
    assert b.down().code == 0


def test_the_words_of_the_prompt_work_in_a_pipe(people: tuple[Person, Person]) -> None:
    a, b = people
    befriend(a, b)
    lines = (
        "/who",
        "/msg bob one",
        "/query bob",
        "two",
        "//three",
        "/whois",
        "/query nobody",
        "lost",
        "/nick Ann",
        "/quit",
    )
    done = a.run("--json", data="\n".join(lines).encode(), program=NO_EXTRA)
    assert done.code == 2  # /who needs the mesh
    waiting = json.loads(a.run("outbox", "--json").out)
    assert [(item["name"], item["text"]) for item in waiting] == [("bob", "one"), ("bob", "two"), ("bob", "/three")]
    assert "no peer is called" in done.talk or "nobody" in done.talk
    assert "this line goes to nobody" in done.talk
    assert a.ask("identity")["name"] == "Ann"


def test_a_prompt_that_keeps_nothing_says_so_when_it_is_left(people: tuple[Person, Person]) -> None:
    a, b = people
    befriend(a, b)
    done = a.run("--json", "--ephemeral", data=b"/send bob hello\n", program=NO_EXTRA)
    assert (done.code, done.lines[0]["state"]) == (0, "queued")
    assert "not delivered: 1 message, lost" in done.talk


# --- without the extra


def test_without_the_extra_the_mesh_says_what_to_install(somebody: Person) -> None:
    for command in (("peers",), ("send", "x", "y"), ("listen",)):
        done = somebody.run("mesh", *command, "--json", program=NO_EXTRA)
        assert (done.code, done.out, done.error["code"]) == (2, "", "unsupported")
        assert "pip install '.[mesh]'" in done.error["message"]


def test_without_the_extra_messages_are_kept(people: tuple[Person, Person]) -> None:
    a, b = people
    assert a.ask("mesh", "identity", program=NO_EXTRA)["public_key"]
    a.ask("add", b.key, "--name", "bob", program=NO_EXTRA)
    sent = a.run("send", "bob", "kept", "--json", program=NO_EXTRA)
    assert (sent.code, sent.json["state"]) == (0, "queued")
    assert "pip install '.[mesh]'" in sent.talk
    assert a.ask("store", program=NO_EXTRA)["messages"] == 1
    assert a.ask("trace", sent.json["id"], program=NO_EXTRA)["state"] == "queued"
    assert a.lines("inbox", program=NO_EXTRA) == []
    assert a.run("listen", "--timeout", "0", program=NO_EXTRA).code == 0
    assert a.ask("cancel", sent.json["id"], program=NO_EXTRA)["state"] == "cancelled"


def test_without_the_extra_a_wait_that_cannot_be_met_is_not_begun(people: tuple[Person, Person]) -> None:
    a, b = people
    a.ask("add", b.key, "--name", "bob", program=NO_EXTRA)
    wait = ("--wait", "delivered", "--timeout", "600", "--json")
    sent = a.run("send", "bob", "kept", *wait, program=NO_EXTRA)
    assert (sent.code, sent.json["state"], sent.error["code"]) == (6, "queued", "timeout")
    assert "pip install '.[mesh]'" in sent.error["message"]
    late = a.run("send", "bob", "kept", "--wait", "delivered", "--timeout", "0.1", "--json",
                 "--server", f"127.0.0.1:{free_port()}", program=NO_EXTRA)  # fmt: skip
    assert (late.code, "within 0.1 s" in late.error["message"]) == (6, True), "with a home server it is waited for"


# --- everything else


def test_a_text_of_nothing_but_space_is_no_text(people: tuple[Person, Person]) -> None:
    a, b = people
    a.ask("add", b.key, "--name", "bob")
    a.ask("mesh", "subscribe", "news")
    for words in (("send", "bob", " \t"), ("mesh", "broadcast", "news", " ")):
        assert (a.run(*words).code, a.run(*words[:-1], "-", data=b" \n\n").code) == (2, 2)
    assert a.ask("store")["messages"] == 0


def test_a_file_is_no_home(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    done = run("inbox", "--home", str(tmp_path / "home"), "--json")
    assert (done.code, done.error["code"]) == (3, "home")
    assert "is not a directory" in done.error["message"]


def test_the_package_can_be_run_by_its_name() -> None:
    done = finish(
        subprocess.Popen(
            [sys.executable, "-m", "quicprochat", "--version"], env=environment(),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
    )  # fmt: skip
    assert (done.code, done.out.split()[0]) == (0, "qpc")


def test_the_version_is_there_at_once() -> None:
    took = []
    for _ in range(5):
        begun = time.monotonic()
        done = run("--version")
        took.append(time.monotonic() - begun)
        assert (done.code, done.out.split()[0]) == (0, "qpc")
    assert min(took) < 0.3


def test_options_stand_before_or_after_and_in_the_environment(somebody: Person) -> None:
    here = somebody.key
    home = str(somebody.home)
    assert run("--home", home, "identity", "--json").json["public_key"] == here
    assert run("identity", "--json", "--home", home).json["public_key"] == here
    assert run("mesh", "--json", "identity", env={"QPC_HOME": home}).json["public_key"] == here
    assert run("identity", env={"QPC_HOME": home, "QPC_JSON": "1"}).json["public_key"] == here
    assert run("identity", "--home", home, env={"QPC_HOME": "/nowhere", "QPC_JSON": "1"}).json["public_key"] == here
    assert run("identity", env={"QPC_HOME": home, "QPC_NETWORK": "moon"}).code == 2
    assert run("identity", env={"XDG_DATA_HOME": str(somebody.home.parent), "HOME": "/nowhere"}).code == 0
    assert (somebody.home.parent / "quicprochat" / "identity.json").exists()
