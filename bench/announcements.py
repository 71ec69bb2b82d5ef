"""A flood of announcements of peers that do not exist: what it costs a node, and whether the real peer is still found.

Three network namespaces on a bridge (needs root). In the first a daemon runs; from the third come made-up
announcements, each with a key and with addresses of its own on this link; while they come, a second daemon starts. A
control does the same without the flood. Twice: all of it as fast as the machine can, and as many over twenty seconds,
so that there is never a quiet moment.

    sudo python -m bench.announcements [--count 10000]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.first_message import Daemon, qpc
from tests.labs.bridge import machines, sh

ROOT = Path(__file__).resolve().parents[1]
SLOW_S = 20.0
SETTLE_S = 3.0


def rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


def peak_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(names: list[str], count: int, per_s: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as base:
        key = json.loads(sh(*qpc(names[1], f"{base}/b", "identity", "--json", "--no-discovery")))["public_key"]
        node = Daemon(names[0], f"{base}/a")
        daemons = [node]
        try:
            node.when("ready ")
            time.sleep(SETTLE_S)
            before, cpu = rss_mb(node.pid), cpu_s(node.pid)
            flooding = None
            if count:
                command = [sys.executable, "-m", "tests.labs.dns", "flood", str(count), str(per_s)]
                flooding = subprocess.Popen(["ip", "netns", "exec", names[2], *command], stdout=subprocess.PIPE)
                time.sleep(1 if per_s < count else 0.1)  # it is in full swing when the real one comes
            real = Daemon(names[1], f"{base}/b")
            daemons.append(real)
            ready = real.when("ready ")
            node.when(f"{key[:8]} is linked")
            found = time.monotonic() - real.started - ready
            if flooding is not None:
                flooding.communicate(timeout=120)
            time.sleep(SLOW_S + SETTLE_S if not count else SETTLE_S)
            peers = json.loads(sh(*qpc(names[0], f"{base}/a", "mesh", "peers", "--json")))
            return {
                "found_s": round(max(0.0, found), 3),
                "rss_before_mb": round(before, 1),
                "rss_after_mb": round(rss_mb(node.pid), 1),
                "rss_peak_mb": round(peak_mb(node.pid), 1),
                "cpu_s": round(cpu_s(node.pid) - cpu, 2),
                "listed": len(peers),
                "linked": sum(peer["linked"] for peer in peers),
            }
        finally:
            for daemon in daemons:
                daemon.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    a = parser.parse_args()
    os.environ["PYTHONPATH"] = f"{ROOT / 'src'}:{ROOT}"
    out: dict[str, Any] = {"bench": "announcements", "count": a.count}
    with machines(3) as names:
        out["control"] = run(names, 0, 0)
        out["fast"] = run(names, a.count, 1e9)
        out["slow"] = run(names, a.count, a.count / SLOW_S)
    idle = out["control"]["rss_peak_mb"] - out["control"]["rss_before_mb"]
    for name in ("fast", "slow"):
        grown = out[name]["rss_peak_mb"] - out[name]["rss_before_mb"]
        out[name]["grown_more_than_control_mb"] = round(grown - idle, 1)
    print(json.dumps(out, indent=2))


if __name__ == "__main__":
    main()
