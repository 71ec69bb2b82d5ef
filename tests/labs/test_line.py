"""Five machines in a row, each on a cable with the next and on no other; and a sixth that walks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from tests.labs.cable import Cable, alone
from tests.labs.machine import Machine, until
from tests.labs.veth import needs_root

pytestmark = [pytest.mark.lab, needs_root]
LONG_S = 90.0


@pytest.fixture
def six(tmp_path: Path) -> Iterator[list[Machine]]:
    with alone(tmp_path, "abcdew") as machines:
        yield machines


@pytest.mark.timeout(300)
def test_a_message_crosses_four_links_and_then_goes_by_foot(six: list[Machine]) -> None:
    a, b, c, d, e, walker = six
    cables = [Cable(number, *pair) for number, pair in enumerate(pairwise(six[:-1]), 1)]
    for machine in six:
        machine.start()

    def far() -> list[str]:
        return [way["destination"] for way in a.qpc("mesh", "route") if way["hops"] == 4 and way["via"] == "mesh"]

    until(far, LONG_S)
    [key] = far()
    sent = a.qpc("send", key, "over four links", "--wait", "delivered", "--timeout", "30")
    assert sent["state"] == "delivered"
    [got] = e.inbox()
    assert (got["text"], got["hops"]) == ("over four links", 3)
    trace = a.qpc("trace", sent["id"])
    first = b.qpc("identity")["public_key"]
    assert [(event["state"], event["carrier"]) for event in trace["events"]][-1] == ("delivered", first)
    until(lambda: [machine.qpc("store")["messages"] for machine in (b, c, d)] == [0, 0, 0], LONG_S)

    cables[2].cut()  # between c and d
    until(lambda: not far(), LONG_S)
    again = a.qpc("send", key, "by foot")
    here = Cable(8, b, walker)
    until(lambda: walker.qpc("store")["carried"] == 1, LONG_S)
    here.cut()
    assert len(e.inbox()) == 1
    there = Cable(9, d, walker)
    until(lambda: len(e.inbox()) == 2, LONG_S)
    assert e.inbox()[1]["text"] == "by foot"
    assert a.qpc("trace", again["id"])["state"] in ("queued", "relayed"), "nobody has walked back yet"
    until(lambda: walker.qpc("store")["carried"] == 1 and walker.qpc("store")["passed_on"] >= 1, LONG_S)
    there.cut()
    Cable(10, b, walker)
    until(lambda: a.qpc("trace", again["id"])["state"] == "delivered", LONG_S)
