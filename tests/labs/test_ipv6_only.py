"""A network without any IPv4: unique local addresses (fd00::/8), as community networks number themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.labs.bridge import machines
from tests.labs.machine import Machine, until
from tests.labs.veth import needs_root

pytestmark = [pytest.mark.lab, needs_root]
pytest.importorskip("iroh", reason="needs the extra [mesh]")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[list[Machine]]:
    with machines(2) as names:
        found = [Machine(name, tmp_path / str(n)) for n, name in enumerate(names)]
        try:
            for machine in found:
                for device in ("eth0", "lo"):
                    machine.ip("-4", "addr", "flush", "dev", device)
                assert machine.ip("-4", "addr", "show") == ""
            yield found
        finally:
            for machine in found:
                machine.stop()


def test_two_find_each_other_and_write_over_unique_local_addresses(lab: list[Machine]) -> None:
    a, b = lab
    a.start()
    b.start()
    keys = a.key, b.key
    print(f"linked after: {until(lambda: a.linked(keys[1]) and b.linked(keys[0])):.1f} s")
    for machine, other in ((a, keys[1]), (b, keys[0])):
        sent = machine.qpc("send", other[:16], "over IPv6", "--wait", "delivered", "--timeout", "10")
        assert sent["state"] == "delivered"
        peer = machine.peer(other)
        assert peer is not None
        assert peer["addresses"]
        assert all(address.startswith("[fd97::") for address in peer["addresses"])
    code, steps = a.doctor()
    assert code == 0, steps
    assert (steps["ipv6"]["state"], steps["ipv6"]["text"]) == (
        "ok", "a local address (ULA), as community networks have them",
    )  # fmt: skip
    assert steps["multicast"]["text"] == "eth0 IPv6 sent and heard"
    assert steps["mdns"]["text"].startswith("1 other address answers, 1 of them with quicprochat")
