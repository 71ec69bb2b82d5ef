"""Eight machines in a ring with two chords, each on cables of its own, and what they post; a ninth comes late.

0 --- 1 --- 2 --- 3         chords: 0--4 and 2--6
|                 |
7 --- 6 --- 5 --- 4         the halves: 0 1 2 3 and 4 5 6 7
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.labs.cable import Cable, alone
from tests.labs.capture import Capture
from tests.labs.machine import Machine, until
from tests.labs.veth import needs_root

pytestmark = [pytest.mark.lab, needs_root, pytest.mark.timeout(300)]

LINKS = [*pairwise(range(8)), (7, 0), (0, 4), (2, 6)]
ACROSS = [(3, 4), (7, 0), (0, 4), (2, 6)]
TOPIC = "swap-shop-by-the-mill"
PRIVATE = "board-of-the-old-school"
SECRET = "the well behind the mill is clean"
LONG_S = 60.0


@pytest.fixture
def nine(tmp_path: Path) -> Iterator[list[Machine]]:
    with alone(tmp_path, "012345678") as machines:
        yield machines


def posts(machine: Machine, topic: str = TOPIC) -> list[str]:
    """Return the texts of the posts that came from others, in the order in which they came."""
    return [line["text"] for line in machine.inbox() if line["event"] == "post" and line["topic"] == topic]


def history(machine: Machine, topic: str = TOPIC) -> list[str]:
    """Return the texts of all posts there are, our own ones too."""
    lines: list[dict[str, Any]] = machine.lines("mesh", "history", topic)
    return [line["text"] for line in lines if line["event"] == "post"]


def all_have(machines: list[Machine], *texts: str, topic: str = TOPIC) -> Callable[[], bool]:
    """Return what says whether all have these, and each once."""
    return lambda: all(sorted(history(machine, topic)) == sorted(texts) for machine in machines)


def test_a_post_reaches_all_once_also_those_who_were_cut_off_and_who_come_late(
    nine: list[Machine], tmp_path: Path
) -> None:
    ring, late = nine[:8], nine[8]
    cables = {link: Cable(number, ring[link[0]], ring[link[1]]) for number, link in enumerate(LINKS, 1)}
    capture = Capture(ring[0].name, tmp_path / "capture", "any")
    for machine in ring:
        machine.begin()
    for machine in ring:
        machine.ready()
    keys = [machine.key for machine in ring]
    until(lambda: all(len(machine.qpc("mesh", "route")) == 7 for machine in ring), LONG_S)

    # Everybody reads the swap shop; three are in a private channel, and those between them carry it unread.
    for machine in ring:
        assert machine.qpc("mesh", "subscribe", TOPIC)["kind"] == "open"
    assert ring[0].qpc("mesh", "subscribe", PRIVATE, "--key", "new")["kind"] == "private"
    invite = ring[0].qpc("mesh", "invite", PRIVATE)["invite"]
    for member in (ring[3], ring[6]):
        joined = member.qpc("mesh", "subscribe", PRIVATE, "--invite", invite)
        assert (joined["kind"], joined["topic"]) == ("private", PRIVATE)

    began = ring[0].qpc("mesh", "broadcast", TOPIC, "bread at seven")
    took_s = until(all_have(ring, "bread at seven"), LONG_S)
    assert began["topic"] == TOPIC
    ring[3].qpc("mesh", "broadcast", PRIVATE, SECRET)
    until(all_have([ring[0], ring[3], ring[6]], SECRET, topic=PRIVATE), LONG_S)

    # Cut into halves; both post; whole again.
    for link in ACROSS:
        cables[link].unplug()
    left, right = ring[:4], ring[4:]
    until(lambda: not any(ring[0].linked(keys[other]) for other in (4, 7)), LONG_S)
    ring[1].qpc("mesh", "broadcast", TOPIC, "from the left")
    ring[5].qpc("mesh", "broadcast", TOPIC, "from the right")
    until(all_have(left, "bread at seven", "from the left"), LONG_S)
    until(all_have(right, "bread at seven", "from the right"), LONG_S)
    for link in ACROSS:
        cables[link].plug()
    whole_s = until(all_have(ring, "bread at seven", "from the left", "from the right"), LONG_S)

    # Somebody comes late, at one cable, and reads what there was; then is one of them.
    Cable(20, ring[3], late)
    late.start()
    late.qpc("mesh", "subscribe", TOPIC)
    late_s = until(all_have([late], "bread at seven", "from the left", "from the right"), LONG_S)
    late.qpc("mesh", "broadcast", TOPIC, "hello, I am new")
    until(all_have(nine, "bread at seven", "from the left", "from the right", "hello, I am new"), LONG_S)
    for machine in nine:
        came = posts(machine)
        assert len(came) == len(set(came)), "nothing twice"

    # Who is not in the private channel has neither its name nor its words, on the cable or on the disk.
    recorded = capture.end()
    assert len(recorded) > 10_000
    words = [word.encode() for word in (TOPIC, PRIVATE, SECRET, "bread at seven")]
    assert not [word for word in words if word in recorded]
    for machine in (ring[1], ring[5], late):
        machine.stop()
        kept = b"".join(path.read_bytes() for path in machine.home.rglob("*") if path.is_file())
        assert not [word for word in (PRIVATE.encode(), SECRET.encode()) if word in kept]
        assert TOPIC.encode() in kept, "what is looked for would be found"
    print(f"\nthe first post everywhere after {took_s:.1f} s, whole again {whole_s:.1f} s after the cables,"
          f" the ninth has all {late_s:.1f} s after it joined")  # fmt: skip
