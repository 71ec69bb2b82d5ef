"""Two houses behind a router each, and between them a public segment with one machine on it: the lab for NATs.

house a   192.168.1.2 - 192.168.1.1 [router a] 203.0.113.10 -+- 203.0.113.1   hub
                                                             +- 203.0.113.2   spare
house b   192.168.2.2 - 192.168.2.1 [router b] 203.0.113.20 -+
"""

from __future__ import annotations

import contextlib
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from tests.labs.bridge import sh

HUB, SPARE = "203.0.113.1", "203.0.113.2"


@dataclass(frozen=True)
class Houses:
    """The names of the namespaces; ``street`` has the bridge of the public segment."""

    a: str
    b: str
    router_a: str
    router_b: str
    hub: str
    spare: str
    street: str

    def all(self) -> tuple[str, ...]:
        return self.a, self.b, self.router_a, self.router_b, self.hub, self.spare, self.street


def nft(namespace: str, rules: str) -> None:
    """Load rules of nftables in a namespace."""
    subprocess.run(["ip", "netns", "exec", namespace, "nft", "-f", "-"], input=rules, text=True, check=True)


def masquerade(router: str, *, symmetric: bool) -> None:
    """Let a router put its own address on what leaves the house; a symmetric one takes a new port for each peer.

    What comes from outside unasked is dropped, at its own doors too: its trace would take the port of the mapping.
    """
    how = "masquerade fully-random" if symmetric else "masquerade"
    nft(
        router,
        f"""table ip nat {{
            chain out {{ type nat hook postrouting priority srcnat; oifname "street" {how}; }}
        }}
        table ip filter {{
            chain through {{ type filter hook forward priority filter; iifname "street" ct state new drop; }}
            chain in {{ type filter hook input priority filter; iifname "street" ct state new drop; }}
        }}""",
    )


def drop(namespace: str, rule: str) -> None:
    """Drop, at a router's or a machine's doors, what a rule says; :func:`pass_again` takes it back."""
    nft(
        namespace,
        f"""table inet lab {{
            chain through {{ type filter hook forward priority -10; {rule} drop; }}
            chain inwards {{ type filter hook input priority -10; {rule} drop; }}
            chain outwards {{ type filter hook output priority -10; {rule} drop; }}
        }}""",
    )


def pass_again(namespace: str) -> None:
    """Let pass what :func:`drop` has stopped."""
    nft(namespace, "delete table inet lab")


def cable(one: str, name: str, other: str, other_name: str) -> None:
    sh("ip", "link", "add", name, "netns", one, "type", "veth", "peer", "name", other_name, "netns", other)
    sh("ip", "-n", one, "link", "set", name, "up")
    sh("ip", "-n", other, "link", "set", other_name, "up")


@contextlib.contextmanager
def houses(*, symmetric_a: bool = False, symmetric_b: bool = False) -> Iterator[Houses]:
    """Build it; ``symmetric`` says what kind of NAT a router is."""
    run = uuid.uuid4().hex[:6]
    names = Houses(*(f"qpch{run}{part}" for part in ("a", "b", "ra", "rb", "h", "s", "st")))
    try:
        for name in names.all():
            sh("ip", "netns", "add", name)
            sh("ip", "-n", name, "link", "set", "lo", "up")
        sh("ip", "-n", names.street, "link", "add", "br0", "type", "bridge")
        sh("ip", "-n", names.street, "link", "set", "br0", "up")
        routers = ((names.router_a, "203.0.113.10"), (names.router_b, "203.0.113.20"))
        for n, (name, ip) in enumerate(((names.hub, HUB), (names.spare, SPARE), *routers)):
            cable(names.street, f"p{n}", name, "street")
            sh("ip", "-n", names.street, "link", "set", f"p{n}", "master", "br0")
            sh("ip", "-n", name, "addr", "add", f"{ip}/24", "dev", "street")
        for n, (house, router, symmetric) in enumerate(
            ((names.a, names.router_a, symmetric_a), (names.b, names.router_b, symmetric_b)), 1
        ):
            cable(router, "house", house, "eth0")
            sh("ip", "-n", router, "addr", "add", f"192.168.{n}.1/24", "dev", "house")
            sh("ip", "-n", house, "addr", "add", f"192.168.{n}.2/24", "dev", "eth0")
            sh("ip", "-n", house, "route", "add", "default", "via", f"192.168.{n}.1")
            sh("ip", "netns", "exec", router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
            masquerade(router, symmetric=symmetric)
        yield names
    finally:
        for name in names.all():
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
