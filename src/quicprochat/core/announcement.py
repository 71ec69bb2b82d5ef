"""What a node or a server says of itself on the local network: the TXT record of its mDNS announcement.

Anybody on the link may say anything here. It is a hint where to dial and what to list; who answers there must prove
the key. Source: RFC 6763 §6 (TXT records).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from quicprochat.core.address import Address, check_server
from quicprochat.core.errors import LocalError
from quicprochat.core.ids import PeerKey
from quicprochat.core.seal import DOMAIN_MAX_BYTES

SERVICE = "_quicprochat._udp.local."
VERSION = "1"
TXT_MAX_BYTES = 1_300
"""RFC 6763 §6.2: more does not fit into one packet; ours have about 85 bytes."""
STRINGS_MAX = 64

_HEX_32 = re.compile(r"[0-9a-fA-F]{64}")


class Role(Enum):
    """What announces itself."""

    NODE = "node"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Announcement:
    """The keys of the TXT record; what was not there, or was no such thing, is empty.

    ``server`` is a home server's host:port, ``fp`` the SHA-256 of its certificate's SPKI, ``relay`` the TCP port of the
    relay at the same address.
    """

    role: Role = Role.NODE
    key: PeerKey | None = None
    server: str = ""
    domain: str = ""
    fp: bytes = b""
    relay: int = 0

    def encode(self) -> bytes:
        """Return the TXT record's bytes: strings of ``key=value``, each behind its length. Raises: LocalError."""
        pairs = [("ver", VERSION), ("role", self.role.value)]
        if self.key is not None:
            pairs.append(("id", self.key.hex()))
        pairs += [(key, value) for key, value in (("server", self.server), ("domain", self.domain)) if value]
        if self.fp:
            pairs.append(("fp", self.fp.hex()))
        if self.relay:
            pairs.append(("relay", str(self.relay)))
        strings = [f"{key}={value}".encode() for key, value in pairs]
        if any(len(string) > 255 for string in strings):
            raise LocalError("a server's address or domain is too long to be announced", code="too_long")
        return b"".join(bytes([len(string)]) + string for string in strings)

    @classmethod
    def parse(cls, data: bytes) -> Announcement | None:
        """Read a TXT record; None for another version or role, and for what is far too large. Raises nothing.

        Unknown keys are ignored, missing ones stay empty, and so does a value that is not what its key promises.
        """
        if len(data) > TXT_MAX_BYTES:
            return None
        found = _pairs(data)
        if found.get("ver", VERSION) != VERSION:
            return None
        server = _server(found.get("server", ""))
        try:
            role = Role(found.get("role", (Role.SERVER if server else Role.NODE).value))
        except ValueError:
            return None
        key, domain = _hex(found.get("id", "")), found.get("domain", "")
        if len(domain.encode()) > DOMAIN_MAX_BYTES or not domain.isprintable():
            domain = ""
        fp, relay = _hex(found.get("fp", "")), _port(found.get("relay", ""))
        return cls(role, PeerKey(key) if key else None, server, domain, fp, relay)


@dataclass(frozen=True, slots=True)
class Found:
    """An announced instance. ``name`` is its name in DNS, in lower case; ``addresses`` carry the port of its SRV."""

    name: str
    announcement: Announcement
    addresses: tuple[Address, ...]


def _pairs(data: bytes) -> dict[str, str]:
    """Split a TXT record; of two equal keys the first counts, and upper and lower case are the same."""
    found: dict[str, str] = {}
    at = 0
    for _ in range(STRINGS_MAX):
        if at >= len(data) or at + 1 + (length := data[at]) > len(data):
            break
        name, equals, value = data[at + 1 : at + 1 + length].partition(b"=")
        at += 1 + length
        try:
            found.setdefault(name.decode("ascii").lower(), value.decode() if equals else "")
        except UnicodeDecodeError:
            continue
    return found


def _hex(text: str) -> bytes:
    return bytes.fromhex(text) if _HEX_32.fullmatch(text) else b""


def _server(text: str) -> str:
    try:
        return check_server(text)
    except LocalError:
        return ""


def _port(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    return number if number <= 65535 else 0
