"""Whatever happens, in whatever order: two people's messages arrive once, and what is said of them is true.

Between them stands Eve, linked to both, who has heard every envelope that was ever sent.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.sim.truth import Witness

from quicprochat.core.envelope import CORE_BYTES, Header, Kind, MeshEnvelope, make
from quicprochat.core.gate import Limits
from quicprochat.core.ids import EnvelopeId, PeerKey, Uid
from quicprochat.core.link import FrameType
from quicprochat.core.patience import BAD_MAX
from quicprochat.core.receipt import Receipt, State, Status
from quicprochat.core.time import DAY_MS, HOUR_MS, MINUTE_MS
from quicprochat.sim.clock import SHOWS_1970, Clock
from quicprochat.sim.peer import Doom, Peer
from quicprochat.sim.world import Cable, Link, World

WHO = st.integers(0, 1)
LONG_TTL_S = 14 * 86_400


@dataclass
class Told:
    """The model of one message: what its owner did, not what became of it."""

    author: Peer
    to: Peer
    text: str
    ttl_s: int
    withdrawn: bool = False


class DeliveryMachine(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 2**32), clocks=st.tuples(st.booleans(), st.booleans()))
    def begin(self, seed: int, clocks: tuple[bool, bool]) -> None:
        self.world = World(seed)
        limits = Limits(own_bytes=100_000)
        right, wrong = {"skew_ms": 0, "synchronised": True}, {"skew_ms": SHOWS_1970, "synchronised": False}
        one, other = (
            self.world.peer(name, Clock(**(right if good else wrong)), limits)  # type: ignore[arg-type]
            for name, good in zip(("one", "other"), clocks, strict=True)
        )
        self.people = (one, other)
        self.eve = self.world.peer("eve")
        self.witness = Witness(self.world, liars=frozenset({self.eve.key}))
        self.cable = Cable(one, other, jitter_ms=50, notice_ms=5_000)
        self.ways_of_eve = [Cable(self.eve, one), Cable(self.eve, other)]
        for peer in self.world.peers:
            peer.start()
        for cable in self.ways_of_eve:
            cable.plug()
        self.messages: dict[Uid, Told] = {}

    # --- what the two people do

    @rule(who=WHO, ttl_s=st.sampled_from((60, 3_600, LONG_TTL_S, LONG_TTL_S)))
    def write(self, who: int, ttl_s: int) -> None:
        author, to = self.people[who], self.people[1 - who]
        if author.node is not None:
            text = f"message {len(self.messages)}"
            self.messages[author.write(to.key, text, ttl_s=ttl_s)] = Told(author, to, text, ttl_s)

    @precondition(lambda self: self.messages)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        uid = data.draw(st.sampled_from(sorted(self.messages)), label="uid")
        message = self.messages[uid]
        if message.author.node is not None:
            message.withdrawn = True
            message.author.cancel(uid)

    @rule(who=WHO, whom=st.sampled_from(("nobody", "friend", "eve")), disk_low=st.booleans())
    def decide(self, who: int, whom: str, disk_low: bool) -> None:
        blocked = {"nobody": [], "friend": [self.people[1 - who].key], "eve": [self.eve.key]}[whom]
        self.people[who].decide(blocked=blocked, disk_low=disk_low)

    # --- what the world does to them

    @rule()
    def plug(self) -> None:
        self.cable.plug()

    @rule()
    def pull(self) -> None:
        self.cable.pull()

    @rule(ms=st.sampled_from((1, 5, 20, 45, 200, 1_500, 20_000, 3 * MINUTE_MS, 2 * HOUR_MS, DAY_MS)))
    def time_passes(self, ms: int) -> None:
        self.world.run(ms)

    @rule(who=WHO)
    def crash(self, who: int) -> None:
        if self.people[who].node is not None:
            self.people[who].crash()

    @rule(who=WHO, where=st.sampled_from(Doom))
    def doom(self, who: int, where: Doom) -> None:
        self.people[who].doom = where if self.people[who].node is not None else None

    @rule(who=WHO, rebooted=st.booleans())
    def switch_on(self, who: int, rebooted: bool) -> None:
        if self.people[who].node is None:
            self.people[who].start(rebooted=rebooted)

    # --- what Eve does

    def _to(self, who: int) -> Link | None:
        """Eve's end of her link to one of them."""
        return next((link for link in self.eve.links if link.far.peer is self.people[who] and link.alive), None)

    @precondition(lambda self: self.witness.envelopes)
    @rule(
        who=WHO, data=st.data(), hop=st.sampled_from((0, 1, 5, 33, 255)), age_ms=st.sampled_from((0, 1, HOUR_MS, 2**63))
    )
    def replay(self, who: int, data: st.DataObject, hop: int, age_ms: int) -> None:
        wire = data.draw(st.sampled_from(self.witness.envelopes), label="wire")
        if (link := self._to(who)) is not None:
            link.send(FrameType.ENVELOPE, MeshEnvelope.decode(wire).wire(hop=hop, age_ms=age_ms))

    @precondition(lambda self: self.witness.envelopes)
    @rule(who=WHO, data=st.data(), place=st.integers(0, CORE_BYTES + 63))
    def alter(self, who: int, data: st.DataObject, place: int) -> None:
        wire = bytearray(data.draw(st.sampled_from(self.witness.envelopes), label="wire"))
        wire[place] ^= 1
        if (link := self._to(who)) is not None:
            link.send(FrameType.ENVELOPE, bytes(wire))

    @precondition(lambda self: self.witness.envelopes)
    @rule(who=WHO, data=st.data(), status=st.sampled_from(Status), signed_by_eve=st.booleans())
    def forge_receipt(self, who: int, data: st.DataObject, status: Status, signed_by_eve: bool) -> None:
        ids = tuple(EnvelopeId(MeshEnvelope.decode(wire).id) for wire in self.witness.envelopes[-20:])
        victim, friend = self.people[who], self.people[1 - who]
        claimed: PeerKey = self.eve.key if signed_by_eve else friend.key
        header = Header(Kind.RECEIPT, claimed, victim.key, self.eve.entropy(16))
        if (link := self._to(who)) is not None:
            link.send(FrameType.ENVELOPE, make(header, Receipt(status, ids).encode(), self.eve.signer).wire())

    @rule(who=WHO)
    def flood(self, who: int) -> None:
        for _ in range(BAD_MAX):
            if (link := self._to(who)) is not None:
                link.send(FrameType.ENVELOPE, b"nonsense")

    @rule(who=WHO)
    def eve_writes(self, who: int) -> None:
        self.eve.write(self.people[who].key, "psst")

    # --- what must hold

    @invariant()
    def nobody_is_lied_to(self) -> None:
        self.witness.check()
        for uid, message in self.messages.items():
            sent = message.author.store.sent(uid)
            if sent is None:
                continue
            if sent.state is State.CANCELLED:
                assert message.withdrawn
            if sent.state is State.EXPIRED:
                assert sent.reason == "nobody confirmed"
            assert sent.state is not State.FAILED

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        for peer in self.world.peers:
            peer.doom = None
            if peer.node is None:
                peer.start()
            peer.decide()
        for cable in self.ways_of_eve:
            cable.pull()
        self.world.run(MINUTE_MS)
        self.cable.plug()
        self.world.run(40 * MINUTE_MS)
        for who in (0, 1):
            self.write(who, LONG_TTL_S)
        self.world.run(MINUTE_MS)
        self.witness.check()
        for uid, message in self.messages.items():
            self._check_end(uid, message)
        before = self._mail()
        self.world.run(HOUR_MS)
        assert self._mail() == before, "they go on talking although everything is said"

    def _mail(self) -> int:
        """Frames sent so far, but for those that keep links and records fresh."""
        return self.world.frames[FrameType.ENVELOPE] + self.world.frames[FrameType.RESULTS]

    def _check_end(self, uid: Uid, message: Told) -> None:
        sent = message.author.store.sent(uid)
        texts = [line.text for line in message.to.inbox() if line.uid == uid]
        if sent is None:
            assert not texts
            return
        assert texts in ([], [message.text])
        if sent.state is State.EXPIRED:
            assert message.ttl_s < LONG_TTL_S or self.world.now > 1_000 * LONG_TTL_S
        elif sent.state is not State.CANCELLED:
            assert (sent.state, texts) == (State.DELIVERED, [message.text]), message.author.store.trace(uid)


class LongDeliveryMachine(DeliveryMachine):
    """The same for as long as one likes."""


SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much]
DeliveryMachine.TestCase.settings = settings(
    max_examples=200, stateful_step_count=30, deadline=None, suppress_health_check=SLOW, derandomize=True
)
LongDeliveryMachine.TestCase.settings = settings(
    max_examples=5_000, stateful_step_count=60, deadline=None, suppress_health_check=SLOW
)
TestDelivery = DeliveryMachine.TestCase
TestDeliveryForLong = pytest.mark.soak(LongDeliveryMachine.TestCase)
