"""Two domains, real servers: a message gets there once, and its receipt finds its way back."""

from __future__ import annotations

from pathlib import Path

from tests.federation.villages import DUPLICATE, NORTH, SOUTH, STORED, Villages, scene, until

from quicprochat.core.gate import Reason, Verdict


def test_message_and_receipt_cross_and_copies_go(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada, them.person(SOUTH) as bob:
            await ada.listen()
            letter = ada.letter(bob.key)
            assert await ada.put(letter, domain=SOUTH) == [STORED]
            (arrived,) = await bob.got()
            assert (arrived.id, arrived.hop) == (letter.id, 2)
            await until(lambda: bool(ada.receiver.reports))
            assert ada.receiver.reports == [(letter.id, SOUTH, Verdict.STORED, Reason.NONE)]
            # No hint: the way back is the way it came (rule 28).
            receipt = bob.receipt(ada.key, letter.id)
            assert await bob.put(receipt) == [STORED]
            assert await bob.fetch() == [], "the receipt lets go of the copy that waits for its author"
            await until(lambda: bool(ada.receiver.envelopes))
            assert [one.id for one in ada.receiver.envelopes] == [receipt.id]
            for domain in (NORTH, SOUTH):
                await until(lambda domain=domain: not them.up[domain].store.outgoing_domains())  # type: ignore[misc]
            # Offered again, it is passed on again, and the other side knows it already.
            assert await ada.put(letter, domain=SOUTH) == [STORED]
            await until(lambda: len(ada.receiver.reports) == 2)
            assert ada.receiver.reports[1] == (letter.id, SOUTH, Verdict.DUPLICATE, Reason.NONE)
            assert await bob.fetch() == []
            assert DUPLICATE == (Verdict.DUPLICATE, Reason.NONE)

    scene(tmp_path, NORTH, SOUTH)(scenario)
