"""The addresses of this machine's network interfaces."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache

import ifaddr


@dataclass(frozen=True, slots=True, order=True)
class Interface:
    """One address of one interface; ``prefix`` is the length of its network's prefix in bits."""

    index: int
    ip: str
    prefix: int

    @property
    def loopback(self) -> bool:
        """True for an address that no other machine can reach."""
        return ipaddress.ip_address(self.ip).is_loopback

    @property
    def link_local(self) -> bool:
        """True for an address that means nothing without its interface; iroh cannot dial it."""
        return ipaddress.ip_address(self.ip).is_link_local

    @property
    def network(self) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        """The addresses that are on this link."""
        return _network(self.ip, self.prefix)


@lru_cache(maxsize=256)
def _network(ip: str, prefix: int) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(f"{ip}/{prefix}", strict=False)


def interfaces() -> tuple[Interface, ...]:
    """Return every address this machine has now, in a fixed order; none when the system does not tell."""
    found = set()
    try:
        adapters = list(ifaddr.get_adapters())
    except (OSError, AssertionError):  # ifaddr asserts that every address has a netmask
        return ()
    for adapter in adapters:
        for address in adapter.ips:
            ip = address.ip if isinstance(address.ip, str) else address.ip[0]
            found.add(Interface(adapter.index or 0, ip, address.network_prefix))
    return tuple(sorted(found))
