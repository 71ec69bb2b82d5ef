"""What the machine allows at best: the cryptography of one message on one core, and bare synced rows in SQLite."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable

import apsw

from quicprochat.adapters.crypto import Ed25519Signer, SodiumCrypto
from quicprochat.adapters.system import entropy
from quicprochat.core.envelope import Header, Kind, MeshEnvelope, make
from quicprochat.core.ids import Label, Uid
from quicprochat.core.seal import Letter, Prekey, open_sealed, seal

TABLE = "CREATE TABLE t(id BLOB PRIMARY KEY, body BLOB)"


def rate(work: Callable[[], object], seconds: float = 0.5) -> float:
    """Return how often a second ``work`` runs, the best of three tries."""
    best = 0.0
    for _ in range(3):
        done, start = 0, time.perf_counter()
        while (spent := time.perf_counter() - start) < seconds / 3:
            work()
            done += 1
        best = max(best, done / spent)
    return best


def crypto_limits(text: str) -> dict[str, float]:
    """Return rates a core: seal and sign at the author, verify and open at the recipient; and the slower of both."""
    crypto = SodiumCrypto(entropy)
    author, reader = Ed25519Signer(os.urandom(32)), Ed25519Signer(os.urandom(32))
    _, private = crypto.new_prekey()
    prekey = Prekey(private.public)

    def write() -> MeshEnvelope:
        header = Header(Kind.MESSAGE, author.key, reader.key, os.urandom(16))
        letter = Letter(author.key, Uid(os.urandom(16)), text)
        return make(header, seal(header, prekey, letter, crypto, author), author)

    envelope = write()

    def read() -> None:
        assert crypto.verify(envelope.src, Label.ENVELOPE, envelope.core, envelope.signature)
        assert open_sealed(envelope, {prekey.id: private}, crypto)

    seal_s, open_s = rate(write), rate(read)
    return {"seal_s": seal_s, "open_s": open_s, "two_process_messages_s": min(seal_s, open_s)}


def verify_us() -> float:
    """Return the microseconds one core takes at its best now to check one signature, as every envelope needs.

    Put beside a figure it tells how quick the machine was just then: a virtual one may be half as quick after a minute
    of work as it was after a rest.
    """
    crypto, signer = SodiumCrypto(entropy), Ed25519Signer(os.urandom(32))
    message = bytes(800)
    signature = signer.sign(Label.ENVELOPE, message)
    return 1e6 / rate(lambda: crypto.verify(signer.key, Label.ENVELOPE, message, signature))


def store_limits(directory: str | None = None) -> dict[str, float]:
    """Return bare inserts of 800 bytes a second, WAL and FULL: one row a transaction, and 64."""
    out = {}
    with tempfile.TemporaryDirectory(dir=directory) as base:
        for rows in (1, 64):
            db = apsw.Connection(f"{base}/{rows}.db")
            for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", TABLE):
                db.execute(statement).fetchall()

            def insert(db: apsw.Connection = db, rows: int = rows) -> None:
                with db:
                    db.executemany("INSERT INTO t VALUES(?, ?)", ((os.urandom(32), bytes(800)) for _ in range(rows)))

            out[f"sqlite_full_{rows}_rows_s"] = rows * rate(insert)
            db.close()
    return out


if __name__ == "__main__":
    json.dump({**crypto_limits("x" * 300), "verify_us": verify_us(), **store_limits()}, sys.stdout, indent=2)
    print()
