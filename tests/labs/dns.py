"""Multicast DNS by hand (RFC 1035, 6762, 6763), for what no honest library sends, and to look without one of ours.

As a program, in the namespace it is to act in:

    python -m tests.labs.dns browse SECONDS          one JSON line: instances seen, with port, TXT and addresses
    python -m tests.labs.dns hear SECONDS            one JSON line: every packet, with its sender
    python -m tests.labs.dns flood COUNT PER_SECOND  announcements of peers that do not exist
    python -m tests.labs.dns send HEX...             these packets
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Sequence
from typing import Any

GROUP, PORT = "224.0.0.251", 5353
SERVICE = "_quicprochat._udp.local."
A, PTR, TXT, AAAA, SRV = 1, 12, 16, 28, 33
FLUSH = 0x8001


def labels(name: str) -> bytes:
    """Write a name out, without compression."""
    parts = [part.encode() for part in name.rstrip(".").split(".")]
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def record(name: str, kind: int, data: bytes, *, ttl: int = 120, flush: bool = True) -> bytes:
    return labels(name) + struct.pack(">HHIH", kind, FLUSH if flush else 1, ttl, len(data)) + data


def announcement(
    instance: str, txt: bytes | None, addresses: Sequence[str], port: int, *, ttl: int = 4_500, host: str = ""
) -> bytes:
    """Return a whole announcement as one packet; ``txt`` None leaves the TXT record out."""
    name, host = f"{instance}.{SERVICE}", host or f"{instance}.local."
    records = [
        record(SERVICE, PTR, labels(name), ttl=ttl, flush=False),
        record(name, SRV, struct.pack(">HHH", 0, 0, port) + labels(host), ttl=ttl),
    ]
    if txt is not None:
        records.append(record(name, TXT, txt, ttl=ttl))
    for text in addresses:
        ip = ipaddress.ip_address(text)
        records.append(record(host, A if ip.version == 4 else AAAA, ip.packed, ttl=ttl))
    return struct.pack(">HHHHHH", 0, 0x8400, 0, len(records), 0, 0) + b"".join(records)


def strings(*pairs: bytes) -> bytes:
    """Return a TXT record's data."""
    return b"".join(bytes([len(pair)]) + pair for pair in pairs)


def question() -> bytes:
    """Ask for all instances of the service."""
    return struct.pack(">HHHHHH", 0, 0, 1, 0, 0, 0) + labels(SERVICE) + struct.pack(">HH", PTR, 1)


def open_socket(interface: str) -> socket.socket:
    """Join the group on the interface with this address."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("", PORT))
    member = socket.inet_aton(GROUP) + socket.inet_aton(interface)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface))
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
    return sock


def own_address() -> str:
    """Return this namespace's address on eth0."""
    for link in json.loads(os.popen("ip -j -4 addr show dev eth0").read()):
        for address in link["addr_info"]:
            return str(address["local"])
    raise SystemExit("no eth0 here")


# --- reading


def read_name(packet: bytes, at: int) -> tuple[str, int]:
    """Return a name and where it ends; follows compression."""
    parts: list[str] = []
    end = 0
    for _ in range(128):
        length = packet[at]
        if length >= 0xC0:
            end = end or at + 2
            at = struct.unpack_from(">H", packet, at)[0] & 0x3FFF
            continue
        at += 1
        if not length:
            break
        parts.append(packet[at : at + length].decode("utf-8", "replace"))
        at += length
    return ".".join(parts) + ".", end or at


def read_answers(packet: bytes) -> list[tuple[str, int, int, Any]]:
    """Return every record of a response: name, type, TTL and content."""
    _, flags, questions, *counts = struct.unpack_from(">HHHHHH", packet)
    at, found = 12, []
    for _ in range(questions):
        _, at = read_name(packet, at)
        at += 4
    for _ in range(sum(counts) if flags & 0x8000 else 0):
        name, at = read_name(packet, at)
        kind, _, ttl, length = struct.unpack_from(">HHIH", packet, at)
        at += 10
        data = packet[at : at + length]
        value: Any = data
        if kind == PTR:
            value = read_name(packet, at)[0]
        elif kind == SRV:
            value = (struct.unpack_from(">HHH", data)[2], read_name(packet, at + 6)[0])
        elif kind in (A, AAAA):
            value = str(ipaddress.ip_address(data))
        elif kind == TXT:
            value = read_strings(data)
        found.append((name, kind, ttl, value))
        at += length
    return found


def read_strings(data: bytes) -> list[str]:
    found, at = [], 0
    while at < len(data):
        found.append(data[at + 1 : at + 1 + data[at]].decode("utf-8", "replace"))
        at += 1 + data[at]
    return found


def browse(seconds: float) -> dict[str, dict[str, Any]]:
    """Ask who is there, and gather what is said until the time is over."""
    sock = open_socket(own_address())
    found: dict[str, dict[str, Any]] = {}
    hosts: dict[str, set[str]] = {}
    end = time.monotonic() + seconds
    asked = 0.0
    while (now := time.monotonic()) < end:
        if now - asked > 1:
            sock.sendto(question(), (GROUP, PORT))
            asked = now
        sock.settimeout(min(0.2, end - now))
        try:
            packet = sock.recv(9_000)
        except TimeoutError:
            continue
        for name, kind, ttl, value in read_answers(packet):
            if not ttl:
                found.pop(value if kind == PTR else name, None)
            elif kind == PTR and name == SERVICE:
                found.setdefault(value, {})
            elif kind == SRV:
                found.setdefault(name, {}).update(port=value[0], host=value[1])
            elif kind == TXT:
                found.setdefault(name, {}).update(txt=value)
            elif kind in (A, AAAA):
                hosts.setdefault(name, set()).add(value)
    for instance in found.values():
        instance["addresses"] = sorted(hosts.get(instance.get("host", ""), ()))
    return found


def hear(seconds: float) -> list[tuple[str, str]]:
    """Return the sender and the content, in hexadecimal digits, of every packet to the group."""
    sock = open_socket(own_address())
    print("listening", flush=True)
    found = []
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            packet, sender = sock.recvfrom(9_000)
        except TimeoutError:
            break
        found.append((str(sender[0]), packet.hex()))
    return found


def flood(count: int, per_s: float) -> float:
    """Announce peers that do not exist, on this link, each with a key and an address of its own; return the seconds."""
    sock = open_socket(own_address())
    began = time.monotonic()
    for n in range(count):
        key = os.urandom(32)
        txt = strings(b"ver=1", b"role=node", b"id=" + key.hex().encode(), b"pad=" + b"x" * 200)
        where = [f"10.97.0.{20 + n % 200}", str(ipaddress.IPv6Address(b"\xfd\x97" + bytes(6) + key[:8]))]
        sock.sendto(announcement(key.hex()[:16], txt, where, 7_000 + n % 50_000), (GROUP, PORT))
        ahead = n / per_s - (time.monotonic() - began)
        if ahead > 0:
            time.sleep(ahead)
    return time.monotonic() - began


def main() -> None:
    match sys.argv[1:]:
        case ["browse", seconds]:
            print(json.dumps(browse(float(seconds))))
        case ["hear", seconds]:
            print(json.dumps(hear(float(seconds))))
        case ["flood", count, per_s]:
            print(json.dumps({"announced": int(count), "seconds": flood(int(count), float(per_s))}))
        case ["send", *packets]:
            sock = open_socket(own_address())
            for packet in packets:
                sock.sendto(bytes.fromhex(packet), (GROUP, PORT))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
