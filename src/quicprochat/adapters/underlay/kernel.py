"""The kernel's table of neighbours: which hardware address an IP address on our links has (rtnetlink(7))."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator

RTM_NEWNEIGH, RTM_GETNEIGH = 28, 30
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_DUMP = 0x01, 0x300
NDA_DST, NDA_LLADDR = 1, 2
PARTS_MAX = 1_024
"""Packets of one answer: 32 MB. The kernel keeps 1,024 neighbours unless told otherwise."""

_HEADER = struct.Struct("=IHHII")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")
_ATTRIBUTE = struct.Struct("=HH")


def neighbours(timeout_s: float = 0.5) -> list[tuple[str, str]]:
    """Return pairs of IP and hardware address; none where the system has no such table."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as kernel:
            kernel.settimeout(timeout_s)
            body = _NEIGHBOUR.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
            header = _HEADER.pack(_HEADER.size + len(body), RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP, 1, 0)
            kernel.send(header + body)
            found: list[tuple[str, str]] = []
            for _ in range(PARTS_MAX):
                data = kernel.recv(1 << 16)
                found += parse_neighbours(data)
                if ended(data):
                    break
            return found
    except (OSError, AttributeError):
        return []


def parse_neighbours(data: bytes) -> list[tuple[str, str]]:
    """Read the neighbours out of one packet of the kernel's."""
    found = []
    for kind, body in _messages(data):
        if kind != RTM_NEWNEIGH:
            continue
        attributes = dict(_attributes(body[_NEIGHBOUR.size :]))
        ip, mac = attributes.get(NDA_DST, b""), attributes.get(NDA_LLADDR, b"")
        if len(ip) in (4, 16) and len(mac) == 6:
            found.append((str(ipaddress.ip_address(ip)), mac.hex(":")))
    return found


def ended(data: bytes) -> bool:
    """Say whether a packet is the last of an answer."""
    return any(kind in (NLMSG_DONE, NLMSG_ERROR) for kind, _ in _messages(data))


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _HEADER.size:
        length, kind, _, _, _ = _HEADER.unpack_from(data)
        if length < _HEADER.size:
            return
        yield kind, data[_HEADER.size : length]
        data = data[(length + 3) & ~3 :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            return
        yield kind, data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]
