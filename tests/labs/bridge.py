"""Network namespaces on one bridge: machines on one switch, with no internet."""

from __future__ import annotations

import contextlib
import subprocess
import uuid
from collections.abc import Iterator


def sh(*command: str) -> str:
    """Run a command that must succeed; return what it printed."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def machines(count: int) -> Iterator[list[str]]:
    """Yield the names of namespaces with 10.97.0.1/24 and fd97::1/64, 10.97.0.2/24 and so on, on their eth0."""
    run = uuid.uuid4().hex[:6]
    bridge, names = f"qpcb{run}", [f"qpcb{run}{n}" for n in range(1, count + 1)]
    try:
        for name in [bridge, *names]:
            sh("ip", "netns", "add", name)
            sh("ip", "-n", name, "link", "set", "lo", "up")
        sh("ip", "-n", bridge, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        sh("ip", "-n", bridge, "link", "set", "br0", "up")
        for n, name in enumerate(names, 1):
            sh("ip", "-n", bridge, "link", "add", f"v{n}", "type", "veth", "peer", "name", "eth0", "netns", name)
            sh("ip", "-n", bridge, "link", "set", f"v{n}", "master", "br0", "up")
            sh("ip", "-n", name, "addr", "add", f"10.97.0.{n}/24", "dev", "eth0")
            sh("ip", "-n", name, "addr", "add", f"fd97::{n}/64", "dev", "eth0", "nodad")
            sh("ip", "-n", name, "link", "set", "eth0", "up")
        yield names
    finally:
        for name in [*names, bridge]:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
