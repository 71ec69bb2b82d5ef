"""Channels as people use them: three nodes on the loopback, with a key, with a wrong one, and in the open."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.qpc import Person, befriend, finish, read_line

CHANNEL = {"channel", "topic", "kind", "posts", "unread"}
POST = {
    "event", "cursor", "id", "from", "name", "to", "channel", "topic", "kind", "text", "hops", "received_at",
    "sent_at", "protection", "request",
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
    assert (len(key), made["kind"], made["topic"], made["posts"]) == (64, "private", "family", 0)
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
    assert channels["family"]["posts"] == len(texts) + 1
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
            "in no channel familly; join it first: qpc mesh subscribe familly",
        ),
        (("broadcast", "village", ""), 2, "there is no text to send"),
        (("broadcast", "village", "x" * 65_537), 2, "the text has 65537 bytes; a post holds 65536"),
        (("unsubscribe", "nowhere"), 5, "you are in no channel nowhere"),
        (("subscribe", "family", "--key", "ab" * 32), 2, "family is a private channel you are in, with another key"),
        (("subscribe", "family", "--key", "new"), 2, "leave that one first: qpc mesh unsubscribe family"),
        (("subscribe", "village", "--key", "ab" * 32), 2, "village is an open channel you are in"),
        (("subscribe", "x", "--key", "ab"), 2, "a channel's key has 64 hexadecimal digits"),
        (("subscribe", "x", "--key", "zz" * 32), 2, "a channel's key has 64 hexadecimal digits"),
        (("subscribe", "x", "--invite", "y"), 2, "has no option '--invite"),
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
