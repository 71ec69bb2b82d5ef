"""Villages with a server each, joined by a router that loses packets: what was sent comes once; strangers get nothing.

Nobody has links here, so whatever arrives came through the servers.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.labs.machine import until
from tests.labs.router import Router, needs_router, routed
from tests.labs.village import Village, authority, clock_off

pytestmark = [pytest.mark.lab, needs_router, pytest.mark.timeout(120)]

NODE1, NODE2 = "node1.mesh.local", "node2.mesh.local"
MESSAGES = 90
"""As many as may wait for one recipient from one author."""
PARTED_S = 5.0
"""So soon the connections of a domain that was taken off the list have ended."""


@contextmanager
def lab(
    place: Path, *domains: str, ca: Callable[[str], str] = lambda _: "ca"
) -> Iterator[tuple[Router, list[Village]]]:
    """Villages whose servers are configured for nobody yet, and down. ``ca`` names each one's authority."""
    with routed(len(domains)) as (router, names):
        cas = {name: authority(place / name) for name in {ca(domain) for domain in domains}}
        villages = [
            Village(number, name, place, domain, cas[ca(domain)])
            for number, (name, domain) in enumerate(zip(names, domains, strict=True), 1)
        ]
        try:
            yield router, villages
        finally:
            for village in villages:
                village.down()


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Router, Village, Village]]:
    """Ada lives at node1 and Bob at node2; all is up."""
    with lab(tmp_path, NODE1, NODE2) as (router, (one, other)):
        one.peers(other)
        other.peers(one)
        one.up()
        other.up()
        one.settle("ada")
        other.settle("bob")
        yield router, one, other


def carriers(village: Village, id: str) -> list[tuple[str, str]]:
    return [(event["state"], event["carrier"]) for event in village.trace(id)["events"]]


def test_a_message_waits_for_a_domain_that_is_down_and_survives_kill_9(two: tuple[Router, Village, Village]) -> None:
    _, one, other = two
    one.write(f"bob@{NODE2}", "hello")  # so that the name is known when its domain is away
    until(lambda: other.got() == ["hello"])
    other.kill()
    sent = one.send(f"bob@{NODE2}", "is the bridge open?")
    assert sent["state"] == "relayed"
    (row,) = one.ask("federation", "outbox")
    assert (row["origin"], row["destination"], row["answer"]) == (NODE1, NODE2, "")
    one.kill()
    one.up()
    assert [row["id"] for row in one.ask("federation", "outbox")] == [row["id"]]
    other.up()
    until(lambda: one.trace(sent["id"])["state"] == "delivered", 40)
    assert other.got() == ["hello", "is the bridge open?"]
    way = carriers(one, sent["id"])
    server = one.ask("status")["fingerprint"]
    assert [step for step in way if step[0] in ("relayed", "stored")] == [("relayed", server), ("stored", NODE2)]
    assert way[-1][0] == "delivered"
    assert one.ask("federation", "outbox") == []


def talk(one: Village, other: Village, texts: Sequence[str]) -> threading.Thread:
    """Let both write the same texts to each other at the same time."""

    def speak(village: Village, to: str) -> None:
        for text in texts:
            village.write(to, text)

    def both() -> None:
        answering = threading.Thread(target=speak, args=(other, f"ada@{NODE1}"))
        answering.start()
        speak(one, f"bob@{NODE2}")
        answering.join()

    talking = threading.Thread(target=both)
    talking.start()
    return talking


def numbered(count: int) -> list[str]:
    return [f"number {n:03}" for n in range(count)]


def everywhere(one: Village, other: Village, texts: list[str]) -> None:
    """Wait until both have all the texts, once each, and know that the other has."""
    try:
        until(lambda: len(one.got()) >= len(texts) and len(other.got()) >= len(texts), 60)
        until(lambda: one.unconfirmed() == other.unconfirmed() == 0, 60)
    finally:
        assert (one.got(), other.got()) == (texts, texts)


def test_a_partition_while_messages_flow_both_ways_loses_and_repeats_nothing(
    two: tuple[Router, Village, Village],
) -> None:
    router, one, other = two
    texts = numbered(MESSAGES)
    talking = talk(one, other, texts)
    until(lambda: len(one.got()) > 5 and len(other.got()) > 5)
    router.cut(1, 2)
    until(lambda: one.peer(other)["messages"] > 0 and other.peer(one)["messages"] > 0)
    talking.join()
    assert len(one.got()) < MESSAGES, "all was said before the cable was cut"
    router.heal()
    everywhere(one, other, texts)


def test_thirty_percent_loss_under_load_loses_and_repeats_nothing(two: tuple[Router, Village, Village]) -> None:
    router, one, other = two
    router.lose(30)
    talking = talk(one, other, numbered(MESSAGES))
    talking.join()
    everywhere(one, other, numbered(MESSAGES))
    dropped = re.search(r"packets (\d+)", router.rules())
    assert dropped is not None
    assert int(dropped[1]) > 10, "nothing was lost on the way"


def tried(village: Village, other: Village) -> None:
    """Wait until a server has called another in vain."""
    until(lambda: village.peer(other)["failures"] > 0)


def refusals(village: Village) -> list[str]:
    return re.findall(r"a server was refused: (.*)", village.log)


def test_servers_that_nobody_listed_get_nothing_in_and_nothing_out(tmp_path: Path) -> None:
    """One has a made-up authority and claims a domain of ours; the other a good certificate for a domain of its own."""
    made_up, unlisted = NODE2, "node3.mesh.local"
    authorities = {NODE1: "ca", made_up: "another", unlisted: "ca"}
    with lab(tmp_path, NODE1, made_up, unlisted, ca=authorities.__getitem__) as (_, (one, impostor, stranger)):
        one.peers(impostor)  # the address is right, the authority is not
        impostor.peers(one)
        stranger.peers(one)
        for village in (one, impostor, stranger):
            village.up()
        one.settle("ada")
        ada = one.key
        for village in (impostor, stranger):
            village.settle("mallory")
            # Nothing in.
            village.send(f"{ada}@{NODE1}", "let me in")
            tried(village, one)
            # Nothing out: neither a name nor a message.
            asked = village.person.run("send", f"ada@{NODE1}", "x")
            assert asked.returncode in (3, 4)
            assert NODE1 in asked.stderr
        one.send(f"{impostor.key}@{made_up}", "a secret")
        tried(one, impostor)
        listed = one.person.run("send", f"mallory@{unlisted}", "x")
        assert listed.returncode == 7
        assert f"{NODE1} exchanges no messages with this domain" in listed.stderr
        assert one.got() == impostor.got() == stranger.got() == []
        assert one.peer(impostor)["received"]["stored"] == 0
        # Both sides say why, each in a sentence.
        assert re.search(rf"{re.escape(made_up)} .* is not from the authority", one.log), one.log
        assert any(f"{unlisted} is not in [federation_peers]" in said for said in refusals(one)), one.log
        assert re.search(r"(authority|issued)", impostor.peer(one)["trouble"]), impostor.peer(one)
        assert "not accept" in stranger.peer(one)["trouble"], stranger.peer(one)
        for village in (impostor, stranger):
            assert village.peer(one)["trouble"] in village.log


@pytest.mark.parametrize("years", [-30, 30], ids=["in the past", "in the future"])
def test_a_clock_that_is_off_by_years_is_named(tmp_path: Path, years: int) -> None:
    with lab(tmp_path, NODE1, NODE2) as (_, (one, other)):
        one.peers(other)
        other.peers(one)
        one.up(clock_off(years))
        other.up()
        one.settle("ada")
        other.settle("bob")
        assert one.send(f"{other.key}@{NODE2}", "x")["state"] == "relayed"
        tried(one, other)
        assert "clock says" in one.peer(other)["trouble"]
        assert "clock says" in one.log
        other.send(f"{one.key}@{NODE1}", "x")
        tried(other, one)
        assert "clock" in other.peer(one)["trouble"]


def test_a_domain_taken_off_the_list_is_cut_off_and_what_waited_goes_when_it_is_back(
    two: tuple[Router, Village, Village],
) -> None:
    _, one, other = two
    talk(one, other, ["hello"]).join()
    until(lambda: one.got() == other.got() == ["hello"])
    until(lambda: one.peer(other)["connected"] and one.peer(other)["connections_in"])
    one.peers()
    one.reload()
    until(lambda: other.peer(one)["connections_in"] == 0 and not other.peer(one)["connected"], PARTED_S)
    other.write(f"ada@{NODE1}", "are you still there?")
    tried(other, one)
    assert one.got() == ["hello"]
    one.peers(other)
    one.reload()
    until(lambda: one.got() == ["are you still there?", "hello"])
    until(lambda: other.unconfirmed() == 0, 40)
