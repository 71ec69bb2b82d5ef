"""A cable: two machines on one network of their own."""

from __future__ import annotations

from tests.labs.bridge import sh
from tests.labs.machine import Machine


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
