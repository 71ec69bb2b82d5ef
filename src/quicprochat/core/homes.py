"""Where peers live: the domain of the home server that keeps a peer's mail, as far as it is known.

Three say so: our own person, who typed ``name@domain``; the peer's signed record; and what the peer wrote inside the
seal of a message. The latest word counts, and among records the higher number. A domain is a hint for carriers, never
a proof: a wrong one sends mail the wrong way for a while, and whoever has it there cannot read it.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from quicprochat.core.domain import is_domain
from quicprochat.core.ids import PeerKey
from quicprochat.core.record import PeerRecord
from quicprochat.core.store import Home, HomeSource, MeshStore
from quicprochat.core.time import Instant


def domain_name(text: str) -> str:
    """Return a domain as it is compared, in lower case without a last dot; "" for what is none."""
    name = text.lower().removesuffix(".") if text.isascii() else ""
    return name if is_domain(name) else ""


class Homes:
    """Weighs what is said of peers' homes and keeps the best; remembers, until asked, whose has changed."""

    def __init__(self) -> None:
        self._moved: set[PeerKey] = set()

    def take_moved(self) -> set[PeerKey]:
        """Return whose home is another one since the last time this was asked."""
        moved, self._moved = self._moved, set()
        return moved

    def named(self, tx: MeshStore, key: PeerKey, domain: str, now: Instant, contacts: AbstractSet[PeerKey]) -> None:
        """Our person says where a peer lives: believed until the peer itself says later that it moved."""
        domain = domain_name(domain)
        known = tx.home(key)
        if domain and (known is None or (known.domain, known.source) != (domain, HomeSource.PERSON)):
            epoch, seq = _version(tx, key, known)
            self._keep(tx, Home(key, domain, HomeSource.PERSON, epoch, seq, now), known, contacts)

    def recorded(
        self, tx: MeshStore, record: PeerRecord, age_ms: int, now: Instant, contacts: AbstractSet[PeerKey]
    ) -> None:
        """A peer's newest record is here. One without a domain says nothing: perhaps no server was met yet."""
        domain = domain_name(record.domain)
        known = tx.home(record.key)
        if domain and (known is None or record.version > known.version):
            signed_at = Instant(now - age_ms)
            home = Home(record.key, domain, HomeSource.RECORD, record.epoch, record.seq, signed_at)
            self._keep(tx, home, known, contacts)

    def lettered(
        self, tx: MeshStore, key: PeerKey, domain: str, age_ms: int, now: Instant, contacts: AbstractSet[PeerKey]
    ) -> None:
        """A message of a peer, of this age, names its author's home."""
        domain = domain_name(domain)
        known, written_at = tx.home(key), Instant(now - age_ms)
        if domain and (known is None or (known.domain != domain and written_at > known.at)):
            epoch, seq = _version(tx, key, known)
            self._keep(tx, Home(key, domain, HomeSource.LETTER, epoch, seq, written_at), known, contacts)

    def _keep(self, tx: MeshStore, home: Home, known: Home | None, contacts: AbstractSet[PeerKey]) -> None:
        tx.put_home(home, contacts)
        if known is None or known.domain != home.domain:
            self._moved.add(home.key)


def _version(tx: MeshStore, key: PeerKey, known: Home | None) -> tuple[int, int]:
    """Return the number of the newest record that is known: only one with a higher number says something new."""
    stored = tx.record(key)
    return max(known.version if known is not None else (0, 0), stored.version if stored is not None else (0, 0))
