"""MeshIdentity: the key that is a peer, and the people its owner has named.

Pure values and their JSON form; the adapter ``keyfile`` puts them on disk. What is merely heard of lives in the
database, so this file changes only when a person changes something.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from quicprochat.core.address import Address, decode_addresses, encode_addresses
from quicprochat.core.errors import LocalError, WireError
from quicprochat.core.ids import KEY_BYTES, Label, PeerKey, labelled_hash
from quicprochat.core.names import skeleton
from quicprochat.core.record import ADDRESSES_MAX, NAME_MAX_BYTES, RELAY_MAX_BYTES
from quicprochat.core.wire import Reader, utf8

FILE_VERSION = 1
FILE_MAX_BYTES = 4 * 1024 * 1024
CONTACTS_MAX = 10_000
GROUPS = 6
GROUP_DIGITS = 5
TICKET_PREFIX = "qpc1"
TICKET_MAX_CHARS = 1_000
KEY_PREFIX_MIN = 8

_HEX_KEY = re.compile(r"[0-9a-fA-F]{64}")


def fingerprint(key: bytes) -> str:
    """Return one key's 30 digits in six groups, to be read aloud and compared."""
    digest = labelled_hash(Label.FINGERPRINT, key)
    groups = (int.from_bytes(digest[5 * n : 5 * n + 5], "big") % 10**GROUP_DIGITS for n in range(GROUPS))
    return " ".join(f"{group:0{GROUP_DIGITS}d}" for group in groups)


def pair_fingerprint(one: bytes, other: bytes) -> str:
    """Return the 60 digits of two keys, the same on both sides: both keys' own digits in the order of the keys."""
    first, second = sorted((one, other))
    return f"{fingerprint(first)} {fingerprint(second)}"


def scan_agrees(scanned: str, own: PeerKey, peer: PeerKey) -> bool:
    """Say whether what was scanned at the peer's side belongs to the two of us.

    It is the pair's 60 digits, the peer's own 30, or the peer's ticket. Raises: LocalError when it is none of these.
    """
    if scanned.strip().lower().startswith(TICKET_PREFIX):
        return Ticket.parse(scanned.strip()).key == peer
    digits = re.sub(r"[\s.-]", "", scanned)
    if digits.isascii() and digits.isdigit():
        if len(digits) == 2 * GROUPS * GROUP_DIGITS:
            return digits == pair_fingerprint(own, peer).replace(" ", "")
        if len(digits) == GROUPS * GROUP_DIGITS:
            return digits == fingerprint(peer).replace(" ", "")
    raise LocalError("what was scanned is neither the 60 digits of two peers, nor the 30 of one, nor a ticket")


@dataclass(frozen=True, slots=True)
class Contact:
    """A person the owner has named (or blocked): the name is the owner's, not the peer's own.

    ``trusted``: what this person posts as an emergency is taken for one.
    """

    key: PeerKey
    name: str = ""
    verified: bool = False
    blocked: bool = False
    addresses: tuple[Address, ...] = ()
    relay: str = ""
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class Ticket:
    """What one person hands another to be found: key, addresses, relay; short enough to be pasted or scanned."""

    key: PeerKey
    addresses: tuple[Address, ...] = ()
    relay: str = ""

    def __str__(self) -> str:
        relay = utf8(self.relay, "the relay address")
        body = self.key + bytes([len(relay)]) + relay + encode_addresses(self.addresses, ADDRESSES_MAX)
        check = labelled_hash(Label.TICKET, body)[:4]
        return TICKET_PREFIX + base64.b32encode(body + check).decode("ascii").rstrip("=").lower()

    @classmethod
    def parse(cls, text: str) -> Ticket:
        """Read a ticket; the checksum catches a typing error. Raises: LocalError."""
        try:
            text = text.lower() if text.isascii() else ""
            if not text.startswith(TICKET_PREFIX) or len(text) > TICKET_MAX_CHARS:
                raise WireError("not a ticket")
            code = text[len(TICKET_PREFIX) :].upper()
            data = base64.b32decode(code + "=" * (-len(code) % 8))
            body, check = data[:-4], data[-4:]
            if labelled_hash(Label.TICKET, body)[:4] != check:
                raise WireError("wrong checksum")
            reader = Reader(body, "a ticket")
            key = PeerKey(reader.take(KEY_BYTES))
            relay = reader.text(1, RELAY_MAX_BYTES)
            addresses = decode_addresses(reader, ADDRESSES_MAX)
            reader.end()
            ticket = cls(key, addresses, relay)
            if str(ticket) != text:
                raise WireError("not how this ticket is written")
        except (WireError, ValueError):
            raise LocalError("this ticket is damaged: copy the whole of it once more") from None
        return ticket


def parse_key(text: str) -> PeerKey | None:
    """Return the key that 64 hexadecimal digits name, or None."""
    return PeerKey(bytes.fromhex(text)) if _HEX_KEY.fullmatch(text) else None


def check_name(name: str) -> str:
    """Return a name fit for a contact or for oneself. Raises: LocalError with what is wrong."""
    size = len(utf8(name, "the name"))
    if size > NAME_MAX_BYTES:
        raise LocalError(f"a name has at most {NAME_MAX_BYTES} bytes; this one has {size}")
    if not skeleton(name) or name != name.strip() or not name.isprintable():
        raise LocalError("a name is one line of visible characters without spaces at its ends")
    if "@" in name or name.startswith(("/", "#", "-", TICKET_PREFIX)) or _HEX_KEY.fullmatch(name):
        raise LocalError(
            f"the name {name!r} could be taken for a command, a ticket, a key or an address; choose another"
        )
    return name


@dataclass(frozen=True, slots=True)
class MeshIdentity:
    """A self-made identity: 32 secret bytes are all of it. No account, no password, no service."""

    seed: bytes = field(repr=False)
    key: PeerKey
    name: str = ""
    contacts: Mapping[PeerKey, Contact] = field(default_factory=dict)

    def with_contact(self, contact: Contact) -> MeshIdentity:
        """Return the identity with this contact added or replaced.

        Raises: LocalError when the name is another's, or looks like it (code ``untrusted``), or the book is full.
        """
        old = self.contacts.get(contact.key)
        namesake = self.called(contact.name) if old is None or old.name != contact.name else None
        if namesake is not None and namesake.key != contact.key:
            digits = namesake.key.hex()[:16]
            raise LocalError(
                f"{namesake.name!r} is already the name of a contact with another key ({digits}): this may be somebody "
                "else. Choose another name; or, if that person proves to have a new key, first rename the old contact: "
                f"qpc add {digits} --name <other name>",
                code="untrusted",
            )
        if contact.key not in self.contacts and len(self.contacts) >= CONTACTS_MAX:
            raise LocalError(f"the address book holds {CONTACTS_MAX} contacts and is full", code="full")
        return replace(self, contacts={**self.contacts, contact.key: contact})

    def called(self, name: str) -> Contact | None:
        """Return the contact of this name, or else one whose name looks like it."""
        named = [contact for contact in self.contacts.values() if contact.name]
        exact = next((contact for contact in named if contact.name == name), None)
        seen = skeleton(name)
        return exact or next((contact for contact in named if seen and skeleton(contact.name) == seen), None)

    def known(self) -> frozenset[PeerKey]:
        """Return the keys whose mail is welcome."""
        return frozenset(key for key, contact in self.contacts.items() if contact.name and not contact.blocked)

    def blocked(self) -> frozenset[PeerKey]:
        """Return the keys whose mail and links are refused."""
        return frozenset(key for key, contact in self.contacts.items() if contact.blocked)

    def trusted(self) -> frozenset[PeerKey]:
        """Return the keys whose emergencies are taken for such."""
        return frozenset(key for key, contact in self.contacts.items() if contact.trusted and not contact.blocked)

    def to_json(self) -> bytes:
        """Return the file's bytes."""
        contacts = [
            {
                "public_key": c.key.hex(),
                "name": c.name,
                "verified": c.verified,
                "blocked": c.blocked,
                "trusted": c.trusted,
                "addresses": [str(a) for a in c.addresses],
                "relay": c.relay,
            }
            for c in sorted(self.contacts.values(), key=lambda c: (c.name, c.key))
        ]
        document = {
            "version": FILE_VERSION,
            "secret_key": self.seed.hex(),
            "public_key": self.key.hex(),
            "name": self.name,
            "contacts": contacts,
        }
        return json.dumps(document, indent=2, ensure_ascii=False).encode("utf-8") + b"\n"


def parse_identity(data: bytes) -> tuple[bytes, PeerKey, str, dict[PeerKey, Contact]]:
    """Read the identity file's bytes: seed, public key, own name, contacts.

    The caller derives the public key from the seed and compares. Raises: LocalError, naming what is wrong.
    """
    if len(data) > FILE_MAX_BYTES:
        raise LocalError(f"it has {len(data)} bytes, more than the {FILE_MAX_BYTES} an identity can need")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise LocalError("it is not whole: the JSON in it ends early or is damaged") from None
    try:
        return _read_document(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LocalError(f"a field in it is missing or wrong ({error})") from None


def _read_document(document: Any) -> tuple[bytes, PeerKey, str, dict[PeerKey, Contact]]:
    if document["version"] != FILE_VERSION:
        raise ValueError(f"version {document['version']!r}, this program reads {FILE_VERSION}")
    seed = bytes.fromhex(document["secret_key"])
    key = parse_key(document["public_key"])
    if len(seed) != KEY_BYTES or key is None:
        raise ValueError("a key has not 64 hexadecimal digits")
    contacts = [_read_contact(entry) for entry in document["contacts"]]
    if len(contacts) > CONTACTS_MAX:
        raise ValueError(f"more than {CONTACTS_MAX} contacts")
    return seed, key, _text(document["name"]), {contact.key: contact for contact in contacts}


def _read_contact(entry: Any) -> Contact:
    key = parse_key(entry["public_key"])
    if key is None:
        raise ValueError("a contact without a key")
    addresses = tuple(Address.parse(_text(text)) for text in entry["addresses"])
    return Contact(
        key, _text(entry["name"]), _flag(entry["verified"]), _flag(entry["blocked"]), addresses, _text(entry["relay"]),
        _flag(entry.get("trusted", False)),  # a file of an older version has no such key
    )  # fmt: skip


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} where a text belongs")
    utf8(value, "a text")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r:.40} where true or false belongs")
    return value
