"""Channels of several domains over real QUIC: posts come to whoever follows, once, and from nobody who is not named."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.federation import villages
from tests.federation.villages import (
    DUPLICATE,
    EAST,
    EVERYBODY,
    NORTH,
    SOUTH,
    STORED,
    UNKNOWN,
    Person,
    Villages,
    soon,
    stranger,
    until,
)

from quicprochat.adapters.rpc import Problem
from quicprochat.core.envelope import MeshEnvelope
from quicprochat.core.gate import Reason, Verdict
from quicprochat.core.ids import ChannelId, EnvelopeId
from quicprochat.server import show
from quicprochat.server.channels import ChannelRules, Lacking
from quicprochat.server.federation import rules
from quicprochat.server.federation.client import FederationClient
from quicprochat.server.federation.exchange import Exchange
from quicprochat.server.metrics import exposition
from quicprochat.server.operate import Operator, figures
from quicprochat.server.queue import Outcome

ROOF, BOARD = ChannelId(os.urandom(32)), ChannelId(os.urandom(32))
DOMAINS = (NORTH, SOUTH, EAST)


def scene(
    place: Path, *domains: str, **rules: Any
) -> Callable[[Callable[[Villages], Coroutine[Any, Any, None]]], None]:
    """Run a scenario with servers that share channels, unless the rules say otherwise."""
    return villages.scene(place, *domains, **{"sharing": EVERYBODY, **rules})


def exchange(them: Villages, domain: str) -> Exchange:
    found = them.up[domain].exchange
    assert found is not None
    return found


async def known(them: Villages, *pairs: tuple[str, str], channel: ChannelId = ROOF) -> None:
    """Wait until the first of each pair of domains knows that users of the second follow a channel."""
    for here, there in pairs:
        store = them.up[here].store
        await until(lambda store=store, there=there: channel in store.interests(there))  # type: ignore[misc]


async def all_know(them: Villages, *domains: str) -> None:
    await known(them, *[(one, other) for one in domains for other in domains if one != other])


class Traffic:
    """What goes between servers: each envelope and each id, from where to where."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.relayed: list[tuple[str, str, EnvelopeId]] = []
        self.offered: list[tuple[str, str, EnvelopeId]] = []
        self.outcomes: list[Outcome] = []
        self.bytes = 0
        relay, offer = FederationClient.relay_enqueue, FederationClient.offer_posts

        async def relaying(client: FederationClient, to: str, envelopes: Sequence[bytes]) -> list[Outcome]:
            outcomes = await relay(client, to, envelopes)
            self.relayed += [(client._domain, to, MeshEnvelope.decode(one).id) for one in envelopes]
            self.bytes += sum(map(len, envelopes))
            self.outcomes += outcomes
            return outcomes

        async def offering(client: FederationClient, to: str, ids: Sequence[EnvelopeId]) -> Lacking:
            self.offered += [(client._domain, to, id) for id in ids]
            self.bytes += 40 * len(ids)
            return await offer(client, to, ids)

        monkeypatch.setattr(FederationClient, "relay_enqueue", relaying)
        monkeypatch.setattr(FederationClient, "offer_posts", offering)

    def of(self, id: EnvelopeId) -> list[tuple[str, str]]:
        return [(origin, to) for origin, to, one in self.relayed if one == id]


@pytest.fixture
def traffic(monkeypatch: pytest.MonkeyPatch) -> Traffic:
    monkeypatch.setattr("quicprochat.server.federation.posts.POST_PATIENCE_MS", 300)
    return Traffic(monkeypatch)


async def here(person: Person, *channels: ChannelId) -> Person:
    """Let a person follow, and be pushed to."""
    await person.listen()
    await person.follow(*channels or (ROOF,))
    return person


def ids(person: Person) -> list[EnvelopeId]:
    return [one.id for one in person.receiver.posts]


def test_a_post_crosses_to_who_follows_there_and_never_comes_back(tmp_path: Path, traffic: Traffic) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada, them.person(SOUTH) as bob:
            await here(ada, ROOF, BOARD)
            await here(bob)
            await all_know(them, NORTH, SOUTH)
            post, own = ada.post(ROOF), ada.post(BOARD)
            assert await ada.put(post, own) == [STORED] * 2
            await until(lambda: bool(bob.receiver.posts))
            assert [(one.id, one.hop) for one in bob.receiver.posts] == [(post.id, 2)]
            answer = bob.post(ROOF)
            assert await bob.put(answer) == [STORED]
            await until(lambda: bool(ada.receiver.posts))
            assert ids(ada) == [answer.id]
            store = them.up[NORTH].store
            await until(lambda: store.interests(SOUTH)[ROOF] >= 3)
            assert traffic.of(post.id) == [(NORTH, SOUTH)]
            assert traffic.of(answer.id) == [(SOUTH, NORTH)]
            assert traffic.of(own.id) == [], "nobody follows that there"
            assert traffic.offered == []
            (now,) = [item async for item in Operator(them.up[NORTH]).perform("federation status", {})]
            (south,) = now["peers"]
            assert south["channels"] == {
                "shared": True, "followed_there": 1, "followed_here": 2, "trouble": "", "offered": 0,
                "posts": {"stored": 1, "duplicate": 0, "refused": 0, "deferred": 0},
            }  # fmt: skip
            shown = show.answer(("federation", "status"), [now], as_json=False)
            assert "channels: 1 followed there, 2 here; 1 post sent" in shown
            (status,) = [item async for item in Operator(them.up[NORTH]).perform("status", {})]
            assert (status["channels"]["followed"], status["channels"]["posts"]) == (2, 3)
            assert "2 followed, 3 posts kept" in show.answer(("status",), [status], as_json=False)
            text = exposition(figures(them.up[NORTH]))
            assert "qpc_server_channels_followed 2" in text
            assert f'qpc_server_federation_posts_total{{domain="{SOUTH}",answer="stored"}} 1' in text

    scene(tmp_path, NORTH, SOUTH)(scenario)


def test_a_triangle_of_domains_brings_every_post_once_over_each_way(tmp_path: Path, traffic: Traffic) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada, them.person(SOUTH) as bob, them.person(EAST) as eve:
            people = [await here(one) for one in (ada, bob, eve)]
            await all_know(them, *DOMAINS)
            posts = [person.post(ROOF, bytes(600)) for person in people for _ in range(10)]
            for n, person in enumerate(people):
                assert await person.put(*posts[10 * n : 10 * n + 10]) == [STORED] * 10
            for person in people:
                others = {post.id for post in posts if post.src != person.key}
                await until(lambda person=person: len(person.receiver.posts) >= 20)  # type: ignore[misc]
                assert sorted(ids(person)) == sorted(others)
            # Each domain has offered on what the two others brought it, and nobody wanted it.
            await until(lambda: len(traffic.offered) == 60)
            assert len(traffic.relayed) == 60
            assert {outcome.verdict for outcome in traffic.outcomes} == {Verdict.STORED}

    scene(tmp_path, *DOMAINS)(scenario)


def test_domains_in_a_row_pass_posts_on(tmp_path: Path, traffic: Traffic) -> None:
    row = {NORTH: frozenset({SOUTH}), SOUTH: frozenset({NORTH, EAST}), EAST: frozenset({SOUTH})}

    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada, them.person(SOUTH) as bob, them.person(EAST) as eve:
            for one in (ada, bob, eve):
                await here(one)
            await known(them, (NORTH, SOUTH), (SOUTH, NORTH), (SOUTH, EAST), (EAST, SOUTH))
            post = ada.post(ROOF)
            assert await ada.put(post) == [STORED]
            await until(lambda: bool(eve.receiver.posts))
            assert [(one.id, one.hop) for one in eve.receiver.posts] == [(post.id, 3)]
            await until(lambda: len(traffic.of(post.id)) == 2)  # it is noted when the answer is there
            assert traffic.of(post.id) == [(NORTH, SOUTH), (SOUTH, EAST)]
            assert them.up[NORTH].store.interests(EAST) == {}

    scene(tmp_path, *DOMAINS, sharing=row)(scenario)


@pytest.mark.parametrize("share", [{NORTH: frozenset({SOUTH})}, {SOUTH: frozenset({NORTH})}, {}])
def test_nothing_is_shared_unless_both_name_each_other(
    tmp_path: Path, traffic: Traffic, share: dict[str, frozenset[str]]
) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada, them.person(SOUTH) as bob:
            for one in (ada, bob):
                await here(one)
            letter, post = ada.letter(bob.key), ada.post(ROOF)
            assert await ada.put(post, letter, domain=SOUTH) == [STORED] * 2
            assert [one.id for one in await bob.got()] == [letter.id], "mail goes on as before"
            for domain in share:
                (courier,) = exchange(them, domain).post_couriers.values()
                await until(lambda courier=courier: "shares no channels" in courier.trouble)  # type: ignore[misc]
            assert traffic.of(post.id) == []
            assert not them.up[NORTH].store.interested()
            assert not them.up[SOUTH].store.interested()

    scene(tmp_path, NORTH, SOUTH, sharing=share)(scenario)


def test_who_is_not_named_gets_nothing_in_and_nothing_out(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada, stranger(them, EAST, NORTH) as eve:
            await here(ada)
            post = ada.post(ROOF)
            assert await ada.put(post) == [STORED]
            (outcome,) = await soon(eve.relay_enqueue(NORTH, [ada.post(ROOF).wire()]))
            assert (outcome.verdict, outcome.reason) == (Verdict.REFUSED, Reason.POLICY)
            for call in (
                eve.tell_interest(NORTH, [ROOF], [], whole=True), eve.offer_posts(NORTH, [post.id]),
            ):  # fmt: skip
                with pytest.raises(Problem) as refused:
                    await soon(call)
                assert refused.value.code == "policy"
            assert them.up[NORTH].store.interests(EAST) == {}
            assert len(await ada.listed(ROOF)) == 1

    scene(tmp_path, *DOMAINS, up=1, sharing={NORTH: frozenset({SOUTH})})(scenario)


def test_a_named_domain_that_asks_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quicprochat.server.federation.exchange.INTERESTS_MAX", 3)
    monkeypatch.setattr("quicprochat.server.federation.peer.INTERESTS_MAX", 4)

    async def scenario(them: Villages) -> None:
        async with stranger(them, EAST, NORTH) as eve:
            channels = [ChannelId(os.urandom(32)) for _ in range(5)]
            await soon(eve.tell_interest(NORTH, channels[:3], [], whole=True))
            for call, code in (
                (eve.tell_interest(NORTH, channels[3:4], [], whole=False), "full"),
                (eve.tell_interest(NORTH, channels, [], whole=True), "full"),
                (eve.tell_interest(NORTH, [ChannelId(b"short")], [], whole=True), "usage"),
                (eve.offer_posts(NORTH, [EnvelopeId(os.urandom(32))] * (rules.IDS_MAX + 1)), "usage"),
            ):
                with pytest.raises(Problem) as refused:
                    await soon(call)
                assert refused.value.code == code
            assert set(them.up[NORTH].store.interests(EAST)) == set(channels[:3])
            await soon(eve.tell_interest(NORTH, channels[3:4], channels[:1], whole=False))
            assert set(them.up[NORTH].store.interests(EAST)) == set(channels[1:4])

    scene(tmp_path, *DOMAINS, up=1)(scenario)


def test_a_domain_that_is_down_gets_what_it_missed_and_delays_no_other(tmp_path: Path, traffic: Traffic) -> None:
    async def scenario(them: Villages) -> None:
        bobs = os.urandom(32)
        async with them.person(NORTH) as ada, them.person(EAST) as eve:
            async with them.person(SOUTH, bobs) as bob:
                for one in (ada, bob, eve):
                    await here(one)
                await all_know(them, *DOMAINS)
                first = ada.post(ROOF)
                assert await ada.put(first) == [STORED]
                await until(lambda: bool(bob.receiver.posts) and bool(eve.receiver.posts))
            await them.stop(SOUTH)
            missed = [ada.post(ROOF, bytes([n])) for n in range(30)]
            assert await ada.put(*missed) == [STORED] * 30
            await until(lambda: len(eve.receiver.posts) == 31)
            # This one starts anew too: what waits for a domain waits on the disk.
            await them.stop(NORTH)
            await them.start(NORTH)
            assert ROOF in them.up[NORTH].store.interests(SOUTH)
            await them.start(SOUTH)
            async with them.person(SOUTH, bobs) as bob:
                await here(bob)
                await until(lambda: len(them.up[SOUTH].store.post_ids(ROOF, 0, 100)) == 31)
                listed = [id for _, id in await bob.listed(ROOF)]
                assert sorted(listed) == sorted(one.id for one in (first, *missed))
            sent = [to for origin, to, id in traffic.relayed if to == SOUTH and id != first.id]
            assert len(sent) == 30, "offered by two domains, and fetched once"

    scene(tmp_path, *DOMAINS)(scenario)


def test_following_and_leaving_are_told_as_they_happen_and_a_new_follower_gets_the_window(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada, them.person(SOUTH) as bob:
            await here(ada)
            posts = [ada.post(ROOF) for _ in range(5)]
            assert await ada.put(*posts) == [STORED] * 5
            await known(them, (SOUTH, NORTH))
            await here(bob)
            await until(lambda: len(bob.receiver.posts) == 5)
            assert ids(bob) == [one.id for one in posts]
            await bob.follow(BOARD)
            store = them.up[NORTH].store
            await until(lambda: set(store.interests(SOUTH)) == {BOARD})
            # By a straggler's word the channel is shared still; the answer is the truth.
            async with stranger(them, NORTH, SOUTH) as north:
                (outcome,) = await soon(north.relay_enqueue(SOUTH, [ada.post(ROOF).wire()]))
                assert (outcome.verdict, outcome.reason) == UNKNOWN
            assert await ada.put(ada.post(ROOF)) == [STORED]
            await bob.follow(ROOF, BOARD)
            await until(lambda: len(bob.receiver.posts) == 6)

    scene(tmp_path, NORTH, SOUTH)(scenario)


def test_a_domain_that_forgot_is_offered_the_window_again(tmp_path: Path, traffic: Traffic) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada:
            await here(ada)
            async with them.person(SOUTH) as bob:
                await here(bob)
                await all_know(them, NORTH, SOUTH)
                posts = [ada.post(ROOF) for _ in range(5)]
                assert await ada.put(*posts) == [STORED] * 5
                await until(lambda: len(bob.receiver.posts) == 5)
            store = them.up[NORTH].store
            await until(lambda: store.interests(SOUTH)[ROOF] >= 5)
            await them.stop(SOUTH)
            (tmp_path / SOUTH / "server.db").unlink()
            await until(lambda: not exchange(them, NORTH).client.connected(SOUTH))
            await them.start(SOUTH)
            async with them.person(SOUTH) as bob:
                await here(bob)
                await until(lambda: len(bob.receiver.posts) == 5)
                assert sorted(ids(bob)) == sorted(one.id for one in posts)

    scene(tmp_path, NORTH, SOUTH)(scenario)


def test_a_domains_flood_leaves_our_own_users_posts_in_the_window(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada, stranger(them, EAST, NORTH) as eve:
            await here(ada)
            dear = [ada.post(ROOF) for _ in range(20)]
            assert await ada.put(*dear) == [STORED] * 20
            for _ in range(20):
                async with them.person(NORTH) as made_up:
                    wires = [made_up.post(ROOF).wire() for _ in range(10)]
                outcomes = await soon(eve.relay_enqueue(NORTH, wires))
                assert {one.verdict for one in outcomes} == {Verdict.STORED}
            kept = [id for _, id in await ada.listed(ROOF, limit=1_000)]
            assert len(kept) == 100
            assert set(kept) >= {one.id for one in dear}

    scene(tmp_path, *DOMAINS, up=1, channels=ChannelRules(posts=100))(scenario)


def test_a_post_that_makes_calls_fail_is_passed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    relay = FederationClient.relay_enqueue
    poison: list[EnvelopeId] = []

    async def choking(client: FederationClient, to: str, envelopes: Sequence[bytes]) -> list[Outcome]:
        if any(MeshEnvelope.decode(one).id in poison for one in envelopes):
            raise Problem("the server failed at this call", "internal")
        return await relay(client, to, envelopes)

    monkeypatch.setattr(FederationClient, "relay_enqueue", choking)

    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada, them.person(SOUTH) as bob:
            for one in (ada, bob):
                await here(one)
            await all_know(them, NORTH, SOUTH)
            posts = [ada.post(ROOF) for _ in range(10)]
            poison.append(posts[4].id)
            assert await ada.put(*posts) == [STORED] * 10
            await until(lambda: len(bob.receiver.posts) == 9)
            assert set(ids(bob)) == {one.id for one in posts} - set(poison)
            assert await ada.put(posts[0]) == [DUPLICATE]

    scene(tmp_path, NORTH, SOUTH)(scenario)


def test_taking_a_domain_out_ends_sharing_at_a_reload(tmp_path: Path, traffic: Traffic) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada, them.person(SOUTH) as bob:
            for one in (ada, bob):
                await here(one)
            await all_know(them, NORTH, SOUTH)
            them.sharing = {NORTH: frozenset(), SOUTH: frozenset({NORTH})}
            await them.change(NORTH, them.federation(NORTH))
            assert not them.up[NORTH].store.interested()
            post, answer = ada.post(ROOF), bob.post(ROOF)
            assert await ada.put(post) == [STORED]
            assert await bob.put(answer) == [STORED]
            await until(lambda: Verdict.REFUSED in {one.verdict for one in traffic.outcomes})
            assert traffic.of(post.id) == []
            assert not ada.receiver.posts

    scene(tmp_path, NORTH, SOUTH)(scenario)
