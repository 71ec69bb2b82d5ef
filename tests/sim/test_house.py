"""Order in the house, over real links of the simulator: floods, newcomers, block lists, emergencies, liars."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import pytest
from tests.sim.boards import FAMILY, VILLAGE, Mesh

from quicprochat.core.gate import Limits
from quicprochat.core.ids import PeerKey
from quicprochat.core.policy import Policy
from quicprochat.core.store import Scope
from quicprochat.core.time import HOUR_MS, MINUTE_MS
from quicprochat.core.window import NEWCOMER_HOPS, PostLimits
from quicprochat.sim.peer import Peer
from quicprochat.sim.world import Cable

TWELVE = "abcdefghijkl"


def keys(mesh: Mesh, names: Iterable[str]) -> list[PeerKey]:
    return [mesh.peers[name].key for name in names]


def limited(mesh: Mesh, names: str, **limits: float) -> None:
    """Give peers other bounds; to be called before they are linked."""
    for name in names:
        peer = mesh.peers[name]
        peer.crash()
        peer.policy = replace(peer.policy, limits=Limits(posts=PostLimits(**limits)))  # type: ignore[arg-type]
        peer.start()


def line(mesh: Mesh, names: str = TWELVE) -> None:
    mesh.add(*names)
    mesh.lay(*(one + other for one, other in pairwise(names)))
    mesh.join(names)
    mesh.settle(20_000)


def reached(mesh: Mesh, text: str) -> str:
    return "".join(name for name in mesh.peers if text in mesh.texts(name))


def test_a_newcomers_post_makes_eight_hops_at_once_and_later_the_rest() -> None:
    mesh = Mesh()
    line(mesh)
    mesh.post("a", "I am new here")
    mesh.settle(30 * MINUTE_MS)
    assert reached(mesh, "I am new here") == TWELVE[1 : NEWCOMER_HOPS + 2]
    mesh.settle(31 * MINUTE_MS)
    assert reached(mesh, "I am new here") == TWELVE[1:], "nobody loses it"
    mesh.post("a", "not new any more")
    mesh.settle(5_000)
    assert reached(mesh, "not new any more") == TWELVE[1:]
    assert mesh.repeats() == 0


def test_whoever_has_been_there_for_an_hour_is_no_newcomer_at_the_first_post() -> None:
    mesh = Mesh()
    line(mesh)
    mesh.settle(HOUR_MS)
    mesh.post("a", "hello")
    mesh.settle(5_000)
    assert reached(mesh, "hello") == TWELVE[1:]


def test_a_contacts_post_goes_on_at_once_and_what_was_held_back_with_it() -> None:
    mesh = Mesh()
    line(mesh)
    mesh.post("a", "I am new here")
    mesh.settle(30_000)
    last = TWELVE[NEWCOMER_HOPS + 1]
    assert reached(mesh, "I am new here")[-1] == last
    mesh.peers[last].decide(contacts=keys(mesh, "a"))
    mesh.settle(10_000)
    assert reached(mesh, "I am new here")[-1] == TWELVE[NEWCOMER_HOPS + 2]


def test_a_restart_makes_nobody_wait_anew() -> None:
    mesh = Mesh()
    line(mesh, TWELVE[:11])
    mesh.post("a", "I am new here")
    mesh.settle(30 * MINUTE_MS)
    relay = mesh.peers[TWELVE[9]]
    relay.crash()
    relay.start()
    mesh.settle(29 * MINUTE_MS)
    assert mesh.texts("k") == []
    mesh.settle(2 * MINUTE_MS)
    assert mesh.texts("k") == ["I am new here"]


def test_a_flooding_member_is_deferred_and_loses_nothing_and_others_do_not_notice() -> None:
    mesh = Mesh()
    mesh.add("m", "h", "a", "b")
    limited(mesh, "h", author_burst=50, author_per_s=2)
    mesh.lay("mh", "ah", "hb")
    mesh.join("mhab")
    mesh.join("hab", VILLAGE)
    mesh.settle(20_000)
    for number in range(200):
        mesh.post("m", f"m{number}")
    mesh.settle(2_000)
    assert sum(text.startswith("m") for text in mesh.texts("h")) <= 50 + 2 * 3
    for number in range(20):
        mesh.post("a", f"a{number}", (FAMILY, VILLAGE)[number % 2])
        mesh.settle(500)
    assert [text for text in mesh.texts("b") if text.startswith("a")] == [f"a{n}" for n in range(20)]
    mesh.settle(20 * MINUTE_MS)
    for name in "hb":
        assert sum(text.startswith("m") for text in mesh.texts(name)) == 200, "the rest came later"


def test_who_floods_through_a_relay_holds_up_nobody_behind_the_same_relay() -> None:
    mesh = Mesh()
    mesh.add("m", "a", "r", "t")
    limited(mesh, "t", author_burst=20, author_per_s=0.2)
    mesh.lay("mr", "ar", "rt")
    mesh.join("mat")
    mesh.settle(20_000)
    for number in range(150):
        mesh.post("m", f"m{number}")
    mesh.settle(3_000)
    assert sum(text.startswith("m") for text in mesh.texts("t")) < 30
    for number in range(10):
        mesh.post("a", f"a{number}")
        mesh.settle(500)
        assert f"a{number}" in mesh.texts("t"), "in the same channel, over the same link"


def made_up(mesh: Mesh, via: str, count: int) -> list[Peer]:
    """Identities that somebody makes up: peers of their own that are linked to it alone."""
    names = [f"{via}{number}" for number in range(count)]
    mesh.add(*names, willing=False)
    for name in names:
        mesh.peers[name].subscribe(FAMILY)
    for name in names:
        Cable(mesh.peers[name], mesh.peers[via], latency_ms=5).plug()
    return [mesh.peers[name] for name in names]


def test_authors_made_up_by_one_neighbour_wait_and_an_honest_newcomer_does_not() -> None:
    mesh = Mesh()
    mesh.add("m", "h", "b", "n")
    limited(mesh, "h", newcomer_burst=20, newcomer_per_s=0.1)
    mesh.lay("mh", "hb", "nh")
    mesh.join("mhbn")
    crowd = made_up(mesh, "m", 60)
    mesh.settle(30_000)
    for peer in crowd:
        peer.broadcast(FAMILY.id, "junk")
    mesh.settle(20_000)
    assert mesh.texts("b").count("junk") <= 20 + 3
    mesh.post("n", "I am new and honest")
    mesh.settle(2_000)
    assert mesh.texts("b")[-1] == "I am new and honest"


def test_made_up_authors_push_out_what_their_own_neighbour_brought() -> None:
    mesh = Mesh()
    mesh.add("m", "h", "a", "n")
    limited(mesh, "h", others=40, share=0.5)
    mesh.lay("mh", "ah")
    mesh.join("mha")
    crowd = made_up(mesh, "m", 100)
    mesh.settle(30_000)
    for number in range(15):
        mesh.post("a", f"a{number}")
    mesh.settle(5_000)
    for peer in crowd:
        peer.broadcast(FAMILY.id, "junk")
        mesh.settle(100)
    mesh.settle(20_000)
    store = mesh.peers["h"].store
    assert store.usage(Scope.POSTS, FAMILY.id).count == 40
    assert store.usage(Scope.POSTS, mesh.peers["a"].key + FAMILY.id).count == 15
    mesh.lay("nh")
    mesh.join("n")
    mesh.settle(30_000)
    assert [text for text in mesh.texts("n") if text != "junk"] == [f"a{n}" for n in range(15)]


def test_posts_of_blocked_authors_are_neither_shown_nor_kept_nor_handed_on() -> None:
    mesh = Mesh()
    mesh.add("a", "r", "b", "c")
    mesh.lay("ar", "rb")
    mesh.join("ab")
    mesh.settle()
    mesh.post("a", "before")
    mesh.settle()
    assert mesh.texts("b") == ["before"]
    assert mesh.held("r") == 1
    mesh.peers["r"].decide(blocked=keys(mesh, "a"))
    mesh.settle()
    assert mesh.held("r") == 0
    mesh.lay("rc", "ac")
    mesh.lay("cb")
    mesh.join("c")
    mesh.settle(30_000)
    mesh.post("a", "while blocked")
    mesh.settle(30_000)
    assert mesh.texts("b") == ["before", "while blocked"], "it came by the other way"
    assert mesh.held("r") == 0
    mesh.peers["b"].decide(blocked=keys(mesh, "a"))
    mesh.post("a", "b has blocked me as well")
    mesh.settle(30_000)
    assert mesh.texts("b") == ["before", "while blocked"]
    assert (mesh.held("r"), mesh.held("b")) == (0, 0)
    mesh.peers["r"].decide()
    mesh.peers["b"].decide()
    mesh.settle(30_000)
    mesh.post("a", "welcome again")
    mesh.settle(30_000)
    assert mesh.texts("b")[-1] == "welcome again"
    assert mesh.held("r") >= 1


def test_what_a_blocked_author_wrote_is_gone_after_a_restart_too() -> None:
    mesh = Mesh()
    mesh.add("a", "r")
    mesh.lay("ar")
    mesh.join("a")
    mesh.settle()
    mesh.post("a", "soup")
    mesh.settle()
    relay = mesh.peers["r"]
    relay.crash()
    relay.policy = replace(relay.policy, blocked=frozenset(keys(mesh, "a")))
    relay.start()
    assert mesh.held("r") == 0


def emergencies(mesh: Mesh, name: str) -> list[str]:
    return [line.text for line in mesh.peers[name].inbox() if line.emergency]


def test_an_emergency_is_one_to_whoever_trusts_its_author_and_a_post_to_others() -> None:
    mesh = Mesh()
    mesh.add("a", "r", "t", "u")
    mesh.lay("ar", "rt", "ru")
    mesh.join("atu")
    mesh.peers["t"].decide(trusted=keys(mesh, "a"))
    mesh.settle()
    mesh.peers["a"].broadcast(FAMILY.id, "the dyke breaks", emergency=True)
    mesh.post("a", "soup")
    mesh.peers["u"].broadcast(FAMILY.id, "wolf", emergency=True)
    mesh.settle()
    assert emergencies(mesh, "t") == ["the dyke breaks"]
    assert emergencies(mesh, "u") == []
    for name in "tu":
        assert {"the dyke breaks", "soup"} <= set(mesh.texts(name))
    assert "wolf" in mesh.texts("t")
    mesh.peers["t"].decide()
    mesh.peers["a"].broadcast(FAMILY.id, "again", emergency=True)
    mesh.settle()
    assert emergencies(mesh, "t") == ["the dyke breaks"]


@pytest.mark.parametrize("trusts", [True, False])
def test_an_emergency_stays_where_everything_else_is_pushed_out(trusts: bool) -> None:
    """On a node that is in the channel, and on one that only carries it."""
    mesh = Mesh()
    mesh.add("a", "x", "y", "m")
    for name in "xy":
        limited(mesh, name, others=20 if name == "x" else 1_000, share=1, foreign=20)
        mesh.peers[name].policy = replace(mesh.peers[name].policy, trusted=frozenset(keys(mesh, "a") if trusts else ()))
        mesh.peers[name].crash()
        mesh.peers[name].start()
    mesh.lay("ax", "ay", "mx", "my")
    mesh.join("axm")
    mesh.settle(20_000)
    mesh.peers["a"].broadcast(FAMILY.id, "the dyke breaks", emergency=True)
    mesh.settle()
    for number in range(60):
        mesh.post("m", str(number))
        mesh.post("a", f"ordinary {number}")
        mesh.settle(100)
    mesh.settle(20_000)
    for name in "xy":
        kept = [held.wire[3] for held in mesh.peers[name].store.waiting(FAMILY.id, 0, 100)]
        assert len(kept) <= 21
        assert (1 in kept) is trusts


def test_an_emergency_goes_first_through_a_flood() -> None:
    mesh = Mesh()
    mesh.add("a", "m", "r", "t")
    for name in "rt":
        mesh.peers[name].policy = replace(mesh.peers[name].policy, trusted=frozenset(keys(mesh, "a")))
        mesh.peers[name].crash()
        mesh.peers[name].start()
    limited(mesh, "t", link_burst=30, link_per_s=0.5, quiet_burst=0, channel_burst=30, channel_per_s=0.5)
    mesh.lay("ar", "mr", "rt")
    mesh.join("amt")
    mesh.settle(20_000)
    for number in range(300):
        mesh.post("m", str(number))
        mesh.post("a", f"ordinary {number}")
    mesh.settle(2_000)
    mesh.peers["a"].broadcast(FAMILY.id, "the dyke breaks", emergency=True)
    mesh.settle(500)
    assert emergencies(mesh, "t") == ["the dyke breaks"]
    assert len(mesh.texts("t")) < 60


def test_whoever_claims_to_have_everything_and_delivers_nothing_is_gone_around() -> None:
    mesh = Mesh()
    mesh.add("a", "m", "b", "c", "d")
    mesh.lay("am", "mc", "ab", "bd", "dc")
    mesh.join("ac")
    mesh.settle(20_000)
    liar = mesh.peers["m"].node
    assert liar is not None
    liar._posts._launch = lambda *given: None  # type: ignore[method-assign]
    for number in range(40):
        mesh.post("a", str(number))
        mesh.settle(1_000)
    mesh.settle(60_000)
    assert sorted(mesh.texts("c"), key=int) == [str(number) for number in range(40)]
    assert not any(one == "m" for one, _, _ in mesh.sent)


def test_posts_replayed_after_their_time_reach_nobody() -> None:
    mesh = Mesh()
    mesh.add("a", "r", "c")
    mesh.lay("ar", "rc")
    mesh.join("ac")
    mesh.settle()
    mesh.post("a", "old news")
    mesh.settle()
    (held,) = mesh.peers["r"].store.waiting(FAMILY.id, 0, 10)
    mesh.pull("ar", "rc")
    mesh.settle(15 * 24 * HOUR_MS)
    assert mesh.held("r") == 0
    assert mesh.peers["r"].store.fate(held.id) is not None, "its id is remembered for longer than it lives"
    before = mesh.payloads()
    mesh.plug("ar", "rc")
    mesh.settle(60_000)
    assert mesh.payloads() == before
    assert mesh.texts("c") == ["old news"]


def test_the_policy_of_the_node_is_the_one_of_the_posts() -> None:
    """What the owner decides while the node runs reaches the rules of posts, and not only those of mail."""
    mesh = Mesh()
    mesh.add("a")
    peer = mesh.peers["a"]
    peer.decide(contacts=keys(mesh, "a"), trusted=keys(mesh, "a"))
    mesh.settle(100)
    assert peer.node is not None
    policy: Policy = peer.node._posts._order.policy
    assert (policy.contacts, policy.trusted) == (frozenset(keys(mesh, "a")), frozenset(keys(mesh, "a")))
