"""What strangers call themselves: nobody passes for a contact by taking, or imitating, that contact's name."""

from __future__ import annotations

from collections.abc import Callable

from quicprochat.core.bucket import TokenBucket
from quicprochat.core.events import Alarm
from quicprochat.core.identity import Contact, MeshIdentity
from quicprochat.core.ids import PeerKey
from quicprochat.core.names import skeleton
from quicprochat.core.time import Instant
from quicprochat.p2p.book import AddressBook

ALARMED_MAX = 1_024
"""Strangers whose claim was told of; a flood of new keys makes us forget the first, and the bucket keeps it quiet."""
BURST, PER_S = 4, 1 / 60
"""Alarms at once, and one a minute after that: new keys cost nothing, a person's attention does."""


class Claims:
    """Watches the names in records; ``alarm`` is told of each key once a run that calls itself like a contact."""

    def __init__(self, book: AddressBook, instant: Callable[[], Instant], alarm: Callable[[Alarm], None]) -> None:
        self._book = book
        self._instant = instant
        self._alarm = alarm
        self._bucket = TokenBucket(BURST, PER_S, instant())
        self._alarmed: dict[PeerKey, PeerKey] = {}
        self._indexed: MeshIdentity | None = None
        self._index: dict[str, Contact] = {}

    def imitated(self, key: PeerKey, name: str) -> Contact | None:
        """Return the contact that a peer's own name would have it taken for, None for contacts themselves."""
        identity = self._book.identity
        contact = identity.contacts.get(key)
        if not name or key == identity.key or (contact is not None and (contact.name or contact.blocked)):
            return None
        if identity is not self._indexed:
            named = (c for c in identity.contacts.values() if c.name and not c.blocked)
            self._indexed, self._index = identity, {skeleton(c.name): c for c in named}
        seen = skeleton(name)
        return self._index.get(seen) if seen else None

    def heard(self, key: PeerKey, name: str) -> None:
        """Take notice of a record; cheap, since floods of records come through here."""
        contact = self.imitated(key, name)
        if contact is None or self._alarmed.get(key) == contact.key or not self._bucket.take(self._instant()):
            return
        self._alarmed[key] = contact.key
        if len(self._alarmed) > ALARMED_MAX:
            del self._alarmed[next(iter(self._alarmed))]
        digits = key.hex()[:16]
        text = (
            f'somebody with another key calls itself "{name}", like your contact "{contact.name}": {digits}; compare '
            f"digits before you believe it (qpc verify {digits})"
        )
        self._alarm(Alarm("name_claimed", text, key))
