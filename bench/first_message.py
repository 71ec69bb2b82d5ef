"""From starting a node to its first delivered message, with nobody telling it where the other is.

Two network namespaces on a bridge (needs root). In the first a daemon runs, with a message for the second node's key in
its outbox and no address of it. Then the second daemon is started in a new home; measured are the moments at which it
is ready, finds the other or is found, is linked, and the message is signed for by it.

    sudo python -m bench.first_message [--runs 7]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from tests.labs.bridge import machines, sh

PROGRAM = "import sys; from quicprochat.cli import main; sys.exit(main())"
PARTS = {"ready": "ready ", "found": " is announced at ", "linked": " is linked"}
PATIENCE_S = 20.0


def qpc(name: str, home: str, *arguments: str) -> list[str]:
    return ["ip", "netns", "exec", name, sys.executable, "-c", PROGRAM, "--home", home, *arguments]


class Daemon:
    """A node whose output is read as it comes, each line with its moment."""

    def __init__(self, name: str, home: str) -> None:
        self.started = time.monotonic()
        self._process = subprocess.Popen(
            qpc(name, home, "daemon", "-v"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._lines: list[tuple[float, str]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append((time.monotonic(), line))

    def when(self, words: str) -> float:
        """Return when a line with these words came, in seconds since the start; waits for it."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            for at, line in tuple(self._lines):
                if words in line:
                    return at - self.started
            time.sleep(0.005)
        raise SystemExit(f"the daemon never said {words!r}: {self._lines}")

    @property
    def pid(self) -> int:
        """The daemon's own: ip netns exec replaces itself by it."""
        return self._process.pid

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)


def run(base: str, names: list[str]) -> dict[str, float]:
    homes = [f"{base}/a", f"{base}/b"]
    key = json.loads(sh(*qpc(names[1], homes[1], "identity", "--json", "--no-discovery")))["public_key"]
    first = Daemon(names[0], homes[0])
    second: Daemon | None = None
    try:
        first.when("ready ")
        sent = json.loads(sh(*qpc(names[0], homes[0], "send", key, "hello", "--json")))
        wait = ("send", key, "and again", "--wait", "delivered", "--timeout", str(PATIENCE_S), "--json")
        waiting = subprocess.Popen(qpc(names[0], homes[0], *wait), stdout=subprocess.PIPE, text=True)
        time.sleep(2)  # a first node that has been there for a while, and a call that waits already
        second = Daemon(names[1], homes[1])
        parts: dict[str, Any] = {part: second.when(words) for part, words in PARTS.items()}
        out, _ = waiting.communicate(timeout=PATIENCE_S)
        parts["delivered"] = time.monotonic() - second.started
        assert json.loads(out)["state"] == "delivered"
        trace = json.loads(sh(*qpc(names[0], homes[0], "trace", sent["id"], "--json")))
        assert trace["state"] == "delivered", trace
        return parts
    finally:
        first.stop()
        if second is not None:
            second.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    a = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1] / "src")
    runs = []
    with machines(2) as names:
        for _ in range(a.runs):
            with tempfile.TemporaryDirectory() as base:
                runs.append(run(base, names))
    median = {part: round(statistics.median(r[part] for r in runs), 3) for part in runs[0]}
    worst = {part: round(max(r[part] for r in runs), 3) for part in runs[0]}
    bare = min(timed(sys.executable, "-c", "pass") for _ in range(3))
    out = {"bench": "first_message", "runs": a.runs, "seconds": median, "worst": worst, "bare_python_s": bare}
    print(json.dumps(out, indent=2))


def timed(*command: str) -> float:
    start = time.perf_counter()
    sh(*command)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
