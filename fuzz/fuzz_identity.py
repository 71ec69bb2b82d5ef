"""Any bytes are an identity file that can be written again and then reads the same, or a LocalError."""

from __future__ import annotations

from fuzz.common import instrumented, run

with instrumented():
    from quicprochat.core.errors import LocalError
    from quicprochat.core.identity import MeshIdentity, parse_identity


def one_input(data: bytes) -> None:
    try:
        found = parse_identity(data)
    except LocalError:
        return
    assert parse_identity(MeshIdentity(*found).to_json()) == found


if __name__ == "__main__":
    run(one_input)
