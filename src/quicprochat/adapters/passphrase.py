"""Argon2id from libsodium (PyNaCl): makes each guess of a passphrase cost time and memory."""

from __future__ import annotations

import threading

from nacl import bindings
from nacl.exceptions import RuntimeError as SodiumRuntimeError

from quicprochat.core.errors import UnavailableError
from quicprochat.core.export import Cost

_ONE_AT_A_TIME = threading.Lock()


def stretch(passphrase: bytes, salt: bytes, cost: Cost) -> bytes:
    """Return 32 bytes; for threads, one at a time, since each takes so much memory.

    Raises: UnavailableError when memory is short.
    """
    try:
        with _ONE_AT_A_TIME:
            return bindings.crypto_pwhash_alg(
                32, passphrase, salt, cost.ops, cost.mem_kib << 10, bindings.crypto_pwhash_ALG_ARGON2ID13
            )
    except (MemoryError, SodiumRuntimeError) as error:
        raise UnavailableError(
            f"the passphrase needs {cost.mem_kib >> 10} MiB of memory for a moment, and they are not free here"
        ) from error
