"""Any bytes, cut anywhere, are a bundle that is written again byte for byte, or a WireError."""

from __future__ import annotations

from fuzz.common import instrumented, run

with instrumented():
    from quicprochat.core.bundle import BundleReader, BundleWriter
    from quicprochat.core.errors import WireError
    from quicprochat.core.time import Instant, Now, WallTime


def read(*pieces: bytes) -> tuple[int | None, list[bytes]] | None:
    reader = BundleReader()
    found: list[bytes] = []
    try:
        for piece in pieces:
            found += reader.feed(piece)
        reader.finish()
    except WireError:
        return None
    return reader.written_ms, found


def one_input(data: bytes) -> None:
    cut = data[0] if data else 0
    found = read(data)
    assert read(data[:cut], data[cut:]) == found
    if found is None:
        return
    writer, wall = BundleWriter(), WallTime(found[0] or 0)
    pieces = [writer.begin(Now(Instant(0), wall, True)), *(writer.add(wire) for wire in found[1]), writer.end()]
    assert b"".join(pieces) == data


if __name__ == "__main__":
    run(one_input)
