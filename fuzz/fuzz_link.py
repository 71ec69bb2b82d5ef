"""Any stream gives the same frames and the same end however it is cut, and any body is a value or a WireError."""

from __future__ import annotations

from fuzz.common import instrumented, run

with instrumented():
    from quicprochat.core.errors import WireError
    from quicprochat.core.link import (
        ChannelFrame,
        FrameParser,
        FrameType,
        Hello,
        decode_bye,
        decode_interest,
        decode_record,
        decode_results,
        encode_interest,
        encode_record,
    )


def one_input(data: bytes) -> None:
    cut = data[0] if data else 0
    whole = parsed([data])
    assert parsed([data[:cut], data[cut:]]) == whole
    if len(data) <= 512:
        assert parsed([bytes([byte]) for byte in data]) == whole
    for kind, body in whole[0]:
        read(kind, body)


def parsed(pieces: list[bytes]) -> tuple[list[tuple[int, bytes]], bool]:
    parser, frames = FrameParser(), list[tuple[int, bytes]]()
    try:
        for piece in pieces:
            frames.extend(parser.feed(piece))
    except WireError:
        return frames, True
    return frames, False


def read(kind: int, body: bytes) -> None:
    try:
        match kind:
            case FrameType.HELLO:
                hello = Hello.decode(body)
                assert body.startswith(hello.encode())
            case FrameType.RESULTS:
                results = decode_results(body)
                assert [result.id for result in results] == [body[at : at + 32] for at in range(1, len(body), 34)]
            case FrameType.RECORD:
                age, record = decode_record(body)
                assert encode_record(record, age) == body
            case FrameType.INTEREST:
                assert encode_interest(decode_interest(body)) == body
            case FrameType.CHANNEL:
                assert ChannelFrame.decode(body).encode() == body
            case FrameType.BYE:
                code, reason = decode_bye(body)
                assert code == body[0]
                assert len(reason) <= 200
    except WireError:
        return


if __name__ == "__main__":
    run(one_input)
