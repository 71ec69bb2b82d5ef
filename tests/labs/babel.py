"""Routers that run babeld: a line of them, or a ring, with nothing but routed addresses between any two."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

from tests.labs.bridge import sh
from tests.labs.houses import cable, nft
from tests.labs.machine import until

BABELD = shutil.which("babeld")
HELLO_S = 1
"""babeld's own default for a wired link is 4 s."""
CONVERGED_S = 40.0


@dataclass
class Routers:
    """The namespaces, in order; router n has 10.77.n.1 and fd77:n::1, and babeld's local interface at ::1."""

    names: list[str]
    running: list[subprocess.Popen[bytes]]

    def addresses(self, n: int) -> tuple[str, str]:
        return f"10.77.{n}.1", f"fd77:{n}::1"

    def routed(self, n: int, to: int) -> bool:
        """Say whether router n has routes of Babel's to both addresses of another."""
        return all(
            json.loads(sh("ip", "-n", self.names[n - 1], "-j", family, "route", "show", prefix, "proto", "babel"))
            for family, prefix in (("-4", f"10.77.{to}.1"), ("-6", f"fd77:{to}::1"))
        )

    def cut(self, n: int, to: int) -> None:
        """Let nothing pass between two neighbours any more, and tell nobody: a radio link that died."""
        nft(
            self.names[n - 1],
            f"""table inet cut{to} {{
                chain inwards {{ type filter hook prerouting priority -400; iifname "to{to}" drop; }}
                chain outwards {{ type filter hook postrouting priority -400; oifname "to{to}" drop; }}
            }}""",
        )

    def repair(self, n: int, to: int) -> None:
        """Let pass again what :meth:`cut` has stopped."""
        nft(self.names[n - 1], f"delete table inet cut{to}")


@contextlib.contextmanager
def routers(count: int, tmp: Path, *, ring: bool = False) -> Iterator[Routers]:
    """Build a line of routers, each cabled to the next; in a ring the last to the first too. Waits for routes."""
    assert BABELD is not None
    run = uuid.uuid4().hex[:6]
    built = Routers([f"qpcr{run}{n}" for n in range(1, count + 1)], [])
    try:
        for n, name in enumerate(built.names, 1):
            sh("ip", "netns", "add", name)
            sh("ip", "-n", name, "link", "set", "lo", "up")
            settings = ("ipv4.ip_forward=1", "ipv6.conf.all.forwarding=1", "ipv6.conf.default.accept_dad=0")
            sh("ip", "netns", "exec", name, "sysctl", "-qw", *(f"net.{setting}" for setting in settings))
            cable(name, "home", name, "plug")
            for address in (f"10.77.{n}.1/24", f"fd77:{n}::1/64"):
                sh("ip", "-n", name, "addr", "add", address, "dev", "home")
        pairs = [(n, n + 1) for n in range(1, count)] + ([(count, 1)] if ring else [])
        for n, to in pairs:
            cable(built.names[n - 1], f"to{to}", built.names[to - 1], f"to{n}")
        for n, name in enumerate(built.names, 1):
            links = [f"to{b}" for a, b in pairs if a == n] + [f"to{a}" for a, b in pairs if b == n]
            command = ["ip", "netns", "exec", name, BABELD, "-I", str(tmp / f"babeld{n}.pid"), "-S", "", "-g", "33123"]
            # Links have no IPv4 network of their own; Babel takes whatever address they have for a next hop.
            for link in links:
                sh("ip", "-n", name, "addr", "add", f"10.77.{n}.1/32", "dev", link)
            command += ["-h", str(HELLO_S), "-H", str(HELLO_S)]
            for rule in ("ip 10.77.0.0/16 allow", "ip fd77::/16 allow", "deny"):
                command += ["-C", f"redistribute local {rule}"]
            built.running.append(
                subprocess.Popen([*command, *links], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
        until(lambda: all(built.routed(a, b) for a, b in permutations(range(1, count + 1), 2)), CONVERGED_S)
        yield built
    finally:
        for babeld in built.running:
            babeld.terminate()
            babeld.wait(10)
        for name in built.names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
