"""Receipts, and the states of a sent message.

A receipt is an envelope of kind RECEIPT from the recipient to the author. It is signed, not sealed: carriers need the
ids to let go of their copies. One receipt answers up to 64 envelopes and is never answered itself.

    payload = ver 1 | status 1 | count 1 (1..64) | count * envelope id 32 | record_len 2 | record

The record is there when the status is UNOPENABLE: the prekeys to seal with next time.

States are set by the author's own node alone. All transitions are in ``MAY_BECOME``; a late receipt turns any of them
into DELIVERED, because "nobody confirmed it" never meant "it did not arrive".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from quicprochat.core.errors import WireError
from quicprochat.core.ids import ID_BYTES, EnvelopeId
from quicprochat.core.record import RECORD_MAX_BYTES
from quicprochat.core.wire import Reader

RECEIPT_VERSION = 1
RECEIPT_IDS_MAX = 64


class Status(IntEnum):
    """What became of an envelope at its recipient. Only DELIVERED lets carriers drop their copies."""

    DELIVERED = 1
    DELIVERED_VOLATILE = 2
    UNOPENABLE = 3
    REFUSED = 4


@dataclass(frozen=True, slots=True)
class Receipt:
    """The recipient's word on up to 64 envelopes."""

    status: Status
    ids: tuple[EnvelopeId, ...]
    record: bytes = b""

    def encode(self) -> bytes:
        """Return the payload of a receipt envelope."""
        assert 1 <= len(self.ids) <= RECEIPT_IDS_MAX
        head = bytes([RECEIPT_VERSION, self.status, len(self.ids)])
        return head + b"".join(self.ids) + len(self.record).to_bytes(2, "big") + self.record

    @classmethod
    def decode(cls, payload: bytes) -> Receipt:
        """Read a receipt's payload. Raises: WireError."""
        reader = Reader(payload, "a receipt")
        if (version := reader.uint(1)) != RECEIPT_VERSION:
            raise WireError(f"a receipt of version {version}")
        status = reader.uint(1)
        if status not in Status._value2member_map_:
            raise WireError(f"a receipt with the unknown status {status}")
        count = reader.uint(1)
        if not 1 <= count <= RECEIPT_IDS_MAX:
            raise WireError(f"a receipt for {count} envelopes; 1 to {RECEIPT_IDS_MAX} are allowed")
        ids = tuple(EnvelopeId(reader.take(ID_BYTES)) for _ in range(count))
        record = reader.sized(2, RECORD_MAX_BYTES)
        reader.end()
        return cls(Status(status), ids, record)


class State(Enum):
    """What the author may truthfully be told about a message."""

    QUEUED = "queued"
    RELAYED = "relayed"
    DELIVERED = "delivered"
    EXPIRED = "expired"
    FAILED = "failed"
    CANCELLED = "cancelled"


MAY_BECOME: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset(State) - {State.QUEUED},
    State.RELAYED: frozenset(State) - {State.QUEUED, State.RELAYED},
    State.EXPIRED: frozenset({State.DELIVERED}),
    State.FAILED: frozenset({State.DELIVERED}),
    State.CANCELLED: frozenset({State.DELIVERED}),
    State.DELIVERED: frozenset(),
}
"""Every transition there is. DELIVERED is final: a receipt is a proof, and proofs are not taken back."""

OPEN_STATES = frozenset({State.QUEUED, State.RELAYED})
"""States in which the author's node still keeps the envelope and offers it."""
