"""Twelve daemons over twelve machines' worth of a real mesh: a bridge, a ring, a triangle and leaves; then a cut.

The piece is cut by degree out of Freifunk Leipzig as of 2020-03-03 (github.com/mwarning/meshnet-lab,
data/freifunk/freifunk-leipzig.json, MIT, Copyright (c) 2020 Moritz Warning); the numbers are its nodes' ids.

      3   147--182                134--185
       \\    \\  /                 /      \\
        66----36     66 -------- 59      201
       /                          \\      /
      98                          139--159

What happens is compared with what the simulator says of the same graph.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.labs.bridge import sh
from tests.labs.machine import Machine, until
from tests.labs.veth import needs_root

from quicprochat.client.socket import NAME
from quicprochat.console.local import reachable
from quicprochat.sim.topology import run

pytestmark = [pytest.mark.lab, needs_root]
LINKS = [
    ("3", "66"), ("36", "66"), ("36", "147"), ("36", "182"), ("59", "66"), ("59", "134"), ("59", "139"), ("66", "98"),
    ("134", "185"), ("139", "159"), ("147", "182"), ("159", "201"), ("185", "201"),
]  # fmt: skip
NODES = list(dict.fromkeys(end for link in LINKS for end in link))
PAIRS = [("147", "201"), ("3", "185"), ("98", "134"), ("182", "139"), ("201", "98")]
CUT, AROUND = "134", ("147", "185")
"""Who is cut off, and two between whom the shortest path leads through it."""
DETECTION_S = 10.0
"""A link over which nothing gets any more is noticed within this (docs/protocol.md §9)."""
LONG_S = 40.0


class House(Machine):
    """A machine of the village; what it knows is asked over its socket, which costs no process."""

    def ask(self, command: str, **args: Any) -> list[Any]:
        """Return the objects that the daemon answers with."""
        with socket.socket(socket.AF_UNIX) as call, reachable(self.home, NAME) as address:
            call.settimeout(20)
            call.connect(address)
            call.sendall(json.dumps({"command": command, "args": args}).encode() + b"\n")
            with call.makefile("rb") as answer:
                lines = [json.loads(line) for line in answer]
        assert lines[-1] == {"end": True}, lines[-1]
        return [line["item"] for line in lines if "item" in line]

    def look(self) -> dict[str, dict[str, Any]]:
        """Return the way to each key."""
        return {way["destination"]: way for way in self.ask("route")}

    def used(self) -> tuple[int, float]:
        """Return the daemon's memory in MiB and the processor seconds it took."""
        assert self._daemon is not None
        status = Path(f"/proc/{self._daemon.pid}/status").read_text()
        [resident] = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")]
        ticks = Path(f"/proc/{self._daemon.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return resident >> 10, (int(ticks[11]) + int(ticks[12])) / 100


@pytest.fixture
def village(tmp_path: Path) -> Iterator[dict[str, House]]:
    run = uuid.uuid4().hex[:6]
    found = {name: House(f"qpcv{run}{name}", tmp_path / name) for name in NODES}
    try:
        for house in found.values():
            sh("ip", "netns", "add", house.name)
            house.ip("link", "set", "lo", "up")
        for number, link in enumerate(LINKS):
            device = f"c{number}"
            one, other = (found[end] for end in link)
            sh("ip", "link", "add", device, "netns", one.name, "type", "veth", "peer", "name", device,
               "netns", other.name)  # fmt: skip
            for host, house in enumerate((one, other), 1):
                house.ip("addr", "add", f"10.95.{number}.{host}/24", "dev", device)
                house.ip("link", "set", device, "up")
        yield found
    finally:
        for house in found.values():
            try:
                house.stop()
            finally:
                subprocess.run(["ip", "netns", "del", house.name], check=False, capture_output=True)


def shortest(without: str = "") -> dict[tuple[str, str], int]:
    """Return how many links apart any two are."""
    near: dict[str, set[str]] = {name: set() for name in NODES if name != without}
    for one, other in LINKS:
        if without not in (one, other):
            near[one].add(other)
            near[other].add(one)
    found: dict[tuple[str, str], int] = {}
    for start in near:
        wave, depth = {start}, 0
        seen = set(wave)
        while wave:
            found |= {(start, name): depth for name in wave}
            wave = {other for name in wave for other in near[name]} - seen
            seen |= wave
            depth += 1
    return found


def all_right(
    village: dict[str, House], keys: dict[str, str], without: str = "", judged: frozenset[str] = frozenset()
) -> Callable[[], bool]:
    """Return what says whether everybody has the shortest way to everybody, and none to who is cut off.

    To those of whom receipts were missed (``judged``) any way will do: a next hop is avoided for that for a while.
    """
    expected = shortest(without)

    def right() -> bool:
        for name, house in village.items():
            if name == without:
                continue
            hops = {way["destination"]: way["hops"] for way in house.look().values()}
            others = {other for other in keys if other not in (name, without)}
            if hops.keys() != {keys[other] for other in others}:
                return False
            if any(hops[keys[other]] != expected[name, other] for other in others - judged):
                return False
        return True

    return right


def send(house: House, key: str, text: str, *wait: str) -> dict[str, Any]:
    return dict(house.qpc("send", key, text, *wait))


@pytest.mark.timeout(300)
def test_a_village_is_as_the_simulator_says(village: dict[str, House], tmp_path: Path) -> None:
    graph = tmp_path / "village.json"
    graph.write_text(json.dumps([{"from": one, "to": other} for one, other in LINKS]))
    said = run(str(graph), {"cut": CUT, "pairs": 500})
    assert (said["delivered_ratio"], said["stretch"], said["cut_delivered_ratio"], said["loops"]) == (1, 1, 1, 0)

    began = time.monotonic()
    for house in village.values():
        house.begin()
    for house in village.values():
        house.ready()
    keys = {name: str(house.ask("identity")[0]["public_key"]) for name, house in village.items()}
    up_s = time.monotonic() - began
    found_s = until(all_right(village, keys), LONG_S)

    # Everybody reaches everybody, on paths as long as the simulator's: with stretch 1, the shortest there are.
    apart = shortest()
    for one, other in PAIRS:
        sent = send(village[one], keys[other], f"from {one}", "--wait", "delivered", "--timeout", "30")
        assert sent["state"] == "delivered"
        [got] = [line for line in village[other].inbox() if line["from"] == keys[one]]
        assert (got["text"], got["hops"]) == (f"from {one}", apart[one, other] - 1)

    # A node is cut off, and with it the shorter way around the ring.
    cut = [(village[one if other == CUT else other], f"c{n}") for n, (one, other) in enumerate(LINKS)
           if CUT in (one, other)]  # fmt: skip
    for neighbour, device in cut:
        neighbour.ip("link", "set", device, "down")
    began = time.monotonic()
    waiting = send(village["3"], keys[CUT], "when you are back")
    one, other = AROUND
    under_way = send(village[one], keys[other], "the other way round")
    judged = frozenset((*AROUND, "3", CUT))
    until(all_right(village, keys, CUT, judged), LONG_S)
    right_s = time.monotonic() - began
    until(lambda: village[one].qpc("trace", under_way["id"])["state"] == "delivered", LONG_S)
    arrived_s = time.monotonic() - began
    sent = send(village[one], keys[other], "and again", "--wait", "delivered", "--timeout", "30")
    assert sent["state"] == "delivered"
    hops = {line["text"]: line["hops"] for line in village[other].inbox()}
    # Through the triangle, if the next hop was blamed for the receipt that the cut held up.
    assert apart[AROUND] < shortest(CUT)[AROUND] - 1 <= hops["and again"] <= shortest(CUT)[AROUND]
    assert village[CUT].inbox()[-1]["text"] != "when you are back"

    # Plugged in again, it gets what waited for it.
    for neighbour, device in cut:
        neighbour.ip("link", "set", device, "up")
    back_s = until(lambda: village["3"].qpc("trace", waiting["id"])["state"] == "delivered", LONG_S)
    assert [line["text"] for line in village[CUT].inbox()].count("when you are back") == 1
    whole_s = back_s + until(all_right(village, keys, judged=frozenset(keys)), LONG_S)

    used = [house.used() for house in village.values()]
    print(
        f"\ntwelve daemons up after {up_s:.1f} s, all routes {found_s:.1f} s later"
        f" (simulator {said['convergence_s']} s)"
        f"\nright again {right_s:.1f} s after the cut (simulator {said['reconvergence_s']} s after it is noticed)"
        f"\nwhat was under way delivered after {arrived_s:.1f} s"
        f"\nplugged in again: what waited delivered after {back_s:.1f} s, all routes after {whole_s:.1f} s"
        f"\nmemory {min(m for m, _ in used)} to {max(m for m, _ in used)} MiB,"
        f" processor {min(s for _, s in used):.1f} to {max(s for _, s in used):.1f} s a daemon"
    )
    assert right_s <= DETECTION_S + max(said["reconvergence_s"], 0.4 * said["diameter_left"]) + 5, "5 s for two cores"
