"""Owners and members as people meet them: real nodes on the loopback, an invite, a list of posters, a new key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.qpc import Person
from tests.integration.test_channels import invite_of, link, next_posts

Three = tuple[Person, Person, Person]


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Three]:
    found = Person(tmp_path / "a"), Person(tmp_path / "b"), Person(tmp_path / "c")
    yield found
    for person in found:
        person.end()


def until(ask: Callable[[], Any], good: Callable[[Any], bool]) -> Any:
    """Ask until the answer is good; whoever waits for ever is ended by the test's own time limit."""
    while not good(answer := ask()):
        pass
    return answer


def members(person: Person, topic: str) -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in person.ask("mesh", "members", topic)}


def until_members(person: Person, topic: str, *names: str) -> dict[str, dict[str, Any]]:
    """Wait until a person knows these members, apart from itself."""
    found: dict[str, dict[str, Any]] = until(
        lambda: members(person, topic),
        lambda there: {n for n, m in there.items() if m["state"] == "joined" and not m["you"]} == set(names),
    )
    return found


def until_texts(person: Person, *texts: str) -> None:
    """Wait until a person's inbox is just this, in any order."""
    until(lambda: sorted(line["text"] for line in person.lines("inbox")), lambda found: found == sorted(texts))


def gather(topic: str, three: Three, *options: str) -> None:
    """The first makes a channel, the others come by invite, and the first knows of them."""
    a, b, c = three
    a.ask("mesh", "subscribe", topic, *options)
    for person in (b, c):
        person.ask("mesh", "subscribe", topic, "--invite", invite_of(a, topic))
    until_members(a, topic, "bob", "carol")


def test_only_the_owner_and_whom_it_lists_announce(three: Three) -> None:
    a, b, c = three
    link(a, b, c)
    gather("news", three, "--announce")
    assert b.ask("mesh", "channels")[0]["kind"] == "announcement"
    done = b.run("mesh", "broadcast", "news", "bread", "--json")
    assert (done.code, done.out) == (7, "")
    assert "does not list you" in done.error["message"]
    a.ask("mesh", "broadcast", "news", "hello")
    told = a.ask("mesh", "posters", "news", "add", "bob")
    assert told["owner"] == {"public_key": a.key, "name": ""}
    assert told["posters"] == [{"public_key": b.key, "name": "bob"}]
    until(lambda: b.ask("mesh", "posters", "news"), lambda view: view["version"] == 1)
    b.ask("mesh", "broadcast", "news", "bread")
    until_texts(c, "hello", "bread")
    assert {line["kind"] for line in c.lines("inbox")} == {"announcement"}
    # Taken off the list again.
    assert a.ask("mesh", "posters", "news", "remove", "bob")["posters"] == []
    until(lambda: b.ask("mesh", "posters", "news"), lambda view: view["version"] == 2)
    assert b.run("mesh", "broadcast", "news", "more").code == 7
    for words, code, sentence in (
        (("posters", "news", "add", "carol"), 7, "only its owner can list who writes there"),
        (("rotate", "news"), 7, "only its owner can give it a new key"),
        (("posters", "news", "add"), 2, "write: qpc mesh posters <topic> add <peer>"),
        (("posters", "news", "sing", "carol"), 2, "none of add, remove"),
        (("posters", "nowhere"), 5, "you are in no channel nowhere"),
        (("members", "nowhere"), 5, "you are in no channel nowhere"),
        (("rotate", "nowhere"), 5, "you are in no channel nowhere"),
        (("mute", "nowhere"), 5, "you are in no channel nowhere"),
        (("rotate", "news", "--without", "nobody"), 5, "nobody"),
    ):
        done = b.run("mesh", *words, "--json")
        assert (done.code, done.out) == (code, ""), words
        assert sentence in done.error["message"], words
    a.ask("mesh", "subscribe", "village")
    assert a.run("mesh", "rotate", "village").code == 2
    assert a.run("mesh", "posters", "village").code == 2


def test_the_list_of_members_and_their_number_agree(three: Three) -> None:
    a, b, _ = three
    a.ask("mesh", "subscribe", "board", "--key", "new")
    invite = invite_of(a, "board")
    for _ in range(2):  # joined, and joined once more after leaving; neither has met the other yet
        b.ask("mesh", "subscribe", "board", "--invite", invite)
        listed = [member["state"] for member in b.ask("mesh", "members", "board")]
        assert listed == ["joined", "joined"], "the owner, as the invite says, and we"
        assert b.ask("mesh", "channels")[0]["members"] == 2
        b.ask("mesh", "unsubscribe", "board")


def test_a_new_key_leaves_one_out_and_reaches_one_who_was_away(three: Three) -> None:
    a, b, c = three
    link(a, b, c)
    gather("family", three, "--key", "new")
    a.ask("mesh", "broadcast", "family", "all of us")
    until_texts(b, "all of us")
    until_texts(c, "all of us")
    b.down()
    done = a.ask("mesh", "rotate", "family", "--without", c.key[:16])
    assert (done["epoch"], done["sent"], done["without"]) == (1, 1, [{"public_key": c.key, "name": "carol"}])
    found = members(a, "family")
    assert (found["carol"]["state"], found["bob"]["key"]) == ("removed", found["bob"]["key"])
    assert found["bob"]["key"] in ("queued", "relayed"), "nobody says that Bob has it"
    a.ask("mesh", "broadcast", "family", "without carol")
    until(lambda: c.ask("mesh", "channels")[0]["unreadable"], lambda count: count == 1)
    assert "1 without a key" in c.run("mesh", "channels").out
    b.up()
    until(lambda: members(a, "family")["bob"]["key"], lambda key: key == "has")
    until_texts(b, "all of us", "without carol")
    assert b.ask("mesh", "channels")[0]["unreadable"] == 0
    # Bob's answers are sealed with the new key as well; Carol's old ones are still read by all who keep the old one.
    b.ask("mesh", "broadcast", "family", "I am back")
    c.ask("mesh", "broadcast", "family", "can you hear me?")
    until_texts(a, "I am back", "can you hear me?")
    until(lambda: c.ask("mesh", "channels")[0]["unreadable"], lambda count: count == 2)
    assert [line["text"] for line in c.lines("inbox")] == ["all of us"]
    # The message that carried the key is nobody's to read, and is not listed as one.
    assert a.lines("outbox")[0] == []
    assert all(line["event"] == "post" for line in b.lines("inbox"))
    # Who comes back by an invite of now is one of them again.
    done = c.ask("mesh", "subscribe", "family", "--invite", invite_of(b, "family"))
    assert done["epoch"] == 1
    c.ask("mesh", "broadcast", "family", "thank you")
    until(lambda: members(a, "family")["carol"], lambda m: (m["state"], m["key"]) == ("joined", "has"))


def test_quiet_and_farewell(three: Three) -> None:
    a, b, c = three
    link(a, b, c)
    gather("family", three, "--key", "new")
    assert b.ask("mesh", "mute", "family")["muted"]
    listener = b.start("listen", "--json")
    a.ask("mesh", "broadcast", "family", "psst")
    until_texts(b, "psst")
    (channel,) = b.ask("mesh", "channels")
    assert (channel["muted"], channel["unread"]) == (True, 0)
    assert not b.ask("mesh", "unmute", "family")["muted"]
    a.ask("mesh", "broadcast", "family", "hello")
    assert [post["text"] for post in next_posts(listener, 1)] == ["hello"], "what was muted was not told"
    b.ask("mesh", "unsubscribe", "family")
    until(lambda: members(a, "family")["bob"]["state"], lambda state: state == "left")
    (channel,) = a.ask("mesh", "channels")
    assert channel["members"] == 2
    assert a.ask("mesh", "rotate", "family")["sent"] == 1, "who left gets no key"
