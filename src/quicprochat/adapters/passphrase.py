"""Argon2id from libsodium (PyNaCl): makes each guess of a passphrase cost time and memory."""

from __future__ import annotations

from nacl import bindings
from nacl.exceptions import RuntimeError as SodiumRuntimeError

from quicprochat.core.errors import UnavailableError
from quicprochat.core.export import Cost


def stretch(passphrase: bytes, salt: bytes, cost: Cost) -> bytes:
    """Return 32 bytes; lets go of the interpreter lock meanwhile. Raises: UnavailableError when memory is short."""
    try:
        return bindings.crypto_pwhash_alg(
            32, passphrase, salt, cost.ops, cost.mem_kib << 10, bindings.crypto_pwhash_ALG_ARGON2ID13
        )
    except (MemoryError, SodiumRuntimeError) as error:
        raise UnavailableError(
            f"the passphrase needs {cost.mem_kib >> 10} MiB of memory for a moment, and they are not free here"
        ) from error
