"""The code on the screen is the code that was asked for, module by module."""

from __future__ import annotations

import pytest
import segno

from quicprochat.client.qr import BORDER, qr_text

DATA = ["1" * 60, "QPC1" + "A7" * 60, "x"]


def dark(lines: list[str], width: int) -> list[list[bool]]:
    """Read half blocks back, as a camera does: what is drawn is light."""
    rows = []
    for line in lines:
        padded = line.ljust(width)
        rows.append([letter not in "█▀" for letter in padded])
        rows.append([letter not in "█▄" for letter in padded])
    return rows


@pytest.mark.parametrize("data", DATA)
def test_half_blocks_show_every_module(data: str) -> None:
    wanted = [
        [bool(module) for module in row] for row in segno.make(data, micro=False, error="m").matrix_iter(border=BORDER)
    ]
    width = len(wanted[0])
    lines = qr_text(data, "utf-8").splitlines()
    assert dark(lines, width)[: len(wanted)] == wanted
    assert len(lines) == (len(wanted) + 1) // 2


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "no such encoding"])
def test_a_terminal_without_blocks_gets_plain_letters(encoding: str) -> None:
    wanted = [
        [bool(module) for module in row]
        for row in segno.make("1" * 60, micro=False, error="m").matrix_iter(border=BORDER)
    ]
    text = qr_text("1" * 60, encoding)
    assert set(text) <= set("# \n")
    lines = [line.ljust(2 * len(wanted)) for line in text.splitlines()]
    assert [[line[2 * n : 2 * n + 2] == "  " for n in range(len(wanted))] for line in lines] == wanted


def test_a_ticket_fits_a_small_terminal() -> None:
    """Eighty columns; a ticket in capitals takes fewer modules than one in small letters."""
    from quicprochat.core.address import Address
    from quicprochat.core.identity import Ticket
    from quicprochat.core.ids import PeerKey

    ticket = str(Ticket(PeerKey(b"k" * 32), tuple(Address(f"2001:db8::{n}", 7_000) for n in range(1, 5))))
    assert max(map(len, qr_text(ticket.upper(), "utf-8").splitlines())) <= 79
