"""What a node does with what it hears: where it dials, whom it lists, and that it never dies of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from quicprochat.core.address import Address
from quicprochat.core.announcement import SERVICE, Announcement, Found, Role
from quicprochat.core.errors import UnavailableError
from quicprochat.core.ids import PeerKey
from quicprochat.core.network import Interface
from quicprochat.core.reach import Source
from quicprochat.core.time import Instant
from quicprochat.p2p import discovery as module
from quicprochat.p2p.discovery import DIAL_BURST, SERVERS_MAX, Discovery, on_link, usable

LO4, LO6 = Interface(1, "127.0.0.1", 8), Interface(1, "::1", 128)
LAN4, LAN6, LINK6 = Interface(2, "192.168.7.5", 24), Interface(2, "fd00:7::5", 64), Interface(2, "fe80::5", 64)
PUBLIC4, POINT4 = Interface(3, "198.51.100.9", 25), Interface(4, "10.9.9.9", 32)
ALL = (LO4, LO6, LAN4, LAN6, LINK6, PUBLIC4, POINT4)
HERE = usable(ALL, None)
ME = PeerKey(b"\x80" * 32)
PATIENCE_S = 10.0


def test_a_node_bound_to_everything_uses_every_interface_but_the_loopback() -> None:
    assert set(HERE) == {LAN4, LAN6, LINK6, PUBLIC4, POINT4}
    assert usable(ALL, Address("0.0.0.0", 7_000)) == HERE


def test_a_node_bound_to_one_address_uses_that_interface_alone() -> None:
    assert usable(ALL, Address("127.0.0.1", 7_000)) == (LO4, LO6)
    assert usable(ALL, Address("192.168.7.5", 7_000)) == (LAN4,)
    assert usable(ALL, Address("192.0.2.1", 7_000)) == ()


@pytest.mark.parametrize(
    ("ip", "may"),
    [
        ("192.168.7.6", True), ("192.168.7.5", True), ("fd00:7::6", True), ("198.51.100.1", True),
        ("192.168.8.6", False), ("8.8.8.8", False), ("2001:4860:4860::8888", False), ("198.51.100.200", False),
        ("192.168.7.0", False), ("192.168.7.255", False), ("127.0.0.1", False), ("::1", False), ("0.0.0.0", False),
        ("::", False), ("255.255.255.255", False), ("224.0.0.251", False), ("ff02::fb", False), ("fe80::6", False),
        ("169.254.1.1", False), ("10.9.9.9", True), ("10.9.9.8", False), ("::ffff:192.168.7.6", False),
    ],
)  # fmt: skip
def test_only_addresses_on_a_link_of_ours_are_dialled(ip: str, may: bool) -> None:
    assert on_link(Address(ip, 7_000), HERE) is may


def test_the_loopback_is_dialled_only_by_who_is_bound_to_it() -> None:
    loopback = usable(ALL, Address("127.0.0.1", 7_000))
    assert on_link(Address("127.0.0.1", 7_000), loopback)
    assert not on_link(Address("192.168.7.6", 7_000), loopback)


def test_a_network_of_everything_makes_nothing_a_neighbour() -> None:
    assert not on_link(Address("8.8.8.8", 53), (Interface(1, "10.0.0.1", 0),))
    assert not on_link(Address("192.168.7.6", 0), HERE)


class FakeDialler:
    def __init__(self) -> None:
        self.hurried = 0

    def hurry(self) -> None:
        self.hurried += 1


class FakeReach:
    """Notes which relays were named."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Source, bytes]] = []

    def named(self, url: str, source: Source, who: bytes) -> None:
        self.calls.append((url, source, who))


class FakeLinks:
    """Notes what is dialled; ``answers`` says who is there."""

    key = ME

    def __init__(self) -> None:
        self.reach = FakeReach()
        self.now = 1_000
        self.dialled: list[tuple[PeerKey, tuple[Address, ...]]] = []
        self.up: set[PeerKey] = set()
        self.contacts: set[PeerKey] = set()
        self.answers: Callable[[PeerKey], bool] = lambda key: False
        self.dialler = FakeDialler()
        self.most = self.under_way = 0
        self.changed = asyncio.Event()

    def instant(self) -> Instant:
        return Instant(self.now)

    def linked(self) -> frozenset[PeerKey]:
        return frozenset(self.up)

    def wants(self, key: PeerKey) -> bool:
        return key in self.contacts

    async def meet(self, key: PeerKey, addresses: tuple[Address, ...]) -> bool:
        self.dialled.append((key, addresses))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.changed.set()
        await asyncio.sleep(0)
        self.under_way -= 1
        if not self.answers(key):
            self.changed.set()
            raise UnavailableError("nobody there")
        self.up.add(key)
        self.changed.set()
        return True

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


def discovery(links: FakeLinks, *, quiet: bool = True, bind: Address | None = None) -> Discovery:
    made = Discovery(links, lambda: (), random.Random(1).random, bind=bind, quiet=quiet)  # type: ignore[arg-type]
    made._where = HERE
    return made


def key(n: int) -> PeerKey:
    return PeerKey(n.to_bytes(32, "big"))


def found(n: int, *ips: str, name: str = "", role: Role = Role.NODE, server: str = "") -> Found:
    announcement = Announcement(role, key(n), server)
    return Found(name or f"i{n}.{SERVICE}", announcement, tuple(Address(ip, 7_000) for ip in ips or ("192.168.7.6",)))


def test_only_the_addresses_one_may_dial_are_kept() -> None:
    links = FakeLinks()
    made = discovery(links)
    assert made.heard(found(1, "8.8.8.8", "192.168.7.6", "127.0.0.1", "fe80::1", "fd00:7::6"))
    assert made.found()[key(1)].addresses == (Address("192.168.7.6", 7_000), Address("fd00:7::6", 7_000))


@pytest.mark.parametrize(
    "useless",
    [
        found(1, "8.8.8.8"), found(1, "127.0.0.1", "::1"), Found("x", Announcement(), (Address("192.168.7.6", 1),)),
        Found("x", Announcement(Role.NODE, ME), (Address("192.168.7.6", 1),)),
    ],
)  # fmt: skip
def test_without_a_key_or_a_good_address_and_with_our_own_key_it_is_nothing(useless: Found) -> None:
    made = discovery(FakeLinks())
    assert not made.heard(useless)
    assert not made.found()


def test_servers_are_listed_and_never_dialled_and_bounded() -> None:
    made = discovery(FakeLinks())
    assert made.heard(found(1, "8.8.8.8", role=Role.SERVER, server="mesh.example.org:7000"))
    assert made.heard(Found("s2", Announcement(Role.SERVER, domain="d"), (Address("192.0.2.9", 7_000),)))
    assert [(view.server, view.domain, view.key) for view in made.servers()] == [
        ("192.0.2.9:7000", "d", None), ("mesh.example.org:7000", "", key(1))
    ]  # fmt: skip
    assert not made.found()
    for n in range(1_000):
        made.heard(found(n, role=Role.SERVER, server=f"h{n}:1", name=f"s{n}"))
    assert len(made.servers()) == SERVERS_MAX
    made.gone("s999")
    assert len(made.servers()) == SERVERS_MAX - 1


def test_a_servers_relay_is_known_while_it_is_announced_from_this_link() -> None:
    links = FakeLinks()
    made, named = discovery(links), links.reach.calls
    server = Announcement(Role.SERVER, relay=7_002)
    made.heard(Found("far", server, (Address("8.8.8.8", 7_000),)))
    assert named == []
    made.heard(Found("near", server, (Address("192.168.7.6", 7_000),)))
    made.gone("near")
    assert named == [("http://192.168.7.6:7002", Source.SERVER, b"near"), ("", Source.SERVER, b"near")]


def run(work: Callable[[FakeLinks, Discovery], object], links: FakeLinks, made: Discovery) -> None:
    """Run the dialling part while ``work`` does."""

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(made._dial_all(group))
            await work(links, made)  # type: ignore[misc]
            task.cancel()

    asyncio.run(both())


def test_who_is_found_is_dialled_until_linked_and_again_when_lost() -> None:
    async def work(links: FakeLinks, made: Discovery) -> None:
        made.heard(found(1))
        await links.until(lambda: len(links.dialled) == 1 and not links.under_way)
        links.answers = lambda key: True
        made.heard(found(1, "192.168.7.77"))  # news: at once
        await links.until(lambda: key(1) in links.up and links.under_way == 0)
        assert links.dialled[1][1][0] == Address("192.168.7.77", 7_000)
        assert made.settled(f"i1.{SERVICE}")
        links.up.clear()
        assert not made.settled(f"i1.{SERVICE}")
        await links.until(lambda: len(links.dialled) == 3)

    links = FakeLinks()
    run(work, links, discovery(links))


def test_a_flood_causes_only_so_many_dials_and_a_contact_goes_first() -> None:
    async def work(links: FakeLinks, made: Discovery) -> None:
        for n in range(1_000):
            made.heard(found(n + 10, f"192.168.7.{n % 200 + 10}"))
        links.contacts.add(key(5))
        made.heard(found(5, "192.168.7.250"))
        await links.until(lambda: len(links.dialled) == DIAL_BURST)
        for _ in range(200):
            await asyncio.sleep(0)
        assert len(links.dialled) == DIAL_BURST, "no time has passed"
        assert links.dialled[0][0] == key(5)
        links.now += 1_000
        made.heard(found(2_000, "192.168.7.251"))
        await links.until(lambda: len(links.dialled) > DIAL_BURST)

    links = FakeLinks()
    run(work, links, discovery(links))
    assert links.most <= module.DIALS


def test_it_announces_again_where_interfaces_change_and_asks_anew_when_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class FakeMdns:
        def __init__(self) -> None:
            self.calls: list[object] = []
            self.works = True
            self.changed = asyncio.Event()

        async def open(self, where: tuple[Interface, ...]) -> bool:
            self.note(where)
            if not where:
                raise UnavailableError("no interface for multicast")
            return self.works

        async def announce(self, name: str, announcement: Announcement, addresses: tuple[Address, ...]) -> None:
            assert name == ME.hex()[:16]
            self.note(addresses)

        def browse(self) -> None:
            self.note("browse")

        def note(self, what: object) -> None:
            self.calls.append(what)
            self.changed.set()

        async def until(self, *calls: object) -> None:
            async with asyncio.timeout(PATIENCE_S):
                while len(self.calls) < len(calls):
                    self.changed.clear()
                    await self.changed.wait()
            assert self.calls == list(calls)
            self.calls.clear()

    now: list[Interface] = []
    monkeypatch.setattr(module, "interfaces", lambda: tuple(now))
    monkeypatch.setattr(module, "POLL_S", 0.01)
    at = (Address("192.168.7.5", 7_000),)

    async def work() -> None:
        links = FakeLinks()
        made = Discovery(links, lambda: at, random.random, bind=None, quiet=False)  # type: ignore[arg-type]
        mdns = FakeMdns()
        made._mdns = mdns  # type: ignore[assignment]
        task = asyncio.create_task(made._watch())
        await mdns.until((), (), ())  # as often as it tries, and then it waits for a change
        now.append(LAN4)
        await mdns.until((LAN4,), at)
        mdns.works = False
        now.append(LAN6)
        await mdns.until(*[(LAN4, LAN6), at] * module.RETRIES)
        made.awake()
        await mdns.until("browse")
        task.cancel()

    asyncio.run(work())


def test_a_fault_of_its_own_ends_neither_discovery_nor_the_node(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "REST_S", 0)

    async def work() -> None:
        made, runs, again = discovery(FakeLinks()), 0, asyncio.Event()

        async def fail() -> None:
            nonlocal runs
            runs += 1
            if runs == 3:
                again.set()
                await asyncio.Event().wait()
            raise RuntimeError("a bug")

        monkeypatch.setattr(made, "_run", fail)
        task = asyncio.create_task(made.run())
        async with asyncio.timeout(PATIENCE_S):
            await again.wait()
        task.cancel()

    asyncio.run(work())
    assert sum("please report" in message for message in caplog.messages) == 2
