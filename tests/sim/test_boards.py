"""Posts over many hops: each reaches all subscribers once, along the tree, and what was missed is found."""

from __future__ import annotations

from tests.sim.boards import Mesh


def test_a_post_crosses_a_node_that_does_not_subscribe() -> None:
    mesh = Mesh()
    mesh.add("a", "b", "c")
    mesh.lay("ab", "bc")
    mesh.join("ac")
    mesh.settle()
    mesh.post("a", "soup")
    mesh.settle(250)
    assert mesh.texts("c") == ["soup"]
    assert mesh.hops("c") == [1]
    assert mesh.texts("b") == []
    mesh.settle(60_000)
    assert mesh.payloads() == 2


RING = ("ab", "bc", "cd", "de", "ef", "fg", "gh", "ha")
CHORDS = ("ae", "cg")
EIGHT = "abcdefgh"


def ring(*, seed: int = 1) -> Mesh:
    mesh = Mesh(seed)
    mesh.add(*EIGHT)
    mesh.lay(*RING, *CHORDS)
    mesh.join(EIGHT)
    mesh.settle(15_000)
    return mesh


def test_in_a_ring_with_chords_a_post_reaches_all_over_seven_links() -> None:
    mesh = ring()
    for number, author in enumerate(EIGHT * 3):
        mesh.post(author, str(number))
        mesh.settle(1_000)
    mesh.settle(60_000)
    for name in EIGHT:
        assert sorted(mesh.texts(name), key=int) == [str(n) for n in range(24) if EIGHT[n % 8] != name]
    assert mesh.repeats() == 0
    assert mesh.payloads() == 24 * 7, "each payload crosses as few links as there are others"


def test_a_partition_heals_and_nothing_crosses_a_link_twice() -> None:
    mesh = ring()
    cut = ("ab", "ef", "ae", "cg")
    # b c d e on one side, f g h a on the other
    mesh.pull(*cut)
    mesh.settle(20_000)
    for number in range(40):
        mesh.post("c", f"left {number}")
        mesh.post("g", f"right {number}")
        mesh.settle(500)
    assert len(mesh.texts("b")) == 40
    assert len(mesh.texts("a")) == 40
    mesh.plug(*cut)
    mesh.settle(60_000)
    for name in EIGHT:
        assert len(mesh.texts(name)) == (40 if name in "cg" else 80), name
    assert mesh.repeats() == 0
    assert mesh.payloads() <= 80 * 7 * 1.05
