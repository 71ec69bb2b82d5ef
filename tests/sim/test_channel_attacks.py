"""Attacks on channels over several hops: what nodes behind the attacked one still get."""

from __future__ import annotations

from dataclasses import replace

from tests.sim.boards import FAMILY, Mesh

from quicprochat.core.gate import Limits
from quicprochat.core.ids import ChannelId
from quicprochat.core.time import MINUTE_MS
from quicprochat.core.window import PostLimits
from quicprochat.sim.clock import Clock


def add(mesh: Mesh, name: str, *, willing: bool = True, posts: PostLimits | None = None) -> None:
    """A peer with bounds of its own."""
    peer = mesh.peers[name] = mesh.world.peer(name, Clock())
    peer.policy = replace(peer.policy, stays=willing, limits=Limits(posts=posts or PostLimits()))
    peer.start()


def test_a_channel_that_made_room_is_still_handed_on_along_its_tree() -> None:
    mesh = Mesh()
    add(mesh, "w", posts=PostLimits(foreign_channels=3))
    mesh.add("a", "c", willing=False)
    mesh.add("x")
    mesh.lay("aw", "wc", "xw")
    mesh.join("ac")
    mesh.settle()
    mesh.post("a", "before")
    mesh.settle()
    flood = [replace(FAMILY, id=ChannelId(bytes([number]) * 32)) for number in range(1, 60)]
    for channel in flood:
        mesh.join("x", channel)
        for _ in range(2):
            mesh.post("x", "made up", channel)
            mesh.settle(300)
    add(mesh, "y")
    for number in range(60, 64):
        # By its number of channels another neighbour is no heavier than the one with the real one.
        mesh.join("a", replace(FAMILY, id=ChannelId(bytes([number]) * 32)))
        for _ in range(2):
            mesh.post("a", "of another channel", replace(FAMILY, id=ChannelId(bytes([number]) * 32)))
        mesh.settle(1_000)
    assert mesh.held("w") == 0, "it made room"
    mesh.post("a", "after")
    mesh.settle()
    assert mesh.texts("c") == ["before", "after"]


def test_who_was_away_gets_what_a_member_in_the_middle_had_before_it_left_and_came_back() -> None:
    mesh = Mesh()
    mesh.add("a", "b", "c", willing=False)
    mesh.lay("ab", "bc")
    mesh.join("abc")
    mesh.settle()
    mesh.pull("bc")
    for number in range(40):
        mesh.post("a", str(number))
    mesh.settle()
    mesh.peers["b"].unsubscribe(FAMILY.id)
    mesh.settle()
    assert mesh.held("b") == 0
    mesh.join("b")
    mesh.settle()
    mesh.plug("bc")
    mesh.settle(MINUTE_MS)
    assert sorted(mesh.texts("c"), key=int) == [str(number) for number in range(40)]
    assert sorted(mesh.texts("b"), key=int) == [str(number) for number in range(40)], "and reads nothing twice"
