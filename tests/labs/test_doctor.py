"""What ``qpc doctor`` says where something is in the way, and where nothing is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.labs.avahi import AVAHI, avahi_beside
from tests.labs.bridge import machines
from tests.labs.houses import HUB, SPARE, Houses, drop, houses, pass_again
from tests.labs.machine import Machine, until
from tests.labs.veth import needs_root

pytestmark = [pytest.mark.lab, needs_root, pytest.mark.timeout(120)]
pytest.importorskip("iroh", reason="needs the extra [mesh]")


@contextmanager
def witnesses(names: Houses, tmp: Path) -> Iterator[list[Machine]]:
    """Run a node on each of two machines on the street."""
    found = [Machine(name, tmp / name) for name in (names.hub, names.spare)]
    try:
        for machine, ip in zip(found, (HUB, SPARE), strict=True):
            machine.start("--no-discovery", "--bind", f"{ip}:4433")
        yield found
    finally:
        for machine in found:
            machine.stop()


def test_two_witnesses_tell_which_house_has_which_nat(tmp_path: Path) -> None:
    with houses(symmetric_a=True) as names, witnesses(names, tmp_path) as outside:
        tickets = [machine.qpc("identity")["ticket"] for machine in outside]
        inside = [Machine(name, tmp_path / name) for name in (names.a, names.b)]
        try:
            for machine in inside:
                machine.start("--no-discovery")
                for n, ticket in enumerate(tickets):
                    machine.qpc("add", ticket, "--name", f"outside{n}")
            until(lambda: all(machine.linked(one.key) for one in outside for machine in inside))
            (code_a, a), (code_b, b) = (machine.doctor() for machine in inside)
            assert (code_a, code_b) == (0, 0)
            assert a["nat"]["state"] == "warn", "no relay is known"
            assert a["nat"]["text"].startswith("symmetric: ")
            assert a["nat"]["text"].count("203.0.113.10:") == 2
            assert (b["nat"]["state"], b["nat"]["text"].partition(":")[0]) == (
                "ok", "masquerading, which paths can be made through",
            )  # fmt: skip
            assert b["multicast"]["text"].startswith("not tried"), "the node that runs has discovery turned off"
        finally:
            for machine in inside:
                machine.stop()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[list[Machine]]:
    with machines(2) as names:
        found = [Machine(name, tmp_path / str(n)) for n, name in enumerate(names)]
        try:
            yield found
        finally:
            for machine in found:
                machine.stop()


def test_a_firewall_before_mdns_is_named(pair: list[Machine]) -> None:
    a, b = pair
    b.start()
    code, steps = a.doctor()
    assert (code, steps["multicast"]["state"], steps["mdns"]["state"]) == (0, "ok", "ok")
    drop(a.name, "udp dport 5353")
    code, steps = a.doctor()
    assert (code, steps["multicast"]["state"]) == (3, "fail")
    assert "not sent" in steps["multicast"]["text"] or "not heard" in steps["multicast"]["text"]
    assert "let UDP port 5353 in" in steps["multicast"]["advice"]
    assert steps["mdns"]["state"] == "warn"
    pass_again(a.name)
    code, steps = a.doctor()
    assert (code, steps["multicast"]["state"]) == (0, "ok")


@pytest.mark.skipif(not AVAHI, reason="avahi-daemon, avahi-browse and dbus-daemon are not installed")
def test_it_works_beside_avahi(pair: list[Machine]) -> None:
    a, b = pair
    b.start()
    with avahi_beside(a.name):
        code, steps = a.doctor()
    assert (code, steps["multicast"]["state"]) == (0, "ok")
    assert steps["mdns"]["text"].startswith("2 other addresses answer, 2 of them with quicprochat")


def test_a_machine_without_a_network_is_told_so(pair: list[Machine]) -> None:
    (a, _) = pair
    a.ip("link", "set", "eth0", "down")
    a.ip("addr", "flush", "dev", "eth0")
    code, steps = a.doctor()
    assert code == 3
    assert steps["interfaces"]["state"] == "fail"
    assert steps["disk"]["state"] == "ok"
