"""Network namespaces, each in a network of its own, behind one router that forwards between them and can drop."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator

import pytest
from tests.labs.bridge import sh

needs_router = pytest.mark.skipif(
    os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("nft")),
    reason="a router between namespaces needs root, ip and nft; run the tests as root to include this one",
)


def address(number: int) -> str:
    """Return where a machine is, counted from 1."""
    return f"10.96.{number}.1"


class Router:
    """``name`` is its namespace's. What it does to packets holds in both directions."""

    def __init__(self, name: str) -> None:
        self.name = name

    def cut(self, one: int, other: int) -> None:
        """Let no packet through between two machines from now on."""
        for a, b in ((one, other), (other, one)):
            self._nft("add", "rule", "inet", "lab", "way", f"ip saddr {address(a)} ip daddr {address(b)} drop")

    def lose(self, percent: int) -> None:
        """Drop packets at random."""
        self._nft("add", "rule", "inet", "lab", "way", f"numgen random mod 100 < {percent} counter drop")

    def heal(self) -> None:
        """Let everything through again."""
        self._nft("flush", "chain", "inet", "lab", "way")

    def rules(self) -> str:
        """Return its rules, with what they have counted."""
        return self._nft("list", "chain", "inet", "lab", "way")

    def _nft(self, *words: str) -> str:
        return sh("ip", "netns", "exec", self.name, "nft", *words)


@contextlib.contextmanager
def routed(count: int) -> Iterator[tuple[Router, list[str]]]:
    """Yield a router and the names of the namespaces behind it, at :func:`address` 1, 2 and so on."""
    run = uuid.uuid4().hex[:6]
    router, names = Router(f"qpcr{run}"), [f"qpcr{run}{n}" for n in range(1, count + 1)]
    try:
        for name in [router.name, *names]:
            sh("ip", "netns", "add", name)
            sh("ip", "-n", name, "link", "set", "lo", "up")
        for n, name in enumerate(names, 1):
            sh("ip", "-n", router.name, "link", "add", f"v{n}", "type", "veth", "peer", "name", "eth0", "netns", name)
            sh("ip", "-n", router.name, "addr", "add", f"10.96.{n}.254/24", "dev", f"v{n}")
            sh("ip", "-n", router.name, "link", "set", f"v{n}", "up")
            sh("ip", "-n", name, "addr", "add", f"{address(n)}/24", "dev", "eth0")
            sh("ip", "-n", name, "link", "set", "eth0", "up")
            sh("ip", "-n", name, "route", "add", "default", "via", f"10.96.{n}.254")
        sh("ip", "netns", "exec", router.name, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        router._nft("add", "table", "inet", "lab")
        router._nft("add", "chain", "inet", "lab", "way", "{ type filter hook forward priority 0 ; }")
        yield router, names
    finally:
        for name in [*names, router.name]:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
