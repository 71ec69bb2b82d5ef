"""A node's channels at its home server, against servers of the test's: what is asked, and what no server may answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from quicprochat.adapters.crypto import Ed25519Signer
from quicprochat.adapters.rpc import Problem
from quicprochat.core.envelope import Header, Kind, MeshEnvelope, make
from quicprochat.core.errors import RemoteError, UnavailableError
from quicprochat.core.events import Event, InterestArrived, LinkId, ResultsArrived
from quicprochat.core.gate import Checked, Verdict
from quicprochat.core.ids import ChannelId, EnvelopeId
from quicprochat.p2p.home_posts import BROUGHT_MAX, CURSORS_KEY, LISTED, HomePosts, Told

LINK, PLACE = LinkId(7), b"f" * 32 + b"e" * 16
ROOF = ChannelId(b"r" * 32)
SIGNER = Ed25519Signer(b"a" * 32)
PATIENCE_S = 10.0


def post(number: int, hop: int = 0) -> MeshEnvelope:
    made = make(Header(Kind.CHANNEL, SIGNER.key, ROOF, number.to_bytes(16, "big")), bytes(40), SIGNER)
    return replace(made, hop=hop)


class Owner:
    """Stands for a node that takes everything, but for what is ``unwelcome``."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.known: set[EnvelopeId] = set()
        self.unwelcome: set[EnvelopeId] = set()
        self.values: dict[str, bytes] = {}
        self.taken: list[EnvelopeId] = []

    def settle(self, events: list[Event]) -> asyncio.Future[None]:
        self.events += events
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def post(self, event: Event) -> None:
        self.events.append(event)

    async def unseen(self, ids: Sequence[EnvelopeId]) -> list[EnvelopeId]:
        return [id for id in ids if id not in self.known]

    async def noted(self, key: str) -> bytes | None:
        return self.values.get(key)

    async def note(self, key: str, data: bytes) -> None:
        self.values[key] = data

    async def judge(self, wires: list[bytes]) -> list[tuple[Checked | None, bool]]:
        judged: list[tuple[Checked | None, bool]] = []
        for wire in wires:
            envelope = MeshEnvelope.decode(wire)
            welcome = envelope.id not in self.unwelcome
            if welcome:
                self.known.add(envelope.id)
                self.taken.append(envelope.id)
            judged.append((Checked(envelope), welcome))
        return judged

    def results(self) -> dict[EnvelopeId, Verdict]:
        arrived = [event for event in self.events if isinstance(event, ResultsArrived)]
        return {one.id: one.verdict for event in arrived for one in event.results}


class Session:
    """A server that keeps a window; what it does wrong, a test puts in the place of a method."""

    def __init__(self, *window: tuple[int, MeshEnvelope]) -> None:
        self.window = list(window)
        self.up_to = max((serial for serial, _ in window), default=0)
        self.seen: set[bytes] = {one.id for _, one in window}
        self.promised: set[bytes] = set()
        self.calls: list[tuple[str, Any]] = []

    def _answer(self, name: str, argument: Any, **results: Any) -> Awaitable[Any]:
        self.calls.append((name, argument))

        async def answer() -> Any:
            return SimpleNamespace(problem=SimpleNamespace(code="", message=""), **results)

        return answer()

    def of(self, name: str) -> list[Any]:
        return [argument for called, argument in self.calls if called == name]

    def follow(self, channels: list[bytes]) -> Awaitable[Any]:
        return self._answer("follow", channels, upTo=self.up_to)

    def listPosts(self, channel: bytes, after: int, limit: int) -> Awaitable[Any]:
        posts = [SimpleNamespace(serial=serial, id=one.id) for serial, one in self.window if serial > after][:limit]
        return self._answer("listPosts", after, posts=posts)

    def fetchPosts(self, ids: list[bytes]) -> Awaitable[Any]:
        found: dict[bytes, tuple[int, MeshEnvelope]] = {one.id: (serial, one) for serial, one in self.window}
        told = [SimpleNamespace(serial=found[id][0], envelope=found[id][1].wire()) for id in ids if id in found]
        return self._answer("fetchPosts", ids, deliveries=told[:3])

    def lackingPosts(self, ids: list[bytes]) -> Awaitable[Any]:
        later = [id for id in ids if id in self.promised]
        return self._answer(
            "lackingPosts", ids, ids=[id for id in ids if id not in self.seen | self.promised], later=later
        )

    def batchEnqueue(self, wires: list[bytes], domain: str) -> Awaitable[Any]:
        self.seen |= {MeshEnvelope.decode(wire).id for wire in wires}
        return self._answer("batchEnqueue", wires, outcomes=[SimpleNamespace(verdict=0, reason=0) for _ in wires])


def play(session: Session, scenario: Callable[[HomePosts, Owner], Awaitable[None]], owner: Owner | None = None) -> None:
    """Run a connection that follows one channel, and a scenario beside it."""
    known = owner or Owner()

    async def whole() -> None:
        posts = HomePosts(LINK, session, PLACE, known, known.judge)
        posts.interest((ROOF,))
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            running = group.create_task(posts.run())
            await scenario(posts, known)
            running.cancel()

    asyncio.run(whole())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.005)


def test_only_what_is_lacking_is_fetched_and_how_far_one_came_is_noted() -> None:
    window = [(10 + n, post(n)) for n in range(8)]
    session, owner = Session(*window), Owner()
    owner.known |= {window[0][1].id, window[5][1].id}

    async def scenario(posts: HomePosts, owner: Owner) -> None:
        await until(lambda: CURSORS_KEY in owner.values)
        assert owner.taken == [one.id for n, (_, one) in enumerate(window) if n not in (0, 5)]
        assert owner.events[0] == InterestArrived(LINK, (ROOF,))
        assert owner.values[CURSORS_KEY] == PLACE + ROOF + (17).to_bytes(8, "big")

    play(session, scenario, owner)
    assert session.of("listPosts") == [0, 17]
    fetched = {id for ids in session.of("fetchPosts") for id in ids}
    assert fetched == {one.id for n, (_, one) in enumerate(window) if n not in (0, 5)}

    async def again(posts: HomePosts, owner: Owner) -> None:
        await until(lambda: len(session.of("listPosts")) == 3)

    play(session, again, owner)
    assert session.of("listPosts")[2] == 17


def test_another_store_of_the_server_begins_anew() -> None:
    session, owner = Session((5, post(1))), Owner()
    owner.values[CURSORS_KEY] = b"f" * 32 + b"x" * 16 + ROOF + (99).to_bytes(8, "big")

    async def scenario(posts: HomePosts, owner: Owner) -> None:
        await until(lambda: bool(owner.taken))

    play(session, scenario, owner)
    assert session.of("listPosts")[0] == 0


def test_what_came_after_following_is_brought_and_not_fetched_too() -> None:
    session = Session((5, post(1)), (6, post(2)))
    session.up_to = 5

    async def scenario(posts: HomePosts, owner: Owner) -> None:
        await until(lambda: CURSORS_KEY in owner.values)
        assert owner.taken == [post(1).id]
        await posts.bring([Told(6, post(2).wire())])
        assert owner.taken == [post(1).id, post(2).id]

    play(session, scenario)


def test_what_was_put_off_is_listed_again_and_holds_the_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quicprochat.p2p.home_posts.PUT_OFF_S", 0.01)
    session, owner = Session((5, post(1)), (6, post(2))), Owner()
    owner.unwelcome.add(post(1).id)

    async def scenario(posts: HomePosts, owner: Owner) -> None:
        await until(lambda: len(session.of("fetchPosts")) >= 3)
        assert owner.taken == [post(2).id], "the rest is not held up, and does not come again"
        owner.unwelcome.clear()
        await until(lambda: owner.values.get(CURSORS_KEY, b"").endswith((6).to_bytes(8, "big")))
        assert owner.taken == [post(2).id, post(1).id]

    play(session, scenario, owner)
    assert set(session.of("listPosts")[:-1]) == {0}


def test_our_own_single_post_goes_at_once_and_others_are_asked_about() -> None:
    session = Session()
    mine, several, theirs, known, promised = (
        post(1), [post(2), post(3)], post(4, hop=1), post(5, hop=1), post(6, hop=2),
    )  # fmt: skip
    session.seen.add(known.id)
    session.promised.add(promised.id)

    async def scenario(posts: HomePosts, owner: Owner) -> None:
        for batch in ([mine], several, [theirs], [known], [promised]):
            before = len(owner.results())
            for one in batch:
                posts.send(one.wire())
            await until(lambda before=before, batch=batch: len(owner.results()) == before + len(batch))  # type: ignore[misc]
        verdicts = owner.results()
        assert verdicts[mine.id] is verdicts[theirs.id] is Verdict.STORED
        assert verdicts[known.id] is Verdict.DUPLICATE
        assert verdicts[promised.id] is Verdict.DEFERRED, "somebody else is about to bring it"

    play(session, scenario)
    asked = [id for ids in session.of("lackingPosts") for id in ids]
    assert asked == [one.id for one in (*several, theirs, known, promised)]
    assert [len(wires) for wires in session.of("batchEnqueue")] == [1, 2, 1]


@pytest.mark.parametrize(
    "refusal", [Problem("no such thing", "unsupported"), UnavailableError("not understood", retryable=False)]
)
def test_a_server_from_before_channels_is_left_alone(refusal: Exception) -> None:
    class Old(Session):
        def follow(self, channels: list[bytes]) -> Awaitable[Any]:
            raise refusal

    session, owner = Old(), Owner()

    async def whole() -> None:
        posts = HomePosts(LINK, session, PLACE, owner, owner.judge)
        posts.interest((ROOF,))
        posts.send(post(1).wire())
        await posts.run()

    asyncio.run(whole())
    assert session.calls == []
    assert owner.events == []


class Repeating(Session):
    def listPosts(self, channel: bytes, after: int, limit: int) -> Awaitable[Any]:
        one = SimpleNamespace(serial=1, id=post(1).id)
        return self._answer("listPosts", after, posts=[one, one])


class Endless(Session):
    def listPosts(self, channel: bytes, after: int, limit: int) -> Awaitable[Any]:
        posts = [SimpleNamespace(serial=n, id=post(1).id) for n in range(1, LISTED + 2)]
        return self._answer("listPosts", after, posts=posts)


class Crooked(Session):
    def listPosts(self, channel: bytes, after: int, limit: int) -> Awaitable[Any]:
        return self._answer("listPosts", after, posts=[SimpleNamespace(serial=1, id=b"short")])


class Wilful(Session):
    def fetchPosts(self, ids: list[bytes]) -> Awaitable[Any]:
        told = [SimpleNamespace(serial=1, envelope=post(99).wire())]
        return self._answer("fetchPosts", ids, deliveries=told)


class Generous(Session):
    def fetchPosts(self, ids: list[bytes]) -> Awaitable[Any]:
        told = [SimpleNamespace(serial=1, envelope=b"")] * (BROUGHT_MAX + 1)
        return self._answer("fetchPosts", ids, deliveries=told)


@pytest.mark.parametrize("kind", [Repeating, Endless, Crooked, Wilful, Generous])
def test_answers_that_no_honest_server_gives_end_the_connection(kind: type[Session]) -> None:
    session, owner = kind((1, post(1))), Owner()

    async def whole() -> None:
        posts = HomePosts(LINK, session, PLACE, owner, owner.judge)
        posts.interest((ROOF,))
        async with asyncio.timeout(PATIENCE_S):
            await posts.run()

    with pytest.raises(ExceptionGroup) as ended:
        asyncio.run(whole())
    assert ended.group_contains(RemoteError)
