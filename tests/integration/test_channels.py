"""Channels as people use them: three nodes on the loopback, with a key, with a wrong one, and in the open."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.integration.qpc import Person, befriend, finish, read_line

from quicprochat.adapters.sqlite import SqliteStore
from quicprochat.core.invite import Invite
from quicprochat.core.posts import set_last_number

CHANNEL = {
    "channel", "topic", "kind", "posts", "unread", "members", "gaps", "muted", "unreadable", "owner", "epoch",
}  # fmt: skip
POST = {
    "event", "cursor", "id", "from", "name", "to", "channel", "topic", "kind", "text", "hops", "received_at",
    "sent_at", "protection", "request", "seq", "own", "emergency",
}  # fmt: skip


@pytest.fixture
def three(tmp_path: Path) -> Iterator[tuple[Person, Person, Person]]:
    found = Person(tmp_path / "a"), Person(tmp_path / "b"), Person(tmp_path / "c")
    yield found
    for person in found:
        person.end()


def link(*people: Person) -> None:
    names = dict(zip(people, ("alice", "bob", "carol"), strict=False))
    for one in people:
        for other in people:
            if one is not other:
                one.book.add(f"{other.key}@{other.address}", names[other])
    for person in people:
        person.up()


def until_subscribers(person: Person, topic: str, count: int) -> list[str]:
    """Post until so many linked subscribers are there; return the texts of all posts."""
    texts: list[str] = []
    while True:
        texts.append(f"try {len(texts)}")
        if person.ask("mesh", "broadcast", topic, texts[-1])["subscribers"] >= count:
            return texts


def next_posts(listener: subprocess.Popen[bytes], count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while len(found) < count:
        line = json.loads(read_line(listener))
        if line["event"] == "post":
            found.append(line)
    return found


def test_a_private_channel_is_read_with_its_key_alone(three: tuple[Person, Person, Person]) -> None:
    a, b, c = three
    link(a, b, c)
    made = a.ask("mesh", "subscribe", "family", "--key", "new")
    assert set(made) == CHANNEL | {"key"}
    key = made["key"]
    assert (len(key), made["kind"], made["topic"], made["members"]) == (64, "private", "family", 1)
    wrong = f"{int(key, 16) ^ 1:064x}"
    joined = b.ask("mesh", "subscribe", "family", "--key", key.upper())
    assert (joined["channel"], "key" in joined) == (made["channel"], False)
    assert c.ask("mesh", "subscribe", "family", "--key", wrong)["channel"] != made["channel"]
    assert c.ask("mesh", "subscribe", "village")["kind"] == "open"
    assert a.ask("mesh", "subscribe", "village")["kind"] == "open"

    listener = b.start("listen", "--json")
    texts = until_subscribers(a, "family", 1)
    posts = next_posts(listener, len(texts))
    assert [post["text"] for post in posts] == texts
    assert all(set(post) == POST for post in posts)
    one = posts[0]
    assert (one["from"], one["name"], one["to"], one["channel"]) == (a.key, "alice", None, made["channel"])
    assert (one["topic"], one["kind"], one["protection"]) == ("family", "private", "channel-key")
    assert (one["hops"], one["request"]) == (0, False)

    # What is open reaches the third too; what is private never did.
    open_texts = until_subscribers(a, "village", 1)
    heard = next_posts(c.start("listen", "--json"), len(open_texts))
    assert {post["topic"] for post in heard} == {"village"}
    assert heard[0]["protection"] == "open"
    assert [line["topic"] for line in c.lines("inbox")] == ["village"] * len(open_texts)

    # An answer takes the other way.
    answer = b.ask("mesh", "broadcast", "family", "yes")
    assert set(answer) >= {"id", "channel"}
    (post,) = next_posts(a.start("listen", "--json"), 1)
    assert (post["id"], post["text"], post["from"]) == (answer["id"], "yes", b.key)

    channels = {item["topic"]: item for item in a.ask("mesh", "channels")}
    assert set(channels) == {"family", "village"}
    assert all(set(item) == CHANNEL for item in channels.values())
    said = 1  # that she joined, which is kept as a post is
    assert channels["family"]["posts"] == said + len(texts) + 1
    assert (channels["family"]["owner"], channels["family"]["members"]) == (a.key, 2)
    told = a.run("mesh", "channels").out
    assert "open: anyone who knows the topic can read it" in told
    assert "private: whoever has the key can read it" in told
    assert key not in told


def test_who_links_later_gets_what_was_posted_before(three: tuple[Person, Person, Person]) -> None:
    a, b, _ = three
    befriend(a, b)
    b.ask("mesh", "subscribe", "news")
    a.ask("mesh", "subscribe", "news")
    done = a.run("mesh", "broadcast", "news", "first", "--json")
    assert (done.code, done.json["subscribers"]) == (0, 0)
    assert "kept; it goes to subscribers that link when a node runs" in done.talk
    a.up()
    assert a.ask("mesh", "broadcast", "news", "second")["subscribers"] == 0
    b.up()
    done = b.run("mesh", "listen", "--count", "2", "--timeout", "15", "--json")
    assert [line["text"] for line in done.lines] == ["first", "second"]
    # Not read twice, and not brought twice by a new start of either.
    a.down()
    a.up()
    assert a.ask("mesh", "broadcast", "news", "third")["id"]
    done = b.run("mesh", "listen", "--count", "1", "--timeout", "15", "--json")
    assert [line["text"] for line in done.lines] == ["third"]
    assert [line["text"] for line in b.lines("inbox")] == ["first", "second", "third"]
    assert b.ask("mesh", "channels")[0]["unread"] == 0


def test_a_call_without_a_daemon_stays_until_a_subscriber_has_its_post(three: tuple[Person, Person, Person]) -> None:
    a, b, _ = three
    befriend(a, b)
    b.ask("mesh", "subscribe", "news")
    b.up()
    a.ask("mesh", "subscribe", "news")
    done = a.run("mesh", "broadcast", "news", "-", "--json", data=b"from a pipe\n")
    assert (done.code, done.talk) == (0, "")
    done = b.run("mesh", "listen", "--count", "1", "--timeout", "15", "--json")
    assert [line["text"] for line in done.lines] == ["from a pipe"]


def test_what_cannot_be_done_with_channels_is_said(three: tuple[Person, Person, Person]) -> None:
    a, _, _ = three
    made = a.ask("mesh", "subscribe", "family", "--key", "new")
    again = a.ask("mesh", "subscribe", "family")
    assert (again["kind"], again["channel"], again["key"]) == ("private", made["channel"], made["key"])
    assert "key" not in a.ask("mesh", "subscribe", "family", "--key", made["key"])
    assert all("key" not in channel for channel in json.loads(a.run("mesh", "channels", "--json").out))
    a.ask("mesh", "subscribe", "village")
    again = a.ask("mesh", "subscribe", "village")
    assert again["kind"] == "open"
    assert "key" not in again
    for words, code, sentence in (
        (
            ("broadcast", "familly", "a secret"),
            5,
            "in no channel familly; did you mean family?",
        ),
        (("broadcast", "village", ""), 2, "there is no text to post"),
        (("broadcast", "village", "x" * 65_537), 2, "the text has 65537 bytes; a post holds 65536"),
        (("unsubscribe", "nowhere"), 5, "you are in no channel nowhere; those you are in: qpc mesh channels"),
        (("subscribe", "family", "--key", "ab" * 32), 2, "family is a private channel you are in, with another key"),
        (("subscribe", "family", "--key", "new"), 2, "leave that one first: qpc mesh unsubscribe family"),
        (("subscribe", "village", "--key", "ab" * 32), 2, "village is an open channel you are in"),
        (("subscribe", "x", "--key", "ab"), 2, "a channel's key has 64 hexadecimal digits"),
        (("subscribe", "x", "--key", "zz" * 32), 2, "a channel's key has 64 hexadecimal digits"),
        (("subscribe",), 2, "<topic> is missing"),
        (("subscribe", "news.*"), 2, "a topic has none of * > in it"),
        (("subscribe", "a>b"), 2, "a topic has none of * > in it"),
        (("subscribe", "t" * 10_240), 2, "a topic has at most 64 bytes"),
        (("subscribe", "abc\u202edef"), 2, "a topic is one word of visible characters"),
        (("subscribe", "two words"), 2, "a topic is one word of visible characters"),
    ):
        done = a.run("mesh", *words, "--json")
        assert (done.code, done.out) == (code, ""), words
        assert sentence in done.error["message"], words
    # What a shell cannot pass, a line of the prompt or a program can.
    done = a.run(data=b"/mesh subscribe a\0b\n")
    assert done.code == 2
    assert "a topic is one word of visible characters" in done.talk


def write_as_number(person: Person, topic: str, number: int) -> None:
    """Let somebody's next post have this number, as if it had read nothing; its node must be down."""
    store = SqliteStore.open(person.home / "mesh.db")
    found = next(s for s in store.channels() if s.channel.topic == topic)
    store.begin()
    set_last_number(store, found.channel.id, number - 1)
    store.put_channel(replace(found, heads=()))
    store.commit()
    store.close()


def until_posts(person: Person, count: int) -> None:
    """Wait until a node has so many posts of its only channel."""
    while person.ask("mesh", "channels")[0]["posts"] < count:
        time.sleep(0.02)


def test_history_by_cause_with_gaps_that_close(three: tuple[Person, Person, Person]) -> None:
    a, b, _ = three
    link(a, b)
    a.ask("mesh", "subscribe", "village")
    b.ask("mesh", "subscribe", "village")
    a.ask("mesh", "broadcast", "village", "one")
    until_posts(b, 1)
    answer = b.ask("mesh", "broadcast", "village", "of mine")
    until_posts(a, 2)
    a.down()
    write_as_number(a, "village", 4)
    a.up()
    a.ask("mesh", "broadcast", "village", "four")
    until_posts(b, 3)

    item = b.ask("mesh", "channels")[0]
    assert (item["gaps"], item["members"], item["unread"]) == (1, 2, 2)
    lines = b.lines("mesh", "history", "village")
    assert [line.get("text") for line in lines] == ["one", "of mine", None, "four"]
    one, own, gap, four = lines
    assert set(one) == POST
    assert (one["from"], one["name"], one["seq"], one["own"]) == (a.key, "alice", 1, False)
    assert (own["id"], own["from"], own["own"], own["kind"]) == (answer["id"], b.key, True, "open")
    assert gap == {
        "event": "gap", "from": a.key, "name": "alice", "channel": one["channel"], "topic": "village", "first": 2,
        "last": 3, "open": True,
    }  # fmt: skip
    # What was written out is read, and is what inbox has.
    assert b.ask("mesh", "channels")[0]["unread"] == 0
    assert b.lines("inbox") == [one, four]
    assert [line.get("text") for line in b.lines("mesh", "history", "village", "--count", "1")] == [None, "four"]
    told = b.run("mesh", "history", "village").out
    assert "#village (open) you: of mine" in told
    assert "    (posts 2 to 3 of alice are missing and may still come)" in told
    assert "2 members, 1 gap" in b.run("mesh", "channels").out

    a.down()
    write_as_number(a, "village", 2)
    a.up()
    for text in ("two", "three"):
        a.ask("mesh", "broadcast", "village", text)
    until_posts(b, 5)
    texts = [line["text"] for line in b.lines("mesh", "history", "village")]
    assert texts == ["one", "of mine", "two", "three", "four"]
    assert b.ask("mesh", "channels")[0]["gaps"] == 0
    # By arrival, what came late is new.
    since = b.lines("mesh", "history", "village", "--since", str(four["cursor"]))
    assert [line["text"] for line in since] == ["two", "three"]
    assert len(b.lines("mesh", "history", "village", "--since", "1h", "--count", "100")) == 5
    assert b.lines("mesh", "history", "village", "--since", "2040-01-01") == []
    # The author sees the same, though its numbers went to and fro.
    assert [line["text"] for line in a.lines("mesh", "history", "village")] == texts


def test_history_says_what_is_wrong_with_what_was_asked(three: tuple[Person, Person, Person]) -> None:
    a, _, _ = three
    a.ask("mesh", "subscribe", "village")
    done = a.run("mesh", "history", "village")
    assert (done.code, done.out, "no posts there" in done.talk) == (0, "", True)
    assert a.run("mesh", "history", "village", "--json").out == ""
    for words, code, sentence in (
        (("nowhere",), 5, "you are in no channel nowhere"),
        ((), 2, "<topic> is missing"),
        (("village", "--since", "yesterday"), 2, "'yesterday' is neither a cursor nor a time, as in: 2d"),
        (("village", "--count", "0"), 2, "'0' is not a whole number of 1 or more"),
        (("village", "well"), 2, "'well' is too much"),
        (("a>b",), 2, "a topic has none of * > in it"),
    ):
        done = a.run("mesh", "history", *words, "--json")
        assert (done.code, done.out) == (code, ""), words
        assert sentence in done.error["message"], words
    assert a.run("history", "village").code == 2  # it is a command of the mesh


def test_leaving_and_coming_back(three: tuple[Person, Person, Person]) -> None:
    a, b, _ = three
    befriend(a, b)
    key = a.ask("mesh", "subscribe", "family", "--key", "new")["key"]
    b.ask("mesh", "subscribe", "family", "--key", key)
    a.up()
    b.up()
    texts = until_subscribers(a, "family", 1)
    finish(b.start("listen", "--count", str(len(texts)), "--timeout", "15", "--json"))
    left = b.ask("mesh", "unsubscribe", "family")
    assert (left["topic"], "key" in left) == ("family", False)
    assert b.ask("mesh", "channels") == []
    assert b.lines("inbox")[0]["topic"] == "family"
    a.ask("mesh", "broadcast", "family", "nobody hears it")
    b.ask("mesh", "subscribe", "family", "--key", key)
    done = b.run("mesh", "listen", "--count", "1", "--timeout", "15", "--json")
    assert [line["text"] for line in done.lines] == ["nobody hears it"]


def invite_of(person: Person, topic: str) -> str:
    return str(person.ask("mesh", "invite", topic)["invite"])


def test_a_private_channel_by_invite(three: tuple[Person, Person, Person]) -> None:
    a, b, c = three
    link(a, b, c)
    made = a.ask("mesh", "subscribe", "family", "--key", "new")
    told = a.ask("mesh", "invite", "family")
    assert {key: told[key] for key in ("channel", "topic", "kind", "passphrase", "owner")} == {
        "channel": made["channel"], "topic": "family", "kind": "private", "passphrase": False, "owner": a.key,
    }  # fmt: skip
    invite = told["invite"]
    joined = b.ask("mesh", "subscribe", "family", "--invite", "-", data=invite.upper().encode() + b"\n")
    assert (joined["channel"], joined["kind"], "key" in joined) == (made["channel"], "private", False)
    assert invite_of(b, "family") == invite, "who was invited may invite"
    assert c.ask("mesh", "subscribe", "family")["kind"] == "open"
    texts = until_subscribers(a, "family", 1)
    found = next_posts(b.start("listen", "--json"), len(texts))
    assert [(post["text"], post["from"], post["topic"]) for post in found] == [(t, a.key, "family") for t in texts]
    assert c.lines("inbox") == []
    # Only the code itself goes to standard output, for scripts and for the eye of a telephone.
    done = a.run("mesh", "invite", "family", "--qr")
    assert done.out.startswith(invite + "\n")
    assert done.out.count("\n") > 20
    assert "qpc mesh subscribe family --invite STRING" in done.talk


def test_what_cannot_be_done_with_invites_is_said(three: tuple[Person, Person, Person]) -> None:
    a, b, _ = three
    a.ask("mesh", "subscribe", "family", "--key", "new")
    a.ask("mesh", "subscribe", "village")
    invite = invite_of(a, "family")
    typo = invite[:20] + ("b" if invite[20] == "a" else "a") + invite[21:]
    for person, words, code, sentence in (
        (a, ("invite", "village"), 2, "whoever knows the topic is in it"),
        (a, ("invite", "nowhere"), 5, "you are in no channel nowhere"),
        (a, ("subscribe", "other", "--invite", invite), 2, "that is the key of the channel family"),
        (a, ("subscribe", "family", "--announce"), 2, "family is a private channel you are in already"),
        (b, ("subscribe", "family", "--invite", typo), 2, "this invite has a mistake in it"),
        (b, ("subscribe", "family", "--invite", invite[:-3]), 2, "or a part of it is missing"),
        (b, ("subscribe", "family", "--invite", "hello"), 2, "an invite begins with qpci1"),
        (b, ("subscribe", "family", "--invite", ""), 2, "the invite is empty"),
        (b, ("subscribe", "family", "--invite", invite, "--key", "new"), 2, "give one of them"),
        (b, ("subscribe", "family", "--invite", invite, "--announce"), 2, "give one of them"),
        (b, ("subscribe", "fam>ily", "--invite", invite), 2, "a topic has none of * > in it"),
        (b, ("subscribe", "family", "--invite", "-"), 2, "the invite is missing"),
    ):
        done = person.run("mesh", *words, "--json")
        assert (done.code, done.out) == (code, ""), words
        assert sentence in done.error["message"], words
    assert b.ask("mesh", "channels") == []
    # Somebody who hands out another owner for the same channel is not believed.
    b.ask("mesh", "subscribe", "family", "--invite", invite)
    forged = str(Invite.of(replace(Invite.parse(invite).channel(), owner=bytes.fromhex(b.key))))
    done = b.run("mesh", "subscribe", "family", "--invite", forged, "--json")
    assert (done.code, done.out) == (4, "")
    assert "another owner" in done.error["message"]
    assert b.ask("mesh", "invite", "family")["owner"] == a.key


def test_a_bare_key_is_completed_by_an_invite(three: tuple[Person, Person, Person]) -> None:
    a, b, _ = three
    key = a.ask("mesh", "subscribe", "family", "--key", "new")["key"]
    b.ask("mesh", "subscribe", "family", "--key", key)
    assert b.ask("mesh", "invite", "family")["owner"] is None
    b.ask("mesh", "subscribe", "family", "--invite", invite_of(a, "family"))
    assert b.ask("mesh", "invite", "family")["owner"] == a.key


def test_a_passphrase_opens_a_channel_together_with_its_invite(three: tuple[Person, Person, Person]) -> None:
    a, b, _ = three
    made = a.ask("mesh", "subscribe", "club", "--passphrase", env={"QPC_PASSPHRASE": "correct horse"})
    told = a.ask("mesh", "invite", "club")
    assert (made["kind"], "key" in made, told["passphrase"]) == ("private", False, True)
    invite = told["invite"]
    for words, data, code, sentence in (
        (("--invite", invite), b"", 2, "needs the channel's passphrase as well"),
        (("--invite", invite, "--passphrase"), b"wrong horse\n", 4, "this is not the passphrase of that channel"),
        (("--invite", invite, "--passphrase"), b"", 2, "the passphrase is missing"),
        (("--passphrase",), b"short\n", 2, "8 characters or more"),
    ):
        done = b.run("mesh", "subscribe", "club", *words, "--json", data=data)
        assert (done.code, done.out) == (code, ""), words
        assert sentence in done.error["message"], words
    data = f"{invite}\ncorrect horse\n".encode()
    joined = b.ask("mesh", "subscribe", "club", "--invite", "-", "--passphrase", data=data)
    assert joined["channel"] == made["channel"]
    done = b.run(data=b"/subscribe x --passphrase\n")
    assert (done.code, "asked for in the shell" in done.talk) == (2, True)


def test_an_emergency_is_marked_for_who_trusts_its_author_and_for_nobody_else(
    three: tuple[Person, Person, Person],
) -> None:
    a, b, c = three
    link(a, b, c)
    assert b.ask("mesh", "trust", "alice")["trusted"] is True
    for person in three:
        person.ask("mesh", "subscribe", "square")
    before = len(until_subscribers(a, "square", 2))
    sent = a.ask("mesh", "broadcast", "square", "the dyke breaks", "--emergency")
    assert sent["emergency"] is True
    listeners = {person: person.start("listen", "--json") for person in (b, c)}
    for person, marked in ((b, True), (c, False)):
        posts = next_posts(listeners[person], before + 1)
        assert [post["emergency"] for post in posts] == [False] * before + [marked]
        assert (posts[-1]["id"], posts[-1]["text"]) == (sent["id"], "the dyke breaks")
        shown = person.run("inbox").out.splitlines()
        above = [row for row in shown if row.startswith("EMERGENCY")]
        assert above == (["EMERGENCY from alice in #square (open)"] if marked else [])
    cry = c.ask("mesh", "broadcast", "square", "EMERGENCY from alice in #square (open)", "--emergency")
    (post,) = next_posts(listeners[b], 1)
    assert (post["id"], post["emergency"]) == (cry["id"], False)
    assert sum(row.startswith("EMERGENCY") for row in b.run("inbox").out.splitlines()) == 1


def test_posts_of_somebody_blocked_are_not_shown_and_those_after_unblocking_are(
    three: tuple[Person, Person, Person],
) -> None:
    a, b, c = three
    link(a, b, c)
    for person in three:
        person.ask("mesh", "subscribe", "square")
    noise = until_subscribers(c, "square", 2)
    next_posts(a.start("listen", "--json"), len(noise))
    while len(b.lines("inbox")) < len(noise):
        pass
    b.ask("block", "carol")
    assert b.lines("inbox") == []
    c.ask("mesh", "broadcast", "square", "while blocked")
    until_subscribers(a, "square", 2)
    listener = b.start("listen", "--json")
    (post, *_) = next_posts(listener, 1)
    assert post["name"] == "alice"
    assert "while blocked" not in {line["text"] for line in b.lines("inbox")}
    b.ask("unblock", "carol")
    b.ask("add", c.key, "--name", "carol")
    texts = until_subscribers(c, "square", 2)
    while (post := next_posts(listener, 1)[0])["name"] != "carol":
        pass
    assert post["text"] in texts
