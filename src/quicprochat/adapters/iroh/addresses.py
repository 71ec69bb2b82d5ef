"""Socket addresses as iroh takes and gives them."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from quicprochat.core.errors import LocalError

SocketAddress = tuple[str, int]


def sockets(bind: SocketAddress | None) -> tuple[tuple[str, ...], ...]:
    """Return the addresses to open, first choice first. For a family not named, iroh opens the wildcard."""
    if bind is None:
        return ((),)
    try:
        ip, port = ipaddress.ip_address(bind[0]), bind[1]
    except ValueError:
        raise LocalError(f"{bind[0]!r} is not an IP address to bind to") from None
    if not 0 <= port <= 65535:
        raise LocalError(f"{port} is not a port")
    wildcard, loopback = ("::", "::1") if ip.version == 4 else ("0.0.0.0", "127.0.0.1")
    wanted = format_address((str(ip), port))
    other = format_address((wildcard, port) if ip.is_unspecified else (loopback, 0))
    return (wanted, other), (wanted,)  # the second where the other family is absent, or its port taken


def check_relay(url: str) -> None:
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return
    raise LocalError(f"{url[:80]!r} is not a relay URL: write http://host:port")


def dialable(address: SocketAddress) -> bool:
    """Say whether iroh can dial this; link-local it cannot. Raises: LocalError when it is no IP address."""
    ip, port = address
    try:
        return routable(ip) and 1 <= port <= 65535
    except ValueError:
        raise LocalError(f"{ip!r} is not an IP address") from None


def routable(ip: str) -> bool:
    parsed = ipaddress.ip_address(ip)
    return not (parsed.is_unspecified or parsed.is_link_local or parsed.is_multicast)


def unique_local() -> list[str]:
    """Return this machine's lasting fc00::/7 addresses. Source: /proc/net/if_inet6, flags of if_addr.h."""
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        return []
    temporary, failed, deprecated, tentative = 0x01, 0x08, 0x20, 0x40
    found = []
    for line in lines:
        address, _index, _prefix, _scope, flags, *_name = line.split()
        ip = ipaddress.IPv6Address(int(address, 16))
        bad = int(flags, 16) & (temporary | failed | deprecated | tentative)
        if ip.packed[0] & 0xFE == 0xFC and not bad:
            found.append(str(ip))
    return found


def parse(text: str) -> SocketAddress:
    """Read ``ip:port`` or ``[ip]:port`` as iroh writes them."""
    host, _, port = text.rpartition(":")
    return host.strip("[]").partition("%")[0], int(port)


def format_address(address: SocketAddress) -> str:
    ip, port = address
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
