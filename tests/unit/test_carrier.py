"""A home server as the node sees it: it takes what has no better way, once, and again after it forgot."""

from __future__ import annotations

from tests.unit.people import WINDOW, Person, at

from quicprochat.core.envelope import Header, Kind, MeshEnvelope, make
from quicprochat.core.events import (
    Effect,
    HomeNamed,
    LinkDown,
    LinkId,
    LinkUp,
    Report,
    ReportsArrived,
    ResultsArrived,
    SendEnvelope,
    StateChanged,
    Withdrawn,
    Written,
)
from quicprochat.core.gate import Reason, Verdict
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.link import Result
from quicprochat.core.outbox import REPORTS_MAX
from quicprochat.core.receipt import State
from quicprochat.core.seal import Letter, seal
from quicprochat.core.store import Sent
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


# --- recipients at other domains


def domains(effects: tuple[Effect, ...]) -> list[str]:
    return [send.domain for send in handed(effects)]


def test_server_is_told_where_the_recipient_lives() -> None:
    ada, bob = two()
    server_up(ada)
    ada.step(HomeNamed(bob.key, "node2.mesh.local"))
    assert domains(ada.step(ada.written(bob.key))) == ["node2.mesh.local"]
    ada.step(LinkDown(TO_SERVER))
    ada.start(at(20_000))
    assert domains(server_up(ada)) == ["node2.mesh.local"]


def test_a_receipt_finds_its_authors_domain() -> None:
    ada, bob = two()
    server_up(ada)
    header = Header(Kind.MESSAGE, bob.key, ada.key, bob.entropy(16))
    letter = Letter(bob.key, bob.uid(), "hi", "node2.mesh.local")
    message = make(header, seal(header, None, letter, bob.crypto, bob.signer), bob.signer)
    (receipt,) = handed(ada.step(ada.arrived(TO_SERVER, message)))
    assert MeshEnvelope.decode(receipt.wire).kind == Kind.RECEIPT
    assert receipt.domain == "node2.mesh.local"


def test_what_waits_is_offered_again_when_the_home_becomes_known_and_only_that() -> None:
    ada, bob = two()
    server_up(ada)
    first, other = ada.written(bob.key, "one"), ada.written(Person(ada.crypto, "eve").key, "two")
    assert domains(ada.step(first, other)) == ["", ""]
    answer(ada, first.envelope.id, Verdict.STORED)
    answer(ada, other.envelope.id, Verdict.STORED)
    (again,) = handed(ada.step(HomeNamed(bob.key, "node2.mesh.local")))
    assert (MeshEnvelope.decode(again.wire).id, again.domain) == (first.envelope.id, "node2.mesh.local")
    answer(ada, first.envelope.id, Verdict.DUPLICATE)
    assert handed(ada.step(HomeNamed(bob.key, "node2.mesh.local"))) == []
    ada.step(LinkDown(TO_SERVER))
    assert handed(server_up(ada)) == []  # taken under the domain that counts


def test_an_answer_for_the_old_home_does_not_count_for_the_new_one() -> None:
    ada, bob = two()
    server_up(ada)
    written = ada.written(bob.key)
    ada.step(written)
    assert handed(ada.step(HomeNamed(bob.key, "node2.mesh.local"))) == []  # it is under way: one answer at a time
    (again,) = handed(answer(ada, written.envelope.id, Verdict.REFUSED, Reason.POLICY))
    assert again.domain == "node2.mesh.local"


def test_a_receipt_under_way_to_the_old_home_goes_to_the_new_one_too() -> None:
    ada, bob = two()
    server_up(ada)
    (receipt,) = handed(ada.step(ada.arrived(TO_SERVER, bob.envelope(ada.key))))
    id = MeshEnvelope.decode(receipt.wire).id
    ada.step(HomeNamed(bob.key, "node2.mesh.local"))
    (again,) = handed(answer(ada, id, Verdict.STORED))
    assert (MeshEnvelope.decode(again.wire).id, again.domain) == (id, "node2.mesh.local")
    assert handed(answer(ada, id, Verdict.STORED)) == []
    assert ada.store.held(id) is None


def test_moving_while_the_window_is_full_waits_for_room() -> None:
    ada, bob = two()
    ada.step(LinkUp(TO_SERVER, SERVER, 2, None, EPOCH, carrier=True))
    mail = [ada.written(bob.key, str(n)) for n in range(5)]
    ada.step(*mail)
    for written in mail:
        answer(ada, written.envelope.id, Verdict.STORED)
    offered = [MeshEnvelope.decode(send.wire).id for send in handed(ada.step(HomeNamed(bob.key, "b.example")))]
    assert len(offered) == 2
    for _ in range(5):
        for id in offered[-2:]:
            offered += [MeshEnvelope.decode(send.wire).id for send in handed(answer(ada, id, Verdict.STORED))]
    assert sorted(set(offered)) == sorted(written.envelope.id for written in mail)


def test_what_the_server_put_off_is_asked_again_at_once_at_a_new_home() -> None:
    ada, bob = two()
    server_up(ada)
    written = ada.written(bob.key)
    ada.step(written)
    answer(ada, written.envelope.id, Verdict.DEFERRED, Reason.UNKNOWN)
    assert domains(ada.step(HomeNamed(bob.key, "b.example"))) == ["b.example"]


def test_who_is_linked_gets_it_directly_wherever_he_lives() -> None:
    ada, bob = two()
    server_up(ada)
    ada.meet(TO_PEER, bob)
    out = ada.step(HomeNamed(bob.key, "b.example"), ada.written(bob.key, "hi", bob.prekey))
    assert handed(out) == []
    (direct,) = handed(out, TO_PEER)
    assert direct.domain == ""


# --- what the server tells of other domains


def report(person: Person, *reports: Report, link: LinkId = TO_SERVER) -> tuple[Effect, ...]:
    return person.step(ReportsArrived(link, reports))


def on_its_way() -> tuple[Person, Written]:
    ada, bob = two()
    server_up(ada)
    written = ada.written(bob.key)
    ada.step(HomeNamed(bob.key, "b.example"), written)
    return ada, written


def sent_of(person: Person, written: Written) -> Sent:
    sent = person.store.sent(written.uid)
    assert sent is not None
    return sent


def test_the_trace_names_each_domain_in_order() -> None:
    ada, written = on_its_way()
    id = written.envelope.id
    answer(ada, id, Verdict.STORED)
    report(ada, Report(id, "b.example", Verdict.DEFERRED, Reason.UNKNOWN))
    report(ada, Report(id, "b.example", Verdict.DEFERRED, Reason.UNKNOWN))
    report(ada, Report(id, "B.example", Verdict.STORED))
    assert ada.trace(written.uid) == [
        ("relayed", SERVER.hex()), ("deferred:unknown", "b.example"), ("stored", "b.example")
    ]  # fmt: skip
    assert ada.state(written.uid) is State.RELAYED


def test_the_first_that_has_a_copy_makes_it_relayed_whoever_it_is() -> None:
    ada, written = on_its_way()
    report(ada, Report(written.envelope.id, "b.example", Verdict.STORED))
    answer(ada, written.envelope.id, Verdict.STORED)
    assert ada.trace(written.uid) == [("relayed", "b.example")]


def test_a_later_refusal_takes_nothing_back_but_is_the_reason_until_somebody_takes_it() -> None:
    ada, written = on_its_way()
    id = written.envelope.id
    answer(ada, id, Verdict.STORED)
    out = report(ada, Report(id, "b.example", Verdict.REFUSED, Reason.POLICY))
    assert [(e.state, e.reason) for e in out if isinstance(e, StateChanged)] == [
        (State.RELAYED, "refused:policy:b.example")
    ]
    assert [sent.reason for sent in ada.store.open_sent(10)] == ["refused:policy:b.example"]
    assert ada.store.held(id) is not None  # still ours, and offered on
    report(ada, Report(id, "c.example", Verdict.DUPLICATE))
    assert (sent_of(ada, written).state, sent_of(ada, written).reason) == (State.RELAYED, "")


def test_what_our_own_server_refuses_for_good_is_the_reason_while_nobody_has_it() -> None:
    ada, written = on_its_way()
    answer(ada, written.envelope.id, Verdict.REFUSED, Reason.POLICY)
    assert (sent_of(ada, written).state, sent_of(ada, written).reason) == (
        State.QUEUED, f"refused:policy:{SERVER.hex()}"
    )  # fmt: skip


def test_no_report_makes_a_message_delivered_or_failed_or_changes_one_that_ended() -> None:
    ada, written = on_its_way()
    for verdict in Verdict:
        for reason in Reason:
            report(ada, Report(written.envelope.id, "b.example", verdict, reason))
    assert ada.state(written.uid) is State.RELAYED
    ada.step(Withdrawn(written.uid))
    report(ada, Report(written.envelope.id, "c.example", Verdict.REFUSED, Reason.FULL))
    assert (sent_of(ada, written).state, sent_of(ada, written).reason) == (State.CANCELLED, "")


def test_reports_about_what_is_not_ours_or_from_who_is_no_server_are_passed_over() -> None:
    ada, written = on_its_way()
    eve = Person(ada.crypto, "eve")
    theirs = eve.envelope(ada.key).id
    report(ada, Report(theirs, "b.example", Verdict.STORED))
    assert ada.store.counters()["reports_ignored"] == 1
    ada.meet(TO_PEER, eve)
    report(ada, Report(written.envelope.id, "b.example", Verdict.STORED), link=TO_PEER)
    assert ada.trace(written.uid) == []
    assert ada.state(written.uid) is State.QUEUED


def test_what_is_no_domain_cannot_stand_for_a_carrier() -> None:
    ada, written = on_its_way()
    for domain in ("direct", "here", "", "a b", "\x1b[2J", "ab" * 32):
        report(ada, Report(written.envelope.id, domain, Verdict.STORED))
    assert ada.trace(written.uid) == []


def test_a_server_that_makes_up_domains_leaves_room_in_the_trace() -> None:
    ada, written = on_its_way()
    made_up = [Report(written.envelope.id, f"d{n}.example", Verdict.DEFERRED, Reason.FULL) for n in range(500)]
    report(ada, *made_up)
    assert len(ada.trace(written.uid)) == REPORTS_MAX
    answer(ada, written.envelope.id, Verdict.STORED)
    assert ada.trace(written.uid)[-1] == ("relayed", SERVER.hex())
