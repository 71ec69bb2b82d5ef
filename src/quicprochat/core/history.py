"""The order of a channel's posts: by cause, which no clock can falsify (ADR 26).

A post stands after the posts it names as read before it (its parents, whose hashes it could not have known otherwise)
and after its author's posts with a lower number. Everything else stands as it arrived; a post that arrives after its
answers moves up to stand before the first of them, so that what was read stays where it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from quicprochat.core.ids import EnvelopeId, PeerKey

Links = list[list[int]]
"""For each post the places in the list of those before it."""


@dataclass(frozen=True, slots=True)
class Place:
    """What gives a post its place: ``cursor`` is its line's in the journal, where lines stand as they arrived.

    ``id`` is empty and ``seq`` 0 where they are not known: such a post stands where it arrived.
    """

    cursor: int
    author: PeerKey
    id: EnvelopeId
    seq: int
    parents: tuple[EnvelopeId, ...] = ()


def in_order(posts: Sequence[Place]) -> list[Place]:
    """Return posts, given as they arrived, in the order of cause; each of them once, whatever they claim.

    Parents are hashes and make no circle. Numbers are an author's word: where they contradict the parents, in a circle
    of both, the numbers in it count for nothing. Takes time in proportion to the posts (and sorting one author's).
    """
    read, numbered = _by_parents(posts), _by_number(posts)
    order = _walk(read, numbered)
    if order is None:
        for n in _tangled(read, numbered):
            numbered[n].clear()
        order = _walk(read, numbered, strict=False)
    assert order is not None
    return [posts[n] for n in order]


def _by_parents(posts: Sequence[Place]) -> Links:
    known = {post.id: n for n, post in enumerate(posts) if post.id}
    return [sorted({known[id] for id in post.parents if id in known} - {n}) for n, post in enumerate(posts)]


def _by_number(posts: Sequence[Place]) -> Links:
    before: Links = [[] for _ in posts]
    by_author: dict[PeerKey, list[int]] = {}
    for n, post in enumerate(posts):
        if post.seq:
            by_author.setdefault(post.author, []).append(n)
    for theirs in by_author.values():
        theirs.sort(key=lambda n: (posts[n].seq, n))
        for earlier, later in pairwise(theirs):
            before[later].append(earlier)
    return before


def _walk(read: Links, numbered: Links, *, strict: bool = True) -> list[int] | None:
    """Return every post after all that is before it, else as they arrived; None for a circle, if that matters."""
    out: list[int] = []
    state = bytearray(len(read))  # 0 not seen, 1 under way, 2 written
    for start in range(len(read)):
        if state[start]:
            continue
        state[start] = 1
        path: list[tuple[int, Iterator[int]]] = [(start, iter(sorted(read[start] + numbered[start])))]
        while path:
            n, before = path[-1]
            for earlier in before:
                if not state[earlier]:
                    state[earlier] = 1
                    path.append((earlier, iter(sorted(read[earlier] + numbered[earlier]))))
                    break
                if strict and state[earlier] == 1:
                    return None
            else:
                state[n] = 2
                out.append(n)
                path.pop()
    return out


def _tangled(read: Links, numbered: Links) -> set[int]:
    """Return the posts in circles, and those that stand between two circles."""
    before = [{*a, *b} for a, b in zip(read, numbered, strict=True)]
    after: list[set[int]] = [set() for _ in before]
    for n, earlier in enumerate(before):
        for one in earlier:
            after[one].add(n)
    left = set(range(len(before)))
    for inward, outward in ((before, after), (after, before)):
        count = [len(found & left) for found in inward]
        free = [n for n in left if not count[n]]
        while free:
            n = free.pop()
            left.discard(n)
            for one in outward[n] & left:
                count[one] -= 1
                if not count[one]:
                    free.append(one)
    return left
