"""Two network namespaces joined by a veth: two machines on one cable, with no internet."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator

import pytest

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None,
    reason="network namespaces need root and the ip command; run the tests as root to include this one",
)


def sh(*command: str) -> str:
    """Run a command that must succeed; return what it printed."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def two_machines() -> Iterator[tuple[str, str]]:
    """Yield the names of two namespaces with 10.99.0.1 and 10.99.0.2 on one link."""
    run = uuid.uuid4().hex[:6]
    names = f"qpc{run}a", f"qpc{run}b"
    try:
        for name in names:
            sh("ip", "netns", "add", name)
            sh("ip", "-n", name, "link", "set", "lo", "up")
        sh("ip", "link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0", "netns", names[1])
        for number, name in enumerate(names, 1):
            sh("ip", "-n", name, "addr", "add", f"10.99.0.{number}/24", "dev", "eth0")
            sh("ip", "-n", name, "link", "set", "eth0", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
