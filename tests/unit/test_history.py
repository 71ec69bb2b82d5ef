"""The order of a channel's posts: what cause fixes stands, whatever clocks, numbers and ids are made up."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence

from hypothesis import given
from hypothesis import strategies as st

from quicprochat.core.history import Place, in_order
from quicprochat.core.ids import EnvelopeId, PeerKey

AUTHORS = [PeerKey(bytes([65 + n]) * 32) for n in range(4)]
ANN, BOB, CAT, DAN = AUTHORS


def post(name: str, author: PeerKey = ANN, seq: int = 0, *parents: str) -> Place:
    return Place(0, author, id_of(name), seq, tuple(map(id_of, parents)))


def id_of(name: str) -> EnvelopeId:
    return EnvelopeId(hashlib.sha256(name.encode()).digest()) if name else EnvelopeId(b"")


def arrived(posts: Iterable[Place]) -> list[Place]:
    """Number lines as they come."""
    return [Place(n, p.author, p.id, p.seq, p.parents) for n, p in enumerate(posts, 1)]


def ids(posts: Iterable[Place]) -> list[EnvelopeId]:
    return [post.id for post in posts]


def names(*wanted: str) -> list[EnvelopeId]:
    return [id_of(name) for name in wanted]


def history(choices: Sequence[tuple[int, int]]) -> list[Place]:
    """Honest authors write one after another; each has read some of what was there, and does not always say so."""
    posts: list[Place] = []
    last: dict[PeerKey, tuple[int, EnvelopeId]] = {}
    for n, (author_number, read) in enumerate(choices):
        author = AUTHORS[author_number % len(AUTHORS)]
        seq, own = last.get(author, (0, None))
        parents = {posts[read % len(posts)].id} if posts and read % 3 else set()
        if own is not None and read % 2:
            parents.add(own)
        made = Place(0, author, id_of(f"post {n}"), seq + 1, tuple(sorted(parents)))
        last[author] = (seq + 1, made.id)
        posts.append(made)
    return posts


choices = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1_000)), max_size=40)


def causes(posts: Sequence[Place]) -> set[tuple[EnvelopeId, EnvelopeId]]:
    """Return every pair of posts of which the first must stand before the second."""
    known = set(ids(posts))
    pairs = {(parent, post.id) for post in posts for parent in post.parents if parent in known}
    return pairs | {(a.id, b.id) for a in posts for b in posts if a.author == b.author and 0 < a.seq < b.seq}


@given(choices, st.randoms(use_true_random=False))
def test_whatever_order_posts_arrive_in_cause_is_kept_and_none_is_lost(
    made: list[tuple[int, int]], shuffle: random.Random
) -> None:
    posts = history(made)
    came = list(posts)
    shuffle.shuffle(came)
    order = ids(in_order(arrived(came)))
    assert sorted(order) == sorted(ids(posts))
    at = {id: n for n, id in enumerate(order)}
    assert all(at[before] < at[after] for before, after in causes(posts))


@given(choices, st.randoms(use_true_random=False))
def test_a_conversation_in_which_each_answers_the_last_has_one_order(
    made: list[tuple[int, int]], shuffle: random.Random
) -> None:
    posts: list[Place] = []
    for n, (author, _) in enumerate(made):
        seq = 1 + sum(p.author == AUTHORS[author] for p in posts)
        posts.append(Place(0, AUTHORS[author], id_of(str(n)), seq, (posts[-1].id,) if posts else ()))
    came = list(posts)
    shuffle.shuffle(came)
    assert ids(in_order(arrived(came))) == ids(posts)


@given(choices)
def test_what_arrives_in_the_order_of_writing_stays_as_it_came(made: list[tuple[int, int]]) -> None:
    posts = arrived(history(made))
    assert in_order(posts) == posts


def test_what_nothing_ties_stands_as_it_arrived() -> None:
    posts = arrived([post("c", CAT, 1), post("a", ANN, 1), post("b", BOB, 1)])
    assert in_order(posts) == posts


def test_a_missing_post_that_comes_late_moves_up_and_nothing_that_was_read_moves_down() -> None:
    came = [post("1", ANN, 1), post("3", ANN, 3), post("x", BOB, 1), post("4", ANN, 4), post("y", CAT, 1)]
    came.append(post("2", ANN, 2))
    assert ids(in_order(arrived(came))) == names("1", "2", "3", "x", "4", "y")


def test_what_was_answered_moves_up_before_its_answer() -> None:
    came = [post("answer", BOB, 1, "question"), post("x", CAT, 1), post("question", ANN, 1, "earlier"), post("earlier")]
    assert ids(in_order(arrived(came))) == names("earlier", "question", "answer", "x")


def test_parents_that_never_were_do_no_harm() -> None:
    posts = arrived([post("a", ANN, 1, "no such", "nor this"), post("b", BOB, 1, "a", "no such")])
    assert in_order(posts) == posts


def test_posts_of_an_older_version_stand_where_they_arrived() -> None:
    posts = arrived([post("", ANN), post("a", ANN, 2), post("", BOB), post("b", BOB, 1, "a"), post("", ANN)])
    assert in_order(posts) == posts


def test_a_liars_numbers_give_way_to_parents_in_every_order_of_arrival() -> None:
    # Ann has read her own second post before she wrote "first": she cannot have.
    posts = [post("second", ANN, 2), post("first", ANN, 1, "second"), post("x", BOB, 1)]
    for came in (posts, posts[::-1], [posts[1], posts[2], posts[0]]):
        order = ids(in_order(arrived(came)))
        assert order.index(id_of("second")) < order.index(id_of("first"))
        assert len(order) == 3


def test_two_liars_together_lose_no_post_and_no_parent() -> None:
    posts = [
        post("a2", ANN, 2), post("b2", BOB, 2), post("a1", ANN, 1, "b2"), post("b1", BOB, 1, "a2"),
        post("c1", CAT, 1, "a1", "b1"), post("c2", CAT, 2), post("d", DAN, 1),
    ]  # fmt: skip
    for seed in range(50):
        came = list(posts)
        random.Random(seed).shuffle(came)
        order = ids(in_order(arrived(came)))
        assert sorted(order) == sorted(ids(posts))
        for earlier, later in (("b2", "a1"), ("a2", "b1"), ("a1", "c1"), ("b1", "c1"), ("c1", "c2")):
            assert order.index(id_of(earlier)) < order.index(id_of(later))


pool = [EnvelopeId(bytes([n]) * 32) for n in range(6)] + [EnvelopeId(b"")]
anything = st.lists(
    st.builds(
        Place,
        st.just(0),
        st.sampled_from(AUTHORS),
        st.sampled_from(pool),
        st.sampled_from([0, 1, 2, 3, 2**60, 2**64 - 1]),
        st.lists(st.sampled_from(pool), max_size=4).map(tuple),
    ),
    max_size=30,
)


@given(anything)
def test_made_up_ids_and_numbers_even_in_circles_lose_no_post(posts: list[Place]) -> None:
    came = arrived(posts)
    assert sorted(post.cursor for post in in_order(came)) == [post.cursor for post in came]


def test_it_takes_no_more_than_its_time_for_many_posts_also_of_liars() -> None:
    # A chain as deep as this would break recursion; a circle through all of it must not cost its square.
    chain = [post("0", ANN, 60_000)] + [post(str(n), ANN, 60_000 - n, str(n - 1)) for n in range(1, 20_000)]
    order = ids(in_order(arrived(chain[::-1])))
    assert order == ids(chain)
