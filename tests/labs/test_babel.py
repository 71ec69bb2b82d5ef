"""A mesh of routers that run Debian's babeld, with nodes of ours on two of them that mDNS cannot bring together."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.labs.babel import BABELD, Routers, routers
from tests.labs.machine import Machine, until
from tests.labs.veth import needs_root

from quicprochat.core.underlay import babel_cost

pytestmark = [
    pytest.mark.lab, needs_root, pytest.mark.timeout(120),
    pytest.mark.skipif(BABELD is None, reason="babeld is not installed"),
]  # fmt: skip
pytest.importorskip("iroh", reason="needs the extra [mesh]")

WIRED = 96
"""What a hop over a cable costs in babeld."""
RESUMED_S = 10.0
READ_S = 30.0
"""The underlay is read every 10 s, and Babel takes its time to hear that a neighbour is gone."""


@contextmanager
def nodes(mesh: Routers, tmp: Path, *places: int) -> Iterator[list[Machine]]:
    """Run a node on some routers, found by ticket, with a first message each way."""
    machines = [Machine(mesh.names[n - 1], tmp / f"node{n}") for n in places]
    try:
        for machine in machines:
            machine.start()
        a, b = machines
        assert a.peer(b.key) is None, "mDNS must not cross a router"
        a.qpc("add", b.qpc("identity")["ticket"], "--name", "bob")
        b.qpc("add", a.qpc("identity")["ticket"], "--name", "ada")
        until(lambda: a.linked(b.key) and b.linked(a.key))
        yield machines
    finally:
        for machine in machines:
            machine.stop()


def exchange(a: Machine, b: Machine, text: str) -> float:
    """Send both ways until both are delivered; return how long that took."""
    began = time.monotonic()
    for machine, name in ((a, "bob"), (b, "ada")):
        left = max(1.0, RESUMED_S - (time.monotonic() - began))
        sent = machine.qpc("send", name, text, "--wait", "delivered", "--timeout", f"{left:.1f}")
        assert sent["state"] == "delivered"
    return time.monotonic() - began


def underlay(machine: Machine) -> object:
    """Return what the mesh underneath says of the way to the one peer."""
    (route,) = machine.qpc("mesh", "route")
    return route["underlay"]


def test_five_routers_in_a_line_carry_messages_both_ways_and_tell_what_the_way_costs(tmp_path: Path) -> None:
    with routers(5, tmp_path) as mesh, nodes(mesh, tmp_path, 1, 5) as (a, b):
        print(f"both ways: {exchange(a, b, 'one'):.1f} s")
        assert [line["text"] for line in a.inbox()] == [line["text"] for line in b.inbox()] == ["one"]
        wanted = {"cost": babel_cost(4 * WIRED), "via": "babel"}
        until(lambda: underlay(a) == wanted and underlay(b) == wanted, READ_S)
        (route,) = a.qpc("mesh", "route")
        assert route["metric"] >= babel_cost(4 * WIRED), "the link is counted with what the mesh underneath says"
        _, steps = a.doctor()
        assert steps["underlay"]["text"].startswith("babel: ")


def test_a_dead_link_in_a_ring_is_gone_around(tmp_path: Path) -> None:
    with routers(5, tmp_path, ring=True) as mesh, nodes(mesh, tmp_path, 1, 3) as (a, b):
        exchange(a, b, "one")
        short, long = ({"cost": babel_cost(hops * WIRED), "via": "babel"} for hops in (2, 3))
        until(lambda: underlay(a) == short, READ_S)
        mesh.cut(2, 3)
        print(f"around the dead link: {exchange(a, b, 'two'):.1f} s")
        print(f"Babel's new metric seen after: {until(lambda: underlay(a) == long, READ_S):.1f} s")
        mesh.repair(2, 3)
        exchange(a, b, "three")
        assert sorted(line["text"] for line in b.inbox()) == ["one", "three", "two"]
        assert sorted(line["text"] for line in a.inbox()) == ["one", "three", "two"]
