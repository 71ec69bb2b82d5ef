"""Where an envelope goes: local users first, then what is said, then what is known; never to a domain not listed."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from quicprochat.core.gate import Reason
from quicprochat.core.ids import PeerKey
from quicprochat.server.federation.routing import Local, Remote, Unknown, resolve_destination

OWN, SOUTH, EAST, WEST = "north.example", "south.example", "east.example", "west.example"
BOB = PeerKey(bytes(32))


@dataclass
class World:
    """What is known, as tables."""

    domain: str = OWN
    peers: frozenset[str] = frozenset({SOUTH, EAST})
    users: frozenset[PeerKey] = frozenset()
    came: dict[PeerKey, str] = field(default_factory=dict)
    homes: dict[PeerKey, str] = field(default_factory=dict)

    def is_peer(self, domain: str) -> bool:
        return domain in self.peers

    def local(self, key: PeerKey) -> bool:
        return key in self.users

    def came_from(self, key: PeerKey) -> str:
        return self.came.get(key, "")

    def published(self, key: PeerKey) -> str:
        return self.homes.get(key, "")


def where(world: World, hint: str = "") -> Local | Remote | Unknown:
    return resolve_destination(BOB, hint, world)


def test_user_here_is_local_whatever_anybody_says() -> None:
    world = World(users=frozenset({BOB}), came={BOB: SOUTH}, homes={BOB: EAST})
    for hint in ("", OWN, SOUTH, WEST):
        assert where(world, hint) == Local()


def test_hint_goes_before_what_is_known_and_that_in_its_order() -> None:
    world = World(came={BOB: SOUTH}, homes={BOB: EAST})
    assert where(world, EAST) == Remote(EAST)
    assert where(world) == Remote(SOUTH)
    assert where(World(homes={BOB: EAST})) == Remote(EAST)
    assert where(World()) == Unknown(Reason.UNKNOWN)


def test_hint_of_our_own_domain_ends_the_search() -> None:
    assert where(World(came={BOB: SOUTH}), OWN) == Unknown()
    assert where(World(came={BOB: SOUTH}), "North.Example.") == Unknown()


def test_domain_is_one_in_any_spelling() -> None:
    assert where(World(), "SOUTH.example.") == Remote(SOUTH)


def test_domain_that_is_not_listed_counts_for_nothing() -> None:
    assert where(World(came={BOB: SOUTH}), WEST) == Remote(SOUTH)
    assert where(World(came={BOB: WEST}, homes={BOB: EAST})) == Remote(EAST)
    assert where(World(came={BOB: WEST}, homes={BOB: WEST}), WEST) == Unknown()
    assert where(World(homes={BOB: OWN})) == Unknown()


DOMAINS = st.sampled_from(["", OWN, SOUTH, EAST, WEST, "South.Example."])


@given(
    hint=st.one_of(DOMAINS, st.text(max_size=300)), came=DOMAINS, home=DOMAINS, user=st.booleans(),
    peers=st.frozensets(st.sampled_from([SOUTH, EAST, WEST])),
)  # fmt: skip
def test_whatever_is_said_mail_goes_to_users_here_or_listed_domains(
    hint: str, came: str, home: str, user: bool, peers: frozenset[str]
) -> None:
    users = frozenset({BOB}) if user else frozenset[PeerKey]()
    found = where(World(peers=peers, users=users, came={BOB: came}, homes={BOB: home}), hint)
    assert isinstance(found, Local) == user
    if isinstance(found, Remote):
        assert found.domain in peers
        assert found.domain != OWN
        assert found.domain in {one.lower().removesuffix(".") for one in (hint, came, home)}
