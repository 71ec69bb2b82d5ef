"""The gate says of any bytes that they are an envelope, unchanged, or why not, and raises nothing."""

from __future__ import annotations

from fuzz.common import ALICE, BOB, CRYPTO, KEYS, PREKEY, instrumented, run

with instrumented():
    from quicprochat.core.channel import SALT_BYTES, BroadcastChannel, Secrets, _aad, _key_and_commitment
    from quicprochat.core.envelope import PAYLOAD_MAX_BYTES, Header, Kind, make
    from quicprochat.core.gate import Checked, Reject, check
    from quicprochat.core.ids import Label
    from quicprochat.core.seal import PAD_LAST_BYTES, _info, _signed, pad


CHANNEL = BroadcastChannel.private(bytes(32))
SECRETS: Secrets = {CHANNEL.id: ((0, CHANNEL.secret),)}


def one_input(data: bytes) -> None:
    judge(data)
    judge(resigned(data))
    if len(data) <= PAYLOAD_MAX_BYTES:
        for kind in (Kind.MESSAGE, Kind.RECEIPT, Kind.CHANNEL):
            assert kind == Kind.RECEIPT or isinstance(judge(signed(kind, data)), Checked)
    if len(data) < PAD_LAST_BYTES - 64:
        judge(sealed(data))
        judge(posted(data))


def judge(data: bytes) -> Checked | Reject:
    answer = check(data, BOB.key, KEYS, CRYPTO, SECRETS)
    if isinstance(answer, Checked):
        assert answer.envelope.wire() == data
        assert answer.opened is None or answer.opened.letter.author == answer.envelope.src
        assert answer.post is None or answer.envelope.dst == CHANNEL.id
        assert answer.record is None or answer.record.key == answer.envelope.src
    return answer


def resigned(data: bytes) -> bytes:
    """The same bytes, as if alice had signed what stands in their core."""
    core = data[:4] + ALICE.key + data[36:134]
    return core + ALICE.sign(Label.ENVELOPE, core) + data[198:]


def signed(kind: int, payload: bytes) -> bytes:
    return make(Header(kind, ALICE.key, BOB.key, bytes(16)), payload, ALICE).wire()


def sealed(inner: bytes) -> bytes:
    """Any inner bytes, properly signed by alice and sealed to bob."""
    header = Header(Kind.MESSAGE, ALICE.key, BOB.key, bytes(16))
    info = _info(header, PREKEY.id, PREKEY.public)
    plain = pad(ALICE.sign(Label.DM_INNER, _signed(info, inner)) + inner)
    return make(header, PREKEY.id + CRYPTO.seal(PREKEY.public, info, plain), ALICE).wire()


def posted(inner: bytes) -> bytes:
    """Any inner bytes, properly sealed into the channel by alice."""
    header = Header(Kind.CHANNEL, ALICE.key, CHANNEL.id, bytes(16))
    salt = bytes(SALT_BYTES)
    key, commitment = _key_and_commitment(header, CHANNEL.secret, 0, salt, CRYPTO)
    ciphertext = CRYPTO.aead_seal(key, pad(inner), _aad(header, commitment))
    return make(header, bytes(4) + salt + commitment + ciphertext, ALICE).wire()


if __name__ == "__main__":
    run(one_input)
