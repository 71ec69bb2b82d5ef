"""Any bytes are a post, or what is in one, written again byte for byte, or a WireError; as a payload a post or None."""

from __future__ import annotations

from contextlib import suppress

from fuzz.common import ALICE, CRYPTO, instrumented, run

with instrumented():
    from quicprochat.core.channel import (
        _aad,
        _key_and_commitment,
        check_topic,
        decode_post,
        encode_post,
        open_post,
        post_epoch,
    )
    from quicprochat.core.charter import Charter, Word
    from quicprochat.core.envelope import PAYLOAD_MAX_BYTES, Header, Kind, MeshEnvelope, make
    from quicprochat.core.errors import LocalError, WireError
    from quicprochat.core.rotation import ChannelKey
    from quicprochat.core.seal import unpad

SECRET, SALT = bytes(32), bytes(32)
HEADER = Header(Kind.CHANNEL, ALICE.key, bytes(32), bytes(16))
KEY, COMMITMENT = _key_and_commitment(HEADER, SECRET, 0, SALT, CRYPTO)


def one_input(data: bytes) -> None:
    with suppress(WireError):
        assert encode_post(decode_post(data)) == data
    for body in (Charter, Word, ChannelKey):
        with suppress(WireError):
            assert body.decode(data).encode() == data
    if len(data) <= PAYLOAD_MAX_BYTES:
        assert open_post(enveloped(data), SECRET, CRYPTO) is None
        assert post_epoch(enveloped(data)) == (int.from_bytes(data[:4], "big") if len(data) >= 68 else None)
    sealed = bytes(4) + SALT + COMMITMENT + CRYPTO.aead_seal(KEY, data, _aad(HEADER, COMMITMENT))
    post = open_post(enveloped(sealed), SECRET, CRYPTO)
    assert post is None or encode_post(post) == unpad(data)
    try:
        topic = check_topic(data.decode("utf-8", "surrogateescape"))
    except LocalError:
        return
    assert check_topic(topic) == topic


def enveloped(payload: bytes) -> MeshEnvelope:
    return make(HEADER, payload, ALICE)


if __name__ == "__main__":
    run(one_input)
