"""Where a node is reachable: which relay it is at, what witnesses may say, and how far its owner lets it reach."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.quic_pairs import run, until

from quicprochat.core.address import Address
from quicprochat.core.errors import LocalError
from quicprochat.core.ids import PeerKey
from quicprochat.core.network import Interface, Network, host_is_local, is_local, relay_is_local
from quicprochat.core.reach import COMEBACK, OUTSIDE_MAX, RELAYS_MAX, WITNESS_MS, WITNESSES_MAX, Outside, Relays, Source
from quicprochat.core.time import Instant
from quicprochat.p2p import reach as module
from quicprochat.p2p.reach import Reach, check_relay

ADA, BOB = PeerKey(b"a" * 32), PeerKey(b"b" * 32)
OURS, THEIRS, PUBLIC = "http://10.0.0.1:7002", "http://10.0.0.2:7002", "https://relay.example.net"
START = Instant(0)


def seen(n: int) -> Address:
    return Address("203.0.113.1", n)


# --- what is local


@pytest.mark.parametrize(
    ("ip", "local"),
    [
        ("10.1.2.3", True), ("172.31.0.1", True), ("172.32.0.1", False), ("192.168.9.9", True), ("100.64.0.1", True),
        ("100.128.0.1", False), ("169.254.7.7", True), ("8.8.8.8", False), ("fd00::1", True), ("fe80::1", True),
        ("2001:db8:1::9", True), ("2001:db8:2::9", False), ("203.0.113.77", True), ("203.0.114.1", False),
        ("::1", True),
    ],
)  # fmt: skip
def test_local_is_private_or_on_an_own_network(ip: str, local: bool) -> None:
    own = (Interface(2, "203.0.113.5", 24), Interface(2, "2001:db8:1::5", 64), Interface(3, "198.51.100.1", 0))
    assert is_local(ip, own) is local


def test_a_name_is_never_local() -> None:
    assert host_is_local("10.0.0.1", ())
    assert host_is_local("[fd00::1]", ())
    assert not host_is_local("relay.lan", ())
    assert relay_is_local("http://[fd00::1]:7002/", ())
    assert not relay_is_local(PUBLIC, ())
    assert not relay_is_local("http://", ())


@pytest.mark.parametrize(
    "wrong", ["http://10.0.0.1:99999", "http://[10.0.0.1", "ftp://10.0.0.1", "http://10.0.0.1:x", "http:// 10.0.0.1",
              "http://", "10.0.0.1:7002", "http://10.0.0.1/\x1b[2J", "http://10.0.0.1:0"],
)  # fmt: skip
@pytest.mark.parametrize("network", Network)
def test_a_peer_that_names_no_relay_at_all_harms_nobody(wrong: str, network: Network) -> None:
    reach = World(network, relay="").reach
    reach.named(wrong, Source.CONTACT, ADA)
    assert reach.relays(wrong) == []
    assert not relay_is_local(wrong, ())


# --- relays


def alive(relays: Relays, *urls: str) -> None:
    for url in urls:
        relays.probed(url, answered=True)
    relays.choose()


def test_the_owners_relay_comes_first_then_contacts_then_the_networks() -> None:
    relays = Relays()
    relays.name("http://10.0.0.3", Source.SERVER, b"instance")
    relays.name(THEIRS, Source.CONTACT, ADA)
    relays.name(OURS, Source.OWNER)
    assert list(relays.known()) == [OURS, THEIRS, "http://10.0.0.3"]
    alive(relays, "http://10.0.0.3")
    assert relays.home == "http://10.0.0.3"
    alive(relays, THEIRS)
    assert relays.home == THEIRS
    alive(relays, OURS)
    assert relays.home == OURS


def test_a_dead_relay_is_left_and_taken_again_once_it_is_steady() -> None:
    relays = Relays()
    relays.name(OURS, Source.OWNER)
    relays.name(THEIRS, Source.CONTACT, ADA)
    alive(relays, OURS, THEIRS)
    relays.probed(OURS, answered=False)
    assert relays.doubted(OURS)
    assert not relays.choose()
    relays.probed(OURS, answered=False)
    assert relays.choose()
    assert relays.home == THEIRS
    for _ in range(COMEBACK - 1):
        relays.probed(OURS, answered=True)
        assert not relays.choose()
    relays.probed(OURS, answered=True)
    assert relays.choose()
    assert relays.home == OURS


def test_while_none_answers_the_owners_stays() -> None:
    relays = Relays()
    relays.name(THEIRS, Source.CONTACT, ADA)
    assert not relays.choose()
    relays.name(OURS, Source.OWNER)
    assert relays.choose()
    assert relays.home == OURS


def test_what_a_contact_named_before_is_forgotten_unless_another_names_it() -> None:
    relays = Relays()
    relays.name(OURS, Source.CONTACT, ADA)
    relays.name(OURS, Source.CONTACT, BOB)
    relays.name(THEIRS, Source.CONTACT, ADA)
    assert list(relays.known()) == [OURS, THEIRS]
    relays.name("", Source.CONTACT, BOB)
    assert list(relays.known()) == [THEIRS]


def test_only_so_many_relays_are_known_and_the_owners_always() -> None:
    relays = Relays()
    for n in range(RELAYS_MAX + 5):
        relays.name(f"http://10.0.1.{n}", Source.SERVER, bytes([n]))
        alive(relays, f"http://10.0.1.{n}")
    assert list(relays.known()) == [f"http://10.0.1.{n}" for n in range(RELAYS_MAX)]
    relays.name(THEIRS, Source.CONTACT, ADA)
    assert len(relays.known()) == RELAYS_MAX
    assert relays.known()[0] == THEIRS
    relays.name(OURS, Source.OWNER)
    assert relays.known()[0] == OURS


def test_one_that_does_not_answer_makes_room() -> None:
    relays = Relays()
    for n in range(RELAYS_MAX):
        relays.name(f"http://10.0.1.{n}", Source.SERVER, bytes([n]))
    alive(relays, *(f"http://10.0.1.{n}" for n in range(RELAYS_MAX) if n != 3))
    relays.name(THEIRS, Source.SERVER, b"new")
    assert THEIRS in relays.known()
    assert "http://10.0.1.3" not in relays.known()


# --- witnesses


def test_a_witness_that_sees_something_else_takes_the_first_back() -> None:
    outside = Outside()
    outside.witness(ADA, seen(1))
    outside.witness(ADA, seen(2))
    assert outside.addresses((), START) == [seen(2)]


def test_an_own_address_is_no_news() -> None:
    outside = Outside()
    outside.witness(ADA, seen(1))
    assert outside.addresses((seen(1),), START) == []


def test_liars_can_name_few_addresses() -> None:
    outside, newest = Outside(), WITNESSES_MAX + 5
    for n in range(newest):
        outside.witness(PeerKey(bytes([n]) * 32), seen(n + 1))
    assert outside.addresses((), START) == [seen(newest - n) for n in range(OUTSIDE_MAX)]


def test_a_witness_is_believed_for_a_while_after_its_link() -> None:
    outside = Outside()
    outside.witness(ADA, seen(1))
    outside.lost(ADA, START)
    assert outside.addresses((), Instant(WITNESS_MS - 1)) == [seen(1)]
    assert outside.addresses((), Instant(WITNESS_MS)) == []


# --- the node's part


class Endpoint:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.log: list[tuple[str, object]] = []
        self.own = [("192.168.1.2", 4000)]
        self.outside: list[tuple[str, int]] = []

    async def use_relay(self, url: str) -> None:
        self.log.append(("use", url))

    async def drop_relay(self, url: str) -> None:
        self.log.append(("drop", url))

    async def add_outside(self, address: tuple[str, int]) -> None:
        self.outside.append(address)

    async def drop_outside(self, address: tuple[str, int]) -> None:
        self.outside.remove(address)

    def addresses(self) -> list[tuple[str, int]]:
        return [*self.own, *self.outside]


class World:
    """A reach with relays that answer while they are in ``up``."""

    def __init__(self, network: Network = Network.COMMUNITY, relay: str = OURS) -> None:
        self.endpoint, self.up, self.changes, self.asked = Endpoint(), {OURS, THEIRS}, 0, 0
        self.reach = Reach(
            self.endpoint, network, relay, lambda: START, lambda: True, self._changed, self._probe
        )  # fmt: skip

    def _changed(self) -> None:
        self.changes += 1

    async def _probe(self, url: str, timeout_s: float) -> bool:
        self.asked += 1
        return url in self.up


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "URGENT_S", 0.02)
    monkeypatch.setattr(module, "CALM_S", 0.02)


@pytest.mark.usefixtures("quick")
def test_a_dead_relay_is_left_for_a_contacts_and_taken_again() -> None:
    async def scenario() -> None:
        world = World()
        running = asyncio.create_task(world.reach.run())
        world.reach.named(THEIRS, Source.CONTACT, ADA)
        await until(lambda: world.asked > 2)
        assert world.reach.relay == OURS
        world.up.remove(OURS)
        await until(lambda: world.reach.relay == THEIRS)
        await until(lambda: world.endpoint.log == [("drop", OURS), ("use", THEIRS)])
        assert world.reach.relays(OURS) == [OURS, THEIRS]
        world.up.add(OURS)
        await until(lambda: world.endpoint.log[2:] == [("drop", THEIRS), ("use", OURS)])
        await until(lambda: world.changes == 2)
        running.cancel()

    run(scenario)


@pytest.mark.usefixtures("quick")
def test_outside_addresses_are_told_and_taken_back() -> None:
    async def scenario() -> None:
        world = World()
        running = asyncio.create_task(world.reach.run())
        world.reach.observed(ADA, seen(1))
        await until(lambda: world.endpoint.outside == [("203.0.113.1", 1)])
        await until(lambda: world.changes == 1)
        world.reach.network_changed()  # which our own addition causes: no news
        world.reach.observed(BOB, seen(3))
        await until(lambda: sorted(world.endpoint.outside) == [("203.0.113.1", 1), ("203.0.113.1", 3)])
        world.reach.observed(BOB, seen(2))
        world.reach.observed(ADA, seen(2))
        await until(lambda: world.endpoint.outside == [("203.0.113.1", 2)])
        world.endpoint.own = [("192.168.7.7", 4000)]
        world.reach.network_changed()
        await until(lambda: world.endpoint.outside == [])
        running.cancel()

    run(scenario)


@pytest.mark.parametrize(
    ("network", "local", "named", "owners", "public"),
    [(Network.LAN, True, False, False, False), (Network.COMMUNITY, True, False, True, True),
     (Network.INTERNET, True, True, True, True)],
)  # fmt: skip
def test_how_far_a_node_reaches(network: Network, local: bool, named: bool, owners: bool, public: bool) -> None:
    reach = World(network, relay="").reach
    assert reach.allows_relay(THEIRS, Source.CONTACT) is local
    assert reach.allows_relay(PUBLIC, Source.CONTACT) is named
    assert reach.allows_relay(PUBLIC, Source.OWNER) is owners
    assert reach.allows(Address("8.8.8.8", 53)) is public
    assert reach.allows(Address("10.9.9.9", 53))
    reach.named(PUBLIC, Source.CONTACT, ADA)
    assert (PUBLIC in reach.relays(PUBLIC)) is named


def test_a_relay_outside_is_refused_when_the_node_is_to_stay_inside() -> None:
    with pytest.raises(LocalError, match="--network community"):
        check_relay(PUBLIC, Network.LAN)
    check_relay(OURS, Network.LAN)
    check_relay(PUBLIC, Network.COMMUNITY)
    check_relay("", Network.LAN)
