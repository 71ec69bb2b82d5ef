"""Where packets of ours may go: the machine's interfaces, and how far their owner lets the node reach."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from urllib.parse import urlsplit

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

PRIVATE: tuple[IPNetwork, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16",  # RFC 1918
        "100.64.0.0/10",  # RFC 6598: between a provider and its customers; some communities number themselves so
        "169.254.0.0/16", "fe80::/10",  # one link
        "fc00::/7",  # RFC 4193
        "127.0.0.0/8", "::1/128",
    )
)  # fmt: skip
"""Networks that the internet does not route: a community's, a house's, a machine's."""


class Network(Enum):
    """How far a node reaches."""

    LAN = "lan"
    """Nothing outside local networks is contacted, and nothing is asked of DNS."""
    COMMUNITY = "community"
    """Also whatever a person named, and relays of the community where they have local addresses."""
    INTERNET = "internet"
    """Also relays at any address that contacts or the local network name."""


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
    def network(self) -> IPNetwork:
        """The addresses that are on this link."""
        return _network(self.ip, self.prefix)


@lru_cache(maxsize=256)
def _network(ip: str, prefix: int) -> IPNetwork:
    return ipaddress.ip_network(f"{ip}/{prefix}", strict=False)


def is_local(ip: str, interfaces: Iterable[Interface]) -> bool:
    """Say whether an IP address is in a network that the internet does not route, or in one of this machine's own.

    An interface whose prefix is empty says nothing: everything would be local.
    """
    address = ipaddress.ip_address(ip)
    if any(address in network for network in PRIVATE if network.version == address.version):
        return True
    return any(
        address in interface.network
        for interface in interfaces
        if interface.prefix and interface.network.version == address.version
    )


def host_is_local(host: str, interfaces: Iterable[Interface]) -> bool:
    """Say the same of a host as a person writes it; a name never is, since asking DNS leaves the local networks."""
    try:
        ip = str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return False
    return is_local(ip, interfaces)


def relay_host(url: str) -> str:
    """Return the host of a relay's URL, "" where it is none: peers may write there what they like."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.port != 0 and url.isascii() and url.isprintable()
    except ValueError:
        return ""
    return (parts.hostname or "") if good and " " not in url else ""


def relay_is_local(url: str, interfaces: Iterable[Interface]) -> bool:
    """Say the same of a relay's URL."""
    return host_is_local(relay_host(url), interfaces)


def relay_is_allowed(url: str, network: Network, interfaces: Iterable[Interface], *, owner: bool) -> bool:
    """Say whether a relay may be contacted that the ``owner`` named, or else somebody else."""
    if not relay_host(url):
        return False
    if network is Network.INTERNET or relay_is_local(url, interfaces):
        return True
    return network is Network.COMMUNITY and owner
