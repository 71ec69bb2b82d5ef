"""Any bytes are a letter that reads back the same, or a WireError; as padding, themselves or a WireError."""

from __future__ import annotations

from fuzz.common import instrumented, run

with instrumented():
    from quicprochat.core.errors import WireError
    from quicprochat.core.seal import decode_letter, encode_letter, pad, unpad


def one_input(data: bytes) -> None:
    read(data)
    try:
        content = unpad(data)
    except WireError:
        return
    assert pad(content) == data
    read(content[64:])


def read(inner: bytes) -> None:
    try:
        letter = decode_letter(inner)
    except WireError:
        return
    again = encode_letter(letter)
    # A reply prekey is ignored, so it is all that may differ.
    assert again == inner[:33] + bytes(40) + inner[73:]
    assert decode_letter(again) == letter


if __name__ == "__main__":
    run(one_input)
