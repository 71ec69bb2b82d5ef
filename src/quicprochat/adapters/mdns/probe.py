"""Whether multicast works here: a question to mDNS on each interface, whether it is heard, and who answers.

On sockets of its own beside whatever has port 5353 already (python-zeroconf, Avahi), so that a firewall in the way of
them is in its way too. Source: RFC 6762 §15.1 (shared ports), §5.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from quicprochat.core.announcement import SERVICE
from quicprochat.core.network import Interface

PORT, GROUP, GROUP_6 = 5353, "224.0.0.251", "ff02::fb"
EVERYTHING = "_services._dns-sd._udp.local."
"""What every responder answers (RFC 6763 §9)."""
INTERFACES_MAX = 32
ANSWERERS_MAX = 256
IP_MULTICAST_ALL = 49
"""ip(7): else a socket hears what others have joined on other interfaces."""
PACKET_MAX_BYTES = 9_000
_ANSWER = 0x8000
_PTR, _IN = 12, 1


@dataclass(slots=True)
class Heard:
    """What came of a question on one interface. ``answered`` are IPs; ``ours`` those of them that speak of quicprochat.

    ``trouble`` says why nothing could be sent, "" where that worked.
    """

    interface: Interface
    trouble: str = ""
    itself: bool = False
    """Our own question came back: what others send comes through too, as far as this machine decides."""
    answered: set[str] = field(default_factory=set)
    ours: set[str] = field(default_factory=set)


def question(*names: str) -> bytes:
    """Return a packet that asks for pointers."""
    parts = [struct.pack(">6H", 0, 0, len(names), 0, 0, 0)]
    for name in names:
        labels = [label.encode() for label in name.rstrip(".").split(".")]
        parts += [bytes([len(label)]) + label for label in labels]
        parts.append(b"\0" + struct.pack(">2H", _PTR, _IN))
    return b"".join(parts)


async def ask_all(interfaces: Sequence[Interface], timeout_s: float) -> list[Heard]:
    """Ask on each interface at once, over IPv4 and IPv6 where it has them, and listen for so long."""
    by_link: dict[tuple[int, int], Interface] = {}
    for interface in sorted(interfaces, key=lambda i: not i.link_local):
        if not interface.loopback:
            by_link.setdefault((interface.index, interface.network.version), interface)
    found = [Heard(interface) for interface in list(by_link.values())[:INTERFACES_MAX]]
    own = frozenset(interface.ip for interface in interfaces)
    await asyncio.gather(*(_ask(heard, own, timeout_s) for heard in found))
    return found


async def _ask(heard: Heard, own: frozenset[str], timeout_s: float) -> None:
    loop = asyncio.get_running_loop()
    packet = question(EVERYTHING, SERVICE)
    sock: socket.socket | None = None

    def receive(sock: socket.socket) -> None:
        with suppress(OSError):
            data, sender = sock.recvfrom(PACKET_MAX_BYTES)
            _take(heard, data, str(sender[0]).partition("%")[0], packet, own)

    try:
        sock, group = _open(heard.interface)
        loop.add_reader(sock, receive, sock)
        sock.sendto(packet, group)
        await asyncio.sleep(timeout_s)
    except OSError as error:
        heard.trouble = error.strerror or str(error)
    finally:
        if sock is not None:
            loop.remove_reader(sock)
            sock.close()


def _take(heard: Heard, data: bytes, sender: str, packet: bytes, own: frozenset[str]) -> None:
    if data == packet and sender in own:
        heard.itself = True
    elif len(data) >= 12 and int.from_bytes(data[2:4], "big") & _ANSWER and len(heard.answered) < ANSWERERS_MAX:
        label = SERVICE.partition(".")[0].encode()
        heard.answered.add(sender)
        if bytes([len(label)]) + label in data:
            heard.ours.add(sender)


def _open(interface: Interface) -> tuple[socket.socket, tuple[str, int] | tuple[str, int, int, int]]:
    """Return a socket in the group on one interface, and where to send. Raises: OSError."""
    four = ipaddress.ip_address(interface.ip).version == 4
    sock = socket.socket(socket.AF_INET if four else socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if four:
            ip = socket.inet_aton(interface.ip)
            with suppress(OSError):  # Linux alone has it
                sock.setsockopt(socket.IPPROTO_IP, IP_MULTICAST_ALL, 0)
            sock.bind((GROUP, PORT))
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + ip)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, ip)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
            return sock, (GROUP, PORT)
        index = struct.pack("@I", interface.index)
        group = socket.inet_pton(socket.AF_INET6, GROUP_6)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((GROUP_6, PORT, 0, interface.index))
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + index)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        return sock, (GROUP_6, PORT, 0, interface.index)
    except BaseException:
        sock.close()
        raise
