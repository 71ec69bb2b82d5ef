"""Any bytes that pass for signed are a record whose body writes exactly these bytes, or a WireError."""

from __future__ import annotations

from fuzz.common import CRYPTO, GULLIBLE, instrumented, run

with instrumented():
    from quicprochat.core.errors import WireError
    from quicprochat.core.record import open_record


def one_input(data: bytes) -> None:
    for crypto in (CRYPTO, GULLIBLE):
        try:
            record = open_record(data, crypto)
        except WireError:
            continue
        assert record.signed == data
        assert record.body() == data[:-64]


if __name__ == "__main__":
    run(one_input)
