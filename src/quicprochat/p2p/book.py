"""The address book: who we are and whom we named, kept in the identity file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from quicprochat.adapters.crypto import Ed25519Signer
from quicprochat.adapters.keyfile import read_keyfile, write_keyfile
from quicprochat.core.address import Address
from quicprochat.core.crypto import Crypto, Entropy
from quicprochat.core.errors import LocalError
from quicprochat.core.identity import (
    KEY_PREFIX_MIN,
    TICKET_PREFIX,
    Contact,
    MeshIdentity,
    Ticket,
    check_name,
    parse_identity,
    parse_key,
)
from quicprochat.core.ids import PeerKey
from quicprochat.core.names import look_alike, skeleton

_HEX = re.compile(r"[0-9a-fA-F]+")
NAMES_COMPARED = 1_000
"""Of so many contacts at most one is looked for whose name is near: a comparison takes some microseconds."""


class AddressBook:
    """Our identity, in memory and on disk; every change is on disk before it counts.

    ``changed`` is called after each. Opening a home without an identity makes one. Raises: LocalError,
    UnavailableError.
    """

    def __init__(self, path: Path, crypto: Crypto, entropy: Entropy) -> None:
        self._path = path
        self._crypto = crypto
        self.changed: Callable[[], None] = lambda: None
        data = read_keyfile(path)
        if data is None:
            seed = entropy(32)
            self.signer = Ed25519Signer(seed)
            self.identity = MeshIdentity(seed, self.signer.key)
            write_keyfile(path, self.identity.to_json())
            return
        try:
            seed, key, name, contacts = parse_identity(data)
        except LocalError as error:
            raise LocalError(f"the identity file {path} cannot be used: {error}", code="home") from None
        self.signer = Ed25519Signer(seed)
        if self.signer.key != key:
            raise LocalError(
                f"the identity file {path} cannot be used: its two keys do not belong together", code="home"
            )
        self.identity = MeshIdentity(seed, key, name, contacts)

    def _keep(self, identity: MeshIdentity) -> None:
        write_keyfile(self._path, identity.to_json())
        self.identity = identity
        self.changed()

    def rename(self, name: str) -> None:
        """Change what we call ourselves. Raises: LocalError."""
        self._keep(replace(self.identity, name=check_name(name)))

    def contact(self, key: PeerKey) -> Contact | None:
        """Return what we noted of a peer."""
        return self.identity.contacts.get(key)

    def add(self, text: str, name: str | None) -> Contact:
        """Add or update a contact from a ticket, a key, or key@ip:port. Raises: LocalError."""
        ticket = _parse_peer(text)
        if ticket.key == self.identity.key:
            raise LocalError("that is your own key; give your ticket to the other person and add theirs")
        if not self._crypto.valid_key(ticket.key):
            raise LocalError("that is not a proper Ed25519 public key; nobody can hold its secret")
        old = self.contact(ticket.key)
        if old is not None and old.blocked:
            raise LocalError("that peer is blocked; unblock it first", code="policy")
        fallback = old.name if old is not None and old.name else ticket.key.hex()[:KEY_PREFIX_MIN]
        contact = Contact(
            ticket.key,
            check_name(name) if name is not None else fallback,
            old.verified if old else False,
            False,
            ticket.addresses or (old.addresses if old else ()),
            ticket.relay or (old.relay if old else ""),
            old.trusted if old else False,
        )
        self._keep(self.identity.with_contact(contact))
        return contact

    def change(self, key: PeerKey, how: Callable[[Contact], Contact]) -> Contact:
        """Change what is noted of a peer. Raises: LocalError."""
        contact = how(self.contact(key) or Contact(key))
        self._keep(self.identity.with_contact(contact))
        return contact

    def find(self, text: str) -> PeerKey | None:
        """Return the contact of exactly this name, or the key that the text is; None for anything else."""
        for contact in self.identity.contacts.values():
            if contact.name and contact.name == text:
                return contact.key
        return parse_key(text)

    def resolve(self, text: str, heard: Iterable[PeerKey], claims: Mapping[PeerKey, str] | None = None) -> PeerKey:
        """Return the one peer that a name, a key, or a beginning of a key means.

        Names are those of contacts; what a peer calls itself (``claims``) never resolves, it is only mentioned.
        ``heard`` are keys of peers that are known without being contacts. Raises: LocalError with code ``not_found``
        or ``ambiguous``.
        """
        if (key := self.find(text)) is not None:
            return key
        contacts = self.identity.contacts
        seen = skeleton(text)
        found = {c.key for c in contacts.values() if seen and c.name and skeleton(c.name) == seen}
        if len(text) >= KEY_PREFIX_MIN and _HEX.fullmatch(text):
            prefix = text.lower()
            found |= {k for k in (*contacts, *heard) if k.hex().startswith(prefix)}
        if len(found) > 1:
            raise LocalError(
                f"{text[:64]!r} can mean {len(found)} peers; write the name as it is in your address book, or more "
                "digits of the key",
                code="ambiguous",
            )
        if not found:
            short = len(text) < KEY_PREFIX_MIN and _HEX.fullmatch(text) and len(text) > 1
            if short and any(key.hex().startswith(text.lower()) for key in (*contacts, *heard)):
                raise LocalError(f"write {KEY_PREFIX_MIN} digits of the key or more, not {text!r}", code="not_found")
            names = [contact.name for contact in contacts.values() if contact.name]
            raise LocalError(_nobody(text, names, claims or {}), code="not_found")
        return found.pop()


def _nobody(text: str, names: Sequence[str], claims: Mapping[PeerKey, str]) -> str:
    claiming = sorted(key.hex()[:16] for key, name in claims.items() if look_alike(name, text))
    near = difflib.get_close_matches(text[:64], names[:NAMES_COMPARED], n=1)
    if not claiming and near:
        return f"no peer is called {text[:64]!r}; did you mean {near[0]}? All: qpc mesh peers"
    if not claiming:
        return f"no peer is called {text[:64]!r}; see: qpc mesh peers, or add one with: qpc mesh add <ticket>"
    if len(claiming) > 1:
        return f"{len(claiming)} strangers call themselves {text[:64]!r}; tell them apart with: qpc mesh peers"
    return (
        f"a stranger with the key {claiming[0]} calls itself {text[:64]!r}; compare digits (qpc verify {claiming[0]}),"
        f" then add it under a name of yours: qpc add {claiming[0]} --name <name>"
    )


def looks_whole(text: str) -> bool:
    """Say whether a text is to be read as a ticket, a whole key, or a key with an address."""
    return text.lower().startswith(TICKET_PREFIX) or "@" in text or parse_key(text) is not None


def lives_at_domain(text: str) -> bool:
    """Say whether a text is ``name@domain``, which only a home server can explain, or ``key@domain``."""
    name, at, place = text.partition("@")
    return bool(at) and (parse_key(name) is None or ":" not in place)


def _parse_peer(text: str) -> Ticket:
    if text.lower().startswith(TICKET_PREFIX):
        return Ticket.parse(text)
    digits, at, address = text.partition("@")
    key = parse_key(digits)
    if key is None:
        raise LocalError("give a ticket (it begins with qpc1), a key of 64 hexadecimal digits, or key@ip:port")
    return Ticket(key, (Address.parse(address),) if at else ())
