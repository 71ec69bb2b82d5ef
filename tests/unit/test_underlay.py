"""The mesh underneath: Babel and batman-adv, read where they can be read, and what their metrics cost.

The dump of babeld is as babeld 1.12.1 wrote it. The answers of batctl are written by hand after its source, since the
kernel module cannot be loaded where these tests run.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from quicprochat.adapters.underlay import Underlay, babel, batman, kernel
from quicprochat.adapters.underlay.babel import parse_routes, read_babel
from quicprochat.adapters.underlay.kernel import ended, neighbours, parse_neighbours
from quicprochat.core.errors import UnavailableError
from quicprochat.core.underlay import (
    COST_MAX,
    TRANSMISSION,
    Hint,
    Way,
    Ways,
    babel_cost,
    counted_rtt_ms,
    throughput_cost,
    tq_cost,
)

GREETING = "BABEL 1.0\nversion babeld-1.12.1\nhost vm\nmy-id 7c:a7:88:df:c5:39:a8:c9\nok\n"
DUMP = """\
add interface r12 up true ipv6 fe80::c4d2:3bff:fef2:6d0e ipv4 10.76.1.1
add neighbour 55a26137c320 address fe80::ecfb:56ff:febc:b20c if r12 reach fc00 ureach 0000 rxcost 96 txcost 96 cost 96
add xroute 10.77.1.1/32-0.0.0.0/0 prefix 10.77.1.1/32 from 0.0.0.0/0 metric 0
add route 55a26137c650 prefix 10.77.2.1/32 from 0.0.0.0/0 installed yes id 7c:3a:e6:17:c9:56:ea:62 metric 96 refmetric 0 via fe80::ecfb:56ff:febc:b20c if r12
add route 55a26137c651 prefix 10.77.2.1/32 from 0.0.0.0/0 installed no id 7c:3a:e6:17:c9:56:ea:62 metric 32 refmetric 0 via fe80::1 if r13
add route 55a26137c790 prefix 10.77.3.0/24 from 0.0.0.0/0 installed yes id 0c:e6:0a:80:c0:ef:5a:7f metric 1024 refmetric 96 via fe80::ecfb:56ff:febc:b20c if r12
add route 55a26137c6f0 prefix fd77:3::1/128 from ::/0 installed yes id 0c:e6:0a:80:c0:ef:5a:7f metric 192 refmetric 96 via fe80::ecfb:56ff:febc:b20c if r12
add route 55a26137c6f1 prefix ::/0 from fd77:1::/64 installed yes id 0c:e6:0a:80:c0:ef:5a:7f metric 192 refmetric 96 via fe80::ecfb:56ff:febc:b20c if r12
add route 55a26137c6f2 prefix nonsense from ::/0 installed yes id 0c metric 192
add route 55a26137c6f3 prefix fd77:4::/64 from ::/0 installed yes id 0c metric many
add route
ok
"""  # noqa: E501


def way(network: str, cost: int) -> Way:
    return Way(ipaddress.ip_network(network), Hint(cost, "babel"))


# --- what metrics cost


def test_a_metric_becomes_a_cost_that_grows_with_it_and_ends_at_the_maximum() -> None:
    assert babel_cost(256) == TRANSMISSION == tq_cost(255) == throughput_cost(10_000)
    assert babel_cost(96) < babel_cost(192) < babel_cost(1024) < babel_cost(0xFFFE) < babel_cost(0xFFFF) == COST_MAX
    assert tq_cost(200) < tq_cost(100) < tq_cost(1) < tq_cost(0) == COST_MAX
    assert tq_cost(999) == tq_cost(255)
    assert throughput_cost(100_000) < throughput_cost(1_000) < throughput_cost(0) == COST_MAX
    assert babel_cost(0) == babel_cost(-5) == throughput_cost(1 << 40) == 1
    assert throughput_cost(1) == COST_MAX


def test_several_hops_of_babel_cost_as_much_as_each_together() -> None:
    assert babel_cost(256 + 512) == babel_cost(256) + babel_cost(512)


def test_the_underlay_can_only_make_a_link_dearer() -> None:
    assert counted_rtt_ms(5.0, None) == 5.0
    assert counted_rtt_ms(5.0, Hint(128, "babel")) == 128.0
    assert counted_rtt_ms(300.0, Hint(128, "babel")) == 300.0


def test_the_longest_prefix_counts_and_of_two_ways_the_cheaper() -> None:
    ways = Ways([way("10.0.0.0/8", 9), way("10.1.0.0/16", 7), way("10.1.0.0/16", 8), way("10.1.2.3/32", 5),
                 way("fd00::/8", 4), way("0.0.0.0/0", 3)])  # fmt: skip
    found = {ip: hint.cost if (hint := ways.find(ip)) else None for ip in
             ("10.1.2.3", "10.1.2.4", "10.2.0.1", "198.51.100.7", "fd12::1", "2001:db8::1")}  # fmt: skip
    assert found == {
        "10.1.2.3": 5, "10.1.2.4": 7, "10.2.0.1": 9, "198.51.100.7": 3, "fd12::1": 4, "2001:db8::1": None,
    }  # fmt: skip
    assert len(ways) == 5
    assert Ways().find("10.0.0.1") is None


# --- babeld


def test_of_a_dump_only_routes_in_use_for_everybody_are_taken() -> None:
    ways = Ways(parse_routes(DUMP.splitlines()))
    assert len(ways) == 3
    assert ways.find("10.77.2.1") == Hint(babel_cost(96), "babel")
    assert ways.find("10.77.3.77") == Hint(babel_cost(1024), "babel")
    assert ways.find("fd77:3::1") == Hint(babel_cost(192), "babel")
    assert ways.find("fd77:4::1") is None


@asynccontextmanager
async def babeld(path: Path, *, greeting: str = GREETING, dump: str = DUMP) -> AsyncIterator[None]:
    served: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.add(asyncio.current_task())
        writer.write(greeting.encode())
        if (await reader.readline()) == b"dump\n":
            writer.write(dump.encode())
        with suppress(OSError, ValueError):
            await reader.read()
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_unix_server(serve, path)
    yield
    server.close()
    await asyncio.gather(*filter(None, served), return_exceptions=True)
    await asyncio.to_thread(path.unlink, missing_ok=True)


def test_babeld_is_read_at_its_socket_and_forgotten_when_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(babel, "SOCKETS", (str(tmp_path / "none"), str(tmp_path / "babeld")))
    monkeypatch.setattr(babel, "PORT", closed_port())
    monkeypatch.setattr(batman, "present", lambda: False)

    async def look() -> None:
        underlay = Underlay()
        await underlay.read()
        assert (underlay.found, len(underlay), underlay.hint("10.77.2.1")) == ((), 0, None)
        async with babeld(tmp_path / "babeld"):
            await underlay.read()
            assert (underlay.found, len(underlay)) == (("babel",), 3)
            assert underlay.hint("10.77.2.1") == Hint(12, "babel")
        await underlay.read()
        assert (underlay.found, underlay.hint("10.77.2.1")) == ((), None)

    asyncio.run(look())


@pytest.mark.parametrize(
    ("greeting", "dump"),
    [
        ("SSH-2.0\nok\n", DUMP),
        ("", DUMP),
        (GREETING, "add route\n"),
        (GREETING, "x" * 9_000 + "\nok\n"),
        ("ok\n", DUMP),
    ],
    ids=["another program", "silence", "no end", "a long line", "no greeting"],
)
def test_whatever_answers_in_place_of_babeld_is_passed_over_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, greeting: str, dump: str
) -> None:
    monkeypatch.setattr(babel, "SOCKETS", (str(tmp_path / "babeld"),))

    async def look() -> None:
        async with babeld(tmp_path / "babeld", greeting=greeting, dump=dump):
            with pytest.raises(UnavailableError):
                await read_babel(0.2)

    asyncio.run(look())


def test_an_endless_dump_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(babel, "SOCKETS", (str(tmp_path / "babeld"),))
    monkeypatch.setattr(babel, "LINES_MAX", 10)

    async def look() -> None:
        async with babeld(tmp_path / "babeld", dump="add xroute\n" * 11):
            with pytest.raises(UnavailableError):
                await read_babel(5.0)

    asyncio.run(look())


def closed_port() -> int:
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return int(probe.getsockname()[1])


# --- batman-adv

IV: list[dict[str, Any]] = [
    {"hard_ifindex": 3, "hard_ifname": "mesh0", "orig_address": "02:00:00:00:00:01", "best": True,
     "last_seen_msecs": 1050, "neigh_address": "02:00:00:00:00:01", "tq": 255},
    {"hard_ifindex": 3, "hard_ifname": "mesh0", "orig_address": "02:00:00:00:00:02", "best": True,
     "last_seen_msecs": 820, "neigh_address": "02:00:00:00:00:01", "tq": 128},
    {"hard_ifindex": 3, "hard_ifname": "mesh0", "orig_address": "02:00:00:00:00:02",
     "last_seen_msecs": 820, "neigh_address": "02:00:00:00:00:03", "tq": 250},
]  # fmt: skip
V: list[dict[str, Any]] = [
    {"hard_ifindex": 8, "hard_ifname": "mesh1", "last_seen_msecs": 150, "neigh_address": "02:00:00:00:00:01",
     "throughput": 2_400},
    {"hard_ifindex": 9, "hard_ifname": "mesh2", "last_seen_msecs": 90, "neigh_address": "02:00:00:00:00:01",
     "throughput": 16_100},
]  # fmt: skip
CLIENTS: list[dict[str, Any]] = [
    {"tt_address": "0a:00:00:00:00:22", "tt_vid": -1, "tt_ttvn": 3, "tt_crc32": 4242, "orig_address":
     "02:00:00:00:00:02", "best": True, "tt_flags": {"del": False, "roam": False, "raw": 0}},
    {"tt_address": "0a:00:00:00:00:11", "tt_vid": -1, "orig_address": "02:00:00:00:00:01", "best": True},
    {"tt_address": "0a:00:00:00:00:11", "tt_vid": -1, "orig_address": "02:00:00:00:00:02"},
]  # fmt: skip
NEIGHBOURS = [
    ("10.130.0.22", "0a:00:00:00:00:22"),
    ("fd13::11", "0a:00:00:00:00:11"),
    ("10.130.0.99", "0a:99:99:99:99:99"),
]
ODD: tuple[Any, ...] = (None, {}, [], "x", 5, [1], [{}], [{"orig_address": 5, "tq": 5, "best": True}],
       [{"orig_address": "02", "best": True}], [{"orig_address": "02", "tq": "9", "best": True}],
       [{"orig_address": "02", "tq": True, "best": True}], [{"tt_address": [], "orig_address": {}}])  # fmt: skip


def test_of_several_paths_the_one_in_use_counts() -> None:
    assert batman.parse_originators(IV) == {"02:00:00:00:00:01": tq_cost(255), "02:00:00:00:00:02": tq_cost(128)}


def test_batman_v_tells_throughput_and_of_two_radios_the_better_counts() -> None:
    assert batman.parse_neighbours(V) == {"02:00:00:00:00:01": throughput_cost(16_100)}
    assert batman.parse_neighbours([{key: value for key, value in e.items() if key != "throughput"} for e in V]) == {}


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_odd_answers_say_nothing(odd: Any) -> None:
    assert not batman.parse_originators(odd)
    assert not batman.parse_neighbours(odd)
    assert not batman.parse_clients(odd)


def fake_batctl(directory: Path, answers: dict[str, str]) -> None:
    for name, text in answers.items():
        (directory / name).write_text(text)
    program = directory / "batctl"
    program.write_text(f'#!/bin/sh\nexec cat "{directory}/$1"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_an_address_is_followed_to_the_path_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_batctl(
        tmp_path,
        {"originators_json": json.dumps(IV), "neighbors_json": "[]", "transglobal_json": json.dumps(CLIENTS)},
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    ways = Ways(asyncio.run(batman.read_batman(NEIGHBOURS, 5.0)))
    assert ways.find("10.130.0.22") == Hint(tq_cost(128), "batman-adv")
    assert ways.find("fd13::11") == Hint(tq_cost(255), "batman-adv")
    assert ways.find("10.130.0.99") is None


@pytest.mark.parametrize("said", ["", "Error - batman-adv module has not been loaded\n", "[{"])
def test_a_batctl_that_fails_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    fake_batctl(tmp_path, dict.fromkeys(("originators_json", "neighbors_json", "transglobal_json"), said))
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(UnavailableError):
        asyncio.run(batman.read_batman(NEIGHBOURS, 5.0))


def test_without_batman_adv_batctl_is_not_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_batctl(tmp_path, {})
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(batman, "INTERFACE", tmp_path / "bat0")
    assert not batman.present()


# --- the kernel's neighbours


def test_neighbours_are_read_out_of_a_packet() -> None:
    def attribute(kind: int, value: bytes) -> bytes:
        data = kernel._ATTRIBUTE.pack(4 + len(value), kind) + value
        return data + bytes(-len(data) % 4)

    def message(kind: int, body: bytes) -> bytes:
        return kernel._HEADER.pack(16 + len(body), kind, 0, 1, 0) + body

    head = kernel._NEIGHBOUR.pack(socket.AF_INET, 3, 2, 0, 1)
    mac = bytes.fromhex("0a0000000022")
    four = message(28, head + attribute(1, socket.inet_aton("10.130.0.22")) + attribute(2, mac))
    six = message(28, head + attribute(1, ipaddress.ip_address("fd13::11").packed) + attribute(2, mac))
    without = message(28, head + attribute(1, socket.inet_aton("10.130.0.23")))
    packet = four + six + without + message(3, b"\0" * 4)
    assert parse_neighbours(packet) == [("10.130.0.22", mac.hex(":")), ("fd13::11", mac.hex(":"))]
    assert ended(packet)
    assert not ended(four)
    for cut in range(len(packet)):
        parse_neighbours(packet[:cut])  # raises nothing
    assert parse_neighbours(b"\0" * 64) == []


def test_the_kernel_answers() -> None:
    assert all(str(ipaddress.ip_address(ip)) == ip and len(mac) == 17 for ip, mac in neighbours())
