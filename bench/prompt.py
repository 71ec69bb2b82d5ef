"""The prompt on a real terminal: how long until it is there, and how long from a key to its letter on the screen.

Keys are typed one at a time, at random moments, first in quiet, then while another process's node sends messages at a
steady rate over loopback, then in quiet again. ``shown_s`` is how many of them stood on the screen each second.

    python -m bench.prompt [--keys 200] [--rate 500] [--starts 5] [--daemon]
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import pty
import random
import re
import select
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path
from typing import Any

LETTERS = "EFGILNOPQRSTUVWXYZ"
"""Capitals that end no escape sequence of ours and stand in no message of the flood."""
ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[ -/]*[@-~]")
ALONE = {"QPC_NO_DISCOVERY": "1"}
"""Whoever else runs on this machine is not to be met."""
ROWS, COLUMNS = 40, 120
PATIENCE_S = 20.0
PROGRAM = "import sys; from quicprochat.cli import main; sys.exit(main())"


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Prompt:
    """``qpc`` on a terminal of its own."""

    def __init__(self, home: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        environment = {**os.environ, **ALONE, "TERM": "xterm-256color"}
        self.begun = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "--home", home, "--bind", f"127.0.0.1:{free_port()}"],
            stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.shown = 0

    def read(self, timeout_s: float) -> bytes:
        """Return what was drawn meanwhile, without escapes."""
        if not select.select([self.master], [], [], timeout_s)[0]:
            return b""
        text = ESCAPES.sub(b"", os.read(self.master, 65_536))
        self.shown += text.count(b"number ")
        return text

    def until(self, wanted: bytes) -> float:
        """Wait for a text on the screen; return the moment it came."""
        seen = b""
        deadline = time.perf_counter() + PATIENCE_S
        while wanted not in seen:
            if time.perf_counter() > deadline:
                raise SystemExit(f"{wanted!r} did not come; the end of the screen: {seen[-500:]!r}")
            seen = seen[-len(wanted) :] + self.read(0.1)
        return time.perf_counter()

    def idle(self, seconds: float) -> None:
        deadline = time.perf_counter() + seconds
        while (left := deadline - time.perf_counter()) > 0:
            self.read(left)

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def key_to_screen(self, count: int, chance: random.Random) -> list[float]:
        """Type letters one by one; return how many milliseconds each took to appear."""
        took = []
        for n in range(count):
            letter = LETTERS[n % len(LETTERS)].encode()
            if n % len(LETTERS) == 0:
                self.type(b"\x15")  # drops the line
                self.idle(0.3)
            self.idle(chance.uniform(0.05, 0.15))
            start = time.perf_counter()
            self.type(letter)
            took.append((self.until(letter) - start) * 1e3)
        self.type(b"\x15")
        return took

    def end(self) -> None:
        self.type(b"\x15\x04")
        deadline = time.perf_counter() + PATIENCE_S
        while self.process.poll() is None and time.perf_counter() < deadline:
            try:
                self.read(0.1)
            except OSError:
                break
        self.process.wait(PATIENCE_S)
        os.close(self.master)


async def flood(home: str, ticket: str, rate: int) -> None:
    """Send so many messages a second until told to stop."""
    from quicprochat.core.address import Address
    from quicprochat.p2p import Options, P2pNode

    async with P2pNode(Options(Path(home), bind=Address("127.0.0.1", free_port()))) as node:
        peer = await node.add(ticket, "friend")
        await node.wait_linked(peer.key, 10)
        print("linked", flush=True)
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        begun, sent = time.perf_counter(), 0
        under_way: set[asyncio.Task[Any]] = set()
        while not stop.is_set():
            due = int((time.perf_counter() - begun) * rate)
            for n in range(sent, due):
                text = f"number {n} of a flood, as long as what people write to each other on a busy evening"
                task = asyncio.create_task(node.send(peer.key, text))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            sent = max(sent, due)
            await asyncio.sleep(0.01)
        await asyncio.gather(*under_way)
        print(json.dumps({"sent_s": sent / (time.perf_counter() - begun)}), flush=True)


def measure(a: argparse.Namespace, base: str) -> dict[str, Any]:
    chance = random.Random(1)
    starts = []
    for _ in range(a.starts):
        prompt = Prompt(f"{base}/a")
        starts.append(prompt.until(b"> ") - prompt.begun)
        prompt.until(b"link")
        prompt.end()
    daemon = start_daemon(f"{base}/a") if a.daemon else None
    prompt = Prompt(f"{base}/a")
    prompt.until(b"link")
    identity = [sys.executable, "-c", PROGRAM, "identity", "--home", f"{base}/a", "--json"]
    ticket = json.loads(subprocess.run(identity, capture_output=True, text=True, check=True).stdout)["ticket"]
    before = prompt.key_to_screen(a.keys, chance)
    flooding = subprocess.Popen(
        [sys.executable, "-m", "bench.prompt", "--flood", ticket, "--home", f"{base}/b", "--rate", str(a.rate)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert flooding.stdout is not None
    try:
        flooding.stdout.readline()
        prompt.type(f"/accept {key_of(f'{base}/b')} --name friend\r".encode())
        prompt.idle(2)
        prompt.shown, begun = 0, time.perf_counter()
        during = prompt.key_to_screen(a.keys, chance)
        shown_s = prompt.shown / (time.perf_counter() - begun)
        flooding.terminate()
        sent_s = json.loads(flooding.stdout.readline())["sent_s"]
    finally:
        flooding.kill()
        flooding.wait()
    prompt.idle(2)
    after = prompt.key_to_screen(a.keys, chance)
    prompt.end()
    if daemon is not None:
        daemon.terminate()
        daemon.wait()
    return {
        "bench": "prompt",
        "beside_a_daemon": a.daemon,
        "prompt_s": {"median": round(statistics.median(starts), 3), "max": round(max(starts), 3)},
        "key_to_screen_quiet_ms": summary(before),
        "key_to_screen_flood_ms": summary(during),
        "key_to_screen_quiet_again_ms": summary(after),
        "sent_s": round(sent_s),
        "shown_s": round(shown_s),
    }


def start_daemon(home: str) -> subprocess.Popen[str]:
    daemon = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "daemon", "--home", home, "--bind", f"127.0.0.1:{free_port()}"],
        stdout=subprocess.PIPE, text=True, env={**os.environ, **ALONE},
    )  # fmt: skip
    assert daemon.stdout is not None
    daemon.stdout.readline()
    return daemon


def key_of(home: str) -> str:
    return str(json.loads(Path(home, "identity.json").read_text())["public_key"])


def summary(took: list[float]) -> dict[str, float]:
    took = sorted(took)
    return {
        "p50": round(statistics.median(took), 2),
        "p99": round(took[int(0.99 * len(took))], 2),
        "max": round(took[-1], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=200)
    parser.add_argument("--rate", type=int, default=500, help="messages a second")
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--daemon", action="store_true", help="the node runs in a daemon beside the prompt")
    parser.add_argument("--flood", help=argparse.SUPPRESS)
    parser.add_argument("--home", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.flood:
        return asyncio.run(flood(a.home, a.flood, a.rate))
    with tempfile.TemporaryDirectory() as base:
        print(json.dumps(measure(a, base), indent=2))
    return None


if __name__ == "__main__":
    main()
