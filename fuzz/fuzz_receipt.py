"""Any bytes are a receipt that writes exactly these bytes, or a WireError."""

from __future__ import annotations

from fuzz.common import instrumented, run

with instrumented():
    from quicprochat.core.errors import WireError
    from quicprochat.core.receipt import Receipt


def one_input(data: bytes) -> None:
    try:
        receipt = Receipt.decode(data)
    except WireError:
        return
    assert receipt.encode() == data


if __name__ == "__main__":
    run(one_input)
