"""What goes over a cable, recorded with tshark where it is installed, else with tcpdump.

``make test`` installs tcpdump only: tshark brings 120 MB of dissectors. Both record the same packets, and what is
looked for is searched in their bytes; tshark searches what it dissected as well.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from tests.labs.bridge import sh
from tests.labs.machine import PATIENCE_S


class Capture:
    """Records every packet of what is said on UDP, as one machine sees it on one device."""

    def __init__(self, machine: str, path: Path, device: str = "br0") -> None:
        self.path = path
        self._tool = next((tool for tool in ("tshark", "tcpdump") if shutil.which(tool)), None)
        if self._tool is None:
            pytest.skip("neither tshark nor tcpdump is installed")
        path.touch(mode=0o666)  # tcpdump writes as a user of its own
        form = ["-U", "-Z", "root"] if self._tool == "tcpdump" else ["-F", "pcap"]
        options = ["-i", device, "-w", str(path), *form]
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", machine, self._tool, *options, *(["-f"] if self._tool == "tshark" else []), "udp"],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stderr is not None
        said = ""
        while not ("listening on" in said or "Capture started" in said):
            line = self._process.stderr.readline()
            assert line, said
            said += line

    def end(self) -> bytes:
        """Stop, and return what was recorded."""
        self._process.send_signal(signal.SIGINT)
        self._process.communicate(timeout=PATIENCE_S)
        return self.path.read_bytes()

    def packets(self, expression: str) -> int | None:
        """Return how many packets match a display filter; None without tshark."""
        if self._tool != "tshark":
            return None
        found = sh("tshark", "-n", "-r", str(self.path), "-d", "udp.port==7000,quic", "-Y", expression)
        return len(found.splitlines())
