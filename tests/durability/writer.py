"""A bare store, and an identity file, under sustained writing, for power cuts.

``write FILE LOG FULL|NORMAL`` puts messages into the store until it fails and logs each after its commit;
``read FILE`` prints what is there. ``rename FILE LOG`` changes one's own name from n to n + 1 and logs each.
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import Literal

from quicprochat.adapters.crypto import SodiumCrypto
from quicprochat.adapters.sqlite.store import SqliteStore
from quicprochat.adapters.system import entropy
from quicprochat.core.errors import StoreError
from quicprochat.core.ids import EnvelopeId, PeerKey, Uid
from quicprochat.core.receipt import State
from quicprochat.core.seal import Protection
from quicprochat.core.store import Held, Sent
from quicprochat.core.time import Instant, WallTime
from quicprochat.p2p.book import AddressBook

BATCH = 4
FRIEND = PeerKey(bytes(32))
EXPIRES = Instant(1 << 40)


def write(file: str, log: str, synchronous: Literal["FULL", "NORMAL"]) -> int:
    facts = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_DSYNC, 0o600)
    try:
        store = SqliteStore.open(Path(file), synchronous=synchronous)
        while True:
            uids = [Uid(os.urandom(16)) for _ in range(BATCH)]
            store.begin()
            for uid in uids:
                id = EnvelopeId(uid * 2)
                store.hold(Held(id, 1, FRIEND, FRIEND, b"", os.urandom(700), Instant(0), EXPIRES))
                store.put_sent(
                    Sent(uid, FRIEND, "x" * 300, WallTime(0), EXPIRES, 1, State.QUEUED, Protection.PREKEY, id)
                )
            store.commit()
            os.write(facts, "".join(f"{uid.hex()}\n" for uid in uids).encode())
    except StoreError as error:
        print(error, file=sys.stderr)
        return 3


def read(file: str) -> None:
    store = SqliteStore.open(Path(file), ballast_bytes=0)
    assert store._one("PRAGMA integrity_check") == "ok"
    for (uid,) in store._rows("SELECT s.uid FROM sent AS s JOIN held AS h ON h.id = s.envelope_id"):
        print(uid.hex())
    store.close()


def rename(file: str, log: str) -> None:
    facts = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_DSYNC, 0o600)
    book = AddressBook(Path(file), SodiumCrypto(entropy), entropy)
    for n in itertools.count(int(book.identity.name or 0) + 1):
        book.rename(str(n))
        os.write(facts, f"{n}\n".encode())


if __name__ == "__main__":
    if sys.argv[1] == "rename":
        rename(sys.argv[2], sys.argv[3])
    if sys.argv[1] == "write":
        synchronous: Literal["FULL", "NORMAL"] = "FULL" if sys.argv[4] == "FULL" else "NORMAL"
        sys.exit(write(sys.argv[2], sys.argv[3], synchronous))
    read(sys.argv[2])
