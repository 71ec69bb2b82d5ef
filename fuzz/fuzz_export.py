"""Any bytes are an exported identity that can be sealed again and then holds the same, or a LocalError."""

from __future__ import annotations

from fuzz.common import instrumented, run

with instrumented():
    from quicprochat.adapters.crypto import SodiumCrypto
    from quicprochat.core.errors import LocalError
    from quicprochat.core.export import COST_MAX, Cost, open_export, seal_export


class Open(SodiumCrypto):
    """Seals nothing, so that what stands behind a passphrase is reached too."""

    def aead_seal(self, key: bytes, plaintext: bytes, aad: bytes) -> bytes:
        return plaintext

    def aead_open(self, key: bytes, ciphertext: bytes, aad: bytes) -> bytes | None:
        return ciphertext


def entropy(count: int) -> bytes:
    return bytes(count)


CRYPTO = Open(entropy)


def stretch(passphrase: bytes, salt: bytes, cost: Cost) -> bytes:
    assert 0 < cost.ops <= COST_MAX.ops
    assert 0 < cost.mem_kib <= COST_MAX.mem_kib
    return bytes(32)


def one_input(data: bytes) -> None:
    try:
        found = open_export(data, b"", stretch, CRYPTO)
    except LocalError:
        return
    assert open_export(seal_export(found, b"", stretch, CRYPTO, entropy), b"", stretch, CRYPTO) == found


if __name__ == "__main__":
    run(one_input)
