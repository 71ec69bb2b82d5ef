"""What a node costs that does nothing: time to start, memory, CPU, and bytes at the interface of one linked pair.

Two daemons in two network namespaces joined by a veth (needs root). Beside them, in the same run, what the bare Python
interpreter with the same libraries needs.

    sudo python -m bench.idle [--seconds 60] [--qpc .venv/bin/qpc]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NAMES = ("qpcidleA", "qpcidleB")
ADDRESSES = ("10.77.77.1", "10.77.77.2")


def sh(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def build() -> None:
    for name in NAMES:
        sh("ip", "netns", "add", name)
        sh("ip", "-n", name, "link", "set", "lo", "up")
    sh("ip", "link", "add", "v0", "netns", NAMES[0], "type", "veth", "peer", "name", "v0", "netns", NAMES[1])
    for name, address in zip(NAMES, ADDRESSES, strict=True):
        sh("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "v0")
        sh("ip", "-n", name, "link", "set", "v0", "up")


def tear_down() -> None:
    for name in NAMES:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def interface_bytes() -> tuple[int, int]:
    """Return received and sent bytes at the first node's interface, Ethernet headers included."""
    stats = json.loads(sh("ip", "-n", NAMES[0], "-j", "-s", "link", "show", "dev", "v0"))[0]["stats64"]
    return stats["rx"]["bytes"], stats["tx"]["bytes"]


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


def timed(*command: str) -> float:
    """Return the median seconds of five runs."""
    runs = []
    for _ in range(5):
        start = time.perf_counter()
        sh(*command)
        runs.append(time.perf_counter() - start)
    return statistics.median(runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--qpc", default=str(Path(sys.executable).with_name("qpc")))
    a = parser.parse_args()
    out: dict[str, object] = {"bench": "idle", "seconds": a.seconds}
    out["version_s"] = timed(a.qpc, "--version")
    out["bare_python_s"] = timed(sys.executable, "-c", "pass")
    bare = subprocess.run(
        [sys.executable, "-c", "import iroh, apsw, nacl.bindings, asyncio; print(open('/proc/self/status').read())"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    out["bare_libraries_rss_mb"] = int(bare.stdout.split("VmRSS:")[1].split()[0]) / 1024
    daemons: list[subprocess.Popen[str]] = []
    with tempfile.TemporaryDirectory() as base:
        try:
            build()
            ready = []
            for name in NAMES:
                start = time.perf_counter()
                daemon = subprocess.Popen(
                    ["ip", "netns", "exec", name, a.qpc, "daemon", "--home", f"{base}/{name}"],
                    stdout=subprocess.PIPE, text=True,
                )  # fmt: skip
                daemons.append(daemon)
                assert daemon.stdout is not None
                assert daemon.stdout.readline().startswith("ready")
                ready.append(time.perf_counter() - start)
            out["ready_s"] = max(ready)
            ticket = json.loads(sh(a.qpc, "mesh", "identity", "--json", "--home", f"{base}/{NAMES[1]}"))["ticket"]
            home = ("--home", f"{base}/{NAMES[0]}")
            sh(a.qpc, "mesh", "add", ticket, "--name", "b", *home)
            sh(a.qpc, "mesh", "send", "b", "hello", "--wait", "delivered", "--timeout", "10", *home)
            time.sleep(5)
            pids = [daemon.pid for daemon in daemons]  # ip netns exec replaces itself by the daemon
            cpu, before = [cpu_s(pid) for pid in pids], interface_bytes()
            time.sleep(a.seconds)
            after = interface_bytes()
            out["cpu_percent"] = [100 * (cpu_s(pid) - c) / a.seconds for pid, c in zip(pids, cpu, strict=True)]
            out["rss_mb"] = [rss_mb(pid) for pid in pids]
            minute = 60 / a.seconds
            out["rx_bytes_min"] = (after[0] - before[0]) * minute
            out["tx_bytes_min"] = (after[1] - before[1]) * minute
        finally:
            for daemon in daemons:
                daemon.terminate()
                daemon.wait(10)
            tear_down()
    print(json.dumps(out, indent=2))


if __name__ == "__main__":
    main()
