"""A home server as the node sees it: it takes what has no better way, once, and again after it forgot."""

from __future__ import annotations

from tests.unit.people import WINDOW, Person, at

from quicprochat.core.envelope import MeshEnvelope
from quicprochat.core.events import Effect, LinkDown, LinkId, LinkUp, ResultsArrived, SendEnvelope
from quicprochat.core.gate import Reason, Verdict
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.link import Result
from quicprochat.core.receipt import State
from quicprochat.sim.crypto import SimCrypto

SERVER = PeerKey(b"s" * 32)
TO_SERVER, TO_PEER = LinkId(7), LinkId(8)
EPOCH = b"e" * 16


def two() -> tuple[Person, Person]:
    crypto = SimCrypto(b"carrier")
    return Person(crypto, "ada"), Person(crypto, "bob")


def server_up(person: Person, epoch: bytes = EPOCH, now: int | None = None) -> tuple[Effect, ...]:
    moment = at(now) if now is not None else None
    return person.step(LinkUp(TO_SERVER, SERVER, WINDOW, None, epoch, carrier=True), now=moment)


def handed(effects: tuple[Effect, ...], link: LinkId = TO_SERVER) -> list[SendEnvelope]:
    return [e for e in effects if isinstance(e, SendEnvelope) and e.link == link]


def answer(person: Person, id: EnvelopeId, verdict: Verdict, reason: Reason = Reason.NONE) -> tuple[Effect, ...]:
    return person.step(ResultsArrived(TO_SERVER, (Result(id, verdict, reason),)))


def test_message_for_somebody_not_linked_goes_to_the_server_once() -> None:
    ada, bob = two()
    server_up(ada)
    written = ada.written(bob.key, "hi")
    assert len(handed(ada.step(written))) == 1
    id = written.envelope.id
    answer(ada, id, Verdict.STORED)
    sent = ada.store.sent(written.uid)
    assert sent is not None
    assert sent.state is State.RELAYED
    ada.step(LinkDown(TO_SERVER))
    assert handed(server_up(ada)) == []
    assert ada.store.held(id) is not None  # ours until its recipient confirms


def test_server_that_forgot_is_offered_everything_again() -> None:
    ada, bob = two()
    server_up(ada)
    written = ada.written(bob.key, "hi")
    ada.step(written)
    answer(ada, written.envelope.id, Verdict.STORED)
    ada.step(LinkDown(TO_SERVER))
    assert len(handed(server_up(ada, epoch=b"f" * 16))) == 1


def test_direct_link_is_preferred_and_the_server_stands_in_for_it() -> None:
    ada, bob = two()
    server_up(ada)
    ada.step(LinkUp(TO_PEER, bob.key, WINDOW))
    effects = ada.step(ada.written(bob.key, "hi"))
    assert len(handed(effects, TO_PEER)) == 1
    assert handed(effects) == []
    assert len(handed(ada.step(LinkDown(TO_PEER)))) == 1


def test_recipient_the_server_does_not_know_is_asked_for_again_later() -> None:
    ada, bob = two()
    server_up(ada)
    written = ada.written(bob.key, "hi")
    ada.step(written)
    assert handed(answer(ada, written.envelope.id, Verdict.DEFERRED, Reason.POLICY)) == []
    deadline = ada.node.next_deadline()
    while deadline < ada.now.at + 3_600_000:
        if handed(ada.step(now=at(deadline))):
            return
        deadline = ada.node.next_deadline()
    raise AssertionError("never offered again")


def test_receipt_goes_the_same_way_and_is_let_go_of_when_the_server_has_it() -> None:
    ada, bob = two()
    server_up(bob)
    envelope = ada.envelope(bob.key, "hi")
    effects = bob.step(bob.arrived(TO_SERVER, envelope))
    (receipt,) = handed(effects)
    held = next(iter(bob.store.own(0, 10)))
    assert MeshEnvelope.decode(receipt.wire).id == held.id
    answer(bob, held.id, Verdict.STORED)
    assert bob.store.own(0, 10) == []
