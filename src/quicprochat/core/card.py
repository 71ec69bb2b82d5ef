"""Our own peer record and prekeys: when they change, and noticing that somebody else lives under our name."""

from __future__ import annotations

import struct
from dataclasses import replace

from quicprochat.core.crypto import Crypto, Signer
from quicprochat.core.envelope import TTL_MAX_S
from quicprochat.core.events import Alarm, Effect, PrekeysChanged, RecordMade
from quicprochat.core.record import RECORD_LIFETIME_S, PeerRecord, sign_record
from quicprochat.core.seal import Prekey, prekey_id
from quicprochat.core.store import MeshStore, StoredPrekey
from quicprochat.core.time import DAY_MS, HOUR_MS, Instant, Now

ROTATE_MS = DAY_MS
REFRESH_MS = 12 * HOUR_MS
"""A record is signed anew after so long even if nothing changed, so that it never nears its end."""
PREKEY_KEEP_MS = RECORD_LIFETIME_S * 1_000 + TTL_MAX_S * 1_000 + DAY_MS
"""A record may be used until its last day and the message may then travel its whole life: 29 days."""

COUNTER_MAX = 2**63
"""No honest counter comes near; a thief of the key who sends one must not make ours overflow."""

_VERSION = struct.Struct(">QQ")
_VERSION_KEY = "record.version"
_MOVED_KEY = "record.moved"


def record_version(store: MeshStore) -> tuple[int, int]:
    """Return the number of the last record of ourselves that this home made; (1, 0) before the first."""
    stored = store.value(_VERSION_KEY)
    epoch, seq = _VERSION.unpack(stored) if stored else (1, 0)
    return epoch, seq


def mark_moved(tx: MeshStore, version: tuple[int, int]) -> None:
    """Note that this identity came from another home; our records go on above ``version``, the last of that home's."""
    tx.set_value(_VERSION_KEY, _VERSION.pack(version[0] + 1, 0))
    tx.set_value(_MOVED_KEY, b"\x01")


class OwnCard:
    """Keeps the newest record of ourselves, with a persisted version that only grows."""

    def __init__(self, signer: Signer, crypto: Crypto) -> None:
        self._signer = signer
        self._crypto = crypto
        self.record = PeerRecord(signer.key, 1, 0)
        self.made_at = Instant(0)
        self._prekeys: tuple[Prekey, ...] = ()
        self._prekey_made = Instant(0)
        self._moved = False
        self._jumped = False
        self._silenced = False

    def start(self, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        """Take up where the last run ended; a first run makes its first prekey."""
        epoch, seq = record_version(tx)
        self._moved = tx.value(_MOVED_KEY) is not None
        self.record = replace(self.record, epoch=epoch, seq=seq)
        prekeys = tx.prekeys()
        if prekeys:
            public = self._crypto.load_prekey(prekeys[0].secret).public
            self._prekeys, self._prekey_made = (Prekey(public),), prekeys[0].made_at
        self.rotate(tx, now, out)
        out.append(PrekeysChanged())

    def rotate(self, tx: MeshStore, now: Now, out: list[Effect]) -> bool:
        """Make a new prekey once a day of life, and delete those that no message can still need."""
        if self._prekeys and now.at < self._prekey_made + ROTATE_MS:
            return False
        secret, private = self._crypto.new_prekey()
        self._prekeys, self._prekey_made = (Prekey(private.public),), now.at
        tx.put_prekey(StoredPrekey(prekey_id(private.public), secret, now.at))
        tx.drop_prekeys(Instant(now.at - PREKEY_KEEP_MS))
        out.append(PrekeysChanged())
        return True

    def deadline(self) -> Instant:
        """Return when the prekey or the record is due."""
        return Instant(min(self._prekey_made + ROTATE_MS, self.made_at + REFRESH_MS))

    def publish(self, tx: MeshStore, wanted: PeerRecord, now: Now, out: list[Effect]) -> bool:
        """Sign a new record if it would say something new or the last one is old; ``wanted`` gives its words."""
        last = self.record
        new = replace(
            last, name=wanted.name, domain=wanted.domain, relay=wanted.relay, addresses=wanted.addresses,
            features=wanted.features, prekeys=self._prekeys,
        )  # fmt: skip
        due = now.at >= self.made_at + REFRESH_MS or not last.signed
        self.made_at = now.at if due else self.made_at
        if self._silenced or (new == last and not due):
            return False
        epoch, seq = (last.epoch, last.seq + 1) if last.seq < COUNTER_MAX else (last.epoch + 1, 0)
        new = replace(new, epoch=epoch, seq=seq, created_ms=now.wall if now.trusted else 0, signed=b"")
        tx.set_value(_VERSION_KEY, _VERSION.pack(*new.version))
        self.record = replace(new, signed=sign_record(new, self._signer))
        self.made_at = now.at
        out.append(RecordMade(self.record))
        return True

    def heard(self, other: PeerRecord, out: list[Effect]) -> bool:
        """A record under our own key came from outside; return True when a newer one of ours must follow.

        After a restored backup our counter may lag behind: jump past it, once. A second time means that a copy of this
        identity is alive somewhere. Where the identity was moved to, the counter jumped when it came, and already the
        first time means that the old copy is alive. Each is said once.
        """
        if other.version < self.record.version or other.signed == self.record.signed:
            return False
        if self._silenced:
            return False
        if self._jumped or other.epoch >= COUNTER_MAX:
            self._silenced = True
            out.append(
                Alarm(
                    "identity_cloned",
                    "this identity is in use elsewhere too: a copy of its key file is running",
                )
            )
            return False
        self._jumped = True
        if self._moved:
            out.append(
                Alarm(
                    "identity_cloned",
                    "this identity is in use elsewhere too: the copy that it was moved from, or another one, is "
                    "running; stop it, or messages go astray",
                )
            )
        self.record = replace(self.record, epoch=other.epoch, seq=other.seq, signed=b"")
        return True
