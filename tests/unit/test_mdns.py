"""Announcing and hearing by multicast over the loopback: with the real library, against packets made by hand."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from tests.labs import dns

from quicprochat.adapters.interfaces import interfaces
from quicprochat.adapters.mdns import Mdns
from quicprochat.adapters.mdns.browser import ADDRESSES_MAX, PARTS_MAX
from quicprochat.core.address import Address
from quicprochat.core.announcement import SERVICE, Announcement, Found, Role
from quicprochat.core.errors import UnavailableError
from quicprochat.core.ids import PeerKey
from quicprochat.core.network import Interface

LOOPBACK = (Interface(1, "127.0.0.1", 8),)
PATIENCE_S = 10.0


class Ear:
    """A listener that follows what ``follow`` says."""

    def __init__(self, follow: Callable[[Found], bool] = lambda found: True) -> None:
        self.follow = follow
        self.found: dict[str, Found] = {}
        self.lost: list[str] = []
        self.heards = 0
        self.content: set[str] = set()
        self.changed = asyncio.Event()

    def heard(self, found: Found) -> bool:
        self.heards += 1
        self.found[found.name] = found
        self.changed.set()
        return self.follow(found)

    def gone(self, name: str) -> None:
        self.lost.append(name)
        self.changed.set()

    def settled(self, name: str) -> bool:
        return name in self.content

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def listening(ear: Ear, *, asking: bool = False) -> AsyncIterator[Mdns]:
    mdns = Mdns(ear)
    assert await mdns.open(LOOPBACK)
    task = asyncio.create_task(mdns.run()) if asking else None
    try:
        yield mdns
    finally:
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await mdns.close()


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


@pytest.fixture
def wire() -> Any:
    """A socket in the group that is no library's."""
    sock = dns.open_socket("127.0.0.1")
    sock.setblocking(False)
    yield sock
    sock.close()


def say(wire: socket.socket, packet: bytes) -> None:
    wire.sendto(packet, (dns.GROUP, dns.PORT))


def cached(mdns: Mdns) -> list[Any]:
    assert mdns._zeroconf is not None
    cache = mdns._zeroconf.zeroconf.cache.cache
    return [record for records in cache.values() for record in records]


def fake(n: int, *, addresses: tuple[str, ...] = ("127.0.0.1",), ttl: int = 4_500, mark: str = "") -> tuple[str, bytes]:
    key = n.to_bytes(32, "big")
    name = f"fake{mark}{n}"
    txt = dns.strings(b"ver=1", b"role=node", b"id=" + key.hex().encode())
    return f"{name}.{SERVICE}", dns.announcement(name, txt, addresses, 7_000, ttl=ttl)


def mark() -> str:
    """Other tests may use this machine's loopback too: names of our own keep us apart."""
    return os.urandom(4).hex()


def test_this_machine_has_a_loopback() -> None:
    assert [i for i in interfaces() if i.loopback and i.ip == "127.0.0.1" and i.prefix == 8]


def test_two_hear_each_other_and_a_goodbye() -> None:
    async def work() -> None:
        keys = [PeerKey(os.urandom(32)) for _ in range(2)]
        names = [f"{key.hex()[:16]}.{SERVICE}" for key in keys]
        ears = Ear(), Ear()
        async with listening(ears[0], asking=True) as one:
            await one.announce(names[0][:16], Announcement(Role.NODE, keys[0]), [Address("127.0.0.1", 7_001)])
            async with listening(ears[1], asking=True) as two:
                addresses = [Address("127.0.0.1", 7_002), Address("127.0.0.2", 7_002), Address("127.0.0.3", 9)]
                await two.announce(names[1][:16], Announcement(Role.NODE, keys[1]), addresses)
                await ears[1].until(lambda: names[0] in ears[1].found)
                await ears[0].until(lambda: names[1] in ears[0].found)
                assert ears[1].found[names[0]] == Found(
                    names[0], Announcement(Role.NODE, keys[0]), (Address("127.0.0.1", 7_001),)
                )
                assert set(ears[0].found[names[1]].addresses) == set(addresses[:2]), "one port, one SRV record"
            await ears[0].until(lambda: names[1] in ears[0].lost)

    run(work())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # zeroconf's own socket, when it fails
def test_without_an_interface_there_is_no_multicast() -> None:
    async def work() -> None:
        with pytest.raises(UnavailableError, match="no interface"):
            await Mdns(Ear()).open(())
        with pytest.raises(UnavailableError):
            await Mdns(Ear()).open((Interface(99, "192.0.2.77", 24),))

    run(work())


def test_nothing_is_kept_of_announcements_nobody_wants_to_follow(wire: socket.socket) -> None:
    async def work() -> None:
        us, ear = mark(), Ear(lambda found: False)
        async with listening(ear) as mdns:
            for n in range(1_000):
                name, packet = fake(n, mark=us)
                say(wire, packet)
                if not n % 20:  # so that nothing is lost on the way
                    await ear.until(lambda name=name: name in ear.found)  # type: ignore[misc]
            await ear.until(lambda: name in ear.found)
            assert len(ear.found) >= 1_000
            assert cached(mdns) == []
            assert not mdns._followed
            assert not mdns._parts

    run(work())


def test_of_one_that_is_followed_one_record_is_kept_until_it_is_forgotten(wire: socket.socket) -> None:
    async def work() -> None:
        us, ear = mark(), Ear()
        one, other = fake(1, mark=us), fake(2, mark=us)
        async with listening(ear) as mdns:
            say(wire, one[1])
            await ear.until(lambda: one[0] in ear.found)
            assert [record.alias for record in cached(mdns)] == [one[0]]
            mdns.forget(one[0])
            say(wire, other[1])
            await ear.until(lambda: other[0] in ear.found)
            assert [record.alias for record in cached(mdns)] == [other[0]]
            # Forgotten, and gone at once: the goodbye in the next packet must not trip over it.
            mdns.forget(other[0])
            say(wire, fake(2, mark=us, ttl=0)[1])
            say(wire, (third := fake(3, mark=us))[1])
            await ear.until(lambda: third[0] in ear.found)
            assert [record.alias for record in cached(mdns)] == [third[0]]
            assert ear.lost == []

    run(work())


def test_an_address_that_comes_later_is_added_and_their_number_is_bounded(wire: socket.socket) -> None:
    async def work() -> None:
        us, ear = mark(), Ear()
        async with listening(ear):
            for n in range(20):
                name, packet = fake(1, mark=us, addresses=(f"127.0.0.{n + 1}",))
                say(wire, packet)
                await ear.until(lambda n=n: ear.heards == n + 1)  # type: ignore[misc]
            assert [a.ip for a in ear.found[name].addresses] == [f"127.0.0.{20 - n}" for n in range(ADDRESSES_MAX)]

    run(work())


def test_what_is_missing_is_asked_for(wire: socket.socket) -> None:
    async def work() -> None:
        us, ear = mark(), Ear()
        name, host = f"part{us}.{SERVICE}", f"host{us}.local."
        head = struct.pack(">HHHHHH", 0, 0x8400, 0, 1, 0, 0)
        loop = asyncio.get_running_loop()

        async def asked(*wanted: str) -> None:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    packet = await loop.sock_recv(wire, 9_000)
                    if not packet[2] & 0x80 and all(
                        dns.labels(text) in packet or text in str(packet) for text in wanted
                    ):
                        return

        async with listening(ear, asking=True):
            say(wire, head + dns.record(SERVICE, dns.PTR, dns.labels(name), flush=False))
            await asked(f"part{us}")
            say(wire, head + dns.record(name, dns.SRV, struct.pack(">HHH", 0, 0, 7_000) + dns.labels(host)))
            say(wire, head + dns.record(name, dns.TXT, dns.strings(b"id=" + b"7" * 64)))
            await asked(f"host{us}")
            say(wire, head + dns.record(host, dns.A, bytes((127, 0, 0, 1))))
            await ear.until(lambda: name in ear.found)
            assert ear.found[name].addresses == (Address("127.0.0.1", 7_000),)

    run(work())


def test_halves_of_announcements_are_bounded(wire: socket.socket) -> None:
    async def work() -> None:
        us, ear = mark(), Ear()
        head = struct.pack(">HHHHHH", 0, 0x8400, 0, 1, 0, 0)
        async with listening(ear) as mdns:
            for n in range(500):
                pointer = dns.record(SERVICE, dns.PTR, dns.labels(f"half{us}{n}.{SERVICE}"), flush=False)
                say(wire, head + pointer)
                if not n % 20:
                    name, packet = fake(n, mark=us)
                    say(wire, packet)
                    await ear.until(lambda name=name: name in ear.found)  # type: ignore[misc]
            assert len(mdns._parts) == PARTS_MAX
            assert len(cached(mdns)) <= PARTS_MAX + len(ear.found)

    run(work())


@pytest.mark.parametrize(
    "rubbish",
    [
        b"", b"\0" * 12, os.urandom(500), b"\xff" * 9_000, struct.pack(">HHHHHH", 0, 0x8400, 0, 65535, 0, 0),
        dns.announcement("x", b"\xff" * 300, ["127.0.0.1"], 0), dns.announcement("y" * 63, b"", [], 7_000),
        dns.announcement("loop", b"", ["127.0.0.1"], 7_000)[:12] + b"\xc0\x0c" * 20,
        dns.announcement("é\x1b[2J", dns.strings(b"id=" + b"g" * 64), ["0.0.0.0", "255.255.255.255"], 65535),
    ],
)  # fmt: skip
def test_rubbish_is_survived(wire: socket.socket, rubbish: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        faults: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
        us, ear = mark(), Ear(lambda found: found.announcement.key is not None)
        async with listening(ear):
            if len(rubbish) < 9_000:
                say(wire, rubbish)
            say(wire, (good := fake(1, mark=us))[1])
            await ear.until(lambda: good[0] in ear.found)
        assert faults == []

    run(work())


@pytest.mark.parametrize("where", ["instance", "host"])
def test_a_name_that_cannot_be_sent_again_does_not_keep_us_from_asking(wire: socket.socket, where: str) -> None:
    async def work() -> None:
        us, ear = mark(), Ear()
        # 63 bytes that are no UTF-8: as text, three times as long, and no label any more.
        long, grown = "x" * 63, "\ufffd" * 63
        if where == "instance":
            packet = dns.announcement(long, dns.strings(b"id=" + b"7" * 64), ["127.0.0.1"], 7_000)
        else:
            packet = dns.announcement(f"fake{us}1", b"", [], 7_000, host=f"{long}.local.")
        ear.content |= {f"{grown}.{SERVICE}", (good := fake(2, mark=us))[0]}
        async with listening(ear) as mdns:
            say(wire, packet.replace(b"x" * 63, b"\xff" * 63))
            say(wire, good[1])
            await ear.until(lambda: good[0] in ear.found)
            while wire_has_more(wire):
                pass
            mdns._ask_for_parts()
            mdns.ask()
            async with asyncio.timeout(PATIENCE_S):
                while f"fake{us}2".encode() not in await asyncio.get_running_loop().sock_recv(wire, 9_000):
                    pass

    run(work())


def test_who_is_settled_is_named_in_the_question_and_we_never_answer_ourselves(wire: socket.socket) -> None:
    async def work() -> None:
        us, ear = mark(), Ear()
        name, packet = fake(1, mark=us)
        loop = asyncio.get_running_loop()
        async with listening(ear) as mdns:
            await mdns.announce(f"own{us}", Announcement(Role.NODE, PeerKey(bytes(32))), [Address("127.0.0.1", 7_003)])
            say(wire, packet)
            await ear.until(lambda: name in ear.found)

            async def question() -> bytes:
                while wire_has_more(wire):
                    pass
                mdns.ask()
                async with asyncio.timeout(PATIENCE_S):
                    while True:
                        packet = await loop.sock_recv(wire, 9_000)
                        if not packet[2] & 0x80 and f"own{us}".encode() in packet:
                            return packet

            assert f"fake{us}1".encode() not in await question()
            ear.content.add(name)
            assert f"fake{us}1".encode() in await question()

    run(work())


def wire_has_more(wire: socket.socket) -> bool:
    try:
        wire.recv(9_000)
    except BlockingIOError:
        return False
    return True
