"""Any text is a ticket that is written just so but for capitals, or a LocalError."""

from __future__ import annotations

from contextlib import suppress

from fuzz.common import instrumented, run

with instrumented():
    from quicprochat.core.address import Address
    from quicprochat.core.errors import LocalError
    from quicprochat.core.identity import Ticket, check_name, parse_key


def one_input(data: bytes) -> None:
    # As the shell hands arguments over: what is no UTF-8 becomes halves of characters.
    text = data.decode("utf-8", "surrogateescape")
    with suppress(LocalError):
        assert str(Ticket.parse(text)) == text.lower()
    with suppress(LocalError):
        assert Address.parse(str(Address.parse(text))) == Address.parse(text)
    with suppress(LocalError):
        assert check_name(text) == text
    assert parse_key(text) is None or bytes.fromhex(text) == parse_key(text)


if __name__ == "__main__":
    run(one_input)
