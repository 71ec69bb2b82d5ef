"""Members over many hops: a new key crosses a partition by direct message, and a list of posters finds everybody."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from tests.sim.boards import Mesh
from tests.sim.truth import talk

from quicprochat.core.channel import BroadcastChannel, Subscription
from quicprochat.core.ids import ChannelId
from quicprochat.core.receipt import State
from quicprochat.core.rotation import ChannelKey
from quicprochat.core.time import HOUR_MS, MINUTE_MS


def line_of(names: str) -> Mesh:
    """People in a line."""
    mesh = Mesh()
    mesh.add(*names)
    mesh.lay(*(one + other for one, other in pairwise(names)))
    mesh.settle()
    return mesh


def owned(mesh: Mesh, owner: str, *, announce: bool = False) -> BroadcastChannel:
    return BroadcastChannel.private(b"\x07" * 32, "board", mesh.peers[owner].key, announce=announce)


def known(mesh: Mesh, name: str, id: ChannelId) -> Subscription:
    found = mesh.peers[name].store.channel(id)
    assert found is not None
    return found


def standing(mesh: Mesh, owner: str, id: ChannelId) -> dict[str, State | None]:
    """How it stands with the message that brings each member the newest key."""
    store = mesh.peers[owner].store
    names = {peer.key: name for name, peer in mesh.peers.items()}
    sent = {names[m.peer]: store.sent(m.letter) for m in store.members(id) if m.letter}  # type: ignore[arg-type]
    return {name: found.state if found is not None else None for name, found in sent.items()}


def test_a_new_key_crosses_a_partition_and_posts_wait_for_it() -> None:
    mesh = line_of("abcde")
    board = owned(mesh, "a")
    mesh.join("ace", board)
    mesh.settle()
    assert {m.peer for m in mesh.peers["a"].store.members(board.id)} == {mesh.peers[n].key for n in "ce"}
    mesh.pull("bc")
    mesh.settle(MINUTE_MS)
    key = ChannelKey(board.id, 1, b"\x09" * 32)
    mesh.peers["a"].rotate(key, without=(mesh.peers["e"].key,))
    mesh.settle()
    mesh.post("a", "under the new key", board)
    mesh.post("c", "under the old one", board)
    mesh.settle()
    assert standing(mesh, "a", board.id) == {"c": State.RELAYED}, "a neighbour carries it"
    mesh.plug("bc")
    mesh.settle(MINUTE_MS)
    assert mesh.texts("c") == ["under the new key"]
    assert mesh.texts("a") == mesh.texts("e") == ["under the old one"]
    assert standing(mesh, "a", board.id) == {"c": State.DELIVERED}
    assert mesh.peers["e"].node is not None
    assert len(mesh.peers["e"].node.unreadable(board.id)) == 1
    assert [epoch for epoch, _ in known(mesh, "e", board.id).secrets] == [0]
    mesh.post("c", "now under the new one", board)
    mesh.settle()
    assert mesh.texts("a") == ["under the old one", "now under the new one"]
    assert mesh.texts("e") == ["under the old one"]
    assert [line.text for line in mesh.peers["c"].inbox()] == ["under the new key"]
    frames = talk(mesh.world)
    mesh.settle(9 * MINUTE_MS)
    quiet = talk(mesh.world) - frames
    mesh.settle(2 * HOUR_MS)
    assert talk(mesh.world) - frames - quiet <= 13 * max(quiet, 40), "they go on talking although everything is said"


def test_posts_that_come_before_the_key_are_shown_once_it_is_there() -> None:
    mesh = line_of("abc")
    board = owned(mesh, "a")
    mesh.join("ac", board)
    mesh.settle()
    key = ChannelKey(board.id, 1, b"\x09" * 32)
    # The owner has a new key, and nobody was sent it yet.
    mesh.peers["a"].rotate(key, without=(mesh.peers["c"].key,))
    mesh.settle()
    for text in ("one", "two"):
        mesh.post("a", text, board)
    mesh.settle()
    node = mesh.peers["c"].node
    assert node is not None
    assert len(node.unreadable(board.id)) == 2
    mesh.peers["c"].crash()
    mesh.settle()
    mesh.peers["c"].start()
    mesh.settle(MINUTE_MS)
    node = mesh.peers["c"].node
    assert node is not None
    assert len(node.unreadable(board.id)) == 2, "they are kept, also over a restart"
    # An invite of now brings it as well as a message does.
    mesh.join("c", replace(board, epoch=1, secret=key.secret))
    mesh.settle()
    assert mesh.texts("c") == ["one", "two"]
    assert node.unreadable(board.id) == ()


def test_a_list_of_posters_finds_everybody_and_what_came_before_it_comes_again() -> None:
    mesh = line_of("abcd")
    board = owned(mesh, "a", announce=True)
    mesh.join("abcd", board)
    mesh.settle()
    mesh.post("d", "not yet", board)
    mesh.settle()
    assert [mesh.texts(name) for name in "abcd"] == [[], [], [], []]
    # The poster knows the list before all others: it and its posts are on one side of a cut, the rest on the other.
    mesh.pull("bc")
    mesh.settle(MINUTE_MS)
    mesh.peers["a"].list_posters(board.id, mesh.peers["c"].key)
    mesh.settle()
    charter = known(mesh, "a", board.id)
    store = mesh.peers["c"].store
    store.begin()
    store.put_channel(replace(known(mesh, "c", board.id), charter=charter.charter, posters=charter.posters))
    store.commit()
    mesh.post("c", "bread", board)
    mesh.settle()
    assert mesh.texts("d") == [], "who has not heard of the list takes nothing"
    mesh.plug("bc")
    mesh.settle(30 * MINUTE_MS)
    assert known(mesh, "d", board.id).posters == (mesh.peers["c"].key,)
    assert [mesh.texts(name) for name in "abd"] == [["bread"], ["bread"], ["bread"]]
