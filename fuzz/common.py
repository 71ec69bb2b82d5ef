"""What the fuzz targets share: atheris, where it is installed, and people with fixed keys.

A target is a file ``fuzz_NAME.py`` with one function ``one_input(data)`` and, in its docstring, one sentence that holds
for any data. ``make fuzz`` runs each for a while; ``tests/unit/test_fuzz_corpus.py`` replays ``corpus/NAME`` without
atheris.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path


def instrumented() -> AbstractContextManager[object]:
    """Within this, imported modules report which branches they take; does nothing unless a target is being run."""
    if not Path(sys.argv[0]).name.startswith("fuzz_"):
        return nullcontext()
    import atheris

    watched: AbstractContextManager[object] = atheris.instrument_imports(include=["quicprochat"])
    return watched


with instrumented():
    from quicprochat.adapters.crypto import Ed25519Signer, SodiumCrypto, X25519Private
    from quicprochat.core.ids import Label
    from quicprochat.core.seal import BOOTSTRAP_ID, Prekey


def no_entropy(count: int) -> bytes:
    raise AssertionError(count)


class Gullible(SodiumCrypto):
    """Believes every signature, so that what stands behind one is reached too."""

    def verify(self, key: bytes, label: Label, message: bytes, signature: bytes) -> bool:
        return True


CRYPTO = SodiumCrypto(no_entropy)
GULLIBLE = Gullible(no_entropy)
ALICE, BOB = (Ed25519Signer(bytes([n]) * 32) for n in range(2))
PRIVATE = X25519Private(bytes(range(32)))
PREKEY = Prekey(PRIVATE.public)
KEYS = {PREKEY.id: PRIVATE, BOOTSTRAP_ID: BOB.exchange_private()}


def run(one_input: Callable[[bytes], None]) -> None:
    """Fuzz until the command line says to stop."""
    import atheris

    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
