"""Where a peer may be dialled: an IP address and a UDP port. A hint, never a proof of who answers there."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from quicprochat.core.errors import LocalError, WireError
from quicprochat.core.wire import Reader


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """An IPv4 or IPv6 address in its canonical text form, and a port of 1 to 65535."""

    ip: str
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``192.0.2.1:7000`` or ``[2001:db8::1]:7000``. Raises: LocalError."""
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            colon = ""  # a bare IPv6 address: which of its colons would start the port?
        try:
            number = int(port) if colon and port.isascii() and port.isdigit() else -1
            if not 1 <= number <= 65535:
                raise ValueError
            return cls(str(ipaddress.ip_address(host)), number)
        except ValueError:
            raise LocalError(f"{text[:60]!r} is not an address: write ip:port, as in 192.0.2.1:7000") from None

    def encode(self) -> bytes:
        """Return ``family 1 (4 or 6) || ip 4 or 16 || port 2``."""
        ip = ipaddress.ip_address(self.ip)
        return bytes([ip.version]) + ip.packed + self.port.to_bytes(2, "big")

    @classmethod
    def decode(cls, reader: Reader) -> Address:
        """Read one encoded address. Raises: WireError."""
        family = reader.uint(1)
        if family not in (4, 6):
            raise WireError(f"an address of unknown family {family}")
        ip = ipaddress.ip_address(reader.take(4 if family == 4 else 16))
        port = reader.uint(2)
        if not port:
            raise WireError("an address with port 0")
        return cls(str(ip), port)


_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
HOST_MAX_CHARS = 253


def check_server(text: str) -> str:
    """Return ``host:port`` of a home server: a DNS name, an IPv4 address, or an IPv6 one in brackets.

    Raises: LocalError.
    """
    host, _, port = text.rpartition(":")
    if port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535:
        if host.startswith("[") and host.endswith("]") and "%" not in host:
            try:
                return str(Address(str(ipaddress.IPv6Address(host[1:-1])), int(port)))
            except ValueError:
                pass
        elif len(host) <= HOST_MAX_CHARS and _HOST.fullmatch(host):
            return f"{host.lower()}:{int(port)}"
    raise LocalError(f"{text[:60]!r} is no server: write host:port, as in mesh.example.org:7000")


def split_server(text: str) -> tuple[str, int]:
    """Return the host and the port of a checked ``host:port``."""
    host, _, port = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def encode_addresses(addresses: tuple[Address, ...], limit: int) -> bytes:
    """Return ``count 1 || addresses``; what exceeds ``limit`` is left out, since addresses are hints."""
    kept = addresses[:limit]
    return bytes([len(kept)]) + b"".join(address.encode() for address in kept)


def decode_addresses(reader: Reader, limit: int) -> tuple[Address, ...]:
    """Read ``count 1 || addresses``. Raises: WireError."""
    count = reader.uint(1)
    if count > limit:
        raise WireError(f"{count} addresses where {limit} are allowed")
    return tuple(Address.decode(reader) for _ in range(count))
