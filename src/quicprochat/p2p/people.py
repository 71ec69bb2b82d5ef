"""People: whom a word means, who is in the address book, and what is known of everybody met or heard of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from quicprochat.core.address import Address
from quicprochat.core.errors import LocalError
from quicprochat.core.events import HomeNamed
from quicprochat.core.identity import Contact, pair_fingerprint, scan_agrees
from quicprochat.core.ids import PeerKey
from quicprochat.core.record import PeerRecord, reread_verified
from quicprochat.core.records import RECORDS_MAX
from quicprochat.core.store import HOMES_MAX, MeshStore, Sighting, StoredRecord
from quicprochat.core.time import WallTime
from quicprochat.p2p.book import AddressBook, lives_at_domain, looks_whole
from quicprochat.p2p.candidates import Candidate
from quicprochat.p2p.claims import Claims
from quicprochat.p2p.driver import Driver
from quicprochat.p2p.links import Links
from quicprochat.p2p.names import Names
from quicprochat.p2p.views import PeerView


class People:
    """The address book, and strangers, as one list. Its public methods are those of ``P2pNode``, described there.

    ``announced`` are the peers that announce themselves nearby; ``policy_changed`` is called when our owner decided who
    is welcome; ``requests_max`` bounds the strangers that wrote to us.
    """

    def __init__(
        self,
        book: AddressBook,
        driver: Driver,
        links: Links,
        claims: Claims,
        announced: Callable[[], Mapping[PeerKey, Candidate]],
        policy_changed: Callable[[], None],
        requests_max: int,
        names: Names,
    ) -> None:
        self._book = book
        self._driver = driver
        self._links = links
        self._claims = claims
        self._announced = announced
        self._policy_changed = policy_changed
        self._requests_max = requests_max
        self._names = names

    async def resolve(self, peer: str) -> PeerKey:
        """Return the peer that a name, a key or the beginning of a key means. Raises: LocalError, UnavailableError."""
        return (await self.locate(peer))[0]

    async def locate(self, peer: str) -> tuple[PeerKey, str]:
        """Return the peer that a text means, and the domain that is said in it, "" for none. Raises: as above."""
        found = self._book.find(peer)
        if found is None and "@" in peer:
            return await self._names.resolve(peer)
        return found or self._book.resolve(peer, await self._heard(), self._claimed()), ""

    def _claimed(self) -> dict[PeerKey, str]:
        """Return what strangers met in this run call themselves."""
        cards = self._links.cards.values()
        return {card.key: card.name for card in cards if card.name and not self._links.trusted(card.key)}

    async def _heard(self) -> set[PeerKey]:
        def read(store: MeshStore) -> set[PeerKey]:
            records = {r.key for r in store.records(RECORDS_MAX)}
            met = {s.key for s in store.sightings(RECORDS_MAX)}
            return records | met | set(store.requesters(self._requests_max))

        return await self._driver.call(read) | self._links.linked() | self._announced().keys()

    async def add(self, text: str, name: str | None = None) -> PeerView:
        """Add a contact and dial it. Raises: LocalError."""
        domain = ""
        if not looks_whole(text) or lives_at_domain(text):
            key, domain = await self.locate(text)
            text = key.hex()
        contact = self._book.add(text, name)
        await self._name_home(contact.key, domain)
        for card in self._links.cards.values():
            self._claims.heard(card.key, card.name)
        await self._driver.call(lambda store: store.accept(contact.key))
        self._policy_changed()
        self._dial(contact)
        return await self.peer(contact.key)

    async def verify(self, peer: str, *, confirmed: bool = False, scanned: str = "") -> tuple[PeerView, str]:
        """Return a peer and the digits both sides compare, and note that they agree. Raises: LocalError."""
        key, domain = await self.locate(peer)
        await self._name_home(key, domain)
        if scanned and not scan_agrees(scanned, self._book.identity.key, key):
            raise LocalError(
                "what was scanned does not belong to you and this peer: it is another person's screen, or somebody "
                "stands between you; do not trust this key",
                code="untrusted",
            )
        if confirmed or scanned:
            if self._book.contact(key) is None:
                raise LocalError("only a contact can be marked as verified; add it first")
            self._book.change(key, lambda c: replace(c, verified=True))
        return await self.peer(key), pair_fingerprint(self._book.identity.key, key)

    async def _name_home(self, key: PeerKey, domain: str) -> None:
        """Take a person's word, if there is one, for where a peer lives."""
        if domain:
            await self._driver.settle([HomeNamed(key, domain)])

    async def block(self, peer: str, *, blocked: bool = True) -> PeerView:
        """Refuse a peer from now on, or no longer. Raises: LocalError."""
        key = await self.resolve(peer)
        if key == self._book.identity.key:
            raise LocalError("that is your own key")
        # Whoever is blocked and taken in again must be trusted anew.
        contact = self._book.change(key, lambda c: replace(c, blocked=blocked, trusted=c.trusted and not blocked))
        self._policy_changed()
        self._dial(contact)
        return await self.peer(key)

    async def trust(self, peer: str, *, trusted: bool = True) -> PeerView:
        """Take what a contact posts as an emergency for one from now on, or no longer. Raises: LocalError."""
        key = await self.resolve(peer)
        contact = self._book.contact(key)
        if trusted and (contact is None or not contact.name or contact.blocked):
            blocked = contact is not None and contact.blocked
            raise LocalError(
                "that peer is blocked; unblock it first" if blocked
                else "only a contact can be trusted with emergencies; add it first",
                code="policy" if blocked else "usage",
            )  # fmt: skip
        if contact is not None:
            self._book.change(key, lambda c: replace(c, trusted=trusted))
            self._policy_changed()
        return await self.peer(key)

    async def peer(self, key: PeerKey) -> PeerView:
        """Return what is known of one peer."""
        found = [view for view in await self.peers({key}) if view.key == key]
        return found[0]

    async def peers(self, also: Iterable[PeerKey] = ()) -> list[PeerView]:
        """Return contacts, and peers that were met, heard of or are announced here; contacts first."""

        def read(store: MeshStore) -> tuple[dict[PeerKey, PeerRecord], dict[PeerKey, Sighting], dict[PeerKey, str]]:
            records = {r.key: reread_verified(r) for r in store.records(RECORDS_MAX)}
            homes = {h.key: h.domain for h in store.homes(HOMES_MAX)}
            return records, {s.key: s for s in store.sightings(RECORDS_MAX)}, homes

        records, sightings, homes = await self._driver.call(read)
        linked = self._links.linked()
        contacts = self._book.identity.contacts
        announced = self._announced()
        wall = self._driver.now().wall
        keys = {*contacts, *records, *sightings, *linked, *announced, *also} - {self._book.identity.key}
        views = []
        for key in keys:
            contact = contacts.get(key) or Contact(key)
            record = records.get(key)
            seen = sightings.get(key)
            found = announced.get(key)
            heard = (*(found.addresses if found else ()), *(record.addresses if record else ()))
            view = PeerView(
                key, contact.name or (record.name if record else ""), bool(contact.name), contact.verified,
                contact.blocked, key in linked, tuple(dict.fromkeys((*contact.addresses, *heard))),
                homes.get(key) or (record.domain if record else found.domain if found else ""),
                wall if key in linked else seen.wall if seen else WallTime(0), found is not None,
                imitated.name if (imitated := self._claims.imitated(key, record.name if record else "")) else "",
                contact.trusted,
            )  # fmt: skip
            views.append(view)
        return sorted(views, key=lambda v: (not v.contact, not v.linked, v.name, v.key))

    async def learn_known(self) -> None:
        """Dial contacts, and whoever our own messages wait for; others who want us dial us."""

        def read(store: MeshStore) -> tuple[Sequence[StoredRecord], dict[PeerKey, str], set[PeerKey]]:
            records = store.records(RECORDS_MAX)
            worked = {s.key: s.address for s in store.sightings(RECORDS_MAX)}
            return records, worked, {r.key for r in records if store.waiting(r.key, 0, 1)}

        records, worked, waited_for = await self._driver.call(read)
        for key in waited_for:
            self._links.want(key)
        for stored in records:
            if not self._links.wants(stored.key):
                continue
            address = worked.get(stored.key)
            self._links.learn(reread_verified(stored), Address.parse(address) if address else None)
        for contact in self._book.identity.contacts.values():
            self._dial(contact)

    def _dial(self, contact: Contact) -> None:
        card = self._links.cards.get(contact.key)
        if contact.blocked:
            self._links.dialler.forget(contact.key)
        elif card is not None:
            self._links.learn(card)
        elif contact.name:
            self._links.dialler.know(contact.key, contact.addresses, contact.relay, contact=True)
