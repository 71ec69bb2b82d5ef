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
