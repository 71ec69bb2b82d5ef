"""Receipts, and what a message may become."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from quicprochat.core.errors import WireError
from quicprochat.core.ids import EnvelopeId
from quicprochat.core.receipt import MAY_BECOME, OPEN_STATES, RECEIPT_IDS_MAX, Receipt, State, Status
from quicprochat.core.record import RECORD_MAX_BYTES

PROTOCOL = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"


def ids(count: int) -> tuple[EnvelopeId, ...]:
    return tuple(EnvelopeId(bytes([n]) * 32) for n in range(count))


def test_the_payload_is_as_specified() -> None:
    receipt = Receipt(Status.UNOPENABLE, ids(2), b"record")
    assert receipt.encode() == b"\x01\x03\x02" + bytes(32) + b"\x01" * 32 + b"\x00\x06record"
    assert Receipt.decode(receipt.encode()) == receipt


def test_the_numbers_of_the_statuses_are_published() -> None:
    assert {status.name: status.value for status in Status} == {
        "DELIVERED": 1, "DELIVERED_VOLATILE": 2, "UNOPENABLE": 3, "REFUSED": 4,
    }  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 63, 64])
def test_a_receipt_answers_up_to_64_envelopes(count: int) -> None:
    assert Receipt.decode(Receipt(Status.DELIVERED, ids(count)).encode()).ids == ids(count)


@pytest.mark.parametrize("count", [0, 65, 255])
def test_no_envelope_or_too_many_is_refused(count: int) -> None:
    with pytest.raises(WireError, match=f"1 to {RECEIPT_IDS_MAX} are allowed"):
        Receipt.decode(bytes([1, 1, count]) + bytes(32) * count + bytes(2))
    with pytest.raises(AssertionError):
        Receipt(Status.DELIVERED, ids(1) * count).encode()


@pytest.mark.parametrize("version", [0, 2, 255])
def test_an_unknown_version_is_refused(version: int) -> None:
    with pytest.raises(WireError, match="version"):
        Receipt.decode(bytes([version]) + Receipt(Status.DELIVERED, ids(1)).encode()[1:])


@pytest.mark.parametrize("status", [0, 5, 255])
def test_an_unknown_status_is_refused(status: int) -> None:
    with pytest.raises(WireError, match="status"):
        Receipt.decode(bytes([1, status]) + Receipt(Status.DELIVERED, ids(1)).encode()[2:])


def test_every_truncation_and_every_byte_too_many_is_refused() -> None:
    whole = Receipt(Status.DELIVERED, ids(2), b"record").encode()
    for size in range(len(whole)):
        with pytest.raises(WireError):
            Receipt.decode(whole[:size])
    with pytest.raises(WireError, match="after its end"):
        Receipt.decode(whole + b"\x00")


def test_a_record_too_long_is_refused_before_it_is_read() -> None:
    fits = Receipt(Status.UNOPENABLE, ids(1), bytes(RECORD_MAX_BYTES))
    assert Receipt.decode(fits.encode()) == fits
    with pytest.raises(WireError, match="where 2048 are allowed"):
        Receipt.decode(Receipt(Status.UNOPENABLE, ids(1)).encode()[:-2] + b"\x08\x01")


# --- states


def test_delivered_is_final_and_every_other_state_may_still_become_it() -> None:
    assert MAY_BECOME[State.DELIVERED] == frozenset()
    assert all(State.DELIVERED in MAY_BECOME[state] for state in State if state is not State.DELIVERED)


def test_no_message_becomes_queued_again_or_what_it_is() -> None:
    assert all(State.QUEUED not in after and state not in after for state, after in MAY_BECOME.items())


def test_what_ended_without_proof_becomes_delivered_or_stays() -> None:
    for state in (State.EXPIRED, State.FAILED, State.CANCELLED):
        assert MAY_BECOME[state] == {State.DELIVERED}
        assert state not in OPEN_STATES


def test_open_states_may_end_in_every_way() -> None:
    ends = frozenset(State) - OPEN_STATES
    assert {State.QUEUED, State.RELAYED} == OPEN_STATES
    assert all(ends <= MAY_BECOME[state] for state in OPEN_STATES)


def test_the_table_in_the_protocol_document_is_the_one_in_the_code() -> None:
    lines = PROTOCOL.read_text("utf-8").splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("| from \\ to |"))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start : start + 2 + len(State)]]
    columns = [State(word) for word in rows[0][1:]]
    told = {State(row[0]): {to for to, cell in zip(columns, row[1:], strict=True) if cell == "yes"} for row in rows[2:]}
    assert told == MAY_BECOME
    assert set(re.findall(r"yes|\w+", " ".join(cell for row in rows[2:] for cell in row[1:]))) == {"yes"}
