"""Posts over many hops: each reaches all subscribers once, along the tree, and what was missed is found."""

from __future__ import annotations

from collections import Counter

from tests.sim.boards import FAMILY, VILLAGE, Mesh

from quicprochat.core.link import FrameType


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


def test_whoever_subscribes_to_what_it_has_carried_reads_it_at_once_without_traffic() -> None:
    mesh = Mesh()
    mesh.add("a", "b", "c")
    mesh.lay("ab", "bc")
    mesh.join("ac")
    mesh.settle()
    for number in range(50):
        mesh.post("a", str(number))
    mesh.settle()
    before, mesh.world.frames = mesh.payloads(), Counter()
    mesh.join("b")
    mesh.settle(100)
    assert mesh.texts("b") == [str(number) for number in range(50)]
    assert mesh.payloads() == before
    assert mesh.world.frames[FrameType.INTEREST] == 0, "a willing node does not show what it subscribes to"


def test_a_late_subscriber_gets_what_it_lacks_from_several_neighbours_once() -> None:
    mesh = Mesh()
    mesh.add("a", "b", "c")
    mesh.add("d", willing=False)
    mesh.lay("ab", "bc", "ca", "da", "db", "dc")
    mesh.join("abc")
    mesh.settle()
    for number in range(300):
        mesh.post("abc"[number % 3], str(number))
        mesh.settle(50)
    mesh.settle()
    assert mesh.held("d") == 0
    before = mesh.payloads()
    mesh.join("d")
    mesh.settle(60_000)
    assert sorted(mesh.texts("d"), key=int) == [str(number) for number in range(300)]
    assert mesh.payloads() == before + 300


def test_an_unwilling_node_hands_on_its_own_channels_only() -> None:
    mesh = Mesh()
    mesh.add("a", "c")
    mesh.add("b", willing=False)
    mesh.lay("ab", "bc")
    mesh.join("abc")
    mesh.join("ac", VILLAGE)
    mesh.settle()
    mesh.post("a", "for all")
    mesh.post("a", "not through b", VILLAGE)
    mesh.settle()
    assert (mesh.texts("b"), mesh.texts("c")) == (["for all"], ["for all"])
    assert mesh.held("b", VILLAGE) == 0


def test_leaving_and_coming_back_while_offers_are_under_way_ends_no_link() -> None:
    """Frames of the time before the leave arrive after the return, and mean nothing any more."""
    mesh = Mesh(5)
    mesh.add("a", "b", "c", willing=False)
    mesh.lay("ab", "bc", latency_ms=150)
    mesh.join("ac")
    mesh.settle()
    for number in range(60):
        mesh.post("ac"[number % 2], str(number))
        if number % 4 == 0:
            mesh.join("b")
        elif number % 4 == 2:
            mesh.peers["b"].unsubscribe(FAMILY.id)
        mesh.settle(170)
    mesh.join("b")
    mesh.settle(30_000)
    mesh.post("a", "from a")
    mesh.post("c", "from c")
    mesh.settle(30_000)
    assert [mesh.texts(name)[-1] for name in "ac"] == ["from c", "from a"]
    assert {str(number) for number in range(60)} <= set(mesh.texts("b"))
    assert mesh.world.frames[FrameType.HELLO] == 4, "one for each end of two links"


def test_what_is_held_is_offered_after_a_restart() -> None:
    mesh = Mesh()
    mesh.add("a", "b", "c")
    mesh.lay("ab")
    mesh.join("ac")
    mesh.settle()
    for number in range(70):
        mesh.post("a", str(number))
    mesh.settle()
    mesh.peers["b"].crash()
    mesh.peers["a"].crash()
    mesh.peers["b"].start()
    mesh.lay("bc")
    mesh.settle(30_000)
    assert mesh.texts("c") == [str(number) for number in range(70)]
    mesh.peers["a"].start()
    mesh.settle(30_000)
    assert mesh.repeats() == 0


def test_links_that_come_and_go_leave_nobody_out() -> None:
    for seed in range(6):
        mesh = ring(seed=seed)
        rng = mesh.world.rng
        pairs = [*RING, *CHORDS]
        down: set[str] = set()
        for number in range(60):
            pair = rng.choice(pairs)
            (mesh.plug if pair in down else mesh.pull)(pair)
            down ^= {pair}
            author = rng.choice(EIGHT)
            mesh.post(author, f"{author}{number}")
            mesh.settle(rng.randrange(3_000))
        mesh.plug(*down)
        mesh.settle(60_000)
        texts = {name: set(mesh.texts(name)) for name in EIGHT}
        everything = set().union(*texts.values())
        assert len(everything) == 60
        for name in EIGHT:
            assert len(mesh.texts(name)) == len(texts[name])
            assert texts[name] == {text for text in everything if text[0] != name}, (seed, name)
        costs = []
        for _ in range(3):
            before = mesh.payloads()
            for author in EIGHT:
                mesh.post(author, f"{author}!")
                mesh.settle(2_000)
            mesh.settle(10_000)
            costs.append(mesh.payloads() - before)
        assert all(sum("!" in text for text in mesh.texts(name)) == 21 for name in EIGHT)
        assert costs[0] <= 2 * 8 * 7, "what was learned while links came and went may be wrong once"
        assert costs[1] <= 8 * 7 + 4, "two may have mended the same place, which shows with the next post"
        assert costs[2] == 8 * 7, "and then each payload crosses as few links as there are others"
