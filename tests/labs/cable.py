"""Cables: each joins two machines on a network of their own; and machines that have none yet."""

from __future__ import annotations

import contextlib
import subprocess
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.labs.bridge import sh
from tests.labs.machine import Machine


@contextlib.contextmanager
def alone(place: Path, letters: Iterable[str]) -> Iterator[list[Machine]]:
    """Yield machines that have themselves only, one for each letter, with homes in ``place``."""
    run = uuid.uuid4().hex[:6]
    found = [Machine(f"qpcl{run}{letter}", place / letter) for letter in letters]
    try:
        for machine in found:
            sh("ip", "netns", "add", machine.name)
            machine.ip("link", "set", "lo", "up")
        yield found
    finally:
        for machine in found:
            try:
                machine.stop()
            finally:
                subprocess.run(["ip", "netns", "del", machine.name], check=False, capture_output=True)


class Cable:
    """``number`` is that of the network, 10.96.number.0/24, and of the device ``cN`` at both ends."""

    def __init__(self, number: int, left: Machine, right: Machine) -> None:
        self.device = f"c{number}"
        self.left = left
        sh("ip", "link", "add", self.device, "netns", left.name, "type", "veth", "peer", "name", self.device,
           "netns", right.name)  # fmt: skip
        for host, machine in enumerate((left, right), 1):
            machine.ip("addr", "add", f"10.96.{number}.{host}/24", "dev", self.device)
            machine.ip("link", "set", self.device, "up")

    def unplug(self) -> None:
        """No packet gets through any more."""
        self.left.ip("link", "set", self.device, "down")

    def plug(self) -> None:
        self.left.ip("link", "set", self.device, "up")

    def cut(self) -> None:
        """Take it away for good."""
        self.left.ip("link", "del", self.device)
