"""Announcing a home server: where, as what, and again when the network changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest

from quicprochat.adapters.mdns import Interface, Mdns, interfaces
from quicprochat.core.address import Address
from quicprochat.core.announcement import Announcement, Found, Role
from quicprochat.core.errors import UnavailableError
from quicprochat.server import announce as module
from quicprochat.server.announce import RETRIES, Announcer, reachable_at

LO4, LO6 = Interface(1, "127.0.0.1", 8), Interface(1, "::1", 128)
LAN4, LAN6, LINK6 = Interface(2, "192.0.2.7", 24), Interface(2, "2001:db8::7", 64), Interface(2, "fe80::7", 64)
ALL = (LO4, LO6, LAN4, LAN6, LINK6)
FP = bytes(range(32))


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("::", (LAN4, LAN6)),
        ("0.0.0.0", (LAN4,)),
        ("127.0.0.1", (LO4,)),
        ("2001:db8::7", (LAN6,)),
        ("198.51.100.1", ()),
    ],
)
def test_only_where_others_reach_it(listen: str, expected: tuple[Interface, ...]) -> None:
    assert reachable_at(ALL, Address(listen, 7000)) == expected


class Net:
    """A multicast that notes what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.complete = True
        self.fault = ""

    async def open(self, where: Sequence[Interface]) -> bool:
        if self.fault:
            self.told.append("fault")
            raise UnavailableError(self.fault)
        self.told.append(tuple(where))
        return self.complete

    async def announce(self, name: str, announcement: Announcement, addresses: Sequence[Address]) -> None:
        self.told.append((name, announcement, tuple(map(str, addresses))))

    async def run(self) -> None:
        raise AssertionError("nobody wants to know")

    async def close(self) -> None:
        self.told.append("closed")


def run(
    net: Net, monkeypatch: pytest.MonkeyPatch, *looks: Sequence[Interface], listen: str = "::", named: str = ""
) -> None:
    """Run over what each look at the interfaces finds, then cancel."""
    monkeypatch.setattr(module, "POLL_S", 0)
    left = list(looks)
    done = asyncio.Event()

    def look() -> Sequence[Interface]:
        if len(left) == 1:
            done.set()
        return left.pop(0) if len(left) > 1 else left[0]

    async def scenario() -> None:
        running = asyncio.create_task(
            Announcer(Address(listen, 7000), named, "example.net", FP, multicast=net, look=look).run()
        )
        await done.wait()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    asyncio.run(scenario())


def test_it_is_announced_once_for_each_state_of_the_network_and_says_goodbye(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    run(net, monkeypatch, ALL, ALL, (LAN4,), (LAN4,), (LAN4,))
    name = FP.hex()[:16]
    said = Announcement(Role.SERVER, None, "192.0.2.7:7000", "example.net", FP)
    assert net.told == [
        (LAN4, LAN6), (name, said, ("192.0.2.7:7000", "[2001:db8::7]:7000")),
        (LAN4,), (name, said, ("192.0.2.7:7000",)),
        "closed",
    ]  # fmt: skip


def test_the_operators_word_for_where_it_is_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    run(net, monkeypatch, ALL, ALL, named="box.example.net:7000")
    assert net.told[1][1].server == "box.example.net:7000"


def test_an_interface_that_is_not_ready_is_tried_again_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    net.complete = False
    run(net, monkeypatch, *[ALL] * 20)
    assert net.told.count((LAN4, LAN6)) == RETRIES


def test_without_a_network_it_waits_for_one(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "quicprochat.server.announce")
    net = Net()
    run(net, monkeypatch, (LO4,), (LO4,), (LO4,), ALL, ALL)
    assert net.told[-3] == (LAN4, LAN6)
    assert [record.message for record in caplog.records] == [
        "not announced: no network", "announced on the local network as 192.0.2.7:7000",
    ]  # fmt: skip


def test_without_multicast_it_serves_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "quicprochat.server.announce")
    net = Net()
    net.fault = "no multicast here"
    run(net, monkeypatch, *[ALL] * 10)
    assert net.told == ["fault"] * RETRIES + ["closed"]
    assert [record.message for record in caplog.records] == ["not announced: no multicast here"]


def test_a_fault_of_announcing_ends_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "REST_S", 0)
    net = Net()
    looks = 0

    def look() -> Sequence[Interface]:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise ValueError("a fault")
        return ALL

    async def scenario() -> None:
        announcer = Announcer(Address("::", 7000), "", "", FP, multicast=net, look=look)
        running = asyncio.create_task(announcer.run())
        while (LAN4, LAN6) not in net.told:
            await asyncio.sleep(0)
            assert not running.done()
        await _end(running)

    asyncio.run(scenario())
    assert "please report it" in caplog.text


class Ear:
    """Somebody on the link."""

    def __init__(self) -> None:
        self.found: dict[str, Found] = {}
        self.changed = asyncio.Event()

    def heard(self, found: Found) -> bool:
        self.found[found.name] = found
        self.changed.set()
        return True

    def gone(self, name: str) -> None:
        self.found.pop(name, None)
        self.changed.set()

    def settled(self, name: str) -> bool:
        return False

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


def test_a_neighbour_hears_address_domain_and_fingerprint_and_the_goodbye() -> None:
    async def scenario() -> None:
        ear = Ear()
        listening = Mdns(ear)
        assert await listening.open([i for i in interfaces() if i.ip == "127.0.0.1"])
        asking = asyncio.create_task(listening.run())
        announcing = asyncio.create_task(Announcer(Address("127.0.0.1", 7123), "", "example.net", FP).run())
        name = f"{FP.hex()[:16]}._quicprochat._udp.local."
        await ear.until(lambda: name in ear.found)
        assert ear.found[name].announcement == Announcement(Role.SERVER, None, "127.0.0.1:7123", "example.net", FP)
        assert ear.found[name].addresses == (Address("127.0.0.1", 7123),)
        await _end(announcing)
        await ear.until(lambda: name not in ear.found)
        await _end(asking)
        await listening.close()

    asyncio.run(scenario())


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
