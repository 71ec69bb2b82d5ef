"""The edge: what a message says of itself when it is sealed again."""

from __future__ import annotations

from quicprochat.adapters.crypto import Ed25519Signer, SodiumCrypto
from quicprochat.adapters.system import entropy
from quicprochat.core.events import Reseal, Resealed
from quicprochat.core.ids import Uid
from quicprochat.core.time import HOUR_MS, WALL_FLOOR, Instant, Now, WallTime
from quicprochat.p2p.edge import Edge


def test_a_message_sealed_again_says_it_was_made_when_its_age_began() -> None:
    """Otherwise the first hop would see its time contradict its age, and refuse it."""
    author, reader = Ed25519Signer(bytes(range(32))), Ed25519Signer(bytes(32))
    edge = Edge(author, author.exchange_private(), SodiumCrypto(entropy), entropy)
    now = Now(Instant(9 * HOUR_MS), WallTime(WALL_FLOOR + 9 * HOUR_MS), trusted=True)
    for claim, created in ((True, WALL_FLOOR + 4 * HOUR_MS), (False, 0)):
        asked = Reseal(Uid(bytes(16)), reader.key, "text", 86_400, 5 * HOUR_MS, None, claim)
        answer = edge.reseal(asked, now)
        assert isinstance(answer, Resealed)
        assert (answer.envelope.created_ms, answer.envelope.age_ms) == (created, 5 * HOUR_MS)
