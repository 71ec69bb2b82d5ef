"""The addresses of this machine's network interfaces."""

from __future__ import annotations

import socket

import ifaddr

from quicprochat.core.network import Interface


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


def interface_name(index: int) -> str:
    """Return what the system calls an interface, its number where it has no name any more."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return str(index)
