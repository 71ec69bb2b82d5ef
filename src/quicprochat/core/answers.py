"""What a step owes to those who brought envelopes: results to neighbours, receipts to authors.

They are gathered while events are applied and made at the step's end, so that one signature confirms many envelopes.
"""

from __future__ import annotations

from quicprochat.core.crypto import Entropy, Signer
from quicprochat.core.envelope import TTL_MAX_S, Header, Kind, MeshEnvelope, make
from quicprochat.core.events import Effect, LinkId, SendEnvelope, SendResults
from quicprochat.core.forward import Forward
from quicprochat.core.gate import Reason, submit
from quicprochat.core.ids import EnvelopeId, PeerKey
from quicprochat.core.link import RESULTS_MAX, Result
from quicprochat.core.neighbours import Neighbours
from quicprochat.core.policy import Policy
from quicprochat.core.receipt import RECEIPT_IDS_MAX, Receipt, Status
from quicprochat.core.store import Held, MeshStore, Scope
from quicprochat.core.time import Now


class Answers:
    """One step's, over and over."""

    def __init__(self, signer: Signer, entropy: Entropy, neighbours: Neighbours, forward: Forward) -> None:
        self._signer = signer
        self._entropy = entropy
        self._neighbours = neighbours
        self._forward = forward
        self._receipts: dict[tuple[PeerKey, Status, PeerKey, bool], list[EnvelopeId]] = {}
        self._repeated: dict[tuple[LinkId, PeerKey, Status], list[EnvelopeId]] = {}
        self._results: dict[LinkId, list[Result]] = {}

    def result(self, link: LinkId, result: Result) -> None:
        """Tell a neighbour what became of an envelope."""
        self._results.setdefault(link, []).append(result)

    def receipt(self, author: PeerKey, id: EnvelopeId, status: Status, via: PeerKey, *, again: bool) -> None:
        """Tell an author what became of an envelope that came over ``via``; ``again``: it was told before."""
        self._receipts.setdefault((author, status, via, again), []).append(id)

    def repeat(self, author: PeerKey, id: EnvelopeId, status: Status, link: LinkId) -> None:
        """Tell an author once more, as often as whoever brings its envelope again may make us."""
        self._repeated.setdefault((link, author, status), []).append(id)

    def drop(self, link: LinkId) -> None:
        """A link is gone, and nobody there to tell results to."""
        self._results.pop(link, None)

    def flush_receipts(self, record: bytes, tx: MeshStore, policy: Policy, now: Now, out: list[Effect]) -> bool:
        """Sign and send receipts; return whether some wait in the store for a way.

        ``record`` is our own newest, for those who sealed to a prekey that is gone.
        """
        for (link, author, status), ids in self._repeated.items():
            neighbour = self._neighbours.at(link)
            for start in range(0, len(ids), RECEIPT_IDS_MAX):
                if neighbour is not None and neighbour.repeats.take(now.at):
                    key = (author, status, neighbour.peer, True)
                    self._receipts.setdefault(key, []).extend(ids[start : start + RECEIPT_IDS_MAX])
        self._repeated.clear()
        kept = False
        for (author, status, via, again), ids in self._receipts.items():
            enclosed = record if status is Status.UNOPENABLE else b""
            for start in range(0, len(ids), RECEIPT_IDS_MAX):
                payload = Receipt(status, tuple(ids[start : start + RECEIPT_IDS_MAX]), enclosed).encode()
                header = Header(Kind.RECEIPT, self._signer.key, author, self._entropy(16), ttl_s=TTL_MAX_S)
                envelope = make(header, payload, self._signer)
                neighbour = self._neighbours.find(author)
                if neighbour is not None:
                    out.append(SendEnvelope(neighbour.lane.link, envelope.wire()))
                else:
                    kept |= self._send_back(envelope, via, again, tx, policy, now, out)
        self._receipts.clear()
        return kept

    def _send_back(
        self, receipt: MeshEnvelope, via: PeerKey, again: bool, tx: MeshStore, policy: Policy, now: Now,
        out: list[Effect],
    ) -> bool:  # fmt: skip
        """Send a receipt to an author who is no neighbour, along a way if there is one; return whether it is kept."""
        back = self._forward.way_back(PeerKey(receipt.dst), via, again=again, now=now)
        held: Held | Reason = Reason.FULL
        if tx.usage(Scope.OWN).bytes < policy.limits.own_bytes // 2:
            # Strangers' receipts must leave room for what the owner wants to say.
            held = submit(tx, receipt, policy, now)
        if isinstance(held, Held):
            self._forward.offer(tx, held, now, out, back)
            return True
        if back is not None and back.lane.pace_passed(now.at, len(receipt.wire())):
            out.append(SendEnvelope(back.lane.link, receipt.wire()))
        return False

    def flush_results(self, out: list[Effect]) -> None:
        """Send results."""
        for link, results in self._results.items():
            chunks = (results[start : start + RESULTS_MAX] for start in range(0, len(results), RESULTS_MAX))
            out.extend(SendResults(link, tuple(chunk)) for chunk in chunks)
        self._results.clear()
